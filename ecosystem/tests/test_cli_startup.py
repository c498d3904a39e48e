"""What a command loads before it does anything: modules are counted, so that no machine is too slow to pass."""

from __future__ import annotations

import os
import subprocess
import sys

import duckdb
import pytest
from cli_support import Run

import velaria

# Each costs more than the whole budget of `velaria --version`, or belongs to one command.
HEAVY = ("duckdb", "pyarrow", "numpy", "sqlglot", "google.protobuf", "pandas", "polars", "rich", "velaria_interop")


def modules_after(*arguments: str) -> set[str]:
    """The modules that are loaded when a command line has ended."""
    program = (
        "import sys\n"
        "from velaria.cli import main\n"
        f"assert main({list(arguments)!r}) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.split())


def test_version_loads_next_to_nothing() -> None:
    loaded = modules_after("--version")
    assert not loaded.intersection([*HEAVY, "click", "dataclasses", "velaria_core"])


@pytest.mark.parametrize("arguments", [["--help"], ["sql", "--help"], ["explain", "-h"], ["completion", "bash"], []])
def test_help_loads_click_and_no_engine(arguments: list[str]) -> None:
    loaded = modules_after(*arguments)
    assert "click" in loaded
    assert not loaded.intersection(HEAVY)


def test_a_command_loads_no_other() -> None:
    loaded = modules_after("sql", "--help")
    ours = {name for name in loaded if name.startswith("velaria.cli.commands.")}
    assert ours == {"velaria.cli.commands.sql"}


def test_a_query_loads_no_optional_library() -> None:
    loaded = modules_after("sql", "SELECT 1 AS a", "--format", "csv")
    assert not loaded.intersection(["pandas", "polars", "rich", "pyarrow.parquet", "velaria_interop"])


def test_version_is_one_line_and_tells_the_engine(run_process: Run) -> None:
    ran = run_process("--version")
    assert ran.code == 0
    assert ran.errors == ""
    assert ran.text.startswith(f"velaria {velaria.__version__} (duckdb {duckdb.__version__}, pyarrow ")
    assert ran.text.count("\n") == 1


def test_version_is_the_same_by_both_ways(run: Run, run_process: Run) -> None:
    # With another option it is click that answers.
    assert run("--errors", "text", "--version").text == run_process("--version").text
