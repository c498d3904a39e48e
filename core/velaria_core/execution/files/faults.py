"""Faults: what went wrong in a file, with the file, the line, the column and the reason.

The engine tells of a bad file in many ways: CSV errors with a line, JSON errors with a line that is sometimes the next,
casts with none. Here each becomes one DataError. Looking for the line reads the file again in Python; that is paid
only where an error is reported.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock

from velaria_core.errors import DataError, Place, VelariaError
from velaria_core.execution.duck import EXPLAINERS
from velaria_core.execution.files.guard import MARK, SEPARATOR, Column
from velaria_core.execution.files.infer import DATE
from velaria_core.types import arrow_type, type_name

TEXT_MAX = 200
SOURCES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file as Python reads it: where it begins, its cells beside the source's columns, its text."""

    line: int
    cells: list[str | None]
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """An opened file, kept so that its errors can be explained.

    Attributes:
        files: as the engine was given them.
        columns: of `records`.
        records: reads one of the files in Python.
    """

    files: tuple[str, ...]
    columns: tuple[Column, ...]
    records: Callable[[str], Iterator[Record]]


_lock = Lock()
_sources: OrderedDict[str, Source] = OrderedDict()
# A plain copy that was made of a file -> the file.
_originals: dict[str, str] = {}
# A name that Arrow data is bound to -> the (first) file that it comes from.
_feeds: dict[str, str] = {}


def register(source: Source) -> str:
    """Remember a source, under a name that stands in the errors of its guards. The oldest are forgotten.

    The name is made of what is read and how, so that the SQL of a plan is the same text in every process.
    """
    read_as = [(column.name, column.type, column.raw) for column in source.columns]
    name = hashlib.sha256(repr((source.files, read_as)).encode()).hexdigest()[:12]
    with _lock:
        _sources[name] = source
        _sources.move_to_end(name)
        while len(_sources) > SOURCES_MAX:
            _sources.popitem(last=False)
    return name


def name_copy(copy: str, original: str) -> None:
    """Errors in `copy` are told as errors in `original`."""
    _originals[copy] = original


def name_feed(name: str, path: str) -> None:
    """Errors of the Arrow data bound to `name` are told as errors in a file."""
    _feeds[name] = path


def original(path: str) -> str:
    """The file that a caller named, for a path that the engine read."""
    return _originals.get(path, path)


def shorten(text: str) -> str:
    """A value for a message."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 3] + "..."


def bad_value(column: str, kind: str, value: str, place: Place | None, cause: BaseException | None = None) -> DataError:
    """The error for one value that its column's type does not take."""
    return DataError(
        "file.bad_value",
        f'column "{column}": "{shorten(value)}" is not {kind_name(kind)}',
        hint=f'types={{"{column}": "string"}} reads it as text; on_error="skip" leaves such rows out, '
        '"collect" keeps them apart',
        place=place,
        cause=cause,
    )


def kind_name(kind: str) -> str:
    """Velaria's name of an engine type."""
    return type_name(arrow_type(kind))


# --- guards -----------------------------------------------------------------------------------------------------------


def _guard_error(message: str) -> VelariaError | None:
    if not message.startswith(MARK):
        return None
    _, name, at, value = message.split(SEPARATOR, 3)
    source = _sources.get(name)
    if source is None:
        return DataError("file.bad_value", f'"{shorten(value)}" does not fit the type of its column')
    column = source.columns[int(at)]
    found = locate(source, int(at), value)
    if found is None:
        return bad_value(column.name, column.type, value, Place(file=original(source.files[0])))
    path, record = found
    cell = record.cells[int(at)]
    return bad_value(
        column.name,
        column.type,
        value if cell is None else cell,
        Place(file=original(path), line=record.line, column=int(at) + 1),
    )


def locate(source: Source, at: int, value: str) -> tuple[str, Record] | None:
    """The first record whose cell in column `at` is the bad one, and its file."""
    for path in source.files:
        try:
            for record in source.records(path):
                if at < len(record.cells) and is_bad(source.columns[at], record.cells[at], {value}):
                    return path, record
        except (OSError, ValueError, EOFError, re.error, VelariaError):
            continue  # the search is a courtesy; the value itself is told without it
    return None


def is_bad(column: Column, cell: str | None, values: set[str]) -> bool:
    """Whether a cell is one that the engine refused: by the guard's own condition, or by its text."""
    if cell is None or not cell or cell in column.missing or column.guard is None:
        return False
    return not column.guard.fits(cell) if column.guard.fits is not None else cell in values


# --- the engine's own words -------------------------------------------------------------------------------------------

_CSV_LINE = re.compile(r"CSV Error on Line: (\d+)")
_CSV_FILE = re.compile(r"^\s*file = (.+)$", re.MULTILINE)
_CSV_CAST = re.compile(
    r"Error when converting column \"(.*?)\"\. Could not convert string \"(.*?)\" to '(.+?)'\s*(?:\n|$)", re.DOTALL
)
_CSV_WIDTH = re.compile(r"Expected Number of Columns: (\d+) Found: (\d+)")
_JSON_MALFORMED = re.compile(
    r"Malformed JSON in file \"(.+?)\", at byte (\d+) in (line|record/value) (\d+): (.*)", re.DOTALL
)
_JSON_TRANSFORM = re.compile(r"JSON transform error in file \"(.+?)\", in (line|record/value) (\d+): (.*)", re.DOTALL)
_TRUNCATED = re.compile(r"Unexpected end of (?:GZIP|ZSTD) stream: (.+)|ZSTD .*?(?:rror|ailed).*")
_STREAM = re.compile(r"stream registered as '(\w+)' failed: (?:\w+: )?([^\n]*?)(?: Detail:|$)")
_PARQUET = re.compile(
    r"(?P<why>No magic bytes found at end of file|too small to be a Parquet file|"
    r"Invalid (?:Parquet|parquet).*|don't know what type|TProtocolException.*|Snappy decompression.*|"
    r"Failed to read Parquet.*|ZSTD Decompression failure.*)\s*'?(?P<file>[^']*)'?"
)


def _csv_error(message: str) -> VelariaError | None:
    line = _CSV_LINE.search(message)
    file = _CSV_FILE.search(message)
    if line is None and (file is None or "CSV" not in message):
        return None
    path = original(file[1].strip()) if file else None
    place = Place(file=path, line=int(line[1]) if line else None)
    if cast := _CSV_CAST.search(message):
        return bad_value(cast[1], _type_of(file[1].strip() if file else "", cast[1]) or cast[3], cast[2], place)
    keep = 'on_error="skip" leaves such rows out, "collect" keeps them apart'
    if width := _CSV_WIDTH.search(message):
        return DataError("file.ragged_row", f"expected {width[1]} fields, found {width[2]}", hint=keep, place=place)
    if "unterminated quote" in message:
        return DataError(
            "file.unclosed_quote",
            "a quoted field is not closed",
            hint=f'quote="" takes quotes as text; {keep}',
            place=place,
        )
    if "unicode" in message or "utf-8" in message:
        return DataError("file.encoding", "the text is not UTF-8", hint=_encoding_hint(path), place=place)
    if "Maximum line size" in message or "maximum_line_size" in message:
        return DataError("file.line_too_long", "a line is longer than 2 MB", hint=keep, place=place)
    reason = "line ends or quotes change within the file" if "invalid state" in message else _first_line(message)
    return DataError("file.bad_row", reason, hint=keep, place=place)


def _type_of(path: str, name: str) -> str | None:
    """The type of a column, which may be read as another."""
    for source in reversed(_sources.values()):
        if path in source.files:
            return next((column.type for column in source.columns if column.name == name), None)
    return None


def _first_line(message: str) -> str:
    lines = [line for line in message.splitlines() if line.strip() and not line.startswith(("CSV Error", "Original"))]
    return lines[0].strip() if lines else message


def _encoding_hint(path: str | None) -> str:
    from velaria_core.execution.files.sample import encoding_hint

    if path is None:
        return 'name it, e.g. encoding="latin-1"'
    try:
        with open(path, "rb") as stream:
            for line in stream:
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return encoding_hint(line, "utf-8")
    except OSError:
        pass
    return 'name it, e.g. encoding="latin-1"'


def _json_error(message: str) -> VelariaError | None:
    keep = 'on_error="skip" leaves such rows out, "collect" keeps them apart'
    if found := _JSON_MALFORMED.search(message):
        path, _, unit, number, why = found.groups()
        line, reason = malformed_line(path, int(number) if unit == "line" else None, why.strip(" ."))
        code = "file.encoding" if "UTF-8" in why else "file.bad_json"
        hint = _encoding_hint(path) if code == "file.encoding" else keep
        return DataError(code, f"malformed JSON: {reason}", hint=hint, place=Place(file=original(path), line=line))
    if found := _JSON_TRANSFORM.search(message):
        path, unit, number, why = found.groups()
        reason = why.split("\n")[0].strip()
        if "Expected OBJECT" in reason:
            reason = "not an object"
        line, column, cell = _transform_line(path, int(number))
        place = Place(file=original(path), line=line)
        if column is not None:
            return bad_value(column.name, column.type, cell, place)
        where = f"record {number}: " if unit != "line" else ""
        return DataError("file.bad_value", where + reason, hint=keep, place=place)
    return None


def malformed_line(path: str, told: int | None, why: str) -> tuple[int | None, str]:
    """The line of broken JSON, and why: found again, because the engine may name the line after it."""
    from velaria_core.execution.files.paths import File
    from velaria_core.execution.files.sample import compression_of, first_bytes, open_plain

    file = File(path, 0, 0, 0)
    try:
        with open_plain(file, compression_of(first_bytes(file), path)) as stream:
            if told is None:
                try:
                    json.loads(stream.read())
                except json.JSONDecodeError as error:
                    return error.lineno, f"{error.msg} (column {error.colno})"
                return None, why
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    json.loads(line)
                except json.JSONDecodeError as error:
                    return number, f"{error.msg} (column {error.colno})"
                except UnicodeDecodeError:
                    return number, why
    except (OSError, EOFError, UnicodeDecodeError):
        pass
    # Python reads it, the engine does not: it has counted the line end already.
    return max(told - 1, 1) if told is not None else None, why


def _transform_line(path: str, told: int) -> tuple[int | None, Column | None, str]:
    """The line, column and text of the first value that does not fit, or the line that the engine tells."""
    source = next((item for item in reversed(_sources.values()) if path in item.files), None)
    if source is None:
        return told, None, ""
    try:
        for record in source.records(path):
            for column, cell in zip(source.columns, record.cells, strict=True):
                if cell is not None and not plausible(column.raw, cell):
                    return record.line, column, cell
    except (OSError, ValueError, EOFError):
        pass  # the line that the engine tells will do
    return told, None, ""


def plausible(kind: str, text: str) -> bool:
    """Whether the engine takes a JSON value, given as text, for a type; True for types that are not looked at."""
    if kind.startswith("FLOAT["):
        try:
            cells = json.loads(text)
        except ValueError:
            return False
        return isinstance(cells, list) and len(cells) == int(kind[6:-1])
    if kind in ("BIGINT", "DOUBLE", "UBIGINT", "INTEGER", "FLOAT") or kind.startswith("DECIMAL"):
        try:
            float(text)
        except ValueError:
            return text in ("true", "false")
        return True
    if kind == "BOOLEAN":
        return text.lower() in ("true", "false") or text.isdigit()
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return DATE.match(text) is not None
    return True


def _container_error(message: str) -> VelariaError | None:
    if (found := _STREAM.search(message)) and found[1] in _feeds:
        return DataError(
            "file.truncated",
            f"the Arrow file is cut off or damaged: {found[2]}",
            hint="fetch or write it again",
            place=Place(file=_feeds[found[1]]),
        )
    if found := _TRUNCATED.search(message):
        path = original(found[1].strip()) if found[1] else None
        return DataError(
            "file.truncated",
            "the compressed file is cut off or damaged",
            hint="fetch or write it again",
            place=Place(file=path),
        )
    if "arquet" in message and (found := _PARQUET.search(message)):
        quoted = re.search(r"'([^']+)'|\"([^\"]+)\"", message)
        path = next((item for item in quoted.groups() if item), None) if quoted else None
        return DataError(
            "file.invalid",
            f"this is no whole Parquet file: {found['why'].strip()}",
            hint="fetch or write it again; velaria probe says what a file is",
            place=Place(file=path),
        )
    return None


EXPLAINERS.extend((_guard_error, _csv_error, _json_error, _container_error))
