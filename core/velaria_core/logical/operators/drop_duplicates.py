"""DropDuplicates: of the rows of a key that come shortly one after the other, the first.

A row is a duplicate if a row of the same key lies less than `within_ms` before it, a duplicate itself or not. So what
counts is event time and not arrival, and the answer of a stream is that of batch. Of rows of one time the least stays,
compared column by column. A row without a time is no duplicate.

Batch   a window function: the time of the row before.
Stream  Keyed by the keys. A row's fate is sealed once the watermark has passed its time, and it is forgotten
        `within_ms` later: state is the keys of so long, not all keys ever seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.event_time import Horizon, TimeBound, TimeKind, Times
from velaria_core.logical.expr import call, reference
from velaria_core.logical.incremental import Incremental, Keyed
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.operators.session_window import less_apart, moment, over
from velaria_core.logical.query import Query

_DOUBLE = "__double"


@dataclass(frozen=True, eq=False)
class DropDuplicates(Unary):
    """`keys` are names of columns, at least one."""

    keys: tuple[str, ...]
    time: str
    kind: TimeKind
    within_ms: int

    def label(self) -> str:
        return f"DropDuplicates: {listed(self.keys)} within {self.within_ms} ms of {self.time}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        time = moment(self.time, self.kind)
        kept = [(name, reference(name)) for name in self.columns]
        order = [time, *(reference(name) for name in self.columns)]
        before = over(call("lag", time), self.keys, order)
        double = exp.Coalesce(
            this=less_apart(time, before, self.within_ms, self.kind), expressions=[exp.Boolean(this=False)]
        )
        judged = rows.projected([*kept, (_DOUBLE, double)], windowed=True).wrapped()
        return judged.filtered(exp.Not(this=reference(_DOUBLE))).projected(kept)

    def times(self, *inputs: Times) -> Times:
        # What comes later than a row does not touch it, so every closed value stays closed.
        (below,) = inputs
        return below if self.time in below else {}

    def horizons(self, *inputs: Times) -> tuple[Horizon | None, ...]:
        (below,) = inputs
        if self.time not in below:
            return (None,)
        late = below[self.time]
        return (Horizon(self.time, late, TimeBound(self.kind, late.span_us + self.within_ms * 1000)),)

    def stream(self) -> Incremental:
        return Keyed((self.keys,))
