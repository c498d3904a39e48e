"""ProcessingTime: a column that holds when a row was processed, in UTC by the clock of the query.

Windows over it are windows of processing time: it is bounded by a watermark of its own, which is the clock.

Batch   the time at which the query began.
Stream  Timed: the clock as the epoch began, which never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from velaria_core.logical.event_time import TimeBound, TimeKind, Times
from velaria_core.logical.expr import parse_expression, reference
from velaria_core.logical.incremental import Incremental, Timed
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class ProcessingTime(Unary):
    name: str

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.input.columns, self.name)

    def label(self) -> str:
        return f"ProcessingTime: AS {self.name}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        kept = [(name, reference(name)) for name in self.input.columns]
        return rows.projected([*kept, (self.name, parse_expression("make_timestamp(epoch_us(now()))"))])

    def times(self, *inputs: Times) -> Times:
        (below,) = inputs
        return {**below, self.name: TimeBound(TimeKind.TIMESTAMP, 1)}

    def stream(self) -> Incremental:
        return Timed()
