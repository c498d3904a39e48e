"""Jobs of plans: the chains of a split as what a scheduler is asked for, and the rows that go with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from velaria_experimental.jobmaster.graph import Chain, ChainInput, Job, Payload
from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.payload.tables import Placing
from velaria_experimental.plans.split import Reading, Split
from velaria_experimental.wire.codec import payload_of, schema_bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """A job, and the bytes of those of its payloads that are in no segment."""

    job: Job
    inline: tuple[tuple[str, bytes], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads."""
        return sum(one.size for one in self.job.payloads)


def submission(job_id: str, found: Split, placing: Placing, options: JobOptions, summary: str = "") -> Submission:
    """The job of a split; its rows are placed.

    Raises:
        ExternalError[exchange.serialize_error]: rows could not be placed.
    """
    payloads: list[Payload] = []
    inline: list[tuple[str, bytes]] = []
    placed: dict[tuple[int, int, bool], tuple[str, ...]] = {}

    def place(table: pa.Table, tasks: int) -> Iterator[str]:
        size = -(-table.num_rows // tasks)
        for at in range(tasks):
            told, data = placing.place(f"{job_id}/given/{len(payloads)}", table.slice(at * size, size))
            payloads.append(payload_of(told))
            if data is not None:
                inline.append((told.payload_id, data))
            yield told.payload_id

    def names(one: Reading, tasks: int) -> tuple[str, ...]:
        assert one.table is not None
        key = (id(one.table), tasks, one.whole)
        if key not in placed:
            placed[key] = tuple(place(one.table, 1 if one.whole else tasks))
        return placed[key]

    chains = []
    for number, chain in enumerate(found.chains):
        inputs = tuple(
            ChainInput(one.name, schema_bytes(one.schema), names(one, chain.tasks))
            if one.table is not None
            else ChainInput(one.name, schema_bytes(one.schema), chain_id=f"c{one.chain}", whole=one.whole)
            for one in chain.readings
        )
        chains.append(Chain(f"c{number}", chain.plan, chain.tasks, inputs, chain.parts))
    return Submission(Job(job_id, tuple(chains), tuple(payloads), options, summary), tuple(inline))
