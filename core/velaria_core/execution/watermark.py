"""Watermark: how event times move it, and which of them it does not follow.

Each stream with event times has a `Timeline`: the largest time it has reached, going upward in steps of at most
`ahead_us`, so that one row dated a year ahead does not close the year. The `Tracker` of a query takes the least of
its timelines. Event times alone move them; the clock only tells which streams have been silent for long.

Invariant: the watermark never falls, and is `END` once every stream has ended.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from velaria_core.execution.state import Store
from velaria_core.execution.vectors import vector_of, whole
from velaria_core.logical.event_time import END, TimeKind
from velaria_core.types import quoted

Micros: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

JUMP_ROWS: Final = 64  # so many rows far ahead, and few others, are no error but where the stream has gone
FARTHEST: Final = 1 << 61  # sums and differences of two times fit


# --- times as numbers -------------------------------------------------------------------------------------------


class ReadTimes(NamedTuple):
    """The times of rows.

    Attributes:
        micros: microseconds since 1970 in UTC.
        valid: which rows have one; None where all have. What is no time at all counts as none.
        low, high: the least and the greatest of `micros`, of rows without a time too; of no rows END and -END.
    """

    micros: Micros
    valid: Mask | None
    low: int
    high: int

    @staticmethod
    def of(micros: Micros, valid: Mask | None = None) -> ReadTimes:
        low, high = (int(micros.min()), int(micros.max())) if len(micros) else (END, -END)
        return ReadTimes(micros, valid, low, high)

    @property
    def known(self) -> Micros:
        """The times of the rows that have one."""
        return self.micros if self.valid is None else self.micros[self.valid]


class TimeColumn:
    """Reads a column of times."""

    def __init__(self, store: Store, schema: pa.Schema, name: str, kind: TimeKind) -> None:
        self._name, self._kind = name, kind
        if kind is TimeKind.TEXT:
            self._feed = store.feed(pa.schema([schema.field(name)]))
            text = f"CAST({quoted(name)} AS VARCHAR)"
            self._parse = store.prepare(f"SELECT epoch_us(TRY_CAST({text} AS TIMESTAMP)) AS us FROM {self._feed.name}")

    def of(self, table: pa.Table) -> ReadTimes:
        """The times of these rows."""
        if self._kind is TimeKind.TEXT:
            self._feed.table = table.select([self._name])
            column = self._parse().column(0)
        else:
            column = table.column(self._name)
            if (pa.types.is_timestamp(column.type) and column.type.unit != "us") or pa.types.is_date(column.type):
                column = column.cast(pa.timestamp("us"), safe=False)
            elif not pa.types.is_timestamp(column.type) and column.type != pa.int64():
                column = column.cast(pa.int64(), safe=False)
        found = vector_of(whole(column))
        values: Micros = found.data
        if self._kind is TimeKind.INTEGER:
            values = np.clip(values, -FARTHEST // 1000, FARTHEST // 1000) * 1000
        read = ReadTimes.of(values, found.valid)
        if len(values) and (read.high > FARTHEST or read.low < -FARTHEST):
            read = ReadTimes.of(np.clip(values, -FARTHEST, FARTHEST), found.valid)
        return read


def kept(table: pa.Table, mask: Mask) -> pa.Table:
    """The rows where a mask is true. Made from a buffer: pyarrow looks for pandas in what it is given."""
    bits = pa.py_buffer(np.packbits(mask, bitorder="little"))
    return table.filter(pa.Array.from_buffers(pa.bool_(), len(mask), [None, bits]))


# --- one stream -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timeline:
    """The event times of one stream, as far as they are believed.

    Attributes:
        delay_us, ahead_us: of the operator `Watermark`.
        reached_us: the largest believed time; None before the first.
        waiting: rows that are set aside since their times are far ahead.
        nearest_us: the least of their times; None where none wait.
        first_us: the time of the first row, as long as it is the only one: nothing says yet whether it is right.
        votes: how far the rows far ahead outnumber the others of late, where each other one counts twice.
    """

    delay_us: int
    ahead_us: int
    reached_us: int | None = None
    waiting: int = 0
    nearest_us: int | None = None
    first_us: int | None = None
    votes: int = 0

    @property
    def watermark_us(self) -> int | None:
        return None if self.reached_us is None else self.reached_us - self.delay_us

    def followed(self, read: ReadTimes) -> Timeline:
        """The timeline after these times, of which those beyond its `reached_us` are not believed."""
        times = read.known
        if not len(times):
            return self
        start, latest = self.reached_us, read.high if read.valid is None else int(times.max())
        if start is not None and latest <= start + self.ahead_us:
            return self if latest <= start else replace(self, reached_us=latest)
        if start is None:
            if self.first_us is not None:
                times = np.append(times, self.first_us)
            if len(times) == 1:
                return replace(self, first_us=int(times[0]))
            # Most of the first rows are right, whatever the first of them is.
            middle = (len(times) - 1) // 2
            start = int(np.partition(times, middle)[middle])
        above = np.unique(times[times > start])
        gaps = np.flatnonzero(np.diff(above, prepend=np.int64(start)) > self.ahead_us)
        if len(gaps):
            above = above[: gaps[0]]
        return replace(self, reached_us=int(above[-1]) if len(above) else start, first_us=None)

    def voted(self, far: int, others: int) -> Timeline:
        """The timeline after so many rows far ahead and so many others."""
        votes = max(0, self.votes + far - 2 * others)
        return self if votes == self.votes else replace(self, votes=votes)

    def gone(self) -> Timeline:
        """The timeline where the stream has gone to those far ahead: it begins anew, from the rows to come."""
        return replace(self, reached_us=None, first_us=None, votes=0)

    def is_near(self) -> bool:
        """Whether rows that wait need wait no longer."""
        return (
            self.nearest_us is not None
            and self.reached_us is not None
            and self.nearest_us <= self.reached_us + self.ahead_us
        )


# --- the query --------------------------------------------------------------------------------------------------


class Timekeeper(Protocol):
    """A step whose rows move the watermark."""

    sources: frozenset[int]
    """The relations that it reads, by identity."""
    ended: bool
    """Whether each of them has ended; told before the epoch."""

    def reading_us(self, now_ms: int) -> int | None:
        """What it says of the watermark, by its rows so far; None for nothing yet."""

    def is_idle(self, now_ms: int) -> bool:
        """Whether it has been silent for so long that nobody waits for it."""

    def snapshot(self) -> dict[str, Any]:
        """What it must remember, for a checkpoint."""

    def restore(self, kept: dict[str, Any]) -> None:
        """Remember it again."""


class Tracker:
    """The watermark of a query.

    Attributes:
        watermark_us: after the last epoch, durable yet or not; None before any event time was seen.
    """

    def __init__(self, keepers: Sequence[Timekeeper], sources: frozenset[int]) -> None:
        self._keepers, self._sources = tuple(keepers), sources
        self.watermark_us: int | None = None
        self._durable_us: int | None = None

    def ends(self, ended: frozenset[int]) -> bool:
        """Whether no stream gives rows any more, given the relations that have ended; told to the keepers."""
        for keeper in self._keepers:
            keeper.ended = keeper.sources <= ended
        return self._sources <= ended

    def read(self, now_ms: int, ends: bool) -> int | None:
        """The watermark by what the keepers have seen, and the clock of their silence."""
        if ends:
            return END
        active = [keeper for keeper in self._keepers if not keeper.ended and not keeper.is_idle(now_ms)]
        # Where all that have not ended are silent, time goes as far as those that ended have told.
        readings = [keeper.reading_us(now_ms) for keeper in active or self._keepers if active or keeper.ended]
        found = self.watermark_us
        known = [reading for reading in readings if reading is not None]
        if known and len(known) == len(readings):
            found = min(known) if found is None else max(found, min(known))
        return found

    def advance(self, now_ms: int, ends: bool, told_us: int | None = None) -> int | None:
        """Take the watermark on, with what the keepers have seen in this epoch, or to what another tracker has told."""
        self.watermark_us = self.read(now_ms, ends) if told_us is None else told_us
        return self.watermark_us

    def committed(self) -> None:
        self._durable_us = self.watermark_us

    def rolled_back(self) -> None:
        self.watermark_us = self._durable_us

    def snapshot(self) -> str:
        """What a checkpoint keeps, as JSON, with the epoch at hand."""
        keepers = [keeper.snapshot() for keeper in self._keepers]
        return json.dumps({"watermark_us": self.watermark_us, "keepers": keepers})

    def restore(self, text: str) -> None:
        """Go on from a checkpoint."""
        found = json.loads(text)
        self.watermark_us = self._durable_us = found["watermark_us"]
        for keeper, remembered in zip(self._keepers, found["keepers"], strict=True):
            keeper.restore(remembered)
