"""Triggers: when an epoch starts, and how large it grows.

An epoch costs something whatever it holds, so large epochs are cheap and late, small ones dear and prompt. A query with
nothing to do takes what comes at once. While it works rows pile up, and the next epoch is as large as that needs, up to
a limit. `continuous` lowers the limit where epochs take too long for the latency that was asked, and raises it again
where smaller ones make the query fall behind: then the backlog is what rows wait for (Das et al., Adaptive Stream
Processing using Dynamic Batch Sizing, SoCC 2014).
"""

from __future__ import annotations

from velaria_core.contract.modes import Trigger, TriggerKind

_ROWS_MIN = 256  # below, an epoch's fixed cost outweighs its rows


class Pace:
    """When the next epoch may start, and how many rows it may have."""

    def __init__(self, trigger: Trigger, rows_max: int) -> None:
        self._rows_max = rows_max
        continuous = trigger.kind is TriggerKind.CONTINUOUS
        self._latency_ms = trigger.interval_ms if continuous else 0
        self._interval_ms = 0 if continuous else trigger.interval_ms
        self.rows = rows_max
        self.next_ms = 0.0

    def began(self, now_ms: float) -> None:
        """An epoch started."""
        self.next_ms = now_ms + self._interval_ms

    def took(self, rows: int, milliseconds: float, *, behind: bool) -> None:
        """An epoch over so many rows is done.

        Args:
            behind: as many rows wait as may, so rows come at least as fast as they are worked off.
        """
        if not self._latency_ms:
            return
        # A row waits for the epoch before its own and then for its own.
        if behind:
            self.rows = min(self.rows * 2, self._rows_max)
        elif 2 * milliseconds > self._latency_ms:
            self.rows = min(self.rows, max(rows // 2, _ROWS_MIN), self._rows_max)
        elif rows >= self.rows:
            self.rows = min(self.rows * 2, self._rows_max)
