"""Session steps: rows by key, whose sessions are computed anew where rows came, and forgotten as wholes."""

from __future__ import annotations

import pyarrow as pa

from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Moment, Step, query_of
from velaria_core.execution.steps.horizon import micros_sql, one_row
from velaria_core.execution.steps.keyed import KeyedStep
from velaria_core.logical.event_time import END
from velaria_core.logical.expr import reference
from velaria_core.logical.operators import Scan, SessionWindow
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

_ROW = "__row"
_PART = 4


class SessionStep(KeyedStep):
    """The touched keys before and after, as in every keyed step; the rows of a session go when its end is closed.

    Which rows these are is asked of the node itself, over all rows that are kept, each time that the watermark has gone
    on by a part of the gap.
    """

    holds = False  # which rows to forget is asked of a table

    def __init__(self, store: Store, name: str, node: SessionWindow, below: Step) -> None:
        super().__init__(store, name, node, [node.keys], [()], [below])
        self._bound = node.times(below.times).get(node.end)
        self._every_us = node.gap_ms * 1000 // _PART
        self._asked_us: int | None = None
        if self._bound is None:
            return
        (log,) = self._rows
        rows = f"(SELECT *, rowid AS {quoted(_ROW)} FROM {log.table})"
        row = pa.field(_ROW, pa.int64())
        kept = Scan(Relation(log.table, below.schema.append(row), rows, "state"))
        shown = [(one, reference(one)) for one in (_ROW, node.end)]
        sessions = query_of(node.over([kept])).projected(shown).sql()
        self._closed = store.feed(pa.schema([("us", pa.int64())]))
        self._delete = store.command(
            f"DELETE FROM {log.table} WHERE rowid IN (SELECT {quoted(_ROW)} FROM ({sessions}) "
            f"WHERE {micros_sql(node.end, self._bound.kind)} <= (SELECT us FROM {self._closed.name}))"
        )

    @property
    def scanned(self) -> str:
        return "which sessions are closed is asked of a table"

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
        self._delete()
        log.rolled_back()

    def rolled_back(self) -> None:
        super().rolled_back()
        self._asked_us = None
