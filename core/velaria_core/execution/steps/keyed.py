"""Keyed steps: what is neither linear nor bilinear is computed for the keys that were touched, before and after."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from velaria_core.changes import DIFF
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import (
    Changes,
    Moment,
    Step,
    fitted,
    some,
)
from velaria_core.execution.steps.rows import Rows
from velaria_core.logical.node import Node
from velaria_core.logical.query import Query
from velaria_core.types import quoted


class KeyedStep(Step):
    """The keys that an epoch touched, computed before and after; the difference is what changed.

    With no key the whole result is one key. State is the rows of every input. `orders` are the nodes between an input
    and `node` that put its rows in the order that `node` reads.
    """

    impl = "touched-keys"
    impl_reason = "the rows of the keys that an epoch touched are computed before and after"

    def __init__(
        self,
        store: Store,
        name: str,
        node: Node,
        by: Sequence[Sequence[str]],
        orders: Sequence[Sequence[Node]],
        below: Sequence[Step],
    ) -> None:
        self._inputs = [Rows(store, f"{name}_{at}", step) for at, step in enumerate(below)]
        self._keyed = bool(by[0])
        if not self._keyed:
            self.impl, self.impl_reason = "whole-input", "without a key of its own it is computed anew from all rows"
        queries = []
        if self._keyed:
            parts = [
                f"SELECT {', '.join(f'{quoted(key)} AS k{at}' for at, key in enumerate(keys))} FROM {rows.feed.name}"
                for keys, rows in zip(by, self._inputs, strict=True)
            ]
            touched = f"SELECT DISTINCT * FROM ({' UNION ALL '.join(parts)})"
            self._touched = store.feed(store.schema(touched))
            self._find_touched = store.prepare(touched)
        for keys, rows, order in zip(by, self._inputs, orders, strict=True):
            query = Query.table(f"({rows.restricted(keys, self._touched if self._keyed else None)})", rows.columns)
            for operator in reversed(order):
                query = operator.batch(query)
            queries.append(query)
        result = node.batch(*queries).sql()
        found = store.schema(result)
        super().__init__(found, False, below)
        self._result = store.prepare(result)
        self._before = store.feed(found)
        columns = ", ".join(quoted(column) for column in found.names)
        self._difference = store.prepare(
            f"SELECT {columns}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF} FROM ("
            f"SELECT {columns}, 1 AS {DIFF} FROM ({result}) UNION ALL SELECT {columns}, -1 FROM {self._before.name}"
            f") GROUP BY {columns} HAVING sum({DIFF}) <> 0"
        )

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        if all(given is None for given in changes) and not (at.first and not self._keyed):
            return None
        for rows, given in zip(self._inputs, changes, strict=True):
            rows.feed.table = fitted(given, rows.feed)
        if self._keyed:
            self._touched.table = self._find_touched()
        # Nothing was shown before the first epoch, not even the one row of an aggregate over no rows.
        self._before.table = pa.Table.from_batches([], self._before.schema) if at.first else self._result()
        for rows, given in zip(self._inputs, changes, strict=True):
            if given is not None:
                rows.add()
        return some(self._difference())
