"""CSV and TSV: sniffed once for dialect and types, then read with every column given.

The engine's own sniffing reads a ragged file again as one column of text, and types `007` as 7; so the dialect and one
type for each column are found here (`dialect`, `infer`), and its reader is told everything. What does not fit raises.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from velaria_core.errors import DataError, InputError, Place, did_you_mean
from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.files import cache, faults, scan
from velaria_core.execution.files.dialect import find_delimiter, find_escape, has_header, rows_of
from velaria_core.execution.files.faults import Record, Source
from velaria_core.execution.files.guard import Column, formatted, read_column, text_column
from velaria_core.execution.files.infer import Inferred, infer
from velaria_core.execution.files.options import CsvOptions
from velaria_core.execution.files.paths import File, engine_list
from velaria_core.execution.files.sample import Sample, first_text, inspect, open_plain, take_sample
from velaria_core.types import literal

# What the engine decodes itself; other encodings are read through a plain copy.
ENGINE_ENCODINGS = {"utf-8": "utf-8", "utf-8-sig": "utf-8", "ascii": "utf-8", "latin-1": "latin-1", "utf-16": "utf-16"}
ENGINE_COMPRESSIONS = ("none", "gzip", "zstd")
# The engine's delimiters have at most so many bytes.
DELIMITER_BYTES_MAX = 4
# Samples of so many files of a glob are taken, spread over it; the headers of all are compared.
SAMPLED_FILES = 6


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a sample of one or more like files told.

    Attributes:
        fields: (name, type) of every column in the file's order.
        skip: lines before the header or first row: those to be skipped, and blank ones.
        marks: texts such as NA that are NULL in the columns that are not text; found in one, they hold for all.
        proven: the samples were the whole files.
    """

    delimiter: str
    header: bool
    quote: str
    escape: str
    fields: tuple[tuple[str, Inferred], ...]
    proven: bool
    skip: int = 0
    marks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.fields)


def spread(files: Sequence[File], most: int = SAMPLED_FILES) -> list[File]:
    """At most `most` of the files, the first and last among them."""
    if len(files) <= most:
        return list(files)
    return [files[at * (len(files) - 1) // (most - 1)] for at in range(most)]


def sniff(samples: Sequence[Sample], options: CsvOptions, *, all_sampled: bool = True) -> Sniffed:
    """Dialect, names and types by the evidence of samples of files that have the same columns. 5 to 20 ms.

    Raises:
        DataError[file.duplicate_column]: two columns of the header have one name.
        DataError[file.unclosed_quote, file.ragged_row]: the sample cannot be divided.
    """
    first = samples[0]
    head = _skipped(first.head, options)
    delimiter = delimiter_of(head, options, complete=first.complete)
    quote = '"' if options.quote is None else options.quote
    escape = options.escape if options.escape is not None else find_escape(head, quote) if quote else ""
    rows = _rows(first.file, head, delimiter, quote, escape, first.complete)
    if not rows:
        raise DataError("file.empty", f'"{first.file.path}" has no rows', place=Place(file=first.file.path))
    header = options.header if options.header is not None else has_header(rows)
    names = _names(first.file, rows[0], header, options)
    cells: list[list[str]] = [[] for _ in names]
    for sample in samples:
        if sample is first:
            body = rows[1:] if header else rows
        else:
            text = _skipped(sample.head, options)
            body = _rows(sample.file, text, delimiter, quote, escape, sample.complete)[1 if header else 0 :]
        # A block begins somewhere: inside a quoted field its lines would be taken for rows.
        if '"' not in sample.head or not any("\n" in cell for row in body for cell in row):
            for block in sample.blocks:
                body = body + _try_rows(block, delimiter, quote, escape)
        for row in body:
            if len(row) == len(names):
                for column, cell in zip(cells, row, strict=True):
                    column.append(cell)
    fixed = {name.lower(): kind for name, kind in options.types}
    fixed |= {name.lower(): kind for name, kind in options.columns or () if kind is not None}
    fields = []
    marks: dict[str, list[str]] = {}
    for name, column in zip(names, cells, strict=True):
        found = infer(column, options.null_values)
        if (kind := fixed.pop(name.lower(), None)) is not None:
            found = fixed_type(kind, found)
        for mark in found.missing:
            marks.setdefault(mark, []).append(name)
        fields.append((name, replace(found, missing=())))
    if fixed:
        unknown = next(iter(fixed))
        raise no_column(first.file, unknown, names)
    return Sniffed(
        delimiter,
        header,
        quote,
        escape,
        tuple(fields),
        all_sampled and all(sample.complete for sample in samples),
        options.skip + blank_lines(head),
        tuple(marks),
        tuple(
            f'"{mark}" is NULL, by column "{where[0]}", in columns that are not text; null_values=[""] keeps it'
            for mark, where in marks.items()
        ),
    )


def fixed_type(kind: str, found: Inferred) -> Inferred:
    """A type that the caller fixed, with what was found that still holds for it."""
    same = kind == found.type
    return Inferred(
        kind,
        missing=found.missing if kind != "VARCHAR" else (),
        formats=found.formats if same else (),
        # The caller says how wide it is; the sample neither limits nor proves it.
        modest=False,
        spaced=found.spaced and same,
        declared=not same,
    )


def no_column(file: File, name: str, names: Sequence[str]) -> InputError:
    """The error for a column that a file has not."""
    return InputError(
        "file.unknown_column",
        f'no column "{name}" in "{file.path}"',
        hint=did_you_mean(name, names, "columns"),
        place=Place(file=file.path),
    )


def _skipped(text: str, options: CsvOptions) -> str:
    if options.skip:
        text = text.split("\n", options.skip)[-1] if text.count("\n") >= options.skip else ""
    if options.comment:
        text = "\n".join(line for line in text.split("\n") if not line.startswith(options.comment))
    return text


def blank_lines(text: str) -> int:
    """How many lines at the start are empty: the engine would take the first for the header."""
    return len(text) - len(text.lstrip("\n"))


def delimiter_of(head: str, options: CsvOptions, *, complete: bool) -> str:
    """The delimiter that was given, or the one that divides the head."""
    if options.delimiter is None:
        return find_delimiter(head, complete=complete) or ","
    if not 1 <= len(options.delimiter.encode()) <= DELIMITER_BYTES_MAX or options.delimiter in "\n\r":
        raise InputError(
            "option.value",
            f"delimiter={options.delimiter!r} cannot part fields",
            hint=f"give 1 to {DELIMITER_BYTES_MAX} bytes",
        )
    return options.delimiter


def _rows(file: File, text: str, delimiter: str, quote: str, escape: str, complete: bool) -> list[list[str]]:
    """The rows of a head; one that was cut loses its last, which may end inside quotes."""
    if len(delimiter) > 1:
        return [line.split(delimiter) for line in text.split("\n") if line]
    try:
        rows = rows_of(text.splitlines(keepends=True), delimiter, quote, escape)
    except csv.Error as error:
        raise DataError(
            "file.bad_row", f"the fields cannot be parted: {error}", place=Place(file=file.path), cause=error
        ) from error
    if not complete and len(rows) > 1 and rows[-1] and "\n" in rows[-1][-1]:
        rows.pop()
    return rows


def _try_rows(text: str, delimiter: str, quote: str, escape: str) -> list[list[str]]:
    if len(delimiter) > 1:
        return [line.split(delimiter) for line in text.split("\n") if line]
    try:
        return rows_of(text.splitlines(keepends=True), delimiter, quote, escape)
    except csv.Error:
        return []


def _made_up(at: int, taken: Sequence[str]) -> str:
    name = f"c{at}"
    while name in taken:
        name += "_"
    return name


def _names(file: File, first: Sequence[str], header: bool, options: CsvOptions) -> tuple[str, ...]:
    if options.names is not None:
        names = options.names
    elif header:
        names = tuple(cell.strip() or _made_up(at, first) for at, cell in enumerate(first))
    elif options.columns is not None:
        names = tuple(name for name, _ in options.columns)
    else:
        return tuple(f"c{at}" for at in range(len(first)))
    if len(names) != len(first):
        raise InputError(
            "file.column_count",
            f'{len(names)} names for the {len(first)} columns of "{file.path}"',
            hint="name every column, in the order of the file",
            place=Place(file=file.path, line=options.skip + 1),
        )
    seen: set[str] = set()
    for at, name in enumerate(names, 1):
        if not name:
            raise InputError("option.value", "a column needs a name", hint="names=[...] with one for each column")
        if name.lower() in seen:
            raise DataError(
                "file.duplicate_column",
                f'two columns are named "{name}"',
                hint="give names of your own, one for each column: names=[...]",
                place=Place(file=file.path, line=options.skip + 1, column=at),
            )
        seen.add(name.lower())
    return names


# --- plan -------------------------------------------------------------------------------------------------------------


def plan(engine: Engine, files: tuple[File, ...], options: CsvOptions) -> scan.Plan:
    """How to read CSV files that have the same columns, or by name those that have not."""
    chosen = spread(files)
    samples = {file.path: take_sample(file, options.encoding) for file in chosen}
    groups = _groups(files, options, samples)
    readers: list[scan.Reader] = []
    warnings: list[str] = []
    unions: list[str] = []
    shown: Sniffed | None = None
    for members in groups:
        with_samples = [samples[file.path] for file in members if file.path in samples]
        if not with_samples:
            with_samples = [take_sample(members[0], options.encoding)]
        sniffed = sniff(with_samples, options, all_sampled=len(with_samples) == len(members))
        shown = shown or sniffed
        warnings += sniffed.warnings
        reader = _reader(engine, members, with_samples, options, sniffed)
        readers.append(reader)
        unions.append(reader.select(faults.register(reader.source)))
    assert shown is not None
    sql = unions[0]
    if len(unions) > 1:
        sql = "(" + " UNION ALL BY NAME ".join(f"SELECT * FROM {part}" for part in unions) + ")"
    return scan.Plan(
        "csv",
        files,
        sql,
        stage=partial(_stage, readers),
        details=(("delimiter", shown.delimiter), ("header", str(shown.header).lower())),
        warnings=tuple(warnings),
    )


def _stage(readers: Sequence[scan.Reader], cursor: Cursor, table: str, rejects: str) -> None:
    for reader in readers:
        reader.stage(cursor, table, rejects)


def _groups(files: tuple[File, ...], options: CsvOptions, samples: dict[str, Sample]) -> list[tuple[File, ...]]:
    """Files by their first line, when there are several.

    Raises:
        DataError[file.mixed_schemas]: the first lines differ and `union_by_name` was not asked for.
    """
    if len(files) == 1:
        return [files]
    first = samples[files[0].path]
    head = _skipped(first.head, options)
    delimiter = delimiter_of(head, options, complete=first.complete)
    quote = '"' if options.quote is None else options.quote
    rows = _try_rows(head, delimiter, quote, "")
    header = options.header if options.header is not None else has_header(rows)
    groups: dict[tuple[tuple[str, ...], int], list[File]] = {}
    expected: tuple[str, ...] | None = None
    for file in files:
        sample = samples.get(file.path)
        text = _skipped(sample.head if sample is not None else first_text(file, options.encoding), options)
        top = next(iter(_try_rows(text.lstrip("\n").split("\n", 1)[0], delimiter, quote, "")), [])
        columns = tuple(top) if header else (str(len(top)),)
        expected = expected or columns
        if columns != expected and not options.union_by_name:
            raise DataError(
                "file.mixed_schemas",
                f'"{file.path}" has other columns than "{files[0].path}": {_difference(columns, expected, header)}',
                hint="union_by_name=True joins them by name, with NULL for what is missing" if header else None,
                place=Place(file=file.path, line=options.skip + 1),
            )
        # Files that begin with blank lines are read apart from those that do not.
        groups.setdefault((columns, blank_lines(text)), []).append(file)
    return [tuple(members) for members in groups.values()]


def _difference(columns: Sequence[str], expected: Sequence[str], header: bool) -> str:
    if not header:
        return f"{columns[0]} fields in a row, not {expected[0]}"
    more = [name for name in columns if name not in expected]
    less = [name for name in expected if name not in columns]
    parts = [f"adds {', '.join(more)}"] if more else []
    parts += [f"lacks {', '.join(less)}"] if less else []
    return " and ".join(parts) or "they stand in another order"


def _reader(
    engine: Engine, files: Sequence[File], samples: Sequence[Sample], options: CsvOptions, found: Sniffed
) -> scan.Reader:
    first = samples[0]
    paths = [file.path for file in files]
    compression, encoding = first.compression, first.encoding.lower()
    if needs_copy(samples, files):
        whole = {sample.file.path: sample for sample in samples}
        paths = [
            cache.plain_copy(
                engine, whole.get(file.path) or take_sample(file, options.encoding), options.materialization
            )
            for file in files
        ]
        compression, encoding = "none", "utf-8"
    # The reader knows one list of NULLs for all columns, which would take the texts "NA" too.
    columns = tuple(
        text_column(name, replace(inferred, missing=found.marks))
        if found.marks and not inferred.is_text
        else read_column(name, inferred, proven=found.proven)
        for name, inferred in found.fields
    )
    columns, formats = with_formats(columns, dict(found.fields))
    text = reader_options(
        {
            "header": found.header,
            "delim": found.delimiter,
            "quote": found.quote,
            "escape": found.escape,
            "compression": compression,
            "encoding": ENGINE_ENCODINGS[encoding] if encoding != "utf-8-sig" else "utf-8",
            "skip": found.skip or None,
            "comment": options.comment,
            **formats,
        },
        columns,
        options.null_values,
    )
    call = f"read_csv({engine_list(paths)}, {text}"
    source = Source(
        tuple(paths),
        columns,
        partial(records, found, options, compression, encoding),
    )
    return scan.Reader(lambda more: f"{call}{more})", columns, _wanted(files[0], columns, options), source)


def needs_copy(samples: Sequence[Sample], files: Sequence[File]) -> bool:
    """Whether the engine cannot read one of the files as it is, or not all in the same way."""
    ways = {(sample.compression, sample.encoding.lower()) for sample in samples}
    sampled = {sample.file.path for sample in samples}
    ways |= {(inspect(file), samples[0].encoding.lower()) for file in files if file.path not in sampled}
    return (
        len(ways) > 1
        or any(sample.mixed_newlines for sample in samples)
        or any(
            compression not in ENGINE_COMPRESSIONS or encoding not in ENGINE_ENCODINGS for compression, encoding in ways
        )
    )


def _wanted(file: File, columns: Sequence[Column], options: CsvOptions) -> tuple[tuple[str, str], ...]:
    names = {column.name.lower(): column.name for column in columns}
    if options.columns is None:
        return tuple((name, name) for name in names.values())
    for name, _ in options.columns:
        if name.lower() not in names:
            raise no_column(file, name, list(names.values()))
    return tuple((name, names[name.lower()]) for name, _ in options.columns)


def with_formats(
    columns: tuple[Column, ...], inferred: dict[str, Inferred]
) -> tuple[tuple[Column, ...], dict[str, str | None]]:
    """Columns of dates and timestamps with the strict formats for the reader, which knows one of each.

    A timestamp column in another format than the first is read as text and parsed by a guard.
    """
    dates = [column for column in columns if column.raw == "DATE" and inferred[column.name].formats]
    stamps = [column for column in columns if column.raw == "TIMESTAMP" and inferred[column.name].formats]
    stamp = next((inferred[c.name].formats[0] for c in stamps if len(inferred[c.name].formats) == 1), None)
    loose = any(c.raw in ("DATE", "TIMESTAMP") and not inferred[c.name].formats for c in columns)
    found = []
    for column in columns:
        formats = inferred[column.name].formats
        if column in stamps and (loose or formats != (stamp,)):
            column = Column(column.name, column.type, "VARCHAR", formatted("TIMESTAMP", formats))
        found.append(column)
    return tuple(found), {
        "dateformat": "%Y-%m-%d" if dates and not loose else None,
        "timestampformat": stamp if not loose else None,
    }


def reader_options(options: dict[str, object], columns: Sequence[Column], null_values: Sequence[str] | None) -> str:
    """The options of the engine's reader as text, with the columns."""
    listed = ", ".join(f"{literal(column.name)}: {literal(column.raw)}" for column in columns)
    parts = ["auto_detect=false", f"columns={{{listed}}}"]
    for name, value in options.items():
        if isinstance(value, bool):
            parts.append(f"{name}={str(value).lower()}")
        elif isinstance(value, int):
            parts.append(f"{name}={value}")
        elif value is not None:
            parts.append(f"{name}={literal(str(value))}")
    nulls = dict.fromkeys(["", *(null_values or ())])
    parts.append(f"nullstr=[{', '.join(literal(text) for text in nulls)}]")
    return ", ".join(parts)


def records(found: Sniffed, options: CsvOptions, compression: str, encoding: str, path: str) -> Iterator[Record]:
    """The rows of a file as Python reads them, for the errors of guards."""
    import io

    nulls = {"", *(options.null_values or ())}
    with (
        open_plain(File(path, 0, 0, 0), compression) as stream,
        io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="") as text,
    ):
        for _ in range(found.skip):
            text.readline()
        reader = csv.reader(
            text,
            delimiter=found.delimiter[:1],
            quotechar=found.quote or None,
            doublequote=found.escape in ("", found.quote),
            escapechar=found.escape if found.escape and found.escape != found.quote else None,
            quoting=csv.QUOTE_MINIMAL if found.quote else csv.QUOTE_NONE,
        )
        header = found.header
        line = found.skip + 1
        for row in reader:
            start, line = line, found.skip + reader.line_num + 1
            if not row or (options.comment and row[0].startswith(options.comment)):
                continue
            if header:
                header = False
                continue
            yield Record(start, [None if cell in nulls else cell for cell in row], found.delimiter.join(row))
