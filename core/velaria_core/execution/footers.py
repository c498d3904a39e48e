"""Footers: which Parquet files the engine may keep the footers of, so that it reads them once and not for each query.

Reading a footer costs 0.2 to 3 ms, and a query reads it to bind and again to run. The engine can keep them, but it
goes by the second of the last change: of a file that was written twice within one it would use the old footer, and
answer from old statistics. So a file is trusted only while it is, to the nanosecond, the file first seen here; one
that has changed since is read anew each time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Lock

# More files than this are not looked at before each query; one costs 2 microseconds.
FILES_MAX = 1000

_Version = tuple[int, int, int, int, int]


class Footers:
    """The files that one engine has read with its footers kept. Safe from threads.

    Invariant: every version of a file whose footer the engine may hold was the version on record at that time, or
    came after it and differs from it. So where the version on record is still the one there, no other footer is held.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Version] = {}
        self._lock = Lock()

    def may_be_kept(self, files: Sequence[str]) -> bool:
        """Whether a query over these files, and no others, may use kept footers and keep those it reads."""
        if not 0 < len(files) <= FILES_MAX:
            return False
        try:
            versions = [(file, _version(file)) for file in files]
        except OSError:
            return False  # the engine tells of a file that is gone
        with self._lock:
            return all(self._seen.setdefault(file, version) == version for file, version in versions)


def _version(file: str) -> _Version:
    # The time of the last status change cannot be set back, that of the last modification can.
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
