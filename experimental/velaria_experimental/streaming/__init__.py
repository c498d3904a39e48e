"""Streams on worker processes: importing this lets a query ask for `execution_mode="worker-processes"`.

    import velaria_experimental.streaming
    frame.write_stream(sink, execution_mode="worker-processes", local_workers=2)

The query is the kernel's: its sources, epochs, sinks and checkpoint. Its keyed steps are computed by processes that
live as long as the query, each keeping the state of some of the keys with the kernel's own steps.
"""

from __future__ import annotations

from functools import partial

from velaria_core.contract.modes import ExecutionMode
from velaria_core.execution.placing import register_execution_mode
from velaria_experimental.streaming.placement import ActorPlacement

__all__ = ["ActorPlacement", "use"]


def use(*, chooses: bool = True) -> None:
    """Run queries with `execution_mode="worker-processes"` on processes.

    Args:
        chooses: steps that another process would only slow down stay in the query's own, and the strategy says so;
            else all steps that can go to processes do, as measuring wants it.
    """
    register_execution_mode(ExecutionMode.WORKER_PROCESSES, partial(ActorPlacement, chooses=chooses))


use()
