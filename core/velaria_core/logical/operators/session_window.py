"""SessionWindow: the start and end of the session that a row belongs to.

A session is a run of rows of one key in which each comes less than `gap_ms` after the one before; it ends `gap_ms` past
its last row. A row without a time is in no session: its start and end are NULL.

Batch   window functions: where a row starts a session, how many were started so far, and the times of each.
Stream  Keyed by the keys: those that an epoch touched are computed anew, since a row can join two sessions. A session
        is closed once the watermark has passed its end, and is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.event_time import Horizon, TimeBound, TimeKind, Times
from velaria_core.logical.expr import call, parse_expression, reference, replaced
from velaria_core.logical.incremental import Incremental, Keyed
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.query import Named, Query

_STARTS, _NUMBER = "__starts", "__number"


@dataclass(frozen=True, eq=False)
class SessionWindow(Unary):
    """`keys` are names of columns; without any all rows are of one key."""

    keys: tuple[str, ...]
    time: str
    kind: TimeKind
    gap_ms: int
    start: str = "window_start"
    end: str = "window_end"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.input.columns, self.start, self.end)

    def label(self) -> str:
        by = f" by {listed(self.keys)}" if self.keys else ""
        return f"SessionWindow: {self.time} gap {self.gap_ms} ms{by} AS {self.start}, {self.end}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        time = moment(self.time, self.kind)
        kept = [(name, reference(name)) for name in self.input.columns]
        before = over(call("lag", time), self.keys, [time])
        starts = exp.Case(ifs=[exp.If(this=less_apart(time, before, self.gap_ms, self.kind), true=number(0))])
        starts.set("default", number(1))
        one = rows.projected([*kept, (_STARTS, starts)], windowed=True).wrapped()
        several = over(call("sum", reference(_STARTS)), self.keys, [time])
        two = one.projected([*kept, (_NUMBER, several)], windowed=True).wrapped()
        session = [*self.keys, _NUMBER]
        start = over(call("min", time), session, [])
        end = later(over(call("max", time), session, []), self.gap_ms, self.kind)
        return two.projected([*kept, *self._shown(start, end)], windowed=True)

    def _shown(self, start: exp.Expr, end: exp.Expr) -> list[Named]:
        if self.kind is TimeKind.TEXT:
            start, end = as_text(start), as_text(end)
        return [(self.start, start), (self.end, end)]

    def times(self, *inputs: Times) -> Times:
        (below,) = inputs
        if self.time not in below:
            return {}
        # The last row stands `gap_ms` before the end, and a row at the end itself is of another session.
        return {self.end: TimeBound(self.kind, below[self.time].span_us - 1)}

    def horizons(self, *inputs: Times) -> tuple[Horizon | None, ...]:
        (below,) = inputs
        if self.time not in below:
            return (None,)
        # How long a row is needed is up to the rows after it: sessions are forgotten as wholes, by their end.
        return (Horizon(self.time, below[self.time], None),)

    def stream(self) -> Incremental:
        return Keyed((self.keys,))


# --- times in expressions ---------------------------------------------------------------------------------------


def moment(column: str, kind: TimeKind) -> exp.Expr:
    """A time column as something that compares and adds."""
    if kind is not TimeKind.TEXT:
        return reference(column)
    return replaced(parse_expression("CAST(x AS TIMESTAMP)"), {"x": reference(column)})


def less_apart(time: exp.Expr, before: exp.Expr, apart_ms: int, kind: TimeKind) -> exp.Expr:
    """Whether a time is less than so long after another; NULL where one is not there."""
    return exp.LT(this=time.copy(), expression=later(before, apart_ms, kind))


def later(time: exp.Expr, by_ms: int, kind: TimeKind) -> exp.Expr:
    """So long after a time."""
    length = number(by_ms) if kind is TimeKind.INTEGER else call("to_milliseconds", number(by_ms))
    return exp.Add(this=time.copy(), expression=length)


def as_text(time: exp.Expr) -> exp.Expr:
    return call("strftime", time, exp.Literal.string("%Y-%m-%dT%H:%M:%S.%f"))


def over(function: exp.Expr, partition: list[str] | tuple[str, ...], order: list[exp.Expr]) -> exp.Expr:
    """A window function over a partition, in an order, NULL last."""
    keys = [exp.Ordered(this=key.copy(), desc=False, nulls_first=False) for key in order]
    return exp.Window(
        this=function,
        partition_by=[reference(name) for name in partition],
        order=exp.Order(expressions=keys) if keys else None,
        over="OVER",
    )


def number(value: int) -> exp.Expr:
    return exp.Literal.number(value)
