"""Every source of the kernel under the contract's checks, then what is its own."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runtime_support import PATIENCE_S, until

from velaria_core.contract import conformance
from velaria_core.contract.abi import Batch, Blocked, EndOfStream, Source
from velaria_core.contract.conformance import SOURCE_CHECKS, SourceCase, source_context
from velaria_core.errors import DataError, ExternalError, InputError, StateError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.sources import growing_file
from velaria_core.execution.sources.arrow_reader import ArrowReaderSource
from velaria_core.execution.sources.changelog import ChangelogSource
from velaria_core.execution.sources.directory import DirectorySource
from velaria_core.execution.sources.growing_file import GrowingFileSource
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.sources.queue import QueueSource
from velaria_core.execution.sources.rate import RateSource
from velaria_core.execution.sources.replay import ReplaySource
from velaria_core.execution.sources.rows import RowsSource

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.string()), ("x", pa.float64())])
ROWS = pa.table(
    [[1, 2, None, 4, 5, 6, 7], ["a", "", None, 'q"u,o', "l\nn", "ß🌼", "g"], [0.5, None, -1.0, 4.0, 5.0, 6.0, 7.25]],
    schema=SCHEMA,
)
# As text: no empty string beside NULL, no line break.
TEXT = pa.table([[1, 2, None, 4, 5], ["a", "b", None, "d e", "ß🌼"], [0.5, None, -1.0, 4.0, 5.25]], schema=SCHEMA)
CHANGES = ROWS.append_column(pa.field("diff", pa.int64(), nullable=False), pa.array([1, 1, 2, -1, 1, -2, 1]))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


# --- the outsides of the cases


def _lines(table: pa.Table, delimiter: str) -> str:
    rows = (["" if value is None else str(value) for value in row.values()] for row in table.to_pylist())
    return "".join(delimiter.join(row) + "\n" for row in rows)


def _write(path: Path, using: str, table: pa.Table) -> None:
    match using:
        case "csv":
            path.write_text("k,v,x\n" + _lines(table, ","))
        case "line":
            path.write_text(_lines(table, "|"))
        case "json":
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        case "parquet":
            pq.write_table(table, path)
        case "arrow":
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)


def _files(folder: Path, using: str, table: pa.Table) -> Path:
    """Two files with rows, one without, one that is not finished."""
    folder.mkdir()
    _write(folder / f"a.{using}", using, table.slice(0, 3))
    _write(folder / f"b.{using}", using, table.slice(0, 0))
    _write(folder / f"c.{using}", using, table.slice(3))
    _write(folder / f".d.{using}", using, table)
    _write(folder / f"e.{using}.tmp", using, table)
    return folder


_OPTIONS: dict[str, dict[str, Any]] = {"line": {"split_delimiter": "|", "null_values": ""}, "csv": {"header": True}}


def _directory(tmp_path: Path, engine: Engine, using: str, **more: Any) -> SourceCase:
    table = ROWS if using in ("parquet", "arrow", "json") else TEXT
    folder = _files(tmp_path / using, using, table)
    clock = ManualClock()

    def make() -> Source:
        schema = SCHEMA if using in ("line", "json") else None
        options = _OPTIONS.get(using, {}) | more.get("options", {})
        rest = {key: value for key, value in more.items() if key != "options"}
        return DirectorySource(engine, folder, using, options=options, schema=schema, clock=clock, **rest)

    return SourceCase(using, make, table, advance=lambda: clock.advance(50), ends=more.get("bounded", False))


def _queue(rows: pa.Table, **more: Any) -> QueueSource:
    source = QueueSource(SCHEMA, **more)
    source.push_arrow(rows.slice(0, 2))
    source.push_arrow(rows.slice(2).to_batches()[0])
    source.close_input()
    return source


def _memory(rows: pa.Table, **more: Any) -> MemorySource:
    return MemorySource([rows.slice(0, 2), rows.slice(2, 0), rows.slice(2)], **more)


def _growing(tmp_path: Path, engine: Engine, using: str, **more: Any) -> SourceCase:
    table = ROWS if using == "jsonl" else TEXT
    path = tmp_path / f"grows.{using}"
    _write(path, "json" if using == "jsonl" else using, table)
    clock = ManualClock()
    options = {"line": {"split_delimiter": "|", "null_values": ""}}.get(using, {})

    def make() -> Source:
        return GrowingFileSource(engine, path, using, options=options, schema=SCHEMA, clock=clock, **more)

    return SourceCase(using, make, table, advance=lambda: clock.advance(50), ends=False)


def _rate() -> SourceCase:
    clock = ManualClock(5_000)
    whole = RateSource(100, rows=40, keys=3, seed=7, start_ms=5_000, wait=False)
    whole.open(source_context())
    (batch,) = _read(whole)

    def make() -> Source:
        return RateSource(100, rows=40, keys=3, seed=7, start_ms=5_000, clock=clock)

    return SourceCase("rate", make, batch.table, advance=lambda: clock.advance(35))


TIMED = pa.table(
    {"at": pa.array([None, 1_000, 1_000, 1_500, 9_000], pa.timestamp("ms")), "n": pa.array([0, 1, 2, 3, 4])}
)


def _replay(speed: float | None) -> SourceCase:
    clock = ManualClock()
    return SourceCase(
        "replay",
        lambda: ReplaySource(TIMED.take([3, 1, 0, 2, 4]), "at", speed=speed, clock=clock),
        TIMED,
        advance=lambda: clock.advance(100),
    )


def _rows_of_iterator() -> SourceCase:
    """Rows of an iterator: asked again when it has given all of them, which fit in what it may run ahead."""
    ended = threading.Event()

    def given() -> Iterator[Any]:
        ended.clear()
        yield from ROWS.slice(0, 4).to_pylist()
        yield ROWS.slice(4, 2).to_batches()[0]
        yield tuple(ROWS.slice(6).to_pylist()[0].values())
        ended.set()

    clock = ManualClock()
    return SourceCase(
        "rows", lambda: RowsSource(given(), SCHEMA, emit_rows=3, clock=clock), ROWS, advance=lambda: _waited(ended)
    )


def _waited(event: threading.Event) -> None:
    assert event.wait(30)


_CASES: dict[str, Callable[[Path, Engine], SourceCase]] = {
    "memory": lambda _p, _e: SourceCase("memory", lambda: _memory(ROWS), ROWS),
    "memory-changes": lambda _p, _e: SourceCase("memory", lambda: _memory(CHANGES, append_only=False), CHANGES),
    "memory-open": lambda _p, _e: SourceCase("memory", lambda: _memory(ROWS, bounded=False), ROWS, ends=False),
    "queue": lambda _p, _e: SourceCase("queue", lambda: _queue(ROWS), ROWS),
    "queue-changes": lambda _p, _e: SourceCase("queue", lambda: _queue(CHANGES, append_only=False), CHANGES),
    **{
        f"directory-{using}": lambda path, engine, using=using: _directory(path, engine, using)  # type: ignore[misc]
        for using in ("csv", "line", "json", "parquet", "arrow")
    },
    "changelog": lambda _p, _e: SourceCase("changelog", lambda: ChangelogSource([CHANGES]), CHANGES),
    "arrow-reader": lambda _p, _e: SourceCase("reader", lambda: ArrowReaderSource(ROWS.to_reader(3)), ROWS),
    "rows-list": lambda _p, _e: SourceCase("rows", lambda: RowsSource(ROWS.to_pylist(), SCHEMA, 3), ROWS),
    "rows-iterator": lambda _p, _e: _rows_of_iterator(),
    "rate": lambda _p, _e: _rate(),
    "replay": lambda _p, _e: _replay(2.0),
    "replay-at-once": lambda _p, _e: _replay(None),
    **{
        f"growing-{using}": lambda path, engine, using=using: _growing(path, engine, using)  # type: ignore[misc]
        for using in ("csv", "line", "jsonl")
    },
    "growing-restart": lambda path, engine: _growing(path, engine, "csv", on_change="restart"),
    "directory-bounded": lambda path, engine: _directory(path, engine, "csv", bounded=True),
    "directory-skip": lambda path, engine: _directory(path, engine, "csv", options={"on_error": "skip"}),
}


@pytest.mark.parametrize("name", _CASES)
@pytest.mark.parametrize("check", SOURCE_CHECKS, ids=lambda check: check.__name__)
def test_source_keeps_the_contract(
    check: Callable[[SourceCase], None], name: str, tmp_path: Path, engine: Engine
) -> None:
    check(_CASES[name](tmp_path, engine))


# --- the checks find what is wrong


class _Forgetful(MemorySource):
    """Begins at the beginning whatever it is told."""

    def open(self, context: conformance.SourceContext) -> None:
        super().open(source_context(pushed=context.pushed, wake=context.wake))


class _Doubling(MemorySource):
    """Gives its first batch twice."""

    doubled = False

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        answer = super().next_batch(max_rows)
        if not self.doubled:
            self.doubled = True
            super().open(source_context())
        return answer


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (_Forgetful, conformance.source_resumes_at_any_offset),
        (_Forgetful, conformance.source_stops_anywhere),
        (_Doubling, conformance.source_gives_every_row_once),
    ],
)
def test_the_checks_refuse_a_broken_source(broken: type[MemorySource], check: Callable[[SourceCase], None]) -> None:
    with pytest.raises(AssertionError):
        check(SourceCase("broken", lambda: broken([ROWS.slice(0, 2), ROWS.slice(2)]), ROWS))


# --- memory


def _opened(source: Any, resume_from: str | None = None, wake: Callable[[], None] = lambda: None) -> Any:
    source.open(source_context(resume_from, wake=wake))
    return source


def _read(source: Source, max_rows: int = 65_536) -> list[Batch]:
    """The batches up to the next Blocked or the end."""
    found = []
    while isinstance(answer := source.next_batch(max_rows), Batch):
        found.append(answer)
    return found


def _keys(found: list[Batch]) -> list[Any]:
    return [key for batch in found for key in batch.table.column("k").to_pylist()]


def test_memory_offsets_count_batches() -> None:
    """Inventory A-60."""
    source = _opened(MemorySource([ROWS.slice(0, 2), ROWS.slice(2)]))
    assert [batch.offset.token for batch in _read(source)] == ["1", "2"]
    assert [batch.offset.token for batch in _read(_opened(source), 2)] == ["1", "1+2", "1+4", "2"]


def test_memory_takes_more_and_wakes_the_query() -> None:
    woken: list[int] = []
    source = _opened(MemorySource(schema=SCHEMA, bounded=False), wake=lambda: woken.append(1))
    assert source.next_batch(10) == Blocked()
    source.add(ROWS)
    source.end()
    assert len(woken) == 2
    assert _keys(_read(source)) == ROWS.column("k").to_pylist()
    assert source.next_batch(10) == EndOfStream()
    with pytest.raises(InputError, match="takes no more rows"):
        source.add(ROWS)


@pytest.mark.parametrize("token", ["3", "2+1", "0+9", "-1", "x", "+1"])
def test_memory_refuses_offsets_that_are_not_there(token: str) -> None:
    with pytest.raises(StateError):
        _opened(MemorySource([ROWS.slice(0, 2), ROWS.slice(2)]), token)


def test_memory_refuses_batches_of_another_schema() -> None:
    with pytest.raises(InputError, match='"k" is missing'):
        MemorySource([ROWS, ROWS.select(["v", "x"])])
    with pytest.raises(InputError, match="no batches and no schema"):
        MemorySource([])


# --- queue


def test_queue_takes_rows_as_dicts_and_sequences() -> None:
    """Inventory A-98."""
    source = _opened(QueueSource(SCHEMA))
    source.push_rows([{"k": 1, "x": 2}, {"v": "b"}])
    source.push_rows([(3, "c", None), [4, None, 0.5]])
    rows = [row for batch in _read(source) for row in batch.table.to_pylist()]
    assert rows == [
        {"k": 1, "v": None, "x": 2.0},
        {"k": None, "v": "b", "x": None},
        {"k": 3, "v": "c", "x": None},
        {"k": 4, "v": None, "x": 0.5},
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"k": 1, "w": 2}], 'column "w"'),
        ([{"k": 1}, (1, 2)], "row 1 is"),
        ([{"k": "one"}], '"k" is no int64'),
        ([{"k": 2**63}], '"k" is no int64'),
        (["abc"], "row 0 is 'abc'"),
    ],
)
def test_queue_refuses_rows_that_do_not_fit(rows: list[Any], told: str) -> None:
    source = QueueSource(SCHEMA)
    with pytest.raises(InputError, match=told):
        source.push_rows(rows)
    assert source.waiting_rows == 0


def test_queue_refuses_arrow_of_another_schema() -> None:
    source = QueueSource(SCHEMA)
    with pytest.raises(InputError, match='"k" is float64, its schema says int64'):
        source.push_arrow(ROWS.set_column(0, "k", pa.array([1.0] * 7)))
    with pytest.raises(InputError, match='"w" is not in its schema'):
        source.push_arrow(ROWS.rename_columns(["k", "w", "x"]))
    with pytest.raises(InputError, match="no Arrow data"):
        source.push_arrow([1, 2])


def test_queue_takes_columns_stored_in_another_way() -> None:
    source = _opened(QueueSource(SCHEMA))
    source.push_arrow(
        pa.table({"x": ROWS.column("x"), "v": ROWS.column("v").dictionary_encode(), "k": ROWS.column("k")})
    )
    (batch,) = _read(source)
    assert batch.table.equals(ROWS)


def test_queue_holds_the_pusher_back_until_there_is_room() -> None:
    source = _opened(QueueSource(SCHEMA, capacity_rows=4))
    source.push_rows([(n, None, None) for n in range(4)])
    pushed = threading.Event()

    def push() -> None:
        source.push_rows([(4, None, None)], timeout_ms=None)
        pushed.set()

    pusher = threading.Thread(target=push)
    pusher.start()
    assert not pushed.wait(0.05)
    assert isinstance(source.next_batch(2), Batch)
    pusher.join(PATIENCE_S)
    assert pushed.is_set()
    assert _keys(_read(source)) == [2, 3, 4]


def test_queue_tells_a_pusher_that_it_stays_full() -> None:
    clock = ManualClock()
    source = QueueSource(SCHEMA, capacity_rows=2, clock=clock)
    source.push_rows([(n, None, None) for n in range(9)])  # more than there is room for, but nothing waits
    errors: list[ExternalError] = []

    def push() -> None:
        try:
            source.push_rows([(9, None, None)], timeout_ms=500)
        except ExternalError as error:
            errors.append(error)

    pusher = threading.Thread(target=push)
    pusher.start()
    until(lambda: clock.next_deadline_ms() is not None)
    clock.advance(500)
    pusher.join(PATIENCE_S)
    assert [error.code for error in errors] == ["source.full"]
    assert errors[0].retryable
    assert source.waiting_rows == 9


def test_queue_close_of_the_input_wakes_everybody() -> None:
    """Inventory B-15: nobody waits on a queue that is done."""
    woken = threading.Event()
    source = _opened(QueueSource(SCHEMA, capacity_rows=1), wake=woken.set)
    source.push_rows([(1, None, None)])
    refused: list[InputError] = []

    def push() -> None:
        try:
            source.push_rows([(2, None, None)], timeout_ms=None)
        except InputError as error:
            refused.append(error)

    pusher = threading.Thread(target=push)
    pusher.start()
    woken.clear()
    source.close_input()
    pusher.join(PATIENCE_S)
    assert [error.code for error in refused] == ["source.closed"]
    assert woken.is_set()
    assert _keys(_read(source)) == [1]
    assert source.next_batch(1) == EndOfStream()


def test_queue_wakes_the_query_for_rows_pushed_by_other_threads() -> None:
    woken = threading.Semaphore(0)
    source = _opened(QueueSource(SCHEMA), wake=woken.release)
    assert source.next_batch(1) == Blocked()
    threading.Thread(target=lambda: source.push_rows([(1, None, None)])).start()
    assert woken.acquire(timeout=PATIENCE_S)
    assert _keys(_read(source)) == [1]


def test_queue_gives_what_was_not_acknowledged_again() -> None:
    source = _opened(QueueSource(SCHEMA))
    source.push_arrow(ROWS.slice(0, 4))
    source.push_arrow(ROWS.slice(4))
    first, second, *_ = _read(source, 3)
    source.ack(first.offset)
    source.close()
    assert _keys(_read(_opened(source))) == [4, 5, 6, 7]
    source.ack(second.offset)
    source.close()
    assert source.waiting_rows == 0
    assert _keys(_read(_opened(source))) == [5, 6, 7]


# --- directory


def _folder_source(engine: Engine, folder: Path, clock: ManualClock, **more: Any) -> DirectorySource:
    return DirectorySource(engine, folder, "csv", schema=pa.schema([("k", pa.int64())]), clock=clock, **more)


def _after_settling(source: Source, clock: ManualClock) -> list[Batch]:
    found = []
    for _ in range(8):
        found += _read(source)
        clock.advance(100)
    return found


def test_directory_offsets_are_file_names(tmp_path: Path, engine: Engine) -> None:
    """Inventory A-61."""
    case = _directory(tmp_path, engine, "csv", bounded=True)
    found = _read(_opened(case.make()))
    assert [batch.offset.token for batch in found] == ["a.csv", "c.csv"]
    size = os.path.getsize(tmp_path / "csv" / "a.csv")
    assert [batch.offset.token for batch in _read(_opened(case.make()), 2)][:2] == [f"a.csv/2/{size}", "a.csv"]


def test_directory_takes_files_that_appear_and_none_twice(tmp_path: Path, engine: Engine) -> None:
    clock = ManualClock()
    source = _opened(_folder_source(engine, tmp_path, clock))
    assert isinstance(source.next_batch(10), Blocked)
    (tmp_path / "1.csv").write_text("k\n1\n2\n")
    (tmp_path / ".2.csv").write_text("k\n3\n")
    found = _after_settling(source, clock)
    assert _keys(found) == [1, 2]
    (tmp_path / ".2.csv").rename(tmp_path / "2.csv")
    assert _keys(_after_settling(source, clock)) == [3]
    again = _opened(_folder_source(engine, tmp_path, clock), found[-1].offset.token)
    assert _keys(_after_settling(again, clock)) == [3]


def test_directory_waits_for_files_that_grow_and_for_those_before(tmp_path: Path, engine: Engine) -> None:
    clock = ManualClock()
    source = _opened(_folder_source(engine, tmp_path, clock, settle_ms=300))
    growing = tmp_path / "1.csv"
    growing.write_text("k\n1\n")
    (tmp_path / "2.csv").write_text("k\n9\n")
    for n in range(2, 6):
        assert isinstance(source.next_batch(10), Blocked), "a file that grows, and the one after it"
        clock.advance(200)
        with growing.open("a") as stream:
            stream.write(f"{n}\n")
    assert _keys(_after_settling(source, clock)) == [1, 2, 3, 4, 5, 9]


def test_directory_takes_renamed_files_at_once_without_settling(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "1.csv").write_text("k\n1\n")
    source = _opened(_folder_source(engine, tmp_path, ManualClock(), settle_ms=0))
    assert _keys(_read(source)) == [1]


def test_directory_tells_of_a_file_that_comes_too_late(tmp_path: Path, engine: Engine) -> None:
    clock = ManualClock()
    (tmp_path / "5.csv").write_text("k\n5\n")
    source = _opened(_folder_source(engine, tmp_path, clock))
    quiet = _opened(_folder_source(engine, tmp_path, clock, late_files="ignore"))
    for each in (source, quiet):
        assert _keys(_after_settling(each, clock)) == [5]
    (tmp_path / "4.csv").write_text("k\n4\n")
    clock.advance(100)
    assert isinstance(quiet.next_batch(10), Blocked)
    with pytest.raises(DataError, match=r'"4\.csv" appeared') as caught:
        source.next_batch(10)
    assert caught.value.code == "source.late_file"
    (tmp_path / "6.csv").write_text("k\n6\n")
    assert _keys(_after_settling(source, clock)) == [6], "told once"


def test_directory_refuses_a_partly_read_file_that_changed_or_went(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "1.csv").write_text("k\n1\n2\n3\n")
    clock = ManualClock()
    source = _opened(_folder_source(engine, tmp_path, clock, bounded=True))
    token = source.next_batch(2).offset.token
    source.close()
    (tmp_path / "1.csv").write_text("k\n1\n2\n3\n4\n")
    with pytest.raises(StateError, match="has 10 now") as caught:
        _opened(_folder_source(engine, tmp_path, clock, bounded=True), token)
    assert caught.value.code == "source.changed"
    (tmp_path / "1.csv").unlink()
    with pytest.raises(StateError, match="not there any more"):
        _opened(_folder_source(engine, tmp_path, clock, bounded=True), token)


def test_directory_gives_the_rows_before_a_bad_one_then_the_error(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "1.csv").write_text("k\n1\n")
    (tmp_path / "2.csv").write_text("k\n2\nx\n")
    source = _opened(_folder_source(engine, tmp_path, ManualClock(), bounded=True))
    assert _keys([source.next_batch(10)]) == [1]
    with pytest.raises(DataError, match=r"2\.csv") as caught:
        source.next_batch(10)
    assert caught.value.place is not None
    assert caught.value.place.line == 3
    source.close()
    (tmp_path / "2.csv").write_text("k\n2\n3\n")
    assert _keys(_read(_opened(source, "1.csv"))) == [2, 3]


def test_directory_leaves_bad_rows_out_when_told(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "1.csv").write_text("k\n1\nx\n3\n")
    options = {"on_error": "skip"}
    source = _folder_source(engine, tmp_path, ManualClock(), bounded=True, options=options)
    assert _keys(_read(_opened(source))) == [1, 3]


def test_directory_of_another_schema_is_refused(tmp_path: Path, engine: Engine) -> None:
    pq.write_table(ROWS, tmp_path / "1.parquet")
    pq.write_table(pa.table({"k": ["one"], "v": ["x"], "x": [1.0]}), tmp_path / "2.parquet")
    source = _opened(DirectorySource(engine, tmp_path, "parquet", bounded=True))
    assert len(_keys([source.next_batch(100)])) == 7
    with pytest.raises(InputError, match='"k" is string, its schema says int64'):
        source.next_batch(100)


def test_directory_needs_a_folder_and_a_schema(tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(InputError, match="tells the columns"):
        DirectorySource(engine, tmp_path, "csv")
    with pytest.raises(InputError, match='no format "cvs"'):
        DirectorySource(engine, tmp_path, "cvs")
    with pytest.raises(ExternalError, match="there is no folder"):
        _opened(DirectorySource(engine, tmp_path / "missing", "csv", schema=SCHEMA))
    rooted = Engine(Settings(threads=1, roots=(str(tmp_path),)))
    with closing(rooted), pytest.raises(ExternalError, match="outside the folders"):
        DirectorySource(rooted, tmp_path.parent, "csv", schema=SCHEMA)


def test_directory_reads_a_large_file_in_pieces(tmp_path: Path, engine: Engine) -> None:
    rows = 150_000
    (tmp_path / "1.csv").write_text("k\n" + "".join(f"{n}\n" for n in range(rows)))
    source = _opened(_folder_source(engine, tmp_path, ManualClock(), bounded=True))
    found = _read(source, 50_000)
    assert _keys(found) == list(range(rows))
    assert max(batch.table.num_rows for batch in found) <= 50_000
    token = found[1].offset.token
    start = found[0].table.num_rows + found[1].table.num_rows
    assert _keys(_read(_opened(source, token))) == list(range(start, rows))


# --- growing file

NUMBERS = pa.schema([("k", pa.int64()), ("v", pa.string())])


class _Log:
    """A CSV file that grows, and sources that follow it."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.path = folder / "app.log"
        self._engine = engine
        self._clock = ManualClock()

    def add(self, text: str) -> None:
        with self.path.open("a") as stream:
            stream.write(text)

    def follow(self, token: str | None = None, **more: Any) -> GrowingFileSource:
        source = GrowingFileSource(self._engine, self.path, "csv", schema=NUMBERS, clock=self._clock, **more)
        source.open(source_context(token))
        return source

    def read(self, source: GrowingFileSource, max_rows: int = 65_536) -> list[Batch]:
        self._clock.advance(100)
        return _read(source, max_rows)


@pytest.fixture
def log(tmp_path: Path, engine: Engine) -> _Log:
    return _Log(tmp_path, engine)


def test_growing_file_gives_whole_lines_only(log: _Log) -> None:
    source = log.follow()
    assert log.read(source) == [], "the file is not there yet"
    for text, keys in (
        ("k,", []),
        ("v\n1,a", []),
        ("\n2,b\n3", [1, 2]),
        ("", []),
        ('3,"two\nlines', []),
        ('"\n', [33]),
        ('4,"a ""quoted"" one\n', []),
        ('and more"\n5,e\n6', [4, 5]),
        (",f\r\n", [6]),
    ):
        log.add(text)
        assert _keys(log.read(source)) == keys, text
    source.close()


def test_growing_file_takes_a_quote_that_means_nothing(log: _Log) -> None:
    log.add('k,v\n1,5" nail\n2,b\n')
    assert _keys(log.read(log.follow())) == [1, 2]


def test_growing_file_resumes_at_bytes(log: _Log) -> None:
    log.add("k,v\n1,a\n2,b\n3,c\n")
    source = log.follow()
    tokens = [batch.offset.token for batch in log.read(source, 2)]
    assert tokens[0].startswith("0:"), "the position of the first rows is one of rows"
    assert tokens[0].endswith("+2")
    assert tokens[1].startswith("16:")
    source.close()
    log.add("4,d\n")
    assert _keys(log.read(log.follow(tokens[0]))) == [3, 4]
    assert _keys(log.read(log.follow(tokens[1]))) == [4]


def test_growing_file_follows_a_rotation(log: _Log) -> None:
    log.add("k,v\n1,a\n")
    source = log.follow()
    token = log.read(source)[0].offset.token
    log.add("2,b\n3,last words")
    log.path.rename(log.path.with_suffix(".log.1"))
    assert _keys(log.read(source)) == [2], "there is no new file yet, so the last line may go on"
    log.add("k,v\n4,d\n")
    assert _keys(log.read(source)) == [3, 4]
    source.close()
    again = log.follow(token)
    assert _keys(log.read(again)) == [2, 3, 4], "in another process too"
    again.close()
    with pytest.raises(StateError, match="another file now"):
        log.follow(token, on_change="fail")
    log.path.rename(log.path.with_suffix(".log.0"))
    log.add("k,v\n5,e\n")
    with pytest.raises(StateError, match="keep the last rotated file") as caught:
        log.follow(token)
    assert caught.value.code == "source.rotated", "two rotations: the one between would be passed over"


def test_growing_file_tells_of_a_rotation(log: _Log) -> None:
    log.add("k,v\n1,a\n")
    source = log.follow(on_change="fail")
    assert _keys(log.read(source)) == [1]
    log.add("2,b\n")
    log.path.rename(log.path.with_suffix(".log.1"))
    log.add("k,v\n3,c\n")
    with pytest.raises(StateError, match="another file now"):
        log.read(source)


@pytest.mark.parametrize("rewritten", ["k,v\n7,g\n", "k,v\n7,g\n8,h\n9,i\n10,j\n11,k\n"])
def test_growing_file_tells_of_a_file_that_was_cut_or_written_anew(log: _Log, rewritten: str) -> None:
    log.add("k,v\n1,a\n2,b\n3,c\n")
    source, restarting = log.follow(), log.follow(on_change="restart")
    token = log.read(source)[0].offset.token
    log.read(restarting)
    log.path.write_text(rewritten)
    with pytest.raises(StateError) as caught:
        log.read(source)
    assert caught.value.code == "source.changed"
    with pytest.raises(StateError):
        log.follow(token)
    assert _keys(log.read(restarting)) == [int(line.split(",")[0]) for line in rewritten.splitlines()[1:]]


def test_growing_file_names_the_line_that_is_bad(log: _Log) -> None:
    log.add("k,v\n1,a\n2,b\n")
    source = log.follow()
    assert _keys(log.read(source)) == [1, 2]
    log.add("3,c\nfour,d\n")
    with pytest.raises(DataError) as caught:
        log.read(source)
    assert caught.value.place is not None
    assert (caught.value.place.file, caught.value.place.line) == (str(log.path), 5)
    with pytest.raises(DataError):
        log.read(source)


def test_growing_file_reads_much_in_pieces(log: _Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing_file, "CHUNK_BYTES", 1_000)
    log.add("k,v\n" + "".join(f"{n},{'x' * (n % 50)}\n" for n in range(500)) + f"500,{'y' * 5_000}\n")
    source = log.follow()
    found = log.read(source, 7)
    assert _keys(found) == list(range(501))
    for at in range(0, len(found), 20):
        done = sum(batch.table.num_rows for batch in found[: at + 1])
        assert _keys(log.read(log.follow(found[at].offset.token))) == list(range(done, 501))


def test_growing_file_refuses_what_cannot_be_followed(tmp_path: Path, engine: Engine) -> None:
    for using, options, code in (
        ("parquet", {}, "option.value"),
        ("csv", {"encoding": "utf-16"}, "option.value"),
        ("line", {}, "option.missing"),
        ("csv", {}, "source.no_schema"),
    ):
        with pytest.raises(InputError) as caught:
            GrowingFileSource(engine, tmp_path / "x", using, options=options)
        assert caught.value.code == code
    for token in ("x", "1:2", "1:2:zz", ""):
        with pytest.raises(StateError):
            _opened(GrowingFileSource(engine, tmp_path / "x", "csv", schema=NUMBERS), token)


# --- rate, replay, arrow reader, changelog


def test_rate_gives_rows_when_they_are_due() -> None:
    clock = ManualClock(10_000)
    source = _opened(RateSource(4, clock=clock))
    (first,) = _read(source)
    assert first.offset.token == "1@10000"
    assert source.next_batch(9) == Blocked(retry_after_ms=250)
    clock.advance(249)
    assert source.next_batch(9) == Blocked(retry_after_ms=1)
    clock.advance(1)
    assert source.next_batch(9).table.column("value").to_pylist() == [1]
    clock.advance(1_000)
    (late,) = _read(source)
    assert late.table.column("value").to_pylist() == [2, 3, 4, 5]
    assert [str(value) for value in late.table.column("timestamp")[:2]] == [
        "1970-01-01 00:00:10.500000",
        "1970-01-01 00:00:10.750000",
    ]
    again = _opened(RateSource(4, clock=ManualClock(99_000)), first.offset.token)
    assert again.next_batch(5).table.slice(1).equals(late.table), "the same rows in another process, at another time"


def test_rate_is_seeded_and_even() -> None:
    def table(seed: int) -> pa.Table:
        source = _opened(RateSource(1_000, rows=20_000, keys=10, seed=seed, start_ms=0, wait=False))
        return pa.concat_tables([batch.table for batch in _read(source)])

    one, other = table(1), table(2)
    assert one.equals(table(1))
    assert not one.column("random").equals(other.column("random"))
    for made in (one, other):
        random = made.column("random").to_numpy()
        assert 0.49 < random.mean() < 0.51
        assert random.min() >= 0
        assert random.max() < 1
        counts = made.group_by("key").aggregate([("key", "count")]).column("key_count").to_pylist()
        assert len(counts) == 10
        assert min(counts) > 1_800
    with pytest.raises(InputError, match="rows_per_second is 1 or more"):
        RateSource(0)


def test_replay_keeps_the_pauses_at_its_speed() -> None:
    clock = ManualClock()
    source = _opened(ReplaySource(TIMED, "at", speed=10.0, clock=clock))
    assert [batch.table.column("n").to_pylist() for batch in _read(source)] == [[0, 1, 2]]
    assert source.next_batch(9) == Blocked(retry_after_ms=50)
    clock.advance(50)
    assert source.next_batch(9).table.column("n").to_pylist() == [3]
    assert source.next_batch(9) == Blocked(retry_after_ms=750)
    assert _opened(ReplaySource(TIMED, "at", speed=10.0, clock=clock), "4").next_batch(9).table.num_rows == 1


@pytest.mark.parametrize("kind", [pa.int64(), pa.timestamp("ns"), pa.timestamp("s", "UTC"), pa.date32()])
def test_replay_takes_any_time(kind: pa.DataType) -> None:
    days = pa.array([0, 2, 1], pa.int32()).cast(pa.date32()).cast(pa.timestamp("ms"))
    times = days.cast(pa.int64()) if kind == pa.int64() else days.cast(kind)
    clock = ManualClock()
    source = _opened(ReplaySource(pa.table({"t": times, "n": [0, 2, 1]}), "t", speed=86_400.0, clock=clock))
    for n in range(3):
        assert source.next_batch(9).table.column("n").to_pylist() == [n]
        clock.advance(1_000)
    assert source.next_batch(9) == EndOfStream()


def test_replay_refuses_what_is_no_time() -> None:
    with pytest.raises(InputError, match='no column "att"'):
        ReplaySource(TIMED, "att")
    with pytest.raises(InputError, match='"v" is string, a time column is'):
        ReplaySource(ROWS, "v")
    with pytest.raises(InputError, match="above 0"):
        ReplaySource(TIMED, "at", speed=0)
    with pytest.raises(StateError, match="9 rows were given"):
        _opened(ReplaySource(TIMED, "at"), "9")


def test_arrow_reader_gives_what_was_not_acknowledged_again() -> None:
    source = _opened(ArrowReaderSource(ROWS.to_reader(2)))
    first, *_ = _read(source)
    source.ack(first.offset)
    source.close()
    assert _keys(_read(_opened(source))) == [None, 4, 5, 6, 7]


def test_arrow_reader_tells_what_its_reader_raises() -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise ConnectionError("gone")

    source = _opened(ArrowReaderSource(pa.RecordBatchReader.from_batches(SCHEMA, failing())))
    assert len(_keys([source.next_batch(99)])) == 7
    with pytest.raises(ExternalError, match="the reader failed: gone") as caught:
        source.next_batch(99)
    assert caught.value.code == "source.reader"
    with pytest.raises(InputError, match="no stream of Arrow data"):
        ArrowReaderSource([1])


def test_changelog_takes_any_count_column() -> None:
    changes = pa.table({"op": pa.array([1, -1, 0], pa.int8()), "n": [1, 1, 2]})
    (batch,) = _read(_opened(ChangelogSource(changes, diff="op")))
    assert batch.table.to_pylist() == [{"n": 1, "diff": 1}, {"n": 1, "diff": -1}]
    with pytest.raises(InputError, match="one column"):
        ChangelogSource(changes)
    with pytest.raises(InputError, match="1 NULLs"):
        ChangelogSource(pa.table({"n": [1], "diff": pa.array([None], pa.int64())}))


def test_directory_takes_at_once_what_has_long_been_there(tmp_path: Path, engine: Engine) -> None:
    clock = ManualClock(1_000_000)
    for name, age_ms in (("a.csv", 300), ("b.csv", 299)):
        (tmp_path / name).write_text("k\n1\n")
        os.utime(tmp_path / name, ns=(0, (1_000_000 - age_ms) * 1_000_000))
    source = _opened(_folder_source(engine, tmp_path, clock, settle_ms=300))
    assert isinstance(source.next_batch(10), Batch)
    assert isinstance(source.next_batch(10), Blocked)
    clock.advance(1)
    assert isinstance(source.next_batch(10), Batch)
    source.close()
