"""JSON: one array with a row a line, or newline-delimited objects. Values as `velaria.arrow_text` tells."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa

from velaria.arrow_text import bytes_of, joined, json_text, object_text
from velaria.cli.formats.stream import stream
from velaria_core.dataframe import DataFrame


def write_json(frame: DataFrame, out: BinaryIO, max_rows: int) -> None:
    """`[`, one object a line, `]`: a whole document, and still a line a row."""
    del max_rows
    _, batches = stream(frame)
    out.write(b"[")
    first = True
    for batch in batches:
        if batch.num_rows:
            rows = object_text(batch.schema.names, map(json_text, batch.columns))
            # Each row brings the comma of the one before it; the first row of all has none.
            text = bytes_of(joined(",\n", rows))
            out.write(b"\n" + text[2:] if first else text)
            first = False
    out.write(b"]\n" if first else b"\n]\n")


def write_ndjson(frame: DataFrame, out: BinaryIO, max_rows: int) -> None:
    """One object a line."""
    del max_rows
    _, batches = stream(frame)
    for batch in batches:
        out.write(lines_of(batch))


def lines_of(batch: pa.RecordBatch) -> memoryview:
    """The rows of a batch, an object a line."""
    return bytes_of(joined(object_text(batch.schema.names, map(json_text, batch.columns)), "\n"))
