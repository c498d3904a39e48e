"""Claims: what one query at a time may use. Two that stage, cut and count in one place would lose each other's rows."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from velaria_core.errors import StateError
from velaria_core.execution.outside import os_error, outside

_lock = threading.Lock()
_claimed: set[Hashable] = set()
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # EBADF: NFS asks for one that writes


@contextmanager
def claimed(key: Hashable, refused: StateError) -> Iterator[None]:
    """What `key` stands for is nobody else's in this process.

    Raises:
        StateError: `refused`, where somebody has it.
    """
    with _lock:
        if key in _claimed:
            raise refused
        _claimed.add(key)
    try:
        yield
    finally:
        with _lock:
            _claimed.discard(key)


@contextmanager
def locked(path: Path, refused: StateError) -> Iterator[None]:
    """The file or folder at `path` is nobody else's on this machine. A file is made when it is not there.

    A file system without locks lets everybody in.

    Raises:
        StateError: `refused`, where somebody has it. ExternalError[file.*]: it cannot be opened.
    """
    with outside(f"opening {path}"):
        held = os.open(path, os.O_RDONLY | (0 if path.is_dir() else os.O_CREAT), 0o666)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refused from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise os_error(f"locking {path}", error) from error
        yield
    finally:
        os.close(held)


def taken(what: str) -> StateError:
    """Another query writes to the place of a sink."""
    hint = "stop it, or write to another place; UNION ALL brings rows together in one query"
    return StateError("sink.taken", f"another query writes to {what}", hint=hint)
