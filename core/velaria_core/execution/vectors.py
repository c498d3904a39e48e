"""Vectors: Arrow columns of fixed width as NumPy arrays, and arithmetic in 128 bits on them.

A vector is the values and, where some are NULL, which are not. Numbers are as wide as in Arrow; booleans are bytes;
decimals, and the engine's 128-bit integers which leave as such, are two uint64 a value, low word first. Nothing is
copied on the way in, but booleans and columns in several chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from velaria_core.errors import DataError

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.int64]
Hashes: TypeAlias = npt.NDArray[np.uint64]

_TWO_64: Final = 18446744073709551616.0
_SIGN: Final = np.uint64(1 << 63)


@dataclass(frozen=True, slots=True)
class Vector:
    """n values: `data` is (n,), or (n, 2) uint64 for 128 bits; `valid` is None where none is NULL."""

    data: Array
    valid: Mask | None = None

    def __len__(self) -> int:
        return len(self.data)

    def take(self, rows: Rows | Mask) -> Vector:
        """The values at these rows, or where a mask is true."""
        return Vector(self.data[rows], None if self.valid is None else self.valid[rows])

    @property
    def present(self) -> Mask:
        """Which values are not NULL."""
        return np.ones(len(self.data), np.bool_) if self.valid is None else self.valid


def storage(kind: pa.DataType) -> tuple[np.dtype[Any], int]:
    """The NumPy type of a column's values and how many of them make one.

    Raises:
        KeyError: the type is of no fixed width that is known here.
    """
    if pa.types.is_decimal128(kind):
        return np.dtype(np.uint64), 2
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        return np.dtype(np.int64), 1
    return _STORAGE[kind], 1


_STORAGE: dict[pa.DataType, np.dtype[Any]] = {
    pa.bool_(): np.dtype(np.uint8),
    pa.int8(): np.dtype(np.int8),
    pa.int16(): np.dtype(np.int16),
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.uint8(): np.dtype(np.uint8),
    pa.uint16(): np.dtype(np.uint16),
    pa.uint32(): np.dtype(np.uint32),
    pa.uint64(): np.dtype(np.uint64),
    pa.float32(): np.dtype(np.float32),
    pa.float64(): np.dtype(np.float64),
    pa.date32(): np.dtype(np.int32),
}


def is_fixed(kind: pa.DataType) -> bool:
    """Whether columns of the type can be vectors."""
    try:
        storage(kind)
    except KeyError:
        return False
    return True


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else empty(column.type)


def empty(kind: pa.DataType) -> pa.Array:
    """An array of no values. pyarrow loads pandas to convert an empty list."""
    return pa.Table.from_batches([], pa.schema([pa.field("x", kind)])).column(0).combine_chunks()


def valid_of(array: pa.Array) -> Mask | None:
    """Which values are not NULL; None where all are not."""
    if array.null_count == 0:
        return None
    return _bits(array.buffers()[0], array.offset, len(array))


def vector_of(array: pa.Array) -> Vector:
    """An Arrow array of fixed width as a vector."""
    kind, words = storage(array.type)
    count = len(array)
    if count == 0:
        return Vector(np.empty((0, 2) if words == 2 else 0, kind))
    if pa.types.is_boolean(array.type):
        return Vector(_bits(array.buffers()[1], array.offset, count).view(np.uint8), valid_of(array))
    start = array.offset * words
    data = np.frombuffer(array.buffers()[1], kind, count=start + count * words)[start:]
    return Vector(data.reshape(-1, 2) if words == 2 else data, valid_of(array))


def joined(vectors: Sequence[Vector]) -> Vector:
    """One vector after the other; one or more."""
    data = np.concatenate([one.data for one in vectors])
    if all(one.valid is None for one in vectors):
        return Vector(data)
    return Vector(data, np.concatenate([one.present for one in vectors]))


def truths(array: pa.Array) -> Mask:
    """A boolean array as a mask; where it is NULL the value means nothing."""
    return _bits(array.buffers()[1], array.offset, len(array)) if len(array) else np.empty(0, np.bool_)


def array_of(vector: Vector, kind: pa.DataType) -> pa.Array:
    """A vector as an Arrow array; narrower integers widen to a decimal."""
    data, valid = vector.data, vector.valid
    if pa.types.is_decimal128(kind) and data.ndim == 1:
        data = widened(data)
    if pa.types.is_boolean(kind):
        data = np.packbits(data.astype(np.bool_), bitorder="little")
    else:
        data = np.ascontiguousarray(data, storage(kind)[0])
    nulls = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(vector), [nulls, pa.py_buffer(data)])


def integers(values: Array) -> pa.Array:
    """Numbers as Arrow int64, without pyarrow's look at what they are."""
    return array_of(Vector(values), pa.int64())


def _bits(buffer: pa.Buffer, offset: int, count: int) -> Mask:
    first = offset // 8
    packed = np.frombuffer(buffer, np.uint8)[first : (offset + count + 7) // 8]
    skip = offset - first * 8
    return np.unpackbits(packed, bitorder="little")[skip : skip + count].view(np.bool_)


# --- 128 bits, two's complement, (n, 2) with the low word first --------------------------------------------------


def widened(values: Array) -> Array:
    """Signed integers in 128 bits."""
    low = values.astype(np.int64)
    return np.stack([low, low >> 63], axis=1).view(np.uint64)


def add_128(one: Array, other: Array) -> Array:
    """Sums.

    Raises:
        DataError[value.overflow]: a sum leaves 128 bits.
    """
    made = np.empty_like(one)
    low = made[:, 0]
    np.add(one[:, 0], other[:, 0], out=low)
    carry = low < one[:, 0]
    high = one[:, 1] + other[:, 1] + carry
    made[:, 1] = high
    # Two of one sign that sum to the other sign.
    if np.any((one[:, 1] ^ high) & (other[:, 1] ^ high) & _SIGN):
        raise overflown()
    return made


def overflown() -> DataError:
    """A sum has left 128 bits."""
    return DataError(
        "value.overflow",
        "a sum is out of the range of 128 bits",
        hint="cast to a wider type first, e.g. CAST(x AS DOUBLE)",
    )


def less_128(one: Array, other: Array) -> Mask:
    """Where `one` is less than `other`."""
    high, high_other = one[:, 1].view(np.int64), other[:, 1].view(np.int64)
    below: Mask = (high < high_other) | ((high == high_other) & (one[:, 0] < other[:, 0]))
    return below


def floats_of(values: Array) -> Array:
    """128-bit integers as float64, rounded as the engine rounds them.

    The engine adds the words as floats, a negative number's as the distance from -1 where its high word is -1.
    """
    low, high = values[:, 0], values[:, 1].view(np.int64)
    made = low.astype(np.float64) + high.astype(np.float64) * _TWO_64
    near = high == -1
    if near.any():
        made[near] = -(~low[near]).astype(np.float64) - 1.0
    found: Array = made
    return found
