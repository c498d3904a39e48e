"""Mirror: `checkpoint.json`, the last durable point for people and tools; the state file is the truth.

It serves the query in one way: a state file that is behind it has lost epochs that were durable, as an engine does
not notice when its write-ahead log is taken away. It is written at most once a second and when the query stops, so it
may be behind the state file, never ahead of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from velaria_core.contract.codec import (
    Checkpoint,
    Counters,
    Progress,
    SourceOffset,
    StagedOutput,
    StateSnapshot,
)
from velaria_core.errors import StateError
from velaria_core.execution.checkpoint import STATE_FILE, EpochRecord
from velaria_core.execution.outside import outside, replace_file

FILE: Final = "checkpoint.json"
_EVERY_MS: Final = 1_000
_STEP = re.compile(r"step_\d+")


class Mirror:
    """The file of one query.

    Args:
        tables: of the state file, but for those of the protocol.
    """

    def __init__(self, folder: str, fingerprint: str, tables: Sequence[str]) -> None:
        self._path = Path(folder, FILE)
        self._fingerprint, self._tables = fingerprint, tables
        self._written = 0
        self._next_ms = 0.0

    def check(self, last_epoch: int) -> None:
        """Compare with the last durable epoch of the state file.

        Raises:
            StateError[checkpoint.lost_epochs]: the state file is behind.
            StateError[checkpoint.damaged, checkpoint.checksum, checkpoint.version]: it cannot be read.
        """
        with outside(f"reading {self._path}"):
            if not self._path.exists():
                return
            text = self._path.read_bytes()
        try:
            found = Checkpoint.from_json(text)
        except StateError as error:
            error.hint = f"{error.hint}; {STATE_FILE} is the truth: without {FILE} the query goes on from there"
            raise
        if found.epoch > last_epoch:
            raise StateError(
                "checkpoint.lost_epochs",
                f"{FILE} is of epoch {found.epoch}, {STATE_FILE} only of {last_epoch}: durable epochs are gone",
                hint=f"put back {STATE_FILE} and {STATE_FILE}.wal as they were together; "
                f"without {FILE} the query goes on from epoch {last_epoch}",
            )

    def is_due(self, epoch: int, now_ms: float) -> bool:
        """Whether an epoch is to be written now: a second has passed since the last."""
        return epoch > self._written and now_ms >= self._next_ms

    def write(self, record: EpochRecord, watermark: str | None, progress: Progress, now_ms: float) -> None:
        """Write a point, unless it is there already. About 1 ms; nothing waits for the disk.

        Raises:
            OSError: the file is as it was.
        """
        if record.epoch <= self._written:
            return
        self._next_ms = now_ms + _EVERY_MS
        counters = {item.name: getattr(progress, item.name) for item in fields(Counters)}
        counters |= {"epoch": record.epoch, "batches_processed": record.batches, "watermark": watermark}
        made = Checkpoint(
            **counters,
            query_fingerprint=self._fingerprint,
            sources=tuple(SourceOffset(source=name, offset=token) for name, token in record.offsets.items()),
            states=tuple(StateSnapshot(step=_step(table), ref=table) for table in self._tables),
            staged=tuple(StagedOutput(sink=one.sink, epoch=one.epoch, ref=one.ref) for one in record.staged),
        )
        replace_file(self._path, f"{made.to_json(indent=2)}\n".encode(), on_disk=False)
        self._written = record.epoch


def _step(table: str) -> str:
    """The step that a table belongs to: its name begins with it."""
    found = _STEP.match(table)
    return found[0] if found else table
