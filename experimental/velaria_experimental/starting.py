"""Starting a scheduler as a process of its own, and ending it: for smoke, benchmarks and tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from velaria_core.errors import ExternalError
from velaria_experimental.security import read_token

_START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 10.0


@contextmanager
def started_scheduler(
    folder: Path, *arguments: str, stdout: Any = None, python: str = sys.executable
) -> Iterator[tuple[str, Path]]:
    """A scheduler on a unix socket in a folder, with its journal there; ended with the block, and with this process.

    Args:
        arguments: more of the command line.
    Returns:
        Its address and the file with its token.
    """
    address, token_file = f"unix:{folder}/socket", folder / "token"
    command = [python, "-m", "velaria_experimental", "scheduler", "--listen", address, "--token-file", str(token_file)]
    command += ["--journal", str(folder / "journal"), "--child", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout)
    try:
        wait_for(process, token_file)
        yield address, token_file
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(process: subprocess.Popen[Any], token_file: Path) -> None:
    """Wait until a scheduler has written its token, and so listens or is about to.

    Raises:
        ExternalError[exchange.listen]: it ended, or took too long.
    """
    until = monotonic() + _START_SECONDS
    while monotonic() < until:
        if process.poll() is not None:
            raise ExternalError("exchange.listen", f"the scheduler ended with {process.returncode}")
        try:
            read_token(token_file)
        except ExternalError:
            sleep(0.02)
        else:
            return
    raise ExternalError("exchange.listen", f"no scheduler in {_START_SECONDS} s")
