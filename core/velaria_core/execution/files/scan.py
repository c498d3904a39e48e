"""From a way of reading to what a plan scans: lazily in place, or staged in a table of the session or of the cache.

Rows that fail can be left out exactly only when every column of every row is looked at once, and the engine looks at no
column that a query does not name. So `on_error="skip"` and `"collect"` read the file once, when it is opened, into a
native table (which spills); a lazy read would count other rows for other queries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.files.faults import Source, is_bad, kind_name, original
from velaria_core.execution.files.guard import Column
from velaria_core.execution.files.options import OnError, ReadOptions
from velaria_core.execution.files.paths import File
from velaria_core.logical.relation import Relation
from velaria_core.types import literal, quoted

# What the engine does itself while it reads columns.
COLUMNAR = frozenset({"projection", "filter"})
REJECTS = "file VARCHAR, line BIGINT, column_name VARCHAR, error VARCHAR, text VARCHAR"
LINE, TEXT, FAULT = '"velaria line"', '"velaria text"', '"velaria fault"'

# Reads every row into the table of the first name, and what fails into the rejects table of the second.
Stage = Callable[[Cursor, str, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class OpenedFile:
    """A file that can be scanned.

    Attributes:
        relation: its rows.
        rejects: (file, line, column_name, error, text) of the cells and rows left out, with on_error="collect".
        skipped: how many rows were left out; None where the file was not read yet.
        warnings: what a reader should know of how it was understood.
    """

    relation: Relation
    rejects: Relation | None = None
    skipped: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a file is read.

    Attributes:
        sql: what stands after FROM.
        stage: how it is read row by row, or None where rows do not fail singly.
        feed: Arrow data to be bound under the name in `sql`.
        pushdown: what the engine's reader takes over.
    """

    kind: str
    files: tuple[File, ...]
    sql: str
    stage: Stage | None = None
    feed: Any = None
    pushdown: frozenset[str] = frozenset({"projection"})
    details: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


_tables = count(1)
_lock = Lock()
_kept: WeakKeyDictionary[Engine, dict[str, OpenedFile]] = WeakKeyDictionary()


def label(kind: str, files: Sequence[File]) -> str:
    """`csv flights.csv`, or with how many more."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{kind} {os.path.basename(files[0].path)}{more}"


def opened(
    engine: Engine, kind: str, files: tuple[File, ...], options: ReadOptions, build: Callable[[], Plan]
) -> OpenedFile:
    """Open files as the options say. `build` looks into them; a cache hit does without."""
    if options.materialization.enabled:
        from velaria_core.execution.files import cache

        return cache.materialised(engine, kind, files, options, build)
    if options.materialization.in_memory or options.on_error is not OnError.FAIL:
        return _in_session(engine, kind, files, options, build)
    plan = build()
    return OpenedFile(relation_of(engine, plan), warnings=plan.warnings)


def relation_of(engine: Engine, plan: Plan) -> Relation:
    """The relation of a plan that is read in place. Binds it once, for its schema."""
    feeds = {plan.sql.strip('"'): plan.feed} if plan.feed is not None else None
    paths = tuple(file.path for file in plan.files)
    with engine.cursor(feeds) as cursor:
        schema = cursor.schema(f"SELECT * FROM {plan.sql}")
    return Relation(
        label=label(plan.kind, plan.files),
        schema=schema,
        sql=plan.sql,
        kind=plan.kind,
        feed=plan.feed,
        pushdown=plan.pushdown,
        details=(
            ("files", str(len(plan.files))),
            ("bytes", str(sum(file.size for file in plan.files))),
            *plan.details,
        ),
        # A copy in another encoding stands elsewhere, and Arrow files are opened once.
        files=paths if plan.feed is None and all(literal(path) in plan.sql for path in paths) else (),
    )


def _in_session(
    engine: Engine, kind: str, files: tuple[File, ...], options: ReadOptions, build: Callable[[], Plan]
) -> OpenedFile:
    """The columns as a native table of this session; the same files and options give the same table."""
    key = repr((kind, [file.fingerprint for file in files], options.key()))
    with _lock:
        known = _kept.setdefault(engine, {}).get(key)
    if known is not None:
        return known
    plan = build()
    table, rejects, skipped = stage(engine, plan, options)
    made = OpenedFile(
        table_relation(engine, plan, table),
        table_relation(engine, plan, rejects, "rejects of ") if options.on_error is OnError.COLLECT else None,
        skipped,
        plan.warnings,
    )
    with _lock:
        return _kept[engine].setdefault(key, made)


def stage(engine: Engine, plan: Plan, options: ReadOptions) -> tuple[str, str, int | None]:
    """Read a plan to its end into tables.

    Returns:
        The names of the tables of rows and of rejects, and how many rows were left out.
    """
    number = next(_tables)
    table, rejects = (f'velaria_temp.main."file_{number}{suffix}"' for suffix in ("", "_rejects"))
    feeds = {plan.sql.strip('"'): plan.feed} if plan.feed is not None else None
    try:
        with engine.cursor(feeds) as cursor:
            cursor.execute(f"CREATE TABLE {rejects} ({REJECTS})")
            if options.on_error is OnError.FAIL or plan.stage is None:
                cursor.execute(f"CREATE TABLE {table} AS SELECT * FROM {plan.sql}")
                return table, rejects, 0 if plan.stage is None else None
            cursor.execute(f"CREATE TABLE {table} AS SELECT * FROM {plan.sql} LIMIT 0")
            plan.stage(cursor, table, rejects)
            _name_originals(cursor, rejects)
            ((skipped,),) = cursor.rows(f"SELECT count(DISTINCT (file, line)) FROM {rejects}")
            return table, rejects, int(skipped)
    except BaseException:
        drop(engine, table, rejects)
        raise


def drop(engine: Engine, *tables: str) -> None:
    """Forget staged tables."""
    with engine.cursor() as cursor:
        for table in tables:
            cursor.execute(f"DROP TABLE IF EXISTS {table}")


def table_relation(engine: Engine, plan: Plan, table: str, prefix: str = "") -> Relation:
    """The relation of a staged table."""
    with engine.cursor() as cursor:
        schema = cursor.schema(f"SELECT * FROM {table}")
    name = f"{prefix}{label(plan.kind, plan.files)} in memory"
    return Relation(name, schema, table, plan.kind, pushdown=COLUMNAR, details=plan.details)


def _name_originals(cursor: Cursor, rejects: str) -> None:
    for (path,) in cursor.rows(f"SELECT DISTINCT file FROM {rejects} WHERE file IS NOT NULL"):
        if (named := original(path)) != path:
            cursor.execute(f"UPDATE {rejects} SET file = ? WHERE file = ?", [named, path])


# --- staging by the engine's own rejects ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader that converts and rejects rows itself: CSV.

    Attributes:
        call: its call in SQL, given further options as text.
        columns: all that it gives.
        output: (name, column) of the wanted ones.
    """

    call: Callable[[str], str]
    columns: tuple[Column, ...]
    output: tuple[tuple[str, str], ...]
    source: Source

    def select(self, name_in_errors: str) -> str:
        """What stands after FROM for a lazy read; `name_in_errors` is the registered source's."""
        plain = all(column.plain for column in self.columns)
        if plain and self.output == tuple((column.name, column.name) for column in self.columns):
            return self.call("")
        places = {column.name: at for at, column in enumerate(self.columns)}
        shown = [
            f"{self.columns[at].value(name_in_errors, at)} AS {quoted(name)}"
            for name, column in self.output
            for at in (places[column],)
        ]
        return f"(SELECT {', '.join(shown)} FROM {self.call('')})"

    def stage(self, cursor: Cursor, table: str, rejects: str) -> None:
        """Read everything: the engine rejects what it cannot convert, guards what it should not."""
        by_name = {column.name: column for column in self.columns}
        wanted = [by_name[name] for name in dict.fromkeys(column for _, column in self.output)]
        bad = [text for column in wanted if (text := column.bad()) is not None]
        values = ", ".join(f"{by_name[column].value_or_null()} AS {quoted(name)}" for name, column in self.output)
        names = ("velaria_rejected", "velaria_rejected_scan", "velaria_stage")
        _drop_temporary(cursor, names)
        try:
            call = self.call(
                f", store_rejects=true, rejects_table='{names[0]}', rejects_scan='{names[1]}', rejects_limit=0"
            )
            cursor.execute(f"CREATE TEMP TABLE {names[2]} AS SELECT * FROM {call}")
            condition = " OR ".join(bad)
            kinds = " ".join(
                f"WHEN {literal(column.name)} THEN {literal(kind_name(column.type))}" for column in self.columns
            )
            keep = f" WHERE NOT ({condition})" if bad else ""
            cursor.execute(f"INSERT INTO {table} BY NAME SELECT {values} FROM {names[2]}{keep}")
            cursor.execute(
                f"INSERT INTO {rejects} SELECT file_path, line, "
                "CASE WHEN error_type = 'CAST' THEN column_name END, CASE error_type "
                "WHEN 'CAST' THEN '\"' || "
                "regexp_extract(error_message, 'Could not convert string \"(.*)\" to ', 1, 's') "
                f"|| '\" is not ' || CASE column_name {kinds} END "
                "ELSE regexp_replace(error_message, 'Expected Number of Columns: (\\d+) Found: (\\d+)', "
                "'expected \\1 fields, found \\2') END, csv_line "
                f"FROM {names[0]} JOIN {names[1]} USING (scan_id, file_id) "
                # The engine tells of every missing column of one row; the first says it all.
                "QUALIFY error_type = 'CAST' OR "
                "row_number() OVER (PARTITION BY scan_id, file_id, line ORDER BY column_idx) = 1 ORDER BY ALL"
            )
            if bad:
                self._reject_guarded(cursor, rejects, names[2], wanted)
        finally:
            _drop_temporary(cursor, names)

    def _reject_guarded(self, cursor: Cursor, rejects: str, staged: str, wanted: Sequence[Column]) -> None:
        """Rejects of guards: the engine kept these rows, so their lines are looked for in Python."""
        values: dict[str, set[str]] = {}
        for column in wanted:
            if (condition := column.bad()) is not None:
                found = cursor.rows(
                    f"SELECT DISTINCT CAST({quoted(column.name)} AS VARCHAR) FROM {staged} WHERE {condition}"
                )
                if found:
                    values[column.name] = {str(value) for (value,) in found}
        if not values:
            return
        rows: list[tuple[str, int, str, str, str]] = []
        for path in self.source.files:
            for record in self.source.records(path):
                if len(record.cells) != len(self.source.columns):
                    continue
                for column, cell in zip(self.source.columns, record.cells, strict=True):
                    if column.name in values and is_bad(column, cell, values[column.name]):
                        reason = f'"{cell}" is not {kind_name(column.type)}'
                        rows.append((path, record.line, column.name, reason, record.text))
        insert_rejects(cursor, rejects, rows)


def insert_rejects(cursor: Cursor, rejects: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows of (file, line, column, error, text)."""
    names = ("file", "line", "column_name", "error", "text")
    kinds = (pa.string(), pa.int64(), pa.string(), pa.string(), pa.string())
    arrays = [pa.array([row[at] for row in rows], kind) for at, kind in enumerate(kinds)]
    cursor.bind({"velaria_found": pa.table(arrays, names=list(names))})
    cursor.execute(f"INSERT INTO {rejects} SELECT * FROM velaria_found")


def _drop_temporary(cursor: Cursor, names: Sequence[str]) -> None:
    for name in names:
        cursor.execute(f"DROP TABLE IF EXISTS {name}")


# --- staging line by line ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LineReader:
    """A reader of lines that we take apart: regular expressions, JSON where bad rows are left out.

    Attributes:
        rows: a query over one file that gives LINE, TEXT, FAULT (why it is no row, or NULL) and the raw columns.
        columns: its raw columns.
    """

    rows: Callable[[str], str]
    columns: tuple[Column, ...]
    files: tuple[str, ...]

    def stage(self, cursor: Cursor, table: str, rejects: str) -> None:
        """Read every file, one after another."""
        bad = [(column, text) for column in self.columns if (text := column.bad()) is not None]
        values = ", ".join(f"{column.value_or_null()} AS {quoted(column.name)}" for column in self.columns)
        none_bad = "".join(f" AND NOT {text}" for _, text in bad)
        for path in self.files:
            _drop_temporary(cursor, ("velaria_stage",))
            try:
                cursor.execute(f"CREATE TEMP TABLE velaria_stage AS {self.rows(path)}")
                cursor.execute(
                    f"INSERT INTO {rejects} SELECT {literal(path)}, {LINE}, NULL, {FAULT}, {TEXT} "
                    f"FROM velaria_stage WHERE {FAULT} IS NOT NULL"
                )
                for column, condition in bad:
                    reason = literal(f'" is not {kind_name(column.type)}')
                    cursor.execute(
                        f"INSERT INTO {rejects} SELECT {literal(path)}, {LINE}, {literal(column.name)}, "
                        f"'\"' || {column.cell} || {reason}, {TEXT} "
                        f"FROM velaria_stage WHERE {FAULT} IS NULL AND {condition}"
                    )
                cursor.execute(
                    f"INSERT INTO {table} BY NAME SELECT {values} FROM velaria_stage WHERE {FAULT} IS NULL{none_bad}"
                )
            finally:
                _drop_temporary(cursor, ("velaria_stage",))
