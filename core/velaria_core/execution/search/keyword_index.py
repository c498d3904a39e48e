"""Keyword index: postings kept beside a table, which search it by BM25 without reading its texts.

An index is a few immutable parts (`postings`) and a mark at each of their documents that is deleted. What is added is
a new part; parts that are small are merged as they come, so that there are few of them. Scores are those of
`logical.bm25` over the rows that are there: a deleted one counts nowhere.

The folder is described in docs/keyword_index.md. It changes with `save` alone, which replaces its manifest whole.
"""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from velaria_core.errors import InputError, StateError
from velaria_core.execution.duck import Engine
from velaria_core.execution.outside import outside, replace_file, sync_folder
from velaria_core.execution.search.array_file import checksum, read_arrays, write_arrays
from velaria_core.execution.search.keyword_search import Corpus, Found, places_of
from velaria_core.execution.search.postings import Postings, merged, posted
from velaria_core.execution.vectors import Hashes, Mask, Rows
from velaria_core.logical.analyzers import analyzer
from velaria_core.logical.bm25 import check_weights
from velaria_core.logical.keyword_query import KeywordQuery

FORMAT: Final = "velaria-keyword-index"
VERSION: Final = 2
"""Of the folder, and of the terms that analyzers make: an index that would be cut differently today is another."""
MANIFEST: Final = "manifest.json"

# What is made into a part at a time: 20 bytes of memory for each of text.
_PART_ROWS_MAX: Final = 1 << 20
_PART_BYTES_MAX: Final = 1 << 27
# Above this, parts are merged only when asked: it takes seconds.
_MERGED_ROWS_MAX: Final = 1 << 17
_FILE: Final = re.compile(r"(?:part|deleted)-(\d+)\.bin")


@dataclass(slots=True)
class _Part:
    """Postings, the documents of them that are there, and the files that hold both; None where they are not saved."""

    postings: Postings
    kept: Mask
    file: dict[str, Any] | None = None
    deleted: dict[str, Any] | None = None

    @property
    def rows(self) -> int:
        return int(np.count_nonzero(self.kept))


class KeywordIndex:
    """An index over some columns of text of a table whose rows have ids, int64.

    One thread at a time changes it; any number search it meanwhile, each over the index as it was when it began.

    Args:
        columns: the names of the columns.
        analyzer: which cuts their texts.
    """

    def __init__(self, columns: Sequence[str], analyzer_name: str = "standard") -> None:
        self.columns = tuple(columns)
        self.analyzer = analyzer(analyzer_name)
        self.token = ""
        """What the last save was told: how far the table was."""
        self._parts: list[_Part] = []
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._corpus: Corpus | None = None

    def __len__(self) -> int:
        """How many rows are in it."""
        return sum(part.rows for part in self._parts)

    @property
    def parts(self) -> int:
        """How many parts it has."""
        return len(self._parts)

    # --- searching

    def search(
        self,
        query: KeywordQuery,
        k: int,
        *,
        weights: Mapping[str, float] | None = None,
        allowed: npt.NDArray[np.int64] | None = None,
        over_allowed: bool = True,
    ) -> Found:
        """The k best rows of a query, exactly.

        Args:
            query: made with the analyzer of this index.
            k: at least 1.
            weights: of the columns to search; None is all with 1.
            allowed: the row ids that may be found, rising; None is all.
            over_allowed: whether the statistics are of the allowed rows, or of all.
        Raises:
            InputError[search.top_k]: k is less than 1.
            InputError[search.analyzer]: the query was made with another analyzer.
            InputError[search.column]: a weight is of no column of the index.
            InputError[search.weight]: a weight is out of range.
        """
        if k < 1:
            raise InputError("search.top_k", f"top_k is {k}", hint="ask for at least 1 row")
        if query.analyzer != self.analyzer.name:
            raise InputError(
                "search.analyzer",
                f'a query cut by "{query.analyzer}" cannot search an index cut by "{self.analyzer.name}"',
            )
        asked = dict.fromkeys(self.columns, 1.0) if weights is None else dict(weights)
        check_weights(asked)
        for name in asked:
            if name not in self.columns:
                raise InputError(
                    "search.column",
                    f'the index has no column "{name}"',
                    hint=f"its columns: {', '.join(self.columns)}",
                )
        by_column = tuple(float(asked.get(name, 0.0)) for name in self.columns)
        return self._whole().search(query, k, by_column, allowed, over_allowed=over_allowed)

    def _whole(self) -> Corpus:
        with self._lock:
            if self._corpus is None:
                parts = [part.postings for part in self._parts]
                kept = np.concatenate([np.empty(0, np.bool_), *(part.kept for part in self._parts)])
                self._corpus = Corpus(parts, None if kept.all() else kept)
            return self._corpus

    # --- changing

    def known(self) -> tuple[Rows, Hashes]:
        """The row ids that are there, rising, and the hash that each came with."""
        rows = np.concatenate([np.empty(0, np.int64), *(part.postings.rows[part.kept] for part in self._parts)])
        hashes = np.concatenate([np.empty(0, np.uint64), *(part.postings.hashes[part.kept] for part in self._parts)])
        order = np.argsort(rows, kind="stable")
        return rows[order], hashes[order]

    def add(self, engine: Engine, rows: npt.NDArray[np.int64], texts: pa.Table, hashes: Hashes | None = None) -> None:
        """Add rows.

        Args:
            engine: cuts the texts.
            rows: (n,) row ids, in any order, none in the index.
            texts: n rows with the index's columns, string; others are not looked at.
            hashes: (n,) of what the rows hold, for `known`; None: zeros.
        Raises:
            InputError[search.row_exists]: a row id is in the index already, or twice among the rows.
        """
        rows = np.asarray(rows, np.int64)
        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order]
        counted = np.zeros(len(rows), np.uint64) if hashes is None else hashes[order]
        self._refuse_known(sorted_rows)
        if not np.array_equal(order, np.arange(len(order))):
            texts = texts.take(pa.array(order))
        columns = [texts.column(name).cast(pa.string()) for name in self.columns]
        size = sum(column.nbytes for column in columns)
        step = max(1, min(_PART_ROWS_MAX, len(rows) * _PART_BYTES_MAX // max(size, 1)))
        made = []
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            some = [one.slice(start, step) for one in columns]
            postings = posted(engine, self.analyzer, sorted_rows[part], counted[part], some)
            made.append(_Part(postings, np.ones(len(postings), np.bool_)))
        with self._lock:
            self._parts = _leveled([*self._parts, *made])
            self._corpus = None

    def _refuse_known(self, rows: Rows) -> None:
        known = rows[1:][rows[1:] == rows[:-1]]
        for part in self._parts:
            at, which = places_of(part.postings.rows, rows)
            known = np.append(known, rows[which[part.kept[at]]])
        if len(known):
            raise InputError(
                "search.row_exists",
                f"row {known[0]} is in the index already" + (f", and {len(known) - 1} more" if len(known) > 1 else ""),
                hint="remove a row before it is added anew",
            )

    def remove(self, rows: npt.NDArray[np.int64]) -> int:
        """Remove rows by their ids.

        Returns:
            How many of them were in the index.
        """
        rows = np.unique(np.asarray(rows, np.int64))
        gone = 0
        parts = []
        for part in self._parts:
            at, _ = places_of(part.postings.rows, rows)
            at = at[part.kept[at]]
            if len(at):
                gone += len(at)
                kept = part.kept.copy()
                kept[at] = False
                part = _Part(part.postings, kept, part.file)
            if part.rows:
                parts.append(part)
        if gone:
            with self._lock:
                self._parts, self._corpus = parts, None
        return gone

    @property
    def merge_is_due(self) -> bool:
        """Whether `merge` is worth its while: more rows are removed than are there."""
        return sum(len(part.postings) for part in self._parts) > 2 * len(self)

    def merge(self) -> None:
        """Make one part of all, without what is deleted. About 0.2 us a posting."""
        if len(self._parts) < 2 and all(part.kept.all() for part in self._parts):
            return
        with self._lock:
            self._parts, self._corpus = [_merged(self._parts)], None

    # --- the folder

    def save(self, folder: str | Path, token: str = "") -> None:
        """Write what has changed. Whoever opens the folder finds the index before or after, also after a crash.

        Args:
            token: whatever says how far the table is; the next `open` gives it back.
        Raises:
            ExternalError[disk.full, file.forbidden, file.io]: the folder holds the index as it was.
        """
        folder = Path(folder).resolve()
        with outside(f"writing the keyword index {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            if folder != self._folder:
                for part in self._parts:
                    part.file = part.deleted = None
                self._folder = folder
            for part in self._parts:
                if part.file is None:
                    part.file = _written(folder, "part", part.postings.arrays())
                if part.deleted is None and not part.kept.all():
                    part.deleted = _written(folder, "deleted", {"documents": np.flatnonzero(~part.kept)})
            sync_folder(folder)
            told = {
                "format": FORMAT,
                "version": VERSION,
                "analyzer": self.analyzer.name,
                "columns": list(self.columns),
                "token": token,
                "rows": len(self),
                "parts": [{"postings": part.file, "deleted": part.deleted} for part in self._parts],
            }
            replace_file(folder / MANIFEST, _signed(told))
            self.token = token
            named = {one["file"] for part in self._parts for one in (part.file, part.deleted) if one is not None}
            for name in _files(folder).keys() - named:
                (folder / name).unlink()

    @staticmethod
    def open(folder: str | Path) -> KeywordIndex:
        """The index of a folder: its files are read once for their checksums, at 1 GB/s, and mapped.

        Raises:
            StateError[search.index_missing]: there is none.
            StateError[search.index_version]: it is of another version.
            StateError[search.index_damaged]: a file is missing or has other content than was written.
            ExternalError[file.forbidden, file.io]: it cannot be read.
        """
        folder = Path(folder).resolve()
        with outside(f"reading the keyword index {folder}"):
            try:
                told = _read_manifest(folder)
                made = KeywordIndex(told["columns"], told["analyzer"])
                made.token, made._folder = told["token"], folder
                made._parts = [_opened(folder, one, len(made.columns)) for one in told["parts"]]
            except FileNotFoundError as error:
                _damaged(folder, f"{Path(error.filename).name} is missing")
            except (KeyError, TypeError, ValueError) as error:
                _damaged(folder, f"{type(error).__name__}: {error}")
        return made


def _leveled(parts: list[_Part]) -> list[_Part]:
    """The parts, the last ones merged while they are not much smaller than the one before."""
    while len(parts) > 1:
        *others, before, last = parts
        rows = before.rows + last.rows
        if before.rows > 2 * last.rows or rows > _MERGED_ROWS_MAX:
            break
        parts = [*others, _merged([before, last])]
    return parts


def _merged(parts: Sequence[_Part]) -> _Part:
    postings = merged([(part.postings, part.kept) for part in parts])
    return _Part(postings, np.ones(len(postings), np.bool_))


# --- files --------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, int]:
    """The files of an index by name, and their numbers."""
    return {path.name: int(found[1]) for path in folder.iterdir() if (found := _FILE.fullmatch(path.name))}


def _written(folder: Path, kind: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """A new file, of a name that none in the folder has: others may have it mapped."""
    path = folder / f"{kind}-{max(_files(folder).values(), default=0) + 1:06}.bin"
    found = write_arrays(path, arrays)
    return {"file": path.name, "bytes": path.stat().st_size, "crc32": found}


def _signed(told: Mapping[str, Any]) -> bytes:
    """A manifest with its own checksum as its last line."""
    text = json.dumps(told, indent=2, ensure_ascii=False)
    return f'{text[:-2]},\n  "crc32": {zlib.crc32(text.encode())}\n}}\n'.encode()


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise StateError(
            "search.index_missing", f"there is no keyword index in {folder}", hint="build it: CREATE KEYWORD INDEX"
        ) from None
    told: dict[str, Any] = json.loads(content)
    if told["format"] != FORMAT:
        raise ValueError(f"{MANIFEST} is of something else")
    if told["version"] != VERSION:
        raise StateError(
            "search.index_version",
            f"the keyword index in {folder} is of version {told['version']}, and this Velaria reads version {VERSION}",
            hint="build it anew from the table: nothing is lost",
        )
    rest = {name: value for name, value in told.items() if name != "crc32"}
    if _signed(rest) != content:
        raise ValueError(f"{MANIFEST} is not as it was written")
    return told


def _opened(folder: Path, told: Mapping[str, Any], columns: int) -> _Part:
    postings = Postings.of_arrays(_checked(folder, told["postings"]), columns)
    kept = np.ones(len(postings), np.bool_)
    if told["deleted"] is not None:
        kept[_checked(folder, told["deleted"])["documents"]] = False
    return _Part(postings, kept, told["postings"], told["deleted"])


def _checked(folder: Path, told: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    path = folder / told["file"]
    if not _FILE.fullmatch(told["file"]):
        raise ValueError(f"{told['file']} is no file of an index")
    if path.stat().st_size != told["bytes"] or checksum(path) != told["crc32"]:
        raise ValueError(f"{path.name} is not as it was written")
    return read_arrays(path)


def _damaged(folder: Path, what: str) -> NoReturn:
    raise StateError(
        "search.index_damaged",
        f"the keyword index in {folder} is damaged: {what}",
        hint="build it anew from the table: nothing is lost",
    )
