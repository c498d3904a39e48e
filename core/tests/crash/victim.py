"""Stream queries in processes of their own, each killed at a given step of the protocol or after a given time."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from velaria_core.contract import abi
from velaria_core.contract.abi import Sink
from velaria_core.contract.modes import SinkMode
from velaria_core.execution.checkpoint import Protocol
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.epoch import nowhere
from velaria_core.execution.runtime import StreamingQuery, StreamOptions
from velaria_core.execution.sinks.csv_append import CsvAppendSink
from velaria_core.execution.sinks.file_set import FileSetSink
from velaria_core.execution.sinks.table import TableSink
from velaria_core.session import DataflowSession

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.float64())])
BATCHES = 24
SQL = "SELECT k, count(*) AS n, sum(v) AS total FROM events WHERE v > 0 GROUP BY k"


class Numbers:
    """Batches that follow from their number, so that any process can give them again."""

    def info(self) -> abi.SourceInfo:
        return abi.SourceInfo(SCHEMA, bounded=True, replayable=True)

    def open(self, context: abi.SourceContext) -> None:
        self._at = int(context.resume_from or 0)
        self._maker = DataflowSession(threads=1)

    def next_batch(self, max_rows: int) -> abi.Batch | abi.Blocked | abi.EndOfStream:
        del max_rows
        if self._at == BATCHES:
            return abi.EndOfStream()
        self._at += 1
        # Not from Python lists: pyarrow would load pandas for them, which takes longer than the query.
        at = self._at
        rows = f"({at} % 5, {at}.0), ({at} % 3, 0.5), (NULL, -1.0)"
        table = self._maker.sql(f"SELECT k::BIGINT AS k, v::DOUBLE AS v FROM (VALUES {rows}) AS r (k, v)").to_arrow()
        return abi.Batch(table, abi.TextOffset(str(at)))

    def checkpoint(self, marker: abi.CheckpointMarker) -> None: ...

    def ack(self, offset: abi.Offset) -> None: ...

    def close(self) -> None: ...


class Folder:
    """One file an epoch: staged under a name that nobody reads, committed by a rename."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def info(self) -> abi.SinkInfo:
        return abi.SinkInfo(frozenset({SinkMode.RETRACT}), transactional=True, idempotent=False)

    def open(self, context: abi.SinkContext) -> None:
        self._path.mkdir(exist_ok=True)
        for staged in self._path.glob("*.staged"):
            if int(staged.stem) > context.last_epoch:
                staged.unlink()

    def stage(self, epoch: int, changes: pa.Table) -> str:
        ref = f"{epoch:06}.staged"
        rows = [str(tuple(row.values())) for row in changes.to_pylist()]
        (self._path / ref).write_text("\n".join(sorted(rows)) + "\n")
        return ref

    def commit(self, epoch: int, ref: str) -> None:
        staged = self._path / ref
        if staged.exists():
            os.replace(staged, self._path / f"{epoch:06}.rows")

    def abort(self, epoch: int, ref: str) -> None:
        del epoch
        (self._path / ref).unlink()

    def close(self) -> None: ...


def parts(folder: Path) -> Sink:
    """A set of CSV files and its manifest."""
    return FileSetSink(Engine(Settings(threads=1)), folder / "out", "csv")


def appended(folder: Path) -> Sink:
    """One CSV file."""
    (folder / "out").mkdir(exist_ok=True)
    return CsvAppendSink(Engine(Settings(threads=1)), folder / "out" / "rows.csv")


def table(folder: Path) -> Sink:
    """A table of a database file."""
    (folder / "out").mkdir(exist_ok=True)
    return TableSink("totals", path=folder / "out" / "totals.duckdb")


SINKS: dict[str, Callable[[Path], Sink]] = {
    "folder": lambda folder: Folder(folder / "out"),
    "parts": parts,
    "appended": appended,
    "table": table,
}


# By name: epochs that share a commit, and batches that are larger than an epoch. Otherwise each epoch has its own.
ALONE = StreamOptions(epoch_rows_max=6, checkpoint_interval=1)
GROUPS = {"grouped": replace(ALONE, checkpoint_interval=3), "cut": replace(ALONE, epoch_rows_max=2)}


def query(folder: Path, sink: str = "folder", at: Callable[[Protocol], None] = nowhere) -> StreamingQuery:
    session = DataflowSession()
    session.create_temp_view("events", session.read_stream(Numbers(), "events"))
    options = replace(GROUPS.get(sink, ALONE), checkpoint_path=str(folder / "checkpoint"))
    made = SINKS["folder" if sink in GROUPS else sink](folder)
    return StreamingQuery(session._engine, session.stream_sql(SQL).node, made, options, at=at)


def killing(step: int, epoch: int) -> Callable[[Protocol], None]:
    """Kill this process when the step comes for the `epoch`-th time."""
    seen = 0

    def at(reached: Protocol) -> None:
        nonlocal seen
        seen += reached == step
        if reached == step and seen == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def live(folder: Path, sink: str, step: int, epoch: int) -> None:
    one = query(folder, sink, killing(step, epoch))
    one.process_available()
    one.stop()


def nursery() -> None:
    """For each line "FOLDER SINK STEP EPOCH MICROSECONDS" a child that lives it, and a line with how it ended.

    It is killed at the step, or after the time where one is given. The imports are done once, and nothing that has
    threads is made before the fork.
    """
    for line in sys.stdin:
        folder, sink, step, epoch, microseconds = line.rsplit(" ", 4)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                live(Path(folder), sink, int(step), int(epoch))
                code = 0
            finally:
                os._exit(code)
        if int(microseconds):
            time.sleep(int(microseconds) / 1e6)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    nursery()
