"""T-02: a plan survives being written and read, whatever it holds. Also A-41, serializePlan."""

import pyarrow as pa
import pytest

from velaria_core.dataframe import DataFrame
from velaria_core.errors import StateError
from velaria_core.logical.expr import col, fn
from velaria_core.logical.serialize import dumps, fingerprint, loads
from velaria_core.session import DataflowSession

SQL = {
    "filter with nested and/or": "SELECT a FROM t WHERE (a > 1 AND b = 'x') OR NOT (a = 3 OR b LIKE '%y')",
    "window": "SELECT w, count(*) AS n FROM t WINDOW BY ms EVERY 5000 SLIDE 2000 AS w GROUP BY w ORDER BY w",
    "computed columns": "SELECT upper(b) AS u, year(DATE '2026-01-05') AS y, a + 0.5 AS h FROM t ORDER BY a LIMIT 1",
    "aggregate": "SELECT b, sum(a) AS s, count(DISTINCT a) AS d FROM t GROUP BY b ORDER BY b",
    "aggregate of nothing": "SELECT b, sum(a) AS s FROM t WHERE a > 100 GROUP BY b",
    "left join": "SELECT t.a, u.c FROM t LEFT JOIN u ON t.a = u.a ORDER BY t.a",
    "shared view": "WITH v AS (SELECT a FROM t WHERE a > 1) SELECT x.a FROM v AS x JOIN v AS y ON x.a = y.a ORDER BY 1",
    "grouping sets": "SELECT b, a, count(*) AS n FROM t GROUP BY ROLLUP (b, a) ORDER BY ALL",
    "window function": "SELECT a, row_number() OVER (PARTITION BY b ORDER BY a) AS r FROM t ORDER BY a",
    "opaque": "SELECT a FROM t WHERE a IN (SELECT a FROM u) ORDER BY a",
    "distinct on": "SELECT DISTINCT ON (b) b, a FROM t ORDER BY b, a DESC",
    "set operation": "SELECT a FROM t EXCEPT SELECT a FROM u ORDER BY a",
    "values": "SELECT * FROM (VALUES (1, 'x'), (2, NULL)) AS v (a, b)",
}


@pytest.fixture
def session() -> DataflowSession:
    session = DataflowSession()
    rows = {"a": [1, 2, 3, 3], "b": ["x", "y", None, "xy"], "ms": [0, 4000, -1, None]}
    session.create_temp_view("t", session.create_dataframe(rows))
    session.create_temp_view("u", session.create_dataframe({"a": [2, 3, 9], "c": ["k", None, "m"]}))
    return session


@pytest.mark.parametrize("sql", SQL.values(), ids=SQL.keys())
def test_plan_survives(session: DataflowSession, sql: str) -> None:
    frame = session.sql(sql)
    loaded = DataFrame(DataflowSession(), loads(dumps(frame.node)))
    assert loaded.to_arrow().equals(frame.to_arrow())
    assert loaded.node.columns == frame.node.columns
    assert fingerprint(loaded.node) == fingerprint(frame.node)


def test_frame_verbs_survive(session: DataflowSession) -> None:
    frame = session.table("t").with_column("z", col("a") * 2).group_by("b").agg(m=fn.max("z")).order_by("b")
    assert DataFrame(DataflowSession(), loads(dumps(frame.node))).to_rows() == frame.to_rows()


def test_every_sql_has_its_own_fingerprint(session: DataflowSession) -> None:
    assert len({fingerprint(session.sql(sql).node) for sql in SQL.values()}) == len(SQL)


def test_fingerprint_is_of_the_question_not_of_the_rows() -> None:
    frames = [DataflowSession().create_dataframe(pa.table({"a": [value]})).filter("a > 0") for value in (1, 2)]
    assert fingerprint(frames[0].node) == fingerprint(frames[1].node)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "nodes": [{"operator": "Nope"}]}'])
def test_damage_is_refused(text: str) -> None:
    with pytest.raises(StateError) as caught:
        loads(text)
    assert caught.value.code == "plan.damaged"


def test_another_version_is_refused() -> None:
    with pytest.raises(StateError, match="version 99") as caught:
        loads('{"version": 99, "nodes": []}')
    assert caught.value.code == "plan.version"
