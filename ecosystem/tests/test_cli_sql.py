"""`velaria sql`: files and stdin as views, statements, parameters, databases."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cli_support import ORDERS, Ran, Run, Start
from pyarrow import parquet

from velaria.cli.inputs import Input, named_inputs, value_of

pytestmark = pytest.mark.usefixtures("folder")


def rows(ran: Ran) -> list[dict[str, Any]]:
    """The rows of a command that printed JSON."""
    assert ran.code == 0, ran.errors
    assert ran.errors == ""
    found: list[dict[str, Any]] = json.loads(ran.text)
    return found


# --- files ------------------------------------------------------------------------------------------------------


def test_a_file_is_a_view_by_its_stem(run: Run) -> None:
    ran = run("sql", "SELECT name, price FROM orders WHERE price > 2", "orders.csv")
    assert rows(ran) == [{"name": "eve", "price": 7.0}]


def test_files_of_several_formats_join(folder: Path, run: Run) -> None:
    (folder / "clients.json").write_text('{"name": "ada", "city": "Paris"}\n{"name": "eve", "city": "Oslo"}\n')
    parquet.write_table(pa.table({"city": ["Oslo"], "zone": [3]}), folder / "zones.parquet")
    text = "SELECT id, zone FROM orders JOIN clients USING (name) JOIN zones USING (city)"
    assert rows(run("sql", text, "orders.csv", "clients.json", "zones.parquet")) == [{"id": 3, "zone": 3}]


@pytest.mark.parametrize(
    ("files", "views"),
    [
        (["orders.csv"], ["orders"]),
        (["a/orders.csv.gz", "b/orders.json", "c/Orders.parquet"], ["orders", "orders_2", "Orders_3"]),
        (["data/2013-01 flights.tsv"], ["_2013_01_flights"]),
        (["naïve café.csv"], ["naïve_café"]),
        (["北京.csv"], ["北京"]),
        (["day/*.csv", "day/"], ["day", "day_2"]),
        (["-"], ["stdin"]),
        (["t=orders.csv", "other=-"], ["t", "other"]),
        (["odd=name.csv=x"], ["odd"]),
    ],
)
def test_names_of_views(files: list[str], views: list[str]) -> None:
    assert [one.view for one in named_inputs(files)] == views


def test_a_file_whose_own_name_has_an_equals_sign(folder: Path) -> None:
    (folder / "a=b.csv").write_text(ORDERS)
    assert named_inputs(["a=b.csv"]) == [Input("a_b", "a=b.csv")]


def test_two_files_of_one_stem_are_both_there(folder: Path, run: Run) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "orders.csv").write_text("id\n9\n")
    text = "SELECT (SELECT count(*) FROM orders) AS a, (SELECT count(*) FROM orders_2) AS b"
    assert rows(run("sql", text, "orders.csv", "other/orders.csv")) == [{"a": 3, "b": 1}]


def test_a_folder_and_a_glob(folder: Path, run: Run) -> None:
    (folder / "days").mkdir()
    for day in (1, 2):
        (folder / "days" / f"{day}.csv").write_text(f"day,n\n{day},10\n")
    for files in ("days", "days/*.csv"):
        assert rows(run("sql", "SELECT sum(day) AS s, count(*) AS n FROM days", files)) == [{"s": 3, "n": 2}]


def test_options_of_the_reader(folder: Path, run: Run) -> None:
    (folder / "odd.csv").write_text("x;1,5\ny;2,5\n")
    ran = run("sql", "SELECT * FROM odd", "odd.csv", "--read", "delimiter=;", "--read", "header=false")
    assert [list(row.values()) for row in rows(ran)] == [["x", "1,5"], ["y", "2,5"]]


# --- stdin ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(ORDERS.encode(), id="csv"),
        pytest.param(b'{"id": 1}\n{"id": 2}\n{"id": 3}\n', id="json lines"),
        pytest.param(b'[{"id": 1}, {"id": 2}, {"id": 3}]', id="json array"),
        pytest.param(gzip.compress(ORDERS.encode()), id="gzip"),
    ],
)
def test_stdin_is_read_as_what_it_is(run: Run, data: bytes) -> None:
    assert rows(run("sql", "SELECT sum(id) AS s FROM stdin", "-", stdin=data)) == [{"s": 6}]


def test_parquet_through_pipes(run_process: Run) -> None:
    made = run_process("sql", "SELECT range AS id FROM range(100000)", "--format", "parquet")
    assert made.code == 0, made.errors
    assert rows(run_process("sql", "SELECT count(*) AS n FROM stdin", "-", stdin=made.data)) == [{"n": 100000}]


def test_stdin_can_be_named(run: Run) -> None:
    assert rows(run("sql", "SELECT max(id) AS m FROM o", "o=-", stdin=ORDERS.encode())) == [{"m": 3}]


def test_the_copy_of_stdin_is_gone_afterwards(folder: Path, run_process: Run) -> None:
    temporary = folder / "temporary"
    temporary.mkdir()
    for text in ("SELECT * FROM stdin", "SELECT nothing FROM stdin"):
        run_process("sql", text, "-", stdin=ORDERS.encode(), env={"TMPDIR": str(temporary)})
        assert list(temporary.iterdir()) == []


# --- statements -------------------------------------------------------------------------------------------------


def test_several_statements_run_in_order_and_the_last_is_printed(run: Run) -> None:
    text = "CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1), (2); SELECT sum(a) AS s FROM t"
    assert rows(run("sql", text)) == [{"s": 3}]


def test_the_statement_can_stand_in_a_file(folder: Path, run: Run) -> None:
    # Written by an editor that marks UTF-8.
    (folder / "q.sql").write_bytes(b"\xef\xbb\xbf-- names\nSELECT name\nFROM orders LIMIT 1;\n")
    assert rows(run("sql", "-f", "q.sql", "orders.csv")) == [{"name": "ada"}]


def test_the_statement_can_come_from_stdin(run: Run) -> None:
    assert rows(run("sql", "-f", "-", "orders.csv", stdin=b"SELECT count(*) AS n FROM orders")) == [{"n": 3}]


def test_a_statement_may_begin_with_a_comment(run: Run) -> None:
    assert rows(run("sql", "-- all of them\nSELECT 1 AS a")) == [{"a": 1}]
    assert rows(run("sql", "--all\nSELECT 1 AS a")) == [{"a": 1}]


def test_a_file_in_from_needs_no_argument(run: Run) -> None:
    assert rows(run("sql", "SELECT count(*) AS n FROM 'orders.csv'")) == [{"n": 3}]


# --- parameters -------------------------------------------------------------------------------------------------


def test_parameters_by_name(run: Run) -> None:
    text = "SELECT id FROM orders WHERE price > $low AND name <> $who"
    ran = run("sql", text, "orders.csv", "--param", "low=1", "--param", "who=ada")
    assert rows(ran) == [{"id": 3}]


def test_parameters_by_position(run: Run) -> None:
    assert rows(run("sql", "SELECT ? + 1 AS a, ? AS b", "-p", "41", "-p", "it's")) == [{"a": 42, "b": "it's"}]


def test_a_parameter_is_a_value_and_never_text(run: Run) -> None:
    ran = run("sql", "SELECT name FROM orders WHERE name = $n", "orders.csv", "--param", "n=x' OR '1'='1")
    assert rows(ran) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('"7"', "7"),
        ("007", "007"),
        ("2013-01-31", "2013-01-31"),
        ("NaN", "NaN"),
        ("", ""),
        ("a b", "a b"),
    ],
)
def test_values_of_parameters(text: str, value: object) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


# --- sessions ---------------------------------------------------------------------------------------------------


def test_a_database_keeps_tables_between_runs(run: Run) -> None:
    made = run("sql", "CREATE TABLE kept AS SELECT * FROM orders", "orders.csv", "--database", "shop.db")
    assert made.code == 0, made.errors
    assert rows(run("sql", "SELECT count(*) AS n FROM kept", "--database", "shop.db", "--read-only")) == [{"n": 3}]
    again = run("sql", "SELECT count(*) AS n FROM kept", env={"VELARIA_DATABASE": "shop.db"})
    assert rows(again) == [{"n": 3}]


def test_files_are_no_tables_of_the_database(run: Run) -> None:
    assert run("sql", "SELECT 1 AS a FROM orders", "orders.csv", "--database", "shop.db").code == 0
    ran = run("sql", "SELECT 1 AS a FROM orders", "--database", "shop.db")
    assert (ran.code, ran.errors.splitlines()[0]) == (2, 'error[sql.unknown_table]: no table "orders"')


def test_settings_of_the_engine(folder: Path, run: Run) -> None:
    settings = ["--threads", "1", "--memory-limit", "512MB", "--temp-directory", str(folder / "spill")]
    text = "SELECT current_setting('threads') AS t, current_setting('memory_limit') AS m"
    ((found,)) = rows(run("sql", text, *settings))
    assert found["t"] == 1
    assert found["m"] == "488.2 MiB"


def test_the_program_is_quick_to_show_the_first_rows(start: Start) -> None:
    """Rows are printed as they are computed: the first of 10^11 is there long before the last."""
    process = start("sql", "SELECT range AS i FROM range(100000000000)", "--format", "ndjson")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(3)] == [b'{"i": 0}\n', b'{"i": 1}\n', b'{"i": 2}\n']
    assert process.poll() is None


def test_python_m_velaria_is_the_same_program(run: Run, run_process: Run) -> None:
    arguments = ("sql", "SELECT * FROM orders", "orders.csv", "--format", "csv")
    assert run(*arguments) == run_process(*arguments)


def test_nothing_is_printed_on_stderr_by_a_good_run(start: Start) -> None:
    process = start("sql", "SELECT count(*) FROM range(50000000)", stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, b"")
