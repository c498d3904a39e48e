"""The program: its commands, loaded when they are called, and the way out of each."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click
from click.shell_completion import shell_complete

from velaria.cli.foreground import Stopped, signals_stop_work, work_runs_on
from velaria.cli.options import reporting_options
from velaria.cli.reporting import BROKEN_PIPE_EXIT, Reporting
from velaria_core.errors import InputError, did_you_mean

NAME = "velaria"
COMPLETE_VARIABLE = "_VELARIA_COMPLETE"

# Command -> module of velaria.cli.commands, which has it under the same name.
COMMANDS = {
    "sql": "sql",
    "stream": "stream",
    "probe": "probe",
    "explain": "explain",
    "vector-search": "vector_search",
    "completion": "completion",
}


class Program(click.Group):
    """A group of commands that imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"velaria.cli.commands.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            hint = did_you_mean(name, COMMANDS, "commands")
            if os.path.exists(name):
                hint = f'to query a file: velaria sql "SELECT * FROM ..." {name}'
            raise InputError("usage", f'no command "{name}"', hint=hint)
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, **settings: Any) -> Any:  # type: ignore[override]
        """As click's, with our errors and exit codes; always raises SystemExit."""
        del settings
        sys.exit(run(sys.argv[1:] if args is None else args))


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns its exit code. Nothing but SystemExit of Python itself leaves this function."""
    reporting = Reporting.asked_by(arguments)
    try:
        with signals_stop_work():
            return _invoke(arguments)
    except BrokenPipeError:
        _drop_stdout()
        return BROKEN_PIPE_EXIT
    except (KeyboardInterrupt, click.Abort) as stop:
        print("interrupted", file=sys.stderr)
        code = 128 + (stop.number if isinstance(stop, Stopped) else 2)
        if work_runs_on():
            # An interpreter must not end under a thread that is inside the engine.
            os._exit(code)
        _drop_stdout()  # perhaps nobody reads it, and the last flush would wait for ever
        return code
    except Exception as error:  # noqa: BLE001 -- the last place where it can be told as an error
        code = reporting.report(error)
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            _drop_stdout()
        return code


def _invoke(arguments: Sequence[str]) -> int:
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        return shell_complete(program, {}, NAME, COMPLETE_VARIABLE, instruction)
    try:
        with program.make_context(NAME, list(arguments)) as context:
            program.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        sys.stdout.flush()
        return end.exit_code
    return 0


def _drop_stdout() -> None:
    """Let the interpreter's last flush of stdout go nowhere, instead of failing again."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # stdout is no file, or is closed: there is nothing to be flushed


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    if value and not ctx.resilient_parsing:
        from velaria.cli.version import version_line

        click.echo(version_line())
        ctx.exit()


@click.group(
    NAME,
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions and exit.",
)
@reporting_options
@click.pass_context
def program(ctx: click.Context) -> None:
    """Query files and streams on this machine with SQL.

    \b
    velaria sql "SELECT carrier, count(*) FROM flights GROUP BY ALL" flights.csv
    velaria stream "SELECT level, count(*) FROM app GROUP BY level" --follow app.jsonl
    velaria probe flights.csv
    velaria COMMAND --help

    Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 called wrongly, 130 Ctrl-C.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
