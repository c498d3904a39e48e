"""Files: what a session reads. Each function opens files and gives their relation; rows are read when a query runs.

`probe` says what a file is; `read` opens it so; the others are told the format. `path` is a file, a list, a glob, or a
folder of files of one format. Options that are not given are found in the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from velaria_core.errors import InputError, did_you_mean
from velaria_core.execution.duck import Engine
from velaria_core.execution.files import options as _options
from velaria_core.execution.files import paths as _paths
from velaria_core.execution.files import probe as _probe
from velaria_core.execution.files.options import (
    ArrowOptions,
    CacheFormat,
    Columns,
    CsvOptions,
    JsonFormat,
    JsonOptions,
    LineMode,
    LineOptions,
    OnError,
    ParquetOptions,
)
from velaria_core.execution.files.paths import PathLike, looks_like_path
from velaria_core.execution.files.probe import Candidate, Confidence, Probe
from velaria_core.execution.files.scan import OpenedFile, opened

Paths = PathLike | Sequence[PathLike]

__all__ = [
    "CacheFormat",
    "Candidate",
    "Confidence",
    "JsonFormat",
    "LineMode",
    "OnError",
    "OpenedFile",
    "Probe",
    "from_call",
    "from_options",
    "looks_like_path",
    "probe",
    "read",
    "read_arrow",
    "read_csv",
    "read_json",
    "read_line_file",
    "read_parquet",
]


def probe(engine: Engine, path: Paths) -> Probe:
    """What a file seems to be: scored candidates with evidence, confidence, dialect, schema, warnings. 5 to 30 ms."""
    return _probe.probe(engine, _paths.resolve(engine.settings, path), _shown(path))


def read(
    engine: Engine,
    path: Paths,
    *,
    materialization: bool = False,
    materialization_dir: PathLike | None = None,
    materialization_format: str | CacheFormat | None = None,
    cache_in_memory: bool = False,
    **options: Any,
) -> OpenedFile:
    """Open files in the format that `probe` finds. Further options are those of its reader.

    Raises:
        InputError[option.unknown]: an option that the found format has not.
    """
    name = _found_format(engine, path, options.get("encoding"))
    chosen = _options.FORMATS[name]
    known = {option.argument for option in chosen.options.values()}
    for option in options:
        if option not in known:
            raise InputError(
                "option.unknown",
                f'no option "{option}" for {name}, which "{_shown(path)}" is',
                hint=did_you_mean(option, sorted(known), "options"),
            )
    return _READERS[chosen.reader](
        engine,
        path,
        materialization=materialization,
        materialization_dir=materialization_dir,
        materialization_format=materialization_format,
        cache_in_memory=cache_in_memory,
        **{**chosen.fixed, **options},
    )


def read_csv(
    engine: Engine,
    path: Paths,
    delimiter: str | None = None,
    header: bool | None = None,
    columns: Columns = None,
    *,
    names: Sequence[str] | None = None,
    types: Mapping[str, str] | str | None = None,
    quote: str | None = None,
    escape: str | None = None,
    null_values: Sequence[str] | str | None = None,
    encoding: str | None = None,
    skip: int = 0,
    comment: str | None = None,
    union_by_name: bool = False,
    on_error: str | OnError = OnError.FAIL,
    materialization: bool = False,
    materialization_dir: PathLike | None = None,
    materialization_format: str | CacheFormat | None = None,
    cache_in_memory: bool = False,
) -> OpenedFile:
    """Open CSV or TSV, plain, gz, zst, bz2, xz or zip.

    Args:
        columns: the wanted columns in order, by name, with types or None; without a header they name the columns.
        names: names by position, in place of the header's.
        types: types of some columns; every other has one for all its cells, found in samples over the file.
        null_values: texts that are NULL beside the empty one; by default marks such as NA in columns of numbers.
        encoding: any that Python knows; UTF-8 by default, UTF-16 by its mark.
        on_error: "fail" raises at the first bad row; "skip" and "collect" read the file now and leave such rows out.
        materialization: keep the parsed columns on disk for this and later sessions.
        cache_in_memory: keep them in this session.

    Raises:
        InputError, DataError, ExternalError: codes file.*, with file, line and a hint; for bad rows when they are read.
    """
    from velaria_core.execution.files import csv

    chosen = CsvOptions(
        on_error=_options.choice(OnError, on_error, "on_error"),
        materialization=_options.materialization(
            materialization, materialization_dir, materialization_format, cache_in_memory
        ),
        delimiter=delimiter,
        header=header,
        names=tuple(names) if names is not None else None,
        columns=_options.column_types(columns),
        types=_options.some_types(types),
        quote=quote,
        escape=escape,
        null_values=_texts(null_values),
        encoding=encoding,
        skip=skip,
        comment=comment,
        union_by_name=union_by_name,
    )
    files = _paths.resolve(engine.settings, path, ("csv", "tsv"))
    return opened(engine, "csv", files, chosen, lambda: csv.plan(engine, files, chosen))


def read_line_file(
    engine: Engine,
    path: Paths,
    mappings: Any = None,
    mode: str | LineMode = LineMode.SPLIT,
    split_delimiter: str | None = None,
    regex_pattern: str = "",
    skip_empty_lines: bool = True,
    *,
    types: Mapping[str, str] | str | None = None,
    null_values: Sequence[str] | str = ("null", "NULL"),
    encoding: str | None = None,
    on_error: str | OnError = OnError.FAIL,
    materialization: bool = False,
    materialization_dir: PathLike | None = None,
    materialization_format: str | CacheFormat | None = None,
    cache_in_memory: bool = False,
) -> OpenedFile:
    """Open text lines.

    Args:
        mappings: (column, index) pairs, or dicts with `column` and `source_index`: cells from 0 in split mode; in regex
            mode groups from 1, and 0 for the whole line. None is every cell, or every group.
        mode: "split" at `split_delimiter` (found in the file by default), or "regex": `regex_pattern` must match the
            whole line, in RE2's syntax; lines that do not match are left out.
        on_error: of cells that do not fit their column; "collect" also keeps the lines that do not match.
    """
    from velaria_core.execution.files import line

    chosen = LineOptions(
        on_error=_options.choice(OnError, on_error, "on_error"),
        materialization=_options.materialization(
            materialization, materialization_dir, materialization_format, cache_in_memory
        ),
        mappings=_options.index_mappings(mappings),
        mode=_options.choice(LineMode, mode, "mode"),
        split_delimiter=split_delimiter,
        regex_pattern=regex_pattern,
        skip_empty_lines=skip_empty_lines,
        types=_options.some_types(types),
        null_values=_texts(null_values) or (),
        encoding=encoding,
    )
    files = _paths.resolve(engine.settings, path, ("line", "csv", "tsv"))
    return opened(engine, "line", files, chosen, lambda: line.plan(engine, files, chosen))


def read_json(
    engine: Engine,
    path: Paths,
    columns: Columns = None,
    format: str | JsonFormat = JsonFormat.AUTO,  # noqa: A002 -- the name that callers know
    *,
    encoding: str | None = None,
    on_error: str | OnError = OnError.FAIL,
    materialization: bool = False,
    materialization_dir: PathLike | None = None,
    materialization_format: str | CacheFormat | None = None,
    cache_in_memory: bool = False,
) -> OpenedFile:
    """Open JSON: one object a line, an array of objects, or objects over several lines.

    Args:
        columns: the wanted keys in order, with types or None; by default every key of the sampled objects. A key that
            an object lacks is NULL, one that is not wanted is ignored.
    """
    from velaria_core.execution.files import json

    chosen = JsonOptions(
        on_error=_options.choice(OnError, on_error, "on_error"),
        materialization=_options.materialization(
            materialization, materialization_dir, materialization_format, cache_in_memory
        ),
        columns=_options.column_types(columns),
        format=_options.choice(_options.JSON_FORMATS, format, "format"),
        encoding=encoding,
    )
    files = _paths.resolve(engine.settings, path, ("json",))
    return opened(engine, "json", files, chosen, lambda: json.plan(engine, files, chosen))


def read_parquet(
    engine: Engine,
    path: Paths,
    *,
    union_by_name: bool = False,
    hive_partitioning: bool | None = None,
    on_error: str | OnError = OnError.FAIL,
    materialization: bool = False,
    materialization_dir: PathLike | None = None,
    materialization_format: str | CacheFormat | None = None,
    cache_in_memory: bool = False,
) -> OpenedFile:
    """Open Parquet files; `key=value` folders become columns."""
    from velaria_core.execution.files import parquet

    chosen = ParquetOptions(
        on_error=_options.choice(OnError, on_error, "on_error"),
        materialization=_options.materialization(
            materialization, materialization_dir, materialization_format, cache_in_memory
        ),
        union_by_name=union_by_name,
        hive_partitioning=hive_partitioning,
    )
    files = _paths.resolve(engine.settings, path, ("parquet",))
    return opened(engine, "parquet", files, chosen, lambda: parquet.plan(engine, files, chosen))


def read_arrow(
    engine: Engine,
    path: Paths,
    *,
    on_error: str | OnError = OnError.FAIL,
    materialization: bool = False,
    materialization_dir: PathLike | None = None,
    materialization_format: str | CacheFormat | None = None,
    cache_in_memory: bool = False,
) -> OpenedFile:
    """Open Arrow IPC files, streams and Feather."""
    from velaria_core.execution.files import arrow

    chosen = ArrowOptions(
        on_error=_options.choice(OnError, on_error, "on_error"),
        materialization=_options.materialization(
            materialization, materialization_dir, materialization_format, cache_in_memory
        ),
    )
    files = _paths.resolve(engine.settings, path, ("arrow",))
    return opened(engine, "arrow", files, chosen, lambda: arrow.plan_of(files))


def from_options(
    engine: Engine,
    using: str | None,
    options: Mapping[str, Any],
    declared: Mapping[str, str] | None = None,
) -> OpenedFile:
    """Open what `CREATE TABLE t [USING format] OPTIONS(path: '...', ...)` says; without USING the file is probed.

    Args:
        declared: column -> type where the statement declares columns; text formats are read with these types.

    Raises:
        InputError[option.unknown_format, option.unknown, option.value, option.missing].
    """
    given = {key.lower(): value for key, value in options.items()}
    path = given.pop("path", None)
    if path is None or not str(path):
        raise InputError("option.missing", "OPTIONS names no path", hint="OPTIONS(path: 'file.csv')")
    name = using.lower() if using is not None else _found_format(engine, str(path), given.get("encoding"))
    chosen = _options.FORMATS.get(name)
    if chosen is None:
        raise InputError(
            "option.unknown_format", f'no format "{using}"', hint=did_you_mean(name, _options.FORMATS, "formats")
        )
    arguments = _options.arguments(chosen, given)
    if declared and (typed := _DECLARED.get(chosen.reader)):
        arguments.setdefault(typed, declared)
    return _READERS[chosen.reader](engine, str(path), **arguments)


# The argument that takes declared types; Parquet and Arrow have their own.
_DECLARED = {"read_csv": "types", "read_line_file": "types", "read_json": "columns"}


def _found_format(engine: Engine, path: Paths, encoding: str | None) -> str:
    """The name in USING of what a file is found to be."""
    best = _probe.look(_paths.resolve(engine.settings, path)[0], encoding)[1][0]
    return "tsv" if best.format == "tsv" else best.kind


def from_call(engine: Engine, name: str, positional: Sequence[Any], named: Mapping[str, Any]) -> OpenedFile | None:
    """Open what a table function of SQL names, `read_csv('a.csv', delimiter = '|')`; None for functions of others."""
    known = _options.CALLS.get(name.lower())
    if known is None:
        return None
    if len(positional) != 1 or not isinstance(positional[0], (str, list)):
        raise InputError(
            "option.missing", f"{name} takes one path or a list of paths", hint=f"{name}('file', option = value)"
        )
    chosen = _options.FORMATS[known]
    return _READERS[chosen.reader](engine, positional[0], **_options.arguments(chosen, named))


_READERS: Mapping[str, Callable[..., OpenedFile]] = {
    "read_csv": read_csv,
    "read_line_file": read_line_file,
    "read_json": read_json,
    "read_parquet": read_parquet,
    "read_arrow": read_arrow,
}


def _texts(values: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    return (values,) if isinstance(values, str) else tuple(values)


def _shown(path: Paths) -> str:
    return os.fspath(path) if isinstance(path, (str, os.PathLike)) else ", ".join(os.fspath(item) for item in path)
