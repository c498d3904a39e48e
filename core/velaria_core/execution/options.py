"""Options: how a stream query runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypedDict, TypeVar

from velaria_core.contract import abi
from velaria_core.contract.modes import DeliveryMode, ExecutionMode, OutputMode, Trigger, TriggerKind
from velaria_core.errors import InputError, did_you_mean

# While rows wait, so many epochs share a commit, as most of one is the same for several; but none comes out much later.
COMMIT_EPOCHS: Final = 8
COMMIT_MS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream query runs.

    Attributes:
        trigger: when epochs start.
        checkpoint_path: folder of the durable state; None keeps it in memory.
        output_mode: `append`, `update` (the changes of the result) or `complete` (the whole result each time).
        keys: columns that identify a row of the result: the sink is then told of changes by key, as upserts. A sink
            that takes nothing else is told so without them where the plan has keys, as an aggregate has.
        delivery_mode: what a restart should promise; the query reports what holds.
        checkpoint_interval: how many epochs share one durable commit at most, and come out with it; fewer do when no
            rows wait. None: `COMMIT_EPOCHS` where the query is durable, or fewer that have taken `COMMIT_MS`.
        epoch_rows_max: rows after which an epoch is full. A larger batch is several epochs in one commit.
        max_inflight_batches: batches that wait for the query at most; then pulling pauses. Small batches wait
            together as one, up to `epoch_rows_max` rows.
        backpressure_high_watermark, backpressure_low_watermark: waiting batches at which backpressure begins, and at
            which it ends and a paused pulling goes on.
        idle_wait_ms: how long a source without rows is left alone when it does not say; its `wake` ends that.
        retries: how often in a row a query starts again after an error that may pass (`ExternalError` with
            `retryable`); 0 fails at once.
        backoff_ms: the wait before the first of them; each further one waits twice as long.
        max_retained_windows: windows, by time, that may still change where the plan has no watermark: older ones are
            closed, and their state is forgotten. 0: all.
        execution_mode: who runs the steps.
        local_workers: threads of `local-workers`, or processes of `worker-processes`.
        max_inflight_partitions: parts of batches that workers hold at once; 0: one each.
        shared_memory_transport, shared_memory_min_payload_bytes: whether rows reach workers that are processes through
            shared memory, and from which size on; threads share theirs.
        late_sink: sink for rows that come too late, where the watermark says that they go to one (`late="side"`).
        dead_letter: sink for batches that make an epoch fail with a DataError; None fails the query.
    """

    trigger: Trigger = Trigger(TriggerKind.PROCESSING_TIME, 0)  # noqa: RUF009 -- frozen
    checkpoint_path: str | None = None
    output_mode: OutputMode = OutputMode.UPDATE
    keys: tuple[str, ...] = ()
    delivery_mode: DeliveryMode = DeliveryMode.EXACTLY_ONCE
    checkpoint_interval: int | None = None
    epoch_rows_max: int = 65_536
    max_inflight_batches: int = 2
    backpressure_high_watermark: int = 2
    backpressure_low_watermark: int = 1
    idle_wait_ms: int = 100
    retries: int = 0
    backoff_ms: int = 200
    late_sink: abi.Sink | None = None
    dead_letter: abi.Sink | None = None
    max_retained_windows: int = 0
    execution_mode: ExecutionMode = ExecutionMode.SINGLE_PROCESS
    local_workers: int = 1
    max_inflight_partitions: int = 0
    shared_memory_transport: bool = True
    shared_memory_min_payload_bytes: int = 65_536

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            given = getattr(self, name)
            if given is not None and given < least:
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
    "max_retained_windows": 0,
}


class StreamKeywords(TypedDict, total=False):
    """`StreamOptions` as keywords: modes as their texts, and `trigger_interval_ms` for a processing-time trigger."""

    trigger: Trigger | None
    trigger_interval_ms: int
    checkpoint_path: str | None
    output_mode: str | None
    keys: Sequence[str]
    delivery_mode: str
    checkpoint_delivery_mode: str
    checkpoint_interval: int | None
    epoch_rows_max: int
    max_inflight_batches: int
    backpressure_high_watermark: int
    backpressure_low_watermark: int
    idle_wait_ms: int
    retries: int
    backoff_ms: int
    late_sink: abi.Sink | None
    dead_letter: abi.Sink | None
    max_retained_windows: int
    execution_mode: str
    local_workers: int
    max_inflight_partitions: int
    shared_memory_transport: bool
    shared_memory_min_payload_bytes: int


def stream_options(given: Mapping[str, Any], output_mode: str = "update") -> StreamOptions:
    """Options from keywords; None stands for the default.

    Args:
        output_mode: where none is given.

    Raises:
        InputError[stream.option]: no option has this name; two say the same.
        InputError[stream.mode]: a mode has no such text. InputError[option.value]: a number is out of range.
    """
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if name not in StreamKeywords.__annotations__:
            hint = did_you_mean(name, StreamKeywords.__annotations__, "options")
            raise InputError("stream.option", f'no option "{name}"', hint=hint)
    if (interval_ms := options.pop("trigger_interval_ms", None)) is not None:
        _alone("trigger", "trigger_interval_ms", options)
        options["trigger"] = Trigger.processing_time(interval_ms)
    if (mode := options.pop("checkpoint_delivery_mode", None)) is not None:
        _alone("delivery_mode", "checkpoint_delivery_mode", options)
        options["delivery_mode"] = mode
    options.setdefault("output_mode", output_mode)
    if "keys" in options:
        options["keys"] = (options["keys"],) if isinstance(options["keys"], str) else tuple(options["keys"])
    for name, kind in _MODES.items():
        if name in options:
            options[name] = _member(kind, options[name])
    for name, value in options.items():
        options[name] = _of_its_kind(name, value)
    return StreamOptions(**options)


def _of_its_kind(name: str, value: Any) -> Any:
    """The value, if it can be that of the option; a path as text."""
    default = getattr(_DEFAULTS, name)
    if name == "checkpoint_path" and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if name in ("late_sink", "dead_letter") and isinstance(value, abi.Sink):
        return value
    kind = int if name == "checkpoint_interval" else type(default)
    if type(value) is kind:
        return value
    what = _KINDS.get(kind) or ("a folder" if name == "checkpoint_path" else "a sink")
    raise InputError("option.value", f"{name} is {what}, not {value!r}")


_DEFAULTS = StreamOptions()
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    tuple: "names of columns",
    Trigger: "a trigger such as Trigger.available_now()",
}
_MODES: dict[str, type[StrEnum]] = {
    "output_mode": OutputMode,
    "delivery_mode": DeliveryMode,
    "execution_mode": ExecutionMode,
}
Mode = TypeVar("Mode", bound=StrEnum)


def _alone(name: str, other: str, options: Mapping[str, Any]) -> None:
    if name in options:
        raise InputError("stream.option", f'"{name}" and "{other}" say the same', hint="give one of them")


def _member(kind: type[Mode], text: str) -> Mode:
    try:
        return kind(text)
    except ValueError:
        hint = did_you_mean(str(text), [str(member) for member in kind], "modes")
        raise InputError("stream.mode", f'no mode "{text}"', hint=hint) from None
