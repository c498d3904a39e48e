"""`velaria stream`: run a stream query until its sources end or Ctrl-C, and show how it goes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from velaria.cli.foreground import run_in_foreground
from velaria.cli.formats import Format
from velaria.cli.inputs import (
    Input,
    create_views,
    named_inputs,
    named_values,
    parameters,
    readable,
    statement_text,
)
from velaria.cli.options import PATH, Engine, engine_options, reporting_options
from velaria.cli.script import Script
from velaria_core.errors import InputError

if TYPE_CHECKING:
    from velaria_core.contract.modes import Trigger
    from velaria_core.execution.live import Form
    from velaria_core.execution.runtime import StreamingQuery
    from velaria_core.session import DataflowSession

FOLLOWED = click.option(
    "--follow",
    "followed",
    metavar="[NAME=]FILE",
    multiple=True,
    type=PATH,
    help="A stream of the rows that are added to this file, or of the files that come into this folder or glob.",
)
# Forms of rows that can be printed as they come.
PRINTED = (Format.TABLE, Format.NDJSON, Format.CSV, Format.TSV)
_AUTO, _NONE = "auto", "none"
_LIVE_SECONDS, _LINE_SECONDS = 0.5, 1.0


@click.command("stream", cls=StatementCommand)
@STATEMENT_AND_FILES
@STATEMENT_FILE
@NAMED_PARAMETERS
@POSITIONAL_PARAMETERS
@READ_OPTIONS
@FOLLOWED
@click.option("--checkpoint", metavar="FOLDER", type=PATH, help="Make the query durable: called again, it goes on.")
@click.option(
    "--trigger",
    metavar="WHEN",
    help="now: what is there now, then stop; once: one epoch of it; 5s: an epoch every 5 seconds.  "
    "[default: as soon as rows are there, until the sources end]",
)
@click.option(
    "--mode",
    type=click.Choice(["append", "update", "complete"]),
    help="Which rows of the result come out: those that never change, the changes, or all each time.",
)
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Option of the query: delivery_mode=at-least-once, epoch_rows_max=10000, retries=3, ...",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([*PRINTED], case_sensitive=False),
    help="Form of the rows of a SELECT.  [default: table on a terminal, ndjson otherwise]",
)
@click.option(
    "--progress",
    type=click.Choice([_AUTO, "live", "lines", "json", _NONE]),
    default=_AUTO,
    help="How stderr shows progress.  [default: live on a terminal, else lines; none where it would mix with rows]",
)
@click.option(
    "--interval", metavar="SECONDS", type=click.FloatRange(min=0.01), help="How often.  [default: live 0.5, else 1]"
)
@engine_options
@reporting_options
def command(
    arguments: tuple[str, ...],
    statement_file: str | None,
    named: tuple[str, ...],
    positional: tuple[str, ...],
    read_options: tuple[str, ...],
    followed: tuple[str, ...],
    checkpoint: str | None,
    trigger: str | None,
    mode: str | None,
    settings: tuple[str, ...],
    form: Format | None,
    progress: str,
    interval: float | None,
    engine: Engine,
) -> None:
    """Run INSERT INTO sink SELECT ... continuously, or print what a SELECT gives as it changes.

    Statements before the last declare its sources and sinks. Each FILE becomes a table, as in `velaria sql`; each
    --follow a stream. In `update` mode a printed row has a `diff`: 1 for one that comes, -1 for one that goes.
    Ctrl-C lets the epoch at hand finish, and stops.

    \b
    velaria stream "SELECT level, count(*) FROM app GROUP BY level" --follow app.jsonl
    velaria stream "SELECT * FROM logs WHERE status >= 500" --follow logs=logs/ --mode append
    velaria stream -f pipeline.sql --checkpoint state/ --trigger 5s
    """
    statement, files = split_arguments(arguments, statement_file)
    values = parameters(named, positional)
    reading = named_values(read_options, "--read")
    script = Script.of(statement_text(statement, statement_file))
    form = form or (Format.TABLE if sys.stdout.isatty() else Format.NDJSON)
    if mode == "complete" and not script.is_insert and form is not Format.TABLE:
        told = f"{form} has no place for a whole result after the first"
        raise InputError("usage", told, hint="--format table prints each; --mode update its changes")
    shown = None if progress == _AUTO and engine.no_progress else _form_of(progress, prints=not script.is_insert)
    options = {
        **named_values(settings, "--set"),
        **{
            name: value
            for name, value in (
                ("checkpoint_path", checkpoint),
                ("output_mode", mode),
                ("trigger", _trigger(trigger) if trigger is not None else None),
            )
            if value is not None
        },
    }
    with readable(named_inputs(files)) as inputs, engine.open() as session:

        def start() -> StreamingQuery:
            create_views(session, inputs, reading)
            follow(session, named_inputs(followed), taken={one.view.lower() for one in inputs})
            if script.before:
                session.sql(script.before)
            if script.is_insert:
                return session.start_stream_sql(script.last, values, **options)
            from velaria.cli.printed import PrintedSink

            frame = session.stream_sql(script.last, values)
            return frame.write_stream(PrintedSink(form, sys.stdout.buffer), **options).start()

        query = run_in_foreground(session, start)
        _watch(session, query, shown, interval)


def _watch(session: DataflowSession, query: StreamingQuery, form: Form | None, interval: float | None) -> None:
    """Show the query until it ends. A signal stops it, and is raised again when it has stopped."""
    from velaria_core.execution.live import Form, Watcher

    watcher = None if form is None else Watcher(query, form)
    try:
        if watcher is not None:
            watcher.run(interval or (_LIVE_SECONDS if form is Form.LIVE else _LINE_SECONDS))
        else:
            query.await_termination()
    except KeyboardInterrupt:
        run_in_foreground(session, query.stop)
        if watcher is not None:
            watcher.show()
        raise
    except Exception as error:
        if _is_broken_pipe(error):  # whoever read the rows has gone
            raise BrokenPipeError from error
        raise


def _is_broken_pipe(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = getattr(error, "cause", None) or error.__cause__
    return False


def _form_of(progress: str, *, prints: bool) -> Form | None:
    """How progress is shown; None for not at all."""
    from velaria_core.execution.live import Form, fitting_form

    if progress == _NONE:
        return None
    if progress != _AUTO:
        return Form(progress)
    mixed = prints and sys.stdout.isatty() and sys.stderr.isatty()
    return None if mixed else fitting_form(sys.stderr)


def _trigger(text: str) -> Trigger:
    from velaria_core.contract.modes import Trigger
    from velaria_core.logical.sql.durations import NotADuration, milliseconds

    if text == "now":
        return Trigger.available_now()
    if text == "once":
        return Trigger.once()
    try:
        return Trigger.processing_time(milliseconds(text))
    except NotADuration as error:
        raise InputError("usage", f"--trigger: {error}", hint="now, once, or how often: 5s", cause=error) from error


# What probing finds -> what a SOURCE table is USING.
_USING: Mapping[str, str] = {
    "csv": "csv",
    "tsv": "tsv",
    "json_lines": "jsonl",
    "json_array": "json",
    "parquet": "parquet",
    "arrow": "arrow",
}


def follow(session: DataflowSession, streams: Sequence[Input], taken: set[str]) -> None:
    """Declare a SOURCE table of each file or folder, in the format that probing finds."""
    import glob

    from velaria_core.logical.expr import literal_tree, to_sql
    from velaria_core.types import quoted

    for one in streams:
        if one.view.lower() in taken:
            raise InputError("usage", f'two files are called "{one.view}"', hint="choose another name before =")
        probe = session.probe(one.path)
        if probe.final_format not in _USING:
            raise InputError(
                "usage",
                f'--follow does not know how the lines of "{one.path}" are split',
                hint="declare it: CREATE SOURCE TABLE ... USING line OPTIONS(...)",
            )
        several = Path(one.path).is_dir() or glob.has_magic(one.path)
        path = one.path.rstrip("/") + "/" if Path(one.path).is_dir() else one.path
        options: dict[str, Any] = {"path": path, **({} if several else {"follow": True})}
        listed = ", ".join(f"{name}: {to_sql(literal_tree(value))}" for name, value in options.items())
        session.sql(f"CREATE SOURCE TABLE {quoted(one.view)} USING {_USING[probe.final_format]} OPTIONS({listed})")
