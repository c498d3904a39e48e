"""Materialized views: fresh when the statement that changes their tables returns, and after any restart."""

from __future__ import annotations

import io
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from properties.tables import bag

from velaria_core import DataflowSession, VelariaError
from velaria_core.execution import progress_bar

GROUPED = "SELECT k, sum(v) AS s, count(*) AS n FROM t GROUP BY k"


@pytest.fixture(params=["memory", "file"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DataflowSession]:
    with DataflowSession(tmp_path / "s.duckdb" if request.param == "file" else None) as session:
        session.sql("CREATE TABLE t (k VARCHAR, v INTEGER); INSERT INTO t VALUES ('a', 1), ('b', 2)")
        yield session


def rows(session: DataflowSession, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in session.sql(sql).to_rows()]


def is_fresh(session: DataflowSession, view: str, select: str) -> None:
    """The view has the rows that its query gives now."""
    assert bag(rows(session, f"SELECT * FROM {view}")) == bag(rows(session, select))


def refused(code: str, call: Callable[[], object]) -> VelariaError:
    with pytest.raises(VelariaError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


def test_a_view_follows_every_way_to_change_its_table(session: DataflowSession) -> None:
    session.sql(f"CREATE MATERIALIZED VIEW m AS {GROUPED}")
    is_fresh(session, "m", GROUPED)
    for change in (
        "INSERT INTO t VALUES ('a', 10), (NULL, 3)",
        "INSERT INTO t (v) VALUES (7)",
        "INSERT INTO t SELECT k, v + 1 FROM t",
        "INSERT INTO t SELECT * FROM t WHERE false",
        "CREATE OR REPLACE TABLE t AS SELECT k, v FROM t WHERE k = 'a'",
        "CREATE OR REPLACE TABLE t (k VARCHAR, v INTEGER)",
        "INSERT INTO t VALUES ('z', 1)",
    ):
        session.sql(change)
        is_fresh(session, "m", GROUPED)
    session.sql("SELECT 'q' AS k, 5 AS v").insert_into("t")
    is_fresh(session, "m", GROUPED)
    session.sql("SELECT 'r' AS k, 6 AS v").save_as_table("t", or_replace=True)
    is_fresh(session, "m", GROUPED)


QUERIES = [
    "SELECT * FROM t WHERE v > 1",
    "SELECT DISTINCT k FROM t",
    "SELECT a.k, a.v, b.v AS w FROM t AS a LEFT JOIN t AS b ON a.k = b.k AND a.v < b.v",
    "SELECT k, v FROM t ORDER BY v DESC, k LIMIT 2",
    "SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v) AS r FROM t",
    "SELECT count(*) AS n, max(v) AS top FROM t",
    "SELECT k FROM t WHERE v > (SELECT avg(v) FROM t)",
    "SELECT t.k, names.name FROM t JOIN names USING (k)",
    "SELECT k FROM t EXCEPT SELECT k FROM names",
    "SELECT 1 AS one",
]


@pytest.mark.parametrize("select", QUERIES)
def test_any_query_is_kept_fresh(select: str) -> None:
    with DataflowSession() as session:
        session.sql("CREATE TABLE t (k VARCHAR, v INTEGER); CREATE TABLE names (k VARCHAR, name VARCHAR)")
        session.sql("INSERT INTO t VALUES ('a', 1), ('b', 2)")
        session.sql(f"CREATE MATERIALIZED VIEW m AS {select}")
        for change in (
            "INSERT INTO t VALUES ('a', 5), ('c', NULL), ('a', 5)",
            "INSERT INTO names VALUES ('a', 'Ada')",
            "CREATE OR REPLACE TABLE t AS SELECT * FROM t WHERE v = 5",
        ):
            is_fresh(session, "m", select)
            session.sql(change)
        is_fresh(session, "m", select)


def test_views_on_views_and_named_columns(session: DataflowSession) -> None:
    session.sql(f"CREATE MATERIALIZED VIEW m AS {GROUPED}")
    session.sql("CREATE VIEW plain AS SELECT s FROM m WHERE n > 1")
    session.sql("CREATE MATERIALIZED VIEW total (whole) AS SELECT sum(s) FROM plain")
    session.sql("INSERT INTO t VALUES ('a', 10), ('a', 20), ('b', 1)")
    assert rows(session, "SELECT whole FROM total") == [(34,)]


def test_a_stream_into_a_table_reaches_the_views_on_it(session: DataflowSession) -> None:
    session.sql(f"CREATE MATERIALIZED VIEW m AS {GROUPED}")
    session.sql("CREATE SOURCE TABLE pushed (k VARCHAR, v INTEGER) USING queue OPTIONS(changes: true)")
    queue = session.queue_source("pushed")
    query = session.start_stream_sql("INSERT INTO t SELECT k, v FROM pushed", epoch_rows_max=2)
    queue.push_rows([("x", 1, 1), ("y", 2, 1), ("x", 1, -1), ("x", 5, 1)])
    queue.close_input()
    assert query.await_termination(60)
    is_fresh(session, "m", GROUPED)
    assert ("x", 5, 1) in rows(session, "SELECT * FROM m")


def test_a_view_over_a_source_is_kept_by_itself(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE pushed (k VARCHAR, v BIGINT) USING queue")
    session.sql("CREATE MATERIALIZED VIEW m AS SELECT k, sum(p.v) AS s FROM pushed AS p JOIN t USING (k) GROUP BY k")
    session.queue_source("pushed").push_rows([("a", 1), ("b", 5), ("a", 2)])
    session.sql("REFRESH MATERIALIZED VIEW m")
    assert sorted(rows(session, "SELECT k, s FROM m")) == [("a", 3), ("b", 5)]
    session.queue_source("pushed").push_rows([("a", 4)])
    arrived = threading.Event()
    while rows(session, "SELECT s FROM m WHERE k = 'a'") != [(7,)]:
        arrived.wait(0.01)


def test_windows_come_out_when_they_close(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE pushed (at BIGINT, WATERMARK FOR at AS at - INTERVAL 1 SECOND) USING queue")
    session.sql(
        "CREATE MATERIALIZED VIEW m AS SELECT w, count(*) AS n FROM pushed WINDOW BY at EVERY 1000 AS w GROUP BY w "
        "EMIT ON WINDOW CLOSE"
    )
    for times, shown in (
        ([100, 200], []),
        ([2100], [(0, 2)]),
        ([3500, 2500], [(0, 2)]),
        ([9000], [(0, 2), (2000, 2), (3000, 1)]),
    ):
        session.queue_source("pushed").push_rows([(time,) for time in times])
        session.sql("REFRESH MATERIALIZED VIEW m")
        assert sorted(rows(session, "SELECT * FROM m")) == shown


def test_a_view_that_fails_tells_and_takes_up_again(session: DataflowSession) -> None:
    session.sql("CREATE TABLE parts (d INTEGER); INSERT INTO parts VALUES (1)")
    session.sql("CREATE MATERIALIZED VIEW m AS SELECT 6 % d AS part FROM parts")
    (done,) = session.sql("INSERT INTO parts VALUES (0)").to_rows()
    assert done["affected_rows"] == 1
    assert '"m" is behind' in done["message"]
    (shown,) = session.sql("SHOW MATERIALIZED VIEWS").to_rows()
    assert shown["status"] == "behind"
    assert "value.division_by_zero" in shown["error"]
    refused("value.division_by_zero", lambda: session.sql("REFRESH MATERIALIZED VIEW m"))
    session.sql("CREATE OR REPLACE TABLE parts AS SELECT d FROM parts WHERE d > 0")
    # What was wrong lies between the table and the view until the row that takes it back comes with it.
    session.sql("REFRESH MATERIALIZED VIEW m")
    is_fresh(session, "m", "SELECT 6 % d AS part FROM parts")
    assert session.sql("SHOW MATERIALIZED VIEWS").to_rows()[0]["status"] == "fresh"


def test_a_view_that_cannot_begin_leaves_nothing(session: DataflowSession) -> None:
    session.sql("INSERT INTO t VALUES ('a', 0)")
    refused("value.division_by_zero", lambda: session.sql("CREATE MATERIALIZED VIEW m AS SELECT 1 % v AS x FROM t"))
    assert session.tables() == ["t"]
    session.sql("CREATE MATERIALIZED VIEW m AS SELECT v FROM t")
    session.sql("DROP MATERIALIZED VIEW m; DROP TABLE t")
    assert session.tables() == []


def test_what_a_view_reads_by_its_definition_stays_too(session: DataflowSession, tmp_path: Path) -> None:
    """A dropped source would break the view, and one without its watermark empty it, when the database is opened."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("k,v\na,1\nb,-1\n")
    folder, source = tmp_path / "in", "SOURCE TABLE e (k VARCHAR, v INTEGER) USING csv"
    session.sql(f"""
        CREATE {source} OPTIONS(path: '{folder}', settle: 0);
        CREATE TABLE f USING csv OPTIONS(path: '{folder}/a.csv');
        CREATE VIEW plain AS SELECT k FROM e JOIN f USING (k) WHERE e.v > 0;
        CREATE VIEW above AS SELECT k FROM plain;
        CREATE MATERIALIZED VIEW m AS SELECT k, count(*) AS n FROM above JOIN t USING (k) GROUP BY k
    """)
    for text in (
        "DROP SOURCE TABLE e",
        f"CREATE OR REPLACE {source} OPTIONS(path: '{tmp_path}')",
        "DROP VIEW plain",
        "DROP VIEW above",
        "CREATE OR REPLACE VIEW plain AS SELECT k FROM e",
        "DROP TABLE f",
        "CREATE OR REPLACE TABLE f (k VARCHAR, v BIGINT)",
        "CREATE OR REPLACE TABLE f AS SELECT k, v FROM t",
        f"CREATE OR REPLACE TABLE t USING csv OPTIONS(path: '{folder}/a.csv')",
    ):
        error = refused("catalog.followed", lambda text=text: session.sql(text))  # type: ignore[misc]
        assert error.hint == "DROP MATERIALIZED VIEW m first"
        assert error.place is not None
    refused("catalog.followed", lambda: session.table("t").save_as_table("f", or_replace=True))
    assert rows(session, "SELECT * FROM m") == [("a", 1)]
    session.sql("DROP MATERIALIZED VIEW m; DROP SOURCE TABLE e; DROP VIEW above; DROP VIEW plain; DROP TABLE f")


def test_what_is_followed_stays(session: DataflowSession) -> None:
    session.sql(f"CREATE MATERIALIZED VIEW m AS {GROUPED}; CREATE MATERIALIZED VIEW mm AS SELECT sum(s) AS s FROM m")
    for text in (
        "DROP TABLE t",
        "DROP MATERIALIZED VIEW m",
        "CREATE OR REPLACE TABLE t (k VARCHAR)",
        "CREATE OR REPLACE TABLE t AS SELECT 1 AS k",
        f"CREATE OR REPLACE MATERIALIZED VIEW m AS {GROUPED}",
    ):
        error = refused("catalog.followed", lambda text=text: session.sql(text))  # type: ignore[misc]
        assert error.place is not None
    session.sql("CREATE OR REPLACE MATERIALIZED VIEW mm AS SELECT count(*) AS c FROM m")
    assert rows(session, "SELECT * FROM mm") == [(2,)]
    session.sql("INSERT INTO t VALUES ('c', 1)")
    assert rows(session, "SELECT * FROM mm") == [(3,)]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("catalog.exists", "CREATE MATERIALIZED VIEW t AS SELECT 1 AS a"),
        ("catalog.exists", "CREATE OR REPLACE MATERIALIZED VIEW t AS SELECT 1 AS a"),
        ("catalog.cyclic_view", "CREATE OR REPLACE MATERIALIZED VIEW m AS SELECT * FROM m"),
        ("sql.volatile", "CREATE MATERIALIZED VIEW v AS SELECT now() AS a FROM t"),
        ("sql.endless_order", "CREATE MATERIALIZED VIEW v AS SELECT k FROM t ORDER BY k"),
        ("sql.unsupported", "CREATE TEMP MATERIALIZED VIEW v AS SELECT k FROM t"),
        ("option.unknown", "CREATE MATERIALIZED VIEW v OPTIONS(fresh: true) AS SELECT k FROM t"),
        ("sql.unknown_column", "CREATE MATERIALIZED VIEW v AS SELECT nothing FROM t"),
        ("sql.temporary", "CREATE TEMP TABLE tt (a INTEGER); CREATE MATERIALIZED VIEW v AS SELECT a FROM tt"),
        ("sql.table_kind", "INSERT INTO m VALUES ('a', 1, 1)"),
        ("catalog.kind", "DROP VIEW m"),
        ("catalog.kind", "REFRESH MATERIALIZED VIEW t"),
        ("sql.unknown_table", "REFRESH MATERIALIZED VIEW nothing"),
        ("sql.syntax", "REFRESH VIEW m"),
    ],
)
def test_refusals(code: str, text: str) -> None:
    with DataflowSession() as session:
        session.sql("CREATE TABLE t (k VARCHAR, v INTEGER)")
        session.sql(f"CREATE MATERIALIZED VIEW m AS {GROUPED}")
        assert refused(code, lambda: session.sql(text)).place is not None


def test_if_not_exists(session: DataflowSession) -> None:
    session.sql(f"CREATE MATERIALIZED VIEW m AS {GROUPED}")
    session.sql("CREATE MATERIALIZED VIEW IF NOT EXISTS m AS SELECT 1 AS one")
    assert session.table("m").columns == ["k", "s", "n"]


def test_a_view_is_taken_up_when_its_session_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    with DataflowSession(path) as session:
        session.sql("CREATE TABLE t (k VARCHAR, v INTEGER); INSERT INTO t VALUES ('a', 1)")
        session.sql(f"CREATE MATERIALIZED VIEW m AS {GROUPED}")
        session.sql("INSERT INTO t VALUES ('b', 2)")
    with DataflowSession(path) as session:
        is_fresh(session, "m", GROUPED)
        session.sql("INSERT INTO t VALUES ('a', 5)")
        is_fresh(session, "m", GROUPED)
    with DataflowSession(path, read_only=True) as session:
        is_fresh(session, "m", GROUPED)
        assert session.sql("SHOW MATERIALIZED VIEWS").to_rows()[0]["status"] == "closed"
    # A state that was lost is made again from the tables.
    shutil.rmtree(f"{path}.views")
    with DataflowSession(path) as session:
        is_fresh(session, "m", GROUPED)
        session.sql("INSERT INTO t VALUES ('c', 5)")
        is_fresh(session, "m", GROUPED)
        session.sql("DROP MATERIALIZED VIEW m")
    assert list(Path(f"{path}.views").iterdir()) == []


def test_a_view_over_files_goes_on_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "s.duckdb"
    (tmp_path / "in" / "a.csv").write_text("k,v\na,1\nb,2\n")
    with DataflowSession(path) as session:
        session.sql(f"CREATE SOURCE TABLE files USING csv OPTIONS(path: '{tmp_path}/in/', settle: 0, poll: 0)")
        session.sql("CREATE MATERIALIZED VIEW m AS SELECT k, sum(v) AS s FROM files GROUP BY k")
        is_fresh(session, "m", "SELECT k, sum(v) AS s FROM files GROUP BY k")
    (tmp_path / "in" / "b.csv").write_text("k,v\na,10\n")
    with DataflowSession(path) as session:
        assert sorted(rows(session, "SELECT * FROM m")) == [("a", 11), ("b", 2)]


def test_writers_in_many_threads_lose_nothing(session: DataflowSession) -> None:
    session.sql(f"CREATE MATERIALIZED VIEW m AS {GROUPED}")

    def write(name: str) -> None:
        for at in range(8):
            session.sql(f"INSERT INTO t VALUES ('{name}', {at})")

    writers = [threading.Thread(target=write, args=(name,)) for name in "xyz"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    is_fresh(session, "m", GROUPED)
    assert {k: n for k, _, n in rows(session, "SELECT * FROM m")}["x"] == 8


class Screen(io.StringIO):
    """Standard error, of a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_a_view_that_takes_its_time_shows_how_far_it_is(
    session: DataflowSession, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """Of its rows, once they are in its feeds; only on a terminal."""
    monkeypatch.setattr(progress_bar, "DELAY_SECONDS", 0)
    monkeypatch.setattr(progress_bar, "_STEP_SECONDS", 0.002)
    monkeypatch.setenv("TERM", "xterm")
    session.sql("CREATE TABLE numbers AS SELECT range AS n FROM range(2_000_000)")
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    session.sql("CREATE MATERIALIZED VIEW kept AS SELECT n % 10 AS digit, count(*) AS c FROM numbers GROUP BY ALL")
    if not terminal:
        assert screen.getvalue() == ""
        return
    *_, shown, after = screen.getvalue().split("\r\x1b[K")
    shares = [int(share) for share in re.findall(r"([0-9]+)%", shown)]
    assert {share for share in shares if 0 < share < 100}
    assert shares == sorted(shares)
    assert after == ""
    assert rows(session, "SELECT sum(c) FROM kept") == [(2_000_000,)]


def test_a_view_over_a_source_shows_the_time_alone(session: DataflowSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "DELAY_SECONDS", 0)
    monkeypatch.setattr(progress_bar, "_STEP_SECONDS", 0.0005)
    monkeypatch.setenv("TERM", "xterm")
    session.sql("CREATE SOURCE TABLE pushed (n BIGINT) USING queue")
    session.queue_source("pushed").push_rows([[number] for number in range(100_000)])
    session.queue_source("pushed").close_input()
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    session.sql("CREATE MATERIALIZED VIEW summed AS SELECT n % 10 AS digit, sum(n) AS s FROM pushed GROUP BY ALL")
    *_, shown, after = screen.getvalue().split("\r\x1b[K")
    assert "running" in shown
    assert after == ""
    assert "%" not in shown
