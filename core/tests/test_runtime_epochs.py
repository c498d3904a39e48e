"""Epochs in groups, triggers, and what a restart finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from runtime_support import PATIENCE_S, SCHEMA, Gathered, Scripted, finished, numbered, query_over, until

from velaria_core.contract import abi
from velaria_core.contract.modes import QueryStatus, Trigger
from velaria_core.errors import ExternalError, InputError
from velaria_core.execution.checkpoint import state_engine
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.sinks.csv_append import CsvAppendSink
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.directory import DirectorySource
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.sources.queue import QueueSource
from velaria_core.execution.triggers import Pace
from velaria_core.session import DataflowSession

TEN = [numbered(value) for value in range(10)]
LARGE = numbered(*range(10))
SUM = "SELECT count(*) AS n, sum(v)::BIGINT AS s FROM one"


def numbered_at(ts: int, value: int) -> pa.Table:
    return pa.table({"ts": pa.array([ts], pa.int64()), "v": pa.array([value], pa.int64())})


def points(folder: Path) -> list[tuple[Any, ...]]:
    """What became durable: epoch, offset of the first source, and the epochs staged in it."""
    engine = Engine(Settings(path=str(folder / "state.duckdb")))
    try:
        with engine.cursor() as cursor:
            found = cursor.rows("SELECT epoch, offsets, staged FROM velaria_epochs ORDER BY epoch")
    finally:
        engine.close()
    return [
        (epoch, json.loads(offsets).get("source-1"), [one[0] for one in json.loads(staged)])
        for epoch, offsets, staged in found
    ]


# --- groups


def test_epochs_share_a_commit(tmp_path: Path) -> None:
    """Staged each, committed each in order after the durable commit; checkpoint and ack once. C-43, C-44."""
    source, sink = Scripted(TEN), Gathered()
    query = query_over(source, sink=sink, checkpoint_path=str(tmp_path), epoch_rows_max=1, checkpoint_interval=4)
    assert query.process_available() == 10
    query.stop()
    assert points(tmp_path) == [(4, "4", [1, 2, 3, 4]), (8, "8", [5, 6, 7, 8]), (10, "10", [9, 10])]
    assert [marker.epoch for marker in source.markers] == [4, 8, 10]
    assert source.acks == ["4", "8", "10"]
    assert [call for call in sink.calls if call in ("stage", "commit")][:8] == ["stage"] * 4 + ["commit"] * 4


@pytest.mark.parametrize(("epoch_ms", "groups"), [(0, [8, 2]), (120, [2] * 5), (300, [1] * 10)])
def test_unless_told_a_few_epochs_share_a_commit_that_is_not_late(
    tmp_path: Path, epoch_ms: int, groups: list[int]
) -> None:
    clock = ManualClock()
    sink = Gathered(staging=lambda _epoch, _rows: clock.advance(epoch_ms), blocking=False)
    options: dict[str, Any] = {"checkpoint_path": str(tmp_path), "epoch_rows_max": 1, "checkpoint_interval": None}
    query = query_over(Scripted(TEN), sink=sink, clock=clock, **options)
    assert query.process_available() == 10
    query.stop()
    assert [len(epochs) for _, _, epochs in points(tmp_path)] == groups


def test_a_group_does_not_wait_for_rows_that_do_not_come(tmp_path: Path) -> None:
    """An interval is the most epochs of a commit: an idle query has all of its output visible."""
    source, sink = Scripted(TEN, bounded=False), Gathered()
    query = query_over(source, sink=sink, checkpoint_path=str(tmp_path), checkpoint_interval=100)
    query.process_available()
    assert len(sink.rows) == 10
    query.stop()


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_a_batch_larger_than_an_epoch_is_cut(threaded: bool, durable: bool, tmp_path: Path) -> None:
    """Its epochs share one commit, as its offset stands after its last row."""
    source, sink = Scripted([LARGE, TEN[0]]), Gathered()
    folder = str(tmp_path) if durable else None
    query = query_over(source, sink=sink, checkpoint_path=folder, epoch_rows_max=4)
    _ = finished(query.start()) if threaded else query.process_available()
    query.stop()
    assert [len(sink.epochs[epoch]) for epoch in (1, 2, 3)] == [4, 4, 2]
    assert source.acks == ["1", "2"]
    if durable:
        assert points(tmp_path)[:2] == [(3, "1", [1, 2, 3]), (4, "2", [4])]


def test_a_cut_batch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(epoch: int, table: pa.Table) -> None:
        del table
        if epoch == 2:
            raise OSError("no")

    source = Scripted([LARGE])
    for staging in (full, lambda _epoch, _rows: None):
        sink = Gathered(staging=staging)
        query = query_over(source, sink=sink, sql=SUM, checkpoint_path=str(tmp_path), epoch_rows_max=4)
        if staging is full:
            with pytest.raises(ExternalError):
                query.process_available()
            assert sink.epochs == {}
            assert sink.calls.count("abort") == 1
            assert points(tmp_path) == []
        else:
            query.process_available()
            query.stop()
    assert sink.rows[-1] == {"n": 10, "s": 45, "diff": 1}


# --- restart


@pytest.mark.parametrize("epochs", range(1, 10))
def test_restored_after_any_epoch_it_goes_on_exactly(epochs: int, tmp_path: Path) -> None:
    """T-13: the state and the offset come back together; nothing is doubled, nothing lost."""
    source, given = Scripted(TEN), []
    for batches in (epochs, None):
        sink = Gathered()
        query = query_over(source, sink=sink, sql=SUM, checkpoint_path=str(tmp_path), epoch_rows_max=1)
        if batches is not None:
            assert query.await_termination(PATIENCE_S, max_batches=batches)
        else:
            assert query.status is QueryStatus.RESTORED
            assert query.progress()["batches_processed"] == epochs
            finished(query.start())
        given.append(sink.rows)
    shown = [row for rows in given for row in rows if row["diff"] > 0]
    assert [(row["n"], row["s"]) for row in shown] == [(n + 1, n * (n + 1) // 2) for n in range(10)]
    assert query.progress()["batches_processed"] == 10


@pytest.mark.parametrize("asked", ["exactly-once", "at-least-once", "best-effort"])
def test_a_restart_reads_on_and_writes_no_line_twice(asked: str, tmp_path: Path) -> None:
    """T-13, C-12, C-13. Mended: whatever is asked for, the source goes on at its offset, and no line comes twice."""
    source, path, engine = Scripted(TEN[:3]), tmp_path / "out.csv", Engine(Settings(threads=1))
    for batches in (2, 1):
        query = query_over(
            source,
            sink=CsvAppendSink(engine, path),
            checkpoint_path=str(tmp_path / "state"),
            checkpoint_delivery_mode=asked,
            epoch_rows_max=1,
        )
        before = query.progress()["batches_processed"]
        assert query.await_termination(PATIENCE_S, max_batches=batches)
        assert query.progress()["batches_processed"] == before + batches
    assert [context.resume_from for context in source.contexts] == [None, "2"]
    assert (query.progress()["batches_processed"], query.progress()["last_source_offset"]) == (3, "3")
    assert path.read_text() == "k,v\na,0\na,1\na,2\n"
    engine.close()


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_every_aggregate_comes_back(epochs: int, tmp_path: Path) -> None:
    """T-13: counts, totals, least, largest and mean of windows, by key, which a restart goes on with."""
    times = [(0, 2), (1_000, 8), (10_000, -3), (9_999, 5), (19_999, 4)]
    source, sink = MemorySource([numbered_at(*one) for one in times], bounded=False), MemorySink()
    for batches in (epochs, len(times) - epochs):
        session = DataflowSession(threads=1)
        session.create_temp_view("events", session.read_stream(source, "events"))
        windowed = (
            "SELECT w, count(*) AS n, sum(v)::BIGINT AS s, min(v) AS low, max(v) AS high, avg(v) AS mean "
            "FROM events WINDOW BY ts EVERY 10000 AS w GROUP BY w"
        )
        query = session.stream_sql(windowed).write_stream(sink, checkpoint_path=str(tmp_path), epoch_rows_max=1)
        assert query.await_termination(PATIENCE_S, max_batches=batches)
    found = sorted(tuple(row.values()) for row in sink.result().to_pylist())
    assert found == [(0, 3, 15, 2, 8, 5.0), (10_000, 2, 1, -3, 4, 0.5)]


def test_a_source_that_cannot_replay_is_not_told_an_offset(tmp_path: Path) -> None:
    """Best effort, and said so."""
    source = Scripted(TEN, replayable=False)
    query = query_over(source, sink=Gathered(), checkpoint_path=str(tmp_path))
    query.process_available()
    query.stop()
    assert query.delivery.held == "best-effort"
    again = query_over(source, sink=Gathered(), checkpoint_path=str(tmp_path))
    again.stop()
    assert source.contexts[-1].resume_from is None


@pytest.mark.parametrize("asked", ["exactly-once", "at-least-once", "best-effort"])
def test_delivery_that_is_asked_and_possible_holds(asked: str, tmp_path: Path) -> None:
    query = query_over(Scripted(TEN), sink=Gathered(), checkpoint_path=str(tmp_path), delivery_mode=asked)
    query.stop()
    assert query.delivery.held == asked


def test_several_queries_run_at_once() -> None:
    sinks = [Gathered() for _ in range(4)]
    queries = [query_over(Scripted(TEN), sink=sink, sql=SUM, epoch_rows_max=2).start() for sink in sinks]
    for query, sink in zip(queries, sinks, strict=True):
        finished(query)
        assert sink.rows[-1] == {"n": 10, "s": 45, "diff": 1}
    assert len({query.id for query in queries}) == 4


# --- triggers


def test_once_is_one_epoch_of_all_that_is_there() -> None:
    source, sink = MemorySource(TEN, bounded=False), Gathered()
    finished(query_over(source, sink=sink, trigger=Trigger.once(), epoch_rows_max=3).start())
    assert list(sink.epochs) == [1]
    assert len(sink.rows) == 10


@pytest.mark.parametrize("bounded", [True, False])
def test_available_now_stops_when_nothing_more_is_there(bounded: bool) -> None:
    source, sink = MemorySource(TEN, bounded=bounded), Gathered()
    query = query_over(source, sink=sink, trigger=Trigger.available_now(), epoch_rows_max=3).start()
    finished(query)
    assert len(sink.rows) == 10
    assert query.status is QueryStatus.STOPPED


def test_what_comes_while_an_epoch_runs_is_not_available_now() -> None:
    """A source may have a row whenever it is asked. A run over what is there ends all the same."""

    def one_more(epoch: int) -> None:
        if epoch < 50:
            source.answers.extend([numbered(epoch), abi.Blocked(0)])
            source.contexts[0].wake()

    source = Scripted([numbered(0), abi.Blocked(0)], bounded=False)
    query = query_over(source, sink=Gathered(committing=one_more))
    assert query.process_available() == 1
    assert query.process_available() == 1


def test_available_now_asks_no_further_than_there_was_nothing_once() -> None:
    def until_it_is_asked_again(_epoch: int, _rows: pa.Table) -> None:
        puller = query._puller
        assert puller is not None
        until(lambda: not puller.thread.is_alive() or source.calls.count("next_batch") >= 3, query)

    source = Scripted([numbered(0), abi.Blocked(0), numbered(1)], bounded=False)
    sink = Gathered(staging=until_it_is_asked_again)
    query = query_over(source, sink=sink, trigger=Trigger.available_now())
    finished(query.start())
    assert [row["v"] for row in sink.rows] == [0]


@pytest.mark.parametrize("trigger", [Trigger.available_now(), Trigger.once()], ids=["available now", "once"])
def test_a_file_that_may_still_be_written_is_waited_for(trigger: Trigger, tmp_path: Path) -> None:
    """It is there, so it is part of what is available now; one that comes later is not."""
    clock, sink = ManualClock(), Gathered()
    for name, written_s in (("a", -60), ("b", 0)):
        (tmp_path / f"{name}.csv").write_text(f"k,v\n{name},1\n")
        os.utime(tmp_path / f"{name}.csv", (written_s, written_s))
    source = DirectorySource(DataflowSession()._engine, tmp_path, "csv", schema=SCHEMA, settle_ms=200, clock=clock)
    query = query_over(source, sink=sink, trigger=trigger, clock=clock).start()
    for now_ms in (100, 200):
        until(lambda: clock.next_deadline_ms() is not None, query)
        clock.advance(100)
        assert clock.now_ms() == now_ms
    finished(query)
    assert [row["k"] for row in sink.rows] == ["a", "b"]


def test_processing_time_waits_for_its_tick() -> None:
    """Between two ticks rows wait, however long; a full epoch does not."""
    clock = ManualClock()
    queue, sink = QueueSource(SCHEMA), _Counting()
    options = {"trigger": Trigger.processing_time(1_000), "epoch_rows_max": 50, "idle_wait_ms": 3_600_000}
    query = query_over(queue, sink=sink, clock=clock, **options).start()
    queue.push_arrow(numbered(1))
    sink.wait_for(1)  # the first epoch is due at once
    for value in range(3):
        queue.push_arrow(numbered(value))
    # All rows are with the query, and it waits for its tick.
    until(lambda: query.progress()["batches_pulled"] == 4 and clock.next_deadline_ms() == 1_000, query)
    assert len(sink.rows) == 1
    clock.advance(1_000)
    sink.wait_for(4)
    queue.push_arrow(numbered(*range(50)))
    sink.wait_for(54)
    query.stop()


def test_continuous_takes_what_comes_at_once() -> None:
    queue, sink = QueueSource(SCHEMA), _Counting()
    query = query_over(queue, sink=sink, trigger=Trigger.continuous(20), clock=ManualClock()).start()
    for value in range(5):
        queue.push_arrow(numbered(value))
        sink.wait_for(value + 1)
    query.stop()
    assert len(sink.epochs) == 5


def test_the_size_of_epochs_follows_latency_and_load() -> None:
    pace = Pace(Trigger.continuous(20), 65_536)
    assert pace.rows == 65_536
    pace.took(40_000, 60, behind=False)
    assert pace.rows == 20_000, "an epoch took longer than half the latency"
    pace.took(20_000, 30, behind=False)
    pace.took(10_000, 15, behind=False)
    assert pace.rows == 5_000
    pace.took(5_000, 8, behind=False)
    assert pace.rows == 10_000, "there was time left"
    pace.took(100, 1, behind=False)
    assert pace.rows == 10_000, "a small epoch says nothing about a large one"
    for _ in range(5):
        pace.took(10_000, 15, behind=True)
    assert pace.rows == 65_536, "behind, larger epochs catch up"
    for _ in range(50):
        pace.took(pace.rows, 1_000, behind=False)
    assert pace.rows == 256
    other = Pace(Trigger.processing_time(20), 100)
    other.took(100, 1_000, behind=False)
    assert other.rows == 100


class _Counting(Gathered):
    """Tells when so many rows are visible."""

    def __init__(self) -> None:
        super().__init__()
        self._more = threading.Condition()

    def commit(self, epoch: int, ref: str) -> None:
        super().commit(epoch, ref)
        with self._more:
            self._more.notify_all()

    def wait_for(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: len(self.rows) >= count, PATIENCE_S)
        assert len(self.rows) == count


# --- how it is told to run


@pytest.mark.parametrize("count", [1, 3, 10])
def test_await_termination_stops_after_so_many_batches_a56(count: int) -> None:
    """A-56: it starts the query, and ends it when the batches are processed."""
    source, sink = Scripted(TEN, bounded=False), Gathered()
    query = query_over(source, sink=sink)
    assert query.await_termination(PATIENCE_S, max_batches=count)
    assert query.status is QueryStatus.STOPPED
    assert query.progress()["batches_processed"] == count == len(sink.rows)
    assert not source.is_open


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("epoch_rows_max", 0, "option.value"),
        ("checkpoint_interval", 0, "option.value"),
        ("max_inflight_batches", 0, "option.value"),
        ("backpressure_low_watermark", 2, "option.value"),
        ("retries", -1, "option.value"),
        ("output_mode", "updated", "stream.mode"),
        ("delivery_mode", "perhaps", "stream.mode"),
        ("epoch_row_max", 5, "stream.option"),
        ("trigger_interval_ms", 5, "stream.option"),
        ("late_sink", Gathered(), "stream.late_sink"),
    ],
)
def test_options_that_mean_nothing_are_refused(option: str, value: object, code: str) -> None:
    with pytest.raises(InputError) as caught:
        query_over(Scripted(TEN), sink=Gathered(), **{"trigger": Trigger.once(), option: value})
    assert caught.value.code == code


def test_the_names_of_options_that_were() -> None:
    query = query_over(Scripted(TEN), sink=Gathered(), trigger_interval_ms=250, checkpoint_delivery_mode="best-effort")
    assert query._options.trigger == Trigger.processing_time(250)
    assert query.delivery.asked == "best-effort"
    query.stop()


def test_a_query_on_a_thread_is_not_also_run_by_the_caller() -> None:
    query = query_over(Scripted([abi.Blocked()], bounded=False), sink=Gathered()).start()
    with pytest.raises(InputError) as caught:
        query.process_available()
    assert caught.value.code == "stream.started"
    query.stop()


def test_a_query_that_is_awaited_is_started_a56() -> None:
    sink = Gathered()
    finished(query_over(Scripted(TEN), sink=sink))
    assert len(sink.rows) == 10


def test_a_query_that_has_stopped_has_nothing_to_do() -> None:
    query = query_over(Scripted(TEN), sink=Gathered())
    query.stop()
    assert query.process_available() == 0
    assert query.await_termination(PATIENCE_S)


# --- the end of the program


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(3)"])
@pytest.mark.parametrize("sink", ["MemorySink()", "QueueSink(capacity_rows=1)"])
def test_a_program_may_end_while_queries_run(sink: str, ending: str, tmp_path: Path) -> None:
    """They are stopped: the interpreter does not end under a thread that is inside the engine."""
    program = f"""
import logging
import velaria_core as velaria
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sinks.queue import QueueSink
from velaria_core.execution.sources.rate import RateSource

logging.disable()  # a full queue may fail its query before the end, and that is told
session = velaria.DataflowSession(threads=1)
for folder in (None, {str(tmp_path)!r}):
    counted = session.read_stream(RateSource(1_000, wait=False), "rate").group_by("key").count()
    query = counted.write_stream({sink}, checkpoint_path=folder).start()
while not query.progress()["batches_pulled"]:
    pass
{ending}
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert (made.returncode, made.stdout, made.stderr) == (3 if "3" in ending else 0, "", "")


# --- the session's limits


def test_state_keeps_to_the_limits_of_the_session(tmp_path: Path) -> None:
    """A query's state is an engine of its own: with the session's memory, and in a folder that the session may use."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    settings = Settings(memory_limit="200MB", roots=(str(allowed),))
    for folder in (str(allowed / "query"), None):
        state = state_engine(folder, settings)
        with state.cursor() as cursor:
            ((limit,),) = cursor.rows("SELECT current_setting('memory_limit')")
        state.close()
        assert limit.startswith("190")  # MiB
    with pytest.raises(ExternalError) as caught:
        state_engine(str(tmp_path / "elsewhere"), settings)
    assert caught.value.code == "file.forbidden"
