"""Searched: what answers a search in batch in the place of the engine, where something can.

A search whose rows are those of a stored table with an index, or of Arrow data, with filters and computed columns in
between, need not compare every row: the index, or the kernel over the vectors where they lie, says which rows can be
among the best. These few are all that the search's own query is then given. So what is found, in which order and with
which score is the same as without, and the same as a stream finds.

For words the index gives the scores as well, since they depend on all rows. Of a fused search each side is answered by
its index, or by the engine where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from velaria_core.errors import CatalogNotFoundError, StateError
from velaria_core.execution.duck import Computed, Cursor, Engine
from velaria_core.execution.search.approximate import is_installed
from velaria_core.execution.search.indexes import Index, Indexes
from velaria_core.execution.search.keyword_index import KeywordIndex
from velaria_core.execution.search.keyword_search import Found
from velaria_core.execution.search.nearest import Metric, Nearest, nearest
from velaria_core.execution.search.ties import best_with_ties, nearest_to_each, nearest_with_ties
from velaria_core.execution.search.vector_index import VectorIndex
from velaria_core.execution.search.vectors import Doubles, Vectors, lies_plain, vectors_of
from velaria_core.execution.vectors import Rows
from velaria_core.logical.expr import reference
from velaria_core.logical.lineage import lineage
from velaria_core.logical.node import Node
from velaria_core.logical.operators import (
    Drop,
    Filter,
    HybridSearch,
    KeywordSearch,
    Project,
    Rename,
    Scan,
    VectorSearch,
    WithColumn,
)
from velaria_core.logical.operators.hybrid_search import ROW, WORDS
from velaria_core.logical.operators.keyword_search import SCORE
from velaria_core.logical.query import Query
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

_BETWEEN: Final = (Drop, Filter, Project, Rename, WithColumn)
_ROW: Final = "rowid"
_IDS: Final = "velaria_found"

# The plan was made while there was an index, or it is behind and must not be changed: the engine searches.
_WITHOUT: Final = ("index.unknown", "index.behind")

_LYING: WeakKeyDictionary[Any, dict[str, Vectors]] = WeakKeyDictionary()  # by relation and column

Search = VectorSearch | KeywordSearch
_Ask = Callable[[npt.NDArray[Any], int], Nearest]
_RowsAt = Callable[[Rows], pa.Table]


@dataclass(frozen=True, slots=True)
class Told:
    """What a search by an access took.

    Attributes:
        candidates: rows that were compared, or for words scored.
        backend: what compared them.
        recall: the part of the exact answer that is expected, as measured when an approximate index was built; else 1.
    """

    candidates: int
    backend: str
    recall: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class _Searched:
    """The rows that are searched.

    Attributes:
        run: what stands between the search and the scan, the lowest first.
        origin: the column of the scan that each column is, where it is one.
    """

    scan: Scan
    run: tuple[Node, ...]
    origin: Mapping[str, str]

    @staticmethod
    def of(node: Node) -> _Searched | None:
        """The rows of a node, where they are those of a scan."""
        run: list[Node] = []
        below = node
        while isinstance(below, _BETWEEN):
            run.append(below)
            below = below.input
        if not isinstance(below, Scan) or any(name.lower() == _ROW for name in (*below.columns, *node.columns)):
            return None
        run.reverse()
        return _Searched(below, tuple(run), dict(lineage(run).passed) if run else {name: name for name in node.columns})

    @property
    def indexes(self) -> Indexes | None:
        """The indexes of the table's session; None where it is no stored table."""
        found: Indexes | None = self.scan.relation.indexes
        return found

    @property
    def base(self) -> str:
        """The name of the stored table."""
        return self.scan.relation.sql.strip('"').replace('""', '"')

    def columns(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """The scan's columns that some columns are; None where one is computed, or two are the same."""
        found = tuple(self.origin[name] for name in names if name in self.origin)
        return found if len(set(found)) == len(names) else None

    def vectors(self, search: VectorSearch) -> Index | None:
        """An index that answers a search for vectors."""
        columns = self.columns([search.column])
        if columns is None or self.indexes is None:
            return None
        return self.indexes.vectors(self.base, columns[0], search.metric)

    def words(self, search: KeywordSearch) -> Index | None:
        """An index that answers a search for words."""
        columns = self.columns([name for name, _ in search.fields])
        return self.indexes.words(self.base, columns, search.analyzer) if columns and self.indexes is not None else None

    def opened(self, cursor: Cursor, index: Index) -> AbstractContextManager[VectorIndex | KeywordIndex]:
        """An index of these rows, up to what the cursor's transaction sees."""
        assert self.indexes is not None, "only stored tables have indexes"
        return self.indexes.searching(index, cursor)

    def chain(self, sql: str) -> Query:
        """The rows that are searched, with their ids, over a table."""
        relation = self.scan.relation
        numbered = pa.schema([*relation.schema, pa.field(_ROW, pa.int64())])
        node: Node = Scan(Relation(relation.label, numbered, sql, relation.kind))
        for operator in self.run:
            node = operator.over([node], (_ROW,))
        return _query_of(node)

    def allowed(self, cursor: Cursor, chain: Query) -> Rows | None:
        """The ids of the rows that filters leave, rising; None where there is no filter."""
        if not any(isinstance(node, Filter) for node in self.run):
            return None
        ids = cursor.table(chain.projected([(_ROW, reference(_ROW))]).sql()).column(0).to_numpy()
        return np.sort(ids)

    def best_by_words(self, cursor: Cursor, index: Index, search: KeywordSearch, allowed: Rows | None) -> Found:
        """The rows that can be among the best, with their scores."""
        columns = self.columns([name for name, _ in search.fields])
        assert columns is not None, "what an index answers are columns of its table"
        weights = dict(zip(columns, (weight for _, weight in search.fields), strict=True))
        with self.opened(cursor, index) as opened:
            assert isinstance(opened, KeywordIndex)
            return best_with_ties(
                lambda k: opened.search(search.query, k, weights=weights, allowed=allowed), search.top_k
            )


@dataclass(frozen=True, eq=False, slots=True)
class Access:
    """A search that something answers.

    Attributes:
        rows: what is searched.
        index: None where vectors are compared where they lie.
    """

    search: Search
    rows: _Searched
    index: Index | None

    @property
    def feed_name(self) -> str:
        """The table name under which the engine reads what was found."""
        return self.search.feed_name

    @property
    def method(self) -> str:
        """For explain: what answers."""
        return "vectors in memory" if self.index is None else f"{self.index.kind} index {self.index.name}"

    def query(self) -> Query:
        """The query of the search, over what is found."""
        if isinstance(self.search, KeywordSearch):
            found = Query.table(quoted(self.feed_name), self.search.columns)
            return found.ordered(self.search.order()).limited(self.search.top_k)
        if self.search.queries is not None:
            return self.search.of_pairs(quoted(self.feed_name))
        return self.search.batch(Query.table(quoted(self.feed_name), self.search.input.columns))

    def feed(self) -> Computed:
        """What is found, when the engine asks for it."""
        return Computed(self._schema, self._rows)

    def told(self, engine: Engine) -> Told | None:
        """Search, and tell what it took; None where the engine had to do it after all."""
        return self._found(engine)[1]

    def _schema(self, engine: Engine) -> pa.Schema:
        # Lowering asks for this, and this for lowering.
        from velaria_core.execution.lower import schema

        found = schema(engine, self.search.input)
        if isinstance(self.search, KeywordSearch):
            return found.append(pa.field(SCORE, pa.float64()))
        if self.search.queries is None:
            return found
        return pa.schema([*schema(engine, self.search.queries), *found, pa.field(self._query, pa.int64())])

    @property
    def _query(self) -> str:
        """The column with the number of the query, where there are several."""
        assert isinstance(self.search, VectorSearch)
        return self.search.pair_columns[-1]

    def _rows(self, engine: Engine) -> pa.Table:
        return self._found(engine)[0]

    def _found(self, engine: Engine) -> tuple[pa.Table, Told | None]:
        try:
            if isinstance(self.search, KeywordSearch):
                return self._words(engine, self.search)
            if self.search.queries is None:
                return self._nearest_to_one(engine, self.search)
            return self._nearest_to_each(engine, self.search, self.search.queries)
        except (CatalogNotFoundError, StateError) as error:
            if error.code not in _WITHOUT:
                raise
            return self._by_engine(engine), None

    def _by_engine(self, engine: Engine) -> pa.Table:
        from velaria_core.execution.lower import lower_without_access

        lowered = lower_without_access(self.search)
        names = self._schema(engine).names
        with engine.cursor(lowered.feeds, lowered.files) as cursor:
            found = cursor.table(lowered.sql)
        if isinstance(self.search, VectorSearch) and self.search.queries is not None:
            # Each pair that was found is the only one of its query: its rank among those is right already.
            found = found.append_column(self._query, pa.array(np.arange(found.num_rows)))
        return found.select(names)

    def _nearest_to_one(self, engine: Engine, search: VectorSearch) -> tuple[pa.Table, Told]:
        with self._vectors(engine, search) as (ask, rows_at):
            found = nearest_with_ties(lambda k: ask(np.array([search.vector]), k), search.top_k)
            return rows_at(found.rows[0]).drop_columns([_ROW]), Told(found.candidates, found.backend, found.recall)

    def _nearest_to_each(self, engine: Engine, search: VectorSearch, queries: Node) -> tuple[pa.Table, Told]:
        from velaria_core.execution.lower import lower

        lowered = lower(queries)
        with engine.cursor(lowered.feeds, lowered.files) as cursor:
            asked = cursor.table(lowered.sql)
        with self._vectors(engine, search) as (ask, rows_at):
            pairs = nearest_to_each(asked.column(search.query_column), ask, search.top_k)
            if pairs is None:
                return self._schema(engine).empty_table(), Told(0, "")
            number, ids, found = pairs
            rows = rows_at(np.unique(ids)).sort_by(_ROW)
        places = np.searchsorted(rows.column(_ROW).to_numpy(), ids)
        both = [*asked.take(pa.array(number)).columns, *rows.drop_columns([_ROW]).take(pa.array(places)).columns]
        made = pa.Table.from_arrays([*both, pa.array(number)], names=list(search.pair_columns))
        return made, Told(found.candidates, found.backend, found.recall)

    @contextmanager
    def _vectors(self, engine: Engine, search: VectorSearch) -> Iterator[tuple[_Ask, _RowsAt]]:
        """What finds the nearest rows of queries, and what gives rows by their ids, with these as a last column."""
        metric = Metric(search.metric.value)
        listed = [(name, reference(name)) for name in (*search.input.columns, _ROW)]
        if self.index is None:
            table = self.rows.scan.relation.feed
            numbered = table.append_column(_ROW, pa.array(np.arange(table.num_rows)))
            vectors = self._lying(search, table)
            with engine.cursor({_IDS: numbered}) as cursor:
                chain = self.rows.chain(quoted(_IDS))
                allowed = self.rows.allowed(cursor, chain)

                def lying(ids: Rows) -> pa.Table:
                    cursor.bind({_IDS: numbered.take(pa.array(ids))})
                    return cursor.table(chain.projected(listed).sql())

                yield lambda query, k: nearest(vectors, query, metric, k, allowed=allowed), lying
            return
        chain = self.rows.chain(self.rows.scan.relation.sql)
        with engine.cursor() as cursor, cursor.transaction(), self.rows.opened(cursor, self.index) as opened:
            allowed = self.rows.allowed(cursor, chain)
            ask = _asking(opened, self.index, metric, allowed)

            def stored(ids: Rows) -> pa.Table:
                cursor.bind({_IDS: pa.table({"id": pa.array(ids, pa.int64())})})
                source = chain.projected(listed).sql()
                return cursor.table(f"SELECT * FROM ({source}) AS t SEMI JOIN {_IDS} AS f ON t.{_ROW} = f.id")

            yield ask, stored

    def _lying(self, search: VectorSearch, table: pa.Table) -> Vectors:
        known = _LYING.setdefault(self.rows.scan.relation, {})
        column = self.rows.origin[search.column]
        if column not in known:
            known[column] = vectors_of(table.column(column))
        return known[column]

    def _words(self, engine: Engine, search: KeywordSearch) -> tuple[pa.Table, Told]:
        assert self.index is not None, "words are searched by an index alone"
        chain = self.rows.chain(self.rows.scan.relation.sql)
        with engine.cursor() as cursor, cursor.transaction():
            found = self.rows.best_by_words(cursor, self.index, search, self.rows.allowed(cursor, chain))
            cursor.bind({_IDS: pa.table({"id": pa.array(found.rows), SCORE: pa.array(found.scores)})})
            listed = ", ".join(f"t.{quoted(name)}" for name in search.input.columns)
            sql = f"SELECT {listed}, f.{SCORE} FROM ({chain.sql()}) AS t JOIN {_IDS} AS f ON t.{_ROW} = f.id"
            return cursor.table(sql), Told(found.candidates, "postings")


@dataclass(frozen=True, eq=False, slots=True)
class FusedAccess:
    """A fused search of which a side, or both, is answered by an index.

    Attributes:
        rows: what is searched, of a stored table.
        vectors, words: the index of each side; None: the engine finds its best.
    """

    search: HybridSearch
    rows: _Searched
    vectors: Index | None
    words: Index | None

    @property
    def feed_name(self) -> str:
        """The table name under which the engine reads what was found."""
        return self.search.feed_name

    @property
    def method(self) -> str:
        """For explain: what answers."""
        sides = (self.words, self.vectors)
        return ", ".join("engine" if index is None else f"{index.kind} index {index.name}" for index in sides)

    def query(self) -> Query:
        """The query of the search, over what is found."""
        return self.search.of_found(quoted(self.feed_name))

    def feed(self) -> Computed:
        """What is found, when the engine asks for it."""
        return Computed(self._schema, self._rows)

    def _schema(self, engine: Engine) -> pa.Schema:
        from velaria_core.execution.lower import schema

        more = pa.field(ROW, pa.int64()), pa.field(WORDS, pa.float64())
        return pa.schema([*schema(engine, self.search.input), *more])

    def _rows(self, engine: Engine) -> pa.Table:
        try:
            return self._found(engine)
        except (CatalogNotFoundError, StateError) as error:
            if error.code not in _WITHOUT:
                raise
            return replace(self, vectors=None, words=None)._found(engine)

    def _found(self, engine: Engine) -> pa.Table:
        """The rows that can be among the best of a side; both sides see one state of the table."""
        rows = self.rows
        chain = rows.chain(rows.scan.relation.sql)
        with engine.cursor() as cursor, cursor.transaction():
            allowed = rows.allowed(cursor, chain)
            near = self._near(cursor, chain, allowed)
            ids, scores = self._by_words(cursor, chain, allowed)
            all_ids = np.union1d(near, ids)
            words = np.full(len(all_ids), np.nan)
            words[np.searchsorted(all_ids, ids)] = scores
            cursor.bind({_IDS: pa.table({"id": pa.array(all_ids), WORDS: pa.array(words, from_pandas=True)})})
            listed = ", ".join(f"t.{quoted(name)}" for name in self.search.input.columns)
            return cursor.table(
                f"SELECT {listed}, t.{_ROW} AS {ROW}, f.{WORDS} FROM ({chain.sql()}) AS t "
                f"JOIN {_IDS} AS f ON t.{_ROW} = f.id"
            )

    def _near(self, cursor: Cursor, chain: Query, allowed: Rows | None) -> Rows:
        if self.vectors is None:
            found = (
                self.search.vectors(self.search.numbered).batch(self._numbered(chain, self.search.input.columns)).sql()
            )
            near: Rows = cursor.table(f"SELECT {ROW} FROM ({found})").column(0).to_numpy()
            return near
        with self.rows.opened(cursor, self.vectors) as opened:
            ask = _asking(opened, self.vectors, Metric(self.search.metric.value), allowed)
            return nearest_with_ties(lambda k: ask(np.array([self.search.vector]), k), self.search.candidates).rows[0]

    def _by_words(self, cursor: Cursor, chain: Query, allowed: Rows | None) -> tuple[Rows, Doubles]:
        search = self.search.keywords(self.search.numbered)
        if self.words is None:
            # With all that tie with the last, so that no other column is read to put them in order.
            scored = search.scored(self._numbered(chain, [name for name, _ in search.fields]))
            best = f"QUALIFY rank() OVER (ORDER BY {SCORE} DESC) <= {search.top_k}"
            found = cursor.table(f"SELECT {ROW}, {SCORE} FROM ({scored}) {best}")
            return found.column(0).to_numpy(), found.column(1).to_numpy()
        by_index = self.rows.best_by_words(cursor, self.words, search, allowed)
        return by_index.rows, by_index.scores

    def _numbered(self, chain: Query, columns: Sequence[str]) -> Query:
        """Columns of the rows, with their ids as the numbers by which both sides are put together."""
        listed = [(name, reference(name)) for name in columns]
        return chain.projected([*listed, (ROW, reference(_ROW))]).wrapped()


def access(node: Node) -> Access | FusedAccess | None:
    """What can answer a search, or None."""
    if isinstance(node, HybridSearch):
        return _fused_access(node)
    return search_access(node) if isinstance(node, VectorSearch | KeywordSearch) else None


def search_access(node: Search) -> Access | None:
    """What can answer a search for vectors or words, or None."""
    rows = _Searched.of(node.input)
    if rows is None:
        return None
    index = rows.vectors(node) if isinstance(node, VectorSearch) else rows.words(node)
    if index is None and not (isinstance(node, VectorSearch) and _lies(rows, node.column)):
        return None
    return Access(node, rows, index)


def _fused_access(node: HybridSearch) -> FusedAccess | None:
    rows = _Searched.of(node.input)
    if rows is None:
        return None
    vectors, words = rows.vectors(node.vectors(node.input)), rows.words(node.keywords(node.input))
    return FusedAccess(node, rows, vectors, words) if vectors is not None or words is not None else None


def _asking(opened: VectorIndex | KeywordIndex, index: Index, metric: Metric, allowed: Rows | None) -> _Ask:
    """What finds the nearest rows of queries by an index."""
    assert isinstance(opened, VectorIndex)
    approximate = not index.options.is_exact and is_installed()
    return lambda queries, k: opened.search(queries, metric, k, allowed=allowed, approximate=approximate)


def _lies(rows: _Searched, column: str) -> bool:
    """Whether a column's vectors are Arrow data of float32."""
    relation = rows.scan.relation
    if not isinstance(relation.feed, pa.Table) or column not in rows.origin:
        return False
    return lies_plain(relation.schema.field(rows.origin[column]).type)


def _query_of(node: Node) -> Query:
    return node.batch(*(_query_of(child) for child in node.inputs))
