"""HybridSearch: the rows that a keyword search and a vector search find, ranked by what both say.

Each search gives its best rows, the candidates. A row is found where it is a candidate of one of them, and is shown
with both scores, its ranks, and the fused score; NULL stands for what a search does not say of it.

    rrf       1 / (k + vector_rank) + 1 / (k + keyword_rank): ranks alone count, so scores need not be comparable
    weighted  alpha * vector + (1 - alpha) * keyword, each from 0 for its worst candidate to 1 for its best

What is left out of a search adds 0.

Batch   both searches over the rows, which are numbered, and put together by number.
Stream  the two searches, each in its own form, and their candidates put together anew each epoch: by their columns, and
        of rows that are equal in all of them the first with the first.
Source  Cormack, Clarke, Buettcher, "Reciprocal Rank Fusion", SIGIR 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

from velaria_core.contract.modes import Metric
from velaria_core.logical.analyzers import ANALYZER
from velaria_core.logical.expr import to_sql
from velaria_core.logical.incremental import Incremental, Linear, Recompute
from velaria_core.logical.node import Node, Unary
from velaria_core.logical.operators.keyword_search import SCORE as KEYWORD_SCORE
from velaria_core.logical.operators.keyword_search import KeywordSearch, best_first
from velaria_core.logical.operators.vector_search import NUMBERS, VectorSearch
from velaria_core.logical.operators.vector_search import SCORE as VECTOR_SCORE
from velaria_core.logical.query import Query
from velaria_core.logical.similarity import is_better_below
from velaria_core.types import quoted

SCORE: Final = "hybrid_score"
_VECTOR_RANK: Final = "vector_rank"
_KEYWORD_RANK: Final = "keyword_rank"
SCORES: Final = (VECTOR_SCORE, KEYWORD_SCORE, SCORE, _VECTOR_RANK, _KEYWORD_RANK)
ROW: Final = "__row"
WORDS: Final = "__words"
_NEAR: Final = "__near"
_COPY: Final = "__copy"
_ROWS: Final = "__rows"


class Fusion(StrEnum):
    """How two rankings become one."""

    RRF = "rrf"
    WEIGHTED = "weighted"


# k of rrf: what the field takes, and what was measured here (search.md: 10 and 60 are as good). alpha of weighted.
CONSTANTS: Final = {Fusion.RRF: 60.0, Fusion.WEIGHTED: 0.5}


@dataclass(frozen=True, eq=False)
class HybridSearch(Unary):
    """
    Attributes:
        fields, text, analyzer: of the `KeywordSearch`.
        column, length, vector, metric, threshold, fixed: of the `VectorSearch`.
        candidates: how many rows each search gives at most.
        constant: k of rrf, at least 0; alpha of weighted, from 0 to 1.
    """

    fields: tuple[tuple[str, float], ...]
    text: str
    column: str
    length: int
    vector: tuple[float, ...]
    metric: Metric
    top_k: int
    candidates: int
    threshold: float | None = None
    fusion: Fusion = Fusion.RRF
    constant: float = CONSTANTS[Fusion.RRF]
    analyzer: str = ANALYZER
    fixed: bool = True

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.input.columns, *SCORES)

    def label(self) -> str:
        name = "k" if self.fusion is Fusion.RRF else "alpha"
        vectors, keywords = self.vectors(self.input), self.keywords(self.input)
        both = f"{keywords.label()}; {vectors.label()}"
        return f"HybridSearch: {self.top_k} best by {self.fusion} ({name} {self.constant:g}) of {both}"

    @cached_property
    def feed_name(self) -> str:
        """The table name under which the engine reads what was found, where something else searched."""
        return f"searched_{next(NUMBERS)}"

    @cached_property
    def numbered(self) -> Node:
        """What both searches are of: the rows with their numbers in `ROW`."""
        return _Numbered(self.input)

    def vectors(self, rows: Node) -> VectorSearch:
        """The search for vectors, of rows."""
        found = VectorSearch(rows, self.column, self.length, self.vector, self.metric, self.candidates, self.threshold)
        return replace(found, fixed=self.fixed)

    def keywords(self, rows: Node) -> KeywordSearch:
        """The search for words, of rows."""
        return KeywordSearch(rows, self.fields, self.text, self.candidates, self.analyzer)

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        words = self.keywords(self.numbered).batch(self._all)
        return self._fusing(f"SELECT *, row_number() OVER () AS {ROW} FROM {rows.as_item()}", self._nearest(), words)

    def of_found(self, found: str) -> Query:
        """The best of the rows that stand in FROM, all that can be among the best by vectors and by words.

        They have their numbers, and in `WORDS` the scores of those that can be among the best by words, else NULL.
        """
        words = self._scored(self.keywords(self.numbered), WORDS)
        return self._fusing(f"SELECT * FROM {found}", self._nearest(), words)

    def of_candidates(self, near: Query, words: Query) -> Query:
        """The best of what both searches found, with their scores."""
        listed = ", ".join(quoted(name) for name in self.input.columns)
        copy = f"row_number() OVER (PARTITION BY {listed}) AS {_COPY}"
        rows = (
            f"SELECT {listed}, row_number() OVER (ORDER BY {_COPY}) AS {ROW}, max({_NEAR}) AS {_NEAR}, "
            f"max({WORDS}) AS {WORDS} FROM ("
            f"SELECT {listed}, {VECTOR_SCORE} AS {_NEAR}, NULL AS {WORDS}, {copy} FROM {near.as_item()} UNION ALL "
            f"SELECT {listed}, NULL, {KEYWORD_SCORE}, {copy} FROM {words.as_item()}) GROUP BY {listed}, {_COPY}"
        )
        searches = (self.vectors(self.numbered), _NEAR), (self.keywords(self.numbered), WORDS)
        return self._fusing(rows, *(self._scored(search, score) for search, score in searches))

    def apart(self) -> Node:
        return _Fused(self.vectors(self.input), self.keywords(self.input), self.columns, self.of_candidates)

    @property
    def _all(self) -> Query:
        """The rows with their numbers."""
        return Query.table(_ROWS, self.numbered.columns)

    def _nearest(self) -> Query:
        return self.vectors(self.numbered).batch(self._all)

    def _scored(self, search: VectorSearch | KeywordSearch, score: str) -> Query:
        """What a search finds among rows whose scores are in a column; NULL for those that it does not find."""
        listed = ", ".join(quoted(name) for name in self.numbered.columns)
        scored = f"(SELECT {listed}, {score} AS {search.columns[-1]} FROM {_ROWS} WHERE {score} IS NOT NULL)"
        return Query.table(scored, search.columns).ordered(search.order()).limited(search.top_k)

    def _fusing(self, rows: str, near: Query, words: Query) -> Query:
        """Rows with their numbers, ranked by what vectors and what words find among them."""
        search = self.vectors(self.numbered)
        vectors = _ranked(search, near, VECTOR_SCORE, _VECTOR_RANK, best_low=is_better_below(self.metric))
        keywords = _ranked(self.keywords(self.numbered), words, KEYWORD_SCORE, _KEYWORD_RANK, best_low=False)
        shown = ", ".join(quoted(name) for name in self.input.columns)
        text = (
            f"WITH {_ROWS} AS MATERIALIZED ({rows}) "
            f"SELECT {shown}, {VECTOR_SCORE}, {KEYWORD_SCORE}, {self._fused()} AS {SCORE}, "
            f"{_VECTOR_RANK}, {_KEYWORD_RANK} "
            f"FROM ({vectors}) FULL JOIN ({keywords}) USING ({ROW}) JOIN {_ROWS} USING ({ROW})"
        )
        return Query.table(f"({text})", self.columns).ordered(best_first(SCORE, self.input.columns)).limited(self.top_k)

    def _fused(self) -> str:
        constant = f"{self.constant!r}::DOUBLE"
        if self.fusion is Fusion.RRF:
            parts = [f"coalesce(1 / ({constant} + {rank}), 0)" for rank in (_VECTOR_RANK, _KEYWORD_RANK)]
            return " + ".join(parts)
        vector, keyword = (f"coalesce({name}_share, 0)" for name in (VECTOR_SCORE, KEYWORD_SCORE))
        return f"{constant} * {vector} + (1 - {constant}) * {keyword}"

    def stream(self) -> Incremental:
        return Recompute(
            "how rows rank depends on all of them, so what both searches found is put together anew",
            keeps="the nearest rows, rows that match, and sums over all rows",
            pays="rows changed, rows that match, and candidates",
        )


def _ranked(search: VectorSearch | KeywordSearch, found: Query, score: str, rank: str, *, best_low: bool) -> str:
    """SQL of what a search finds: row, score, rank, and the score as a share of the way from the worst to the best."""
    order = ", ".join(to_sql(key) for key in search.order())
    low, high = f"min({score}) OVER ()", f"max({score}) OVER ()"
    above = f"{high} - {score}" if best_low else f"{score} - {low}"
    share = f"CASE WHEN {low} = {high} THEN 1.0::DOUBLE ELSE ({above}) / ({high} - {low}) END"
    return (
        f"SELECT {ROW}, {score}, row_number() OVER (ORDER BY {order}) AS {rank}, {share} AS {score}_share "
        f"FROM ({found.sql()})"
    )


@dataclass(frozen=True, eq=False)
class _Fused(Node):
    """The best of what both searches found."""

    near: Node
    words: Node
    names: tuple[str, ...]
    fused: Callable[[Query, Query], Query]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    def label(self) -> str:
        return "Fused"

    def batch(self, *inputs: Query) -> Query:
        near, words = inputs
        return self.fused(near, words)

    def stream(self) -> Incremental:
        return Recompute("how rows rank depends on all of them")


@dataclass(frozen=True, eq=False)
class _Numbered(Unary):
    """The rows with their numbers, while the query over them is written."""

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.input.columns, ROW)

    def label(self) -> str:
        return "Numbered"

    def batch(self, *_: Query) -> Query:
        return Query.table(_ROWS, self.columns)

    def stream(self) -> Incremental:
        return Linear()
