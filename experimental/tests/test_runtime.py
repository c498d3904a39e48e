"""Real processes: a scheduler, its workers and a client, by shared memory and by gRPC alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clusters import Cluster, cluster
from split_queries import bag

from velaria_core.errors import DataError, ExternalError, QueryCancelled
from velaria_core.execution.jobs import JobState
from velaria_core.session import DataflowSession
from velaria_experimental.client import Answer, Client, JobHandle, Mode
from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.observe.dashboard import dashboard
from velaria_experimental.observe.spans import Stage, totals_us
from velaria_experimental.observe.trace import chrome_trace
from velaria_experimental.plans.choice import Estimate, estimated

QUERIES = [
    "SELECT v * 2 AS w, t FROM events WHERE k % 3 = 0",
    "SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, min(t) AS low, median(v) AS h FROM events GROUP BY k",
    "SELECT count(*) AS n, max(t) AS high FROM events",
    "SELECT t, count(DISTINCT k) AS n FROM events GROUP BY t HAVING count(*) > 1",
    "SELECT k, v FROM events ORDER BY v DESC, k LIMIT 7",
    "SELECT e.k, name, sum(v) AS s FROM events AS e JOIN names ON e.k = names.k GROUP BY e.k, name",
    "SELECT names.k, count(v) AS n FROM names LEFT JOIN events ON names.k = events.k GROUP BY names.k",
    "SELECT DISTINCT k, t FROM events",
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("nodes"), workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    random = np.random.default_rng(7)
    rows = 60_000
    events = pa.table(
        {
            "k": random.integers(0, 500, rows),
            "v": random.integers(-1000, 1000, rows),
            "t": np.array([f"text-{at}" for at in range(40)], dtype=object)[random.integers(0, 40, rows)],
        }
    )
    names = pa.table({"k": list(range(0, 600, 2)), "name": [f"name {at}" for at in range(0, 600, 2)]})
    with DataflowSession(threads=1) as made:
        made.create_temp_view("events", made.create_dataframe(events))
        made.create_temp_view("names", made.create_dataframe(names))
        made.create_temp_view("slow", made.create_dataframe(pa.table({"n": list(range(2000))})))
        yield made


SLOW = "SELECT sum(a.n * b.n % 7) AS s FROM slow AS a JOIN slow AS b ON a.n <> b.n JOIN slow AS c ON c.n % 40 = 0"


def runs(nodes: Cluster, handle: JobHandle) -> None:
    """Wait until a worker has begun with a task."""
    nodes.until(lambda told: told.get("new") == "running" and told["name"].startswith(f"{handle.job_id}/"))


def connected(nodes: Cluster, **options: object) -> Client:
    return Client(nodes.address, token_file=nodes.token_file, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shared_memory_min_bytes", [0, 1 << 40], ids=["shared-memory", "grpc"])
def test_answers_are_those_of_one_process(
    nodes: Cluster, session: DataflowSession, shared_memory_min_bytes: int
) -> None:
    with connected(nodes, tasks=3, shared_memory_min_bytes=shared_memory_min_bytes) as client:
        for sql in QUERIES:
            frame = session.sql(sql)
            answer = client.run(frame, JobOptions(timeout_ms=300_000))
            assert answer.mode is Mode.WORKERS, answer.reason
            expected = frame.to_arrow()
            assert answer.table.schema.equals(expected.schema)
            assert bag(answer.table) == bag(expected), sql
            if "ORDER BY" in sql:
                assert answer.table.equals(expected)


def test_what_cannot_be_split_runs_here_and_says_so(nodes: Cluster, session: DataflowSession) -> None:
    with connected(nodes) as client:
        answer = client.run(session.sql("SELECT k, random() < 2 AS r FROM names ORDER BY k"))
        assert answer.mode is Mode.SINGLE_PROCESS
        assert "not the same in every task" in answer.reason
        assert answer.table.num_rows == 300
    slower, faster = Estimate(300, 2400, 100.0, 50.0, 9000.0), Estimate(300, 2400, 9000.0, 4500.0, 100.0)
    for guess, mode in ((slower, Mode.SINGLE_PROCESS), (faster, Mode.WORKERS)):
        with connected(nodes, estimator=lambda *_, guess=guess: guess) as client:
            told = client.run(session.sql("SELECT DISTINCT k FROM names"), JobOptions(timeout_ms=300_000))
            assert (told.mode, told.table.num_rows) == (mode, 300)
            if mode is Mode.SINGLE_PROCESS:
                assert told.reason == guess.reason


def test_what_is_measured_is_told(nodes: Cluster, session: DataflowSession) -> None:
    asked = []

    def asking(*given: Any) -> Estimate:
        asked.append(estimated(*given))
        return asked[-1]

    with connected(nodes, estimator=asking) as client:
        answer = client.run(session.sql(QUERIES[1]), JobOptions(timeout_ms=300_000))
    (guess,) = asked
    assert (guess.rows, guess.payload_bytes > 0, guess.single_us > 0, guess.overhead_us > 0) == (
        60_000,
        True,
        True,
        True,
    )
    assert answer.mode is (Mode.WORKERS if guess.pays else Mode.SINGLE_PROCESS)


def test_stages_are_told_in_microseconds(nodes: Cluster, session: DataflowSession) -> None:
    with connected(nodes, tasks=2, shared_memory_min_bytes=0) as client:
        answer = client.run(session.sql(QUERIES[1]), JobOptions(timeout_ms=300_000))
    spent = totals_us(answer.spans)
    assert set(spent) == {str(stage) for stage in Stage}
    assert all(spent[stage] > 0 for stage in (Stage.SPLIT, Stage.SERIALISE, Stage.TRANSFER, Stage.COMPUTE))
    trace = chrome_trace(answer.spans)["traceEvents"]
    assert {event["ph"] for event in trace} == {"M", "X"}
    assert {"client-1", "scheduler", "scheduler-worker-1"} <= {one["args"].get("name") for one in trace}


def test_a_handle_tells_of_its_job(nodes: Cluster, session: DataflowSession) -> None:
    """C-52."""
    with connected(nodes, tasks=2) as client:
        handle = client.submit(session.sql(SLOW), JobOptions(timeout_ms=300_000))
        assert isinstance(handle, JobHandle)
        runs(nodes, handle)
        assert handle.state is JobState.RUNNING
        assert handle.query_chain("c0")["state"] in ("scheduled", "running")
        assert handle.query_task("c0", 0)["attempt"] == 1
        shown = dashboard(client.snapshot())
        assert handle.job_id in shown
        assert ">" in shown
        assert handle.wait(1) is False
        assert handle.cancel() is True
        with pytest.raises(QueryCancelled):
            handle.result()
        assert (handle.state, handle.done, handle.cancel()) == (JobState.CANCELLED, True, False)
        # The workers are free again.
        answer = client.run(session.sql(QUERIES[2]), JobOptions(timeout_ms=300_000))
        assert answer.table.num_rows == 1


def test_a_job_ends_with_its_time(nodes: Cluster, session: DataflowSession) -> None:
    with connected(nodes, tasks=2) as client:
        with pytest.raises(QueryCancelled) as ended:
            client.run(session.sql(SLOW), JobOptions(timeout_ms=300))
        assert ended.value.code == "query.timeout"
        assert client.run(session.sql(QUERIES[2]), JobOptions(timeout_ms=300_000)).table.num_rows == 1


def test_errors_of_workers_are_those_of_one_process(nodes: Cluster, session: DataflowSession) -> None:
    frame = session.sql("SELECT CAST(t AS INTEGER) AS i FROM events")
    with pytest.raises(DataError) as here:
        frame.to_arrow()
    with connected(nodes, tasks=2) as client, pytest.raises(DataError) as there:
        client.run(frame, JobOptions(timeout_ms=300_000))
    assert there.value.code == here.value.code


def test_a_killed_worker_is_replaced_and_the_answer_comes(nodes: Cluster, session: DataflowSession) -> None:
    with connected(nodes, tasks=2) as client:
        handle = client.submit(session.sql(SLOW), JobOptions(timeout_ms=300_000, base_backoff_ms=50))
        assert isinstance(handle, JobHandle)
        runs(nodes, handle)
        started = [told for told in nodes.events if told["event"] == "worker-started"]
        os.kill(started[-1]["pid"], signal.SIGKILL)
        assert handle.result().equals(session.sql(SLOW).to_arrow())


def test_many_clients_at_once(nodes: Cluster, session: DataflowSession) -> None:
    expected = bag(session.sql(QUERIES[1]).to_arrow())
    answers: list[Answer] = []

    def ask(number: int) -> None:
        with connected(nodes, node_id=f"client-{number}", tasks=2) as client:
            answers.append(client.run(session.sql(QUERIES[1]), JobOptions(timeout_ms=300_000)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bag(answer.table) for answer in answers] == [expected] * 4


def test_nobody_talks_without_the_token(nodes: Cluster, session: DataflowSession, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("x" * 40)
    wrong.chmod(0o600)
    with Client(nodes.address, token_file=wrong) as client, pytest.raises(ExternalError) as refused:
        client.run(session.sql(QUERIES[1]))
    assert refused.value.code == "exchange.argument_error"
    wrong.chmod(0o644)
    with Client(nodes.address, token_file=wrong) as client, pytest.raises(ExternalError) as open_to_all:
        client.run(session.sql(QUERIES[1]))
    assert open_to_all.value.code == "exchange.token"
