"""Held rows: rows in columns of memory, found by a hash of their key at a cost that does not follow their number.

A row has a position, from 0 in the order in which rows came, which is where its values stand in every column. Positions
are found by runs: sorted arrays of the upper half of a hash with the position below it, 64 bits an entry, merged as
their lengths meet (O'Neil et al., The Log-Structured Merge-Tree, Acta Informatica 1996). Many rows of a key cost no
more than their number, and nothing is compared here: half a hash finds all rows of a key, and now and then some of
another, which whoever asked leaves out as it meets them.

Where rows have a time, those whose time has come are found in the same way, by their time instead of a hash.

Rows that are forgotten leave their positions behind until these are many; then the others move together, between
epochs. What an epoch added and forgot can be undone.

Cost: finding n keys is O(n log rows) and the rows found; adding is O(log rows) a row in the long run, and an epoch in
which large runs meet pays for all at once, 0.1 s at ten million. 8 bytes a row for its entry, 1 to tell that it is
there, and its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from velaria_core.execution.chunked_column import ChunkedColumn
from velaria_core.execution.keyed_store import Column, can_be_key, keys_of
from velaria_core.execution.vectors import Array, Mask, Rows, whole
from velaria_core.execution.watermark import Micros

_POSITION: Final = np.uint64((1 << 32) - 1)
_HALF: Final = np.uint64(32)
_HALVES: Final = 1 << 32
_SMALL_RUN: Final = 4096  # shorter runs are merged whatever their lengths: each one costs a finding its calls
_KEPT_FORGOTTEN: Final = 16_384  # positions that may be forgotten before moving the others is worth the while

_SECOND_BITS: Final = 21  # of microseconds: the 32 bits of a run's entry then reach from 1827 to 2112


def can_be_held(kind: pa.DataType) -> bool:
    """Whether such columns can be in memory here: not codes, of whose dictionary each batch has its own."""
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
        return False
    return can_be_key(kind) or all(can_be_held(kind.field(at).type) for at in range(kind.num_fields))


class Runs:
    """Positions by the upper half of a hash."""

    def __init__(self) -> None:
        self._runs: list[Array] = []  # each less than half as long as the one before it, or short

    def add(self, hashes: Array, positions: Rows) -> None:
        """Positions for (n,) uint64 hashes."""
        fresh = (hashes & ~_POSITION) | positions.astype(np.uint64)
        fresh.sort()
        size, met = len(fresh), [fresh]
        while self._runs and len(self._runs[-1]) <= max(2 * size, _SMALL_RUN):
            met.append(self._runs.pop())
            size += len(met[-1])
        if len(met) > 1:
            fresh = np.concatenate(met[::-1])
            fresh.sort(kind="stable")  # of sorted parts a merge
        self._runs.append(fresh)

    def find(self, hashes: Array) -> Rows:
        """The positions that have one of these hashes, as far as half of it tells; rising."""
        wanted = np.sort(hashes & ~_POSITION)
        wanted = wanted[np.append(True, wanted[1:] != wanted[:-1])[: len(wanted)]]  # np.unique takes ten times as long
        found = []
        for run in self._runs:
            low = np.searchsorted(run, wanted)
            there = np.flatnonzero(run[np.minimum(low, len(run) - 1)] >> _HALF == wanted >> _HALF)
            if len(there):
                low = low[there]
                found.append(run[_ranges(low, np.searchsorted(run, wanted[there] | _POSITION, side="right"))])
        return _positions(found)

    def between(self, low: int, high: int) -> Rows:
        """The positions whose half of a hash is from `low` to before `high`; rising."""
        ends = np.array([low, high - 1], np.uint64) << _HALF
        ends[1] |= _POSITION
        found = []
        for run in self._runs:
            first, end = np.searchsorted(run, ends[:1])[0], np.searchsorted(run, ends[1:], side="right")[0]
            found.append(run[first:end])
        return _positions(found)

    def truncate(self, count: int) -> None:
        """Let go of the positions from `count` on."""
        self._filtered([run[(run & _POSITION) < np.uint64(count)] for run in self._runs])

    def move(self, kept: Mask) -> None:
        """Keep these positions only, as 0, 1, 2, ..."""
        to = np.cumsum(kept, dtype=np.uint64) - np.uint64(1)
        runs = []
        for run in self._runs:
            positions = (run & _POSITION).view(np.int64)
            there = kept[positions]
            runs.append((run[there] & ~_POSITION) | to[positions[there]])
        self._filtered(runs)

    def _filtered(self, runs: list[Array]) -> None:
        self._runs = [run for run in runs if len(run)]

    @property
    def nbytes(self) -> int:
        return sum(int(run.nbytes) for run in self._runs)


def _slots(times: Micros) -> Array:
    """The upper halves of entries by time, (n,) uint64: rising with the times, and equal for some that are near."""
    slots: Array = np.clip((times >> _SECOND_BITS) + (1 << 31), 0, _HALVES - 1).astype(np.uint64)
    return slots


def _slot(us: int) -> int:
    return min(max((us >> _SECOND_BITS) + (1 << 31), 0), _HALVES - 1)


def _ranges(low: Rows, high: Rows) -> Rows:
    """All numbers from each of `low` to before its `high`."""
    counts = high - low
    ends = np.cumsum(counts)
    made: Rows = np.repeat(low - (ends - counts), counts) + np.arange(ends[-1])
    return made


def _positions(entries: list[Array]) -> Rows:
    if not entries:
        return np.empty(0, np.int64)
    found: Rows = (np.concatenate(entries) & _POSITION).view(np.int64)
    found.sort()
    return found


class HeldRows:
    """Rows of one schema, all of whose types `can_be_held`, by the hashes that come with them.

    Attributes:
        count: positions given; the next row gets this one.
        live: rows.
        sum: what their counts add up to, where a column says how often each is there; else as many.
    """

    def __init__(self, schema: pa.Schema, counts: str | None = None) -> None:
        self.schema = schema
        self.count = self.live = self.sum = 0
        self._counts = counts
        self._columns = [
            keys_of(field.type) if can_be_key(field.type) else ChunkedColumn(field.type) for field in schema
        ]
        self._runs = Runs()
        self._is_live = Column(np.dtype(np.bool_))
        self._times = Column(np.dtype(np.int64))
        self._by_time = Runs()
        self._waiting = 0  # no entry by time before this one is of a row that is there
        self._at = 0  # where the next part begins
        self._committed = (0, 0, 0)  # count, live and sum
        self._forgotten: list[Rows] = []  # since the last commit

    def append(self, rows: pa.Table, hashes: Array, times: tuple[Micros, Mask | None] | None = None) -> None:
        """Rows with (n,) uint64 hashes of their keys, and perhaps times, which are there where the mask says so."""
        more = rows.num_rows
        if not more:
            return
        assert self.count + more < _HALVES
        for column, values in zip(self._columns, rows.columns, strict=True):
            column.append(self.count, whole(values))
        self._is_live.reserve(self.count + more)
        self._is_live.data[self.count : self.count + more] = True
        positions = np.arange(self.count, self.count + more)
        self._runs.add(hashes, positions)
        if times is not None:
            self._wait(positions, *times)
        self.count += more
        self.live += more
        self.sum += self._sum(rows)

    def find(self, hashes: Array) -> pa.Table:
        """The rows of these keys, and perhaps some of others, in the order in which they came."""
        return self.take(self.positions(hashes))

    def positions(self, hashes: Array) -> Rows:
        """Where these rows are; rising."""
        return self._living(self._runs.find(hashes))

    def until(self, us: int) -> Rows:
        """The positions of the rows whose time is this or before it; rising."""
        high = _slot(us)
        found = self._living(self._by_time.between(self._waiting, high + 1))
        due: Rows = found[self._times.data[found] <= us]
        return due

    def seen_until(self, us: int) -> None:
        """Rows of up to this time have been forgotten: those that are left are what `until` looks at from now on."""
        left = self.until(us)
        self._waiting = _slot(int(self._times.data[left].min()) if len(left) else us)

    def _wait(self, positions: Rows, times: Micros, there: Mask | None) -> None:
        self._times.reserve(self.count + len(positions))
        self._times.data[positions] = times
        if there is not None:
            positions, times = positions[there], times[there]
        if len(positions):
            slots = _slots(times)
            self._by_time.add(slots << _HALF, positions)
            self._waiting = min(self._waiting, int(slots.min()))

    def part(self, rows: int) -> Rows:
        """The positions of a part of the rows, about so many and all of each key; each time of the next part."""
        low = self._at
        high = min(low + max(1, _HALVES * rows // max(self.count, 1)), _HALVES)
        self._at = high % _HALVES
        return self._living(self._runs.between(low, high))

    def alive(self) -> Rows:
        """The positions of all rows."""
        return np.flatnonzero(self._is_live.data[: self.count])

    def take(self, positions: Rows, names: Sequence[str] | None = None) -> pa.Table:
        """The rows at these positions, which rise; of these columns only, where some are named."""
        at = range(len(self.schema)) if names is None else [self.schema.get_field_index(name) for name in names]
        schema = pa.schema([self.schema.field(one) for one in at])
        return pa.Table.from_arrays([self._columns[one].take(positions) for one in at], schema=schema)

    def _living(self, positions: Rows) -> Rows:
        return positions if self.live == self.count else positions[self._is_live.data[positions]]

    def forget(self, positions: Rows) -> None:
        """Let the rows at these positions, which hold some, go."""
        if len(positions):
            self._is_live.data[positions] = False
            self.live -= len(positions)
            self.sum -= len(positions) if self._counts is None else self._sum(self.take(positions, [self._counts]))
            self._forgotten.append(positions)

    def _sum(self, rows: pa.Table) -> int:
        return rows.num_rows if self._counts is None else int(rows.column(self._counts).to_numpy().sum())

    def committed(self) -> None:
        """The epoch is durable. Positions may change."""
        self._forgotten.clear()
        if self.count - self.live > _KEPT_FORGOTTEN + self.live // 2:
            kept = self._is_live.data[: self.count].copy()
            slots = np.flatnonzero(kept)
            for column in self._columns:
                column.move(slots)
            if len(self._times.data):
                self._times.data[: len(slots)] = self._times.data[slots]
                self._times.shrink(len(slots))
            for runs in (self._runs, self._by_time):
                runs.move(kept)
            self._is_live.shrink(len(slots))
            self._is_live.data[:] = True
            self.count = len(slots)
        self._committed = (self.count, self.live, self.sum)

    def rolled_back(self) -> None:
        """The epoch failed: the rows are those of before it."""
        for positions in self._forgotten:
            self._is_live.data[positions] = True
        self._forgotten.clear()
        self.count, self.live, self.sum = self._committed
        for column in self._columns:
            column.truncate(self.count)
        for runs in (self._runs, self._by_time):
            runs.truncate(self.count)
        self._waiting = 0

    @property
    def nbytes(self) -> int:
        columns = sum(column.nbytes for column in self._columns)
        runs = self._runs.nbytes + self._by_time.nbytes
        return columns + runs + int(self._is_live.data.nbytes) + int(self._times.data.nbytes)
