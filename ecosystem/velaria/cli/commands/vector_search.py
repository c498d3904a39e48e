"""`velaria vector-search`: the rows of a file whose vectors are nearest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from velaria.cli.destination import destination
from velaria.cli.foreground import run_in_foreground
from velaria.cli.inputs import named_inputs, readable
from velaria.cli.options import PATH, Engine, engine_options, reporting_options
from velaria_core.errors import InputError

if TYPE_CHECKING:
    from velaria_core.dataframe import DataFrame

TOP_K = 5


@click.command("vector-search")
@click.argument("file", type=PATH, required=False)
@click.option("--csv", "csv_file", metavar="FILE", type=PATH, help="The file, by its older name.")
@click.option("--vector-column", metavar="COLUMN", required=True, help="Numbers, or texts such as [1 2 3].")
@click.option("--query-vector", metavar="NUMBERS", required=True, help='What to search for, as "0.1, 0.2".')
@click.option("--metric", type=click.Choice(["cosine", "cosin", "dot", "l2"]), default="cosine", show_default=True)
@click.option("--top-k", metavar="N", type=click.IntRange(min=1), default=TOP_K, show_default=True)
@click.option("--score-threshold", metavar="SCORE", type=float, help="Leave out scores that are worse.")
@click.option("--where-column", metavar="COLUMN", help="Search the rows for which COLUMN OP VALUE holds.")
@click.option("--where-op", metavar="OP", help="One of = != < <= > >=.")
@click.option("--where-value", metavar="VALUE")
@click.option("-o", "--output", metavar="OUT", type=PATH, help="Write here instead of stdout.")
@engine_options
@reporting_options
def command(
    file: str | None,
    csv_file: str | None,
    vector_column: str,
    query_vector: str,
    metric: str,
    top_k: int,
    score_threshold: float | None,
    where_column: str | None,
    where_op: str | None,
    where_value: str | None,
    output: str | None,
    engine: Engine,
) -> None:
    """Find the rows of FILE whose vectors are nearest to one, and tell how: a JSON document.

    \b
    velaria vector-search docs.csv --vector-column embedding --query-vector "1 0 0"
    velaria vector-search docs.parquet --vector-column e --query-vector "[1, 0]" --metric dot \\
        --where-column lang --where-op = --where-value en
    """
    where = (where_column, where_op, where_value)
    if None in where and where != (None, None, None):
        raise InputError("usage", "--where-column, --where-op and --where-value go together")
    if (file is None) == (csv_file is None):
        raise InputError("usage", "vector-search reads one file", hint="velaria vector-search docs.csv ...")
    named = file if file is not None else csv_file
    assert named is not None
    with readable(named_inputs([named])) as (searched,), engine.open() as session:

        def work() -> None:
            rows = _with_vectors(session.read(searched.path), vector_column, query_vector)
            if where_column is not None:
                rows = rows.filter(where_column, where_op, where_value)
            hybrid = where_column is not None or score_threshold is not None
            found = rows.vector_search(vector_column, query_vector, top_k, metric, score_threshold=score_threshold)
            if hybrid:
                told = rows.explain_hybrid_search(vector_column, query_vector, top_k, metric, score_threshold)
            else:
                told = rows.explain_vector_search(vector_column, query_vector, top_k, metric)
            document = {
                "metric": metric,
                "top_k": top_k,
                "where_column": where_column,
                "where_op": where_op,
                "where_value": where_value,
                "score_threshold": score_threshold,
                "schema": found.columns,
                "rows": found.to_rows(),
                "explain": dict(line.split("=", 1) for line in told.split("\n")),
            }
            with destination(output) as out:
                out.write((json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n").encode())

        run_in_foreground(session, work)


def _with_vectors(frame: DataFrame, column: str, query: str) -> DataFrame:
    """The rows with the column as vectors, where it is text, of as many numbers as the query has."""
    import pyarrow as pa

    from velaria_core.logical.expr import fn, lit, when
    from velaria_core.logical.similarity import vector_of

    name = next((name for name in frame.columns if name.lower() == column.lower()), None)
    if name is None or not pa.types.is_string(frame.schema.field(name).type):
        return frame
    numbers = fn.regexp_replace(fn.trim(name, lit("[] \t")), lit(r"[\s,]+"), lit(","), lit("g"))
    vector = fn.concat(lit("["), numbers, lit("]")).cast(f"FLOAT[{len(vector_of(query))}]")
    return frame.with_column(name, when(frame[name].is_not_null(), vector).end())
