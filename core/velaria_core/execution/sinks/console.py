"""Console: each epoch as a printed table."""

from __future__ import annotations

import sys
from typing import TextIO

import pyarrow as pa

from velaria_core.contract.abi import SinkContext, SinkInfo
from velaria_core.contract.modes import SinkMode
from velaria_core.execution.outside import outside
from velaria_core.execution.show import text_table

ROWS_SHOWN = 20


class ConsoleSink:
    """Prints what each epoch brings, before it is durable: after a crash the last one may be printed again.

    Args:
        max_rows: how many rows of an epoch are shown.
        stream: where to print; None: standard output.
        width: of the terminal; None asks it.
    """

    def __init__(self, max_rows: int = ROWS_SHOWN, *, stream: TextIO | None = None, width: int | None = None) -> None:
        self._max_rows = max_rows
        self._stream = stream
        self._width = width

    def info(self) -> SinkInfo:
        return SinkInfo(frozenset(SinkMode), transactional=False, idempotent=False)

    def open(self, context: SinkContext) -> None:
        """Nothing to do."""

    def stage(self, epoch: int, changes: pa.Table) -> str:
        with outside("printing"):
            stream = self._stream or sys.stdout
            shown = text_table(changes, self._max_rows, self._width).rstrip("\n")
            stream.write(f"epoch {epoch}\n{shown}\n")
            stream.flush()
        return ""

    def commit(self, epoch: int, ref: str) -> None:
        """Nothing to do: it is printed."""

    def abort(self, epoch: int, ref: str) -> None:
        """What is printed stays."""

    def close(self) -> None:
        """Nothing to do."""
