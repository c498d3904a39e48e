"""A sink that prints: the rows of each epoch on stdout, as they come."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa

from velaria.cli.formats import Format
from velaria.cli.options import MAX_ROWS
from velaria_core.contract.abi import SinkContext, SinkInfo
from velaria_core.contract.modes import SinkMode

_EACH_ROW = frozenset({SinkMode.APPEND, SinkMode.RETRACT})


class PrintedSink:
    """Prints an epoch when it is durable; after a crash the last one may be printed again.

    A table stands for one epoch, so it can also be the whole result each time; the other forms have a row a line.
    """

    def __init__(self, form: Format, out: BinaryIO) -> None:
        self._form, self._out = form, out
        self._pending: dict[int, bytes] = {}
        self._has_header = False

    def info(self) -> SinkInfo:
        modes = _EACH_ROW | {SinkMode.REPLACE} if self._form is Format.TABLE else _EACH_ROW
        return SinkInfo(modes, transactional=False, idempotent=False)

    def open(self, context: SinkContext) -> None:
        """Nothing to do."""

    def stage(self, epoch: int, changes: pa.Table) -> str:
        self._pending[epoch] = self._text(epoch, changes)
        return ""

    def commit(self, epoch: int, ref: str) -> None:
        del ref
        if (text := self._pending.pop(epoch, None)) is not None:
            self._out.write(text)
            self._out.flush()

    def abort(self, epoch: int, ref: str) -> None:
        del ref
        self._pending.pop(epoch, None)

    def close(self) -> None:
        """Stdout is not ours to close."""

    def _text(self, epoch: int, rows: pa.Table) -> bytes:
        match self._form:
            case Format.TABLE:
                from velaria_core.execution.show import text_table

                return f"epoch {epoch}\n{text_table(rows, MAX_ROWS)}\n".encode()
            case Format.NDJSON:
                from velaria.cli.formats.json import lines_of

                return b"".join(map(lines_of, rows.to_batches()))
            case _:
                from velaria.cli.formats.delimited import DELIMITERS, header_of, rows_of

                delimiter = DELIMITERS[self._form]
                header = b"" if self._has_header else header_of(rows.schema, delimiter)
                self._has_header = True
                return header + b"".join(rows_of(batch, delimiter) for batch in rows.to_batches())
