"""Outside: what the operating system refuses, in our words, and files that are on disk when we say so."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from velaria_core.errors import ExternalError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def os_error(what: str, error: OSError) -> ExternalError:
    """An error of the operating system: disk.full and file.forbidden can be mended, so both are worth a retry."""
    told = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return ExternalError("disk.full", told, hint="free some space", retryable=True, cause=error)
    if error.errno in _FORBIDDEN:
        hint = "let this user write there, or choose another folder"
        return ExternalError("file.forbidden", told, hint=hint, retryable=True, cause=error)
    return ExternalError("file.io", told, retryable=True, cause=error)


@contextlib.contextmanager
def outside(what: str) -> Iterator[None]:
    """Errors of the operating system inside leave as ExternalError."""
    try:
        yield
    except OSError as error:
        raise os_error(what, error) from error


def sync_file(path: Path) -> None:
    """The file's bytes are on disk."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """The folder's names are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(target: Path, content: bytes, *, on_disk: bool = True) -> None:
    """Write a file whole: whoever looks finds the old or the new content.

    Args:
        on_disk: also after a power cut; waits for the disk.

    Raises:
        OSError: nothing has changed.
    """
    partial = target.with_name(f".{target.name.lstrip('.')}.partial")
    try:
        with open(partial, "wb") as stream:
            stream.write(content)
            if on_disk:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if on_disk:
        sync_folder(target.parent)
