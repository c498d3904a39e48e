"""Dialect: how lines of text are divided into fields, by the evidence of a sample."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from velaria_core.execution.files.infer import BOOL, DATE, DOUBLE, INT, TIMESTAMP, infer

DELIMITERS = (",", "\t", "|", ";", " ")
# A space parts words in any prose, so it is no delimiter of CSV unless it is given.
CSV_DELIMITERS = DELIMITERS[:-1]
LOOKED_AT = 200
FIELD_MAX = 1 << 24

_IDENTIFIER = re.compile(r"[^\W\d]\w*", re.UNICODE)

csv.field_size_limit(FIELD_MAX)


@dataclass(frozen=True, slots=True)
class Division:
    """What one delimiter makes of the sampled lines.

    Attributes:
        fields: in the first row.
        consistent: every sampled row has as many.
        ragged: number and width of the first row that has not, counted from 1.
    """

    delimiter: str
    fields: int
    consistent: bool
    ragged: tuple[int, int] | None = None


def rows_of(
    lines: Iterable[str], delimiter: str, quote: str | None = '"', escape: str | None = None
) -> list[list[str]]:
    """Fields of the lines, quotes respected; a field may go over several lines. Blank lines are left out.

    Raises:
        csv.Error: quotes are misplaced beyond repair.
    """
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=quote or None,
        doublequote=escape in (None, "", quote),
        escapechar=escape if escape and escape != quote else None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
    )
    return [row for row in reader if row]


def divide(text: str, delimiter: str, quote: str | None = '"', *, complete: bool = True) -> Division:
    """Divide the first rows of a sample by a delimiter."""
    rows: list[list[str]] = []
    lines = io.StringIO(text, newline="")
    try:
        reader = csv.reader(
            lines, delimiter=delimiter, quotechar=quote or None, quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
        )
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) >= LOOKED_AT:
                break
        else:
            # The last row of a head that was cut may have lost the end of a quoted field.
            if not complete and len(rows) > 1:
                rows.pop()
    except csv.Error:
        return Division(delimiter, 1, False)
    if not rows:
        return Division(delimiter, 1, False)
    width = len(rows[0])
    ragged = next(((at, len(row)) for at, row in enumerate(rows, 1) if len(row) != width), None)
    return Division(delimiter, width, ragged is None and width > 1, ragged)


def find_delimiter(text: str, candidates: Sequence[str] = CSV_DELIMITERS, *, complete: bool = True) -> str | None:
    """The delimiter that divides every sampled row alike, into the most fields; else the one the first row and most
    others agree on; None where nothing divides."""
    divisions = [divide(text, delimiter, complete=complete) for delimiter in candidates]
    consistent = [division for division in divisions if division.consistent]
    if consistent:
        return max(consistent, key=lambda division: division.fields).delimiter
    ragged = [division for division in divisions if division.fields > 1]
    if not ragged:
        return None
    return max(ragged, key=lambda division: (_agreement(text, division), division.fields)).delimiter


def _agreement(text: str, division: Division) -> float:
    """The share of lines that have as many fields as the first row."""
    lines = [line for line in text.split("\n", LOOKED_AT)[:LOOKED_AT] if line]
    widths = Counter(line.count(division.delimiter) + 1 for line in lines)
    return widths[division.fields] / max(len(lines), 1)


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns.

    It does when its cells are texts and no values, and either stand above columns of other types, or could be
    names themselves: distinct, short, and not found below. A nameless cell stands above nothing.
    """
    if not rows:
        return False
    first = [cell.strip() for cell in rows[0]]
    body = [row for row in rows[1 : LOOKED_AT + 1] if len(row) == len(first)]
    columns = [[row[at] for row in body] for at in range(len(first))]
    named = [(cell, column) for cell, column in zip(first, columns, strict=True) if cell]
    if not named or any(_is_value(cell) for cell, _ in named):
        return False
    if any(not infer(column).is_text for _, column in named):
        return True
    if any(any(column) for cell, column in zip(first, columns, strict=True) if not cell):
        return False
    folded = [cell.lower() for cell, _ in named]
    if len(set(folded)) != len(folded):
        return False
    if len(rows) == 1:
        return all(_IDENTIFIER.fullmatch(cell) for cell in first)
    return all(len(cell) <= 64 and _IDENTIFIER.match(cell) and cell not in column[:20] for cell, column in named)


def _is_value(cell: str) -> bool:
    return any(pattern.fullmatch(cell) for pattern in (INT, DOUBLE, BOOL, DATE, TIMESTAMP))


def find_escape(text: str, quote: str) -> str:
    """Backslash where the sample writes `\\"` inside quotes and never doubles them, else the quote itself."""
    written = "\\" + quote
    return "\\" if written in text and quote * 2 not in text.replace(written, "") else quote
