"""KeywordSearch: the rows whose texts match a keyword query best, by BM25 over the rows of the input.

Each row that is found is given its score, the best first; rows of one score come in the order of their columns. How
rare a word is, and how long a text is on average, is told by the rows of the input, which a filter below has left.

Batch   `bm25.scored`: the terms of every row, the statistics over all, a score for the rows that match.
Stream  the words of a row are counted when it comes; the statistics are an aggregate, so partial values; the rows that
        match are state, and are scored anew each epoch, for each row that comes changes what the others are worth.
Source  Robertson, Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from sqlglot import exp

from velaria_core.logical import bm25
from velaria_core.logical.analyzers import ANALYZER, analyzer
from velaria_core.logical.expr import call, parse_expression, reference
from velaria_core.logical.incremental import Incremental, Linear, Recompute
from velaria_core.logical.keyword_query import KeywordQuery, keyword_query
from velaria_core.logical.node import Node, Unary
from velaria_core.logical.operators.aggregate import Aggregate
from velaria_core.logical.operators.filter import Filter
from velaria_core.logical.operators.vector_search import NUMBERS
from velaria_core.logical.query import Named, Query

SCORE: Final = bm25.SCORE


@dataclass(frozen=True, eq=False)
class KeywordSearch(Unary):
    """
    Attributes:
        fields: columns of text, and what a word in each weighs, more than 0.
        text: the query, see `keyword_query`.
        analyzer: how texts become words, see `analyzers`.
    """

    fields: tuple[tuple[str, float], ...]
    text: str
    top_k: int
    analyzer: str = ANALYZER

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.input.columns, SCORE)

    @cached_property
    def query(self) -> KeywordQuery:
        """The text, read."""
        return keyword_query(self.text, analyzer(self.analyzer))

    @cached_property
    def feed_name(self) -> str:
        """The table name under which the engine reads what was found, where something else searched."""
        return f"searched_{next(NUMBERS)}"

    def label(self) -> str:
        fields = ", ".join(name if weight == 1 else f"{name}^{weight:g}" for name, weight in self.fields)
        return f"KeywordSearch: {self.top_k} best in {fields} for {self.query}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return Query.table(f"({self.scored(rows)})", self.columns).ordered(self.order()).limited(self.top_k)

    def scored(self, rows: Query) -> str:
        """SQL of all rows that match, with their scores; it needs the columns that are searched."""
        return bm25.scored(rows.as_item(), dict(self.fields), self.query)

    def apart(self) -> Node:
        counted = _Counted(self.input, self.fields, self.query)
        found = Filter(counted, parse_expression(bm25.matches(self.query)))
        # Whole weights make whole lengths, whose sum is exact however it is added up.
        length: exp.Expr = reference(bm25.LENGTH)
        if all(weight == int(weight) for _, weight in self.fields):
            length = exp.Cast(this=length, to=exp.DataType.build("BIGINT"))
        sums: list[Named] = [(bm25.DOCUMENTS, call("count", exp.Star())), (bm25.MEAN_LENGTH, call("avg", length))]
        for leaf in self.query.scored:
            there = exp.GT(this=reference(bm25.frequency(leaf)), expression=exp.Literal.number(0))
            sums.append((bm25.having(leaf), call("count_if", there)))
        return _Best(found, Aggregate(counted, (), tuple(sums)), self.columns, self.query, self.order(), self.top_k)

    def order(self) -> tuple[exp.Ordered, ...]:
        """The best score first; rows that tie by their columns."""
        return best_first(SCORE, self.input.columns)

    def stream(self) -> Incremental:
        return Recompute(
            "what a match is worth depends on all rows, so all that match are scored anew",
            keeps="rows that match, and sums over all rows",
            pays="rows changed and rows that match",
        )


def best_first(score: str, columns: Iterable[str]) -> tuple[exp.Ordered, ...]:
    """The largest score first; rows that tie by their columns."""
    return (
        exp.Ordered(this=reference(score), desc=True, nulls_first=False),
        *(exp.Ordered(this=reference(name), desc=False, nulls_first=False) for name in columns),
    )


@dataclass(frozen=True, eq=False)
class _Counted(Unary):
    """The rows with what the query counts in each."""

    fields: tuple[tuple[str, float], ...]
    query: KeywordQuery

    @cached_property
    def columns(self) -> tuple[str, ...]:
        counts = (bm25.frequency(leaf) for leaf in range(len(self.query.leaves)))
        return (*self.input.columns, bm25.LENGTH, *counts)

    @property
    def handed_on(self) -> tuple[str, ...]:
        return self.input.columns

    def label(self) -> str:
        return f"Counted: {self.query}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return Query.table(f"({bm25.counted(rows.as_item(), dict(self.fields), self.query)})", self.columns)

    def stream(self) -> Incremental:
        return Linear()


@dataclass(frozen=True, eq=False)
class _Best(Node):
    """The best of the rows that match, by the row of statistics."""

    found: Node
    statistics: Node
    names: tuple[str, ...]
    query: KeywordQuery
    order: tuple[exp.Ordered, ...]
    top_k: int

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    def label(self) -> str:
        return f"Best: {self.top_k}"

    def batch(self, *inputs: Query) -> Query:
        found, statistics = inputs
        both = found.wrapped().joined(statistics.wrapped(), "CROSS JOIN", None)
        shown = [(name, reference(name)) for name in self.columns if name != SCORE]
        scored = both.projected([*shown, (SCORE, parse_expression(bm25.score(self.query)))]).wrapped()
        return scored.ordered(self.order).limited(self.top_k)

    def stream(self) -> Incremental:
        return Recompute("what a match is worth depends on all rows")
