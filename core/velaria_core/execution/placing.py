"""Placing: steps that a runtime outside of the kernel runs, where one has registered itself for an execution mode.

The kernel says what a step is, when it runs, and what makes its epoch durable; a `Placement` may say who computes it.
What it is offered is a keyed node, with the linear nodes below it where it has one input, or a join with an equality:
by the node's own promise its rows can be split by key, as no key needs another's. What event time closes is closed
there as it is here: the step is told the watermark in its `Moment`, and what columns it bounds by `Step.times`.

Invariant: a placed step keeps the promises of every step (`steps.base`), so who runs it makes no difference to the
result; and what it keeps is restored to the epoch that the query's own state is at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from velaria_core.contract.modes import ExecutionMode, OutputMode, TransportMode
from velaria_core.errors import InputError

if TYPE_CHECKING:
    from velaria_core.execution.options import StreamOptions
    from velaria_core.execution.state import Store
    from velaria_core.execution.steps.base import Step
    from velaria_core.execution.steps.placed import PlacedStep
    from velaria_core.logical.node import Node


@dataclass(frozen=True, slots=True)
class Offer:
    """A step that somebody else may run.

    Attributes:
        store: of the query's state; what the step writes there is part of the epoch's transaction.
        name: of the step, the same each time the query is opened.
        run: the node, then the linear nodes between it and its one input, the highest first.
        by: for each input, the columns of the key among those that the node reads; the first of each belong together,
            and so on.
        below: the steps whose changes it takes, one for each input.
        output: `append` where a row comes out once, when event time has closed it.
    """

    store: Store
    name: str
    run: Sequence[Node]
    by: Sequence[Sequence[str]]
    below: Sequence[Step]
    output: OutputMode


class Placement(Protocol):
    """A runtime at work for one query.

    Attributes:
        workers: how many it splits rows among.
        transport: how rows reach them.
        reason: why steps run there, or why none does; told once all of them were offered.
    """

    @property
    def workers(self) -> int: ...

    @property
    def transport(self) -> TransportMode: ...

    @property
    def reason(self) -> str: ...

    def placed(self, offer: Offer) -> PlacedStep | None:
        """The step of a node, or None to leave it to the kernel. Called once for each such node, inputs first.

        Nothing is started before the step first runs: `explain` compiles a plan too.
        """
        ...

    def close(self) -> None:
        """Give back what it holds. Called once, also after an error."""
        ...


Maker = Callable[["StreamOptions"], Placement]
_MAKERS: dict[ExecutionMode, Maker] = {}


def register_execution_mode(mode: ExecutionMode, make: Maker) -> None:
    """Have `make` run the steps of queries with this mode, instead of who was registered before.

    Raises:
        InputError[stream.mode]: the kernel runs this mode itself.
    """
    if mode is not ExecutionMode.WORKER_PROCESSES:
        raise InputError("stream.mode", f"the kernel runs {mode} itself", hint=f"{ExecutionMode.WORKER_PROCESSES}")
    _MAKERS[mode] = make


def placement_of(options: StreamOptions) -> Placement | None:
    """Who runs steps of a query with these options; None where the kernel does.

    Raises:
        InputError[stream.mode]: nobody is registered for the mode.
    """
    if options.execution_mode is not ExecutionMode.WORKER_PROCESSES:
        return None
    make = _MAKERS.get(options.execution_mode)
    if make is None:
        hint = "import velaria_experimental.streaming, which has one"
        raise InputError("stream.mode", f"no runtime is registered for {options.execution_mode}", hint=hint)
    return make(options)
