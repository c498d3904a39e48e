"""The search clauses of a SELECT as nodes over its rows. What is wrong with one is told where it stands in the text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import pyarrow as pa
from sqlglot import exp

from velaria_core.errors import InputError, Place, SqlSemanticError
from velaria_core.logical import operators
from velaria_core.logical.analyzers import ANALYZER
from velaria_core.logical.node import Node
from velaria_core.logical.operators.hybrid_search import SCORES
from velaria_core.logical.operators.keyword_search import SCORE as KEYWORD_SCORE
from velaria_core.logical.operators.vector_search import SCORE
from velaria_core.logical.scope import Entry, Scope, place_of
from velaria_core.logical.searching import (
    TOP_K,
    Fused,
    Wanted,
    hybrid_search,
    keyword_search,
    require_text,
    vector_length,
    vector_search,
    vector_search_each,
)
from velaria_core.logical.sql.statements import HybridSearch, KeywordSearch


class SearchedTables(Protocol):
    """What the clauses ask of a session."""

    def table(self, name: str, place_text: str | None, tree: exp.Expr) -> Node: ...

    def type_of(self, node: Node, column: str) -> pa.DataType: ...


def bind_vector_search(
    clause: HybridSearch, node: Node, scope: Scope, tables: SearchedTables, text: str
) -> tuple[Node, Scope]:
    """The rows that a HYBRID SEARCH or VECTOR SEARCH clause finds, and the names in scope then.

    Raises:
        SqlSemanticError: see `searching`, with the place in the text.
    """
    column = _column(clause.column, scope, text)
    wanted = Wanted(clause.metric, clause.top_k, clause.score_threshold)
    query_place = clause.query_span.place(text)
    places = {"search.vector": query_place, "search.dimension": query_place, "search.not_a_vector": column.place}
    with _placed(places, clause.span.place(text)):
        if not isinstance(clause.query, exp.Column):
            found = vector_search(node, column.name, clause.query, tables.type_of, wanted)
            return found, _with_entries(scope, Entry(None, ((SCORE, SCORE),)))
        queries = tables.table(_table_of(clause.query), text, clause.query)
        inner = Scope((Entry(clause.query.table, tuple((name, name) for name in queries.columns)),), {}, text)
        searched = _column(clause.query, inner, text)
        with _placed({}, query_place):
            vector_length(tables.type_of(queries, searched.name), searched.name)
        found = vector_search_each(node, column.name, queries, searched.name, tables.type_of, wanted)
    assert found.queries is not None, "a table was given"
    shown = tuple(zip(queries.columns, found.queries.columns, strict=True))
    return found, _with_entries(scope, Entry(clause.query.table, shown), Entry(None, ((SCORE, SCORE),)))


def bind_keyword_search(
    clause: KeywordSearch, node: Node, scope: Scope, tables: SearchedTables, text: str
) -> tuple[Node, Scope]:
    """The rows that a KEYWORD SEARCH clause finds, and the names in scope then. Raises as `bind_vector_search`."""
    columns = [_column(tree, scope, text) for tree in clause.columns]
    fields = {column.name: weight for column, weight in zip(columns, clause.weights, strict=True)}
    for column in columns:
        with _placed({"search.not_text": column.place}, clause.span.place(text)):
            require_text(tables.type_of(node, column.name), column.name)
    with _placed({"search.query": clause.query_span.place(text)}, clause.span.place(text)):
        found = keyword_search(
            node,
            fields,
            clause.query,
            tables.type_of,
            top_k=TOP_K if clause.top_k is None else clause.top_k,
            analyzer=clause.analyzer or ANALYZER,
        )
    return found, _with_entries(scope, Entry(None, ((KEYWORD_SCORE, KEYWORD_SCORE),)))


def bind_fused_search(
    keywords: KeywordSearch, vectors: HybridSearch, node: Node, scope: Scope, tables: SearchedTables, text: str
) -> tuple[Node, Scope]:
    """The rows that both clauses find, their rankings fused, and the names in scope then.

    Raises:
        SqlSemanticError[search.queries]: a table of queries is searched for.
        SqlSemanticError, InputError: as the two clauses.
    """
    assert vectors.fuse is not None, "the clause says how to fuse"
    by_words, _ = bind_keyword_search(keywords, node, scope, tables, text)
    by_vector, _ = bind_vector_search(vectors, node, scope, tables, text)
    assert isinstance(by_words, operators.KeywordSearch)
    assert isinstance(by_vector, operators.VectorSearch)
    fuse = vectors.fuse
    with _placed({}, fuse.span.place(text)):
        if by_vector.vector is None:
            raise SqlSemanticError("search.queries", "a table of queries has no words to fuse with")
        if keywords.top_k is not None:
            raise SqlSemanticError(
                "search.candidates",
                "fused searches have one TOP_K, that of HYBRID SEARCH",
                hint="CANDIDATES n says how many rows each of them gives",
                place=keywords.span.place(text),
            )
        found = hybrid_search(by_words, by_vector, Fused(fuse.fusion, fuse.constant, fuse.candidates))
    return found, _with_entries(scope, Entry(None, tuple((name, name) for name in SCORES)))


class _Column:
    """A column that a clause names, and where."""

    def __init__(self, name: str, place: Place | None) -> None:
        self.name, self.place = name, place


def _column(tree: exp.Column, scope: Scope, text: str) -> _Column:
    resolved = scope.resolved(tree)
    place = place_of(tree, text)
    if not isinstance(resolved, exp.Column):
        raise SqlSemanticError("search.column", "a search takes columns", hint="SELECT it in a subquery", place=place)
    return _Column(resolved.name, place)


def _table_of(tree: exp.Column) -> str:
    return ".".join(part.name for part in tree.parts[:-1])


def _with_entries(scope: Scope, *entries: Entry) -> Scope:
    return replace(scope, entries=(*scope.entries, *entries))


@contextmanager
def _placed(places: dict[str, Place | None], otherwise: Place) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        error.place = places.get(error.code) if error.code == "search.query" else error.place
        error.place = error.place or places.get(error.code) or otherwise
        raise
