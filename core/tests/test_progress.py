"""Progress: every count equals what ran, every key is there, listeners hear of everything, Prometheus can read it.

T-13 and T-41: the keys of a snapshot and what they say of a run. B-30: the fields that were always 0 are gone. B-31:
values are compared, not names alone.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from runtime_support import until

from velaria_core.contract import abi
from velaria_core.contract.codec import DeliveryGuarantee, Progress, StreamStrategy
from velaria_core.contract.modes import (
    ColumnarFallback,
    DeliveryMode,
    ExecutionMode,
    OutputMode,
    QueryStatus,
    SinkMode,
    TransportMode,
    Trigger,
)
from velaria_core.errors import ExternalError, VelariaError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.listeners import EventKind, Listeners, QueryEvent
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.progress import RECENT_EPOCHS, EpochReport, Reporter
from velaria_core.execution.prometheus import METRICS, escaped, exposition
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.logical.event_time import END
from velaria_core.session import DataflowSession

STRATEGY = StreamStrategy(
    requested_mode=ExecutionMode.LOCAL_WORKERS,
    selected_mode=ExecutionMode.SINGLE_PROCESS,
    simd_backend="duckdb",
    compiled_backends=("duckdb",),
    aggregate_impl="partials",
    aggregate_reason="rows only come",
    reason="local_workers > 1 is needed",
    actor_eligible=True,
    used_actor_runtime=False,
    transport_mode=TransportMode.INPROC,
    has_window=True,
    has_stateful_ops=True,
    sink_is_blocking=True,
    source_is_bounded=False,
    estimated_state_size_bytes=1024,
    estimated_batch_cost=320,
    backpressure_max_queue_batches=3,
    backpressure_high_watermark=3,
    backpressure_low_watermark=1,
    checkpoint_delivery_mode=DeliveryMode.EXACTLY_ONCE,
    local_worker_count=1,
    max_inflight_partitions=1,
    shared_memory_transport=True,
    shared_memory_min_payload_bytes=65_536,
    columnar_operator="Aggregate",
    columnar_fallback_type=ColumnarFallback.NONE,
    columnar_reason="Arrow",
    columnar_input_row_count=None,
    columnar_affected_columns=(),
    output_mode=OutputMode.UPDATE,
    delivery_guarantee=DeliveryGuarantee(
        asked=DeliveryMode.EXACTLY_ONCE, held=DeliveryMode.BEST_EFFORT, why="nothing outlives the process"
    ),
)
DECIDED = {  # of the strategy -> of the progress
    "requested_mode": "requested_execution_mode",
    "selected_mode": "execution_mode",
    "reason": "execution_reason",
}


def report(epoch: int, **values: Any) -> EpochReport:
    told: dict[str, Any] = {
        "rows_in": 10,
        "rows_out": 2,
        "batches": 1,
        "bytes_in": 80,
        "latency_ms": 5.0,
        "sink_ms": 1.0,
        "state_ms": 0.5,
        "finished_ms": 1_000,
        "offsets": {"source-1": str(epoch)},
    }
    return EpochReport(epoch=epoch, **{**told, **values})


# --- the reporter -------------------------------------------------------------------------------------------


def test_a_new_query_has_done_nothing_and_says_how_it_will_run() -> None:
    told = Reporter("stream-query-1", STRATEGY, clock=ManualClock()).now()
    assert (told.status, told.epoch, told.watermark, told.last_source_offset) == (QueryStatus.CREATED, 0, None, "")
    assert told.finished_at is None
    assert told.error is None
    for field in dataclasses.fields(StreamStrategy):
        if hasattr(told, name := DECIDED.get(field.name, field.name)):
            assert getattr(told, name) == getattr(STRATEGY, field.name), name


def test_counts_add_up_over_epochs() -> None:
    clock = ManualClock(5_000)
    reporter = Reporter("q", STRATEGY, clock=clock, columns=4)
    reporter.status(QueryStatus.RUNNING)
    reporter.pulled(1, 10, 80)
    reporter.pulled(1, 30, 240)
    reporter.pulled(2, 20, 160)
    waiting = reporter.now()
    assert (waiting.batches_pulled, waiting.batches_processed, waiting.inflight_batches) == (4, 0, 4)
    clock.advance(100)
    first = {"late_rows": 3, "late_dropped_rows": 2, "ahead_rows": 1, "watermark_us": 1_500_000}
    reporter.epoch(report(1, batches=3, rows_in=50, bytes_in=400, state_rows=7, state_bytes=70, **first))
    clock.advance(100)
    reporter.epoch(report(2, rows_in=10, latency_ms=2.0, finished_ms=1_234, late_rows=1, watermark_us=2_000_000))
    told = reporter.now()
    assert (told.batches_pulled, told.batches_processed, told.inflight_batches, told.max_backlog_batches) == (
        4,
        4,
        0,
        4,
    )
    assert (told.rows_in, told.rows_out, told.bytes_in) == (60, 4, 480)
    assert (told.late_rows, told.late_dropped_rows, told.ahead_rows) == (4, 2, 1)
    assert (told.state_rows, told.state_bytes) == (0, 0)
    assert (told.epoch, told.last_batch_latency_ms, told.last_sink_latency_ms, told.last_state_latency_ms) == (
        2,
        2,
        1,
        0.5,
    )
    assert told.watermark == "1970-01-01T00:00:02.000000Z"
    assert told.finished_at == "1970-01-01T00:00:01.234Z"
    assert told.last_source_offset == "2"
    assert told.rows_per_second == 60 * 1000 / 200
    assert (told.projected_payload_bytes, told.estimated_batch_cost) == (240, 30 * 4)
    assert reporter.recent()[0].state_rows == 7
    assert [one.epoch for one in reporter.epochs()] == [1, 2]


def test_speed_is_that_of_the_last_ten_seconds() -> None:
    clock = ManualClock()
    reporter = Reporter("q", STRATEGY, clock=clock)
    reporter.status(QueryStatus.RUNNING)
    for epoch in range(1, 21):
        clock.advance(1_000)
        reporter.epoch(report(epoch, rows_in=1_000 if epoch <= 10 else 10))
    assert reporter.now().rows_per_second == 10
    assert reporter.recent()[9].rows_per_second == 1_000


def test_time_that_stands_still_gives_no_speed() -> None:
    reporter = Reporter("q", STRATEGY, clock=ManualClock())
    reporter.epoch(report(1))
    assert reporter.now().rows_per_second == 0


def test_backpressure_lasts_from_a_block_to_the_next_pull() -> None:
    reporter = Reporter("q", STRATEGY, clock=ManualClock())
    reporter.status(QueryStatus.RUNNING)
    reporter.pulled(1, 1, 1, 1)
    reporter.blocked()
    reporter.blocked()
    held = reporter.now()
    assert (held.status, held.backpressure_active, held.blocked_count) == (QueryStatus.BACKPRESSURE, True, 1)
    reporter.pulled(1, 1, 1, 2)
    freed = reporter.now()
    assert (freed.status, freed.backpressure_active, freed.blocked_count) == (QueryStatus.RUNNING, False, 1)
    assert freed.max_backlog_batches == 2
    reporter.blocked()
    reporter.status(QueryStatus.STOPPED)
    ended = reporter.now()
    assert (ended.status, ended.backpressure_active, ended.blocked_count) == (QueryStatus.STOPPED, False, 2)


def test_a_restart_goes_on_counting() -> None:
    reporter = Reporter("q", STRATEGY, clock=ManualClock(), epoch=7, batches=12, offsets={"a": "3", "b": "x"})
    told = reporter.now()
    assert (told.status, told.epoch, told.batches_pulled, told.batches_processed) == (QueryStatus.RESTORED, 7, 12, 12)
    assert told.last_source_offset == "a=3, b=x"
    assert told.inflight_batches == 0


@pytest.mark.parametrize(
    ("watermark_us", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_357_017_300_000_001, "2013-01-01T05:15:00.000001Z"),
        (253_402_300_800_000_000, "10000-01-01T00:00:00.000000Z"),
        (END, "infinity"),
    ],
)
def test_watermarks_of_any_year_are_text(watermark_us: int | None, text: str | None) -> None:
    reporter = Reporter("q", STRATEGY, clock=ManualClock())
    reporter.epoch(report(1, watermark_us=watermark_us))
    assert reporter.now().watermark == text
    assert Progress.from_json(reporter.now().to_json()) == reporter.now()


def test_the_last_hundred_epochs_are_kept() -> None:
    reporter = Reporter("q", STRATEGY, clock=ManualClock())
    for epoch in range(1, RECENT_EPOCHS + 6):
        reporter.epoch(report(epoch))
    assert [one.epoch for one in reporter.recent()] == list(range(6, RECENT_EPOCHS + 6))


def test_workers_retries_and_dead_letters_are_counted() -> None:
    reporter = Reporter("q", STRATEGY, clock=ManualClock())
    assert reporter.now().estimated_partitions == 1
    reporter.partitions(4)
    reporter.partitions(2)
    reporter.retried()
    reporter.dead_lettered(5)
    told = reporter.now()
    assert (told.inflight_partitions, told.estimated_partitions) == (2, 4)
    assert (told.retried_count, told.dead_letter_rows) == (1, 5)


def test_counts_hold_when_threads_report_at_once() -> None:
    reporter = Reporter("q", STRATEGY, clock=ManualClock())

    def pull() -> None:
        for _ in range(2_000):
            reporter.pulled(1, 2, 16)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for epoch in range(1, 501):
        reporter.epoch(report(epoch))
    for thread in threads:
        thread.join()
    told = reporter.now()
    assert (told.batches_pulled, told.batches_processed, told.rows_in) == (8_000, 500, 5_000)


# --- listeners ----------------------------------------------------------------------------------------------


def test_listeners_hear_start_progress_and_the_end() -> None:
    heard: list[QueryEvent] = []
    session = Listeners()
    session.add(heard.append)
    reporter = Reporter("q", STRATEGY, clock=ManualClock(), listeners=session)
    reporter.listeners.add(heard.append)
    reporter.status(QueryStatus.RUNNING)
    reporter.epoch(report(1))
    reporter.status(QueryStatus.STOPPED)
    reporter.status(QueryStatus.FAILED)  # what has ended stays as it ended
    assert [event.kind for event in heard[::2]] == [EventKind.STARTED, EventKind.PROGRESS, EventKind.STOPPED]
    assert heard[::2] == heard[1::2]
    assert [event.progress.epoch for event in heard[::2]] == [0, 1, 1]
    assert heard[-1].progress.status is QueryStatus.STOPPED
    with pytest.raises(dataclasses.FrozenInstanceError):
        heard[0].query_id = "another"  # type: ignore[misc]


def test_a_failure_is_told_with_its_error() -> None:
    heard: list[QueryEvent] = []
    reporter = Reporter("q", STRATEGY, clock=ManualClock())
    reporter.listeners.add(heard.append)
    error = ExternalError("stream.failed", "the disk is full")
    reporter.status(QueryStatus.FAILED, error)
    assert heard[0].error is error
    assert heard[0].progress.error == "stream.failed: the disk is full"


def test_a_listener_that_raises_is_logged_and_counted_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[QueryEvent] = []

    def broken(event: QueryEvent) -> None:
        raise RuntimeError(f"no {event.kind}")

    reporter = Reporter("q", STRATEGY, clock=ManualClock())
    reporter.listeners.add(broken)
    reporter.listeners.add(heard.append)
    with caplog.at_level(logging.ERROR, "velaria.stream"):
        reporter.epoch(report(1))
        reporter.epoch(report(2))
    assert len(heard) == 2
    assert reporter.now().listener_errors == 2
    assert "no progress" in caplog.text
    reporter.listeners.remove(broken)
    reporter.epoch(report(3))
    assert reporter.now().listener_errors == 2


# --- Prometheus ---------------------------------------------------------------------------------------------

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf'({_NAME})\{{query="((?:[^"\\\n]|\\["\\n])*)"\}} (\S+)')


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Metric -> query -> value, by a strict reading of text format 0.0.4."""
    assert text.endswith("\n")
    found: dict[str, dict[str, float]] = {}
    kinds: dict[str, str] = {}
    current = ""
    for line in text.split("\n")[:-1]:
        if made := re.fullmatch(rf"# HELP ({_NAME}) ([^\n]+)", line):
            current = made[1]
            assert current not in found, "a metric stands in one place"
            found[current] = {}
        elif made := re.fullmatch(rf"# TYPE ({_NAME}) (counter|gauge)", line):
            assert made[1] == current
            assert not found[current], "the type comes before the samples"
            kinds[current] = made[2]
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1] == current
            query = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), sample[2])
            assert query not in found[current]
            found[current][query] = float(sample[3])
    assert all((kind == "counter") == name.endswith("_total") for name, kind in kinds.items())
    return found


def test_prometheus_reads_what_progress_says() -> None:
    reporter = Reporter("stream-query-3", STRATEGY, clock=ManualClock())
    reporter.status(QueryStatus.RUNNING)
    reporter.pulled(3, 30, 240)
    times = {"watermark_us": 1_500_000, "finished_ms": 2_500}
    reporter.epoch(report(1, batches=2, rows_in=20, state_rows=7, state_bytes=123, late_rows=4, **times))
    read = {name: values["stream-query-3"] for name, values in parsed(exposition([reporter.now()])).items()}
    assert read["velaria_query_running"] == 1
    assert read["velaria_query_failed"] == 0
    assert read["velaria_source_rows_total"] == 20
    assert read["velaria_pulled_batches_total"] == 3
    assert read["velaria_processed_batches_total"] == 2
    assert read["velaria_inflight_batches"] == 1
    assert read["velaria_epoch_seconds"] == 0.005
    assert read["velaria_watermark_timestamp_seconds"] == 1.5
    assert read["velaria_epoch_end_timestamp_seconds"] == 2.5
    assert read["velaria_state_rows"] == 7
    assert read["velaria_state_bytes"] == 123
    assert read["velaria_late_rows_total"] == 4
    assert set(read) == {metric.name for metric in METRICS}


def test_prometheus_takes_several_queries_and_strange_names() -> None:
    strange = 'a "quoted"\\name\nof lines'
    several = [Reporter(name, STRATEGY, clock=ManualClock()) for name in ("one", strange)]
    several[1].epoch(report(1, watermark_us=END))
    text = exposition([each.now() for each in several])
    read = parsed(text)
    assert set(read["velaria_epochs_total"]) == {"one", strange}
    assert read["velaria_watermark_timestamp_seconds"] == {strange: math.inf}
    assert escaped(strange) in text


def test_names_of_metrics_end_in_their_unit() -> None:
    units = ("rows", "bytes", "batches", "partitions", "seconds", "epochs", "per_second", "blocks", "errors")
    flags = {"velaria_query_running", "velaria_query_failed", "velaria_backpressure_active"}
    for metric in METRICS:
        assert metric.name in flags or metric.name.removesuffix("_total").endswith(units), metric.name


# --- queries ------------------------------------------------------------------------------------------------

BATCHES = [
    pa.table({"k": ["a", "b"], "v": [1, 2]}),
    pa.table({"k": ["a", None], "v": [3, 4]}),
    pa.table({"k": ["c", "c"], "v": [5, 6]}),
]
DEAD = (
    "sampled_batches",
    "sampled_rows_per_batch",
    "average_projected_payload_bytes",
    "actor_speedup",
    "compute_to_overhead_ratio",
)
COUNTED = "SELECT k, count(*) AS n, sum(v)::BIGINT AS s FROM events GROUP BY k"


@pytest.fixture
def session() -> DataflowSession:
    session = DataflowSession()
    session.create_temp_view("events", session.read_stream(MemorySource(BATCHES), "events"))
    return session


def test_progress_of_a_run_is_what_ran(session: DataflowSession) -> None:
    """T-41: the progress contract. Every key, its type, and that it is true."""
    query = session.stream_sql(COUNTED).write_stream(MemorySink(), epoch_rows_max=2)
    assert query.process_available() == 6
    told = query.progress()
    assert list(told) == [
        field.name for field in Progress.from_json(query.snapshot_json()).to_proto().DESCRIPTOR.fields
    ]
    assert not set(DEAD) & set(told)  # B-30
    kinds = {name: type(value) for name, value in told.items()}
    assert {name for name, kind in kinds.items() if kind is bool} == {
        "backpressure_active",
        "actor_eligible",
        "used_actor_runtime",
        "used_shared_memory",
        "has_stateful_ops",
        "has_window",
        "sink_is_blocking",
        "source_is_bounded",
    }
    expected = {
        "query_id": query.id,
        "status": "running",
        "requested_execution_mode": "single-process",
        "execution_mode": "single-process",
        "transport_mode": "inproc",
        "aggregate_impl": "partials",
        "batches_pulled": 3,
        "batches_processed": 3,
        "inflight_batches": 0,
        "inflight_partitions": 0,
        "last_source_offset": "3",
        "backpressure_active": False,
        "actor_eligible": True,
        "used_actor_runtime": False,
        "used_shared_memory": False,
        "has_stateful_ops": True,
        "has_window": False,
        "sink_is_blocking": False,
        "source_is_bounded": True,
        "estimated_partitions": 1,
        "projected_payload_bytes": max(batch.nbytes for batch in BATCHES),
        "estimated_batch_cost": 4,
        "checkpoint_delivery_mode": "exactly-once",
        "watermark": None,
        "late_rows": 0,
        "state_rows": 4,
        "output_mode": "update",
        "rows_in": 6,
        "bytes_in": sum(batch.nbytes for batch in BATCHES),
        "error": None,
    }
    assert {name: told[name] for name in expected} == expected
    assert told["state_bytes"] > 0
    assert told["rows_per_second"] > 0
    assert told["last_batch_latency_ms"] >= told["last_state_latency_ms"] > 0
    assert told["delivery_guarantee"] == {
        "asked": "exactly-once",
        "held": "best-effort",
        "why": "there is no checkpoint_path, so nothing outlives the process",
    }
    query.stop()
    assert query.progress()["status"] == "stopped"


def test_snapshot_is_progress_as_json(session: DataflowSession) -> None:
    """T-13: all snapshot keys."""
    query = session.stream_sql(COUNTED).write_stream(MemorySink())
    query.process_available()
    query.stop()
    assert json.loads(query.snapshot_json()) == query.progress()
    assert "\n" not in query.snapshot_json()


def test_recent_progress_has_a_report_for_each_epoch(session: DataflowSession) -> None:
    query = session.stream_sql(COUNTED).write_stream(MemorySink(), epoch_rows_max=2)
    assert query.recent_progress == []
    query.process_available()
    recent = query.recent_progress
    assert [one["epoch"] for one in recent] == list(range(1, len(recent) + 1))
    assert [one["batches_processed"] for one in recent[:3]] == [1, 2, 3]
    assert [one["rows_in"] for one in recent[:3]] == [2, 4, 6]
    assert recent[-1] == {**query.progress(), "status": "running"}


def test_rows_out_are_those_of_the_sink(session: DataflowSession) -> None:
    """T-13: rows are counted that are only columns."""
    sink = MemorySink()
    query = session.stream("events").filter("v > 2").write_stream(sink, output_mode="append", epoch_rows_max=2)
    query.process_available()
    assert query.progress()["rows_out"] == 4
    assert query.progress()["aggregate_impl"] == "not-applicable"
    assert query.progress()["has_stateful_ops"] is False
    assert query.progress()["state_rows"] == 0


def test_progress_goes_on_after_a_restart(tmp_path: Path, session: DataflowSession) -> None:
    folder = str(tmp_path)
    first = session.stream_sql(COUNTED).write_stream(MemorySink(), checkpoint_path=folder, epoch_rows_max=2)
    first.process_available()
    first.stop()
    before = first.progress()
    again = session.stream_sql(COUNTED).write_stream(MemorySink(), checkpoint_path=folder)
    told = again.progress()
    assert told["status"] == "restored"
    for name in ("epoch", "batches_pulled", "batches_processed", "last_source_offset"):
        assert told[name] == before[name], name
    assert again.process_available() == 0
    again.stop()


class Gate:
    """A sink that holds the query back until it is opened."""

    def __init__(self) -> None:
        self.free, self.holds = threading.Event(), threading.Event()

    def info(self) -> abi.SinkInfo:
        return abi.SinkInfo(frozenset({SinkMode.APPEND}), transactional=False, idempotent=False)

    def open(self, context: abi.SinkContext) -> None: ...

    def stage(self, epoch: int, changes: pa.Table) -> str:
        del epoch, changes
        self.holds.set()
        assert self.free.wait(30)
        return ""

    def commit(self, epoch: int, ref: str) -> None: ...

    def abort(self, epoch: int, ref: str) -> None: ...

    def close(self) -> None: ...


def test_a_slow_sink_makes_bounded_backlog_and_blocks_that_are_counted() -> None:
    """T-13: bounded backlog and blocked_count > 0, with counters that are drained at the end."""
    session, gate = DataflowSession(), Gate()
    source = MemorySource([pa.table({"v": [at]}) for at in range(50)], bounded=False)
    options: Any = {"max_inflight_batches": 3, "backpressure_high_watermark": 3, "epoch_rows_max": 1}
    query = session.read_stream(source).write_stream(gate, output_mode="append", **options)
    query.start()
    assert gate.holds.wait(30)
    until(lambda: query.progress()["backpressure_active"], query)
    held = query.progress()
    assert held["status"] == "backpressure"
    assert held["blocked_count"] >= 1
    assert held["inflight_batches"] > 0
    gate.free.set()
    until(lambda: query.progress()["inflight_batches"] == 0, query)
    drained = query.progress()
    assert (drained["status"], drained["backpressure_active"]) == ("running", False)
    source.end()
    assert query.await_termination(60)
    told = query.progress()
    assert (told["batches_pulled"], told["batches_processed"], told["rows_in"], told["rows_out"]) == (50, 50, 50, 50)
    assert told["inflight_batches"] == 0
    assert 0 < told["max_backlog_batches"] <= 3
    assert told["backpressure_max_queue_batches"] == 3
    assert told["sink_is_blocking"] is True
    assert told["status"] == "stopped"


def test_listeners_of_a_query_and_of_its_session(session: DataflowSession) -> None:
    heard: list[tuple[str, EventKind, int]] = []
    session.add_listener(lambda event: heard.append(("session", event.kind, event.progress.epoch)))
    query = session.stream_sql(COUNTED).write_stream(MemorySink(), trigger=Trigger.available_now())
    mine: list[QueryEvent] = []
    query.add_listener(mine.append)
    query.start().await_termination(60)
    kinds = [kind for _, kind, _ in heard]
    assert kinds[0] is EventKind.STARTED
    assert kinds[-1] is EventKind.STOPPED
    assert set(kinds[1:-1]) == {EventKind.PROGRESS}
    assert [event.kind for event in mine] == kinds
    assert {event.query_id for event in mine} == {query.id}


def test_a_query_that_fails_says_with_what() -> None:
    session = DataflowSession()
    heard: list[QueryEvent] = []
    source = MemorySource([pa.table({"v": ["1"]}), pa.table({"v": ["x"]})])
    session.create_temp_view("events", session.read_stream(source, "events"))
    query = session.stream_sql("SELECT v::BIGINT AS v FROM events").write_stream(MemorySink(), epoch_rows_max=1)
    query.add_listener(heard.append)
    with pytest.raises(VelariaError) as caught:
        query.process_available()
    told = query.progress()
    assert told["status"] == "failed"
    assert told["error"] == f"{caught.value.code}: {caught.value.message}"
    assert told["rows_in"] == 1
    assert heard[-1].kind is EventKind.FAILED
    assert heard[-1].error is caught.value


def test_a_listener_that_raises_does_not_end_the_query(session: DataflowSession) -> None:
    """A-68: of its hooks, what listeners are told; their errors are counted, and block nothing."""

    def broken(event: QueryEvent) -> None:
        raise RuntimeError(f"a listener's own trouble with {event.kind}")

    query = session.stream_sql(COUNTED).write_stream(MemorySink(), epoch_rows_max=2)
    query.add_listener(broken)
    assert query.process_available() == 6
    epochs = query.progress()["epoch"]
    query.stop()
    assert query.progress()["listener_errors"] == epochs + 2  # and the start and the stop
    query.remove_listener(broken)


def test_a_query_exports_its_metrics(session: DataflowSession) -> None:
    query = session.stream_sql(COUNTED).write_stream(MemorySink())
    query.process_available()
    assert parsed(query.prometheus())["velaria_source_rows_total"] == {query.id: 6.0}
    query.stop()


def test_time_in_progress_is_the_clocks() -> None:
    clock = ManualClock(1_357_017_300_000)
    session = DataflowSession()
    frame = session.read_stream(MemorySource(BATCHES))
    query = StreamingQuery(session._engine, frame.node, MemorySink(), StreamOptions(epoch_rows_max=2), clock=clock)
    query.process_available()
    told = query.progress()
    assert told["finished_at"] == "2013-01-01T05:15:00.000Z"
    assert told["last_batch_latency_ms"] == told["rows_per_second"] == 0
    query.stop()
