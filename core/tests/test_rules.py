"""Rules: where conditions, joins and columns of a plan go before it runs as a stream."""

from __future__ import annotations

import pytest

from velaria_core import DataflowSession
from velaria_core.logical.explain import tree
from velaria_core.logical.rules import for_stream


@pytest.fixture
def session() -> DataflowSession:
    session = DataflowSession()
    session.sql("CREATE TABLE a (id BIGINT, x BIGINT, wide VARCHAR)")
    session.sql("CREATE TABLE b (id BIGINT, y BIGINT, wide VARCHAR)")
    session.sql("CREATE TABLE c (a_id BIGINT, b_id BIGINT, z BIGINT)")
    return session


def ruled(session: DataflowSession, text: str) -> str:
    return tree(for_stream(session.sql(text).node))


def test_a_comma_is_a_join_on_what_where_says(session: DataflowSession) -> None:
    assert ruled(session, "SELECT x, y FROM a, b WHERE a.id = b.id AND x > 1 AND y > 2") == (
        "Project: x, y\n"
        '└─ Join: inner on id = "b.id"\n'
        "   ├─ Project: id, x\n"
        "   │  └─ Filter: x > 1\n"
        "   │     └─ Scan: table a\n"
        '   └─ Project: "b.id" AS b.id, y\n'
        "      └─ Rename: id AS b.id, wide AS b.wide\n"
        "         └─ Filter: y > 2\n"
        "            └─ Scan: table b"
    )


def test_joins_come_in_an_order_in_which_each_has_a_condition(session: DataflowSession) -> None:
    plan = ruled(session, "SELECT x, y, z FROM a, b, c WHERE a.id = c.a_id AND b.id = c.b_id")
    assert "cross" not in plan
    assert plan.count("Join: inner") == 2


def test_what_every_branch_of_an_or_demands_is_a_condition_of_the_join(session: DataflowSession) -> None:
    plan = ruled(
        session, "SELECT x FROM a, b WHERE (a.id = b.id AND x = 1 AND y = 1) OR (a.id = b.id AND x = 1 AND y = 2)"
    )
    assert "Filter: x = 1" in plan
    assert "AND id = " in plan


@pytest.mark.parametrize(
    ("kind", "tested_before"), [("LEFT", ("x",)), ("RIGHT", ("y",)), ("FULL", ()), ("SEMI", ("x",)), ("ANTI", ("x",))]
)
def test_a_condition_goes_below_an_outer_join_only_on_the_side_that_stays(
    session: DataflowSession, kind: str, tested_before: tuple[str, ...]
) -> None:
    columns = ("x",) if kind in ("SEMI", "ANTI") else ("x", "y")
    tests = " AND ".join(f"{name} = 1" for name in columns)
    above, _, below = ruled(session, f"SELECT x FROM a {kind} JOIN b USING (id) WHERE {tests}").partition("Join:")
    for name in columns:
        assert (f"{name} = 1" in below) == (name in tested_before)
        assert (f"{name} = 1" in above) == (name not in tested_before)


def test_what_is_volatile_stays_where_it_is(session: DataflowSession) -> None:
    plan = ruled(session, "SELECT x FROM a, b WHERE a.id = b.id AND random() < 0.5")
    assert plan.index("Filter") < plan.index("Join: cross")


def test_a_join_keeps_no_column_that_nobody_reads(session: DataflowSession) -> None:
    plan = ruled(session, "SELECT count(*) AS n FROM a JOIN b ON a.id = b.id")
    assert "├─ Project: id\n" in plan
    assert '└─ Project: "b.id" AS b.id\n' in plan


def test_a_plan_is_ruled_once(session: DataflowSession) -> None:
    node = session.sql("SELECT x FROM a, b WHERE a.id = b.id").node
    assert for_stream(node) is for_stream(node)
    assert for_stream(for_stream(node)) is for_stream(node)
