"""Nearest: the k best rows for each query, exactly.

A fast pass, over codes or over the numbers, gives every row a *key*, more is nearer, that is wrong by at most a bound
which is known beforehand. The k-th best of the least that keys can mean is a floor under the answer; rows whose key
cannot reach it are out, and those that are left are scored anew in float64, which alone decides. So the answer is that
of float64 arithmetic over the float32 numbers, whatever the fast pass, its blocks or its threads: scores are within
1e-14 d of the exact ones (relative to the product of the norms), and rows of equal score come in the order of rows.

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
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from velaria_core.errors import InputError, did_you_mean
from velaria_core.execution.search.codes import Codes, encoded, products
from velaria_core.execution.search.vectors import Doubles, Floats, Vectors
from velaria_core.execution.vectors import Array, Mask, Rows

_WAITING: Final = 1024  # pairs that may wait before they are compared with each other
_SETTLED_AT: Final = 1 << 20  # pairs that may wait before float64 thins them out
_LEAST: Final = np.finfo(np.float32).min
_AT_ONCE: Final = 1 << 15  # numbers that are scored together: what is made of them stays in the cache
_FEW: Final = 8  # queries that are done one by one: more are faster as a product of matrices
_ROWS: Final = 1 << 16  # at a time: their keys fit the cache, and what Python adds is little
_KEYS: Final = 1 << 17  # of all queries
_ROWS_OF_THREAD: Final = 4096
_KEYS_OF_MANY: Final = 1 << 20
_FIRST_ROWS: Final = 2048
_UNEVENNESS: Final = 1e-6
_BLOCK: Final = 7 << 16  # numbers that stay in the cache from one query to the next


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
        recall: the part of the exact answer that is expected; 1 but for approximate indexes.
    """

    rows: list[Rows]
    scores: list[Doubles]
    candidates: int
    skipped: int
    rescored: int
    backend: str
    recall: float = 1.0


def nearest(
    vectors: Vectors,
    queries: npt.ArrayLike,
    metric: Metric,
    k: int,
    *,
    allowed: Rows | None = None,
    threshold: float | None = None,
    codes: Codes | None = None,
    threads: int | None = None,
) -> Nearest:
    """The k best rows for each of q queries.

    Args:
        queries: (q, d) numbers, taken as float32.
        k: at least 1; more than there are rows gives them all.
        allowed: (m,) the only rows to look at, in rising order.
        threshold: no row with a greater distance, or a smaller dot product.
        codes: of the same vectors; used for up to 8 queries, more are faster as a product of float32 matrices.
        threads: at most so many; None: one for each core.

    Raises:
        InputError[search.top_k, search.dimension, search.query, search.threshold].

    Cost: one pass over the codes or numbers of the rows that are looked at, for one query near the speed of memory; a
        pass over all numbers before that, where `vectors.norms` has not been asked for yet. Memory: O(q k), a few MB.
    """
    asked = _Asked.of(vectors, queries, metric, k, threshold)
    looked = _looked_at(vectors, allowed)
    candidates = len(vectors) - len(vectors.apart) if looked is None else len(looked)
    count = len(asked.exact)
    threads = threads or _cores()
    way: _Pass
    if codes is not None and count <= _FEW:
        assert len(codes) == len(vectors)
        way = _Coded(vectors, asked, threads, codes)
    else:
        way = _Floats(vectors, asked, threads)
    if candidates == 0 or count == 0:
        empty = [np.empty(0, np.int64)] * count, [np.empty(0)] * count
        return Nearest(*empty, candidates, len(vectors.apart), 0, way.backend)
    pairs = _scanned(vectors, asked, way, looked, threads)
    rows, scores = _best(vectors, asked, pairs)
    return Nearest(rows, scores, candidates, len(vectors.apart), len(pairs.rows), way.backend)


def ordered(
    vectors: Vectors, queries: npt.ArrayLike, metric: Metric, k: int, candidates: Rows
) -> tuple[list[Rows], list[Doubles]]:
    """The k best of some rows for each query, and their scores.

    Args:
        candidates: (q, c) rows, none of them apart; -1 is none.

    Raises:
        InputError: as `nearest`.
    """
    exact = _checked(vectors, queries, k, None)
    which, places = np.nonzero(candidates >= 0)
    rows = candidates[which, places]
    best, scores = _ranked(vectors, exact, which, rows, metric, k)
    return _by_query(len(exact), which[best], rows[best], scores)


def _checked(vectors: Vectors, queries: npt.ArrayLike, k: int, threshold: float | None) -> Doubles:
    """(q, d) the queries.

    Raises:
        InputError: as `nearest`.
    """
    if k < 1:
        raise InputError("search.top_k", f"top_k is {k}", hint="ask for at least 1 row")
    if threshold is not None and math.isnan(threshold):
        raise InputError("search.threshold", "the score threshold is not a number")
    given = np.atleast_2d(queries)
    if given.dtype != np.float32:
        with np.errstate(over="ignore"):
            given = given.astype(np.float32)
    exact = given.astype(np.float64)
    if not np.isfinite(exact).all():
        at = int(np.flatnonzero(~np.isfinite(exact).all(axis=1))[0])
        which = "the query vector" if len(exact) == 1 else f"query vector {at}"
        raise InputError("search.query", f"{which} holds a number that is not finite as float32")
    if vectors.dimension and exact.shape[1] != vectors.dimension:
        raise InputError(
            "search.dimension",
            f"the query vector holds {exact.shape[1]} numbers, the vectors of the column {vectors.dimension}",
        )
    return exact


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked.

    Attributes:
        exact: (q, d) the queries.
        exponents: (q,) of the powers of two that scale them to norms of at most 1, and keys with them.
        scaled: (q, d) the queries, scaled.
        lengths: (q,) these norms.
        halves: (q,) l2: `vectors.halves` times this are keys; 0 for other metrics.
        rounding: what float32 arithmetic is wrong by at most, in parts of the product of two norms.
    """

    metric: Metric
    k: int
    threshold: float | None
    exact: Doubles
    exponents: npt.NDArray[np.int64]
    scaled: Floats
    lengths: Doubles
    halves: Doubles
    rounding: float

    @staticmethod
    def of(vectors: Vectors, queries: npt.ArrayLike, metric: Metric, k: int, threshold: float | None) -> _Asked:
        exact = _checked(vectors, queries, k, threshold)
        norms = np.sqrt((exact * exact).sum(axis=1))
        longest = vectors.longest if metric is Metric.L2 else 0.0
        # l2: so that |x|^2 / 2 is at most |x| / 2 as well.
        exponents = np.frexp(np.maximum(norms, longest))[1].astype(np.int64)
        return _Asked(
            metric,
            min(k, max(1, len(vectors))),
            threshold,
            exact,
            exponents,
            np.ldexp(exact, -exponents[:, None]).astype(np.float32),
            np.ldexp(norms, -exponents),
            np.ldexp(longest * longest, -exponents),
            # Twice the bound of the product: room for the norm's and for the few roundings that follow.
            2 * (exact.shape[1] + 16) * 2.0**-24,
        )

    def floors(self, scores: Doubles) -> Doubles:
        """(q,) the keys of these scores, or a little less."""
        limits = np.clip(scores, -1e100, 1e100)  # no score of float32 numbers is beyond
        norms = np.ldexp(self.lengths, self.exponents)
        if self.metric is Metric.COSINE:
            known, rest = norms, -limits * norms
        elif self.metric is Metric.DOT:
            known, rest = np.zeros(len(norms)), limits
        else:
            known, rest = norms * norms / 2, -(np.maximum(limits, 0.0) ** 2) / 2
        return np.ldexp(known + rest - 1e-12 * (np.abs(known) + np.abs(rest)), -self.exponents)


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


_NOBODY = _Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))


class _Race:
    """Who can still be among the k best of each query, after the rows that one thread has seen."""

    def __init__(self, vectors: Vectors, asked: _Asked) -> None:
        self._vectors, self._asked = vectors, asked
        count = len(asked.exact)
        self._least = np.full(count, -np.inf)
        self._is_open = asked.threshold is None
        if asked.threshold is not None:
            self._least = asked.floors(np.full(count, asked.threshold))
        self._parts: list[_Pairs] = []
        self._waiting, self._limit = 0, _WAITING

    def offer(self, keys: Floats, errors: Doubles, rows: int | Rows, meant: Mask | None) -> None:
        """Take (q, m) keys.

        Args:
            errors: (q,) what these keys are wrong by at most.
            rows: (m,) or the first of m that follow each other.
            meant: (m,) which rows count; None: all.
        """
        k = self._asked.k
        if self._is_open:  # nothing is known yet: a floor from a few rows alone
            first = keys[:, : max(_FIRST_ROWS, 4 * k)]
            if meant is not None:
                first = first[:, meant[: first.shape[1]]]
            if first.shape[1] > k:
                np.maximum(self._least, np.partition(first, -k, axis=1)[:, -k] - errors, out=self._least)
                self._is_open = False
        # Rounding to float32 may go up, so one number further down.
        reach = np.minimum(np.maximum(self._least - errors, _LEAST), -_LEAST).astype(np.float32)
        reach = np.nextafter(reach, _LEAST)
        if len(keys) == 1:
            places = np.flatnonzero(keys[0] >= reach[0])
            queries = np.zeros(len(places), np.int64)
            found = keys[0, places].astype(np.float64)
        else:
            flat = np.flatnonzero(keys >= reach[:, None])
            queries, places = np.divmod(flat, keys.shape[1])
            found = keys.reshape(-1)[flat].astype(np.float64)
        if meant is not None:
            kept = meant[places]
            queries, places, found = queries[kept], places[kept], found[kept]
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

    def seen(self) -> _Pairs | None:
        """The pairs that can still win, and a few that cannot; None before the first."""
        return _Pairs.together(self._parts) if self._parts else None

    def left(self) -> _Pairs | None:
        """The pairs that can still win; None before the first."""
        if not self._parts:
            return None
        pairs = self._thinned(_Pairs.together(self._parts))
        if len(pairs.rows) > _SETTLED_AT:
            pairs = _winners(self._vectors, self._asked, pairs)[0]
        self._parts, self._waiting = [pairs], len(pairs.rows)
        self._limit = 2 * self._waiting + max(_WAITING, 64 * len(self._asked.exact))
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


def _scanned(vectors: Vectors, asked: _Asked, way: _Pass, looked: Rows | None, threads: int) -> _Pairs:
    """The pairs that float64 has to decide."""
    products = list(_products(vectors, way, looked))
    workers = 1 if way.has_threads else min(threads, len(products))
    odd = _odd_rows(vectors, looked)

    def work(number: int) -> _Pairs | None:
        race = _Race(vectors, asked)
        if number == 0 and len(odd):
            race.offer_unknown(odd)
        for product in products[len(products) * number // workers : len(products) * (number + 1) // workers]:
            product(race)
        return race.seen()

    others = [_pool().submit(work, number) for number in range(1, workers)]
    found = [work(0), *(other.result() for other in others)]
    race = _Race(vectors, asked)
    for pairs in found:
        if pairs is not None:
            race.add(pairs)
    return race.left() or _NOBODY


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _cores()), thread_name_prefix="velaria-search")


def _odd_rows(vectors: Vectors, looked: Rows | None) -> Rows:
    """The rows to compare whose keys would mean nothing."""
    odd = vectors.odd[~np.isnan(vectors.norms[vectors.odd])]
    return odd if looked is None or len(odd) == 0 else np.intersect1d(odd, looked, assume_unique=True)


def _products(vectors: Vectors, way: _Pass, looked: Rows | None) -> Iterator[Callable[[_Race], None]]:
    """The work, in pieces that fit the cache: each offers the keys of some rows."""
    meant = None
    if looked is not None or len(vectors.odd):
        meant = np.full(len(vectors), looked is None)
        if looked is not None:
            meant[looked] = True
        meant[vectors.odd] = False
    for first, data in way.chunks:
        end = first + len(data)
        here = None
        if looked is not None:
            here = looked[np.searchsorted(looked, first) : np.searchsorted(looked, end)]
        if here is not None and 3 * len(here) < len(data):  # few: gathered
            for start in range(0, len(here), way.step):
                rows = here[start : start + way.step]
                yield partial(_offer_some, way, data, rows, rows - first, meant if len(vectors.odd) else None)
            continue
        for start in range(first, end, way.step):
            part = slice(start, min(start + way.step, end))
            yield partial(_offer_all, way, data[part.start - first : part.stop - first], part, meant)


def _offer_some(way: _Pass, data: Array, rows: Rows, places: Rows, meant: Mask | None, race: _Race) -> None:
    keys, errors = way.keys(np.take(data, places, axis=0, mode="clip"), rows)
    race.offer(keys, errors, rows, None if meant is None else meant[rows])


def _offer_all(way: _Pass, data: Array, part: slice, meant: Mask | None, race: _Race) -> None:
    keys, errors = way.keys(data, part)
    race.offer(keys, errors, part.start, None if meant is None else meant[part])


class _Pass(Protocol):
    """A way to keys.

    Attributes:
        backend: its name.
        chunks: first row and data of each part of what is read.
        step: rows at a time.
        has_threads: it keeps all cores busy by itself.
    """

    backend: str
    chunks: Sequence[tuple[int, Array]]
    step: int
    has_threads: bool

    def keys(self, data: Array, rows: Rows | slice) -> tuple[Floats, Doubles]:
        """(q, m) keys of the m rows with these data, and (q,) what they are wrong by at most. Odd rows get any."""


def _step(count: int, queries: int, threads: int) -> int:
    """Rows at a time, so that all threads have as many pieces; few rows are not worth a second thread."""
    threads = max(1, min(threads, count // _ROWS_OF_THREAD))
    rows = min(_ROWS, max(_ROWS_OF_THREAD, _KEYS // max(1, queries)))
    pieces = threads * max(1, -(-count // (threads * rows)))
    return max(1, -(-count // pieces))


class _Floats:
    """Keys from the numbers, by BLAS.

    Few queries are done by a product for each row: it reads rows in their order, which memory is fastest at, and
    OpenBLAS does it on the thread that asks. Its own threads wait for each other by spinning, which costs hundreds of
    times more on a busy machine.
    """

    backend = "float32-blas"

    def __init__(self, vectors: Vectors, asked: _Asked, threads: int) -> None:
        self._vectors, self._asked = vectors, asked
        self.chunks: Sequence[tuple[int, Array]] = [(chunk.first, chunk.data) for chunk in vectors.chunks]
        self.has_threads = len(asked.exact) > _FEW
        self.step = _step(len(vectors), len(asked.exact), threads)
        if self.has_threads:
            self.step = max(256, _KEYS_OF_MANY // len(asked.exact))
        self._block = max(1, _BLOCK // max(1, vectors.dimension)) if len(asked.exact) > 1 else self.step
        # Where norms are 1 but for rounding, as those of most embeddings are, they are part of the error instead.
        self._even = asked.metric is Metric.COSINE and vectors.unevenness < _UNEVENNESS
        longest = 1.0 if asked.metric is Metric.COSINE else vectors.longest
        self._errors = asked.rounding * (longest * asked.lengths + asked.halves)
        if self._even:
            self._errors += 2 * vectors.unevenness * asked.lengths
        self._keys = np.empty(self.step * len(asked.exact) if self.has_threads else 0, np.float32)

    def keys(self, data: Array, rows: Rows | slice) -> tuple[Floats, Doubles]:
        asked = self._asked
        with np.errstate(over="ignore", invalid="ignore"):
            if self.has_threads:  # one array for all: a new one is paid for page by page
                keys = self._keys[: len(data) * len(asked.exact)].reshape(len(asked.exact), len(data))
                np.matmul(asked.scaled, data.T, out=keys)
            else:
                keys = np.empty((len(asked.scaled), len(data)), np.float32)
                for start in range(0, len(data), self._block):
                    part = slice(start, start + self._block)
                    for query, found in zip(asked.scaled, keys, strict=True):
                        np.vecdot(data[part], query, out=found[part])
            if asked.metric is Metric.COSINE and not self._even:
                keys *= self._vectors.inverses[rows]
            elif asked.metric is Metric.L2:
                keys -= asked.halves.astype(np.float32)[:, None] * self._vectors.halves[rows]
        return keys, self._errors


class _Coded:
    """Keys from codes, by NumKong: wrong by what the codes of rows and of queries have lost."""

    backend = "int8-numkong"
    has_threads = False

    def __init__(self, vectors: Vectors, asked: _Asked, threads: int, codes: Codes) -> None:
        self._vectors, self._asked = vectors, asked
        self._codes = codes
        self.chunks: Sequence[tuple[int, Array]] = [(0, codes.data)]
        self.step = codes.whole_pieces(_step(len(vectors), len(asked.exact), threads))
        self._factors, self._errors = codes.relative(vectors) if asked.metric is Metric.COSINE else codes.absolute
        self._queries, scales, lost = encoded(asked.scaled, asked.lengths)
        self._scales, self._lost = scales[:, None], lost.astype(np.float64)

    def keys(self, data: Array, rows: Rows | slice) -> tuple[Floats, Doubles]:
        vectors, asked = self._vectors, self._asked
        if isinstance(rows, slice):
            keys, most = self._codes.products(self._queries, rows), self._errors.most(rows)
        else:
            keys, most = products(data, self._queries), float(self._errors.of_rows[rows].max())
        keys *= self._factors[rows]
        keys *= self._scales
        longest = 1.0 if asked.metric is Metric.COSINE else vectors.longest
        if asked.metric is Metric.L2:
            keys -= asked.halves.astype(np.float32)[:, None] * vectors.halves[rows]
        rounding = asked.rounding * (longest * asked.lengths + asked.halves)
        return keys, rounding + most * asked.lengths + (longest + most) * self._lost


# --- float64 decides -----------------------------------------------------------------------------------------------


def _scored(vectors: Vectors, exact: Doubles, queries: Rows, rows: Rows, metric: Metric) -> Doubles:
    """(p,) float64 scores of p pairs of a query, by its place in (q, d), and a row.

    The score of a pair does not depend on what stands beside it.
    """
    scores = np.empty(len(rows))
    lengths = np.sqrt((exact * exact).sum(axis=1)) if metric is Metric.COSINE else None
    step = max(1, _AT_ONCE // max(1, vectors.dimension))
    for start in range(0, len(scores), step):
        part = slice(start, start + step)
        which = queries[part]
        one, other = vectors.take(rows[part]).astype(np.float64), exact if len(exact) == 1 else exact[which]
        if metric is Metric.L2:
            one -= other
            scores[part] = np.sqrt((one * one).sum(axis=1))
            continue
        products = (one * other).sum(axis=1)
        if lengths is not None:
            norms = np.sqrt((one * one).sum(axis=1)) * (lengths if len(exact) == 1 else lengths[which])
            cosines = np.divide(products, norms, out=np.zeros(len(norms)), where=norms > 0)
            products = np.minimum(np.maximum(1 - cosines, 0.0), 2.0)
        scores[part] = products
    return scores


def _winners(vectors: Vectors, asked: _Asked, pairs: _Pairs) -> tuple[_Pairs, Doubles]:
    """The k best pairs of each query and their scores, sorted by query, score and row."""
    if len(pairs.rows) > 4 * asked.k * len(asked.exact):
        pairs = _near(vectors, asked, pairs)
    best, scores = _ranked(vectors, asked.exact, pairs.queries, pairs.rows, asked.metric, asked.k)
    pairs = pairs.at(best)
    if asked.threshold is not None:
        keep = scores <= asked.threshold if asked.metric.is_distance else scores >= asked.threshold
        pairs, scores = pairs.at(keep), scores[keep]
    return pairs, scores


def _near(vectors: Vectors, asked: _Asked, pairs: _Pairs) -> _Pairs:
    """Without the pairs that cannot be as good as the k-th best of those that look best.

    Before, a pair was in if its most reached the k-th best least: twice its error. Now once is all it can lack.
    """
    count = len(asked.exact)
    some = pairs.at(_first_of_each(count, asked.k, pairs.queries, (-pairs.low,)))
    _, scores = _ranked(vectors, asked.exact, some.queries, some.rows, asked.metric, asked.k)
    ends = np.cumsum(np.bincount(some.queries, minlength=count))
    kth = np.where(asked.metric.is_distance, np.inf, -np.inf) * np.ones(len(ends))
    full = np.diff(ends, prepend=0) == asked.k
    kth[full] = scores[ends[full] - 1]
    return pairs.at(pairs.high >= asked.floors(kth)[pairs.queries])


def _ranked(
    vectors: Vectors, exact: Doubles, queries: Rows, rows: Rows, metric: Metric, k: int
) -> tuple[Rows, Doubles]:
    """The places of the k best pairs of each query by score, then row, sorted by query; and their scores."""
    scores = _scored(vectors, exact, queries, rows, metric)
    best = _first_of_each(len(exact), k, queries, (rows, scores if metric.is_distance else -scores))
    return best, scores[best]


def _first_of_each(count: int, k: int, queries: Rows, keys: tuple[npt.NDArray[Any], ...]) -> Rows:
    """The places of the first k of each query in the order of the last key, then those before it; sorted by query."""
    if count == 1:
        return np.lexsort(keys)[:k]
    order = np.lexsort((*keys, queries))
    sorted_queries = queries[order]
    counts = np.bincount(sorted_queries, minlength=count)
    rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[sorted_queries]
    return order[rank < k]


def _best(vectors: Vectors, asked: _Asked, pairs: _Pairs) -> tuple[list[Rows], list[Doubles]]:
    pairs, scores = _winners(vectors, asked, pairs)
    return _by_query(len(asked.exact), pairs.queries, pairs.rows, scores)


def _by_query(count: int, queries: Rows, rows: Rows, scores: Doubles) -> tuple[list[Rows], list[Doubles]]:
    """The rows and scores of each query, of those that are sorted by it."""
    if count == 1:
        return [rows], [scores]
    ends = [0, *np.searchsorted(queries, np.arange(count), side="right").tolist()]
    parts = [slice(start, end) for start, end in pairwise(ends)]
    return [rows[part] for part in parts], [scores[part] for part in parts]
