"""What a reader can be told: frozen options by format, and the names they have in SQL and in calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from velaria_core.errors import InputError, did_you_mean
from velaria_core.types import resolve_type_name

Columns = Mapping[str, str | None] | Sequence[str | tuple[str, str | None]] | None


class OnError(StrEnum):
    """What a row that cannot be read does.

    fail: the query stops with a DataError that names file, line, column and reason.
    skip: the row is left out and counted.
    collect: as skip, and the row is kept in a rejects table.
    """

    FAIL = "fail"
    SKIP = "skip"
    COLLECT = "collect"


class LineMode(StrEnum):
    """How a text line becomes cells."""

    SPLIT = "split"
    REGEX = "regex"


class JsonFormat(StrEnum):
    """How a JSON file holds its objects."""

    AUTO = "auto"
    LINES = "json_lines"
    ARRAY = "json_array"


class CacheFormat(StrEnum):
    """In which format a materialised source is stored."""

    PARQUET = "parquet"
    ARROW = "arrow"


JSON_FORMATS = {
    "auto": JsonFormat.AUTO,
    "json_lines": JsonFormat.LINES,
    "jsonl": JsonFormat.LINES,
    "ndjson": JsonFormat.LINES,
    "lines": JsonFormat.LINES,
    "json_array": JsonFormat.ARRAY,
    "array": JsonFormat.ARRAY,
}
CACHE_FORMATS = {
    "parquet": CacheFormat.PARQUET,
    "binary_row_batch": CacheFormat.PARQUET,
    "arrow": CacheFormat.ARROW,
    "nanoarrow_ipc": CacheFormat.ARROW,
}


@dataclass(frozen=True, slots=True)
class Materialization:
    """Whether and where a parsed source is kept.

    Attributes:
        enabled: keep it on disk, for this and later sessions.
        directory: the cache folder; None is one for each user below the temporary folder.
        format: of the stored columns.
        in_memory: keep the columns in the session, as a native table.
    """

    enabled: bool = False
    directory: str | None = None
    format: CacheFormat = CacheFormat.PARQUET
    in_memory: bool = False


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What every reader takes."""

    on_error: OnError = OnError.FAIL
    materialization: Materialization = Materialization()

    def key(self) -> str:
        """What distinguishes two ways of reading one file, as text."""
        shown = [f"{name}={getattr(self, name)!r}" for name in sorted(_names(type(self)))]
        return type(self).__name__ + "(" + ", ".join(shown) + ")"


def _names(kind: type) -> Iterable[str]:
    from dataclasses import fields

    return (item.name for item in fields(kind) if item.name != "materialization")


@dataclass(frozen=True, slots=True)
class CsvOptions(ReadOptions):
    """Attributes:
    delimiter, header, quote, escape: None is found in the file.
    names: names by position, in place of the header's.
    columns: the wanted columns in order, with types; a type of None is found in the file.
    types: types of some columns; the others are found.
    null_values: texts that are NULL; None is the empty text, and marks such as NA in a column of numbers.
    skip: lines before the header.
    comment: lines that begin so are left out.
    union_by_name: files with other columns are joined by name, missing ones are NULL.
    """

    delimiter: str | None = None
    header: bool | None = None
    names: tuple[str, ...] | None = None
    columns: tuple[tuple[str, str | None], ...] | None = None
    types: tuple[tuple[str, str], ...] = ()
    quote: str | None = None
    escape: str | None = None
    null_values: tuple[str, ...] | None = None
    encoding: str | None = None
    skip: int = 0
    comment: str | None = None
    union_by_name: bool = False


@dataclass(frozen=True, slots=True)
class LineOptions(ReadOptions):
    """Attributes:
    mappings: (column, index) pairs: in split mode the cell counted from 0, in regex mode the group (0 is the
        whole line); None names every cell c0, c1, ..., or every group by its own name or number.
    skip_empty_lines: leave them out; otherwise each is a row of NULLs.
    types: types of some columns; the others are found.
    """

    mappings: tuple[tuple[str, int], ...] | None = None
    mode: LineMode = LineMode.SPLIT
    split_delimiter: str | None = None
    regex_pattern: str = ""
    skip_empty_lines: bool = True
    types: tuple[tuple[str, str], ...] = ()
    null_values: tuple[str, ...] = ("null", "NULL")
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class JsonOptions(ReadOptions):
    """Attributes:
    columns: the wanted keys in order, with types; None is every key of the sampled objects.
    format: lines, array, or found in the file.
    """

    columns: tuple[tuple[str, str | None], ...] | None = None
    format: JsonFormat = JsonFormat.AUTO
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class ParquetOptions(ReadOptions):
    """Attributes:
    union_by_name: files with other columns are joined by name, missing ones are NULL.
    hive_partitioning: `key=value` folders become columns; None finds out.
    """

    union_by_name: bool = False
    hive_partitioning: bool | None = None


@dataclass(frozen=True, slots=True)
class ArrowOptions(ReadOptions):
    """Arrow files say everything themselves."""


# --- from what a caller wrote -----------------------------------------------------------------------------------------


def choice(kind: type[Enum] | Mapping[str, Any], value: object, option: str) -> Any:
    """The member of an enum (or the value in a table of names) that a caller named.

    Raises:
        InputError[option.value]: nothing has that name.
    """
    table: Mapping[str, Any] = kind if isinstance(kind, Mapping) else {item.value: item for item in kind}
    if isinstance(value, Enum):
        return value
    found = table.get(str(value).strip().lower())
    if found is None:
        raise InputError(
            "option.value",
            f"{option}={value!r} is not a choice",
            hint=did_you_mean(str(value), table, "choices"),
        )
    return found


def column_types(columns: Columns) -> tuple[tuple[str, str | None], ...] | None:
    """(name, engine type or None) of the columns a caller named: a mapping, names, pairs, or "a, b:int64"."""
    if columns is None:
        return None
    if isinstance(columns, str):
        columns = [_name_and_type(part) for part in split_list(columns)]
    items: Iterable[Any] = columns.items() if isinstance(columns, Mapping) else columns
    found: list[tuple[str, str | None]] = []
    for item in items:
        name, kind = (item, None) if isinstance(item, str) else item
        found.append((str(name), resolve_type_name(str(kind)) if kind is not None else None))
    names = [name.lower() for name, _ in found]
    if not found or len(set(names)) != len(names):
        raise InputError("option.value", "columns must be named, each once", hint='e.g. {"id": "int64"}')
    return tuple(found)


def some_types(types: Mapping[str, str] | str | None) -> tuple[tuple[str, str], ...]:
    """(name, engine type) of the columns whose type a caller fixed."""
    found = column_types(types) or ()
    if untyped := [name for name, kind in found if kind is None]:
        raise InputError("option.value", f"types={untyped[0]!r} gives no type", hint='e.g. {"zip": "string"}')
    return tuple((name, kind) for name, kind in found if kind is not None)


def index_mappings(mappings: Any) -> tuple[tuple[str, int], ...] | None:
    """(column, index) of line mappings: pairs, dicts with `column` and `source_index`, a dict, or "a:0, b:2".

    Raises:
        InputError[option.value]: an index is missing or negative, or a column comes twice.
    """
    if mappings is None:
        return None
    if isinstance(mappings, str):
        mappings = [tuple(part.rpartition(":")[::2]) for part in split_list(mappings)]
    if isinstance(mappings, Mapping):
        mappings = list(mappings.items())
    found = []
    for item in mappings:
        column, index = (item.get("column"), item.get("source_index")) if isinstance(item, Mapping) else tuple(item)
        try:
            found.append((str(column).strip(), int(index)))
        except (TypeError, ValueError) as error:
            raise InputError(
                "option.value",
                f"the mapping of {column!r} has no index: {index!r}",
                hint='mappings are (column, index) pairs, or "ip:0, status:2"',
                cause=error,
            ) from error
    names = [name.lower() for name, _ in found]
    if not found or len(set(names)) != len(names) or any(index < 0 for _, index in found) or not all(names):
        raise InputError(
            "option.value",
            "mappings need a name and an index from 0 on, each column once",
            hint='e.g. [("ip", 0), ("status", 2)]',
        )
    return tuple(found)


def split_list(text: str) -> list[str]:
    """The parts of `text` between commas that stand in no bracket."""
    return [part.strip() for part in re.split(r",(?![^(\[]*[)\]])", text) if part.strip()]


def _name_and_type(part: str) -> tuple[str, str | None]:
    name, colon, kind = part.partition(":")
    return name.strip(), kind.strip() if colon else None


def materialization(
    enabled: bool, directory: Any, stored_as: str | CacheFormat | None, in_memory: bool
) -> Materialization:
    """The four options of materialisation as one value."""
    return Materialization(
        bool(enabled),
        str(directory) if directory is not None else None,
        choice(CACHE_FORMATS, stored_as or "parquet", "materialization_format"),
        bool(in_memory),
    )


# --- OPTIONS(...) in SQL ----------------------------------------------------------------------------------------------


def as_bool(value: object) -> bool:
    """`true`, `'false'`, 1: what SQL texts write for a boolean."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise InputError("option.value", f"{value!r} is neither true nor false")


def as_int(value: object) -> int:
    """A whole number."""
    try:
        return int(str(value))
    except ValueError as error:
        raise InputError("option.value", f"{value!r} is not a whole number", cause=error) from error


def as_character(value: object) -> str:
    """A delimiter or quote; `\\t` written out is a tab."""
    return str(value).replace("\\t", "\t")


def as_list(value: object) -> Sequence[str]:
    """`'NA, -'` or a list of texts."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [str(item) for item in value] if isinstance(value, Iterable) else [str(value)]


def as_names(value: object) -> Any:
    """A list of names or types as text, or already a list or mapping."""
    return value if isinstance(value, (Mapping, list, tuple)) else str(value)


@dataclass(frozen=True, slots=True)
class Option:
    """One key of OPTIONS: the argument it sets, and how its value is read."""

    argument: str
    convert: Callable[[Any], Any] = str


_EVERYWHERE = {
    "on_error": Option("on_error"),
    "materialization": Option("materialization", as_bool),
    "materialization_dir": Option("materialization_dir"),
    "materialization_format": Option("materialization_format"),
    "cache_in_memory": Option("cache_in_memory", as_bool),
}
_CSV = {
    "delimiter": Option("delimiter", as_character),
    "delim": Option("delimiter", as_character),
    "sep": Option("delimiter", as_character),
    "header": Option("header", as_bool),
    "names": Option("names", as_list),
    "columns": Option("columns", as_names),
    "types": Option("types", as_names),
    "quote": Option("quote", as_character),
    "escape": Option("escape", as_character),
    "null_values": Option("null_values", as_list),
    "nullstr": Option("null_values", as_list),
    "encoding": Option("encoding"),
    "skip": Option("skip", as_int),
    "comment": Option("comment"),
    "union_by_name": Option("union_by_name", as_bool),
}
_LINE = {
    "mode": Option("mode"),
    "split_delimiter": Option("split_delimiter", as_character),
    "delimiter": Option("split_delimiter", as_character),
    "regex_pattern": Option("regex_pattern"),
    "regex": Option("regex_pattern"),
    "mappings": Option("mappings", as_names),
    "skip_empty_lines": Option("skip_empty_lines", as_bool),
    "types": Option("types", as_names),
    "null_values": Option("null_values", as_list),
    "encoding": Option("encoding"),
}
_JSON = {
    "format": Option("format"),
    "columns": Option("columns", as_names),
    "encoding": Option("encoding"),
}
_PARQUET = {
    "union_by_name": Option("union_by_name", as_bool),
    "hive_partitioning": Option("hive_partitioning", as_bool),
}


@dataclass(frozen=True, slots=True)
class Format:
    """A format by its name in USING: the reader it calls, and the keys that OPTIONS may hold."""

    reader: str
    options: Mapping[str, Option]
    fixed: Mapping[str, Any] = field(default_factory=dict)


FORMATS: Mapping[str, Format] = {
    "csv": Format("read_csv", _CSV | _EVERYWHERE),
    "tsv": Format("read_csv", _CSV | _EVERYWHERE, {"delimiter": "\t"}),
    "line": Format("read_line_file", _LINE | _EVERYWHERE),
    "json": Format("read_json", _JSON | _EVERYWHERE),
    "jsonl": Format("read_json", _JSON | _EVERYWHERE, {"format": "json_lines"}),
    "parquet": Format("read_parquet", _PARQUET | _EVERYWHERE),
    "arrow": Format("read_arrow", _EVERYWHERE),
    "feather": Format("read_arrow", _EVERYWHERE),
}
# Table functions of SQL that are readers of ours.
CALLS: Mapping[str, str] = {
    "read_csv": "csv",
    "read_csv_auto": "csv",
    "read_line_file": "line",
    "read_lines": "line",
    "read_json": "json",
    "read_json_auto": "json",
    "read_ndjson": "jsonl",
    "read_parquet": "parquet",
    "parquet_scan": "parquet",
    "read_arrow": "arrow",
    "read_feather": "arrow",
}


def arguments(chosen: Format, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of the reader that `options` say.

    Raises:
        InputError[option.unknown]: a key that the format has not. InputError[option.value]: a value of another kind.
    """
    found: dict[str, Any] = dict(chosen.fixed)
    for key, value in options.items():
        option = chosen.options.get(key.lower())
        if option is None:
            raise InputError(
                "option.unknown",
                f'no option "{key}"',
                hint=did_you_mean(key, ["path", *chosen.options], "options"),
            )
        if value is not None:
            found[option.argument] = option.convert(value)
    return found
