"""Nearest: the k best rows for each query, exactly.

A fast pass gives every row a *key*, more is nearer, that is wrong by at most a bound which is known beforehand. The
k-th best of the least that keys can mean is a floor under the answer; rows whose key cannot reach it are out, and the
few that are left are scored anew in float64, which alone decides. So the answer is that of float64 arithmetic over
the float32 numbers, whatever the fast pass, its blocks or its threads: scores are within 1e-14 d of the exact ones
(relative to the product of the norms), and rows of equal score come in the order of rows.

Keys of a query q scaled by a power of two: cosine <x, q> / |x|, dot <x, q>, l2 <x, q> - |x|^2 / 2. A float32 product
of d numbers is wrong by at most d 2^-24 |x||q| in any order of summation (Higham, Accuracy and Stability, 3.1).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from typing import Final

import numpy as np
import numpy.typing as npt

from velaria_core.errors import InputError, did_you_mean
from velaria_core.execution.search.vectors import Chunk, Doubles, Floats, Vectors
from velaria_core.execution.vectors import Mask, Rows

BACKEND: Final = "float32-blas"
_SETTLED_AT: Final = 1 << 20  # pairs that may wait before float64 thins them out
_LEAST: Final = np.finfo(np.float32).min
_AT_ONCE: Final = 1 << 20  # numbers that are scored together
# OpenBLAS does a product of a matrix and a vector of fewer numbers on the thread that asks, and that is what is
# wanted: its own threads wait for each other by spinning, which costs hundreds of times more on a busy machine.
_BLOCK: Final = 1 << 18
_BLOCK_ROWS_OF_MANY: Final = 2048


class Metric(Enum):
    """How two vectors are compared. Distances are best when small, a similarity when large."""

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"

    @property
    def is_distance(self) -> bool:
        return self is not Metric.DOT

    @staticmethod
    def named(name: str) -> Metric:
        """The metric of a name; `cosin` is cosine.

        Raises:
            InputError[search.metric].
        """
        known = {metric.value: metric for metric in Metric}
        found = known.get({"cosin": "cosine"}.get(name.lower(), name.lower()))
        if found is None:
            raise InputError("search.metric", f'no metric "{name}"', hint=did_you_mean(name, known, "metrics"))
        return found


@dataclass(frozen=True, slots=True)
class Nearest:
    """The answer, by query.

    Attributes:
        rows: best first, at most k each; rows of equal score in their order.
        scores: float64, of those rows: cosine and l2 distances, dot products.
        candidates: rows that were compared.
        skipped: rows that no search finds: NULL, or not finite.
        rescored: rows that the fast pass left over, of all queries.
        backend: what computed the fast pass.
    """

    rows: list[Rows]
    scores: list[Doubles]
    candidates: int
    skipped: int
    rescored: int
    backend: str


def nearest(
    vectors: Vectors,
    queries: npt.ArrayLike,
    metric: Metric,
    k: int,
    *,
    allowed: Rows | None = None,
    threshold: float | None = None,
    threads: int | None = None,
) -> Nearest:
    """The k best rows for each of q queries.

    Args:
        queries: (q, d) numbers, taken as float32.
        k: at least 1; more than there are rows gives them all.
        allowed: (m,) the only rows to look at, in rising order.
        threshold: no row with a greater distance, or a smaller dot product.
        threads: at most so many; None: one for each core.

    Raises:
        InputError[search.top_k, search.dimension, search.query, search.threshold].

    Cost: one pass over the numbers of the rows that are looked at, for one query at the speed of memory; a pass over
        all numbers before that, where `vectors.norms` has not been asked for yet. Memory: O(q k) and a few MB.
    """
    asked = _Asked.of(vectors, queries, metric, k, threshold)
    looked = _looked_at(vectors, allowed)
    candidates = len(vectors) - len(vectors.apart) if looked is None else len(looked)
    count = len(asked.exact)
    if candidates == 0 or count == 0:
        empty = [np.empty(0, np.int64)] * count, [np.empty(0)] * count
        return Nearest(*empty, candidates, len(vectors.apart), 0, BACKEND)
    pairs = _scanned(vectors, asked, looked, threads or _cores())
    rows, scores = _best(vectors, asked, pairs)
    return Nearest(rows, scores, candidates, len(vectors.apart), len(pairs.rows), BACKEND)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked.

    Attributes:
        exact: (q, d) the queries.
        scaled: (q, d) the same, scaled by powers of two to norms of at most 1.
        errors: (q,) what keys are wrong by at most.
        floors: (q,) what the threshold asks of keys at least; -inf where there is none.
        halves: l2: (q,) what `vectors.halves` are in keys, times.
    """

    metric: Metric
    k: int
    threshold: float | None
    exact: Doubles
    scaled: Floats
    errors: Doubles
    floors: Doubles
    halves: Floats

    @staticmethod
    def of(vectors: Vectors, queries: npt.ArrayLike, metric: Metric, k: int, threshold: float | None) -> _Asked:
        if k < 1:
            raise InputError("search.top_k", f"top_k is {k}", hint="ask for at least 1 row")
        if threshold is not None and math.isnan(threshold):
            raise InputError("search.threshold", "the score threshold is not a number")
        with np.errstate(over="ignore"):
            exact = np.atleast_2d(np.asarray(queries, np.float32)).astype(np.float64)
        if not np.isfinite(exact).all():
            at = int(np.flatnonzero(~np.isfinite(exact).all(axis=1))[0])
            which = "the query vector" if len(exact) == 1 else f"query vector {at}"
            raise InputError("search.query", f"{which} holds a number that is not finite as float32")
        if vectors.dimension and exact.shape[1] != vectors.dimension:
            raise InputError(
                "search.dimension",
                f"the query vector holds {exact.shape[1]} numbers, the vectors of the column {vectors.dimension}",
            )
        norms = np.sqrt((exact * exact).sum(axis=1))
        longest = 1.0 if metric is Metric.COSINE else vectors.longest
        # l2: so that |x|^2 / 2 is at most |x| / 2 as well.
        exponents = np.frexp(np.maximum(norms, longest) if metric is Metric.L2 else norms)[1].astype(np.int64)
        lengths = np.ldexp(norms, -exponents)
        halves = np.ldexp(longest * longest, -exponents) if metric is Metric.L2 else np.zeros(len(norms))
        # Twice the bound of the product: room for the norm's and for the few roundings that follow.
        bound = 2 * (exact.shape[1] + 16) * 2.0**-24
        errors = bound * (longest * lengths + halves)
        return _Asked(
            metric,
            min(k, max(1, len(vectors))),
            threshold,
            exact,
            np.ldexp(exact, -exponents[:, None]).astype(np.float32),
            errors,
            _floors(metric, threshold, norms, exponents),
            halves.astype(np.float32),
        )


def _floors(metric: Metric, threshold: float | None, norms: Doubles, exponents: npt.NDArray[np.int64]) -> Doubles:
    """(q,) the threshold in keys, a little less than what it is."""
    if threshold is None:
        return np.full(len(norms), -np.inf)
    limit = min(max(threshold, -1e100), 1e100)  # no score of float32 numbers is beyond
    if metric is Metric.COSINE:
        terms = norms, -limit * norms
    elif metric is Metric.DOT:
        terms = np.zeros(len(norms)), np.full(len(norms), limit)
    else:
        terms = norms * norms / 2, np.full(len(norms), -(max(limit, 0.0) ** 2) / 2)
    sums, sizes = terms[0] + terms[1], np.abs(terms[0]) + np.abs(terms[1])
    return np.ldexp(sums - 1e-12 * sizes, -exponents)


def _looked_at(vectors: Vectors, allowed: Rows | None) -> Rows | None:
    """The rows to compare; None: all but those apart."""
    if allowed is None:
        return None
    allowed = np.asarray(allowed, np.int64)
    assert len(allowed) == 0 or (allowed[0] >= 0 and allowed[-1] < len(vectors)), "allowed rows are rows"
    return allowed[~np.isnan(vectors.norms[allowed])] if len(vectors.apart) else allowed


# --- the fast pass -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pairs:
    """p pairs of a query and a row, and the least and the most that the true key can be."""

    queries: npt.NDArray[np.int64]
    rows: Rows
    low: Doubles
    high: Doubles

    def at(self, places: Mask | Rows) -> _Pairs:
        return _Pairs(self.queries[places], self.rows[places], self.low[places], self.high[places])

    @staticmethod
    def together(parts: Sequence[_Pairs]) -> _Pairs:
        if len(parts) == 1:
            return parts[0]
        names = ("queries", "rows", "low", "high")
        return _Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class _Race:
    """Who can still be among the k best of each query, after the rows that one thread has seen."""

    def __init__(self, vectors: Vectors, asked: _Asked) -> None:
        self._vectors, self._asked = vectors, asked
        self._least = asked.floors.copy()
        self._parts: list[_Pairs] = []
        self._waiting, self._limit = 0, 0

    def offer(self, keys: Floats, rows: int | Rows) -> None:
        """Take (q, m) keys of m rows, or of m that follow each other from a first one; -inf where one is not meant."""
        count, k, errors = keys.shape[1], self._asked.k, self._asked.errors
        if count > k and self._least.min() == -np.inf:  # nothing is known yet: a floor from these rows alone
            kth = np.partition(keys, count - k, axis=1)[:, count - k]
            np.maximum(self._least, kth - errors, out=self._least)
        # Rounding to float32 may go up, so one number further down; above -inf, which is no key.
        reach = np.clip(self._least - errors, _LEAST, -_LEAST).astype(np.float32)
        reach = np.nextafter(reach, _LEAST)
        if len(keys) == 1:
            places = np.flatnonzero(keys[0] >= reach[0])
            queries = np.zeros(len(places), np.int64)
            found = keys[0, places].astype(np.float64)
        else:
            queries, places = np.nonzero(keys >= reach[:, None])
            found = keys[queries, places].astype(np.float64)
        if len(places) == 0:
            return
        wrong = errors[queries]
        here = places + rows if isinstance(rows, int) else rows[places]
        self.add(_Pairs(queries, here, found - wrong, found + wrong))

    def offer_unknown(self, rows: Rows) -> None:
        """Take rows whose keys nothing is known about."""
        for query in range(len(self._asked.exact)):
            for start in range(0, len(rows), _SETTLED_AT):
                part = rows[start : start + _SETTLED_AT]
                unknown = np.full(len(part), np.inf)
                self.add(_Pairs(np.full(len(part), query), part, -unknown, unknown))

    def add(self, pairs: _Pairs) -> None:
        self._parts.append(pairs)
        self._waiting += len(pairs.rows)
        if self._waiting > self._limit:
            self.left()

    def left(self) -> _Pairs | None:
        """The pairs that can still win; None before the first."""
        if not self._parts:
            return None
        pairs = self._thinned(_Pairs.together(self._parts))
        if len(pairs.rows) > _SETTLED_AT:
            pairs = _winners(self._vectors, self._asked, pairs)[0]
        self._parts, self._waiting = [pairs], len(pairs.rows)
        self._limit = 2 * self._waiting + 64 * len(self._asked.exact)
        return pairs

    def _thinned(self, pairs: _Pairs) -> _Pairs:
        k = self._asked.k
        if len(self._least) == 1:
            if len(pairs.low) >= k:
                kth = np.partition(pairs.low, len(pairs.low) - k)[len(pairs.low) - k]
                self._least[0] = max(self._least[0], kth)
        else:
            order = np.lexsort((-pairs.low, pairs.queries))
            queries = pairs.queries[order]
            counts = np.bincount(queries, minlength=len(self._least))
            starts = np.cumsum(counts) - counts
            full = np.flatnonzero(counts >= k)
            self._least[full] = np.maximum(self._least[full], pairs.low[order[starts[full] + k - 1]])
        return pairs.at(pairs.high >= self._least[pairs.queries])


def _scanned(vectors: Vectors, asked: _Asked, looked: Rows | None, threads: int) -> _Pairs:
    """The pairs that float64 has to decide."""
    products = list(_products(vectors, asked, looked))
    # Several queries are a product of matrices, in which BLAS has its own threads busy all the time.
    workers = min(threads, len(products)) if len(asked.exact) == 1 else 1
    odd = _odd_rows(vectors, looked)

    def work(number: int) -> _Pairs | None:
        race = _Race(vectors, asked)
        if number == 0 and len(odd):
            race.offer_unknown(odd)
        for product in products[len(products) * number // workers : len(products) * (number + 1) // workers]:
            product(race)
        return race.left()

    others = [_pool().submit(work, number) for number in range(1, workers)]
    found = [work(0), *(other.result() for other in others)]
    race = _Race(vectors, asked)
    for pairs in found:
        if pairs is not None:
            race.add(pairs)
    nobody = np.empty(0, np.int64)
    return race.left() or _Pairs(nobody, nobody, np.empty(0), np.empty(0))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _cores()), thread_name_prefix="velaria-search")


def _odd_rows(vectors: Vectors, looked: Rows | None) -> Rows:
    """The rows to compare whose keys would mean nothing."""
    odd = vectors.odd[~np.isnan(vectors.norms[vectors.odd])]
    return odd if looked is None or len(odd) == 0 else np.intersect1d(odd, looked, assume_unique=True)


def _products(vectors: Vectors, asked: _Asked, looked: Rows | None) -> Iterator[Callable[[_Race], None]]:
    """The work, in pieces that fit the cache: each offers the keys of some rows."""
    step = max(1, _BLOCK // max(1, vectors.dimension))
    if len(asked.exact) > 1:
        step = min(step, _BLOCK_ROWS_OF_MANY)
    for chunk in vectors.chunks:
        end = chunk.first + len(chunk.data)
        here = None if looked is None else _between(looked, chunk.first, end)
        if here is not None and 3 * len(here) < len(chunk.data):  # few: gathered
            for start in range(0, len(here), step):
                yield partial(_offer_some, vectors, asked, chunk, here[start : start + step])
            continue
        for start in range(chunk.first, end, step):
            yield partial(_offer_all, vectors, asked, chunk, slice(start, min(start + step, end)), here)


def _between(rows: Rows, start: int, stop: int) -> Rows:
    return rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]


def _offer_some(vectors: Vectors, asked: _Asked, chunk: Chunk, rows: Rows, race: _Race) -> None:
    keys = _keys(vectors, asked, chunk.data[rows - chunk.first], rows)
    if len(vectors.odd):
        keys[:, np.isin(rows, vectors.odd, assume_unique=True)] = -np.inf
    race.offer(keys, rows)


def _offer_all(vectors: Vectors, asked: _Asked, chunk: Chunk, part: slice, looked: Rows | None, race: _Race) -> None:
    keys = _keys(vectors, asked, chunk.data[part.start - chunk.first : part.stop - chunk.first], part)
    if len(vectors.odd):
        keys[:, _between(vectors.odd, part.start, part.stop) - part.start] = -np.inf
    if looked is not None:
        off = np.ones(part.stop - part.start, np.bool_)
        off[_between(looked, part.start, part.stop) - part.start] = False
        keys[:, off] = -np.inf
    race.offer(keys, part.start)


def _keys(vectors: Vectors, asked: _Asked, data: Floats, rows: Rows | slice) -> Floats:
    """(q, m) keys of the rows with these numbers, (m, d). Odd rows get any."""
    with np.errstate(over="ignore", invalid="ignore"):
        keys = (data @ asked.scaled[0])[None] if len(asked.scaled) == 1 else asked.scaled @ data.T
        if asked.metric is Metric.COSINE:
            keys *= vectors.inverses[rows]
        elif asked.metric is Metric.L2:
            keys -= asked.halves[:, None] * vectors.halves[rows]
    return keys


# --- float64 decides -----------------------------------------------------------------------------------------------


def scores_of(rows: Floats, queries: Doubles, metric: Metric) -> Doubles:
    """(p,) float64 scores of p vectors, each with a query of its own: (p, d) both.

    The score of a pair does not depend on what stands beside it.
    """
    scores = np.empty(len(rows))
    step = max(1, _AT_ONCE // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        one, other = rows[part].astype(np.float64), queries[part]
        if metric is Metric.L2:
            one -= other
            scores[part] = np.sqrt((one * one).sum(axis=1))
            continue
        products = (one * other).sum(axis=1)
        if metric is Metric.COSINE:
            norms = np.sqrt((one * one).sum(axis=1)) * np.sqrt((other * other).sum(axis=1))
            cosines = np.divide(products, norms, out=np.zeros(len(norms)), where=norms > 0)
            products = np.clip(1 - cosines, 0.0, 2.0)
        scores[part] = products
    return scores


def _winners(vectors: Vectors, asked: _Asked, pairs: _Pairs) -> tuple[_Pairs, Doubles]:
    """The k best pairs of each query and their scores, sorted by query, score and row."""
    scores = np.empty(len(pairs.rows))
    step = max(1, _AT_ONCE // max(1, vectors.dimension))
    for start in range(0, len(scores), step):
        part = slice(start, start + step)
        scores[part] = scores_of(vectors.take(pairs.rows[part]), asked.exact[pairs.queries[part]], asked.metric)
    order = np.lexsort((pairs.rows, scores if asked.metric.is_distance else -scores, pairs.queries))
    pairs, scores = pairs.at(order), scores[order]
    counts = np.bincount(pairs.queries, minlength=len(asked.exact))
    rank = np.arange(len(scores)) - (np.cumsum(counts) - counts)[pairs.queries]
    keep = rank < asked.k
    if asked.threshold is not None:
        keep &= scores <= asked.threshold if asked.metric.is_distance else scores >= asked.threshold
    return pairs.at(keep), scores[keep]


def _best(vectors: Vectors, asked: _Asked, pairs: _Pairs) -> tuple[list[Rows], list[Doubles]]:
    pairs, scores = _winners(vectors, asked, pairs)
    ends = np.searchsorted(pairs.queries, np.arange(len(asked.exact)), side="right")[:-1]
    return np.split(pairs.rows, ends), np.split(scores, ends)
