"""Table: a table of a DuckDB database, of the session or of a file.

Staged rows lie in a table of their own in the schema `velaria_sink` of the same database, and a table of epochs beside
it says which is the last of each query that was committed. One transaction moves an epoch's rows and writes its number,
so either both have happened or none has. Nothing is written before the commit where the query itself keeps nothing that
outlives it, and so never commits an epoch of another life.

Statements are prepared when they are first run, and take an epoch's rows from where they came: what was staged is read
again only after a restart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.contract.abi import SinkContext, SinkInfo
from velaria_core.contract.modes import DeliveryMode, SinkMode
from velaria_core.errors import InputError, StateError
from velaria_core.execution.claims import claimed, taken
from velaria_core.execution.duck import Cursor, Engine, Settings
from velaria_core.execution.files.paths import PathLike
from velaria_core.execution.sinks.folding import SIGNED, refuse_if_ahead, staged_gone
from velaria_core.execution.state import Feed
from velaria_core.types import duckdb_type, exported_type, literal, quoted

SCHEMA = "velaria_sink"
_EPOCHS = f'{SCHEMA}."velaria epochs of queries"'
_QUERY, _EPOCH, _COUNT = quoted("velaria query"), quoted("velaria epoch"), quoted("velaria diff")


class TableSink:
    """Rows in a table, which is made when it is not there. Rows that others wrote to it stay, but with REPLACE.

    Args:
        table: its name in the database's main schema.
        engine: of the session that has the table; or
        path: the database file that has it, opened while the query runs.

    Raises:
        InputError[option.value]: neither an engine nor a path, or both.
    """

    def __init__(self, table: str, *, engine: Engine | None = None, path: PathLike | None = None) -> None:
        if (engine is None) == (path is None):
            raise InputError("option.value", "a table is of an engine or of a path")
        self.engine = engine
        self._file = str(path) if path is not None else None
        self.table = table
        self._sql = f"main.{quoted(table)}"
        self._staged = f"{SCHEMA}.{quoted(table)}"
        self._held = ExitStack()
        self._cursor: Cursor | None = None
        self._context: SinkContext | None = None
        self._feed = Feed("velaria_sink_feed", pa.schema([]))
        self._durable = True
        self._pending: dict[int, pa.Table] = {}  # staged in this life and not committed yet
        self._committed = 0
        self._prepared: dict[str, str] = {}

    def info(self) -> SinkInfo:
        return SinkInfo(frozenset(SinkMode), transactional=True, idempotent=True)

    def open(self, context: SinkContext) -> None:
        """
        Raises:
            InputError[sink.schema]: the table has other columns; RETRACT with a column "rowid".
            StateError[database.locked]: another process has the file open. StateError[sink.ahead, sink.taken].
        """
        with ExitStack() as held:
            engine = self.engine
            if engine is None:
                engine = Engine(Settings(path=self._file, threads=1))
                held.callback(engine.close)
            where = id(engine) if self._file is None else os.path.realpath(self._file)
            held.enter_context(claimed((where, self.table.lower()), taken(f'"{self.table}"')))
            cursor = held.enter_context(engine.cursor())
            if self._context is not None and self._context.state_id != context.state_id:
                self._pending = {}
            self._context = context
            self._prepare_tables(cursor, context)
            fields = [*context.schema, pa.field(context.diff, pa.int64())]
            self._feed = Feed("velaria_sink_feed", pa.schema(fields if context.mode in SIGNED else fields[:-1]))
            cursor.bind({self._feed.name: self._feed})
            best_effort = context.delivery_mode is DeliveryMode.BEST_EFFORT
            self._durable = context.checkpoint_path is not None or not best_effort
            self._prepared = {}
            self._pending = {epoch: rows for epoch, rows in self._pending.items() if epoch <= context.last_epoch}
            self._cursor = cursor
            self._held = held.pop_all()

    def _prepare_tables(self, cursor: Cursor, context: SinkContext) -> None:
        if context.mode is SinkMode.RETRACT and "rowid" in map(str.lower, context.schema.names):
            told = 'a column "rowid" hides the engine\'s own, by which rows are taken away'
            raise InputError("sink.schema", told, hint="rename the column")
        kinds = [(item.name, duckdb_type(item.type)) for item in context.schema]
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in kinds)
        with cursor.transaction():
            cursor.rows(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            cursor.rows(f"CREATE TABLE IF NOT EXISTS {_EPOCHS} (name VARCHAR, query VARCHAR, epoch BIGINT)")
            cursor.rows(f"CREATE TABLE IF NOT EXISTS {self._sql} ({columns})")
            found = [(row[0], exported_type(row[1])) for row in cursor.rows(f"DESCRIBE {self._sql}")]
            if found != [(name, exported_type(kind)) for name, kind in kinds]:
                raise InputError(
                    "sink.schema",
                    f'"{self.table}" has the columns {_told(found)}, the query gives {_told(kinds)}',
                    hint="write to another table, or select what this one has",
                )
            self._prepare_staged(cursor, kinds, context)
            mine = [self.table, context.state_id]
            known = cursor.rows(f"SELECT epoch FROM {_EPOCHS} WHERE name = $1 AND query = $2", mine)
            refuse_if_ahead(f'"{self.table}"', known[0][0] if known else 0, context)
            if not known:
                cursor.rows(f"INSERT INTO {_EPOCHS} VALUES ($1, $2, 0)", mine)
            elif not context.last_epoch:
                cursor.rows(f"UPDATE {_EPOCHS} SET epoch = 0 WHERE name = $1 AND query = $2", mine)
            self._committed = known[0][0] if known and context.last_epoch else 0

    def _prepare_staged(self, cursor: Cursor, kinds: list[tuple[str, str]], context: SinkContext) -> None:
        """The table of staged rows, without what a crash left of this query."""
        own = [("velaria query", "VARCHAR"), ("velaria epoch", "BIGINT"), ("velaria diff", "BIGINT")]
        made = ", ".join(f"{quoted(name)} {kind}" for name, kind in [*own, *kinds])
        cursor.rows(f"CREATE TABLE IF NOT EXISTS {self._staged} ({made})")
        found = [(row[0], exported_type(row[1])) for row in cursor.rows(f"DESCRIBE {self._staged}")]
        if found != [(name, exported_type(kind)) for name, kind in [*own, *kinds]]:
            # Of a table of this name that is gone.
            cursor.rows(f"CREATE OR REPLACE TABLE {self._staged} ({made})")
        mine = [context.last_epoch, context.state_id]
        cursor.rows(f"DELETE FROM {self._staged} WHERE {_EPOCH} > $1 AND {_QUERY} = $2", mine)

    def _mine(self, epoch: str) -> str:
        """SQL that picks the staged rows of an epoch of this query."""
        return f"{_EPOCH} = {epoch} AND {_QUERY} = {literal(self._open_context().state_id)}"

    def stage(self, epoch: int, changes: pa.Table) -> str:
        changes = changes.cast(self._feed.schema)
        if self._durable:
            with self._fed(changes):
                query = literal(self._open_context().state_id)
                self._run(f"INSERT INTO {self._staged} SELECT {query}, $1, * FROM {self._came()}", epoch)
        self._pending[epoch] = changes
        return str(changes.num_rows)

    def commit(self, epoch: int, ref: str) -> None:
        cursor = self._open_cursor()
        if epoch <= self._committed:
            self._pending.pop(epoch, None)
            return
        pending = self._pending.get(epoch)
        with cursor.transaction():
            if pending is not None:
                with self._fed(pending):
                    self._apply(self._came(), pending)
            else:
                where = self._mine(f"{epoch:d}")
                ((staged,),) = cursor.rows(f"SELECT count(*) FROM {self._staged} WHERE {where}")
                if staged != int(ref):
                    raise staged_gone(f'"{self.table}"', epoch)
                self._apply(f"(SELECT * EXCLUDE ({_QUERY}, {_EPOCH}) FROM {self._staged} WHERE {where})", None)
            if self._durable:
                self._run(f"DELETE FROM {self._staged} WHERE {self._mine('$1')}", epoch)
            mine = f"name = {literal(self.table)} AND query = {literal(self._open_context().state_id)}"
            self._run(f"UPDATE {_EPOCHS} SET epoch = $1 WHERE {mine}", epoch)
        self._committed = epoch
        self._pending.pop(epoch, None)

    @contextmanager
    def _fed(self, rows: pa.Table) -> Iterator[None]:
        """The feed has these rows."""
        self._feed.table = rows
        try:
            yield
        finally:
            self._feed.table = self._feed.schema.empty_table()

    def _came(self) -> str:
        """SQL of the rows that are fed: their count, and the columns."""
        context = self._open_context()
        count = quoted(context.diff) if context.mode in SIGNED else "1"
        columns = _listed(context.schema)
        return f"(SELECT {count} AS {_COUNT}{', ' if columns else ''}{columns} FROM {self._feed.name})"

    def _run(self, sql: str, *arguments: int) -> int:
        """Run a statement that is run again and again; how many rows it changed."""
        cursor = self._open_cursor()
        if sql not in self._prepared:
            self._prepared[sql] = name = f"velaria_sink_{len(self._prepared)}"
            cursor.rows(f"PREPARE {name} AS {sql}")
        given = f"({', '.join(str(int(one)) for one in arguments)})" if arguments else ""
        found = cursor.rows(f"EXECUTE {self._prepared[sql]}{given}")
        return int(found[0][0]) if found else 0

    def _apply(self, rows: str, pending: pa.Table | None) -> None:
        """Do to the table what an epoch says. `rows` is SQL of it, `pending` its rows where they are at hand."""
        context = self._open_context()
        columns = _listed(context.schema)
        into = f"INSERT INTO {self._sql} ({columns}) SELECT {columns} FROM"
        match context.mode:
            case SinkMode.APPEND:
                self._run(f"{into} {rows}")
            case SinkMode.REPLACE:
                self._run(f"DELETE FROM {self._sql}")
                self._run(f"{into} {rows}")
            case SinkMode.UPSERT:
                same = _same(context.keys, "t", "s")
                self._run(f"DELETE FROM {self._sql} AS t USING {rows} AS s WHERE {same}")
                self._run(f"{into} {rows} WHERE {_COUNT} > 0")
            case SinkMode.RETRACT:
                self._retract(rows, context, pending)

    def _retract(self, rows: str, context: SinkContext, pending: pa.Table | None) -> None:
        """Take away and add equal rows, as often as the epoch says in sum."""
        names, columns = context.schema.names, _listed(context.schema)
        if pending is None or pc.min(pending.column(context.diff)).as_py() < 0:
            self._take_away(rows, names, columns)
        sums = _sums(rows, columns)
        times = f"(SELECT {columns}, unnest(range({_COUNT})) FROM {sums} AS c WHERE {_COUNT} > 0)"
        self._run(f"INSERT INTO {self._sql} ({columns}) SELECT {columns} FROM {times} AS n")

    def _take_away(self, rows: str, names: list[str], columns: str) -> None:
        sums = _sums(rows, columns)
        mine = ", ".join(f"t.{quoted(name)}" for name in names)
        doomed = (
            f"SELECT t.rowid AS id, -s.{_COUNT} AS times, row_number() OVER (PARTITION BY {mine}) AS place "
            f"FROM {self._sql} AS t JOIN (SELECT * FROM {sums} AS c WHERE {_COUNT} < 0) AS s "
            f"ON {_same(names, 't', 's')}"
        )
        gone = self._run(
            f"DELETE FROM {self._sql} WHERE rowid IN (SELECT id FROM ({doomed}) AS d WHERE place <= times)"
        )
        asked = self._run(f"SELECT coalesce(CAST(-sum({_COUNT}) AS BIGINT), 0) FROM {sums} AS c WHERE {_COUNT} < 0")
        if gone != asked:
            raise StateError(
                "sink.changed",
                f'{asked - gone} rows that go are not in "{self.table}"',
                hint="nothing else may change this table while a query keeps it",
            )

    def abort(self, epoch: int, ref: str) -> None:  # noqa: ARG002 -- the contract's
        self._pending.pop(epoch, None)
        if self._durable:
            self._open_cursor().rows(f"DELETE FROM {self._staged} WHERE {self._mine('$1')}", [epoch])

    def close(self) -> None:
        self._cursor = None
        self._held.close()

    def _open_context(self) -> SinkContext:
        assert self._context is not None, "stage and commit come after open"
        return self._context

    def _open_cursor(self) -> Cursor:
        assert self._cursor is not None, "stage and commit come after open"
        return self._cursor


def _sums(rows: str, columns: str) -> str:
    """SQL of the rows, each once with its counts added up; none that comes as often as it goes."""
    return (
        f"(SELECT {columns}, CAST(sum({_COUNT}) AS BIGINT) AS {_COUNT} FROM {rows} AS r "
        f"GROUP BY {columns} HAVING sum({_COUNT}) <> 0)"
    )


def _listed(schema: pa.Schema) -> str:
    return ", ".join(quoted(name) for name in schema.names)


def _same(names: tuple[str, ...] | list[str], left: str, right: str) -> str:
    """Rows agree in these columns, NULL with NULL; always where there are none."""
    pairs = (f"{left}.{quoted(name)} IS NOT DISTINCT FROM {right}.{quoted(name)}" for name in names)
    return " AND ".join(pairs) or "true"


def _told(columns: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns)
