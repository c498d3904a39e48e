"""Memory: the output as Arrow tables, for programs and tests."""

from __future__ import annotations

import threading

import pyarrow as pa

from velaria_core.contract.abi import SinkContext, SinkInfo
from velaria_core.contract.modes import SinkMode
from velaria_core.execution.sinks.folding import folded


class MemorySink:
    """Keeps each epoch's table, and gives their sum. Everything ends with the process.

    Readers may ask from any thread; they see committed epochs only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._staged: dict[int, pa.Table] = {}
        self._visible: dict[int, pa.Table] = {}  # rising epochs
        self._context: SinkContext | None = None
        self._batches_written = self._rows_written = 0

    # --- the reader's side

    @property
    def tables(self) -> dict[int, pa.Table]:
        """What each epoch brought, in the form of the query's mode; with REPLACE the last epoch's only."""
        with self._lock:
            return dict(self._visible)

    @property
    def last_table(self) -> pa.Table | None:
        """What the last epoch brought; None before the first."""
        with self._lock:
            return next(reversed(self._visible.values()), None)

    @property
    def batches_written(self) -> int:
        """Tables committed so far."""
        return self._batches_written

    @property
    def rows_written(self) -> int:
        """Rows in them."""
        return self._rows_written

    def result(self) -> pa.Table:
        """The sum of all epochs: the rows that the query's result has now. Without columns before `open`."""
        with self._lock:
            context, tables = self._context, list(self._visible.values())
        if context is None:
            return pa.table({})
        return folded(tables, context.mode, context.keys, context.schema)

    # --- the contract

    def info(self) -> SinkInfo:
        return SinkInfo(frozenset(SinkMode), transactional=True, idempotent=True, blocking=False)

    def open(self, context: SinkContext) -> None:
        """Epochs after `last_epoch` are forgotten, committed ones too: they belong to a life that left no state."""
        with self._lock:
            self._context = context
            for kept in (self._staged, self._visible):
                for epoch in [epoch for epoch in kept if epoch > context.last_epoch]:
                    del kept[epoch]

    def stage(self, epoch: int, changes: pa.Table) -> str:
        with self._lock:
            self._staged[epoch] = changes
        return str(epoch)

    def commit(self, epoch: int, ref: str) -> None:  # noqa: ARG002 -- the contract's
        """An epoch that another process staged went with it, and so did all that this sink held."""
        with self._lock:
            table = self._staged.pop(epoch, None)
            if table is None:
                return
            assert self._context is not None
            if self._context.mode is SinkMode.REPLACE:
                self._visible.clear()
            self._visible[epoch] = table
            self._batches_written += 1
            self._rows_written += table.num_rows

    def abort(self, epoch: int, ref: str) -> None:  # noqa: ARG002 -- the contract's
        with self._lock:
            self._staged.pop(epoch, None)

    def close(self) -> None:
        """The tables stay."""
