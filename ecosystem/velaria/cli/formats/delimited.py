"""CSV and TSV: a header, then a row a line (RFC 4180 with LF).

A field is quoted when it has to be: with a delimiter, quote or line end inside. NULL is an empty field and the empty
text is `""`, so that both can be read back.
"""

from __future__ import annotations

import re
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from velaria.arrow_text import bytes_of, joined, plain_text, text_array
from velaria.cli.formats import Format
from velaria.cli.formats.stream import stream
from velaria_core.dataframe import DataFrame

DELIMITERS = {Format.CSV: ",", Format.TSV: "\t"}


def write_csv(frame: DataFrame, out: BinaryIO, max_rows: int) -> None:
    """Fields between commas."""
    del max_rows
    _write(frame, out, DELIMITERS[Format.CSV])


def write_tsv(frame: DataFrame, out: BinaryIO, max_rows: int) -> None:
    """Fields between tabs, quoted as in CSV."""
    del max_rows
    _write(frame, out, DELIMITERS[Format.TSV])


def _write(frame: DataFrame, out: BinaryIO, delimiter: str) -> None:
    schema, batches = stream(frame)
    out.write(header_of(schema, delimiter))
    for batch in batches:
        out.write(rows_of(batch, delimiter))


def header_of(schema: pa.Schema, delimiter: str) -> bytes:
    """The line with the names."""
    return (delimiter.join(_fields(text_array(schema.names), delimiter).to_pylist()) + "\n").encode()


def rows_of(batch: pa.RecordBatch, delimiter: str) -> memoryview:
    """The rows of a batch, a line each."""
    pieces: list[pa.Array | str] = []
    for column in batch.columns:
        pieces += [_fields(plain_text(column), delimiter), delimiter]
    return bytes_of(joined(*pieces[:-1], "\n"))


def _fields(text: pa.Array, delimiter: str) -> pa.Array:
    quotes_needed = pc.match_substring_regex(text, f'^$|[{re.escape(delimiter)}"\r\n]')
    if pc.any(quotes_needed).as_py():
        text = pc.if_else(quotes_needed, joined('"', pc.replace_substring(text, '"', '""'), '"'), text)
    return pc.fill_null(text, text_array([""])[0])
