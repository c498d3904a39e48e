"""Golden files of SQL: how they read, how rows are written in them, how they are rewritten.

A file tells about one subject, as records that run in order in one session. Records are separated by blank lines;
lines that begin with `#` are prose.

    file orders.csv [gz | encoding]     lines up to `end` become a file; `$DATA` in later records is its folder
    write NAME.parquet | .csv | .jsonl  the rows of the SQL below become a file in `$DATA`
    statement ok                        the SQL below runs
    statement error CODE [L:C] [REGEX]  it is refused with this code, at line L and column C of the SQL (or line L of a
                                        file), in words that match; below `----` may stand the whole message
    query [TYPES] [rowsort] [names] [own]
                                        the SQL below gives the rows below `----`
    explain                             its logical plan is the text below `----`
    stream [MODE] [watermark]           the SQL below, as a stream of the file's SOURCE tables (all queues), brings the
                                        changes below `----`: a line an epoch, `epoch 1  t + (row)  =>  - (row)`, or
                                        `end`, when the sources end; without a table it is the first

TYPES has a letter a column: I integer, D decimal, R float, T text, B bool, W date, time or interval, X binary,
N list, struct, map or vector. `rowsort` compares rows sorted by their text, `names` has the column names above the
rows, `own` says that the bare engine would not give these rows. Before a record may stand `name LABEL`,
`parameters JSON`, `only WAY ...` (of batch, epoch, rows, restored: see test_slt.py).

Columns are separated by a tab or two spaces. NULL is NULL; text that would be misread is a JSON string.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from velaria_core import DataFrame
from velaria_core.errors import display_width

FOLDER = Path(__file__).parent / "slt"
FILES = sorted(FOLDER.rglob("*.slt"))

_KINDS = ("file", "write", "statement", "query", "explain", "stream")
_FLAGS = frozenset({"rowsort", "nosort", "names", "own"})


@dataclass(frozen=True)
class Record:
    """One record. `expected` is what stands in the lines from `start` up to `stop` of the file, counted from 0."""

    path: Path
    line: int
    kind: str
    words: tuple[str, ...]
    sql: str
    expected: tuple[str, ...] | None
    start: int
    stop: int
    name: str | None = None
    parameters: Any = None
    only: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Where the record is, as editors read it."""
        return f"{self.path.name}:{self.line}" + (f" ({self.name})" if self.name else "")

    @property
    def flags(self) -> frozenset[str]:
        return frozenset(self.words) & _FLAGS

    @property
    def types(self) -> str | None:
        """The letters of the column types, where they are given."""
        return next((word for word in self.words if word not in _FLAGS), None) if self.kind == "query" else None


@dataclass
class Slt:
    """A file of records."""

    path: Path
    lines: list[str]
    records: list[Record] = field(default_factory=list)

    def rewritten(self, changes: dict[int, Change]) -> str:
        """The text with the changes made, by record number."""
        lines = list(self.lines)
        for at in sorted(changes, reverse=True):
            record, change = self.records[at], changes[at]
            if change.expected is not None:
                separator = ["----"] if record.expected is None else []
                lines[record.start : record.stop] = [*separator, *change.expected]
            if change.head is not None:
                lines[record.line - 1] = change.head
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Change:
    """What else a record should say: another first line, other expected lines, or both."""

    head: str | None = None
    expected: list[str] | None = None


def read(path: Path) -> Slt:
    """Parse a file. ValueError, with the line, where it does not read."""
    made = Slt(path, path.read_text(encoding="utf-8").splitlines())
    made.records.extend(_records(path, made.lines))
    return made


def _records(path: Path, lines: Sequence[str]) -> Iterator[Record]:
    at = 0
    before: dict[str, Any] = {}
    while at < len(lines):
        line = lines[at]
        kind, _, rest = line.partition(" ")
        if not line.strip() or line.startswith("#"):
            at += 1
        elif kind in ("name", "parameters", "only"):
            before[kind] = {"name": rest, "parameters": rest, "only": tuple(rest.split())}[kind]
            if kind == "parameters":
                before[kind] = json.loads(rest)
            at += 1
        elif kind in _KINDS:
            end = "end" if kind == "file" else ""
            stop = next((n for n in range(at + 1, len(lines)) if lines[n] == end), len(lines))
            bar = next((n for n in range(at + 1, stop) if lines[n] == "----"), None) if kind != "file" else None
            sql = "\n".join(lines[at + 1 : stop if bar is None else bar])
            expected = None if bar is None else tuple(lines[bar + 1 : stop])
            start = stop if bar is None else bar + 1
            yield Record(path, at + 1, kind, tuple(rest.split()), sql, expected, start, stop, **before)
            before = {}
            at = stop + (kind == "file")
        else:
            raise ValueError(f"{path}:{at + 1}: no record begins with {line!r}")


def write_file(record: Record, folder: Path) -> None:
    """Make the file of a `file` record."""
    name, *how = record.words
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    encoding = how[0] if how and how[0] != "gz" else "utf-8"
    content = (record.sql + "\n" if record.sql else "").encode(encoding)
    target.write_bytes(gzip.compress(content, mtime=0) if how == ["gz"] else content)


def write_rows(record: Record, folder: Path, frame: DataFrame) -> None:
    """Make the file of a `write` record."""
    target = folder / record.words[0]
    writers: dict[str, Callable[[Path], int]] = {
        ".parquet": frame.write_parquet,
        ".csv": frame.write_csv,
        ".jsonl": frame.write_json,
    }
    writers[target.suffix](target)


# --- rows as text -------------------------------------------------------------------------------------------


def rows_as_text(table: pa.Table) -> list[list[str]]:
    """Every value of a table as it stands in a file."""
    columns = [[_shown(value, column.type) for value in column.to_pylist()] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _shown(value: Any, kind: pa.DataType) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case float():
            # The shortest text that reads back as the same float32 is not that of the same double.
            value = float(str(np.float32(value))) if pa.types.is_float32(kind) else value
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), repr(value))
        case str():
            misread = not value or value != value.strip() or value == "NULL" or value[0] == '"'
            misread = misread or re.search(r"  |[\t\n\r\x00-\x1f]", value) is not None
            return _quoted(value) if misread else value
        case bytes():
            return "x" + value.hex()
        case dt.datetime():
            return str(value)
        case pa.MonthDayNano():
            return f"{value.months} months {value.days} days {value.nanoseconds / 1e9:g} s"
        case list() if pa.types.is_map(kind):
            pairs = (f"{_inner(k, kind.key_type)}: {_inner(v, kind.item_type)}" for k, v in value)
            return "{" + ", ".join(pairs) + "}"
        case list():
            return "[" + ", ".join(_inner(item, kind.value_type) for item in value) + "]"
        case dict():
            pairs = (f"{name}: {_inner(item, kind.field(name).type)}" for name, item in value.items())
            return "{" + ", ".join(pairs) + "}"
    return str(value)


def _inner(value: Any, kind: pa.DataType) -> str:
    return _quoted(value) if isinstance(value, str) else _shown(value, kind)


def _quoted(text: str) -> str:
    # Two spaces in a row would separate columns.
    return json.dumps(text, ensure_ascii=False).replace("  ", " \\u0020")


def compared(line: str) -> str:
    """A line of a file as it is compared: one way to separate columns."""
    return re.sub(r"\t+| {2,}", "  ", line.strip())


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with their columns below each other."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text + " " * (width - display_width(text)) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


_LETTERS = (
    ("I", lambda kind: pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)),
    ("D", pa.types.is_decimal),
    ("R", pa.types.is_floating),
    ("T", lambda kind: pa.types.is_string(kind) or pa.types.is_dictionary(kind)),
    ("B", pa.types.is_boolean),
    ("W", lambda kind: pa.types.is_temporal(kind) or pa.types.is_interval(kind)),
    ("X", pa.types.is_binary),
    ("N", pa.types.is_nested),
)


def letters(schema: pa.Schema) -> str:
    """The type letters of a schema; `?` for what has none."""
    return "".join(next((letter for letter, test in _LETTERS if test(kind)), "?") for kind in schema.types)
