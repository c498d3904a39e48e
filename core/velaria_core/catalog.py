"""Catalog: what names mean in one session, and the statements that change it.

A table is stored in the engine; a view, a file table, a source or a sink is a definition. In a session with a path
all but the temporary ones are durable: tables in the database itself, definitions as SQL text in `_velaria_objects`.
Views are bound when they are used, so they follow what they read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from velaria_core.contract import abi
from velaria_core.errors import (
    CatalogNotFoundError,
    ExternalError,
    InputError,
    Place,
    SqlSemanticError,
    SqlUnsupportedError,
    TableKindError,
    VelariaError,
    did_you_mean,
)
from velaria_core.execution import batch, endpoints, files, lower, registry
from velaria_core.execution.declared import (
    batch_of_source,
    column_type,
    declared,
    file_table,
    fitted,
    schema_of,
    sink_of,
    source_node,
    with_columns,
)
from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.feeds import Feeds, followed
from velaria_core.execution.search.index_options import IndexKind, Value, index_options
from velaria_core.execution.search.indexes import Indexes
from velaria_core.logical.endless import refuse_endless_order, refuse_open_pivot
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.expr import reference, to_sql
from velaria_core.logical.functions import is_volatile
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Opaque, Project, Scan, Values
from velaria_core.logical.operators.watermark import Watermark
from velaria_core.logical.relation import Relation
from velaria_core.logical.scope import place_of
from velaria_core.logical.sql.binder import Binder
from velaria_core.logical.sql.parser import parse
from velaria_core.logical.sql.statements import (
    CreateIndex,
    CreateTable,
    CreateView,
    Describe,
    Drop,
    DropKind,
    Emit,
    Insert,
    Name,
    Refresh,
    Select,
    ShowCreate,
    ShowKind,
    ShowTables,
    Statement,
    Summarize,
    TableKind,
)
from velaria_core.logical.sql.tokens import Span
from velaria_core.types import duckdb_type, quoted, type_name

if TYPE_CHECKING:
    from velaria_core.execution.materialized import View, Views

OBJECTS = "_velaria_objects"
TEMPORARY = "velaria_temp.main"


class EntryKind(StrEnum):
    TABLE = "table"
    VIEW = "view"
    MATERIALIZED = "materialized view"
    SOURCE = "source"
    SINK = "sink"


@dataclass(frozen=True, slots=True)
class Entry:
    """What one name means.

    Attributes:
        stored: the engine's name of a stored table, quoted; None for a definition.
        node: the plan of a temporary view, or of a definition that is bound already.
        sql: the statement that defines a view, file table, source or sink.
        temporary: gone when the session ends.
    """

    name: str
    kind: EntryKind
    stored: str | None = None
    node: Node | None = None
    sql: str | None = None
    temporary: bool = False


class Catalog:
    """The names of one session. Answers the binder (`Tables`) and runs statements other than SELECT."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._entries: dict[str, Entry] = {}
        self._held: dict[str, Any] = {}  # sources and sinks that programs hold the other end of, by folded name
        self._feeds = Feeds(engine)
        self._read_by: dict[str, frozenset[str]] = {}  # by materialized view, the names that its query reads
        self.indexes = Indexes(engine)
        self._known_views: Views | None = None
        if engine.settings.path is not None:
            self._load()

    def _load(self) -> None:
        with self._engine.cursor() as cursor:
            if not self._engine.settings.read_only:
                cursor.execute(
                    f"CREATE TABLE IF NOT EXISTS {OBJECTS} (name VARCHAR, kind VARCHAR, stored VARCHAR, sql VARCHAR)"
                )
            names = _table_names(cursor)
            defined = cursor.rows(f"SELECT name, kind, stored, sql FROM {OBJECTS}") if OBJECTS in names else []
            self._feeds.load(cursor)
            self.indexes.load(cursor)
        for name in sorted(names - {OBJECTS}):
            self._entries[name.lower()] = Entry(name, EntryKind.TABLE, stored=quoted(name))
        for name, kind, stored, sql in defined:
            self._entries[name.lower()] = Entry(name, EntryKind(kind), stored=stored, sql=sql)

    @property
    def _views(self) -> Views:
        """The materialized views; what runs them is loaded when there is one."""
        if self._known_views is None:
            from velaria_core.execution.materialized import Views

            self._known_views = Views(self._engine, self._feeds, self.indexes)
        return self._known_views

    def resume(self) -> None:
        """Take up the materialized views of a database that was opened."""
        from_below = [entry for entry in self._entries.values() if entry.kind is EntryKind.MATERIALIZED]
        for entry in from_below if not self._engine.settings.read_only else ():
            self._views.resume(self._view_of(entry))

    def close(self) -> None:
        """Stop what keeps the materialized views fresh, and let go of the indexes."""
        if self._known_views is not None:
            self._known_views.close()
        self.indexes.close()

    def _adopt(self) -> None:
        """Know the tables that a sink made meanwhile. 0.3 ms."""
        with self._engine.cursor() as cursor:
            names = _table_names(cursor)
        stored = {entry.stored for entry in self._entries.values()}
        for name in names - {OBJECTS}:
            if quoted(name) not in stored:
                self._entries.setdefault(name.lower(), Entry(name, EntryKind.TABLE, stored=quoted(name)))

    # --- names ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Entry]:
        self._adopt()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def get(self, name: str) -> Entry | None:
        """The entry of a name, compared without case."""
        key = _plain_name(name).lower()
        if key not in self._entries and not files.looks_like_path(name):
            self._adopt()
        return self._entries.get(key)

    def put(self, entry: Entry, *, or_replace: bool = True) -> None:
        """Give a name a meaning.

        Raises:
            InputError[catalog.exists]: the name is taken, by another kind or without leave to replace it.
        """
        old = self._entries.get(entry.name.lower())
        if old is not None and (not or_replace or old.kind != entry.kind):
            raise InputError(
                "catalog.exists",
                f'there is already a {old.kind} "{old.name}"',
                hint="DROP it, or use another name",
            )
        with self._engine.cursor() as cursor:
            self._record(cursor, entry)
        self._entries[entry.name.lower()] = entry

    def _record(self, cursor: Any, entry: Entry) -> None:
        if self._engine.settings.path is None or entry.temporary:
            return
        cursor.rows(f"DELETE FROM {OBJECTS} WHERE lower(name) = lower($1)", [entry.name])
        if entry.kind is not EntryKind.TABLE or entry.sql is not None:
            values = [entry.name, entry.kind.value, entry.stored, entry.sql]
            cursor.rows(f"INSERT INTO {OBJECTS} VALUES ($1, $2, $3, $4)", values)

    def drop(self, name: str, *, kinds: Sequence[EntryKind] = tuple(EntryKind), if_exists: bool = False) -> bool:
        """Forget a name, and its rows where it stores any. False when it was not there and need not be."""
        entry = self.get(name)
        if entry is None:
            if if_exists:
                return False
            raise self._not_found(name)
        if entry.kind not in kinds:
            raise InputError(
                "catalog.kind",
                f'"{entry.name}" is a {entry.kind}',
                hint=f"DROP {entry.kind.upper()} {entry.name}",
            )
        self._refuse_followed(entry, "would be gone")
        self._refuse_written(entry, "would be gone")
        if entry.kind is EntryKind.MATERIALIZED:
            self._views.drop(entry.name)
        self.indexes.drop_of(entry.name)
        with self._engine.cursor() as cursor:
            if entry.stored is not None:
                cursor.rows(f"DROP TABLE IF EXISTS {entry.stored}")
            if self._engine.settings.path is not None and not entry.temporary:
                cursor.rows(f"DELETE FROM {OBJECTS} WHERE lower(name) = lower($1)", [entry.name])
        self._forget(entry.name)
        return True

    def _refuse_followed(self, entry: Entry, what: str) -> None:
        """
        Raises:
            InputError[catalog.followed]: a materialized view reads it, and would not find it as it was.
        """
        known = [one for one in self._entries.values() if one.kind is EntryKind.MATERIALIZED]
        views = [one.name for one in known if entry.name.lower() in self._read_by.get(one.name.lower(), ())]
        if views:
            raise followed(entry.name, views, what)

    def _refuse_written(self, entry: Entry, what: str) -> None:
        """
        Raises:
            InputError[catalog.written]: a stream writes to the table at this moment, and would go on into nothing.
        """
        if entry.kind is not EntryKind.TABLE or entry.stored is None:
            return
        for query in registry.active(self._engine):
            if entry.name.lower() in query.tables_written:
                told = f'"{entry.name}" {what}, and {query.id} writes to it'
                raise InputError("catalog.written", told, hint="stop the query first: session.streams has it")

    def _not_found(self, name: str) -> CatalogNotFoundError:
        return CatalogNotFoundError(
            "sql.unknown_table",
            f'no table "{name}"',
            hint=did_you_mean(name, [entry.name for entry in self], "tables"),
        )

    # --- what the binder asks -------------------------------------------------------------------------------

    def table(self, name: str, place_text: str | None = None, tree: exp.Expr | None = None) -> Node:
        """The plan of a table, view or file of this name, over the rows that are there now."""
        return _Names(self).table(name, place_text, tree)

    def readable(self, name: str, place: Place | None) -> Entry | None:
        """The entry of a name that is read; None for a file.

        Raises:
            CatalogNotFoundError[sql.unknown_table]. TableKindError[sql.table_kind]: it is a sink.
        """
        entry = self.get(name)
        if entry is None and not files.looks_like_path(name):
            error = self._not_found(name)
            error.place = place
            raise error
        if entry is not None and entry.kind is EntryKind.SINK:
            raise TableKindError(
                "sql.table_kind",
                f'table-kind constraint violation: "{entry.name}" is a sink and cannot be read',
                hint="read the table or file that it writes",
                place=place,
            )
        return entry

    def file(self, path: str) -> Node:
        """The plan of a file that is named in a query."""
        return Scan(files.read(self._engine, path).relation)

    def stream(self, name: str) -> Node:
        """The plan of a name with its SOURCE tables as streams."""
        return _Names(self, streaming=True).table(name)

    def stored_plan(self, entry: Entry) -> Node:
        """The plan of what has no meaning of its own in a stream: stored rows, files."""
        if entry.node is not None:
            return entry.node
        if entry.stored is not None:
            node: Node = Scan(self._stored(entry.name, entry.stored, entry.kind))
        else:
            statement = _created(entry)
            node = (
                batch_of_source(self._engine, statement, entry.sql or "")
                if entry.kind is EntryKind.SOURCE
                else file_table(self._engine, statement, statement.using, statement.options)
            )
        self._entries[entry.name.lower()] = replace(entry, node=node)
        return node

    def source_plan(self, entry: Entry) -> Node:
        """The plan of a SOURCE table as a stream. A source is new with each call, but for one that programs hold."""
        statement, text = _created(entry), entry.sql or ""
        told = declared(statement, text)
        if endpoints.is_held(endpoints.SOURCES, told):
            source = self._held.setdefault(entry.name.lower(), endpoints.source(self._engine, told))
        else:
            source = endpoints.source(self._engine, told)
        return self._with_watermark(source_node(source, entry.name), statement, text)

    def held(self, name: str) -> Any:
        """The source or sink that a SOURCE or SINK table of this name stands for, where programs hold its other end.

        Raises:
            CatalogNotFoundError. TableKindError[sql.table_kind]: no such end is held by a program.
        """
        entry = self.get(name)
        if entry is None:
            raise self._not_found(name)
        if entry.name.lower() not in self._held and entry.sql is not None and entry.stored is None:
            if entry.kind is EntryKind.SOURCE:
                self.source_plan(entry)
            elif entry.kind is EntryKind.SINK:
                self._sink(entry)
        if entry.name.lower() not in self._held:
            raise TableKindError(
                "sql.table_kind",
                f'"{entry.name}" is a {entry.kind} that programs neither push to nor poll from',
                hint=f"CREATE SOURCE TABLE {entry.name} (...) USING queue, CREATE SINK TABLE {entry.name} USING queue",
            )
        return self._held[entry.name.lower()]

    def hold_sink(self, name: str, sink: abi.Sink) -> None:
        """Name a sink that a program made, for as long as the session lives."""
        self.put(Entry(name, EntryKind.SINK, temporary=True), or_replace=False)
        self._held[name.lower()] = sink

    def _sink(self, entry: Entry) -> abi.Sink:
        key = entry.name.lower()
        if key in self._held:
            held: abi.Sink = self._held[key]
            return held
        if entry.stored is not None:
            if entry.temporary:
                raise TableKindError(
                    "sql.table_kind",
                    f'"{entry.name}" is temporary, a stream writes to tables that stay',
                    hint="CREATE TABLE without TEMP, or a SINK TABLE USING memory",
                )
            from velaria_core.execution.materialized import FollowedTableSink

            changed = self._views.changed
            return FollowedTableSink(entry.name, self._engine, self._feeds, self.indexes, changed)
        statement, text = _created(entry), entry.sql or ""
        made = sink_of(self._engine, statement, text)
        if endpoints.is_held(endpoints.SINKS, declared(statement, text)):
            self._held[key] = made
        return made

    def _stored(self, name: str, stored: str, kind: EntryKind) -> Relation:
        with self._engine.cursor() as cursor:
            schema = cursor.schema(f"SELECT * FROM {stored}")
        pushdown = frozenset({"projection", "filter"})
        indexes = self.indexes if stored == quoted(name) else None
        return Relation(f"{kind} {name}", schema, stored, "table", pushdown=pushdown, indexes=indexes)

    def table_function(self, call: exp.Expr) -> Node | None:
        """The plan of `read_csv('...')` and its kin, or None for what is not a reader of ours."""
        opened = files.from_call(self._engine, *_call_parts(call))
        return Scan(opened.relation) if opened is not None else None

    def schema_of(self, template: str, tables: Sequence[Node]) -> pa.Schema:
        """The columns of an opaque query, as the engine binds it."""
        node = Opaque(template, tuple(tables), (), "")
        return lower.schema(self._engine, node)

    def time_kind(self, node: Node, column: str) -> TimeKind:
        """What kind of time a column holds."""
        kind = lower.schema(self._engine, node).field(column).type
        if pa.types.is_integer(kind):
            return TimeKind.INTEGER
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return TimeKind.TIMESTAMP_UTC
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return TimeKind.TIMESTAMP
        if pa.types.is_string(kind):
            return TimeKind.TEXT
        raise SqlSemanticError(
            "sql.window_column",
            f'"{column}" is {type_name(kind)}, which is no time',
            hint="a window takes a timestamp, date, integer of milliseconds, or ISO text",
        )

    def type_of(self, node: Node, column: str) -> pa.DataType:
        """The type of a node's column, as the engine has it."""
        return lower.schema(self._engine, node).field(column).type

    # --- statements -----------------------------------------------------------------------------------------

    def bind(self, select: Select, text: str) -> Node:
        """The plan of a SELECT over the rows that are there now."""
        return Binder(_Names(self), text).bind(select)

    def bind_stream(self, select: Select, text: str) -> Node:
        """The plan of a SELECT with its SOURCE tables as streams."""
        node = Binder(_Names(self, streaming=True), text).bind(select)
        refuse_open_pivot(node, select.tree, text)
        return node

    def bind_stream_insert(self, statement: Insert, text: str) -> tuple[Node, abi.Sink]:
        """The plan of `INSERT INTO sink SELECT`, with the columns that the sink takes, and the sink.

        Raises:
            TableKindError[sql.table_kind]: a source or view is written to. CatalogNotFoundError.
        """
        node, place = self.bind_stream(statement.select, text), statement.table.span.place(text)
        places = [span.place(text) for span in statement.column_spans]
        entry = self._entry_to_write(str(statement.table), place)
        try:
            return self._into(entry, node, statement.columns, by_name=statement.by_name, places=places)
        except InputError as error:
            error.place = error.place or place
            raise

    def stream_into(self, name: str, node: Node) -> tuple[Node, abi.Sink]:
        """A stream's plan with the columns that the sink or table of this name takes, by position, and the sink.

        Raises:
            TableKindError[sql.table_kind]. CatalogNotFoundError. SqlSemanticError[sql.column_count].
        """
        return self._into(self._entry_to_write(name, None), node)

    def _into(
        self,
        entry: Entry,
        node: Node,
        columns: Sequence[str] | None = None,
        *,
        by_name: bool = False,
        places: Sequence[Place] = (),
    ) -> tuple[Node, abi.Sink]:
        sink, schema = self._sink(entry), self._sink_schema(entry)
        known: Sequence[str] = schema.names if schema is not None else columns or node.columns
        targets = _targets(entry.name, known, columns, node, by_name=by_name, places=places)
        return fitted(node, lower.schema(self._engine, node), targets, schema, self._never_null(entry)), sink

    def _entry_to_write(self, name: str, place: Place | None) -> Entry:
        entry = self.get(name)
        if entry is None:
            error = self._not_found(name)
            error.place = place
            raise error
        if entry.kind in (EntryKind.TABLE, EntryKind.SINK) and (entry.stored or entry.kind is EntryKind.SINK):
            return entry
        raise TableKindError(
            "sql.table_kind",
            f'table-kind constraint violation: "{entry.name}" is a {entry.kind} and cannot be written',
            hint="a stream is written to a SINK TABLE, or to a table that stores rows",
            place=place,
        )

    def _never_null(self, entry: Entry) -> dict[str, str]:
        """The columns of a table that are declared NOT NULL, and what is said of a NULL in one."""
        if entry.stored is not None:
            with self._engine.cursor() as cursor:
                names = [row[0] for row in cursor.rows(f"DESCRIBE {entry.stored}") if row[2] == "NO"]
        else:
            columns = _created(entry).columns if entry.sql is not None else ()
            names = [column.name for column in columns if column.not_null]
        return {name: f"NOT NULL constraint failed: {entry.name}.{name}" for name in names}

    def _sink_schema(self, entry: Entry) -> pa.Schema | None:
        """The columns that a sink takes; None takes those of the query."""
        if entry.stored is not None:
            return self._stored(entry.name, entry.stored, entry.kind).schema
        return schema_of(_created(entry), entry.sql) if entry.sql is not None else None

    def run(self, statement: Statement, text: str) -> pa.Table:
        """Run a statement other than SELECT.

        Returns:
            One row (ok, message, affected_rows) for what changes something, or a listing.
        """
        handler = _HANDLERS.get(type(statement))
        if handler is None:
            raise SqlUnsupportedError("sql.unsupported_statement", f"{type(statement).__name__} is not run here")
        try:
            return handler(self, statement, text)
        except (InputError, ExternalError) as error:
            # What knows no better place is about the path or the name in the statement.
            spans = statement.option_spans if isinstance(statement, CreateTable) else {}
            if error.place is None and error.code.startswith("file.") and "path" in spans:
                error.place = spans["path"].place(text)
            elif error.place is None and isinstance(error, InputError) and (name := _subject(statement)) is not None:
                error.place = name.span.place(text)
            raise

    def _create_table(self, statement: CreateTable, text: str) -> pa.Table:
        name = str(statement.name)
        kind = EntryKind(statement.kind.value)
        noun = {EntryKind.TABLE: "table", EntryKind.SOURCE: "source table", EntryKind.SINK: "sink table"}[kind]
        existing = self.get(name)
        if existing is not None and statement.if_not_exists:
            return _done(f"create {noun} done")
        if existing is not None and (not statement.or_replace or existing.kind != kind):
            raise InputError(
                "catalog.exists",
                f'there is already a {existing.kind} "{existing.name}"',
                hint="CREATE OR REPLACE, IF NOT EXISTS, or DROP it first",
            )
        defined = statement.using is not None or bool(statement.options)
        if existing is not None and (defined or existing.stored is None):
            self._refuse_followed(existing, "would be another")
        if existing is not None:
            self._refuse_written(existing, "would be another")
        if statement.as_select is not None:
            return self._create_as(statement, self.bind(statement.as_select, text))
        if defined:
            self._define(statement, kind, text)
            return _done(f"create {noun} done")
        if not statement.columns:
            raise SqlSemanticError("sql.no_columns", f'"{name}" has no columns', hint="CREATE TABLE t (a BIGINT)")
        columns = ", ".join(
            f"{quoted(column.name)} {column_type(column, text)}{' NOT NULL' if column.not_null else ''}"
            for column in statement.columns
        )
        stored = self._store(statement, f"({columns})")
        sql = _text_of(statement.span, text) if kind is not EntryKind.TABLE else None
        self._forget(name)
        self.put(Entry(name, kind, stored=stored, sql=sql, temporary=statement.temp))
        return _done(f"create {noun} done")

    def _define(self, statement: CreateTable, kind: EntryKind, text: str) -> None:
        """Keep a file table, source or sink by its text. It is made once, so that what is wrong with it shows now."""
        name, sql, node = str(statement.name), _text_of(statement.span, text), None
        held: abi.Source | abi.Sink | None = None
        told = declared(statement, text)
        match kind:
            case EntryKind.SOURCE:
                source = endpoints.source(self._engine, told)
                self._with_watermark(source_node(source, name), statement, text)
                if told.schema is None:
                    # What the first file told is declared from here on: later ones do not change the table.
                    sql = with_columns(statement, text, source.info().schema)
                held = source if endpoints.is_held(endpoints.SOURCES, told) else None
            case EntryKind.SINK:
                sink = sink_of(self._engine, statement, text)
                held = sink if endpoints.is_held(endpoints.SINKS, told) else None
            case _:
                node = file_table(self._engine, statement, statement.using, statement.options)
        self._forget(name)
        self.put(Entry(name, kind, node=node, sql=sql, temporary=statement.temp))
        if held is not None:
            self._held[name.lower()] = held

    def _with_watermark(self, node: Node, statement: CreateTable, text: str) -> Node:
        """The stream of a source with the watermark that its statement declares."""
        arguments = endpoints.watermark_arguments(declared(statement, text))
        mark = statement.watermark
        if mark is None:
            if arguments:
                key = next(key for key in statement.options if key in endpoints.WATERMARK_OPTIONS)
                raise InputError(
                    "option.value",
                    f'"{key}" is for a table with a watermark',
                    hint="(ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL 5 SECONDS)",
                    place=declared(statement, text).place(key),
                )
            return node
        column = next((name for name in node.columns if name.lower() == mark.column.lower()), None)
        if column is None:
            raise SqlSemanticError(
                "sql.unknown_column",
                f'no column "{mark.column}" in "{statement.name}"',
                hint=did_you_mean(mark.column, node.columns, "columns"),
                place=mark.span.place(text),
            )
        try:
            kind = self.time_kind(node, column)
        except SqlSemanticError as error:
            error.place = mark.span.place(text)
            raise
        return Watermark(node, column, kind, mark.delay_ms, **arguments)

    def _create_as(self, statement: CreateTable, node: Node) -> pa.Table:
        if statement.kind is not TableKind.TABLE:
            raise SqlSemanticError("sql.create_as", "a source or sink is not made from a query")
        stored = self._stored_name(statement)
        rows = self._make(str(statement.name), node, stored)
        self._forget(str(statement.name))
        self.put(Entry(str(statement.name), EntryKind.TABLE, stored=stored, temporary=statement.temp))
        return _done("create table done", rows)

    def _make(self, name: str, node: Node, stored: str) -> int:
        """Store a plan's rows as a table, in the place of one of that name; how many they are."""
        with self._feeds.locked, batch.running(self._engine, node) as (cursor, lowered):
            rows, is_followed = self._replaced(cursor, name, f"CREATE OR REPLACE TABLE {stored} AS {lowered.sql}")
        if is_followed:
            self._views.changed(name)
        return rows

    def _replaced(self, cursor: Cursor, name: str, sql: str) -> tuple[int, bool]:
        """Run what makes a table anew; how many rows it has, and whether views follow it."""

        def also(cursor: Cursor) -> None:
            self.indexes.check(cursor, name)
            self.indexes.changed(cursor, name)

        if self._feeds.of(name):
            return self._feeds.replace(cursor, name, lambda: cursor.execute(sql), also), True
        if not self.indexes.of(name):
            return cursor.execute(sql), False
        with cursor.transaction():
            rows = cursor.execute(sql)
            also(cursor)
        return rows, False

    def _stored_name(self, statement: CreateTable) -> str:
        name = quoted(str(statement.name))
        return f"{TEMPORARY}.{name}" if statement.temp else name

    def _store(self, statement: CreateTable, definition: str) -> str:
        stored = self._stored_name(statement)
        sql, name = f"CREATE OR REPLACE TABLE {stored} {definition}", str(statement.name)
        with self._feeds.locked, self._engine.cursor() as cursor:
            _, is_followed = self._replaced(cursor, name, sql)
        if is_followed:
            self._views.changed(name)
        return stored

    def _forget(self, name: str) -> None:
        self._entries.pop(name.lower(), None)
        self._held.pop(name.lower(), None)

    def _create_view(self, statement: CreateView, text: str) -> pa.Table:
        if statement.materialized:
            return self._create_materialized(statement, text)
        name = str(statement.name)
        existing = self.get(name)
        if existing is not None and statement.if_not_exists:
            return _done("create view done")
        if existing is not None and (existing.kind is not EntryKind.VIEW or not statement.or_replace):
            raise InputError(
                "catalog.exists",
                f'there is already a {existing.kind} "{existing.name}"',
                hint="CREATE OR REPLACE VIEW" if existing.kind is EntryKind.VIEW else "DROP it, or use another name",
            )
        if existing is not None:
            self._refuse_followed(existing, "would be another")
        entry = Entry(name, EntryKind.VIEW, sql=_text_of(statement.span, text), temporary=statement.temp)
        # Bound once with the new meaning in place: errors and circles show now, not at the first use.
        self._entries[name.lower()] = entry
        try:
            lower.schema(self._engine, self.stream(name))
        except BaseException:
            self._forget(name)
            if existing is not None:
                self._entries[name.lower()] = existing
            raise
        self.put(entry)
        return _done("create view done")

    def _create_materialized(self, statement: CreateView, text: str) -> pa.Table:
        name = str(statement.name)
        existing = self.get(name)
        if existing is not None and statement.if_not_exists:
            return _done("create materialized view done")
        if existing is not None and (existing.kind is not EntryKind.MATERIALIZED or not statement.or_replace):
            raise InputError(
                "catalog.exists",
                f'there is already a {existing.kind} "{existing.name}"',
                hint="CREATE OR REPLACE, or DROP it first",
            )
        self._refuse_for_view(statement, text)
        entry = Entry(name, EntryKind.MATERIALIZED, stored=quoted(name), sql=_text_of(statement.span, text))
        bases: dict[str, pa.Schema] = {}
        node = self._followed_plan(statement, text, bases)
        refuse_endless_order(node)
        lower.schema(self._engine, node)
        if existing is not None:
            self.drop(existing.name)
        try:
            self._views.create(self._view_of(entry), bases, lambda cursor: self._record(cursor, entry))
        except BaseException:
            self._entries[name.lower()] = entry
            self.drop(name)
            raise
        self._entries[name.lower()] = entry
        return _done("create materialized view done")

    def _refuse_for_view(self, statement: CreateView, text: str) -> None:
        tree = statement.select.tree
        unsteady = next((node for node in tree.walk() if is_volatile(node)), None) if tree is not None else None
        if unsteady is not None:
            raise SqlUnsupportedError(
                "sql.volatile",
                f"a materialized view is of its rows alone, and {to_sql(unsteady)} gives something else each time",
                hint="call it in the query that reads the view",
                place=place_of(unsteady, text),
            )
        if statement.temp:
            raise SqlUnsupportedError(
                "sql.unsupported",
                "a materialized view is stored with its tables",
                hint="a session without a path keeps all of them in memory",
                place=statement.name.span.place(text),
            )
        for key in statement.options:
            place = statement.option_spans[key].place(text)
            raise InputError("option.unknown", f'no option "{key}" for a materialized view', place=place)

    def _view_of(self, entry: Entry) -> View:
        from velaria_core.execution.materialized import View

        text = entry.sql or ""
        (statement,) = parse(text)
        assert isinstance(statement, CreateView), "a materialized view is defined by its statement"
        append = statement.select.emit is Emit.ON_WINDOW_CLOSE
        return View(entry.name, lambda: self._followed_plan(statement, text, {}), append)

    def _followed_plan(self, statement: CreateView, text: str, bases: dict[str, pa.Schema]) -> Node:
        """The plan of a materialized view: its tables, which are collected in `bases`, as streams of their changes."""
        view = str(statement.name)

        def follow(entry: Entry) -> Node:
            assert entry.stored is not None, "what is followed stores rows"
            if entry.name.lower() == view.lower():
                raise InputError("catalog.cyclic_view", f"the view reads itself: {view}")
            bases[entry.name] = schema = self._stored(entry.name, entry.stored, entry.kind).schema
            return source_node(self._views.followed_source(view, entry.name, schema), entry.name)

        names = _Names(self, streaming=True, follow=follow)
        try:
            node = self.view_plan(statement, text, names)
        except VelariaError:
            self._read_by.setdefault(view.lower(), names.bound)
            raise
        self._read_by[view.lower()] = names.bound
        return node

    def _refresh(self, statement: Refresh, _text: str) -> pa.Table:
        name = str(statement.name)
        entry = self.get(name)
        if entry is None:
            raise self._not_found(name)
        if entry.kind is not EntryKind.MATERIALIZED:
            raise InputError("catalog.kind", f'"{entry.name}" is a {entry.kind}', hint="it has nothing to refresh")
        return _done("refresh materialized view done", self._views.refresh(entry.name))

    def view_plan(self, statement: CreateView, text: str, names: _Names) -> Node:
        """The plan of a view whose own names mean what `names` says."""
        node = Binder(names, text).bind(statement.select)
        if not statement.columns:
            return node
        if len(statement.columns) != len(node.columns):
            raise SqlSemanticError(
                "sql.column_count",
                f'"{statement.name}" names {len(statement.columns)} columns of {len(node.columns)}',
            )
        pairs = zip(statement.columns, node.columns, strict=True)
        return Project(node, tuple((new, reference(old)) for new, old in pairs))

    def _insert(self, statement: Insert, text: str) -> pa.Table:
        node = self.bind(statement.select, text)
        entry = self._writable(str(statement.table))
        places = [span.place(text) for span in statement.column_spans]
        known = self._stored_columns(entry)
        targets = _targets(entry.name, known, statement.columns, node, by_name=statement.by_name, places=places)
        return self._append(entry, targets, node)

    def _writable(self, name: str) -> Entry:
        """The entry of a name that rows may be stored under."""
        entry = self.get(name)
        if entry is None:
            raise self._not_found(name)
        if entry.kind is EntryKind.SOURCE:
            raise TableKindError(
                "sql.table_kind",
                f'table-kind constraint violation: "{entry.name}" is a source and cannot be written',
                hint="a source is fed from outside; INSERT into a table or a sink",
            )
        if entry.stored is None:
            raise TableKindError(
                "sql.table_kind",
                f'table-kind constraint violation: "{entry.name}" is a {entry.kind} that stores no rows',
                hint="start_stream_sql feeds this sink" if entry.kind is EntryKind.SINK else None,
            )
        if entry.kind is EntryKind.MATERIALIZED:
            raise TableKindError(
                "sql.table_kind",
                f'table-kind constraint violation: "{entry.name}" is a materialized view and cannot be written',
                hint="INSERT into what it reads",
            )
        return entry

    def _append(self, entry: Entry, targets: Sequence[str], node: Node) -> pa.Table:
        listed = ", ".join(quoted(name) for name in targets)
        # Locked, so that no view begins to follow the table between the question and the rows.
        with self._feeds.locked, batch.running(self._engine, node) as (cursor, lowered):
            # As a query, the rows of VALUES would first be brought to one type: 1 beside 2.50 becomes 1.00.
            rows_in = node.clause() if isinstance(node, Values) else lowered.sql
            into = f"INSERT INTO {entry.stored} ({listed}) {rows_in}"
            if self._feeds.of(entry.name):
                also = partial(self.indexes.changed, base=entry.name, removed=False)
                rows = self._feeds.append(cursor, entry.name, listed, rows_in, also)
            elif self.indexes.of(entry.name):
                with cursor.transaction():
                    self.indexes.changed(cursor, entry.name, removed=False)
                    rows = cursor.execute(into)
            else:
                rows = cursor.execute(into)
        told = "insert done" if rows else "insert ignored: empty input"
        for view in self._views.changed(entry.name) if self._feeds.of(entry.name) else ():
            assert view.error is not None, "a view that is behind says why"
            told += f'; the materialized view "{view.name}" is behind: {view.error.message}'
        return _done(told, rows)

    def insert_plan(self, name: str, node: Node) -> int:
        """Append a plan's rows to a stored table by position; returns how many."""
        entry = self._writable(name)
        done = self._append(entry, _targets(entry.name, self._stored_columns(entry), None, node), node)
        return int(done.column("affected_rows")[0].as_py())

    def _stored_columns(self, entry: Entry) -> list[str]:
        assert entry.stored is not None
        return list(self._stored(entry.name, entry.stored, entry.kind).schema.names)

    def store_plan(self, name: str, node: Node, *, or_replace: bool = False) -> int:
        """Store a plan's rows as a new table; returns how many."""
        existing = self.get(name)
        if existing is not None and (not or_replace or existing.kind is not EntryKind.TABLE):
            raise InputError(
                "catalog.exists",
                f'there is already a {existing.kind} "{existing.name}"',
                hint="or_replace=True",
            )
        if existing is not None and existing.stored is None:
            self._refuse_followed(existing, "would be another")
        if existing is not None:
            self._refuse_written(existing, "would be another")
        rows = self._make(name, node, quoted(name))
        self._forget(name)
        self.put(Entry(name, EntryKind.TABLE, stored=quoted(name)))
        return rows

    def _create_index(self, statement: CreateIndex, text: str) -> pa.Table:
        places = {name: found.place(text) for name, found in statement.option_spans.items()}
        try:
            self.create_index(
                statement.name,
                str(statement.table),
                statement.columns,
                statement.options,
                kind=statement.kind,
                if_not_exists=statement.if_not_exists,
                places=places,
            )
        except InputError as error:
            error.place = error.place or statement.columns_span.place(text)
            raise
        return _done("create index done")

    def create_index(
        self,
        name: str,
        base: str,
        columns: Sequence[str],
        options: Mapping[str, Value],
        *,
        kind: str | None = None,
        if_not_exists: bool = False,
        places: Mapping[str, Place | None] | None = None,
    ) -> None:
        """Make a search index of a stored table.

        Args:
            kind: "vector" or "keyword"; None: that of the first column.
            places: where the options stand in a statement.

        Raises:
            As `Indexes.create` and `index_options`.
            CatalogNotFoundError[sql.unknown_table], TableKindError[sql.table_kind], InputError[index.kind].
        """
        if kind is not None and kind not in tuple(IndexKind):
            hint = did_you_mean(kind, IndexKind, "kinds")
            raise InputError("index.kind", f'no kind of index "{kind}"', hint=hint)
        if if_not_exists and self.indexes.get(name) is not None:
            return
        entry = self.get(base)
        if entry is None:
            raise self._not_found(base)
        if entry.kind is not EntryKind.TABLE or entry.stored is None or entry.temporary:
            what = "temporary" if entry.temporary else f"a {entry.kind}"
            raise TableKindError(
                "sql.table_kind",
                f'"{entry.name}" is {what}, and an index is of a table that stays',
                hint="CREATE TABLE without TEMP; a view is indexed by the tables that it reads",
            )
        if kind is None:
            schema = self._stored(entry.name, entry.stored, entry.kind).schema
            first = [field.type for field in schema if field.name.lower() in [name.lower() for name in columns[:1]]]
            kind = "keyword" if any(map(pa.types.is_string, first)) else "vector"
        made = IndexKind(kind)
        self.indexes.create(name, made, entry.name, columns, index_options(made, options, places))

    def _shown_indexes(self) -> pa.Table:
        """The search indexes."""
        found = list(self.indexes)
        # What is exact answers every metric.
        approximate = [not index.options.is_exact for index in found]
        is_vector = [index.kind is IndexKind.VECTOR for index in found]
        texts = {
            "name": [index.name for index in found],
            "kind": [index.kind.value for index in found],
            "table": [index.base for index in found],
            "columns": [", ".join(index.columns) for index in found],
            "analyzer": [index.options.analyzer or None for index in found],
            "method": [index.options.method if of else None for index, of in zip(found, is_vector, strict=True)],
            "metric": [index.options.metric if of else None for index, of in zip(found, approximate, strict=True)],
        }
        shown = pa.table({name: pa.array(values, pa.string()) for name, values in texts.items()})
        return shown.append_column("recall", pa.array([self.indexes.recall(index) for index in found], pa.float64()))

    def _drop(self, statement: Drop, _text: str) -> pa.Table:
        if statement.kind is DropKind.INDEX:
            name = str(statement.name)
            if not statement.if_exists or self.indexes.get(name) is not None:
                self.indexes.drop(name)
            return _done("drop index done")
        self.drop(str(statement.name), kinds=_DROPS[statement.kind], if_exists=statement.if_exists)
        return _done(f"drop {statement.kind.value} done")

    def _described(self, target: Name | Select, text: str) -> Node:
        if isinstance(target, Select):
            return self.bind(target, text)
        entry = self.get(str(target))
        if entry is not None and entry.kind is EntryKind.SINK and entry.stored is not None:
            return Scan(self._stored(entry.name, entry.stored, entry.kind))
        return self.table(str(target))

    def _columns_of(self, target: Name | Select, text: str) -> pa.Schema:
        """The columns of what DESCRIBE names, which need not be readable in batch."""
        if isinstance(target, Select):
            return lower.schema(self._engine, self.bind_stream(target, text))
        entry = self.get(str(target))
        if entry is None or entry.kind is not EntryKind.SINK:
            return lower.schema(self._engine, self.stream(str(target)))
        schema = self._sink_schema(entry)
        if schema is None:
            hint = "declare columns to fix them: CREATE SINK TABLE name (a BIGINT) ..."
            raise InputError("catalog.no_columns", f'"{entry.name}" takes the columns of the query', hint=hint)
        return schema

    def _describe(self, statement: Describe, text: str) -> pa.Table:
        schema = self._columns_of(statement.target, text)
        return pa.table(
            {
                "column_name": pa.array(schema.names, pa.string()),
                "column_type": pa.array([type_name(field.type) for field in schema], pa.string()),
            }
        )

    def _show_create(self, statement: ShowCreate, _text: str) -> pa.Table:
        name = str(statement.name)
        entry = self.get(name)
        if entry is None:
            raise self._not_found(name)
        sql = entry.sql
        if sql is None and entry.stored is not None:
            never_null = self._never_null(entry)
            columns = [
                f"{quoted(item.name)} {duckdb_type(item.type)}{' NOT NULL' if item.name in never_null else ''}"
                for item in self._stored(entry.name, entry.stored, entry.kind).schema
            ]
            temporary = "TEMP " if entry.temporary else ""
            sql = f"CREATE {temporary}TABLE {quoted(entry.name)} ({', '.join(columns)})"
        if sql is None:
            raise InputError("catalog.kind", f'"{entry.name}" is a {entry.kind} that a program made, not a statement')
        return pa.table({"name": pa.array([entry.name], pa.string()), "sql": pa.array([sql], pa.string())})

    def _summarize(self, statement: Summarize, text: str) -> pa.Table:
        node = self._described(statement.target, text)
        with batch.running(self._engine, node) as (cursor, lowered):
            return cursor.table(f"SELECT * FROM (SUMMARIZE {lowered.sql})")

    def _shown_views(self) -> pa.Table:
        """The materialized views, and whether they keep up."""
        entries = [entry for entry in self if entry.kind is EntryKind.MATERIALIZED]
        found = [self._views.get(entry.name) for entry in entries]
        errors = [str(view.error) if view is not None and view.error is not None else None for view in found]
        states = ["closed" if view is None else "behind" if view.error else "fresh" for view in found]
        return pa.table(
            {
                "name": pa.array([entry.name for entry in entries], pa.string()),
                "status": pa.array(states, pa.string()),
                "error": pa.array(errors, pa.string()),
            }
        )

    def _shown_streams(self) -> pa.Table:
        """The stream queries that run, and the last that ended; what one failed with may be told nowhere else."""
        found = registry.known(self._engine)
        return pa.table(
            {
                "name": pa.array([one.progress.query_id for one in found], pa.string()),
                "status": pa.array([one.progress.status.value for one in found], pa.string()),
                "rows_in": pa.array([one.progress.rows_in for one in found], pa.int64()),
                "rows_out": pa.array([one.progress.rows_out for one in found], pa.int64()),
                "error": pa.array([one.progress.error for one in found], pa.string()),
                "query": pa.array([one.label for one in found], pa.string()),
            }
        )

    def _show(self, statement: ShowTables, _text: str) -> pa.Table:
        if statement.kind is ShowKind.FUNCTIONS:
            sql = "SELECT DISTINCT function_name AS name, function_type AS kind FROM duckdb_functions() ORDER BY ALL"
            with self._engine.cursor() as cursor:
                listing = cursor.table(sql)
        elif statement.kind is ShowKind.MATERIALIZED_VIEWS:
            listing = self._shown_views()
        elif statement.kind is ShowKind.STREAMS:
            listing = self._shown_streams()
        elif statement.kind is ShowKind.INDEXES:
            listing = self._shown_indexes()
        else:
            wanted = statement.kind.value.removesuffix("s")
            entries = [entry for entry in self if wanted == "table" or entry.kind.value == wanted]
            listing = pa.table(
                {
                    "name": pa.array([entry.name for entry in entries], pa.string()),
                    "kind": pa.array([entry.kind.value for entry in entries], pa.string()),
                    "temporary": pa.array([entry.temporary for entry in entries], pa.bool_()),
                }
            )
        if statement.like is None:
            return listing
        return listing.filter(pc.match_like(listing.column("name"), statement.like, ignore_case=True))


class _Names:
    """What the names of one statement mean; what its binder asks. Each name is bound once.

    Args:
        streaming: SOURCE tables are streams; otherwise they are the rows that they have now.
        follow: gives the plan of a stored table whose changes are followed; None: its rows are those of now.
    """

    def __init__(
        self, catalog: Catalog, *, streaming: bool = False, follow: Callable[[Entry], Node] | None = None
    ) -> None:
        self._catalog = catalog
        self._streaming = streaming
        self._follow = follow
        self._made: dict[str, Node] = {}
        self._binding: list[str] = []
        self.table_function = catalog.table_function
        self.schema_of = catalog.schema_of
        self.time_kind = catalog.time_kind
        self.type_of = catalog.type_of

    @property
    def bound(self) -> frozenset[str]:
        """The names that were asked for so far, folded; also those that views read."""
        return frozenset(self._made)

    def table(self, name: str, place_text: str | None = None, tree: exp.Expr | None = None) -> Node:
        """See `Tables`."""
        place = place_of(tree, place_text) if tree is not None else None
        entry = self._catalog.readable(name, place)
        if entry is None:
            return self._catalog.file(name)
        key = entry.name.lower()
        if key not in self._made:
            try:
                self._made[key] = self._plan(entry)
            except InputError as error:
                if error.code == "sql.stream_only":
                    error.place = place
                raise
        return self._made[key]

    def _plan(self, entry: Entry) -> Node:
        if self._streaming and entry.kind is EntryKind.SOURCE and entry.stored is None:
            return self._catalog.source_plan(entry)
        if self._follow is not None and entry.temporary:
            raise SqlUnsupportedError(
                "sql.temporary",
                f'a materialized view outlives "{entry.name}", which is temporary',
                hint="CREATE TABLE or CREATE VIEW without TEMP",
            )
        if self._follow is not None and entry.kind in (EntryKind.TABLE, EntryKind.MATERIALIZED) and entry.stored:
            return self._follow(entry)
        if entry.kind is not EntryKind.VIEW or entry.node is not None:
            return self._catalog.stored_plan(entry)
        key = entry.name.lower()
        if key in self._binding:
            path = " -> ".join([*self._binding[self._binding.index(key) :], key])
            raise InputError(
                "catalog.cyclic_view",
                f"views read each other in a circle: {path}",
                hint="redefine one of them",
            )
        assert entry.sql is not None, "a view is bound or defined by a text"
        self._binding.append(key)
        try:
            (statement,) = parse(entry.sql)
            assert isinstance(statement, CreateView)
            return self._catalog.view_plan(statement, entry.sql, self)
        finally:
            self._binding.pop()


def _created(entry: Entry) -> CreateTable:
    """The statement that defines a file table, source or sink."""
    assert entry.sql is not None, "what is not stored is defined by a text"
    (statement,) = parse(entry.sql)
    assert isinstance(statement, CreateTable)
    return statement


def _targets(
    table: str,
    columns: Sequence[str],
    named: Sequence[str] | None,
    node: Node,
    *,
    by_name: bool = False,
    places: Sequence[Place] = (),
) -> list[str]:
    """The columns of a table that a plan's columns go to, in the plan's order.

    Args:
        columns: of the table.
        named: those that the statement lists, None for all; `places` are theirs.
    """
    known = {name.lower(): name for name in columns}
    targets = list(node.columns if by_name else named if named else known.values())
    seen: set[str] = set()
    for at, name in enumerate(targets):
        place = places[at] if at < len(places) else None
        if name.lower() not in known:
            raise SqlSemanticError(
                "sql.unknown_column",
                f'no column "{name}" in "{table}"',
                hint=did_you_mean(name, known.values(), "columns"),
                place=place,
            )
        if name.lower() in seen:
            raise SqlSemanticError("sql.duplicate_column", f'"{name}" is listed twice', place=place)
        seen.add(name.lower())
    if len(targets) != len(node.columns):
        raise SqlSemanticError(
            "sql.column_count",
            f'"{table}" takes {len(targets)} values, {len(node.columns)} are given',
            hint=f"columns: {', '.join(targets)}",
            place=places[0] if places else None,
        )
    return [known[name.lower()] for name in targets]


def _subject(statement: Statement) -> Name | None:
    """The table or view that a statement is about."""
    match statement:
        case CreateTable() | CreateView() | Drop() | Refresh() | ShowCreate():
            return statement.name
        case CreateIndex():
            return statement.table
        case Insert():
            return statement.table
        case Describe() | Summarize() if isinstance(statement.target, Name):
            return statement.target
    return None


_DROPS = {
    DropKind.TABLE: (EntryKind.TABLE, EntryKind.SOURCE, EntryKind.SINK),
    DropKind.SOURCE: (EntryKind.SOURCE,),
    DropKind.SINK: (EntryKind.SINK,),
    DropKind.VIEW: (EntryKind.VIEW,),
    DropKind.MATERIALIZED_VIEW: (EntryKind.MATERIALIZED,),
}


def _text_of(span: Span, text: str) -> str:
    return text[span.offset : span.end]


def _table_names(cursor: Cursor) -> set[str]:
    known = cursor.rows(
        "SELECT table_name FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = 'main' AND NOT internal"
    )
    return {str(name) for (name,) in known}


def _plain_name(name: str) -> str:
    """`main.orders` and `orders` are one name."""
    return name.removeprefix("main.")


def _call_parts(call: exp.Expr) -> tuple[str, list[Any], dict[str, Any]]:
    """Name, positional and named arguments of a table function, as Python values where they are literals."""
    name = to_sql(call).partition("(")[0].strip().lower()
    positional: list[Any] = []
    named: dict[str, Any] = {}
    arguments = [call.this, *call.expressions] if isinstance(call.this, exp.Expr) else list(call.expressions)
    for argument in arguments:
        if isinstance(argument, (exp.EQ, exp.PropertyEQ, exp.Kwarg)):
            named[argument.this.name.lower()] = _python_value(argument.expression)
        else:
            positional.append(_python_value(argument))
    return name, positional, named


def _python_value(tree: exp.Expr) -> Any:
    match tree:
        case exp.Literal():
            return (
                str(tree.this) if tree.is_string else int(tree.this) if str(tree.this).isdigit() else float(tree.this)
            )
        case exp.Boolean():
            return bool(tree.this)
        case exp.Null():
            return None
        case exp.Array() | exp.Tuple():
            return [_python_value(item) for item in tree.expressions]
        case exp.Struct():
            return {item.this.name: _python_value(item.expression) for item in tree.expressions}
    return tree


def _done(message: str, rows: int = 0) -> pa.Table:
    return pa.table(
        {
            "ok": pa.array([1], pa.int64()),
            "message": pa.array([message], pa.string()),
            "affected_rows": pa.array([rows], pa.int64()),
        }
    )


_HANDLERS: Mapping[type, Callable[[Catalog, Any, str], pa.Table]] = {
    CreateIndex: Catalog._create_index,
    CreateTable: Catalog._create_table,
    CreateView: Catalog._create_view,
    Insert: Catalog._insert,
    Drop: Catalog._drop,
    Refresh: Catalog._refresh,
    Describe: Catalog._describe,
    Summarize: Catalog._summarize,
    ShowTables: Catalog._show,
    ShowCreate: Catalog._show_create,
}
