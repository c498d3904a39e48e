"""Options of jobs: how often, how long, how many. Names and defaults are those of the kernel's jobs where there are."""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.errors import InputError
from velaria_core.execution.jobs import ExecutionOptions


@dataclass(frozen=True, slots=True)
class JobOptions(ExecutionOptions):
    """How a job runs on workers.

    Attributes:
        chain_parallelism: tasks of one chain that run at once; 0: as many as there are workers.
    """

    chain_parallelism: int = 0

    def __post_init__(self) -> None:
        # Named: with slots, `super()` would ask the class that the decorator has replaced.
        ExecutionOptions.__post_init__(self)
        if self.chain_parallelism < 0:
            raise InputError("job.options", "chain_parallelism is not negative")


@dataclass(frozen=True, slots=True)
class Liveness:
    """When a worker is taken for dead.

    Attributes:
        interval_ms: between two heartbeats of a worker.
        miss_max: so many intervals without one are a miss: its tasks are in doubt.
        timeout_ms: without one for so long it is gone: its tasks run elsewhere.
    """

    interval_ms: int = 1000
    miss_max: int = 3
    timeout_ms: int = 5000

    def __post_init__(self) -> None:
        if self.interval_ms < 1 or self.miss_max < 1 or self.timeout_ms < self.interval_ms * self.miss_max:
            told = f"heartbeats every {self.interval_ms} ms, {self.miss_max} missed, gone after {self.timeout_ms} ms"
            raise InputError("job.options", told, hint="timeout_ms is at least interval_ms * miss_max")

    @property
    def miss_ms(self) -> int:
        """How long without a heartbeat is a miss."""
        return self.interval_ms * self.miss_max
