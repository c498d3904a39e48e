"""Approximate: an index by FAISS over vectors that do not change, used only where it finds what exact search finds.

It gives a few times as many candidates as are asked for, and float64 puts them in order, so scores are exact and only
a row that never was a candidate can be missing. How often that is, is measured when it is built: stored vectors are
asked for their nearest others, and the effort is doubled until the answers hold `target` of the exact ones. Where the
last effort does not reach it the index is kept, told, and not used.

`ivf` groups vectors around centres (Jegou et al., Product Quantization, PAMI 2011), `hnsw` links each with near ones
(Malkov and Yashunin, 2016); both keep 8 bits a number. They cannot be filtered without losing recall, so a search
with other rows left out is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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

K_MAX: Final = 20  # rows that recall is measured for
_CANDIDATES: Final = 4  # for each row that is asked for
_SAMPLE: Final = 200
_TRAINED: Final = 64  # vectors for each centre
_AT_ONCE: Final = 1 << 22  # numbers that are added together
_EFFORTS: Final = {"ivf": (8, 1024), "hnsw": (40, 1280)}


@dataclass(frozen=True)
class Approximate:
    """An index over n vectors for one metric.

    Attributes:
        kind: "ivf" or "hnsw".
        target: the recall that it is used for.
        recall: the part of the K_MAX nearest that it found, of a sample.
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
        random = np.random.default_rng(0)
        groups = max(1, min(int(4 * count**0.5), count // _TRAINED))
        made = faiss.index_factory(
            d,
            f"IVF{groups},SQ8" if kind == "ivf" else "HNSW32_SQ8",
            faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT,
        )
        some = np.sort(random.choice(count, min(count, max(_TRAINED * groups, 10_000)), replace=False))
        made.train(_prepared(vectors.take(some), metric))
        step = max(1, _AT_ONCE // d)
        for start in range(0, count, step):
            rows = np.arange(start, min(start + step, count))
            made.add(_prepared(vectors.take(rows), metric))
        sample = np.sort(random.choice(count, min(count, _SAMPLE), replace=False))
        queries = vectors.take(sample)
        exact: list[Rows] = []
        for start in range(0, len(sample), 8):  # so few at a time are searched by codes
            exact += nearest(vectors, queries[start : start + 8], metric, K_MAX + 1, codes=codes).rows
        wanted = [_others(rows, int(own)) for rows, own in zip(exact, sample, strict=True)]
        effort, most = _EFFORTS[kind]
        while True:
            index = Approximate(kind, metric, target, 0.0, effort, made)
            answers, _ = index.search(vectors, queries, K_MAX + 1)
            given = [_others(one, int(own)) for one, own in zip(answers, sample, strict=True)]
            found = sum(len(np.intersect1d(one, other)) for one, other in zip(given, wanted, strict=True))
            there = sum(map(len, wanted))
            recall = found / there if there else 1.0
            if recall >= target or effort >= most:
                return Approximate(kind, metric, target, recall, effort, made)
            effort *= 2

    def search(self, vectors: Vectors, queries: npt.ArrayLike, k: int) -> tuple[list[Rows], list[Doubles]]:
        """The k best of the candidates for each query, their rows and scores; fewer where too many are apart.

        Args:
            vectors: those that it was built over; some may be apart since.

        Raises:
            InputError[vector_index.extra]; as `nearest`.
            ExternalError: its file cannot be read.
        """
        faiss = _faiss()
        asked = np.atleast_2d(np.asarray(queries, np.float32))
        count = min(_CANDIDATES * k, len(vectors))
        if self.kind == "ivf":
            parameters = faiss.SearchParametersIVF(nprobe=self.effort)
        else:
            parameters = faiss.SearchParametersHNSW(efSearch=max(self.effort, count))
        _, rows = self._index.search(_prepared(asked, self.metric), count, params=parameters)
        return ordered(vectors, asked, self.metric, k, rows)

    def content(self) -> bytes:
        """FAISS's index as bytes."""
        found: bytes = _faiss().serialize_index(self._index).tobytes()
        return found


def _prepared(rows: Floats, metric: Metric) -> Floats:
    """For FAISS, which has no cosine: the dot product at norm 1."""
    if metric is Metric.COSINE:
        norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        rows = (rows / np.where(norms > 0, norms, 1)).astype(np.float32)
    return np.ascontiguousarray(rows)


def _others(rows: Rows, own: int) -> Rows:
    """The first K_MAX rows but the one that was asked with."""
    others: Rows = rows[rows != own][:K_MAX]
    return others


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
