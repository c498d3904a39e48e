"""What a job is: chains of tasks over payloads. Immutable; `checked` refuses one that does not fit together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.wire.status import Status, refused

TASKS_MAX: Final = 1024
PARTS_MAX: Final = 1024
CHAINS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Payload:
    """Rows that cross between processes, by what is told of them; see `Payload` in runtime.proto."""

    payload_id: str
    codec: str
    size: int
    rows: int
    part: int = 0
    segment: str = ""


@dataclass(frozen=True, slots=True)
class ChainInput:
    """What the tasks of a chain read under one name.

    Attributes:
        schema: Arrow, serialised.
        payloads: of the client: one for each task, or one that every task reads.
        chain_id: or the outputs of this chain: all of them where `whole`, else the part of the task's own number.
    """

    name: str
    schema: bytes
    payloads: tuple[str, ...] = ()
    chain_id: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """Tasks that run one plan, each on its own rows; `parts` are those of each task's output."""

    chain_id: str
    plan: str
    tasks: int
    inputs: tuple[ChainInput, ...]
    parts: int = 1

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The chains whose outputs it reads."""
        return tuple(dict.fromkeys(one.chain_id for one in self.inputs if one.chain_id))


@dataclass(frozen=True, slots=True)
class Job:
    """Chains, dependencies first; the outputs of the last one are the result, in the order of its tasks."""

    job_id: str
    chains: tuple[Chain, ...]
    payloads: tuple[Payload, ...] = ()
    options: JobOptions = field(default_factory=JobOptions)
    summary: str = ""


def checked(job: Job) -> Job:
    """The job, if its chains and payloads fit together.

    Raises:
        ExternalError[exchange.argument_error]: they do not.
    """
    if wrong := _wrong(job):
        raise refused(Status.ARGUMENT_ERROR, f"job {job.job_id[:80]!r}: {wrong}")
    return job


def _wrong(job: Job) -> str | None:
    known = {one.payload_id for one in job.payloads}
    before: dict[str, Chain] = {}
    if not job.job_id or not 1 <= len(job.chains) <= CHAINS_MAX:
        return f"it has a name, and 1 to {CHAINS_MAX} chains"
    if len(known) < len(job.payloads):
        return "two payloads have one name"
    for chain in job.chains:
        name = chain.chain_id
        if not name or name in before:
            return f"chain {name[:80]!r} has no name of its own"
        if not 1 <= chain.tasks <= TASKS_MAX or not 1 <= chain.parts <= PARTS_MAX:
            return f"chain {name} has {chain.tasks} tasks of {chain.parts} parts"
        for one in chain.inputs:
            if one.chain_id and one.chain_id not in before:
                return f"chain {name} reads {one.chain_id[:80]!r}, which does not come before it"
            if one.chain_id and not one.whole and before[one.chain_id].parts != chain.tasks:
                return f"chain {name} has {chain.tasks} tasks for {before[one.chain_id].parts} parts"
            if not one.chain_id and len(one.payloads) not in (1, chain.tasks):
                return f"chain {name} has {chain.tasks} tasks for {len(one.payloads)} payloads"
            if not known.issuperset(one.payloads):
                return f"chain {name} reads a payload that was not given"
        before[name] = chain
    return None
