"""JSON: lines, arrays and running objects, with one schema from all sampled objects.

Nested objects, and arrays of anything but numbers or texts, stay as JSON text: that loses no value, and
`payload ->> '$.key'` reads them. Declare a type to have them apart: columns={"payload": "STRUCT(key BIGINT)"}.
Arrays of numbers are fixed vectors when all sampled ones are as long, else lists of doubles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from velaria_core.errors import DataError, Place
from velaria_core.execution.duck import Engine
from velaria_core.execution.files import cache, csv, faults, scan
from velaria_core.execution.files.faults import Record, Source
from velaria_core.execution.files.guard import (
    Column,
    Guard,
    cast_text,
    integer_text,
    read_column,
    text_guard,
)
from velaria_core.execution.files.infer import TEXT, Inferred, infer, integer_type
from velaria_core.execution.files.line import lines_call, numbered_lines
from velaria_core.execution.files.options import JsonFormat, JsonOptions, OnError
from velaria_core.execution.files.paths import File, engine_list
from velaria_core.execution.files.sample import Sample, open_plain, take_sample
from velaria_core.types import literal, quoted

# The engine's name of a file of objects that are parted by nothing, each over several lines.
RUNNING = "unstructured"
ENGINE_FORMATS = {JsonFormat.LINES: "newline_delimited", JsonFormat.ARRAY: "array"}
# A float32 holds every integer below it, so that a vector of integers loses nothing.
FLOAT_INT_MAX = 2**24

_TEMPORAL = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")


def format_of(sample: Sample) -> str:
    """How a file holds its objects, in the engine's words, by the first of it."""
    text = sample.head.lstrip()
    if text.startswith("["):
        return ENGINE_FORMATS[JsonFormat.ARRAY]
    first = text.split("\n", 1)[0]
    if _parsed(first) is None and text.startswith("{"):
        try:
            json.JSONDecoder().raw_decode(text)
        except ValueError:
            pass
        else:
            return RUNNING
        if first.strip() == "{":
            return RUNNING
    return ENGINE_FORMATS[JsonFormat.LINES]


def objects_of(sample: Sample, layout: str) -> list[dict[str, Any]]:
    """The objects of a sample that can be read; what cannot is the engine's to refuse, with its line."""
    if layout == ENGINE_FORMATS[JsonFormat.LINES]:
        return [found for line in sample.all_lines() if isinstance(found := _parsed(line), dict)]
    return [found for found, _ in _running(sample.head) if isinstance(found, dict)]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _running(text: str) -> Iterator[tuple[Any, int]]:
    """Values that follow one another, in an array or without one, and where each starts; ends at a broken one."""
    decoder = json.JSONDecoder()
    at = 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,[":
            at += 1
        if at >= len(text) or text[at] == "]":
            return
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield found, at
        at = end


# --- schema -----------------------------------------------------------------------------------------------------------


def infer_schema(objects: Sequence[Mapping[str, Any]]) -> list[tuple[str, Inferred]]:
    """The keys of all objects in the order they come, each with one type."""
    values: dict[str, list[Any]] = {}
    for found in objects:
        for key, value in found.items():
            values.setdefault(key, []).append(value)
    return [(key, infer_values(found)) for key, found in values.items()]


def infer_values(values: Sequence[Any]) -> Inferred:
    """The type of JSON values. Kinds that do not go together are text."""
    values = [value for value in values if value is not None]
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return Inferred("BOOLEAN")
    if kinds == {int}:
        return integer_type(min(values), max(values))
    if kinds and kinds <= {int, float}:
        return Inferred("DOUBLE")
    if kinds == {str}:
        found = infer((value or " " for value in values), ())
        return found if found.type in _TEMPORAL and "" not in values else TEXT
    if kinds == {list}:
        return _infer_lists(values)
    return TEXT


def _infer_lists(values: Sequence[list[Any]]) -> Inferred:
    kinds = {type(item) for value in values for item in value}
    if kinds and kinds <= {int, float}:
        sizes = {len(value) for value in values}
        small = all(isinstance(item, float) or abs(item) <= FLOAT_INT_MAX for value in values for item in value)
        return Inferred(f"FLOAT[{sizes.pop()}]" if len(sizes) == 1 and small else "DOUBLE[]")
    return Inferred("VARCHAR[]") if kinds == {str} else TEXT


def schema_of(
    files: Sequence[File], samples: Sequence[Sample], layout: str, options: JsonOptions, *, proven: bool
) -> tuple[tuple[str, Inferred], ...]:
    """The columns: those that the caller named, or every key found.

    Raises:
        DataError[file.bad_json, file.empty]: no object could be read.
        DataError[file.duplicate_column]: two keys differ by case only.
        InputError[file.unknown_column]: a named column without a type is in no object.
    """
    named = options.columns
    if named is not None and all(kind is not None for _, kind in named):
        return tuple((name, Inferred(kind or "", declared=True)) for name, kind in named)
    objects = [found for sample in samples for found in objects_of(sample, layout)]
    if not objects:
        raise _no_objects(samples[0], layout)
    found = dict(infer_schema(objects))
    if named is not None:
        columns = []
        for name, kind in named:
            if kind is None and name not in found and proven:
                raise csv.no_column(files[0], name, list(found))
            columns.append((name, Inferred(kind, declared=True) if kind is not None else found.get(name, TEXT)))
        return tuple(columns)
    seen: dict[str, str] = {}
    for key in found:
        if (other := seen.setdefault(key.lower(), key)) != key:
            raise DataError(
                "file.duplicate_column",
                f'the keys "{other}" and "{key}" differ by case only',
                hint=f'name the wanted one: columns=["{key}", ...]',
                place=Place(file=files[0].path),
            )
    # The engine has no column without a name.
    found.pop("", None)
    if not found:
        raise DataError("file.empty", f'the objects of "{files[0].path}" have no keys', place=Place(file=files[0].path))
    return tuple(found.items())


def _no_objects(sample: Sample, layout: str) -> DataError:
    place = Place(file=sample.file.path)
    if layout == ENGINE_FORMATS[JsonFormat.ARRAY] and not sample.head.strip(" \t\n[]"):
        return DataError("file.empty", f'"{sample.file.path}" holds no objects', place=place)
    told = 1 if layout == ENGINE_FORMATS[JsonFormat.LINES] else None
    line, why = faults.malformed_line(sample.file.path, told, "a line must hold one object")
    return DataError(
        "file.bad_json",
        f"malformed JSON: {why}",
        hint="velaria probe says what a file is",
        place=Place(file=sample.file.path, line=line),
    )


# --- plan -------------------------------------------------------------------------------------------------------------


def plan(engine: Engine, files: tuple[File, ...], options: JsonOptions) -> scan.Plan:
    """How to read JSON files; what the objects of later files add is not seen unless it is sampled or named."""
    samples = [take_sample(file, options.encoding) for file in csv.spread(files)]
    proven = len(samples) == len(files) and all(sample.complete for sample in samples)
    layout = ENGINE_FORMATS.get(options.format) or format_of(samples[0])
    schema = schema_of(files, samples, layout, options, proven=proven)
    warnings: tuple[str, ...] = ()
    if options.columns is None and any("" in found for sample in samples for found in objects_of(sample, layout)):
        warnings = ('the key "" is left out: a column needs a name',)
    paths = [file.path for file in files]
    compression = samples[0].compression
    if csv.needs_copy(samples, files) or samples[0].encoding.lower() not in ("utf-8", "ascii"):
        known = {sample.file.path: sample for sample in samples}
        paths = [
            cache.plain_copy(
                engine, known.get(file.path) or take_sample(file, options.encoding), options.materialization
            )
            for file in files
        ]
        compression = "none"
    if options.on_error is OnError.FAIL:
        return replace(_lazy(files, paths, schema, layout, compression, proven), warnings=warnings)
    return replace(_by_line(files, paths, schema, layout, compression), warnings=warnings)


def _lazy(
    files: tuple[File, ...],
    paths: Sequence[str],
    schema: Sequence[tuple[str, Inferred]],
    layout: str,
    compression: str,
    proven: bool,
) -> scan.Plan:
    columns = tuple(json_column(name, inferred, proven=proven) for name, inferred in schema)
    listed = ", ".join(f"{literal(column.name)}: {literal(column.raw)}" for column in columns)
    call = (
        f"read_json({engine_list(paths)}, format={literal(layout)}, records=true, "
        f"columns={{{listed}}}, compression={literal(compression)})"
    )
    source = Source(tuple(paths), columns, partial(records, [name for name, _ in schema], layout, compression))
    reader = scan.Reader(lambda more: call, columns, tuple((c.name, c.name) for c in columns), source)  # noqa: ARG005
    return scan.Plan("json", files, reader.select(faults.register(source)), details=(("format", layout),))


def json_column(name: str, inferred: Inferred, *, proven: bool) -> Column:
    """A column of the engine's JSON reader.

    Integers beyond 64 bits come as text, which it keeps digit by digit. So do, where the sample was not the whole
    file, booleans (it takes 5 for true) and dates (it cuts off the time).
    """
    kind = inferred.type
    if kind.startswith("DECIMAL") or (kind == "BIGINT" and inferred.declared):
        return Column(name, kind, "VARCHAR", text_guard(inferred))
    if not proven and inferred.formats:
        return Column(name, kind, "VARCHAR", text_guard(inferred))
    return read_column(name, inferred, proven=proven)


def records(names: Sequence[str], layout: str, compression: str, path: str) -> Iterator[Record]:
    """The objects of a file as Python reads them, for the errors of guards."""
    if layout == ENGINE_FORMATS[JsonFormat.LINES]:
        for number, line in numbered_lines(path, compression):
            found = _parsed(line)
            if isinstance(found, dict):
                yield Record(number, [text_of(found.get(name)) for name in names], line)
        return
    with open_plain(File(path, 0, 0, 0), compression) as stream:
        text = stream.read().decode()
    for found, at in _running(text):
        if isinstance(found, dict):
            yield Record(text.count("\n", 0, at) + 1, [text_of(found.get(name)) for name in names], "")


def text_of(value: Any) -> str | None:
    """A JSON value as the engine gives it for a column of text."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _by_line(
    files: tuple[File, ...],
    paths: Sequence[str],
    schema: Sequence[tuple[str, Inferred]],
    layout: str,
    compression: str,
) -> scan.Plan:
    """Line by line, or object by object: the engine would give a broken line as a row of NULLs.

    Every value is taken as text and converted by a guard. In an array `line` counts objects.
    """
    columns = tuple(
        Column(name, inferred.type, "VARCHAR", None if inferred.is_text else value_guard(inferred))
        for name, inferred in schema
    )
    cells = ", ".join(
        f"json_extract_string(document, {literal(pointer(name))}) AS {quoted(name)}" for name, _ in schema
    )
    lines = layout == ENGINE_FORMATS[JsonFormat.LINES]

    def rows(path: str) -> str:
        if lines:
            read = lines_call([path], {"compression": compression, "encoding": "utf-8"})
        else:
            read = (
                f"(SELECT CAST(json AS VARCHAR) AS line FROM read_json_objects({engine_list([path])}, "
                f"format={literal(layout)}, compression={literal(compression)}))"
            )
        checked = (
            "SELECT number, line, CASE WHEN NOT json_valid(line) THEN 'malformed JSON' "
            "WHEN json_type(line) <> 'OBJECT' THEN 'not an object' END AS fault "
            f"FROM (SELECT row_number() OVER () AS number, line FROM {read}) WHERE trim(line) <> ''"
        )
        return (
            f"SELECT number AS {scan.LINE}, line AS {scan.TEXT}, fault AS {scan.FAULT}, {cells} "
            f"FROM (SELECT *, CASE WHEN fault IS NULL THEN line END AS document FROM ({checked}))"
        )

    every = " UNION ALL ".join(rows(path) for path in paths[:1])
    values = ", ".join(f"{column.value_or_null()} AS {quoted(column.name)}" for column in columns)
    return scan.Plan(
        "json",
        files,
        f"(SELECT {values} FROM ({every}))",
        stage=scan.LineReader(rows, columns, tuple(paths)).stage,
        details=(("format", layout),),
    )


def pointer(key: str) -> str:
    """The JSON pointer of a key."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def value_guard(inferred: Inferred) -> Guard:
    """The checked conversion of a JSON value given as text."""
    kind = inferred.type
    if kind in ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER") or kind == "DECIMAL(38,0)":
        return integer_text(kind)
    if "[" in kind or ("(" in kind and not kind.startswith("DECIMAL")):
        cast = f"TRY(CAST(CAST({{x}} AS JSON) AS {kind}))"
        return Guard(f"{cast} IS NOT NULL", cast)
    return cast_text(kind)
