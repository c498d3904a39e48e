"""Rows: whatever a Python iterable gives, gathered into batches by count or by time.

The iterable may wait long for its next row (a socket, a message client), so a thread of its own asks it. Rows gather
until they are `emit_rows`, or until the first of them has waited `emit_interval_ms`; Arrow data stays the batch that it
is. The thread runs ahead of the query by a few batches and then waits, so an endless generator is welcome.

A list or tuple does not wait: its rows are cut when the source is made, and no thread runs.

The interval is looked at when the query asks, which is told when to ask again: no timer runs, and a `ManualClock` tests
all of it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

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
from velaria_core.errors import ExternalError, InputError, VelariaError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.sources.tables import Kept, arrow_table, conformed, projected, table_of_rows

EMIT_ROWS = 1_024
EMIT_INTERVAL_MS = 1_000
AHEAD_BATCHES: Final = 4  # full batches that wait for the query; then the iterable is not asked

Row = Mapping[str, Any] | Sequence[Any]
Chunk: TypeAlias = "pa.Table | list[Row]"  # as it is, or rows that are to become one


class RowsSource:
    """The items of an iterable: rows as dicts by name (a missing name is NULL) or as sequences by position, or Arrow
    tables and record batches.

    Rows are gone once the iterable has given them: those that are not acknowledged are kept for another `open` in this
    process, and no checkpoint brings them back in another one.

    Args:
        rows: anything that can be iterated over. It is asked by one thread at a time.
        schema: of the rows. None: that of the rows of a list, or of the first item, which is waited for here.
        emit_rows: how many rows make a batch.
        emit_interval_ms: how long a row waits for others to come.
        bounded: it ends by itself. False: it never does, so that what needs its end is refused at the start.
        time_column: the column of event times.
        clock: for `emit_interval_ms`.

    Raises:
        InputError[source.data]: `rows` is no iterable of rows. InputError[option.value]: a number is not above 0.
        InputError[source.no_schema]: rows as sequences, no rows, or a column of NULLs only, and no schema.
        ExternalError[source.rows]: asked for its first item, the iterable raised.
    """

    def __init__(
        self,
        rows: Iterable[Any],
        schema: pa.Schema | None = None,
        emit_rows: int = EMIT_ROWS,
        emit_interval_ms: float = EMIT_INTERVAL_MS,
        *,
        bounded: bool = True,
        time_column: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        for name, given in (("emit_rows", emit_rows), ("emit_interval_ms", emit_interval_ms)):
            if given <= 0:
                raise InputError("option.value", f"{name} is above 0, not {given}")
        if isinstance(rows, (str, bytes, Mapping, pa.Table, pa.RecordBatch)) or not isinstance(rows, Iterable):
            hint = "give an iterable of dicts, sequences or record batches; create_stream takes one table"
            raise InputError("source.data", f"a {type(rows).__name__} is no iterable of rows", hint=hint)
        self._emit_rows, self._interval_ms, self._clock = emit_rows, emit_interval_ms, clock
        self._iterator = iter(rows)
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._gathering: list[Row] = []
        self._since_ms = 0.0  # when the first of them came
        self._ready: deque[Chunk] = deque()
        self._ready_rows = 0
        self._given_rows = 0  # of `_ready` so far, for messages
        self._kept = Kept()
        self._failure: VelariaError | None = None
        self._over = False
        self._pulling = False
        self._context: SourceContext | None = None
        if isinstance(rows, (list, tuple)):
            for item in self._iterator:
                self._add(item)
            self._finish(None)
        if schema is None:
            schema = self._found_schema()
        self._info = SourceInfo(
            schema=schema,
            bounded=bounded,
            replayable=False,
            time_column=time_column,
            pushdown=frozenset({Pushdown.PROJECTION}),
        )

    def _found_schema(self) -> pa.Schema:
        if not self._over:
            try:
                self._add(next(self._iterator))
            except StopIteration:
                self._finish(None)
            except Exception as error:
                raise _raised(error) from error
        waiting = [*self._ready, self._gathering]
        rows = [row for chunk in waiting if not isinstance(chunk, pa.Table) for row in chunk]
        return next((chunk.schema for chunk in waiting if isinstance(chunk, pa.Table)), None) or _schema_of(rows)

    # --- the side of the iterable

    def _pull(self) -> None:
        """Ask the iterable while the query reads and there is room."""
        while self._may_pull():
            try:
                self._add(next(self._iterator))
            except StopIteration:
                self._finish(None)
            except BaseException as error:  # noqa: BLE001 -- raised again by `next_batch`
                self._finish(_raised(error))

    def _may_pull(self) -> bool:
        with self._changed:
            while self._context is not None and self._ready_rows >= AHEAD_BATCHES * self._emit_rows:
                self._clock.wait_until(self._changed, None)
            self._pulling = self._context is not None and not self._over
            return self._pulling

    def _add(self, item: Any) -> None:
        with self._changed:
            if hasattr(item, "__arrow_c_stream__") or isinstance(item, pa.RecordBatch):
                self._flush()
                self._put(arrow_table(item))
                context = self._context
            else:
                if not self._gathering:
                    self._since_ms = self._clock.ticks_ms()
                self._gathering.append(item)
                rows = len(self._gathering)
                if rows == self._emit_rows:
                    self._flush()
                # At the first row the query learns how long to wait for the others.
                context = self._context if rows in (1, self._emit_rows) else None
        # Outside of the lock: the runtime may hold one of its own when it asks for rows.
        if context is not None:
            context.wake()

    def _finish(self, failure: VelariaError | None) -> None:
        with self._changed:
            self._flush()
            self._over, self._failure = True, failure
            context = self._context
        if context is not None:
            context.wake()

    def _flush(self) -> None:
        if self._gathering:
            self._put(self._gathering)
            self._gathering = []

    def _put(self, chunk: Chunk) -> None:
        if len(chunk):
            self._ready.append(chunk)
            self._ready_rows += len(chunk)

    # --- the contract

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        """Rows that were given before and not acknowledged come again."""
        with self._changed:
            self._kept.rewind()
            self._context = context
            # A thread of an earlier run may still wait for the iterable: it goes on then.
            if self._pulling or self._over:
                return
            self._pulling = True
        threading.Thread(target=self._pull, name="velaria-rows", daemon=True).start()

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        """
        Raises:
            InputError[source.row, source.schema]: an item does not fit the schema.
            ExternalError[source.rows]: the iterable raised; what it gave before has been given.
        """
        with self._changed:
            assert self._context is not None, "next_batch comes after open"
            while (taken := self._kept.take(max_rows)) is None:
                wait_ms = self._wait_ms()
                if wait_ms == 0:
                    self._flush()
                if not self._ready:
                    break
                self._convert()
            else:
                rows, position = taken
                return Batch(projected(rows, self._context.pushed.columns), TextOffset(position.token))
            if self._failure is not None:
                raise self._failure
            return EndOfStream() if self._over else Blocked(wait_ms)

    def _wait_ms(self) -> int | None:
        """How long rows may still gather; None where there are none."""
        if not self._gathering:
            return None
        return max(0, math.ceil(self._since_ms + self._interval_ms - self._clock.ticks_ms()))

    def _convert(self) -> None:
        """The first chunk that is ready becomes a table; it stays where it does not fit."""
        chunk = self._ready[0]
        what = f"rows after the first {self._given_rows}" if self._given_rows else "rows"
        if isinstance(chunk, pa.Table):
            table = conformed(chunk, self._info.schema, what)
        else:
            table = table_of_rows(chunk, self._info.schema, what)
        self._kept.append(table)
        self._ready.popleft()
        self._ready_rows -= len(chunk)
        self._given_rows += len(chunk)
        self._changed.notify_all()

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: there is no place that would outlive the process."""

    def ack(self, offset: Offset) -> None:
        with self._changed:
            self._kept.acknowledge(offset.token)

    def close(self) -> None:
        """Rows stay for the next `open`. A thread that waits for the iterable ends when that answers."""
        with self._changed:
            self._context = None
            self._changed.notify_all()


def _raised(error: BaseException) -> VelariaError:
    """What the iterable raised, as the source's own error."""
    if isinstance(error, VelariaError):
        return error
    return ExternalError("source.rows", f"the iterable raised {type(error).__name__}: {error}", cause=error)


def _schema_of(rows: Iterable[Row]) -> pa.Schema:
    """The names and types of dicts.

    Raises:
        InputError[source.no_schema]: they do not tell them.
    """
    rows = list(rows)
    hint = "pass schema=pyarrow.schema(...)"
    if not rows:
        raise InputError("source.no_schema", "no rows and no schema", hint=hint)
    if not all(isinstance(row, Mapping) for row in rows):
        raise InputError("source.no_schema", "rows as sequences need a schema: they have no names", hint=hint)
    try:
        kind = pa.array([dict(row) for row in rows]).type
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        told = f"the rows have no types in common: {error}"
        raise InputError("source.no_schema", told, hint=hint, cause=error) from error
    unknown = [field.name for field in kind if pa.types.is_null(field.type)]
    if unknown:
        raise InputError("source.no_schema", f'nothing tells the type of "{unknown[0]}": all is NULL', hint=hint)
    return pa.schema(list(kind))
