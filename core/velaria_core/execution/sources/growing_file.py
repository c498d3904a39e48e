"""Growing file: a text file that another program appends to, followed line by line.

Only whole lines are read; a CSV field in quotes may hold line ends. The position is a byte of one file: its inode and a
checksum of its first bytes tell whether the file is still the same. A file that was rotated (its name is now another
file's) is read to its end before the new one; one that was cut or written anew is an error, as rows may be lost.

Offsets: `8812:1179655:3610a686`, byte, inode and checksum; `...+500` after 500 more rows. Rows are not lines, so inside
of what was read at once the position counts rows.
"""

from __future__ import annotations

import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

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
from velaria_core.errors import DataError, InputError, StateError, VelariaError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.files.options import FORMATS
from velaria_core.execution.files.paths import PathLike, within
from velaria_core.execution.outside import os_error, outside
from velaria_core.execution.sources.reading import FileFormat
from velaria_core.execution.sources.tables import gone, whole_number

CHUNK_BYTES = 4 << 20
LINE_BYTES_MAX = 64 << 20
HEAD_BYTES = 256
POLL_MS = 100


class OnChange(StrEnum):
    """What happens when the name stands for another file, or the file is shorter or other than it was.

    follow: a rotated file is read to its end, then the new one from its beginning; anything else is a StateError.
    fail: any of these is a StateError.
    restart: go on at the beginning of what is there; rows of the old file may be lost, and those of one that was
        written anew come again. So it is not replayable.
    """

    FOLLOW = "follow"
    FAIL = "fail"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class _Place:
    """After so many bytes of a file, and so many rows of what follows them."""

    byte: int = 0
    inode: int = 0
    head: int = 0
    rows: int = 0

    @property
    def token(self) -> str:
        return f"{self.byte}:{self.inode}:{self.head:08x}" + (f"+{self.rows}" if self.rows else "")

    @staticmethod
    def parse(token: str) -> _Place:
        found = re.fullmatch(r"(\d+):(\d+):([0-9a-f]{8})(?:\+(\d+))?", token)
        if found is None:
            whole_number(token or "-")  # raises
            raise StateError("source.offset", f'"{token}" is no offset of this source')
        byte, inode, head, rows = found.groups()
        return _Place(int(byte), int(inode), int(head, 16), int(rows or 0))


class GrowingFileSource:
    """The lines of one file as they are appended.

    Args:
        engine: whose roots are kept to.
        path: the file; it may not be there yet when `schema` is given.
        using: csv, tsv, line or jsonl (json means the same).
        options: keyword arguments of the reader; a line file needs `split_delimiter` or a `regex_pattern`.
        schema: of the rows; None: what the reader finds in the file now.
        on_change: see OnChange.
        poll_ms: how often to look for new lines.
        time_column: the column of event times.
        clock: for `poll_ms`.

    Raises:
        InputError[option.unknown_format, option.missing, option.value, source.no_schema].
    """

    def __init__(
        self,
        engine: Engine,
        path: PathLike,
        using: str,
        *,
        options: Mapping[str, Any] | None = None,
        schema: pa.Schema | None = None,
        on_change: str | OnChange = OnChange.FOLLOW,
        poll_ms: float = POLL_MS,
        time_column: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._path = within(engine.settings, os.path.abspath(os.path.expanduser(os.fspath(path))))
        self._on_change = OnChange(on_change)
        self._format = _line_format(using, dict(options or {}))
        given = {**FORMATS[self._format.using].fixed, **self._format.options}
        is_csv = FORMATS[self._format.using].reader == "read_csv"
        self._has_header = is_csv and given["header"]
        self._quote = str(given["quote"]).encode() if is_csv else b""
        self._record = _record_pattern(str(given["delimiter"]), str(given["quote"])) if self._quote else None
        self._poll_ms = poll_ms
        self._clock = clock
        self._info = SourceInfo(
            schema=schema if schema is not None else self._found_schema(engine),
            bounded=False,
            replayable=self._on_change is not OnChange.RESTART,
            time_column=time_column,
            pushdown=frozenset({Pushdown.PROJECTION}),
        )
        self._context: SourceContext | None = None
        self._engine: Engine | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._stream: IO[bytes] | None = None
        self._header = b""
        self._place = _Place()
        self._end = _Place()  # after what was read at once
        self._reading: Iterator[pa.Table] | None = None
        self._rest: pa.Table | None = None
        self._failure: Exception | None = None
        self._look_at_ms = 0.0

    def _found_schema(self, engine: Engine) -> pa.Schema:
        if not os.path.exists(self._path) or not os.path.getsize(self._path):
            told = f'there are no lines in "{self._path}" to tell the columns'
            raise InputError("source.no_schema", told, hint="pass schema=")
        return self._format.opened(engine, self._path, None).relation.schema

    # --- the contract

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        """
        Raises:
            StateError[source.rotated, source.changed, source.offset]: the rows after the offset are not there.
            ExternalError[file.*].
        """
        self._rest = self._reading = self._failure = None
        self._look_at_ms = 0.0
        with outside(f'opening "{self._path}"'):
            if context.resume_from is not None:
                self._resume(_Place.parse(context.resume_from))
            else:
                self._place = _Place()
        # An engine of its own: it reads what was copied to a folder of its own, outside of any root.
        self._folder = tempfile.TemporaryDirectory(prefix="velaria-")
        self._engine = Engine(Settings(threads=1))
        self._context = context

    def _resume(self, place: _Place) -> None:
        self._place = place
        names = [self._path] if _inode(self._path) == place.inode else []
        if not names and self._on_change is OnChange.FOLLOW:
            names = self._rotated(place.inode)
        if not names and self._on_change is not OnChange.RESTART:
            raise _rotated_away(self._path)
        if not names:
            self._place = _Place()
            return
        self._stream = open(names[0], "rb")  # noqa: SIM115 -- closed by close
        try:
            self._start_of_file()
            self._check_same()
        except BaseException:
            self._let_go()
            raise

    def _rotated(self, inode: int) -> list[str]:
        """The rotated file of this inode, when no other was rotated after it."""
        old = [entry for entry in self._beside() if entry.inode() == inode]
        return [old[0].path] if old and not self._rotated_since(inode, old[0].stat().st_mtime_ns) else []

    def _rotated_since(self, inode: int, mtime_ns: int) -> bool:
        """Whether another file was rotated after the one of this inode: its rows would be passed over."""
        return any(entry.inode() != inode and entry.stat().st_mtime_ns > mtime_ns for entry in self._beside())

    def _beside(self) -> list[os.DirEntry[str]]:
        """Files whose names go on after that of the file, as `app.log.1` does."""
        folder, name = os.path.split(self._path)
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name.startswith(name) and entry.name != name]

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        assert self._context is not None, "next_batch comes after open"
        while self._rest is None:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._reading is None:
                now = self._clock.ticks_ms()
                if now < self._look_at_ms:
                    return Blocked(retry_after_ms=max(1, round(self._look_at_ms - now)))
                with outside(f'reading "{self._path}"'):
                    found = self._look()
                if not found:
                    self._look_at_ms = now + self._poll_ms
                    return Blocked(retry_after_ms=max(1, round(self._poll_ms)))
            self._advance()
        rows = self._rest.slice(0, max(max_rows, 1))
        self._rest = self._rest.slice(rows.num_rows) if rows.num_rows < self._rest.num_rows else None
        self._place = replace(self._place, rows=self._place.rows + rows.num_rows)
        if self._rest is None:
            # Looked at now, so that the offset after the last row of what was read is a byte.
            self._advance()
        return Batch(rows, TextOffset(self._place.token))

    def _advance(self) -> None:
        """More rows of what was read at once, or its end."""
        assert self._reading is not None
        try:
            self._rest = next(self._reading, None)
        except Exception as error:  # noqa: BLE001 -- raised by the next call, after the rows before it
            self._failure, self._reading = error, None
            return
        if self._rest is None:
            self._reading = None
            self._place = self._end

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: the file stays where it is."""

    def ack(self, offset: Offset) -> None:
        """Nothing to do: the file stays where it is."""

    def close(self) -> None:
        self._reading = self._rest = self._context = None
        self._let_go()
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    # --- the file

    def _look(self) -> bool:
        """Read whole lines that are new; False when there are none."""
        if self._stream is None:
            try:
                self._stream = open(self._path, "rb")  # noqa: SIM115 -- closed by close
            except FileNotFoundError:
                return False
            self._place = _Place(inode=os.fstat(self._stream.fileno()).st_ino)
        self._start_of_file()
        try:
            self._check_same()
        except StateError:
            if self._on_change is not OnChange.RESTART:
                raise
            self._let_go()
            return self._look()
        # Asked before the last look at the old file: what is written to it before it is rotated is seen.
        current = _inode(self._path)
        rotated = current is not None and current != self._place.inode
        if self._take(finished=rotated):
            return True
        if not rotated:
            return False
        if self._on_change is not OnChange.RESTART:
            assert self._stream is not None
            mtime_ns = os.fstat(self._stream.fileno()).st_mtime_ns
            if self._on_change is OnChange.FAIL or self._rotated_since(self._place.inode, mtime_ns):
                raise _rotated_away(self._path)
        self._let_go()
        return self._look()

    def _let_go(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self._header = b""

    def _start_of_file(self) -> None:
        """Read the header, once it is whole."""
        if self._has_header and not self._header:
            head = self._bytes(0, CHUNK_BYTES)
            self._header = head[: self._whole(head, only_first=True)]

    def _check_same(self) -> None:
        """
        Raises:
            StateError[source.changed]: the file is shorter than what was read of it, or begins with other bytes.
        """
        size = self._size()
        if size < self._place.byte or zlib.crc32(self._bytes(0, min(self._place.byte, HEAD_BYTES))) != self._place.head:
            told = "is shorter than what was read of it" if size < self._place.byte else "has been written anew"
            raise StateError(
                "source.changed",
                f'"{self._path}" {told} ({self._place.byte} bytes of it were read, it has {size})',
                hint='rotate files by renaming; on_change="restart" goes on with what is there',
            )

    def _take(self, *, finished: bool) -> bool:
        """Read the next whole lines; of a finished file also a last line without its end."""
        start = self._place.byte
        if self._has_header and start < len(self._header):
            start = len(self._header)
        if self._has_header and not self._header:
            return False
        wanted = CHUNK_BYTES
        while True:
            data = self._bytes(start, wanted)
            end = self._whole(data)
            if end == 0 and len(data) < wanted:
                end = len(data) if finished else 0
            if end or len(data) < wanted:
                break
            if wanted >= LINE_BYTES_MAX:
                told = f'a line of "{self._path}" is longer than {LINE_BYTES_MAX >> 20} MB'
                raise DataError("file.bad_row", told, hint="look for a quote that is not closed")
            wanted *= 4
        if not end:
            return False
        head = zlib.crc32(self._bytes(0, min(start + end, HEAD_BYTES)))
        self._end = _Place(start + end, self._place.inode, head)
        self._reading = self._rows(data[:end], start, self._place.rows)
        return True

    def _whole(self, data: bytes, *, only_first: bool = False) -> int:
        """How many bytes are whole lines."""
        end = data.find(b"\n") if only_first else data.rfind(b"\n")
        if end < 0 or self._record is None or data.count(self._quote, 0, end) % 2 == 0:
            return end + 1
        # The last line end is inside of quotes, or a quote stands where it means nothing: record by record.
        at = 0
        while (found := self._record.match(data, at)) is not None:
            at = found.end()
            if only_first:
                break
        return at

    def _size(self) -> int:
        assert self._stream is not None
        return os.fstat(self._stream.fileno()).st_size

    def _bytes(self, start: int, count: int) -> bytes:
        assert self._stream is not None
        self._stream.seek(start)
        return self._stream.read(count)

    # --- rows

    def _rows(self, lines: bytes, start: int, skip: int) -> Iterator[pa.Table]:
        """The rows of some lines but the first `skip`, through the reader of files."""
        assert self._engine is not None
        assert self._folder is not None
        assert self._context is not None
        copy = Path(self._folder.name, f"lines.{self._format.using}")
        try:
            copy.write_bytes(self._header + lines)
        except OSError as error:
            raise os_error(f"writing to {self._folder.name}", error) from error
        read = self._format.batches(self._engine, str(copy), self._info.schema, self._context.pushed.columns)
        try:
            for table in read:
                kept = table.slice(min(skip, table.num_rows))
                skip -= table.num_rows - kept.num_rows
                if kept.num_rows:
                    yield kept
        except VelariaError as error:
            self._tell_place(error, str(copy), start)
            raise
        if skip:
            raise gone(f'"{self._path}" has {skip} rows less after byte {start} than the query has read')

    def _tell_place(self, error: VelariaError, copy: str, start: int) -> None:
        """Name the file and the line that the user has, in place of the copy's."""
        error.message = error.message.replace(copy, self._path)
        error.args = (error.message,)
        if error.place is not None and error.place.file is not None:
            line = error.place.line
            if line is not None:
                line += self._lines_before(start) - self._header.count(b"\n")
            error.place = replace(error.place, file=self._path, line=line)

    def _lines_before(self, start: int) -> int:
        return sum(self._bytes(at, min(CHUNK_BYTES, start - at)).count(b"\n") for at in range(0, start, CHUNK_BYTES))


def _rotated_away(path: str) -> StateError:
    return StateError(
        "source.rotated",
        f'"{path}" is another file now, and the rest of the one that was read is not at hand',
        hint='keep the last rotated file beside it; on_change="restart" goes on with the new one',
    )


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def _line_format(using: str, options: dict[str, Any]) -> FileFormat:
    """The format with all that must not be found anew in each piece of the file.

    Raises:
        InputError[option.value]: a format or an option that needs the whole file.
        InputError[option.missing]: a line file without a delimiter or a pattern.
    """
    wanted = FileFormat("jsonl" if using == "json" else using, options)
    encoding = str(options.get("encoding") or "utf-8").lower()
    if not wanted.is_text or "16" in encoding or "32" in encoding or options.get("skip"):
        told = f'a growing file is csv, tsv, line or jsonl, in a plain encoding and without "skip", not {using}'
        raise InputError("option.value", told, hint="a directory source reads whole files of any format")
    match FORMATS[wanted.using].reader:
        case "read_csv":
            found = {"delimiter": ",", "header": True, "quote": '"', "escape": '"'}
            return FileFormat(wanted.using, {**found, **FORMATS[wanted.using].fixed, **options})
        case "read_line_file" if not (options.get("split_delimiter") or options.get("regex_pattern")):
            raise InputError("option.missing", "a growing line file needs split_delimiter or regex_pattern")
    return wanted


def _record_pattern(delimiter: str, quote: str) -> re.Pattern[bytes]:
    """One record of CSV with its line end."""
    d, q = re.escape(delimiter.encode()), re.escape(quote.encode())
    # Possessive: of two quotes the first never closes a field, also where what follows does not fit.
    field = rb"(?:%b(?:[^%b]|%b%b)*+%b[^%b\n]*|(?!%b)[^%b\n]*)" % (q, q, q, q, q, d, q, d)
    return re.compile(rb"%b(?:%b%b)*\n" % (field, d, field))
