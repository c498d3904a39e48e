"""A worker's tasks: those of a job that nobody wants are skipped, and nothing else is remembered of it."""

from __future__ import annotations

from velaria_experimental.wire.v1 import runtime_pb2 as pb
from velaria_experimental.worker import Tasks


def task(job_id: str, number: int = 0) -> pb.Assign:
    return pb.Assign(task=pb.TaskKey(job_id=job_id, chain_id="c", task_id=number))


def test_a_released_job_loses_what_waits_of_it() -> None:
    tasks = Tasks()
    for assign in (task("gone"), task("kept"), task("gone", 1)):
        tasks.put(assign)
    assert not tasks.release("gone"), "none of it was at work"
    tasks.put(task("last"))
    taken = [tasks.take(), tasks.take()]
    assert [one.key.job_id for one in taken if one is not None] == ["kept", "last"]


def test_the_task_at_work_is_cancelled_with_its_job() -> None:
    tasks = Tasks()
    tasks.put(task("mine"))
    taken = tasks.take()
    assert taken is not None
    assert [key.job_id for key in tasks.running] == ["mine"]
    assert not tasks.release("other")
    assert not taken.cancelled
    assert tasks.release("mine")
    assert taken.cancelled
    assert not tasks.done(), "nobody wants it any more"
    assert tasks.running == []


def test_a_released_job_that_is_asked_for_again_runs() -> None:
    """What was released leaves no trace, however many they were."""
    tasks = Tasks()
    for number in range(3):
        tasks.release(f"job-{number}")
        tasks.put(task(f"job-{number}"))
        assert tasks.take() is not None
        assert tasks.done()
    assert vars(tasks)["_waiting"] == vars(Tasks())["_waiting"]


def test_the_end_cancels_what_is_at_work_and_wakes_who_waits() -> None:
    tasks = Tasks()
    tasks.put(task("at work"))
    tasks.put(task("waiting"))
    taken = tasks.take()
    tasks.end()
    assert taken is not None
    assert taken.cancelled
    assert tasks.take() is None
