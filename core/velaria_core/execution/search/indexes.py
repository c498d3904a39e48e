"""Indexes: the search indexes that a session's stored tables have beside them.

The database says which there are, and of each table with an index how often it has changed: two numbers, which every
statement that changes the table raises in its own transaction, one for any change and one where rows also went. An
index keeps as its token the numbers that it is of, how many rows there were up to which row id, and which row ids. So
whoever reads the numbers in a transaction knows whether the index is of the rows that it sees; if not, the index is
brought up to these rows first. Rows that only came are added, where the table still has the same ids up to the last one
known. Else rows are compared one by one, by their ids and by a hash of what they hold, since the engine may number rows
anew once some are gone: what is gone or other is removed and what is new is added. Where most rows would be, the index
is built anew.

Invariant: a search reads numbers, index and rows under one lock and in one transaction, so it is never ahead of or
behind the rows.

Indexes lie in folders beside the database, or in a temporary one where the session is in memory.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from velaria_core.errors import CatalogNotFoundError, InputError, StateError, did_you_mean
from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.outside import outside
from velaria_core.execution.search.approximate import check_installed, is_installed
from velaria_core.execution.search.index_options import IndexKind, IndexOptions, index_options
from velaria_core.execution.search.keyword_index import KeywordIndex
from velaria_core.execution.search.keyword_search import places_of
from velaria_core.execution.search.nearest import Metric
from velaria_core.execution.search.vector_index import VectorIndex
from velaria_core.execution.search.vectors import vectors_of
from velaria_core.execution.vectors import Rows
from velaria_core.logical.analyzers import analyzer
from velaria_core.types import quoted, type_name

SCHEMA: Final = "velaria_search"
_INDEXES: Final = f"{SCHEMA}.indexes"
_CHANGES: Final = f"{SCHEMA}.changes"
_READ_ROWS: Final = 65_536
_ROW_ID: Final = "rowid"
_CAME: Final = "velaria_came"


@dataclass(frozen=True, slots=True)
class Index:
    """A search index of a stored table.

    Attributes:
        base: the table.
        number: of its folder.
    """

    name: str
    kind: IndexKind
    base: str
    columns: tuple[str, ...]
    options: IndexOptions
    number: int


@dataclass(frozen=True, slots=True)
class _State:
    """What an index is of: the table's numbers, how many rows, the last row id, and which row ids (`_ids`)."""

    changes: int
    removals: int
    rows: int
    last: int
    ids: int

    def token(self) -> str:
        return json.dumps([self.changes, self.removals, self.rows, self.last, self.ids])

    @staticmethod
    def of(token: str) -> _State | None:
        """None where nothing is told, or what was told before row ids were."""
        numbers = json.loads(token or "[]")
        return _State(*numbers) if len(numbers) == 5 else None


class Indexes:
    """The search indexes of one session."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._indexes: dict[str, Index] = {}
        self._opened: dict[str, VectorIndex | KeywordIndex] = {}
        path = engine.settings.path
        self._folder: Path | None = Path(f"{path}.indexes") if path is not None else None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def load(self, cursor: Cursor) -> None:
        """Find the indexes of a database that was opened. They are opened when they are used."""
        if not cursor.rows("SELECT 1 FROM duckdb_tables() WHERE schema_name = $1", [SCHEMA]):
            return
        for row in cursor.table(f"SELECT * FROM {_INDEXES}").to_pylist():
            name, kind, cut = row["name"], IndexKind(row["kind"]), row["analyzer"]
            # Databases of before there were options have no such column, and all that was made then is exact.
            given = json.loads(row.get("options") or "{}")
            options = index_options(kind, {"analyzer": cut} if kind is IndexKind.KEYWORD else given)
            columns = tuple(json.loads(row["columns"]))
            self._indexes[name.lower()] = Index(name, kind, row["base"], columns, options, row["number"])

    def close(self) -> None:
        """Forget what is open; temporary folders go."""
        with self._lock:
            self._opened.clear()
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None

    # --- which there are ------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Index]:
        return iter(sorted(self._indexes.values(), key=lambda index: index.name))

    def get(self, name: str) -> Index | None:
        """The index of this name, compared without case."""
        return self._indexes.get(name.lower())

    def of(self, base: str) -> list[Index]:
        """The indexes of a table."""
        return [index for index in self if index.base.lower() == base.lower()]

    def vectors(self, base: str, column: str, metric: str) -> Index | None:
        """An index of a table that can search a column of vectors: best an approximate one of the metric."""
        found = [index for index in self.of(base) if index.kind is IndexKind.VECTOR and _has(index, [column])]

        def rank(index: Index) -> int:
            return 1 if index.options.is_exact else 0 if index.options.metric == metric else 2

        return min(found, key=rank, default=None)

    def words(self, base: str, columns: Sequence[str], cut: str) -> Index | None:
        """An index of a table that can search columns of texts that an analyzer cuts."""
        for index in self.of(base):
            if index.kind is IndexKind.KEYWORD and _has(index, columns) and index.options.analyzer == cut:
                return index
        return None

    def recall(self, index: Index) -> float | None:
        """The part of the exact answer that a vector index finds, as measured when it was built: 1 for an exact one.
        None where there is none: of an index of words, of no vectors, or that must be built anew."""
        if index.kind is IndexKind.KEYWORD or index.options.is_exact:
            return 1.0 if index.kind is IndexKind.VECTOR else None
        with self._lock:
            opened = self._opened.get(index.name.lower()) or self._open(index)
            assert opened is None or isinstance(opened, VectorIndex)
            return opened.approximate.recall if opened is not None and opened.approximate is not None else None

    def create(self, name: str, kind: IndexKind, base: str, columns: Sequence[str], options: IndexOptions) -> Index:
        """Make an index of a stored table, and build it.

        Raises:
            InputError[index.exists, index.columns, index.rowid, search.not_a_vector, search.not_text,
                search.analyzer_missing, vector_index.extra].
        """
        if (old := self.get(name)) is not None:
            hint = f"DROP INDEX {old.name}, or use another name"
            raise InputError("index.exists", f'there is already an index "{old.name}" on {old.base}', hint=hint)
        with self._lock, self._engine.cursor() as cursor:
            exact = self._checked(cursor.schema(f"SELECT * FROM main.{quoted(base)}"), kind, columns)
            if kind is IndexKind.KEYWORD:
                analyzer(options.analyzer)
            if not options.is_exact:
                check_installed()
            with cursor.transaction():
                cursor.rows(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                texts = ", ".join(f"{column} VARCHAR" for column in ("name", "kind", "base", "columns", "analyzer"))
                cursor.rows(f"CREATE TABLE IF NOT EXISTS {_INDEXES} ({texts}, number BIGINT)")
                cursor.rows(f"ALTER TABLE {_INDEXES} ADD COLUMN IF NOT EXISTS options VARCHAR")
                cursor.rows(f"CREATE SEQUENCE IF NOT EXISTS {SCHEMA}.numbers")
                numbers = "base VARCHAR, changes BIGINT, removals BIGINT"
                cursor.rows(f"CREATE TABLE IF NOT EXISTS {_CHANGES} ({numbers})")
                ((number,),) = cursor.rows(f"SELECT nextval('{SCHEMA}.numbers')")
                index = Index(name, kind, base, exact, options, number)
                told = {"method": options.method, "metric": options.metric, "recall": options.recall}
                kept = json.dumps(told) if kind is IndexKind.VECTOR else None
                values = [name, kind.value, base, json.dumps(exact), options.analyzer, number, kept]
                cursor.rows(f"INSERT INTO {_INDEXES} VALUES ($1, $2, $3, $4, $5, $6, $7)", values)
                if not self.of(base):
                    cursor.rows(f"INSERT INTO {_CHANGES} VALUES (lower($1), 0, 0)", [base])
            self._indexes[name.lower()] = index
            try:
                with cursor.transaction():
                    self._current(index, cursor)
            except BaseException:
                self.drop(name)
                raise
        return index

    @staticmethod
    def _checked(schema: pa.Schema, kind: IndexKind, columns: Sequence[str]) -> tuple[str, ...]:
        known = {field.name.lower(): field for field in schema}
        if _ROW_ID in known:
            told = 'a column "rowid" hides the engine\'s own, by which an index knows rows'
            raise InputError("index.rowid", told, hint="rename the column")
        if not columns:
            raise InputError("index.columns", "an index is of one column or more")
        for name in columns:
            if name.lower() not in known:
                hint = did_you_mean(name, schema.names, "columns")
                raise InputError("sql.unknown_column", f'no column "{name}" to index', hint=hint)
        fields = [known[name.lower()] for name in columns]
        if kind is IndexKind.VECTOR:
            if len(fields) != 1:
                raise InputError("index.columns", f"a vector index is of one column, not {len(fields)}")
            (field,) = fields
            if not pa.types.is_fixed_size_list(field.type) or not pa.types.is_float32(field.type.value_type):
                told = f'"{field.name}" is {type_name(field.type)}, and a vector index is of FLOAT[n]'
                raise InputError("search.not_a_vector", told, hint=f"CAST({field.name} AS FLOAT[n])")
        for field in fields if kind is IndexKind.KEYWORD else ():
            if not pa.types.is_string(field.type):
                told = f'"{field.name}" is {type_name(field.type)}, which is no text'
                raise InputError("search.not_text", told, hint=f"CAST({field.name} AS VARCHAR)")
        return tuple(field.name for field in fields)

    def check(self, cursor: Cursor, base: str) -> None:
        """Refuse that a table which is made anew lacks what its indexes are of. In the transaction that makes it.

        Raises:
            InputError: as `create`.
        """
        for index in self.of(base):
            try:
                self._checked(cursor.schema(f"SELECT * FROM main.{quoted(base)}"), index.kind, index.columns)
            except InputError as error:
                error.hint = f"DROP INDEX {index.name} first"
                raise

    def drop(self, name: str) -> None:
        """Forget an index, and its files.

        Raises:
            CatalogNotFoundError[index.unknown].
        """
        index = self.get(name)
        if index is None:
            hint = did_you_mean(name, [one.name for one in self], "indexes")
            raise CatalogNotFoundError("index.unknown", f'no index "{name}"', hint=hint)
        with self._lock, self._engine.cursor() as cursor:
            with cursor.transaction():
                cursor.rows(f"DELETE FROM {_INDEXES} WHERE number = $1", [index.number])
                if len(self.of(index.base)) == 1:
                    cursor.rows(f"DELETE FROM {_CHANGES} WHERE base = lower($1)", [index.base])
            del self._indexes[name.lower()]
            self._opened.pop(name.lower(), None)
            self._remove(index)

    def drop_of(self, base: str) -> None:
        """Forget the indexes of a table that goes."""
        for index in self.of(base):
            self.drop(index.name)

    # --- changes --------------------------------------------------------------------------------------------

    def changed(self, cursor: Cursor, base: str, *, removed: bool = True) -> None:
        """A table changes in the transaction at hand.

        Args:
            removed: rows may also have gone, or come in the place of others.
        """
        if self.of(base):
            more = ", removals = removals + 1" if removed else ""
            cursor.rows(f"UPDATE {_CHANGES} SET changes = changes + 1{more} WHERE base = lower($1)", [base])

    @contextmanager
    def searching(self, index: Index, cursor: Cursor) -> Iterator[VectorIndex | KeywordIndex]:
        """The index, of the rows that the cursor's transaction sees. Others wait, so search and let go.

        Raises:
            CatalogNotFoundError[index.unknown]: it was dropped meanwhile.
            StateError[index.behind]: the session may only read, and a crash has left the index behind its table.
        """
        with self._lock:
            if self.get(index.name) != index:
                raise CatalogNotFoundError("index.unknown", f'the index "{index.name}" was dropped')
            yield self._current(index, cursor)

    def _current(self, index: Index, cursor: Cursor) -> VectorIndex | KeywordIndex:
        """The index, brought up to the rows that the cursor sees."""
        table, name = f"main.{quoted(index.base)}", index.name.lower()
        ((changes, removals),) = cursor.rows(
            f"SELECT changes, removals FROM {_CHANGES} WHERE base = lower($1)", [index.base]
        )
        ((rows, last),) = cursor.rows(f"SELECT count(*), coalesce(max({_ROW_ID}), -1) FROM {table}")
        now = _State(changes, removals, rows, last, _ids(cursor, table, rows, last))
        # What fails half-way is not used again: on disk is what was saved last.
        opened = self._opened.pop(name, None) or self._open(index)
        if opened is None or _State.of(opened.token) != now:
            if self._engine.settings.read_only:
                raise StateError("index.behind", f'the index "{index.name}" is not of the rows of {index.base}')
            if opened is None or not self._brought_up(index, opened, now, cursor):
                opened = self._new(index, cursor)
                self._fill(index, opened, cursor)
            self._save(index, opened, now.token())
        if isinstance(opened, VectorIndex) and not self._engine.settings.read_only:
            self._approximate(index.options, opened)
        self._opened[name] = opened
        return opened

    @staticmethod
    def _approximate(asked: IndexOptions, opened: VectorIndex) -> None:
        """Build the approximate index that was asked for, where it is not there: at first, after building it has
        failed, or once FAISS is back."""
        if not asked.is_exact and opened.approximate is None and len(opened) and is_installed():
            opened.build_approximate(asked.method, Metric(asked.metric.value), asked.recall)

    def _brought_up(self, index: Index, opened: VectorIndex | KeywordIndex, now: _State, cursor: Cursor) -> bool:
        """Change an index by what has changed in its table; False where it is better built anew: nothing is changed."""
        table = f"main.{quoted(index.base)}"
        then = _State.of(opened.token)
        if then is not None and then.removals == now.removals and then.changes < now.changes:
            ((known,),) = cursor.rows(f"SELECT count(*) FROM {table} WHERE {_ROW_ID} <= {then.last:d}")
            if known == then.rows and _ids(cursor, table, known, then.last) == then.ids:
                self._fill(index, opened, cursor, f"WHERE {_ROW_ID} > {then.last:d}")
                return True
        if isinstance(opened, VectorIndex) and opened.dimension != self._dimension(index, cursor):
            return False
        there = f"WHERE {self._listed(index)} IS NOT NULL" if index.kind is IndexKind.VECTOR else ""
        found = cursor.table(f"SELECT {_ROW_ID}, hash({self._listed(index)}) FROM {table} {there} ORDER BY 1")
        ids, hashes = (column.to_numpy() for column in found.columns)
        known_ids, known_hashes = opened.known()
        at, which = places_of(known_ids, ids)
        same = known_hashes[at] == hashes[which]
        came: Rows = np.delete(ids, which[same])
        if 2 * len(came) > len(ids):
            return False
        opened.remove(np.delete(known_ids, at[same]))
        if len(came):
            cursor.bind({_CAME: pa.table({"id": came})})
            self._fill(index, opened, cursor, f"SEMI JOIN {_CAME} AS c ON t.{_ROW_ID} = c.id")
        return True

    def _fill(self, index: Index, opened: VectorIndex | KeywordIndex, cursor: Cursor, which: str = "") -> None:
        """Add the rows of the table to its index, or those that some clauses leave."""
        listed = self._listed(index)
        sql = f"SELECT {_ROW_ID}, hash({listed}), {listed} FROM main.{quoted(index.base)} AS t {which}"
        for batch in cursor.batches(cursor.reader(sql, _READ_ROWS)):
            ids, hashes = (batch.column(at).to_numpy() for at in range(2))
            if isinstance(opened, VectorIndex):
                opened.add(ids, vectors_of(batch.column(2)), hashes)
            else:
                opened.add(self._engine, ids, pa.table(batch.columns[2:], names=index.columns), hashes)

    @staticmethod
    def _listed(index: Index) -> str:
        return ", ".join(quoted(name) for name in index.columns)

    # --- files ----------------------------------------------------------------------------------------------

    def _place(self, index: Index) -> Path:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="velaria-indexes-")
            self._folder = Path(self._temporary.name)
        return self._folder / str(index.number)

    def _open(self, index: Index) -> VectorIndex | KeywordIndex | None:
        """The index as it lies in its folder; None where it must be built: it is missing, damaged, or of another
        version."""
        try:
            place = self._place(index)
            return VectorIndex.open(place) if index.kind is IndexKind.VECTOR else KeywordIndex.open(place)
        except StateError:
            return None

    def _new(self, index: Index, cursor: Cursor) -> VectorIndex | KeywordIndex:
        if index.kind is IndexKind.KEYWORD:
            return KeywordIndex(index.columns, index.options.analyzer)
        self._remove(index)
        return VectorIndex.create(self._place(index), self._dimension(index, cursor))

    def _dimension(self, index: Index, cursor: Cursor) -> int:
        (column,) = cursor.schema(f"SELECT {self._listed(index)} FROM main.{quoted(index.base)}")
        return int(column.type.list_size)

    def _save(self, index: Index, opened: VectorIndex | KeywordIndex, token: str) -> None:
        if isinstance(opened, VectorIndex):
            opened.commit(token)
            if opened.merge_is_due:
                opened.merge()
        else:
            if opened.merge_is_due:
                opened.merge()
            opened.save(self._place(index), token)

    def _remove(self, index: Index) -> None:
        place = self._place(index)
        with outside(f"removing {place}"):
            if place.exists():
                shutil.rmtree(place)


def _has(index: Index, columns: Sequence[str]) -> bool:
    """Whether an index is of these columns, and maybe more."""
    return {name.lower() for name in columns} <= {name.lower() for name in index.columns}


def _ids(cursor: Cursor, table: str, rows: int, last: int) -> int:
    """Which row ids the first rows of a table have, as one number; 0 where they have no gaps.

    The engine closes gaps when it writes a table down: rows get other ids, in the same order, and there may be as many
    as before, up to the same last one. Without gaps it has nothing to close.

    Args:
        rows: how many they are.
        last: the id up to which they are.

    Cost: 0.8 ms for a million rows, with gaps alone.
    """
    if rows == last + 1:
        return 0
    ((found,),) = cursor.rows(f"SELECT bit_xor(hash({_ROW_ID})) FROM {table} WHERE {_ROW_ID} <= {last:d}")
    return int(found)
