"""Jobs on a real engine: state, cancel, timeout, retries, turns, and what survives a closed session.

Time is the tests' own wherever a wait is asserted; a cancel is measured on the machine's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from runtime_support import PATIENCE_S

from velaria_core.errors import DataError, ExternalError, InputError, InternalError, QueryCancelled
from velaria_core.execution import jobs
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.jobs import ExecutionOptions, JobHandle, JobState, stop_all, submit
from velaria_core.logical.expr import parse_expression
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Aggregate, Filter, Project, Scan, Values
from velaria_core.logical.query import Query
from velaria_core.logical.relation import Relation
from velaria_core.session import DataflowSession

# Minutes of work for any machine.
ENDLESS_ROWS = 10**11
QUICK = ExecutionOptions()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(Settings(threads=2))
    yield engine
    stop_all(engine)
    engine.close()


def numbers(rows: int) -> Scan:
    return Scan(Relation("range", pa.schema([("range", pa.int64())]), f"range({rows})", "values"))


def endless() -> Node:
    total = parse_expression('sum(hash("range") % 7)')
    return Aggregate(numbers(ENDLESS_ROWS), (), (("total", total),))


def failing(text: str) -> Node:
    return Project(Values(("one",), ((parse_expression("1"),),)), (("bad", parse_expression(text)),))


@dataclass(frozen=True, eq=False)
class Unsteady(Node):
    """Rows that come after some failures, as from a store behind a network."""

    errors: list[Exception]
    tried: list[float] = field(default_factory=list)
    clock: ManualClock = field(default_factory=ManualClock)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("range",)

    def label(self) -> str:
        return "Unsteady"

    def batch(self, *inputs: Query) -> Query:
        assert not inputs
        self.tried.append(self.clock.ticks_ms())
        if self.errors:
            raise self.errors.pop(0)
        return Query.table("range(3)", self.columns)

    def stream(self) -> Incremental:
        return Linear()


def down() -> ExternalError:
    return ExternalError("store.down", "the store does not answer", retryable=True)


def eventually(job: JobHandle, *states: JobState) -> None:
    """Wait, by the machine's time, until the job is in one of the states."""
    limit = time.monotonic() + PATIENCE_S
    while job.state not in states:
        assert time.monotonic() < limit, f"{job} is not {states}"
        time.sleep(0.002)


def pass_pauses(clock: ManualClock, job: JobHandle) -> None:
    """Until the job has ended: whenever it pauses, let its clock go on to the moment that it waits for."""
    limit = time.monotonic() + PATIENCE_S
    while not job.done:
        assert time.monotonic() < limit, f"{job} does not end"
        if job.state is JobState.RETRYING and (moment := clock.next_deadline_ms()) is not None:
            clock.advance(moment - clock.ticks_ms())
        time.sleep(0.002)


# --- rows ------------------------------------------------------------------------------------------------------


def test_a_job_gives_its_rows(engine: Engine) -> None:
    job = submit(engine, numbers(5), QUICK)
    assert job.result().column("range").to_pylist() == [0, 1, 2, 3, 4]
    assert job.done
    assert job.state is JobState.SUCCEEDED
    assert job.result() is job.result()


def test_it_reads_arrow_data(engine: Engine) -> None:
    table = pa.table({"v": [1, 2, 3]})
    scan = Scan(Relation("arrow", table.schema, '"arrow_1"', "arrow", table))
    job = submit(engine, Filter(scan, parse_expression('"v" > 1')), QUICK)
    assert job.result().to_pydict() == {"v": [2, 3]}


def test_the_snapshot_of_a_success() -> None:
    """C-52."""
    clock = ManualClock(1_700_000_000_000)
    engine = Engine(Settings(threads=1))
    job = submit(engine, numbers(3), ExecutionOptions(timeout_ms=60_000, max_attempts=2), clock)
    job.result()
    found = job.snapshot().to_dict()
    assert found == {
        "job_id": job.job_id,
        "state": "succeeded",
        "created_at_ms": 1_700_000_000_000,
        "started_at_ms": 1_700_000_000_000,
        "finished_at_ms": 1_700_000_000_000,
        "attempts": 1,
        "max_attempts": 2,
        "timeout_ms": 60_000,
        "progress": 1.0,
        "rows": 3,
        "bytes": job.result().nbytes,
        "error": None,
    }
    assert json.loads(job.snapshot_json()) == found
    assert list(json.loads(job.snapshot_json())) == list(found)
    engine.close()


def test_the_result_outlives_the_session(engine: Engine) -> None:
    job = submit(engine, numbers(4), QUICK)
    assert job.wait()
    engine.close()
    assert job.result().num_rows == 4
    late = submit(engine, numbers(4), QUICK)
    with pytest.raises(InputError) as caught:
        late.result()
    assert caught.value.code == "session.closed"


# --- cancel ----------------------------------------------------------------------------------------------------


def test_cancel_stops_a_scan_of_a_hundred_billion_rows(engine: Engine) -> None:
    job = submit(engine, endless(), QUICK)
    eventually(job, JobState.RUNNING)
    time.sleep(0.1)
    assert not job.wait(timeout_ms=1)
    assert job.snapshot().rows is None
    assert job.cancel()
    assert job.wait(timeout_ms=1000 * PATIENCE_S), "it would take hours"
    assert job.state is JobState.CANCELLED
    with pytest.raises(QueryCancelled) as caught:
        job.result()
    assert caught.value.code == "query.cancelled"
    assert not job.cancel(), "a job that ended cannot be cancelled"
    # The engine, and the very cursor, are free for the next.
    assert submit(engine, numbers(2), QUICK).result().num_rows == 2


def test_cancel_at_once_is_not_lost(engine: Engine) -> None:
    # The request may come before the thread, the cursor or the statement is there.
    for pause in (0, 0, 0.0005, 0.001, 0.002, 0.004):
        job = submit(engine, endless(), QUICK)
        time.sleep(pause)
        job.cancel()
        assert job.wait(timeout_ms=1000 * PATIENCE_S)
        assert job.state is JobState.CANCELLED


def test_a_cancel_does_not_reach_the_next_statement_of_the_cursor(engine: Engine) -> None:
    for _ in range(30):
        job = submit(engine, numbers(1000), QUICK)
        job.cancel()
        assert submit(engine, numbers(1000), QUICK).result().num_rows == 1000
        job.wait()


def test_leaving_a_with_block_cancels(engine: Engine) -> None:
    with submit(engine, endless(), QUICK) as job:
        eventually(job, JobState.RUNNING)
    assert job.wait()
    assert job.state is JobState.CANCELLED
    with submit(engine, numbers(1), QUICK) as job:
        job.result()
    assert job.state is JobState.SUCCEEDED


def test_stop_all_ends_running_and_queued_jobs(engine: Engine) -> None:
    started = [submit(engine, endless(), QUICK) for _ in range(jobs.RUNNING_MAX + 3)]
    stop_all(engine)
    assert {job.state for job in started} == {JobState.CANCELLED}


def test_a_program_may_end_under_a_running_job() -> None:
    program = (
        "from test_jobs import *\n"
        "job = submit(Engine(Settings()), endless(), QUICK)\n"
        "eventually(job, JobState.RUNNING)\n"
        "print('end')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")


# --- timeout (B-20) -----------------------------------------------------------------------------------------------


def test_timeout_is_a_state_of_its_own(engine: Engine) -> None:
    clock = ManualClock()
    job = submit(engine, endless(), ExecutionOptions(timeout_ms=1000), clock)
    eventually(job, JobState.RUNNING)
    clock.advance(999)
    time.sleep(0.05)
    assert job.state is JobState.RUNNING
    clock.advance(1)
    eventually(job, JobState.TIMEOUT)
    with pytest.raises(QueryCancelled) as caught:
        job.result()
    assert caught.value.code == "query.timeout"
    assert "1000 ms" in caught.value.message
    assert job.snapshot().finished_at_ms == 1000
    error = job.snapshot().error
    assert error is not None
    assert error["code"] == "query.timeout"


def test_timeout_by_the_machine_s_time(engine: Engine) -> None:
    started = time.monotonic()
    job = submit(engine, endless(), ExecutionOptions(timeout_ms=150))
    assert job.wait(timeout_ms=1000 * PATIENCE_S)
    assert 0.15 <= time.monotonic() - started < 3
    assert job.state is JobState.TIMEOUT


def test_timeout_covers_the_wait_for_a_turn(engine: Engine) -> None:
    clock = ManualClock()
    busy = [submit(engine, endless(), QUICK) for _ in range(jobs.RUNNING_MAX)]
    for job in busy:
        eventually(job, JobState.RUNNING)
    waiting = submit(engine, numbers(1), ExecutionOptions(timeout_ms=500), clock)
    eventually(waiting, JobState.QUEUED)
    clock.advance(500)
    eventually(waiting, JobState.TIMEOUT)
    assert waiting.snapshot().attempts == 0
    assert waiting.snapshot().started_at_ms is None


def test_timeout_covers_the_pauses_between_attempts(engine: Engine) -> None:
    clock = ManualClock()
    node = Unsteady([down(), down()], clock=clock)
    options = ExecutionOptions(timeout_ms=1500, base_backoff_ms=1000)
    job = submit(engine, node, options, clock)
    pass_pauses(clock, job)
    assert job.state is JobState.TIMEOUT
    assert node.tried == [0, 1000]


# --- failure and retries ----------------------------------------------------------------------------------------


def test_a_failure_is_the_original_error_and_is_not_tried_again(engine: Engine) -> None:
    job = submit(engine, failing("CAST('x' AS INTEGER)"), QUICK)
    with pytest.raises(DataError) as caught:
        job.result()
    assert caught.value.code == "value.conversion"
    assert job.state is JobState.FAILED
    found = job.snapshot()
    assert (found.attempts, found.rows, found.progress) == (1, None, None)
    assert found.error is not None
    assert found.error["code"] == "value.conversion"
    assert found.error["error_type"] == "DataError"
    with pytest.raises(DataError) as again:
        job.result()
    assert again.value is caught.value


def test_an_unexpected_error_still_ends_the_job(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    job = submit(engine, Unsteady([KeyError("lost")]), QUICK)
    with pytest.raises(InternalError) as caught:
        job.result()
    assert caught.value.code == "job.failed"
    assert isinstance(caught.value.cause, KeyError)
    assert "unexpected error" in caplog.text


def test_retries_keep_their_pauses(engine: Engine) -> None:
    clock = ManualClock()
    node = Unsteady([down(), down(), down()], clock=clock)
    options = ExecutionOptions(max_attempts=4, base_backoff_ms=200, max_backoff_ms=300)
    job = submit(engine, node, options, clock)
    eventually(job, JobState.RETRYING)
    found = job.snapshot()
    assert found.error is not None
    assert found.error["code"] == "store.down"
    pass_pauses(clock, job)
    assert job.result().num_rows == 3
    assert node.tried == [0, 200, 500, 800]
    assert job.snapshot().attempts == 4
    assert job.snapshot().error is None


def test_the_last_attempt_s_error_is_the_job_s(engine: Engine) -> None:
    clock = ManualClock()
    last = down()
    job = submit(engine, Unsteady([down(), last]), ExecutionOptions(max_attempts=2), clock)
    pass_pauses(clock, job)
    with pytest.raises(ExternalError) as caught:
        job.result()
    assert caught.value is last
    assert job.state is JobState.FAILED
    assert job.snapshot().attempts == 2


def test_what_no_retry_can_mend_is_not_retried(engine: Engine) -> None:
    node = Unsteady([ExternalError("file.forbidden", "no")])
    job = submit(engine, node, QUICK)
    job.wait()
    assert job.state is JobState.FAILED
    assert len(node.tried) == 1


def test_cancel_between_attempts(engine: Engine) -> None:
    clock = ManualClock()
    job = submit(engine, Unsteady([down()] * 3), QUICK, clock)
    eventually(job, JobState.RETRYING)
    job.cancel()
    eventually(job, JobState.CANCELLED)


def test_backoff_doubles_up_to_its_limit() -> None:
    """C-51: from 200 ms to 3 s."""
    options = ExecutionOptions()
    assert [options.backoff_ms(failures) for failures in (1, 2, 3, 4, 5, 6, 10**6)] == [
        200, 400, 800, 1600, 3000, 3000, 3000,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"base_backoff_ms": -1}, "base_backoff_ms"),
        ({"base_backoff_ms": 10, "max_backoff_ms": 9}, "max_backoff_ms"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(InputError) as caught:
        ExecutionOptions(**options)
    assert caught.value.code == "job.options"
    assert said in caught.value.message


# --- many ---------------------------------------------------------------------------------------------------------


def test_many_jobs_at_once(engine: Engine) -> None:
    started = [submit(engine, numbers(rows), QUICK) for rows in range(200)]
    assert [job.result().num_rows for job in started] == list(range(200))
    assert len({job.job_id for job in started}) == 200


def test_jobs_beyond_the_limit_wait_their_turn_in_order(engine: Engine) -> None:
    busy = [submit(engine, endless(), QUICK) for _ in range(jobs.RUNNING_MAX)]
    for job in busy:
        eventually(job, JobState.RUNNING)
    waiting = submit(engine, numbers(1), QUICK)
    eventually(waiting, JobState.QUEUED)
    given_up = submit(engine, numbers(1), QUICK)
    eventually(given_up, JobState.QUEUED)
    given_up.cancel()
    eventually(given_up, JobState.CANCELLED)
    assert waiting.state is JobState.QUEUED
    busy[0].cancel()
    assert waiting.result().num_rows == 1


def test_several_threads_may_wait_for_one_job(engine: Engine) -> None:
    job = submit(engine, numbers(100_000), QUICK)
    found: list[int] = []
    waiters = [threading.Thread(target=lambda: found.append(job.result().num_rows)) for _ in range(8)]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join(20)
    assert found == [100_000] * 8


def test_jobs_print_nothing(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    submit(engine, numbers(3), QUICK).result()
    job = submit(engine, failing("CAST('x' AS INTEGER)"), QUICK)
    job.wait()
    assert capfd.readouterr() == ("", "")


def test_progress_is_a_share_while_it_runs(engine: Engine) -> None:
    job = submit(engine, endless(), QUICK)
    eventually(job, JobState.RUNNING)
    seen: list[float | None] = []
    for _ in range(20):
        time.sleep(0.01)
        seen.append(job.snapshot().progress)
    assert all(share is None or 0 <= share < 1 for share in seen)
    assert any(share is not None for share in seen)
    job.cancel()


def test_a_write_conflict_invites_a_retry(engine: Engine) -> None:
    with engine.cursor() as one, engine.cursor() as two:
        one.execute("CREATE TABLE t AS SELECT 1 AS a")
        with one.transaction(), two.transaction():
            one.execute("UPDATE t SET a = 2")
            with pytest.raises(ExternalError) as caught:
                two.execute("UPDATE t SET a = 3")
    assert caught.value.code == "database.conflict"
    assert caught.value.retryable


# --- through a session (A-20, A-21) -------------------------------------------------------------------------------


def test_a_session_submits_sql_and_frames() -> None:
    with DataflowSession() as session:
        frame = session.create_dataframe(pa.table({"v": [1, 2, 3]}))
        session.create_temp_view("t", frame)
        assert session.submit("SELECT sum(v) AS s FROM t").to_pylist() == [{"s": 6}]
        assert session.submit(frame.filter("v > 1"), ExecutionOptions(timeout_ms=60_000)).num_rows == 2
        job = session.submit_async("SELECT count(*) AS n FROM t")
        assert job.result().to_pylist() == [{"n": 3}]
        with pytest.raises(QueryCancelled) as caught:
            session.submit(f"SELECT sum(hash(range)) FROM range({ENDLESS_ROWS})", ExecutionOptions(timeout_ms=50))
        assert caught.value.code == "query.timeout"
    assert job.result().num_rows == 1


def test_a_session_that_closes_ends_its_jobs() -> None:
    session = DataflowSession()
    other = DataflowSession()
    job = session.submit_async(f"SELECT sum(hash(range)) FROM range({ENDLESS_ROWS})")
    theirs = other.submit_async(f"SELECT sum(hash(range)) FROM range({ENDLESS_ROWS})")
    eventually(job, JobState.RUNNING)
    eventually(theirs, JobState.RUNNING)
    session.close()
    assert job.state is JobState.CANCELLED
    assert theirs.state is JobState.RUNNING, "sessions share nothing"
    other.close()
    assert theirs.done
