"""Rows T-04, T-05 and T-06: what the SQL frontend reads, where it says an error is, and what it runs."""

from __future__ import annotations

import pytest

from velaria_core.errors import SqlSemanticError, SqlSyntaxError, SqlUnsupportedError, VelariaError
from velaria_core.session import DataflowSession


@pytest.fixture
def session() -> DataflowSession:
    session = DataflowSession()
    rows = {"id": [1, 2, 3, 4], "city": ["柏林", "Rome", "柏林", None], "v": [1.5, 2.0, None, 4.0]}
    session.create_temp_view("t", session.create_dataframe(rows))
    session.create_temp_view("u", session.create_dataframe({"id": [1, 3, 9], "w": ["a", "b", "c"]}))
    return session


# --- T-04 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "line", "column", "utf8", "utf16"),
    [
        ("SELECT nope FROM t", 1, 8, 8, 8),
        ("SELECT id,\n  nope\nFROM t", 2, 3, 3, 3),
        ("SELECT '柏林', nope FROM t", 1, 14, 18, 14),
        ("SELECT '🙂', nope FROM t", 1, 13, 16, 14),
    ],
)
def test_t04_places_in_characters_bytes_and_utf16(
    session: DataflowSession, sql: str, line: int, column: int, utf8: int, utf16: int
) -> None:
    with pytest.raises(SqlSemanticError) as caught:
        session.sql(sql)
    told = caught.value.to_dict()
    assert (told["line"], told["column"], told["column_utf8"], told["column_utf16"]) == (line, column, utf8, utf16)
    assert sql.encode()[told["byte_offset"] :].startswith(b"nope")


def test_t04_an_error_without_a_place_is_told_too() -> None:
    told = VelariaError("some.code", "what happened").to_dict()
    assert told["line"] is told["column"] is told["column_utf8"] is told["byte_offset"] is None


def test_t04_the_environment_chooses_no_frontend(session: DataflowSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELARIA_SQL_FRONTEND", "legacy")
    assert session.sql("SELECT 1").to_rows() == [{"expr1": 1}]
    explained = session.explain_sql("SELECT id FROM t")
    assert "frontend" in explained
    assert "velaria_sql_v1" in explained


@pytest.mark.parametrize("sql", ["", "   ", "-- nothing", ";"])
def test_t04_no_statement_is_an_error(session: DataflowSession, sql: str) -> None:
    with pytest.raises(SqlSyntaxError):
        session.sql(sql)


# --- T-05: the policy, which allows more than the row asks -----------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS a; SELECT 2 AS a",
        "CREATE TABLE d (a BIGINT); INSERT INTO d VALUES (1)",
        "WITH c AS (SELECT id FROM t) SELECT * FROM c",
        "SELECT id FROM t WHERE id IN (SELECT id FROM u)",
        "SELECT row_number() OVER (ORDER BY id) AS n FROM t",
        "SELECT id FROM t INTERSECT SELECT id FROM u",
        "SELECT t.id FROM t JOIN u ON t.id < u.id",
    ],
)
def test_t05_what_is_allowed(session: DataflowSession, sql: str) -> None:
    assert session.sql(sql).count() > 0


@pytest.mark.parametrize(
    "sql", ["UPDATE t SET v = 1", "DELETE FROM t", "COPY t TO 'x.csv'", "ATTACH 'x.db'", "SET threads = 1"]
)
def test_t05_what_is_not(session: DataflowSession, sql: str) -> None:
    with pytest.raises(SqlUnsupportedError) as caught:
        session.sql(sql)
    assert caught.value.hint


def test_q70_distinct_does_not_order_by_what_it_hides(session: DataflowSession) -> None:
    """The engine alone would order by any one of the values."""
    with pytest.raises(SqlSemanticError) as caught:
        session.sql("SELECT DISTINCT city FROM t ORDER BY v")
    assert caught.value.code == "sql.hidden_order"


# --- T-06 -----------------------------------------------------------------------------------------------------


def test_t06_a_select_of_everything(session: DataflowSession) -> None:
    frame = session.sql(
        """
        SELECT t.city, upper(t.city) AS loud, CAST(sum(t.v) AS BIGINT) AS total, count(*) AS n,
               7 AS seven, max(u.w) AS last, t.city || '!' AS cry, length(t.city) AS size
        FROM t LEFT JOIN u ON t.id = u.id
        GROUP BY t.city
        HAVING count(*) > 1
        ORDER BY total
        LIMIT 3
        """
    )
    assert frame.to_rows() == [
        {"city": "柏林", "loud": "柏林", "total": 2, "n": 2, "seven": 7, "last": "b", "cry": "柏林!", "size": 2}
    ]


def test_t06_values_of_every_kind(session: DataflowSession) -> None:
    session.sql("CREATE TABLE v (i BIGINT, d DOUBLE, s VARCHAR, b BOOLEAN)")
    session.sql("INSERT INTO v VALUES (9007199254740993, 1.5, '引号''', TRUE), (NULL, NULL, NULL, NULL)")
    assert session.sql("SELECT * FROM v ORDER BY i").to_rows() == [
        {"i": 9007199254740993, "d": 1.5, "s": "引号'", "b": True},
        {"i": None, "d": None, "s": None, "b": None},
    ]


def test_t06_set_operations_and_other_conditions_run(session: DataflowSession) -> None:
    """What the row refuses runs here: INTERSECT, EXCEPT, and a join on an inequality."""
    assert session.sql("SELECT id FROM t UNION ALL SELECT id FROM u").count() == 7
    assert session.sql("SELECT id FROM t EXCEPT SELECT id FROM u ORDER BY id").to_rows() == [{"id": 2}, {"id": 4}]
    assert session.sql("SELECT t.id FROM t JOIN u ON t.id > u.id ORDER BY 1 LIMIT 1").to_rows() == [{"id": 2}]


def test_t06_source_ddl_and_windows_are_read(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE feed (ts BIGINT, v BIGINT)")
    sql = "SELECT w, sum(v) AS s FROM feed WINDOW BY ts EVERY 1000 AS w GROUP BY w"
    assert session.sql(sql).to_rows() == []
    rows = session.sql("SELECT DISTINCT city FROM t KEYWORD SEARCH(city) QUERY 'rome' TOP_K 2").to_rows()
    assert rows == [{"city": "Rome"}]


def test_t06_a_sum_by_group_from_end_to_end(session: DataflowSession) -> None:
    frame = session.sql("SELECT city, sum(v) AS s FROM t GROUP BY city ORDER BY city NULLS FIRST")
    assert frame.to_rows() == [{"city": None, "s": 4.0}, {"city": "Rome", "s": 2.0}, {"city": "柏林", "s": 1.5}]
