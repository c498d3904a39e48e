"""Start-up: CPU seconds (user and system) of whole processes, beside an interpreter that does nothing.

`import velaria` loads names when they are used, so the first session is shown too: that is where the engine, Arrow
and the SQL parser are loaded. Bars: `import velaria` 0.35 s, `velaria --version` 0.15 s, interpreter included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from _measure import machine, text_table


@dataclass(frozen=True, slots=True)
class Case:
    """A command line of the interpreter, and the CPU seconds that it may take."""

    name: str
    arguments: tuple[str, ...]
    bar: float | None = None


NOTHING = Case("python -c pass", ("-c", "pass"))
CASES = (
    NOTHING,
    Case("import velaria", ("-c", "import velaria"), 0.35),
    Case("velaria --version", ("-m", "velaria", "--version"), 0.15),
    Case("velaria --help", ("-m", "velaria", "--help")),
    Case("import velaria, first session", ("-c", "import velaria; velaria.DataflowSession()")),
    Case('velaria sql "SELECT 1"', ("-m", "velaria", "sql", "SELECT 1")),
    Case("import duckdb", ("-c", "import duckdb")),
    Case("import duckdb, pyarrow", ("-c", "import duckdb, pyarrow")),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU seconds of one case, over all rounds."""

    case: str
    best: float
    median: float
    bar: float | None


def cpu_seconds(arguments: tuple[str, ...]) -> float:
    """User and system seconds of one process, its threads included."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return used.ru_utime + used.ru_stime


def measure(rounds: int) -> list[Measured]:
    """All cases, taking turns."""
    taken: dict[str, list[float]] = {case.name: [] for case in CASES}
    for case in CASES:
        cpu_seconds(case.arguments)  # the first run writes byte code and reads from disk
    for _ in range(rounds):
        for case in CASES:
            taken[case.name].append(cpu_seconds(case.arguments))
    return [Measured(case.name, min(taken[case.name]), median(taken[case.name]), case.bar) for case in CASES]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="a file for the figures")
    options = parser.parse_args(arguments)
    measured = measure(options.rounds)
    base = next(item for item in measured if item.case == NOTHING.name)
    print(f"CPU seconds of a process, {options.rounds} rounds")
    print(machine(("velaria", "click", "duckdb", "pyarrow", "sqlglot"), os.cpu_count() or 1))
    print(
        text_table(
            ("process", "best", "median", "above python", "bar"),
            [
                (
                    item.case,
                    f"{item.best:.3f}",
                    f"{item.median:.3f}",
                    f"{item.best - base.best:.3f}",
                    f"{item.bar:.2f}" if item.bar is not None else "",
                )
                for item in measured
            ],
        )
    )
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(item) for item in measured], indent=1))
    missed = [item.case for item in measured if item.bar is not None and item.best > item.bar]
    print("bars: " + (f"missed by {', '.join(missed)}" if missed else "met"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
