"""Showing rows to people: a box of text for terminals, a table of HTML for notebooks.

Values are read as Arrow scalars, not as Python objects, so that what Python cannot hold (nanoseconds, the year
300000) is shown as it is. Control characters are escaped: a value cannot steer the terminal.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa

from velaria_core.errors import display_width
from velaria_core.types import type_name

NULL: Final = "NULL"
HTML_COLUMNS_MAX: Final = 20

_CUT = "…"
# Without a terminal to ask, as in a pipe.
_WIDTH_UNKNOWN = 120
# Columns are narrowed down to this before whole columns are left out.
_COLUMN_WIDTH_MIN = 16
# What a column takes beside its cells: a space on both sides, and a line.
_FRAME_WIDTH = 3
_KIND_WIDTH_MAX = 16
_CELL_CHARACTERS_MAX = 1000
_HTML_CHARACTERS_MAX = 200
_NESTED_ITEMS_MAX = 50


def text_table(table: pa.Table, max_rows: int, width: int | None = None) -> str:
    """A box with names, types and the first `max_rows` rows; the line below tells when there are more.

    Args:
        width: of the terminal; None asks it. In a wider table the longest texts are cut, then columns in the
            middle are left out.
    """
    if width is None:
        width = shutil.get_terminal_size((_WIDTH_UNKNOWN, 24)).columns
    columns = _columns(table, max_rows)
    shown, widths = _fitted(columns, width)
    lines: list[str] = []
    if shown:
        bars = ["─" * (size + 2) for size in widths]
        lines.append(f"┌{'┬'.join(bars)}┐")
        lines.append(_line(shown, widths, [column.name for column in shown]))
        lines.append(_line(shown, widths, [column.kind for column in shown]))
        lines.append(f"├{'┼'.join(bars)}┤")
        lines += [_line(shown, widths, row) for row in _rows(shown)]
        lines.append(f"└{'┴'.join(bars)}┘")
    lines.append(_footer(table, max_rows, sum(not column.is_gap for column in shown)))
    return "\n".join(lines)


def html_table(table: pa.Table, max_rows: int) -> str:
    """The first `max_rows` rows as HTML, at most 20 columns; every text is escaped."""
    columns = _columns(table, max_rows)
    shown = columns
    if len(columns) > HTML_COLUMNS_MAX:
        half = HTML_COLUMNS_MAX // 2
        shown = [*columns[:half], _gap(columns), *columns[-half:]]

    def cell(tag: str, column: _Column, content: str) -> str:
        return f'<{tag} style="text-align: {"right" if column.is_number else "left"}">{content}</{tag}>'

    head = "".join(
        cell("th", column, f"{html.escape(column.name)}<br><small>{html.escape(column.kind)}</small>")
        for column in shown
    )
    rows = [
        "".join(
            cell("td", column, html.escape(_cut(text, _HTML_CHARACTERS_MAX)))
            for column, text in zip(shown, row, strict=True)
        )
        for row in _rows(shown)
    ]
    return "\n".join(
        [
            '<table class="velaria">',
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *(f"<tr>{row}</tr>" for row in rows),
            "</tbody>",
            "</table>",
            f"<small>{_footer(table, max_rows, sum(not column.is_gap for column in shown))}</small>",
        ]
    )


# --- layout ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """A column as texts; a gap stands for columns that are left out."""

    name: str
    kind: str
    cells: tuple[str, ...]
    is_number: bool = False
    is_gap: bool = False

    def width(self) -> int:
        """What the column needs for nothing to be cut but a long type."""
        kind = min(display_width(self.kind), _KIND_WIDTH_MAX)
        return max(1, kind, display_width(self.name), *(display_width(cell) for cell in self.cells))


def _columns(table: pa.Table, max_rows: int) -> list[_Column]:
    made = []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = field.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        cells = tuple(cell_text(scalar) for scalar in column.slice(0, max_rows))
        made.append(_Column(escaped(field.name), escaped(type_name(kind)), cells, number))
    return made


def _gap(columns: Sequence[_Column]) -> _Column:
    return _Column(_CUT, "", (_CUT,) * len(columns[0].cells), is_gap=True)


def _rows(columns: Sequence[_Column]) -> Iterable[tuple[str, ...]]:
    return zip(*(column.cells for column in columns), strict=True)


def _fitted(columns: Sequence[_Column], width: int) -> tuple[list[_Column], list[int]]:
    """The columns that fit, a gap among them where some do not, and how wide each is."""
    needed = [column.width() for column in columns]
    room = width - 1 - _FRAME_WIDTH * len(columns)
    if sum(min(size, _COLUMN_WIDTH_MIN) for size in needed) <= room:
        return list(columns), _narrowed(needed, room)
    room = width - 1 - _FRAME_WIDTH - 1
    # From both ends inwards: the first columns name a row, the last ones are often what was computed.
    last = len(columns) - 1
    kept: list[int] = []
    for step in range(len(columns)):
        at = step // 2 if step % 2 == 0 else last - step // 2
        size = _FRAME_WIDTH + min(needed[at], _COLUMN_WIDTH_MIN)
        if kept and size > room:
            break
        room -= size
        kept.append(at)
    if len(kept) == len(columns):  # a single column, wider than the terminal
        return list(columns), [min(size, _COLUMN_WIDTH_MIN) for size in needed]
    kept.sort()
    spare = room + sum(min(needed[at], _COLUMN_WIDTH_MIN) for at in kept)
    shown, widths = [columns[at] for at in kept], _narrowed([needed[at] for at in kept], spare)
    middle = next((n for n, at in enumerate(kept) if n != at), len(kept))
    return (
        [*shown[:middle], _gap(columns), *shown[middle:]],
        [*widths[:middle], 1, *widths[middle:]],
    )


def _narrowed(needed: Sequence[int], room: int) -> list[int]:
    """The needed widths, the widest made smaller until they fit, but none smaller than the least."""
    limit = max(needed, default=0)
    while limit > _COLUMN_WIDTH_MIN and sum(min(size, limit) for size in needed) > room:
        limit -= 1
    return [min(size, limit) for size in needed]


def _line(columns: Sequence[_Column], widths: Sequence[int], texts: Sequence[str]) -> str:
    cells = []
    for column, width, text in zip(columns, widths, texts, strict=True):
        shown = _cut(text, width)
        padding = " " * (width - display_width(shown))
        cells.append(f" {padding}{shown} " if column.is_number else f" {shown}{padding} ")
    return f"│{'│'.join(cells)}│"


def _cut(text: str, width: int) -> str:
    """`text` in at most `width` columns; an ellipsis tells that it is longer."""
    if display_width(text) <= width:
        return text
    used, end = 0, 0
    for ch in text:
        used += display_width(ch)
        if used > width - 1:
            break
        end += 1
    return text[:end] + _CUT


def _footer(table: pa.Table, max_rows: int, columns_shown: int) -> str:
    if table.num_rows > max_rows:
        rows = f"{max_rows} of more rows"
    else:
        rows = f"{table.num_rows} row{'s' if table.num_rows != 1 else ''}"
    if columns_shown == table.num_columns:
        return rows
    return f"{rows}, {columns_shown} of {table.num_columns} columns"


# --- values ------------------------------------------------------------------------------------------------------


def cell_text(scalar: pa.Scalar) -> str:
    """One value as text: NULL, true, 1.5, 2024-01-31 10:20:30.5, [1, 2], {x: 1}; texts inside others are quoted."""
    kind = scalar.type
    if pa.types.is_dictionary(kind) or pa.types.is_union(kind) or isinstance(kind, pa.BaseExtensionType):
        return cell_text(scalar.value) if scalar.value is not None else NULL
    if not scalar.is_valid:
        return NULL
    return next((text(scalar) for test, text in _TEXTS if test(kind)), None) or escaped(str(scalar.as_py()))


def _nested(scalar: pa.Scalar) -> str:
    text = cell_text(scalar)
    return "'" + text.replace("'", "''") + "'" if scalar.is_valid and _is_text(scalar.type) else text


def _listed(values: Iterable[str]) -> str:
    shown = list(islice(values, _NESTED_ITEMS_MAX + 1))
    if len(shown) > _NESTED_ITEMS_MAX:
        shown[-1] = _CUT
    return ", ".join(shown)


def _string(scalar: pa.Scalar) -> str:
    text = str(scalar.as_py())
    # What no line can hold is not worth escaping.
    return escaped(text if len(text) <= _CELL_CHARACTERS_MAX else text[:_CELL_CHARACTERS_MAX] + _CUT)


def _binary(scalar: pa.Scalar) -> str:
    data: bytes = scalar.as_py()
    shown = "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02X}" for b in data[:_CELL_CHARACTERS_MAX])
    return shown + (_CUT if len(data) > _CELL_CHARACTERS_MAX else "")


def _float(scalar: pa.Scalar) -> str:
    """The shortest digits that give the number back in its own precision."""
    return str(scalar.type.to_pandas_dtype()(scalar.as_py()))


def _list(scalar: pa.Scalar) -> str:
    return f"[{_listed(_nested(item) for item in scalar.values)}]"


def _struct(scalar: pa.Scalar) -> str:
    names = [field.name for field in scalar.type]
    return f"{{{_listed(f'{escaped(name)}: {_nested(scalar[at])}' for at, name in enumerate(names))}}}"


def _map(scalar: pa.Scalar) -> str:
    return f"{{{_listed(f'{_nested(entry[0])}: {_nested(entry[1])}' for entry in scalar.values)}}}"


_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_INFINITE = {2**63 - 1: "infinity", -(2**63) + 1: "-infinity"}
_INFINITE_DATE = {2**31 - 1: "infinity", -(2**31) + 1: "-infinity"}


def _date(scalar: pa.Scalar) -> str:
    days = scalar.value if scalar.type.bit_width == 32 else scalar.value // 86_400_000
    return _INFINITE_DATE.get(days) or str(np.datetime64(days, "D"))


def _timestamp(scalar: pa.Scalar) -> str:
    if infinite := _INFINITE.get(scalar.value):
        return infinite
    text = str(np.datetime64(scalar.value, scalar.type.unit)).replace("T", " ")
    # Velaria keeps instants in UTC, whatever zone they came with.
    return _without_zeros(text) + ("+00" if scalar.type.tz is not None else "")


def _time(scalar: pa.Scalar) -> str:
    return _time_of_day(scalar.value * _NANOSECONDS[scalar.type.unit])


def _duration(scalar: pa.Scalar) -> str:
    return _time_of_day(scalar.value * _NANOSECONDS[scalar.type.unit])


def _interval(scalar: pa.Scalar) -> str:
    months, days, nanoseconds = scalar.as_py()
    counted = [(int(months / 12), "year"), (months - 12 * int(months / 12), "month"), (days, "day")]
    parts = [f"{count} {unit}{'s' if abs(count) != 1 else ''}" for count, unit in counted if count]
    if nanoseconds or not parts:
        parts.append(_time_of_day(nanoseconds))
    return " ".join(parts)


def _time_of_day(nanoseconds: int) -> str:
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if nanoseconds < 0 else ""
    return _without_zeros(f"{sign}{hours:02}:{minutes:02}:{seconds:02}.{rest:09}")


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in (*kinds, pa.types.is_list_view, pa.types.is_large_list_view))


def _is_binary(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(kind) for test in kinds)


_TEXTS: tuple[tuple[Callable[[pa.DataType], Any], Callable[[pa.Scalar], str]], ...] = (
    (pa.types.is_boolean, lambda scalar: str(scalar.as_py()).lower()),
    (pa.types.is_integer, lambda scalar: str(scalar.as_py())),
    (pa.types.is_floating, _float),
    (pa.types.is_decimal, lambda scalar: format(scalar.as_py(), "f")),
    (_is_text, _string),
    (_is_binary, _binary),
    (pa.types.is_date, _date),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_time, _time),
    (pa.types.is_duration, _duration),
    (pa.types.is_interval, _interval),
    (pa.types.is_map, _map),
    (_is_list, _list),
    (pa.types.is_struct, _struct),
)

# Marks that turn the direction of the text around them, and line ends that are no control characters.
_UNRULY = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    """`text` on one line, with what would move the cursor or turn the text spelt out."""
    if text.isprintable():
        return text
    return "".join(_SHORT.get(ch) or (f"\\u{{{ord(ch):x}}}" if _is_unruly(ch) else ch) for ch in text)


def _is_unruly(ch: str) -> bool:
    return ord(ch) < 32 or 127 <= ord(ch) < 160 or ch in _UNRULY
