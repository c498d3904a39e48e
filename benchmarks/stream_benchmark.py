"""Nexmark's shapes and keyed counts over Parquet: Velaria beside two floors and three peers, each in its own process.

Floors are bare DuckDB statements and a hand-written pyarrow/NumPy loop: what an engine of this kind costs by itself,
and what a person would write without one. Peers are the streaming engines that install from PyPI. They run in an
environment of their own, made in the cache at the first run; one that cannot be installed is told, and left out.

Each contestant is a process that answers the query over a few rows, to be warm, then over all of them, which is
measured, from the first row asked for to the last row out, and once more to keep the answer, which is compared with
that of batch before anything counts. Contestants take turns, and the best run of each counts; those whose best is over
in half a second, which a moment of the machine can double, take three times as many, and those that take ten seconds
one. Bars: at least the best peer; 0.6 of the loop, and 0.4 of it for joins and counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
from _measure import machine, text_table
from _stream import WORKLOADS, Workload
from _stream_data import default_cache, events_folder

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program `_stream_<name>.py`.

    Attributes:
        packages: what it needs of its own, with the version that was measured last; none: Velaria's environment.
        why: why this one.
        needs: a program that must be there.
        answers: it computes the query itself, and counts as a peer. Bytewax has no operators over columns: what runs
            in it is the hand-written loop, which has a bar of its own.
    """

    name: str
    why: str
    packages: tuple[str, ...] = ()
    needs: str | None = None
    answers: bool = True


CONTESTANTS = (
    Contestant("velaria", "what is measured"),
    Contestant("loop", "floor: a hand-written loop of pyarrow and NumPy"),
    Contestant("duckdb", "floor: prepared statements over a feed, without an engine around them"),
    Contestant("pyclink", "embedded C++ engine with streaming SQL, the fastest found", ("pyclink==0.12.2",)),
    Contestant("bytewax", "Python dataflows on a Rust engine; the last release", ("bytewax==0.21.1",), answers=False),
    Contestant("spark", "the most used engine with the same model of epochs", ("pyspark==4.3.0",), needs="java"),
)
_SHARED = ("pyarrow", "numpy")  # in the same versions as in Velaria's environment
_PEERS = tuple(one.name for one in CONTESTANTS if one.packages and one.answers)
_SHORT_S, _SHORT_TURNS = 0.5, 3  # a run that is over so soon has so many times the turns
_LONG_S = 10.0  # and one that takes so long a single one
_JOINS_AND_COUNTS = ("q3", "q8", "count_1k", "count_1m")


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    folder = events_folder(options.data, options.rows)
    programs = {}
    for one in CONTESTANTS:
        if one.name in options.contestants:
            program, problem = _program(one, options.data)
            if program is None:
                print(f"{one.name} is left out: {problem}")
            else:
                programs[one.name] = program
    print(f"{options.rows:,} rows a query, best of {options.rounds}")
    print(machine(("velaria", "duckdb", "pyarrow", "numpy"), os.cpu_count() or 1))
    lines: list[dict[str, Any]] = []
    for name in options.queries:
        best = _turns(WORKLOADS[name], programs, folder, options.rounds)
        lines += [{"query": name, "contestant": one, "rows": options.rows, **found} for one, found in best.items()]
        print(_table(name, best, options.rows), flush=True)
    print(_summary(lines))
    if options.json:
        Path(options.json).write_text("".join(json.dumps(line) + "\n" for line in lines))
    wrong = [line for line in lines if "error" in line and line["contestant"] in ("velaria", "loop", "duckdb")]
    return 1 if wrong else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    def names(known: Iterable[str]) -> Any:
        def parsed(text: str) -> list[str]:
            given = text.split(",")
            if unknown := set(given) - set(known):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}; there are {', '.join(known)}")
            return given

        return parsed

    contestants = [one.name for one in CONTESTANTS]
    parser = argparse.ArgumentParser(description="Stream queries: Velaria beside floors and peers.")
    parser.add_argument("--rows", type=int, default=5_000_000, help="read by each query (default: 5000000)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contestant, the best counts (default: 3)")
    parser.add_argument(
        "--queries", type=names(list(WORKLOADS)), default=list(WORKLOADS), help="by comma (default: all)"
    )
    parser.add_argument(
        "--contestants", type=names(contestants), default=contestants, help="by comma (default: all that are there)"
    )
    parser.add_argument(
        "--data", type=Path, default=default_cache(), help="where events and the peers' environment stay"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there too, a line each")
    return parser.parse_args(arguments)


# --- contestants


def _program(one: Contestant, cache: Path) -> tuple[list[str] | None, str]:
    """The command of a contestant, or why there is none."""
    if one.needs is not None and shutil.which(one.needs) is None:
        return None, f"there is no {one.needs} on this machine"
    script = str(HERE / f"_stream_{one.name}.py")
    if not one.packages:
        return [sys.executable, script], ""
    folder = cache / "peers"
    python = folder / "bin" / "python"
    marker = folder / f".{'-'.join(one.packages)}"
    if not marker.exists():
        if not python.exists():
            venv.create(folder, with_pip=True)
        shared = [f"{package}=={_version(package)}" for package in _SHARED]
        print(f"installing {', '.join(one.packages)} for the benchmark into {folder}", file=sys.stderr)
        installed = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *shared, *one.packages], capture_output=True, encoding="utf-8"
        )
        if installed.returncode:
            return None, f"pip could not install it: {installed.stderr.strip().splitlines()[-1]}"
        marker.touch()
    return [str(python), script], ""


def _version(package: str) -> str:
    return version(package)


def _turns(workload: Workload, programs: dict[str, list[str]], folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """The best run of each contestant; what it printed where it failed."""
    best: dict[str, dict[str, Any]] = {}
    for number in range(_SHORT_TURNS * rounds):
        turns = list(programs.items())
        for name, program in reversed(turns) if number % 2 else turns:
            known = best.get(name, {})
            if "error" in known or known.get("seconds", 0.0) > (_LONG_S if number < rounds else _SHORT_S):
                continue
            found = _run(workload, program, folder)
            if "error" in found or name not in best or found["seconds"] < best[name]["seconds"]:
                best[name] = found
    return {name: best[name] for name in programs}


def _run(workload: Workload, program: Sequence[str], folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        command = [*program, workload.name, str(folder), scratch]
        own = [] if program[0] != sys.executable else [("PYTHONPATH", os.pathsep.join(sys.path))]
        environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **dict(own)}
        try:
            ran = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=900)
        except subprocess.TimeoutExpired:
            return {"error": "took more than 15 minutes"}
        if ran.returncode:
            return {"error": (ran.stderr.strip().splitlines() or ["no word"])[-1][:200]}
        measured: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
        wrong = _wrong(workload, folder, Path(scratch, "answer.parquet"))
        return {"error": wrong} if wrong else measured


def _wrong(workload: Workload, folder: Path, answer: Path) -> str | None:
    """What is wrong with an answer, compared with batch: the number of rows and the sum of their hashes."""
    if not answer.exists():
        return "no answer"
    with duckdb.connect() as connection:
        for name in workload.reads:
            connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{folder / name}.parquet')")
        expected = connection.sql(workload.batch)
        columns = expected.columns
        given = f"read_parquet('{answer}')"
        if workload.keys:
            keys = ", ".join(workload.keys)
            given = f"(FROM {given} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY __place DESC) = 1)"
        # Prices in euros are compared to a tenth of a cent.
        shown = ", ".join(
            f"CAST(round({name}, 3) AS DECIMAL(18, 3))" if kind == "DOUBLE" else f"CAST({name} AS {kind})"
            for name, kind in zip(columns, map(str, expected.types), strict=True)
        )
        counts = [
            connection.execute(f"SELECT count(*), sum(hash({shown})::HUGEINT) FROM {rows}").fetchone()
            for rows in (f"({workload.batch})", given)
        ]
    if counts[0] == counts[1]:
        return None
    return f"the answer is not that of batch: {counts[1][0]:,} rows, {counts[0][0]:,} expected"


# --- tables


def _table(name: str, best: dict[str, dict[str, Any]], rows: int) -> str:
    good = {one: found for one, found in best.items() if "error" not in found}
    peers = [found["seconds"] for one, found in good.items() if one in _PEERS]

    def line(one: str, found: dict[str, Any]) -> list[str]:
        if "error" in found:
            return [one, found["error"]]
        ratios = [good[floor]["seconds"] / found["seconds"] if floor in good else None for floor in ("loop", "duckdb")]
        ratios.append(min(peers) / found["seconds"] if peers else None)
        figures = [rows / found["seconds"] / 1e6, found["cpu_s"] / rows * 1e6]
        return [
            one,
            *(f"{figure:.2f}" for figure in figures),
            *("-" if found[key] is None else f"{found[key]:.1f}" for key in ("p50_ms", "p99_ms")),
            f"{found['peak_mb']:.0f}",
            *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        ]

    header = (name, "M rows/s", "CPU s/M", "p50 ms", "p99 ms", "peak MB", "x loop", "x duckdb", "x best peer")
    shown = [line(one, found) for one, found in best.items()]
    table = text_table(header, [cells for cells in shown if len(cells) == len(header)])
    failed = [f"  {cells[0]}: {cells[1]}" for cells in shown if len(cells) == 2]
    return "\n".join(["", table, *failed])


def _summary(lines: Sequence[dict[str, Any]]) -> str:
    """Velaria against the bars."""
    seconds = {(line["query"], line["contestant"]): line["seconds"] for line in lines if "error" not in line}
    rows = []
    for query in dict.fromkeys(line["query"] for line in lines):
        if (ours := seconds.get((query, "velaria"))) is None:
            rows.append([query, "-", "-", "no answer"])
            continue
        peers = [seconds[query, one] for one in _PEERS if (query, one) in seconds]
        least = 0.4 if query in _JOINS_AND_COUNTS else 0.6
        loop = seconds[query, "loop"] / ours if (query, "loop") in seconds else None
        peer = min(peers) / ours if peers else None
        met = (loop is None or loop >= least) and (peer is None or peer >= 1)
        shown = ["-" if ratio is None else f"{ratio:.2f}" for ratio in (loop, peer)]
        rows.append([query, f"{shown[0]} of {least}", f"{shown[1]} of 1.0", "met" if met else "MISSED"])
    return "\n" + text_table(("query", "x loop, bar", "x best peer, bar", "bars"), rows)


if __name__ == "__main__":
    sys.exit(main())
