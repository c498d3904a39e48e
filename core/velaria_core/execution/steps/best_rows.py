"""Best rows: a top-k over rows that also go, without reading all of them each epoch.

The best rows, some more than are shown, are kept apart. No other row comes before the last of them, so those that come
later are put among them, and those that go are taken out. Only where too few are left are all rows read again, and that
takes as many rows going as there are more than are shown.

Source: Yi, Yu, Yang, Xia, Chen, "Efficient Maintenance of Materialized Top-k Views", ICDE 2003.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from velaria_core.changes import DIFF, DIFF_FIELD
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import COUNT, Changes, Moment, Step, fitted, some
from velaria_core.execution.steps.rows import Log, difference
from velaria_core.logical.expr import to_sql
from velaria_core.logical.operators import TopK
from velaria_core.logical.operators.top_k import sort_key
from velaria_core.logical.query import Query
from velaria_core.types import quoted

_MORE_ROWS: Final = 1_000
_TIMES: Final = 4  # as many are kept apart as are shown
_SHOWN_ROWS_MAX: Final = 100_000  # beyond, what is kept apart would be as dear as what it saves


def keeps_best(node: TopK, below: Step) -> bool:
    """Whether a top-k is for this step."""
    return not node.by and not below.append_only and node.count + node.offset <= _SHOWN_ROWS_MAX


class BestRowsStep(Step):
    """Of rows that are equal in all, one is kept with how many there are.

    Invariant: `_best` has every row that sorts before `_last`, and some that sort like it; without a `_last` all rows.
    """

    impl = "best-kept"
    impl_reason = "the best rows are kept apart, and all are read again where too many of these went"
    is_net = True

    def __init__(self, store: Store, name: str, node: TopK, below: Step) -> None:
        super().__init__(below.schema, False, [below])
        self._end = node.count + node.offset
        self._kept_max = max(_TIMES * self._end, self._end + _MORE_ROWS)
        self._rows = Log(store, f"{name}_0", below.schema, False)
        self._rows.is_scanned = False
        self._shown = Log(store, f"{name}_shown", below.schema, False)
        self._best = store.feed(below.schema.append(DIFF_FIELD))
        self._is_known = False
        columns = ", ".join(map(quoted, below.schema.names))
        key = to_sql(sort_key(node.keys))
        last = f"SELECT max({key}) AS last FROM {self._best.name}"
        self._last = store.feed(store.schema(last))  # keys of few bytes are numbers, others binary
        self._find_last = store.prepare(last)

        def best(entries: str) -> str:
            """SQL of the best of what entries add up to."""
            summed = f"CAST(sum({DIFF}) AS BIGINT) AS {DIFF}"
            net = f"SELECT {columns}, {summed} FROM ({entries}) GROUP BY {columns} HAVING sum({DIFF}) > 0"
            return f"SELECT * FROM ({net}) ORDER BY {key} LIMIT {self._kept_max}"

        self._of_all = store.prepare(best(f"SELECT {columns}, {COUNT} AS {DIFF} FROM {self._rows.table}"))
        came = f"SELECT * FROM {self._best.name} UNION ALL SELECT * FROM {self._rows.feed.name}"
        # No row is after a last that is not there.
        before = f"coalesce({key} <= (SELECT last FROM {self._last.name}), true)"
        self._of_changes = store.prepare(best(f"SELECT * FROM ({came}) WHERE {before}"))
        copies = f"(SELECT {columns} FROM (SELECT {columns}, unnest(range({DIFF})) FROM {self._best.name}))"
        result = node.batch(Query.table(copies, below.schema.names)).sql()
        self._difference = store.prepare(difference(below.schema.names, f"({result})", self._shown.table, COUNT))

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        (given,) = changes
        if given is None:
            return None
        self._rows.feed.table = fitted(given, self._rows.feed)
        if self._is_known:
            self._keep(self._of_changes())
        self._rows.add()
        rows = int(self._best.table.column(DIFF).to_numpy().sum()) if self._is_known else 0
        if not self._is_known or (self._last.table.num_rows and rows < self._end):
            self._last.table = self._last.schema.empty_table()
            self._keep(self._of_all())
            self._is_known = True
        made = some(self._difference())
        if made is not None:
            self._shown.take(made)
        return made

    def _keep(self, best: pa.Table) -> None:
        self._best.table = best
        if best.num_rows == self._kept_max:
            self._last.table = self._find_last()

    def state_rows(self) -> int:
        return self._rows.entries + self._shown.entries

    def state_bytes(self) -> int:
        return self._rows.nbytes + self._shown.nbytes

    def rolled_back(self) -> None:
        self._rows.rolled_back()
        self._shown.rolled_back()
        self._is_known = False
