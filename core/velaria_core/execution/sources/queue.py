"""Queue: rows that a program pushes while the query runs.

Rows wait here until the query asks for them, and stay until it has acknowledged them: a query that fails and opens the
queue again in the same process gets all that its sinks may not have. With the process they are gone, so no offset can
be read from again elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from velaria_core.contract.abi import (
    Batch,
    Blocked,
    CheckpointMarker,
    EndOfStream,
    Offset,
    SourceContext,
    SourceInfo,
    TextOffset,
)
from velaria_core.contract.modes import Pushdown
from velaria_core.errors import ExternalError, InputError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.sources.tables import (
    Kept,
    arrow_table,
    conformed,
    projected,
    row_schema,
    table_of_rows,
)

CAPACITY_ROWS = 1_000_000
PUSH_TIMEOUT_MS = 30_000


class RealtimeStreamSource:
    """The pusher's end of a queue; a stream reads the other one, `queue`.

    `close` ends the input. A queue has a `close` too, but that is the query's, which may open it again.
    """

    def __init__(self, queue: QueueSource) -> None:
        self.queue = queue
        self.push_arrow = queue.push_arrow
        self.push_rows = queue.push_rows
        self.close = self.close_input = queue.close_input

    @property
    def schema(self) -> pa.Schema:
        """Of the rows that are pushed."""
        return self.queue.info().schema

    @property
    def waiting_rows(self) -> int:
        """Rows that the query has not taken yet."""
        return self.queue.waiting_rows


class QueueSource:
    """A bounded buffer between a pusher and a query. `push_*`, `close_input` and `waiting_rows` from any thread.

    Args:
        schema: of the rows, without `diff`.
        capacity_rows: how many rows may wait; then a push waits. One push larger than that goes in when none waits.
        append_only: rows only come; otherwise the last column of what is pushed is `diff`.
        time_column: the column of event times.
        clock: for the timeouts of pushes.
    """

    def __init__(
        self,
        schema: pa.Schema,
        *,
        capacity_rows: int = CAPACITY_ROWS,
        append_only: bool = True,
        time_column: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if capacity_rows < 1:
            raise InputError("option.value", f"capacity_rows is 1 or more, not {capacity_rows}")
        self._rows = row_schema(schema, append_only=append_only)
        self._info = SourceInfo(
            schema=schema,
            bounded=False,
            replayable=False,
            append_only=append_only,
            time_column=time_column,
            pushdown=frozenset({Pushdown.PROJECTION}),
        )
        self._capacity = capacity_rows
        self._clock = clock
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._kept = Kept()
        self._ended = False
        self._context: SourceContext | None = None

    # --- the pusher's side

    def push_arrow(self, data: Any, *, timeout_ms: float | None = PUSH_TIMEOUT_MS) -> None:
        """Add Arrow data: a table, a record batch, or anything with `__arrow_c_stream__`. Waits while it is full.

        Args:
            timeout_ms: how long to wait for room; None: as long as it takes.
        Raises:
            InputError[source.schema]: names or types are not the schema's; nothing is added.
            InputError[source.closed]: after `close_input`, also when that comes during the wait.
            ExternalError[source.full]: still full after the timeout; retryable.
        """
        self._push(conformed(arrow_table(data), self._rows, "push_arrow"), timeout_ms)

    def push_rows(
        self, rows: Sequence[Mapping[str, Any] | Sequence[Any]], *, timeout_ms: float | None = PUSH_TIMEOUT_MS
    ) -> None:
        """Add rows as dicts by name (a missing name is NULL) or as sequences by position; else as `push_arrow`.

        Raises:
            InputError[source.row]: a row or a value does not fit; nothing is added.
        """
        self._push(table_of_rows(rows, self._rows, "push_rows"), timeout_ms)

    def _push(self, table: pa.Table, timeout_ms: float | None) -> None:
        deadline = None if timeout_ms is None else self._clock.ticks_ms() + timeout_ms
        with self._changed:
            while not self._ended and self._has_no_room(table.num_rows):
                if deadline is not None and self._clock.ticks_ms() >= deadline:
                    raise ExternalError(
                        "source.full",
                        f"{self._kept.waiting_rows} rows wait, and the query took none for {timeout_ms:g} ms",
                        hint="push again later, push less, or raise capacity_rows",
                        retryable=True,
                    )
                self._clock.wait_until(self._changed, deadline)
            if self._ended:
                raise InputError("source.closed", "the input of this queue is closed", hint="make a new queue")
            if not table.num_rows:
                return
            self._kept.append(table)
            context = self._context
        # Outside of the lock: the runtime may hold one of its own when it asks for rows.
        if context is not None:
            context.wake()

    def _has_no_room(self, rows: int) -> bool:
        waiting = self._kept.waiting_rows
        return waiting > 0 and waiting + rows > self._capacity

    def close_input(self) -> None:
        """No more rows come: the stream ends after those that wait. Pushes that wait for room are refused."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            context = self._context
        if context is not None:
            context.wake()

    @property
    def waiting_rows(self) -> int:
        """Rows that the query has not taken yet."""
        with self._changed:
            return self._kept.waiting_rows

    # --- the contract

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        """Rows that were given before and not acknowledged come again."""
        with self._changed:
            self._kept.rewind()
            self._context = context

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        with self._changed:
            assert self._context is not None, "next_batch comes after open"
            taken = self._kept.take(max_rows)
            if taken is None:
                return EndOfStream() if self._ended else Blocked()
            self._changed.notify_all()
            rows, position = taken
            return Batch(projected(rows, self._context.pushed.columns), TextOffset(position.token))

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: there is no place that would outlive the process."""

    def ack(self, offset: Offset) -> None:
        with self._changed:
            self._kept.acknowledge(offset.token)

    def close(self) -> None:
        """Rows stay for the next `open`; a push that waits for room goes on waiting until its timeout."""
        with self._changed:
            self._context = None
