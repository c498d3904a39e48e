"""Stream queries through the session: the same SQL and verbs as in batch, kept up to date."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from velaria_core import col, fn
from velaria_core.contract import abi
from velaria_core.contract.modes import DeliveryMode, QueryStatus, SinkMode, Trigger
from velaria_core.errors import ExternalError, InputError
from velaria_core.execution.sinks.file_set import FileSetSink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.session import DataflowSession

BATCHES = [pa.table({"k": ["a", "b"], "v": [1, 2]}), pa.table({"k": ["a", None], "v": [3, 4]})]


class Collected:
    """What a query gave, epoch by epoch."""

    def __init__(self, *modes: SinkMode, fails_at: int = 0) -> None:
        self._modes = frozenset(modes or (SinkMode.APPEND, SinkMode.RETRACT))
        self._fails_at = fails_at
        self._staged: dict[int, list[dict[str, Any]]] = {}
        self.epochs: list[list[dict[str, Any]]] = []
        self.context: abi.SinkContext | None = None

    def info(self) -> abi.SinkInfo:
        return abi.SinkInfo(self._modes, transactional=False, idempotent=False)

    def open(self, context: abi.SinkContext) -> None:
        self.context = context

    def stage(self, epoch: int, changes: pa.Table) -> str:
        if epoch == self._fails_at:
            raise RuntimeError("the sink is full")
        self._staged[epoch] = changes.to_pylist()
        return ""

    def commit(self, epoch: int, ref: str) -> None:
        del ref
        if epoch in self._staged:
            self.epochs.append(self._staged.pop(epoch))

    def abort(self, epoch: int, ref: str) -> None:
        del ref
        del self._staged[epoch]

    def close(self) -> None: ...


@pytest.fixture
def session() -> DataflowSession:
    session = DataflowSession()
    session.create_temp_view("events", session.read_stream(MemorySource(BATCHES), "events"))
    return session


def test_an_aggregate_retracts_what_it_said_before(session: DataflowSession) -> None:
    sink = Collected()
    query = session.stream_sql("SELECT k, sum(v)::BIGINT AS s FROM events GROUP BY k").write_stream(
        sink, epoch_rows_max=2
    )
    assert query.process_available() == 4
    first, second = sink.epochs
    assert sorted(first, key=str) == [{"k": "a", "s": 1, "diff": 1}, {"k": "b", "s": 2, "diff": 1}]
    assert second[0] == {"k": "a", "s": 1, "diff": -1}
    assert sorted(second[1:], key=str) == [{"k": "a", "s": 4, "diff": 1}, {"k": None, "s": 4, "diff": 1}]


def test_rows_that_never_change_are_appended(session: DataflowSession) -> None:
    sink = Collected()
    session.stream("events").filter(col("v") > 1).select("v").write_stream(
        sink, output_mode="append"
    ).process_available()
    assert sink.context is not None
    assert sink.context.mode is SinkMode.APPEND
    assert [row for rows in sink.epochs for row in rows] == [{"v": 2}, {"v": 3}, {"v": 4}]


def test_the_whole_result_each_time(session: DataflowSession) -> None:
    sink = Collected(SinkMode.REPLACE)
    counted = session.stream("events").group_by("k").agg(n=fn.count())
    counted.write_stream(sink, output_mode="complete", epoch_rows_max=2).process_available()
    assert sorted(sink.epochs[-1], key=str) == [{"k": "a", "n": 2}, {"k": "b", "n": 1}, {"k": None, "n": 1}]


def test_an_aggregate_over_nothing_shows_its_row() -> None:
    session, sink = DataflowSession(), Collected()
    empty = MemorySource(schema=pa.schema([("v", pa.int64())]))
    session.read_stream(empty).agg(n=fn.count()).write_stream(sink).process_available()
    assert sink.epochs == [[{"n": 0, "diff": 1}]]


def test_a_stream_joins_a_table(session: DataflowSession) -> None:
    session.create_temp_view("names", session.create_dataframe({"k": ["a", "b"], "name": ["Ada", "Bob"]}))
    sink = Collected()
    session.stream_sql("SELECT name, v FROM events JOIN names USING (k)").write_stream(sink).process_available()
    rows = sorted((row["name"], row["v"], row.get("diff", 1)) for rows in sink.epochs for row in rows)
    assert rows == [("Ada", 1, 1), ("Ada", 3, 1), ("Bob", 2, 1)]


def test_a_table_as_a_stream_is_one_epoch() -> None:
    session, sink = DataflowSession(), Collected()
    frame = session.create_dataframe({"a": [1, 2, 2]}).group_by("a").agg(n=fn.count())
    frame.stream().write_stream(sink).process_available()
    assert sorted(sink.epochs[0], key=str) == [{"a": 1, "n": 1, "diff": 1}, {"a": 2, "n": 2, "diff": 1}]


def test_a_stream_is_not_read_in_batch(session: DataflowSession) -> None:
    table = session.create_dataframe({"k": ["a"]})
    for misuse in (
        lambda: session.sql("SELECT * FROM events"),
        lambda: session.table("events"),
        lambda: session.stream("events").batch(),
        lambda: table.join(session.stream("events"), "k"),
        lambda: table.union(session.stream("events").select("k")),
    ):
        with pytest.raises(InputError) as caught:
            misuse()
        assert caught.value.code == "frame.is_stream"


def test_a_sink_that_does_not_fit_is_refused_at_start(session: DataflowSession) -> None:
    frame = session.stream("events").group_by("k").agg(n=fn.count())
    for sink, mode in ((Collected(SinkMode.APPEND), "update"), (Collected(), "append"), (Collected(), "complete")):
        with pytest.raises(InputError) as caught:
            frame.write_stream(sink, output_mode=mode)
        assert caught.value.code == "stream.output_mode"
    with pytest.raises(InputError, match="no mode"):
        frame.write_stream(Collected(), output_mode="updated")


def test_delivery_is_told_as_it_holds(session: DataflowSession, tmp_path: Path) -> None:
    query = session.stream("events").write_stream(Collected())
    assert (query.delivery.asked, query.delivery.held) == (DeliveryMode.EXACTLY_ONCE, DeliveryMode.BEST_EFFORT)
    query.stop()
    query = session.stream("events").write_stream(Collected(), checkpoint_path=str(tmp_path))
    assert query.delivery.held is DeliveryMode.AT_LEAST_ONCE
    assert "neither transactional nor idempotent" in query.delivery.why
    query.stop()
    sink, path = FileSetSink(session._engine, tmp_path / "out"), str(tmp_path / "other")
    query = session.stream("events").write_stream(sink, checkpoint_path=path, dead_letter=Collected())
    assert query.delivery.held is DeliveryMode.AT_LEAST_ONCE
    assert query.delivery.why == "the sink of dead letters is neither transactional nor idempotent"
    query.stop()


def test_a_query_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source = MemorySource(BATCHES[:1], bounded=False)
    given: list[list[dict[str, Any]]] = []
    for _ in range(3):
        session, sink = DataflowSession(), Collected()
        frame = session.read_stream(source, "events").agg(s=fn.sum("v").cast("int64"))
        query = frame.write_stream(sink, checkpoint_path=str(tmp_path))
        query.process_available()
        query.stop()
        given += sink.epochs
        source.add(BATCHES[1])
    assert given == [
        [{"s": 3, "diff": 1}],
        [{"s": 3, "diff": -1}, {"s": 10, "diff": 1}],
        [{"s": 10, "diff": -1}, {"s": 17, "diff": 1}],
    ]


def test_stop_wakes_a_query_that_waits_b15() -> None:
    """B-15: a stop reaches a consumer that waits for an idle source."""
    session = DataflowSession()
    idle = MemorySource(schema=pa.schema([("v", pa.int64())]), bounded=False)
    trigger = Trigger.processing_time(3_600_000)
    query = session.read_stream(idle).write_stream(Collected(), trigger=trigger).start()
    stopper = threading.Thread(target=query.stop)
    stopper.start()
    stopper.join(30)
    assert not stopper.is_alive()
    assert query.status is QueryStatus.STOPPED


def test_a_query_ends_with_its_sources(session: DataflowSession) -> None:
    sink = Collected()
    query = session.stream("events").write_stream(sink).start()
    assert query.await_termination(30)
    assert query.status is QueryStatus.STOPPED
    assert sum(len(rows) for rows in sink.epochs) == 4


def test_a_sink_that_fails_stops_the_query_and_leaves_nothing(session: DataflowSession) -> None:
    sink = Collected(fails_at=2)
    query = session.stream("events").write_stream(sink, epoch_rows_max=2).start()
    with pytest.raises(ExternalError, match="the sink is full"):
        query.await_termination(30)
    assert query.status is QueryStatus.FAILED
    assert len(sink.epochs) == 1
    with pytest.raises(InputError) as caught:
        query.start()
    assert caught.value.code == "stream.started"


def test_explain_names_shape_and_cost(session: DataflowSession) -> None:
    frame = session.stream_sql("SELECT k, count(*) AS n FROM events WHERE v > 1 GROUP BY k")
    assert "shape=linear state=none cost=(rows changed)" in frame.explain()
    assert "shape=keyed state=(partial values of each key) cost=(keys touched)" in frame.explain()


def test_a_session_knows_its_streams_and_stops_them_with_itself(session: DataflowSession) -> None:
    idle = session.read_stream(MemorySource(schema=pa.schema([("v", pa.int64())]), bounded=False))
    one, two = idle.write_stream(Collected()).start(), session.stream("events").write_stream(Collected())
    other = DataflowSession()
    assert session.streams == [one, two]
    assert other.streams == []
    two.process_available()
    two.stop()
    assert session.streams == [one]
    session.close()
    assert session.streams == []
    assert one.status is QueryStatus.STOPPED
