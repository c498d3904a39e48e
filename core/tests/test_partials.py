"""Aggregates by partials: which they are, and that they are exact: stream(any epochs) == batch, types included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from aggregate_support import Bag, Stream, batch, changes_of, scan
from hypothesis import given, note
from hypothesis import strategies as st
from properties.profile import examples
from properties.tables import COLUMNS, Epoch, Kind, bag, histories, rows_after, table_of

from velaria_core.changes import DIFF
from velaria_core.contract.modes import OutputMode
from velaria_core.execution import groups
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.lower import schema
from velaria_core.execution.steps import panes
from velaria_core.execution.steps.panes import PanesStep
from velaria_core.execution.steps.partials import PartialsStep
from velaria_core.logical import operators as op
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.expr import Column, col, fn, parse_expression
from velaria_core.logical.node import Node
from velaria_core.logical.panes import panes_of
from velaria_core.logical.partials import partials_of


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


def aggregate(leaf: Node, keys: Sequence[str], **metrics: Column) -> op.Aggregate:
    return op.Aggregate(
        leaf, tuple((key, col(key).tree) for key in keys), tuple((name, one.tree) for name, one in metrics.items())
    )


def streamed(engine: Engine, plan: Node, tables: Sequence[pa.Table]) -> Stream:
    """The plan over tables, an epoch each; asserted to be the batch result."""
    leaf = next(node for node in plan.walk() if isinstance(node, op.Scan))
    stream = Stream(plan, leaf.relation)
    try:
        assert isinstance(stream.flow.steps[-1], PartialsStep)
        for table in tables:
            stream.epoch(table)
        assert stream.output == batch(engine, plan, pa.concat_tables(tables))
        assert stream.flow.schema == schema(engine, plan)
    finally:
        stream.close()
    return stream


# --- which aggregates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "has"),
    [
        ("count(*)", True),
        ("count(x)", True),
        ("COUNT_IF(x > 1)", True),
        ("sum(x) FILTER (WHERE x > 1)", True),
        ("avg(x)", True),
        ("mean(x)", True),
        ("min(x + 1)", True),
        ("bool_and(x > 1)", True),
        ("count(DISTINCT x)", False),
        ("max(x, 2)", False),
        ("median(x)", False),
        ("list(x ORDER BY y)", False),
        ("arg_max(x, y)", False),
    ],
)
def test_which_calls_have_partials(call: str, has: bool) -> None:
    assert (partials_of((), (("m", parse_expression(call)),)) is not None) is has


METRICS: dict[str, tuple[Column, tuple[Kind, ...]]] = {
    "rows": (fn.count(), ()),
    "present": (fn.count("x"), tuple(Kind)),
    "total": (fn.sum("x"), (Kind.INT, Kind.FLOAT, Kind.DECIMAL)),
    "mean": (fn.avg("x"), (Kind.INT, Kind.FLOAT, Kind.DECIMAL)),
    "least": (fn.min("x"), (Kind.INT, Kind.FLOAT, Kind.DECIMAL, Kind.TIME, Kind.BOOL)),
    "most": (fn.max("x"), (Kind.INT, Kind.FLOAT, Kind.DECIMAL, Kind.TIME, Kind.BOOL)),
    "some": (fn.bool_or("x"), (Kind.BOOL,)),
    "every": (fn.bool_and("x"), (Kind.BOOL,)),
    "hits": (fn.count_if("x"), (Kind.BOOL,)),
    "above": (fn.sum("x").filter(col("x") > 0), (Kind.INT, Kind.FLOAT, Kind.DECIMAL)),
}
_VALUES = {Kind.INT: "i", Kind.FLOAT: "f", Kind.DECIMAL: "d", Kind.TEXT: "名 字", Kind.TIME: "at", Kind.BOOL: "b"}


@pytest.mark.parametrize("append_only", [True, False], ids=["rows come", "rows come and go"])
def test_every_call_is_exact(engine: Engine, append_only: bool) -> None:
    """Any keys, any calls over one column: what the epochs add up to is the batch result, and of its types."""
    keyable = [name for name, kind in COLUMNS.items() if kind is not Kind.LIST]

    @examples(12)
    @given(st.data(), histories(COLUMNS, max_changes=16))
    def holds(data: st.DataObject, history: list[Epoch]) -> None:
        if append_only:
            history = [Epoch(tuple((row, 1) for row, _ in epoch.changes)) for epoch in history]
        keys = data.draw(st.lists(st.sampled_from(keyable), unique=True, max_size=3))
        kind = data.draw(st.sampled_from(list(_VALUES)))
        fitting = [name for name, (_, kinds) in METRICS.items() if not kinds or kind in kinds]
        names = data.draw(st.lists(st.sampled_from(fitting), unique=True, min_size=0 if keys else 1, max_size=4))
        leaf = scan(table_of(COLUMNS, []))
        rows = op.WithColumn(leaf, (("x", col(_VALUES[kind]).tree),))
        plan = aggregate(rows, keys, **{name: METRICS[name][0] for name in names})
        note(plan.label())
        stream = Stream(plan, leaf.relation, append_only)
        try:
            inexact = {"least", "most"} | ({"total", "mean", "above"} if kind is Kind.FLOAT else set())
            folds = append_only or not inexact & set(names)
            assert isinstance(stream.flow.steps[-1], PartialsStep) is folds
            for at, epoch in enumerate(history):
                stream.epoch(changes_of(epoch, append_only))
                past = [row for one in history[: at + 1] for row, _ in one.changes]
                now = past if append_only else rows_after(history[: at + 1])
                assert stream.output == batch(engine, plan, table_of(COLUMNS, now))
            assert stream.flow.schema == schema(engine, plan)
        finally:
            stream.close()

    holds()


# --- exactness: rows B-2 and B-3 of the inventory ---------------------------------------------------------------------


def test_sums_and_counts_stay_exact_above_a_million_and_above_a_quadrillion(engine: Engine) -> None:
    """B-2: integers to the last digit, decimals to the last place."""
    whole = [10**6 + 1, 10**15 + 1, 2**53 + 1, 2**62, -(2**62), 2**62, 2**62]
    exact = [Decimal("1000000.01"), Decimal("99999999999999.99"), Decimal("0.01")]
    table = pa.table({"n": pa.array(whole, pa.int64())})
    plan = aggregate(scan(table), (), s=fn.sum("n"), c=fn.count("n"), a=fn.avg("n"), m=fn.max("n"))
    stream = streamed(engine, plan, [table.slice(at, 1) for at in range(len(whole))] * 3)
    assert stream.output == bag([[sum(whole) * 3, 21, sum(whole) / 7, 2**62]])
    money = pa.table({"d": pa.array(exact * 40, pa.decimal128(18, 2))})
    plan = aggregate(scan(money), (), s=fn.sum("d"), a=fn.avg("d"))
    streamed(engine, plan, [money.slice(at * 7, 7) for at in range(17)])


def test_averages_keep_all_their_digits(engine: Engine) -> None:
    """B-2: not six decimals."""
    table = pa.table({"n": pa.array([1, 1, 2], pa.int32())})
    stream = streamed(engine, aggregate(scan(table), (), a=fn.avg("n")), [table, table])
    assert stream.output == bag([[4 / 3]])


@pytest.mark.parametrize("kind", [pa.float32(), pa.int8(), pa.uint64(), pa.decimal128(38, 10), pa.date32()], ids=str)
def test_extremes_keep_their_type(engine: Engine, kind: pa.DataType) -> None:
    """B-2: the least and largest float32 are float32, to the last bit."""
    values = pa.array([3, None, 1, 2], pa.int32()).cast(kind)
    table = pa.table({"k": ["a", "a", "b", "a"], "x": values})
    plan = aggregate(scan(table), ("k",), least=fn.min("x"), most=fn.max("x"))
    assert streamed(engine, plan, [table.slice(0, 2), table.slice(2)]).flow.schema.field("least").type == kind


def test_a_third_as_float32_is_the_same_after_it_was_kept(engine: Engine) -> None:
    table = pa.table({"x": pa.array([1 / 3, 0.1, 16777217.0], pa.float32())})
    plan = aggregate(scan(table), (), least=fn.min("x"), most=fn.max("x"))
    stream = streamed(engine, plan, [table.slice(at, 1) for at in range(3)])
    assert stream.output == bag([[float(np.float32(0.1)), 16777216.0]])


def test_nulls_are_not_counted_and_averages_of_nothing_are_null(engine: Engine) -> None:
    """B-3: count(x) leaves NULL out; avg, sum, min and max of NULLs are NULL."""
    table = pa.table({"k": ["a", "a", "b"], "x": pa.array([None, None, 1], pa.int64())})
    plan = aggregate(
        scan(table), ("k",), r=fn.count(), c=fn.count("x"), a=fn.avg("x"), s=fn.sum("x"), m=fn.min("x"), t=fn.max("x")
    )
    stream = streamed(engine, plan, [table.slice(0, 1), table.slice(1)])
    assert stream.output == bag([["a", 2, 0, None, None, None, None], ["b", 1, 1, 1.0, 1, 1, 1]])


def test_keys_keep_their_types_and_null_is_a_key_of_its_own(engine: Engine) -> None:
    """B-3: the text null is not NULL; double keys stay double; more than three keys are no text."""
    table = pa.table(
        {
            "t": ["null", None, "", "null"],
            "f": pa.array([0.1, 0.1, None, 0.1], pa.float64()),
            "i": pa.array([2**63 - 1, None, 0, 2**63 - 1], pa.int64()),
            "b": [True, None, False, True],
        }
    )
    plan = aggregate(scan(table), ("t", "f", "i", "b"), n=fn.count())
    stream = streamed(engine, plan, [table.slice(at, 1) for at in range(4)])
    expected = [["null", 0.1, 2**63 - 1, True, 2], [None, 0.1, None, None, 1], ["", None, 0, False, 1]]
    assert stream.output == bag(expected)


def test_an_aggregate_without_keys_over_no_rows_has_one_row() -> None:
    """B-3."""
    table = pa.table({"x": pa.array([5], pa.int64())})
    plan = aggregate(scan(table), (), n=fn.count(), s=fn.sum("x"))
    stream = Stream(plan, next(one.relation for one in plan.walk() if isinstance(one, op.Scan)))
    assert stream.epoch(table.slice(1)) == [(0, None, 1)]
    assert stream.epoch(table.slice(1)) == []
    assert stream.epoch(table) == [(0, None, -1), (1, Decimal(5), 1)]
    stream.close()


def test_what_is_true_of_nothing_is_null_as_in_the_engine(engine: Engine) -> None:
    table = pa.table({"k": ["a", "b", "b"], "b": pa.array([None, False, True])})
    plan = aggregate(scan(table), ("k",), h=fn.count_if("b"), every=fn.bool_and("b"))
    stream = streamed(engine, plan, [table.slice(0, 2), table.slice(2)])
    assert stream.output == bag([["a", None, None], ["b", 1, False]])


# --- what comes out ---------------------------------------------------------------------------------------------------


def signed(rows: Sequence[tuple[str, int, int]]) -> pa.Table:
    keys, values, diffs = zip(*rows, strict=True)
    return pa.table({"k": keys, "x": values, DIFF: pa.array(diffs, pa.int64())})


def test_only_what_changed_comes_out_and_a_group_goes_with_its_last_row() -> None:
    leaf = scan(signed([("a", 1, 1)]).drop_columns([DIFF]))
    stream = Stream(aggregate(leaf, ("k",), s=fn.sum("x")), leaf.relation, append_only=False)
    assert stream.epoch(signed([("a", 1, 1), ("b", 2, 1)])) == [("a", Decimal(1), 1), ("b", Decimal(2), 1)]
    assert stream.epoch(signed([("a", 5, 1), ("a", 5, -1), ("b", 0, 1)])) == []
    assert stream.epoch(signed([("a", 1, -1), ("b", 3, 2)])) == [
        ("a", Decimal(1), -1),
        ("b", Decimal(2), -1),
        ("b", Decimal(8), 1),
    ]
    assert stream.flow.state_rows == 1
    stream.close()


def test_distinct_rows_over_rows_that_only_come_only_come() -> None:
    table = pa.table({"k": ["a", "b", "a", None]})
    leaf = scan(table)
    stream = Stream(op.Distinct(leaf), leaf.relation)
    assert stream.flow.steps[-1].append_only
    assert sorted(map(str, stream.epoch(table))) == ["('a', 1)", "('b', 1)", "(None, 1)"]
    assert stream.epoch(pa.table({"k": ["c", None, "a"]})) == [("c", 1)]
    assert stream.epoch(table) == []
    stream.close()


@pytest.mark.parametrize("keys", [(), ("k",), ("k", "x")])
def test_a_restart_goes_on_where_the_last_epoch_ended(tmp_path: Path, keys: tuple[str, ...]) -> None:
    table = pa.table({"k": ["a", None, "b", "a"], "x": pa.array([1, 2, None, 4], pa.int64())})
    leaf = scan(table)
    plan = aggregate(leaf, keys, n=fn.count(), s=fn.sum("x"), most=fn.max("x"))
    unbroken = Stream(plan, leaf.relation)
    output: Bag = Counter()
    for epoch in range(4):
        stream = Stream(plan, leaf.relation, path=tmp_path / "state.duckdb")
        stream._first = epoch == 0
        stream.output = output
        for _ in range(2):
            assert sorted(map(str, stream.epoch(table))) == sorted(map(str, unbroken.epoch(table)))
        output = stream.output
        stream.close()
    assert output == unbroken.output
    unbroken.close()


def test_what_the_aggregate_does_not_read_never_enters_the_engine() -> None:
    table = pa.table({"k": ["a"], "unread": ["x" * 1000], "x": [1]})
    leaf = scan(table)
    stream = Stream(aggregate(leaf, ("k",), s=fn.sum("x")), leaf.relation)
    assert stream.step.grouper._feed.schema.names == ["k", "x"]
    assert stream.epoch(table) == [("a", Decimal(1), 1)]
    stream.close()


# --- windows ----------------------------------------------------------------------------------------------------------


def times(seconds: Sequence[float | None]) -> pa.Table:
    micros = pa.array([None if one is None else int(one * 1e6) for one in seconds], pa.int64())
    return pa.table({"at": micros.cast(pa.timestamp("us")), "x": pa.array(range(len(seconds)), pa.int64())})


def windowed(size_ms: int, slide_ms: int) -> op.Aggregate:
    marked = op.Watermark(scan(times([0.0])), "at", TimeKind.TIMESTAMP, 1000)
    windows = op.WindowAssign(marked, "at", TimeKind.TIMESTAMP, size_ms, slide_ms, "start", "end")
    return aggregate(windows, ("start", "end"), n=fn.count(), most=fn.max("x"), mean=fn.avg("x"))


@pytest.mark.parametrize("mode", [OutputMode.UPDATE, OutputMode.APPEND])
@pytest.mark.parametrize("slide_ms", [10_000, 5_000, 4_000, 3_000])
def test_windows_come_out_as_in_batch(engine: Engine, mode: OutputMode, slide_ms: int) -> None:
    """Tumbling, and sliding by panes that are as long as the slide, or shorter."""
    rng = np.random.default_rng(5)
    tables = [times([*(epoch * 4 + rng.random(30) * 4).tolist(), None]) for epoch in range(12)]
    plan = windowed(10_000, slide_ms)
    leaf = next(node for node in plan.walk() if isinstance(node, op.Scan))
    stream = Stream(plan, leaf.relation, mode=mode)
    largest = 0
    for table in [*tables, None]:
        stream.epoch(table)
        largest = max(largest, stream.flow.state_rows)
    assert stream.output == batch(engine, plan, pa.concat_tables(tables))
    assert stream.flow.steps[-1].append_only is (mode is OutputMode.APPEND)
    assert stream.flow.state_rows == 0
    assert largest < 20
    stream.close()


def keyed_windows(key: str, slide_ms: int) -> tuple[op.Aggregate, list[pa.Table]]:
    """Windows by a key of a kind, with every kind of value that is folded, and their rows by epoch."""
    rng = np.random.default_rng(slide_ms)
    tables = []
    for epoch in range(20):
        rows = times([*(epoch * 3 + rng.random(20) * 4).tolist(), None])
        numbers = pa.array(rng.integers(0, 4, rows.num_rows))
        for at in range(2 if key == "integer" else 1):
            kind = {"text": pa.string(), "decimal": pa.decimal128(38, 0), "integer": pa.int64()}[key]
            rows = rows.append_column(f"k{at}", numbers.cast(kind))
        rows = rows.append_column("d", pa.array(rng.integers(-9, 9, rows.num_rows)).cast(pa.decimal128(21, 2)))
        tables.append(rows.append_column("f", pa.array([*(rng.integers(-9, 9, 20) / 2).tolist(), float("nan")])))
    marked = op.Watermark(scan(tables[0]), "at", TimeKind.TIMESTAMP, 3000)
    windows = op.WindowAssign(marked, "at", TimeKind.TIMESTAMP, 10_000, slide_ms, "start", "end")
    calls = {"n": fn.count(), "s": fn.sum("x"), "a": fn.avg("d"), "l": fn.min("d"), "h": fn.max("d")}
    calls |= {"u": fn.sum("f"), "least": fn.min("f"), "most": fn.max("f"), "first": fn.min("at")}
    keys = [name for name in tables[0].schema.names if name.startswith("k")]
    return aggregate(windows, (*keys, "start"), **calls), tables


@pytest.mark.parametrize("slide_ms", [10_000, 5_000, 4_000])
@pytest.mark.parametrize("key", ["text", "decimal", "integer", "crowded"])
def test_windows_by_a_key_come_out_as_in_batch(
    engine: Engine, key: str, slide_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are whole numbers, that are none, and that are too many for one number."""
    if key == "crowded":
        monkeypatch.setattr(groups, "_CODES_MAX", 8)
    plan, tables = keyed_windows("integer" if key == "crowded" else key, slide_ms)
    leaf = next(node for node in plan.walk() if isinstance(node, op.Scan))
    stream = Stream(plan, leaf.relation, mode=OutputMode.APPEND)
    assert isinstance(stream.flow.steps[-1], PanesStep)
    for table in [*tables, None]:
        stream.epoch(table)
        assert stream.flow.state_rows < 300
    assert stream.output == batch(engine, plan, pa.concat_tables(tables))
    assert stream.flow.late_dropped_rows == 0
    stream.close()


@pytest.mark.parametrize("key", ["text", "integer"])
@pytest.mark.parametrize("slide_ms", [10_000, 4_000])
def test_windows_outlive_restarts_and_their_log_is_no_longer_than_they_are(
    engine: Engine, key: str, slide_ms: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panes, "_LOG_SLACK", 10)
    plan, tables = keyed_windows(key, slide_ms)
    leaf = next(node for node in plan.walk() if isinstance(node, op.Scan))
    output: Bag = Counter()
    remembered = None
    for number, several in enumerate([tables[:3], tables[3:4], tables[4:12], tables[12:], [None]]):
        stream = Stream(plan, leaf.relation, mode=OutputMode.APPEND, path=tmp_path / "state.duckdb")
        if remembered is not None:
            stream.flow.restore(remembered)
        stream.output, stream._first = output, number == 0
        for table in several:
            stream.epoch(table)
            step = stream.flow.steps[-1]
            assert isinstance(step, PanesStep)
            assert step._log is not None
            assert step._log.entries < 10 + 4 * (step.state_rows() + 200)
        output, remembered = stream.output, stream.flow.snapshot()
        stream.close()
    assert output == batch(engine, plan, pa.concat_tables(tables))


def test_a_window_comes_out_once_when_it_is_closed_and_late_rows_are_counted() -> None:
    plan = windowed(10_000, 10_000)
    leaf = next(node for node in plan.walk() if isinstance(node, op.Scan))
    stream = Stream(plan, leaf.relation, mode=OutputMode.APPEND)
    assert stream.epoch(times([1, 9, 10.5])) == []
    assert [row[2] for row in stream.epoch(times([5, 11.5]))] == [3]
    assert stream.epoch(times([2, 3, 12])) == []
    assert stream.flow.late_dropped_rows == 2
    assert [row[2] for row in stream.epoch(None)] == [3]
    stream.close()


@pytest.mark.parametrize("kind", [TimeKind.TIMESTAMP, TimeKind.INTEGER, TimeKind.TEXT])
def test_a_late_row_of_sliding_windows_counts_once_however_many_of_them_are_closed(kind: TimeKind) -> None:
    def at(seconds: Sequence[int]) -> pa.Table:
        if kind is TimeKind.INTEGER:
            return pa.table({"at": pa.array([second * 1000 for second in seconds], pa.int64())})
        if kind is TimeKind.TEXT:
            return pa.table({"at": [f"1970-01-01T00:00:{second:02}" for second in seconds]})
        return times(list(seconds)).select(["at"])

    leaf = scan(at([0]))
    marked = op.Watermark(leaf, "at", kind, 0)
    windows = op.WindowAssign(marked, "at", kind, 10_000, 2_000, "start")
    stream = Stream(aggregate(windows, ("start",), n=fn.count()), leaf.relation, mode=OutputMode.APPEND)
    stream.epoch(at([1, 21]))
    # Windows up to [10, 20) are closed: all of those of 3 and 11, some of those of 12 and 19, none of those of 20.
    stream.epoch(at([3, 11, 12, 19, 20, 22]))
    assert stream.flow.late_dropped_rows == 4
    stream.close()


def test_aggregates_of_windows_come_out_in_the_same_epoch() -> None:
    """The most of a window is asked of what the aggregate below gives as the window closes."""
    inner = windowed(10_000, 10_000)
    keyed = op.Aggregate(inner.input, (*inner.keys, ("x", col("x").tree)), (("n", fn.count().tree),))
    plan = aggregate(keyed, ("start",), most=fn.max("n"))
    leaf = next(node for node in plan.walk() if isinstance(node, op.Scan))
    stream = Stream(plan, leaf.relation, mode=OutputMode.APPEND)
    assert all(step.append_only for step in stream.flow.steps)
    assert stream.epoch(times([1, 2, 3])) == []
    assert [row[1] for row in stream.epoch(times([11.5]))] == [1]
    assert [row[1] for row in stream.epoch(None)] == [1]
    stream.close()


def test_who_looks_at_the_window_gets_no_panes() -> None:
    """Only a grouping that takes the window as a key, and nothing else of it, may be computed by panes."""
    windows = op.WindowAssign(scan(times([0.0])), "at", TimeKind.TIMESTAMP, 10_000, 5_000, "start", "end")
    keys = (("k0", col("start").tree),)
    assert panes_of([windows], keys, [fn.max("x").tree]) is not None
    assert panes_of([windows], keys, [fn.max("end").tree]) is None
    assert panes_of([windows], (("k0", col("x").tree),), []) is None
    late = op.Filter(windows, (col("start") > col("at")).tree)
    assert panes_of([late, windows], keys, []) is None
    renamed = op.Rename(windows, (("start", "s"),))
    found = panes_of([renamed, windows], (("k0", col("s").tree), ("k1", col("x").tree)), [])
    assert found is not None
    assert (found.pane, found.keys, [name for name, _ in found.others]) == ("s", {"k0": "window_start"}, ["k1"])
    tumbling = op.WindowAssign(scan(times([0.0])), "at", TimeKind.TIMESTAMP, 5_000, 5_000, "start")
    assert panes_of([tumbling], keys, []) is None
