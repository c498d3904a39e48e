"""Memory: tables that the caller keeps, given one after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from velaria_core.contract.abi import (
    DIFF,
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
from velaria_core.errors import InputError
from velaria_core.execution.sources.tables import (
    Position,
    arrow_table,
    conformed,
    gone,
    projected,
    row_schema,
)


class MemorySource:
    """Tables in a list. They stay there, so any offset can be read from again.

    Args:
        batches: Arrow tables or record batches of one schema.
        schema: of the rows, without `diff`; needed where there is no batch to tell it.
        append_only: rows only come; otherwise the last column of each batch is `diff`.
        bounded: there is no more than `batches`; otherwise `add` brings more until `end`.
        time_column: the column of event times.

    Raises:
        InputError[source.schema]: a batch has other columns; [source.no_schema]: nothing tells them.
    """

    def __init__(
        self,
        batches: Iterable[Any] = (),
        *,
        schema: pa.Schema | None = None,
        append_only: bool = True,
        bounded: bool = True,
        time_column: str | None = None,
    ) -> None:
        tables = [arrow_table(batch) for batch in batches]
        if schema is None:
            if not tables:
                raise InputError("source.no_schema", "no batches and no schema", hint="pass schema=pyarrow.schema(...)")
            names = [name for name in tables[0].schema.names if append_only or name != DIFF]
            schema = pa.schema([tables[0].schema.field(name) for name in names])
        self._rows = row_schema(schema, append_only=append_only)
        self._batches: list[pa.Table] = []
        self._ended = bounded
        self._info = SourceInfo(
            schema=schema,
            bounded=bounded,
            replayable=True,
            append_only=append_only,
            time_column=time_column,
            pushdown=frozenset({Pushdown.PROJECTION}),
        )
        self._context: SourceContext | None = None
        self._position = Position()
        for table in tables:
            self._append(table)

    def add(self, batch: Any) -> None:
        """More rows, from any thread.

        Raises:
            InputError[source.closed]: the source is bounded, or `end` was called.
        """
        if self._ended:
            raise InputError("source.closed", "this source takes no more rows", hint="bounded=False, before end()")
        self._append(arrow_table(batch))
        self._wake()

    def end(self) -> None:
        """No more rows come: the stream ends after those that are there."""
        self._ended = True
        self._wake()

    def _append(self, table: pa.Table) -> None:
        self._batches.append(conformed(table, self._rows, f"batch {len(self._batches)}"))

    def _wake(self) -> None:
        if (context := self._context) is not None:
            context.wake()

    # --- the contract

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        position = Position.parse(context.resume_from)
        tables = len(self._batches)
        inside = position.batch < tables and position.row <= self._batches[position.batch].num_rows
        if position.batch > tables or (position.row and not inside):
            raise gone(f"the query has read up to {position.token} of {tables} batches in memory")
        self._position = position
        self._context = context

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        assert self._context is not None, "next_batch comes after open"
        ended = self._ended  # looked at first: rows that came before the end are seen below
        while self._position.batch < len(self._batches):
            at, row = self._position.batch, self._position.row
            table = self._batches[at]
            given = table.slice(row, max(max_rows, 1))
            end = row + given.num_rows
            self._position = Position(at + 1) if end >= table.num_rows else Position(at, end)
            if given.num_rows:
                return Batch(projected(given, self._context.pushed.columns), TextOffset(self._position.token))
        return EndOfStream() if ended else Blocked()

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: the rows stay where they are."""

    def ack(self, offset: Offset) -> None:
        """Nothing to do: the rows stay where they are."""

    def close(self) -> None:
        self._context = None
