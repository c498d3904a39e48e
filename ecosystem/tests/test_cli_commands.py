"""The other commands: probe, explain, completion, and help."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_support import ORDERS, Run

from velaria.cli.program import COMMANDS

pytestmark = pytest.mark.usefixtures("folder")


# --- probe ------------------------------------------------------------------------------------------------------


def test_probe_as_json_has_the_fields_of_the_contract(run: Run) -> None:
    """F-11."""
    ran = run("probe", "orders.csv")
    assert (ran.code, ran.errors) == (0, "")
    found = json.loads(ran.text)
    assert set(found) >= {
        "path",
        "kind",
        "final_format",
        "score",
        "confidence",
        "schema",
        "suggested_table_name",
        "warnings",
        "candidates",
        "delimiter",
    }
    assert (found["path"], found["kind"], found["delimiter"]) == ("orders.csv", "csv", ",")
    assert found["schema"] == ["id", "name", "price"]
    assert found["types"] == ["int64", "string", "float64"]
    assert set(found["candidates"][0]) == {"format", "kind", "score", "reason", "evidence"}


def test_probe_for_people(run: Run) -> None:
    lines = run("probe", "orders.csv", "--format", "table").text.splitlines()
    assert re.fullmatch(r"orders\.csv: csv, high confidence \(score \d+\)", lines[0])
    assert "  delimiter    ','" in lines
    assert "  header       yes" in lines
    assert lines[lines.index("columns") + 1 :][:3] == ["  id     int64", "  name   string", "  price  float64"]


@pytest.mark.parametrize("form", ["table", "json"])
def test_probe_of_stdin_names_stdin(run: Run, form: str) -> None:
    text = run("probe", "-", "--format", form, stdin=ORDERS.encode()).text
    assert "/tmp" not in text
    assert "velaria-" not in text
    assert re.search(r'"path": "-"|^-: csv', text)


def test_probe_writes_a_file(folder: Path, run: Run) -> None:
    assert run("probe", "orders.csv", "--format", "json", "-o", "found.json").text == ""
    assert json.loads((folder / "found.json").read_text())["kind"] == "csv"


def test_probe_names_the_view_that_sql_makes(folder: Path, run: Run) -> None:
    for name in ("orders.csv", "2013-01 flights.csv", "naïve café.csv"):
        (folder / name).write_text(ORDERS)
        view = json.loads(run("probe", name).text)["suggested_table_name"]
        assert run("sql", f'SELECT count(*) FROM "{view}"', name).code == 0


# --- explain ----------------------------------------------------------------------------------------------------


def test_explain_shows_the_plan_and_does_not_run_it(run: Run) -> None:
    ran = run("explain", "SELECT name, sum(price) FROM orders WHERE id > 1 GROUP BY name", "orders.csv")
    assert (ran.code, ran.errors) == (0, "")
    sections = [line for line in ran.text.splitlines() if not line.startswith(" ")]
    assert sections == ["frontend", "logical", "physical", "strategy"]
    assert "Aggregate" in ran.text
    assert "orders.csv" in ran.text
    assert run("explain", "SELECT CAST('x' AS INT) + id FROM orders", "orders.csv").code == 0


def test_explain_analyze_runs_it(run: Run) -> None:
    arguments = ("explain", "SELECT count(*) AS n FROM orders WHERE id > $low", "orders.csv", "--param", "low=1")
    ran = run(*arguments, "--analyze")
    assert ran.code == 0
    assert "time_ms=" in ran.text
    assert "time_ms=" not in run(*arguments).text
    ran = run("explain", "--analyze", "SELECT CAST(name AS INT) FROM orders", "orders.csv")
    assert (ran.code, ran.data) == (1, b"")


def test_explain_changes_nothing(run: Run) -> None:
    assert run("sql", "CREATE TABLE t AS SELECT 1 AS a", "--database", "x.db").code == 0
    for text in ("INSERT INTO t VALUES (2)", "DROP TABLE t", "SELECT 1; SELECT 2"):
        ran = run("explain", text, "--database", "x.db")
        assert (ran.code, ran.data) == (2, b"")
    assert run("sql", "SELECT count(*) AS n FROM t", "--database", "x.db", "--format", "csv").text == "n\n1\n"


def test_explain_reads_a_statement_file_and_writes_one(folder: Path, run: Run) -> None:
    (folder / "q.sql").write_text("-- one\nSELECT 1 AS a")
    assert run("explain", "-f", "q.sql", "-o", "plan.txt").text == ""
    assert (folder / "plan.txt").read_text().startswith("frontend\n")


# --- completion and help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(run: Run, shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert "_VELARIA_COMPLETE" in ran.text
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=ran.text, capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("velaria ", {"sql", "stream", "probe", "explain", "vector-search", "completion"}),
        ("velaria p", {"probe"}),
        ("velaria sql --form", {"--format"}),
        ("velaria sql --format p", {"parquet"}),
        ("velaria completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_completion_offers_what_fits(run_process: Run, words: str, offered: set[str]) -> None:
    parts = words.split(" ")
    settings = {
        "_VELARIA_COMPLETE": "bash_complete",
        "COMP_WORDS": words.strip(),
        "COMP_CWORD": str(len(parts) - 1),
    }
    ran = run_process(env=settings)
    assert ran.code == 0
    assert {line.partition(",")[2] for line in ran.text.splitlines()} == offered


def test_completion_offers_files(run_process: Run) -> None:
    settings = {"_VELARIA_COMPLETE": "bash_complete", "COMP_WORDS": "velaria probe o", "COMP_CWORD": "2"}
    assert run_process(env=settings).text == "file,o\n"


def test_help_without_arguments(run: Run) -> None:
    ran = run()
    assert (ran.code, ran.errors) == (0, "")
    assert ran == run("--help") == run("-h")
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S", ran.text, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_examples(run: Run, name: str) -> None:
    ran = run(name, "--help")
    assert (ran.code, ran.errors) == (0, "")
    assert ran.text.startswith(f"Usage: velaria {name} ")
    assert re.search(rf"^  velaria {name} ", ran.text, re.MULTILINE)
    assert all(len(line) <= 80 for line in ran.text.splitlines() if not re.match(r"  (velaria|curl) ", line))


def test_examples_of_help_run(folder: Path, run: Run) -> None:
    """Each example of `velaria sql --help` over flights."""
    header = "origin,carrier,dep_delay,day\n"
    (folder / "flights.csv").write_text(header + "JFK,AA,3,2013-01-31\nEWR,UA,,2013-01-31\n")
    (folder / "report.sql").write_text("SELECT carrier FROM flights WHERE day = $day ORDER BY carrier")
    ran = run("sql", "SELECT origin, avg(dep_delay) FROM flights GROUP BY ALL", "flights.csv")
    assert (ran.code, len(json.loads(ran.text))) == (0, 2)
    ran = run("sql", "-f", "report.sql", "flights.csv", "--param", "day=2013-01-31", "--format", "markdown")
    assert ran.text == "| carrier |\n| --- |\n| AA |\n| UA |\n"
    shutil.copy("flights.csv", "orders.csv")
    ran = run("sql", "--database", "shop.db", "CREATE TABLE t AS SELECT * FROM 'orders.csv'; SELECT count(*) FROM t")
    assert [list(row.values()) for row in json.loads(ran.text)] == [[2]]
