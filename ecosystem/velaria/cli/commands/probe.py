"""`velaria probe`: what a file seems to be, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from velaria.cli.destination import destination, shows_on_terminal
from velaria.cli.foreground import run_in_foreground
from velaria.cli.inputs import named_inputs, readable
from velaria.cli.options import PATH, Engine, engine_options, reporting_options

if TYPE_CHECKING:
    from velaria_core.execution.files import Probe


@click.command("probe")
@click.argument("file", type=PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    help="[default: table on a terminal, json otherwise]",
)
@click.option("-o", "--output", metavar="FILE", type=PATH, help="Write here instead of stdout.")
@engine_options
@reporting_options
def command(file: str, form: str | None, output: str | None, engine: Engine) -> None:
    """Show what a FILE seems to be: format, dialect, columns and types, with the evidence and other candidates.

    FILE is a file, a folder, a quoted glob, or - for stdin. `velaria sql` reads it as shown here.

    \b
    velaria probe flights.csv
    velaria probe --format json events.log.gz
    """
    form = form or ("table" if shows_on_terminal(output) else "json")
    with readable(named_inputs([file])) as (probed,), engine.open() as session:

        def work() -> None:
            found = session.probe(probed.path)
            if form == "json":
                text = json.dumps({**found.to_dict(), "path": file}, ensure_ascii=False, indent=2)
            else:
                text = probe_text(found, file)
            with destination(output) as out:
                out.write((text + "\n").encode())

        run_in_foreground(session, work)


def probe_text(probe: Probe, file: str) -> str:
    """A probe for people: a line of what it is, its dialect, its columns, warnings and candidates."""
    found = probe.to_dict()
    lines = [f"{file}: {probe.final_format}, {probe.confidence.value} confidence (score {probe.score})"]
    dialect = {name: found[name] for name in _DIALECT if found.get(name) not in (None, "none")}
    if probe.files > 1:
        dialect["files"] = probe.files
    lines += [f"  {name:<12} {_shown(value)}" for name, value in dialect.items()]
    lines += [f"  {'table':<12} {probe.suggested_table_name}", "", "columns"]
    width = max(map(len, found["schema"]), default=0)
    lines += [f"  {name:<{width}}  {kind}" for name, kind in zip(found["schema"], found["types"], strict=True)]
    if probe.warnings:
        lines += ["", "warnings", *(f"  {warning}" for warning in probe.warnings)]
    lines += ["", "candidates"]
    for candidate in probe.candidates:
        evidence = "; ".join(candidate.evidence)
        lines.append(f"  {candidate.score:>4}  {candidate.format:<11} {candidate.reason}: {evidence}")
    return "\n".join(lines)


_DIALECT = ("delimiter", "header", "mode", "format", "encoding", "compression")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if isinstance(value, str) and not value.strip().isalnum() else str(value)
