"""Rows: what a step keeps of rows, as an append-only table of the store.

Appending costs the same however many rows are there, any change in place does not. So a row that goes is one more
entry, with a negative count, and what cancels is removed when it has piled up.

Invariant: after an epoch's rows were added, a log has at most twice as many entries as it stands for rows, and
`SLACK_ROWS` and the epoch's own more. Removing reads the whole log, and happens only after as many entries came as it
leaves or takes away: constant cost for an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from velaria_core.changes import DIFF, with_diff
from velaria_core.execution.held_rows import HeldRows
from velaria_core.execution.state import Feed, Store
from velaria_core.execution.steps.base import AT, COUNT, counted, diffed, relation_of
from velaria_core.execution.steps.horizon import micros_sql, one_row
from velaria_core.execution.watermark import FARTHEST, Mask, Micros, TimeColumn
from velaria_core.logical.event_time import END, TimeKind
from velaria_core.logical.operators import Scan
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

if TYPE_CHECKING:
    from velaria_core.execution.steps.held import Keys

SLACK_ROWS: Final = 16_384
_SAMPLE_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Closes:
    """When rows are done with: the column with the time.

    Attributes:
        timeless: rows without a time are done with at the end; otherwise never.
    """

    column: str
    kind: TimeKind
    timeless: bool

    def times(self, read: TimeColumn, rows: pa.Table) -> tuple[Micros, Mask | None]:
        """The times of rows, and which have one."""
        times, valid, low, high = read.of(rows)
        if self.kind is not TimeKind.INTEGER and len(times) and (high >= FARTHEST or low <= -FARTHEST):
            # An infinite time is none, in `sql` too.
            finite = np.abs(times) < FARTHEST
            valid = finite if valid is None else valid & finite
        if valid is not None and self.timeless:
            times, valid = np.where(valid, times, END), None
        return times, valid

    @property
    def sql(self) -> str:
        """The time of a row in microseconds since 1970."""
        us = micros_sql(self.column, self.kind)
        return us if self.timeless else f"nullif({us}, {END})"


class _Closing:
    """The entries of a table by their time."""

    def __init__(self, store: Store, table: str, closes: Closes) -> None:
        self._us = store.feed(pa.schema([("us", pa.int64())]))
        self.where = f"{closes.sql} <= (SELECT us FROM {self._us.name})"
        self._find = store.prepare(f"SELECT 1 FROM {table} WHERE {self.where} LIMIT 1")
        self._drop = store.command(f"DELETE FROM {table} WHERE {self.where}")

    def until(self, us: int) -> None:
        """`where` is of this time."""
        self._us.table = one_row(self._us.schema, us)

    def has(self, us: int) -> bool:
        self.until(us)
        return bool(self._find().num_rows)

    def drop(self, us: int) -> None:
        self.until(us)
        self._drop()


class Log:
    """Rows in a table: those that are fed are appended. Where rows also go, an entry has a count.

    Attributes:
        source: what statements that ask for entries read, as SQL: the table.
        scanned: why each epoch reads the keys of all entries, where it was to ask for some.
        is_scanned: whether statements of an epoch read the table; otherwise seldom, or never.
        held: the rows in memory, where they are there.
        keys: those of the rows that are fed, where another log can find what it has of them.
        is_in_table: whether the table has every entry; otherwise it has none, and they are held.
    """

    scanned: str = ""
    is_in_table: bool = True
    is_scanned: bool = True
    held: HeldRows | None = None
    keys: Keys | None = None

    def __init__(
        self, store: Store, name: str, schema: pa.Schema, append_only: bool, closes: Closes | None = None
    ) -> None:
        self.columns = schema.names
        self.append_only = append_only
        self.feed = store.feed(diffed(schema, append_only))
        self._store, self._cursor = store, store.cursor
        self._schema = counted(self.feed.schema)
        self.table = self.source = store.table(name, self._schema)
        self._add = store.command(f"INSERT INTO {self.table} SELECT * FROM {self.feed.name}")
        self._closing = None if closes is None else _Closing(store, self.table, closes)
        self._entries: int | None = None
        self._sum = 0
        self._width_bytes: float | None = None

    @property
    def new(self) -> Scan:
        """The rows that are fed."""
        return Scan(relation_of(self.feed))

    @property
    def kept(self) -> Scan:
        """The rows that are kept, with their count where rows also go."""
        return Scan(Relation(self.source, self._schema, self.source, "state"))

    @property
    def entries(self) -> int:
        """How many are kept."""
        return self.in_table

    @property
    def in_table(self) -> int:
        """How many the table has."""
        if self._entries is None:
            self._count()
        assert self._entries is not None
        return self._entries

    @property
    def nbytes(self) -> int:
        """What they take, by the width of those that came, or of the first in the table."""
        if self._width_bytes is None:
            if not self.entries:
                return 0
            self._weigh(self._cursor.table(f"SELECT * FROM {self.table} LIMIT {_SAMPLE_ROWS}"))
        assert self._width_bytes is not None
        return int(self.entries * self._width_bytes)

    def take(self, changes: pa.Table) -> None:
        """Feed these rows and keep them."""
        self.feed.table = changes if self.append_only else with_diff(changes)
        self.add()

    def replace(self, changes: pa.Table) -> None:
        """Rows of keys that were asked for go and others come.

        Args:
            changes: the columns, the diff, and for rows that go where `current` said that they are (`AT`).
        """
        self.take(changes.drop_columns([AT]))

    def find(self, asked: Keys | None, until_us: int | None = None) -> None:
        """Statements ask for entries of these keys, and those whose time is `until_us` or before; here they read all
        entries."""

    def has_until(self, us: int) -> bool:
        """Whether the time of an entry is this or before."""
        assert self._closing is not None
        return self._closing.has(us)

    def drop_until(self, us: int) -> None:
        """Forget the entries whose time is this or before."""
        assert self._closing is not None
        self._closing.drop(us)
        self.forgot()

    def add(self) -> None:
        """Keep the rows that are fed. Statements read them too from now on."""
        changes = self.feed.table
        if not changes.num_rows:
            return
        self._weigh(changes)
        came = changes.num_rows if self.append_only else int(changes.column(DIFF).to_numpy().sum())
        entries = self.in_table
        if not self.append_only and entries and entries + changes.num_rows > 2 * max(self._sum + came, 0) + SLACK_ROWS:
            self._store.holds(self.table, entries)
            self._compact()
        self._add()
        self._entries = self.in_table + changes.num_rows
        self._sum += came
        self._store.holds(self.table, self._entries if self.is_scanned and self.held is None else 0)

    def forgot(self) -> None:
        """The table has other entries now."""
        self._entries = None

    def committed(self) -> None:
        """The epoch is durable."""

    def rolled_back(self) -> None:
        """The table is as it was before the epoch."""
        self._entries = None

    def _count(self) -> None:
        total = "0" if self.append_only else f"CAST(coalesce(sum({COUNT}), 0) AS BIGINT)"
        ((self._entries, self._sum),) = self._cursor.rows(f"SELECT count(*), {total} FROM {self.table}")

    def _weigh(self, rows: pa.Table) -> None:
        self._width_bytes = rows.nbytes / rows.num_rows

    def _compact(self) -> None:
        """Write what the entries add up to, and remove them. Entries that were added later have larger row numbers."""
        ((last,),) = self._cursor.rows(f"SELECT max(rowid) FROM {self.table}")
        listed = ", ".join(quoted(column) for column in self.columns)
        self._cursor.rows(
            f"INSERT INTO {self.table} SELECT {listed}, CAST(sum({COUNT}) AS BIGINT) FROM {self.table} "
            f"GROUP BY {listed} HAVING sum({COUNT}) <> 0"
        )
        self._cursor.rows(f"DELETE FROM {self.table} WHERE rowid <= {last:d}")
        self._count()

    def entries_of(self, keys: Sequence[str], touched: Feed | None, named: Sequence[str] | None = None) -> str:
        """SQL of the entries (aliased `s`) whose key was touched; of all without a feed of keys.

        Args:
            named: the columns of the feed, k0, k1, ... by default.
        """
        source = f"{self.source} AS s"
        if touched is not None:
            named = [f"k{at}" for at in range(len(keys))] if named is None else named
            pairs = zip(keys, named, strict=True)
            same = [f"s.{quoted(key)} IS NOT DISTINCT FROM k.{quoted(other)}" for key, other in pairs]
            source += f" SEMI JOIN {touched.name} AS k ON {' AND '.join(same) or 'true'}"
        return source

    def current(self, keys: Sequence[str], touched: Feed | None, named: Sequence[str] | None = None) -> str:
        """SQL of the rows whose key was touched, none of which is there twice, and where in memory each is (`AT`)."""
        listed = ", ".join(f"s.{quoted(column)}" for column in self.columns)
        source = self.entries_of(keys, touched, named)
        return (
            f"SELECT {listed}, CAST(NULL AS BIGINT) AS {AT} FROM {source} GROUP BY {listed} HAVING sum(s.{COUNT}) > 0"
        )

    def restricted(self, keys: Sequence[str], touched: Feed | None, named: Sequence[str] | None = None) -> str:
        """SQL of the rows whose key was touched, each as often as it is there; all rows without a feed of keys."""
        listed = ", ".join(f"s.{quoted(column)}" for column in self.columns)
        source = self.entries_of(keys, touched, named)
        if self.append_only:
            return f"SELECT {listed} FROM {source}"
        names = ", ".join(quoted(column) for column in self.columns)
        return (
            f"SELECT {names} FROM (SELECT {names}, unnest(range({COUNT})) FROM (SELECT {listed}, "
            f"CAST(sum(s.{COUNT}) AS BIGINT) AS {COUNT} FROM {source} GROUP BY {listed} HAVING sum(s.{COUNT}) > 0))"
        )


def difference(columns: Sequence[str], new: str, old: str, count: str = "1") -> str:
    """SQL of what rows of `new` are other than those of `old`, which are each there `count` times."""
    listed = ", ".join(map(quoted, columns))
    return (
        f"SELECT {listed}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF} FROM ("
        f"SELECT {listed}, 1 AS {DIFF} FROM {new} UNION ALL SELECT {listed}, -{count} FROM {old}"
        f") GROUP BY {listed} HAVING sum({DIFF}) <> 0"
    )


def replacing(columns: Sequence[str], new: str, old: str) -> str:
    """SQL of what `Log.replace` takes: rows of `new` that are not in `old` come, and those the other way round go.

    Args:
        new: SQL of rows with these columns.
        old: the same with where they are, as `Log.current` has them.
    """
    listed = ", ".join(map(quoted, columns))
    return (
        f"SELECT {listed}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF}, max({AT}) AS {AT} FROM ("
        f"SELECT {listed}, NULL AS {AT}, 1 AS {DIFF} FROM {new} UNION ALL SELECT {listed}, {AT}, -1 FROM {old}"
        f") GROUP BY {listed} HAVING sum({DIFF}) <> 0"
    )
