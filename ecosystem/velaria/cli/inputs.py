"""What a command reads: files as views, stdin as a file, values of parameters."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velaria.cli.reporting import from_os_error
from velaria_core.errors import InputError, Place, VelariaError

if TYPE_CHECKING:
    from velaria_core.session import DataflowSession

STDIN = "-"
STDIN_NAME = "stdin"


@dataclass(frozen=True, slots=True)
class Input:
    """A file (folder, glob) and the view that it becomes."""

    view: str
    path: str


def named_inputs(files: Sequence[str]) -> list[Input]:
    """The views that files become.

    `data/2013-01 flights.csv.gz` is `_2013_01_flights`, `-` is `stdin`, `name=FILE` is `name`. A name that is taken
    (case does not count) gets a number: `orders`, `orders_2`.
    """
    taken: set[str] = set()
    inputs = []
    for file in files:
        view, path = _split_name(file)
        if view is None:
            wanted, number = _name_of(path), 1
            view = wanted
            while view.lower() in taken:
                number += 1
                view = f"{wanted}_{number}"
        elif view.lower() in taken:
            raise InputError("usage", f'two files are called "{view}"', hint="choose another name before =")
        taken.add(view.lower())
        inputs.append(Input(view, path))
    if sum(one.path == STDIN for one in inputs) > 1:
        raise InputError("usage", "stdin (-) is named twice", hint="it can be read once")
    return inputs


def _split_name(file: str) -> tuple[str | None, str]:
    found = re.fullmatch(r"([^\W\d]\w*)=(.+)", file, re.DOTALL)
    if found is None or os.path.exists(file):
        return None, file
    return found[1], found[2]


def _name_of(path: str) -> str:
    from velaria_core.execution.files.probe import table_name

    if path == STDIN:
        return STDIN_NAME
    whole = Path(os.path.abspath(path))
    # A glob such as data/*.csv has no letters in its last part: it is called after its folder.
    names = (table_name(part) for part in (whole.name, whole.parent.name))
    return next((name for name in names if name.strip("_")), "data")


@contextmanager
def readable(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    """The inputs with stdin copied to a file, which is there as long as the block runs."""
    if all(one.path != STDIN for one in inputs):
        yield list(inputs)
        return
    if sys.stdin.isatty():
        raise InputError("usage", "stdin (-) is a terminal", hint="pipe data into it: cat data.csv | velaria ... -")
    with tempfile.TemporaryDirectory(prefix="velaria-") as folder:
        copy = Path(folder) / STDIN_NAME
        with from_os_error("reading stdin"), copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        try:
            yield [Input(one.view, str(copy) if one.path == STDIN else one.path) for one in inputs]
        except VelariaError as error:
            _tell_stdin(error, str(copy))
            raise


def _tell_stdin(error: VelariaError, path: str) -> None:
    """Replace the name of the copy by what the user knows."""
    error.message = re.sub(f'"?{re.escape(path)}"?', STDIN_NAME, error.message)
    if error.hint is not None:
        error.hint = re.sub(f'"?{re.escape(path)}"?', STDIN_NAME, error.hint)
    place = error.place
    if place is not None and place.file == path:
        error.place = Place(place.text, place.offset, place.length, STDIN_NAME, place.line, place.column)


def create_views(session: DataflowSession, inputs: Sequence[Input], options: Mapping[str, Any]) -> None:
    """Make a view of each file, in the format that probing finds; `options` are those of its reader."""
    for one in inputs:
        session.create_temp_view(one.view, session.read(one.path, **options))


def statement_text(text: str | None, file: str | None) -> str:
    """The SQL to run: given, or read from a file or stdin.

    Raises:
        InputError[usage, file.not_found, file.encoding, sql.empty], ExternalError: there is none to be had.
    """
    if file is None:
        assert text is not None, "the command asks for one of the two"
        return text
    name = STDIN_NAME if file == STDIN else f'"{file}"'
    try:
        with from_os_error(f"reading {name}"):
            data = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except VelariaError as error:
        if isinstance(error.cause, FileNotFoundError | IsADirectoryError):
            code = "file.not_found" if isinstance(error.cause, FileNotFoundError) else "file.is_directory"
            raise InputError(code, error.message, hint="-f takes a file of SQL", cause=error.cause) from error
        raise
    except UnicodeDecodeError as error:
        raise InputError("file.encoding", f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error


def parameters(named: Sequence[str], positional: Sequence[str]) -> dict[str, Any] | list[Any] | None:
    """Values for `$name`, or for `?` and `$1`.

    Raises:
        InputError[usage]: both kinds are given, or a name is missing or doubled.
    """
    if named and positional:
        raise InputError("usage", "parameters go by name (--param) or by position (-p), not both")
    if positional:
        return [value_of(text) for text in positional]
    return named_values(named, "--param") or None


def named_values(items: Sequence[str], option: str) -> dict[str, Any]:
    """The values of a repeated `option NAME=VALUE`.

    Raises:
        InputError[usage]: a name is missing or doubled.
    """
    values: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise InputError("usage", f'{option} takes NAME=VALUE, not "{item}"')
        if name in values:
            raise InputError("usage", f'{option} gives "{name}" twice')
        values[name] = value_of(text)
    return values


def value_of(text: str) -> Any:
    """A value as JSON where the text is JSON (7, 1.5, true, null, "7", [1, 2]), else the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON
