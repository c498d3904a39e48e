"""Options: how a stream query runs."""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.contract import abi
from velaria_core.contract.modes import DeliveryMode, ExecutionMode, OutputMode, Trigger, TriggerKind
from velaria_core.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream query runs.

    Attributes:
        trigger: when epochs start.
        checkpoint_path: folder of the durable state; None keeps it in memory.
        output_mode: `append`, `update` (the changes of the result) or `complete` (the whole result each time).
        delivery_mode: what a restart should promise; the query reports what holds.
        checkpoint_interval: how many epochs share one durable commit at most; fewer do when no rows wait.
        epoch_rows_max: rows after which an epoch is full. A larger batch is several epochs in one commit.
        max_inflight_batches: batches that wait for the query at most; then pulling pauses. Small batches wait
            together as one, up to `epoch_rows_max` rows.
        backpressure_high_watermark, backpressure_low_watermark: waiting batches at which backpressure begins, and at
            which it ends and a paused pulling goes on.
        idle_wait_ms: how long a source without rows is left alone when it does not say; its `wake` ends that.
        retries: how often in a row a query starts again after an error that may pass (`ExternalError` with
            `retryable`); 0 fails at once.
        backoff_ms: the wait before the first of them; each further one waits twice as long.
        execution_mode: who runs the steps.
        local_workers: threads of `local-workers`.
        max_inflight_partitions: parts of batches that workers hold at once; 0: one each.
        shared_memory_transport, shared_memory_min_payload_bytes: for workers that are processes. There are none, so
            nothing crosses between processes; the names are kept.
        dead_letter: sink for batches that make an epoch fail with a DataError; None fails the query.
    """

    trigger: Trigger = Trigger(TriggerKind.PROCESSING_TIME, 0)  # noqa: RUF009 -- frozen
    checkpoint_path: str | None = None
    output_mode: OutputMode = OutputMode.UPDATE
    delivery_mode: DeliveryMode = DeliveryMode.EXACTLY_ONCE
    checkpoint_interval: int = 1
    epoch_rows_max: int = 65_536
    max_inflight_batches: int = 2
    backpressure_high_watermark: int = 2
    backpressure_low_watermark: int = 1
    idle_wait_ms: int = 100
    retries: int = 0
    backoff_ms: int = 200
    dead_letter: abi.Sink | None = None
    execution_mode: ExecutionMode = ExecutionMode.SINGLE_PROCESS
    local_workers: int = 1
    max_inflight_partitions: int = 0
    shared_memory_transport: bool = True
    shared_memory_min_payload_bytes: int = 65_536

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if (given := getattr(self, name)) < least:
                raise InputError("option.value", f"{name} is {least} or more, not {given}")
        if self.backpressure_low_watermark >= self.backpressure_high_watermark:
            raise InputError(
                "option.value",
                f"backpressure begins at {self.backpressure_high_watermark} waiting batches and ends at "
                f"{self.backpressure_low_watermark}: it would not end",
                hint="backpressure_low_watermark is below backpressure_high_watermark",
            )


_LEAST = {
    "checkpoint_interval": 1,
    "epoch_rows_max": 1,
    "max_inflight_batches": 1,
    "backpressure_high_watermark": 1,
    "backpressure_low_watermark": 0,
    "idle_wait_ms": 0,
    "retries": 0,
    "backoff_ms": 0,
}
