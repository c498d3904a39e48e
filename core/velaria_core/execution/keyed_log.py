"""Keyed log: what makes a keyed store durable.

Every epoch appends the rows that it changed, keys and new values, in the epoch's own transaction; a restart reads the
log from its beginning, and the last row of a key counts. So that the log stays within a few times the keys, and no
epoch ever pays for all of them, it is written in rounds: in a round every epoch also writes some keys that nothing has
touched since the round began, about as many as it changed, and when none is left everything older goes. That is the
fuzzy checkpoint of databases (Lin and Dunham, Segmented Fuzzy Checkpointing, 1997), with the state as its own pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from velaria_core.changes import constant
from velaria_core.execution.keyed_store import KeyedStore
from velaria_core.execution.state import Store
from velaria_core.execution.vectors import Mask, Rows, Vector, array_of, integers, vector_of, whole

_SEQUENCE: Final = "sequence"
_CLOSES: Final = "closes_us"
_ROWS_MIN: Final = 100_000  # a log of so many rows is not worth a round
_TIMES_LIVE: Final = 3
_READ_ROWS: Final = 1 << 18
_WRITE_ROWS_MIN: Final = 4096


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the log stands.

    Attributes:
        sequence: the number of the last append.
        table: which of the two tables is written.
        rows: in each of them.
        next: in a round, the first slot that was not looked at; None outside.
        end: the slots that were there as the round began.
    """

    sequence: int = 0
    table: int = 0
    rows: tuple[int, int] = (0, 0)
    next: int | None = None
    end: int = 0


class KeyedLog:
    """The log of one keyed store, in two tables of the state's database: that of this round and that before it."""

    def __init__(self, store: Store, name: str, kept: KeyedStore, kinds: Sequence[pa.DataType], hashed: str) -> None:
        """`kinds` are the types of the keys, and `hashed` is SQL of their hash over columns k0, k1, ..."""
        self._kept, self._cursor = kept, store.cursor
        self._kinds = kinds
        fields = [pa.field(_SEQUENCE, pa.int64())]
        fields += [pa.field(f"k{at}", kind) for at, kind in enumerate(kinds)]
        fields += [pa.field(f"v{at}", one.kind) for at, one in enumerate(kept.accumulators)]
        if kept.closes_keys:
            fields.append(pa.field(_CLOSES, pa.int64()))
        self._feed = store.feed(pa.schema(fields))
        self._tables = [store.table(f"{name}_{at}", self._feed.schema) for at in (0, 1)]
        self._inserts = [
            store.prepare(f"INSERT INTO {table} SELECT * FROM {self._feed.name}") for table in self._tables
        ]
        self._deletes = [store.prepare(f"DELETE FROM {table}") for table in self._tables]
        self._hashed = hashed
        self._written: Mask = np.zeros(0, np.bool_)  # in a round, by slot
        self._marked: Rows = np.empty(0, np.int64)  # of these, by the epoch at hand
        self._place = self._durable = _Place()

    @property
    def nbytes(self) -> int:
        """An estimate: what the rows take in memory."""
        width = 16 * len(self._feed.schema)
        return sum(self._place.rows) * width

    # --- writing ----------------------------------------------------------------------------------------------------

    def append(self, slots: Rows, keys: Sequence[pa.Array], values: Sequence[Vector]) -> None:
        """Write the values of these distinct keys; once an epoch, inside its transaction."""
        place = replace(self._place, sequence=self._place.sequence + 1)
        if place.next is None and sum(place.rows) > _ROWS_MIN + _TIMES_LIVE * self._kept.live:
            place = replace(place, table=1 - place.table, next=0, end=self._kept.count)
            self._written = np.zeros(place.end, np.bool_)
        written = [len(slots)]
        self._insert(place, slots, keys, values)
        if place.next is not None:
            place, more = self._sweep(place, slots)
            if len(more):
                self._insert(place, more, self._kept.keys(more), self._kept.values(more))
                written.append(len(more))
            if place.next == place.end:
                self._deletes[1 - place.table]()
                place = _with_rows(replace(place, next=None), 1 - place.table, 0)
        self._place = _with_rows(place, place.table, place.rows[place.table] + sum(written))

    def _sweep(self, place: _Place, touched: Rows) -> tuple[_Place, Rows]:
        """The next slots that nothing has written in this round."""
        assert place.next is not None
        budget = max(len(touched), _WRITE_ROWS_MIN)
        marked = touched[touched < place.end]
        self._written[marked] = True
        found: list[Rows] = []
        at = place.next
        while at < place.end and budget > 0:
            end = min(at + budget, place.end)
            slots = self._kept.alive(at, end)
            slots = slots[~self._written[slots]]
            found.append(slots)
            budget -= len(slots)
            at = end
        more = np.concatenate(found) if found else np.empty(0, np.int64)
        self._written[more] = True
        self._marked = np.concatenate([marked, more])
        return replace(place, next=at), more

    def _insert(self, place: _Place, slots: Rows, keys: Sequence[pa.Array], values: Sequence[Vector]) -> None:
        columns = [constant(place.sequence, len(slots)), *keys]
        columns += [array_of(vector, one.kind) for vector, one in zip(values, self._kept.accumulators, strict=True)]
        if self._kept.closes_keys:
            columns.append(integers(self._kept.closes(slots)))
        self._feed.table = pa.Table.from_arrays(columns, schema=self._feed.schema)
        self._inserts[place.table]()

    def committed(self, moved: bool) -> None:
        """The epoch is durable; `moved` says that slots have other numbers now."""
        self._durable = self._place
        if moved and self._place.next is not None:
            # The round begins anew, in the same table: what it has written already is written twice.
            self._place = self._durable = replace(self._place, next=0, end=self._kept.count)
            self._written = np.zeros(self._place.end, np.bool_)
        self._marked = np.empty(0, np.int64)

    def rolled_back(self) -> None:
        """The epoch failed, and its rows are gone."""
        if self._durable.next is not None:
            self._written[self._marked] = False
        self._place = self._durable
        self._marked = np.empty(0, np.int64)

    # --- reading ----------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Fold everything that was written into the store, which is empty."""
        last = [
            self._cursor.rows(f"SELECT coalesce(max({_SEQUENCE}), 0), count(*) FROM {table}")[0]
            for table in self._tables
        ]
        newer = 1 if last[1][0] > last[0][0] else 0
        for table in (1 - newer, newer):
            for part in self._parts(self._tables[table]):
                self._fold(part)
        self._kept.committed()
        self._place = _Place(max(last[0][0], last[1][0]), newer, (last[0][1], last[1][1]))
        if last[1 - newer][1]:
            # A round was under way.
            self._place = replace(self._place, next=0, end=self._kept.count)
            self._written = np.zeros(self._place.end, np.bool_)
        self._durable = self._place

    def _parts(self, table: str) -> Iterator[pa.Table]:
        """The rows of a table in parts, in the order in which they were written; of a key's in a part the last."""
        counts = self._cursor.rows(f"SELECT {_SEQUENCE}, count(*) FROM {table} GROUP BY ALL ORDER BY ALL")
        keys = ", ".join(f"k{at}" for at in range(len(self._kinds))) or "0"
        while counts:
            first, rows = counts.pop(0)
            last = first
            while counts and rows + counts[0][1] <= _READ_ROWS:
                last, more = counts.pop(0)
                rows += more
            sql = f"SELECT *, {self._hashed} AS h FROM {table} WHERE {_SEQUENCE} BETWEEN {first} AND {last}"
            if last > first:
                sql += f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {_SEQUENCE} DESC) = 1"
            yield self._cursor.table(sql)

    def _fold(self, part: pa.Table) -> None:
        columns = [whole(column) for column in part.columns]
        count = len(self._kinds)
        values = [vector_of(column) for column in columns[1 + count : 1 + count + len(self._kept.accumulators)]]
        closes = vector_of(columns[-2]).data if self._kept.closes_keys else None
        self._kept.fold(vector_of(columns[-1]).data, columns[1 : 1 + count], values, closes, replace=True)
        self._kept.committed()


def _with_rows(place: _Place, table: int, rows: int) -> _Place:
    counts = list(place.rows)
    counts[table] = rows
    return replace(place, rows=(counts[0], counts[1]))
