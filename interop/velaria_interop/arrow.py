"""Arrow: tables, batches, readers, datasets, and the C interfaces (PyCapsules) that other libraries speak."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pyarrow as pa

from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError
from velaria_core.logical.operators import Scan
from velaria_core.logical.relation import Relation
from velaria_core.session import DataflowSession
from velaria_core.types import arrow_type, duckdb_type, quoted

_numbers = count(1)


def from_arrow(session: DataflowSession, data: Any, schema: pa.Schema | None = None) -> DataFrame:
    """A frame over Arrow data: a Table, RecordBatch, RecordBatchReader, StructArray, or any object with
    `__arrow_c_stream__` or `__arrow_c_array__`.

    Tables are read in place; a stream, which can be read once only, is read to memory now.

    Raises:
        InputError[data.unsupported]: `data` is none of these.
        InputError[type.unsupported]: a column has a type that the engine has not.
    """
    if isinstance(data, pa.StructArray) or (
        hasattr(data, "__arrow_c_array__") and not hasattr(data, "__arrow_c_stream__")
    ):
        data = _unpacked(data)
    return session.create_dataframe(data, schema)


def _unpacked(data: Any) -> pa.RecordBatch:
    """The columns of a struct array."""
    try:
        return pa.record_batch(data)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise InputError(
            "data.unsupported",
            f"an Arrow array of a {type(data).__name__} is no table: {error}",
            hint="a table is an array of structs without nulls",
            cause=error,
        ) from error


def from_stream(session: DataflowSession, open: Callable[[], Any], schema: pa.Schema | None = None) -> DataFrame:  # noqa: A002
    """A frame over a stream that can be opened again and again: memory stays bounded, however long it is.

    Args:
        open: gives a fresh RecordBatchReader, or an object with `__arrow_c_stream__`, with the same columns each
            time. Each query over the frame opens it, on a thread of the engine, and may leave it half read.
        schema: its columns; opened once to find out where None.
    """
    if schema is None:
        with pa.RecordBatchReader.from_stream(open()) as reader:
            schema = reader.schema
    return _scan(session, "stream", schema, _Reopened(open))


class _Reopened:
    """A stream that is opened by whoever reads it."""

    def __init__(self, open: Callable[[], Any]) -> None:  # noqa: A002
        self._open = open

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        capsule: object = pa.RecordBatchReader.from_stream(self._open()).__arrow_c_stream__(requested_schema)
        return capsule


def from_dataset(session: DataflowSession, dataset: Any) -> DataFrame:
    """A frame over a `pyarrow.dataset`: each query reads only the columns, and skips the files and row groups, that
    its projection and filters allow."""
    return _scan(session, "dataset", dataset.schema, dataset)


def _scan(session: DataflowSession, label: str, schema: pa.Schema, feed: Any) -> DataFrame:
    known = pa.schema([pa.field(field.name, arrow_type(duckdb_type(field.type))) for field in schema])
    name = f"{label}_{next(_numbers)}"
    pushdown = frozenset({"projection", "filter"} if label == "dataset" else ())
    return DataFrame(session, Scan(Relation(f"arrow {label}", known, quoted(name), "arrow", feed, pushdown)))


def to_arrow(data: Any) -> pa.Table:
    """All rows of a frame, or of anything with `__arrow_c_stream__`, as a table in memory."""
    if isinstance(data, DataFrame):
        return data.to_arrow()
    return to_arrow_reader(data).read_all()


def to_arrow_reader(data: Any) -> pa.RecordBatchReader:
    """The rows as record batches, computed as they are read: an unread reader holds its query up, and memory stays
    bounded. One that is closed or dropped half read ends its query."""
    if isinstance(data, DataFrame):
        return data.to_reader()
    try:
        return pa.RecordBatchReader.from_stream(data)
    except TypeError as error:
        raise InputError(
            "data.unsupported",
            f"a {type(data).__name__} has no rows for Arrow",
            hint="give a DataFrame, or an object with __arrow_c_stream__",
            cause=error,
        ) from error


def to_arrow_array(data: Any) -> pa.StructArray:
    """All rows as one array of structs, which has `__arrow_c_array__`: for libraries that read no streams.

    A frame has no such method of its own: libraries that know both interfaces would take it, and lose the batches.
    """
    table = to_arrow(data)
    if not table.num_rows:
        return pa.RecordBatch.from_pylist([], table.schema).to_struct_array()
    (batch,) = table.combine_chunks().to_batches()
    return batch.to_struct_array()
