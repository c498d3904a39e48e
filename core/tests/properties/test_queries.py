"""Random SELECTs: a session gives the rows, types and order that the bare engine gives for the same text."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from hypothesis import assume, given, note

from properties.profile import examples
from properties.queries import TABLES, queries
from properties.tables import bag, row_list, tables
from velaria_core import DataflowSession
from velaria_core.execution.lower import lower
from velaria_core.logical.operators import Opaque


class Pair:
    """A session and a bare connection with the same tables."""

    def __init__(self) -> None:
        # One thread each: where an order is promised by neither, it is then the same by construction.
        self.session = DataflowSession(threads=1)
        self.bare = duckdb.connect(config={"threads": "1", "python_enable_replacements": "false"})

    def store(self, name: str, table: pa.Table) -> None:
        self.session.create_dataframe(table).save_as_table(name, or_replace=True)
        self.bare.register("feed", table)
        self.bare.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM feed")
        self.bare.unregister("feed")

    def agree(self, sql: str) -> bool:
        """Assert that both give the same; False where the engine refuses the query."""
        try:
            relation = self.bare.sql(sql)
            theirs, types = relation.fetchall(), [str(kind) for kind in relation.types]
        except duckdb.Error:
            return False
        frame = self.session.sql(sql)
        reasons = {node.reason for node in frame.node.walk() if isinstance(node, Opaque)}
        assert reasons <= {"subquery in an expression"}, "everything else has operators"
        with self.session._engine.cursor() as cursor:
            lowered = lower(frame.node)
            note(lowered.sql)
            described = cursor.rows(f"DESCRIBE {lowered.sql}")
            ours = cursor.rows(lowered.sql)
        assert [str(row[1]) for row in described] == types
        assert bag(ours) == bag(theirs)
        if sql.rsplit(")", 1)[-1].find(" ORDER BY ALL") >= 0:
            assert row_list(ours) == row_list(theirs)
        return True


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.bare.close()
    made.session.close()


R, S = TABLES["r"], TABLES["s"]


@examples(100)
@given(tables(R, max_rows=6), tables(S, max_rows=4), queries())
def test_random_queries(pair: Pair, r: pa.Table, s: pa.Table, sql: str) -> None:
    pair.store("r", r)
    pair.store("s", s)
    note(sql)
    assume(pair.agree(sql))
