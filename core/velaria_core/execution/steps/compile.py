"""Compiling: a plan becomes the steps of its incremental form.

`compile_steps` walks a plan and chooses a step by the shape that each node declares; it knows no operator by name but
the scans at the leaves. Runs of linear nodes become one statement. State lives in a `Store`; a step that has nothing to
do returns None and costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

from sqlglot import exp

from velaria_core.contract.modes import OutputMode
from velaria_core.errors import InputError
from velaria_core.execution.duck import Engine
from velaria_core.execution.placing import Offer
from velaria_core.execution.state import Store
from velaria_core.execution.steps.applied import AppliedStep, ReappliedStep
from velaria_core.execution.steps.base import RESERVED, Step
from velaria_core.execution.steps.bilinear import BilinearStep
from velaria_core.execution.steps.closing import ClosingStep
from velaria_core.execution.steps.dataflow import Dataflow
from velaria_core.execution.steps.grouping import Grouper, grouping, rows_of
from velaria_core.execution.steps.keyed import keyed_step
from velaria_core.execution.steps.linear import ConcatStep, LinearStep, PassStep, WholeStep
from velaria_core.execution.steps.nearest import NearestToEachStep, answers_each
from velaria_core.execution.steps.panes import PanesStep, Slides
from velaria_core.execution.steps.partials import GroupedStep, PartialsStep
from velaria_core.execution.steps.partitioned import (
    PartitionedGrouper,
    PartitionedLinearStep,
    split_by,
    works_by_row,
)
from velaria_core.execution.steps.refreshed import RefreshStep
from velaria_core.execution.steps.session import SessionStep
from velaria_core.execution.steps.session_aggregate import SessionAggregateStep, Sessions, session_columns
from velaria_core.execution.steps.source import SourceStep, StaticStep
from velaria_core.execution.steps.states import states_step
from velaria_core.execution.steps.watermark import ProcessingTimeStep, WatermarkStep
from velaria_core.execution.workers import Workers
from velaria_core.logical.event_time import STATIC, Times
from velaria_core.logical.incremental import Applied, Bilinear, Keyed, Linear, Reread, Timed
from velaria_core.logical.node import Node
from velaria_core.logical.operators import (
    ApplyInBatches,
    Join,
    Limit,
    ProcessingTime,
    Refresh,
    Scan,
    SessionWindow,
    Sort,
    TopK,
    VectorSearch,
    Watermark,
)
from velaria_core.logical.partials import Partials
from velaria_core.logical.states import States

if TYPE_CHECKING:
    from velaria_core.execution.placing import Placement


def compile_steps(
    root: Node,
    store: Store,
    engine: Engine,
    streams: Mapping[int, bool],
    output: OutputMode = OutputMode.UPDATE,
    workers: Workers | None = None,
    placement: Placement | None = None,
    bounds: Mapping[int, Times] | None = None,
) -> Dataflow:
    """The incremental form of a plan.

    Args:
        engine: where static tables are read.
        streams: for each relation that is a stream, by identity, whether it is append-only.
        output: with `append`, rows of the result that may still change are held until event time has closed them, where
            it closes a column of theirs.
        workers: who runs parts of the steps that can be split; None where one thread runs all.
        placement: who outside of the kernel may run steps; None for nobody.
        bounds: for relations of which event times were read before, by identity, the columns that these bound; whoever
            gives their rows tells the watermark too.
    """
    steps: list[Step] = []
    sources: dict[int, SourceStep] = {}
    made: dict[int, Step] = {}
    apart: list[Node] = []  # kept, as what is known of nodes is known by their identity
    numbers = count(1)
    uses: Counter[int] = Counter(id(child) for node in root.walk() for child in node.inputs)

    told = bounds or {}
    scans = [node for node in root.walk() if isinstance(node, Scan)]
    known = {id(scan): told[id(scan.relation)] for scan in scans if id(scan.relation) in told}

    def times(node: Node) -> Times:
        if id(node) not in known:
            below = [times(child) for child in node.inputs]
            moves = isinstance(node.stream(), Reread | Timed) or (
                isinstance(node, Scan) and id(node.relation) in streams
            )
            still = not moves and all(one is STATIC for one in below)
            known[id(node)] = STATIC if still else node.times(*below)
        return known[id(node)]

    closes, whole = _closing(root, uses, times) if output is OutputMode.APPEND else (frozenset(), frozenset())

    def built(node: Node) -> Step:
        if id(node) not in made and (parts := node.apart()) is not None:
            made[id(node)] = built_of(node, parts)
        if id(node) not in made:
            step = make(node)
            if taken := RESERVED.intersection(map(str.lower, step.schema.names)):
                told = f'a stream keeps accounts in a column "{min(taken)}"'
                raise InputError("stream.reserved_name", told, hint="rename the column")
            step.node = node
            step.times = times(node)
            made[id(node)] = step
            steps.append(step)
        return made[id(node)]

    def built_of(node: Node, parts: Node) -> Step:
        """The step of a node that runs as several. Explain shows them as this one."""
        inner = _between(parts, node.inputs)
        apart.extend(inner)
        uses.update(id(child) for part in inner for child in part.inputs)
        uses.subtract(id(child) for child in node.inputs)
        found = built(parts)
        for step in steps:
            if any(step.node is part for part in inner):
                step.node = node
        return found

    def make(node: Node) -> Step:
        if isinstance(node, Scan):
            if id(node.relation) not in streams:
                return StaticStep(engine, node)
            source = SourceStep(node.relation.schema, streams[id(node.relation)])
            sources[id(node.relation)] = source
            return source
        shape = node.stream()
        name = f"step_{next(numbers)}"
        match shape:
            case Linear() if not node.inputs:
                return StaticStep(engine, node)
            case Linear() | Keyed() if len(node.inputs) == 1 and (isinstance(shape, Linear) or id(node) in whole):
                run = [node]
                while _continues(run[-1], uses, whole):
                    run.append(run[-1].inputs[0])
                below = built(run[-1].inputs[0])
                if any(id(one) in whole for one in run):
                    return WholeStep(store, run, below)
                run = [operator for operator in run if not operator.reorders_only]
                if workers is not None and run and works_by_row(below):
                    return PartitionedLinearStep(workers, store, run, below)
                return LinearStep(store, run, below) if run else PassStep(below)
            case Linear():
                return ConcatStep(store, node, [built(child) for child in node.inputs])
            case Timed():
                assert isinstance(node, (Watermark, ProcessingTime))
                below = built(node.input)
                if isinstance(node, ProcessingTime):
                    return ProcessingTimeStep(store, node, below)
                return WatermarkStep(store, name, node, below)
            case Reread():
                assert isinstance(node, Refresh)
                if any(isinstance(one, Scan) and id(one.relation) in streams for one in node.walk()):
                    return PassStep(built(node.input))  # a stream is never read again
                return RefreshStep(engine, store, name, node)
            case Bilinear():
                assert isinstance(node, Join)
                placed = elsewhere(node, name, tuple(zip(*node.equalities(), strict=True)))
                return placed or BilinearStep(store, name, node, [built(child) for child in node.inputs])
            case Applied():
                assert isinstance(node, ApplyInBatches)
                below = built(node.input)
                return (AppliedStep if below.append_only else ReappliedStep)(store, name, node, below)
            case Keyed(partials=Partials() as partials) if (merging := merged(node, name, partials)) is not None:
                return merging
            case Keyed() if isinstance(node, SessionWindow):
                return SessionStep(store, name, node, built(node.input))
            case Keyed(by) if (placed := elsewhere(node, name, by)) is not None:
                return placed
            case Keyed(partials=Partials() as partials) if (folding := folded(node, name, partials)) is not None:
                return folding
            case Keyed(states=States() as states) if (
                merging := states_step(store, name, node, states, built(node.inputs[0]))
            ) is not None:
                return merging
            case Keyed(by):
                return keyed_step(store, name, node, by, [()] * len(by), [built(child) for child in node.inputs])
            case _:
                # All rows are read anew anyway, so in their order, which changes do not have.
                orders = [_order(child) for child in node.inputs]
                inputs = [run[-1].inputs[0] if run else child for run, child in zip(orders, node.inputs, strict=True)]
                steps_below = [built(child) for child in inputs]
                if not any(orders) and answers_each(node, steps_below):
                    assert isinstance(node, VectorSearch)
                    return NearestToEachStep(store, name, node, steps_below)
                return keyed_step(store, name, node, [()] * len(inputs), orders, steps_below)

    def elsewhere(node: Node, name: str, by: Sequence[Sequence[str]]) -> Step | None:
        """The step of a node that is run outside of the kernel. Beside rows that do not change little is kept."""
        if placement is None or not by or not all(by) or any(times(child) is STATIC for child in node.inputs):
            return None
        run = [node]
        while len(node.inputs) == 1 and _continues(run[-1], uses):
            run.append(run[-1].inputs[0])
        linear = [operator for operator in run[1:] if not operator.reorders_only]
        below = [built(child) for child in run[-1].inputs]
        to = OutputMode.APPEND if id(node) in closes else OutputMode.UPDATE
        return placement.placed(Offer(store, name, [node, *linear], by, below, to))

    def merged(node: Node, name: str, partials: Partials) -> Step | None:
        """The step of an aggregate of sessions by partials, where that is what the node is."""
        sessions = Sessions.of(node, partials, uses)
        if sessions is None:
            return None
        below = built(sessions.window.input)
        columns = session_columns(store, sessions, partials, below)
        if columns is None:
            return None
        return SessionAggregateStep(store, name, partials, columns, sessions, below, closing=id(node) in closes)

    def folded(node: Node, name: str, partials: Partials) -> Step | None:
        """The step of a node by partials, where the types of its rows allow it."""
        run = [node]
        while _continues(run[-1], uses):
            run.append(run[-1].inputs[0])
        below = built(run[-1].inputs[0])
        linear: Sequence[Node] = [operator for operator in run[1:] if not operator.reorders_only]
        plan = grouping(store, rows_of(linear, store, below), partials, retracts=not below.append_only)
        if plan is None:
            return None
        bounds = times(node)
        closing = id(node) in closes and bool(plan.metrics or not below.append_only)
        slides, by_pane = None, plan
        if closing and (found := Slides.of(store, plan, partials, linear, below, bounds)) is not None:
            slides, by_pane, linear = found
        by = split_by(by_pane, linear, below)
        if workers is not None and by:
            grouper: Grouper = PartitionedGrouper(workers, by, store, by_pane, linear, below)
        else:
            grouper = Grouper(store, by_pane, linear, below)
        if closing:
            made: GroupedStep = PanesStep(store, name, plan, grouper, slides, below, bounds)
        else:
            made = PartialsStep(store, name, grouper, below, bounds)
        made.splits_by = tuple(by)
        return made

    result = built(root)
    closing = next(((name, result.times[name]) for name in result.schema.names if name in result.times), None)
    if output is OutputMode.APPEND and not result.append_only and closing is not None:
        held = ClosingStep(store, "closing", result, *closing)
        held.node, held.times = root, result.times
        steps.append(held)
    return Dataflow(tuple(steps), sources)


def _between(root: Node, inputs: Sequence[Node]) -> list[Node]:
    """The nodes from a root down to the inputs, each once, without these."""
    found: dict[int, Node] = {}
    ends = {id(one) for one in inputs}
    pending = [root]
    while pending:
        node = pending.pop()
        if id(node) not in ends and id(node) not in found:
            found[id(node)] = node
            pending.extend(node.inputs)
    return list(found.values())


def _continues(node: Node, uses: Counter[int], whole: Container[int] = ()) -> bool:
    """Whether the input of a node runs on changes alone too, over one input, and is read by nobody else."""
    child = node.inputs[0]
    alone = isinstance(child.stream(), Linear) or id(child) in whole
    return alone and len(child.inputs) == 1 and uses[id(child)] == 1


def _closing(root: Node, uses: Counter[int], times: Callable[[Node], Times]) -> tuple[frozenset[int], frozenset[int]]:
    """Where the result comes out when event time has closed it, by identity: the aggregates whose keys may come out no
    sooner either, and the keyed nodes above them whose keys therefore come whole.

    Between them and the result stand only such nodes and linear ones.
    """
    closes: set[int] = set()
    whole: set[int] = set()
    keyed: set[int] = set()  # above the next aggregate
    bounds = 0  # columns that event time closes, below the lowest of these
    node = root
    while len(node.inputs) == 1:
        match node.stream():
            case Linear():
                pass
            case Keyed(partials=Partials()) if times(node):
                closes.add(id(node))
                # Rows that agree in all times of the aggregate are closed in the same epoch.
                whole |= keyed if len(times(node)) == bounds else set()
                keyed = set()
            case Keyed(by=(names,)) if (closed := times(node.inputs[0])) and set(closed) <= set(names):
                bounds = len(closed) if not keyed else min(bounds, len(closed))
                keyed.add(id(node))
            case _:
                break
        node = node.inputs[0]
        if uses[id(node)] > 1:
            break
    return frozenset(closes), frozenset(whole)


def _order(node: Node) -> list[Node]:
    """The run of linear nodes from here down to the lowest that orders rows; empty where none does.

    Where the rows below the run come from the first of others, in an order, they are put in that order again.
    """
    run: list[Node] = []
    while isinstance(node.stream(), Linear) and len(node.inputs) == 1:
        run.append(node)
        node = node.inputs[0]
    if not any(one.reorders_only for one in run) and (keys := _keys(node)):
        return [*run, Sort(node, keys)]
    while run and not run[-1].reorders_only:
        run.pop()
    return run


def _keys(node: Node) -> tuple[exp.Ordered, ...]:
    """What the first rows that a node gives are ordered by; nothing where they are in no order, or are not the first
    of others."""
    if isinstance(node, TopK) and not node.by:
        return node.keys
    if isinstance(node, Limit):
        return node.input.keys if isinstance(node.input, Sort) else _keys(node.input)
    return ()
