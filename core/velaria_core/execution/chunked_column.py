"""Chunked columns: values of any Arrow type by position, as they came.

What has no fixed width and is no text, lists and structs for instance, stays in Arrow arrays. Chunks are put together
as their lengths meet, so there are a few, and a value is copied a logarithmic number of times (O'Neil et al., The
Log-Structured Merge-Tree, Acta Informatica 1996).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from velaria_core.execution.vectors import Rows, integers

_MERGED_BYTES_MAX: Final = 1 << 28  # offsets of lists have 32 bits


class ChunkedColumn:
    """One column by position."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._chunks: list[pa.Array] = []

    def append(self, count: int, given: pa.Array) -> None:
        """Values for the positions from `count` on, which is how many there are."""
        assert count == sum(map(len, self._chunks))
        self._chunks.append(given)
        while len(self._chunks) > 1:
            *_, one, other = self._chunks
            if len(one) > 2 * len(other) or one.nbytes + other.nbytes > _MERGED_BYTES_MAX:
                break
            self._chunks[-2:] = [pa.concat_arrays([one, other])]

    def truncate(self, count: int) -> None:
        """Let go of the positions from `count` on."""
        kept, left = [], count
        for chunk in self._chunks:
            if left > 0:
                kept.append(chunk if len(chunk) <= left else chunk.slice(0, left))
            left -= len(chunk)
        self._chunks = kept

    def take(self, positions: Rows) -> pa.Array:
        """The values at these positions, which rise."""
        parts = self._parts(positions)
        return pa.concat_arrays(parts) if parts else pa.array([], self._kind)

    def move(self, positions: Rows) -> None:
        """Keep these positions only, which rise, as the first ones."""
        self._chunks = self._parts(positions)

    def _parts(self, positions: Rows) -> list[pa.Array]:
        """The values at these positions, chunk by chunk."""
        ends = np.cumsum([len(chunk) for chunk in self._chunks], dtype=np.int64)
        cuts = np.searchsorted(positions, ends)
        parts, first, start = [], 0, 0
        for chunk, cut, end in zip(self._chunks, cuts.tolist(), ends.tolist(), strict=True):
            if cut > first:
                parts.append(chunk.take(integers(positions[first:cut] - start)))
            first, start = cut, end
        return parts

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        return sum(chunk.nbytes for chunk in self._chunks)
