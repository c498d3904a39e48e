"""Keyed store: values by key in NumPy columns, looked up and folded a batch of distinct keys at a time.

`KeyIndex` gives every key a slot: a number from 0 that is its row in every column. It is a hash table with open
addressing and linear probing (Knuth, TAOCP 3, 6.4), worked on by whole vectors: each round looks at one place for all
keys that are not settled yet, and most are after the first. An entry is 64 bits, the upper half of the key's hash and
the slot, so that a probe touches one cache line, a full table is enough to build a larger one, and keys are only
compared where half a hash agrees. Keys are compared exactly, and NULL is a key like any other.

`KeyedStore` adds accumulators by slot. Slots are given in rising order and never one by one given back: a forgotten
key leaves its slot behind, and when most slots are forgotten the others move together. What one epoch changed is known
until it is committed, and can be undone.

Cost: a lookup of n keys is O(n) in vector operations, whatever the number of keys kept; growing is O(keys), each time
their number has doubled. 8 to 24 bytes a key for the index, the key, and 8 or 16 bytes an accumulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.execution.vectors import (
    Array,
    Mask,
    Rows,
    Vector,
    add_128,
    array_of,
    integers,
    is_fixed,
    less_128,
    storage,
    truths,
    valid_of,
    vector_of,
)
from velaria_core.logical.partials import Fold

_SLOT: Final = np.uint64((1 << 32) - 1)
_HALF: Final = np.uint64(32)
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_NULL_WORD: Final = np.uint64(0x5851F42D4C957F2D)
_SMALLEST_BITS: Final = 10
_LARGE_BITS: Final = 18  # a table of so many places is worth filling
_AT_ONCE: Final = 1 << 18  # entries that are put into a new table together, so that what they need stays in the cache
_KEPT_FORGOTTEN: Final = 4096  # slots that may be forgotten before moving the others is worth the while


class Column:
    """A growing array; its first `count` rows are what it holds."""

    def __init__(self, kind: np.dtype[Any], words: int = 1) -> None:
        self.data: Array = np.zeros((0, words) if words > 1 else 0, kind)

    def reserve(self, count: int) -> None:
        """Room for so many rows; new ones are zero.

        By a quarter, for memory is moved by its page table: growing costs no copy of what is large.
        """
        if count > len(self.data):
            room = max(count, 1024, len(self.data) + len(self.data) // 4)
            self.data.resize((room, *self.data.shape[1:]), refcheck=False)

    def shrink(self, count: int) -> None:
        """No more room than for so many rows."""
        self.data.resize((count, *self.data.shape[1:]), refcheck=False)


# --- keys --------------------------------------------------------------------------------------------------------


class Keys(Protocol):
    """One column of keys, by slot."""

    def same(self, slots: Rows, given: pa.Array) -> Mask:
        """Which of the keys in these slots are those given, one by one; NULL is NULL, and NaN is NaN."""

    def append(self, count: int, given: pa.Array) -> None:
        """Keys for the slots from `count` on."""

    def truncate(self, count: int) -> None:
        """Let go of the slots from `count` on."""

    def take(self, slots: Rows) -> pa.Array:
        """The keys in these slots."""

    def move(self, slots: Rows) -> None:
        """Keep these slots only, as the first ones."""

    @property
    def nbytes(self) -> int:
        """Memory taken."""


class _Nulls:
    """Which slots hold NULL; takes no room until one does."""

    def __init__(self) -> None:
        self._is_null: Column | None = None

    def append(self, count: int, valid: Mask | None, rows: int) -> None:
        if valid is not None and self._is_null is None:
            self._is_null = Column(np.dtype(np.bool_))
        if self._is_null is not None:
            self._is_null.reserve(count + rows)
            self._is_null.data[count : count + rows] = False if valid is None else ~valid

    def at(self, slots: Rows) -> Mask | None:
        return None if self._is_null is None else self._is_null.data[slots]

    def valid_at(self, slots: Rows) -> Mask | None:
        null = self.at(slots)
        return None if null is None or not null.any() else ~null

    def move(self, slots: Rows) -> None:
        if self._is_null is not None:
            self._is_null.data[: len(slots)] = self._is_null.data[slots]
            self._is_null.shrink(len(slots))

    def agree(self, slots: Rows, same: Mask, valid: Mask | None) -> Mask:
        """`same`, put right where one of the two is NULL."""
        null = self.at(slots)
        if null is None and valid is None:
            return same
        mine = np.zeros(len(slots), np.bool_) if null is None else null
        theirs = np.zeros(len(slots), np.bool_) if valid is None else ~valid
        agreed: Mask = np.where(mine | theirs, mine & theirs, same)
        return agreed

    @property
    def nbytes(self) -> int:
        return 0 if self._is_null is None else self._is_null.data.nbytes


class FixedKeys:
    """Keys of one width: numbers, times, booleans, decimals."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._values = Column(*storage(kind))
        self._nulls = _Nulls()

    def same(self, slots: Rows, given: pa.Array) -> Mask:
        vector = vector_of(given)
        mine = self._values.data[slots]
        same = mine == vector.data
        if mine.ndim == 2:
            same = same.all(axis=1)
        elif mine.dtype.kind == "f":
            same |= (mine != mine) & (vector.data != vector.data)
        return self._nulls.agree(slots, same, vector.valid)

    def append(self, count: int, given: pa.Array) -> None:
        vector = vector_of(given)
        self._values.reserve(count + len(given))
        self._values.data[count : count + len(given)] = vector.data
        self._nulls.append(count, vector.valid, len(given))

    def truncate(self, count: int) -> None:
        """Slots beyond the count are not looked at."""

    def take(self, slots: Rows) -> pa.Array:
        return array_of(Vector(self._values.data[slots], self._nulls.valid_at(slots)), self._kind)

    def move(self, slots: Rows) -> None:
        self._values.data[: len(slots)] = self._values.data[slots]
        self._values.shrink(len(slots))
        self._nulls.move(slots)

    @property
    def nbytes(self) -> int:
        return self._values.data.nbytes + self._nulls.nbytes


class TextKeys:
    """Keys of any length, text or binary: one after the other, and where each begins."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._large = pa.large_string() if pa.types.is_string(kind) else pa.large_binary()
        self._starts = Column(np.dtype(np.int64))
        self._starts.reserve(1)
        self._bytes = Column(np.dtype(np.uint8))
        self._nulls = _Nulls()
        self._count = 0

    def _view(self) -> pa.Array:
        """The keys as an Arrow array over the memory here; to be dropped before that grows."""
        buffers = [None, pa.py_buffer(self._starts.data), pa.py_buffer(self._bytes.data)]
        return pa.Array.from_buffers(self._large, self._count, buffers)

    def same(self, slots: Rows, given: pa.Array) -> Mask:
        _, offsets, data = given.buffers()
        plain = pa.Array.from_buffers(given.type, len(given), [None, offsets, data], offset=given.offset)
        same = truths(pc.equal(self._view().take(integers(slots)), plain))
        return self._nulls.agree(slots, same, valid_of(given))

    def append(self, count: int, given: pa.Array) -> None:
        _, offsets, data = given.buffers()
        rows = len(given)
        ends = np.frombuffer(offsets, np.int32)[given.offset : given.offset + rows + 1].astype(np.int64)
        used = int(self._starts.data[count])
        total = used + int(ends[-1] - ends[0])
        self._starts.reserve(count + rows + 1)
        self._starts.data[count + 1 : count + rows + 1] = ends[1:] + (used - ends[0])
        self._bytes.reserve(total)
        if total > used:
            self._bytes.data[used:total] = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
        self._nulls.append(count, valid_of(given), rows)
        self._count = count + rows

    def truncate(self, count: int) -> None:
        self._count = min(self._count, count)

    def take(self, slots: Rows) -> pa.Array:
        taken = self._view().take(integers(slots))
        if (valid := self._nulls.valid_at(slots)) is not None:
            _, offsets, data = taken.buffers()
            packed = pa.py_buffer(np.packbits(valid, bitorder="little"))
            taken = pa.Array.from_buffers(self._large, len(taken), [packed, offsets, data])
        return taken.cast(self._kind)

    def move(self, slots: Rows) -> None:
        _, offsets, data = self._view().take(integers(slots)).buffers()
        starts = np.frombuffer(offsets, np.int64)[: len(slots) + 1] if len(slots) else np.zeros(1, np.int64)
        total = int(starts[-1])
        self._starts.data[: len(starts)] = starts
        self._starts.shrink(len(starts))
        if total:
            self._bytes.data[:total] = np.frombuffer(data, np.uint8)[:total]
        self._bytes.shrink(total)
        self._nulls.move(slots)
        self._count = len(slots)

    @property
    def nbytes(self) -> int:
        return self._starts.data.nbytes + self._bytes.data.nbytes + self._nulls.nbytes


def can_be_key(kind: pa.DataType) -> bool:
    """Whether a column of this type can be (part of) a key."""
    return is_fixed(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind)


def is_mixed(kind: pa.DataType) -> bool:
    """Whether `hashes_of` hashes keys of this type itself: whole numbers, and what is stored as such."""
    return is_fixed(kind) and storage(kind)[0].kind in "iu"


def hashes_of(keys: Sequence[pa.Array], others: Array | None) -> Array:
    """(n,) uint64, equal for equal keys.

    Each word of those that `is_mixed` goes through the finaliser of Steele et al., SplitMix, OOPSLA 2014.

    Args:
        keys: n values each, by column; one column at least.
        others: (n,) uint64, the hashes of the columns that are not; None where all are.
    """
    hashes = np.zeros(len(keys[0]), np.uint64) if others is None else others.copy()
    for key in keys:
        if not is_mixed(key.type):
            continue
        vector = vector_of(key)
        words = vector.data if vector.data.ndim == 2 else vector.data.astype(np.int64).view(np.uint64)[:, None]
        for word in words.T:
            hashes ^= word if vector.valid is None else np.where(vector.valid, word, _NULL_WORD)
            hashes += _GOLDEN
            hashes ^= hashes >> np.uint64(30)
            hashes *= _MIX_1
            hashes ^= hashes >> np.uint64(27)
            hashes *= _MIX_2
            hashes ^= hashes >> np.uint64(31)
    return hashes


def keys_of(kind: pa.DataType) -> Keys:
    """An empty column of this type."""
    return FixedKeys(kind) if is_fixed(kind) else TextKeys(kind)


# --- the index ---------------------------------------------------------------------------------------------------


class KeyIndex:
    """Exact keys to slots.

    Attributes:
        count: slots given; the next key gets this one.
        columns: the keys by slot.
    """

    def __init__(self, kinds: Sequence[pa.DataType]) -> None:
        self.columns = [keys_of(kind) for kind in kinds]
        self.count = 0
        self._committed = 0
        self._written: list[Rows] | None = []  # places taken since the last commit; None: the table was built anew
        self._make(_SMALLEST_BITS)

    def _make(self, bits: int) -> None:
        self._bits = bits
        self._table: Array = np.zeros(1 << bits, np.uint64)
        self._mask = (1 << bits) - 1

    def find(self, hashes: Array, keys: Sequence[pa.Array]) -> tuple[Rows, Rows]:
        """Slots of keys, and places in the table.

        Args:
            hashes: (n,) uint64; equal keys have equal hashes.
            keys: a column of n for each key column, of its type.
        Returns:
            (n,) slots, -1 where the key is not there; (n,) where the key stands, or may be put.
        """
        wanted = hashes >> _HALF
        places = self._home(wanted)
        entries = self._table[places]
        maybe = (entries >> _HALF == wanted) & (entries != 0)
        slots = (entries & _SLOT).view(np.int64) - 1
        if maybe.all():
            found = self._same(slots, keys, None)
            if found.all():
                return slots, places
            settled = found
        else:
            settled = entries == 0
            candidates = np.flatnonzero(maybe)
            if len(candidates):
                settled[candidates] = self._same(slots[candidates], keys, candidates)
        rows = np.flatnonzero(~settled)
        while len(rows):
            probed = (places[rows] + 1) & self._mask
            places[rows] = probed
            entries = self._table[probed]
            vacant = entries == 0
            candidates = np.flatnonzero((entries >> _HALF == wanted[rows]) & ~vacant)
            slots[rows] = (entries & _SLOT).view(np.int64) - 1
            settled = vacant
            if len(candidates):
                settled = vacant.copy()
                settled[candidates] = self._same(slots[rows[candidates]], keys, rows[candidates])
            rows = rows[~settled]
        return slots, places

    def _home(self, wanted: Array) -> Rows:
        """Where the probing for these halves of hashes begins."""
        places: Rows = (wanted >> np.uint64(32 - self._bits)).view(np.int64)
        return places

    def _same(self, slots: Rows, keys: Sequence[pa.Array], rows: Rows | None) -> Mask:
        """Whether the keys of these slots are the given ones at `rows` (all of them for None)."""
        picked = None if rows is None else integers(rows)
        same: Mask | None = None
        for column, given in zip(self.columns, keys, strict=True):
            found = column.same(slots, given if picked is None else given.take(picked))
            same = found if same is None else same & found
        assert same is not None
        return same

    def intern(self, hashes: Array, keys: Sequence[pa.Array]) -> Rows:
        """Slots of distinct keys; those not there yet get the next ones, in the order of their rows."""
        slots, places = self.find(hashes, keys)
        fresh = np.flatnonzero(slots < 0)
        if len(fresh) == 0:
            return slots
        places = places[fresh]
        wanted = hashes[fresh] >> _HALF
        if self._grow(self.count + len(fresh)):
            places = self._home(wanted)
        given = np.arange(self.count, self.count + len(fresh), dtype=np.int64)
        slots[fresh] = given
        if len(fresh) == len(slots):
            added = list(keys)
        else:
            rows = integers(fresh)
            added = [column.take(rows) for column in keys]
        for column, values in zip(self.columns, added, strict=True):
            column.append(self.count, values)
        self._put((wanted << _HALF) | (given + 1).view(np.uint64), places)
        self.count += len(fresh)
        return slots

    def _put(self, entries: Array, places: Rows) -> None:
        """Write entries, each at its place or the next vacant one. Of several that want a place the last gets it."""
        table, mask = self._table, self._mask
        while len(entries):
            free = np.flatnonzero(table[places] == 0)
            at = places[free]
            table[at] = entries[free]
            placed = table[places] == entries
            if self._written is not None:
                self._written.append(places[placed])
            left = ~placed
            entries = entries[left]
            places = (places[left] + 1) & mask

    def _grow(self, count: int) -> bool:
        """Make room for so many keys; whether the table is another one now."""
        bits = _bits_for(count, self._bits)
        if bits == self._bits:
            return False
        self._build(bits, self._taken())
        return True

    def _taken(self) -> Array:
        """All entries. They stand nearly in the order of their hashes, also in another table of any size."""
        entries: Array = self._table[self._table != 0]
        return entries

    def _build(self, bits: int, entries: Array) -> None:
        """The table anew, of this size, with these entries."""
        self._written = None
        self._table = np.empty(0, np.uint64)  # let go of the old one before there is a new one
        self._make(bits)
        for first in range(0, len(entries), _AT_ONCE):
            some = entries[first : first + _AT_ONCE]
            self._put(some, self._home(some >> _HALF))

    def rolled_back(self) -> None:
        """Without the keys since the last commit."""
        if self._written is None:
            entries = self._taken()
            self._build(self._bits, entries[(entries & _SLOT) <= np.uint64(self._committed)])
        else:
            # These came last, so no other key was placed with an eye on them.
            for places in self._written:
                self._table[places] = 0
        self.count = self._committed
        for column in self.columns:
            column.truncate(self.count)
        self._written = []

    def committed(self) -> None:
        """Keep the keys."""
        self._committed = self.count
        self._written = []

    def move(self, slots: Rows) -> None:
        """Keep the keys of these slots only, as slots 0, 1, 2, ...; rising slots, and nothing since the last commit."""
        to = np.zeros(self.count + 1, np.uint64)
        to[slots + 1] = np.arange(1, len(slots) + 1, dtype=np.uint64)
        entries = self._taken()
        moved = to[(entries & _SLOT).view(np.int64)]
        kept = moved != 0
        for column in self.columns:
            column.move(slots)
        self.count = len(slots)
        self._build(_bits_for(2 * self.count), (entries[kept] >> _HALF << _HALF) | moved[kept])
        self.committed()

    @property
    def nbytes(self) -> int:
        return int(self._table.nbytes) + sum(column.nbytes for column in self.columns)


def _bits_for(count: int, bits: int = _SMALLEST_BITS) -> int:
    """The size of a table for so many keys, at least this one. Fuller tables take less memory and more rounds, each of
    which costs its calls: 12 rounds at 0.6, 4 at 0.25."""
    while count > (0.25 if bits <= _LARGE_BITS else 0.6) * (1 << bits):
        bits += 1
    return bits


# --- accumulators ------------------------------------------------------------------------------------------------


class Accumulator:
    """One partial column by slot. A slot that nothing was folded into is zero, and NULL for an extreme."""

    def __init__(self, fold: Fold, kind: pa.DataType) -> None:
        self.kind = kind
        self._fold = fold
        self._values = Column(*storage(kind))
        # A sum of no values is zero here; the count beside it tells that it is NULL.
        self._present = None if fold is Fold.ADD else Column(np.dtype(np.bool_))

    def reserve(self, count: int) -> None:
        self._values.reserve(count)
        if self._present is not None:
            self._present.reserve(count)

    def take(self, slots: Rows) -> Vector:
        return Vector(self._values.data[slots], None if self._present is None else self._present.data[slots])

    def put(self, slots: Rows, values: Vector) -> None:
        self._values.data[slots] = values.data
        if self._present is not None:
            self._present.data[slots] = values.present

    def empty(self, count: int) -> Vector:
        """So many values into which nothing was folded."""
        data = np.zeros((count, *self._values.data.shape[1:]), self._values.data.dtype)
        return Vector(data, None if self._present is None else np.zeros(count, np.bool_))

    def folded(self, old: Vector, given: Vector) -> Vector:
        """What is kept when `given` comes to `old`."""
        if self._fold is Fold.ADD:
            data = given.data
            if given.valid is not None:
                data = data.copy()
                data[~given.valid] = 0
            return Vector(add_128(old.data, data) if data.ndim == 2 else old.data + data)
        takes = given.present & (~old.present | self._beyond(given.data, old.data))
        chosen = takes[:, None] if old.data.ndim == 2 else takes
        return Vector(np.where(chosen, given.data, old.data), old.present | given.present)

    def _beyond(self, one: Array, other: Array) -> Mask:
        """Where `one` is further out than `other`, in the engine's order: NaN is the greatest."""
        if self._fold is Fold.MAX:
            one, other = other, one
        if one.ndim == 2:
            return less_128(one, other)
        below: Mask = one < other
        if one.dtype.kind == "f":
            below |= (other != other) & (one == one)
        return below

    def move(self, slots: Rows) -> None:
        for column in (self._values, self._present):
            if column is not None:
                column.data[: len(slots)] = column.data[slots]
                column.shrink(len(slots))

    def clear(self, slots: Rows | slice) -> None:
        self._values.data[slots] = 0
        if self._present is not None:
            self._present.data[slots] = False

    @property
    def nbytes(self) -> int:
        return int(self._values.data.nbytes) + (0 if self._present is None else self._present.data.nbytes)


@dataclass(frozen=True, slots=True)
class Folded:
    """What a fold did, row by row of what was given.

    Attributes:
        slots: where the keys are.
        old, new: the accumulators before and after.
        known: which keys were there before.
    """

    slots: Rows
    old: tuple[Vector, ...]
    new: tuple[Vector, ...]
    known: Mask


@dataclass(slots=True)
class _Undo:
    """What was done since the last commit, in order: folds, and slots that were forgotten."""

    done: list[Folded | Rows] = field(default_factory=list)
    due: list[tuple[int, int, int]] = field(default_factory=list)  # runs of slots that were taken from the heap


class KeyedStore:
    """Accumulators by key.

    With `closes`, every key has a moment at which event time closes it, and is forgotten after it.
    """

    def __init__(self, keys: Sequence[pa.DataType], columns: Sequence[tuple[Fold, pa.DataType]], closes: bool) -> None:
        self._index = KeyIndex(keys) if keys else None
        self.accumulators = [Accumulator(fold, kind) for fold, kind in columns]
        self._alive = Column(np.dtype(np.bool_))
        self._closes = Column(np.dtype(np.int64)) if closes else None
        # Runs of slots that were new together, (earliest close, first slot, slot after the last): a heap.
        self._runs: list[tuple[int, int, int]] = []
        self._keyless = 0
        self._gone = 0
        self._undo = _Undo()

    @property
    def count(self) -> int:
        """Slots, forgotten ones too."""
        return self._keyless if self._index is None else self._index.count

    @property
    def closes_keys(self) -> bool:
        """Whether event time closes keys."""
        return self._closes is not None

    @property
    def live(self) -> int:
        """Keys."""
        return self.count - self._gone

    @property
    def nbytes(self) -> int:
        index = 0 if self._index is None else self._index.nbytes
        closes = 0 if self._closes is None else self._closes.data.nbytes
        return sum(one.nbytes for one in self.accumulators) + index + self._alive.data.nbytes + closes

    def fold(
        self,
        hashes: Array,
        keys: Sequence[pa.Array],
        columns: Sequence[Vector],
        closes: Array | None = None,
        *,
        replace: bool = False,
    ) -> Folded:
        """Take in partial rows of distinct keys; with `replace` as the values themselves.

        Args:
            hashes: (n,) uint64.
            keys, columns: n values each, by column.
            closes: (n,) int64, microseconds since 1970.
        """
        before = self.count
        if self._index is None:
            slots = np.zeros(len(hashes), np.int64)
            self._keyless = 1
        else:
            slots = self._index.intern(hashes, keys)
        if self.count > before:
            self._reserve(before, self.count)
        if self._closes is not None and self.count > before:
            assert closes is not None
            fresh = slots >= before
            self._closes.data[slots[fresh]] = closes[fresh]
            heappush(self._runs, (int(closes[fresh].min()), before, self.count))
        known = self._alive.data[slots]
        forgotten = slots[~known & (slots < before)]
        if len(forgotten):
            # Nothing is lost to `rolled_back`: a key comes again after its last row went, which left zeros.
            self._gone -= len(forgotten)
            for accumulator in self.accumulators:
                accumulator.clear(forgotten)
        old = tuple(accumulator.take(slots) for accumulator in self.accumulators)
        new = (
            tuple(columns)
            if replace
            else tuple(
                accumulator.folded(held, given)
                for accumulator, held, given in zip(self.accumulators, old, columns, strict=True)
            )
        )
        for accumulator, values in zip(self.accumulators, new, strict=True):
            accumulator.put(slots, values)
        self._alive.data[slots] = True
        made = Folded(slots, old, new, known)
        self._undo.done.append(made)
        return made

    def _reserve(self, before: int, count: int) -> None:
        self._alive.reserve(count)
        self._alive.data[before:count] = False
        if self._closes is not None:
            self._closes.reserve(count)
        for accumulator in self.accumulators:
            accumulator.reserve(count)
            accumulator.clear(slice(before, count))  # an epoch that failed may have left something

    def closed(self, watermark_us: int) -> Rows:
        """The slots of the keys that this watermark closes; they are to be forgotten."""
        if self._closes is None:
            return np.empty(0, np.int64)
        found = []
        while self._runs and self._runs[0][0] <= watermark_us:
            run = heappop(self._runs)
            self._undo.due.append(run)
            _, first, end = run
            closes, alive = self._closes.data[first:end], self._alive.data[first:end]
            found.append(first + np.flatnonzero(alive & (closes <= watermark_us)))
            later = closes[closes > watermark_us]  # forgotten ones too: their keys may come again
            if len(later):
                heappush(self._runs, (int(later.min()), first, end))
        if not found:
            return np.empty(0, np.int64)
        return np.sort(np.concatenate(found))

    def forget(self, slots: Rows) -> None:
        """Let the keys of these slots, which hold some, go."""
        if len(slots):
            self._alive.data[slots] = False
            self._gone += len(slots)
            self._undo.done.append(slots)

    def closes_by(self, watermark_us: int) -> bool:
        """Whether this watermark closes a key."""
        return bool(self._runs) and self._runs[0][0] <= watermark_us

    def keys(self, slots: Rows) -> list[pa.Array]:
        """The keys in these slots, by column."""
        return [] if self._index is None else [column.take(slots) for column in self._index.columns]

    def values(self, slots: Rows) -> tuple[Vector, ...]:
        """The accumulators of these slots."""
        return tuple(accumulator.take(slots) for accumulator in self.accumulators)

    def put(self, slots: Rows, columns: Sequence[Vector]) -> None:
        """Set the accumulators of these slots, outside of any epoch; of a slot that is there twice, the last."""
        for accumulator, values in zip(self.accumulators, columns, strict=True):
            accumulator.put(slots, values)

    def closes(self, slots: Rows) -> Array:
        """When these slots close."""
        assert self._closes is not None
        return self._closes.data[slots]

    def alive(self, first: int, end: int) -> Rows:
        """The slots from `first` to before `end` that hold a key."""
        return first + np.flatnonzero(self._alive.data[first:end])

    # --- epochs ----------------------------------------------------------------------------------------------

    def committed(self) -> Rows | None:
        """The epoch is durable. Where slots have moved, those that are left, in their new order."""
        self._undo = _Undo()
        if self._index is None:
            return None
        self._index.committed()
        if self._gone < _KEPT_FORGOTTEN or self._gone <= self.live:
            return None
        return self._move()

    def _move(self) -> Rows:
        """Move the keys that are left together; their slots until now."""
        assert self._index is not None
        slots = self.alive(0, self.count)
        for accumulator in self.accumulators:
            accumulator.move(slots)
        if self._closes is not None:
            self._closes.data[: len(slots)] = self._closes.data[slots]
            self._closes.shrink(len(slots))
            self._runs = [
                (int(self._closes.data[first : first + _KEPT_FORGOTTEN].min()), first, first + _KEPT_FORGOTTEN)
                for first in range(0, len(slots), _KEPT_FORGOTTEN)
            ]
            self._runs = [(at, first, min(end, len(slots))) for at, first, end in self._runs]
            heapify(self._runs)
        self._alive.shrink(len(slots))
        self._alive.data[:] = True
        self._index.move(slots)
        self._gone = 0
        return slots

    def rolled_back(self) -> None:
        """The epoch failed: everything is as it was before it."""
        undo, self._undo = self._undo, _Undo()
        if self._index is not None:
            self._index.rolled_back()
        for made in reversed(undo.done):
            if not isinstance(made, Folded):
                self._alive.data[made[made < self.count]] = True
                continue
            there = made.slots < self.count
            slots = made.slots[there]
            for accumulator, values in zip(self.accumulators, made.old, strict=True):
                accumulator.put(slots, values.take(there))
            self._alive.data[slots] = made.known[there]
        if self._closes is not None:
            # A run that was split is put back whole, and its parts go.
            split = {(first, end) for _, first, end in undo.due}
            kept = [run for run in self._runs if run[2] <= self.count and run[1:] not in split]
            whole: dict[tuple[int, int], int] = {}
            for at, first, end in undo.due:
                if end <= self.count:
                    whole[(first, end)] = min(at, whole.get((first, end), at))
            self._runs = [*kept, *((at, first, end) for (first, end), at in whole.items())]
            heapify(self._runs)
        if self.count:
            self._gone = self.count - int(np.count_nonzero(self._alive.data[: self.count]))
