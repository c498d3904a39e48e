"""Grouping by numbers: what arithmetic groups is as the engine groups it; what it is not sure of is the engine's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from aggregate_support import Stream, batch, grouped, scan
from hypothesis import given, note
from hypothesis import strategies as st
from properties.profile import examples

from velaria_core.changes import DIFF
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.groups import Groups
from velaria_core.execution.steps.linear import LinearStep
from velaria_core.execution.vectors import Vector, vector_of
from velaria_core.logical import operators as op
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.expr import col, parse_expression
from velaria_core.logical.node import Node

KINDS = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.bool_(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("s"), pa.time64("us")),
]
_FAR = (1 << 63) - 1  # of a timestamp this is infinity


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Few values, near and far; NULL among them."""
    if pa.types.is_boolean(kind):
        return st.none() | st.booleans()
    if pa.types.is_time64(kind):
        return st.none() | st.integers(0, 5)
    width = kind.bit_width
    low, high = (0, 2**width - 1) if pa.types.is_unsigned_integer(kind) else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    if not pa.types.is_integer(kind):
        low, high = -60_000, 60_000
    return st.none() | st.integers(0, 5) | st.integers(max(low, -5), 5) | st.sampled_from([low, high, high - 1])


def column(kind: pa.DataType, rows: list[Any]) -> pa.Array:
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return pa.array(rows, kind)
    return pa.array(rows, pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)


@examples(200)
@given(st.data())
def test_groups_are_those_of_a_dictionary(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    rows = data.draw(st.lists(st.tuples(*map(values, kinds)), min_size=1, max_size=30))
    keys = [vector_of(column(kind, [row[at] for row in rows])) for at, kind in enumerate(kinds)]
    groups = Groups(keys)

    def shown(vectors: list[Vector], at: int) -> tuple[Any, ...]:
        return tuple(one.data[at].item() if one.present[at] else None for one in vectors)

    found = [shown(groups.keys(), at) for at in range(len(groups))]
    given_rows = [shown(keys, at) for at in range(len(rows))]
    assert dict(zip(found, groups.counts.tolist(), strict=True)) == Counter(given_rows)
    assert [found[group] for group in groups.rows] == given_rows


def test_keys_that_are_too_far_apart_for_one_number_are_refused() -> None:
    wide = np.arange(70_000)
    with pytest.raises(OverflowError):
        Groups([Vector(wide * (1 << 40))] * 4)
    assert len(Groups([Vector(wide * (1 << 40))] * 3)) == 70_000


def run(engine: Engine, plan: Node, tables: list[pa.Table]) -> Stream:
    """The plan over tables, an epoch each: the batch result."""
    leaf = next(node for node in plan.walk() if isinstance(node, op.Scan))
    stream = Stream(plan, leaf.relation)
    try:
        for table in tables:
            stream.epoch(table)
        assert stream.output == batch(engine, plan, pa.concat_tables(tables))
    finally:
        stream.close()
    return stream


def test_any_keys_and_calls_over_whole_numbers_are_as_in_batch(engine: Engine) -> None:
    @examples(60)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        by = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
        of = data.draw(st.sampled_from(KINDS))
        kinds = [*by, of]
        epochs = data.draw(
            st.lists(st.lists(st.tuples(*map(values, kinds)), min_size=1, max_size=12), min_size=1, max_size=3)
        )
        tables = [
            pa.table({f"c{at}": column(kind, [row[at] for row in rows]) for at, kind in enumerate(kinds)})
            for rows in epochs
        ]
        x = f"c{len(by)}"
        calls = ["count(*)", f"count({x})", f"min({x})", f"max({x})"]
        if pa.types.is_integer(of):
            calls += [f"sum({x})", f"avg({x})"]
        note(str([kinds, tables]))
        plan = grouped(scan(tables[0]), [f"c{at}" for at in range(len(by))], *calls)
        assert run(engine, plan, tables).step.grouper._numbers is not None

    holds()


@pytest.mark.parametrize("kind", [TimeKind.TIMESTAMP, TimeKind.TIMESTAMP_UTC, TimeKind.INTEGER], ids=str)
@pytest.mark.parametrize("size_ms", [1, 7, 10_000])
def test_windows_are_as_in_batch_before_1970_and_without_a_time_too(
    engine: Engine, kind: TimeKind, size_ms: int
) -> None:
    rng = np.random.default_rng(size_ms)
    moments = [*rng.integers(-30_000_000, 30_000_000, 50).tolist(), 0, -1, None, -10_000_000, 10_000_000]
    times = pa.array(moments, pa.int64())
    if kind is not TimeKind.INTEGER:
        times = times.cast(pa.timestamp("us", "UTC" if kind is TimeKind.TIMESTAMP_UTC else None))
    table = pa.table({"at": times, "k": pa.array(range(len(moments)), pa.int32())})
    windows = op.WindowAssign(scan(table), "at", kind, size_ms, size_ms, "start", "end")
    plan = grouped(windows, ["start", "end", "at"], "count(*)", "max(k)")
    assert run(engine, plan, [table.slice(0, 20), table.slice(20)]).step.grouper._numbers is not None
    assert linear(run(engine, windows, [table.slice(0, 20), table.slice(20)]))._windows is not None


def linear(stream: Stream) -> LinearStep:
    (step,) = (step for step in stream.flow.steps if isinstance(step, LinearStep))
    return step


def test_windows_stay_with_rows_that_go_and_runs_that_compute_more_are_for_the_engine() -> None:
    table = pa.table({"at": pa.array([5, -1, 5], pa.int64()), DIFF: pa.array([1, 1, -1], pa.int64())})
    leaf = scan(table.drop_columns([DIFF]))
    windows = op.WindowAssign(leaf, "at", TimeKind.INTEGER, 4, 4, "start")
    stream = Stream(op.Project(windows, (("start", col("start").tree),)), leaf.relation, append_only=False)
    assert linear(stream)._windows is not None
    assert stream.epoch(table) == [(4, 1), (-4, 1), (4, -1)]
    stream.close()
    more = op.WithColumn(windows, (("double", (col("at") * 2).tree),))
    stream = Stream(more, leaf.relation, append_only=False)
    assert linear(stream)._windows is None
    assert stream.epoch(table) == [(5, 4, 10, 1), (-1, -4, -2, 1), (5, 4, 10, -1)]
    stream.close()


def test_infinite_times_are_for_the_engine(engine: Engine) -> None:
    times = pa.array([0, _FAR, -_FAR, 5_000_000], pa.int64()).cast(pa.timestamp("us"))
    table = pa.table({"at": times})
    windows = op.WindowAssign(scan(table), "at", TimeKind.TIMESTAMP, 1000, 1000, "start", "end")
    # Python has no infinite moment to compare.
    plan = op.Project(grouped(windows, ["start"], "count(*)"), (("s", parse_expression('CAST("by start" AS TEXT)')),))
    shown = op.Project(windows, (("s", parse_expression("CAST(start AS TEXT)")),))
    run(engine, shown, [table.slice(3), table])
    step = run(engine, plan, [table.slice(3), table]).step
    assert step.grouper._numbers is not None
    assert step.grouper._numbers.grouped(table) is None
    assert step.grouper._numbers.grouped(table.slice(3)) is not None


def test_sums_that_may_leave_64_bits_are_for_the_engine(engine: Engine) -> None:
    table = pa.table({"k": [1, 1, 1], "x": pa.array([2**62, 2**62, 2**62], pa.int64())})
    step = run(engine, grouped(scan(table), ["k"], "sum(x)"), [table, table.slice(0, 1)]).step
    assert step.grouper._numbers is not None
    assert step.grouper._numbers.grouped(table) is None


@pytest.mark.parametrize(
    "plan",
    [
        lambda rows: grouped(rows, ["t"], "count(*)"),
        lambda rows: grouped(rows, ["f"], "count(*)"),
        lambda rows: grouped(rows, ["k"], "sum(f)"),
        lambda rows: grouped(rows, ["k"], "count(*) FILTER (WHERE k > 1)"),
        lambda rows: grouped(rows, ["k"], "sum(k + 1)"),
        lambda rows: grouped(op.WindowAssign(rows, "k", TimeKind.INTEGER, 4, 2, "start"), ["start"], "count(*)"),
    ],
    ids=["text", "fraction", "a sum of fractions", "filter", "computed", "sliding windows"],
)
def test_what_is_for_the_engine_alone(engine: Engine, plan: Any) -> None:
    table = pa.table({"k": [1, 2, 2], "t": ["a", "b", "b"], "f": [0.5, 1.5, -0.0]})
    assert run(engine, plan(scan(table)), [table, table]).step.grouper._numbers is None
