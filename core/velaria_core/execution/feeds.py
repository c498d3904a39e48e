"""Feeds: the changes of stored tables, kept for the queries that follow them.

A materialized view reads its base tables as streams. For each of them it has a feed: a table of the same database to
which every statement that changes the base writes what it changed, in its own transaction, so neither is ever without
the other. A row of a feed has a position and a sign. A query reads on from the position that its checkpoint has, and
what its sink has committed is removed from the feed.

Invariant: positions become visible in their order, since one lock is held from the first position that a transaction
takes to its commit; so a reader that has seen a position misses none before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from velaria_core.contract.abi import (
    DIFF,
    Batch,
    Blocked,
    CheckpointMarker,
    Offset,
    SourceContext,
    SourceInfo,
    TextOffset,
)
from velaria_core.errors import InputError
from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.sources.tables import whole_number
from velaria_core.types import duckdb_type, quoted

SCHEMA = "velaria_views"
_FOLLOWED = f"{SCHEMA}.followed"
_POSITIONS = f"{SCHEMA}.positions"
_POSITION, _SIGN = quoted("velaria position"), quoted("velaria diff")


@dataclass(frozen=True, slots=True)
class Feed:
    """The changes of `base`, a stored table, for the view `view`.

    Attributes:
        sql: the name of the table that holds them.
        columns: of the base, quoted and listed.
    """

    view: str
    base: str
    sql: str
    columns: str


class Feeds:
    """The feeds of one session's database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._of: dict[str, list[Feed]] = {}  # by folded name of the base
        self._wakers: dict[Feed, Callable[[], None]] = {}

    def load(self, cursor: Cursor) -> None:
        """Find the feeds of a database that was opened."""
        if exists(cursor, "followed"):
            for view, base, sql, columns in cursor.rows(f"SELECT * FROM {_FOLLOWED}"):
                self._of.setdefault(base.lower(), []).append(Feed(view, base, sql, columns))

    def of(self, base: str) -> Sequence[Feed]:
        """The feeds that a stored table has."""
        return tuple(self._of.get(base.lower(), ()))

    def of_view(self, view: str) -> Sequence[Feed]:
        """The feeds that a view reads."""
        return tuple(feed for feeds in self._of.values() for feed in feeds if feed.view.lower() == view.lower())

    def wake(self, base: str) -> None:
        """Tell the queries that follow a table of its changes."""
        for feed in self.of(base):
            if (waker := self._wakers.get(feed)) is not None:
                waker()

    # --- feeds come and go ----------------------------------------------------------------------------------

    def create(self, cursor: Cursor, view: str, base: str, schema: pa.Schema) -> Feed:
        """A feed that begins with the rows that the base has now. Inside of a transaction, under `locked`."""
        cursor.rows(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        cursor.rows(f"CREATE SEQUENCE IF NOT EXISTS {_POSITIONS}")
        texts = ", ".join(f"{name} VARCHAR" for name in ("view", "base", "feed", "columns"))
        cursor.rows(f"CREATE TABLE IF NOT EXISTS {_FOLLOWED} ({texts})")
        ((number,),) = cursor.rows(f"SELECT nextval('{_POSITIONS}')")
        sql = f"{SCHEMA}.{quoted(f'feed {number}')}"
        declared = [
            f"{_POSITION} BIGINT DEFAULT nextval('{_POSITIONS}')",
            f"{_SIGN} BIGINT DEFAULT 1",
            *(f"{quoted(field.name)} {duckdb_type(field.type)}" for field in schema),
        ]
        cursor.rows(f"CREATE TABLE {sql} ({', '.join(declared)})")
        feed = Feed(view, base, sql, ", ".join(quoted(name) for name in schema.names))
        cursor.rows(f"INSERT INTO {_FOLLOWED} VALUES ($1, $2, $3, $4)", [view, base, sql, feed.columns])
        self._fill(cursor, feed)
        return feed

    def adopt(self, feed: Feed) -> None:
        """From now on, what changes the base writes to this feed. After the transaction of `create`."""
        self._of.setdefault(feed.base.lower(), []).append(feed)

    def _fill(self, cursor: Cursor, feed: Feed) -> None:
        cursor.execute(f"INSERT INTO {feed.sql} ({feed.columns}) SELECT {feed.columns} FROM main.{quoted(feed.base)}")

    def begin_again(self, cursor: Cursor, view: str) -> None:
        """The feeds of a view as they are made. Inside of a transaction, under `locked`."""
        for feed in self.of_view(view):
            cursor.rows(f"DELETE FROM {feed.sql}")
            self._fill(cursor, feed)

    def drop(self, cursor: Cursor, view: str) -> None:
        """Forget the feeds of a view."""
        for feed in self.of_view(view):
            cursor.rows(f"DROP TABLE IF EXISTS {feed.sql}")
            self._of[feed.base.lower()].remove(feed)
            self._wakers.pop(feed, None)
        if exists(cursor, "followed"):
            cursor.rows(f"DELETE FROM {_FOLLOWED} WHERE lower(view) = lower($1)", [view])

    # --- the bases change -----------------------------------------------------------------------------------

    @property
    def locked(self) -> threading.RLock:
        """Held by whoever writes to feeds, from before its transaction begins to after its commit."""
        return self._lock

    def append(self, cursor: Cursor, base: str, listed: str, rows: str, also: Callable[[Cursor], None]) -> int:
        """`INSERT INTO base (listed) rows`, told to the feeds of the base, of which it has some.

        Args:
            also: what else belongs to the transaction.
        """
        first, *others = self.of(base)
        with self._lock, cursor.transaction():
            also(cursor)
            ((before,),) = cursor.rows(f"SELECT coalesce(max({_POSITION}), 0) FROM {first.sql}")
            # Into a feed first: the rows may be other ones each time that they are computed.
            inserted = cursor.execute(f"INSERT INTO {first.sql} ({listed}) {rows}")
            new = f"FROM {first.sql} WHERE {_POSITION} > {before} ORDER BY {_POSITION}"
            cursor.execute(f"INSERT INTO main.{quoted(base)} ({first.columns}) SELECT {first.columns} {new}")
            for other in others:
                cursor.execute(f"INSERT INTO {other.sql} ({first.columns}) SELECT {first.columns} {new}")
        return inserted

    def replace(self, cursor: Cursor, base: str, make: Callable[[], int], also: Callable[[Cursor], None]) -> int:
        """Let `make` make the base anew: all its rows go, and those that it has then come.

        Args:
            also: what else belongs to the transaction, once the base is made.

        Raises:
            InputError[catalog.followed]: it would have other columns.
        """
        feeds, stored = self.of(base), f"main.{quoted(base)}"
        with self._lock, cursor.transaction():
            before = cursor.schema(f"SELECT * FROM {stored}")
            self.take(cursor, base, stored, "-1")
            made = make()
            if not cursor.schema(f"SELECT * FROM {stored}").equals(before):
                raise followed(base, [feed.view for feed in feeds], "would have other columns")
            for feed in feeds:
                self._fill(cursor, feed)
            also(cursor)
        return made

    def take(self, cursor: Cursor, base: str, changes: str, sign: str) -> None:
        """Write changes that are made in the transaction at hand: `changes` follows FROM, `sign` is an expression."""
        for feed in self.of(base):
            into = f"INSERT INTO {feed.sql} ({_SIGN}, {feed.columns})"
            cursor.execute(f"{into} SELECT {sign}, {feed.columns} FROM {changes}")

    # --- reading --------------------------------------------------------------------------------------------

    def after(self, feed: Feed, position: int, rows: int) -> tuple[pa.Table, int] | None:
        """At most so many rows of a feed, with their sign last, and the position after them; None when none is there.

        Rows that come and go among them are left out, so the table may be empty, and what is gone by now fails nobody.
        """
        taken = f"SELECT * FROM {feed.sql} WHERE {_POSITION} > {position:d} ORDER BY {_POSITION} LIMIT {rows:d}"
        with self._engine.cursor() as cursor:
            ((last, least),) = cursor.rows(f"SELECT max({_POSITION}), min({_SIGN}) FROM ({taken}) AS c")
            if last is None:
                return None
            # Not the LIMIT again: there may be more rows by now.
            between = f"{_POSITION} > {position:d} AND {_POSITION} <= {last:d}"
            sql = f"SELECT {feed.columns}, {_SIGN} FROM {feed.sql} WHERE {between}"
            if least < 0:
                total = f"CAST(sum({_SIGN}) AS BIGINT)"
                summed = f"SELECT {feed.columns}, {total} AS {_SIGN} FROM ({sql}) AS c"
                sql = f"{summed} GROUP BY {feed.columns} HAVING {total} <> 0"
            return cursor.table(sql), int(last)

    def forget(self, feed: Feed, position: int) -> None:
        """Remove what the view has."""
        with self._engine.cursor() as cursor:
            cursor.rows(f"DELETE FROM {feed.sql} WHERE {_POSITION} <= {position:d}")

    def left(self, view: str) -> int:
        """How many changes wait in the feeds of a view."""
        with self._engine.cursor() as cursor:
            counts = (cursor.rows(f"SELECT count(*) FROM {feed.sql}") for feed in self.of_view(view))
            return sum(count for ((count,),) in counts)

    def listen(self, feed: Feed, waker: Callable[[], None] | None) -> None:
        """Call `waker` when the feed may have rows; None: nobody reads it."""
        if waker is None:
            self._wakers.pop(feed, None)
        else:
            self._wakers[feed] = waker


class FeedSource:
    """The rows of a stored table and how they change, from its feed. Offsets are positions."""

    def __init__(self, feeds: Feeds, feed: Callable[[], Feed], schema: pa.Schema) -> None:
        self._feeds = feeds
        self._feed = feed
        self._info = SourceInfo(schema, bounded=False, replayable=True, append_only=False)
        self._position = 0

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        self._position = whole_number(context.resume_from or "0")
        self._feeds.listen(self._feed(), context.wake)

    def next_batch(self, max_rows: int) -> Batch | Blocked:
        while (found := self._feeds.after(self._feed(), self._position, max(max_rows, 1))) is not None:
            rows, self._position = found
            if rows.num_rows:
                return Batch(rows.rename_columns([*rows.schema.names[:-1], DIFF]), TextOffset(str(self._position)))
        return Blocked()

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: the feed is durable."""

    def ack(self, offset: Offset) -> None:
        self._feeds.forget(self._feed(), int(offset.token))

    def close(self) -> None:
        self._feeds.listen(self._feed(), None)


def exists(cursor: Cursor, table: str) -> bool:
    """Whether the schema of the views has this table."""
    known = "SELECT 1 FROM duckdb_tables() WHERE schema_name = $1 AND table_name = $2"
    return bool(cursor.rows(known, [SCHEMA, table]))


def followed(base: str, views: Iterable[str], what: str) -> InputError:
    """A base may not be changed so while materialized views read it."""
    known = sorted(set(views))
    return InputError(
        "catalog.followed",
        f'"{base}" {what}, and the materialized view {", ".join(known)} follows it',
        hint=f"DROP MATERIALIZED VIEW {known[0]} first",
    )
