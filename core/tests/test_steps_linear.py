"""Linear steps: what passes through stays in Arrow, in the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from velaria_core.changes import DIFF_FIELD, constant, going_first
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Moment, compile_steps
from velaria_core.execution.steps.linear import LinearStep
from velaria_core.logical import operators as op
from velaria_core.logical.expr import col, expr, fn
from velaria_core.logical.lineage import lineage
from velaria_core.logical.node import Node
from velaria_core.logical.relation import Relation

ROWS = 200_000  # more than a row group of the engine, so that several threads would take part
SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string(), "parts": pa.list_(pa.int64())})
Scanned = op.Scan(Relation("input", SCHEMA, '"input"', "arrow"))


def rows(count: int, chunks: int = 1) -> pa.Table:
    ids = np.arange(count)
    lists = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), pa.array(ids))
    table = pa.table([pa.array(ids), pa.array(ids).cast(pa.string()), lists], SCHEMA)
    size = -(-count // chunks)
    return pa.concat_tables([table.slice(at, size) for at in range(0, count, size)])


@pytest.fixture(params=[1, 4], ids=["one thread", "four threads"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    engine = Engine(Settings(threads=request.param))
    made = Store(engine)
    yield made
    made.close()
    engine.close()


def step_of(store: Store, node: Node, append_only: bool = True) -> tuple[LinearStep, Any]:
    engine = Engine(Settings(threads=1))
    flow = compile_steps(node, store, engine, {id(Scanned.relation): append_only})
    engine.close()
    (step,) = (step for step in flow.steps if isinstance(step, LinearStep))
    return step, lambda table: flow.epoch({id(Scanned.relation): table}, Moment(first=True))


def project(**columns: Any) -> op.Project:
    return op.Project(Scanned, tuple((name, column.tree) for name, column in columns.items()))


def test_a_computed_column_stands_beside_the_row_it_is_of(store: Store) -> None:
    _, run = step_of(store, project(id=col("id"), double=col("id") * 2, text=col("text")))
    for chunks in (1, 7):
        made = run(rows(ROWS, chunks))
        ids = made["id"].to_numpy()
        assert np.array_equal(ids, np.arange(ROWS))
        assert np.array_equal(made["double"].to_numpy(), 2 * ids)
        assert made.schema.names == ["id", "double", "text"]


def test_rows_that_stay_keep_their_other_columns(store: Store) -> None:
    kept = op.Filter(project(text=col("text"), third=col("id") % 3, name=col("id")), (col("third") == 1).tree)
    _, run = step_of(store, kept)
    made = run(rows(ROWS, 5))
    assert np.array_equal(made["name"].to_numpy(), np.arange(1, ROWS, 3))
    assert made["text"].to_pylist() == [str(one) for one in range(1, ROWS, 3)]
    assert set(made["third"].to_pylist()) == {1}


def test_retractions_stay_with_their_rows(store: Store) -> None:
    _, run = step_of(store, op.Filter(Scanned, (col("id") % 2 == 0).tree), append_only=False)
    given = rows(10).append_column(DIFF_FIELD, pa.array([1, 1, -1, 1, 2, 1, 1, 1, 1, -3]))
    assert run(given).drop_columns(["text", "parts"]).to_pydict() == {"id": [0, 2, 4, 6, 8], "__diff": [1, -1, 2, 1, 1]}


@pytest.mark.parametrize("append_only", [True, False])
def test_few_numbers_go_through_the_engine(store: Store, append_only: bool) -> None:
    node = op.Project(op.Filter(Scanned, (col("id") % 2 == 0).tree), (("n", col("id").tree),))
    _, run = step_of(store, node, append_only)
    given = rows(6)
    if append_only:
        assert run(given).to_pydict() == {"n": [0, 2, 4]}
    else:
        given = given.append_column(DIFF_FIELD, pa.array([1, 1, -1, 1, 2, 1]))
        assert run(given).to_pydict() == {"n": [0, 2, 4], "__diff": [1, -1, 2]}


def test_repeated_rows_repeat_their_other_columns(store: Store) -> None:
    _, run = step_of(store, op.Explode(Scanned, "parts", "part"), append_only=False)
    given = rows(3).append_column(DIFF_FIELD, constant(-1, 3))
    given = given.set_column(2, "parts", pa.array([[7, 8], [], None], pa.list_(pa.int64())))
    assert run(given).to_pylist() == [
        {"id": 0, "text": "0", "part": 7, "__diff": -1},
        {"id": 0, "text": "0", "part": 8, "__diff": -1},
    ]


def test_a_run_that_selects_runs_no_statement_and_copies_nothing(store: Store) -> None:
    step, run = step_of(store, op.Rename(project(text=col("text"), id=col("id")), (("text", "name"),)))
    assert step.impl == "columns"
    given = rows(10)
    made = run(given)
    assert made.schema.names == ["name", "id"]
    assert made["name"].chunk(0).buffers()[2].address == given["text"].chunk(0).buffers()[2].address
    assert step.schema == made.schema


def test_all_rows_that_pass_a_filter_are_not_copied(store: Store) -> None:
    _, run = step_of(store, op.Filter(Scanned, (col("id") >= 0).tree))
    given = rows(10)
    assert run(given)["text"].chunk(0).buffers()[2].address == given["text"].chunk(0).buffers()[2].address
    assert run(given.slice(0, 0)) is None


def test_types_that_the_engine_would_change_go_through_it(store: Store) -> None:
    schema = pa.schema({"kind": pa.dictionary(pa.int32(), pa.string()), "long": pa.large_string(), "n": pa.int64()})
    scanned = op.Scan(Relation("input", schema, '"input"', "arrow"))
    node = op.Rename(scanned, (("n", "m"),))
    engine = Engine(Settings(threads=1))
    flow = compile_steps(node, store, engine, {id(scanned.relation): True})
    given = pa.table({"kind": pa.array(["a", None]).dictionary_encode(), "long": ["x", "y"], "n": [1, 2]})
    made = flow.epoch({id(scanned.relation): given.cast(schema)}, Moment(first=True))
    engine.close()
    assert made is not None
    assert made.schema == pa.schema({"kind": pa.string(), "long": pa.string(), "m": pa.int64()}) == flow.schema
    assert made.to_pydict() == {"kind": ["a", None], "long": ["x", "y"], "m": [1, 2]}


def test_lineage() -> None:
    run = [project(a=col("id"), b=col("text"), c=fn.upper("text")), None, None]
    run[1] = op.Filter(run[0], expr("c = 'X'").tree)
    run[2] = op.Project(run[1], (("c", col("a").tree), ("a", col("c").tree), ("d", col("b").tree)))
    found = lineage(run)
    assert found.passed == (("c", "id"), ("d", "text"))
    assert found.computed == ("a",)
    assert not found.one_to_one
    unnested = op.Explode(Scanned, "parts", "id2")
    assert lineage([unnested]).passed == (("id", "id"), ("text", "text"))
    assert not lineage([op.Project(Scanned, (("id", col("id").tree), ("p", expr("unnest(parts)").tree)))]).one_to_one


@pytest.mark.parametrize("by_name", [False, True])
def test_rows_of_two_sides_with_the_same_columns_follow_each_other(store: Store, by_name: bool) -> None:
    node = op.Union(Scanned, op.Filter(Scanned, (col("id") >= 0).tree), by_name)
    engine = Engine(Settings(threads=1))
    flow = compile_steps(node, store, engine, {id(Scanned.relation): True})
    engine.close()
    assert flow.steps[-1].impl == "columns"
    given = rows(3)
    made = flow.epoch({id(Scanned.relation): given}, Moment(first=True))
    assert made is not None
    assert made["id"].to_pylist() == [0, 1, 2, 0, 1, 2]
    assert made["text"].chunk(1).buffers()[2].address == given["text"].chunk(0).buffers()[2].address


def test_rows_of_two_sides_with_other_types_get_those_of_the_result(store: Store) -> None:
    other = op.Project(Scanned, (("a", col("id").cast("float64").tree), ("b", col("text").tree)))
    node = op.Union(project(id=col("id"), text=col("text")), other)
    engine = Engine(Settings(threads=1))
    flow = compile_steps(node, store, engine, {id(Scanned.relation): True})
    engine.close()
    made = flow.epoch({id(Scanned.relation): rows(1)}, Moment(first=True))
    assert made is not None
    assert made.schema == pa.schema({"id": pa.float64(), "text": pa.string()}) == flow.schema
    assert made.to_pylist() == [{"id": 0.0, "text": "0"}] * 2


def test_changes_that_go_are_put_first_and_otherwise_left_alone() -> None:
    def changes(*diffs: int) -> pa.Table:
        return rows(len(diffs)).append_column(DIFF_FIELD, pa.array(diffs, pa.int64()))

    ordered = going_first(changes(1, -1, 2, -3))
    assert ordered.select(["id", "__diff"]).to_pydict() == {"id": [1, 3, 0, 2], "__diff": [-1, -3, 1, 2]}
    for given in (changes(1, 1), changes(-1, -1, 1), changes(-1)):
        assert going_first(given) is given
