"""Endpoints: what SOURCE and SINK tables stand for. One table by the name after USING, for each of the two. Sources and
sinks are imported when they are made, so that a session that streams nothing starts as fast as before.

A SOURCE table is declared once and read by any number of queries, so `source` makes a new one each time; only what a
program holds in its hands (a queue, a sink in memory) is one object for the session. A path says which source a file
format is: a folder or a glob is a directory that files come into, `follow: true` a file that grows, any other a file
that is read once.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa

from velaria_core.contract import abi
from velaria_core.errors import InputError, Place, SqlUnsupportedError, did_you_mean
from velaria_core.execution import files
from velaria_core.execution.duck import Engine
from velaria_core.execution.files.options import FORMATS, Option, as_bool, as_character, as_int
from velaria_core.logical.event_time import Late
from velaria_core.logical.sql.durations import NotADuration, milliseconds


def _nowhere(_key: str) -> Place | None:
    return None


@dataclass(frozen=True, slots=True)
class Declared:
    """What a CREATE SOURCE TABLE or CREATE SINK TABLE says.

    Attributes:
        using: the name after USING, in lower case; None where there is none.
        options: as written; keys in lower case.
        schema: the declared columns, or None.
        time_column: of the watermark.
        place: where a key of `options` stands in the text.
        using_place: where `using` stands.
    """

    name: str
    using: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: pa.Schema | None = None
    time_column: str | None = None
    place: Callable[[str], Place | None] = _nowhere
    using_place: Place | None = None


Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A name after USING.

    Attributes:
        options: the keys that OPTIONS may hold.
        make: the source or sink, of an engine, what is declared, and the options' values by argument.
        held: one object for the session, that programs push to or poll from.
        batch: the options that the batch reader of the same format takes too; None where there is none.
    """

    options: Mapping[str, Option]
    make: Callable[[Engine, Declared, Arguments], Any]
    held: bool = False
    batch: Mapping[str, Option] | None = None


def as_milliseconds(value: object) -> int:
    """`'10 seconds'` or a whole number of milliseconds."""
    try:
        found = value if isinstance(value, int) and not isinstance(value, bool) else milliseconds(str(value))
    except NotADuration as error:
        raise InputError("option.value", str(error), hint="e.g. '10 seconds'", cause=error) from error
    if found < 0:
        raise InputError("option.value", f"a length of time is not negative: {value}")
    return found


# --- sources ------------------------------------------------------------------------------------------------


_PATH: Final = {"path": Option("path")}
_ARRIVING: Final = {
    "follow": Option("follow", as_bool),
    "on_change": Option("on_change"),
    "pattern": Option("pattern"),
    "bounded": Option("bounded", as_bool),
    "settle": Option("settle_ms", as_milliseconds),
    "late_files": Option("late_files"),
    "poll": Option("poll_ms", as_milliseconds),
}
# What only one of the three ways to read a path knows, and which.
_ONLY: Final = {
    "on_change": "a file that is followed",
    "pattern": "a folder",
    "bounded": "a folder",
    "settle_ms": "a folder",
    "late_files": "a folder",
}


def _files(using: str) -> Endpoint:
    reader = FORMATS[using].options

    def make(engine: Engine, declared: Declared, given: Arguments) -> abi.Source:
        from velaria_core.execution.sources.directory import (
            UNFINISHED_PREFIXES,
            UNFINISHED_SUFFIXES,
            DirectorySource,
        )
        from velaria_core.execution.sources.growing_file import GrowingFileSource

        arguments = {option.argument for option in reader.values()}
        read = {key: value for key, value in given.items() if key in arguments}
        rest = {key: value for key, value in given.items() if key not in arguments}
        path = _expanded(_required(rest, "path", "'events.csv'"))
        common: Arguments = {"options": read, "schema": declared.schema, "time_column": declared.time_column}
        followed = rest.pop("follow", False)
        folder = os.path.isdir(path) or path.endswith(os.sep) or glob.has_magic(path)
        what = "a file that is followed" if followed else "a folder" if folder else "a file that is read once"
        for key in rest:
            if _ONLY.get(key, what) != what:
                option = key.removesuffix("_ms")
                told = f'"{option}" is for {_ONLY[key]}, not for {what}'
                raise InputError("option.value", told, place=declared.place(option))
        if followed:
            return GrowingFileSource(engine, path, using, **common, **rest)
        if not folder:
            if not os.path.exists(path):
                raise InputError(
                    "file.not_found",
                    f'there is no "{path}"',
                    hint="follow: true waits for a file; a folder ends with /",
                )
            name = os.path.basename(path)
            if name.startswith(UNFINISHED_PREFIXES) or name.lower().endswith(UNFINISHED_SUFFIXES):
                told = f'"{name}" has the name of a file that is not finished'
                raise InputError("option.value", told, hint="rename it", place=declared.place("path"))
            rest.pop("poll_ms", None)
            whole: Arguments = {"pattern": glob.escape(name), "bounded": True}
            return DirectorySource(engine, os.path.dirname(path), using, **common, **whole, **rest)
        if glob.has_magic(os.path.basename(path)) and not os.path.isdir(path):
            path, rest["pattern"] = os.path.dirname(path), rest.get("pattern", os.path.basename(path))
        return DirectorySource(engine, path, using, **common, **rest)

    return Endpoint(_PATH | dict(reader) | _ARRIVING, make, batch=_PATH | dict(reader))


def _expanded(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) + (os.sep if path.endswith(os.sep) else "")


def _queue_source(_engine: Engine, declared: Declared, given: Arguments) -> abi.Source:
    from velaria_core.execution.sources.queue import QueueSource

    if declared.schema is None:
        raise InputError(
            "source.no_schema",
            f'"{declared.name}" declares no columns',
            hint=f"CREATE SOURCE TABLE {declared.name} (a BIGINT) USING queue",
        )
    changes = given.pop("changes", False)
    return QueueSource(declared.schema, append_only=not changes, time_column=declared.time_column, **given)


def _rate_source(_engine: Engine, declared: Declared, given: Arguments) -> abi.Source:
    from velaria_core.execution.sources.rate import RateSource

    made = RateSource(**{"rows_per_second": 1, **given})
    found = made.info().schema
    if declared.schema is not None and not declared.schema.equals(found):
        raise InputError(
            "sql.schema_mismatch",
            f'"{declared.name}" declares other columns than a rate has',
            hint="leave the columns out: " + ", ".join(f"{item.name} {item.type}" for item in found),
        )
    return made


SOURCES: Final[Mapping[str, Endpoint]] = {
    **{using: _files(using) for using in FORMATS},
    "queue": Endpoint(
        {"capacity_rows": Option("capacity_rows", as_int), "changes": Option("changes", as_bool)},
        _queue_source,
        held=True,
    ),
    "rate": Endpoint(
        {
            "rows_per_second": Option("rows_per_second", as_int),
            "rows": Option("rows", as_int),
            "keys": Option("keys", as_int),
            "seed": Option("seed", as_int),
            "start_ms": Option("start_ms", as_int),
            "wait": Option("wait", as_bool),
        },
        _rate_source,
    ),
}


# --- sinks --------------------------------------------------------------------------------------------------


def _csv_sink(engine: Engine, _declared: Declared, given: Arguments) -> abi.Sink:
    from velaria_core.execution.sinks.csv_append import CsvAppendSink
    from velaria_core.execution.sinks.file_set import FileSetSink

    path = _required(given, "path", "'out.csv'")
    if not path.endswith(os.sep) and not os.path.isdir(path):
        return CsvAppendSink(engine, path, **given)
    if given:
        raise InputError("option.value", f'"{next(iter(given))}" is for a file, not for a folder of them')
    return FileSetSink(engine, path, "csv")


def _file_set(written: str) -> Endpoint:
    def make(engine: Engine, _declared: Declared, given: Arguments) -> abi.Sink:
        from velaria_core.execution.sinks.file_set import FileSetSink

        return FileSetSink(engine, _required(given, "path", "'folder/'"), written)

    return Endpoint(_PATH, make)


def _table_sink(engine: Engine, declared: Declared, given: Arguments) -> abi.Sink:
    from velaria_core.execution.sinks.table import TableSink

    name, path = given.get("table", declared.name), given.get("path")
    return TableSink(name, path=path) if path is not None else TableSink(name, engine=engine)


def _queue_sink(_engine: Engine, _declared: Declared, given: Arguments) -> abi.Sink:
    from velaria_core.execution.sinks.queue import QueueSink

    return QueueSink(**given)


def _memory_sink(_engine: Engine, _declared: Declared, _given: Arguments) -> abi.Sink:
    from velaria_core.execution.sinks.memory import MemorySink

    return MemorySink()


def _console_sink(_engine: Engine, _declared: Declared, given: Arguments) -> abi.Sink:
    from velaria_core.execution.sinks.console import ConsoleSink

    return ConsoleSink(**given)


SINKS: Final[Mapping[str, Endpoint]] = {
    "csv": Endpoint(
        _PATH | {"delimiter": Option("delimiter", as_character), "header": Option("header", as_bool)}, _csv_sink
    ),
    "json": _file_set("json"),
    "jsonl": _file_set("json"),
    "parquet": _file_set("parquet"),
    "table": Endpoint(_PATH | {"table": Option("table")}, _table_sink),
    "queue": Endpoint(
        {"capacity_rows": Option("capacity_rows", as_int), "full_timeout": Option("full_timeout_ms", as_milliseconds)},
        _queue_sink,
        held=True,
    ),
    "memory": Endpoint({}, _memory_sink, held=True),
    "console": Endpoint({"max_rows": Option("max_rows", as_int)}, _console_sink),
}


# --- what the catalog asks ----------------------------------------------------------------------------------


def _late(value: object) -> Late:
    try:
        return Late(str(value).lower())
    except ValueError:
        hint = did_you_mean(str(value), [str(one) for one in Late], "ways")
        raise InputError("option.value", f"late rows are not {value}", hint=hint) from None


# Options of a source that say how its watermark moves.
WATERMARK_OPTIONS: Final = {
    "late": Option("late", _late),
    "ahead": Option("ahead_ms", as_milliseconds),
    "idle": Option("idle_ms", as_milliseconds),
}


def source(engine: Engine, declared: Declared) -> abi.Source:
    """A source of what is declared, new with each call.

    Raises:
        InputError[option.*, source.*, file.*]: at the option's place where one is wrong.
    """
    declared = _probed(engine, declared)
    chosen = _chosen(SOURCES, declared, "sources")
    given = _without(WATERMARK_OPTIONS, declared)
    made: abi.Source = chosen.make(engine, declared, _arguments(chosen.options, given, WATERMARK_OPTIONS))
    return made


def sink(engine: Engine, declared: Declared) -> abi.Sink:
    """A sink of what is declared, new with each call. Raises as `source`."""
    chosen = _chosen(SINKS, declared, "sinks")
    made: abi.Sink = chosen.make(engine, declared, _arguments(chosen.options, declared))
    return made


def watermark_arguments(declared: Declared) -> Arguments:
    """What OPTIONS say about the watermark."""
    mine = {key: value for key, value in declared.options.items() if key in WATERMARK_OPTIONS}
    return _arguments(WATERMARK_OPTIONS, replace(declared, options=mine))


def is_held(kinds: Mapping[str, Endpoint], declared: Declared) -> bool:
    """Whether a program holds one end in its hands, so that the session has one object of it."""
    found = kinds.get(declared.using or "")
    return found is not None and found.held


def batch_options(engine: Engine, declared: Declared) -> tuple[str, Mapping[str, Any]]:
    """The format and options under which `files.from_options` reads what a source has now.

    Raises:
        SqlUnsupportedError[sql.stream_only]: there is nothing that batch could read.
    """
    declared = _probed(engine, declared)
    chosen = _chosen(SOURCES, declared, "sources")
    if chosen.batch is None:
        raise SqlUnsupportedError(
            "sql.stream_only",
            f'"{declared.name}" reads a {declared.using}, which has rows as they come',
            hint="stream_sql(...) reads it",
        )
    options = {key: value for key, value in declared.options.items() if key in chosen.batch}
    if (pattern := declared.options.get("pattern")) is not None:
        options["path"] = os.path.join(str(options["path"]), str(pattern))
    assert declared.using is not None, "what is probed has a format"
    return declared.using, options


def _probed(engine: Engine, declared: Declared) -> Declared:
    """With the format of its files, where USING does not say it."""
    if declared.using is not None:
        return declared
    found = files.probe(engine, _required(dict(declared.options), "path", "'events.csv'"))
    return replace(declared, using="tsv" if found.final_format == "tsv" else found.kind)


def _chosen(kinds: Mapping[str, Endpoint], declared: Declared, noun: str) -> Endpoint:
    if declared.using is None:
        hint = f"CREATE SINK TABLE {declared.name} USING csv OPTIONS(path: 'out.csv')"
        raise InputError("option.missing", "OPTIONS without USING", hint=hint)
    found = kinds.get(declared.using)
    if found is None:
        told = f'no {noun.removesuffix("s")} "{declared.using}"'
        nearest = did_you_mean(declared.using, kinds, noun)
        raise InputError("option.unknown_format", told, hint=nearest, place=declared.using_place)
    return found


def _without(known: Mapping[str, Option], declared: Declared) -> Declared:
    return replace(declared, options={key: value for key, value in declared.options.items() if key not in known})


def _arguments(known: Mapping[str, Option], declared: Declared, also: Mapping[str, Option] | None = None) -> Arguments:
    """The values of the options by the argument that each sets; `also` are keys that others take."""
    found: Arguments = {}
    for key, value in declared.options.items():
        option = known.get(key)
        if option is None:
            told = f'no option "{key}" for {declared.using}'
            hint = did_you_mean(key, [*known, *(also or ())], "options")
            raise InputError("option.unknown", told, hint=hint, place=declared.place(key))
        try:
            found[option.argument] = option.convert(value)
        except InputError as error:
            error.place = error.place or declared.place(key)
            raise
    return found


def _required(given: Arguments, key: str, example: str) -> str:
    value = given.pop(key, None)
    if value is None or not str(value):
        raise InputError("option.missing", f"OPTIONS names no {key}", hint=f"OPTIONS({key}: {example})")
    return str(value)
