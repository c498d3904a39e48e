"""Vectors: a column of n vectors of d float32, read where Arrow has it.

Row i of a column counts from 0 over all its chunks, NULLs included. A row is *apart* when it is NULL, empty, or holds
a NULL or a number that is not finite: no search finds it, and `skipped` counts it.

`FLOAT[n]` (`fixed_size_list<float>`) is never copied, nor are lists without NULLs between them. Lists of other
numbers are cast to float32, lists with gaps are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.errors import DataError, InputError
from velaria_core.execution.vectors import Mask, Rows, valid_of

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

# Norms between which float32 arithmetic neither overflows nor loses bits, also in squares.
_PLAIN: Final = (1e-15, 1e15)
_AT_ONCE: Final = 1 << 18  # numbers that are squared together, so that they stay in the cache


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows `first` to `first + len(data)` of a column: (m, d), rows contiguous. Numbers of NULL rows mean nothing."""

    first: int
    data: Floats


class Vectors:
    """n vectors of d numbers.

    Args:
        chunks: in order, together n rows.
        missing: (n,) true where the row or one of its numbers is NULL; None where none is.
        norms: as the property gives them, where they are known.

    Attributes:
        dimension: d, or 0 where no row says.
    """

    def __init__(
        self, chunks: Sequence[Chunk], dimension: int, missing: Mask | None = None, norms: Doubles | None = None
    ) -> None:
        self.chunks, self.dimension = tuple(chunks), dimension
        self._missing = missing
        if norms is not None:
            self.__dict__["norms"] = norms
        self._count = sum(len(chunk.data) for chunk in chunks)
        self._firsts = np.array([chunk.first for chunk in self.chunks], np.int64)

    def __len__(self) -> int:
        return self._count

    @staticmethod
    def of(data: npt.ArrayLike) -> Vectors:
        """An (n, d) array; float32 with contiguous rows is not copied."""
        rows = np.ascontiguousarray(data, np.float32)
        assert rows.ndim == 2, rows.shape
        return Vectors([Chunk(0, rows)], rows.shape[1])

    @cached_property
    def norms(self) -> Doubles:
        """(n,) Euclidean norms, NaN for rows apart. One pass over all numbers, at the first call.

        Relative error: (d + 4) 2^-25, as squares are summed in float32.
        """
        norms = np.empty(self._count)
        for chunk in self.chunks:
            step = max(1, _AT_ONCE // max(1, self.dimension))
            for start in range(0, len(chunk.data), step):
                part = chunk.data[start : start + step]
                with np.errstate(over="ignore", invalid="ignore"):
                    squares = np.einsum("ij,ij->i", part, part).astype(np.float64)
                odd = np.flatnonzero(~((squares >= _PLAIN[0] ** 2) & (squares <= _PLAIN[1] ** 2)))
                if len(odd):
                    wide = part[odd].astype(np.float64)
                    with np.errstate(invalid="ignore"):
                        squares[odd] = (wide * wide).sum(axis=1)
                norms[chunk.first + start : chunk.first + start + len(part)] = squares
        np.sqrt(norms, out=norms)
        if self.dimension == 0:
            norms[:] = np.nan
        norms[~np.isfinite(norms)] = np.nan
        if self._missing is not None:
            norms[self._missing] = np.nan
        return norms

    @cached_property
    def apart(self) -> Rows:
        """The rows that no search finds, in order."""
        return np.flatnonzero(np.isnan(self.norms))

    @cached_property
    def odd(self) -> Rows:
        """The rows that float32 arithmetic cannot be trusted with, in order: those apart, and very large or small."""
        norms = self.norms
        return np.flatnonzero(~((norms == 0) | ((norms >= _PLAIN[0]) & (norms <= _PLAIN[1]))))

    @cached_property
    def longest(self) -> float:
        """The largest norm of all rows but the odd ones."""
        return float(self._plain_norms().max(initial=0.0))

    @cached_property
    def inverses(self) -> Floats:
        """(n,) 1 / norm; 0 for odd rows and zero vectors."""
        norms = self._plain_norms()
        return np.divide(1, norms, out=np.zeros(len(norms)), where=norms > 0).astype(np.float32)

    @cached_property
    def unevenness(self) -> float:
        """How far norms are from 1 at most, those of odd rows and zero vectors aside."""
        norms = self._plain_norms()
        return float(np.abs(norms[norms > 0] - 1).max(initial=0.0))

    @cached_property
    def halves(self) -> Floats:
        """(n,) norm^2 / 2, relative to the square of `longest`; 0 for odd rows."""
        norms = self._plain_norms()
        return (0.5 * (norms / (self.longest or 1.0)) ** 2).astype(np.float32)

    def _plain_norms(self) -> Doubles:
        if len(self.odd) == 0:
            return self.norms
        norms = self.norms.copy()
        norms[self.odd] = 0
        return norms

    def without(self, rows: Rows) -> Vectors:
        """The same vectors, of which these rows, in order, are apart too. What is known about the others stays known.

        Cost: O(n), 2 ms for a million.
        """
        made = Vectors(self.chunks, self.dimension)
        made.__dict__ |= self.__dict__
        made.__dict__["norms"] = norms = self.norms.copy()
        norms[rows] = np.nan
        apart, odd = self.apart, self.odd
        made.__dict__["apart"] = together = np.insert(apart, np.searchsorted(apart, rows), rows)
        made.__dict__["odd"] = together if len(odd) == len(apart) else np.union1d(odd, rows)
        return made

    def take(self, rows: Rows) -> Floats:
        """(len(rows), d): the vectors at these rows, in any order."""
        if len(self.chunks) == 1:
            return self.chunks[0].data[rows]
        made = np.empty((len(rows), self.dimension), np.float32)
        at = np.searchsorted(self._firsts, rows, side="right") - 1
        for number in np.unique(at):
            chunk, here = self.chunks[number], np.flatnonzero(at == number)
            made[here] = chunk.data[rows[here] - chunk.first]
        return made


def lies_plain(kind: pa.DataType) -> bool:
    """Whether a column of this type is vectors of float32 as they are searched, all of one length."""
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type))


def vectors_of(column: pa.ChunkedArray | pa.Array) -> Vectors:
    """A column as vectors.

    Args:
        column: `FLOAT[n]`, or a list of numbers whose rows are of one length.

    Raises:
        InputError[search.not_vectors]: a column of another type.
        DataError[search.dimension]: lists of several lengths.
    """
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    kind = column.type
    fixed = pa.types.is_fixed_size_list(kind)
    if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not _is_number(kind.value_type):
        raise InputError(
            "search.not_vectors",
            f"a column of type {kind} holds no vectors",
            hint="a vector is FLOAT[n]; lists of numbers, all of one length, do too",
        )
    dimension = kind.list_size if fixed else None
    chunks: list[Chunk] = []
    missing: list[Mask] = []
    first = 0
    for piece in pieces:
        if len(piece) == 0:
            continue
        absent = _absent(piece)
        if fixed:
            start, child = piece.offset * kind.list_size, piece.values
            data = _floats(child, start, len(piece) * kind.list_size).reshape(len(piece), kind.list_size)
            torn = _torn(_lost(child, start, len(piece) * kind.list_size), kind.list_size)
        else:
            data, torn, dimension = _from_lists(piece, absent, dimension, first)
        both = absent if torn is None else torn if absent is None else absent | torn
        missing.append(np.zeros(len(piece), np.bool_) if both is None else both)
        chunks.append(Chunk(first, data))
        first += len(piece)
    if not fixed:  # NULLs before the first vector had no length yet
        empty = np.empty((0, dimension or 0), np.float32)
        chunks = [
            chunk if chunk.data.shape[1] == empty.shape[1] else Chunk(chunk.first, _zeros(len(chunk.data), empty))
            for chunk in chunks
        ]
    some = any(mask.any() for mask in missing)
    return Vectors(chunks, dimension or 0, np.concatenate(missing) if some else None)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _absent(array: pa.Array) -> Mask | None:
    """Which rows are NULL; None where none is."""
    valid = valid_of(array)
    return None if valid is None else ~valid


def _lost(child: pa.Array, start: int, count: int) -> Mask | None:
    """Which of the numbers `start` to `start + count` are NULL; None where none is."""
    return _absent(child.slice(start, count)) if child.null_count else None


def _floats(child: pa.Array, start: int, count: int) -> Floats:
    """The numbers `start` to `start + count` of a child array as float32."""
    if pa.types.is_float32(child.type):
        if count == 0:
            return np.empty(0, np.float32)
        return np.frombuffer(child.buffers()[1], np.float32, count, 4 * (child.offset + start))
    cast = pc.cast(child.slice(start, count), pa.float32(), safe=False)
    return _floats(cast, 0, count)


def _zeros(count: int, like: Floats) -> Floats:
    return np.zeros((count, like.shape[1]), np.float32)


def _from_lists(
    piece: pa.Array, absent: Mask | None, dimension: int | None, first: int
) -> tuple[Floats, Mask | None, int | None]:
    """Lists as rows, which of them hold a NULL, and their length, None where no row says."""
    width: Any = np.int64 if pa.types.is_large_list(piece.type) else np.int32
    offsets = np.frombuffer(piece.buffers()[1], width, len(piece) + 1, piece.offset * np.dtype(width).itemsize)
    lengths = np.diff(offsets)
    rows = np.arange(len(piece)) if absent is None else np.flatnonzero(~absent)
    if len(rows) == 0:
        return np.zeros((len(piece), dimension or 0), np.float32), None, dimension
    if dimension is None:
        dimension = int(lengths[rows[0]])
    other = rows[lengths[rows] != dimension]
    if len(other):
        raise DataError(
            "search.dimension",
            f"row {first + int(other[0])} holds {int(lengths[other[0]])} numbers, those before it {dimension}",
            hint=f"vectors of a column are of one length; CAST(... AS FLOAT[{dimension}]) names it",
        )
    start, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    numbers, lost = _floats(piece.values, start, count), _lost(piece.values, start, count)
    if not np.any(lengths != dimension):  # every list is at its place, NULLs too where there are any
        return numbers.reshape(len(piece), dimension), _torn(lost, dimension), dimension
    data = np.zeros((len(piece), dimension), np.float32)
    places = (offsets[rows] - start).astype(np.int64)[:, None] + np.arange(dimension)
    data[rows] = numbers[places]
    if lost is None:
        return data, None, dimension
    torn = np.zeros(len(piece), np.bool_)
    torn[rows] = lost[places].any(axis=1)
    return data, torn, dimension


def _torn(lost: Mask | None, dimension: int) -> Mask | None:
    """Which rows have lost a number."""
    return None if lost is None else np.asarray(lost.reshape(-1, dimension).any(axis=1))
