"""Failures as a user meets them: one error on stderr, with code, place and hint, and an exit code; no traceback.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the work failed: bad data, a full disk, a cancelled query, a bug |
| 2 | the call was wrong: an option, the SQL, a file that is not there |
| 130, 143, 129 | stopped by Ctrl-C, SIGTERM, a closed terminal |
| 141 | whoever read the output has gone, as in `velaria ... | head` |
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TextIO

import click

from velaria_core.errors import ExternalError, InputError, InternalError, VelariaError, exit_code

BROKEN_PIPE_EXIT = 141
REPORT_HINT = "this is a bug of Velaria: please report it, with what the same command prints with --debug"

_RED, _CYAN, _PLAIN = "\x1b[1;31m", "\x1b[36m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Reporting:
    """How errors are told."""

    as_json: bool = False
    debug: bool = False

    @staticmethod
    def asked_by(arguments: Sequence[str]) -> Reporting:
        """From the arguments themselves: it must be known when they cannot be parsed."""
        options = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
        form = os.environ.get("VELARIA_ERRORS")
        for option, following in pairwise([*options, ""]):
            name, equals, value = option.partition("=")
            if name == "--errors":
                form = value if equals else following
        return Reporting(as_json=form == "json", debug="--debug" in options)

    def report(self, error: BaseException) -> int:
        """Print what went wrong on stderr.

        Returns:
            The exit code.
        """
        ours = as_velaria_error(error)
        if self.debug:
            import traceback

            traceback.print_exception(error)
        if self.as_json:
            import json

            print(json.dumps({"ok": False, **ours.to_dict()}, ensure_ascii=False), file=sys.stderr)
        else:
            print(error_text(ours, coloured=colours_wanted(sys.stderr)), file=sys.stderr)
        return exit_code(ours)


def error_text(error: VelariaError, *, coloured: bool = False) -> str:
    """`error[code]: message`, the place with a caret line, and the hint."""
    red, cyan, plain = (_RED, _CYAN, _PLAIN) if coloured else ("", "", "")
    lines = [f"{red}error[{error.code}]:{plain} {error.message}"]
    if error.place is not None and (where := error.place.render()):
        lines.append(f"  {where}")
    if error.hint:
        lines.append(f"  {cyan}hint:{plain} {error.hint}")
    return "\n".join(lines)


def colours_wanted(stream: TextIO) -> bool:
    """NO_COLOR and FORCE_COLOR decide, then whether it is a terminal that can."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def as_velaria_error(error: BaseException) -> VelariaError:
    """Any exception in our words; one that nobody expected is a bug."""
    if isinstance(error, VelariaError):
        return error
    if isinstance(error, click.ClickException):
        return usage_error(error)
    if isinstance(error, OSError):
        return os_error("the command", error)
    if isinstance(error, MemoryError):
        return ExternalError(
            "memory.exhausted", "the machine has no more memory", hint="set --memory-limit", cause=error
        )
    return InternalError("internal.unexpected", f"{type(error).__name__}: {error}", hint=REPORT_HINT, cause=error)


def usage_error(error: click.ClickException) -> InputError:
    """What click has against the arguments."""
    context = getattr(error, "ctx", None)
    hint = f"see {context.command_path if context is not None else 'velaria'} --help"
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        message = error.message
        if error.possibilities:
            hint = f"did you mean {' or '.join(sorted(error.possibilities))}? {hint}"
    message = message.rstrip(".")
    return InputError("usage", message[:1].lower() + message[1:], hint=hint, cause=error)


_OS_ERRORS = {
    errno.ENOSPC: ("disk.full", "free some space, or choose another folder"),
    errno.EDQUOT: ("disk.full", "the quota of this user is used up: free some space, or choose another folder"),
    errno.EACCES: ("file.forbidden", "this user may not: change the permissions, or choose another place"),
    errno.EPERM: ("file.forbidden", "this user may not: change the permissions, or choose another place"),
    errno.EROFS: ("file.forbidden", "the file system is read-only: choose another place"),
}


def os_error(what: str, error: OSError) -> ExternalError:
    """An error of the operating system, while doing `what`."""
    code, hint = _OS_ERRORS.get(error.errno or 0, ("file.io", None))
    return ExternalError(code, f"{what}: {error.strerror or error}", hint=hint, cause=error)


@contextmanager
def from_os_error(what: str) -> Iterator[None]:
    """OSErrors inside leave as ExternalError; a broken pipe stays what it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise os_error(what, error) from error
