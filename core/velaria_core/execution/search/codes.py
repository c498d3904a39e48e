"""Codes: vectors in a quarter of their bytes, and how wrong each is.

A row x of d numbers is kept as a scale s and d whole numbers c of -127 to 127, x = s c + r, and the norm of what is
lost, |r|. With a query q = t g + p in the same form, both errors are certain (Cauchy-Schwarz):

    |<x, q> - s t <c, g>| <= |r||q| + |s c||p|    and    |s c| <= |x| + |r|

so a product of whole numbers, exact and with a quarter of the reading, tells all rows that cannot be among the best.
It takes a compiled loop: NumKong's, by the processor's own instructions; NumPy has none for int8.

That loop spends 15 to 20 ns a row beside the numbers, which for short vectors is most of it. NumKong does many rows at
once where one side is in an order of its own. With AVX-512 that is the queries. Without, the queries bring nothing, so
short vectors are kept in that order too, in pieces, once they have been searched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from velaria_core.execution.search.vectors import Doubles, Floats, Vectors

Bytes: TypeAlias = npt.NDArray[np.int8]

_MOST: Final = 127
DIMENSION_MAX: Final = 2**31 // _MOST**2  # a product of more numbers may leave int32
_AT_ONCE: Final = 1 << 18
_TINY: Final = np.finfo(np.float32).tiny
_PIECE: Final = 4096  # rows
_TILE: Final = 16  # rows that NumKong does together; where some are left over it does all one by one
_SHORT: Final = 128  # numbers; from 192 on, memory decides and both ways take as long
_SHORT_WIDE: Final = 256  # the same where the queries are packed


@dataclass(frozen=True, slots=True)
class Errors:
    """Of n rows, and the largest of each piece of them."""

    of_rows: Floats
    of_pieces: Floats

    @staticmethod
    def of(rows: Floats) -> Errors:
        starts = np.arange(0, len(rows), _PIECE)
        return Errors(rows, np.maximum.reduceat(rows, starts) if len(rows) else rows)

    def most(self, rows: slice) -> float:
        """Of these rows, or more."""
        return float(self.of_pieces[rows.start // _PIECE : -(-rows.stop // _PIECE)].max(initial=0.0))


class Codes:
    """The codes of n vectors.

    Args:
        data: (n, d) whole numbers; 0 in odd rows (`Vectors.odd`).
        scales: (n,) what they count.
        errors: (n,) the norm of what is lost, or more.
    """

    def __init__(self, data: Bytes, scales: Floats, errors: Floats) -> None:
        self.data, self.scales, self.errors = data, scales, errors
        self._relative: tuple[Floats, Errors] | None = None
        self._pieces: list[Any] = [None] * -(-len(data) // _PIECE)

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

    @cached_property
    def absolute(self) -> tuple[Floats, Errors]:
        """(n,) scales and errors."""
        return self.scales, Errors.of(self.errors)

    def relative(self, vectors: Vectors) -> tuple[Floats, Errors]:
        """(n,) scales and errors of the same rows at a norm of 1; 0 for zero vectors."""
        if self._relative is None:
            inverses = vectors.inverses
            errors = self.errors * inverses * np.float32(1 + 2**-20)
            self._relative = self.scales * inverses, Errors.of(errors)
        return self._relative

    def whole_pieces(self, step: int) -> int:
        """So many rows or a few more, which `products` does best at a time."""
        return -(-step // _PIECE) * _PIECE if self._is_packed else step

    def products(self, queries: Bytes, rows: slice) -> Floats:
        """(q, m) products of m rows that begin at a multiple of `whole_pieces`, and of (q, d) codes."""
        if not self._is_packed:
            return products(self.data[rows], queries)
        import numkong

        made = np.empty((len(queries), rows.stop - rows.start), np.float32)
        for start in range(rows.start, rows.stop, _PIECE):
            number, at = start // _PIECE, start - rows.start
            if (piece := self._pieces[number]) is None:
                piece = self._pieces[number] = _packed(self.data[start : start + _PIECE])
            made[:, at : at + _PIECE] = np.asarray(numkong.dots_packed(queries, piece))[:, : rows.stop - start]
        return made

    @property
    def _is_packed(self) -> bool:
        return self.data.shape[1] <= _SHORT and not _has_wide_products()


def _packed(data: Bytes) -> Any:
    """Some codes in NumKong's order, after them rows of zeros up to a whole tile."""
    import numkong

    return numkong.dots_pack(np.pad(data, ((0, -len(data) % _TILE), (0, 0))))


@cache
def _has_wide_products() -> bool:
    """Whether the processor multiplies 64 pairs of bytes at once."""
    import numkong

    return bool(numkong.get_capabilities()["icelake"])


def encoded(rows: Floats, norms: Doubles) -> tuple[Bytes, Floats, Floats]:
    """The codes, scales and errors of (m, d) rows."""
    scales = np.abs(rows).max(axis=1, initial=0) * np.float32(1 / _MOST)
    turned = rows / np.maximum(scales, _TINY)[:, None]
    np.rint(turned, out=turned)
    codes = turned.astype(np.int8)
    turned *= scales[:, None]
    np.subtract(rows, turned, out=turned)
    lost = np.sqrt(np.vecdot(turned, turned).astype(np.float64))
    # The roundings: of s c, which the whole row stands behind, and of the sum of squares.
    errors = lost * (1 + (rows.shape[1] + 16) * 2.0**-24) + norms * 2.0**-22
    return codes, scales, errors.astype(np.float32) * np.float32(1 + 2**-22)


def products(codes: Bytes, queries: Bytes) -> Floats:
    """(q, m) products of (m, d) codes and (q, d) codes: exact sums, rounded once to float32."""
    import numkong  # loads in 50 ms

    if codes.shape[1] <= _SHORT_WIDE and len(codes) and _has_wide_products():
        whole = np.asarray(numkong.dots_packed(codes, numkong.dots_pack(queries)))
        return np.ascontiguousarray(whole.T, np.float32)
    made = np.empty((len(queries), len(codes)), np.float32)
    numkong.cdist(queries, codes, "dot", out=made)
    return made
