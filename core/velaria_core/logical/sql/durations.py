"""Durations: how long a window, a slide or a delay is, in milliseconds, from any way to write it.

`300000` (milliseconds), `'5 minutes'`, `'1 hour 30 minutes'`, `'00:05:00'`, `INTERVAL 5 MINUTES`,
`INTERVAL '5' MINUTE`. Months and years have no fixed length and are refused.
"""

from __future__ import annotations

import re
from typing import Final

from sqlglot import exp

# Microseconds of a unit; its plural and these short forms mean the same.
_UNITS: Final = {
    "microsecond": 1,
    "millisecond": 1_000,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 7 * 86_400_000_000,
}
_SHORT: Final = {
    "us": "microsecond",
    "usec": "microsecond",
    "ms": "millisecond",
    "msec": "millisecond",
    "s": "second",
    "sec": "second",
    "m": "minute",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "d": "day",
    "w": "week",
}
_CALENDAR: Final = frozenset({"month", "mon", "quarter", "year", "y", "decade", "century", "millennium"})
_PART: Final = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*,?")
_CLOCK: Final = re.compile(r"\s*(\d+):(\d\d)(?::(\d\d(?:\.\d+)?))?\s*\Z")


class NotADuration(ValueError):
    """The text is no fixed length of time; the message says why."""


def milliseconds(text: str) -> int:
    """The milliseconds of a text such as `5 minutes`; zero and negative lengths are the caller's to judge.

    Raises:
        NotADuration: no number and unit, an unknown or calendar unit, or a fraction of a millisecond.
    """
    total, at = 0.0, 0
    text = text.strip()
    if found := _CLOCK.match(text):
        hours, minutes, seconds = int(found[1]), int(found[2]), float(found[3] or 0)
        return _whole((hours * 3_600 + minutes * 60 + seconds) * 1_000_000, text)
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise NotADuration(f"'{text}' is not a length of time")
        total += float(part[1]) * unit_microseconds(part[2])
        at = part.end()
    if not text:
        raise NotADuration("the length of time is empty")
    return _whole(total, text)


def unit_microseconds(unit: str) -> int:
    """The microseconds of a unit, by any of its names.

    Raises:
        NotADuration: it is unknown, or a month or year.
    """
    name = unit.lower()
    name = _SHORT.get(name, name)
    if name not in _UNITS and name.endswith("s"):
        name = _SHORT.get(name[:-1], name[:-1])
    if name in _CALENDAR:
        raise NotADuration(f"a {name} has no fixed length; use days or weeks")
    if name not in _UNITS:
        raise NotADuration(f'"{unit}" is no unit of time; units: {", ".join(_UNITS)}')
    return _UNITS[name]


def is_unit(text: str) -> bool:
    """Whether a word names a unit of time, a calendar one included."""
    name = text.lower()
    return any(one in _UNITS or one in _SHORT or one in _CALENDAR for one in (name, name.removesuffix("s")))


def interval_milliseconds(tree: exp.Expr) -> int:
    """The milliseconds of a literal tree: a whole number of them, a text, or an INTERVAL.

    Raises:
        NotADuration: it is anything else.
    """
    if isinstance(tree, exp.Paren):
        return interval_milliseconds(tree.this)
    if isinstance(tree, exp.Literal):
        if tree.is_string:
            return milliseconds(tree.name)
        if tree.name.isdigit():
            return int(tree.name)
    if isinstance(tree, exp.Interval) and isinstance(tree.this, exp.Literal):
        unit = tree.args.get("unit")
        return milliseconds(f"{tree.this.name} {unit.name}" if unit is not None else tree.this.name)
    if isinstance(tree, exp.Cast) and tree.is_type("interval") and isinstance(tree.this, exp.Literal):
        return milliseconds(tree.this.name)
    raise NotADuration(f"{tree.sql('duckdb')} is not a literal length of time")


def _whole(microseconds: float, text: str) -> int:
    if round(microseconds) % 1_000:
        raise NotADuration(f"'{text}' is not a whole number of milliseconds")
    return round(microseconds) // 1_000
