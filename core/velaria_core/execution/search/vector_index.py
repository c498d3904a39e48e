"""Vector index: vectors by id in a folder, searched exactly, and updated by what changes.

It is a list of segments, the first the largest: a base, and after it what came since (Bentley and Saxe, Decomposable
Searching Problems, 1980). An id that comes again or leaves is removed from its segment by a bit; small segments are
merged as they come, so that a row moves a number of times that grows with the logarithm of how many there are, and
large ones when `merge` is called, which may run beside everything else.

`manifest.json` names the files that count, with their checksums, and is replaced in one step: after a crash the index
is that of the last commit. It keeps the caller's token, which says what the index is of, so that one that is ahead of
or behind its table is known. docs/vector_index.md tells the files to others.
"""

from __future__ import annotations

import json
import threading
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from velaria_core.errors import InputError, StateError
from velaria_core.execution.outside import outside, replace_file, sync_file
from velaria_core.execution.search.approximate import K_MAX, Approximate, is_installed
from velaria_core.execution.search.codes import DIMENSION_MAX
from velaria_core.execution.search.nearest import Metric, Nearest, nearest
from velaria_core.execution.search.segment import VERSION, Segment, checksum, damaged, other_version
from velaria_core.execution.search.vectors import Chunk, Vectors
from velaria_core.execution.vectors import Hashes, Rows

MANIFEST: Final = "manifest.json"
_FORMAT: Final = "velaria.vector_index"
_MERGED_AT_ONCE: Final = 1 << 16  # rows of a segment that `add` makes at most
_SEGMENTS_MAX: Final = 8


class VectorIndex:
    """Vectors of one dimension by int64 id. Made by `create` or `open`.

    One thread changes it at a time, and one process; searches may run at any time, and see all or nothing of a change.

    Attributes:
        token: what the caller gave to the last commit.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self.folder, self.dimension, self.token = folder, dimension, ""
        self._segments: tuple[Segment, ...] = ()
        self._generation, self._files = 0, 0
        self._sums: dict[str, int] = {}  # of files
        self._frozen = 0  # leading segments that a merge is reading
        self._merging: Path | None = None  # the file that it writes
        self._approximate: _Built | None = None
        self._changing = threading.RLock()

    @staticmethod
    def create(folder: Path, dimension: int, *, token: str = "") -> VectorIndex:
        """An empty index in a folder of its own, which may be there and must be empty.

        Raises:
            InputError[search.dimension, vector_index.exists].
            ExternalError: of the disk.
        """
        if not 1 <= dimension <= DIMENSION_MAX:
            told = f"an index holds vectors of 1 to {DIMENSION_MAX:,} numbers, not {dimension:,}"
            raise InputError("search.dimension", told)
        with outside(f"creating {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise InputError("vector_index.exists", f"{folder} is not empty", hint="choose another folder")
        index = VectorIndex(folder, dimension)
        index.commit(token)
        return index

    @staticmethod
    def open(folder: Path, *, verify: bool = True) -> VectorIndex:
        """The index as of its last commit; its files are mapped, not read.

        Args:
            verify: read them once and compare the checksums.

        Raises:
            StateError[vector_index.missing, vector_index.damaged, vector_index.version]: to be built anew.
            ExternalError: of the disk.
        """
        with outside(f"opening {folder}"):
            while True:
                text = _manifest_text(folder)
                try:
                    return _opened(folder, text, verify)
                except FileNotFoundError as error:
                    # Whoever writes it has replaced the file since: then the manifest is another one.
                    if _manifest_text(folder) == text:
                        raise damaged(Path(error.filename), "it is missing") from error

    def __len__(self) -> int:
        return sum(segment.live for segment in self._segments)

    @property
    def segments(self) -> tuple[int, ...]:
        """How many vectors each segment holds, those removed among them."""
        return tuple(map(len, self._segments))

    def search(
        self,
        queries: npt.ArrayLike,
        metric: Metric,
        k: int,
        *,
        allowed: Rows | None = None,
        threshold: float | None = None,
        approximate: bool = False,
        threads: int | None = None,
    ) -> Nearest:
        """As `nearest`; rows and allowed are ids, and ids decide between equal scores. Nothing is skipped here.

        What was added and is not committed is found too.

        Args:
            approximate: use the approximate index for what it was built over, where there is one of this metric whose
                recall meets its target, k is at most 20 and all rows are allowed. What came since is searched exactly.

        Raises:
            InputError: as `nearest`.
        """
        segments, built = self._segments, self._approximate
        parts = []
        for segment in segments or (_nothing(self.dimension),):
            if (
                approximate
                and allowed is None
                and built is not None
                and built.of == segment.file
                and built.index.metric is metric
                and built.index.is_used
                and k <= K_MAX
                and (near := _approximately(built.index, segment, queries, k, threshold)) is not None
            ):
                parts.append(near)
                continue
            places = None if allowed is None else segment.places(np.asarray(allowed, np.int64))
            part = nearest(
                segment.vectors,
                queries,
                metric,
                k,
                allowed=places,
                threshold=threshold,
                codes=segment.codes,
                threads=threads,
            )
            parts.append(replace(part, rows=[segment.ids[rows] for rows in part.rows], skipped=0))
        if len(parts) == 1:
            return parts[0]
        rows, scores = [], []
        for query in range(len(parts[0].rows)):
            ids = np.concatenate([part.rows[query] for part in parts])
            values = np.concatenate([part.scores[query] for part in parts])
            best = np.lexsort((ids, values if metric.is_distance else -values))[:k]
            rows.append(ids[best])
            scores.append(values[best])
        candidates, rescored = (sum(getattr(part, name) for part in parts) for name in ("candidates", "rescored"))
        recall = min(part.recall for part in parts)
        return Nearest(rows, scores, candidates, 0, rescored, parts[0].backend, recall)

    @property
    def approximate(self) -> Approximate | None:
        """The approximate index over the base, if there is one."""
        return None if self._approximate is None else self._approximate.index

    # --- changes

    def known(self) -> tuple[Rows, Hashes]:
        """The ids that are there, rising, and the hash that each came with."""
        parts = [(segment.ids[~segment.gone], segment.hashes[~segment.gone]) for segment in self._segments]
        ids = np.concatenate([np.empty(0, np.int64), *(part for part, _ in parts)])
        hashes = np.concatenate([np.empty(0, np.uint64), *(part for _, part in parts)])
        order = np.argsort(ids, kind="stable")
        return ids[order], hashes[order]

    def add(self, ids: Rows, vectors: Vectors, hashes: Hashes | None = None) -> None:
        """Add or replace vectors. An id whose row is apart, NULL for one, is removed; the last of equal ids counts.

        Args:
            hashes: (n,) of what the rows hold, for `known`; None: zeros.

        Raises:
            InputError[search.dimension].
        """
        assert len(ids) == len(vectors)
        if vectors.dimension not in (0, self.dimension):
            raise InputError(
                "search.dimension",
                f"the vectors hold {vectors.dimension} numbers, those of the index {self.dimension}",
            )
        order = np.argsort(np.asarray(ids, np.int64), kind="stable")
        ids = np.asarray(ids, np.int64)[order]
        last = np.append(ids[1:] != ids[:-1], True) if len(ids) else np.empty(0, np.bool_)
        with self._changing:
            self.remove(ids[last])
            kept = np.flatnonzero(last & ~np.isnan(vectors.norms[order]))
            if len(kept):
                taken = vectors.take(order[kept])
                counted = np.zeros(len(kept), np.uint64) if hashes is None else hashes[order[kept]]
                segment = Segment.of(ids[kept], counted, Vectors([Chunk(0, taken)], self.dimension))
                self._segments = self._settled((*self._segments, segment))

    def remove(self, ids: Rows) -> int:
        """Remove vectors; ids that are not there are passed over. How many were there."""
        ids = np.unique(np.asarray(ids, np.int64))
        removed = 0
        with self._changing:
            made = []
            for number, segment in enumerate(self._segments):
                places = segment.places(ids)
                removed += len(places)
                left = segment.without(places) if len(places) else segment
                if left.live or number < self._frozen:
                    made.append(left)
            self._segments = tuple(made)
        return removed

    def commit(self, token: str, *, on_disk: bool = True) -> None:
        """Make what has changed durable, and keep `token` with it.

        Args:
            on_disk: also after a power cut; waits for the disk.

        Raises:
            StateError[vector_index.other_writer]: another process has changed the folder; nothing is written.
            ExternalError: of the disk; the index on disk is as it was.
        """
        with self._changing, outside(f"writing {self.folder}"):
            self._check_alone()
            self._segments = tuple(self._stored(segment) for segment in self._segments)
            manifest = {
                "format": _FORMAT,
                "version": VERSION,
                "dimension": self.dimension,
                "token": token,
                "generation": self._generation + 1,
                "files": self._files,
                "segments": [self._listed(segment, on_disk) for segment in self._segments if segment.live],
                "approximate": self._kept(),
            }
            text = json.dumps({**manifest, "checksum": _digest(manifest)}, indent=1) + "\n"
            replace_file(self.folder / MANIFEST, text.encode(), on_disk=on_disk)
            self._generation += 1
            self.token = token
            self._clean(manifest)

    def build_approximate(
        self, kind: str, metric: Metric, target: float = 0.99, *, on_disk: bool = True
    ) -> Approximate:
        """Build an approximate index, in place of the one there is, and commit it; segments are merged before.

        It is built anew by each `merge`. Changes wait until it is there.

        Args:
            kind: "ivf" or "hnsw".
            target: the recall that it has to show to be used.

        Raises:
            InputError[vector_index.empty, vector_index.kind, vector_index.recall, vector_index.extra].
            As `commit`.
        """
        with self._changing:
            if len(self) == 0:
                raise InputError("vector_index.empty", "an index of no vectors has nothing to build on")
            if len(self._segments) > 1 or self._segments[0].file is None or self._segments[0].removed:
                self._approximate = None
                self.merge(on_disk=on_disk)
            self._approximate = self._built(self._segments[0], kind, metric, target, on_disk)
            self.commit(self.token, on_disk=on_disk)
            return self._approximate.index

    @property
    def merge_is_due(self) -> bool:
        """Whether `merge` is worth its while: a quarter is removed or not in the base, or segments are many."""
        if not self._segments:
            return False
        rest = len(self) - self._segments[0].live
        removed = sum(segment.removed for segment in self._segments)
        return 4 * (rest + removed) > len(self) + removed or len(self._segments) > _SEGMENTS_MAX

    def merge(self, *, on_disk: bool = True) -> None:
        """Make all segments one, and commit it. May run in a thread of its own: others search and change meanwhile.

        The approximate index is built anew, and let go where faiss is not installed.

        Cost: reads and writes everything; memory for ids and norms alone.

        Raises:
            As `commit`.
        """
        with self._changing:
            before = self._segments
            if len(self) == 0:
                return
            self._frozen, self._merging = len(before), self._next_file()
        try:
            with outside(f"writing {self.folder}"):
                merged = Segment.merged(before, self._merging)
            again = None
            if self._approximate is not None and is_installed():
                was = self._approximate.index
                again = self._built(merged, was.kind, was.metric, was.target, on_disk)
            with self._changing:
                for then, now in zip(before, self._segments, strict=False):
                    if now is not then:
                        gone = np.setdiff1d(then.ids[~then.gone], now.ids[~now.gone], assume_unique=True)
                        merged = merged.without(merged.places(gone))
                kept = (merged,) if merged.live else ()
                self._segments = (*kept, *self._segments[len(before) :])
                self._frozen, self._merging, self._approximate = 0, None, again
                self.commit(self.token, on_disk=on_disk)
        finally:
            self._frozen, self._merging = 0, None

    def _settled(self, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """Segments of which each is more than twice as large as the next, or too large to be merged by the way."""
        while len(segments) - 2 >= self._frozen and len(segments) > 1:
            *before, one, other = segments
            if one.live > 2 * other.live or one.live + other.live > _MERGED_AT_ONCE:
                break
            segments = (*before, Segment.merged([one, other]))
        return segments

    # --- files

    def _next_file(self) -> Path:
        self._files += 1
        return self.folder / f"{self._files:06}.segment"

    def _stored(self, segment: Segment) -> Segment:
        is_there = segment.file is not None or segment.live == 0
        return segment if is_there else segment.written(self._next_file())

    def _listed(self, segment: Segment, on_disk: bool) -> dict[str, Any]:
        """A segment's entry in the manifest; the file of its removed rows is written."""
        assert segment.file is not None
        known = self._sums.get(segment.file.name)
        if known is None:
            known = self._sums[segment.file.name] = checksum(segment.file, on_disk=on_disk)
        entry: dict[str, Any] = {"file": segment.file.name, "rows": len(segment), "crc32": known, "removed": None}
        if segment.removed:
            bits = np.packbits(segment.gone, bitorder="little").tobytes()
            name = f"{segment.file.stem}.{zlib.crc32(bits):08x}.removed"
            path = self.folder / name
            if not path.exists():
                replace_file(path, bits, on_disk=False)
                if on_disk:
                    sync_file(path)
            entry["removed"] = {"file": name, "rows": segment.removed, "crc32": zlib.crc32(bits)}
        return entry

    def _built(self, segment: Segment, kind: str, metric: Metric, target: float, on_disk: bool) -> _Built:
        """An approximate index over a segment, in its file."""
        assert segment.file is not None
        made = Approximate.built(segment.vectors, segment.codes, kind, metric, target)
        content = made.content()
        found = zlib.crc32(content)
        file = segment.file.with_suffix(f".{found:08x}.faiss")
        with outside(f"writing {self.folder}"):
            replace_file(file, content, on_disk=on_disk)
        return _Built(made, segment.file, file, found)

    def _kept(self) -> dict[str, Any] | None:
        """The manifest's entry of the approximate index, which goes with its segment."""
        built = self._approximate
        if built is None or not any(segment.file == built.of and segment.live for segment in self._segments):
            self._approximate = None
            return None
        told = {name: getattr(built.index, name) for name in ("kind", "target", "recall", "effort")}
        told |= {"metric": built.index.metric.value, "segment": built.of.name}
        return {"file": built.file.name, "crc32": built.crc32, **told}

    def _check_alone(self) -> None:
        path = self.folder / MANIFEST
        found = json.loads(path.read_bytes()).get("generation") if path.exists() else 0
        if found != self._generation:
            raise StateError(
                "vector_index.other_writer",
                f"{self.folder} was changed by another process since it was opened",
                hint="open it again; one process at a time may change an index",
            )

    def _clean(self, manifest: dict[str, Any]) -> None:
        """Delete files that no longer count. Whoever has them mapped goes on reading them."""
        kept = {entry["file"] for entry in manifest["segments"]}
        self._sums = {name: found for name, found in self._sums.items() if name in kept}
        kept |= {entry["removed"]["file"] for entry in manifest["segments"] if entry["removed"]}
        if manifest["approximate"]:
            kept.add(manifest["approximate"]["file"])
        writing = "" if self._merging is None else self._merging.stem
        for path in self.folder.iterdir():
            is_ours = path.suffix in (".segment", ".removed", ".faiss") and path.name.split(".")[0] != writing
            if is_ours and path.name not in kept:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Built:
    """An approximate index, the file of the segment that it is of, its own, and its checksum."""

    index: Approximate
    of: Path
    file: Path
    crc32: int


def _approximately(
    index: Approximate, segment: Segment, queries: npt.ArrayLike, k: int, threshold: float | None
) -> Nearest | None:
    """The answer of an approximate index, as ids; None where it gives too few."""
    rows, scores = index.search(segment.vectors, queries, k)
    if min(map(len, rows), default=0) < min(k, segment.live):
        return None
    if threshold is not None:
        keep = [found <= threshold if index.metric.is_distance else found >= threshold for found in scores]
        rows = [found[kept] for found, kept in zip(rows, keep, strict=True)]
        scores = [found[kept] for found, kept in zip(scores, keep, strict=True)]
    count = sum(map(len, rows))
    return Nearest([segment.ids[found] for found in rows], scores, segment.live, 0, count, index.backend, index.recall)


def _nothing(dimension: int) -> Segment:
    nothing = np.empty(0, np.int64), np.empty(0, np.uint64)
    return Segment.of(*nothing, Vectors.of(np.empty((0, dimension), np.float32)))


def _digest(manifest: dict[str, Any]) -> int:
    """CRC-32 of a manifest without its own."""
    return zlib.crc32(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())


def _manifest_text(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise StateError("vector_index.missing", f"{folder} holds no vector index", hint="create it") from None


def _opened(folder: Path, text: bytes, verify: bool) -> VectorIndex:
    """The index of a manifest.

    Raises:
        FileNotFoundError: a file of it is not there.
        StateError.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(text)
        told = manifest.pop("checksum")
        kind, version = manifest["format"], manifest["version"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise damaged(path, "it cannot be read") from error
    if kind == _FORMAT and version != VERSION:
        raise other_version(path, version)
    if kind != _FORMAT or told != _digest(manifest):
        raise damaged(path, "its checksum is not that of its content")
    index = VectorIndex(folder, manifest["dimension"])
    index.token, index._generation, index._files = manifest["token"], manifest["generation"], manifest["files"]
    segments = []
    for entry in manifest["segments"]:
        file = folder / entry["file"]
        if verify and checksum(file) != entry["crc32"]:
            raise damaged(file, "its checksum is not the manifest's")
        segment = Segment.opened(file, entry["rows"], index.dimension)
        if entry["removed"]:
            segment = segment.without(_removed(folder / entry["removed"]["file"], entry))
        index._sums[file.name] = entry["crc32"]
        segments.append(segment)
    index._segments = tuple(segments)
    if told := manifest["approximate"]:
        file = folder / told["file"]
        if verify and checksum(file) != told["crc32"]:
            raise damaged(file, "its checksum is not the manifest's")
        parts = told["kind"], Metric(told["metric"]), told["target"], told["recall"], told["effort"]
        index._approximate = _Built(Approximate(*parts, file), folder / told["segment"], file, told["crc32"])
    return index


def _removed(file: Path, entry: dict[str, Any]) -> Rows:
    """The places of removed rows. Always verified: it is small."""
    bits = file.read_bytes()
    if zlib.crc32(bits) != entry["removed"]["crc32"]:
        raise damaged(file, "its checksum is not the manifest's")
    return np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), count=entry["rows"], bitorder="little"))
