"""`velaria sql`: run SQL over files, and print the result."""

from __future__ import annotations

import re

import click

from velaria.cli.foreground import run_in_foreground
from velaria.cli.inputs import STDIN, create_views, named_inputs, named_values, parameters, readable, statement_text
from velaria.cli.options import PATH, Engine, Output, engine_options, output_options, reporting_options
from velaria_core.errors import InputError

STATEMENT_AND_FILES = click.argument("arguments", metavar="[SQL] [FILE]...", nargs=-1, type=PATH)
STATEMENT_FILE = click.option(
    "-f", "--file", "statement_file", metavar="FILE", type=PATH, help="Read the SQL from here; - is stdin."
)
NAMED_PARAMETERS = click.option(
    "--param", "named", metavar="NAME=VALUE", multiple=True, help="Value of $NAME: JSON, or else text."
)
POSITIONAL_PARAMETERS = click.option(
    "-p", "positional", metavar="VALUE", multiple=True, help="Value of the next ?, or of $1, $2, ..."
)
READ_OPTIONS = click.option(
    "--read",
    "read_options",
    metavar="NAME=VALUE",
    multiple=True,
    help="Option of the reader of every FILE: encoding=latin-1, delimiter=;, header=false, on_error=skip, ...",
)


class StatementCommand(click.Command):
    """A command whose SQL may begin with a comment, `-- so`, which click would take for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A space in front makes it an argument; split_arguments takes it away.
        return super().parse_args(ctx, [f" {word}" if _is_comment(word) else word for word in args])


def _is_comment(word: str) -> bool:
    """Whether a word begins with two dashes and is no option: those are letters up to a `=` or their end."""
    return word.startswith("--") and re.match(r"--([\w-]+(=|$)|$)", word) is None


@click.command("sql", cls=StatementCommand)
@STATEMENT_AND_FILES
@STATEMENT_FILE
@NAMED_PARAMETERS
@POSITIONAL_PARAMETERS
@READ_OPTIONS
@output_options
@engine_options
@reporting_options
def command(
    arguments: tuple[str, ...],
    statement_file: str | None,
    named: tuple[str, ...],
    positional: tuple[str, ...],
    read_options: tuple[str, ...],
    output: Output,
    engine: Engine,
) -> None:
    """Run SQL, and print the result of its last statement.

    Each FILE (CSV, TSV, JSON, Parquet, Arrow, text lines; .gz and .zst; a folder or a quoted glob) becomes a view
    named like the file without its suffix; NAME=FILE chooses the name, - is stdin, named stdin.

    \b
    velaria sql "SELECT origin, avg(dep_delay) FROM flights GROUP BY ALL" flights.csv
    velaria sql "SELECT * FROM a JOIN b USING (id)" a=orders.parquet b=clients.json -o joined.csv
    curl -s https://example.org/data.json | velaria sql "SELECT count(*) FROM stdin" -
    velaria sql -f report.sql flights.csv --param day=2013-01-31 --format markdown
    velaria sql --database shop.db "CREATE TABLE t AS SELECT * FROM 'orders.csv'; SELECT count(*) FROM t"
    """
    statement, files = split_arguments(arguments, statement_file)
    values = parameters(named, positional)
    reading = named_values(read_options, "--read")
    chosen = output.chosen()
    text = statement_text(statement, statement_file)
    with readable(named_inputs(files)) as inputs, engine.open() as session:

        def work() -> None:
            create_views(session, inputs, reading)
            output.write(session.sql(text, values), chosen)

        run_in_foreground(session, work)


def split_arguments(arguments: tuple[str, ...], statement_file: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The statement, where it stands among the arguments, and the files."""
    words = tuple(word[1:] if word.startswith(" --") else word for word in arguments)
    if statement_file is not None:
        if statement_file == STDIN and STDIN in words:
            raise InputError("usage", "stdin (-) cannot be both the SQL and a file")
        return None, words
    if not words:
        command = click.get_current_context().command_path
        raise InputError("usage", "no SQL is given", hint=f'{command} "SELECT ..." FILE..., or -f FILE')
    return words[0], words[1:]
