"""Aggregates of distinct values: two that fold, in the place of one, and the same result."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from aggregate_support import Stream, batch, changes_of, grouped, scan
from hypothesis import given, note
from hypothesis import strategies as st
from properties.profile import examples
from properties.tables import COLUMNS, Epoch, Kind, histories, rows_after, table_of

from velaria_core.contract.modes import OutputMode
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.steps.partials import PartialsStep
from velaria_core.logical import operators as op
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.explain import tree
from velaria_core.logical.rules import for_stream


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


OF_VALUES = ["count(DISTINCT {x})", "count(DISTINCT {x}) FILTER (WHERE b)", "count(DISTINCT {x}) FILTER (WHERE i > 0)"]
OF_ROWS = ["count(*)", "count({y})", "count(*) FILTER (WHERE b)", "sum({n})", "sum({n}) FILTER (WHERE i > 0)"]


@pytest.mark.parametrize("append_only", [True, False], ids=["rows come", "rows come and go"])
def test_any_history_adds_up_to_the_batch_result(engine: Engine, append_only: bool) -> None:
    keyable = [name for name, kind in COLUMNS.items() if kind is not Kind.LIST]
    quoted = {name: f'"{name.replace(chr(34), chr(34) * 2)}"' for name in COLUMNS}

    @examples(20)
    @given(st.data(), histories(COLUMNS, max_changes=16))
    def holds(data: st.DataObject, history: list[Epoch]) -> None:
        if append_only:
            history = [Epoch(tuple((row, 1) for row, _ in epoch.changes)) for epoch in history]
        keys = data.draw(st.lists(st.sampled_from(keyable), unique=True, max_size=2))
        x = data.draw(st.sampled_from([*(quoted[name] for name in COLUMNS), "i % 2", 'lower("名 字")']))
        names = {"x": x, "y": quoted[data.draw(st.sampled_from(list(COLUMNS)))], "n": data.draw(st.sampled_from("id"))}
        calls = data.draw(st.lists(st.sampled_from(OF_VALUES), min_size=1, max_size=2, unique=True))
        calls += data.draw(st.lists(st.sampled_from(OF_ROWS), max_size=2, unique=True))
        leaf = scan(table_of(COLUMNS, []))
        plan = grouped(leaf, keys, *(call.format_map(names) for call in calls))
        ruled = for_stream(plan)
        note(tree(ruled))
        assert ruled.columns == plan.columns
        stream = Stream(ruled, leaf.relation, append_only)
        try:
            assert sum(isinstance(node, op.Aggregate) for node in ruled.walk()) == 2
            assert sum(isinstance(step, PartialsStep) for step in stream.flow.steps) == (1 if x == '"l"' else 2)
            for at, epoch in enumerate(history):
                stream.epoch(changes_of(epoch, append_only))
                past = [row for one in history[: at + 1] for row, _ in one.changes]
                now = past if append_only else rows_after(history[: at + 1])
                assert stream.output == batch(engine, plan, table_of(COLUMNS, now))
        finally:
            stream.close()

    holds()


def test_a_value_that_came_before_is_no_change() -> None:
    table = pa.table({"k": ["a", "a", "b"], "x": ["p", "q", "p"]})
    leaf = scan(table)
    stream = Stream(for_stream(grouped(leaf, ["k"], "count(DISTINCT x)")), leaf.relation)
    assert sorted(stream.epoch(table)) == [("a", 2, 1), ("b", 1, 1)]
    assert stream.epoch(table) == []
    assert stream.epoch(pa.table({"k": ["b", "b"], "x": [None, "q"]})) == [("b", 1, -1), ("b", 2, 1)]
    stream.close()


@pytest.mark.parametrize(
    ("calls", "cut"),
    [
        (["sum(DISTINCT i)", "avg(DISTINCT i)", "min(DISTINCT i)"], True),
        (["count(DISTINCT i)", "count(*)"], True),
        (["count(DISTINCT i)", "count(DISTINCT d)"], False),
        (["count(DISTINCT i)", "max(d)"], False),
        (["string_agg(DISTINCT i, ',')"], False),
        (["list(DISTINCT i)"], False),
        (["count(DISTINCT i + random())"], False),
        (["count(*)"], False),
    ],
)
def test_which_are_cut(engine: Engine, calls: list[str], cut: bool) -> None:
    table = pa.table({"k": ["a", "a", "b", "a"], "i": [1, 1, None, 2], "d": [1, 2, 3, 4]})
    leaf = scan(table)
    plan = grouped(leaf, ["k"], *calls)
    ruled = for_stream(plan)
    assert sum(isinstance(node, op.Aggregate) for node in ruled.walk()) == 1 + cut
    if cut:
        assert batch(engine, ruled, table) == batch(engine, plan, table)


def test_of_windows_they_come_out_in_the_epoch_that_closes_them(engine: Engine) -> None:
    micros = pa.array([second * 1_000_000 for second in (1, 2, 9, 11, 12, 25)], pa.int64())
    table = pa.table({"at": micros.cast(pa.timestamp("us")), "x": ["a", "a", "b", "a", "c", "a"]})
    leaf = scan(table)
    marked = op.Watermark(leaf, "at", TimeKind.TIMESTAMP, 0)
    windows = op.WindowAssign(marked, "at", TimeKind.TIMESTAMP, 10_000, 10_000, "start")
    plan = grouped(windows, ["start"], "count(DISTINCT x)")
    stream = Stream(for_stream(plan), leaf.relation, mode=OutputMode.APPEND)
    assert all(step.append_only for step in stream.flow.steps)
    assert stream.epoch(table.slice(0, 3)) == []
    assert [row[1] for row in stream.epoch(table.slice(3, 2))] == [2]
    assert [row[1] for row in stream.epoch(table.slice(5))] == [2]
    stream.epoch(table.slice(0, 2))
    assert stream.flow.late_dropped_rows == 2
    assert [row[1] for row in stream.epoch(None)] == [1]
    assert stream.flow.state_rows == 0
    assert stream.output == batch(engine, plan, table)
    stream.close()
