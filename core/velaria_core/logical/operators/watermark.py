"""Watermark: says which column holds event time, how late rows may come, and what becomes of those that come later.

The watermark of a stream is the largest event time seen, less the allowed delay: rows with an earlier time are late.
It closes windows, lets append output come out, and lets state be forgotten (Akidau et al., The Dataflow Model, VLDB
2015). One row dated far ahead must not pin it, so times are followed upward only in steps of at most `ahead_ms`.

Batch   the input as it is.
Stream  Timed: rows pass; their times move the watermark. Rows far ahead wait until time comes near them.
"""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.logical.event_time import Late, TimeBound, TimeKind, Times
from velaria_core.logical.incremental import Incremental, Timed
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query

AHEAD_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, eq=False)
class Watermark(Unary):
    """Attributes:
    time: the column of event times. A row without one is never late, moves nothing, and is closed at the end.
    kind: how the column holds time.
    delay_ms: how much the times of rows may be out of order.
    late: what becomes of rows that come too late.
    ahead_ms: a gap in the times beyond which rows are set aside.
    idle_ms: a stream without rows for so long by the clock does not hold the others back; None: it does.
    """

    time: str
    kind: TimeKind
    delay_ms: int
    late: Late = Late.DROP
    ahead_ms: int = AHEAD_MS
    idle_ms: int | None = None

    def label(self) -> str:
        idle = f", idle after {self.idle_ms} ms" if self.idle_ms is not None else ""
        return f"Watermark: {self.time} - {self.delay_ms} ms, late rows: {self.late}{idle}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows

    def times(self, *inputs: Times) -> Times:
        (below,) = inputs
        if self.late is Late.FOLD:
            return {}
        return {**below, self.time: TimeBound(self.kind, 1)}

    def stream(self) -> Incremental:
        return Timed("none" if self.late is Late.FOLD else "rows far ahead of the others")
