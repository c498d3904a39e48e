"""What tests of vector search share: vectors by seed, and the answer that exact search has to give."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from velaria_core.execution.search.nearest import Metric


def reference(
    rows: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
    metric: Metric,
    k: int,
    *,
    usable: npt.NDArray[np.bool_] | None = None,
    threshold: float | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The k best rows and their scores by float64, every row scored by itself."""
    x, q = rows.astype(np.float64), query.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        if metric is Metric.DOT:
            scores = (x * q).sum(axis=1)
        elif metric is Metric.L2:
            scores = np.sqrt(((x - q) ** 2).sum(axis=1))
        else:
            norms = np.sqrt((x * x).sum(axis=1)) * np.sqrt((q * q).sum())
            cosines = np.divide((x * q).sum(axis=1), norms, out=np.zeros(len(x)), where=norms > 0)
            scores = np.clip(1 - cosines, 0, 2)
    keep = np.isfinite(x).all(axis=1) if usable is None else usable & np.isfinite(x).all(axis=1)
    if threshold is not None:
        with np.errstate(invalid="ignore"):
            keep &= scores <= threshold if metric.is_distance else scores >= threshold
    places = np.flatnonzero(keep)
    order = places[np.lexsort((places, scores[places] if metric.is_distance else -scores[places]))][:k]
    return order, scores[order]


def clustered(n: int, d: int, seed: int) -> npt.NDArray[np.float32]:
    """(n, d) vectors around 64 centres, of norms near 1."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((64, d))
    made = centres[random.integers(0, 64, n)] + 0.7 * random.standard_normal((n, d))
    return (made / np.sqrt((made * made).sum(axis=1, keepdims=True))).astype(np.float32)
