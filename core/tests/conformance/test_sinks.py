"""Every sink of the kernel under the contract's checks, then what is its own."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
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
from velaria_core.contract.abi import Sink
from velaria_core.contract.conformance import ROWS, SINK_CHECKS, SinkCase, Target, sink_context
from velaria_core.contract.modes import SinkMode
from velaria_core.errors import DataError, ExternalError, InputError, StateError
from velaria_core.execution import files
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.sinks.callback import CallbackSink
from velaria_core.execution.sinks.console import ConsoleSink
from velaria_core.execution.sinks.csv_append import CsvAppendSink
from velaria_core.execution.sinks.file_set import MANIFEST, FileSetSink, parts
from velaria_core.execution.sinks.folding import folded
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sinks.queue import QueueSink
from velaria_core.execution.sinks.table import TableSink
from velaria_core.session import DataflowSession

TABLE = pa.table([[1, 2], ["a", None], [0.5, None]], schema=ROWS)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


# --- the outsides of the cases


class _Memory:
    """The sink is its own outside."""

    def __init__(self) -> None:
        self._sink = MemorySink()

    def sink(self) -> Sink:
        return self._sink

    def content(self) -> pa.Table:
        return self._sink.result()


class _Queue:
    """A reader that polls everything at once, and adds it up where the case says so."""

    def __init__(self) -> None:
        self._sink = QueueSink()
        self._polled: list[pa.Table] = []

    def sink(self) -> Sink:
        return self._sink

    def content(self) -> pa.Table:
        while (table := self._sink.poll_arrow()) is not None:
            self._polled.append(table)
        return _joined(self._polled)


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables) if tables else pa.table({})


class _Callback:
    """What the function was given, by epoch where it remembers them."""

    def __init__(self, idempotent: bool) -> None:
        self._calls: list[tuple[int, pa.Table]] = []
        self._idempotent = idempotent

    def sink(self) -> Sink:
        return CallbackSink(lambda epoch, table: self._calls.append((epoch, table)), idempotent=self._idempotent)

    def content(self) -> pa.Table:
        if self._idempotent:
            return _joined(list(dict(self._calls).values()))
        return _joined([table for _, table in self._calls])


class _FileSet:
    def __init__(self, engine: Engine, folder: Path, format_name: str) -> None:
        self._engine = engine
        self._folder = folder
        self._format = format_name

    def sink(self) -> Sink:
        return FileSetSink(self._engine, self._folder, self._format)

    def content(self) -> pa.Table:
        return _joined([table for path in parts(self._folder) if (table := self._read(path)).num_rows])

    def _read(self, path: Path) -> pa.Table:
        if self._format == "parquet":
            return pq.read_table(path)
        if self._format == "json":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            return pa.Table.from_pylist(rows, schema=_schema_of(list(rows[0]) if rows else ROWS.names))
        return _read_csv(path)


def _schema_of(names: list[str]) -> pa.Schema:
    kinds = {**{item.name: item.type for item in ROWS}, "diff": pa.int64()}
    return pa.schema([(name, kinds[name]) for name in names])


def _read_csv(path: Path) -> pa.Table:
    """As RFC 4180 has it, with an empty field as NULL: by hand, as the readers do not tell "" from NULL."""
    cells: list[list[str | None]] = [[]]
    text = path.read_text() if path.exists() else ""
    at = 0
    while at < len(text):
        if text[at] == '"':
            value, at = "", at + 1
            while text[at : at + 2] == '""' or text[at] != '"':
                value += text[at]
                at += 2 if text[at] == '"' else 1
            cells[-1].append(value)
            at += 1
        else:
            end = min(found for mark in ",\n" if (found := text.find(mark, at)) >= 0)
            cells[-1].append(text[at:end] or None)
            at = end
        if text[at] == "\n":
            cells.append([])
        at += 1
    assert cells.pop() == [], "the file ends with a line end"
    if not cells:
        return pa.table({})
    schema = _schema_of([str(name) for name in cells[0]])
    convert: list[Callable[[str], Any]] = [
        float if pa.types.is_floating(item.type) else int if pa.types.is_integer(item.type) else str for item in schema
    ]
    columns = [
        [None if row[at] is None else convert[at](str(row[at])) for row in cells[1:]] for at in range(len(schema))
    ]
    return pa.Table.from_arrays(
        [pa.array(values, item.type) for values, item in zip(columns, schema, strict=True)], schema=schema
    )


class _Csv:
    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path

    def sink(self) -> Sink:
        return CsvAppendSink(self._engine, self._path)

    def content(self) -> pa.Table:
        return _read_csv(self._path)


class _Table:
    """A table of an engine that others hold too."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def sink(self) -> Sink:
        return TableSink(self._name, engine=self._engine)

    def content(self) -> pa.Table:
        with self._engine.cursor() as cursor:
            if not cursor.rows("SELECT 1 FROM duckdb_tables() WHERE table_name = $1", [self._name]):
                return pa.table({})
            return cursor.table(f'SELECT * FROM "{self._name}"')


class _TableFile(_Table):
    """A table of a file, which a reader opens beside the sink."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sink(self) -> Sink:
        return TableSink("t", path=self._path)

    def content(self) -> pa.Table:
        with closing(Engine(Settings(path=str(self._path), threads=1))) as engine:
            return _Table(engine, "t").content()


_numbers = iter(range(1_000_000))


def _in_folder(tmp_path: Path, make: Callable[[Path], Target]) -> Callable[[], Target]:
    """Outsides in a folder, each with a place of its own."""
    return lambda: make(tmp_path / str(next(_numbers)))


_CASES: dict[str, Callable[[Path, Engine], SinkCase]] = {
    "memory": lambda _p, _e: SinkCase("memory", _Memory),
    "queue": lambda _p, _e: SinkCase("queue", _Queue, folds=False),
    "callback": lambda _p, _e: SinkCase("callback", lambda: _Callback(False), folds=False),
    "callback-idempotent": lambda _p, _e: SinkCase("callback", lambda: _Callback(True), folds=False),
    "file-set-parquet": lambda p, e: SinkCase("p", _in_folder(p, lambda at: _FileSet(e, at, "parquet"))),
    "file-set-csv": lambda p, e: SinkCase("c", _in_folder(p, lambda at: _FileSet(e, at, "csv"))),
    "file-set-json": lambda p, e: SinkCase("j", _in_folder(p, lambda at: _FileSet(e, at, "json"))),
    "csv-append": lambda p, e: SinkCase("csv", _in_folder(p, lambda at: _Csv(e, at))),
    "table": lambda p, e: SinkCase("table", _in_folder(p, lambda at: _Table(e, f"t{at.name}"))),
}


@pytest.mark.parametrize("name", _CASES)
@pytest.mark.parametrize("check", SINK_CHECKS, ids=lambda check: check.__name__)
def test_sink_keeps_the_contract(check: Callable[[SinkCase], None], name: str, tmp_path: Path, engine: Engine) -> None:
    check(_CASES[name](tmp_path, engine))


@pytest.mark.parametrize(
    "check", [conformance.sink_says_what_it_is, conformance.sink_writes_every_mode, conformance.sink_commits_once]
)
def test_table_of_a_file_keeps_the_contract(check: Callable[[SinkCase], None], tmp_path: Path) -> None:
    check(SinkCase("file", _in_folder(tmp_path, _TableFile)))


# --- the checks find what is wrong


class _Eager(MemorySink):
    """Shows what is only staged."""

    def stage(self, epoch: int, changes: pa.Table) -> str:
        ref = super().stage(epoch, changes)
        super().commit(epoch, ref)
        return ref


class _Forgetful(MemorySink):
    """Loses what was staged when it is opened again."""

    def open(self, context: conformance.SinkContext) -> None:
        self._staged.clear()
        super().open(context)


class _Doubling(CallbackSink):
    """Claims that repeating does no harm."""

    def __init__(self, calls: list[pa.Table]) -> None:
        super().__init__(lambda _epoch, table: calls.append(table), idempotent=True)


class _Calls:
    def __init__(self) -> None:
        self._calls: list[pa.Table] = []

    def sink(self) -> Sink:
        return _Doubling(self._calls)

    def content(self) -> pa.Table:
        return _joined(self._calls)


def _memory_target(sink: MemorySink) -> Target:
    target = _Memory()
    target._sink = sink
    return target


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (lambda: _memory_target(_Eager()), conformance.sink_hides_what_is_staged),
        (lambda: _memory_target(_Eager()), conformance.sink_aborts),
        (lambda: _memory_target(_Forgetful()), conformance.sink_survives_crashes),
        (_Calls, conformance.sink_survives_crashes),
    ],
)
def test_the_checks_refuse_a_broken_sink(make: Callable[[], Target], check: Callable[[SinkCase], None]) -> None:
    with pytest.raises(AssertionError):
        check(SinkCase("broken", make, folds=make is not _Calls))


# --- memory, queue, callback, console


def _written(sink: Any, *epochs: pa.Table, mode: SinkMode = SinkMode.APPEND, last_epoch: int = 0) -> Any:
    """The sink, opened, with these epochs committed."""
    sink.open(sink_context(mode, last_epoch))
    for epoch, changes in enumerate(epochs, last_epoch + 1):
        sink.commit(epoch, sink.stage(epoch, changes))
    return sink


def test_memory_counts_what_it_was_given() -> None:
    """Inventory A-63."""
    sink = _written(MemorySink(), TABLE, TABLE.slice(1))
    assert (sink.batches_written, sink.rows_written) == (2, 3)
    assert sink.last_table.equals(TABLE.slice(1))
    assert list(sink.tables) == [1, 2]
    assert sink.result().to_pylist() == [*TABLE.to_pylist(), *TABLE.slice(1).to_pylist()]


def test_folding_takes_any_column_and_no_key() -> None:
    schema = pa.schema([("times", pa.list_(pa.int64())), ("velaria", pa.float64())])
    changes = pa.table(
        {"times": [[1], [1], None, [2]], "velaria": [float("nan"), float("nan"), None, 1.0], "diff": [1, 2, -1, 1]}
    )
    undo = pa.table({"times": [None], "velaria": [None], "diff": [1]}).cast(changes.schema)
    result = folded([changes, undo], SinkMode.RETRACT, (), schema)
    assert sorted(map(str, result.to_pylist())) == [
        *["{'times': [1], 'velaria': nan}"] * 3,
        "{'times': [2], 'velaria': 1.0}",
    ]
    one = [pa.table({"n": [n], "diff": [1]}) for n in (3, 5)]
    assert folded(one, SinkMode.UPSERT, (), pa.schema([("n", pa.int64())])).to_pylist() == [{"n": 5}]


def test_queue_polls_without_waiting_and_says_when_it_is_over() -> None:
    """Inventory A-99."""
    sink = QueueSink()
    assert sink.poll_arrow() is None
    assert not sink.closed(), "a query may still begin"
    _written(sink, TABLE)
    sink.close()
    assert not sink.closed()
    assert sink.poll_arrow().equals(TABLE)
    assert sink.poll_arrow() is None
    assert sink.closed()


def test_queue_wakes_a_reader_when_rows_come_and_when_the_query_stops() -> None:
    """Inventory B-15."""
    sink = QueueSink()
    sink.open(sink_context(SinkMode.APPEND))
    got: list[pa.Table | None] = []
    reader = threading.Thread(target=lambda: got.extend([sink.wait_arrow(), sink.wait_arrow()]))
    reader.start()
    sink.commit(1, sink.stage(1, TABLE))
    sink.close()
    reader.join(PATIENCE_S)
    assert not reader.is_alive()
    assert got == [TABLE, None]


def test_queue_holds_the_query_back_and_then_tells_it() -> None:
    clock = ManualClock()
    sink = _written(QueueSink(capacity_rows=3, full_timeout_ms=100, clock=clock), TABLE)
    errors: list[ExternalError] = []

    def stage() -> None:
        try:
            sink.stage(2, TABLE)
        except ExternalError as error:
            errors.append(error)

    staging = threading.Thread(target=stage)
    staging.start()
    until(lambda: clock.next_deadline_ms() is not None)
    clock.advance(100)
    staging.join(PATIENCE_S)
    assert [(error.code, error.retryable) for error in errors] == [("sink.full", True)]
    assert sink.poll_arrow() is not None
    sink.commit(2, sink.stage(2, TABLE))
    assert sink.poll_arrow() is not None


def test_callback_failures_fail_the_epoch() -> None:
    def fail(epoch: int, _table: pa.Table) -> None:
        raise DataError("mine", "bad") if epoch == 1 else KeyError("x")

    sink = CallbackSink(fail)
    sink.open(sink_context(SinkMode.APPEND))
    with pytest.raises(DataError, match="bad"):
        sink.stage(1, TABLE)
    with pytest.raises(ExternalError, match="the function raised KeyError for epoch 2") as caught:
        sink.stage(2, TABLE)
    assert caught.value.code == "sink.callback"


def test_console_prints_each_epoch() -> None:
    stream = io.StringIO()
    changes = conformance.script(SinkMode.RETRACT)[0]
    _written(ConsoleSink(stream=stream, width=80), changes, changes, mode=SinkMode.RETRACT)
    printed = stream.getvalue()
    assert printed.startswith("epoch 1\n")
    assert "\nepoch 2\n" in printed
    assert "diff" in printed
    assert "Strauß" in printed


# --- csv append


def test_csv_quotes_and_tells_null_from_empty(tmp_path: Path, engine: Engine) -> None:
    """Inventory A-64, B-22."""
    path = tmp_path / "out.csv"
    table = pa.table([[1, 2, 3], ['a,"b"\nc', None, ""], [None, 0.5, 1.0]], schema=ROWS)
    _written(CsvAppendSink(engine, path), table, table.slice(1, 1)).close()
    assert path.read_text() == 'k,v,x\n1,"a,""b""\nc",\n2,,0.5\n3,"",1.0\n2,,0.5\n'
    opened = files.read_csv(engine, path)
    with engine.cursor() as cursor:
        back = cursor.table(f"SELECT k, v, x FROM {opened.relation.sql}")
    assert back.slice(0, 2).to_pylist() == table.slice(0, 2).to_pylist()


def test_csv_goes_on_with_a_file_that_is_there(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "out.csv"
    path.write_text("k,v,x\n7,seven,7.0")  # without a line end
    _written(CsvAppendSink(engine, path), TABLE.slice(0, 1)).close()
    assert path.read_text() == "k,v,x\n7,seven,7.0\n1,a,0.5\n"
    _written(CsvAppendSink(engine, path), TABLE.slice(0, 1)).close()
    assert path.read_text() == "k,v,x\n7,seven,7.0\n1,a,0.5\n1,a,0.5\n", "another query adds to it"
    with pytest.raises(InputError, match='begins with "k,v,x"'):
        CsvAppendSink(engine, path, delimiter=";").open(sink_context(SinkMode.APPEND))


def test_csv_without_a_header(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "out.csv"
    _written(CsvAppendSink(engine, path, delimiter="|", header=False), TABLE)
    assert path.read_text() == "1|a|0.5\n2||\n"


@pytest.mark.parametrize("written", range(0, 40, 3))
def test_csv_redoes_an_append_that_was_cut_off(written: int, tmp_path: Path, engine: Engine) -> None:
    """The process died while it appended: after the sidecar, before the staged file was removed."""
    path = tmp_path / "out.csv"
    sink = _written(CsvAppendSink(engine, path), TABLE)
    before = path.read_bytes()
    ref = sink.stage(2, TABLE.slice(0, 1))
    saved = (tmp_path / ref).read_bytes()
    sink.commit(2, ref)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(before) + written])
    (tmp_path / ref).write_bytes(saved)
    sink.close()
    again = CsvAppendSink(engine, path)
    again.open(sink_context(SinkMode.APPEND, 2))
    again.commit(2, ref)
    assert path.read_bytes() == whole
    assert not (tmp_path / ref).exists()


def test_csv_refuses_a_file_that_was_cut(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "out.csv"
    _written(CsvAppendSink(engine, path), TABLE)
    os.truncate(path, 10)
    with pytest.raises(StateError, match="has 10 bytes") as caught:
        CsvAppendSink(engine, path).open(sink_context(SinkMode.APPEND, 1))
    assert caught.value.code == "sink.changed"
    path.unlink()
    _written(CsvAppendSink(engine, path), TABLE, last_epoch=1)
    assert path.read_text().startswith("k,v,x\n"), "a file that was moved away begins anew"


@pytest.mark.parametrize("make", ["csv", "files", "table"])
def test_a_sink_ahead_of_its_query_is_refused(make: str, tmp_path: Path, engine: Engine) -> None:
    """An older checkpoint was restored: going on would double what came after it."""

    def sink() -> Any:
        if make == "csv":
            return CsvAppendSink(engine, tmp_path / "out.csv")
        return FileSetSink(engine, tmp_path) if make == "files" else TableSink("ahead", engine=engine)

    _written(sink(), TABLE, TABLE, TABLE).close()
    with pytest.raises(StateError, match="holds epoch 3, the query's state ends at epoch 2"):
        sink().open(sink_context(SinkMode.APPEND, 2))
    _written(sink(), TABLE).close()  # a query that begins


@pytest.mark.parametrize("make", ["csv", "files", "table"])
def test_queries_that_write_in_turn_have_epochs_of_their_own(make: str, tmp_path: Path, engine: Engine) -> None:
    """What one query staged or committed neither stands for an epoch of another one nor is removed by it."""
    targets: dict[str, Callable[[], Target]] = {
        "csv": lambda: _Csv(engine, tmp_path / "out.csv"),
        "files": lambda: _FileSet(engine, tmp_path / "set", "parquet"),
        "table": lambda: _TableFile(tmp_path / "out.duckdb"),
    }
    target = targets[make]()

    def opened(state_id: str, last_epoch: int) -> Any:
        sink = target.sink()
        sink.open(sink_context(SinkMode.APPEND, last_epoch, state_id))
        return sink

    def of(state_id: str, epoch: int) -> pa.Table:
        return pa.table([[epoch], [state_id], [0.0]], schema=ROWS)

    staged: dict[str, str] = {}
    # By turns a query commits what it left, and an epoch more, and leaves one more: durable, but not visible yet.
    for turn, state_id in enumerate(["one" * 8, "two" * 8] * 3):
        last = 2 * (turn // 2)
        sink = opened(state_id, last)
        if state_id in staged:
            sink.commit(last, staged[state_id])
            sink.commit(last - 1, staged[state_id + "before"])  # known already
        for epoch in (last + 1, last + 2):
            ref = sink.stage(epoch, of(state_id, epoch))
            if epoch == last + 1:
                sink.commit(epoch, ref)
                staged[state_id + "before"] = ref
        staged[state_id] = ref
        sink.stage(last + 3, of(state_id, -1))  # never durable
        sink.close()
    for state_id in ("one" * 8, "two" * 8):
        sink = opened(state_id, 6)
        sink.commit(6, staged[state_id])
        sink.close()
    found = sorted((row["v"], row["k"]) for row in target.content().to_pylist())
    assert found == [(state_id, epoch) for state_id in ("one" * 8, "two" * 8) for epoch in range(1, 7)]


# --- file set


def test_file_set_names_what_counts(tmp_path: Path, engine: Engine) -> None:
    sink = _written(FileSetSink(engine, tmp_path), TABLE)
    sink.stage(2, TABLE)
    sink.close()
    (tmp_path / "part-00000009-stranger.parquet").write_bytes(b"no")
    assert [path.name[:13] for path in parts(tmp_path)] == ["part-00000001"]
    again = FileSetSink(engine, tmp_path)
    again.open(sink_context(SinkMode.APPEND, 1))
    assert not list(tmp_path.glob(".*part-*")), "staged parts of an epoch that never was"
    assert parts(tmp_path / "missing") == []


def test_file_set_forgets_a_line_that_was_cut_off(tmp_path: Path, engine: Engine) -> None:
    sink = _written(FileSetSink(engine, tmp_path), TABLE)
    ref = sink.stage(2, TABLE)
    sink.commit(2, ref)
    sink.close()
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-7])
    assert len(parts(tmp_path)) == 1
    again = FileSetSink(engine, tmp_path)
    again.open(sink_context(SinkMode.APPEND, 2))
    again.commit(2, ref)
    assert [path.name for path in parts(tmp_path)][1:] == [ref]
    assert all(json.loads(line) for line in manifest.read_text().splitlines())


def test_file_set_refuses_a_damaged_manifest_and_another_schema(tmp_path: Path, engine: Engine) -> None:
    _written(FileSetSink(engine, tmp_path), TABLE)
    with pytest.raises(InputError, match="holds format parquet, the query gives csv"):
        FileSetSink(engine, tmp_path, "csv").open(sink_context(SinkMode.APPEND, 1))
    with pytest.raises(InputError, match="holds mode append, the query gives retract"):
        FileSetSink(engine, tmp_path).open(sink_context(SinkMode.RETRACT, 1))
    (tmp_path / MANIFEST).write_text('{"version": 1}\nnonsense\n')
    with pytest.raises(StateError, match="is damaged"):
        parts(tmp_path)
    with pytest.raises(InputError, match='no format "xml"'):
        FileSetSink(engine, tmp_path, "xml")


def test_file_set_of_the_whole_result_keeps_few_files(tmp_path: Path, engine: Engine) -> None:
    sink = _written(FileSetSink(engine, tmp_path, "json"), *[TABLE] * 5, mode=SinkMode.REPLACE)
    assert len(parts(tmp_path)) == 1
    assert len(list(tmp_path.glob("part-*"))) == 2, "and the one before, for whoever reads it now"
    sink._compact()
    assert [path.name[:13] for path in parts(tmp_path)] == ["part-00000005"]
    sink.close()
    _written(sink, TABLE, mode=SinkMode.REPLACE, last_epoch=5)
    assert [path.name[:13] for path in parts(tmp_path)] == ["part-00000006"]


# --- table


def _table_rows(engine: Engine, name: str) -> list[tuple[Any, ...]]:
    with engine.cursor() as cursor:
        return cursor.rows(f'SELECT * FROM "{name}" ORDER BY ALL')


def test_table_keeps_the_rows_of_others(engine: Engine) -> None:
    with engine.cursor() as cursor:
        cursor.rows("CREATE TABLE others (k BIGINT, v VARCHAR, x DOUBLE)")
        cursor.rows("INSERT INTO others VALUES (9, 'nine', 9.0), (1, 'old', 0.0)")
    _written(TableSink("others", engine=engine), TABLE.append_column("diff", pa.array([1, 1])), mode=SinkMode.UPSERT)
    assert _table_rows(engine, "others") == [(1, "a", 0.5), (2, None, None), (9, "nine", 9.0)]


def test_table_of_other_columns_is_refused(engine: Engine) -> None:
    with engine.cursor() as cursor:
        cursor.rows("CREATE TABLE other_columns (k BIGINT, v VARCHAR)")
    with pytest.raises(InputError, match=r'"other_columns" has the columns k BIGINT, v VARCHAR, the query gives'):
        TableSink("other_columns", engine=engine).open(sink_context(SinkMode.APPEND))
    with pytest.raises(InputError, match="an engine or of a path"):
        TableSink("t")


def test_table_tells_of_rows_that_somebody_took_away(engine: Engine) -> None:
    sink = _written(
        TableSink("taken", engine=engine), TABLE.append_column("diff", pa.array([2, 1])), mode=SinkMode.RETRACT
    )
    with engine.cursor() as cursor:
        cursor.rows("DELETE FROM taken WHERE k = 1")
    ref = sink.stage(2, TABLE.append_column("diff", pa.array([-1, -1])))
    with pytest.raises(StateError, match='1 rows that go are not in "taken"'):
        sink.commit(2, ref)
    assert _table_rows(engine, "taken") == [(2, None, None)], "nothing of the epoch is there"
    sink.close()


def test_table_of_a_file_is_seen_by_a_session(tmp_path: Path) -> None:
    path = tmp_path / "out.duckdb"
    _written(TableSink("out", path=path), TABLE).close()
    with DataflowSession(path) as session:
        assert session.tables() == ["out"], "what the sink keeps for itself is no table of the session"
        assert session.sql("SELECT k, v FROM out ORDER BY k").to_rows() == [{"k": 1, "v": "a"}, {"k": 2, "v": None}]


# --- a disk that is full, a folder that is read-only


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


_LARGE = pa.table([range(50_000), [f"{n:x}" * 4 for n in range(50_000)], [0.1] * 50_000], schema=ROWS)


def _fill(path: Path, left: int = 0) -> None:
    """Take all of the disk but `left` bytes."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    os.ftruncate(descriptor, os.fstat(descriptor).st_size - left)
    os.close(descriptor)


def _target_on(disk: Path, kind: str, engine: Engine) -> Target:
    return _Csv(engine, disk / "out.csv") if kind == "csv" else _FileSet(engine, disk / "set", "csv")


@pytest.mark.parametrize("kind", ["csv", "files"])
def test_a_disk_that_is_full_for_staging_loses_nothing(kind: str, small_disk: Path, engine: Engine) -> None:
    target = _target_on(small_disk, kind, engine)
    sink = _written(target.sink(), TABLE)
    with pytest.raises(ExternalError) as caught:
        sink.stage(2, _LARGE)
    assert caught.value.code == "disk.full"
    assert caught.value.retryable
    assert target.content().num_rows == 2
    sink.close()
    _written(target.sink(), TABLE, last_epoch=1)
    assert target.content().num_rows == 4


@pytest.mark.parametrize("left", [0, 16_384])
def test_a_disk_that_is_full_for_a_commit_loses_nothing(left: int, small_disk: Path, engine: Engine) -> None:
    """Nothing left for the sidecar, or enough for it and for a part of the rows."""
    target = _target_on(small_disk, "csv", engine)
    sink = _written(target.sink(), TABLE)
    ref = sink.stage(2, _LARGE.slice(0, 2_000))
    _fill(small_disk / "ballast", left)
    with pytest.raises(ExternalError) as caught:
        sink.commit(2, ref)
    assert caught.value.code == "disk.full"
    assert target.content().num_rows == 2, "no half of an epoch"
    sink.close()
    (small_disk / "ballast").unlink()
    again = target.sink()
    again.open(sink_context(SinkMode.APPEND, 2))
    again.commit(2, ref)
    assert target.content().num_rows == 2_002


def test_a_full_disk_loses_nothing_of_a_table(small_disk: Path) -> None:
    path = small_disk / "out.duckdb"
    sink = _written(TableSink("t", path=path), TABLE)
    epoch, told = 1, ""
    while not told:
        try:
            sink.commit(epoch + 1, sink.stage(epoch + 1, _LARGE))
            epoch += 1
        except (ExternalError, StateError) as error:
            told = error.code
    assert told in ("disk.full", "database.failed")
    sink.close()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = _written(TableSink("t", path=path), TABLE, last_epoch=epoch)
    again.close()
    with closing(Engine(Settings(path=str(path)))) as engine:
        assert len(_table_rows(engine, "t")) == 4 + (epoch - 1) * _LARGE.num_rows


@pytest.mark.parametrize("kind", ["csv", "files"])
def test_a_read_only_folder_is_told_and_mended(kind: str, small_disk: Path, engine: Engine) -> None:
    target: Target = _Csv(engine, small_disk / "o.csv") if kind == "csv" else _FileSet(engine, small_disk, "parquet")
    sink = _written(target.sink(), TABLE)
    ref = sink.stage(2, TABLE)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        with pytest.raises(ExternalError) as caught:
            sink.commit(2, ref)
        assert caught.value.code == "file.forbidden"
        assert target.content().num_rows == 2
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    sink.commit(2, ref)
    assert target.content().num_rows == 4
