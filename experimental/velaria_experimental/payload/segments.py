"""Segments: Arrow IPC in shared memory, as files of a folder in /dev/shm that its owner holds a lock on.

A process owns one folder and writes its segments there; any process of the user maps them by name, without copying. The
kernel of the system drops the lock when its holder dies, however it dies, so whoever can take the lock of a folder may
remove it: that is `sweep`, which every process calls as it starts and the scheduler when a worker is gone.

Invariant: a segment is complete when its name is told to anybody, and never changes.
Invariant: a name that comes from another process is looked for in folders of this user alone.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

import pyarrow as pa

from velaria_core.errors import ExternalError
from velaria_experimental.wire.frames import PAYLOAD_BYTES_MAX
from velaria_experimental.wire.status import Status, refused

_LOCK: Final = ".lock"
_NAME: Final = re.compile(r"velaria-x-\d+-[0-9a-f]{12}/[A-Za-z0-9._-]{1,200}")
_FOLDER: Final = re.compile(r"velaria-x-(\d+)-[0-9a-f]{12}")


def shared_memory_root() -> Path:
    """Where segments live: memory where the system has such a place, else the folder for temporary files."""
    named = os.environ.get("VELARIA_EXPERIMENTAL_SHM")
    if named:
        return Path(named)
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


class Segments:
    """The folder of this process: writes segments, and removes them one by one, by prefix, or all.

    Args:
        root: where folders of segments are; `shared_memory_root()` by default.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or shared_memory_root()
        self.folder = self.root / f"velaria-x-{os.getuid()}-{uuid.uuid4().hex[:12]}"
        # The lock is taken before the folder has its name: no sweep ever finds it unlocked.
        hidden = self.folder.with_name(f".{self.folder.name}")
        hidden.mkdir(mode=0o700)
        self._lock = os.open(hidden / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(self.folder)

    def write(self, name: str, table: pa.Table) -> tuple[str, int]:
        """Write a table as an Arrow IPC stream.

        Returns:
            The segment's name, as other processes are told, and its bytes.
        Raises:
            ExternalError[exchange.serialize_error]: there is no room, or the table is larger than a payload may be.
        """
        path = self.folder / name
        try:
            with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
                writer.write_table(table)
            size = path.stat().st_size
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ExternalError(
                "exchange.serialize_error",
                f"writing {name} to {self.root}: {error.strerror or error}",
                hint="free some of its space",
                retryable=True,
                cause=error,
            ) from error
        if size > PAYLOAD_BYTES_MAX:
            path.unlink(missing_ok=True)
            told = f"a payload has {PAYLOAD_BYTES_MAX} bytes at most, and this one {size}"
            raise refused(Status.SERIALIZE_ERROR, told, hint="use more tasks, so that each has fewer rows")
        return f"{self.folder.name}/{name}", size

    def remove(self, prefix: str) -> None:
        """Remove the segments whose names begin so; who has one mapped keeps reading it."""
        for path in list(self.folder.iterdir()):
            if path.name.startswith(prefix) and path.name != _LOCK:
                path.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """The segments that there are."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != _LOCK)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def located(segment: str, root: Path | None = None) -> Path:
    """The file of a segment that another process named.

    Raises:
        ExternalError[exchange.invalid_message]: it is no name of a segment of this user.
        ExternalError[exchange.missing_input]: there is no such file any more.
    """
    if not _NAME.fullmatch(segment):
        raise refused(Status.INVALID_MESSAGE, f"{segment[:80]!r} is no name of a segment")
    path = (root or shared_memory_root()) / segment
    try:
        found = os.lstat(path)
        owners = (found.st_uid, os.lstat(path.parent).st_uid)
    except OSError as error:
        raise refused(Status.MISSING_INPUT, f"there is no segment {segment}", retryable=True) from error
    if not stat.S_ISREG(found.st_mode) or owners != (os.getuid(), os.getuid()):
        raise refused(Status.INVALID_MESSAGE, f"{segment} is no segment of this user")
    return path


def mapped(segment: str, root: Path | None = None) -> pa.Table:
    """The rows of a segment, in the shared pages themselves: nothing is copied.

    Raises:
        ExternalError[exchange.missing_input, exchange.invalid_message, exchange.deserialize_error].
    """
    path = located(segment, root)
    try:
        with pa.memory_map(str(path), "r") as source:
            return pa.ipc.open_stream(source).read_all()
    except FileNotFoundError as error:
        raise refused(Status.MISSING_INPUT, f"there is no segment {segment}", retryable=True) from error
    except (pa.ArrowException, OSError) as error:
        raise refused(Status.DESERIALIZE_ERROR, f"segment {segment} is no Arrow stream: {error}") from error


def sweep(root: Path | None = None) -> list[str]:
    """Remove the folders of this user whose owners are dead; returns their names. One lock attempt for each."""
    root = root or shared_memory_root()
    removed = []
    for folder in root.glob("velaria-x-*"):
        match = _FOLDER.fullmatch(folder.name)
        if match is None or int(match[1]) != os.getuid():
            continue
        with suppress(OSError):  # somebody else was first
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder.name)
            finally:
                os.close(lock)
    return removed
