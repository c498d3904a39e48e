"""Planning does its work once, and does not go by what is no longer so."""

from __future__ import annotations

from velaria_core import DataflowSession, col
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.lower import lower


def test_a_plan_is_lowered_once() -> None:
    with DataflowSession() as session:
        node = session.create_dataframe({"a": [1]}).filter(col("a") > 0).node
        assert lower(node) is lower(node)


def test_wide_tables_do_not_make_long_queries() -> None:
    with DataflowSession() as session:
        wide = session.create_dataframe({f"c{at}": [at] for at in range(500)})
        other = session.create_dataframe({f"d{at}": [at] for at in range(500)})
        joined = wide.join(other, col("c1") == col("d1")).select(col("c2") + col("d3"))
        assert len(lower(joined.node).sql) < 200
        assert joined.to_rows() == [{"c2": 5}]


def test_columns_shared_by_queries_keep_their_meaning() -> None:
    """A self-join reads the same plain columns under two aliases; the narrow plan is used again beside it."""
    with DataflowSession() as session:
        one = session.create_dataframe({"id": [1, 2], "boss": [None, 1]})
        narrow = one.filter(col("id") > 1)
        pairs = narrow.join(one, left_on="boss", right_on="id").select("id", "id_right")
        assert pairs.to_rows() == [{"id": 2, "id_right": 1}]
        assert narrow.to_rows() == [{"id": 2, "boss": 1}]


def test_a_query_that_was_bound_sees_what_another_cursor_changed() -> None:
    """Arrow has no type for BIT: such a column is cast, which a stale type would forget."""
    engine = Engine(Settings())
    query = "SELECT a FROM t"
    with engine.cursor() as one, engine.cursor() as other:
        other.execute("CREATE TABLE t AS SELECT 1 AS a")
        before = one.schema(query)
        other.execute("CREATE OR REPLACE TABLE t AS SELECT '101'::BIT AS a")
        assert one.table(query).to_pylist() == [{"a": "101"}]
        assert one.schema(query) != before
    engine.close()
