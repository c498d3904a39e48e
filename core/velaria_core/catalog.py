"""Catalog: what names mean in one session, and the statements that change it.

A table is stored in the engine; a view, a file table, a source or a sink is a definition. In a session with a path
all but the temporary ones are durable: tables in the database itself, definitions as SQL text in `_velaria_objects`.
Views are bound when they are used, so they follow what they read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from velaria_core.errors import (
    CatalogNotFoundError,
    InputError,
    Place,
    SqlSemanticError,
    SqlUnsupportedError,
    TableKindError,
    did_you_mean,
)
from velaria_core.execution import batch, files, lower
from velaria_core.execution.duck import Engine
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.expr import reference, to_sql
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Opaque, Project, Scan, Values
from velaria_core.logical.relation import Relation
from velaria_core.logical.scope import place_of
from velaria_core.logical.sql.binder import Binder
from velaria_core.logical.sql.parser import parse
from velaria_core.logical.sql.statements import (
    ColumnDef,
    CreateTable,
    CreateView,
    Describe,
    Drop,
    DropKind,
    Insert,
    Name,
    Select,
    ShowKind,
    ShowTables,
    Statement,
    Summarize,
    TableKind,
)
from velaria_core.logical.sql.tokens import Span
from velaria_core.types import quoted, resolve_type_name, type_name

OBJECTS = "_velaria_objects"
TEMPORARY = "velaria_temp.main"


class EntryKind(StrEnum):
    TABLE = "table"
    VIEW = "view"
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
        self._binding: list[str] = []
        if engine.settings.path is not None:
            self._load()

    def _load(self) -> None:
        with self._engine.cursor() as cursor:
            if not self._engine.settings.read_only:
                cursor.execute(
                    f"CREATE TABLE IF NOT EXISTS {OBJECTS} (name VARCHAR, kind VARCHAR, stored VARCHAR, sql VARCHAR)"
                )
            known = cursor.rows(
                "SELECT table_name FROM duckdb_tables() "
                "WHERE database_name = current_database() AND schema_name = 'main' AND NOT internal"
            )
            names = {str(name) for (name,) in known}
            defined = cursor.rows(f"SELECT name, kind, stored, sql FROM {OBJECTS}") if OBJECTS in names else []
        for name in sorted(names - {OBJECTS}):
            self._entries[name.lower()] = Entry(name, EntryKind.TABLE, stored=quoted(name))
        for name, kind, stored, sql in defined:
            self._entries[name.lower()] = Entry(name, EntryKind(kind), stored=stored, sql=sql)

    # --- names ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def get(self, name: str) -> Entry | None:
        """The entry of a name, compared without case."""
        return self._entries.get(_plain_name(name).lower())

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
        with self._engine.cursor() as cursor:
            if entry.stored is not None:
                cursor.rows(f"DROP TABLE IF EXISTS {entry.stored}")
            if self._engine.settings.path is not None and not entry.temporary:
                cursor.rows(f"DELETE FROM {OBJECTS} WHERE lower(name) = lower($1)", [entry.name])
        del self._entries[entry.name.lower()]
        return True

    def _not_found(self, name: str, tree: exp.Expr | None = None, text: str | None = None) -> CatalogNotFoundError:
        return CatalogNotFoundError(
            "sql.unknown_table",
            f'no table "{name}"',
            hint=did_you_mean(name, [entry.name for entry in self], "tables"),
            place=place_of(tree, text) if tree is not None else None,
        )

    # --- what the binder asks -------------------------------------------------------------------------------

    def table(self, name: str, place_text: str | None = None, tree: exp.Expr | None = None) -> Node:
        """The plan of a table, view or file of this name."""
        entry = self.get(name)
        if entry is None:
            if files.looks_like_path(name):
                return Scan(files.read(self._engine, name).relation)
            raise self._not_found(name, tree, place_text)
        if entry.kind is EntryKind.SINK:
            raise TableKindError(
                "sql.table_kind",
                f'table-kind constraint violation: "{entry.name}" is a sink and cannot be read',
                hint="read the table or file that it writes",
                place=place_of(tree, place_text) if tree is not None else None,
            )
        return self._plan(entry)

    def _plan(self, entry: Entry) -> Node:
        if entry.node is not None:
            return entry.node
        if entry.stored is not None:
            node: Node = Scan(self._stored(entry.name, entry.stored, entry.kind))
            self._entries[entry.name.lower()] = replace(entry, node=node)
            return node
        assert entry.sql is not None, "an entry is stored, bound or defined by a text"
        key = entry.name.lower()
        if key in self._binding:
            path = " -> ".join([*self._binding[self._binding.index(key) :], key])
            raise InputError(
                "catalog.cyclic_view",
                f"views read each other in a circle: {path}",
                hint="redefine one of them",
            )
        self._binding.append(key)
        try:
            (statement,) = parse(entry.sql)
            if isinstance(statement, CreateView):
                return self._view_plan(statement, entry.sql)
            assert isinstance(statement, CreateTable)
            node = self._file_table(statement)
            self._entries[key] = replace(entry, node=node)
            return node
        finally:
            self._binding.pop()

    def _stored(self, name: str, stored: str, kind: EntryKind) -> Relation:
        with self._engine.cursor() as cursor:
            schema = cursor.schema(f"SELECT * FROM {stored}")
        return Relation(f"{kind} {name}", schema, stored, "table", pushdown=frozenset({"projection", "filter"}))

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

    # --- statements -----------------------------------------------------------------------------------------

    def bind(self, select: Select, text: str) -> Node:
        """The plan of a SELECT."""
        return Binder(self, text).bind(select)

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
        except InputError as error:
            # What knows no better place is about the name in the statement.
            if error.place is None and (name := _subject(statement)) is not None:
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
        if statement.as_select is not None:
            return self._create_as(statement, self.bind(statement.as_select, text))
        if statement.using is not None or statement.options:
            node = self._file_table(statement) if kind is EntryKind.TABLE else None
            self.put(Entry(name, kind, node=node, sql=_text_of(statement.span, text), temporary=statement.temp))
            return _done(f"create {noun} done")
        if not statement.columns:
            raise SqlSemanticError("sql.no_columns", f'"{name}" has no columns', hint="CREATE TABLE t (a BIGINT)")
        columns = ", ".join(
            f"{quoted(column.name)} {_declared_type(column, text)}{' NOT NULL' if column.not_null else ''}"
            for column in statement.columns
        )
        stored = self._store(statement, f"({columns})")
        sql = _text_of(statement.span, text) if kind is not EntryKind.TABLE else None
        self._forget(name)
        self.put(Entry(name, kind, stored=stored, sql=sql, temporary=statement.temp))
        return _done(f"create {noun} done")

    def _create_as(self, statement: CreateTable, node: Node) -> pa.Table:
        if statement.kind is not TableKind.TABLE:
            raise SqlSemanticError("sql.create_as", "a source or sink is not made from a query")
        with batch.running(self._engine, node) as (cursor, lowered):
            stored = self._stored_name(statement)
            rows = cursor.execute(f"CREATE OR REPLACE TABLE {stored} AS {lowered.sql}")
        self._forget(str(statement.name))
        self.put(Entry(str(statement.name), EntryKind.TABLE, stored=stored, temporary=statement.temp))
        return _done("create table done", rows)

    def _stored_name(self, statement: CreateTable) -> str:
        name = quoted(str(statement.name))
        return f"{TEMPORARY}.{name}" if statement.temp else name

    def _store(self, statement: CreateTable, definition: str) -> str:
        stored = self._stored_name(statement)
        with self._engine.cursor() as cursor:
            cursor.rows(f"CREATE OR REPLACE TABLE {stored} {definition}")
        return stored

    def _forget(self, name: str) -> None:
        self._entries.pop(name.lower(), None)

    def _file_table(self, statement: CreateTable) -> Node:
        opened = files.from_options(self._engine, statement.using, statement.options)
        node: Node = Scan(opened.relation)
        if not statement.columns:
            return node
        declared = {column.name.lower(): column for column in statement.columns}
        if [name.lower() for name in node.columns] != list(declared):
            raise SqlSemanticError(
                "sql.schema_mismatch",
                f'"{statement.name}" declares other columns than the file has',
                hint=f"declared: {', '.join(c.name for c in statement.columns)}; file: {', '.join(node.columns)}",
            )
        types = {
            name: resolve_type_name(column.type_text, in_sql=True)
            for name, column in zip(node.columns, statement.columns, strict=True)
            if column.type_text is not None
        }
        # Opened again with these types: a column declared as text is the file's text, not that of a number found in it.
        node = Scan(files.from_options(self._engine, statement.using, statement.options, types).relation)
        named = tuple(
            (
                column.name,
                exp.Cast(
                    this=reference(name),
                    to=exp.DataType.build(resolve_type_name(column.type_text, in_sql=True), dialect="duckdb"),
                )
                if column.type_text is not None
                else reference(name),
            )
            for name, column in zip(node.columns, statement.columns, strict=True)
        )
        return Project(node, named)

    def _create_view(self, statement: CreateView, text: str) -> pa.Table:
        if statement.materialized:
            raise SqlUnsupportedError(
                "sql.unsupported",
                "materialized views come with the streaming runtime",
                hint="CREATE VIEW, or CREATE TABLE AS",
            )
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
        entry = Entry(name, EntryKind.VIEW, sql=_text_of(statement.span, text), temporary=statement.temp)
        # Bound once with the new meaning in place: errors and circles show now, not at the first use.
        self._entries[name.lower()] = entry
        try:
            lower.schema(self._engine, self._plan(entry))
        except BaseException:
            self._forget(name)
            if existing is not None:
                self._entries[name.lower()] = existing
            raise
        self.put(entry)
        return _done("create view done")

    def _view_plan(self, statement: CreateView, text: str) -> Node:
        node = self.bind(statement.select, text)
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
        targets = self._targets(entry, statement.columns, node, by_name=statement.by_name, places=places)
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
                hint="a sink that writes files is fed by start_stream_sql" if entry.kind is EntryKind.SINK else None,
            )
        return entry

    def _append(self, entry: Entry, targets: Sequence[str], node: Node) -> pa.Table:
        listed = ", ".join(quoted(name) for name in targets)
        with batch.running(self._engine, node) as (cursor, lowered):
            # As a query, the rows of VALUES would first be brought to one type: 1 beside 2.50 becomes 1.00.
            rows_in = node.clause() if isinstance(node, Values) else lowered.sql
            rows = cursor.execute(f"INSERT INTO {entry.stored} ({listed}) {rows_in}")
        return _done("insert done" if rows else "insert ignored: empty input", rows)

    def insert_plan(self, name: str, node: Node) -> int:
        """Append a plan's rows to a stored table by position; returns how many."""
        entry = self._writable(name)
        done = self._append(entry, self._targets(entry, None, node), node)
        return int(done.column("affected_rows")[0].as_py())

    def store_plan(self, name: str, node: Node, *, or_replace: bool = False) -> int:
        """Store a plan's rows as a new table; returns how many."""
        existing = self.get(name)
        if existing is not None and (not or_replace or existing.kind is not EntryKind.TABLE):
            raise InputError(
                "catalog.exists",
                f'there is already a {existing.kind} "{existing.name}"',
                hint="or_replace=True",
            )
        with batch.running(self._engine, node) as (cursor, lowered):
            rows = cursor.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS {lowered.sql}")
        self._forget(name)
        self.put(Entry(name, EntryKind.TABLE, stored=quoted(name)))
        return rows

    def _targets(
        self,
        entry: Entry,
        columns: Sequence[str] | None,
        node: Node,
        *,
        by_name: bool = False,
        places: Sequence[Place] = (),
    ) -> list[str]:
        """The stored columns that a plan's columns go to, in the plan's order. `places` are those of `columns`."""
        assert entry.stored is not None
        known = {name.lower(): name for name in self._stored(entry.name, entry.stored, entry.kind).schema.names}
        targets = list(node.columns if by_name else columns if columns else known.values())
        seen: set[str] = set()
        for at, name in enumerate(targets):
            place = places[at] if at < len(places) else None
            if name.lower() not in known:
                raise SqlSemanticError(
                    "sql.unknown_column",
                    f'no column "{name}" in "{entry.name}"',
                    hint=did_you_mean(name, known.values(), "columns"),
                    place=place,
                )
            if name.lower() in seen:
                raise SqlSemanticError("sql.duplicate_column", f'"{name}" is listed twice', place=place)
            seen.add(name.lower())
        if len(targets) != len(node.columns):
            raise SqlSemanticError(
                "sql.column_count",
                f'"{entry.name}" takes {len(targets)} values, {len(node.columns)} are given',
                hint=f"columns: {', '.join(targets)}",
            )
        return [known[name.lower()] for name in targets]

    def _drop(self, statement: Drop, _text: str) -> pa.Table:
        self.drop(str(statement.name), kinds=_DROPS[statement.kind], if_exists=statement.if_exists)
        return _done(f"drop {statement.kind.value} done")

    def _described(self, target: Name | Select, text: str) -> Node:
        if isinstance(target, Select):
            return self.bind(target, text)
        entry = self.get(str(target))
        if entry is not None and entry.kind is EntryKind.SINK and entry.stored is not None:
            return Scan(self._stored(entry.name, entry.stored, entry.kind))
        return self.table(str(target))

    def _describe(self, statement: Describe, text: str) -> pa.Table:
        schema = lower.schema(self._engine, self._described(statement.target, text))
        return pa.table(
            {
                "column_name": pa.array(schema.names, pa.string()),
                "column_type": pa.array([type_name(field.type) for field in schema], pa.string()),
            }
        )

    def _summarize(self, statement: Summarize, text: str) -> pa.Table:
        node = self._described(statement.target, text)
        with batch.running(self._engine, node) as (cursor, lowered):
            return cursor.table(f"SELECT * FROM (SUMMARIZE {lowered.sql})")

    def _show(self, statement: ShowTables, _text: str) -> pa.Table:
        if statement.kind is ShowKind.FUNCTIONS:
            sql = "SELECT DISTINCT function_name AS name, function_type AS kind FROM duckdb_functions() ORDER BY ALL"
            with self._engine.cursor() as cursor:
                listing = cursor.table(sql)
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


def _subject(statement: Statement) -> Name | None:
    """The table or view that a statement is about."""
    match statement:
        case CreateTable() | CreateView() | Drop():
            return statement.name
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
    DropKind.MATERIALIZED_VIEW: (EntryKind.VIEW,),
}


def _declared_type(column: ColumnDef, text: str) -> str:
    if column.type_text is None:
        raise SqlSemanticError(
            "sql.no_type",
            f'"{column.name}" has no type',
            hint=f"{column.name} BIGINT",
            place=Place.in_text(text, column.span.offset, column.span.length),
        )
    return resolve_type_name(column.type_text, in_sql=True)


def _text_of(span: Span, text: str) -> str:
    return text[span.offset : span.end]


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
    CreateTable: Catalog._create_table,
    CreateView: Catalog._create_view,
    Insert: Catalog._insert,
    Drop: Catalog._drop,
    Describe: Catalog._describe,
    Summarize: Catalog._summarize,
    ShowTables: Catalog._show,
}
