"""Watermark steps: rows pass, and their times move the watermark of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from velaria_core.changes import concat, constant
from velaria_core.errors import InputError
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Changes, Moment, Step, some
from velaria_core.execution.watermark import JUMP_ROWS, Micros, ReadTimes, TimeColumn, Timeline, kept
from velaria_core.logical.event_time import Late
from velaria_core.logical.operators import ProcessingTime, Watermark


class WatermarkStep(Step):
    """Rows pass but for those set aside: far ahead of the times believed so far, they wait in a table until time comes
    near them, until nothing else comes any more, or for the end.

    Where nothing is ever closed (`Late.FOLD`) none waits; those far ahead only do not move the watermark.

    Attributes:
        sources: the relations below, by identity.
        ended: each of them has ended; told before the epoch.
        sends_late_rows: whether late rows go to a sink of their own.
        late: those of the last epoch.
        late_rows, ahead_rows: of the last epoch, rows that came behind the watermark, and rows that were set aside.
    """

    impl = "numpy"
    impl_reason = "times are read as numbers, rows pass as they are"

    def __init__(self, store: Store, name: str, node: Watermark, below: Step) -> None:
        super().__init__(below.schema, below.append_only, [below])
        self.ended = False
        self.late: Changes = None
        self.late_rows = self.ahead_rows = 0
        self.sources: frozenset[int] = frozenset()
        self.sends_late_rows = node.late is Late.SIDE
        self._operator = node
        self._times = TimeColumn(store, below.schema, node.time, node.kind)
        self._line = self._durable = Timeline(node.delay_ms * 1000, node.ahead_ms * 1000)
        self._active_ms: int | None = None
        self._folds = node.late is Late.FOLD
        if not self._folds:
            self._aside = store.feed(below.changes_schema)
            table = store.table(f"{name}_ahead", below.changes_schema)
            self._set_aside = store.command(f"INSERT INTO {table} SELECT * FROM {self._aside.name}")
            self._waiting = store.prepare(f"SELECT * FROM {table}")
            self._release = store.command(f"DELETE FROM {table}")

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        self.late, self.late_rows, self.ahead_rows, self.late_dropped_rows = None, 0, 0, 0
        if given is not None or self._active_ms is None:
            self._active_ms = at.now_ms
        times: ReadTimes | None = None
        if given is not None:
            times = self._times.of(given)
            first_us = self._line.first_us
            self._line = line = self._line.followed(times)
            if first_us is not None and line.reached_us is not None and first_us > line.reached_us:
                self.ahead_rows += 1  # the first row: it has passed, and time does not follow it
            near = self._near(given, times)
            given, times = near, times if near is given else None
        if self._line.waiting and (self.ended or self._line.is_near()):
            given, times = self._with_those_that_waited(given), None
        if given is None or at.late_before_us is None:
            return given
        return self._judged(given, self._times.of(given) if times is None else times, at.late_before_us)

    def _near(self, given: pa.Table, read: ReadTimes) -> Changes:
        """The rows that are not far ahead; the others are set aside."""
        line, times, valid = self._line, read.micros, read.valid
        if line.reached_us is None or self.ended:
            return given
        known = len(times) if valid is None else int(np.count_nonzero(valid))
        if read.high <= line.reached_us:
            self._line = line.voted(0, known)
            return given
        far = times > line.reached_us if valid is None else (times > line.reached_us) & valid
        count = int(np.count_nonzero(far))
        self._line = line = line.voted(count, known - count)
        if not count:
            return given
        if line.votes >= JUMP_ROWS:
            # Little else comes any more: time has gone there.
            self._line = line.gone()
            if self._folds:
                self._line = self._line.followed(ReadTimes.of(np.repeat(times[far], 2)))  # also of one row
                return given
            return self._with_those_that_waited(given)
        self.ahead_rows += count
        if self._folds:
            return given
        self._wait(kept(given, far), times[far])
        return some(kept(given, ~far))

    def _wait(self, rows: pa.Table, times: Micros) -> None:
        self._aside.table = rows
        self._set_aside()
        line, nearest = self._line, int(times.min())
        if line.nearest_us is not None:
            nearest = min(nearest, line.nearest_us)
        self._line = replace(line, waiting=line.waiting + len(times), nearest_us=nearest)

    def _with_those_that_waited(self, given: Changes) -> Changes:
        """These rows and those that were set aside, less what is far ahead even so."""
        waited = self._waiting()
        self._release()
        rows = waited if given is None else concat([given, waited])
        read = self._times.of(rows)
        times, valid = read.micros, read.valid
        self._line = replace(self._line, waiting=0, nearest_us=None, votes=0).followed(read)
        if self.ended or self._line.reached_us is None:
            return rows
        far = times > self._line.reached_us if valid is None else (times > self._line.reached_us) & valid
        if not far.any():
            return rows
        self._wait(kept(rows, far), times[far])
        return some(kept(rows, ~far))

    def _judged(self, rows: pa.Table, times: ReadTimes, late_before_us: int) -> Changes:
        """The rows, with those that are late counted, and kept apart where they go to a sink of their own."""
        if times.low >= late_before_us:
            return rows
        behind = times.micros < late_before_us
        if times.valid is not None:
            behind &= times.valid
        self.late_rows = int(np.count_nonzero(behind))
        if self._operator.late is not Late.SIDE or not self.late_rows:
            return rows
        self.late_dropped_rows = self.late_rows
        self.late = kept(rows, behind)
        return some(kept(rows, ~behind))

    @property
    def is_net(self) -> bool:
        # Rows that were set aside come with those that take them away.
        return self.append_only

    # --- what the tracker asks ------------------------------------------------------------------------------------

    def reading_us(self, now_ms: int) -> int | None:
        del now_ms
        return self._line.watermark_us

    def is_idle(self, now_ms: int) -> bool:
        # A clock that went back counts the silence anew.
        self._active_ms = None if self._active_ms is None else min(self._active_ms, now_ms)
        silent = 0 if self._active_ms is None else now_ms - self._active_ms
        return self._operator.idle_ms is not None and silent >= self._operator.idle_ms

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        # The end of the stream lets go the rows that wait.
        del watermark_us, now_ms
        return self.ended and self._line.waiting > 0

    def snapshot(self) -> dict[str, Any]:
        line = self._line
        return {
            "reached_us": line.reached_us,
            "waiting": line.waiting,
            "nearest_us": line.nearest_us,
            "first_us": line.first_us,
            "votes": line.votes,
        }

    def restore(self, remembered: dict[str, Any]) -> None:
        self._line = self._durable = Timeline(self._durable.delay_us, self._durable.ahead_us, **remembered)

    def state_rows(self) -> int:
        return self._line.waiting

    def committed(self) -> None:
        self._durable = self._line

    def rolled_back(self) -> None:
        self._line = self._durable


class ProcessingTimeStep(Step):
    """Each row gets the clock as the epoch began, and the watermark is the clock. It never goes back, even where the
    clock does."""

    impl = "numpy"
    impl_reason = "a column of one value is added"
    late: Changes = None
    late_rows = ahead_rows = 0
    sends_late_rows = False

    def __init__(self, store: Store, node: ProcessingTime, below: Step) -> None:
        del store
        if not below.append_only:
            raise InputError(
                "stream.processing_time",
                f"{node.name} is not for rows that go again: they would go with another time than they came with",
                hint="take with_processing_time before the rows are aggregated",
            )
        super().__init__(below.schema.append(pa.field(node.name, pa.timestamp("us"))), True, [below])
        self.ended = False
        self.sources: frozenset[int] = frozenset()
        self._now_us = self._durable_us = 0

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        now_us = self.reading_us(at.now_ms)
        self._now_us = now_us
        if given is None:
            return None
        return given.append_column(self.schema.field(-1), constant(now_us, given.num_rows).view(pa.timestamp("us")))

    def reading_us(self, now_ms: int) -> int:
        return max(self._now_us, now_ms * 1000)

    def is_idle(self, now_ms: int) -> bool:
        del now_ms
        return False

    def snapshot(self) -> dict[str, Any]:
        return {"now_us": self._now_us}

    def restore(self, remembered: dict[str, Any]) -> None:
        self._now_us = self._durable_us = remembered["now_us"]

    def committed(self) -> None:
        self._durable_us = self._now_us

    def rolled_back(self) -> None:
        self._now_us = self._durable_us
