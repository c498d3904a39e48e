"""Approximate: an index by FAISS over vectors that do not change, used only where it finds what exact search finds.

It gives candidates, at least as many as are asked for, and float64 puts them in order, so scores are exact and only a
row that never was a candidate can be missing. How often that is, is measured when it is built: stored vectors are asked
for their nearest others, and the effort is raised until the answers hold `target` of the exact ones. Where the last
effort does not reach it the index is kept, told, and not used.

`ivf` groups vectors around centres (Jegou et al., Product Quantization, PAMI 2011), of which few rows are near, so four
times as many candidates are scored as are asked for; `hnsw` links each with near ones (Malkov and Yashunin, 2016), and
what it finds is in its order but for the last. Both keep 8 bits a number. They cannot be filtered without losing
recall, so a search with other rows left out is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from velaria_core.errors import InputError, did_you_mean
from velaria_core.execution.outside import outside
from velaria_core.execution.search.codes import Codes
from velaria_core.execution.search.nearest import Metric, nearest, ordered
from velaria_core.execution.search.vectors import Doubles, Floats, Vectors
from velaria_core.execution.vectors import Rows

K_MAX: Final = 20  # rows that are asked for
_MEASURED: Final = 12  # the nearest of these are what recall is of; those beyond are asked for to see ties
_CANDIDATES: Final = {"ivf": 4, "hnsw": 2}  # for each row that is asked for; some may be apart since
_SCORED: Final = {"ivf": 4.0, "hnsw": 1.1}  # of which so many have to be scored
_SAMPLE: Final = 200
_TRAINED: Final = 64  # vectors for each centre
_LINKS: Final = 32  # of a vector in a graph
_UNEVEN: Final = 2.0  # times the width of half of the columns
_AT_ONCE: Final = 1 << 22  # numbers that are added together
_EFFORTS: Final = {"ivf": (8, 1024), "hnsw": (24, 1280)}
_GROWTH: Final = 1.25


@dataclass(frozen=True)
class Approximate:
    """An index over n vectors for one metric.

    Attributes:
        kind: "ivf" or "hnsw".
        target: the recall that it is used for.
        recall: the part of the nearest that it found, of a sample.
        effort: groups that are read, or the breadth of the walk.
        source: FAISS's index, or the file that it is read from when it is first used.
    """

    kind: str
    metric: Metric
    target: float
    recall: float
    effort: int
    source: Any

    @cached_property
    def _index(self) -> Any:
        if not isinstance(self.source, Path):
            return self.source
        with outside(f"reading {self.source}"):
            content = self.source.read_bytes()
        return _faiss().deserialize_index(np.frombuffer(content, np.uint8))

    @property
    def is_used(self) -> bool:
        return self.recall >= self.target

    @property
    def backend(self) -> str:
        return f"faiss-{self.kind}"

    @staticmethod
    def built(vectors: Vectors, codes: Codes, kind: str, metric: Metric, target: float) -> Approximate:
        """An index over vectors of which none is apart. By a sample of fixed seed.

        Raises:
            InputError[vector_index.kind, vector_index.recall, vector_index.extra].

        Cost: a million of 128 numbers take 20 s for ivf, minutes for hnsw.
        """
        if kind not in _EFFORTS:
            hint = did_you_mean(kind, _EFFORTS, "approximate indexes")
            raise InputError("vector_index.kind", f'no approximate index "{kind}"', hint=hint)
        if not 0 < target <= 1:
            raise InputError("vector_index.recall", f"a recall of {target} is asked for", hint="up to 1, 0.99 for one")
        faiss = _faiss()
        count, d = len(vectors), vectors.dimension
        groups = max(1, min(int(4 * count**0.5), count // _TRAINED))
        some = np.random.default_rng(1).choice(count, min(count, max(_TRAINED * groups, 10_000)), replace=False)
        trained = _prepared(vectors.take(np.sort(some)), metric)
        by = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
        if kind == "ivf":
            made = faiss.index_factory(d, f"IVF{groups},SQ8", by)
        else:
            sizes = faiss.ScalarQuantizer
            graph = faiss.IndexHNSWSQ(d, sizes.QT_8bit_uniform if _is_even(trained) else sizes.QT_8bit, _LINKS, by)
            made = faiss.IndexIDMap(graph)
        made.train(trained)
        sample = _left_out(count)
        rest = np.delete(np.arange(count), sample)
        _add(made, vectors, rest, metric)
        index = Approximate(kind, metric, target, 1.0, _EFFORTS[kind][1], made)
        if len(sample):
            index = index._measured(vectors, codes, sample, rest)
        _add(made, vectors, sample, metric)
        if kind == "hnsw":
            _put_together(made, graph)
        return index

    def _measured(self, vectors: Vectors, codes: Codes, sample: Rows, rest: Rows) -> Approximate:
        """With the least effort that reaches the target, or the most there is, and the recall of the sample's nearest
        among the rest, which alone is there yet: what was in a graph from the start is found more easily."""
        queries = vectors.take(sample)
        exact: list[Rows] = []
        for start in range(0, len(sample), 8):  # so few at a time are searched by codes
            some = queries[start : start + 8]
            exact += nearest(vectors, some, self.metric, _MEASURED, allowed=rest, codes=codes).rows
        there = sum(map(len, exact))
        effort, most = _EFFORTS[self.kind]
        while True:
            index = replace(self, effort=effort)
            answers, _ = index.search(vectors, queries, K_MAX)
            found = sum(len(np.intersect1d(one[:_MEASURED], other)) for one, other in zip(answers, exact, strict=True))
            recall = found / there if there else 1.0
            if recall >= self.target or effort >= most:
                return replace(index, recall=recall)
            effort = min(most, math.ceil(effort * _GROWTH))

    def search(self, vectors: Vectors, queries: npt.ArrayLike, k: int) -> tuple[list[Rows], list[Doubles]]:
        """The k best of the candidates for each query, their rows and scores; fewer where too many are apart.

        Args:
            vectors: those that it was built over; some may be apart since.

        Raises:
            InputError[vector_index.extra]; as `nearest`.
            ExternalError: its file cannot be read.
        """
        asked = np.ascontiguousarray(np.atleast_2d(queries), np.float32)
        count = min(_CANDIDATES[self.kind] * k, len(vectors))
        effort = self.effort if self.kind == "ivf" else max(self.effort, count)
        rows: Rows
        _, rows = self._index.search(asked, count, params=_parameters(self.kind, effort))
        scored = math.ceil(_SCORED[self.kind] * k)
        if len(vectors.apart):
            there = (rows >= 0) & ~np.isnan(vectors.norms[rows])
            rows[~there | (np.cumsum(there, axis=1) > scored)] = -1
        else:
            rows = rows[:, :scored]
        return ordered(vectors, asked, self.metric, k, rows)

    def content(self) -> bytes:
        """FAISS's index as bytes."""
        found: bytes = _faiss().serialize_index(self._index).tobytes()
        return found


@lru_cache(maxsize=64)
def _parameters(kind: str, effort: int) -> Any:
    """How FAISS is told of an effort: groups that are read, or the breadth of the walk."""
    if kind == "ivf":
        return _faiss().SearchParametersIVF(nprobe=effort)
    return _faiss().SearchParametersHNSW(efSearch=effort)


def _prepared(rows: Floats, metric: Metric) -> Floats:
    """For FAISS, which has no cosine: the dot product at norm 1."""
    if metric is Metric.COSINE:
        norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        rows = (rows / np.where(norms > 0, norms, 1)).astype(np.float32)
    return np.ascontiguousarray(rows)


def _is_even(rows: Floats) -> bool:
    """Whether columns are about as wide as each other, as in most embeddings. Then 8 bits of one scale for all are as
    good as of one for each, and are read a fifth faster."""
    widths = rows.max(axis=0) - rows.min(axis=0)
    return float(widths.max()) <= _UNEVEN * float(np.median(widths))


def _add(index: Any, vectors: Vectors, rows: Rows, metric: Metric) -> None:
    step = max(1, _AT_ONCE // vectors.dimension)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        index.add_with_ids(_prepared(vectors.take(some), metric), some)


def _put_together(index: Any, graph: Any) -> None:
    """Store the vectors of a graph in the order in which a walk from its entrance meets them, a tenth of its time."""
    faiss = _faiss()
    links, offsets = faiss.vector_to_array(graph.hnsw.neighbors), faiss.vector_to_array(graph.hnsw.offsets)
    near = 2 * _LINKS  # of the lowest level, first of all that a vector has
    unseen = np.ones(graph.ntotal, np.bool_)
    parts: list[Rows] = []
    found = np.array([graph.hnsw.entry_point])
    while len(found):
        unseen[found] = False
        parts.append(found)
        linked = links[(offsets[found][:, None] + np.arange(near)).astype(np.int64)].reshape(-1)
        linked = linked[linked >= 0]
        linked = linked[unseen[linked]]
        found = linked[np.sort(np.unique(linked, return_index=True)[1])]
    order = np.concatenate([*parts, np.flatnonzero(unseen)]).astype(np.int64)  # at last those that it does not meet
    graph.permute_entries(order)
    faiss.copy_array_to_vector(faiss.vector_to_array(index.id_map)[order], index.id_map)


def _left_out(count: int) -> Rows:
    """Of so many rows those that are added last, in order."""
    return np.sort(np.random.default_rng(0).choice(count, min(count // 5, _SAMPLE), replace=False))


def is_installed() -> bool:
    """Whether approximate indexes can be built and read."""
    return find_spec("faiss") is not None


def check_installed() -> None:
    """Refuse what cannot be built.

    Raises:
        InputError[vector_index.extra].
    """
    _faiss()


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "vector_index.extra",
            "an approximate vector index needs faiss",
            hint="pip install 'velaria[faiss]'; exact search needs nothing",
            cause=error,
        ) from error
    return faiss
