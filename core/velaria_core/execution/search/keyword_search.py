"""Keyword search over postings: the best documents of a query by BM25, exactly.

Of alternatives the rarest are read first. Once a document that has only the rest cannot reach the k-th best of what is
found, the rest is no longer read but looked up for what is found. Until then scores are float32, with room for its
errors; those that are given are float64, by the operations of `logical.bm25` in their order.

Source: Turtle, Flood, "Query evaluation: strategies and optimizations", IPM 1995 (MaxScore).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from velaria_core.execution.search.postings import Counts, Postings, within
from velaria_core.execution.vectors import Array, Mask, Rows
from velaria_core.logical.bm25 import K1, B
from velaria_core.logical.keyword_query import Any, Condition, Has, KeywordQuery, Kind, Leaf, Not

Doubles: TypeAlias = npt.NDArray[np.float64]
Floats: TypeAlias = npt.NDArray[np.float32]

# A sum of at most 256 float32 of a few operations each is off by less, as a share of it.
_ROOM: Final = 1e-4
_NONE: Final = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Found:
    """The best rows, best first; ties by row id.

    Attributes:
        rows, scores: (n,) int64 and float64, n <= k.
        candidates: how many documents were scored in float64.
    """

    rows: Rows
    scores: Doubles
    candidates: int


@dataclass(frozen=True, slots=True)
class _Listed:
    """A leaf of the query: the documents with it, rising; how often, weighted; its idf, 0 where it is not scored."""

    documents: Array
    times: Array
    idf: float

    @property
    def most(self) -> float:
        """What it adds to a score at most."""
        return self.idf * (K1 + 1)

    def times_at(self, documents: Array) -> Doubles:
        """How often some documents, rising, have it."""
        found = np.zeros(len(documents))
        there = within(documents, self.documents)
        found[there] = self.times[np.searchsorted(self.documents, documents[there])]
        return found


class Corpus:
    """Several postings as one. Documents are numbered through them.

    Args:
        parts: the postings.
        kept: a mask over all documents of those that are there, or None where all are.
    """

    def __init__(self, parts: Sequence[Postings], kept: Mask | None) -> None:
        self._parts, self._kept = parts, kept
        self._bases = np.cumsum([0, *map(len, parts)])
        self._rows: Rows = (
            parts[0].rows if len(parts) == 1 else np.concatenate([part.rows for part in parts] or [_NONE])
        )
        # Scores of documents while a query is worked on, all zero between queries; one for each thread at work.
        self._idle: list[Floats] = []
        self._lengths = lru_cache(8)(self._all_lengths)
        self._whole = lru_cache(8)(self._whole_statistics)

    def __len__(self) -> int:
        return len(self._rows)

    def search(
        self, query: KeywordQuery, k: int, weights: tuple[float, ...], allowed: Rows | None, *, over_allowed: bool
    ) -> Found:
        """See `KeywordIndex.search`. A weight of zero leaves a column out."""
        looked = self._kept if allowed is None else self._mask_of(allowed)
        counted = looked if over_allowed else self._kept
        count, mean = self._whole(weights) if counted is self._kept else self._statistics(weights, counted)
        if not mean:
            return Found(_NONE, np.empty(0), 0)
        leaves = []
        for number, leaf in enumerate(query.leaves):
            documents, times = self._listed(leaf, weights)
            df = len(documents) if counted is None else int(np.count_nonzero(counted.take(documents)))
            if looked is not None:
                stay = looked.take(documents)
                documents, times = documents[stay], times[stay]
            idf = math.log(1 + (count - df + 0.5) / (df + 0.5)) if number in query.scored else 0.0
            leaves.append(_Listed(documents, times, idf))
        scored = [leaves[number] for number in query.scored]
        if _alternatives(query.condition) == len(leaves):
            documents = self._best(scored, k, self._lengths(weights), mean)
        else:
            documents = _matching(query.condition, leaves)
        return self._first(documents, self._scores(documents, scored, weights, mean), k)

    # --- what is counted

    def _counts(self, leaf: Leaf, part: Postings) -> Counts:
        if leaf.kind is Kind.TERM:
            return part.term(leaf.terms[0])
        return part.prefix(leaf.terms[0]) if leaf.kind is Kind.PREFIX else part.phrase(leaf.terms)

    def _listed(self, leaf: Leaf, weights: tuple[float, ...]) -> tuple[Array, Array]:
        found = [self._counts(leaf, part) for part in self._parts]
        if len(found) == 1:
            documents, by_column = found[0].documents, found[0].times
        else:
            documents = np.concatenate([one.documents + base for one, base in zip(found, self._bases, strict=False)])
            by_column = tuple(map(np.concatenate, zip(*(one.times for one in found), strict=True)))
        if weights == (1.0,):
            return documents, by_column[0]
        times = _weighted(by_column, weights)
        there = times > 0
        return (documents, times) if there.all() else (documents[there], times[there])

    def _all_lengths(self, weights: tuple[float, ...]) -> Floats:
        """The length of each document."""
        parts = [
            (part.lengths[0] if weights == (1.0,) else _weighted(part.lengths, weights)).astype(np.float32)
            for part in self._parts
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _whole_statistics(self, weights: tuple[float, ...]) -> tuple[int, float]:
        return self._statistics(weights, self._kept)

    def _statistics(self, weights: tuple[float, ...], counted: Mask | None) -> tuple[int, float]:
        """How many documents there are, and their mean length."""
        count = len(self) if counted is None else int(np.count_nonzero(counted))
        sums = [0] * len(weights)
        for part, base in zip(self._parts, self._bases, strict=False):
            for column, lengths in enumerate(part.lengths):
                # To multiply costs a twentieth of picking them out.
                kept = lengths if counted is None else lengths * counted[base : base + len(part)]
                sums[column] += int(kept.sum(dtype=np.int64))
        return count, sum(weight * one for weight, one in zip(weights, sums, strict=True)) / max(count, 1)

    def _mask_of(self, allowed: Rows) -> Mask:
        """Which documents have these row ids, rising, and are there."""
        mask = np.zeros(len(self), np.bool_)
        for part, base in zip(self._parts, self._bases, strict=False):
            mask[base + places_of(part.rows, allowed)[0]] = True
        if self._kept is not None:
            mask &= self._kept
        return mask

    # --- which are best

    def _best(self, leaves: Sequence[_Listed], k: int, lengths: Floats, mean: float) -> Array:
        """Documents among which are the k best of those that have any of the leaves; rising."""
        leaves = sorted((one for one in leaves if len(one.documents)), key=lambda one: -one.idf)
        if not leaves:
            return _NONE
        rest = [*np.cumsum([one.most for one in leaves][::-1])[::-1].tolist(), 0.0]
        first = leaves[0].documents.astype(np.intp)
        reached = _parts(leaves[0], leaves[0].times, lengths.take(first), mean)
        least = _kth(reached, k)  # k documents have this score already
        read = 1
        if least > rest[1]:
            documents: Array = first
        else:
            documents, reached, least, read = self._together(first, reached, least, leaves, rest, k, lengths, mean)
        stay = reached + np.float32(rest[read]) >= least
        documents, reached = documents[stay], reached[stay]
        for at, one in enumerate(leaves[read:], read + 1):
            reached += _parts(one, one.times_at(documents), lengths.take(documents), mean)
            least = max(least, _kth(reached, k))
            stay = reached + np.float32(rest[at]) >= least
            documents, reached = documents[stay], reached[stay]
        return documents

    def _together(
        self,
        first: Array,
        reached: Floats,
        least: float,
        leaves: Sequence[_Listed],
        rest: Sequence[float],
        k: int,
        lengths: Floats,
        mean: float,
    ) -> tuple[Array, Floats, float, int]:
        """Read leaves after the first as long as documents without those before may be among the best.

        Returns:
            The documents that may be, rising; their scores so far; a score that k documents have; how many were read.
        """
        scores = self._idle.pop() if self._idle else np.zeros(len(self), np.float32)
        scores[first] = reached
        touched, found = [first], [first]
        read = 1
        while read < len(leaves) and least <= rest[read]:
            one = leaves[read]
            documents = one.documents.astype(np.intp)
            reached = scores.take(documents)
            new = reached == 0
            reached += _parts(one, one.times, lengths.take(documents), mean)
            scores[documents] = reached
            touched.append(documents)
            read += 1
            least = max(least, _kth(reached, k))
            new &= reached + np.float32(rest[read]) >= least
            found.append(documents[new])
        documents = np.sort(np.concatenate(found))
        reached = scores.take(documents)
        for documents_of_one in touched:
            scores[documents_of_one] = 0
        self._idle.append(scores)
        return documents, reached, max(least, _kth(reached, k)), read

    def _scores(self, documents: Array, leaves: Sequence[_Listed], weights: tuple[float, ...], mean: float) -> Doubles:
        """The scores of some documents, rising."""
        lengths = np.empty(len(documents))
        for part, base in zip(self._parts, self._bases, strict=False):
            one = slice(*np.searchsorted(documents, [base, base + len(part)]))
            at = documents[one] - base
            lengths[one] = _weighted([lengths[at] for lengths in part.lengths], weights)
        scores = np.zeros(len(documents))
        for leaf in leaves:
            times = leaf.times_at(documents)
            scores += leaf.idf * (times * (K1 + 1)) / (times + K1 * (1 - B + B * lengths / mean))
        return scores

    def _first(self, documents: Array, scores: Doubles, k: int) -> Found:
        candidates = len(documents)
        if k < candidates:
            stay = scores >= np.partition(scores, candidates - k)[candidates - k]
            documents, scores = documents[stay], scores[stay]
        rows = self._rows[documents]
        order = np.lexsort((rows, -scores))[:k]
        return Found(rows[order], scores[order], candidates)


def places_of(rows: Rows, wanted: Rows) -> tuple[Rows, Rows]:
    """Where in `rows`, rising, the wanted ones stand that are in it; and where those stand in `wanted`, rising too."""
    if not len(rows) or not len(wanted):
        return _NONE, _NONE
    if rows[-1] - rows[0] == len(rows) - 1:
        first, last = np.searchsorted(wanted, [rows[0], rows[-1] + 1])
        return wanted[first:last] - rows[0], np.arange(first, last)
    at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    there = np.flatnonzero(rows[at] == wanted)
    return at[there], there


def _weighted(columns: Sequence[Array], weights: tuple[float, ...]) -> Doubles:
    """The columns' sum, each with its weight."""
    found: Doubles | None = None
    for column, weight in zip(columns, weights, strict=True):
        if weight:
            found = weight * column if found is None else found + weight * column
    assert found is not None
    return found


def _parts(leaf: _Listed, times: Array, lengths: Floats, mean: float) -> Floats:
    """What a leaf adds to the scores of documents that have it so often and are so long."""
    times = times.astype(np.float32)
    below = lengths * np.float32(K1 * B / mean)
    below += np.float32(K1 * (1 - B))
    below += times
    times *= np.float32(leaf.most)
    times /= below
    return times


def _kth(scores: Floats, k: int) -> float:
    """A score that k documents have, less the room for errors; 0 where there are fewer."""
    if len(scores) < k:
        return 0.0
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) * (1 - _ROOM)


def _alternatives(condition: Condition) -> int:
    """How many leaves are alternatives, and nothing else; 0 where it is more than that."""
    parts = condition.parts if isinstance(condition, Any) else (condition,)
    return len(parts) if all(isinstance(part, Has) for part in parts) else 0


def _matching(condition: Condition, leaves: Sequence[_Listed]) -> Array:
    """The documents for which a condition holds, rising."""
    if isinstance(condition, Has):
        return leaves[condition.leaf].documents
    assert not isinstance(condition, Not)
    if isinstance(condition, Any):
        either: Array = np.unique(np.concatenate([_matching(part, leaves) for part in condition.parts]))
        return either
    wanted = [_matching(part, leaves) for part in condition.parts if not isinstance(part, Not)]
    found, *others = sorted(wanted, key=len)
    for documents in others:
        found = found[within(found, documents)]
    for part in condition.parts:
        if isinstance(part, Not):
            found = found[~within(found, _matching(part.part, leaves))]
    return found
