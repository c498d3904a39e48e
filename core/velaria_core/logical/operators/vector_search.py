"""VectorSearch: the rows whose vectors are nearest to one vector, or for each row of a table of queries to its own.

Each row that is found is given its score, the best first. Rows without a vector, with a NULL among its numbers, or
whose score is no finite number, are not found. Of rows with one score those come first whose other columns are less,
compared in their order: so what is found depends on the rows alone, not on the order in which they came.

Batch   a score for each row, then ORDER BY ... LIMIT.
Stream  with one vector, a score row by row and a TopK by it: rows that only come need no other state than those that
        are shown. With a table of queries, where rows and queries only come, a search of those that came and a TopK of
        each query; otherwise Recompute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Final

from sqlglot import exp

from velaria_core.contract.modes import Metric
from velaria_core.logical.expr import call, parse_expression, reference
from velaria_core.logical.incremental import Incremental, Recompute
from velaria_core.logical.node import Node
from velaria_core.logical.operators.filter import Filter
from velaria_core.logical.operators.top_k import TopK, sort_key
from velaria_core.logical.operators.with_column import WithColumn
from velaria_core.logical.query import Named, Query
from velaria_core.logical.similarity import is_better_below, score_sql, vector_sql, zero_sql
from velaria_core.types import quoted

SCORE: Final = "vector_score"
NUMBERS: Final = count(1)
QUERY_NUMBER: Final = "__query"
"""Of pairs: the number of the query, BIGINT."""
_RANK: Final = "__rank"
_SHOWN_NUMBERS: Final = 3


@dataclass(frozen=True, eq=False)
class VectorSearch(Node):
    """Exactly one of `vector` and `queries` is given.

    Attributes:
        column: of the input: numbers, as an array or a list.
        length: how many numbers a vector has; None where `column` and `query_column` are lists of any length.
        vector: what is searched for, float32 values.
        queries, query_column: rows that each search for the vector in this column. Their columns come first in the
            result, and their names are none of the input's.
        threshold: the worst score that is found, this one included.
        fixed: the types of the columns say the length. If not, a row of another length is an error, and so is a NULL
            among its numbers.
    """

    input: Node
    column: str
    length: int | None
    vector: tuple[float, ...] | None
    metric: Metric
    top_k: int
    threshold: float | None = None
    queries: Node | None = None
    query_column: str | None = None
    fixed: bool = True

    @cached_property
    def columns(self) -> tuple[str, ...]:
        before = self.queries.columns if self.queries is not None else ()
        return (*before, *self.input.columns, SCORE)

    @cached_property
    def feed_name(self) -> str:
        """The table name under which the engine reads what was found, where something else searched."""
        return f"searched_{next(NUMBERS)}"

    def label(self) -> str:
        least = "" if self.threshold is None else f", score {compare(self.metric)} {self.threshold:g}"
        return f"VectorSearch: {self.top_k} nearest by {self.metric} of {self.column} to {self._searched()}{least}"

    def _searched(self) -> str:
        if self.vector is None:
            return f"{self.query_column} of each query"
        shown = ", ".join(f"{number:g}" for number in self.vector[:_SHOWN_NUMBERS])
        return f"[{shown}]" if len(self.vector) <= _SHOWN_NUMBERS else f"[{shown}, ...] ({len(self.vector)} numbers)"

    def apart(self) -> Filter | None:
        if self.vector is None:
            return None
        rows = self.input
        for score in self._scores(vector_sql(self.vector)):
            rows = WithColumn(rows, ((SCORE, parse_expression(score)),))
        return Filter(TopK(rows, self.order(), self.top_k), self.is_found())

    def _scores(self, searched: str) -> tuple[str, str]:
        """SQL of the score of a row, in two steps: the second reads the first under its name."""
        column = quoted(self.column)
        raw = score_sql(self.metric, column, searched, self.length)
        if self.fixed:
            raw = f"try({raw})"  # of a NULL among the numbers the engine makes an error
        # NaN and infinities are not found, and are not to come first.
        finite = f"WHEN isfinite({SCORE}) THEN {SCORE}"
        if self.metric is not Metric.COSINE:
            return raw, f"CASE {finite} END"
        # What has no direction has no angle. It is asked only where there is none: it costs a pass over the vector.
        none = " OR ".join(zero_sql(side, self.length) for side in (column, searched))
        return raw, f"CASE {finite} WHEN isnan({SCORE}) AND ({none}) THEN 1.0 END"

    def order(self) -> tuple[exp.Ordered, ...]:
        """The best score first; rows that tie by their columns."""
        return (
            exp.Ordered(this=reference(SCORE), desc=not is_better_below(self.metric), nulls_first=False),
            *(exp.Ordered(this=reference(name), desc=False, nulls_first=False) for name in self.input.columns),
        )

    def is_found(self) -> exp.Expr:
        """What holds for the scores of the best rows that are found. It is asked of these alone: the engine would
        compute a score once to test it and once more to show it."""
        if self.threshold is None:
            return exp.Not(this=exp.Is(this=reference(SCORE), expression=exp.Null()))
        limit = exp.Cast(this=exp.Literal.string(repr(self.threshold)), to=exp.DataType.build("DOUBLE"))
        kind = exp.LTE if is_better_below(self.metric) else exp.GTE
        return kind(this=reference(SCORE), expression=limit)

    def batch(self, *inputs: Query) -> Query:
        return self._of_one(*inputs) if self.queries is None else self._of_each(*inputs)

    def _of_one(self, rows: Query) -> Query:
        assert self.vector is not None, "one vector is searched for"
        scored = self._scored(rows.as_item(), self.input.columns, vector_sql(self.vector))
        best = Query.table(scored, self.columns).ordered(self.order()).limited(self.top_k)
        return best.filtered(self.is_found())

    def _scored(self, rows: str, columns: Sequence[str], searched: str) -> str:
        """What stands in FROM for rows, with a score for each."""
        for score in self._scores(searched):
            rows = f"(SELECT {', '.join(map(quoted, columns))}, {score} AS {SCORE} FROM {rows})"
        return rows

    def _of_each(self, rows: Query, queries: Query) -> Query:
        assert self.queries is not None, "a table of queries is searched for"
        # Equal rows of the table are queries of their own.
        number = exp.Window(this=call("row_number"), over="OVER")
        numbered = queries.projected([*_kept(self.queries.columns), (QUERY_NUMBER, number)], windowed=True)
        pairs = numbered.wrapped().joined(rows, "CROSS JOIN", None)
        return self.of_pairs(f"({pairs.sql()})")

    @property
    def pair_columns(self) -> tuple[str, ...]:
        """The columns of pairs of a query and a row; the last is the number of the query."""
        assert self.queries is not None, "a table of queries is searched for"
        return (*self.queries.columns, *self.input.columns, QUERY_NUMBER)

    def scored_pairs(self, pairs: str) -> Query:
        """The pairs that stand in FROM, with the score of each."""
        assert self.query_column is not None, "the table of queries has a column of vectors"
        return Query.table(
            self._scored(pairs, self.pair_columns, quoted(self.query_column)), (*self.pair_columns, SCORE)
        )

    def of_pairs(self, pairs: str) -> Query:
        """The best pairs of each query, among those that stand in FROM."""
        # By one key the engine keeps the first rows of each query and no others.
        order = exp.Order(expressions=[sort_key(self.order())])
        rank = exp.Window(this=call("row_number"), partition_by=[reference(QUERY_NUMBER)], order=order, over="OVER")
        shown = _kept(self.columns)
        ranked = self.scored_pairs(pairs).projected([*shown, (_RANK, rank)], windowed=True).wrapped()
        best = exp.LTE(this=reference(_RANK), expression=exp.Literal.number(self.top_k))
        return ranked.filtered(best).projected(shown).wrapped().filtered(self.is_found())

    def stream(self) -> Incremental:
        if self.queries is not None:
            return Recompute("what is nearest to each query depends on all rows")
        return Recompute("what is nearest depends on all rows")


def compare(metric: Metric) -> str:
    """How a score is held against a threshold."""
    return "<=" if is_better_below(metric) else ">="


def _kept(names: Sequence[str]) -> list[Named]:
    return [(name, reference(name)) for name in names]
