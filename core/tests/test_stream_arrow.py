"""Arrow data as streams: the part of T-40 that is about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from velaria_core.errors import DataError, InputError
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sinks.queue import QueueSink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.session import DataflowSession

TYPED = pa.table(
    {
        "i": pa.array([1, None, 3], pa.int32()),
        "f": pa.array([0.5, None, 1.5], pa.float32()),
        "s": pa.array(["a", None, ""], pa.large_string()),
        "b": pa.array([True, None, False]),
        "v": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    }
)


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=1) as made:
        yield made


def polled(sink: QueueSink) -> list[dict[str, Any]]:
    """All that a queue has been given."""
    found: list[dict[str, Any]] = []
    while (table := sink.poll_arrow()) is not None:
        found += table.to_pylist()
    return found


@pytest.mark.parametrize("kind", ["tables", "batches"])
def test_a_stream_keeps_the_borders_of_its_batches(session: DataflowSession, kind: str) -> None:
    """T-40, A-87: two come in, two are processed, and the offset is "2"."""
    given: list[Any] = [pa.table({"k": ["a", "b"], "v": [1, 2]}), pa.table({"k": ["a"], "v": [4]})]
    if kind == "batches":
        given = [batch for table in given for batch in table.to_batches()]
    sink = MemorySink()
    query = session.create_stream_from_arrow(given).group_by("k").sum("v").write_stream(sink)
    query.process_available()
    told = query.progress()
    query.stop()
    assert (told["batches_processed"], told["last_source_offset"]) == (2, "2")
    assert sorted(row["sum"] for row in sink.result().to_pylist()) == [2, 5]


def test_each_batch_is_an_epoch_where_that_is_asked(session: DataflowSession) -> None:
    """Batches that wait go together; with epochs as large as a batch they stay apart."""
    given = [pa.table({"v": [1, 2]}), pa.table({"v": [3, 4]})]
    for options, epochs in (({"epoch_rows_max": 2}, 2), ({}, 1)):
        sink = MemorySink()
        query = session.create_stream_from_arrow(given).write_stream(sink, **options)
        query.process_available()
        assert query.progress()["epoch"] == sink.batches_written == epochs
        query.stop()


def test_a_sliding_window_from_queue_to_queue(session: DataflowSession) -> None:
    """T-40: realtime source and sink, rows by push_arrow; a row is in each window that spans it."""
    source = session.create_realtime_stream_source([("ts", "int64"), ("k", "string"), ("v", "int64")])
    sink = session.create_realtime_stream_sink()
    session.create_temp_view("taps", session.read_realtime_stream_source(source).with_watermark("ts", 0))
    query = session.stream_sql("""
        SELECT window_start, k, sum(v)::BIGINT AS s
        FROM HOP(TABLE taps, DESCRIPTOR(ts), INTERVAL '1 second', INTERVAL '2 seconds')
        GROUP BY window_start, k
        EMIT ON WINDOW CLOSE
    """)
    written = query.write_stream_queue_sink(sink)
    source.push_arrow(pa.table({"ts": [1_000, 2_500], "k": ["a", "a"], "v": [1, 2]}))
    source.push_arrow(pa.record_batch({"ts": [2_600], "k": ["b"], "v": [4]}))
    source.close()
    assert written.start().await_termination(60)
    found = sorted((row["window_start"], row["k"], row["s"]) for row in polled(sink))
    assert found == [(0, "a", 1), (1_000, "a", 3), (1_000, "b", 4), (2_000, "a", 2), (2_000, "b", 4)]


def test_having_over_pushed_rows(session: DataflowSession) -> None:
    """T-40: push_rows with HAVING; a group comes out when it is large enough, and goes on changing."""
    source = session.create_realtime_stream_source({"k": "string", "v": "int64"})
    session.create_temp_view("pushed", session.read_realtime_stream_source(source))
    sink = MemorySink()
    query = session.stream_sql("SELECT k, sum(v)::BIGINT AS s FROM pushed GROUP BY k HAVING sum(v) > 10").write_stream(
        sink
    )
    seen = []
    for pushed in ([{"k": "a", "v": 7}, {"k": "b", "v": 11}], [["a", 8], ["c", 1]], [("b", -5)]):
        source.push_rows(pushed)
        query.process_available()
        seen.append(sorted((row["k"], row["s"]) for row in sink.result().to_pylist()))
    query.stop()
    assert seen == [[("b", 11)], [("a", 15), ("b", 11)], [("a", 15)]]


@pytest.mark.parametrize("way", ["memory", "queue", "rows", "dicts"])
def test_types_survive_a_stream(session: DataflowSession, way: str) -> None:
    """T-40: int32, float32, text, booleans and vectors of a fixed length, with NULLs, through a filter and out."""
    match way:
        case "memory":
            stream = session.read_stream(MemorySource([TYPED.slice(0, 2), TYPED.slice(2)]))
        case "queue":
            source = session.create_realtime_stream_source(TYPED.schema)
            source.push_arrow(TYPED)
            source.close()
            stream = session.read_realtime_stream_source(source)
        case "rows":
            stream = session.create_stream_from_rows(TYPED.to_batches(max_chunksize=1))
        case _:
            stream = session.create_stream_from_rows(TYPED.to_pylist(), TYPED.schema)
    sink = MemorySink()
    query = stream.filter("i IS NULL OR i > 0").write_stream(sink)
    query.process_available()
    query.stop()
    found = sink.result()
    assert found.schema.types == [pa.int32(), pa.float32(), pa.string(), pa.bool_(), pa.list_(pa.float32(), 2)]
    assert found.to_pylist() == TYPED.to_pylist()


def test_kinds_of_values_a69(session: DataflowSession) -> None:
    """A-69: NULL alone, booleans, whole numbers, both floats, texts and vectors; numbers of any kind are compared."""
    kinds = pa.table(
        {
            "nothing": pa.nulls(2),
            "flag": [True, None],
            "whole": pa.array([2**53 + 1, 2], pa.int64()),
            "double": [float(2**53), 2.0],
            "text": ["1", "x"],
            "vector": pa.array([[0.5, -1.0], None], pa.list_(pa.float32(), 2)),
            "single": pa.array([0.1, 2.0], pa.float32()),
        }
    )
    session.create_temp_view("kinds", session.create_stream_from_arrow(kinds))

    def found(where: str) -> list[dict[str, Any]]:
        sink = MemorySink()
        session.stream_sql(f"SELECT * FROM kinds WHERE {where}").write_stream(sink).process_available()
        return sink.result().to_pylist()

    assert found("true") == kinds.to_pylist()
    assert found("whole = 2 AND double = 2 AND single = 2") == kinds.slice(1).to_pylist()
    assert found("single < double AND flag AND nothing IS NULL") == kinds.slice(0, 1).to_pylist()
    with pytest.raises(DataError) as caught:
        found("whole = text")
    assert caught.value.code == "value.conversion"
    with pytest.raises(InputError) as refused:
        found("vector > whole")
    assert refused.value.code == "sql.type_mismatch"


def test_types_survive_a_checkpoint(session: DataflowSession, tmp_path: Any) -> None:
    """As keys and values of state on disk, which another query reads again."""
    source, sink = MemorySource(schema=TYPED.schema, bounded=False), MemorySink()
    for part in (TYPED.slice(0, 2), TYPED.slice(2)):
        source.add(part)
        query = session.read_stream(source, "typed").distinct().write_stream(sink, checkpoint_path=str(tmp_path))
        query.process_available()
        query.stop()
    found = sink.result()
    assert found.schema.types == [pa.int32(), pa.float32(), pa.string(), pa.bool_(), pa.list_(pa.float32(), 2)]
    assert sorted(map(str, found.to_pylist())) == sorted(map(str, TYPED.to_pylist()))
