"""Checkpoint: what makes an epoch durable, and the order in which it becomes so.

The state file is one DuckDB database per query, and its table of epochs is the only truth: rows, state, offsets and the
sink's staged output are of one epoch because one COMMIT wrote them.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Final

from velaria_core.contract.modes import OutputMode
from velaria_core.errors import DataError, StateError
from velaria_core.execution.claims import claimed
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.files.paths import within
from velaria_core.execution.outside import outside
from velaria_core.execution.state import Store
from velaria_core.types import quoted

VERSION: Final = 5
STATE_FILE: Final = "state.duckdb"
_KEPT_POINTS: Final = 100  # at most; older ones are of no use


class Protocol(IntEnum):
    """The steps of an epoch. A process killed before COMMIT did nothing; killed after it, it goes on with PUBLISH.

    Invariant: PUBLISH is idempotent, and ACK comes only after it, so a row is in the source or in the sink, never in
    neither.
    """

    BEGIN = 1
    PULL = 2
    WATERMARK = 3
    CHAIN = 4
    STAGE = 5
    RECORD = 6
    COMMIT = 7
    PUBLISH = 8
    ACK = 9
    REPORT = 10


@dataclass(frozen=True, slots=True)
class Staged:
    """Output that a sink holds and that is not visible before its commit: the epoch, the sink's name, its ref."""

    epoch: int
    sink: str
    ref: str


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One row of the truth: a durable point.

    Attributes:
        epoch: the last in it, counted from 1; 0 before the first.
        offsets: by source, the token to go on after.
        staged: the output of the epochs that became durable with it, in order.
        batches: batches processed so far.
        times: event time, as `Dataflow.snapshot` tells it; empty before the first epoch.
    """

    epoch: int = 0
    offsets: Mapping[str, str] = field(default_factory=dict)
    staged: tuple[Staged, ...] = ()
    batches: int = 0
    times: str = ""


class Ledger:
    """The epochs of one query, in its state database.

    Args:
        fingerprint: of the plan. Another plan, or another output mode, would go on from a state that is not its own.

    Raises:
        StateError[checkpoint.version, checkpoint.other_query, checkpoint.output_mode].
    """

    def __init__(self, store: Store, fingerprint: str, output_mode: OutputMode) -> None:
        self._cursor = store.cursor
        self._written = 0
        self._cursor.rows("CREATE TABLE IF NOT EXISTS velaria_query (version BIGINT, fingerprint VARCHAR)")
        self._cursor.rows("CREATE TABLE IF NOT EXISTS velaria_identity (id VARCHAR)")
        if not self._cursor.rows("SELECT 1 FROM velaria_identity"):
            self._cursor.rows("INSERT INTO velaria_identity VALUES ($1)", [uuid.uuid4().hex])
        self._cursor.rows(
            "CREATE TABLE IF NOT EXISTS velaria_epochs "
            "(epoch BIGINT, offsets VARCHAR, staged VARCHAR, batches BIGINT, times VARCHAR)"
        )
        known = self._cursor.rows("SELECT version, fingerprint FROM velaria_query")
        if known and known[0][0] == VERSION and not self._cursor.rows("SELECT 1 FROM velaria_epochs LIMIT 1"):
            # Opened, and no epoch became durable: it is nobody's yet.
            self._clear()
            known = []
        if not known:
            told = f"{fingerprint} {output_mode}"
            self._cursor.rows("INSERT INTO velaria_query VALUES ($1, $2)", [VERSION, told])
            return
        plan, _, mode = known[0][1].partition(" ")
        if known[0][0] != VERSION:
            raise StateError(
                "checkpoint.version",
                f"the checkpoint has version {known[0][0]}, this reads {VERSION}",
                hint="use the release that wrote it, or start with an empty checkpoint_path",
            )
        hint = "give each query a checkpoint_path of its own, or start with an empty one"
        if plan != fingerprint:
            raise StateError("checkpoint.other_query", "the checkpoint is of another query", hint=hint)
        if mode != output_mode:
            told = f"the checkpoint is of this query with {mode} output, which does not go on as {output_mode} output"
            raise StateError("checkpoint.output_mode", told, hint=hint)

    def _clear(self) -> None:
        """Remove what was made for a query that never ran."""
        for table in self.tables():
            self._cursor.rows(f"DROP TABLE {quoted(table)}")
        self._cursor.rows("DELETE FROM velaria_query")

    def state_id(self) -> str:
        """What tells this state from that of any other query."""
        ((found,),) = self._cursor.rows("SELECT id FROM velaria_identity")
        return str(found)

    def last(self) -> EpochRecord:
        """The last durable point."""
        found = self._cursor.rows(
            "SELECT epoch, offsets, staged, batches, times FROM velaria_epochs ORDER BY epoch DESC LIMIT 1"
        )
        if not found:
            return EpochRecord()
        epoch, offsets, staged, batches, times = found[0]
        return EpochRecord(
            epoch, json.loads(offsets), tuple(Staged(*one) for one in json.loads(staged)), batches, times
        )

    def record(self, record: EpochRecord) -> None:
        """Write a point, inside its transaction. 0.4 ms, prepared or not."""
        values = [
            record.epoch,
            json.dumps(dict(record.offsets)),
            json.dumps([[one.epoch, one.sink, one.ref] for one in record.staged]),
            record.batches,
            record.times,
        ]
        self._cursor.rows("INSERT INTO velaria_epochs VALUES ($1, $2, $3, $4, $5)", values)
        self._written += 1
        if self._written % _KEPT_POINTS == 0:
            self._cursor.rows("DELETE FROM velaria_epochs WHERE epoch < $1", [record.epoch])

    def placed(self, steps: Sequence[str]) -> None:
        """Told which steps keep their state outside of this file: always the same ones, or theirs would be empty.

        Raises:
            StateError[checkpoint.placed]: the durable epochs are of a query with others.
        """
        known = self._cursor.rows(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND table_name = 'velaria_placed'"
        )
        if not known and not steps:
            return
        self._cursor.rows("CREATE TABLE IF NOT EXISTS velaria_placed (step VARCHAR)")
        before = sorted(name for (name,) in self._cursor.rows("SELECT step FROM velaria_placed"))
        if before == sorted(steps):
            return
        if self._cursor.rows("SELECT 1 FROM velaria_epochs LIMIT 1"):
            told = f"{len(before)} steps of this checkpoint keep their state in other processes, {len(steps)} would now"
            hint = "use the execution_mode that wrote it, or start with an empty checkpoint_path"
            raise StateError("checkpoint.placed", told, hint=hint)
        self._cursor.rows("DELETE FROM velaria_placed")
        for name in steps:
            self._cursor.rows("INSERT INTO velaria_placed VALUES ($1)", [name])

    def tables(self) -> list[str]:
        """The tables of the state file that are the steps'."""
        found = self._cursor.rows(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() "
            "AND NOT internal AND table_name NOT LIKE 'velaria\\_%' ESCAPE '\\' ORDER BY table_name"
        )
        return [name for (name,) in found]


@contextmanager
def claimed_folder(folder: str | None) -> Iterator[None]:
    """The folder is this query's alone. The engine keeps other processes away, and lets in those of this one.

    Raises:
        StateError[database.locked]: another query of this process runs on it.
    """
    if folder is None:
        yield
        return
    told = f"another query of this process runs on the checkpoint {folder}"
    hint = "stop it, or give this one a checkpoint_path of its own"
    with claimed(os.path.realpath(folder), StateError("database.locked", told, hint=hint)):
        yield


def state_engine(folder: str | None, settings: Settings) -> Engine:
    """The engine of a query's state: a file in its checkpoint folder, or memory.

    Args:
        settings: of the session, whose limits of memory and threads hold for a query's state too.

    Raises:
        ExternalError[file.forbidden]: the folder lies outside the session's roots.
        StateError[database.locked]: another process runs on this checkpoint; [database.invalid]: its file is no state.
        ExternalError[disk.full, file.io]: the folder cannot be made or written.
    """
    limits = Settings(
        memory_limit=settings.memory_limit, threads=settings.threads, temp_directory=settings.temp_directory
    )
    if folder is None:
        return Engine(limits)
    folder = within(settings, os.path.abspath(folder))
    with outside(f"the checkpoint folder {folder}"):
        os.makedirs(folder, exist_ok=True)
    try:
        return Engine(replace(limits, path=str(Path(folder, STATE_FILE))))
    except DataError as error:
        hint = "bring back a copy of the folder, or start with an empty checkpoint_path"
        raise StateError(error.code, error.message, hint=hint, cause=error) from error
