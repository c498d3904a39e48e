"""Directory: the files of a folder, one after another in the order of their names.

A file counts when it is complete. Hidden names (`.x`, `_x`) and names of unfinished files (`.tmp`, `.part`, ...) are
left alone until they are renamed; any other file is taken when its size and time have stayed the same for `settle_ms`,
by its own time when it is first seen.
A file that is still written holds back those with later names, as the position of the stream is a name. A query over
what is available now waits for the files that are there.

Offsets: `b.csv` is after that file and all before it; `b.csv/1200/8812` after 1,200 rows of it, when it has 8,812
bytes. A name has no slash, so the two cannot be mixed up.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from velaria_core.contract.abi import (
    Batch,
    Blocked,
    CheckpointMarker,
    EndOfStream,
    Offset,
    SourceContext,
    SourceInfo,
    TextOffset,
)
from velaria_core.contract.modes import Pushdown
from velaria_core.errors import DataError, ExternalError, InputError, StateError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.duck import Engine
from velaria_core.execution.files.paths import PathLike, within
from velaria_core.execution.outside import os_error
from velaria_core.execution.sources.reading import FileFormat
from velaria_core.execution.sources.tables import gone, whole_number

UNFINISHED_PREFIXES = (".", "_")
UNFINISHED_SUFFIXES = (".tmp", ".temp", ".part", ".partial", ".inprogress", ".crdownload", ".swp")
SETTLE_MS = 200
POLL_MS = 100


class LateFiles(StrEnum):
    """What a file does that appears with a name before the stream's position, where it will not be read."""

    FAIL = "fail"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class _Version:
    """What a file was at a look, and since when."""

    size: int
    mtime_ns: int
    since_ms: float


@dataclass(frozen=True, slots=True)
class _Place:
    """After `name`, or after so many rows of it when it has `size` bytes."""

    name: str = ""
    rows: int = 0
    size: int = 0

    @property
    def token(self) -> str:
        return f"{self.name}/{self.rows}/{self.size}" if self.rows else self.name

    @staticmethod
    def parse(token: str | None) -> _Place:
        name, slash, rest = (token or "").partition("/")
        if not slash:
            return _Place(name)
        rows, _, size = rest.partition("/")
        return _Place(name, whole_number(rows), whole_number(size))


class DirectorySource:
    """The rows of the files of one folder; folders in it are not looked into.

    Args:
        engine: whose readers, limits and roots are used.
        folder: where the files are or will be.
        using: csv, tsv, line, json, jsonl, parquet, arrow or feather.
        options: keyword arguments of that reader, e.g. {"delimiter": "|", "on_error": "skip"}.
        schema: of every file; None: that of the first file there, in which case one must be there.
        pattern: which names are meant, e.g. "*.csv"; None: all.
        bounded: read the files that are there at `open`, as they are, and end.
        settle_ms: how long a file must stay the same to be complete; 0 when all files appear by renaming.
        poll_ms: how often to look for new files.
        late_files: what a new file with a name before the position does, once: "fail" or "ignore".
        time_column: the column of event times.
        clock: for `settle_ms` and `poll_ms`.

    Raises:
        InputError[option.unknown_format, source.no_schema, file.not_found], ExternalError[file.forbidden].
    """

    def __init__(
        self,
        engine: Engine,
        folder: PathLike,
        using: str,
        *,
        options: Mapping[str, Any] | None = None,
        schema: pa.Schema | None = None,
        pattern: str | None = None,
        bounded: bool = False,
        settle_ms: float = SETTLE_MS,
        poll_ms: float = POLL_MS,
        late_files: str | LateFiles = LateFiles.FAIL,
        time_column: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._engine = engine
        self._folder = within(engine.settings, os.path.abspath(os.path.expanduser(os.fspath(folder))))
        self._format = FileFormat(using, dict(options or {}))
        self._pattern = pattern
        self._settle_ms = 0.0 if bounded else settle_ms
        self._poll_ms = poll_ms
        self._late = LateFiles(late_files)
        self._clock = clock
        self._info = SourceInfo(
            schema=schema if schema is not None else self._found_schema(),
            bounded=bounded,
            replayable=True,
            time_column=time_column,
            pushdown=frozenset({Pushdown.PROJECTION}),
        )
        self._context: SourceContext | None = None
        self._place = _Place()
        self._reading: Generator[pa.Table, None, None] | None = None
        self._rest: pa.Table | None = None  # rows that were read and not given yet
        self._listed: list[str] | None = None  # the names of a bounded read that are still to come
        self._seen: dict[str, _Version] = {}
        self._passed: set[str] | None = None  # the names up to the position that are known; None: before a look
        self._look_at_ms = 0.0
        self._current = ""  # the file that is read: how long it is, how many of its rows are given
        self._size = self._given_rows = 0
        self._failure: Exception | None = None

    def _found_schema(self) -> pa.Schema:
        for name in self._names():
            path = self._path(name)
            if os.path.getsize(path) or not self._format.is_text:
                return self._format.opened(self._engine, path, None).relation.schema
        raise InputError(
            "source.no_schema",
            f'no file in "{self._folder}" tells the columns',
            hint="pass schema=, or put a first file there",
        )

    # --- the contract

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        place = _Place.parse(context.resume_from)
        self._names()  # tells of a folder that cannot be read
        if place.rows:
            try:
                size = os.stat(self._path(place.name)).st_size
            except FileNotFoundError as error:
                raise gone(f'"{self._path(place.name)}" was read in part, and is not there any more') from error
            if size != place.size:
                raise StateError(
                    "source.changed",
                    f'"{self._path(place.name)}" was read in part at {place.size} bytes, and has {size} now',
                    hint="bring the file back as it was, or start with an empty checkpoint_path",
                )
        self._context = context
        self._place = place
        self._reading = self._rest = self._passed = self._failure = None
        self._seen = {}
        self._listed = self._after(self._names(), place) if self._info.bounded else None
        self._look_at_ms = self._clock.ticks_ms()

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        assert self._context is not None, "next_batch comes after open"
        while True:
            if self._rest is not None:
                return self._given(self._rest, max(max_rows, 1))
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._reading is None:
                name = self._next_name()
                if isinstance(name, (Blocked, EndOfStream)):
                    return name
                self._reading = self._read(name)
            self._rest = self._next_table()

    def _next_table(self) -> pa.Table | None:
        """The next rows of the file; None when it is done, or cannot be read further (`_failure`)."""
        assert self._reading is not None
        try:
            table = next(self._reading, None)
        except Exception as error:  # noqa: BLE001 -- raised by the next call, after the rows before it
            self._failure, self._reading = error, None
            return None
        if table is None:
            self._reading = None
            self._place = _Place(self._current)
        return table

    def _given(self, table: pa.Table, max_rows: int) -> Batch:
        rows = table.slice(0, max_rows)
        self._given_rows += rows.num_rows
        self._place = _Place(self._current, self._given_rows, self._size)
        self._rest = table.slice(max_rows) if table.num_rows > max_rows else None
        if self._rest is None and self._reading is not None:
            # One table further is looked at, so that the offset after the last row is that of the whole file.
            self._rest = self._next_table()
        return Batch(rows, TextOffset(self._place.token))

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: the files stay where they are."""

    def ack(self, offset: Offset) -> None:
        """Nothing to do: the files stay where they are."""

    def close(self) -> None:
        if self._reading is not None:
            self._reading.close()  # gives its connection back
        self._reading = self._rest = self._listed = self._context = None

    # --- which file is next

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _names(self) -> list[str]:
        """The names that are meant, sorted."""
        try:
            with os.scandir(self._folder) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if not entry.name.startswith(UNFINISHED_PREFIXES)
                    and not entry.name.lower().endswith(UNFINISHED_SUFFIXES)
                    and (self._pattern is None or fnmatch.fnmatchcase(entry.name, self._pattern))
                    and entry.is_file()
                )
        except FileNotFoundError as error:
            raise ExternalError(
                "file.not_found",
                f'there is no folder "{self._folder}"',
                hint="make it first",
                retryable=True,
                cause=error,
            ) from error
        except OSError as error:
            raise os_error(f'looking into "{self._folder}"', error) from error

    @staticmethod
    def _after(names: list[str], place: _Place) -> list[str]:
        return [name for name in names if name > place.name or (place.rows and name == place.name)]

    def _next_name(self) -> str | Blocked | EndOfStream:
        if self._listed is not None:
            return self._listed.pop(0) if self._listed else EndOfStream()
        now = self._clock.ticks_ms()
        if now < self._look_at_ms:
            return self._blocked(self._look_at_ms - now)
        names = self._names()
        coming = self._after(names, self._place)
        self._tell_of_late(set(names) - set(coming))
        versions = {name: version for name in coming if (version := self._version(name, now)) is not None}
        self._seen = versions
        if not versions:
            self._look_at_ms = now + self._poll_ms
            return self._blocked(self._poll_ms)
        first = min(versions)
        left = self._settle_ms - (now - versions[first].since_ms)
        if left > 0:
            return self._blocked(min(left, self._poll_ms), pending=True)
        assert self._passed is not None
        self._passed.add(first)
        return first

    @staticmethod
    def _blocked(milliseconds: float, *, pending: bool = False) -> Blocked:
        return Blocked(max(1, round(milliseconds)), pending)

    def _version(self, name: str, now: float) -> _Version | None:
        """The file as it is now; None when it has just gone."""
        try:
            found = os.stat(self._path(name))
        except FileNotFoundError:
            return None
        before = self._seen.get(name)
        if before is not None and (before.size, before.mtime_ns) == (found.st_size, found.st_mtime_ns):
            return before
        # A file that is seen for the first time may have stood there for long: its own time says since when.
        age_ms = max(0.0, self._clock.now_ms() - found.st_mtime_ns / 1e6) if before is None else 0.0
        return _Version(found.st_size, found.st_mtime_ns, now - age_ms)

    def _tell_of_late(self, behind: set[str]) -> None:
        late = behind - self._passed if self._passed is not None else set()
        self._passed = behind  # also when it is told of: the query can go on after that
        if late and self._late is LateFiles.FAIL:
            raise DataError(
                "source.late_file",
                f'"{min(late)}" appeared in "{self._folder}" after "{self._place.name}" was read, and is not read',
                hint='name files in the order in which they come; late_files="ignore" leaves such files out',
            )

    # --- reading

    def _read(self, name: str) -> Generator[pa.Table, None, None]:
        """The rows of a file from the position on."""
        assert self._context is not None
        skip = self._place.rows if name == self._place.name else 0
        self._current, self._given_rows = name, skip
        path = self._path(name)
        try:
            self._size = os.stat(path).st_size
        except OSError as error:
            raise os_error(f'reading "{path}"', error) from error
        return self._rows(path, skip)

    def _rows(self, path: str, skip: int) -> Generator[pa.Table, None, None]:
        assert self._context is not None
        if self._size or not self._format.is_text:
            for table in self._format.batches(self._engine, path, self._info.schema, self._context.pushed.columns):
                kept = table.slice(min(skip, table.num_rows))
                skip -= table.num_rows - kept.num_rows
                if kept.num_rows:
                    yield kept
        if skip:
            raise gone(f'"{path}" has {skip} rows less than the query has read')
        if os.stat(path).st_size != self._size:
            raise StateError(
                "source.changed",
                f'"{path}" was {self._size} bytes long when it was taken, and has changed since',
                hint="write files under another name and rename them, or raise settle_ms",
            )
