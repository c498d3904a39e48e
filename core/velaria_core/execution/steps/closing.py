"""Closing steps: rows that may still change are held, and come out once, when event time has closed them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import COUNT, Changes, Moment, Step, some
from velaria_core.execution.steps.horizon import Gate, micros_sql, one_row
from velaria_core.execution.steps.rows import Log
from velaria_core.execution.watermark import Micros
from velaria_core.logical.event_time import Horizon, TimeBound
from velaria_core.types import quoted


class ClosingStep(Step):
    """The changes of a result are held by one of its columns; what its values add up to comes out when they are closed,
    and is forgotten. So the output is append-only, in the order of the watermark."""

    impl = "held"
    impl_reason = "rows come out once, when the watermark has closed them"

    def __init__(self, store: Store, name: str, below: Step, column: str, bound: TimeBound) -> None:
        super().__init__(below.schema, True, [below])
        self._store, self._bound = store, bound
        self._held = Log(store, name, below.schema, append_only=False)
        self._gate = Gate(store, below.schema, Horizon(column, bound, None), [self])
        self._closed = store.feed(pa.schema([("us", pa.int64())]))
        us = micros_sql(column, bound.kind)
        is_closed = f"{us} <= (SELECT us FROM {self._closed.name})"
        columns = ", ".join(quoted(one) for one in below.schema.names)
        self._out = store.prepare(
            f"SELECT {columns} FROM (SELECT {columns}, unnest(range({COUNT})) FROM (SELECT {columns}, "
            f"CAST(sum({COUNT}) AS BIGINT) AS {COUNT} FROM {self._held.table} WHERE {is_closed} "
            f"GROUP BY {columns} HAVING sum({COUNT}) > 0))"
        )
        self._delete = store.command(f"DELETE FROM {self._held.table} WHERE {is_closed}")
        self._find_oldest = f"SELECT min({us}) FROM {self._held.table}"
        self._oldest_us: int | None = None  # of the rows that are held; None where it is not known

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        given = self._gate.admitted(changes[0], at.late_before_us)
        self.late_dropped_rows = self._gate.dropped
        if given is not None:
            self._held.take(given)
        if not self.due(at.watermark_us, at.now_ms):
            return None
        assert at.watermark_us is not None
        self._closed.table = one_row(self._closed.schema, self._bound.last_closed_us(at.watermark_us))
        out = self._out()
        self._delete()
        self._held.rolled_back()
        self._oldest_us = None
        return some(out)

    def note(self, times: Micros) -> None:
        """Rows of these times are to be held."""
        if len(times) and self._oldest_us is not None:
            self._oldest_us = min(self._oldest_us, int(times.min()))

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        del now_ms
        if watermark_us is None or not self._held.entries:
            return False
        if self._oldest_us is None:
            ((self._oldest_us,),) = self._store.cursor.rows(self._find_oldest)
            assert self._oldest_us is not None
        return self._oldest_us <= self._bound.last_closed_us(watermark_us)

    def state_rows(self) -> int:
        return self._held.entries

    def state_bytes(self) -> int:
        return self._held.nbytes

    def rolled_back(self) -> None:
        self._held.rolled_back()
        self._oldest_us = None
