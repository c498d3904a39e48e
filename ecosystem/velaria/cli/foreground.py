"""Work that Ctrl-C can stop.

The engine does not look at signals while it reads or writes, and Python runs handlers on the main thread only. So the
work goes to a second thread, and the main one waits for it: on a signal it interrupts the session until the work has
ended, with its temporary files removed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from velaria_core.session import DataflowSession

T = TypeVar("T")

THREAD_NAME = "velaria-work"
_AGAIN_SECONDS = 0.02
_PATIENCE_SECONDS = 2.0


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal other than Ctrl-C's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def run_in_foreground(session: DataflowSession, work: Callable[[], T]) -> T:
    """What `work` returns or raises; a signal that arrives meanwhile stops it.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the work has ended, or has not within two seconds; a second one is
            not waited for.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 -- raised again below, on the main thread
            failure.append(error)
        finally:
            done.set()

    # A daemon, so that work which cannot be stopped does not keep the process.
    thread = threading.Thread(target=run, name=THREAD_NAME, daemon=True)
    thread.start()
    try:
        done.wait()
        thread.join()
    except KeyboardInterrupt:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not done.wait(_AGAIN_SECONDS) and time.monotonic() < until:
            session.interrupt()
        raise
    try:
        if failure:
            raise failure[0]
        return outcome[0]
    finally:
        # The error knows this frame: without a cycle it is gone, with all it holds open, when it has been told.
        failure.clear()


def work_runs_on() -> bool:
    """Whether some work could not be stopped."""
    return any(thread.name == THREAD_NAME and thread.is_alive() for thread in threading.enumerate())


@contextmanager
def signals_stop_work() -> Iterator[None]:
    """SIGTERM and SIGHUP end the process as Ctrl-C does: with temporary files removed."""
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    # Who runs us under nohup has asked for hang-ups to be ignored.
    for number in (number for number in numbers if before[number] is not signal.SIG_IGN):
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    raise Stopped(number)
