"""Queue: output that a program polls while the query runs."""

from __future__ import annotations

import threading
from collections import deque

import pyarrow as pa

from velaria_core.contract.abi import SinkContext, SinkInfo
from velaria_core.contract.modes import SinkMode
from velaria_core.errors import ExternalError, InputError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock

FULL_TIMEOUT_MS = 1_000


class QueueSink:
    """Each committed epoch is one table to poll, in the form of the query's mode. Everything ends with the process.

    Args:
        capacity_rows: how many rows may wait; then the query waits. None: any number.
        full_timeout_ms: how long an epoch waits for room before it fails, to be tried again.
        clock: for the timeouts.
    """

    def __init__(
        self,
        *,
        capacity_rows: int | None = None,
        full_timeout_ms: float = FULL_TIMEOUT_MS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if capacity_rows is not None and capacity_rows < 1:
            raise InputError("option.value", f"capacity_rows is 1 or more, not {capacity_rows}")
        self._capacity = capacity_rows
        self._full_timeout_ms = full_timeout_ms
        self._clock = clock
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._staged: dict[int, pa.Table] = {}
        self._ready: deque[pa.Table] = deque()
        self._rows = 0  # staged and ready
        self._last_committed = 0
        self._open = False
        self._opened = False

    # --- the reader's side

    def poll_arrow(self) -> pa.Table | None:
        """The next epoch's table, or None when none waits now. Never blocks."""
        with self._changed:
            return self._taken()

    def wait_arrow(self, timeout_ms: float | None = None) -> pa.Table | None:
        """The next epoch's table; None after `timeout_ms`, or when the query has stopped and nothing waits."""
        deadline = None if timeout_ms is None else self._clock.ticks_ms() + timeout_ms
        with self._changed:
            while not self._ready and not self._done():
                if deadline is not None and self._clock.ticks_ms() >= deadline:
                    return None
                self._clock.wait_until(self._changed, deadline)
            return self._taken()

    def closed(self) -> bool:
        """Whether the query has stopped and everything was polled."""
        with self._changed:
            return self._done() and not self._ready

    def _done(self) -> bool:
        return self._opened and not self._open

    def _taken(self) -> pa.Table | None:
        if not self._ready:
            return None
        table = self._ready.popleft()
        self._rows -= table.num_rows
        self._changed.notify_all()
        return table

    # --- the contract

    def info(self) -> SinkInfo:
        return SinkInfo(frozenset(SinkMode), transactional=True, idempotent=False, blocking=self._capacity is not None)

    def open(self, context: SinkContext) -> None:
        with self._changed:
            for epoch in [epoch for epoch in self._staged if epoch > context.last_epoch]:
                self._rows -= self._staged.pop(epoch).num_rows
            self._last_committed = min(self._last_committed, context.last_epoch)
            self._open = self._opened = True

    def stage(self, epoch: int, changes: pa.Table) -> str:
        """Waits while the queue is full.

        Raises:
            ExternalError[sink.full]: nobody polled for `full_timeout_ms`; retryable.
        """
        deadline = self._clock.ticks_ms() + self._full_timeout_ms
        with self._changed:
            # Staged epochs wait for a commit that comes after this: only what can be polled makes room.
            while self._capacity is not None and self._ready and self._rows + changes.num_rows > self._capacity:
                if self._clock.ticks_ms() >= deadline:
                    raise ExternalError(
                        "sink.full",
                        f"{self._rows} rows wait in the queue, and nobody polled for {self._full_timeout_ms:g} ms",
                        hint="poll faster, or raise capacity_rows",
                        retryable=True,
                    )
                self._clock.wait_until(self._changed, deadline)
            self._staged[epoch] = changes
            self._rows += changes.num_rows
        return str(epoch)

    def commit(self, epoch: int, ref: str) -> None:  # noqa: ARG002 -- the contract's
        """An epoch that another process staged went with it, and so did its queue."""
        with self._changed:
            table = self._staged.pop(epoch, None)
            if table is None:
                return
            if epoch <= self._last_committed:
                self._rows -= table.num_rows
                return
            self._last_committed = epoch
            self._ready.append(table)
            self._changed.notify_all()

    def abort(self, epoch: int, ref: str) -> None:  # noqa: ARG002 -- the contract's
        with self._changed:
            table = self._staged.pop(epoch, None)
            if table is not None:
                self._rows -= table.num_rows
                self._changed.notify_all()

    def close(self) -> None:
        """What was committed can still be polled. Wakes whoever waits for more."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
