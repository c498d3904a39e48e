"""Event time: a stream's answer is that of batch over the rows that were not late, and closed rows come out once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count, pairwise, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from properties.profile import examples
from properties.tables import bag, cuts
from velaria_core.changes import with_diff
from velaria_core.contract.modes import OutputMode
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.lower import lower
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Moment, compile_steps
from velaria_core.logical import operators as op
from velaria_core.logical.event_time import Late, TimeKind
from velaria_core.logical.expr import Column, col, fn, lit
from velaria_core.logical.node import Node
from velaria_core.logical.relation import Relation

DELAY_MS = 5
SCHEMA = pa.schema([("ts", pa.int64()), ("k", pa.int64()), ("v", pa.int64())])
Row = tuple[int | None, int, int]
Bag = Counter[tuple[Any, ...]]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


@st.composite
def disordered(draw: st.DrawFn, max_rows: int = 25) -> list[list[Row]]:
    """Rows in epochs, whose times rise more or less."""
    rows: list[Row] = []
    for at in range(draw(st.integers(0, max_rows))):
        ts = draw(st.none() if draw(st.integers(0, 15)) == 0 else st.integers(3 * at - 12, 3 * at + 4))
        rows.append((ts, draw(st.integers(0, 2)), at))
    return [rows[low:high] for low, high in pairwise(draw(cuts(len(rows))))]


def table(rows: Sequence[Row]) -> pa.Table:
    return pa.table([[row[at] for row in rows] for at in range(3)], schema=SCHEMA)


def relation(name: str, rows: Sequence[Row] = (), schema: pa.Schema = SCHEMA) -> Relation:
    return Relation(name, schema, f'"{name}"', "arrow", feed=table(rows).rename_columns(schema.names))


@dataclass
class Ran:
    """What came of a stream: the sum of its output, which rows of each source were in time, and how many were not."""

    output: Bag
    in_time: list[list[Row]]
    dropped: int


Build = Callable[[list[Relation]], Node]
IsLate = Callable[[Row, int], bool]


def run(
    engine: Engine,
    build: Build,
    relations: list[Relation],
    epochs: Sequence[Sequence[Sequence[Row]]],
    is_late: IsLate,
    output: OutputMode = OutputMode.APPEND,
    path: Path | None = None,
    mishaps: Sequence[str] = (),
) -> Ran:
    """A plan over these epochs of rows, then the end. `is_late` judges a row by the watermark in milliseconds.

    Before an epoch there may be a mishap: it fails once, or the query is restarted, which needs a path for its state.
    """
    ran = Ran(Counter(), [[] for _ in relations], 0)
    nothing: list[list[Row]] = [[] for _ in relations]
    with ExitStack() as held:
        flow, store = _opened(held, engine, build(relations), relations, output, path)
        for number, (given, mishap) in enumerate(zip_longest([*epochs, nothing], mishaps[: len(epochs) + 1])):
            before = flow.watermark_us
            tables = {
                id(one): table(rows).rename_columns(one.schema.names)
                for one, rows in zip(relations, given, strict=True)
                if rows
            }
            ended = [id(one) for one in relations] if number == len(epochs) else []
            if mishap == "restart":
                snapshot = flow.snapshot()
                held.close()
                flow, store = _opened(held, engine, build(relations), relations, output, path)
                flow.restore(snapshot)
            if mishap == "fail":
                with suppress(KeyboardInterrupt), store.cursor.transaction():
                    flow.epoch(tables, Moment(first=number == 0), ended)
                    raise KeyboardInterrupt
                flow.rolled_back()
            for into, rows in zip(ran.in_time, given, strict=True):
                into += [row for row in rows if before is None or not is_late(row, before // 1000)]
            with store.cursor.transaction():
                made = flow.epoch(tables, Moment(first=number == 0), ended)
            flow.committed()
            ran.dropped += flow.late_dropped_rows
            if made is not None:
                assert output is not OutputMode.APPEND or made.schema.names == flow.schema.names
                for row in with_diff(made).to_pylist():
                    *values, diff = row.values()
                    (key,) = bag([values])
                    ran.output[key] += diff
        assert flow.state_rows == 0
    ran.output = Counter({row: count for row, count in ran.output.items() if count})
    return ran


def _opened(
    held: ExitStack, engine: Engine, node: Node, relations: list[Relation], output: OutputMode, path: Path | None
) -> tuple[Dataflow, Store]:
    state = Engine(Settings(threads=1, path=str(path) if path is not None else None))
    held.callback(state.close)
    store = Store(state)
    held.callback(store.close)
    return compile_steps(node, store, engine, {id(one): True for one in relations}, output), store


def batch(engine: Engine, node: Node) -> Bag:
    lowered = lower(node)
    with engine.cursor(lowered.feeds) as cursor:
        return bag(list(row.values()) for row in cursor.table(lowered.sql).to_pylist())


def watermark(relation: Relation, late: Late = Late.DROP, ahead_ms: int = 10**6) -> Node:
    time = relation.schema.names[0]
    return op.Watermark(op.Scan(relation), time, TimeKind.INTEGER, DELAY_MS, late, ahead_ms)


def behind(row: Row, watermark_ms: int) -> bool:
    return row[0] is not None and row[0] < watermark_ms


# --- one stream ---------------------------------------------------------------------------------------------


def tumbling(relations: list[Relation], ahead_ms: int = 10**6) -> Node:
    windows = op.WindowAssign(watermark(relations[0], ahead_ms=ahead_ms), "ts", TimeKind.INTEGER, 10, 10, "w", "e")
    metrics = (("n", fn.count().tree), ("s", fn.sum("v").tree), ("d", fn.count("v", distinct=True).tree))
    return op.Aggregate(windows, tuple((name, col(name).tree) for name in ("w", "k", "e")), metrics)


def window_is_over(row: Row, watermark_ms: int) -> bool:
    return row[0] is not None and row[0] // 10 * 10 + 10 <= watermark_ms


def sessions(relations: list[Relation]) -> Node:
    found = op.SessionWindow(watermark(relations[0]), ("k",), "ts", TimeKind.INTEGER, 7, "w", "e")
    keys = tuple((name, col(name).tree) for name in ("k", "w", "e"))
    return op.Aggregate(found, keys, (("n", fn.count().tree), ("s", fn.sum("v").tree)))


def session_rows(relations: list[Relation]) -> Node:
    return op.SessionWindow(watermark(relations[0]), ("k",), "ts", TimeKind.INTEGER, 7, "w", "e")


def duplicates(relations: list[Relation]) -> Node:
    return op.DropDuplicates(watermark(relations[0]), ("k",), "ts", TimeKind.INTEGER, 7)


def windows_of_windows(relations: list[Relation]) -> Node:
    wider = op.WindowAssign(tumbling(relations), "w", TimeKind.INTEGER, 30, 30, "ww")
    return op.Aggregate(wider, (("ww", col("ww").tree),), (("n", fn.sum("n").tree), ("m", fn.max("s").tree)))


PLANS: dict[str, tuple[Build, IsLate]] = {
    "tumbling": (tumbling, window_is_over),
    "tumbling, some rows far ahead": (lambda relations: tumbling(relations, 4), window_is_over),
    "sessions": (sessions, behind),
    "session rows": (session_rows, behind),
    "duplicates": (duplicates, behind),
    "windows of windows": (windows_of_windows, window_is_over),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("output", [OutputMode.APPEND, OutputMode.UPDATE])
def test_a_stream_is_batch_without_the_rows_that_were_late(engine: Engine, name: str, output: OutputMode) -> None:
    build, is_late = PLANS[name]

    @examples(3)
    @given(disordered())
    def holds(epochs: list[list[Row]]) -> None:
        ran = run(engine, build, [relation("one")], [[rows] for rows in epochs], is_late, output)
        assert ran.output == batch(engine, build([relation("one", ran.in_time[0])]))
        assert ran.dropped == sum(map(len, epochs)) - len(ran.in_time[0])

    holds()


@pytest.mark.parametrize("name", PLANS)
def test_with_late_rows_folded_in_a_stream_is_batch(engine: Engine, name: str) -> None:
    build, _ = PLANS[name]

    def folding(relations: list[Relation]) -> Node:
        def folded(node: Node) -> Node:
            if isinstance(node, op.Watermark):
                return watermark(relations[0], Late.FOLD)
            return node.over([folded(child) for child in node.inputs])

        return folded(build(relations))

    @examples(3)
    @given(disordered())
    def holds(epochs: list[list[Row]]) -> None:
        rows = [row for epoch in epochs for row in epoch]
        given = [[epoch] for epoch in epochs]
        state = Engine(Settings(threads=1))
        store = Store(state)
        one = relation("one")
        try:
            flow = compile_steps(folding([one]), store, engine, {id(one): True})
            output: Bag = Counter()
            for number, (epoch,) in enumerate(given):
                with store.cursor.transaction():
                    made = flow.epoch({id(one): table(epoch)} if epoch else {}, Moment(first=number == 0))
                flow.committed()
                assert flow.late_dropped_rows == 0
                for row in with_diff(made).to_pylist() if made is not None else []:
                    *values, diff = row.values()
                    output[bag([values]).popitem()[0]] += diff
            assert Counter({row: count for row, count in output.items() if count}) == batch(
                engine, build([relation("one", rows)])
            )
        finally:
            store.close()
            state.close()

    holds()


# --- two streams --------------------------------------------------------------------------------------------

RIGHT = pa.schema([("r_ts", pa.int64()), ("r_k", pa.int64()), ("r_v", pa.int64())])


def near(low: int, high: int) -> Column:
    """left.ts - right.ts between low and high milliseconds."""
    return col("ts").between(col("r_ts") + lit(low), col("r_ts") + lit(high))


JOINS = {
    "inner": (op.JoinKind.INNER, near(-4, 6)),
    "inner, same key": (op.JoinKind.INNER, near(-4, 6) & (col("k") == col("r_k"))),
    "inner, same time": (op.JoinKind.INNER, col("ts") == col("r_ts")),
    "left": (op.JoinKind.LEFT, near(-4, 6) & (col("k") == col("r_k"))),
    "left, later": (op.JoinKind.LEFT, near(2, 6) & (col("k") == col("r_k"))),
    "right": (op.JoinKind.RIGHT, near(-4, 6) & (col("k") == col("r_k"))),
    "semi": (op.JoinKind.SEMI, near(-4, 6) & (col("k") == col("r_k"))),
    "anti": (op.JoinKind.ANTI, near(-4, 6) & (col("k") == col("r_k"))),
    "full, same time": (op.JoinKind.FULL, (col("ts") == col("r_ts")) & (col("k") == col("r_k"))),
}


@pytest.mark.parametrize("name", JOINS)
@pytest.mark.parametrize("output", [OutputMode.APPEND, OutputMode.UPDATE])
def test_a_join_in_time_is_batch_without_the_rows_that_were_late(engine: Engine, name: str, output: OutputMode) -> None:
    kind, on = JOINS[name]

    def build(relations: list[Relation]) -> Node:
        return op.Join(watermark(relations[0]), watermark(relations[1]), kind, on.tree)

    def relations(one: Sequence[Row] = (), two: Sequence[Row] = ()) -> list[Relation]:
        return [relation("one", one), relation("two", two, RIGHT)]

    @examples(3)
    @given(disordered(), disordered())
    def holds(one: list[list[Row]], two: list[list[Row]]) -> None:
        count = max(len(one), len(two))
        epochs = [[epochs[number] if number < len(epochs) else [] for epochs in (one, two)] for number in range(count)]
        ran = run(engine, build, relations(), epochs, behind, output)
        assert ran.output == batch(engine, build(relations(*ran.in_time)))

    holds()


# --- restarts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PLANS, "inner", "left"])
def test_failed_and_restarted_a_stream_is_the_same(engine: Engine, name: str, tmp_path: Path) -> None:
    numbers = count()

    def joined(relations: list[Relation]) -> Node:
        kind, on = JOINS[name]
        return op.Join(watermark(relations[0]), watermark(relations[1]), kind, on.tree)

    build, is_late = PLANS.get(name, (joined, behind))

    def relations(one: Sequence[Row] = (), two: Sequence[Row] = ()) -> list[Relation]:
        return [relation("one", one), relation("two", two, RIGHT)][: 1 if name in PLANS else 2]

    @examples(3)
    @given(disordered(), st.lists(st.sampled_from(["", "fail", "restart"]), min_size=7, max_size=7))
    def holds(rows: list[list[Row]], mishaps: list[str]) -> None:
        epochs = [[given, given[::-1]][: len(relations())] for given in rows]
        path = tmp_path / f"{next(numbers)}.duckdb"
        ran = run(engine, build, relations(), epochs, is_late, OutputMode.APPEND, path, mishaps)
        assert ran.output == batch(engine, build(relations(*ran.in_time)))

    holds()


def test_a_condition_tells_how_far_apart_times_lie() -> None:
    join = op.Join(
        watermark(relation("one")), watermark(relation("two", (), RIGHT)), op.JoinKind.INNER, near(-4, 6).tree
    )
    assert isinstance(join.on, exp.Expr)
    left, right = (child.times({}) for child in join.inputs)
    one, two = join.horizons(left, right)
    assert one is not None
    assert two is not None
    assert (one.column, one.kept.span_us if one.kept else None) == ("ts", 4_001)
    assert (two.column, two.kept.span_us if two.kept else None) == ("r_ts", 6_001)
    assert {name: bound.span_us for name, bound in join.times(left, right).items()} == {"ts": 4_001, "r_ts": 6_001}
