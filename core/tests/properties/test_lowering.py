"""Lowering: folding the clauses of many nodes into one SELECT never changes what the plan means.

The meaning of a plan is that of its nodes run one by one: each node's query over tables that hold what its inputs
gave. The lowered query must give the same rows, under the same names, in the same order where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from sqlglot import exp

from properties.plans import STEPS, Made, plans, scan
from properties.profile import examples
from properties.tables import COLUMNS, Kind, bag, row_list, table_of, tables
from velaria_core.execution.duck import Cursor, Engine, Settings
from velaria_core.execution.lower import lower, schema
from velaria_core.logical import operators as op
from velaria_core.logical.explain import tree
from velaria_core.logical.expr import Column, col, fn, lit
from velaria_core.logical.node import Node
from velaria_core.logical.query import Query
from velaria_core.types import quoted

Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    # One thread: the order of rows is then the order of the input wherever no operator changes it.
    made = Engine(Settings(threads=1))
    yield made
    made.close()


def node_by_node(cursor: Cursor, root: Node) -> tuple[list[str], Rows]:
    """The rows of a plan whose every node is run by itself over its inputs' stored rows."""
    stored: dict[int, Query] = {}

    def table(node: Node) -> Query:
        if (known := stored.get(id(node))) is None:
            text = node.batch(*map(table, node.inputs)).sql()
            name = quoted(f"step_{len(stored)}")
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {text}")
            known = stored[id(node)] = Query.table(name, node.columns)
        return known

    top = table(root)
    names = [str(row[0]) for row in cursor.rows(f"DESCRIBE {top.sql()}")]
    return names, cursor.rows(top.sql())


def agree(engine: Engine, made: Made) -> None:
    """Assert that lowering keeps the meaning of a plan."""
    lowered = lower(made.node)
    with engine.cursor(lowered.feeds) as cursor:
        names, expected = node_by_node(cursor, made.node)
        rows = cursor.rows(lowered.sql)
    assert names == list(made.node.columns) == list(made.kinds) == schema(engine, made.node).names
    if made.ordered:
        assert row_list(rows) == row_list(expected)
    assert bag(rows) == bag(expected)


def test_every_operator_is_drawn() -> None:
    assert set(STEPS) == set(op.ALL)


@pytest.mark.parametrize("operator", op.ALL, ids=lambda kind: kind.__name__)
def test_plans_that_end_in(engine: Engine, operator: type[Node]) -> None:
    @examples(6)
    @given(st.data(), tables(), tables(max_rows=3))
    def holds(data: st.DataObject, one: Any, two: Any) -> None:
        leaves = [scan(one, COLUMNS, "one"), scan(two, COLUMNS, "two")]
        made = data.draw(plans(leaves, operator))
        note(tree(made.node))
        note(lower(made.node).sql)
        agree(engine, made)

    holds()


# --- found by the property, and kept ------------------------------------------------------------------------

_TABLE = table_of(
    COLUMNS, [(2, 1, 0.5, None, "a", "b", None, True, [1]), (1, 1, 2.0, None, "a", "c", None, None, None)]
)
_ROWS = scan(_TABLE, COLUMNS, "one")


def _count(made: Made) -> Node:
    return op.Aggregate(made.node, (), (("n", fn.count().tree),))


def test_a_constant_over_a_whole_aggregate_is_one_row(engine: Engine) -> None:
    # SELECT 7 FROM t would give a row for each row.
    constant = op.Project(op.WithColumn(_count(_ROWS), (("k", lit(7).tree),)), (("k", col("k").tree),))
    agree(engine, Made(constant, {"k": Kind.INT}))
    # A window function without arguments holds no aggregate either.
    numbered = op.Window(_count(_ROWS), (("k", fn.row_number().over().tree),))
    agree(engine, Made(op.Project(numbered, (("k", col("k").tree),)), {"k": Kind.INT}))


@pytest.mark.parametrize("key", [lit(0), lit(3), lit(-1), lit("x"), lit(None), lit(True)], ids=repr)
def test_a_literal_sorts_nothing_and_is_no_position(engine: Engine, key: Column) -> None:
    with_key = op.WithColumn(_ROWS.node, (("k", key.tree),))
    by = (col("k").tree, col("i").tree)
    ordered = op.Sort(with_key, tuple(exp.Ordered(this=one, desc=False) for one in by))
    agree(engine, Made(ordered, COLUMNS | {"k": Kind.INT}, ordered=True))
    grouped = op.Aggregate(with_key, (("k", col("k").tree),), (("n", fn.count().tree),))
    agree(engine, Made(grouped, {"k": Kind.INT, "n": Kind.INT}))


def test_a_pivot_of_a_filtered_aggregate_keeps_both_conditions(engine: Engine) -> None:
    total = fn.sum("i").filter(col("i") > 1)
    node = op.Pivot(_ROWS.node, (), col('q"t').tree, (("b", lit("b").tree), ("c", lit("c").tree)), (("s", total.tree),))
    agree(engine, Made(node, {"b": Kind.INT, "c": Kind.INT}))
    with engine.cursor(lower(node).feeds) as cursor:
        assert cursor.rows(lower(node).sql) == [(2, None)]


def test_what_is_computed_after_grouping_sets_is_not_taken_for_a_key(engine: Engine) -> None:
    # In the set (i), the key i + 1 is NULL; i + 1 computed from i is not.
    more = (col("i") + 1).tree
    keys = (("i", col("i").tree), ("k", col("k").tree))
    sets = op.Aggregate(op.WithColumn(_ROWS.node, (("k", more),)), keys, (), ((0,), (1,)))
    agree(engine, Made(op.Project(sets, (("i", col("i").tree), ("m", more))), {"i": Kind.INT, "m": Kind.INT}))
