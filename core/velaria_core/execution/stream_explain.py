"""Explain of a stream query: a plan as the contract's message, before it runs or with what its last epochs took.

What is told is read off the compiled steps, so that it is what would run. A step may compute several nodes at once, as
one statement over the changes; then its time, rows and state stand at its own node, and the others say where they run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from velaria_core.contract import abi
from velaria_core.contract.codec import (
    LogicalPlan,
    PlanNode,
    StreamExplain,
    StreamPhysicalPlan,
    StreamStrategy,
)
from velaria_core.contract.modes import OutputMode, Shape, SinkMode
from velaria_core.execution.checkpoint import state_engine
from velaria_core.execution.duck import Engine
from velaria_core.execution.epoch import sink_mode
from velaria_core.execution.explain import machine
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.placing import placement_of
from velaria_core.execution.progress import EpochReport
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Step, compile_steps
from velaria_core.execution.steps.source import SourceStep, StaticStep
from velaria_core.execution.stream_strategy import decided, partitioning
from velaria_core.execution.workers import workers_of
from velaria_core.logical.explain import SOURCE, facts, reason, steps
from velaria_core.logical.incremental import Recompute
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.relation import Relation
from velaria_core.logical.retained import retaining

# What a step keeps and what an epoch pays for it, by the step's `impl`, where that is other than the shape of its node
# lets expect.
_KEPT_AND_PAID: Final[Mapping[str, tuple[str, str]]] = {
    "partials": ("partial values of each key", "keys touched"),
    "session-partials": ("partial values of each session", "rows changed and sessions of the keys touched"),
    "best-rows": ("the rows that are shown", "rows changed and rows shown"),
    "best-kept": ("rows of the input, the best apart", "rows changed and rows kept apart"),
    "best-of-each": (
        "rows shown, the queries, and where these come later all rows",
        "rows changed x queries",
    ),
    "one-sided": ("none", "rows changed x their matches"),
    "held": ("rows until they are closed", "rows changed and rows closed"),
    "columns": ("none", "nothing: columns are handed on"),
    "read-again": ("the table's rows", "the table's rows, when it is read again"),
}

# Stands in for a sink that is not chosen yet: it takes every form and promises everything.
_ANY_SINK: Final = abi.SinkInfo(frozenset(SinkMode), transactional=True, idempotent=True, blocking=False)


def stream_explain(
    engine: Engine, plan: Node, options: StreamOptions, sink: abi.Sink | None = None, name: str = ""
) -> StreamExplain:
    """How a plan would run as a stream into a sink. Nothing is opened, read or written.

    Args:
        plan: as it would run, `for_stream`.
        sink: where the result would go; None where that is not known.
        name: of the sink, where it has one; else what it is.
    """
    plan = retaining(plan, options.max_retained_windows)
    with ExitStack() as held:
        state = state_engine(None, engine.settings)
        held.callback(state.close)
        store = Store(state)
        held.callback(store.close)
        streams = _streams(plan)
        infos = [source.info() for _, source in streams]
        appending = {id(relation): source.info().append_only for relation, source in streams}
        workers = workers_of(state, options)
        if workers is not None:
            held.callback(workers.close)
        placement = placement_of(options)
        if placement is not None:
            held.callback(placement.close)
        flow = compile_steps(plan, store, engine, appending, options.output_mode, workers, placement)
        info = _ANY_SINK if sink is None else sink.info()
        strategy = decided(machine(engine).backend, flow, options, infos, info, placement)
        return explained(flow, strategy, None if sink is None else Target(sink, name, options.keys))


@dataclass(frozen=True, slots=True)
class Target:
    """The sink of a query, its name, which may be empty, and the columns by which it was asked to be told."""

    sink: abi.Sink
    name: str = ""
    keys: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.name or type(self.sink).__name__


def explained(
    flow: Dataflow, strategy: StreamStrategy, target: Target | None, epochs: Sequence[EpochReport] | None = None
) -> StreamExplain:
    """What a compiled plan does.

    Args:
        epochs: the reports of the last epochs, for an explain that tells what they took.
    """
    nodes = steps(flow.root)
    split = partitioning(flow)
    labels = [node.label() for node in nodes]
    shown = _plan_nodes(nodes, flow, measured=epochs is not None)
    if target is not None:
        labels.append(f"Sink: {target.label}")
        shown = (_sink_node(target, flow, strategy, len(labels), epochs), *shown)
    if epochs is not None:
        rows = sum(node.rows or 0 for node in shown if node.shape is Shape.SOURCE)
        strategy = replace(strategy, columnar_input_row_count=rows)
    return StreamExplain(
        logical=LogicalPlan(seed_columns=nodes[0].columns, steps=tuple(labels)),
        physical=StreamPhysicalPlan(
            writes_to_sink=target is not None,
            sink="" if target is None else target.label,
            has_window=strategy.has_window,
            has_stateful_ops=strategy.has_stateful_ops,
            partition_local_prefix_nodes=split.prefix,
            actor_eligible=split.eligible,
            actor_eligibility_reason=split.reason,
            nodes=shown,
            epochs=None if epochs is None else len(epochs),
            time_ms=None if epochs is None else sum(one.latency_ms for one in epochs),
            state_ms=None if epochs is None else sum(one.state_ms for one in epochs),
        ),
        strategy=strategy,
    )


def _streams(plan: Node) -> list[tuple[Relation, abi.Source]]:
    found = {
        id(node.relation): (node.relation, node.relation.source)
        for node in plan.walk()
        if isinstance(node, Scan) and node.relation.source is not None
    }
    return list(found.values())


# --- nodes --------------------------------------------------------------------------------------------------


def _plan_nodes(nodes: Sequence[Node], flow: Dataflow, *, measured: bool) -> tuple[PlanNode, ...]:
    """The nodes, root first; a node's id is the number of its logical step."""
    numbers = {id(node): at for at, node in enumerate(nodes, start=1)}
    own: dict[int, list[int]] = {}  # node -> the places of the steps that give its rows, the last one on top
    runs_in: dict[int, Node] = {}
    for at, step in enumerate(flow.steps):
        own.setdefault(id(step.node), []).append(at)
        for node in flow.nodes_of(step):
            runs_in.setdefault(id(node), step.node)
    made = []
    for node in reversed(nodes):
        computed_by = [flow.steps[at] for at in own.get(id(node), ())]
        plain = _alone(node, numbers[id(node)], tuple(numbers[id(child)] for child in node.inputs))
        if not computed_by:
            above = numbers[id(runs_in[id(node)])]
            made.append(replace(plain, details={**plain.details, "runs_in": f"#{above}"}))
            continue
        # Of several, the last that is more than a statement over the changes.
        main = next((step for step in reversed(computed_by) if step.impl != Step.impl), computed_by[-1])
        told = replace(plain, **_of_step(main, node))
        made.append(replace(told, **_measured(flow, own[id(node)])) if measured else told)
    return tuple(made)


def _alone(node: Node, number: int, inputs: tuple[int, ...]) -> PlanNode:
    told, shape = facts(node), node.stream()
    return PlanNode(
        id=number,
        operator=type(node).__name__,
        label=node.label(),
        details=told.details(node),
        kind=told.kind,
        barrier=False,  # an epoch's changes go on at once
        reason=reason(node),
        shape=Shape.SOURCE if told.kind == SOURCE else Shape(shape.name),
        state=shape.state(),
        cost=shape.cost(),
        inputs=inputs,
    )


def _of_step(step: Step, node: Node) -> dict[str, Any]:
    """What the step of a node knows better than the node."""
    match step:
        case SourceStep():
            return {"reason": "the rows that the source gave for the epoch", "cost": "rows that came"}
        case StaticStep():
            return {
                "reason": "it does not change: all its rows come in the first epoch",
                "cost": "rows read, once",
                "shape": Shape.SOURCE,
            }
    shape = node.stream()
    if step.impl == Step.impl:
        return {}
    if isinstance(shape, Recompute) and shape.is_several:
        return {"reason": shape.reason}  # of whose steps this is the last
    why = f"; {shape.reason}" if isinstance(shape, Recompute) else ""
    told = {"reason": f"{step.impl}: {step.impl_reason}{why}"}
    if (words := _KEPT_AND_PAID.get(step.impl)) is not None:
        told |= dict(zip(("state", "cost"), words, strict=True))
    if step.scanned:
        told["cost"] = f"{told.get('cost', shape.cost())}, and a scan of all keys in state: {step.scanned}"
    return told


def _measured(flow: Dataflow, places: Sequence[int]) -> dict[str, Any]:
    """Time and rows of a node's steps in the last epochs, and what they keep now."""
    epochs = tuple(flow.measured)
    return {
        "rows": sum(epoch.rows[places[-1]] for epoch in epochs),
        "time_ms": sum(epoch.times_ns[at] for epoch in epochs for at in places) / 1e6,
        "state_rows": sum(flow.kept[at].rows for at in places),
        "state_bytes": sum(flow.kept[at].nbytes for at in places),
    }


def _sink_node(
    target: Target, flow: Dataflow, strategy: StreamStrategy, number: int, epochs: Sequence[EpochReport] | None
) -> PlanNode:
    info, held = target.sink.info(), strategy.delivery_guarantee
    mode = sink_mode(flow, strategy.output_mode, info, target.keys)
    why = f"{held.held}: {held.why}"
    if mode is None:
        changes = strategy.output_mode is OutputMode.APPEND and not flow.steps[-1].append_only
        told = "rows of this result change" if changes else "the sink does not take that"
        why = f"refused: {strategy.output_mode} output, and {told}"
    return PlanNode(
        id=number,
        operator=type(target.sink).__name__,
        label=f"Sink: {target.label}",
        details={
            **({"name": target.name} if target.name else {}),
            "takes": f"[{', '.join(sorted(info.modes))}]",
            "given": "none" if mode is None else mode,
            "transactional": str(info.transactional).lower(),
            "idempotent": str(info.idempotent).lower(),
        },
        kind="Sink",
        barrier=False,
        reason=why,
        shape=Shape.SINK,
        state="none",
        cost="rows out",
        rows=None if epochs is None else sum(one.rows_out for one in epochs),
        time_ms=None if epochs is None else sum(one.sink_ms for one in epochs),
        inputs=(number - 1,),
    )
