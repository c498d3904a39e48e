"""Partial steps: keyed aggregates and distinct rows, as values by key that each epoch folds its rows into.

An epoch's rows are grouped: a row for each key, with its partial columns. These are folded into a `KeyedStore`, which
knows the values before and after, so the row that was shown is retracted and the new one inserted without asking
anybody. No cost grows with the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from velaria_core.changes import DIFF_FIELD
from velaria_core.execution.keyed_log import KeyedLog
from velaria_core.execution.keyed_store import Folded, KeyedStore
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Changes, Moment, Step, some
from velaria_core.execution.steps.grouping import Grouped, Grouper, differ, hash_of, value
from velaria_core.execution.vectors import Array, Rows, Vector, array_of, integers
from velaria_core.execution.watermark import TimeColumn
from velaria_core.logical.event_time import END, Times


class GroupedStep(Step):
    """What steps by partial columns share: their grouper, and when event time closes their keys.

    Attributes:
        splits_by: columns of the rows below by which they can be split among workers; none where all keys are computed.
    """

    is_net = True
    splits_by: tuple[str, ...] = ()

    def __init__(
        self, store: Store, grouper: Grouper, fields: Sequence[pa.Field], append_only: bool, below: Step, times: Times
    ) -> None:
        super().__init__(pa.schema(fields), append_only, [below])
        self.grouper = grouper
        names = [key for (key, _), _ in grouper.plan.keys]
        bounds = [(f"k{at}", times[key]) for at, key in enumerate(names) if key in times]
        self._times = [(TimeColumn(store, grouper.schema, key, bound.kind), bound.span_us) for key, bound in bounds]

    def _closes(self, keys: pa.Table) -> Array | None:
        """When event time closes each key; never but at the end for one without a time."""
        found: Array | None = None
        for column, span_us in self._times:
            values, valid, *_ = column.of(keys)
            closes = values + span_us if valid is None else np.where(valid, values + span_us, END)
            found = closes if found is None else np.minimum(found, closes)
        return found

    def _in_time(self, grouped: Grouped, closes: Array, late_before_us: int | None) -> tuple[Grouped, Array]:
        """Without the keys that were closed as the epoch began; a row that is in several counts once."""
        if late_before_us is None:
            return grouped, closes
        late = closes <= late_before_us
        if not late.any():
            return grouped, closes
        self.late_dropped_rows = int(grouped.rows[late].sum())
        return grouped.take(~late), closes[~late]


class PartialsStep(GroupedStep):
    """Values by key: what was shown for a key goes, what holds now comes, and nothing where they are the same. Without
    calls a step gives distinct keys, which over rows that only come only come too. What event time closes is
    forgotten."""

    impl = "partials"

    def __init__(self, store: Store, name: str, grouper: Grouper, below: Step, times: Times) -> None:
        plan = grouper.plan
        fields = [pa.field(key, kind) for (key, _), kind in plan.keys]
        fields += [pa.field(metric, one.kind) for metric, one in plan.metrics]
        super().__init__(store, grouper, fields, below.append_only and not plan.metrics, below, times)
        self._plan, self._keys = plan, len(plan.keys)
        self.impl_reason = "values by key are folded in memory"
        self.impl_reason += ("" if self._keys else "; there is one key") + grouper.impl_reason
        kinds = [kind for _, kind in plan.keys]
        columns = [(partial.fold, kind) for partial, kind in plan.partials]
        self._kept = KeyedStore(kinds, columns, closes=bool(self._times))
        self._log: KeyedLog | None = None
        if store.durable:
            forgets = bool(self._times) or plan.rows is not None
            self._log = KeyedLog(store, name, self._kept, kinds, hash_of(kinds), forgets=forgets)
            self._forget_empty()

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        self.late_dropped_rows = 0
        made: Changes = None
        if given is not None or (at.first and not self._keys):
            made = self._folded(given, at)
        self._close(at.watermark_us)
        return made

    def _folded(self, given: Changes, at: Moment) -> Changes:
        """The changes that follow from rows."""
        grouped = self.grouper.grouped(given)
        closes = self._closes(grouped.keys)
        if closes is not None:
            grouped, closes = self._in_time(grouped, closes, at.late_before_us)
        if not len(grouped):
            return None
        keys = grouped.key_columns
        folded = self._kept.fold(grouped.hashes, keys, grouped.columns, closes)
        if self._log is not None:
            self._log.append(keys, folded)
        if self._plan.rows is not None and self._keys:
            self._kept.forget(folded.slots[folded.new[self._plan.rows].data == 0])
        return self._shown(keys, folded, at)

    def _shown(self, keys: Sequence[pa.Array], folded: Folded, at: Moment) -> Changes:
        """What the fold changes in the rows that are shown."""
        plan = self._plan
        before, after = folded.known, np.ones(len(folded.slots), np.bool_)
        if not self._keys:
            before = ~after if at.first else after
        elif plan.rows is not None:
            counts = folded.new[plan.rows].data
            before, after = before & (folded.old[plan.rows].data > 0), counts > 0
        changed = before != after
        values = []
        for _, metric in plan.metrics:
            old, new = value(metric, folded.old), value(metric, folded.new)
            changed |= differ(old, new)
            values.append((metric.kind, old, new))
        coming = np.flatnonzero(changed & after)
        if self.append_only:
            return some(pa.Table.from_arrays([_taken(key, coming) for key in keys], schema=self.schema))
        going = np.flatnonzero(changed & before)
        if not len(going) and not len(coming):
            return None
        columns = [pa.chunked_array([_taken(key, going), _taken(key, coming)]) for key in keys]
        for kind, old, new in values:
            parts = [array_of(_part(old, going), kind), array_of(_part(new, coming), kind)]
            columns.append(pa.chunked_array(parts))
        diffs = np.ones(len(going) + len(coming), np.int64)
        diffs[: len(going)] = -1
        columns.append(pa.chunked_array([integers(diffs)]))
        return pa.Table.from_arrays(columns, schema=self.schema.append(DIFF_FIELD))

    def _close(self, watermark_us: int | None) -> None:
        """Forget the keys that this watermark closes: no row comes for them that is not late."""
        if self._times and watermark_us is not None:
            self._kept.forget(self._kept.closed(watermark_us))

    def _forget_empty(self) -> None:
        """Forget the keys of which no row is left."""
        if self._plan.rows is not None and self._keys:
            slots = self._kept.alive(0, self._kept.count)
            self._kept.forget(slots[self._kept.values(slots)[self._plan.rows].data == 0])
            self.committed()

    def restored(self, watermark_us: int | None) -> None:
        # What this watermark has closed is in the log, and done with.
        self._close(watermark_us)
        self.committed()

    def state_rows(self) -> int:
        return self._kept.live

    def state_bytes(self) -> int:
        return self._kept.nbytes

    def committed(self) -> None:
        moved = self._kept.committed()
        if self._log is not None:
            self._log.committed(moved)

    def rolled_back(self) -> None:
        self._kept.rolled_back()
        if self._log is not None:
            self._log.rolled_back()


def _taken(array: pa.Array, rows: Rows) -> pa.Array:
    """The values at rising rows; the array itself for all of them."""
    return array if len(rows) == len(array) else array.take(integers(rows))


def _part(vector: Vector, rows: Rows) -> Vector:
    return vector if len(rows) == len(vector) else vector.take(rows)
