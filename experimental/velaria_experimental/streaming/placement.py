"""ActorPlacement: which steps of a query go to worker processes, and the processes that they share."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import pyarrow as pa

from velaria_core.contract.modes import TransportMode
from velaria_core.errors import StateError, VelariaError
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.placing import Offer
from velaria_core.execution.steps.placed import PlacedStep
from velaria_core.logical.lineage import lineage
from velaria_core.types import holds
from velaria_experimental.streaming.hub import Hub
from velaria_experimental.streaming.step import Compiled, RemoteStep, compiled

# How a step computes -> why another process would not pay: benchmarks/stream_actor_benchmark.py, and the README.
_CHEAPER_HERE: Final = {
    "partials": "folds values in less time than its rows take to reach another process",
    "panes": "folds values in less time than its rows take to reach another process",
    "two-sided": "finds partners by key in less time than its rows take to reach another process",
}


class ActorPlacement:
    """The worker processes of one query; none is started before a step first runs.

    Args:
        chooses: steps that another process would only slow down are left to the kernel.

    Attributes:
        workers, transport, reason: see `velaria_core.execution.placing.Placement`.
    """

    def __init__(self, options: StreamOptions, *, chooses: bool = True) -> None:
        self._chooses = chooses
        self.workers = max(1, options.local_workers)
        self.shared_memory = options.shared_memory_transport
        self.min_bytes = options.shared_memory_min_payload_bytes
        self.transport = TransportMode.SHARED_MEMORY if self.shared_memory else TransportMode.RPC_COPY
        self._placed: list[str] = []
        self._left = "no node keeps state by key"
        self._folder = None if options.checkpoint_path is None else Path(options.checkpoint_path)
        self._lock = threading.Lock()
        self._hub: Hub | None = None

    @property
    def reason(self) -> str:
        """See `velaria_core.execution.placing.Placement`."""
        return "; ".join(self._placed) or self._left

    def placed(self, offer: Offer) -> PlacedStep | None:
        """See `velaria_core.execution.placing.Placement.placed`."""
        label = offer.run[0].label()
        cuts = _cuts(offer)
        if not cuts:
            self._left = f"{label} has no key whose column comes straight from the rows below"
            return None
        try:
            found: Compiled = compiled(offer, cuts)
        except VelariaError as error:
            self._left = f"{label} cannot be sent: {error.message}"
            return None
        if self._chooses and found.impl in _CHEAPER_HERE:
            self._left = f"{label} {_CHEAPER_HERE[found.impl]}"
            return None
        by = " and ".join(", ".join(names) for names in cuts)
        self._placed.append(f"{self.workers} processes keep the state of {label}, its rows split by {by}")
        return RemoteStep(self, offer, found, cuts)

    def hub(self) -> Hub:
        """The processes; started where they are not."""
        with self._lock:
            if self._hub is None:
                self._hub = Hub(self.workers, shared_memory=self.shared_memory, min_bytes=self.min_bytes)
            return self._hub

    def state_file(self, name: str, worker: int) -> str:
        """Where a worker keeps the state of a step; empty for memory.

        Raises:
            StateError[checkpoint.workers]: the checkpoint is of another number of workers.
        """
        if self._folder is None:
            return ""
        mine = self._folder / f"workers-{self.workers}"
        for other in self._folder.glob("workers-*"):
            if other != mine:
                told = f"the checkpoint's state is split among {other.name.removeprefix('workers-')} workers"
                raise StateError("checkpoint.workers", told, hint="use as many, or start with an empty checkpoint_path")
        mine.mkdir(exist_ok=True)
        return str(mine / f"{name}-{worker}.duckdb")

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            hub, self._hub = self._hub, None
        if hub is not None:
            hub.close()


def _cuts(offer: Offer) -> list[list[str]]:
    """For each input the columns of the key by whose hash its rows are cut: rows of one key are equal in them. Empty
    where there are none."""
    linear = offer.run[1:]
    passed = dict(lineage(linear[::-1]).passed) if linear else None
    found: list[list[str]] = []
    for names in dict.fromkeys(zip(*offer.by, strict=True)):
        columns = names if passed is None else [passed[name] for name in names if name in passed]
        kinds = {step.schema.field(column).type for step, column in zip(offer.below, columns, strict=False)}
        # Hashes are of values of one type; 0.0 and -0.0 are one key and have two.
        if len(columns) == len(offer.below) and len(kinds) == 1 and not holds(kinds.pop(), pa.types.is_floating):
            found.append(list(columns))
    return [list(dict.fromkeys(columns)) for columns in zip(*found, strict=True)]
