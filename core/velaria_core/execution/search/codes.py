"""Codes: vectors in a quarter of their bytes, and how wrong each is.

A row x of d numbers is kept as a scale s and d whole numbers c of -127 to 127, x = s c + r, and the norm of what is
lost, |r|. With a query q = t g + p in the same form, both errors are certain (Cauchy-Schwarz):

    |<x, q> - s t <c, g>| <= |r||q| + |s c||p|    and    |s c| <= |x| + |r|

so a product of whole numbers, exact and with a quarter of the reading, tells all rows that cannot be among the best.
It takes a compiled loop: NumKong's, by the processor's own instructions; NumPy has none for int8.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from velaria_core.execution.search.vectors import Doubles, Floats, Vectors

Bytes: TypeAlias = npt.NDArray[np.int8]

_MOST: Final = 127
DIMENSION_MAX: Final = 2**31 // _MOST**2  # a product of more numbers may leave int32
_AT_ONCE: Final = 1 << 18


class Codes:
    """The codes of n vectors.

    Args:
        data: (n, d) whole numbers; 0 in odd rows (`Vectors.odd`).
        scales: (n,) what they count.
        errors: (n,) the norm of what is lost, or more.
    """

    def __init__(self, data: Bytes, scales: Floats, errors: Floats) -> None:
        self.data, self.scales, self.errors = data, scales, errors
        self._relative: tuple[Floats, Floats] | None = None

    def __len__(self) -> int:
        return len(self.data)

    @staticmethod
    def of(vectors: Vectors) -> Codes:
        """The codes of vectors of at most DIMENSION_MAX numbers. About a second for a million of 128."""
        count, d = len(vectors), vectors.dimension
        assert d <= DIMENSION_MAX, d
        codes = Codes(np.empty((count, d), np.int8), np.empty(count, np.float32), np.empty(count, np.float32))
        step = max(1, _AT_ONCE // max(1, d))
        for chunk in vectors.chunks:
            for start in range(0, len(chunk.data), step):
                part = chunk.data[start : start + step]
                rows = slice(chunk.first + start, chunk.first + start + len(part))
                with np.errstate(invalid="ignore", over="ignore"):
                    codes.data[rows], codes.scales[rows], codes.errors[rows] = encoded(part, vectors.norms[rows])
        for values in (codes.data, codes.scales, codes.errors):
            values[vectors.odd] = 0
        return codes

    def relative(self, vectors: Vectors) -> tuple[Floats, Floats]:
        """(n,) scales and errors of the same rows at a norm of 1; 0 for zero vectors."""
        if self._relative is None:
            inverses = vectors.inverses
            self._relative = self.scales * inverses, self.errors * inverses * np.float32(1 + 2**-20)
        return self._relative


def encoded(rows: Floats, norms: Doubles) -> tuple[Bytes, Floats, Floats]:
    """The codes, scales and errors of (m, d) rows."""
    most = np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0))
    scales = most * np.float32(1 / _MOST)
    turned = rows * np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)[:, None]
    np.rint(turned, out=turned)
    codes = turned.astype(np.int8)
    turned *= scales[:, None]
    np.subtract(rows, turned, out=turned)
    lost = np.sqrt(np.einsum("ij,ij->i", turned, turned).astype(np.float64))
    # The roundings: of s c, which the whole row stands behind, and of the sum of squares.
    errors = lost * (1 + (rows.shape[1] + 16) * 2.0**-24) + norms * 2.0**-22
    return codes, scales, errors.astype(np.float32) * np.float32(1 + 2**-22)


def products(codes: Bytes, queries: Bytes) -> Floats:
    """(q, m) products of (m, d) codes and (q, d) codes: exact sums, rounded once to float32."""
    import numkong  # loads in 50 ms

    made = np.empty((len(queries), len(codes)), np.float32)
    numkong.cdist(queries, codes, "dot", out=made)
    return made
