"""States of jobs, chains and tasks, and which may follow which. The texts are stable.

    task   created -> queued -> scheduled -> running -> succeeded | failed | cancelled
                      queued <- retrying <- heartbeat-miss, or any of scheduled, running, succeeded
    chain  created -> waiting-for-deps -> ready -> scheduled -> running -> succeeded | failed | cancelled
                                                   retrying between these; a chain whose outputs are lost retries too
    job    created -> queued -> running -> succeeded | failed | cancelled | timeout, and retrying while a task is

A task that succeeded may run again: its rows live in the memory of the worker that made them, and go with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

from velaria_core.execution.jobs import JobState


class TaskState(StrEnum):
    """Where a task stands."""

    CREATED = "created"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    HEARTBEAT_MISS = "heartbeat-miss"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ChainState(StrEnum):
    """Where a chain stands."""

    CREATED = "created"
    WAITING_FOR_DEPS = "waiting-for-deps"
    READY = "ready"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_T, _C, _J = TaskState, ChainState, JobState
_TASK_ENDS = frozenset({_T.FAILED, _T.CANCELLED})
TASK_STEPS: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    _T.CREATED: frozenset({_T.QUEUED, _T.SUCCEEDED}) | _TASK_ENDS,
    _T.QUEUED: frozenset({_T.SCHEDULED, _T.CREATED}) | _TASK_ENDS,
    _T.SCHEDULED: frozenset({_T.RUNNING, _T.SUCCEEDED, _T.HEARTBEAT_MISS, _T.RETRYING}) | _TASK_ENDS,
    _T.RUNNING: frozenset({_T.SUCCEEDED, _T.HEARTBEAT_MISS, _T.RETRYING}) | _TASK_ENDS,
    _T.HEARTBEAT_MISS: frozenset({_T.RUNNING, _T.RETRYING, _T.SUCCEEDED}) | _TASK_ENDS,
    _T.RETRYING: frozenset({_T.QUEUED, _T.CREATED}) | _TASK_ENDS,
    _T.SUCCEEDED: frozenset({_T.RETRYING}) | _TASK_ENDS,
    _T.FAILED: frozenset(),
    _T.CANCELLED: frozenset(),
}
_CHAIN_ENDS = frozenset({_C.FAILED, _C.CANCELLED})
CHAIN_STEPS: Final[Mapping[ChainState, frozenset[ChainState]]] = {
    _C.CREATED: frozenset({_C.WAITING_FOR_DEPS, _C.READY}) | _CHAIN_ENDS,
    _C.WAITING_FOR_DEPS: frozenset({_C.READY, _C.SUCCEEDED}) | _CHAIN_ENDS,
    _C.READY: frozenset({_C.SCHEDULED, _C.WAITING_FOR_DEPS, _C.SUCCEEDED, _C.RETRYING}) | _CHAIN_ENDS,
    _C.SCHEDULED: frozenset({_C.RUNNING, _C.SUCCEEDED, _C.RETRYING}) | _CHAIN_ENDS,
    _C.RUNNING: frozenset({_C.SUCCEEDED, _C.RETRYING}) | _CHAIN_ENDS,
    _C.RETRYING: frozenset({_C.WAITING_FOR_DEPS, _C.READY, _C.SCHEDULED, _C.RUNNING, _C.SUCCEEDED}) | _CHAIN_ENDS,
    _C.SUCCEEDED: frozenset({_C.RETRYING}) | _CHAIN_ENDS,
    _C.FAILED: frozenset(),
    _C.CANCELLED: frozenset(),
}
_JOB_ENDS = frozenset({_J.FAILED, _J.CANCELLED, _J.TIMEOUT})
JOB_STEPS: Final[Mapping[JobState, frozenset[JobState]]] = {
    _J.CREATED: frozenset({_J.QUEUED}) | _JOB_ENDS,
    _J.QUEUED: frozenset({_J.RUNNING, _J.SUCCEEDED}) | _JOB_ENDS,
    _J.RUNNING: frozenset({_J.RETRYING, _J.SUCCEEDED}) | _JOB_ENDS,
    _J.RETRYING: frozenset({_J.RUNNING, _J.SUCCEEDED}) | _JOB_ENDS,
    _J.SUCCEEDED: frozenset({_J.RETRYING, _J.FAILED}),  # until its client has the rows they may be lost
    _J.FAILED: frozenset(),
    _J.CANCELLED: frozenset(),
    _J.TIMEOUT: frozenset(),
}
State = TypeVar("State", TaskState, ChainState, JobState)


def stepped(steps: Mapping[State, frozenset[State]], old: State, new: State) -> State:
    """`new`, which must be able to follow `old`."""
    assert new in steps[old], f"{type(old).__name__}: {new} does not follow {old}"
    return new
