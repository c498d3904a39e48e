"""Sources are pulled ahead of the query: bounded, fair, prompt to stop, and with their errors told."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest
from runtime_support import PATIENCE_S, SCHEMA, Gathered, Scripted, finished, numbered, query_over, until

from velaria_core.contract import abi
from velaria_core.contract.modes import QueryStatus, Trigger
from velaria_core.errors import DataError, ExternalError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sinks.queue import QueueSink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.sources.queue import QueueSource

TEN = [numbered(value) for value in range(10)]


class Gate:
    """Holds a sink until it is opened, and tells that it is held."""

    def __init__(self) -> None:
        self.held, self.opened = threading.Event(), threading.Event()

    def __call__(self, epoch: int, table: pa.Table) -> None:
        del epoch, table
        self.held.set()
        assert self.opened.wait(PATIENCE_S)


def told_when_blocked(query: StreamingQuery) -> threading.Event:
    """An event that is set when the queue of the query is full."""
    blocked, told = threading.Event(), query._reporter.blocked

    def tell() -> None:
        told()
        blocked.set()

    query._reporter.blocked = tell  # type: ignore[method-assign]
    return blocked


def test_contexts_and_calls_as_the_contract_has_them_t03(tmp_path_factory: pytest.TempPathFactory) -> None:
    """T-03: contexts, two batches acknowledged and written, the source's checkpoints, both closed."""
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    source, sink = Scripted(TEN[:2]), Gathered()
    finished(query_over(source, sink=sink, checkpoint_path=folder, epoch_rows_max=1).start())
    (given,), (shown,) = source.contexts, sink.contexts
    assert given.query_id.startswith("stream-query-")
    assert given.query_id == shown.query_id
    assert given.checkpoint_path == shown.checkpoint_path == folder
    assert given.max_inflight_batches == 2
    assert (shown.execution_mode, shown.transport_mode) == ("single-process", "inproc")
    assert source.acks == ["1", "2"]
    assert [(marker.epoch, marker.source_offset) for marker in source.markers[:2]] == [(1, "1"), (2, "2")]
    assert [row["v"] for row in sink.rows] == [0, 1]
    assert sink.calls.count("stage") == sink.calls.count("commit") == 2
    assert not source.is_open
    assert not sink.is_open


def test_who_does_what_e02() -> None:
    """E-02: sources are pulled, epochs run and sinks written on a thread each, or all of it by the caller."""

    class Seen(Scripted):
        def next_batch(self, max_rows: int) -> abi.Batch | abi.Blocked | abi.EndOfStream:
            names.add(f"pull by {threading.current_thread().name}")
            return super().next_batch(max_rows)

    def staging(epoch: int, table: pa.Table) -> None:
        del epoch, table
        names.add(f"stage by {threading.current_thread().name}")

    def ran(epoch: int) -> None:
        del epoch
        names.add(f"commit by {threading.current_thread().name}")

    names: set[str] = set()
    finished(query_over(Seen(TEN), sink=Gathered(staging=staging, committing=ran)).start())
    assert names == {"pull by velaria-pull", "stage by velaria-write", "commit by velaria-write"}
    names.clear()
    query_over(Seen(TEN), sink=Gathered(staging=staging, committing=ran)).process_available()
    mine = threading.current_thread().name
    assert names == {f"pull by {mine}", f"stage by {mine}", f"commit by {mine}"}


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_slow_sink_holds_the_source_back_t13_t15(most: int) -> None:
    """T-13, T-15, E-03: the backlog is bounded, blocking is seen, all is drained, the rows are those of a plain run."""
    gate = Gate()
    source, sink = Scripted(TEN), Gathered(staging=gate)
    query = query_over(
        source,
        sink=sink,
        epoch_rows_max=1,
        max_inflight_batches=most,
        backpressure_high_watermark=most,
        backpressure_low_watermark=most - 1,
    )
    blocked = told_when_blocked(query)
    query.start()
    assert gate.held.wait(PATIENCE_S)
    assert blocked.wait(PATIENCE_S)
    # The steps run two epochs more while one is being written; until then what waits may be taken.
    until(lambda: query.status is QueryStatus.BACKPRESSURE, query)
    # One is being written, and two more may be while the steps run; then one runs, and `most` wait.
    assert source.calls.count("next_batch") <= most + 4
    gate.opened.set()
    finished(query)
    progress = query.progress()
    assert [row["v"] for row in sink.rows] == list(range(10))
    assert progress["blocked_count"] > 0
    assert 1 <= progress["max_backlog_batches"] <= most
    assert progress["batches_pulled"] == progress["batches_processed"] == 10
    assert progress["inflight_batches"] == 0
    assert not progress["backpressure_active"]
    assert query.status is QueryStatus.STOPPED


def test_small_batches_wait_together() -> None:
    """What piles up while an epoch is written is one epoch, as large as it may be."""
    gate = Gate()
    sink = Gathered(staging=gate)
    source = MemorySource([numbered(value) for value in range(1_000)])
    query = query_over(source, sink=sink, epoch_rows_max=50)
    blocked = told_when_blocked(query)
    query.start()
    assert blocked.wait(PATIENCE_S)
    gate.opened.set()
    finished(query)
    assert [row["v"] for row in sink.rows] == list(range(1_000))
    assert max(len(epoch) for epoch in sink.epochs.values()) == 50


def test_sources_take_turns() -> None:
    one, two = Scripted(TEN), Scripted(TEN)
    sink = Gathered()
    query = query_over(
        one, two, sink=sink, sql="SELECT 1 AS s, v FROM one UNION ALL SELECT 2, v FROM two", epoch_rows_max=4
    )
    query.process_available()
    for epoch in list(sink.epochs.values())[:5]:
        assert sorted(row["s"] for row in epoch) == [1, 1, 2, 2]


def test_a_source_without_rows_does_not_hold_another_back() -> None:
    idle = Scripted([abi.Blocked(3_600_000)], bounded=False)
    one, sink = Scripted(TEN), Gathered()
    sql = "SELECT v FROM one UNION ALL SELECT v FROM two"
    query = query_over(one, idle, sink=sink, sql=sql, trigger=Trigger.available_now())
    finished(query.start())
    assert len(sink.rows) == 10


def test_wake_ends_the_wait_of_a_blocked_source() -> None:
    """With a clock that stands still nothing but the wake can bring the rows."""
    seen = threading.Event()
    queue = QueueSource(SCHEMA)
    sink = Gathered(committing=lambda _epoch: seen.set())
    query = query_over(queue, sink=sink, clock=ManualClock(), idle_wait_ms=3_600_000).start()
    for value in range(3):
        seen.clear()
        queue.push_arrow(numbered(value))
        assert seen.wait(PATIENCE_S)
    queue.close_input()
    finished(query)
    assert [row["v"] for row in sink.rows] == [0, 1, 2]


def test_a_blocked_source_is_asked_again_when_it_said() -> None:
    """C-42: a batch, the end, or Blocked, which says when to ask again."""
    clock = ManualClock()
    asked = threading.Event()

    def late() -> pa.Table:
        asked.set()
        return TEN[0]

    source, sink = Scripted([abi.Blocked(500), late]), Gathered()
    query = query_over(source, sink=sink, clock=clock).start()
    until(lambda: clock.next_deadline_ms() is not None, query)
    assert clock.next_deadline_ms() == 500
    assert not asked.is_set()
    clock.advance(500)
    finished(query)
    assert len(sink.rows) == 1


@pytest.mark.parametrize("waits", ["for rows", "for room"])
def test_stop_is_prompt_b15(waits: str) -> None:
    """B-15: whatever the threads wait for, on a clock that stands still."""
    gate = Gate()
    source = Scripted([], bounded=False) if waits == "for rows" else Scripted(TEN, bounded=False)
    sink = Gathered(staging=gate)
    query = query_over(source, sink=sink, epoch_rows_max=1, clock=ManualClock()).start()
    if waits == "for room":
        assert gate.held.wait(PATIENCE_S)
    stopper = threading.Thread(target=query.stop)
    stopper.start()
    gate.opened.set()
    stopper.join(PATIENCE_S)
    assert not stopper.is_alive()
    assert query.status is QueryStatus.STOPPED
    assert not source.is_open
    assert not sink.is_open
    assert source.acks == [str(at + 1) for at in range(len(sink.rows))], "what is written is acknowledged"
    assert query.progress()["inflight_batches"] == 0, "what was pulled ahead is let go"


@pytest.mark.parametrize("durable", [True, False])
def test_a_full_queue_does_not_fail_a_query_that_is_stopped(durable: bool, tmp_path: Path) -> None:
    """What nobody took is not committed; the next run of a durable query gives it again, and nothing twice."""
    clock, source = ManualClock(), Scripted(TEN, bounded=False)
    sink = QueueSink(capacity_rows=3, full_timeout_ms=500, clock=clock)
    folder = str(tmp_path) if durable else None
    query = query_over(source, sink=sink, epoch_rows_max=1, checkpoint_path=folder, clock=clock).start()
    until(lambda: clock.next_deadline_ms() == 500, query)  # the sink waits for room
    stopper = threading.Thread(target=query.stop)
    stopper.start()
    until(lambda: query._stopping)
    clock.advance(500)
    stopper.join(PATIENCE_S)
    assert not stopper.is_alive()
    assert (query.status, query.progress()["error"]) == (QueryStatus.STOPPED, None)
    assert query.await_termination(PATIENCE_S)
    taken = _polled(sink)
    assert taken == [0, 1, 2]
    assert source.acks == ["1", "2", "3"]
    if durable:
        again = query_over(source, sink=sink, epoch_rows_max=1, checkpoint_path=folder).start()
        until(lambda: len(taken) >= len(TEN), again, lambda: taken.extend(_polled(sink)))
        again.stop()
        assert taken == list(range(10))


def test_a_full_queue_fails_a_query_that_goes_on() -> None:
    sink = QueueSink(capacity_rows=3, full_timeout_ms=1)
    query = query_over(Scripted(TEN), sink=sink, epoch_rows_max=1).start()
    with pytest.raises(ExternalError) as caught:
        query.await_termination(PATIENCE_S)
    assert (caught.value.code, query.status) == ("sink.full", QueryStatus.FAILED)


def _polled(sink: QueueSink) -> list[int]:
    found: list[int] = []
    while (table := sink.poll_arrow()) is not None:
        found += table["v"].to_pylist()
    return found


def test_stop_may_drain_first() -> None:
    queue, sink = QueueSource(SCHEMA), Gathered()
    query = query_over(queue, sink=sink, trigger=Trigger.processing_time(3_600_000), clock=ManualClock()).start()
    for value in range(20):
        queue.push_arrow(numbered(value))
    query.stop(drain=True)
    assert [row["v"] for row in sink.rows] == list(range(20))
    assert query.status is QueryStatus.STOPPED


@pytest.mark.parametrize("threaded", [True, False])
def test_a_source_that_raises_is_named(threaded: bool) -> None:
    """What was pulled before is processed, and the error names its source."""
    source, sink = Scripted([TEN[0], TEN[1], RuntimeError("the line is dead")]), Gathered()
    query = query_over(source, sink=sink, epoch_rows_max=1)
    with pytest.raises(ExternalError, match="stream one: RuntimeError: the line is dead") as caught:
        _ = finished(query.start()) if threaded else query.process_available()
    assert caught.value.code == "stream.failed"
    assert isinstance(caught.value.cause, RuntimeError)
    assert [row["v"] for row in sink.rows] == [0, 1]
    assert query.status is QueryStatus.FAILED
    assert not source.is_open


@pytest.mark.parametrize(
    "other",
    [
        pa.table({"k": ["a"], "v": ["text"]}),
        pa.table({"k": ["a"], "w": pa.array([1], pa.int64())}),
        pa.table({"k": ["a"]}),
        pa.table({"k": ["a"], "v": pa.array([1], pa.int64()), "w": [1]}),
    ],
    ids=["type", "name", "fewer", "more"],
)
def test_a_source_that_changes_its_schema_is_told(other: pa.Table) -> None:
    """Names and types of both are in the message; what came before is written."""
    source, sink = Scripted([TEN[0], other]), Gathered()
    query = query_over(source, sink=sink, epoch_rows_max=1)
    with pytest.raises(DataError) as caught:
        query.process_available()
    assert caught.value.code == "source.schema"
    assert "stream one" in caught.value.message
    assert "k VARCHAR, v BIGINT" in caught.value.message
    assert len(sink.rows) == 1


def test_another_form_of_the_same_type_is_taken() -> None:
    source = Scripted([TEN[0], pa.table({"k": pa.array(["a"]).dictionary_encode(), "v": pa.array([1], pa.int64())})])
    sink = Gathered()
    query_over(source, sink=sink).process_available()
    assert len(sink.rows) == 2


def test_an_aggregate_over_two_sources_is_that_of_a_plain_run() -> None:
    """T-15: the result with threads is that without."""
    sql = "SELECT k, count(*) AS n, sum(v)::BIGINT AS s FROM (FROM one UNION ALL FROM two) GROUP BY k"
    results = []
    for threaded in (True, False):
        sink = Gathered()
        query = query_over(Scripted(TEN), Scripted(TEN), sink=sink, sql=sql, epoch_rows_max=3)
        _ = finished(query.start()) if threaded else query.process_available()
        totals: dict[tuple[object, ...], int] = {}
        for row in sink.rows:
            key = (row["k"], row["n"], row["s"])
            totals[key] = totals.get(key, 0) + row["diff"]
        results.append({key for key, times in totals.items() if times})
    assert results[0] == results[1] == {("a", 20, 90)}


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("caller", ["listener", "sink", "source"])
def test_a_query_may_stop_itself(caller: str, blocking: bool) -> None:
    """Whichever of its threads the call comes from, it waits for none of them."""
    stops: list[str] = []

    def stop(*_given: object) -> None:
        stops.append(caller)
        query.stop()

    def last() -> pa.Table:
        stop()
        return TEN[0]

    source = Scripted([TEN[0], last] if caller == "source" else TEN, bounded=False)
    sink = Gathered(blocking=blocking, **{"staging": stop} if caller == "sink" else {})
    query = query_over(source, sink=sink, epoch_rows_max=1)
    if caller == "listener":
        query.add_listener(lambda event: stop() if event.kind == "progress" else None)
    finished(query.start())
    assert stops
    assert query.status is QueryStatus.STOPPED
    assert not source.is_open
    assert not sink.is_open


def test_a_query_without_a_thread_may_stop_itself() -> None:
    source, sink = Scripted(TEN), Gathered()
    query = query_over(source, sink=sink, epoch_rows_max=2)
    query.add_listener(lambda event: query.stop() if event.kind == "progress" else None)
    assert query.process_available() == 2
    assert query.status is QueryStatus.STOPPED
    assert [row["v"] for row in sink.rows] == [0, 1]
    assert not source.is_open
