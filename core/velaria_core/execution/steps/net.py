"""Netting: the changes of an epoch, summed row by row, so that a row does not both come and go in one.

Most steps need none of it: what they take away was there before the epoch (`Step.is_net`), and an order in which rows
go before others come can be followed by whoever keeps the result. It is not so where rows meet others that came in the
same epoch, as in a join of which both sides change.
"""

from __future__ import annotations

import pyarrow as pa

from velaria_core.changes import DIFF, DIFF_FIELD
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Changes, some
from velaria_core.types import quoted


class Netting:
    """The sum of changes of one schema (without its diff). Where rows only come, or only go, nothing is done."""

    def __init__(self, store: Store, schema: pa.Schema) -> None:
        self._feed = store.feed(schema.append(DIFF_FIELD))
        columns = ", ".join(map(quoted, schema.names))
        self._sum = store.prepare(
            f"SELECT {columns}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF} FROM {self._feed.name} "
            f"GROUP BY {columns} HAVING sum({DIFF}) <> 0"
        )

    def of(self, changes: pa.Table) -> Changes:
        """The same changes with each row once. O(rows)."""
        diffs = changes.column(DIFF).to_numpy()
        if not len(diffs) or diffs.min() > 0 or diffs.max() < 0:
            return some(changes)
        self._feed.table = changes
        try:
            return some(self._sum())
        finally:
            self._feed.table = self._feed.schema.empty_table()
