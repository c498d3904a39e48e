"""Aggregates by states of the engine: which they are, and that any epochs add up to the batch result."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from aggregate_support import Stream, batch, changes_of, grouped, scan
from hypothesis import given, note
from hypothesis import strategies as st
from properties.profile import examples
from properties.tables import COLUMNS, Epoch, Kind, bag, histories, table_of

from velaria_core.contract.modes import OutputMode
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.lower import schema
from velaria_core.execution.steps import Moment
from velaria_core.execution.steps.keyed import KeyedStep
from velaria_core.execution.steps.states import StatesStep
from velaria_core.logical import operators as op
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.expr import parse_expression
from velaria_core.logical.states import states_of


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


# --- which aggregates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "has"),
    [
        ("max(x)", True),
        ("median(x) FILTER (WHERE x > 1)", True),
        ("quantile_cont(x, [0.5, 0.9])", True),
        ("corr(x, y)", True),
        ("count(*)", True),
        ("max(x, 2)", False),
        ("count(DISTINCT x)", False),
        ("list(x ORDER BY y)", False),
        ("arg_max(x, y)", False),
        ("mode(x)", False),
        ("first(x)", False),
    ],
)
def test_which_calls_merge(call: str, has: bool) -> None:
    assert (states_of((), (("m", parse_expression(call)),)) is not None) is has


_ANY = tuple(Kind)
_NUMBERS = (Kind.INT, Kind.FLOAT, Kind.DECIMAL)
_ORDERED = (*_NUMBERS, Kind.TEXT, Kind.TIME)
CALLS: dict[str, tuple[Kind, ...]] = {
    "min({x})": _ANY,
    "max({x})": _ANY,
    "max({x}) FILTER (WHERE i > 0)": _ANY,
    "count({x})": _ANY,
    "count(*)": _ANY,
    "sum({x})": _NUMBERS,
    "avg({x})": _NUMBERS,
    "median({x})": _ORDERED,
    "quantile_disc({x}, 0.25)": _ORDERED,
    "quantile_cont({x}, [0.1, 0.9])": _NUMBERS,
    "approx_count_distinct({x})": _ANY,
    "bit_xor({x})": (Kind.INT,),
    "bool_or({x})": (Kind.BOOL,),
}


def test_any_history_adds_up_to_the_batch_result(engine: Engine) -> None:
    keyable = [name for name, kind in COLUMNS.items() if kind is not Kind.LIST]

    @examples(25)
    @given(st.data(), histories(COLUMNS, max_changes=16))
    def holds(data: st.DataObject, history: list[Epoch]) -> None:
        history = [Epoch(tuple((row, 1) for row, _ in epoch.changes)) for epoch in history]
        keys = data.draw(st.lists(st.sampled_from(keyable), unique=True, max_size=2))
        column = data.draw(st.sampled_from(list(COLUMNS)))
        x = f'"{column.replace(chr(34), chr(34) * 2)}"'
        fitting = [call for call, kinds in CALLS.items() if COLUMNS[column] in kinds]
        calls = [call.format(x=x) for call in data.draw(st.lists(st.sampled_from(fitting), max_size=3, unique=True))]
        leaf = scan(table_of(COLUMNS, []))
        # The first has no partials, so that the others go with it.
        plan = grouped(leaf, keys, 'min("名 字")', *calls)
        note(plan.label())
        stream = Stream(plan, leaf.relation)
        try:
            assert isinstance(stream.flow.steps[-1], StatesStep)
            for at, epoch in enumerate(history):
                stream.epoch(changes_of(epoch, True))
                past = [row for one in history[: at + 1] for row, _ in one.changes]
                assert stream.output == batch(engine, plan, table_of(COLUMNS, past))
            assert stream.flow.schema == schema(engine, plan)
        finally:
            stream.close()

    holds()


ROUNDED = ["stddev(x)", "var_pop(x)", "sem(x)", "skewness(x)", "kurtosis(x)", "corr(x, y)", "covar_samp(x, y)"]
ROUNDED += ["regr_slope(x, y)", "regr_r2(x, y)", "regr_intercept(x, y)", "regr_count(x, y)", "mad(x)"]


def test_moments_are_those_of_the_batch_run_but_for_their_rounding(engine: Engine) -> None:
    """And the changes add up to one row a key exactly, whatever the last digits were meanwhile."""
    rng = np.random.default_rng(3)
    columns = {"k": rng.integers(0, 5, 900), "x": rng.normal(1e3, 1.0, 900), "y": rng.random(900)}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    leaf = scan(table)
    plan = grouped(leaf, ["k"], *ROUNDED)
    stream = Stream(plan, leaf.relation)
    for at in range(0, 900, 60):
        stream.epoch(table.slice(at, 60))
    expected = batch(engine, plan, table)
    assert set(stream.output.values()) == {1}
    assert len(stream.output) == len(expected) == 5
    for found, wanted in zip(sorted(stream.output), sorted(expected), strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert math.isclose(float(one.split()[1]), float(other.split()[1]), rel_tol=1e-7)
    stream.close()


# --- what comes out -------------------------------------------------------------------------------------------------


def test_only_what_changed_comes_out() -> None:
    table = pa.table({"k": ["a", None, "a"], "x": ["p", "q", "r"]})
    leaf = scan(table)
    stream = Stream(grouped(leaf, ["k"], "max(x)"), leaf.relation)
    assert sorted(map(str, stream.epoch(table))) == ["('a', 'r', 1)", "(None, 'q', 1)"]
    assert stream.epoch(table) == []
    larger = pa.table({"k": [None], "x": ["z"]}, schema=table.schema)
    assert sorted(map(str, stream.epoch(larger))) == ["(None, 'q', -1)", "(None, 'z', 1)"]
    stream.close()


def test_without_keys_no_rows_have_one_row() -> None:
    table = pa.table({"k": ["a"], "x": ["p"]})
    leaf = scan(table)
    stream = Stream(grouped(leaf, [], "max(x)", "count(*)"), leaf.relation)
    assert stream.epoch(table.slice(1)) == [(None, 0, 1)]
    assert stream.epoch(table.slice(1)) == []
    assert sorted(map(str, stream.epoch(table))) == ["('p', 1, 1)", "(None, 0, -1)"]
    stream.close()


def test_rows_that_go_want_all_rows() -> None:
    leaf = scan(table_of(COLUMNS, []))
    stream = Stream(grouped(leaf, ["i"], "median(f)"), leaf.relation, append_only=False)
    assert isinstance(stream.flow.steps[-1], KeyedStep)
    stream.close()


def test_what_the_engine_does_not_export_is_computed_anew() -> None:
    table = pa.table({"k": ["a"], "x": [2.0]})
    leaf = scan(table)
    stream = Stream(grouped(leaf, ["k"], "geomean(x)"), leaf.relation)
    assert isinstance(stream.flow.steps[-1], KeyedStep)
    assert stream.epoch(table) == [("a", pytest.approx(2.0), 1)]
    stream.close()


# --- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["stddev(i)", "mad(i)", "median(u)", "sum(u)", "avg(day)", "corr(i, d)", "sem(d)"])
def test_arguments_that_the_engine_casts(engine: Engine, call: str) -> None:
    """A state is made again with the types that the call was bound with, which are others than those of its columns."""
    table = pa.table(
        {
            "k": [1, 1, 2, 2, 1],
            "i": pa.array([3, 1, 4, None, 5], pa.int32()),
            "u": pa.array([1, 2, 3, 4, 9], pa.uint8()),
            "d": pa.array([1, 2, 3, 4, None], pa.decimal128(9, 2)),
            "day": pa.array([10, 20, 30, 41, 50], pa.date32()),
        }
    )
    leaf = scan(table)
    plan = grouped(leaf, ["k"], call, "max(CAST(k AS VARCHAR))")
    stream = Stream(plan, leaf.relation)
    assert isinstance(stream.flow.steps[-1], StatesStep)
    for at in range(len(table)):
        stream.epoch(table.slice(at, 1))
    assert stream.output == batch(engine, plan, table)
    stream.close()


@pytest.mark.parametrize("call", ["max(x)", "median(CAST(x AS BIGINT))"])
def test_what_is_kept_of_a_key_does_not_pile_up(engine: Engine, call: str) -> None:
    """One row, and one that is shown; where a state holds all its values, one for each epoch."""
    tables = [pa.table({"k": list(range(6)), "x": [f"{(at * 7 + k) % 11}" for k in range(6)]}) for at in range(40)]
    leaf = scan(tables[0])
    plan = grouped(leaf, ["k"], call)
    stream = Stream(plan, leaf.relation)
    for at, table in enumerate(tables):
        stream.epoch(table)
        step = stream.flow.steps[-1]
        assert isinstance(step, StatesStep)
        assert not step.scanned
        assert step.state_rows() == 6 + 6 * (1 if call == "max(x)" else at + 1)
    assert stream.output == batch(engine, plan, pa.concat_tables(tables))
    stream.close()


@pytest.mark.parametrize("keys", [[], ["k"]])
def test_a_restart_goes_on_where_the_last_epoch_ended(tmp_path: Path, keys: list[str]) -> None:
    table = pa.table({"k": ["a", None, "b", "a"], "x": ["p", "q", None, "r"], "y": [1.0, 2.5, None, 4.0]})
    leaf = scan(table)
    plan = grouped(leaf, keys, "max(x)", "median(y)", "stddev(y)", "approx_count_distinct(x)", "count(*)")
    unbroken = Stream(plan, leaf.relation)
    for epoch in range(4):
        stream = Stream(plan, leaf.relation, path=tmp_path / "state.duckdb")
        stream._first = epoch == 0
        for _ in range(2):
            assert bag(stream.epoch(table)) == bag(unbroken.epoch(table))
        stream.close()
    unbroken.close()


def test_an_epoch_that_failed_leaves_nothing(engine: Engine) -> None:
    table = pa.table({"k": ["a", "b"], "x": ["p", "q"]})
    leaf = scan(table)
    plan = grouped(leaf, ["k"], "max(x)", "count(*)")
    stream = Stream(plan, leaf.relation)
    stream.epoch(table)
    with suppress(ZeroDivisionError), stream._store.cursor.transaction():
        stream.flow.epoch({id(leaf.relation): table}, Moment(False))
        raise ZeroDivisionError
    stream.flow.rolled_back()
    stream.epoch(table)
    assert stream.output == batch(engine, plan, pa.concat_tables([table, table]))
    stream.close()


# --- event time -----------------------------------------------------------------------------------------------------


def at(seconds: Sequence[int]) -> pa.Table:
    start = dt.datetime(1970, 1, 1)
    times: list[Any] = [start + dt.timedelta(seconds=second) for second in seconds]
    return pa.table({"at": pa.array(times, pa.timestamp("us")), "x": [f"{second:03}" for second in seconds]})


@pytest.mark.parametrize("mode", [OutputMode.UPDATE, OutputMode.APPEND])
def test_state_of_closed_windows_goes_and_their_late_rows_are_dropped(engine: Engine, mode: OutputMode) -> None:
    tables = [at([second, second + 3, second + 6]) for second in range(0, 200, 10)]
    leaf = scan(tables[0])
    marked = op.Watermark(leaf, "at", TimeKind.TIMESTAMP, 0)
    windows = op.WindowAssign(marked, "at", TimeKind.TIMESTAMP, 10_000, 10_000, "start")
    plan = grouped(windows, ["start"], "max(x)")
    stream = Stream(plan, leaf.relation, mode=mode)
    for table in tables:
        stream.epoch(table)
    assert stream.flow.state_rows < 20
    assert stream.epoch(at([5, 6])) == []
    assert stream.flow.late_dropped_rows == 2
    stream.epoch(None)
    assert stream.output == batch(engine, plan, pa.concat_tables(tables))
    assert stream.flow.state_rows == 0
    stream.close()
