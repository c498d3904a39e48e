"""Applied steps: a user's function meets the rows of an epoch and what it kept for their keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from velaria_core.changes import DIFF
from velaria_core.errors import DataError
from velaria_core.execution.applied import Call, in_order
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Changes, Moment, Step, fitted, some
from velaria_core.execution.steps.held import Hashing, log_by_key
from velaria_core.logical.event_time import END
from velaria_core.logical.operators import ApplyInBatches
from velaria_core.types import quoted


class AppliedStep(Step):
    """Over rows that only come: one call an epoch, with the rows, and the states of their keys out of a table."""

    impl = "python-function"
    impl_reason = "a function of the program is called once an epoch, with the states of the keys that have rows"

    def __init__(self, store: Store, name: str, node: ApplyInBatches, below: Step) -> None:
        super().__init__(node.output, True, [below])
        self._call = Call(node, below.schema)
        self._rows = store.feed(below.schema)
        self._sorted = store.prepare(in_order(node, self._rows.name))
        self._stateful = node.state is not None
        self.waits = node.expires is not None
        if not self._stateful:
            return
        kept = self._call.state
        self._table = store.table(name, kept)
        self._old, self._new = store.feed(kept), store.feed(kept)
        self._watermark = store.feed(pa.schema([("us", pa.int64())]))
        columns = ", ".join(f"s.{quoted(column)}" for column in kept.names)
        keys = ", ".join(map(quoted, node.keys))
        order = ", ".join(f"s.{quoted(key)}" for key in node.keys)

        def same(other: str) -> str:
            return " AND ".join(f"s.{quoted(key)} IS NOT DISTINCT FROM {other}.{quoted(key)}" for key in node.keys)

        touched = f"SELECT {columns} FROM {self._table} AS s SEMI JOIN {self._rows.name} AS k ON {same('k')}"
        if node.expires is not None:
            due = f"epoch_us(s.{quoted(node.expires)})"
            touched += (
                f" UNION ALL SELECT {columns} FROM {self._table} AS s ANTI JOIN {self._rows.name} AS k ON {same('k')} "
                f"WHERE {due} <= (SELECT us FROM {self._watermark.name})"
            )
            self._find_due = store.prepare(f"SELECT CAST(min({due}) AS BIGINT) AS us FROM {self._table} AS s")
        self._find_old = store.prepare(f"SELECT {columns} FROM ({touched}) AS s ORDER BY {order}")
        # A state that is not of a called key, or comes twice, would be doubled or lost at the next call.
        called = f"(SELECT {keys} FROM {self._rows.name} UNION ALL SELECT {keys} FROM {self._old.name})"
        self._find_strange = store.prepare(
            f"SELECT {keys}, 1 AS twice FROM {self._new.name} GROUP BY {keys} HAVING count(*) > 1 UNION ALL "
            f"SELECT {order}, 0 FROM {self._new.name} AS s ANTI JOIN {called} AS k ON {same('k')} LIMIT 1"
        )
        self._forget = store.command(f"DELETE FROM {self._table} AS s USING {self._old.name} AS k WHERE {same('k')}")
        self._keep = store.command(f"INSERT INTO {self._table} SELECT * FROM {self._new.name}")
        self._count = store.prepare(f"SELECT count(*) FROM {self._table}")
        self._recall()

    def _recall(self) -> None:
        """What the table says: how many states there are; when one is due is asked when it matters."""
        self._states = int(self._count().column(0)[0].as_py())
        self._due_us: int | None = None
        self._asked = False

    @property
    def scanned(self) -> str:
        return "what the function keeps is in a table" if self._stateful else ""

    def state_rows(self) -> int:
        return self._states if self._stateful else 0

    def state_bytes(self) -> int:
        # By the width of the states that were kept last; of none before that, as after a restart.
        rows = self._new.table.num_rows if self._stateful else 0
        return int(self._states * self._new.table.nbytes / rows) if rows else 0

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        if given is None and not self.due(at.watermark_us, at.now_ms):
            return None
        self._rows.table = fitted(given, self._rows)
        rows = self._sorted()
        if not self._stateful:
            return some(self._call(rows, self._call.state.empty_table(), at.watermark_us)[0])
        self._watermark.table = _one(at.watermark_us if at.watermark_us is not None else -END)
        self._old.table = self._find_old()
        output, self._new.table = self._call(rows, self._old.table, at.watermark_us)
        if self._new.table.num_rows:
            self._check()
        if self._old.table.num_rows:
            self._forget()
        if self._new.table.num_rows:
            self._keep()
        self._states += self._new.table.num_rows - self._old.table.num_rows
        self._asked = False
        return some(output)

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        """Whether the watermark has come to a time that a state waits for."""
        del now_ms
        if not self.waits or watermark_us is None:
            return False
        if not self._asked:
            self._due_us = self._find_due().column(0)[0].as_py()
            self._asked = True
        return self._due_us is not None and self._due_us <= watermark_us

    def _check(self) -> None:
        strange = self._find_strange()
        if strange.num_rows:
            (row,) = strange.to_pylist()
            why = "two rows for" if row.pop("twice") else "a row for, which was not among its rows or states,"
            key = ", ".join(f"{name} {value!r}" for name, value in row.items())
            raise DataError(
                "function.state",
                f"{self._call.name}, its state: {why} {key}",
                hint="give one row of state for each key that is to be kept, out of those it was called for",
            )

    def rolled_back(self) -> None:
        if self._stateful:
            self._recall()


class ReappliedStep(Step):
    """Over rows that also go: the touched keys are computed anew over all their rows, before and after.

    What a function kept cannot be taken back, so it keeps nothing from call to call; the rows are the state.
    """

    is_net = True
    impl = "python-function-anew"
    impl_reason = "rows of the input also go, so a function of the program is called with all rows of the touched keys"

    def __init__(self, store: Store, name: str, node: ApplyInBatches, below: Step) -> None:
        super().__init__(node.output, False, [below])
        self._call = Call(node, below.schema)
        hashing = Hashing([[below.schema.field(key).type] for key in node.keys], joins=False)
        self._rows = log_by_key(store, name, below.schema, below.append_only, node.keys, hashing)
        touched = f"SELECT DISTINCT {', '.join(f'{quoted(k)} AS k{at}' for at, k in enumerate(node.keys))} FROM "
        touched += self._rows.feed.name
        self._touched = store.feed(store.schema(touched))
        self._find_touched = store.prepare(touched)
        self._all = store.prepare(in_order(node, f"({self._rows.restricted(node.keys, self._touched)})"))
        self._before, self._after = store.feed(node.output), store.feed(node.output)
        columns = ", ".join(map(quoted, node.output.names))
        self._difference = store.prepare(
            f"SELECT {columns}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF} FROM ("
            f"SELECT {columns}, 1 AS {DIFF} FROM {self._after.name} UNION ALL "
            f"SELECT {columns}, -1 FROM {self._before.name}) GROUP BY {columns} HAVING sum({DIFF}) <> 0"
        )

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        (given,) = changes
        if given is None:
            return None
        self._rows.feed.table = fitted(given, self._rows.feed)
        self._touched.table = self._find_touched()
        self._rows.find(self._rows.keys)
        self._before.table = self._result()
        self._rows.add()
        self._after.table = self._result()
        return some(self._difference())

    @property
    def scanned(self) -> str:
        return self._rows.scanned

    def state_rows(self) -> int:
        return self._rows.entries

    def state_bytes(self) -> int:
        return self._rows.nbytes

    def committed(self) -> None:
        self._rows.committed()

    def rolled_back(self) -> None:
        self._rows.rolled_back()

    def _result(self) -> pa.Table:
        rows = self._all()
        if not rows.num_rows:
            return self._before.schema.empty_table()
        return self._call(rows, self._call.state.empty_table(), END)[0]


def _one(value: int) -> pa.Table:
    return pa.table([pa.Array.from_buffers(pa.int64(), 1, [None, pa.py_buffer(np.array([value], np.int64))])], ["us"])
