"""Streams on worker processes: the same rows as in one process, also after failures, restarts and kills."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clusters import processes_of

import velaria_experimental.streaming
from velaria_core.contract.modes import ExecutionMode, TransportMode
from velaria_core.errors import ExternalError, InputError, StateError
from velaria_core.execution import placing
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.steps import Moment
from velaria_core.session import DataflowSession
from velaria_experimental.streaming.step import RemoteStep

ROWS = 3_000
QUERIES = [
    "SELECT k, count(*) AS n, sum(v) AS s, min(v) AS low, avg(v) AS mean FROM events GROUP BY k",
    "SELECT k, max(t) AS high, median(v) AS m FROM events WHERE v % 3 <> 0 GROUP BY k",
    "SELECT DISTINCT k, t FROM events",
    "SELECT k, t, count(DISTINCT v) AS n FROM events GROUP BY k, t HAVING count(*) > 2",
    "SELECT n, count(*) AS keys FROM (SELECT k, count(*) AS n FROM events GROUP BY k) GROUP BY n",
]
PROCESSES = {"execution_mode": "worker-processes", "local_workers": 2}


def batches(number: int = 4) -> list[pa.Table]:
    random = np.random.default_rng(7)
    texts = np.array([f"text {at}" for at in range(9)], dtype=object)
    return [
        pa.table(
            {
                "k": random.integers(0, 200, ROWS),
                "v": random.integers(-50, 50, ROWS),
                "t": pa.array(texts[random.integers(0, 9, ROWS)], pa.string()),
            }
        )
        for _ in range(number)
    ]


@pytest.fixture
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where segments live; afterwards none does."""
    velaria_experimental.streaming.use(chooses=False)
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setenv("VELARIA_EXPERIMENTAL_SHM", str(folder))
    yield folder
    velaria_experimental.streaming.use()
    assert list(folder.iterdir()) == []


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=1) as made:
        yield made


def written(
    session: DataflowSession, sql: str, rows: list[pa.Table], sink: MemorySink, **options: Any
) -> StreamingQuery:
    session.create_temp_view("events", session.read_stream(MemorySource(rows), "events"))
    return session.stream_sql(sql).write_stream(sink, epoch_rows_max=ROWS, **options)


def remote(query: StreamingQuery) -> RemoteStep:
    (step,) = (one for one in query._flow.steps if isinstance(one, RemoteStep))
    return step


def rows_of(sink: MemorySink) -> Counter[str]:
    return Counter(map(str, sink.result().to_pylist()))


def expected(session: DataflowSession, sql: str, rows: list[pa.Table]) -> Counter[str]:
    session.create_temp_view("events", session.create_dataframe(pa.concat_tables(rows)))
    return Counter(map(str, session.sql(sql).to_arrow().to_pylist()))


@pytest.mark.parametrize(
    ("sql", "shared_memory"), [(QUERIES[3], True), (QUERIES[4], False)], ids=["shared-memory", "grpc"]
)
@pytest.mark.usefixtures("shm")
def test_the_answer_is_that_of_one_process(session: DataflowSession, sql: str, shared_memory: bool) -> None:
    sink = MemorySink()
    query = written(
        session,
        sql,
        batches(),
        sink,
        **PROCESSES,
        shared_memory_transport=shared_memory,
        shared_memory_min_payload_bytes=0,
    )
    query.process_available()
    told = query.progress()
    query.stop()
    assert rows_of(sink) == expected(session, sql, batches())
    assert told["execution_mode"] == ExecutionMode.WORKER_PROCESSES
    assert told["used_shared_memory"] is shared_memory
    assert told["transport_mode"] == (TransportMode.SHARED_MEMORY if shared_memory else TransportMode.RPC_COPY)
    assert told["used_actor_runtime"] is True
    assert "2 processes keep the state" in told["execution_reason"]


@pytest.mark.usefixtures("shm")
def test_state_is_in_the_workers(session: DataflowSession) -> None:
    """Until one of them is killed, which ends a query in memory."""
    query = written(session, QUERIES[0], batches(), MemorySink(), checkpoint_interval=1, **PROCESSES)
    query.process_available()
    step = remote(query)
    assert step.state_rows() in range(1, 201)
    assert {span.node_id for span in step.spans.spans} == {"query", "keeper-0", "keeper-1"}
    tables = query._epochs._cursor.rows("SELECT count(*) FROM duckdb_tables() WHERE NOT internal")
    assert tables == [(0,)], "nothing of it is kept here"
    os.kill(step._opened().pids[0], signal.SIGKILL)
    with pytest.raises(ExternalError) as gone:
        step.step([batches(1)[0]], Moment(first=False))
    assert gone.value.code == "exchange.transport_closed"
    assert gone.value.message == "a worker process is gone"
    query.stop()


@pytest.mark.usefixtures("shm")
def test_what_is_not_for_processes_runs_here_and_says_so(session: DataflowSession) -> None:
    for sql, reason in (
        ("SELECT count(*) AS n FROM events", "no node keeps state by key"),
        ("SELECT v + 1 AS k, count(*) AS n FROM events GROUP BY v + 1", "no key whose column comes straight"),
    ):
        sink = MemorySink()
        query = written(session, sql, batches(), sink, **PROCESSES)
        query.process_available()
        told = query.progress()
        query.stop()
        assert told["execution_mode"] == ExecutionMode.SINGLE_PROCESS
        assert reason in told["execution_reason"]
        assert rows_of(sink) == expected(session, sql, batches())


def test_where_one_process_wins_it_is_chosen(session: DataflowSession) -> None:
    told = {}
    join = "SELECT a.k, b.v FROM events AS a JOIN events AS b ON a.k = b.k"
    for sql in (*QUERIES[:2], join):
        session.create_temp_view("events", session.read_stream(MemorySource(batches(1)), "events"))
        told[sql] = session.stream_sql(sql).explain(**PROCESSES)
    assert "folds values in less time than its rows take to reach another process" in told[QUERIES[0]]
    assert "finds partners by key in less time" in told[join]
    assert "2 processes keep the state" in told[QUERIES[1]]


@pytest.mark.usefixtures("shm")
def test_explain_starts_nothing(session: DataflowSession) -> None:
    session.create_temp_view("events", session.read_stream(MemorySource(batches()), "events"))
    text = session.stream_sql(QUERIES[0]).explain(**PROCESSES)
    assert "worker-processes" in text
    assert "2 processes keep the state" in text
    assert processes_of(Path("velaria-hub-")) == []


@pytest.mark.usefixtures("shm")
def test_a_restarted_query_goes_on(session: DataflowSession, tmp_path: Path) -> None:
    rows, sql = batches(), QUERIES[1]
    options = {"checkpoint_path": str(tmp_path / "checkpoint"), **PROCESSES}
    sink = MemorySink()
    for given in (rows[:2], rows):
        query = written(session, sql, given, sink, **options)
        query.process_available()
        query.stop()
    assert rows_of(sink) == expected(session, sql, rows)
    query = written(session, sql, [*rows, *rows], MemorySink(), **(options | {"local_workers": 3}))
    with pytest.raises(StateError) as other:
        query.process_available()
    assert other.value.code == "checkpoint.workers"
    with pytest.raises(StateError) as here:
        written(session, sql, [*rows, *rows], MemorySink(), checkpoint_path=options["checkpoint_path"])
    assert here.value.code == "checkpoint.placed", "its state is in the workers, and would be empty here"
    for file in (tmp_path / "checkpoint" / "workers-2").iterdir():
        file.unlink()
    query = written(session, sql, [*rows, *rows], MemorySink(), **options)
    with pytest.raises(StateError) as gone:
        query.process_available()
    assert gone.value.code == "checkpoint.workers"


@pytest.mark.usefixtures("shm")
def test_a_checkpoint_of_one_process_is_not_taken_for_one_of_several(session: DataflowSession, tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoint")
    query = written(session, QUERIES[1], batches(1), MemorySink(), checkpoint_path=folder)
    query.process_available()
    query.stop()
    with pytest.raises(StateError) as other:
        written(session, QUERIES[1], batches(2), MemorySink(), checkpoint_path=folder, **PROCESSES)
    assert other.value.code == "checkpoint.placed"


@pytest.mark.usefixtures("shm")
def test_windows_and_joins_go_on_after_their_worker_was_killed(session: DataflowSession, tmp_path: Path) -> None:
    """Of a stream with itself, so that time closes what both sides tell."""
    rows = [rows.append_column("ts", pa.array(range(at * ROWS, (at + 1) * ROWS))) for at, rows in enumerate(batches())]
    windows = "SELECT start, k, median(v) AS m FROM events WINDOW BY ts EVERY 500 AS start GROUP BY start, k"
    sides = f"({windows}) AS a JOIN ({windows}) AS b ON a.k = b.k AND a.start = b.start"
    sql = f"SELECT a.start, a.k, a.m, b.m AS n FROM {sides}"
    frame = session.read_stream(MemorySource(rows), "events").with_watermark("ts", "1 second")
    session.create_temp_view("events", frame)
    sink = MemorySink()
    options = {"checkpoint_path": str(tmp_path / "checkpoint"), "retries": 3, "backoff_ms": 1, **PROCESSES}
    query = session.stream_sql(sql).write_stream(sink, epoch_rows_max=ROWS, **options)
    placed = [step for step in query._flow.steps if isinstance(step, RemoteStep)]
    os.kill(placed[0]._opened().pids[1], signal.SIGKILL)
    query.process_available()
    told = query.progress()
    query.stop()
    assert len(placed) >= 2, "windows, and their join"
    assert told["retried_count"] >= 1
    assert rows_of(sink) == expected(session, sql, rows)


def test_without_a_runtime_the_mode_is_refused(session: DataflowSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "_MAKERS", {})
    with pytest.raises(InputError) as refused:
        written(session, QUERIES[0], batches(), MemorySink(), **PROCESSES)
    assert refused.value.code == "stream.mode"
    assert "velaria_experimental.streaming" in str(refused.value)
    with pytest.raises(InputError):
        placing.register_execution_mode(ExecutionMode.LOCAL_WORKERS, velaria_experimental.streaming.ActorPlacement)
