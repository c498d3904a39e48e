"""A Markdown table: numbers to the right, bars escaped, line ends as `<br>`; NULL is an empty cell."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from velaria.arrow_text import bytes_of, joined, plain_text, text_array
from velaria.cli.formats.stream import stream
from velaria_core.dataframe import DataFrame


def write_markdown(frame: DataFrame, out: BinaryIO, max_rows: int) -> None:
    """All rows, unpadded: widths would need all rows first."""
    del max_rows
    schema, batches = stream(frame)
    names = _cells(text_array(schema.names)).to_pylist()
    rule = ["---:" if _is_number(kind) else "---" for kind in schema.types]
    out.write(f"| {' | '.join(names)} |\n| {' | '.join(rule)} |\n".encode())
    for batch in batches:
        pieces: list[pa.Array | str] = []
        for column in batch.columns:
            pieces += [" | " if pieces else "| ", _cells(plain_text(column))]
        out.write(bytes_of(joined(*pieces, " |\n")))


def _cells(text: pa.Array) -> pa.Array:
    text = pc.replace_substring(pc.replace_substring(text, "\\", "\\\\"), "|", "\\|")
    return pc.fill_null(pc.replace_substring_regex(text, "\r\n|\r|\n", "<br>"), text_array([""])[0])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
