"""Events: what happens in a process, one JSON object a line on stdout, with stable names.

Every line has `event`, `node_id` and `at_ms` (since 1970, UTC); states have `old` and `new`.
"""

from __future__ import annotations

import json
import sys
import threading
from decimal import Decimal
from typing import TextIO

from velaria_core.execution.clock import SYSTEM_CLOCK, Clock


class Events:
    """Writes events. Any thread may call it.

    Args:
        stream: None writes nothing.
    """

    def __init__(self, node_id: str, stream: TextIO | None = sys.stdout, clock: Clock = SYSTEM_CLOCK) -> None:
        self.node_id = node_id
        self._stream, self._clock = stream, clock
        self._lock = threading.Lock()

    def __call__(self, event: str, **details: object) -> None:
        """Tell of an event; details that are None or empty are left out."""
        if self._stream is None:
            return
        told = {"event": event, "node_id": self.node_id, "at_ms": self._clock.now_ms()}
        told |= {name: value for name, value in details.items() if value not in (None, "")}
        line = json.dumps(told, ensure_ascii=False, default=_plain)
        with self._lock:
            print(line, file=self._stream, flush=True)


def _plain(value: object) -> object:
    """What JSON has no form for: a sum of int64 is a number, everything else its text."""
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else str(value)
