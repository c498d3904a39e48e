"""TPC-H at scale 1: Velaria over Parquet, bare DuckDB over the same files, Polars over them, Velaria's own tables.

Every query is run by all four in turn, several rounds, and the best time of each counts. The answers are compared
with DuckDB's before anything is measured. Bars: Velaria within 1.05x of bare DuckDB in total, its planning at most
3 ms a query, its own tables ahead of Polars.

Planning is what Velaria does before the engine is asked to run: `parse` (text to tree, and the engine's parser on
it), `bind` (tree to plan), `lower` (plan to the engine's SQL), `engine` (the engine's types and errors for it), `plan`
(all of session.sql in one go; a query that is opaque asks the engine in `bind`, and not again). `bare` is what DuckDB
takes to parse and bind the same text, `over` is `plan` without as much, and what the bar is for.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from _measure import best_times, geometric_mean, machine, text_table
from _tpch import TABLES, default_cache, parquet_folder, queries

from velaria import DataflowSession
from velaria_core.execution import lower
from velaria_core.logical.sql.parser import parse
from velaria_core.logical.sql.statements import Select

CONTESTANTS = ("velaria", "duckdb", "polars", "native")
PLANNING = ("parse", "bind", "lower", "engine", "plan", "bare", "over")


@dataclass(frozen=True, slots=True)
class Measured:
    """One query: best milliseconds of each contestant, and of the steps of Velaria's planning."""

    query: int
    ms: dict[str, float]
    planning_ms: dict[str, float]

    def ratio(self, one: str, other: str) -> float:
        return self.ms[one] / self.ms[other]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    # Polars reads it once, when it is imported.
    os.environ["POLARS_MAX_THREADS"] = str(options.threads)
    from _tpch_polars import QUERIES as POLARS
    from _tpch_polars import tables

    folder = parquet_folder(options.data, options.scale)
    session, native = DataflowSession(threads=options.threads), DataflowSession(threads=options.threads)
    bare = duckdb.connect(config={"threads": str(options.threads)})
    for name in TABLES:
        file = folder / f"{name}.parquet"
        session.create_temp_view(name, session.read_parquet(file))
        native.sql(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{file}')")
        bare.execute(f"CREATE VIEW {name} AS FROM read_parquet('{file}')")
    frames = tables(folder)

    # Bare DuckDB is its faster form: `sql` binds a query twice, `execute` once, and copies these small answers once
    # more, of which it warns.
    warnings.filterwarnings("ignore", "Arrow output on a DB-API result")
    print(f"TPC-H, scale {options.scale}, best of {options.rounds}, milliseconds")
    print(machine(("duckdb", "polars", "pyarrow", "sqlglot"), options.threads))
    measured = []
    for number, text in queries().items():
        if number not in options.queries:
            continue
        runs = _runs(text, session, bare, partial(POLARS[number], frames), native)
        expected = _rows(runs["duckdb"]())
        for name in ("velaria", "polars", "native"):
            if not _same(_rows(runs[name]()), expected):
                print(f"query {number}: {name} does not give DuckDB's answer", file=sys.stderr)
                return 1
        ms = {name: 1000 * best for name, best in best_times(runs, options.rounds).items()}
        measured.append(Measured(number, ms, _planning(session, bare, text, max(options.rounds, 5))))
    print(_report(measured))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(one) for one in measured], indent=2) + "\n")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="TPC-H: Velaria beside bare DuckDB and Polars.")
    parser.add_argument("--scale", default="1", help="of the data; 1 is 6 million line items (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each query, the best counts (default: 5)")
    parser.add_argument(
        "--queries",
        type=lambda text: {int(one) for one in text.split(",")},
        default=set(range(1, 23)),
        help="numbers, by comma (default: all 22)",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every engine (default: one a core)")
    parser.add_argument("--data", type=Path, default=default_cache(), help="where generated data stay")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser.parse_args(arguments)


def _runs(
    text: str,
    session: DataflowSession,
    bare: duckdb.DuckDBPyConnection,
    polars: Callable[[], Any],
    native: DataflowSession,
) -> dict[str, Callable[[], Any]]:
    """One query by each contestant, from its text or calls to rows in memory."""
    return {
        "velaria": lambda: session.sql(text).to_arrow(),
        "duckdb": lambda: bare.execute(text).to_arrow_table(),
        "polars": lambda: polars().collect(),
        "native": lambda: native.sql(text).to_arrow(),
    }


def _planning(session: DataflowSession, bare: duckdb.DuckDBPyConnection, text: str, rounds: int) -> dict[str, float]:
    """Milliseconds of each step between the text and the engine's run."""
    engine, catalog = session._engine, session._catalog

    def parsed() -> Select:
        (statement,) = parse(text, engine.parse_error)
        assert isinstance(statement, Select)
        return statement

    node = catalog.bind(parsed(), text)
    lowered = lower.lower(node)

    def bound() -> pa.Schema:
        with engine.cursor(lowered.feeds, lowered.files) as cursor:
            return cursor.schema(lowered.sql)

    select = parsed()
    steps: dict[str, Callable[[], Any]] = {
        "parse": parsed,
        "bind": lambda: catalog.bind(select, text),
        "lower": lambda: lower._lowered(node),
        "engine": bound,
        "plan": lambda: session.sql(text),
        "bare": lambda: bare.sql(text),
    }
    ms = {name: 1000 * best for name, best in best_times(steps, rounds).items()}
    return {**ms, "over": ms["plan"] - ms["bare"]}


def _rows(answer: Any) -> list[tuple[Any, ...]]:
    """Rows whose numbers compare across engines."""
    table = answer if isinstance(answer, pa.Table) else answer.to_arrow()
    return [
        tuple(float(value) if isinstance(value, Decimal) else value for value in row.values())
        for row in table.rename_columns([str(at) for at in range(table.num_columns)]).to_pylist()
    ]


def _same(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> bool:
    """Equal, means to six digits: Polars keeps those of decimals as decimals."""

    def equal(one: Any, other: Any) -> bool:
        if isinstance(one, float) and isinstance(other, float):
            return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-4)
        return bool(one == other)

    return len(ours) == len(theirs) and all(
        len(one) == len(other) and all(map(equal, one, other)) for one, other in zip(ours, theirs, strict=True)
    )


def _report(measured: list[Measured]) -> str:
    total = Measured(
        0,
        {name: sum(one.ms[name] for one in measured) for name in CONTESTANTS},
        {name: sum(one.planning_ms[name] for one in measured) / len(measured) for name in PLANNING},
    )
    header = ("query", *CONTESTANTS, "velaria/duckdb", "polars/duckdb", "native/polars", *PLANNING)

    def line(name: str, one: Measured) -> list[str]:
        ratios = (("velaria", "duckdb"), ("polars", "duckdb"), ("native", "polars"))
        return [
            name,
            *(f"{one.ms[contestant]:.1f}" for contestant in CONTESTANTS),
            *(f"{one.ratio(*pair):.3f}" for pair in ratios),
            *(f"{one.planning_ms[step]:.2f}" for step in PLANNING),
        ]

    rows = [line(f"{one.query}", one) for one in measured] + [line("total, mean plan", total)]
    means = ", ".join(
        f"{one}/{other} {geometric_mean(query.ratio(one, other) for query in measured):.3f}"
        for one, other in (("velaria", "duckdb"), ("polars", "duckdb"), ("native", "polars"))
    )
    bars = (
        ("total velaria/duckdb", total.ratio("velaria", "duckdb"), 1.05),
        ("mean planning over DuckDB's own, ms", total.planning_ms["over"], 3.0),
        ("total native/polars", total.ratio("native", "polars"), 1.0),
    )
    verdicts = [f"{name}: {value:.3f}, bar {bar:g}, {'met' if value <= bar else 'MISSED'}" for name, value, bar in bars]
    return "\n".join([text_table(header, rows), f"geometric means: {means}", *verdicts])


if __name__ == "__main__":
    sys.exit(main())
