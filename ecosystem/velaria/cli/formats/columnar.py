"""Parquet and Arrow IPC: the types of the result, unchanged. Both stream, also into a pipe."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa

from velaria.cli.formats.stream import stream
from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError
from velaria_core.types import type_name

_GROUP_ROWS = 1_000_000
_GROUP_BYTES = 128 << 20


def write_parquet(frame: DataFrame, out: BinaryIO, max_rows: int) -> None:
    """Parquet, compressed with zstd; a row group holds a million rows, or 128 MB of wide ones.

    Raises:
        InputError[output.type]: Parquet has no such type (interval, union).
    """
    del max_rows
    from pyarrow import parquet

    schema, batches = stream(frame)
    try:
        writer = parquet.ParquetWriter(out, schema, compression="zstd")
    except pa.ArrowNotImplementedError as error:
        raise _unsupported(schema, error) from error
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        pending.append(batch)
        rows = sum(held.num_rows for held in pending)
        if rows >= _GROUP_ROWS or sum(held.nbytes for held in pending) >= _GROUP_BYTES:
            writer.write_table(pa.Table.from_batches(pending))
            pending.clear()
    if pending:
        writer.write_table(pa.Table.from_batches(pending))
    # Not after a failure: closing makes the file complete.
    writer.close()


def _unsupported(schema: pa.Schema, error: pa.ArrowNotImplementedError) -> InputError:
    strange = [field for field in schema if pa.types.is_interval(field.type) or pa.types.is_union(field.type)]
    what = ", ".join(f'"{field.name}" ({type_name(field.type)})' for field in strange) or str(error)
    return InputError(
        "output.type",
        f"Parquet has no type for {what}",
        hint="cast it, e.g. CAST(x AS VARCHAR), or write --format arrow",
        cause=error,
    )


def write_arrow(frame: DataFrame, out: BinaryIO, max_rows: int) -> None:
    """An Arrow IPC stream: readable as it grows, by anything that reads Arrow."""
    del max_rows
    schema, batches = stream(frame)
    writer = pa.ipc.new_stream(out, schema)
    for batch in batches:
        writer.write_batch(batch)
    writer.close()
