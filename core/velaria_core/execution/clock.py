"""Clock: where time comes from. It is passed in, so that tests own it."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time and one way to wait."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 in UTC: for timestamps. It can jump."""
        ...

    def ticks_ms(self) -> float:
        """Milliseconds since an unknown start: for durations and deadlines. It never goes back."""
        ...

    def wait_until(self, condition: threading.Condition, deadline_ms: float | None) -> None:
        """Wait on `condition`, which the caller holds, for a notification, or until `ticks_ms` is there.

        It may return early for no reason, as `Condition.wait` may: callers look at their state again.
        """
        ...


class SystemClock:
    """The machine's time."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def ticks_ms(self) -> float:
        return time.monotonic_ns() / 1_000_000

    def wait_until(self, condition: threading.Condition, deadline_ms: float | None) -> None:
        condition.wait(None if deadline_ms is None else max(0.0, deadline_ms - self.ticks_ms()) / 1000)


SYSTEM_CLOCK = SystemClock()


class ManualClock:
    """Time that stands still until `advance`: what waits for a later moment wakes up then and not before."""

    def __init__(self, start_ms: int = 0) -> None:
        self._lock = threading.Lock()
        self._ms = float(start_ms)
        self._waiting: list[tuple[threading.Condition, float | None]] = []

    def now_ms(self) -> int:
        return int(self._ms)

    def ticks_ms(self) -> float:
        return self._ms

    def wait_until(self, condition: threading.Condition, deadline_ms: float | None) -> None:
        # Compared and registered under one lock: a moment that comes in between is not slept through.
        with self._lock:
            if deadline_ms is not None and deadline_ms <= self._ms:
                return
            entry = (condition, deadline_ms)
            self._waiting.append(entry)
        try:
            condition.wait()
        finally:
            with self._lock:
                self._waiting.remove(entry)

    def next_deadline_ms(self) -> float | None:
        """The nearest moment, still to come, that somebody waits for; None where nobody waits for one."""
        with self._lock:
            coming = [deadline for _, deadline in self._waiting if deadline is not None and deadline > self._ms]
        return min(coming, default=None)

    def advance(self, milliseconds: float) -> None:
        """Let this much time pass, and wake everybody who waits."""
        with self._lock:
            self._ms += milliseconds
            waiting = list(self._waiting)
        for condition, _ in waiting:
            with condition:
                condition.notify_all()
