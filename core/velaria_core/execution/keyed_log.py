"""Keyed log: what makes a keyed store durable.

Every epoch appends what it changed, in its own transaction: the keys that are new, each under a number, and the values
of those it touched, under the numbers alone. A restart reads both from the beginning; the last values of a key count.

So that a log stays within a few times the keys, and no epoch ever pays for all of them, it is written in rounds: in a
round every epoch also writes some rows that nothing has written since the round began, about as many as it had to, and
when none is left everything older goes. That is the fuzzy checkpoint of databases (Hagmann, A Crash Recovery Scheme
for a Memory-Resident Database System, IEEE Transactions on Computers 1986), spread evenly over the epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from velaria_core.execution.keyed_store import Folded, KeyedStore, hashes_of
from velaria_core.execution.state import Store
from velaria_core.execution.vectors import Mask, Rows, Vector, array_of, integers, vector_of, whole
from velaria_core.types import quoted

ROWS_MIN: Final = 100_000  # a log of so many rows is not worth a round
_TIMES_LIVE: Final = 3
_WRITE_ROWS_MIN: Final = 4096
_READ_ROWS: Final = 1 << 18
_NUMBER: Final = "number"
_CLOSES: Final = "closes_us"

Columns = list[pa.Array]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a log stands.

    Attributes:
        round: which round it is; rounds take turns in two tables.
        rows: in the table of even rounds, and in that of odd ones.
        next: while the table before this round's is still there, the first slot that was not looked at; else None.
        end: the slots that were there as the round began.
    """

    round: int = 0
    rows: tuple[int, int] = (0, 0)
    next: int | None = None
    end: int = 0

    @property
    def table(self) -> int:
        return self.round % 2

    def holding(self, table: int, rows: int) -> _Place:
        return replace(self, rows=(rows, self.rows[1]) if table == 0 else (self.rows[0], rows))


class Rounds:
    """A log of rows by slot. `read` gives the columns of slots as they are now."""

    def __init__(
        self, store: Store, name: str, fields: Sequence[pa.Field], kept: KeyedStore, read: Callable[[Rows], Columns]
    ) -> None:
        self._store, self._kept, self._read = store, kept, read
        self._feed = store.feed(pa.schema([pa.field(_NUMBER, pa.int64()), *fields]))
        self._names = [f"{name}_{at}" for at in (0, 1)]
        self._inserts = [self._made(table) for table in self._names]
        self._number = store.table(f"{name}_round", pa.schema([pa.field("round", pa.int64())]))
        self._written: Mask = np.zeros(0, np.bool_)  # by slot, since the round began
        self._marked: Rows = np.empty(0, np.int64)  # of these, since the last commit
        self._place = self._restored()
        self._durable = self._place

    def _made(self, name: str) -> Callable[[], None]:
        table = self._store.table(name, self._feed.schema)
        return self._store.command(f"INSERT INTO {table} SELECT * FROM {self._feed.name}")

    def _restored(self) -> _Place:
        cursor = self._store.cursor
        found = cursor.rows(f"SELECT round FROM {self._number}")
        if not found:
            cursor.rows(f"INSERT INTO {self._number} VALUES (0)")
        counts = [cursor.rows(f"SELECT count(*) FROM {quoted(name)}")[0][0] for name in self._names]
        return _Place(found[0][0] if found else 0, (counts[0], counts[1]))

    @property
    def tables(self) -> list[str]:
        """What a restart reads, in this order."""
        return [quoted(self._names[1 - self._place.table]), quoted(self._names[self._place.table])]

    @property
    def rows(self) -> int:
        return sum(self._place.rows)

    def append(self, slots: Rows, numbers: Rows, columns: Columns) -> None:
        """Write rows; at most once an epoch, in its transaction. `numbers` are by slot, of all slots."""
        place = self._place
        settled = place.next is None and self._durable.next is None
        if settled and self.rows > ROWS_MIN + _TIMES_LIVE * self._kept.live:
            place = replace(place, round=place.round + 1, next=0, end=self._kept.count)
            self._written = np.zeros(place.end, np.bool_)
            self._store.cursor.rows(f"UPDATE {self._number} SET round = {place.round}")
        rows = place.rows[place.table] + self._insert(place, slots, numbers, columns)
        if place.next is not None:
            at, more = self._sweep(place.next, place.end, slots)
            place = replace(place, next=at)
            if len(more):
                rows += self._insert(place, more, numbers, self._read(more))
            if at == place.end:
                # Dropped and not emptied: that costs nothing for any number of rows.
                other = 1 - place.table
                self._store.cursor.rows(f"DROP TABLE {quoted(self._names[other])}")
                self._inserts[other] = self._made(self._names[other])
                place = replace(place, next=None).holding(other, 0)
        self._place = place.holding(place.table, rows)

    def _sweep(self, at: int, end: int, touched: Rows) -> tuple[int, Rows]:
        """Some slots that nothing has written in this round, and where to go on."""
        marked = touched[touched < end]
        self._written[marked] = True
        budget = max(len(touched), _WRITE_ROWS_MIN)
        found = []
        while at < end and budget > 0:
            until = min(at + budget, end)
            slots = self._kept.alive(at, until)
            slots = slots[~self._written[slots]]
            found.append(slots)
            budget -= len(slots)
            at = until
        more = np.concatenate(found) if found else np.empty(0, np.int64)
        self._written[more] = True
        self._marked = np.concatenate([self._marked, marked, more])
        return at, more

    def _insert(self, place: _Place, slots: Rows, numbers: Rows, columns: Columns) -> int:
        self._feed.table = pa.Table.from_arrays([integers(numbers[slots]), *columns], schema=self._feed.schema)
        self._inserts[place.table]()
        return len(slots)

    def begin_again(self) -> None:
        """Slots have other numbers now, or nothing is known of a round that was under way: look at all of them."""
        if self._place.next is not None or self._place.rows[1 - self._place.table]:
            self._place = self._durable = replace(self._place, next=0, end=self._kept.count)
            self._written = np.zeros(self._place.end, np.bool_)

    def committed(self) -> None:
        self._durable = self._place
        self._marked = np.empty(0, np.int64)

    def rolled_back(self) -> None:
        """The epoch failed, and its rows are gone."""
        if self._durable.next is not None:
            self._written[self._marked] = False
        self._place = self._durable
        self._marked = np.empty(0, np.int64)


class KeyedLog:
    """The log of one keyed store: its keys, and their values."""

    def __init__(
        self,
        store: Store,
        name: str,
        kept: KeyedStore,
        kinds: Sequence[pa.DataType],
        hashed: str | None,
        *,
        forgets: bool = True,
    ) -> None:
        """`kinds` are the types of the keys, `hashed` is SQL over columns k0, k1, ... of the hash of those
        that are not mixed, if there are such; `forgets` says that keys are forgotten, and may come again."""
        self._cursor, self._kept, self._hashed, self._key_count = store.cursor, kept, hashed, len(kinds)
        key_fields = [pa.field(f"k{at}", kind) for at, kind in enumerate(kinds)]
        if kept.closes_keys:
            key_fields.append(pa.field(_CLOSES, pa.int64()))
        value_fields = [pa.field(f"v{at}", one.kind) for at, one in enumerate(kept.accumulators)]
        self._keys = Rounds(store, f"{name}_keys", key_fields, kept, self._keys_of) if kinds else None
        self._values = Rounds(store, f"{name}_values", value_fields, kept, self._values_of) if value_fields else None
        # A number for each slot, never given twice: slots move, and what was written stays.
        self._numbers: Rows = np.empty(0, np.int64)
        self._next = 0
        self._forgets = forgets
        self._restore()

    def append(self, keys: Sequence[pa.Array], folded: Folded) -> None:
        """Write what a fold changed; once an epoch, inside its transaction."""
        count = self._kept.count
        if count > len(self._numbers):
            self._number(count)
        fresh = np.flatnonzero(~folded.known)
        if self._keys is not None and len(fresh):
            slots = folded.slots[fresh]
            rows = integers(fresh)
            columns = [key if len(fresh) == len(key) else key.take(rows) for key in keys]
            self._keys.append(slots, self._numbers, self._with_closes(slots, columns))
        if self._values is not None:
            self._values.append(folded.slots, self._numbers, self._arrays(folded.new))

    def _number(self, count: int) -> None:
        """Numbers for the slots up to `count`; those that a failed epoch gave are given again to nobody else."""
        more = count - len(self._numbers)
        fresh = np.arange(self._next, self._next + max(more, len(self._numbers) // 4), dtype=np.int64)
        self._numbers = np.concatenate([self._numbers, fresh])
        self._next += len(fresh)

    def _keys_of(self, slots: Rows) -> Columns:
        return self._with_closes(slots, self._kept.keys(slots))

    def _with_closes(self, slots: Rows, keys: Columns) -> Columns:
        return [*keys, integers(self._kept.closes(slots))] if self._kept.closes_keys else keys

    def _values_of(self, slots: Rows) -> Columns:
        return self._arrays(self._kept.values(slots))

    def _arrays(self, values: Sequence[Vector]) -> Columns:
        return [array_of(vector, one.kind) for vector, one in zip(values, self._kept.accumulators, strict=True)]

    def committed(self, slots: Rows | None) -> None:
        """The epoch is durable; `slots` are those that are left, where they have moved."""
        if slots is not None:
            self._numbers = self._numbers[slots]
        for one in self._logs:
            one.committed()
            if slots is not None:
                one.begin_again()

    def rolled_back(self) -> None:
        """The epoch failed."""
        for one in self._logs:
            one.rolled_back()

    @property
    def _logs(self) -> list[Rounds]:
        return [one for one in (self._keys, self._values) if one is not None]

    # --- reading ----------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Put everything that was written into the store, which is empty."""
        if self._keys is not None:
            self._restore_keys(self._keys)
        else:
            self._numbers = np.zeros(1, np.int64)
        self._next = int(self._numbers[-1]) + 1 if len(self._numbers) else 0
        if self._values is not None:
            self._restore_values(self._values)
        self._kept.committed()
        for one in self._logs:
            one.begin_again()

    def _restore_keys(self, log: Rounds) -> None:
        """All keys, in the order of their numbers; of a key that has several, as it came again, the last."""
        names = ", ".join(f"k{at}" for at in range(self._key_count))
        hashed = "NULL" if self._hashed is None else self._hashed
        closes = f", max({_CLOSES})" if self._kept.closes_keys else ""
        every = " UNION ALL ".join(f"SELECT * FROM {table}" for table in log.tables)
        sql = f"SELECT max({_NUMBER}) AS number, {hashed} AS hashed, {names}{closes} FROM ({every})"
        sql += f" GROUP BY {names} ORDER BY number"
        if not self._forgets:
            # Each key was written once, in the order of the numbers: nothing to hold but what is kept.
            sql = f"SELECT {_NUMBER}, {hashed} AS hashed, {names} FROM {log.tables[-1]}"
        numbers = [self._numbers]
        for batch in self._cursor.batches(self._cursor.reader(sql, _READ_ROWS)):
            columns = batch.columns
            keys = columns[2 : 2 + self._key_count]
            closed = vector_of(columns[-1]).data if closes else None
            zero = [one.empty(batch.num_rows) for one in self._kept.accumulators]
            others = None if self._hashed is None else vector_of(columns[1]).data
            self._kept.fold(hashes_of(keys, others), keys, zero, closed, replace=True)
            self._kept.committed()
            numbers.append(np.array(vector_of(columns[0]).data))
        self._numbers = np.concatenate(numbers)

    def _restore_values(self, log: Rounds) -> None:
        """The values in the order in which they were written, which the engine keeps: the last of a key stay."""
        for table in log.tables:
            for batch in self._cursor.batches(self._cursor.reader(f"SELECT * FROM {table}", _READ_ROWS)):
                columns = [whole(pa.chunked_array([column])) for column in batch.columns]
                numbers = vector_of(columns[0]).data
                if self._keys is None:
                    rows = np.arange(len(numbers))[-1:]
                    vectors = [vector_of(column).take(rows) for column in columns[1:]]
                    self._kept.fold(np.zeros(1, np.uint64), [], vectors, replace=True)
                    continue
                slots = np.searchsorted(self._numbers, numbers)
                known = slots < len(self._numbers)
                known[known] = self._numbers[slots[known]] == numbers[known]
                self._kept.put(slots[known], [vector_of(column).take(known) for column in columns[1:]])
