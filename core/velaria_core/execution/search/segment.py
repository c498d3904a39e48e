"""Segment: vectors by id, with their codes, which do not change any more: in memory, or a file that is mapped.

A file is a header of 64 bytes and seven sections, each at the next multiple of 64 bytes, all little-endian; rows are in
the order of ids. docs/vector_index.md tells it to others.

    header   "VELVECS" and the version as a byte, rows uint64, dimension uint64, zeros
    ids      int64    (rows,)
    hashes   uint64   (rows,)            of what the rows held, as whoever added them counts it
    norms    float64  (rows,)            NaN: the row is apart
    scales   float32  (rows,)
    errors   float32  (rows,)
    codes    int8     (rows, dimension)
    vectors  float32  (rows, dimension)
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from velaria_core.errors import StateError
from velaria_core.execution.outside import sync_file
from velaria_core.execution.search.codes import Codes
from velaria_core.execution.search.vectors import Chunk, Vectors
from velaria_core.execution.vectors import Array, Hashes, Mask, Rows

VERSION: Final = 4
_MAGIC: Final = b"VELVECS" + bytes([VERSION])
_HEADER: Final = struct.Struct("<8sQQ40x")
_SECTIONS: Final = (
    *(("ids", "<i8", 1), ("hashes", "<u8", 1), ("norms", "<f8", 1)),
    *(("scales", "<f4", 1), ("errors", "<f4", 1)),
)
_WIDE: Final = (("codes", "<i1", 2), ("vectors", "<f4", 2))
_AT_ONCE: Final = 1 << 20  # numbers that are copied together


@dataclass(frozen=True)
class Segment:
    """n vectors of d numbers, n at least 1.

    Attributes:
        ids: (n,) rising.
        hashes: (n,)
        vectors: those that are removed are apart.
        file: where they are on disk; None: in memory alone.
        removed: how many are removed.
    """

    ids: Rows
    hashes: Hashes
    vectors: Vectors
    codes: Codes
    file: Path | None = None
    removed: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def live(self) -> int:
        """How many are not removed."""
        return len(self) - self.removed

    @cached_property
    def gone(self) -> Mask:
        """(n,) which are removed."""
        return np.asarray(np.isnan(self.vectors.norms))

    @staticmethod
    def of(ids: Rows, hashes: Hashes, vectors: Vectors) -> Segment:
        """Vectors in the order of their rising ids; none of them apart."""
        return Segment(ids, hashes, vectors, Codes.of(vectors))

    def places(self, ids: Rows) -> Rows:
        """Where these ids are, in their order; without those that are not here or are removed."""
        if len(self) == 0:
            return np.empty(0, np.int64)
        if int(self.ids[-1]) - int(self.ids[0]) == len(self) - 1:  # without gaps
            found = ids[(ids >= self.ids[0]) & (ids <= self.ids[-1])] - self.ids[0]
        else:
            found = np.searchsorted(self.ids, ids)
            found[found == len(self)] = 0
            found = found[self.ids[found] == ids]
        return np.asarray(found[~self.gone[found]] if self.removed else found)

    def without(self, places: Rows) -> Segment:
        """The same, with the rows at these places removed as well."""
        vectors = self.vectors.without(places)
        return replace(self, vectors=vectors, removed=len(vectors.apart))

    @staticmethod
    def merged(segments: Sequence[Segment], file: Path | None = None) -> Segment:
        """What is left of several segments, in memory or in a new file. No id is live in two of them.

        Raises:
            OSError.
        """
        left = [np.flatnonzero(~segment.gone) for segment in segments]
        ids = np.concatenate([segment.ids[places] for segment, places in zip(segments, left, strict=True)])
        order = np.argsort(ids, kind="stable")
        d = segments[0].vectors.dimension
        made = _empty(len(ids), d, file)
        made["ids"][:] = ids[order]
        for name in ("hashes", "norms", "scales", "errors"):
            parts = [_column(segment, name)[places] for segment, places in zip(segments, left, strict=True)]
            made[name][:] = np.concatenate(parts)[order]
        owner = np.repeat(np.arange(len(segments)), [len(places) for places in left])[order]
        places = np.concatenate(left)[order]
        step = max(1, _AT_ONCE // d)
        for start in range(0, len(ids), step):
            part = slice(start, start + step)
            for number in np.unique(owner[part]):
                here = start + np.flatnonzero(owner[part] == number)
                made["vectors"][here] = segments[number].vectors.take(places[here])
                made["codes"][here] = segments[number].codes.data[places[here]]
        if file is not None:
            return Segment.opened(file, len(ids), d)
        return _segment(made, None)

    def written(self, file: Path) -> Segment:
        """The same, without what is removed, in a new file."""
        return Segment.merged([self], file)

    @staticmethod
    def opened(file: Path, rows: int, dimension: int) -> Segment:
        """A file, mapped.

        Raises:
            OSError.
            StateError[vector_index.damaged, vector_index.version].
        """
        with open(file, "rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        offsets, size = _layout(rows, dimension)
        if len(mapped) != size:
            raise damaged(file, f"it has {len(mapped):,} bytes, {size:,} are expected")
        magic, *shape = _HEADER.unpack_from(mapped)
        if magic[:-1] == _MAGIC[:-1] and magic != _MAGIC:
            raise other_version(file, magic[-1])
        if magic != _MAGIC or shape != [rows, dimension]:
            raise damaged(file, "its header is not what was written")
        made = {
            name: np.frombuffer(mapped, kind, rows * (dimension if axes == 2 else 1), offsets[name])
            for name, kind, axes in (*_SECTIONS, *_WIDE)
        }
        for name, _, _ in _WIDE:
            made[name] = made[name].reshape(rows, dimension)
        return _segment(made, file)


def _segment(columns: dict[str, Array], file: Path | None) -> Segment:
    vectors = Vectors([Chunk(0, columns["vectors"])], columns["vectors"].shape[1], norms=columns["norms"])
    codes = Codes(columns["codes"], columns["scales"], columns["errors"])
    return Segment(columns["ids"], columns["hashes"], vectors, codes, file)


def _column(segment: Segment, name: str) -> Array:
    columns: dict[str, Array] = {
        "hashes": segment.hashes,
        "norms": segment.vectors.norms,
        "scales": segment.codes.scales,
        "errors": segment.codes.errors,
    }
    return columns[name]


def _layout(rows: int, dimension: int) -> tuple[dict[str, int], int]:
    """Where each section begins, and the size of the file."""
    offsets, end = {}, _HEADER.size
    for name, kind, axes in (*_SECTIONS, *_WIDE):
        offsets[name] = end
        size = rows * np.dtype(kind).itemsize * (dimension if axes == 2 else 1)
        end += (size + 63) // 64 * 64
    return offsets, end


def _empty(rows: int, dimension: int, file: Path | None) -> dict[str, Array]:
    """Columns to fill, in memory or in a file with a header."""
    offsets, size = _layout(rows, dimension)
    if file is not None:
        with open(file, "wb") as stream:
            stream.write(_HEADER.pack(_MAGIC, rows, dimension))
            stream.truncate(size)
    made: dict[str, Array] = {}
    for name, kind, axes in (*_SECTIONS, *_WIDE):
        shape = (rows, dimension) if axes == 2 else (rows,)
        made[name] = np.empty(shape, kind) if file is None else np.memmap(file, kind, "r+", offsets[name], shape)
    return made


def checksum(file: Path, *, on_disk: bool = False) -> int:
    """CRC-32 of a file.

    Args:
        on_disk: write it through to the disk first.

    Raises:
        OSError.
    """
    if on_disk:
        sync_file(file)
    found = 0
    with open(file, "rb") as stream:
        while block := stream.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


_HINT: Final = "the index can be built anew from the table: drop it and create it again"


def damaged(file: Path, what: str) -> StateError:
    return StateError("vector_index.damaged", f"{file} is damaged: {what}", hint=_HINT)


def other_version(file: Path, version: object) -> StateError:
    told = f"{file} is of version {version}, this Velaria reads version {VERSION}"
    return StateError("vector_index.version", told, hint=_HINT)
