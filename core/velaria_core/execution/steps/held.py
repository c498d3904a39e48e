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

import numpy as np
import pyarrow as pa

from velaria_core.changes import DIFF
from velaria_core.execution.held_rows import HeldRows, can_be_held
from velaria_core.execution.keyed_store import can_be_key
from velaria_core.execution.state import Feed, Store
from velaria_core.execution.steps.base import AT, COUNT
from velaria_core.execution.steps.rows import SLACK_ROWS, Closes, Log
from velaria_core.execution.vectors import Array, Rows, Vector, array_of, integers, is_fixed, storage, vector_of, whole
from velaria_core.execution.watermark import TimeColumn, kept
from velaria_core.types import duckdb_type, quoted

_READ_ROWS: Final = 1 << 18
_HASH: Final = "h"
_PART_TIMES: Final = 4  # so many entries are summed for each that came, which leaves a third more than there are rows


class Hashing:
    """How the keys of several logs are hashed, so that equal keys have one hash: as these types, by place.

    Whole numbers, dates and times are hashed here; for any other type the engine gives the hash with the rows, which
    costs a statement where there was none.

    Attributes:
        kinds: for each column of the key the type as which it is hashed; None leaves it out.
        joins: NULL meets nothing, and has no hash.
    """

    def __init__(self, kinds: Sequence[Sequence[pa.DataType]], *, joins: bool) -> None:
        """`kinds` are the types of each column of the key in all the logs."""
        self.kinds = [_common(several) for several in kinds]
        self.joins = joins
        self._is_plain = all(kind is None or _is_whole(kind) for kind in self.kinds)

    def __bool__(self) -> bool:
        return any(kind is not None for kind in self.kinds)

    def takes(self, kinds: Sequence[pa.DataType]) -> bool:
        """Whether a key of these types is hashed as the others are."""
        return all(mine is None or _common([mine, kind]) == mine for mine, kind in zip(self.kinds, kinds, strict=True))

    def sql(self, columns: Sequence[str]) -> str:
        """SQL of the engine's hash of these columns."""
        used = [(quoted(name), kind) for name, kind in self.used(columns)]
        made = f"hash({', '.join(f'CAST({name} AS {duckdb_type(kind)})' for name, kind in used)})"
        if not self.joins:
            return made
        return f"CASE WHEN {' AND '.join(f'{name} IS NOT NULL' for name, _ in used)} THEN {made} END"

    def beside(self, columns: Sequence[str]) -> str:
        """SQL, after the columns of a select list, of what `of` needs besides."""
        return "" if self._is_plain else f", {self.sql(columns)} AS {_HASH}"

    def of(self, rows: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
        """The hashes of rows that were selected with what is `beside`: (n,) uint64, NULL where there is none."""
        if not self._is_plain:
            return rows.columns[-1]  # a column of the rows may have its name
        made, valid = np.zeros(rows.num_rows, np.uint64), None
        for name, _ in self.used(columns):
            vector = vector_of(whole(rows.column(name)))
            data = vector.data.astype(np.int64).view(np.uint64)
            if vector.valid is not None:
                data[~vector.valid] = _NULL
                valid = vector.valid if valid is None else valid & vector.valid
            # A round of Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
            made = ((made ^ data) + _GAMMA) * _MIX
            made ^= made >> np.uint64(27)
        return pa.chunked_array([array_of(Vector(made * _GAMMA, valid if self.joins else None), pa.uint64())])

    def used(self, columns: Sequence[str]) -> list[tuple[str, pa.DataType]]:
        """Those of a key's columns that are hashed, and as what."""
        return [(name, kind) for name, kind in zip(columns, self.kinds, strict=True) if kind is not None]


_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)
_NULL: Final = np.uint64(0x94D049BB133111EB)


def _is_whole(kind: pa.DataType) -> bool:
    return is_fixed(kind) and storage(kind)[1] == 1 and storage(kind)[0].kind in "iu"


class Keys:
    """The keys of the rows that a feed has, for logs to find what is kept of them."""

    def __init__(
        self, store: Store, feed: Feed, columns: Sequence[str], hashing: Hashing, *, is_hashed: bool = False
    ) -> None:
        """`is_hashed` says that the feed has what is `beside` them."""
        self._feed, self._columns, self._hashing = feed, columns, hashing
        beside = "" if is_hashed else hashing.beside(columns)
        self._select = store.prepare(f"SELECT {beside[2:]} FROM {feed.name}") if beside else None
        self._made: tuple[pa.Table, pa.ChunkedArray] | None = None

    def hashes(self) -> pa.ChunkedArray:
        """(n,) uint64 of the rows that are fed now; NULL for those that meet nothing."""
        rows = self._feed.table
        if self._made is None or self._made[0] is not rows:
            self._made = (rows, self._hashing.of(rows if self._select is None else self._select(), self._columns))
        return self._made[1]

    def scan(self, table: str, columns: Sequence[str], *, others: bool = False) -> str:
        """SQL of the rows of a table with these keys, in these columns of theirs; or of all others."""
        pairs = zip(self._hashing.used(columns), self._hashing.used(self._columns), strict=True)
        same = " AND ".join(
            f"s.{quoted(mine)} {'=' if self._hashing.joins else 'IS NOT DISTINCT FROM'} k.{quoted(theirs)}"
            for (mine, _), (theirs, _) in pairs
        )
        join = "ANTI" if others else "SEMI"
        return f"SELECT s.* FROM {table} AS s {join} JOIN {self._feed.name} AS k ON {same or 'true'}"


def _common(kinds: Sequence[pa.DataType]) -> pa.DataType | None:
    """The type in which equal values of all these types are one; None where that is not known."""
    if not all(can_be_key(kind) for kind in kinds):
        return None
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0]
    return pa.int64() if all(pa.types.is_integer(kind) and kind != pa.uint64() for kind in kinds) else None


class HeldLog(Log):
    """A log whose statements read the entries that `find` found, and those that were added since."""

    keys: Keys

    def __init__(
        self,
        store: Store,
        name: str,
        schema: pa.Schema,
        append_only: bool,
        keys: Sequence[str],
        hashing: Hashing,
        closes: Closes | None = None,
        *,
        replaces: bool = False,
    ) -> None:
        super().__init__(store, name, schema, append_only, closes)
        self._replaces = replaces
        self._closes = closes
        self._times = None if closes is None else TimeColumn(store, self._schema, closes.column, closes.kind)
        self._dropped_us: int | None = None  # entries until then are forgotten, but may be in the table
        self._durable_us: int | None = None  # as of the last epoch that is durable
        self._found = store.feed(self._schema.append(pa.field(AT, pa.int64())) if replaces else self._schema)
        self.source = self._found.name
        self._by, self._hashing = keys, hashing
        self.keys = Keys(store, self.feed, keys, hashing)
        if not append_only:
            self._part = store.feed(self._schema)
            listed = ", ".join(quoted(column) for column in self.columns)
            self._sum_part = store.prepare(
                f"SELECT *{hashing.beside(keys)} FROM (SELECT {listed}, CAST(sum({COUNT}) AS BIGINT) AS {COUNT} "
                f"FROM {self._part.name} GROUP BY {listed} HAVING sum({COUNT}) <> 0)"
            )
        self.is_in_table = store.durable  # every entry
        self._is_leaving = False  # memory, once the epoch is durable
        self.held = HeldRows(self._schema, None if append_only else COUNT)
        if store.durable:
            self._restore()

    # --- what the step asks --------------------------------------------------------------------------------------

    def find(self, asked: Keys | None, until_us: int | None = None) -> None:
        """Statements read the entries of these keys, and perhaps of some others, and those whose time is `until_us` or
        before."""
        if self.held is not None:
            positions = [] if asked is None else [self.held.positions(_plain(asked.hashes()))]
            positions += [] if until_us is None else [self.held.until(until_us)]
            self._read(positions[0] if len(positions) == 1 else np.union1d(*positions))
            return
        parts = [] if asked is None else [asked.scan(self.table, self._by)]
        if until_us is not None:
            assert self._closing is not None
            self._closing.until(until_us)
            rest = f"SELECT * FROM {self.table}" if asked is None else asked.scan(self.table, self._by, others=True)
            parts.append(f"SELECT * FROM ({rest}) WHERE {self._closing.where}")
        sql = " UNION ALL ".join(parts)
        if self._replaces:
            sql = f"SELECT *, NULL FROM ({self._net(sql)})"
        schema = self._found.schema
        self._found.table = self._cursor.run(sql).rename_columns(schema.names).cast(schema)

    def _net(self, sql: str) -> str:
        """SQL of the rows that entries add up to."""
        listed = ", ".join(map(quoted, self.columns))
        counted = f"CAST(sum({COUNT}) AS BIGINT) AS {COUNT}"
        return f"SELECT {listed}, {counted} FROM ({sql}) GROUP BY {listed} HAVING sum({COUNT}) > 0"

    def _read(self, positions: Rows) -> None:
        """Statements read the rows at these positions."""
        assert self.held is not None
        rows = self.held.take(positions)
        self._found.table = rows.append_column(AT, integers(positions)) if self._replaces else rows

    def current(self, keys: Sequence[str], touched: Feed | None, named: Sequence[str] | None = None) -> str:
        listed = ", ".join(f"s.{quoted(column)}" for column in (*self.columns, AT))
        return f"SELECT {listed} FROM {self.entries_of(keys, touched, named)}"

    def replace(self, changes: pa.Table) -> None:
        self.feed.table = changes.drop_columns([AT])
        if self.is_in_table:
            super().add()
        if self.held is None:
            return
        comes = changes.column(DIFF).to_numpy() > 0
        gone = vector_of(whole(changes.column(AT))).data[~comes]
        self.held.forget(np.sort(gone))
        hashes = self.keys.hashes()
        came = pa.Table.from_arrays(self.feed.table.columns, schema=self._schema)
        self._hold(kept(came, comes), kept(pa.table([hashes], [_HASH]), comes).column(0))
        self._watch()

    def has_until(self, us: int) -> bool:
        return super().has_until(us) if self.held is None else bool(len(self.held.until(us)))

    def drop_until(self, us: int) -> None:
        if self.held is not None:
            self.held.forget(self.held.until(us))
            self.held.seen_until(us)
        self._dropped_us = us
        # In memory they are gone; in the table they go together, when they are most of it.
        is_due = self.held is None or self._is_leaving or self.in_table > 2 * self.held.live + SLACK_ROWS
        if self.is_in_table and is_due:
            super().drop_until(us)

    def add(self) -> None:
        changes = self.feed.table
        if not changes.num_rows:
            return
        if self.is_in_table:
            super().add()
        rows = pa.Table.from_arrays(changes.columns, schema=self._schema)
        self._found.table = pa.concat_tables([self._found.table, rows])
        if self.held is None:
            return
        self._hold(rows, self.keys.hashes())
        if not self.append_only and self.held.live > max(self.held.sum, 0) * 3 // 2 + SLACK_ROWS:
            self._sum_some(_PART_TIMES * changes.num_rows)
        self._watch()

    # --- what is kept ----------------------------------------------------------------------------------------------

    @property
    def entries(self) -> int:
        return super().entries if self.held is None else self.held.live

    @property
    def nbytes(self) -> int:
        return super().nbytes if self.held is None else self.held.nbytes

    def committed(self) -> None:
        self._found.table = self._found.schema.empty_table()
        if self._is_leaving:
            self.held, self._is_leaving = None, False
            self._store.may_hold(self.table, 0)
            self.scanned = "what it keeps has outgrown its part of the memory limit"
        if self.held is not None:
            self.held.committed()
        self._durable_us = self._dropped_us

    def rolled_back(self) -> None:
        super().rolled_back()
        self._dropped_us = self._durable_us
        self._found.table = self._found.schema.empty_table()
        if self.held is not None:
            self.held.rolled_back()
            self.is_in_table, self._is_leaving = self._store.durable, False

    # --- memory ------------------------------------------------------------------------------------------------------

    def _hold(self, rows: pa.Table, hashes: pa.ChunkedArray) -> None:
        """Rows without a hash are asked for by nobody."""
        assert self.held is not None
        if hashes.null_count:
            there = hashes.is_valid()
            rows, hashes = rows.filter(there), hashes.filter(there)
        times = None
        if self._closes is not None and self._times is not None:
            times = self._closes.times(self._times, rows)
        self.held.append(rows, vector_of(whole(hashes)).data, times)

    def _with_hash(self, read: pa.Table) -> tuple[pa.Table, pa.ChunkedArray]:
        """The rows as they are kept, and their hashes."""
        names = self._schema.names
        rows = pa.table(read.columns[: len(names)], names)
        return rows.cast(self._schema), self._hashing.of(read, self._by)

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

    def _watch(self) -> None:
        """Leave memory where it would be too much."""
        assert self.held is not None
        if not self._is_leaving and not self._store.may_hold(self.table, self.held.nbytes):
            self._leave()

    def _leave(self) -> None:
        """Have every entry in the table, which is what is read once the epoch is durable."""
        assert self.held is not None
        self._is_leaving = True
        if self.is_in_table:
            if self._dropped_us is not None:
                super().drop_until(self._dropped_us)
            return
        found, positions = self._found.table, self.held.alive()
        for first in range(0, len(positions), _READ_ROWS):
            self._read(positions[first : first + _READ_ROWS])
            listed = ", ".join(map(quoted, self._schema.names))
            self._cursor.rows(f"INSERT INTO {self.table} SELECT {listed} FROM {self._found.name}")
        self._found.table = found
        super().forgot()
        self.is_in_table = True

    def _restore(self) -> None:
        """Hold what the table has, as far as that may be."""
        assert self.held is not None
        rows = f"SELECT * FROM {self.table}"
        sql = f"SELECT *{self._hashing.beside(self._by)} FROM ({self._net(rows) if self._replaces else rows})"
        for batch in self._cursor.batches(self._cursor.reader(sql, _READ_ROWS)):
            self._hold(*self._with_hash(pa.Table.from_batches([batch])))
            if not self._store.may_hold(self.table, self.held.nbytes):
                self._is_leaving = True
                break
        self.committed()


def _plain(hashes: pa.ChunkedArray) -> Array:
    """Hashes less those that meet nothing."""
    return vector_of(whole(hashes.drop_null())).data


def log_by_key(
    store: Store,
    name: str,
    schema: pa.Schema,
    append_only: bool,
    keys: Sequence[str],
    hashing: Hashing,
    closes: Closes | None = None,
    *,
    replaces: bool = False,
) -> Log:
    """A log of rows that are asked for by key: held, where their types can be.

    Args:
        replaces: no row is there twice, and those that go are told by where they are (`Log.replace`).
    """
    if not hashing.kinds and hashing.joins:
        why = "no column of one side is to equal one of the other"
    elif hashing.kinds and not hashing:
        why = "its keys are of types that are hashed in no common way"
    elif (strange := next((field for field in schema if not can_be_held(field.type)), None)) is not None:
        why = f"{strange.name} is of a type that is kept in tables only ({strange.type})"
    elif not hashing.takes([schema.field(key).type for key in keys]):
        why = "the keys of its result are of other types than those of its rows"
    else:
        return HeldLog(store, name, schema, append_only, keys, hashing, closes, replaces=replaces)
    made = Log(store, name, schema, append_only, closes)
    made.scanned = why
    if hashing:
        made.keys = Keys(store, made.feed, keys, hashing)  # the other side of a join may be held
    return made
