"""What becomes of errors: a query fails, tries again, or sets the rows aside that it cannot work on."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from runtime_support import PATIENCE_S, Gathered, Scripted, finished, numbered, query_over, rows, until

from velaria_core.contract.modes import QueryStatus, SinkMode
from velaria_core.errors import DataError, ExternalError, InputError, VelariaError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.policy import DeadLetters, Retries
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.sources.queue import QueueSource

TEN = [numbered(value) for value in range(10)]
SUM = "SELECT count(*) AS n, sum(v)::BIGINT AS s FROM one"
FINAL = {"n": 10, "s": 45, "diff": 1}


class Failing:
    """Raises at the given calls, and remembers how often it was called."""

    def __init__(self, error: Callable[[], Exception], *at: int) -> None:
        self._error, self._at = error, set(at)
        self.calls = 0

    def __call__(self, *_given: Any) -> None:
        self.calls += 1
        if self.calls in self._at:
            raise self._error()


def passing() -> Exception:
    return ExternalError("service.away", "the service is away", retryable=True)


def test_a_query_that_fails_can_be_mended_and_goes_on(tmp_path: Path) -> None:
    """By default the first error ends the query, at its last durable epoch."""
    source = Scripted(TEN)
    shown = []
    for at in (4, 0):
        sink = Gathered(staging=Failing(passing, at))
        query = query_over(source, sink=sink, sql=SUM, checkpoint_path=str(tmp_path), epoch_rows_max=1).start()
        if at:
            with pytest.raises(ExternalError, match="sink output: the service is away"):
                query.await_termination(PATIENCE_S)
            assert query.status is QueryStatus.FAILED
            assert "the service is away" in query.progress()["error"]
        else:
            finished(query)
        shown += sink.rows
    assert [row["n"] for row in shown if row["diff"] > 0] == list(range(1, 11))
    assert shown[-1] == FINAL


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("where", ["stage", "commit", "source"])
def test_an_error_that_may_pass_is_tried_again(where: str, durable: bool, tmp_path: Path) -> None:
    """Everything is closed and opened again, from the last durable epoch; nothing is lost or doubled."""
    failing = Failing(passing, 3, 5)
    answers: list[Any] = [*TEN[:3], passing(), *TEN[3:]] if where == "source" else list(TEN)
    source = Scripted(answers)
    sink = Gathered(
        staging=failing if where == "stage" else lambda _epoch, _rows: None,
        committing=failing if where == "commit" else lambda _epoch: None,
    )
    folder = str(tmp_path) if durable else None
    query = query_over(source, sink=sink, sql=SUM, checkpoint_path=folder, epoch_rows_max=1, retries=3, backoff_ms=0)
    finished(query.start())
    assert [row["n"] for row in sink.rows if row["diff"] > 0] == list(range(1, 11))
    assert sink.rows[-1] == FINAL
    times = 1 if where == "source" else 2
    assert query.progress()["retried_count"] == times
    assert len(source.contexts) == len(sink.contexts) == times + 1
    assert query.status is QueryStatus.STOPPED


def test_a_caller_without_a_thread_tries_again_too() -> None:
    sink = Gathered(staging=Failing(passing, 2))
    query = query_over(Scripted(TEN), sink=sink, sql=SUM, epoch_rows_max=5, retries=1, backoff_ms=0)
    assert query.process_available() == 10
    assert sink.rows[-1] == FINAL


def test_a_queue_gives_again_what_was_not_acknowledged() -> None:
    """It cannot be read from an offset, and still loses and doubles nothing within its process."""
    queue = QueueSource(TEN[0].schema)
    for value in range(10):
        queue.push_arrow(numbered(value))
    queue.close_input()
    sink = Gathered(committing=Failing(passing, 1))
    finished(query_over(queue, sink=sink, epoch_rows_max=4, retries=1, backoff_ms=0).start())
    assert [row["v"] for row in sink.rows] == list(range(10))


def test_a_queue_is_acknowledged_however_often_opening_fails(tmp_path: Path) -> None:
    """The epoch is durable when its commit fails, and the sink away for two more attempts."""
    queue = QueueSource(TEN[0].schema)
    for value in range(10):
        queue.push_arrow(numbered(value))
    queue.close_input()
    sink = Gathered(committing=Failing(passing, 1, 2, 3))
    query = query_over(queue, sink=sink, checkpoint_path=str(tmp_path), epoch_rows_max=4, retries=5, backoff_ms=0)
    finished(query.start())
    assert [row["v"] for row in sink.rows] == list(range(10))


def test_attempts_wait_longer_each_time_and_end() -> None:
    clock = ManualClock()
    sink = Gathered(staging=Failing(passing, *range(100)))
    query = query_over(Scripted(TEN), sink=sink, clock=clock, retries=3, backoff_ms=100).start()
    for deadline in (100, 300, 700):
        until(partial(lambda at: clock.next_deadline_ms() == at, deadline), query)
        clock.advance(deadline - clock.ticks_ms())
    with pytest.raises(ExternalError):
        query.await_termination(PATIENCE_S)
    assert sink.calls.count("stage") == 4
    assert clock.ticks_ms() == 700


def test_a_success_makes_attempts_new() -> None:
    """Ten errors and two attempts: enough, as there is an epoch between them."""
    sink = Gathered(staging=Failing(passing, *range(2, 20, 2)))
    query = query_over(Scripted(TEN), sink=sink, sql=SUM, epoch_rows_max=1, retries=2, backoff_ms=0)
    finished(query.start())
    assert sink.rows[-1] == FINAL
    assert query.progress()["retried_count"] == 9


def test_stop_ends_the_wait_for_an_attempt() -> None:
    clock = ManualClock()
    sink = Gathered(staging=Failing(passing, 1))
    query = query_over(Scripted(TEN), sink=sink, clock=clock, retries=1, backoff_ms=3_600_000).start()
    until(lambda: clock.next_deadline_ms() == 60_000, query)  # the longest wait
    stopper = threading.Thread(target=query.stop)
    stopper.start()
    stopper.join(PATIENCE_S)
    assert query.status is QueryStatus.STOPPED


def test_what_will_not_pass_is_not_tried_again() -> None:
    retries = Retries(3, 100)
    assert retries.wait_ms(ExternalError("a.b", "no")) is None
    assert retries.wait_ms(RuntimeError()) is None
    assert [retries.wait_ms(passing()) for _ in range(4)] == [100, 200, 400, None]
    retries.succeeded()
    assert retries.wait_ms(passing()) == 100


def test_a_sink_that_fails_half_way_leaves_no_half(tmp_path: Path) -> None:
    """The second epoch of three in a commit is visible, the third is not: the restart makes it so."""
    source = Scripted(TEN[:3])
    sink = Gathered(committing=Failing(passing, 2))
    options: dict[str, Any] = {"checkpoint_path": str(tmp_path), "epoch_rows_max": 1, "checkpoint_interval": 3}
    query = query_over(source, sink=sink, **options)
    with pytest.raises(ExternalError):
        query.process_available()
    assert list(sink.epochs) == [1]
    assert source.acks == []
    query = query_over(source, sink=sink, **options)
    assert list(sink.epochs) == [1, 2, 3], "visible before the first epoch of the new life"
    assert query.process_available() == 0
    query.stop()


# --- dead letters

CAST = "SELECT v, CAST(k AS BIGINT) AS n FROM one"
LETTERS = [rows(("1", 1)), rows(("2", 2), ("x", 3)), rows(("4", 4)), rows(("y", 5)), rows(("6", 6))]


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("rows_max", [1, 3, 100])
def test_a_poison_batch_goes_to_the_dead_letters(rows_max: int, durable: bool, threaded: bool, tmp_path: Path) -> None:
    """Its rows with the error beside them, in the epoch that leaves them out; the query goes on."""
    letters, sink, source = Gathered(), Gathered(), Scripted(LETTERS)
    folder = str(tmp_path) if durable else None
    query = query_over(
        source,
        sink=sink,
        sql=CAST,
        dead_letter=letters,
        checkpoint_path=folder,
        epoch_rows_max=rows_max,
        checkpoint_interval=2,
    )
    _ = finished(query.start()) if threaded else query.process_available()
    query.stop()
    assert [row["n"] for row in sink.rows] == [1, 4, 6]
    assert [(row["k"], row["v"]) for row in letters.rows] == [("2", 2), ("x", 3), ("y", 5)]
    assert all(row["error"].startswith("value.conversion: ") for row in letters.rows)
    progress = query.progress()
    assert progress["dead_letter_rows"] == 3
    assert progress["batches_processed"] == 5
    assert source.acks[-1] == "5"
    assert not letters.is_open


def test_the_state_does_not_see_a_poison_batch() -> None:
    letters, sink = Gathered(), Gathered()
    sql = "SELECT sum(CAST(k AS BIGINT))::BIGINT AS s, count(*) AS n FROM one"
    query_over(Scripted(LETTERS), sink=sink, sql=sql, dead_letter=letters, epoch_rows_max=2).process_available()
    assert sink.rows[-1] == {"s": 11, "n": 3, "diff": 1}


def refused() -> Exception:
    return DataError("sink.row", "a row that the sink does not take")


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("interval", [1, 3])
def test_what_a_sink_does_not_take_goes_to_the_dead_letters(
    interval: int, durable: bool, blocking: bool, tmp_path: Path
) -> None:
    """Also where the sink is called on another thread, which tells of it later."""

    def staging(_epoch: int, given: pa.Table) -> None:
        if {3, 7} & set(given.column("v").to_pylist()):
            raise refused()

    letters, sink = Gathered(), Gathered(staging=staging, blocking=blocking)
    query = query_over(
        Scripted(TEN),
        sink=sink,
        dead_letter=letters,
        checkpoint_path=str(tmp_path) if durable else None,
        epoch_rows_max=1,
        checkpoint_interval=interval,
    )
    finished(query.start())
    assert [row["v"] for row in sink.rows] == [0, 1, 2, 4, 5, 6, 8, 9]
    assert [row["v"] for row in letters.rows] == [3, 7]
    assert query.progress()["batches_processed"] == 10


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("interval", [1, 3])
def test_what_is_durable_is_shown_or_the_query_fails(interval: int, blocking: bool, tmp_path: Path) -> None:
    """Rows that are in the state are no dead letters, and are not passed over."""

    def open_again(at: int) -> tuple[Gathered, StreamingQuery]:
        query = query_over(
            source,
            sink=Gathered(
                committing=Failing(refused, *range(at, 99)) if at else lambda _epoch: None, blocking=blocking
            ),
            sql=SUM,
            dead_letter=letters,
            checkpoint_path=str(tmp_path),
            epoch_rows_max=1,
            checkpoint_interval=interval,
        )
        return query._sinks["output"], query

    source, letters = Scripted(TEN), Gathered()
    _, query = open_again(4)
    with pytest.raises(DataError, match="the sink does not take"):
        finished(query.start())
    assert query.progress()["dead_letter_rows"] == 0
    sink, query = open_again(0)
    finished(query.start())
    assert sink.rows[-1] == FINAL
    assert not letters.rows


def test_a_failed_commit_that_passes_is_made_again(tmp_path: Path) -> None:
    """The dead letters' rows come from another batch than the commit that failed, which is not forgotten for them."""
    sink = Gathered(committing=Failing(refused, 3))
    query = query_over(
        Scripted(TEN), sink=sink, dead_letter=Gathered(), checkpoint_path=str(tmp_path), epoch_rows_max=1
    )
    with suppress(DataError):
        finished(query.start())
    query = query_over(Scripted(TEN), sink=sink, dead_letter=Gathered(), checkpoint_path=str(tmp_path))
    finished(query.start())
    assert [row["v"] for row in sink.rows] == list(range(10))


def test_without_a_sink_for_them_dead_letters_fail_the_query() -> None:
    query = query_over(Scripted(LETTERS), sink=Gathered(), sql=CAST, epoch_rows_max=1)
    with pytest.raises(DataError):
        query.process_available()


def test_rows_of_another_schema_are_no_dead_letters() -> None:
    """They do not fit the columns of the sink for those."""
    source = Scripted([TEN[0], pa.table({"z": [1]})])
    query = query_over(source, sink=Gathered(), dead_letter=Gathered())
    with pytest.raises(DataError) as caught:
        query.process_available()
    assert caught.value.code == "source.schema"


def test_the_form_of_dead_letters() -> None:
    one = MemorySource([pa.table({"error": ["e"], "v": pa.array([1], pa.int64())})])
    two = MemorySource([pa.table({"v": pa.array([1], pa.int64()), "w": ["x"]})])
    letters = DeadLetters([one.info(), two.info()])
    assert letters.schema.names == ["error", "v", "w", "error_1"]
    made = letters.rows(pa.table({"v": pa.array([7, 8], pa.int64()), "w": ["x", "y"]}), DataError("a.b", "Zürich"))
    assert made.to_pylist() == [
        {"error": None, "v": 7, "w": "x", "error_1": "a.b: Zürich"},
        {"error": None, "v": 8, "w": "y", "error_1": "a.b: Zürich"},
    ]
    other = MemorySource([pa.table({"v": ["text"]})])
    with pytest.raises(InputError) as caught:
        DeadLetters([one.info(), other.info()])
    assert caught.value.code == "stream.dead_letter"


def test_a_sink_for_dead_letters_takes_rows() -> None:
    with pytest.raises(InputError) as caught:
        query_over(Scripted(TEN), sink=Gathered(), dead_letter=Gathered(SinkMode.REPLACE))
    assert caught.value.code == "stream.output_mode"


# --- the disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path, left: int) -> None:
    with open(path, "wb", buffering=0) as stream:
        with suppress(OSError):
            while True:
                stream.write(b"x" * 4096)
        stream.truncate(stream.tell() - left)


KEYED = "SELECT k, count(*) AS n FROM one GROUP BY k"
BATCHES = [rows(*((f"key {value}", value) for value in range(at * 500, at * 500 + 500))) for at in range(8)]


@pytest.mark.parametrize("left", [0, 8_192, 65_536])
def test_a_full_disk_loses_nothing(left: int, disk: Path) -> None:
    """The query fails with a code that says so, and goes on when there is room again."""
    sink, source = Gathered(), Scripted(BATCHES, bounded=False)
    options: dict[str, Any] = {"sql": KEYED, "checkpoint_path": str(disk / "state"), "epoch_rows_max": 500}
    query = query_over(source, sink=sink, **options)
    assert query.await_termination(PATIENCE_S, max_batches=2)
    query = query_over(source, sink=sink, **options)
    fill(disk / "ballast", left)
    with pytest.raises(VelariaError) as caught:
        query.process_available()
    assert caught.value.code in ("disk.full", "database.failed"), caught.value
    (disk / "ballast").unlink()
    query = query_over(source, sink=sink, **options)
    query.process_available()
    query.stop()
    assert sorted(row["k"] for row in sink.rows) == sorted(f"key {value}" for value in range(4_000))
    assert all(row["n"] == row["diff"] == 1 for row in sink.rows)


def test_a_full_disk_is_waited_for(disk: Path) -> None:
    """With attempts left the query goes on by itself when there is room."""
    clock = ManualClock()
    sink, source = Gathered(), Scripted(BATCHES)
    query = query_over(
        source,
        sink=sink,
        sql=KEYED,
        clock=clock,
        checkpoint_path=str(disk / "state"),
        epoch_rows_max=500,
        retries=5,
        backoff_ms=50_000,
    )
    fill(disk / "ballast", 65_536)
    query.start()
    until(lambda: (clock.next_deadline_ms() or 0) >= 50_000, query)
    (disk / "ballast").unlink()
    clock.advance(60_000)
    finished(query)
    assert sorted(row["k"] for row in sink.rows) == sorted(f"key {value}" for value in range(4_000))
    assert query.progress()["retried_count"] == 1


def test_a_folder_that_cannot_be_written_is_told(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(ExternalError) as caught:
        query_over(Scripted(TEN), sink=Gathered(), checkpoint_path=str(disk / "state"))
    assert caught.value.code == "file.forbidden"
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    sink = Gathered()
    query = query_over(Scripted(TEN), sink=sink, checkpoint_path=str(disk / "state"))
    query.process_available()
    query.stop()
    assert len(sink.rows) == 10


@pytest.mark.parametrize("threaded", [True, False])
def test_a_query_that_has_failed_tells_so_again(threaded: bool) -> None:
    query = query_over(Scripted(TEN), sink=Gathered(staging=Failing(passing, 1)))
    for _ in range(3):
        with pytest.raises(ExternalError, match="sink output: the service is away"):
            _ = query.await_termination(PATIENCE_S) if threaded else query.process_available()
    with pytest.raises(ExternalError, match="sink output: the service is away"):
        query.await_termination(PATIENCE_S)
