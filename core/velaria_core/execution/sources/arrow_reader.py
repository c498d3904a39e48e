"""Arrow reader: a stream of record batches that is read once, such as a query's result or another process's output."""

from __future__ import annotations

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
from velaria_core.execution.sources.tables import Kept, conformed, projected, row_schema


class ArrowReaderSource:
    """The batches of a reader, each asked for when the query wants rows.

    A reader that waits for its next batch makes the query wait, and a stop too: one that may wait long is better read
    in a thread that pushes to a queue. What was read and not acknowledged is kept for another `open`.

    Args:
        reader: a pyarrow.RecordBatchReader, or anything with `__arrow_c_stream__`.
        append_only: rows only come; otherwise the last column is `diff`.
        time_column: the column of event times.
    """

    def __init__(self, reader: Any, *, append_only: bool = True, time_column: str | None = None) -> None:
        if not isinstance(reader, pa.RecordBatchReader):
            if not hasattr(reader, "__arrow_c_stream__"):
                hint = "give a pyarrow.RecordBatchReader, or an object with __arrow_c_stream__"
                raise InputError("source.data", f"a {type(reader).__name__} is no stream of Arrow data", hint=hint)
            reader = pa.RecordBatchReader.from_stream(reader)
        self._reader: pa.RecordBatchReader | None = reader
        schema = reader.schema if append_only else pa.schema(list(reader.schema)[:-1])
        self._rows = row_schema(schema, append_only=append_only)
        conformed(reader.schema.empty_table(), self._rows, "the reader")
        self._kept = Kept()
        self._columns: tuple[str, ...] | None = None
        self._info = SourceInfo(
            schema=schema,
            bounded=True,
            replayable=False,
            append_only=append_only,
            time_column=time_column,
            pushdown=frozenset({Pushdown.PROJECTION}),
        )

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        """Rows that were given before and not acknowledged come again."""
        self._columns = context.pushed.columns
        self._kept.rewind()

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        """
        Raises:
            ExternalError[source.reader]: the reader raised; what it gave before is not lost.
        """
        while (taken := self._kept.take(max_rows)) is None:
            if not self._read():
                return EndOfStream()
        rows, position = taken
        return Batch(projected(rows, self._columns), TextOffset(position.token))

    def _read(self) -> bool:
        """Keep the reader's next batch; False when there is none."""
        if self._reader is None:
            return False
        try:
            batch = self._reader.read_next_batch()
        except StopIteration:
            self._reader = None
            return False
        except Exception as error:
            told = f"the reader failed: {error}"
            raise ExternalError("source.reader", told, cause=error) from error
        if batch.num_rows:
            self._kept.append(conformed(pa.Table.from_batches([batch]), self._rows, "the reader"))
        return True

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: there is no place that would outlive the process."""

    def ack(self, offset: Offset) -> None:
        self._kept.acknowledge(offset.token)

    def close(self) -> None:
        """The reader stays open, as its owner made it and the source may be opened again."""
