"""Horizon: what stateful steps have to do with event time. Rows for what is closed come too late and are left out;
state of what is closed is forgotten.

Invariant: a row that is let in meets all the state that it needs, for state is kept until the watermark says that no
such row is let in any more. So forgetting may be put off at will, and is: it reads a column of the whole state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from velaria_core.changes import constant
from velaria_core.execution.held_rows import HeldRows
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Changes, Moment, Step, some
from velaria_core.execution.vectors import Rows
from velaria_core.execution.watermark import Mask, Micros, TimeColumn, kept
from velaria_core.logical.event_time import END, Horizon, TimeBound, TimeKind
from velaria_core.types import quoted

_PART = 8  # state is forgotten when this part of the time that it spans is closed, so each entry is read few times


class Noting(Protocol):
    """Who wants to know which times come."""

    def note(self, times: Micros) -> None:
        """Rows with these times were let in."""


class Forgetting(Protocol):
    """Rows that are forgotten when they are closed, in a table, in memory or both."""

    table: str
    is_in_table: bool

    @property
    def held(self) -> HeldRows | None: ...

    @property
    def entries(self) -> int: ...

    def forgot(self) -> None:
        """The table has other entries now."""


class Gate:
    """One input of a stateful step: lets in the rows that are not late.

    Attributes:
        dropped: rows of the last epoch that were left out.
    """

    def __init__(self, store: Store, schema: pa.Schema, horizon: Horizon, noting: Sequence[Noting]) -> None:
        self.dropped = 0
        self._late = horizon.late
        self._noting = noting
        bound = horizon.late or horizon.kept
        assert bound is not None
        self._times = TimeColumn(store, schema, horizon.column, bound.kind)

    def admitted(self, given: Changes, late_before_us: int | None) -> Changes:
        """The changes less those that come too late."""
        self.dropped = 0
        if given is None:
            return None
        times, valid, *_ = self._times.of(given)
        if self._late is not None and late_before_us is not None:
            late = closed(times, valid, self._late, late_before_us)
            self.dropped = int(np.count_nonzero(late))
            if self.dropped:
                given, times = some(kept(given, ~late)), times[~late]
                valid = None if valid is None else valid[~late]
        for one in self._noting:
            one.note(times if valid is None else times[valid])
        return given


class Expiry:
    """Removes the entries of a log whose value in a column is closed."""

    def __init__(self, store: Store, log: Forgetting, column: str, bound: TimeBound) -> None:
        self._store, self._log, self._column, self._bound = store, log, column, bound
        self._times = None if log.held is None else TimeColumn(store, log.held.schema, column, bound.kind)
        self._closed = store.feed(pa.schema([("us", pa.int64())]))
        us = micros_sql(column, bound.kind)
        self._delete = store.command(f"DELETE FROM {log.table} WHERE {us} <= (SELECT us FROM {self._closed.name})")
        self._find_extent = f"SELECT min({us}), max({us}) FROM {log.table}"
        self._extent: tuple[int, int] | None = None  # not known, or of nothing

    def note(self, times: Micros) -> None:
        """Entries with these times were added."""
        if len(times) and self._extent is not None:
            low, high = self._extent
            self._extent = min(low, int(times.min())), max(high, int(times.max()))

    def run(self, watermark_us: int | None) -> None:
        """Remove what the watermark has closed, when that is much of it."""
        if watermark_us is None or not self._log.entries:
            return
        closed_us = self._bound.last_closed_us(watermark_us)
        if closed_us != END:
            if self._extent is None:
                self._measure()
            if self._extent is None or closed_us < self._extent[0] + (self._extent[1] - self._extent[0]) // _PART:
                return
        if self._log.is_in_table:
            self._closed.table = one_row(self._closed.schema, closed_us)
            self._delete()
            self._log.forgot()
        if self._log.held is not None:
            positions, times, valid = self._held(self._log.held)
            self._log.held.forget(positions[closed(times, valid, self._bound, watermark_us)])
        self._measure()

    def rolled_back(self) -> None:
        self._extent = None

    def _held(self, held: HeldRows) -> tuple[Rows, Micros, Mask | None]:
        """Where the rows in memory are, and their times."""
        assert self._times is not None
        positions = held.alive()
        times, valid, *_ = self._times.of(held.take(positions, [self._column]))
        return positions, times, valid

    def _measure(self) -> None:
        if self._log.held is not None:
            _, times, valid = self._held(self._log.held)
            times = times if valid is None else times[valid]
            self._extent = (int(times.min()), int(times.max())) if len(times) else None
            return
        ((low, high),) = self._store.cursor.rows(self._find_extent)
        # Rows without a time are closed at the end and take no part.
        self._extent = None if low is None or low == END else (low, low if high == END else high)


class Horizons:
    """The gates of a stateful step, one for each input that event time bounds, and what is forgotten behind them."""

    def __init__(
        self,
        store: Store,
        below: Sequence[Step],
        horizons: Sequence[Horizon | None],
        logs: Sequence[Sequence[tuple[Forgetting, str]]],
    ) -> None:
        """
        Args:
            horizons: for each input, what the node says of time.
            logs: for each input the logs that forget with it, and by which column of theirs.
        """
        self._gates: list[Gate | None] = []
        self._expiries: list[Expiry] = []
        for horizon, step, several in zip(horizons, below, logs, strict=True):
            if horizon is None:
                self._gates.append(None)
                continue
            bound = horizon.kept
            expiries = [Expiry(store, log, column, bound) for log, column in several] if bound is not None else []
            self._gates.append(Gate(store, step.schema, horizon, expiries))
            self._expiries += expiries

    def admitted(self, step: Step, changes: Sequence[Changes], at: Moment) -> Sequence[Changes]:
        """The changes less those that come too late, which are counted as left out by `step`."""
        given = [
            one if gate is None else gate.admitted(one, at.late_before_us)
            for one, gate in zip(changes, self._gates, strict=True)
        ]
        step.late_dropped_rows = sum(gate.dropped for gate in self._gates if gate is not None)
        return given

    def forget(self, at: Moment) -> None:
        """Remove the state that the watermark has closed."""
        for expiry in self._expiries:
            expiry.run(at.watermark_us)

    def rolled_back(self) -> None:
        for expiry in self._expiries:
            expiry.rolled_back()


def closed(times: Micros, valid: Mask | None, bound: TimeBound, watermark_us: int) -> Mask:
    """Which times are closed; those that are not there are so at the end."""
    if watermark_us == END:
        return np.ones(len(times), np.bool_)
    found: Mask = times <= bound.last_closed_us(watermark_us)
    return found if valid is None else found & valid


def micros_sql(column: str, kind: TimeKind) -> str:
    """SQL of a column's times in microseconds since 1970; `END` where there is none."""
    name = quoted(column)
    match kind:
        case TimeKind.INTEGER:
            us = f"CAST({name} AS HUGEINT) * 1000"
        case TimeKind.TEXT:
            us = f"epoch_us(TRY_CAST({name} AS TIMESTAMP))"
        case _:
            us = f"CASE WHEN isfinite({name}) THEN epoch_us({name}) END"
    return f"coalesce({us}, {END})"


def one_row(schema: pa.Schema, value: int) -> pa.Table:
    """A table of one int64."""
    return pa.Table.from_arrays([constant(value, 1)], schema=schema)
