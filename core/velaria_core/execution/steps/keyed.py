"""Keyed steps: what is neither linear nor bilinear is computed for the keys that were touched, before and after."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from velaria_core.changes import DIFF
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import COUNT, Changes, Moment, Step, fitted, some
from velaria_core.execution.steps.rows import Log, Rows
from velaria_core.logical.incremental import Keyed
from velaria_core.logical.node import Node
from velaria_core.logical.query import Query
from velaria_core.types import quoted


class KeyedStep(Step):
    """The keys that an epoch touched, computed anew; what changed is the difference to what was shown of them before.

    With no key the whole result is one key. State is the rows of every input. `orders` are the nodes between an input
    and `node` that put its rows in the order that `node` reads.

    What was shown is kept too where equal rows need not give equal results (`Keyed.shown_by`): a `first`, a row number
    among ties or a sum of floating point numbers depends on the order in which the engine meets the rows, and a row
    that was never shown must not be retracted. Without a key it always is, as keeping the little that changed costs
    less than computing all of it twice. Otherwise it is computed from the rows as they were.
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
        shape = node.stream()
        shown_by = shape.shown_by if isinstance(shape, Keyed) and self._keyed else ()
        queries = []
        if self._keyed:
            parts = [
                f"SELECT {', '.join(f'{quoted(key)} AS k{at}' for at, key in enumerate(keys))} FROM {rows.feed.name}"
                for keys, rows in zip(by, self._inputs, strict=True)
            ]
            touched = f"SELECT DISTINCT * FROM ({' UNION ALL '.join(parts)})"
            self._touched = store.feed(store.schema(touched))
            self._find_touched = store.prepare(touched)
        touched_keys = self._touched if self._keyed else None
        for keys, rows, order in zip(by, self._inputs, orders, strict=True):
            query = Query.table(f"({rows.restricted(keys, touched_keys)})", rows.columns)
            for operator in reversed(order):
                query = operator.batch(query)
            queries.append(query)
        result = node.batch(*queries).sql()
        found = store.schema(result)
        super().__init__(found, False, below)
        columns = ", ".join(quoted(column) for column in found.names)
        self._shown: Log | None = None
        if shown_by is None:
            self._result = store.prepare(result)
            self._before = store.feed(found)
            before = f"SELECT {columns}, -1 FROM {self._before.name}"
        else:
            self._shown = Log(store, f"{name}_shown", found, append_only=False)
            before = f"SELECT {columns}, -{COUNT} FROM {self._shown.entries_of(shown_by, touched_keys)}"
            if self._keyed:
                self.impl_reason = "the touched keys are computed anew and compared with what was shown of them"
            else:
                self.impl, self.impl_reason = (
                    "whole-input",
                    "without a key of its own it is computed anew from all rows",
                )
        self._difference = store.prepare(
            f"SELECT {columns}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF} FROM ("
            f"SELECT {columns}, 1 AS {DIFF} FROM ({result}) UNION ALL {before}"
            f") GROUP BY {columns} HAVING sum({DIFF}) <> 0"
        )

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        # Of no rows at all an aggregate without keys shows one row, from the first epoch on.
        if all(given is None for given in changes) and not (at.first and not self._keyed):
            return None
        for rows, given in zip(self._inputs, changes, strict=True):
            rows.feed.table = fitted(given, rows.feed)
        if self._keyed:
            self._touched.table = self._find_touched()
        if self._shown is None:
            self._before.table = pa.Table.from_batches([], self._before.schema) if at.first else self._result()
        for rows in self._inputs:
            rows.add()
        made = some(self._difference())
        if self._shown is not None and made is not None:
            self._shown.take(made)
        return made

    def state_rows(self) -> int:
        return sum(log.entries for log in self._logs())

    def state_bytes(self) -> int:
        return sum(log.nbytes for log in self._logs())

    def rolled_back(self) -> None:
        for log in self._logs():
            log.rolled_back()

    def _logs(self) -> list[Log]:
        return [*self._inputs, *([self._shown] if self._shown is not None else [])]
