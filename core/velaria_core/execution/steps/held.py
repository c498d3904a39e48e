"""Held logs: the rows of a step that is asked for some of their keys, found without reading the others.

The rows are in memory (`execution/held_rows.py`). Where the query is durable, its table has them too, in each epoch's
transaction, and a restart reads them once. What statements read is what was found of the keys that an epoch asks for.

A row that goes is an entry with a negative count, as in the table. Where entries that cancel have piled up, each epoch
sums those of a part of the keys, in proportion to its own rows: no epoch pays for all of them.

Invariant: what all logs of a query hold takes at most half of its memory limit. A log that would take more is in its
table from then on, and finding reads the keys of all its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from velaria_core.execution.held_rows import HeldRows, can_be_held
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import COUNT
from velaria_core.execution.steps.rows import SLACK_ROWS, Log
from velaria_core.execution.vectors import Array, Vector, array_of, vector_of, whole
from velaria_core.types import duckdb_type, quoted

_READ_ROWS: Final = 1 << 18
HASH: Final = "h"
_PART_TIMES: Final = 4  # so many entries are summed for each that came, which leaves a third more than there are rows


class Hashing:
    """How the keys of several logs are hashed, so that equal keys have one hash: as these types, by place.

    Attributes:
        kinds: for each column of the key the type as which it is hashed; None leaves it out.
        joins: NULL meets nothing, and has no hash.
    """

    def __init__(self, kinds: Sequence[Sequence[pa.DataType]], *, joins: bool) -> None:
        """`kinds` are the types of each column of the key in all the logs."""
        self.kinds = [_common(several) for several in kinds]
        self.joins = joins

    def __bool__(self) -> bool:
        return any(kind is not None for kind in self.kinds)

    def takes(self, kinds: Sequence[pa.DataType]) -> bool:
        """Whether a key of these types is hashed as the others are."""
        return all(mine is None or _common([mine, kind]) == mine for mine, kind in zip(self.kinds, kinds, strict=True))

    def sql(self, columns: Sequence[str]) -> str:
        """SQL of the hash of these columns."""
        used = [(quoted(name), kind) for name, kind in zip(columns, self.kinds, strict=True) if kind is not None]
        made = f"hash({', '.join(f'CAST({name} AS {duckdb_type(kind)})' for name, kind in used)})"
        if not self.joins:
            return made
        return f"CASE WHEN {' AND '.join(f'{name} IS NOT NULL' for name, _ in used)} THEN {made} END"


def _common(kinds: Sequence[pa.DataType]) -> pa.DataType | None:
    """The type in which equal values of all these types are one; None where that is not known."""
    if not all(can_be_held(kind) for kind in kinds):
        return None
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0]
    return pa.int64() if all(pa.types.is_integer(kind) and kind != pa.uint64() for kind in kinds) else None


class HeldLog(Log):
    """A log whose statements read the entries that `find` found, and those that were added since."""

    def __init__(
        self, store: Store, name: str, schema: pa.Schema, append_only: bool, keys: Sequence[str], hashing: Hashing
    ) -> None:
        super().__init__(store, name, schema, append_only)
        self._found = store.feed(self._schema)
        self.source = self._found.name
        self._hashed_by = hashed = hashing.sql(keys)
        self._hash = store.prepare(f"SELECT {hashed} AS {HASH} FROM {self.feed.name}")
        self._hashed: tuple[pa.Table, pa.Array] | None = None
        self._asked = store.feed(pa.schema([(HASH, pa.uint64())]))
        if not append_only:
            self._part = store.feed(self._schema)
            listed = ", ".join(quoted(column) for column in self.columns)
            self._sum_part = store.prepare(
                f"SELECT *, {hashed} AS {HASH} FROM (SELECT {listed}, CAST(sum({COUNT}) AS BIGINT) AS {COUNT} "
                f"FROM {self._part.name} GROUP BY {listed} HAVING sum({COUNT}) <> 0)"
            )
        self._is_in_table = store.durable  # every entry
        self._is_leaving = False  # memory, once the epoch is durable
        self.held = HeldRows(self._schema, None if append_only else COUNT)
        if store.durable:
            self._restore()

    # --- what the step asks --------------------------------------------------------------------------------------

    def hashes(self) -> Array:
        """(n,) uint64: those of the keys that are fed, less NULL where that meets nothing."""
        found = self._hashes()
        return vector_of(found.drop_null() if found.null_count else found).data

    def find(self, hashes: Array) -> None:
        """Statements read the entries of the keys that have these hashes, and perhaps of some others."""
        if self.held is not None:
            self._found.table = self.held.find(hashes)
        else:
            kind = self._asked.schema.types[0]
            self._asked.table = pa.Table.from_arrays([array_of(Vector(hashes), kind)], schema=self._asked.schema)
            sql = f"SELECT * FROM {self.table} WHERE {self._hashed_by} IN (SELECT {HASH} FROM {self._asked.name})"
            self._found.table = self._cursor.run(sql).cast(self._schema)

    def add(self) -> None:
        changes = self.feed.table
        if not changes.num_rows:
            return
        if self._is_in_table:
            super().add()
        rows = pa.Table.from_arrays(changes.columns, schema=self._schema)
        self._found.table = pa.concat_tables([self._found.table, rows])
        if self.held is None:
            return
        self._hold(rows, pa.chunked_array([self._hashes()]))
        if not self.append_only and self.held.live > max(self.held.sum, 0) * 3 // 2 + SLACK_ROWS:
            self._sum_some(_PART_TIMES * changes.num_rows)
        if not self._is_leaving and not self._store.may_hold(self.table, self.held.nbytes):
            self._leave()

    # --- what is kept ----------------------------------------------------------------------------------------------

    @property
    def entries(self) -> int:
        return super().entries if self.held is None else self.held.live

    @property
    def nbytes(self) -> int:
        return super().nbytes if self.held is None else self.held.nbytes

    def committed(self) -> None:
        self._found.table = self._schema.empty_table()
        if self._is_leaving:
            self.held, self._is_leaving = None, False
            self._store.may_hold(self.table, 0)
            self.scanned = "what it keeps has outgrown its part of the memory limit"
        if self.held is not None:
            self.held.committed()

    def rolled_back(self) -> None:
        super().rolled_back()
        self._found.table = self._schema.empty_table()
        if self.held is not None:
            self.held.rolled_back()
            self._is_in_table, self._is_leaving = self._store.durable, False

    # --- memory ------------------------------------------------------------------------------------------------------

    def _hashes(self) -> pa.Array:
        """Of the rows that are fed."""
        if self._hashed is None or self._hashed[0] is not self.feed.table:
            self._hashed = (self.feed.table, whole(self._hash().column(0)))
        return self._hashed[1]

    def _hold(self, rows: pa.Table, hashes: pa.ChunkedArray) -> None:
        """Rows without a hash are asked for by nobody."""
        assert self.held is not None
        if hashes.null_count:
            there = hashes.is_valid()
            rows, hashes = rows.filter(there), hashes.filter(there)
        self.held.append(rows, vector_of(whole(hashes)).data)

    def _with_hash(self, read: pa.Table) -> tuple[pa.Table, pa.ChunkedArray]:
        """The rows, and the hash that was read as their last column; one of their own may have its name."""
        columns = read.columns
        return pa.table(columns[:-1], self._schema.names).cast(self._schema), columns[-1]

    def _sum_some(self, rows: int) -> None:
        """Replace the entries of the keys that come next by what they add up to."""
        assert self.held is not None
        positions = self.held.part(rows)
        self._part.table = self.held.take(positions)
        summed = self._sum_part()
        self._part.table = self._schema.empty_table()
        if summed.num_rows < len(positions):
            self.held.forget(positions)
            self._hold(*self._with_hash(summed))

    def _leave(self) -> None:
        """Have every entry in the table, which is what is read once the epoch is durable."""
        assert self.held is not None
        self._is_leaving = True
        if self._is_in_table:
            return
        found, positions = self._found.table, self.held.alive()
        for first in range(0, len(positions), _READ_ROWS):
            self._found.table = self.held.take(positions[first : first + _READ_ROWS])
            self._cursor.rows(f"INSERT INTO {self.table} SELECT * FROM {self._found.name}")
        self._found.table = found
        super().forgot()
        self._is_in_table = True

    def _restore(self) -> None:
        """Hold what the table has, as far as that may be."""
        assert self.held is not None
        sql = f"SELECT *, {self._hashed_by} AS {HASH} FROM {self.table}"
        for batch in self._cursor.batches(self._cursor.reader(sql, _READ_ROWS)):
            self._hold(*self._with_hash(pa.Table.from_batches([batch])))
            if not self._store.may_hold(self.table, self.held.nbytes):
                self._is_leaving = True
                break
        self.committed()


def log_by_key(
    store: Store, name: str, schema: pa.Schema, append_only: bool, keys: Sequence[str], hashing: Hashing
) -> Log:
    """A log of rows that are asked for by key: held, where their types can be."""
    if not hashing.kinds:
        why = "no column of one side is to equal one of the other"
    elif not hashing:
        why = "its keys are of types that are hashed in no common way"
    elif (strange := next((field for field in schema if not can_be_held(field.type)), None)) is not None:
        why = f"{strange.name} is of a type that is kept in tables only ({strange.type})"
    elif not hashing.takes([schema.field(key).type for key in keys]):
        why = "the keys of its result are of other types than those of its rows"
    else:
        return HeldLog(store, name, schema, append_only, keys, hashing)
    made = Log(store, name, schema, append_only)
    made.scanned = why
    return made
