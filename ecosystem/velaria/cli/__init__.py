"""The command line `velaria`. What it needs is imported where it is needed: most of a short command is its imports."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (`program.EXITS`)."""
    _open_closed_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments) == ["--version"]:
        # Before click, which takes longer to load than the answer.
        from velaria.cli.version import version_line

        print(version_line())
        return 0
    try:
        from velaria.cli.program import run

        return run(arguments)
    except KeyboardInterrupt:  # while it was loading, or on its way out
        print("interrupted", file=sys.stderr)
        return 130


def _open_closed_streams() -> None:
    """Let a stream that the caller has closed (`>&-`) lead nowhere: else the next file opened would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 -- for the life of the process
