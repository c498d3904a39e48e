"""File set: each epoch is one file of a folder, and a manifest says which files count.

A part is written under a hidden name (stage), then renamed and added to `_manifest.jsonl` (commit). The manifest is a
line of JSON for each commit; a last line without its end was never written. `parts` gives the files that count, for
whoever reads the folder while it is written; after a crash a reader of `*.parquet` sees at most one renamed file that
the manifest does not name yet, and the restart adds it.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

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
from velaria_core.types import type_name

MANIFEST = "_manifest.jsonl"
_VERSION = 1
_COMPACT_LINES = 1_000


class PartFormat(StrEnum):
    """How parts are written."""

    PARQUET = "parquet"
    CSV = "csv"
    JSON = "json"


_COPY: dict[PartFormat, dict[str, str]] = {
    PartFormat.PARQUET: {"FORMAT": "parquet", "COMPRESSION": "'zstd'"},
    PartFormat.CSV: {"FORMAT": "csv", "HEADER": "true"},
    PartFormat.JSON: {"FORMAT": "json", "ARRAY": "false"},
}


@dataclass(slots=True)
class _Manifest:
    """What the lines of a manifest add up to.

    Attributes:
        head: the first line: format, mode and columns.
        epochs: the last epoch of each query, by `SinkContext.state_id`.
        live, dead: names that count, and names that an epoch of REPLACE has put out of use.
        lines: how many there are.
        size: of what is whole, in bytes.
    """

    head: dict[str, Any] | None = None
    epochs: dict[str, int] = field(default_factory=dict)
    live: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    lines: int = 0
    size: int = 0

    def add(self, line: dict[str, Any]) -> None:
        self.lines += 1
        if "version" in line:
            self.head = line
            return
        self.epochs[line["query"]] = line["epoch"]
        if "file" in line:
            if line["replace"]:
                self.dead += self.live
                self.live.clear()
            self.live.append(line["file"])


def _read(folder: Path) -> _Manifest:
    """The manifest of a folder; an empty one where there is none.

    Raises:
        StateError[sink.manifest]: it is damaged, or of a later release.
    """
    found = _Manifest()
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return found
    whole, end, _ = content.rpartition(b"\n")
    found.size = len(whole) + len(end)
    try:
        for text in whole.splitlines():
            found.add(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        hint = "restore it from a copy; it names the files that count"
        raise StateError("sink.manifest", f"{path} is damaged", hint=hint, cause=error) from error
    if found.lines and (found.head is None or found.head["version"] != _VERSION):
        raise StateError("sink.manifest", f"{path} is not of this release", hint="use the release that wrote it")
    return found


def parts(folder: PathLike) -> list[Path]:
    """The files of a file set that count, in the order of their epochs; none where nothing was committed.

    Raises:
        StateError[sink.manifest], ExternalError[file.*].
    """
    path = Path(folder)
    with outside(f"reading {path / MANIFEST}"):
        return [path / name for name in _read(path).live]


class FileSetSink:
    """Parts in a folder. RETRACT keeps changes as they come, with their `diff`; REPLACE keeps the last part.

    Args:
        engine: that writes the files.
        folder: made when it is not there.
        format: parquet, csv or json (one object a line).

    Raises:
        InputError[option.value]: another format. ExternalError[file.forbidden]: outside the session's roots.
    """

    def __init__(
        self,
        engine: Engine,
        folder: PathLike,
        format: str | PartFormat = PartFormat.PARQUET,  # noqa: A002 -- the name that callers know
    ) -> None:
        try:
            self._format = PartFormat(format)
        except ValueError as error:
            raise InputError("option.value", f'no format "{format}"', hint="parquet, csv or json") from error
        self._engine = engine
        self._folder = Path(within(engine.settings, os.path.abspath(os.path.expanduser(os.fspath(folder)))))
        self._manifest = _Manifest()
        self._replaces = False
        self._retired: list[str] = []
        self._context: SinkContext | None = None
        self._held = ExitStack()

    def info(self) -> SinkInfo:
        modes = frozenset({SinkMode.APPEND, SinkMode.RETRACT, SinkMode.REPLACE})
        return SinkInfo(modes, transactional=True, idempotent=True)

    def open(self, context: SinkContext) -> None:
        """
        Raises:
            InputError[sink.schema]: the folder holds parts of another format, form or schema.
            StateError[sink.manifest, sink.ahead, sink.taken].
        """
        self._context, self._replaces = context, context.mode is SinkMode.REPLACE
        head = {
            "version": _VERSION,
            "format": self._format.value,
            "mode": context.mode.value,
            "columns": {item.name: type_name(item.type) for item in staged_schema(context)},
        }
        with ExitStack() as held, outside(f"opening {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(self._folder, taken(str(self._folder))))
            self._manifest = found = _read(self._folder)
            if found.head is not None and found.head != head:
                what = next(key for key in head if found.head.get(key) != head[key])
                raise InputError(
                    "sink.schema",
                    f"{self._folder} holds {what} {found.head.get(what)}, the query gives {head[what]}",
                    hint="write to another folder",
                )
            refuse_if_ahead(str(self._folder), found.epochs.get(context.state_id, 0), context)
            self._clean(context)
            if found.head is None:
                self._add(head)
            elif found.epochs.get(context.state_id) and not context.last_epoch:
                self._add({"query": context.state_id, "epoch": 0})
            if self._replaces and found.lines > _COMPACT_LINES:
                self._compact()
            self._held = held.pop_all()

    def _clean(self, context: SinkContext) -> None:
        """Remove what a crash left: parts that were staged too late, and parts that no longer count."""
        for path in self._folder.glob(".*part-*"):  # also what the engine left of one while it wrote it
            if is_left(path.name.partition("part-")[2], context):
                path.unlink(missing_ok=True)
        for name in self._manifest.dead:
            (self._folder / name).unlink(missing_ok=True)
        self._retired = []

    def stage(self, epoch: int, changes: pa.Table) -> str:
        name = f"part-{staged_name(epoch, self._open_context())}.{self._format.value}"
        write_file(self._engine, changes, self._folder / f".{name}", _COPY[self._format])
        with outside(f"writing to {self._folder}"):
            sync_folder(self._folder)
        return name

    def commit(self, epoch: int, ref: str) -> None:
        query, known = self._open_context().state_id, self._manifest
        if ref in known.live or ref in known.dead or epoch <= known.epochs.get(query, 0):
            return
        hidden, shown = self._folder / f".{ref}", self._folder / ref
        with outside(f"writing to {self._folder}"):
            if hidden.exists():
                os.replace(hidden, shown)
            elif not shown.exists():
                raise staged_gone(str(self._folder), epoch)
            sync_folder(self._folder)
            size = shown.stat().st_size
            self._add({"query": query, "epoch": epoch, "file": ref, "bytes": size, "replace": self._replaces})
            if self._replaces:
                self._retire()

    def _retire(self) -> None:
        """Remove parts out of use, but for the newest of them: somebody may be reading it."""
        for name in self._retired:
            (self._folder / name).unlink(missing_ok=True)
        self._retired = self._manifest.dead[-1:]

    def _add(self, line: dict[str, Any]) -> None:
        """A line more. What a failed write left after the last whole line is cut off first."""
        path = self._folder / MANIFEST
        text = (json.dumps(line) + "\n").encode()
        with open(path, "ab") as stream:
            stream.truncate(self._manifest.size)
            try:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                os.truncate(path, self._manifest.size)
                raise
        sync_folder(self._folder)
        self._manifest.size += len(text)
        self._manifest.add(line)

    def _compact(self) -> None:
        """Write the manifest anew, without the lines that later ones replaced."""
        old = self._manifest
        assert old.head is not None
        lines = [old.head]
        lines += [{"query": "", "epoch": 0, "file": name, "bytes": None, "replace": True} for name in old.live]
        lines += [{"query": query, "epoch": epoch} for query, epoch in old.epochs.items()]
        content = b"".join((json.dumps(line) + "\n").encode() for line in lines)
        replace_file(self._folder / MANIFEST, content)
        self._manifest = _read(self._folder)

    def abort(self, epoch: int, ref: str) -> None:  # noqa: ARG002 -- the contract's
        with outside(f"removing a part of {self._folder}"):
            (self._folder / f".{ref}").unlink(missing_ok=True)

    def close(self) -> None:
        self._held.close()

    def _open_context(self) -> SinkContext:
        assert self._context is not None, "stage and commit come after open"
        return self._context
