"""WindowAssign: the start (and end) of each event-time window that a row falls into.

Windows are aligned to 1970-01-01 and half open: [start, start + size). With slide = size every row falls into one
window, with slide < size into several, and comes out once for each. A row without a time keeps a NULL window.

Batch   a computed column; sliding windows unnest the list of their starts.
Stream  Linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.event_time import TimeBound, TimeKind, Times
from velaria_core.logical.expr import parse_expression, reference, replaced
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class WindowAssign(Unary):
    time: str
    kind: TimeKind
    size_ms: int
    slide_ms: int
    start: str = "window_start"
    end: str | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.input.columns, self.start, *((self.end,) if self.end is not None else ()))

    def times(self, *inputs: Times) -> Times:
        (below,) = inputs
        found = super().times(*inputs)
        if self.time not in below:
            return found
        # Times stop short of the window's end by a microsecond, which an event time stands for.
        after_us = below[self.time].span_us - 1
        found = {**found, self.start: TimeBound(self.kind, self.size_ms * 1000 + after_us)}
        return found if self.end is None else {**found, self.end: TimeBound(self.kind, after_us)}

    @property
    def handed_on(self) -> tuple[str, ...]:
        return self.input.columns

    def label(self) -> str:
        slide = f" slide {self.slide_ms} ms" if self.slide_ms != self.size_ms else ""
        return f"WindowAssign: {self.time} every {self.size_ms} ms{slide} AS {self.start}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        kept = [(name, reference(name)) for name in self.input.columns]
        latest = self._latest_start()
        if self.slide_ms == self.size_ms:
            starts = rows.projected([*kept, (self.start, _over(latest, self.time))])
        else:
            shown = [(name, reference(name)) for name in self.input.columns]
            several = rows.wrapped().projected([*shown, (self.start, _over(self._starts(latest), self.time))])
            starts = several.wrapped()
        if self.end is None:
            return starts
        end = _over(self._shown_end(), self.start)
        both = [(name, reference(name)) for name in (*self.input.columns, self.start)]
        return starts.wrapped().projected([*both, (self.end, end)])

    def _latest_start(self) -> str:
        """The start of the latest window that holds time `x`."""
        if self.kind is TimeKind.INTEGER:
            # Floor, not truncation: times before 1970 are negative.
            return f"x - ((x % {self.slide_ms}) + {self.slide_ms}) % {self.slide_ms}"
        if self.kind is TimeKind.TIMESTAMP_UTC:
            origin, time = "TIMESTAMPTZ '1970-01-01 00:00:00+00'", "x"
        else:
            origin = "TIMESTAMP '1970-01-01'"
            time = "x" if self.kind is TimeKind.TIMESTAMP else "CAST(x AS TIMESTAMP)"
        bucket = f"time_bucket(to_milliseconds({self.slide_ms}), {time}, {origin})"
        return self._as_text(bucket) if self.slide_ms == self.size_ms else bucket

    def _starts(self, latest: str) -> str:
        """One row for each window that holds time `x`."""
        count = -(-self.size_ms // self.slide_ms)
        back = (
            f"({latest}) - i * {self.slide_ms}"
            if self.kind is TimeKind.INTEGER
            else f"({latest}) - to_milliseconds(CAST(i * {self.slide_ms} AS BIGINT))"
        )
        every = f"list_transform(range({count}), lambda i: {back})"
        if self.size_ms % self.slide_ms:
            time = "x" if self.kind is not TimeKind.TEXT else "CAST(x AS TIMESTAMP)"
            reach = f"s + {self.size_ms}" if self.kind is TimeKind.INTEGER else f"s + to_milliseconds({self.size_ms})"
            every = f"list_filter({every}, lambda s: {reach} > {time})"
        if self.kind is TimeKind.TEXT:
            every = f"list_transform({every}, lambda s: {self._as_text('s')})"
        return f"unnest(CASE WHEN x IS NULL THEN [NULL] ELSE {every} END)"

    def _shown_end(self) -> str:
        if self.kind is TimeKind.INTEGER:
            return f"x + {self.size_ms}"
        if self.kind is TimeKind.TEXT:
            return self._as_text(f"CAST(x AS TIMESTAMP) + to_milliseconds({self.size_ms})")
        return f"x + to_milliseconds({self.size_ms})"

    def _as_text(self, time: str) -> str:
        if self.kind is not TimeKind.TEXT:
            return time
        fraction = ".%g" if self.size_ms % 1000 or self.slide_ms % 1000 else ""
        return f"strftime({time}, '%Y-%m-%dT%H:%M:%S{fraction}')"

    def stream(self) -> Incremental:
        return Linear()


def _over(template: str, column: str) -> exp.Expr:
    return replaced(parse_expression(template), {"x": reference(column)})
