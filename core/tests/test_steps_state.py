"""What steps keep: it shrinks with what goes, and what was shown is what is retracted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlglot import exp

from velaria_core.changes import DIFF, DIFF_FIELD, constant, with_diff
from velaria_core.execution import state
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Moment, compile_steps
from velaria_core.execution.steps.bilinear import BilinearStep
from velaria_core.execution.steps.rows import SLACK_ROWS, Log
from velaria_core.logical import operators as op
from velaria_core.logical.expr import col, fn
from velaria_core.logical.node import Node
from velaria_core.logical.relation import Relation
from velaria_core.logical.rules import for_stream
from velaria_core.session import DataflowSession

SCHEMA = pa.schema({"k": pa.int64(), "text": pa.string()})


def integers(values: Any) -> pa.Array:
    return pa.array(np.asarray(values, np.int64))


def rows(keys: Any, text: str = "x", diff: int | None = None) -> pa.Table:
    keys = np.asarray(keys, np.int64)
    table = pa.table([integers(keys), pa.array(np.full(len(keys), text, object), pa.string())], SCHEMA)
    return table if diff is None else table.append_column(DIFF_FIELD, constant(diff, len(keys)))


@pytest.fixture
def store() -> Iterator[Store]:
    engine = Engine(Settings(threads=1))
    made = Store(engine)
    yield made
    made.close()
    engine.close()


def net(log: Log, store: Store) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for *row, count in store.cursor.rows(f"SELECT * FROM {log.table}"):
        found[tuple(row)] += count
    return Counter({row: count for row, count in found.items() if count})


def test_a_million_changes_of_a_hundred_keys_leave_little(store: Store) -> None:
    log = Log(store, "rows", SCHEMA, append_only=False)
    keys = np.arange(100)
    live: np.ndarray[Any, Any] = keys[:0]
    most = 0
    for epoch in range(20):
        with store.cursor.transaction():
            coming = np.repeat(keys, 250)
            log.take(pa.concat_tables([rows(coming, diff=1), rows(coming, diff=-1)]))
            log.take(pa.concat_tables([rows(live, f"{epoch - 1}", -1), rows(keys, f"{epoch}", 1)]))
            live = keys
        most = max(most, log.entries)
        assert log.entries <= 2 * len(live) + SLACK_ROWS + 50_200  # and what the last two calls added
    assert net(log, store) == {(key, "19"): 1 for key in keys}
    assert store.cursor.rows(f"SELECT count(*) FROM {log.table}") == [(log.entries,)]
    assert most * log.nbytes / log.entries < 5_000_000


def test_the_log_of_a_failed_epoch_is_as_before(store: Store) -> None:
    log = Log(store, "rows", SCHEMA, append_only=False)
    with store.cursor.transaction():
        log.take(rows(np.arange(SLACK_ROWS), diff=1))
    with suppress(RuntimeError), store.cursor.transaction():
        log.take(rows(np.arange(SLACK_ROWS), diff=-1))
        log.take(rows(np.arange(SLACK_ROWS), "y", 1))
        log.take(rows([1], "y", -1))  # removes what cancels
        assert log.entries < 2 * SLACK_ROWS
        raise RuntimeError
    log.rolled_back()
    assert log.entries == SLACK_ROWS
    assert sum(net(log, store).values()) == SLACK_ROWS


def test_rows_taken_away_before_they_come_are_remembered(store: Store) -> None:
    log = Log(store, "rows", SCHEMA, append_only=False)
    log.take(rows([1, 2], diff=-1))
    log._compact()
    assert net(log, store) == {(1, "x"): -1, (2, "x"): -1}


def test_many_rows_are_scanned_by_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "WIDE_ROWS", 1000)
    engine = Engine(Settings(threads=3))
    store = Store(engine)

    def threads() -> int:
        ((found,),) = store.cursor.rows("SELECT current_setting('threads')")
        return int(found)

    log = Log(store, "rows", SCHEMA, append_only=False)
    assert threads() == 1
    for keys, wanted in ((np.arange(900), 1), (np.arange(200), 3)):
        with store.cursor.transaction():
            log.take(rows(keys, diff=1))
        assert threads() == wanted
    store.close()
    engine.close()


class Flow:
    """A plan at work over one engine, its relations by position."""

    def __init__(self, store: Store, node: Node, scans: Sequence[op.Scan], append_only: bool = True) -> None:
        engine = Engine(Settings(threads=1))
        self.flow = compile_steps(node, store, engine, {id(scan.relation): append_only for scan in scans})
        self._engine, self._store, self._scans = engine, store, scans
        self._first = True

    def __call__(self, *tables: pa.Table | None) -> list[tuple[Any, ...]]:
        given = {id(scan.relation): table for scan, table in zip(self._scans, tables, strict=True) if table is not None}
        with self._store.cursor.transaction():
            made = self.flow.epoch(given, Moment(self._first))
        self.flow.committed()
        self._first = False
        return [] if made is None else sorted(tuple(row.values()) for row in with_diff(made).to_pylist())


def scan(name: str, schema: pa.Schema = SCHEMA) -> op.Scan:
    return op.Scan(Relation(name, schema, f'"{name}"', "arrow"))


@pytest.mark.parametrize("call", [fn.first("text"), fn.list("text"), fn.any_value("text"), fn.string_agg("text")])
def test_what_is_retracted_was_shown(store: Store, call: Any) -> None:
    scanned = scan("input")
    node = op.Aggregate(scanned, (("g", (col("k")).tree),), (("m", call.tree),))
    flow = Flow(store, node, [scanned], append_only=False)
    shown: Counter[str] = Counter()
    generator = np.random.default_rng(7)
    for _ in range(30):
        keys = generator.integers(0, 5, 40)
        epoch = pa.concat_tables([rows(keys[:30], diff=1), rows(keys[30:], "y", 1), rows(keys[:20], diff=-1)])
        for *row, diff in flow(epoch):
            shown[repr(row)] += diff
            assert shown[repr(row)] in (0, 1)
    assert len(+shown) == 5


def test_ties_are_retracted_as_they_were_shown(store: Store) -> None:
    scanned = scan("input")
    number = fn.row_number().over("k").tree
    flow = Flow(store, op.Window(scanned, (("n", number),)), [scanned], append_only=False)
    shown: Counter[tuple[Any, ...]] = Counter()
    for epoch in range(20):
        for *row, diff in flow(rows([1, 1, 2], f"{epoch * 7 % 20}", 1)):
            shown[tuple(row)] += diff
            assert shown[tuple(row)] >= 0
    assert sorted(number for key, _, number in shown.elements() if key == 1) == list(range(1, 41))


def test_a_join_of_rows_that_only_come_only_adds(store: Store) -> None:
    left, right = scan("left"), scan("right", pa.schema({"j": pa.int64(), "name": pa.string()}))
    node = op.Join(left, right, op.JoinKind.INNER, (col("k") == col("j")).tree)
    flow = Flow(store, node, [left, right])
    (step,) = (step for step in flow.flow.steps if isinstance(step, BilinearStep))
    assert step.append_only
    assert step.schema == step.changes_schema
    names = rows([1, 2], "n").rename_columns(["j", "name"])
    assert flow(rows([1, 1]), names) == [(1, "x", 1, "n", 1)] * 2
    assert flow(None, names) == [(1, "x", 1, "n", 1)] * 2
    assert flow(rows([2]), None) == [(2, "x", 2, "n", 1)] * 2
    assert step.state_rows() == 7
    assert step.state_bytes() > 7 * 8


def test_rows_that_meet_a_table_are_not_kept(tmp_path: Path) -> None:
    left = scan("left")
    table = pa.table({"j": integers([1, 2]), "name": pa.array(["one", "two"])})
    static = op.Scan(Relation("names", table.schema, '"names"', "arrow", feed=table))
    filtered = op.Filter(static, (col("name") != "two").tree)
    for node in (
        op.Join(left, filtered, op.JoinKind.INNER, (col("k") == col("j")).tree),
        op.Join(filtered, left, op.JoinKind.INNER, (col("k") == col("j")).tree),
    ):
        engine = Engine(Settings(threads=1, path=str(tmp_path / f"{id(node)}.duckdb")))
        own = Store(engine)
        flow = Flow(own, node, [left], append_only=False)
        (step,) = (step for step in flow.flow.steps if isinstance(step, BilinearStep))
        assert step.impl == "one-sided"
        found = [flow(rows([1, 2, 3], diff=diff)) for diff in (1, -1, 2)]
        assert [[row[-1] for row in epoch] for epoch in found] == [[1], [-1], [2]]
        assert step.state_rows() == 1
        own.close()
        engine.close()


def test_the_whole_input_is_computed_once_an_epoch(store: Store) -> None:
    scanned = scan("input")
    flow = Flow(store, op.Limit(op.Sort(scanned, (col("k").asc().tree,)), 2), [scanned], append_only=False)
    assert flow(rows([5, 3, 4], diff=1)) == [(3, "x", 1), (4, "x", 1)]
    assert flow(rows([3], diff=-1)) == [(3, "x", -1), (5, "x", 1)]
    assert flow(rows([9], diff=1)) == []
    assert DIFF in flow.flow.steps[-1].changes_schema.names


@pytest.mark.parametrize("offset", [0, 2])
def test_of_rows_that_only_come_the_first_are_kept(store: Store, offset: int) -> None:
    scanned = scan("input")
    node = op.Limit(op.Sort(scanned, (col("k").desc().tree,)), 3, offset)
    flow = Flow(store, node, [scanned])
    shown: Counter[int] = Counter()
    for epoch in range(40):
        for key, _, diff in flow(rows(np.arange(1000) + 1000 * epoch)):
            shown[key] += diff
            assert shown[key] in (0, 1)
    assert sorted(shown.elements()) == [39_997 - offset, 39_998 - offset, 39_999 - offset]
    step = flow.flow.steps[-1]
    assert step.impl == "best-rows"
    assert step.state_rows() < 3 * SLACK_ROWS  # and not 40,000 for each log


@pytest.mark.parametrize("rank", ["row_number", "rank", "dense_rank"])
def test_the_first_of_each_key_are_kept(store: Store, rank: str) -> None:
    scanned = scan("input")
    node = op.TopK(scanned, (exp.Ordered(this=col("text").tree, desc=False),), 2, by=("k",), rank=rank)
    flow = Flow(store, node, [scanned])
    assert flow.flow.steps[-1].impl == "best-rows"
    assert flow(rows([1, 1, 2], "c")) == [(1, "c", 2), (2, "c", 1)]
    assert flow(rows([1, 1], "d")) == ([(1, "d", 2)] if rank == "dense_rank" else [])
    assert (
        flow(rows([1], "b"))
        == {
            "row_number": [(1, "b", 1), (1, "c", -1)],
            "rank": [(1, "b", 1)],
            "dense_rank": [(1, "b", 1), (1, "d", -2)],
        }[rank]
    )
    assert flow(rows([3], "z")) == [(3, "z", 1)]


RANKED = "SELECT k, text, {call} OVER (PARTITION BY k ORDER BY text DESC) AS place FROM input"


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT * FROM ({RANKED}) WHERE place <= 2",
        f"SELECT text FROM ({RANKED}) WHERE 3 > place AND k > 0",
        f"SELECT text, place FROM ({RANKED}) WHERE place = 2",
        "SELECT * FROM input QUALIFY {call} OVER (PARTITION BY k ORDER BY text DESC) BETWEEN 1 AND 2",
    ],
)
@pytest.mark.parametrize("call", ["row_number()", "rank()", "dense_rank()"])
def test_ranks_of_which_few_are_read(text: str, call: str) -> None:
    session = DataflowSession(threads=1)
    generator = np.random.default_rng(3)
    keys = generator.integers(0, 7, 300)
    table = rows(keys).set_column(1, "text", pa.array([f"{at:03}" for at in generator.permutation(300)]))
    session.create_temp_view("input", session.read_stream(MemorySource([table]), "input"))
    query = text.format(call=call)
    plan = for_stream(session.stream_sql(query).node)
    assert any(isinstance(node, op.TopK) for node in plan.walk())
    sink = MemorySink()
    session.stream_sql(query).write_stream(sink, epoch_rows_max=20).process_available()
    session.create_temp_view("input", session.create_dataframe(table))
    expected = session.sql(query).to_arrow().to_pylist()
    assert Counter(map(str, sink.result().to_pylist())) == Counter(map(str, expected))
    session.close()


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT * FROM ({RANKED}) WHERE place >= 2",
        f"SELECT * FROM ({RANKED}) WHERE place <= 2 OR k = 1",
        "SELECT * FROM input QUALIFY row_number() OVER (ORDER BY k) <= 2",
        "SELECT *, count(*) OVER (PARTITION BY k ORDER BY text) AS n FROM input "
        "QUALIFY row_number() OVER (PARTITION BY k ORDER BY text) <= 2",
    ],
)
def test_ranks_of_which_all_are_read(text: str) -> None:
    session = DataflowSession(threads=1)
    session.create_temp_view("input", session.read_stream(MemorySource([rows([1])]), "input"))
    plan = for_stream(session.stream_sql(text.format(call="row_number()")).node)
    assert not any(isinstance(node, op.TopK) for node in plan.walk())
    session.close()
