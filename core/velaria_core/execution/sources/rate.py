"""Rate: made-up rows at a steady rate, for trials, demos and benchmarks.

A row is a function of the seed, the start and its number, so any of them can be made again anywhere.
"""

from __future__ import annotations

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
from velaria_core.errors import InputError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.sources.tables import gone, projected, whole_number

SCHEMA = pa.schema(
    [
        ("timestamp", pa.timestamp("us")),
        ("value", pa.int64()),
        ("key", pa.int64()),
        ("random", pa.float64()),
    ]
)
_SECOND_US = 1_000_000


class RateSource:
    """Rows (timestamp, value, key, random): when the row is due, its number from 0, one of `keys`, and 0 <= random < 1.

    A row is given when the clock has reached its timestamp; after a pause the rows that came due are given at once.

    Args:
        rows_per_second: at least 1.
        rows: how many in all; None: for ever.
        keys: `key` is 0 to keys - 1, evenly spread.
        seed: of key and random.
        start_ms: the timestamp of the first row, in milliseconds since 1970; None: when it is first opened. Offsets
            name it, so that a restart goes on with the same rows.
        wait: False gives rows as fast as they are asked for, whatever the clock says.
        clock: that tells when rows are due.

    Offsets: `1200@1385205000000`, rows given and start.
    """

    def __init__(
        self,
        rows_per_second: int,
        *,
        rows: int | None = None,
        keys: int = 100,
        seed: int = 0,
        start_ms: int | None = None,
        wait: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        for name, value, least in (("rows_per_second", rows_per_second, 1), ("keys", keys, 1), ("rows", rows, 0)):
            if value is not None and value < least:
                raise InputError("option.value", f"{name} is {least} or more, not {value}")
        self._rate = rows_per_second
        self._rows = rows
        self._keys = keys
        self._seed = seed
        self._start_ms = start_ms
        self._wait = wait
        self._clock = clock
        self._given = 0
        self._columns: tuple[str, ...] | None = None
        self._info = SourceInfo(
            schema=SCHEMA,
            bounded=rows is not None,
            replayable=True,
            time_column="timestamp",
            pushdown=frozenset({Pushdown.PROJECTION}),
        )

    def info(self) -> SourceInfo:
        return self._info

    def open(self, context: SourceContext) -> None:
        self._columns = context.pushed.columns
        self._given = 0
        if context.resume_from is not None:
            given, _, start = context.resume_from.partition("@")
            self._given, self._start_ms = whole_number(given), whole_number(start)
        elif self._start_ms is None:
            self._start_ms = self._clock.now_ms()
        if self._rows is not None and self._given > self._rows:
            raise gone(f"{self._given} rows were given, and there are {self._rows}")

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        assert self._start_ms is not None, "next_batch comes after open"
        if self._given == self._rows:
            return EndOfStream()
        end = self._given + max(max_rows, 1)
        if self._wait:
            elapsed_us = (self._clock.now_ms() - self._start_ms) * 1_000
            end = min(end, elapsed_us * self._rate // _SECOND_US + 1)
            if end <= self._given:
                left_us = self._given * _SECOND_US // self._rate - elapsed_us
                return Blocked(retry_after_ms=max(1, -(-left_us // 1_000)))
        if self._rows is not None:
            end = min(end, self._rows)
        table = self._table(np.arange(self._given, end, dtype=np.int64))
        self._given = end
        return Batch(projected(table, self._columns), TextOffset(f"{end}@{self._start_ms}"))

    def _table(self, numbers: npt.NDArray[np.int64]) -> pa.Table:
        assert self._start_ms is not None
        times = self._start_ms * 1_000 + numbers * _SECOND_US // self._rate
        columns: list[npt.NDArray[Any]] = [
            times.view("datetime64[us]"),
            numbers,
            (_mixed(numbers, 2 * self._seed) % np.uint64(self._keys)).astype(np.int64),
            (_mixed(numbers, 2 * self._seed + 1) >> np.uint64(11)) * 2.0**-53,
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=SCHEMA)

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """Nothing to do: rows can be made again."""

    def ack(self, offset: Offset) -> None:
        """Nothing to do: rows can be made again."""

    def close(self) -> None:
        """Nothing is held."""


def _mixed(numbers: npt.NDArray[np.int64], stream: int) -> npt.NDArray[np.uint64]:
    """64 bits for each number, of which every one looks random.

    Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    start = (stream * 0xD1342543DE82EF95 + 1) % 2**64
    state = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
