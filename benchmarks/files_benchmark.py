"""Text files: Velaria's readers beside the engine's own with every column given, over a million rows.

Each case groups rows by one column and adds up two others. `read` is the query over a file that was opened before;
`open` is what finding the dialect and the types costs, once. The engine is given the columns and types that Velaria
found, without its sniffer, in the fastest form that we know by hand. Bar: `read` within 1.1x of the engine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
from _measure import best_times, machine, text_table

from velaria import DataflowSession

SEED = 20130101
BAR = 1.1
PATTERN = r"(\S+) (\d+) (\d+) (\S+) (\S+)"
QUERY = "SELECT status, count(*) AS n, sum(bytes) AS bytes, avg(latency) AS latency FROM {} GROUP BY status ORDER BY 1"
TYPES = {"host": "VARCHAR", "status": "BIGINT", "bytes": "BIGINT", "latency": "DOUBLE", "path": "VARCHAR"}
GIVEN = "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in TYPES.items()) + "}"


@dataclass(frozen=True, slots=True)
class Case:
    """One file: how Velaria opens it, and the engine's own way."""

    name: str
    open: Callable[[DataflowSession, Path], Any]
    engine: str


@dataclass(frozen=True, slots=True)
class Measured:
    """Best milliseconds."""

    case: str
    open_ms: float
    read_ms: float
    engine_ms: float

    @property
    def ratio(self) -> float:
        return self.read_ms / self.engine_ms


def engine_csv(name: str, delimiter: str = ",", quote: str = '"', header: bool = True) -> str:
    """The engine's CSV reader with everything given."""
    return (
        f"read_csv('FOLDER/{name}', auto_detect=false, header={header}, delim='{delimiter}', quote='{quote}', "
        f"escape='{quote}', columns={GIVEN})"
    )


def engine_regex() -> str:
    """Lines as one column, matched and taken apart: what the engine's documentation suggests."""
    names = ", ".join(f"'{name}'" for name in TYPES)
    casts = ", ".join(f"CAST(x.{name} AS {kind}) AS {name}" for name, kind in TYPES.items())
    lines = (
        "read_csv('FOLDER/t.log', auto_detect=false, header=false, delim='', quote='', escape='', "
        "columns={'line': 'VARCHAR'})"
    )
    return (
        f"(SELECT {casts} FROM (SELECT regexp_extract(line, '^{PATTERN}$', [{names}]) AS x FROM {lines} "
        f"WHERE regexp_matches(line, '^{PATTERN}$')))"
    )


MAPPINGS = [(name, at) for at, name in enumerate(TYPES)]
GROUPS = [(name, at + 1) for name, at in MAPPINGS]

CASES = (
    Case("csv", lambda session, folder: session.read_csv(folder / "t.csv"), engine_csv("t.csv")),
    Case("csv.gz", lambda session, folder: session.read_csv(folder / "t.csv.gz"), engine_csv("t.csv.gz")),
    Case(
        "line split",
        lambda session, folder: session.read_line_file(folder / "t.log", MAPPINGS, split_delimiter=" "),
        engine_csv("t.log", " ", "", header=False),
    ),
    Case(
        "line regex",
        lambda session, folder: session.read_line_file(folder / "t.log", GROUPS, mode="regex", regex_pattern=PATTERN),
        engine_regex(),
    ),
    Case(
        "json lines",
        lambda session, folder: session.read_json(folder / "t.jsonl"),
        f"read_json('FOLDER/t.jsonl', format='newline_delimited', columns={GIVEN})",
    ),
    Case(
        "json array",
        lambda session, folder: session.read_json(folder / "t.json"),
        f"read_json('FOLDER/t.json', format='array', columns={GIVEN})",
    ),
    Case(
        "csv, cached as parquet",
        lambda session, folder: session.read_csv(
            folder / "t.csv", materialization=True, materialization_dir=folder / "cache"
        ),
        engine_csv("t.csv"),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    # Bare DuckDB is its faster form for small answers, and warns that it copies them once more.
    warnings.filterwarnings("ignore", "Arrow output on a DB-API result")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_files(folder, options.rows)
        print(f"{options.rows:,} rows, best of {options.rounds}, milliseconds")
        print(machine(("duckdb", "pyarrow"), options.threads))
        measured = [measure(case, folder, options) for case in CASES]
    print(
        text_table(
            ("file", "open", "read", "engine", "read / engine"),
            [
                (item.case, f"{item.open_ms:.1f}", f"{item.read_ms:.1f}", f"{item.engine_ms:.1f}", f"{item.ratio:.2f}x")
                for item in measured
            ],
        )
    )
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(item) for item in measured], indent=1))
    missed = [item.case for item in measured if item.ratio > BAR]
    print(f"bar: within {BAR}x of the engine's own reader: " + (f"missed by {', '.join(missed)}" if missed else "met"))
    return 1 if missed else 0


def measure(case: Case, folder: Path, options: argparse.Namespace) -> Measured:
    """One case; the answers are compared first."""
    bare = duckdb.connect(config={"threads": str(options.threads)})
    with DataflowSession(threads=options.threads) as session:
        frame = case.open(session, folder)
        start = perf_counter()
        case.open(session, folder)
        opened = perf_counter() - start
        session.create_temp_view("t", frame)
        ours = session.sql(QUERY.format("t"))
        theirs = QUERY.format(case.engine.replace("FOLDER", str(folder)))
        expected = bare.execute(theirs).fetchall()
        found = [tuple(row.values()) for row in ours.to_arrow().to_pylist()]
        for mine, other in zip(found, expected, strict=True):
            # An average depends on the order in which threads add.
            if mine[:3] != other[:3] or not math.isclose(mine[3], other[3]):
                raise AssertionError(f"{case.name}: {mine} is not {other}")
        times = best_times(
            {"read": ours.to_arrow, "engine": lambda: bare.execute(theirs).to_arrow_table()}, options.rounds
        )
    bare.close()
    return Measured(case.name, opened * 1000, times["read"] * 1000, times["engine"] * 1000)


def write_files(folder: Path, rows: int) -> None:
    """The same rows in every format, by seed."""
    chosen = random.Random(SEED)
    with (
        (folder / "t.csv").open("w") as csv,
        (folder / "t.log").open("w") as log,
        (folder / "t.jsonl").open("w") as lines,
        (folder / "t.json").open("w") as array,
    ):
        csv.write(",".join(TYPES) + "\n")
        for number in range(rows):
            host = f"10.0.{chosen.randrange(50)}.{chosen.randrange(50)}"
            status, size = chosen.choice((200, 200, 404, 500)), chosen.randrange(100_000)
            latency, path = f"{chosen.random():.6f}", f"/item/{chosen.randrange(1000)}"
            csv.write(f"{host},{status},{size},{latency},{path}\n")
            log.write(f"{host} {status} {size} {latency} {path}\n")
            text = f'{{"host":"{host}","status":{status},"bytes":{size},"latency":{latency},"path":"{path}"}}'
            lines.write(text + "\n")
            array.write(("[" if number == 0 else ",\n") + text)
        array.write("]\n")
    with gzip.open(folder / "t.csv.gz", "wb", compresslevel=1) as packed:
        packed.write((folder / "t.csv").read_bytes())


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="a file for the figures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
