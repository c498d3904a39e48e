"""ActorPlacement: which steps of a query go to worker processes, and the processes that they share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from velaria_core.contract.modes import TransportMode
from velaria_core.errors import StateError, VelariaError
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Step
from velaria_core.execution.steps.placed import PlacedStep
from velaria_core.logical.expr import columns_of
from velaria_core.logical.incremental import Applied, Keyed
from velaria_core.logical.lineage import lineage
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Aggregate, Filter, Project
from velaria_core.types import holds
from velaria_experimental.streaming.hub import Hub
from velaria_experimental.streaming.step import Compiled, RemoteStep, compiled

# How a step computes -> why another process would not pay: benchmarks/stream_actor_benchmark.py, and the README.
_CHEAPER_HERE: Final = {
    "partials": "folds values in less time than its rows take to reach another process",
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
        self.reason = "no node keeps state by key outside of event time"
        self._folder = None if options.checkpoint_path is None else Path(options.checkpoint_path)
        self._lock = threading.Lock()
        self._hub: Hub | None = None

    def placed(self, store: Store, name: str, run: Sequence[Node], below: Step) -> PlacedStep | None:
        """See `velaria_core.execution.placing.Placement.placed`."""
        label = run[0].label()
        by = _cut_by(run, below)
        if not by:
            self.reason = f"{label} has no key whose column comes straight from the rows below"
            return None
        try:
            found: Compiled = compiled(run, below, [*dict.fromkeys([*_columns_read(run, below), *by])])
        except VelariaError as error:
            self.reason = f"{label} cannot be sent: {error.message}"
            return None
        if self._chooses and found.impl in _CHEAPER_HERE:
            self.reason = f"{label} {_CHEAPER_HERE[found.impl]}"
            return None
        self.reason = f"{self.workers} processes keep the state of {label}, its rows split by {', '.join(by)}"
        return RemoteStep(self, store, name, found, by, below)

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


def _columns_read(run: Sequence[Node], below: Step) -> list[str]:
    """Columns below that the nodes read, where projections or groupings say so; the others need not travel."""
    read: set[str] = set()
    for node in reversed(run):
        match node:
            case Filter():
                read.update(columns_of(node.predicate))
                continue
            case Project():
                read.update(name for _, tree in node.named for name in columns_of(tree))
            case Aggregate():
                read.update(name for _, tree in (*node.keys, *node.metrics) for name in columns_of(tree))
            case _:
                break
        return [name for name in below.schema.names if name in read]
    return list(below.schema.names)


def _cut_by(run: Sequence[Node], below: Step) -> list[str]:
    """Columns below that are columns of the key; rows of one key are equal in them."""
    shape = run[0].stream()
    if not isinstance(shape, Keyed) or isinstance(shape, Applied):
        return []
    linear = run[1:]
    passed = dict(lineage(linear[::-1]).passed) if linear else {name: name for name in below.schema.names}
    found = dict.fromkeys(passed[name] for name in shape.by[0] if name in passed)
    # 0.0 and -0.0 are one key and have two hashes.
    return [name for name in found if not holds(below.schema.field(name).type, pa.types.is_floating)]
