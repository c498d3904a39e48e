"""Bad input to a stream, end to end: each has a clear outcome, and nothing is lost.

One query stands for all: rows counted in windows of ten seconds that close, appended to a CSV file, with a checkpoint.
`undisturbed` is what it writes when nothing is wrong; after each mishap and its mending, the file has that, letter by
letter.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from runtime_support import Answer, Scripted

from velaria_core import StreamingDataFrame, fn
from velaria_core.contract import abi
from velaria_core.contract.modes import OutputMode
from velaria_core.errors import ExternalError, StateError, VelariaError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sinks.csv_append import CsvAppendSink
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.logical.rules import for_stream
from velaria_core.session import DataflowSession

SCHEMA = pa.schema([("ts", pa.int64()), ("k", pa.string()), ("v", pa.int64())])
BATCH_ROWS = 50
YEAR_MS = 365 * 24 * 3_600_000


def batch(number: int) -> pa.Table:
    """Five seconds of events, one a tenth of a second, a little out of order."""
    first = number * 5_000
    times = [first + 100 * (at ^ 1) for at in range(BATCH_ROWS)]
    keys = [["a", "b", None][at % 3] for at in range(BATCH_ROWS)]
    return pa.table([times, keys, [number * BATCH_ROWS + at for at in range(BATCH_ROWS)]], schema=SCHEMA)


BATCHES = [batch(number) for number in range(12)]


def counted(events: StreamingDataFrame) -> StreamingDataFrame:
    windows = events.with_watermark("ts", 1_000).window("ts", 10_000, "w").group_by("w", "k")
    return windows.agg(n=fn.count(), s=fn.sum("v").cast("int64"))


class Query:
    """The query in a folder of its own, over whatever source and sink a test wants."""

    def __init__(
        self,
        folder: Path,
        source: abi.Source,
        *,
        sink: abi.Sink | None = None,
        build: Callable[[StreamingDataFrame], StreamingDataFrame] = counted,
        clock: ManualClock | None = None,
    ) -> None:
        session = DataflowSession()
        options = StreamOptions(
            checkpoint_path=str(folder / "checkpoint"), output_mode=OutputMode.APPEND, epoch_rows_max=BATCH_ROWS
        )
        frame = build(session.read_stream(source, "events"))
        self.sink = sink or CsvAppendSink(session._engine, folder / "out.csv")
        plan = for_stream(frame.node)
        self.query = StreamingQuery(session._engine, plan, self.sink, options, clock=clock or ManualClock())

    def run(self) -> dict[str, Any]:
        """To the end of what is there; what progress says then."""
        self.query.process_available()
        told = self.query.progress()
        self.query.stop()
        return told


def run(folder: Path, answers: Sequence[Answer], **rest: Any) -> dict[str, Any]:
    return Query(folder, Scripted(answers, schema=SCHEMA), **rest).run()


def written(folder: Path) -> str:
    return (folder / "out.csv").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    told = run(folder, BATCHES)
    assert told["rows_in"] == 12 * BATCH_ROWS
    lines = sorted(written(folder).splitlines())
    assert len(lines) == 1 + 6 * 3
    assert sum(int(line.split(",")[2]) for line in lines[:-1]) == 12 * BATCH_ROWS
    return written(folder)


def failing(folder: Path, answers: Sequence[Answer], **rest: Any) -> VelariaError:
    with pytest.raises(VelariaError) as caught:
        run(folder, answers, **rest)
    return caught.value


# --- sources


def test_a_source_that_raises(tmp_path: Path, undisturbed: str) -> None:
    error = failing(tmp_path, [*BATCHES[:5], RuntimeError("the line is cut"), *BATCHES[5:]])
    assert isinstance(error, ExternalError)
    assert "the line is cut" in error.message
    assert "events" in str(error)
    run(tmp_path, BATCHES)
    assert written(tmp_path) == undisturbed


OTHERS = {
    "a column less": BATCHES[5].drop_columns(["v"]),
    "a column more": BATCHES[5].append_column("more", BATCHES[5]["v"]),
    "another name": BATCHES[5].rename_columns(["ts", "k", "w"]),
    "another type": BATCHES[5].set_column(2, "v", BATCHES[5]["v"].cast(pa.string())),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_a_source_that_changes_its_schema(tmp_path: Path, undisturbed: str, other: pa.Table) -> None:
    error = failing(tmp_path, [*BATCHES[:5], other])
    assert error.code == "source.schema"
    run(tmp_path, BATCHES)
    assert written(tmp_path) == undisturbed


def test_late_rows_are_counted(tmp_path: Path, undisturbed: str) -> None:
    """They are left out of windows that are closed, which were written; the rows that are written and those that are
    counted as dropped are all rows."""
    late = pa.table([[0, 1, 61_000], ["a", "b", "a"], [1, 1, 1]], schema=SCHEMA)
    told = run(tmp_path, [*BATCHES, late])
    assert told["late_dropped_rows"] == 2
    assert told["late_rows"] >= 2
    made = written(tmp_path)
    assert made.startswith(undisturbed.rsplit("\n", 4)[0])
    total = sum(int(line.split(",")[2]) for line in made.splitlines()[1:])
    assert total + told["late_dropped_rows"] == told["rows_in"]


def test_rows_without_a_time_come_out_at_the_end(tmp_path: Path, undisturbed: str) -> None:
    none = pa.table([[None, None], ["a", None], [1, 2]], schema=SCHEMA)
    told = run(tmp_path, [*BATCHES[:3], none, *BATCHES[3:]])
    assert told["late_dropped_rows"] == 0
    lines = written(tmp_path).splitlines()
    assert sorted(line for line in lines if not line.startswith(",")) == sorted(undisturbed.splitlines())
    assert sorted(line for line in lines if line.startswith(",")) == [",,1,2", ",a,1,1"]


def test_a_source_that_sends_nothing(tmp_path: Path) -> None:
    told = run(tmp_path, [])
    assert (told["rows_in"], told["rows_out"]) == (0, 0)
    waiting = Query(tmp_path / "waiting", Scripted([], bounded=False, schema=SCHEMA))
    waiting.query.start()
    assert not waiting.query.await_termination(0.01)
    waiting.query.stop()
    assert waiting.query.progress()["status"] == "stopped"


def test_a_batch_that_is_huge() -> None:
    """20 million rows at once: they are cut into epochs, and come out exactly."""
    values = np.tile(np.arange(-100, 100, dtype=np.int8), 100_000)
    session, sink = DataflowSession(), MemorySink()
    frame = session.read_stream(MemorySource([pa.table({"v": values})]), "events").group_by("v").count("n")
    query = frame.write_stream(sink, epoch_rows_max=1 << 20)
    query.process_available()
    told = query.progress()
    query.stop()
    assert told["rows_in"] == 20_000_000
    assert told["epoch"] == 20
    assert sink.result().num_rows == 200
    assert set(sink.result()["n"].to_pylist()) == {100_000}


# --- sinks


class HalfWay(CsvAppendSink):
    """A CSV sink that fails in the middle of its work, at the `fails_at`-th call."""

    def __init__(self, *given: Any, where: str, fails_at: int) -> None:
        super().__init__(*given)
        self._left = {where: fails_at}

    def _may_fail(self, where: str) -> None:
        self._left[where] = self._left.get(where, 0) - 1
        if self._left[where] == 0:
            raise OSError(28, "No space left on device")

    def stage(self, epoch: int, changes: pa.Table) -> str:
        ref = super().stage(epoch, changes)
        self._may_fail("stage")
        return ref

    def commit(self, epoch: int, ref: str) -> None:
        self._may_fail("commit")
        super().commit(epoch, ref)


@pytest.mark.parametrize("where", ["stage", "commit"])
@pytest.mark.parametrize("fails_at", [1, 3])
def test_a_sink_that_fails_half_way(tmp_path: Path, undisturbed: str, where: str, fails_at: int) -> None:
    sink = HalfWay(DataflowSession()._engine, tmp_path / "out.csv", where=where, fails_at=fails_at)
    error = failing(tmp_path, BATCHES, sink=sink)
    assert isinstance(error, ExternalError)
    assert "No space left" in error.message
    run(tmp_path, BATCHES)
    assert written(tmp_path) == undisturbed


# --- checkpoints


def test_a_checkpoint_of_another_query(tmp_path: Path, undisturbed: str) -> None:
    run_to(tmp_path, 6)
    with pytest.raises(StateError) as caught:
        run(tmp_path, BATCHES, build=lambda events: counted(events.filter("v > 0")))
    assert caught.value.code == "checkpoint.other_query"
    run(tmp_path, BATCHES)
    assert written(tmp_path) == undisturbed


def run_to(folder: Path, batches: int) -> None:
    """The query over its first batches, stopped before the stream has ended."""
    Query(folder, Scripted(BATCHES[:batches], bounded=False, schema=SCHEMA)).run()


def harmed(folder: Path, harm: Callable[[bytes], bytes], name: str = "state.duckdb") -> None:
    path = folder / "checkpoint" / name
    path.write_bytes(harm(path.read_bytes()))


@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_a_checkpoint_that_is_truncated(tmp_path: Path, undisturbed: str, kept: float) -> None:
    """It is refused; brought back from a copy, it goes on."""
    run_to(tmp_path, 6)
    shutil.copytree(tmp_path / "checkpoint", tmp_path / "copy")
    harmed(tmp_path, lambda data: data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    with pytest.raises((StateError, ExternalError), match=r"state\.duckdb"):
        run(tmp_path, BATCHES)
    shutil.rmtree(tmp_path / "checkpoint")
    shutil.copytree(tmp_path / "copy", tmp_path / "checkpoint")
    run(tmp_path, BATCHES)
    assert written(tmp_path) == undisturbed


def test_a_flipped_byte_anywhere(tmp_path: Path, undisturbed: str) -> None:
    """It is told, or was in a place that nobody reads: then the output is right. Never a wrong answer."""
    chance = random.Random(11)
    run_to(tmp_path / "good", 6)
    outcomes = set()
    for number in range(24):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", folder)
        files = sorted(path for path in (folder / "checkpoint").iterdir() if path.stat().st_size)
        path = chance.choice(files)
        at = chance.randrange(path.stat().st_size)
        harmed(folder, lambda data, at=at: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :], path.name)  # type: ignore[misc]
        try:
            run(folder, BATCHES)
        except (StateError, ExternalError):
            outcomes.add("told")
        else:
            assert written(folder) == undisturbed, f"{path.name} at {at}"
            outcomes.add("right")
        shutil.rmtree(folder)
    assert "told" in outcomes


OTHER_PROCESS = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_stream_bad_input as t
from velaria_core.errors import StateError
try:
    t.run(Path({folder!r}), t.BATCHES)
except StateError as error:
    print(error.code)
"""


def test_two_processes_on_one_checkpoint(tmp_path: Path, undisturbed: str) -> None:
    """The second is refused, and the first goes on as if nothing had been."""
    source = Scripted(BATCHES[:6], bounded=False, schema=SCHEMA)
    first = Query(tmp_path, source)
    first.query.process_available()
    text = OTHER_PROCESS.format(path=[str(Path(__file__).parent), *sys.path], folder=str(tmp_path))
    other = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "database.locked"
    source.answers = [*BATCHES, abi.EndOfStream()]
    first.run()
    assert written(tmp_path) == undisturbed


# --- time


def test_a_clock_that_goes_back(tmp_path: Path, undisturbed: str) -> None:
    """Event time does not heed the clock, and what is told of the clock does no harm."""
    clock = ManualClock(start_ms=YEAR_MS)
    source = Scripted([], bounded=False, schema=SCHEMA)
    one = Query(tmp_path, source, clock=clock)
    for number in range(1, 13):
        source.answers = BATCHES[:number]
        one.query.process_available()
        clock.advance(-3_600_000 if number % 2 else 60_000)
    source.answers = [*BATCHES, abi.EndOfStream()]
    one.run()
    assert written(tmp_path) == undisturbed


def test_an_event_a_year_ahead(tmp_path: Path, undisturbed: str) -> None:
    """It does not close the windows of the year: it is set aside, counted, and comes out at the end."""
    wrong = pa.table([[YEAR_MS], ["a"], [7]], schema=SCHEMA)
    told = run(tmp_path, [*BATCHES[:4], wrong, *BATCHES[4:]])
    assert told["late_dropped_rows"] == 0
    lines = written(tmp_path).splitlines()
    window = YEAR_MS // 10_000 * 10_000
    assert [line for line in lines if line.startswith(str(window))] == [f"{window},a,1,7"]
    assert sorted(line for line in lines if not line.startswith(str(window))) == sorted(undisturbed.splitlines())
    half = tmp_path / "half"
    shown = Query(half, Scripted([*BATCHES[:4], wrong], bounded=False, schema=SCHEMA)).run()
    assert shown["ahead_rows"] == 1
    assert shown["watermark"].startswith("1970-01-01T00:00:1")
