"""Lines: text files whose lines are split at a delimiter or matched by a regular expression.

Split lines go through the engine's CSV reader with quotes off: it projects and converts while it reads, pads short
lines with NULL and ignores what stands behind the last wanted cell. Other lines are read as one column of text and
taken apart by expressions. (Splitting the text of a whole file is the trap: it is a hundred times slower.)
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from velaria_core.errors import DataError, InputError, Place, VelariaError
from velaria_core.execution.duck import Engine
from velaria_core.execution.files import cache, csv, faults, scan
from velaria_core.execution.files.dialect import DELIMITERS, find_delimiter
from velaria_core.execution.files.faults import Record, Source
from velaria_core.execution.files.guard import Column, read_column, text_column
from velaria_core.execution.files.infer import Inferred, infer
from velaria_core.execution.files.options import LineMode, LineOptions, OnError
from velaria_core.execution.files.paths import File, engine_list
from velaria_core.execution.files.sample import open_plain, take_sample
from velaria_core.types import literal, quoted

# RE2 matches in one pass, five times faster, while it has at most so many groups to report.
GROUPS_AT_ONCE = 4


def plan(engine: Engine, files: tuple[File, ...], options: LineOptions) -> scan.Plan:
    """How to read text lines."""
    samples = [take_sample(file, options.encoding) for file in csv.spread(files)]
    proven = len(samples) == len(files) and all(sample.complete for sample in samples)
    first = samples[0]
    paths = [file.path for file in files]
    compression, encoding = first.compression, first.encoding.lower()
    if csv.needs_copy(samples, files):
        known = {sample.file.path: sample for sample in samples}
        paths = [
            cache.plain_copy(
                engine, known.get(file.path) or take_sample(file, options.encoding), options.materialization
            )
            for file in files
        ]
        compression, encoding = "none", "utf-8"
    reading = {"compression": compression, "encoding": csv.ENGINE_ENCODINGS[encoding]}
    lines = [line for sample in samples for line in sample.all_lines()]
    if not lines:
        raise DataError("file.empty", f'"{first.file.path}" has no lines', place=Place(file=first.file.path))
    if options.mode is LineMode.REGEX:
        return _regex_plan(engine, files, paths, lines, reading, options)
    delimiter = options.split_delimiter or find_delimiter(first.head, DELIMITERS) or ","
    if options.skip_empty_lines and len(delimiter.encode()) <= csv.DELIMITER_BYTES_MAX:
        return _split_plan(files, paths, lines, reading, options, delimiter, proven)
    return _apart_plan(files, paths, lines, reading, options, delimiter)


def default_mappings(lines: Sequence[str], delimiter: str) -> tuple[tuple[str, int], ...]:
    """c0, c1, ... for as many cells as the widest sampled line has."""
    width = max(line.count(delimiter) + 1 for line in lines)
    return tuple((f"c{at}", at) for at in range(width))


def infer_cells(
    mappings: Sequence[tuple[str, int]], cells: Sequence[Sequence[str | None]], options: LineOptions
) -> list[tuple[str, Inferred]]:
    """The type of every mapped column, from rows of sampled cells.

    Raises:
        InputError[file.unknown_column]: `types` names a column that is not mapped.
    """
    fixed = {name.lower(): kind for name, kind in options.types}
    found = []
    for name, at in mappings:
        column = [row[at] if at < len(row) else None for row in cells]
        inferred = infer([None if cell in options.null_values else cell for cell in column])
        if (kind := fixed.pop(name.lower(), None)) is not None:
            inferred = csv.fixed_type(kind, inferred)
        found.append((name, inferred))
    if fixed:
        raise InputError(
            "file.unknown_column",
            f'types names "{next(iter(fixed))}", which no mapping does',
            hint="columns: " + ", ".join(name for name, _ in mappings),
        )
    return found


# --- split by the CSV reader ------------------------------------------------------------------------------------------


def _split_plan(
    files: tuple[File, ...],
    paths: Sequence[str],
    lines: Sequence[str],
    reading: dict[str, str],
    options: LineOptions,
    delimiter: str,
    proven: bool,
) -> scan.Plan:
    mappings = options.mappings or default_mappings(lines, delimiter)
    typed = infer_cells(mappings, [line.split(delimiter) for line in lines], options)
    # One raw column for each index; at least two, because the reader keeps a blank line of one column.
    width = max(2, max(at for _, at in mappings) + 1)
    columns = [Column(f"velaria {at}", "VARCHAR", "VARCHAR") for at in range(width)]
    inferred: dict[str, Inferred] = {column.name: Inferred("VARCHAR") for column in columns}
    output: list[tuple[str, str]] = []
    placed: dict[int, str] = {}
    for (name, at), (_, kind) in zip(mappings, typed, strict=True):
        if at not in placed:
            columns[at] = read_column(name, kind, proven=proven)
            inferred[name] = kind
            placed[at] = name
        output.append((name, placed[at]))
    guarded, formats = csv.with_formats(tuple(columns), inferred)
    text = csv.reader_options(
        {
            "header": False,
            "delim": delimiter,
            "quote": "",
            "escape": "",
            "strict_mode": False,
            "null_padding": True,
            **reading,
            **formats,
        },
        guarded,
        options.null_values,
    )
    call = f"read_csv({engine_list(paths)}, {text}"
    source = Source(
        tuple(paths),
        guarded,
        partial(_split_records, delimiter, width, options.null_values, reading["compression"], reading["encoding"]),
    )
    reader = scan.Reader(lambda more: f"{call}{more})", guarded, tuple(output), source)
    return scan.Plan(
        "line",
        files,
        reader.select(faults.register(source)),
        stage=reader.stage,
        details=(("mode", "split"), ("delimiter", delimiter)),
    )


def _split_records(
    delimiter: str, width: int, null_values: Sequence[str], compression: str, encoding: str, path: str
) -> Iterator[Record]:
    nulls = {"", *null_values}
    for number, line in numbered_lines(path, compression, encoding):
        if line:
            cells = [None if cell in nulls else cell for cell in line.split(delimiter)[:width]]
            yield Record(number, cells + [None] * (width - len(cells)), line)


def numbered_lines(path: str, compression: str = "none", encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """The lines of a file, counted from 1, without their ends."""
    with (
        open_plain(File(path, 0, 0, 0), compression) as stream,
        io.TextIOWrapper(stream, encoding=encoding, errors="replace") as text,
    ):
        for number, line in enumerate(text, 1):
            yield number, line.rstrip("\n")


# --- lines as one column ----------------------------------------------------------------------------------------------


def lines_call(paths: Sequence[str], reading: dict[str, str]) -> str:
    """A call that gives a column `line`; a blank line is NULL."""
    options = ", ".join(f"{name}={literal(value)}" for name, value in reading.items())
    return (
        f"read_csv({engine_list(paths)}, auto_detect=false, header=false, delim='', quote='', escape='', "
        f"strict_mode=false, columns={{'line': 'VARCHAR'}}, {options})"
    )


def _null_if(cell: str, null_values: Sequence[str]) -> str:
    for text in ("", *null_values):
        cell = f"nullif({cell}, {literal(text)})"
    return cell


def _of_text(
    kind: str,
    files: tuple[File, ...],
    paths: Sequence[str],
    reading: dict[str, str],
    columns: tuple[Column, ...],
    cells: str,
    keep: str,
    fault: str,
    source: Source,
    details: tuple[tuple[str, str], ...],
    warnings: tuple[str, ...] = (),
) -> scan.Plan:
    """A plan over lines taken apart by SQL.

    Args:
        cells: the raw columns, as a select list over `line`.
        keep: a condition over `line`: it is a row.
        fault: why a line is no row, over `line`; NULL when it is one or is left out silently.
    """
    name = faults.register(source)
    values = ", ".join(f"{column.value(name, at)} AS {quoted(column.name)}" for at, column in enumerate(columns))
    lines = lines_call(paths, reading)

    def rows(path: str) -> str:
        numbered = f"SELECT row_number() OVER () AS number, line FROM {lines_call([path], reading)}"
        return (
            f"SELECT number AS {scan.LINE}, line AS {scan.TEXT}, {fault} AS {scan.FAULT}, {cells} "
            f"FROM ({numbered}) WHERE {keep} OR {fault} IS NOT NULL"
        )

    return scan.Plan(
        kind,
        files,
        f"(SELECT {values} FROM (SELECT {cells} FROM {lines} WHERE {keep}))",
        stage=scan.LineReader(rows, columns, tuple(paths)).stage,
        # Whole lines are read, whatever is wanted of them.
        pushdown=frozenset(),
        details=details,
        warnings=warnings,
    )


def _apart_plan(
    files: tuple[File, ...],
    paths: Sequence[str],
    lines: Sequence[str],
    reading: dict[str, str],
    options: LineOptions,
    delimiter: str,
) -> scan.Plan:
    """Split by expressions: long delimiters, and blank lines that are rows."""
    mappings = options.mappings or default_mappings(lines, delimiter)
    typed = infer_cells(mappings, [line.split(delimiter) for line in lines], options)
    columns = tuple(text_column(name, kind) for name, kind in typed)
    parts = f"string_split(line, {literal(delimiter)})"
    cells = ", ".join(
        f"{_null_if(f'{parts}[{at + 1}]', options.null_values)} AS {quoted(name)}" for name, at in mappings
    )

    def records(path: str) -> Iterator[Record]:
        for number, line in numbered_lines(path, reading["compression"], reading["encoding"]):
            split = line.split(delimiter)
            yield Record(number, [split[at] if at < len(split) else None for _, at in mappings], line)

    return _of_text(
        "line",
        files,
        paths,
        reading,
        columns,
        cells,
        "line IS NOT NULL" if options.skip_empty_lines else "true",
        "NULL",
        Source(tuple(paths), columns, records),
        (("mode", "split"), ("delimiter", delimiter)),
    )


# --- regular expressions ----------------------------------------------------------------------------------------------

_GROUP = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?P<extra>\?(?:P?<(?P<name>[A-Za-z_]\w*)>)?)?", re.DOTALL)


def groups_of(pattern: str) -> list[str | None]:
    """The capturing groups in order: a name where they have one."""
    return [found["name"] for found in _captures(pattern)]


def _captures(pattern: str) -> Iterator[re.Match[str]]:
    for found in _GROUP.finditer(pattern):
        if found[0].startswith("(") and (found["extra"] is None or found["name"] is not None):
            yield found


def only_groups(pattern: str, wanted: Sequence[int]) -> str:
    """The pattern with only these groups (counted from 1) capturing, so that the engine reports no others."""
    out, last = [], 0
    for number, found in enumerate(_captures(pattern), 1):
        out.append(pattern[last : found.start()])
        out.append("(" if number in wanted else "(?:")
        last = found.end()
    return "".join(out) + pattern[last:]


def _regex_plan(
    engine: Engine,
    files: tuple[File, ...],
    paths: Sequence[str],
    lines: Sequence[str],
    reading: dict[str, str],
    options: LineOptions,
) -> scan.Plan:
    pattern = options.regex_pattern
    groups = _checked_groups(engine, pattern)
    mappings = options.mappings or tuple((name or f"c{number}", number) for number, name in enumerate(groups, 1))
    if not mappings:
        mappings = (("line", 0),)
    if beyond := [(name, at) for name, at in mappings if at > len(groups)]:
        raise InputError(
            "option.value",
            f'"{beyond[0][0]}" is mapped to group {beyond[0][1]} of a pattern with {len(groups)}',
            hint="groups count from 1, 0 is the whole line; put the wanted part in ( )",
        )
    extracted = _extractions(pattern, sorted({at for _, at in mappings if at}))
    cells = ", ".join(
        f"{_null_if('line' if at == 0 else extracted[at], options.null_values)} AS {quoted(name)}"
        for name, at in mappings
    )
    whole = literal(f"^(?:{pattern})$")
    keep = f"line IS NOT NULL AND regexp_matches(line, {whole})"
    if not options.skip_empty_lines:
        keep = f"regexp_matches(coalesce(line, ''), {whole})"
        cells = cells.replace("(line,", "(coalesce(line, ''),")
    with engine.cursor({"velaria_sample": pa.table({"line": pa.array(list(lines), pa.string())})}) as cursor:
        found = cursor.table(f"SELECT {cells} FROM velaria_sample WHERE {keep}")
    sampled = list(zip(*(column.to_pylist() for column in found.columns), strict=True))
    typed = infer_cells([(name, at) for at, (name, _) in enumerate(mappings)], sampled, options)
    columns = tuple(text_column(name, kind) for name, kind in typed)
    warnings = () if sampled else ("no sampled line matches the pattern",)
    fault = "NULL"
    if options.on_error is not OnError.FAIL:
        fault = f"CASE WHEN line IS NOT NULL AND NOT ({keep}) THEN 'the line does not match' END"

    def records(path: str) -> Iterator[Record]:
        compiled = re.compile(pattern)
        for number, line in numbered_lines(path, reading["compression"], reading["encoding"]):
            if match := compiled.fullmatch(line):
                yield Record(number, [match[at] for _, at in mappings], line)

    return _of_text(
        "line",
        files,
        paths,
        reading,
        columns,
        cells,
        keep,
        fault,
        Source(tuple(paths), columns, records),
        (("mode", "regex"), ("pattern", pattern)),
        warnings,
    )


def _checked_groups(engine: Engine, pattern: str) -> list[str | None]:
    if not pattern:
        raise InputError("option.value", "regex mode needs a regex_pattern", hint=r"e.g. '^(\S+) (\d+)$'")
    try:
        with engine.cursor() as cursor:
            cursor.rows(f"SELECT regexp_matches('', {literal(f'^(?:{pattern})$')})")
    except VelariaError as error:
        raise InputError(
            "option.value",
            f"the regular expression cannot be read: {error.message}",
            hint="the syntax is RE2: no look-around, no back-references",
            cause=error,
        ) from error
    return groups_of(pattern)


def _extractions(pattern: str, wanted: Sequence[int]) -> dict[int, str]:
    """The SQL for each wanted group: a few groups to a call."""
    found: dict[int, str] = {}
    for start in range(0, len(wanted), GROUPS_AT_ONCE):
        part = wanted[start : start + GROUPS_AT_ONCE]
        names = ", ".join(f"'g{number}'" for number in part)
        reduced = literal(f"^(?:{only_groups(pattern, part)})$")
        for number in part:
            found[number] = f"regexp_extract(line, {reduced}, [{names}]).g{number}"
    return found
