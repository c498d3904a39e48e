"""Session steps: rows by key, whose sessions are computed anew where rows came, and forgotten as wholes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from velaria_core.execution.held_rows import HeldRows
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import AT, Moment, Step, query_of
from velaria_core.execution.steps.held import Keys
from velaria_core.execution.steps.horizon import micros_sql, one_row
from velaria_core.execution.steps.keyed import KeyedStep, hashing_of
from velaria_core.execution.steps.rows import SLACK_ROWS, Closes
from velaria_core.execution.vectors import integers, vector_of, whole
from velaria_core.logical.event_time import END
from velaria_core.logical.expr import reference
from velaria_core.logical.operators import Scan, SessionWindow
from velaria_core.logical.relation import Relation

_PART = 4


class SessionStep(KeyedStep):
    """The touched keys before and after, as in every keyed step; the rows of a session go when its end is closed.

    Which rows these are is asked of the node itself, each time that the watermark has gone on by a part of the gap:
    over the rows of the keys that have some old enough, or over all where they are in a table.
    """

    def __init__(self, store: Store, name: str, node: SessionWindow, below: Step) -> None:
        self._bound = node.times(below.times).get(node.end)
        if self._bound is not None:
            self.closes = Closes(node.time, node.kind, timeless=True)
        super().__init__(store, name, node, [node.keys], [()], [below])
        self._every_us = node.gap_ms * 1000 // _PART
        self._asked_us: int | None = None
        if self._bound is None:
            return
        (log,) = self._rows
        self._closed = store.feed(pa.schema([("us", pa.int64())]))
        rows = log.kept.relation.schema
        self._due, self._touched_rows = store.feed(rows), store.feed(rows.append(pa.field(AT, pa.int64())))
        self._due_keys = Keys(store, self._due, node.keys, hashing_of([node.keys], [below]))

        def closed(rows: str) -> str:
            """SQL of where the rows of a session are (`AT`) that is closed."""
            kept = Scan(Relation(rows, below.schema.append(pa.field(AT, pa.int64())), rows, "state"))
            sessions = query_of(node.over([kept])).projected([(one, reference(one)) for one in (AT, node.end)]).sql()
            assert self._bound is not None
            ends = micros_sql(node.end, self._bound.kind)
            return f"SELECT {AT} FROM ({sessions}) WHERE {ends} <= (SELECT us FROM {self._closed.name})"

        self._find_closed = store.prepare(closed(self._touched_rows.name))
        table = f"(SELECT *, rowid AS {AT} FROM {log.table})"
        self._delete = store.command(f"DELETE FROM {log.table} WHERE rowid IN ({closed(table)})")

    def _forget(self, at: Moment) -> None:
        super()._forget(at)
        (log,) = self._rows
        if self._bound is None or at.watermark_us is None or not log.entries:
            return
        closed_us = self._bound.last_closed_us(at.watermark_us)
        if self._asked_us is not None and closed_us != END and closed_us < self._asked_us + self._every_us:
            return
        self._asked_us = closed_us
        self._closed.table = one_row(self._closed.schema, closed_us)
        if log.held is not None:
            self._forget_held(log.held, closed_us)
        # In the table they go together, when they are most of it.
        if log.is_in_table and (log.held is None or log.in_table > 2 * log.held.live + SLACK_ROWS):
            self._delete()
            log.forgot()

    def _forget_held(self, held: HeldRows, closed_us: int) -> None:
        """Of the keys that have rows which are old enough, the sessions that are closed."""
        due = held.until(closed_us)
        if not len(due):
            return
        self._due.table = held.take(due)
        positions = held.positions(vector_of(whole(self._due_keys.hashes())).data)
        self._touched_rows.table = held.take(positions).append_column(AT, integers(positions))
        gone = vector_of(whole(self._find_closed().column(0))).data
        held.forget(np.sort(gone))
        held.seen_until(closed_us)

    def rolled_back(self) -> None:
        super().rolled_back()
        self._asked_us = None
