"""Writing: calls to the sinks, in their order, on a thread of their own where a sink may wait.

The steps of the next epoch then run while the last one's output is written. Once a call has failed the ones after it
are not made: what comes later must not become visible before what is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_DEPTH = 2  # epochs whose output is being written while the next one runs


class Writer:
    """Runs calls one after the other: here and now, or on a thread."""

    def __init__(self, *, threaded: bool) -> None:
        self.threaded = threaded
        self._failure: BaseException | None = None
        self._room = threading.Semaphore(_DEPTH)
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self.thread: threading.Thread | None = None
        if threaded:
            self.thread = threading.Thread(target=self._run, name="velaria-write", daemon=True)
            self.thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Make a call after those before it; its result comes with the future.

        Raises:
            BaseException: what this call, on a thread an earlier one, raised.
        """
        made: Future[T] = Future()
        if self._failure is not None:
            raise self._failure
        if self.thread is not None:
            self._calls.put((call, made))
        else:
            made.set_result(call())
        return made

    def publish(self, call: Callable[[], None]) -> None:
        """As `submit`, for the last call of an epoch: waits while two epochs are being written."""
        if self.thread is None:
            self.submit(call)
            return
        self._room.acquire()

        def last() -> None:
            call()
            self._room.release()

        self.submit(last)

    def drain(self) -> None:
        """Wait until all calls are made.

        Raises:
            BaseException: what the first that failed raised.
        """
        self.submit(lambda: None).result()

    def close(self) -> None:
        """End the thread after the calls that it has."""
        if self.thread is not None:
            self._calls.put(None)
            self.thread.join()
            self.thread = None

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            call, made = item
            if self._failure is not None:
                made.set_exception(self._failure)
                continue
            try:
                made.set_result(call())
            except BaseException as error:  # noqa: BLE001 -- raised where the result is asked for
                self._failure = error
                made.set_exception(error)
                self._room.release()
