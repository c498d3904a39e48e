"""A progress bar on the terminal for work that takes more than a second; nothing anywhere else."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAY_SECONDS = 1.0
_STEP_SECONDS = 0.2
_WIDTH = 30

enabled = True
"""Set to False to keep the terminal still."""


@contextmanager
def progress_bar(share: Callable[[], float | None]) -> Iterator[None]:
    """Show how far the body is, on stderr, while it runs.

    Args:
        share: from 0 to 1, None where nobody knows. Asked from another thread, now and then.
    """
    if not (enabled and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(share, done), name="velaria-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(share: Callable[[], float | None], done: threading.Event) -> None:
    started = time.monotonic()
    if done.wait(DELAY_SECONDS):
        return
    while not done.wait(_STEP_SECONDS):
        sys.stderr.write("\r" + render(share(), time.monotonic() - started))
        sys.stderr.flush()
    sys.stderr.write("\r\x1b[K")
    sys.stderr.flush()


def render(share: float | None, seconds: float) -> str:
    """`[#########           ]  45%  3.2 s`; without a share only the time."""
    if share is None:
        return f"running  {seconds:.1f} s"
    filled = round(share * _WIDTH)
    return f"[{'#' * filled}{' ' * (_WIDTH - filled)}] {share:4.0%}  {seconds:.1f} s"
