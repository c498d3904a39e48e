"""Applied steps: a user's function meets the rows of an epoch and what it kept for their keys."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from velaria_core.errors import DataError
from velaria_core.execution.applied import Call, in_order
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import AT, Changes, Moment, Step, fitted, some
from velaria_core.execution.steps.held import Hashing, Keys, log_by_key
from velaria_core.execution.steps.horizon import one_row
from velaria_core.execution.steps.rows import Closes, difference, replacing
from velaria_core.logical.event_time import END, TimeKind
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
        state = self._call.state
        closes = None
        if node.expires is not None:
            closes = Closes(node.expires, TimeKind.TIMESTAMP, timeless=False)
        hashing = Hashing([[state.field(key).type] for key in node.keys], joins=False)
        self._kept = log_by_key(store, name, state, False, node.keys, hashing, closes, replaces=True)
        self._asked = Keys(store, self._rows, node.keys, hashing)
        self._old, self._new = store.feed(state.append(pa.field(AT, pa.int64()))), store.feed(state)
        self._watermark = store.feed(pa.schema([("us", pa.int64())]))
        keys = ", ".join(map(quoted, node.keys))
        order = ", ".join(f"s.{quoted(key)}" for key in node.keys)
        same = " AND ".join(f"s.{quoted(key)} IS NOT DISTINCT FROM k.{quoted(key)}" for key in node.keys)
        touched = self._kept.current(node.keys, self._rows, node.keys)
        if closes is not None:
            # Of the keys that have no rows, those that are due.
            rest = f"({self._kept.current(node.keys, None)}) AS s ANTI JOIN {self._rows.name} AS k ON {same}"
            touched += (
                f" UNION ALL SELECT s.* FROM {rest} WHERE {closes.sql} <= (SELECT us FROM {self._watermark.name})"
            )
        self._find_old = store.prepare(f"SELECT * FROM ({touched}) AS s ORDER BY {order}")
        # A state that is not of a called key, or comes twice, would be doubled or lost at the next call.
        called = f"(SELECT {keys} FROM {self._rows.name} UNION ALL SELECT {keys} FROM {self._old.name})"
        self._find_strange = store.prepare(
            f"SELECT {keys}, 1 AS twice FROM {self._new.name} GROUP BY {keys} HAVING count(*) > 1 UNION ALL "
            f"SELECT {order}, 0 FROM {self._new.name} AS s ANTI JOIN {called} AS k ON {same} LIMIT 1"
        )
        self._find_changed = store.prepare(replacing(state.names, self._new.name, self._old.name))

    @property
    def scanned(self) -> str:
        return self._kept.scanned if self._stateful else ""

    def state_rows(self) -> int:
        return self._kept.entries if self._stateful else 0

    def state_bytes(self) -> int:
        return self._kept.nbytes if self._stateful else 0

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        if given is None and not self.due(at.watermark_us, at.now_ms):
            return None
        self._rows.table = fitted(given, self._rows)
        rows = self._sorted()
        if not self._stateful:
            return some(self._call(rows, self._call.state.empty_table(), at.watermark_us)[0])
        watermark_us = at.watermark_us if at.watermark_us is not None else -END
        self._watermark.table = one_row(self._watermark.schema, watermark_us)
        self._kept.find(self._asked, watermark_us if self.waits else None)
        self._old.table = self._find_old()
        output, self._new.table = self._call(rows, self._old.table.drop_columns([AT]), at.watermark_us)
        if self._new.table.num_rows:
            self._check()
        if (changed := some(self._find_changed())) is not None:
            self._kept.replace(changed)
        return some(output)

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        """Whether the watermark has come to a time that a state waits for."""
        del now_ms
        return self.waits and watermark_us is not None and self._kept.has_until(watermark_us)

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

    def committed(self) -> None:
        if self._stateful:
            self._kept.committed()

    def rolled_back(self) -> None:
        if self._stateful:
            self._kept.rolled_back()


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
        self._difference = store.prepare(difference(node.output.names, self._after.name, self._before.name))

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
