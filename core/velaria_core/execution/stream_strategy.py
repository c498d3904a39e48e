"""How a stream query runs, as fields: decided once, before the first row; explain and every progress say the same.

| field | from |
|---|---|
| selected_mode, reason, local_worker_count | `chosen`: the options, and whether the plan can be split by key |
| actor_eligible | `partitioning`: whether columns of an aggregate's key come straight from the rows below it |
| aggregate_impl, aggregate_reason | the step that computes the grouping nearest the result |
| delivery_guarantee | `guaranteed`: what sources, sink and checkpoint allow of what was asked |
| estimated_* | constants until rows come: nobody knows their number before |
| columnar_* | changes go from step to step as Arrow columns; an explain that ran has counted the rows |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from velaria_core.contract.abi import SinkInfo, SourceInfo
from velaria_core.contract.codec import DeliveryGuarantee, StreamStrategy
from velaria_core.contract.modes import ColumnarFallback, DeliveryMode, ExecutionMode, TransportMode
from velaria_core.execution.steps import Dataflow
from velaria_core.execution.steps.partials import GroupedStep
from velaria_core.execution.steps.partitioned import PartitionedGrouper, PartitionedLinearStep
from velaria_core.execution.steps.placed import PlacedStep
from velaria_core.execution.strategy import NOT_APPLICABLE
from velaria_core.logical.explain import has_windows, nearest_grouping, steps
from velaria_core.logical.incremental import Bilinear, Linear, Timed
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan

if TYPE_CHECKING:
    from velaria_core.execution.options import StreamOptions
    from velaria_core.execution.placing import Placement

# What a batch is expected to cost before one has come, in cells: so much a node, and so much more with state.
_CELLS_PER_NODE: Final = 64
_CELLS_OF_STATE: Final = 256
_STATE_BYTES: Final = 1024


def decided(
    backend: str,
    flow: Dataflow,
    options: StreamOptions,
    sources: Sequence[SourceInfo],
    sink: SinkInfo,
    placement: Placement | None = None,
) -> StreamStrategy:
    """The strategy of a query.

    Args:
        backend: what works on the columns: the engine's name, version and platform.
        flow: the compiled plan.
        placement: who outside of the kernel was offered its steps.
    """
    nodes = steps(flow.root)
    split = partitioning(flow)
    choice = chosen(options, split, flow, placement)
    has_state = has_stateful_ops(nodes)
    impl, why = _grouping(nodes, flow)
    operators = sum(1 for node in nodes if node.inputs)
    return StreamStrategy(
        requested_mode=options.execution_mode,
        selected_mode=choice.mode,
        simd_backend=backend,
        compiled_backends=(backend,),
        aggregate_impl=impl,
        aggregate_reason=why,
        reason=choice.reason,
        actor_eligible=split.eligible or choice.mode is ExecutionMode.WORKER_PROCESSES,
        used_actor_runtime=choice.mode is ExecutionMode.WORKER_PROCESSES
        or any(isinstance(step, GroupedStep) and isinstance(step.grouper, PartitionedGrouper) for step in flow.steps),
        transport_mode=choice.transport,
        has_window=has_windows(nodes),
        has_stateful_ops=has_state,
        sink_is_blocking=sink.blocking,
        source_is_bounded=all(source.bounded for source in sources),
        estimated_state_size_bytes=_STATE_BYTES if has_state else 0,
        estimated_batch_cost=max(1, operators) * _CELLS_PER_NODE + (_CELLS_OF_STATE if has_state else 0),
        backpressure_max_queue_batches=options.max_inflight_batches,
        backpressure_high_watermark=options.backpressure_high_watermark,
        backpressure_low_watermark=options.backpressure_low_watermark,
        checkpoint_delivery_mode=options.delivery_mode,
        local_worker_count=choice.workers,
        max_inflight_partitions=options.max_inflight_partitions or choice.workers,
        shared_memory_transport=options.shared_memory_transport,
        shared_memory_min_payload_bytes=options.shared_memory_min_payload_bytes,
        columnar_operator=type(nodes[-1]).__name__,
        columnar_fallback_type=ColumnarFallback.NONE,
        columnar_reason="changes go from source to sink as Arrow columns",
        columnar_input_row_count=None,
        columnar_affected_columns=(),
        output_mode=options.output_mode,
        delivery_guarantee=guaranteed(options, sources, sink),
    )


# --- who runs the steps -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Partitioning:
    """Whether the rows of a plan can be split by key among workers, and why (not).

    Attributes:
        prefix: how many nodes work row by row between the sources and the first node that does not.
    """

    eligible: bool
    reason: str
    prefix: int


def partitioning(flow: Dataflow) -> Partitioning:
    """Whether the rows of an aggregate can be split by columns of its key, so that the rows of a key meet in one worker
    and no worker needs another's."""
    nodes = steps(flow.root)
    prefix = sum(1 for node in _row_wise(nodes) if node.inputs)
    folding = [step for step in flow.steps if isinstance(step, GroupedStep)]
    for step in folding:
        if step.splits_by:
            name = type(step.node).__name__
            return Partitioning(True, f"the rows of {name} can be split by {', '.join(step.splits_by)}", prefix)
    if not has_stateful_ops(nodes):
        return Partitioning(False, "no node keeps state by key, so there is no key to split the rows by", prefix)
    if not folding:
        return Partitioning(False, "no node keeps partial values by key", prefix)
    name = type(folding[0].node).__name__
    return Partitioning(False, f"{name} has no key whose column comes straight from the rows below", prefix)


def _row_wise(nodes: Sequence[Node]) -> Iterator[Node]:
    """The streams of a plan, and the nodes over one of them that work row by row; a join with a table does."""
    moving: set[int] = set()
    found: set[int] = set()
    for node in nodes:
        streams = [child for child in node.inputs if id(child) in moving]
        shape = node.stream()
        is_source = isinstance(node, Scan) and node.relation.source is not None
        if streams or is_source:
            moving.add(id(node))
        by_row = isinstance(shape, Linear | Timed | Bilinear) and len(streams) == 1 and id(streams[0]) in found
        if is_source or by_row:
            found.add(id(node))
            yield node


@dataclass(frozen=True, slots=True)
class Choice:
    """Who runs the steps, how many threads that are, and why."""

    mode: ExecutionMode
    workers: int
    reason: str
    transport: TransportMode = TransportMode.INPROC  # workers are threads


def chosen(options: StreamOptions, split: Partitioning, flow: Dataflow, placement: Placement | None = None) -> Choice:
    """The execution mode that the options and the steps come to."""
    if placement is not None:
        if any(isinstance(step, PlacedStep) for step in flow.steps):
            mode = ExecutionMode.WORKER_PROCESSES
            return Choice(mode, placement.workers, placement.reason, placement.transport)
        return Choice(ExecutionMode.SINGLE_PROCESS, 1, f"one thread runs the steps: {placement.reason}")
    if options.execution_mode is ExecutionMode.SINGLE_PROCESS:
        why = "single-process was asked for: one thread runs the steps, and the engine uses its own in each"
    elif options.local_workers <= 1:
        why = f"local-workers needs local_workers > 1, and it is {options.local_workers}"
    else:
        workers = options.local_workers
        credit = min(options.max_inflight_partitions or workers, workers)
        if any(isinstance(step, GroupedStep) and isinstance(step.grouper, PartitionedGrouper) for step in flow.steps):
            why = f"credit scheduling: {workers} workers group the keys of their part, at most {credit} at once"
            return Choice(ExecutionMode.LOCAL_WORKERS, workers, f"{why}; {split.reason}")
        if any(isinstance(step, PartitionedLinearStep) and step.is_split for step in flow.steps):
            why = f"generic partition workers: {workers} run the nodes that work row by row, at most {credit} at once"
            return Choice(ExecutionMode.LOCAL_WORKERS, workers, f"{why}; {split.reason}")
        why = f"one thread runs the steps: {split.reason}"
    return Choice(ExecutionMode.SINGLE_PROCESS, 1, why)


# --- what holds ---------------------------------------------------------------------------------------------

_ORDER: Final = (DeliveryMode.BEST_EFFORT, DeliveryMode.AT_LEAST_ONCE, DeliveryMode.EXACTLY_ONCE)


def guaranteed(options: StreamOptions, sources: Sequence[SourceInfo], sink: SinkInfo) -> DeliveryGuarantee:
    """What a restart can promise, given what the sources and all sinks can.

    Args:
        sink: of the output; those of late rows and dead letters are options.
    """
    asked = options.delivery_mode
    others = {"late rows": options.late_sink, "dead letters": options.dead_letter}
    sinks = {"the sink": sink, **{f"the sink of {name}": one.info() for name, one in others.items() if one is not None}}
    repeating = next((name for name, one in sinks.items() if not (one.transactional or one.idempotent)), None)
    if options.checkpoint_path is None:
        possible, why = DeliveryMode.BEST_EFFORT, "there is no checkpoint_path, so nothing outlives the process"
    elif not all(source.replayable for source in sources):
        possible, why = DeliveryMode.BEST_EFFORT, "a source cannot give its rows again"
    elif repeating is not None:
        possible, why = DeliveryMode.AT_LEAST_ONCE, f"{repeating} is neither transactional nor idempotent"
    else:
        possible, why = DeliveryMode.EXACTLY_ONCE, "sources replay, the sink commits with the state"
    if _ORDER.index(asked) <= _ORDER.index(possible):
        return DeliveryGuarantee(asked=asked, held=asked, why="as asked")
    return DeliveryGuarantee(asked=asked, held=possible, why=why)


def has_stateful_ops(nodes: Sequence[Node]) -> bool:
    """Whether any node keeps something between epochs."""
    return any(not isinstance(node.stream(), Linear) for node in nodes)


def _grouping(nodes: Sequence[Node], flow: Dataflow) -> tuple[str, str]:
    grouping = nearest_grouping(nodes)
    if grouping is None:
        return NOT_APPLICABLE, "no node of the plan groups"
    step = flow.computing(grouping.node)
    return step.impl, step.impl_reason
