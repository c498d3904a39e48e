"""A plan in parts gives the rows of the plan in one process, for any table, query and number of parts.

The chains run here as a worker runs them (`plans.run.run`), without processes; `test_runtime.py` runs them in some.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from split_queries import bag, queries, tables

from velaria_core.errors import InputError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.logical.serialize import loads
from velaria_core.session import DataflowSession
from velaria_experimental.plans.run import run
from velaria_experimental.plans.split import Reading, Split, split

EXAMPLES = int(os.environ.get("VELARIA_EXAMPLES", "60"))


@pytest.fixture(scope="module")
def worker() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=1) as made:
        yield made


def rows_of(engine: Engine, found: Split) -> pa.Table:
    """The rows of a split plan."""
    made: list[list[list[pa.Table]]] = []  # chain, task, part

    def read(one: Reading, task: int, tasks: int) -> pa.Table:
        if one.table is not None:
            size = -(-one.table.num_rows // tasks)
            return one.table if one.whole else one.table.slice(task * size, size)
        assert one.chain is not None
        parts = [part for done in made[one.chain] for at, part in enumerate(done) if one.whole or at == task]
        return pa.concat_tables([one.schema.empty_table(), *parts])

    for chain in found.chains:
        plan = loads(chain.plan)
        made.append(
            [
                run(engine, plan, {one.name: read(one, task, chain.tasks) for one in chain.readings}, chain.parts)
                for task in range(chain.tasks)
            ]
        )
    return pa.concat_tables([part for done in made[-1] for part in done])


def test_any_plan_in_any_parts(worker: Engine, session: DataflowSession) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(tables(), tables(max_rows=6), queries(), st.integers(2, 4))
    def holds(x: pa.Table, y: pa.Table, sql: str, tasks: int) -> None:
        for name, rows in (("x", x), ("y", y)):
            session.create_temp_view(name, session.create_dataframe(rows))
        frame = session.sql(sql)
        found = split(session._engine, frame.node, tasks)
        note(f"{sql}\n{found.reason}")
        assert found.schema.equals(frame.schema)
        table = rows_of(worker, found)
        expected = frame.to_arrow()
        assert table.schema.equals(expected.schema)
        assert bag(table) == bag(expected)

    holds()


@pytest.fixture
def events(session: DataflowSession) -> pa.Table:
    random = np.random.default_rng(7)
    rows = pa.table({"k": random.integers(0, 50, 2000), "v": random.integers(0, 9, 2000), "t": ["a", "b"] * 1000})
    session.create_temp_view("events", session.create_dataframe(rows))
    return rows


def shapes(session: DataflowSession, sql: str) -> list[tuple[int, int]]:
    """(tasks, parts) of each chain."""
    found = split(session._engine, session.sql(sql).node, 4)
    return [(chain.tasks, chain.parts) for chain in found.chains]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT v * 2 AS w FROM events WHERE k > 3", [(4, 1)]),
        ("SELECT k, count(*) AS n, median(v) AS m FROM events GROUP BY k", [(4, 4), (4, 1)]),
        ("SELECT k, count(*) AS n FROM events GROUP BY k HAVING count(*) > 9", [(4, 4), (4, 1)]),
        ("SELECT sum(v) AS s FROM events", [(4, 1), (1, 1)]),
        ("SELECT k, count(DISTINCT v) AS n FROM events GROUP BY k", [(4, 4), (4, 1)]),
        ("SELECT k, v FROM events ORDER BY v, k LIMIT 5", [(4, 1), (1, 1)]),
        (
            "SELECT a.k FROM events AS a JOIN (SELECT DISTINCT k FROM events) AS b ON a.k = b.k",
            [(4, 4), (4, 1), (4, 1)],
        ),
    ],
)
@pytest.mark.usefixtures("events")
def test_shapes_say_how_a_plan_is_cut(session: DataflowSession, sql: str, expected: list[tuple[int, int]]) -> None:
    assert shapes(session, sql) == expected


@pytest.mark.usefixtures("events")
def test_what_depends_on_chance_runs_once(session: DataflowSession) -> None:
    found = split(session._engine, session.sql("SELECT k, random() AS r FROM events").node, 4)
    assert not found.is_split
    assert "not the same in every task" in found.reason


def test_only_columns_that_are_read_travel(session: DataflowSession, events: pa.Table) -> None:
    found = split(session._engine, session.sql("SELECT k, sum(v) AS s FROM events GROUP BY k").node, 2)
    assert found.chains[0].readings[0].schema.names == ["k", "v"]
    assert events.num_columns == 3


def test_a_function_of_the_program_is_refused(session: DataflowSession) -> None:
    frame = session.create_dataframe(pa.table({"k": [1, 2], "v": [1, 2]}))
    applied = frame.group_by("k").apply_in_batches(lambda rows, state: (rows, state), frame.schema)
    with pytest.raises(InputError) as refused:
        split(session._engine, applied.node, 2)
    assert refused.value.code == "plan.function"
