"""What the job master wants done: told as values, so that whoever runs it does the I/O and tests need none."""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.errors import VelariaError
from velaria_core.execution.jobs import JobState
from velaria_experimental.jobmaster.graph import ChainInput, Payload


@dataclass(frozen=True, slots=True, order=True)
class TaskKey:
    """One attempt at a task."""

    job_id: str
    chain_id: str
    task_id: int
    attempt: int = 0

    @property
    def name(self) -> str:
        """`job/chain/task`, the same for every attempt."""
        return f"{self.job_id}/{self.chain_id}/{self.task_id}"


@dataclass(frozen=True, slots=True)
class Assign:
    """Give a worker this task, with these rows."""

    node_id: str
    key: TaskKey
    plan: str
    inputs: tuple[tuple[ChainInput, tuple[Payload, ...]], ...]
    parts: int


@dataclass(frozen=True, slots=True)
class Release:
    """A worker is to stop what it runs of a job, and to let go of its rows."""

    node_id: str
    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A job has ended, with rows or an error. It may come again with other payloads while nobody has taken them."""

    job_id: str
    state: JobState
    payloads: tuple[Payload, ...]
    error: VelariaError | None


@dataclass(frozen=True, slots=True)
class Moved:
    """A job, chain or task has changed its state."""

    what: str  # job, chain, task
    name: str
    old: str
    new: str
    node_id: str = ""
    attempt: int = 0
    reason: str = ""


Effect = Assign | Release | Ended | Moved
