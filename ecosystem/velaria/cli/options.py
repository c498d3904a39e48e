"""Options that several commands share, packed into one value each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from velaria.cli.destination import destination, shows_on_terminal
from velaria.cli.formats import SUFFIXES, Format, format_of, is_binary, writer
from velaria_core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from velaria_core.dataframe import DataFrame
    from velaria_core.session import DataflowSession

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_ROWS = 40

PATH = click.Path(readable=False, allow_dash=True)
"""Completed by shells and not looked at: whoever opens a file says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How the session of a command is opened."""

    database: str | None
    read_only: bool
    memory_limit: str | None
    threads: int | None
    temp_directory: str | None
    no_progress: bool

    def open(self) -> DataflowSession:
        """A session; the caller closes it."""
        from velaria_core.execution import progress_bar
        from velaria_core.session import DataflowSession

        progress_bar.enabled = not self.no_progress
        return DataflowSession(
            self.database,
            memory_limit=self.memory_limit,
            threads=self.threads,
            temp_directory=self.temp_directory,
            read_only=self.read_only,
        )


@dataclass(frozen=True, slots=True)
class Output:
    """Where rows go and in which form."""

    format: Format | None
    output: str | None
    max_rows: int

    def chosen(self) -> Format:
        """`--format`, else what the suffix of the file says, else `table` for a terminal and `json` for a pipe.

        Raises:
            InputError[usage]: the suffix says nothing, or a terminal would show bytes.
        """
        if self.format is not None:
            chosen = self.format
        elif self.output not in (None, "-"):
            assert self.output is not None
            found = format_of(self.output)
            if found is None:
                known = did_you_mean(self.output.rpartition(".")[2], [s[1:] for s in SUFFIXES], "suffixes")
                raise InputError("usage", f'no format for "{self.output}"', hint=f"give --format, or a suffix; {known}")
            chosen = found
        else:
            chosen = Format.TABLE if shows_on_terminal(None) else Format.JSON
        if is_binary(chosen) and shows_on_terminal(self.output):
            raise InputError("usage", f"{chosen} is not for a terminal", hint=f"write it to a file: -o data.{chosen}")
        return chosen

    def write(self, frame: DataFrame, chosen: Format) -> None:
        """Run a frame and write its rows."""
        write = writer(chosen)
        with destination(self.output) as out:
            write(frame, out, self.max_rows)


def packed(name: str, kind: type[Any], *options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """A decorator that adds `options` to a command and gives it their values as one `kind` called `name`."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def wrapper(*arguments: Any, **values: Any) -> Any:
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            return command(*arguments, **values)

        decorated: Any = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        result: Command = decorated
        return result

    return decorate


engine_options = packed(
    "engine",
    Engine,
    click.option(
        "--database",
        metavar="FILE",
        type=PATH,
        envvar="VELARIA_DATABASE",
        help="Keep tables in this file.  [default: memory]",
    ),
    click.option("--read-only", is_flag=True, help="Open the database for reading only."),
    click.option(
        "--memory-limit", metavar="SIZE", envvar="VELARIA_MEMORY_LIMIT", help="E.g. 2GB; more spills to disk."
    ),
    click.option(
        "--threads", metavar="N", type=click.IntRange(min=1), envvar="VELARIA_THREADS", help="[default: all cores]"
    ),
    click.option(
        "--temp-directory",
        metavar="FOLDER",
        type=PATH,
        envvar="VELARIA_TEMP_DIRECTORY",
        help="Where to spill.",
    ),
    click.option("--no-progress", is_flag=True, help="Never show a progress bar."),
)

output_options = packed(
    "output",
    Output,
    click.option(
        "--format",
        type=click.Choice([*Format], case_sensitive=False),
        help="Form of the rows.  [default: by the suffix of -o; table on a terminal, json otherwise]",
    ),
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=PATH,
        help="Write here instead of stdout; the file appears whole or not at all.",
    ),
    click.option(
        "--max-rows",
        metavar="N",
        type=click.IntRange(min=0),
        default=MAX_ROWS,
        show_default=True,
        help="Rows of a table; 0 is all.",
    ),
)


def reporting_options(command: Command) -> Command:
    """`--errors` and `--debug`; `Reporting.asked_by` reads them, also where the rest cannot be parsed."""
    errors = click.option(
        "--errors",
        type=click.Choice(["text", "json"]),
        expose_value=False,
        envvar="VELARIA_ERRORS",
        help="Form of errors on stderr.  [default: text]",
    )
    debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
    return errors(debug(command))
