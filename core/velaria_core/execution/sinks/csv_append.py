"""CSV append: one file that grows, with its header once.

Rows are staged in a hidden file beside it. A commit first writes down what it is about to do (a sidecar: which staged
file, from which byte of the file on), then appends, then removes the staged file. So while the staged file is there the
append may be half done, and a restart cuts the file back to that byte and appends again; when it is not, all is done.
Bytes that others appended in between stay.

NULL is an empty field, an empty text is `""`; a field with a delimiter, quote or line end is quoted.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from velaria_core.contract.abi import SinkContext, SinkInfo
from velaria_core.contract.modes import SinkMode
from velaria_core.errors import InputError, StateError
from velaria_core.execution.claims import locked, taken
from velaria_core.execution.duck import Engine
from velaria_core.execution.files.paths import PathLike, within
from velaria_core.execution.outside import outside, replace_file, sync_folder
from velaria_core.execution.sinks.folding import (
    is_left,
    refuse_if_ahead,
    staged_gone,
    staged_name,
    staged_schema,
    write_file,
)
from velaria_core.types import literal


@dataclass(frozen=True, slots=True)
class _Sidecar:
    """The last append, and how far each query is.

    Attributes:
        epochs: the last epoch of each query that is appended, by `SinkContext.state_id`.
        staged: the name of the file that held the rows of the last append.
        start: how long the file was before.
        end: how long it is after.
    """

    epochs: dict[str, int] = field(default_factory=dict)
    staged: str = ""
    start: int = 0
    end: int = 0


class CsvAppendSink:
    """Appends to one CSV file. RETRACT writes the changes as they come, with their `diff`.

    Args:
        engine: that writes the rows, so that they look as `write_csv` writes them.
        path: made when it is not there; its folder must be.
        delimiter: one character.
        header: begin an empty file with the column names.

    Raises:
        InputError[option.value]. ExternalError[file.forbidden]: outside the session's roots.
    """

    def __init__(self, engine: Engine, path: PathLike, *, delimiter: str = ",", header: bool = True) -> None:
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise InputError("option.value", f"a delimiter is one character, not {delimiter!r}")
        self._engine = engine
        self._path = Path(within(engine.settings, os.path.abspath(os.path.expanduser(os.fspath(path)))))
        self._delimiter = delimiter
        self._header = header
        self._head = b""
        self._note = self._path.with_name(f".{self._path.name}.velaria.json")
        self._prefix = f".{self._path.name}.velaria-"
        self._lock = self._path.with_name(f".{self._path.name}.velaria.lock")
        self._sidecar = _Sidecar()
        self._context: SinkContext | None = None
        self._held = ExitStack()

    def info(self) -> SinkInfo:
        return SinkInfo(frozenset({SinkMode.APPEND, SinkMode.RETRACT}), transactional=True, idempotent=True)

    def open(self, context: SinkContext) -> None:
        """
        Raises:
            InputError[sink.schema]: the file begins with another header. InputError[file.not_found]: no such folder.
            StateError[sink.changed]: the file is shorter than it was. StateError[sink.ahead, sink.sidecar, sink.taken].
        """
        self._context = context
        self._head = self._header_line(staged_schema(context).names) if self._header else b""
        if not self._path.parent.is_dir():
            raise InputError("file.not_found", f"there is no folder {self._path.parent}", hint="create it first")
        with ExitStack() as held, outside(f"opening {self._path}"):
            held.enter_context(locked(self._lock, taken(str(self._path))))
            self._sidecar = self._read_sidecar()
            if self._is_staged(self._sidecar.staged):
                self._append()
            epoch = self._sidecar.epochs.get(context.state_id, 0)
            refuse_if_ahead(str(self._path), epoch, context)
            for staged in self._path.parent.glob(f"{_escaped(self._prefix)}*"):
                if is_left(staged.name.removeprefix(self._prefix), context):
                    staged.unlink(missing_ok=True)
            self._check_file()
            if epoch and not context.last_epoch:
                self._write_sidecar(replace(self._sidecar, epochs={**self._sidecar.epochs, context.state_id: 0}))
            self._held = held.pop_all()

    def _check_file(self) -> None:
        """The file is there as it was left, or empty, and its header is that of the rows to come."""
        size = self._size()
        if not size:
            return
        if size < self._sidecar.end:
            raise StateError(
                "sink.changed",
                f"{self._path} has {size} bytes, {self._sidecar.end} were written to it",
                hint="bring it back as it was, or move it away to begin a new file",
            )
        with open(self._path, "rb") as stream:
            first = stream.read(len(self._head))
        if first.rstrip(b"\r\n") != self._head.rstrip(b"\n"):
            found = first.decode(errors="replace").splitlines()[0] if first.strip() else ""
            raise InputError(
                "sink.schema",
                f'{self._path} begins with "{found}", and not with the header "{self._head.decode().rstrip()}"',
                hint="write to another file, or header=False",
            )

    def stage(self, epoch: int, changes: pa.Table) -> str:
        name = f"{self._prefix}{staged_name(epoch, self._open_context())}"
        options = {"FORMAT": "csv", "HEADER": "false", "DELIMITER": literal(self._delimiter)}
        write_file(self._engine, changes, self._path.with_name(name), options)
        with outside(f"writing beside {self._path}"):
            sync_folder(self._path.parent)
        return name

    def commit(self, epoch: int, ref: str) -> None:
        query = self._open_context().state_id
        with outside(f"appending to {self._path}"):
            if not self._is_staged(ref):
                if epoch > self._sidecar.epochs.get(query, 0):
                    raise staged_gone(str(self._path), epoch)
                return
            if self._sidecar.staged != ref:
                start = self._size()
                added = len(self._lead(start)) + self._path.with_name(ref).stat().st_size
                epochs = {**self._sidecar.epochs, query: epoch}
                self._write_sidecar(_Sidecar(epochs, ref, start, start + added))
            self._append()

    def _append(self) -> None:
        """Do what the sidecar says, from its beginning; then nothing is left to do."""
        sidecar = self._sidecar
        staged = self._path.with_name(sidecar.staged)
        lead = self._lead(sidecar.start)
        with open(self._path, "ab") as stream:
            stream.truncate(sidecar.start)
            try:
                stream.write(lead)
                with open(staged, "rb") as rows:
                    shutil.copyfileobj(rows, stream)
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                # Half of an epoch would be seen until the commit is repeated.
                os.truncate(self._path, sidecar.start)
                raise
        assert self._size() == sidecar.end, "somebody else writes to this file"
        staged.unlink()
        sync_folder(self._path.parent)

    def _lead(self, start: int) -> bytes:
        """What stands between the byte `start` and the rows: the header of an empty file, a missing line end."""
        if not start:
            return self._head
        with open(self._path, "rb") as stream:
            stream.seek(start - 1)
            return b"" if stream.read(1) == b"\n" else b"\n"

    def abort(self, epoch: int, ref: str) -> None:  # noqa: ARG002 -- the contract's
        with outside(f"removing what was staged for {self._path}"):
            self._path.with_name(ref).unlink(missing_ok=True)

    def close(self) -> None:
        self._held.close()

    def _open_context(self) -> SinkContext:
        assert self._context is not None, "stage and commit come after open"
        return self._context

    # --- the file and its sidecar

    def _header_line(self, names: list[str]) -> bytes:
        special = (self._delimiter, '"', "\n", "\r")
        cells = (
            '"' + name.replace('"', '""') + '"' if any(mark in name for mark in special) else name for name in names
        )
        return (self._delimiter.join(cells) + "\n").encode()

    def _is_staged(self, name: str) -> bool:
        return bool(name) and self._path.with_name(name).exists()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _read_sidecar(self) -> _Sidecar:
        try:
            return _Sidecar(**json.loads(self._note.read_text()))
        except FileNotFoundError:
            return _Sidecar()
        except (ValueError, TypeError) as error:
            raise StateError(
                "sink.sidecar",
                f"{self._note} is damaged; it says how far {self._path.name} is written",
                hint="restore it from a copy, or move both files away",
                cause=error,
            ) from error

    def _write_sidecar(self, sidecar: _Sidecar) -> None:
        replace_file(self._note, json.dumps(asdict(sidecar)).encode())
        self._sidecar = sidecar


def _escaped(text: str) -> str:
    """A name as a pattern of itself."""
    return "".join(f"[{ch}]" if ch in "*?[" else ch for ch in text)
