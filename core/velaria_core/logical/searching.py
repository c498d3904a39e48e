"""Searching: the nodes of searches, made from what users write, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from velaria_core.contract.modes import Metric
from velaria_core.errors import SqlSemanticError, did_you_mean
from velaria_core.logical.analyzers import ANALYZER
from velaria_core.logical.bm25 import check_weights
from velaria_core.logical.node import Node
from velaria_core.logical.operators import HybridSearch, KeywordSearch, Rename, VectorSearch
from velaria_core.logical.operators.hybrid_search import CONSTANTS, SCORES, Fusion
from velaria_core.logical.operators.keyword_search import SCORE as KEYWORD_SCORE
from velaria_core.logical.operators.vector_search import SCORE
from velaria_core.logical.similarity import vector_of
from velaria_core.types import type_name

TypeOf = Callable[[Node, str], pa.DataType]
TOP_K = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of the rows are wanted, as a user says it."""

    metric: Metric = Metric.COSINE
    top_k: Any = TOP_K
    threshold: Any = None

    def checked(self) -> tuple[Metric, int, float | None]:
        """The same as values of their types.

        Raises:
            SqlSemanticError[search.top_k, search.threshold].
        """
        return self.metric, count_of(self.top_k), _threshold(self.threshold)


def vector_search(
    node: Node,
    column: str,
    query: Any,
    type_of: TypeOf,
    wanted: Wanted,
) -> VectorSearch:
    """The rows of `node` nearest to one vector.

    Args:
        column: a column of the node.
        query: see `similarity.vector_of`.
        type_of: the type of a node's column, as the engine has it.

    Raises:
        SqlSemanticError[search.vector, search.dimension, search.not_a_vector, search.top_k, search.threshold,
            search.score_column].
    """
    refuse_scores(node, SCORE)
    length = vector_length(type_of(node, column), column)
    vector = vector_of(query)
    if length is not None and length != len(vector):
        raise _mismatch(column, length, "the query", len(vector))
    return VectorSearch(node, column, len(vector), vector, *wanted.checked(), fixed=length is not None)


def vector_search_each(
    node: Node,
    column: str,
    queries: Node,
    query_column: str,
    type_of: TypeOf,
    wanted: Wanted,
) -> VectorSearch:
    """For each row of `queries` the rows of `node` nearest to its vector. A name that both have gets `_query` there.

    Raises:
        SqlSemanticError: as `vector_search`.
    """
    refuse_scores(node, SCORE)
    refuse_scores(queries, SCORE)
    lengths = vector_length(type_of(node, column), column), vector_length(type_of(queries, query_column), query_column)
    known = {length for length in lengths if length is not None}
    if len(known) > 1:
        raise _mismatch(column, lengths[0], query_column, lengths[1])
    taken = {name.lower() for name in node.columns}
    renamed: dict[str, str] = {}
    for name in queries.columns:
        new = name
        while new.lower() in taken:
            new += "_query"
        taken.add(new.lower())
        renamed[name] = new
    changed = tuple((old, new) for old, new in renamed.items() if old != new)
    return VectorSearch(
        node,
        column,
        known.pop() if known else None,
        None,
        *wanted.checked(),
        Rename(queries, changed) if changed else queries,
        renamed[query_column],
        fixed=None not in lengths,
    )


def keyword_search(
    node: Node,
    fields: Mapping[str, float],
    query: Any,
    type_of: TypeOf,
    *,
    top_k: Any = TOP_K,
    analyzer: str = ANALYZER,
) -> KeywordSearch:
    """The rows of `node` whose texts match a query best.

    Args:
        fields: columns of the node, with what a word in each weighs.

    Raises:
        SqlSemanticError[search.not_text, search.top_k, search.score_column].
        InputError[search.query, search.weight, search.analyzer, search.analyzer_missing].
    """
    refuse_scores(node, KEYWORD_SCORE)
    for name in fields:
        require_text(type_of(node, name), name)
    if not isinstance(query, str):
        raise SqlSemanticError("search.query", f"a keyword query is text, not a {type(query).__name__}")
    check_weights(fields)
    made = KeywordSearch(node, tuple(fields.items()), query, count_of(top_k), analyzer)
    made.query  # noqa: B018 -- reading it tells of errors now
    return made


@dataclass(frozen=True, slots=True)
class Fused:
    """How a keyword search and a vector search are fused, as a user says it.

    Attributes:
        constant: k of rrf or alpha of weighted; None takes the usual.
        candidates: rows that each search gives; None is ten times as many as are wanted, and at least 100.
    """

    fusion: str = Fusion.RRF
    constant: float | None = None
    candidates: Any = None


def hybrid_search(keywords: KeywordSearch, vectors: VectorSearch, fused: Fused) -> HybridSearch:
    """Both searches, which are of the same rows, as one that fuses their rankings.

    Raises:
        SqlSemanticError[search.fusion, search.constant, search.top_k, search.score_column].
    """
    refuse_scores(keywords.input, *SCORES)
    assert vectors.vector is not None, "one vector is searched for"
    try:
        fusion = Fusion(fused.fusion.lower())
    except ValueError:
        hint = did_you_mean(fused.fusion, list(Fusion), "fusions")
        raise SqlSemanticError("search.fusion", f'no fusion "{fused.fusion}"', hint=hint) from None
    constant = CONSTANTS[fusion] if fused.constant is None else fused.constant
    if not 0 <= constant <= (math.inf if fusion is Fusion.RRF else 1) or constant == math.inf:
        told = "k of rrf is a number of at least 0" if fusion is Fusion.RRF else "alpha is a number from 0 to 1"
        raise SqlSemanticError("search.constant", f"{told}, not {constant}")
    candidates = max(10 * vectors.top_k, 100) if fused.candidates is None else count_of(fused.candidates)
    return HybridSearch(
        keywords.input,
        keywords.fields,
        keywords.text,
        vectors.column,
        len(vectors.vector),
        vectors.vector,
        vectors.metric,
        vectors.top_k,
        candidates,
        vectors.threshold,
        fusion,
        constant,
        keywords.analyzer,
        vectors.fixed,
    )


def count_of(top_k: Any) -> int:
    """How many rows are asked for.

    Raises:
        SqlSemanticError[search.top_k].
    """
    if isinstance(top_k, bool) or not hasattr(top_k, "__index__") or (count := int(top_k)) < 1:
        raise SqlSemanticError("search.top_k", f"top_k is a whole number of at least 1, not {top_k!r}")
    return min(count, 2**62)


def refuse_scores(node: Node, *scores: str) -> None:
    """A search adds these columns, so the rows must not have any.

    Raises:
        SqlSemanticError[search.score_column].
    """
    for name in node.columns:
        if name.lower() in scores:
            raise SqlSemanticError(
                "search.score_column",
                f'the rows have a column "{name}", and the search adds one of that name',
                hint="rename or drop it first",
            )


def vector_length(kind: pa.DataType, column: str) -> int | None:
    """How many numbers the vectors of a column of this type have; None where that is not in the type.

    Raises:
        SqlSemanticError[search.not_a_vector].
    """
    fixed = pa.types.is_fixed_size_list(kind)
    if fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
        if pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_decimal(inner):
            return int(kind.list_size) if fixed else None
    hint = "a vector column is FLOAT[n]"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        hint += f"; text such as '[1, 2, 3]' becomes one by CAST({column} AS FLOAT[3])"
    raise SqlSemanticError("search.not_a_vector", f'"{column}" is {type_name(kind)}, which is no vector', hint=hint)


def require_text(kind: pa.DataType, column: str) -> None:
    """A column of this type has words.

    Raises:
        SqlSemanticError[search.not_text].
    """
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        hint = f"CAST({column} AS VARCHAR) makes a text of it"
        raise SqlSemanticError("search.not_text", f'"{column}" is {type_name(kind)}, which is no text', hint=hint)


def _mismatch(one: str, length: int | None, other: str, other_length: int | None) -> SqlSemanticError:
    return SqlSemanticError(
        "search.dimension",
        f'"{one}" has vectors of {length} numbers, {other} of {other_length}',
        hint="vectors of one model have one length",
    )


def _threshold(value: Any) -> float | None:
    if value is None:
        return None
    try:
        made = float(value)
    except (TypeError, ValueError):
        made = math.nan
    if math.isnan(made) or isinstance(value, (bool, str)):
        raise SqlSemanticError("search.threshold", f"score_threshold is a number, not {value!r}")
    return made
