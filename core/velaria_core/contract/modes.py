"""The closed sets of the contract: their texts are what JSON, SQL options and the command line say.

Each is an enum of texts, so a member equals its text, and an unknown text is refused where it enters
(`DeliveryMode("exactly-once")`, `codec`). A set grows by a member; a text is never changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from velaria_core.errors import InputError


class QueryStatus(StrEnum):
    """What a stream query is doing."""

    CREATED = "created"
    RUNNING = "running"
    BACKPRESSURE = "backpressure"  # running, and not pulling until the backlog falls
    RESTORED = "restored"  # state and offsets are back; the first epoch has not run
    STOPPED = "stopped"  # by stop(), or because every source ended
    FAILED = "failed"


class ExecutionMode(StrEnum):
    """Who runs the chain of steps."""

    SINGLE_PROCESS = "single-process"
    LOCAL_WORKERS = "local-workers"  # partitioned by key hash
    WORKER_PROCESSES = "worker-processes"  # of a runtime that registers itself: execution.placing


class TransportMode(StrEnum):
    """How batches reach the workers."""

    INPROC = "inproc"
    RPC_COPY = "rpc-copy"
    SHARED_MEMORY = "shared-memory"


class DeliveryMode(StrEnum):
    """What a restart promises about the sink's content."""

    EXACTLY_ONCE = "exactly-once"  # nothing lost, nothing doubled
    AT_LEAST_ONCE = "at-least-once"  # nothing lost; the last epoch's output may repeat
    BEST_EFFORT = "best-effort"  # sources go on where they can; rows may be lost or repeat


class OutputMode(StrEnum):
    """Which rows of the result an epoch hands to the sink."""

    APPEND = "append"  # rows that never change again: a window's row once, when it closes
    UPDATE = "update"  # rows that the epoch changed
    COMPLETE = "complete"  # the whole result


class SinkMode(StrEnum):
    """What a sink can take; `abi.Sink` says how each looks."""

    APPEND = "append"
    UPSERT = "upsert"
    RETRACT = "retract"
    REPLACE = "replace"


class Pushdown(StrEnum):
    """What a source can do for the plan; `abi.Pushed` says what that obliges it to."""

    PROJECTION = "projection"
    FILTER = "filter"
    LIMIT = "limit"


class Shape(StrEnum):
    """What a node of a plan does to changes."""

    SOURCE = "source"
    LINEAR = "linear"
    TIMED = "timed"  # rows pass; event time is read from them, or the clock's written to them
    BILINEAR = "bilinear"
    KEYED = "keyed"
    RECOMPUTE = "recompute"
    SINK = "sink"


class ColumnarFallback(StrEnum):
    """Why an operator left the columnar path."""

    NONE = "none"
    MISSING_CACHE = "missing-columnar-cache"
    ROW_INPUT = "row-materialized-input"
    INVALID_CACHE = "invalid-columnar-cache"
    NOT_OBSERVED = "not-observed"  # the query has not run
    BOUNDARY = "boundary-materialization"  # rows were asked for at the border


class Metric(StrEnum):
    """How far two vectors are: cosine and l2 are distances, dot is a similarity."""

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"


class FilterExecution(StrEnum):
    """Where the column filter of a hybrid search ran."""

    NONE = "none"
    POST_LOAD = "post-load-filter"
    SOURCE_PUSHDOWN = "source-pushdown"


class TriggerKind(StrEnum):
    """When epochs start."""

    AVAILABLE_NOW = "available-now"
    ONCE = "once"
    PROCESSING_TIME = "processing-time"
    CONTINUOUS = "continuous"


@dataclass(frozen=True, slots=True)
class Trigger:
    """When epochs start. Made by the four methods below; `interval_ms` is 0 where the kind has none.

    Raises:
        InputError[trigger.interval]: it is negative, or the kind has none.
    """

    kind: TriggerKind
    interval_ms: int = 0

    def __post_init__(self) -> None:
        timed = self.kind in (TriggerKind.PROCESSING_TIME, TriggerKind.CONTINUOUS)
        if not isinstance(self.interval_ms, int | float):
            what = f"the interval of a trigger is a number of milliseconds, not {self.interval_ms!r}"
            raise InputError("trigger.interval", what)
        if self.interval_ms < 0:
            what = f"the interval of a trigger is 0 ms or more, not {self.interval_ms}"
            raise InputError("trigger.interval", what)
        if self.interval_ms and not timed:
            raise InputError("trigger.interval", f'a "{self.kind}" trigger has no interval')

    @staticmethod
    def available_now() -> Trigger:
        """Epochs until the rows that the sources have now are done, then stop."""
        return Trigger(TriggerKind.AVAILABLE_NOW)

    @staticmethod
    def once() -> Trigger:
        """One epoch of what the sources have now, then stop."""
        return Trigger(TriggerKind.ONCE)

    @staticmethod
    def processing_time(interval_ms: int) -> Trigger:
        """An epoch every `interval_ms` of wall time; at once where the last one took longer (0: always)."""
        return Trigger(TriggerKind.PROCESSING_TIME, interval_ms)

    @staticmethod
    def continuous(max_latency_ms: int) -> Trigger:
        """An epoch as soon as rows are there, sized to keep none waiting for more than `max_latency_ms`."""
        return Trigger(TriggerKind.CONTINUOUS, max_latency_ms)
