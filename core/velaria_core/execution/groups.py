"""Groups: rows are grouped by keys that are whole numbers, with arithmetic and no hash table.

The keys of a row are one number in mixed radix, its code: how far each is from the least of its column, which counts
from there to the greatest. Where there are not many more codes than rows, as with the ids and windows of one epoch, a
row's group is found by counting; otherwise the codes are sorted. A column whose range is too wide stands for the ranks
of its values.

At 65,536 rows, of two keys and a count: 0.4 ms where codes are counted, 1 ms where they are sorted; the engine's hash
table takes 3 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from velaria_core.execution.vectors import Array, Mask, Rows, Vector, overflown
from velaria_core.logical.partials import Fold

_CODES_MAX: Final = 1 << 62
_RANK_BITS: Final = 20
_DENSE: Final = 4  # codes for each row, up to which counting is faster than sorting
_DENSE_MIN: Final = 1024
_WORD: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
_RUN: Final = 16  # equal values in a row, on average, from which on it is worth while to look for what is between runs


@dataclass(frozen=True, slots=True)
class _Digit:
    """How one column of keys is written in a code: as the numbers 0, 1, ... below `span`.

    Attributes:
        low, stride: what 0 stands for, and how far it is to the next, where the numbers are distances.
        ranked: what each number stands for, where they are ranks.
        null: the number of NULL, if there is one: the last.
    """

    kind: np.dtype[Any]
    span: int
    low: int
    stride: int
    ranked: Array | None
    null: int | None

    def values(self, numbers: Rows) -> Vector:
        """What these numbers stand for."""
        if self.null is None:
            return Vector(self._known(numbers))
        valid: Mask = numbers != self.null
        return Vector(self._known(np.where(valid, numbers, 0)), valid)

    def _known(self, numbers: Rows) -> Array:
        if self.ranked is not None:
            numbers = self.ranked[numbers]
        known: Array = (numbers * self.stride + self.low).astype(self.kind)
        return known


class Groups:
    """Rows grouped by their keys, at least one of each.

    Attributes:
        counts: (m,) how many rows each group has.
        extents: the least and the greatest value of each column.
    """

    def __init__(self, keys: Sequence[Vector]) -> None:
        """One column of whole numbers or more, with a row or more.

        Raises:
            OverflowError: the keys are too many and too far apart for a code of 63 bits.
        """
        self.extents: list[tuple[int, int]] = []
        self._digits: list[_Digit] = []
        self._span = 1
        self._codes: Rows
        for at, vector in enumerate(keys):
            self._append(vector, _CODES_MAX // self._span >> _RANK_BITS * (len(keys) - at - 1))
        self._rows: Rows | None = None
        self._dense = self._span <= max(_DENSE * len(self._codes), _DENSE_MIN)
        if self._dense:
            counts = np.bincount(self._codes, minlength=self._span)
            self._there: Rows = np.flatnonzero(counts)
            self.counts: Rows = counts[self._there]
        else:
            self._there, self.counts = np.unique(self._codes, return_counts=True)

    def _append(self, vector: Vector, span_max: int) -> None:
        """One more digit, worked into the codes in place: what a kernel takes to hand out memory is half the time."""
        data = vector.data
        valid = None if vector.valid is None or vector.valid.all() else vector.valid
        if valid is not None:
            data = np.where(valid, data, data[valid.argmax()])
        low, high = int(data.min()), int(data.max())
        self.extents.append((low, high))
        base, span, stride, ranked = low, high - low + 1, 1, None
        if max(high, -low) <= _CODES_MAX:
            data = data.astype(np.int64, copy=False)
            if span > _DENSE * len(data) and (stride := _stride(data)) > 1:
                data, base, span = (data - low) // stride, 0, (high - low) // stride + 1
        if span >= span_max or max(high, -low) > _CODES_MAX:
            ranked, data = np.unique(data, return_inverse=True)
            low, base, span = low if stride > 1 else 0, 0, len(ranked)
        null = None
        if valid is not None:
            data[~valid] = base + span
            null, span = span, span + 1
        if span * self._span > _CODES_MAX:
            raise OverflowError
        if self._digits:
            self._codes *= span
            self._codes += data
            self._codes -= base
        else:
            self._codes = data - base
        self._digits.append(_Digit(vector.data.dtype, span, low, stride, ranked, null))
        self._span *= span

    def __len__(self) -> int:
        return len(self.counts)

    def keys(self) -> list[Vector]:
        """The keys of each group, by column."""
        columns: list[Vector] = []
        codes = self._there
        for digit in reversed(self._digits):
            codes, numbers = np.divmod(codes, digit.span)
            columns.append(digit.values(numbers))
        return columns[::-1]

    @property
    def rows(self) -> Rows:
        """(n,) the group of each row."""
        if self._rows is None:
            if len(self._there) == self._span:
                self._rows = self._codes
            elif self._dense:
                places = np.empty(self._span, np.int64)
                places[self._there] = np.arange(len(self._there))
                self._rows = places[self._codes]
            else:
                self._rows = np.unique(self._codes, return_inverse=True)[1]
        return self._rows


def _stride(data: Rows) -> int:
    """What all differences of values are a multiple of, where the values come in runs of equal ones, as the starts of
    windows do that were sorted by them; else 1."""
    steps = np.diff(data)
    steps = steps[steps != 0]
    return int(np.gcd.reduce(steps)) if 0 < len(steps) * _RUN <= len(data) else 1


# --- the values of groups -------------------------------------------------------------------------------------------


def reduced(fold: Fold, values: Vector, rows: Rows, count: int) -> Vector:
    """What the values of each group fold to.

    Args:
        values: (n,), or (n, 2) for 128 bits.
        rows: (n,) the group of each value; each has one, NULL or not.
        count: how many groups there are.
    Returns:
        (count,) or (count, 2): a sum of no values is zero, an extreme of none NULL.
    Raises:
        DataError[value.overflow]: a sum leaves 128 bits.
    """
    there: Mask | None = None
    if values.valid is not None:
        values, rows = Vector(values.data[values.valid]), rows[values.valid]
        there = np.bincount(rows, minlength=count) > 0
    data = values.data
    if fold is Fold.ADD:
        if data.ndim == 2:
            return Vector(_sums_128(data, rows, count))
        sums = np.zeros(count, data.dtype)
        np.add.at(sums, rows, data)
        return Vector(sums)
    if data.ndim == 2:
        # The last of each group in the order of words and groups, the signed word first in weight.
        high = data[:, 1].view(np.int64)
        order = np.lexsort((data[:, 0], high, rows))
        if fold is Fold.MIN:
            order = order[::-1]
        wide: Array = np.zeros((count, 2), np.uint64)
        wide[rows[order]] = data[order]
        return Vector(wide, there)
    start, extreme = _extreme(fold, data.dtype)
    found: Array = np.full(count, start, data.dtype)
    with np.errstate(invalid="ignore"):
        extreme.at(found, rows, data)
    return Vector(found, there)


def _extreme(fold: Fold, kind: np.dtype[Any]) -> tuple[Any, np.ufunc]:
    """What an extreme begins with, and how it goes on."""
    least = fold is Fold.MIN
    if kind.kind == "f":
        # NaN is the greatest: `maximum` hands it on, and `fmin` where there is nothing else.
        return (np.nan, np.fmin) if least else (-np.inf, np.maximum)
    limits: Any = np.iinfo(kind)
    return (limits.max, np.minimum) if least else (limits.min, np.maximum)


def _sums_128(data: Array, rows: Rows, count: int) -> Array:
    """Sums in four words of 32 bits, of which each has room for two thousand million carries."""
    words = (data & _WORD, data >> _HALF)
    parts = [words[0][:, 0], words[1][:, 0], words[0][:, 1], (data[:, 1].view(np.int64) >> 32).view(np.uint64)]
    made: list[Rows] = []
    carry = np.zeros(count, np.int64)
    for part in parts:
        sums = carry
        np.add.at(sums, rows, part.view(np.int64))
        made.append(sums)
        carry = sums >> 32
    if (made[3] >> 31 != made[3] >> 63).any():
        raise overflown()
    low = (made[0] & 0xFFFFFFFF) | made[1] << 32
    high = (made[2] & 0xFFFFFFFF) | made[3] << 32
    return np.stack([low, high], axis=1).view(np.uint64)
