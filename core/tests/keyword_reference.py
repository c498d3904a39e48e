"""BM25 by the book: the formula in plain Python, which SQL and the index are held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from velaria_core.logical.analyzers import analyzer
from velaria_core.logical.keyword_query import All, Any, Condition, Has, KeywordQuery, Kind, Leaf

Document: TypeAlias = Mapping[str, str | None]


def ranked(
    documents: Sequence[Document],
    columns: Mapping[str, float],
    query: KeywordQuery,
    *,
    over: Sequence[Document] | None = None,
) -> list[tuple[int, float]]:
    """The documents that match, by place, with their scores: best first, ties by place.

    Args:
        over: the documents that the statistics are of, where they are not these.
    """
    counts = [_counted(one, columns, query) for one in documents]
    corpus = counts if over is None else [_counted(one, columns, query) for one in over]
    mean = sum(length for length, _ in corpus) / len(corpus) if corpus else 0.0
    idf = {}
    for leaf in query.scored:
        df = sum(1 for _, tf in corpus if tf[leaf] > 0)
        idf[leaf] = math.log(1 + (len(corpus) - df + 0.5) / (df + 0.5))
    found = []
    for at, (length, tf) in enumerate(counts):
        if _holds(query.condition, tf):
            parts = [
                idf[leaf] * tf[leaf] * 2.2 / (tf[leaf] + 1.2 * (0.25 + 0.75 * length / mean))
                for leaf in query.scored
                if tf[leaf] > 0
            ]
            found.append((at, math.fsum(parts)))
    return sorted(found, key=lambda one: (-one[1], one[0]))


def _counted(one: Document, columns: Mapping[str, float], query: KeywordQuery) -> tuple[float, list[float]]:
    cut = analyzer(query.analyzer).terms
    terms = {name: cut(one[name] or "") for name in columns}
    length = math.fsum(weight * len(terms[name]) for name, weight in columns.items())
    tf = [math.fsum(weight * _times(leaf, terms[name]) for name, weight in columns.items()) for leaf in query.leaves]
    return length, tf


def _times(leaf: Leaf, terms: list[str]) -> int:
    if leaf.kind is Kind.PREFIX:
        return sum(1 for term in terms if term.startswith(leaf.terms[0]))
    count = len(leaf.terms)
    return sum(1 for at in range(len(terms) - count + 1) if tuple(terms[at : at + count]) == leaf.terms)


def _holds(condition: Condition, tf: list[float]) -> bool:
    if isinstance(condition, Has):
        return tf[condition.leaf] > 0
    if isinstance(condition, All):
        return all(_holds(part, tf) for part in condition.parts)
    if isinstance(condition, Any):
        return any(_holds(part, tf) for part in condition.parts)
    return not _holds(condition.part, tf)
