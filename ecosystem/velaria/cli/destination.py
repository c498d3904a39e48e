"""Where output goes: stdout, or a file that appears whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from velaria.cli.reporting import from_os_error
from velaria_core.errors import InputError


@contextmanager
def destination(path: str | None) -> Iterator[BinaryIO]:
    """A stream to write to: a file, or stdout for None and `-`.

    A file is written beside its place and moved there at the end; after any failure nothing of it is left, and what
    was there before is still there. Devices and pipes are written to directly.

    Raises:
        ExternalError[disk.full, file.io, file.forbidden], InputError[file.is_directory, file.not_found].
        BrokenPipeError: nobody reads stdout any more.
    """
    if path is None or path == "-":
        with from_os_error("writing the output"), _gated(sys.stdout.buffer) as out:
            yield out
        return
    target = Path(os.path.realpath(path))
    what = f'writing "{path}"'
    if target.exists() and not target.is_dir() and not target.is_file():
        with from_os_error(what), target.open("wb") as device, _gated(device) as out:
            yield out
        return
    if target.is_dir():
        raise InputError("file.is_directory", f'"{path}" is a folder', hint="name a file in it")
    if not target.parent.is_dir():
        raise InputError("file.not_found", f'there is no folder "{target.parent}"', hint="create it first")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with from_os_error(what):
            with partial.open("xb") as file, _gated(file) as out:
                yield out
            if target.exists():
                shutil.copymode(target, partial)
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _gated(raw: BinaryIO) -> Iterator[BinaryIO]:
    gate = Gate(raw)
    try:
        yield cast(BinaryIO, gate)
        raw.flush()
    except BaseException:
        gate.shut()
        raise


class Gate(io.RawIOBase):
    """A stream that can be shut: writes after a failure are lost.

    Writers of Parquet add their closing bytes also when they are abandoned and collected; output that broke off must
    not look complete.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._is_shut = False

    def shut(self) -> None:
        self._is_shut = True

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        if not self._is_shut:
            self._raw.write(data)
        return len(data)

    def flush(self) -> None:
        if not self._is_shut and not self._raw.closed:
            self._raw.flush()


def shows_on_terminal(path: str | None) -> bool:
    """Whether the output of `-o path` is a terminal."""
    return path in (None, "-") and sys.stdout.isatty()
