"""Types of columns of text: one type for a column, taken only where it loses nothing that the text had.

`007` is text, for its zeros are part of it, and so is `+49301234`; `0.5`, `-0` and `1e5` are numbers. An integer beyond
int64 makes the column decimal(38,0), which stays exact where the engine's HUGEINT would leave as a double in Parquet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
# Integers up to here are exact as a double.
EXACT_DOUBLE_MAX = 2**53 - 1
# A file whose sampled integers stay below this may be read through doubles; its guard speaks up beyond 2**53.
MODEST_INT_MAX = 2**31

# Texts that stand for "no value" in a column that is otherwise numbers, times or booleans.
MISSING = frozenset({"NA", "N/A", "n/a", "#N/A", "NULL", "null", "None", "\\N"})

_NUMBER = r"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"

BOOL = re.compile(r"true|false|True|False|TRUE|FALSE")
INT = re.compile(r" *-?(?:0|[1-9]\d*) *")
DOUBLE = re.compile(rf" *(?:{_NUMBER}|-?[iI]nf(?:inity)?|NaN|nan) *")
DATE = re.compile(_DATE)
TIMESTAMP = re.compile(rf"{_DATE}([T ]){_TIME}(?:(:[0-5]\d)(\.\d{{1,6}})?)?")
TIMESTAMP_NS = re.compile(rf"{_DATE}[T ]{_TIME}:[0-5]\d(?:\.\d{{1,9}})?")
TIMESTAMP_UTC = re.compile(rf"{_DATE}[T ]{_TIME}(?::[0-5]\d(?:\.\d{{1,6}})?)? ?(?:Z|[+-]\d\d(?::?\d\d)?)")
TIME = re.compile(rf"{_TIME}:[0-5]\d(?:\.\d{{1,6}})?")
VECTOR = re.compile(rf"\[ *{_NUMBER}(?:(?: *, *| +){_NUMBER})* *\]")
SPACED_VECTOR = re.compile(rf"\[ *{_NUMBER}(?: +{_NUMBER})* *\]")


@dataclass(frozen=True, slots=True)
class Inferred:
    """The type of a column of text.

    Attributes:
        type: as the engine names it.
        missing: marks read as NULL beside the empty text.
        formats: of a date or timestamp, as strptime writes them.
        modest: integers whose sampled values are all below 2**31.
        spaced: vectors, of which some have no commas.
        declared: a caller fixed the type, so that the sample proves nothing about the values.
    """

    type: str
    missing: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    modest: bool = False
    spaced: bool = False
    declared: bool = False

    @property
    def is_text(self) -> bool:
        return self.type == "VARCHAR"


TEXT = Inferred("VARCHAR")


def infer(cells: Iterable[str | None], null_values: Sequence[str] | None = None) -> Inferred:
    """The type of a column from sampled cells. About 0.3 us a distinct cell.

    Args:
        cells: the texts, in any order; None and "" are NULL.
        null_values: texts that are NULL; None looks for the marks in `MISSING` too.
    """
    values = {cell for cell in cells if cell}
    if null_values is not None:
        values -= set(null_values)
    if not values:
        return TEXT
    found = _infer(values)
    if not found.is_text or null_values is not None:
        return found
    if (marks := values & MISSING) and (rest := values - marks):
        bare = _infer(rest)
        if not bare.is_text:
            return Inferred(bare.type, tuple(sorted(marks)), bare.formats, bare.modest, bare.spaced)
    return TEXT


def _infer(values: set[str]) -> Inferred:
    first = next(iter(values))
    if INT.fullmatch(first) or DOUBLE.fullmatch(first):
        return _number(values)
    if first.startswith("["):
        return _vector(values)
    if _all(BOOL, values):
        return Inferred("BOOLEAN")
    if first[:1].isdigit():
        return _temporal(values)
    return TEXT


def _all(pattern: re.Pattern[str], values: Iterable[str]) -> bool:
    return all(map(pattern.fullmatch, values))


def _number(values: set[str]) -> Inferred:
    if not _all(DOUBLE, values):
        return TEXT
    if not _all(INT, values):
        return Inferred("DOUBLE")
    digits = max(len(value.strip().lstrip("-")) for value in values)
    if digits < 10:
        return Inferred("BIGINT", modest=True)
    if digits > 38:
        return TEXT
    numbers = [int(value) for value in values]
    return integer_type(min(numbers), max(numbers))


def integer_type(smallest: int, largest: int) -> Inferred:
    """The type that holds integers between these two exactly."""
    if smallest < INT64_MIN or largest > INT64_MAX:
        return Inferred("DECIMAL(38,0)") if max(-smallest, largest) < 10**38 else TEXT
    return Inferred("BIGINT", modest=max(-smallest, largest) < MODEST_INT_MAX)


def _vector(values: set[str]) -> Inferred:
    if not _all(VECTOR, values):
        return TEXT
    sizes = {len(vector_cells(value)) for value in values}
    if len(sizes) != 1:
        return TEXT
    spaced = any(len(vector_cells(value)) > 1 and "," not in value for value in values)
    # A mix such as "1, 2 3" is no list for the engine's own cast either.
    spaced = spaced or any(value.count(",") not in (0, next(iter(sizes)) - 1) for value in values)
    return Inferred(f"FLOAT[{sizes.pop()}]", spaced=spaced)


def vector_cells(text: str) -> list[str]:
    """The numbers of `[1, 2 3]` as texts."""
    return [cell for cell in re.split(r"[ ,]+", text.strip("[] ")) if cell]


def _temporal(values: set[str]) -> Inferred:
    if _all(DATE, values):
        return Inferred("DATE", formats=("%Y-%m-%d",)) if all(map(_is_day, values)) else TEXT
    if not all(_is_day(value[:10]) for value in values):
        return Inferred("TIME") if _all(TIME, values) else TEXT
    matches = [TIMESTAMP.fullmatch(value) for value in values]
    if all(matches):
        formats = {_timestamp_format(match) for match in matches if match is not None}
        return Inferred("TIMESTAMP", formats=tuple(sorted(formats)))
    if _all(TIMESTAMP_UTC, values):
        return Inferred("TIMESTAMP WITH TIME ZONE")
    if _all(TIMESTAMP_NS, values):
        return Inferred("TIMESTAMP_NS")
    return TEXT


def _timestamp_format(match: re.Match[str]) -> str:
    separator, seconds, fraction = match.groups()
    return f"%Y-%m-%d{separator}%H:%M" + (":%S" if seconds else "") + (".%f" if fraction else "")


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
