"""`velaria explain`: how a SELECT would run."""

from __future__ import annotations

import click

from velaria.cli.commands.sql import (
    NAMED_PARAMETERS,
    POSITIONAL_PARAMETERS,
    READ_OPTIONS,
    STATEMENT_AND_FILES,
    STATEMENT_FILE,
    StatementCommand,
    split_arguments,
)
from velaria.cli.commands.stream import FOLLOWED, follow
from velaria.cli.destination import destination
from velaria.cli.foreground import run_in_foreground
from velaria.cli.inputs import create_views, named_inputs, named_values, parameters, readable, statement_text
from velaria.cli.options import PATH, Engine, engine_options, reporting_options
from velaria.cli.script import Script
from velaria_core.errors import InputError


@click.command("explain", cls=StatementCommand)
@STATEMENT_AND_FILES
@STATEMENT_FILE
@NAMED_PARAMETERS
@POSITIONAL_PARAMETERS
@READ_OPTIONS
@click.option("--analyze", is_flag=True, help="Run it, and show the times and rows of each step.")
@click.option("--stream", "as_stream", is_flag=True, help="How it would run continuously; INSERT INTO sink too.")
@FOLLOWED
@click.option("-o", "--output", metavar="FILE", type=PATH, help="Write here instead of stdout.")
@engine_options
@reporting_options
def command(
    arguments: tuple[str, ...],
    statement_file: str | None,
    named: tuple[str, ...],
    positional: tuple[str, ...],
    read_options: tuple[str, ...],
    analyze: bool,
    as_stream: bool,
    followed: tuple[str, ...],
    output: str | None,
    engine: Engine,
) -> None:
    """Show the logical plan, the physical plan and the strategy of a SELECT, as text. FILEs as in `velaria sql`.

    \b
    velaria explain "SELECT origin, count(*) FROM flights GROUP BY origin" flights.csv
    velaria explain --analyze -f report.sql flights.csv
    velaria explain --stream "SELECT level, count(*) FROM app GROUP BY level" --follow app.jsonl
    velaria explain --stream -f pipeline.sql
    """
    statement, files = split_arguments(arguments, statement_file)
    values = parameters(named, positional)
    if as_stream and analyze:
        raise InputError("usage", "--analyze is of a query that has run", hint="query.explain(analyze=True) in Python")
    if followed and not as_stream:
        raise InputError("usage", "--follow is of a stream", hint="add --stream, or give the file without --follow")
    reading = named_values(read_options, "--read")
    text = statement_text(statement, statement_file)
    with readable(named_inputs(files)) as inputs, engine.open() as session:

        def work() -> None:
            create_views(session, inputs, reading)
            follow(session, named_inputs(followed), taken={one.view.lower() for one in inputs})
            if as_stream:
                script = Script.of(text)
                if script.before:
                    session.sql(script.before)
                explained = session.explain_stream_sql(script.last, values)
            else:
                explained = session.explain_sql(text, values, analyze=analyze)
            with destination(output) as out:
                out.write((explained + "\n").encode())

        run_in_foreground(session, work)
