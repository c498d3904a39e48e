"""The job master alone, on a clock that the test owns: what happens goes in, what is to be done comes out."""

from __future__ import annotations

import pytest

from velaria_core.errors import DataError, ExternalError, VelariaError
from velaria_core.execution.jobs import JobState
from velaria_experimental.jobmaster.effects import Assign, Effect, Ended, Moved, Release, TaskKey
from velaria_experimental.jobmaster.graph import Chain, ChainInput, Job, Payload
from velaria_experimental.jobmaster.master import JobMaster
from velaria_experimental.jobmaster.options import JobOptions, Liveness

GIVEN = (Payload("j/given/0", "table-arrow-ipc-v1", 8, 1), Payload("j/given/1", "table-arrow-ipc-v1", 8, 1))
READS = ChainInput("exchange_1", b"", ("j/given/0", "j/given/1"))


def job(name: str = "j", **options: int) -> Job:
    """Two tasks, then one over what both made."""
    first = Chain("c0", "plan", 2, (READS,))
    last = Chain("c1", "plan", 1, (ChainInput("exchange_2", b"", chain_id="c0", whole=True),))
    return Job(name, (first, last), GIVEN, JobOptions(**{"base_backoff_ms": 100, **options}))


def assigned(effects: list[Effect]) -> list[tuple[str, TaskKey]]:
    return [(one.node_id, one.key) for one in effects if isinstance(one, Assign)]


def ended(effects: list[Effect]) -> Ended | None:
    return next((one for one in effects if isinstance(one, Ended)), None)


def states(effects: list[Effect], what: str) -> list[str]:
    return [one.new for one in effects if isinstance(one, Moved) and one.what == what]


class Play:
    """A master with two workers and a job, at time 0."""

    def __init__(self, **options: int) -> None:
        self.master = JobMaster(Liveness(1000, 3, 5000))
        for node in ("a", "b"):
            self.master.registered(node, 1, f"folder-{node}", 0)
        self.at_work = {key.task_id: (node, key) for node, key in assigned(self.master.submit(job(**options), 0))}

    def done(self, node: str, key: TaskKey, now_ms: float = 1) -> list[Effect]:
        made = Payload(f"{key.name}/{key.attempt}", "table-arrow-ipc-v1", 8, 1, 0, f"folder-{node}/{key.chain_id}")
        wanted, effects = self.master.succeeded(key, node, [made], now_ms)
        assert wanted
        return effects


def test_a_job_goes_through_its_chains() -> None:
    """C-50, X-11."""
    play = Play()
    assert sorted(node for node, _ in play.at_work.values()) == ["a", "b"]
    effects = play.master.started(play.at_work[0][1], play.at_work[0][0])
    assert states(effects, "task") == ["running"]
    assert assigned(play.done(*play.at_work[0])) == []
    ((node, last),) = assigned(play.done(*play.at_work[1]))
    assert last == TaskKey("j", "c1", 0, 1)
    outcome = ended(play.done(node, last))
    assert outcome is not None
    assert outcome.state is JobState.SUCCEEDED
    assert [one.rows for one in outcome.payloads] == [1]


def test_a_job_waits_for_a_worker_or_is_refused() -> None:
    """X-12."""
    waiting = JobMaster()
    assert assigned(waiting.submit(job(), 0)) == []
    assert len(assigned(waiting.registered("a", 1, "", 1))) == 1
    with pytest.raises(ExternalError) as refused:
        JobMaster(waits=False).submit(job(), 0)
    assert refused.value.code == "exchange.no_worker_available"


def test_a_dead_worker_has_its_task_run_elsewhere_after_the_backoff() -> None:
    """B-20."""
    play = Play()
    node, key = play.at_work[0]
    other = "b" if node == "a" else "a"
    play.done(*play.at_work[1])
    effects = play.master.lost(node, 10, "killed")
    assert "retrying" in states(effects, "task")
    assert assigned(effects) == []
    # What the other one had made is still there.
    assert assigned(play.master.tick(109)) == []
    assert assigned(play.master.tick(110)) == [(other, TaskKey("j", "c0", key.task_id, 2))]


def test_rows_that_died_with_their_worker_are_made_again() -> None:
    play = Play()
    node, key = play.at_work[0]
    play.done(node, key)
    effects = play.master.lost(node, 10, "killed")
    assert "retrying" in states(effects, "chain")
    other, second = play.at_work[1]
    play.done(other, second, 20)
    again = assigned(play.master.tick(200))
    assert again == [(other, TaskKey("j", "c0", key.task_id, 2))]
    ((_, last),) = assigned(play.done(*again[0], 210))
    assert last.chain_id == "c1"


def test_heartbeats() -> None:
    """X-13, B-20: a miss is told, a timeout reschedules, and a worker that speaks again goes on."""
    play = Play()
    (silent, key), (lively, _) = play.at_work[0], play.at_work[1]
    for at in (1, 2, 3):
        play.master.heartbeat(lively, at, at * 1000)
    assert states(play.master.tick(3000), "task") == ["heartbeat-miss"]
    assert states(play.master.heartbeat(silent, 1, 3100), "task") == ["running"]
    play.master.heartbeat(lively, 4, 8000)
    effects = play.master.tick(8100)
    assert "retrying" in states(effects, "task")
    assert play.master.workers == (lively,)
    stale = Payload("late", "table-arrow-ipc-v1", 8, 1)
    assert play.master.succeeded(key, silent, [stale], 8200)[0] is False


def test_an_error_that_may_pass_is_tried_three_times_with_longer_waits() -> None:
    """C-51."""
    play = Play(max_attempts=3)
    node, key = play.at_work[0]
    play.done(*play.at_work[1])
    error = ExternalError("exchange.serialize_error", "full", retryable=True)
    now = 0.0
    for wait in (100, 200):
        play.master.failed(key, node, error, (), now)
        assert assigned(play.master.tick(now + wait - 1)) == []
        ((node, key),) = assigned(play.master.tick(now + wait))
        now += wait
    outcome = ended(play.master.failed(key, node, error, (), now))
    assert outcome is not None
    assert (outcome.state, outcome.error) == (JobState.FAILED, error)


def test_an_error_of_the_data_fails_the_job_at_once() -> None:
    play = Play()
    node, key = play.at_work[0]
    effects = play.master.failed(key, node, DataError("data.cast", "no number"), (), 5)
    outcome = ended(effects)
    assert outcome is not None
    assert outcome.state is JobState.FAILED
    assert {one.node_id for one in effects if isinstance(one, Release)} == {"a", "b"}


def test_a_task_that_finds_rows_gone_has_them_made_again() -> None:
    play = Play()
    made = [play.at_work[0], play.at_work[1]]
    play.done(*made[0])
    ((node, last),) = assigned(play.done(*made[1]))
    gone = f"{made[0][1].name}/1"
    error = ExternalError("exchange.missing_input", "gone", retryable=True)
    play.master.failed(last, node, error, [gone], 10)
    assert [key for _, key in assigned(play.master.tick(500))] == [TaskKey("j", "c0", made[0][1].task_id, 2)]


def test_a_timeout_and_a_cancel_end_a_job_and_late_results_change_nothing() -> None:
    """B-20."""
    for ends, state in (
        (lambda play: play.master.tick(700), JobState.TIMEOUT),
        (lambda play: play.master.cancelled("j", 700), JobState.CANCELLED),
    ):
        play = Play(timeout_ms=700)
        outcome = ended(ends(play))
        assert outcome is not None
        assert outcome.state is state
        node, key = play.at_work[0]
        late = Payload("late", "table-arrow-ipc-v1", 8, 1)
        assert play.master.succeeded(key, node, [late], 800) == (False, [])


def test_a_result_comes_once() -> None:
    play = Play()
    node, key = play.at_work[0]
    play.done(node, key)
    assert play.master.succeeded(key, node, [Payload("x", "table-arrow-ipc-v1", 8, 1)], 2)[0] is False
    assert play.master.submit(job(), 3) == []


def test_chain_parallelism_bounds_the_tasks_at_once() -> None:
    """C-51."""
    play = Play(chain_parallelism=1)
    ((node, key),) = play.at_work.values()
    assert [one.task_id for _, one in assigned(play.done(node, key))] == [1]


def test_a_job_that_does_not_fit_together_is_refused() -> None:
    master = JobMaster()
    backwards = Job(
        "j", (Chain("c0", "", 1, (ChainInput("x", b"", chain_id="c1", whole=True),)), Chain("c1", "", 1, ()))
    )
    for wrong in (backwards, Job("j", ()), Job("j", (Chain("c0", "", 0, ()),))):
        with pytest.raises(VelariaError) as refused:
            master.submit(wrong, 0)
        assert refused.value.code == "exchange.argument_error"
