"""Messages of streams: what the kernel says of inputs and epochs, as messages and back."""

from __future__ import annotations

import pyarrow as pa

from velaria_core.execution.steps import Moment
from velaria_core.logical.event_time import TimeBound, TimeKind, Times
from velaria_experimental.wire.codec import schema_bytes
from velaria_experimental.wire.v1 import runtime_pb2 as pb


def input_message(schema: pa.Schema, times: Times, *, append_only: bool) -> pb.StepInput:
    """An input of a step: its columns, those that event time bounds, and whether its rows only come."""
    bounds = [
        pb.TimeBound(column=column, kind=bound.kind, span_us=bound.span_us)
        for column, bound in times.items()
        if column in schema.names
    ]
    return pb.StepInput(schema=schema_bytes(schema), append_only=append_only, times=bounds)


def times_of(message: pb.StepInput) -> Times:
    """The columns of an input that event time bounds."""
    return {bound.column: TimeBound(TimeKind(bound.kind), bound.span_us) for bound in message.times}


def barrier_message(step: str, number: int, at: Moment) -> pb.Barrier:
    """The end of an epoch's rows."""
    return pb.Barrier(
        step=step,
        number=number,
        first=at.first,
        now_ms=at.now_ms,
        late_before_us=at.late_before_us,
        watermark_us=at.watermark_us,
    )


def moment_of(barrier: pb.Barrier) -> Moment:
    """Where the epoch of a barrier stands."""
    return Moment(
        first=barrier.first,
        late_before_us=barrier.late_before_us if barrier.HasField("late_before_us") else None,
        watermark_us=barrier.watermark_us if barrier.HasField("watermark_us") else None,
        now_ms=barrier.now_ms,
    )
