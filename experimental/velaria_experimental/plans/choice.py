"""Choice: whether a frame is worth other processes, before it is given to any.

A share of the rows runs here and is measured; from that, the sizes and what moving costs, both ways are estimated. The
rules are those of inventory row E-10: other processes are chosen where the rows and the bytes are many, the work is
more than its overhead, and the gain is not within what measuring can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import pyarrow as pa

from velaria_core.execution.duck import Engine
from velaria_core.logical.serialize import loads
from velaria_experimental.plans.run import run
from velaria_experimental.plans.split import PlannedChain, Reading, Split

SAMPLE_ROWS: Final = 65_536
SAMPLES: Final = 2
ROWS_MIN: Final = 65_536
PAYLOAD_BYTES_MIN: Final = 262_144
COMPUTE_TO_OVERHEAD_MIN: Final = 1.5
SPEEDUP_MIN: Final = 1.05
SPEEDUP_STRONG: Final = 1.25
# What another process costs, measured by benchmarks/stream_actor_benchmark.py on two cores.
TASK_US: Final = 4_000.0
SHARED_MEMORY_BYTES_PER_US: Final = 1_000.0
STREAM_BYTES_PER_US: Final = 150.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a frame would take, in microseconds.

    Attributes:
        single_us: in this process.
        compute_us: the work in the workers, side by side.
        overhead_us: what they need besides: moving rows, handing tasks over.
    """

    rows: int
    payload_bytes: int
    single_us: float
    compute_us: float
    overhead_us: float

    @property
    def speedup(self) -> float:
        """How many times faster the workers would be."""
        return self.single_us / max(self.compute_us + self.overhead_us, 1.0)

    @property
    def compute_to_overhead(self) -> float:
        return self.compute_us / max(self.overhead_us, 1.0)

    @property
    def pays(self) -> bool:
        """Whether the workers are chosen."""
        large = self.rows >= ROWS_MIN and self.payload_bytes >= PAYLOAD_BYTES_MIN
        ratio = self.compute_to_overhead >= COMPUTE_TO_OVERHEAD_MIN
        fast = self.speedup >= SPEEDUP_MIN
        return fast and (ratio or (large and self.speedup >= SPEEDUP_STRONG))

    @property
    def reason(self) -> str:
        """The numbers that decided."""
        verb = "pays" if self.pays else "does not pay"
        return (
            f"another process {verb}: {self.single_us / 1000:.1f} ms here, {self.compute_us / 1000:.1f} + "
            f"{self.overhead_us / 1000:.1f} ms there for {self.rows} rows, {self.payload_bytes} bytes"
        )


# Of this process's engine, a split, the workers, the threads of this process, and whether rows go to shared memory.
Estimator = Callable[[Engine, Split, int, int, bool], Estimate]


def estimated(engine: Engine, found: Split, workers: int, threads: int, shared_memory: bool) -> Estimate:
    """Measures the first chain over a sample, and reckons with it. Takes what a share of the work takes.

    Args:
        engine: of this process.
        workers: that would share the work; each has one thread.
        threads: of this process's engine.
    """
    rows = nbytes = 0
    for chain in found.chains:
        for one in chain.readings:
            if one.table is not None:
                rows, nbytes = rows + one.table.num_rows, nbytes + one.table.nbytes
    tasks = sum(chain.tasks for chain in found.chains)
    share_us, share = _measured(engine, found.chains[0])
    single_us = share_us / share
    speed = SHARED_MEMORY_BYTES_PER_US if shared_memory else STREAM_BYTES_PER_US
    return Estimate(rows, nbytes, single_us, single_us * threads / workers, nbytes / speed + TASK_US * tasks / workers)


def _measured(engine: Engine, chain: PlannedChain) -> tuple[float, float]:
    """Microseconds of the best of a few runs over a sample, and its share of the rows."""
    largest = max((one.table.num_rows for one in chain.readings if one.table is not None), default=0)
    share = min(1.0, SAMPLE_ROWS / max(largest, 1))
    plan, rows = loads(chain.plan), _sample(chain.readings, share)
    times = []
    for _ in range(SAMPLES):
        began = perf_counter()
        run(engine, plan, rows, chain.parts)
        times.append(perf_counter() - began)
    return min(times) * 1e6, share


def _sample(readings: Sequence[Reading], share: float) -> dict[str, pa.Table]:
    """So much of the rows that tasks share, and all of those that each reads."""
    found = {}
    for one in readings:
        if one.table is not None:
            rows = one.table.num_rows if one.whole else int(one.table.num_rows * share)
            found[one.name] = one.table.slice(0, rows)
    return found
