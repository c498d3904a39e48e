"""Sessions: independent, durable, bounded in memory, usable from threads. Rows A-01..A-22, B-10 of the inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from velaria_core.errors import (
    CatalogNotFoundError,
    DataError,
    ExternalError,
    InputError,
    StateError,
    TableKindError,
    VelariaError,
)
from velaria_core.session import DataflowSession


def test_sessions_share_nothing_b10() -> None:
    """B-10: every session has a catalog of its own; the class of an error survives."""
    one, two = DataflowSession(), DataflowSession()
    one.create_temp_view("t", one.create_dataframe({"a": [1]}))
    one.sql("CREATE TABLE stored (a BIGINT)")
    assert one.tables() == ["stored", "t"]
    assert two.tables() == []
    with pytest.raises(CatalogNotFoundError) as caught:
        two.sql("SELECT * FROM t")
    assert caught.value.code == "sql.unknown_table"


def test_frames_of_two_sessions_do_not_join() -> None:
    one, two = DataflowSession(), DataflowSession()
    with pytest.raises(InputError, match="two sessions"):
        one.create_dataframe({"a": [1]}).join(two.create_dataframe({"a": [1]}), "a")


def test_tables_views_and_kinds_outlive_the_session(tmp_path: Path) -> None:
    path = tmp_path / "workspace.duckdb"
    with DataflowSession(path) as session:
        session.sql("CREATE TABLE orders (id BIGINT, item VARCHAR); INSERT INTO orders VALUES (1, 'x'), (2, NULL)")
        session.sql("CREATE VIEW doubled AS SELECT id * 2 AS d FROM orders")
        session.sql("CREATE SOURCE TABLE feed (id BIGINT)")
        session.sql("CREATE TEMP TABLE gone (id BIGINT)")
        session.sql("CREATE TEMP VIEW gone_too AS SELECT 1 AS a")
        assert session.table("orders").filter("id > 1").save_as_table("kept") == 1
    with DataflowSession(path) as session:
        assert session.tables() == ["doubled", "feed", "kept", "orders"]
        assert session.sql("SELECT * FROM doubled ORDER BY d").to_rows() == [{"d": 2}, {"d": 4}]
        assert session.table("kept").to_rows() == [{"id": 2, "item": None}]
        with pytest.raises(TableKindError):
            session.sql("INSERT INTO feed VALUES (1)")


def test_read_only_session_refuses_writes(tmp_path: Path) -> None:
    path = tmp_path / "workspace.duckdb"
    with DataflowSession(path) as session:
        session.sql("CREATE TABLE t AS SELECT 1 AS a")
    with DataflowSession(path, read_only=True) as session:
        assert session.table("t").count() == 1
        with pytest.raises(VelariaError):
            session.sql("INSERT INTO t VALUES (2)")


def test_a_view_follows_what_it_reads() -> None:
    session = DataflowSession()
    session.sql("CREATE TABLE t AS SELECT 1 AS a; CREATE VIEW v AS SELECT sum(a) AS s FROM t")
    session.sql("INSERT INTO t VALUES (41)")
    assert session.sql("SELECT * FROM v").to_rows() == [{"s": 42}]
    session.sql("CREATE OR REPLACE TABLE t AS SELECT 7 AS a")
    assert session.sql("SELECT * FROM v").to_rows() == [{"s": 7}]


def test_views_in_a_circle_are_refused_and_the_old_meaning_stays() -> None:
    session = DataflowSession()
    session.sql("CREATE VIEW one AS SELECT 1 AS a; CREATE VIEW two AS SELECT * FROM one")
    with pytest.raises(InputError) as caught:
        session.sql("CREATE OR REPLACE VIEW one AS SELECT * FROM two")
    assert caught.value.code == "catalog.cyclic_view"
    assert "one -> two -> one" in caught.value.message
    assert session.sql("SELECT * FROM two").to_rows() == [{"a": 1}]


def test_a_failed_statement_changes_nothing_and_the_session_goes_on() -> None:
    session = DataflowSession()
    session.sql("CREATE TABLE t (a BIGINT)")
    with pytest.raises(DataError):
        session.sql("INSERT INTO t SELECT CAST(x AS BIGINT) FROM (VALUES ('1'), ('two')) AS v (x)")
    assert session.table("t").count() == 0
    session.sql("INSERT INTO t VALUES (1)")
    assert session.table("t").count() == 1


def test_memory_limit_spills_and_says_when_it_cannot(tmp_path: Path) -> None:
    with DataflowSession(memory_limit="120MB", temp_directory=tmp_path, threads=2) as session:
        grouped = session.sql(
            "SELECT count(*) AS n FROM (SELECT i % 3000000 AS k FROM range(4000000) AS t (i) GROUP BY k)"
        )
        assert grouped.to_rows() == [{"n": 3_000_000}]
        with pytest.raises(ExternalError) as caught:
            session.sql("SELECT median(i) FROM range(40000000) AS t (i)").to_arrow()
        assert caught.value.code == "memory.limit"
        assert "memory_limit" in str(caught.value.hint)
        assert session.sql("SELECT 1 AS a").to_rows() == [{"a": 1}]


def test_roots_bound_reading_and_writing(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.csv").write_text("a\n1\n")
    (inside / "link.csv").symlink_to(outside / "secret.csv")
    with DataflowSession(roots=[inside]) as session:
        frame = session.create_dataframe({"a": [1]})
        assert frame.write_csv(inside / "fine.csv") == 1
        assert session.read_csv(inside / "fine.csv").to_rows() == [{"a": 1}]
        for path in (outside / "secret.csv", inside / ".." / "out" / "secret.csv", inside / "link.csv"):
            with pytest.raises(VelariaError) as caught:
                session.read_csv(path)
            assert caught.value.code == "file.forbidden"
        for sql in ("FROM read_text('/etc/hostname')", f"FROM '{outside}/secret.csv'", "FROM glob('/etc/*')"):
            with pytest.raises(VelariaError) as caught:
                session.sql(f"SELECT * {sql}").to_arrow()
            assert caught.value.code == "file.forbidden"
        with pytest.raises(VelariaError) as caught:
            frame.write_csv(outside / "x.csv")
        assert caught.value.code == "file.forbidden"
        assert [path.name for path in outside.iterdir()] == ["secret.csv"]


def test_python_variables_are_no_tables() -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(CatalogNotFoundError):
        DataflowSession().sql("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_extensions_are_never_fetched() -> None:
    with pytest.raises(VelariaError):
        DataflowSession().sql("SELECT * FROM read_parquet('https://example.invalid/x.parquet')").to_arrow()


def test_one_session_serves_many_threads() -> None:
    session = DataflowSession()
    session.create_temp_view("t", session.create_dataframe({"a": list(range(1000))}))
    failures: list[VelariaError | AssertionError] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                (row,) = session.sql(f"SELECT sum(a) + {number} AS s FROM t").to_rows()
                assert row == {"s": 499_500 + number}
        except (VelariaError, AssertionError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_closed_session_says_so() -> None:
    session = DataflowSession()
    frame = session.create_dataframe({"a": [1]})
    session.close()
    with pytest.raises(InputError) as caught:
        frame.to_arrow()
    assert caught.value.code == "session.closed"


def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is no database, whatever its name may be " * 200)
    with pytest.raises(DataError) as caught:
        DataflowSession(path)
    assert caught.value.code == "database.invalid"


def test_database_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "workspace.duckdb"
    code = (
        "import sys, velaria_core.session as s; x = s.DataflowSession(sys.argv[1]); print('open', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StateError) as caught:
            DataflowSession(path)
        assert caught.value.code == "database.locked"
    finally:
        other.communicate("\n")


def test_several_statements_run_in_order_and_the_last_is_given() -> None:
    frame = DataflowSession().sql(
        "CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1), (2); SELECT count(*) AS n FROM t;"
    )
    assert frame.to_rows() == [{"n": 2}]


def test_statement_results_q18() -> None:
    """Q-18: what a statement did is a row."""
    session = DataflowSession()
    assert session.sql("CREATE TABLE t (a BIGINT)").to_rows() == [
        {"ok": 1, "message": "create table done", "affected_rows": 0}
    ]
    assert session.sql("INSERT INTO t VALUES (1), (2)").to_rows() == [
        {"ok": 1, "message": "insert done", "affected_rows": 2}
    ]
    assert session.sql("INSERT INTO t SELECT a FROM t WHERE a > 9").to_rows() == [
        {"ok": 1, "message": "insert ignored: empty input", "affected_rows": 0}
    ]


def test_parameters_are_values_never_text() -> None:
    session = DataflowSession()
    hostile = "x' OR '1'='1"
    session.create_temp_view("t", session.create_dataframe({"a": ["x", hostile]}))
    assert session.sql("SELECT count(*) AS n FROM t WHERE a = ?", [hostile]).to_rows() == [{"n": 1}]
    by_name = session.prepare("SELECT count(*) AS n FROM t WHERE a = $name")
    assert by_name(name="x").to_rows() == [{"n": 1}]
    for parameters, what in (([], "no value"), ([1, 2], "does not use")):
        with pytest.raises(InputError, match=what):
            session.sql("SELECT $1 AS a", parameters)


def test_parameters_go_to_every_statement() -> None:
    frame = DataflowSession().sql("CREATE TABLE t AS SELECT $a AS x; SELECT x + $b AS y FROM t", {"a": 1, "b": 2})
    assert frame.to_rows() == [{"y": 3}]


def test_ctrl_c_stops_a_statement() -> None:
    """In a process of its own: the main thread waits in the engine when SIGINT comes."""
    program = (
        "import os, signal, threading, time\n"
        "from velaria_core.session import DataflowSession\n"
        "session = DataflowSession()\n"
        "frame = session.sql('SELECT count(*) AS n FROM range(100000000000) AS t (i) WHERE i % 7 = 3')\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try: frame.to_arrow()\n"
        "except KeyboardInterrupt: print('stopped', session.sql('SELECT 1 AS a').to_rows())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert ran.stdout == "stopped [{'a': 1}]\n", ran.stderr


def test_json_has_no_number_for_nan(tmp_path: Path) -> None:
    path = tmp_path / "floats.json"
    sql = "SELECT CAST(x AS DOUBLE) AS x FROM (VALUES ('1.5'), ('nan'), ('inf'), ('-inf'), (NULL)) AS v (x)"
    assert DataflowSession().sql(sql).write_json(path) == 5
    assert [json.loads(line)["x"] for line in path.read_text().splitlines()] == [
        1.5,
        "NaN",
        "Infinity",
        "-Infinity",
        None,
    ]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    frame = DataflowSession().sql("SELECT 1 AS a")
    with pytest.raises(InputError) as caught:
        frame.write_csv("/dev/null")
    assert caught.value.code == "file.not_regular"
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    frame.write_csv(link)
    assert link.is_symlink()
    assert real.read_text() == "a\n1\n"


def test_frontend_name_a22() -> None:
    assert DataflowSession().sql_frontend_name() == "velaria_sql_v1"
