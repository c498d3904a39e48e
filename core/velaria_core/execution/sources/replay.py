"""Replay: a table as the stream that it once was, by its time column, at a chosen speed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
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
from velaria_core.errors import InputError, did_you_mean
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.sources.tables import arrow_table, gone, projected, whole_number
from velaria_core.types import type_name

_PER_MS = {"s": 0.001, "ms": 1.0, "us": 1_000.0, "ns": 1_000_000.0}


class ReplaySource:
    """The rows of a table in the order of their times; rows of one time keep their order, those without one are first.

    The pause between two rows is the time between them, divided by `speed`; it begins anew at each `open`.

    Args:
        data: Arrow data.
        time_column: timestamps, dates, or whole numbers of milliseconds.
        speed: 60 plays an hour in a minute; None: as fast as rows are asked for.
        clock: for the pauses.

    Raises:
        InputError[source.time_column]: no such column, or its type is no time. InputError[option.value]: speed <= 0.

    Offsets: how many rows were given. The same table has to be there when it goes on.
    """

    def __init__(self, data: Any, time_column: str, *, speed: float | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        table = arrow_table(data)
        if time_column not in table.schema.names:
            hint = did_you_mean(time_column, table.schema.names, "columns")
            raise InputError("source.time_column", f'no column "{time_column}"', hint=hint)
        if speed is not None and not (speed > 0 and math.isfinite(speed)):
            raise InputError("option.value", f"speed is a number above 0, not {speed}")
        times, per_ms = _numbers(table.column(time_column), time_column)
        order = np.argsort(times, kind="stable")
        self._table = table.take(order)
        self._times = _milliseconds(times[order], per_ms)
        self._speed = speed
        self._clock = clock
        self._given = 0
        self._began_ms = 0.0
        self._first_ms = 0.0  # time of the first row of this run
        self._columns: tuple[str, ...] | None = None
        self._info = SourceInfo(
            schema=table.schema,
            bounded=True,
            replayable=True,
            time_column=time_column,
            pushdown=frozenset({Pushdown.PROJECTION}),
        )

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        given = whole_number(context.resume_from or "0")
        if given > self._table.num_rows:
            raise gone(f"{given} rows were given, and the table has {self._table.num_rows}")
        self._columns = context.pushed.columns
        self._given = given
        self._began_ms = self._clock.ticks_ms()
        self._first_ms = float(self._times[given]) if given < len(self._times) else 0.0

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        if self._given == self._table.num_rows:
            return EndOfStream()
        end = self._given + max(max_rows, 1)
        if self._speed is not None:
            played_ms = (self._clock.ticks_ms() - self._began_ms) * self._speed
            due = int(np.searchsorted(self._times, self._first_ms + played_ms, side="right"))
            if due <= self._given:
                left_ms = (float(self._times[self._given]) - self._first_ms - played_ms) / self._speed
                return Blocked(retry_after_ms=max(1, math.ceil(left_ms)))
            end = min(end, due)
        rows = self._table.slice(self._given, end - self._given)
        self._given += rows.num_rows
        return Batch(projected(rows, self._columns), TextOffset(str(self._given)))

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: the table stays where it is."""

    def ack(self, offset: Offset) -> None:
        """Nothing to do: the table stays where it is."""

    def close(self) -> None:
        """Nothing is held."""


_NO_TIME = np.iinfo(np.int64).min  # sorts first


def _numbers(column: pa.ChunkedArray, name: str) -> tuple[npt.NDArray[np.int64], float]:
    """Times as whole numbers, NULL as _NO_TIME, and how many of them are a millisecond."""
    kind = column.type
    per_ms = 1.0
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms"))
    elif pa.types.is_timestamp(kind):
        per_ms = _PER_MS[kind.unit]
    elif not pa.types.is_integer(kind):
        told = f'"{name}" is {type_name(kind)}, a time column is a timestamp, a date or a whole number'
        raise InputError("source.time_column", told, hint="cast it first")
    numbers = column.cast(pa.int64()).fill_null(int(_NO_TIME)).to_numpy()
    return numbers, per_ms


def _milliseconds(times: npt.NDArray[np.int64], per_ms: float) -> npt.NDArray[np.float64]:
    """Rising times in milliseconds; rows without one have that of the first row with one."""
    unknown = int(np.searchsorted(times, _NO_TIME, side="right"))
    first = times[unknown] if unknown < len(times) else 0
    return np.maximum(times, first) / per_ms
