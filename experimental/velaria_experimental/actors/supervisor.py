"""Supervision: child processes that are kept running, and that never outlive their parent.

A child that ends is started again, after a wait that doubles while it keeps ending at once; after so many starts in a
row that did not last it is left alone, and whoever looks is told. A child reads from a pipe that its parent holds open
and writes nothing to: when the parent dies, however it dies, the pipe ends, and the child does too (`until_orphaned`).
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from velaria_core.execution.clock import SYSTEM_CLOCK, Clock

_LASTED_MS: Final = 5_000.0
_BACKOFF_MS: Final = 100.0
_STARTS_MAX: Final = 8
_STOP_SECONDS: Final = 5.0


@dataclass(slots=True)
class _Child:
    arguments: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_ms: float = 0.0
    short_lives: int = 0
    next_ms: float = 0.0


class Supervisor:
    """Keeps children running.

    Args:
        told: called with (name, what, pid): `started`, `ended`, `given-up`.
    """

    def __init__(self, told: Callable[[str, str, int], None], clock: Clock = SYSTEM_CLOCK) -> None:
        self._told, self._clock = told, clock
        self._children: dict[str, _Child] = {}

    def add(self, name: str, arguments: Sequence[str]) -> None:
        """Start a child, and keep it running. Its stdout is the parent's."""
        child = self._children[name] = _Child(arguments)
        self._start(name, child)

    def look(self) -> None:
        """Start again who has ended, if it is time. To be called now and then."""
        now_ms = self._clock.ticks_ms()
        for name, child in self._children.items():
            if child.process is not None and child.process.poll() is not None:
                pid, child.process = child.process.pid, None
                lasted = now_ms - child.started_ms >= _LASTED_MS
                child.short_lives = 0 if lasted else child.short_lives + 1
                child.next_ms = now_ms + _BACKOFF_MS * 2 ** min(child.short_lives, 6)
                self._told(name, "ended", pid)
                if child.short_lives >= _STARTS_MAX:
                    self._told(name, "given-up", pid)
            if child.process is None and child.short_lives < _STARTS_MAX and now_ms >= child.next_ms:
                self._start(name, child)

    def pids(self) -> list[int]:
        """Of the children that run."""
        return [child.process.pid for child in self._children.values() if child.process is not None]

    def close(self) -> None:
        """Let the children end, and see to it."""
        running = [child.process for child in self._children.values() if child.process is not None]
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
        for process in running:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._children.clear()

    def _start(self, name: str, child: _Child) -> None:
        child.process = subprocess.Popen(child.arguments, stdin=subprocess.PIPE)
        child.started_ms = self._clock.ticks_ms()
        self._told(name, "started", child.process.pid)


def until_orphaned(ended: Callable[[], object], file: int = 0) -> None:
    """Call `ended` when the process that started this one is gone: when its end of the pipe on stdin is closed."""

    def wait() -> None:
        while os.read(file, 1):
            pass
        ended()

    threading.Thread(target=wait, name="orphan-watch", daemon=True).start()
