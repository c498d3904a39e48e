"""Nearest steps: a search with a table of queries, where rows and queries only come.

Rows that come are searched for all queries, and queries that come search all rows. Of what is found, the best of each
query are kept, and only those: the pairs that an epoch makes are as many as queries times `top_k`, however many rows
came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from velaria_core.execution.search.nearest import Metric, nearest
from velaria_core.execution.search.ties import nearest_to_each
from velaria_core.execution.search.vectors import lies_plain, vectors_of
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Changes, Moment, Step, relation_of, some
from velaria_core.execution.steps.bilinear import never_changes
from velaria_core.execution.steps.keyed import KeyedStep
from velaria_core.execution.steps.rows import Log
from velaria_core.execution.vectors import integers
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan, TopK, VectorSearch
from velaria_core.logical.operators.vector_search import QUERY_NUMBER
from velaria_core.types import quoted

_READ_ROWS = 65_536


def answers_each(node: Node, below: Sequence[Step]) -> bool:
    """Whether a node is for this step."""
    return isinstance(node, VectorSearch) and node.queries is not None and all(step.append_only for step in below)


class NearestToEachStep(Step):
    """What its pairs are, and of each query the best of them."""

    impl = "best-of-each"
    impl_reason = "rows and queries only come, so the best of each query are kept, and what came is searched"
    is_net = True

    def __init__(self, store: Store, name: str, node: VectorSearch, below: Sequence[Step]) -> None:
        self._pairs = _PairsStep(store, name, node, below)
        best = self._pairs.best
        self._best = KeyedStep(store, f"{name}_best", best, [best.by], [()], [self._pairs])
        schema = self._best.schema
        super().__init__(schema.remove(schema.get_field_index(QUERY_NUMBER)), False, below)

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        made = self._best.step([self._pairs.step(changes, at)], at)
        return None if made is None else made.drop_columns([QUERY_NUMBER])

    @property
    def scanned(self) -> str:
        return self._best.scanned

    def state_rows(self) -> int:
        return self._pairs.state_rows() + self._best.state_rows()

    def state_bytes(self) -> int:
        return self._pairs.state_bytes() + self._best.state_bytes()

    def committed(self) -> None:
        self._best.committed()

    def rolled_back(self) -> None:
        self._pairs.rolled_back()
        self._best.rolled_back()


class _PairsStep(Step):
    """Pairs of a query and a row, with their scores: all of an epoch's that can be among the best of their query.

    Vectors of float32 are searched where they lie; others by the engine, which scores every pair.

    Attributes:
        best: the node that takes the best of each query.
    """

    def __init__(self, store: Store, name: str, node: VectorSearch, below: Sequence[Step]) -> None:
        assert node.query_column is not None, "a table of queries is searched for"
        self._node, self._cursor = node, store.cursor
        rows, queries = below
        numbered = queries.schema.append(pa.field(QUERY_NUMBER, pa.int64()))
        self._queries = Log(store, f"{name}_queries", numbered, True)
        self._queries.is_scanned = False
        # Rows wait for later queries.
        self._rows = None if never_changes(queries) else Log(store, f"{name}_rows", rows.schema, True)
        if self._rows is not None:
            self._rows.is_scanned = False
        self._asked: pa.Table | None = None
        self._is_plain = all(
            lies_plain(step.schema.field(column).type)
            for step, column in ((rows, node.column), (queries, node.query_column))
        )
        listed = ", ".join(map(quoted, node.pair_columns))
        pairs = pa.schema([*queries.schema, *rows.schema, numbered.field(QUERY_NUMBER)])
        self._pairs, self._left, self._right = store.feed(pairs), store.feed(numbered), store.feed(rows.schema)
        crossed = f"(SELECT {listed} FROM {self._left.name} CROSS JOIN {self._right.name})"
        scored = node.scored_pairs(self._pairs.name if self._is_plain else crossed).filtered(node.is_found())
        source = store.feed(store.schema(scored.sql()))
        self.best = TopK(Scan(relation_of(source)), node.order(), node.top_k, by=(QUERY_NUMBER,))
        self._score = store.prepare((scored if self._is_plain else self.best.batch(scored.wrapped())).sql())
        super().__init__(source.schema, True, below)

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        rows, queries = changes
        came = None
        if queries is not None:
            first = self._queries.entries
            came = queries.append_column(QUERY_NUMBER, integers(np.arange(first, first + queries.num_rows)))
        made: list[pa.Table] = []
        if came is not None and self._rows is not None:
            made += [self._found(before, came) for before in self._before()]
        if came is not None:
            self._queries.take(came)
            self._asked = None
        if rows is not None:
            made.append(self._found(rows, self._all_queries()))
            if self._rows is not None:
                self._rows.take(rows)
        return some(pa.concat_tables(made)) if made else None

    def _before(self) -> Iterator[pa.Table]:
        """The rows that are kept, some at a time. What the transaction added has numbers far beyond the others."""
        assert self._rows is not None
        table, first = self._rows.table, 0
        while (found := self._cursor.rows(f"SELECT min(rowid) FROM {table} WHERE rowid >= {first}")[0][0]) is not None:
            first = found + _READ_ROWS
            yield self._cursor.table(f"SELECT * FROM {table} WHERE rowid >= {found} AND rowid < {first}")

    def _all_queries(self) -> pa.Table:
        if self._asked is None:
            self._asked = self._cursor.table(f"SELECT * FROM {self._queries.table}")
        return self._asked

    def _found(self, rows: pa.Table, queries: pa.Table) -> pa.Table:
        """The best pairs of these."""
        if self._is_plain:
            self._pairs.table = self._nearest(rows, queries)
        else:
            self._left.table, self._right.table = queries, rows
        return self._score()

    def _nearest(self, rows: pa.Table, queries: pa.Table) -> pa.Table:
        node = self._node
        vectors, metric = vectors_of(rows.column(node.column)), Metric(node.metric.value)
        pairs = nearest_to_each(
            queries.column(node.query_column), lambda asked, k: nearest(vectors, asked, metric, k), node.top_k
        )
        if pairs is None:
            return self._pairs.schema.empty_table()
        places, ids, _ = pairs
        asked, found = queries.take(integers(places)), rows.take(integers(ids))
        columns = [*asked.columns[:-1], *found.columns, asked.columns[-1]]
        return pa.Table.from_arrays(columns, schema=self._pairs.schema)

    def state_rows(self) -> int:
        return self._queries.entries + (0 if self._rows is None else self._rows.entries)

    def state_bytes(self) -> int:
        return self._queries.nbytes + (0 if self._rows is None else self._rows.nbytes)

    def rolled_back(self) -> None:
        self._queries.rolled_back()
        if self._rows is not None:
            self._rows.rolled_back()
        self._asked = None
