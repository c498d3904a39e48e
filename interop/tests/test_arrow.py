"""Arrow in and out: in memory, as streams, and over the C interfaces."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from velaria_core import col, fn
from velaria_core.errors import InputError, VelariaError
from velaria_core.session import DataflowSession
from velaria_interop import (
    export_c_stream,
    from_any,
    from_arrow,
    from_dataset,
    from_stream,
    import_c_stream,
    to_arrow,
    to_arrow_array,
    to_arrow_reader,
)

TABLE = pa.table(
    {
        "id": pa.array([1, None, 2**60 + 1]),
        "name": pa.array(["a", None, "张"]),
        "v": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    }
)
SCHEMA = pa.schema([("n", pa.int64())])


class OnlyArray:
    """Something that speaks the Arrow C data interface and no streams."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self._data.__arrow_c_array__(requested_schema)


class OnlyStream:
    def __init__(self, data: Any) -> None:
        self._data = data

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._data.__arrow_c_stream__(requested_schema)


def batch() -> pa.RecordBatch:
    return TABLE.combine_chunks().to_batches()[0]


WAYS_IN = {
    "table": lambda: TABLE,
    "batch": lambda: batch(),
    "reader": lambda: TABLE.to_reader(max_chunksize=1),
    "struct array": lambda: batch().to_struct_array(),
    "c stream": lambda: OnlyStream(TABLE),
    "c array": lambda: OnlyArray(batch()),
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_round_trip(session: DataflowSession, way: str) -> None:
    frame = from_arrow(session, WAYS_IN[way]())
    assert to_arrow(frame).schema.types == TABLE.schema.types
    assert to_arrow(frame).to_pylist() == TABLE.to_pylist()
    assert to_arrow_reader(frame).read_all().to_pylist() == TABLE.to_pylist()
    # Again: what was a stream is in memory now.
    assert frame.count() == 3


def test_out_of_anything_that_streams() -> None:
    assert to_arrow(OnlyStream(TABLE)).equals(TABLE)
    assert to_arrow_reader(OnlyStream(TABLE)).read_all().equals(TABLE)


def test_as_one_array(session: DataflowSession) -> None:
    array = to_arrow_array(from_arrow(session, TABLE))
    assert pa.record_batch(OnlyArray(array)).to_pylist() == TABLE.to_pylist()
    empty = to_arrow_array(from_arrow(session, TABLE.slice(0, 0)))
    assert len(empty) == 0
    assert [field.name for field in empty.type] == TABLE.column_names


@pytest.mark.parametrize(
    "data", [5, "text", pa.array([1, 2]), OnlyArray(pa.array([1, 2]))], ids=lambda d: type(d).__name__
)
def test_what_is_no_table_is_refused(session: DataflowSession, data: object) -> None:
    with pytest.raises(InputError) as caught:
        from_arrow(session, data)
    assert caught.value.code == "data.unsupported"


def test_what_has_no_rows_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        to_arrow(object())
    assert caught.value.code == "data.unsupported"


# --- streams -----------------------------------------------------------------------------------------------------


class Numbers:
    """Batches of whole numbers without end; counts what is asked of it."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.opened = 0
        self.given = 0

    def open(self) -> pa.RecordBatchReader:
        self.opened += 1
        return pa.RecordBatchReader.from_batches(SCHEMA, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for at in range(self.batches):
            self.given += 1
            yield pa.record_batch({"n": pa.array(range(at * 1000, (at + 1) * 1000))})


def test_a_stream_is_opened_by_each_query(session: DataflowSession) -> None:
    numbers = Numbers(5)
    frame = from_stream(session, numbers.open)
    assert frame.schema == SCHEMA
    assert numbers.given == 0
    assert frame.agg(total=fn.sum("n")).to_rows() == [{"total": sum(range(5000))}]
    assert frame.count() == 5000
    session.create_temp_view("numbers", frame)
    assert session.sql("SELECT max(a.n) AS m FROM numbers a JOIN numbers b USING (n)").to_rows() == [{"m": 4999}]
    assert numbers.opened >= 5


def test_a_stream_is_not_read_further_than_needed(session: DataflowSession) -> None:
    numbers = Numbers(10**9)
    frame = from_stream(session, numbers.open, SCHEMA)
    assert frame.limit(3).to_arrow().column("n").to_pylist() == [0, 1, 2]
    assert numbers.given < 1000


def test_a_stream_that_breaks_is_one_error(session: DataflowSession) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"n": pa.array([1])})
        raise ConnectionError("the line is cut")

    frame = from_stream(session, lambda: pa.RecordBatchReader.from_batches(SCHEMA, broken()), SCHEMA)
    with pytest.raises(VelariaError) as caught:
        frame.to_arrow()
    assert "the line is cut" in caught.value.message
    assert session.sql("SELECT 1 AS one").to_rows() == [{"one": 1}]


def test_an_unread_reader_holds_its_query_up(session: DataflowSession) -> None:
    numbers = Numbers(10**9)
    reader = to_arrow_reader(from_stream(session, numbers.open, SCHEMA).filter(col("n") >= 0))
    assert reader.read_next_batch().num_rows
    # The engine fills its buffers, of some MB, and then waits.
    limit = time.monotonic() + 30
    read = 0
    while numbers.given > read:
        assert time.monotonic() < limit, "nobody reads, and the query goes on"
        read = numbers.given
        time.sleep(0.5)
    assert read < 20_000
    # Other work goes on beside it.
    assert session.sql("SELECT 1 AS one").to_rows() == [{"one": 1}]
    reader.close()


def test_readers_that_are_dropped_end_their_queries(session: DataflowSession) -> None:
    before = threading.active_count()
    for _ in range(20):
        reader = session.sql("SELECT range AS n FROM range(100000000000)").to_reader()
        reader.read_next_batch()
        del reader
    gc.collect()
    assert threading.active_count() <= before + 1
    assert session.sql("SELECT 1 AS one").to_rows() == [{"one": 1}]


def test_a_dataset_is_read_as_far_as_a_query_needs(session: DataflowSession, tmp_path: Path) -> None:
    for part in range(3):
        rows = {"part": [part] * 10, "n": list(range(part * 10, part * 10 + 10))}
        pq.write_table(pa.table(rows), tmp_path / f"{part}.parquet")
    for frame in (
        from_dataset(session, ds.dataset(tmp_path, format="parquet")),
        from_any(session, ds.dataset(tmp_path, format="parquet")),
    ):
        assert frame.filter(col("part") == 2).agg(n=fn.min("n")).to_rows() == [{"n": 20}]
        assert frame.count() == 30
    # A file that a filter rules out by its statistics is not read: this one has no data left.
    damaged = tmp_path / "0.parquet"
    data = damaged.read_bytes()
    damaged.write_bytes(b"PAR1" + b"\0" * 64 + data[68:])
    assert frame.filter(col("part") == 2).agg(n=fn.min("n")).to_rows() == [{"n": 20}]


# --- C, by address -------------------------------------------------------------------------------------------------


def test_c_streams_by_address(session: DataflowSession) -> None:
    # struct ArrowArrayStream: four functions and their data.
    stream = (ctypes.c_void_p * 5)()
    address = ctypes.addressof(stream)
    export_c_stream(from_arrow(session, TABLE), address)
    back = import_c_stream(session, address)
    assert back.to_arrow().to_pylist() == TABLE.to_pylist()
    assert stream[3] is None, "the release function is gone: the stream was released"
    with pytest.raises(InputError):
        export_c_stream(back, 0)
