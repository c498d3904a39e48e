"""The names by which streams were known, and what they do here: rows of the inventory's sections 1.3 to 1.6 and 4.5."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from velaria_core.contract import abi
from velaria_core.contract.modes import SinkMode
from velaria_core.errors import InputError
from velaria_core.execution.options import StreamKeywords, StreamOptions
from velaria_core.execution.sinks.console import ConsoleSink
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sinks.table import TableSink
from velaria_core.execution.sources.directory import DirectorySource
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.session import DataflowSession
from velaria_core.streaming import StreamingDataFrame

ROWS = {"k": ["a", "b", "a"], "v": [1, 2, 4], "ts": [0, 1_500, 2_500]}


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        yield made


@pytest.fixture
def stream(session: DataflowSession) -> StreamingDataFrame:
    return session.create_stream_from_arrow([pa.table(ROWS)])


def rows(frame: StreamingDataFrame, **options: Any) -> list[tuple[Any, ...]]:
    sink = MemorySink()
    query = frame.write_stream(sink, **options)
    query.process_available()
    query.stop()
    return sorted(tuple(row.values()) for row in sink.result().to_pylist())


def test_row_wise_verbs(stream: StreamingDataFrame) -> None:
    """A-50, A-96: select(list), filter(column, op, value), with_column(name, source), drop(column)."""
    assert rows(stream.select(["k", "v"]).filter("v", ">", 1)) == [("a", 4), ("b", 2)]
    assert rows(stream.with_column("copy", "k").drop("ts").drop("k")) == [(1, "a"), (2, "b"), (4, "a")]


def test_order_and_limit_are_of_all_rows(stream: StreamingDataFrame) -> None:
    """A-51: not of each batch, which nobody chose."""
    assert rows(stream.select("v").order_by("v", ascending=False).limit(2), epoch_rows_max=1) == [(2,), (4,)]


def test_windows(stream: StreamingDataFrame) -> None:
    """A-52: tumbling where no slide is given; what cannot be a window is refused."""
    assert rows(stream.window("ts", 1_000).group_by("window_start").count("n")) == [(0, 1), (1_000, 1), (2_000, 1)]
    assert len(rows(stream.window("ts", 2_000, "w", 1_000).select("w", "v"))) == 6
    for size, slide in ((0, 0), (1_000, 2_000)):
        with pytest.raises(InputError):
            stream.window("ts", size, "w", slide)


def test_groups(stream: StreamingDataFrame) -> None:
    """A-53, A-96: sum, count, min, max and avg of a group, with a name for the output."""
    by = stream.group_by("k")
    assert rows(by.sum("v")) == rows(stream.group_sum(["k"], "v", output_column="total")) == [("a", 5), ("b", 2)]
    assert rows(by.count()) == rows(stream.group_count(["k"])) == [("a", 2), ("b", 1)]
    assert rows(by.min("v")) == [("a", 1), ("b", 2)]
    assert rows(by.max("v", "top")) == [("a", 4), ("b", 2)]
    assert rows(by.avg("v")) == [("a", 2.5), ("b", 2.0)]
    assert stream.group_sum(["k"], "v").columns == ["k", "sum"]
    with pytest.raises(InputError, match="how the rows were cut"):
        stream.group_count(["k"], stateful=False)


def test_state_is_kept_by_a_checkpoint(session: DataflowSession, tmp_path: Path) -> None:
    """A-54, A-65, A-66: what a program kept in a StateStore is kept under a path, and found there again."""
    source, sink = MemorySource(schema=pa.schema([("k", pa.string())]), bounded=False), MemorySink()
    for _ in range(2):
        source.add(pa.table({"k": ["a", "a"]}))
        counted = session.read_stream(source, "events").group_by("k").count("n")
        query = counted.write_stream(sink, checkpoint_path=str(tmp_path))
        query.process_available()
        query.stop()
    assert sink.result().to_pylist() == [{"k": "a", "n": 4}]


def test_writing(session: DataflowSession, stream: StreamingDataFrame, tmp_path: Path) -> None:
    """A-55, A-63, A-64, A-96: to the console, to a CSV file, to a queue."""
    chosen = stream.select("k", "v")
    printed = io.StringIO()
    with redirect_stdout(printed):
        chosen.write_stream_console(trigger_interval_ms=1_000).process_available()
    assert "epoch 1" in printed.getvalue()
    assert ConsoleSink().info().blocking
    chosen.write_stream_csv(tmp_path / "out.csv", delimiter=";").process_available()
    assert (tmp_path / "out.csv").read_text() == "k;v\na;1\nb;2\na;4\n"
    queue = session.create_realtime_stream_sink()
    query = chosen.write_stream_queue_sink(queue, execution_mode="local-workers", local_workers=1)
    assert queue.poll_arrow() is None
    query.process_available()
    query.stop()
    table = queue.poll_arrow()
    assert table is not None
    assert table.num_rows == 3
    assert queue.closed()


def test_the_transforms_of_a_stream_over_rows(session: DataflowSession, stream: StreamingDataFrame) -> None:
    """A-55: the plan of a stream over a table."""
    given = pa.table({"k": ["x", "x"], "v": [7, 8], "ts": [0, 0]})
    made = stream.filter("v > 7").group_by("k").sum("v").apply_transforms(given)
    assert made.to_rows() == [{"k": "x", "sum": 8}]
    joined = stream.join(session.create_dataframe({"k": ["x"], "name": ["Xi"]}), on="k").apply_transforms(given)
    assert [row["name"] for row in joined.to_rows()] == ["Xi", "Xi"]
    with pytest.raises(InputError) as caught:
        stream.apply_transforms(pa.table({"k": ["x"]}))
    assert caught.value.code == "source.schema"
    with pytest.raises(InputError, match="reads 2 streams"):
        stream.union(session.create_stream(pa.table(ROWS))).apply_transforms(given)


def test_a_query(stream: StreamingDataFrame) -> None:
    """A-56, A-97: start gives the query; it counts batches; it stops when its source ends."""
    query = stream.write_stream(MemorySink(), trigger_interval_ms=0)
    assert query.start() is query
    assert query.await_termination(60)
    assert query.await_termination(max_batches=0)
    query.stop()
    assert query.progress()["status"] == "stopped"
    assert query.progress()["batches_processed"] == 1
    assert '"status"' in query.snapshot_json()
    assert query.explanation().strategy.reason == query.progress()["execution_reason"]


def test_options_have_their_names_and_defaults() -> None:
    """Section 1.4. Two defaults are others: an epoch starts as soon as rows are there, and delivery is exactly-once."""
    names = (
        *("trigger_interval_ms", "max_inflight_batches", "backpressure_high_watermark", "backpressure_low_watermark"),
        *("checkpoint_path", "execution_mode", "local_workers", "max_inflight_partitions", "idle_wait_ms"),
        *("shared_memory_transport", "shared_memory_min_payload_bytes", "max_retained_windows"),
        "checkpoint_delivery_mode",
    )
    assert set(names) <= set(StreamKeywords.__annotations__)
    options = StreamOptions()
    assert (options.max_inflight_batches, options.backpressure_high_watermark) == (2, 2)
    assert (options.backpressure_low_watermark, options.idle_wait_ms, options.local_workers) == (1, 100, 1)
    assert (options.max_inflight_partitions, options.max_retained_windows) == (0, 0)
    assert (options.shared_memory_transport, options.shared_memory_min_payload_bytes) == (True, 65_536)
    assert (str(options.execution_mode), options.checkpoint_path) == ("single-process", None)


def test_memory_source_counts_batches() -> None:
    """A-60: bounded; the offset is the index of the next batch."""
    source = MemorySource([pa.table(ROWS), pa.table(ROWS)])
    assert source.info().bounded
    source.open(abi.SourceContext("stream-query-1", 0, 0, 0, 1, resume_from="1"))
    batch = source.next_batch(10)
    assert isinstance(batch, abi.Batch)
    assert batch.offset.token == "2"
    assert isinstance(source.next_batch(10), abi.EndOfStream)


def test_a_folder_of_csv(session: DataflowSession, tmp_path: Path) -> None:
    """A-61, A-89: in the order of the names, a file a batch, unbounded; resumed with the names after its token."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(f"k,v\n{name},1\n")
    frame = session.read_stream_csv_dir(tmp_path, delimiter=",", settle_ms=0)
    (scan,) = frame.node.walk()
    source = scan.relation.source  # type: ignore[attr-defined]
    assert isinstance(source, DirectorySource)
    assert not source.info().bounded
    source.open(abi.SourceContext("stream-query-1", 0, 0, 0, 1))
    first = source.next_batch(100)
    assert isinstance(first, abi.Batch)
    assert first.table.to_pylist() == [{"k": "a", "v": 1}]
    source.close()
    source.open(abi.SourceContext("stream-query-1", 0, 0, 0, 1, resume_from=first.offset.token))
    second = source.next_batch(100)
    assert isinstance(second, abi.Batch)
    assert second.table.to_pylist() == [{"k": "b", "v": 1}]
    source.close()


def test_a_realtime_source(session: DataflowSession) -> None:
    """A-62, A-88, A-98: push_arrow, push_rows and close, which ends the input and not the query's reading."""
    source = session.create_realtime_stream_source({"k": "string", "v": "int64"})
    sink = session.create_realtime_stream_sink()
    query = session.read_realtime_stream_source(source).write_stream_queue_sink(sink)
    source.push_rows([{"k": "a", "v": 1}, ["b", 2]])
    source.push_arrow(pa.table({"k": ["c"], "v": [3]}))
    assert source.waiting_rows == 3
    query.start()
    source.close()
    assert query.await_termination(60)
    got: list[str] = []
    while (table := sink.poll_arrow()) is not None:
        got += table["k"].to_pylist()
    assert got == ["a", "b", "c"]
    with pytest.raises(InputError) as caught:
        source.push_rows([{"k": "d", "v": 4}])
    assert caught.value.code == "source.closed"
    with pytest.raises(InputError) as caught:
        session.create_realtime_stream_source({"k": "string"}).push_arrow(pa.table({"other": [1]}))
    assert caught.value.code == "source.schema"
    assert source.schema == pa.schema([("k", pa.string()), ("v", pa.int64())])


def test_a_queue_by_its_sql_name(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE pushed (v BIGINT) USING queue")
    pushed = session.queue_source("pushed")
    pushed.push_rows([[1], [2]])
    pushed.close()
    assert rows(session.stream_sql("SELECT sum(v)::BIGINT AS s FROM pushed")) == [(3,)]


def test_memory_sink_counts(stream: StreamingDataFrame) -> None:
    """A-63: lastTable, batchesWritten, rowsWritten."""
    sink = MemorySink()
    stream.write_stream(sink).process_available()
    assert sink.last_table is not None
    assert (sink.last_table.num_rows, sink.batches_written, sink.rows_written) == (3, 1, 3)
    assert not sink.info().blocking


class Traced:
    """A user's source and sink: the calls of both in their order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._given = False

    def source(self) -> abi.Source:
        return _TracedSource(self.calls)

    def sink(self) -> abi.Sink:
        return _TracedSink(self.calls)


class _TracedSource:
    def __init__(self, calls: list[str]) -> None:
        self._calls = calls
        self._left = [pa.table({"v": [1]}), pa.table({"v": [2]})]

    def info(self) -> abi.SourceInfo:
        return abi.SourceInfo(pa.schema([("v", pa.int64())]), bounded=True, replayable=False)

    def open(self, context: abi.SourceContext) -> None:
        assert context.query_id.startswith("stream-query-")
        self._calls.append("source.open")

    def next_batch(self, max_rows: int) -> abi.Batch | abi.Blocked | abi.EndOfStream:
        del max_rows
        if not self._left:
            return abi.EndOfStream()
        self._calls.append("next_batch")
        return abi.Batch(self._left.pop(0), abi.TextOffset(str(2 - len(self._left))))

    def checkpoint(self, marker: abi.CheckpointMarker) -> None:
        self._calls.append(f"checkpoint {marker.source_offset}")

    def ack(self, offset: abi.Offset) -> None:
        self._calls.append(f"ack {offset.token}")

    def close(self) -> None:
        self._calls.append("source.close")


class _TracedSink:
    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def info(self) -> abi.SinkInfo:
        return abi.SinkInfo(frozenset({SinkMode.APPEND}), transactional=True, idempotent=True)

    def open(self, context: abi.SinkContext) -> None:
        assert str(context.transport_mode) == "inproc"
        self._calls.append("sink.open")

    def stage(self, epoch: int, changes: pa.Table) -> str:
        self._calls.append(f"stage {epoch}: {changes.num_rows}")
        return ""

    def commit(self, epoch: int, ref: str) -> None:
        del ref
        self._calls.append(f"commit {epoch}")

    def abort(self, epoch: int, ref: str) -> None:
        raise AssertionError((epoch, ref))

    def close(self) -> None:
        self._calls.append("sink.close")


@pytest.mark.parametrize("durable", [True, False])
def test_the_order_of_calls(session: DataflowSession, tmp_path: Path, durable: bool) -> None:
    """A-67, C-40 to C-45. Mended: the source is acknowledged after the sink has committed, and after the checkpoint,
    where there is one."""
    traced = Traced()
    folder = str(tmp_path) if durable else None
    options: Any = {"epoch_rows_max": 1, "checkpoint_path": folder, "checkpoint_interval": 1}
    query = session.read_stream(traced.source()).write_stream(traced.sink(), **options)
    query.process_available()
    query.stop()
    calls = traced.calls
    assert calls[:2] == ["sink.open", "source.open"]
    assert set(calls[-2:]) == {"sink.close", "source.close"}
    for epoch, offset in ((1, "1"), (2, "2")):
        order = [f"stage {epoch}: 1", f"checkpoint {offset}", f"commit {epoch}", f"ack {offset}"]
        assert [call for call in calls if call in order] == [call for call in order if durable or call != order[1]]


def test_a_table_that_a_sink_makes_is_known(session: DataflowSession, stream: StreamingDataFrame) -> None:
    sink = TableSink("made", engine=session._engine)
    query = stream.select("k").write_stream(sink)
    query.process_available()
    query.stop()
    assert "made" in session.tables()
    assert session.sql("SELECT count(*) AS n FROM made").to_rows() == [{"n": 3}]
    assert session.table("MADE").count() == 3
    with pytest.raises(InputError):
        session.create_temp_view("made", session.table("made"))
