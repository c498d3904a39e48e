"""Pane steps: aggregates whose keys come out once, when event time has closed them.

Nobody asks for a key before that, so nothing is looked up: the groups of an epoch are kept as they are, in the order
in which they close. The watermark cuts off what it closes, and only that is put together, by key, and comes out.
Sliding windows are kept as the panes that they consist of, and become windows as they close.

Chunks of groups that pile up are put together too, so that of one key no more than a few stay: each then is at least
half as long as the one before it, and every group is copied a logarithmic number of times. They are never changed, so
an epoch is undone by going back to those that were there before it.

Source: Li et al., No Pane, No Gain, SIGMOD Record 2005; the chunks are those of O'Neil et al., The Log-Structured
Merge-Tree, Acta Informatica 1996.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import pyarrow as pa

from velaria_core.execution.groups import Groups, reduced
from velaria_core.execution.keyed_store import KeyIndex, hashes_of, is_mixed
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Changes, Moment, Step
from velaria_core.execution.steps.grouping import Grouped, Grouper, Grouping, grouping, hash_of, rows_of, value
from velaria_core.execution.steps.horizon import Expiry
from velaria_core.execution.steps.partials import GroupedStep
from velaria_core.execution.steps.rows import Log
from velaria_core.execution.vectors import (
    Array,
    Mask,
    Rows,
    Vector,
    array_of,
    integers,
    joined,
    storage,
    vector_of,
    whole,
)
from velaria_core.execution.watermark import FARTHEST
from velaria_core.logical.event_time import END, TimeBound, TimeKind, Times
from velaria_core.logical.expr import reference
from velaria_core.logical.node import Node
from velaria_core.logical.panes import panes_of
from velaria_core.logical.partials import Fold, Partials

_CHUNKS: Final = 8  # so many before any are put together
_LOG_TIMES: Final = 3  # entries that the log may have for each group that is kept,
_LOG_SLACK: Final = 100_000  # and besides
_CLOSES: Final = "closes"
_INFINITE: Final = (1 << 63) - 1  # of a timestamp; negative too


# --- windows of panes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slides:
    """Sliding windows, by the panes that they consist of. Times are in the unit of the time column.

    Attributes:
        keys: for each key of the grouping by windows, what is added to the start of a window to have it; None for a key
            that is not of the window.
        after_us: from the end of a window until it is closed.
    """

    size: int
    slide: int
    unit_us: int
    after_us: int
    keys: tuple[int | None, ...]

    @staticmethod
    def of(
        store: Store, plan: Grouping, partials: Partials, run: Sequence[Node], below: Step, times: Times
    ) -> tuple[Slides, Grouping, Sequence[Node]] | None:
        """The windows of a grouping, and the grouping by panes with its run; None where there are none, or where
        something else closes keys too."""
        names = [named for named, _ in plan.keys]
        panes = panes_of(run, names, [partial.tree for partial, _ in plan.partials])
        if panes is None or panes.node.kind is TimeKind.TEXT:
            return None
        bounds = {name: times[name] for name, _ in names if name in times}
        if bounds.keys() != panes.keys.keys():
            return None
        by = (("pane", reference(panes.pane)), *panes.others)
        paned = grouping(
            store, rows_of(panes.run, store, below), Partials(by, partials.calls), retracts=not below.append_only
        )
        if paned is None:
            return None
        kinds = [paned.keys[0][1], *(kind for (name, _), kind in plan.keys if name in panes.keys)]
        unit_us = 1000 if panes.node.kind is TimeKind.INTEGER else 1
        fits = kinds[0] == pa.int64() if unit_us == 1000 else pa.types.is_timestamp(kinds[0]) and kinds[0].unit == "us"
        if not fits or any(kind != kinds[0] for kind in kinds):
            return None
        size, slide = (length_ms * 1000 // unit_us for length_ms in (panes.node.size_ms, panes.node.slide_ms))
        ends = {"window_start": 0, "window_end": size}
        (after_us,) = {bound.span_us - (size - ends[panes.keys[name]]) * unit_us for name, bound in bounds.items()}
        keys = tuple(ends[panes.keys[name]] if name in panes.keys else None for name, _ in names)
        return Slides(size, slide, unit_us, after_us, keys), paned, panes.run

    def closes(self, starts: Array) -> Array:
        """When windows with these starts are closed."""
        far = FARTHEST // self.unit_us
        closes: Array = np.clip(starts, -far, far) * self.unit_us + (self.size * self.unit_us + self.after_us)
        return closes

    @property
    def is_even(self) -> bool:
        """Whether a window has a whole number of slides. Then all panes that end in one slide are in the same windows,
        and the panes of a window stand together in a chunk."""
        return self.size % self.slide == 0

    def near(self, closes: Array) -> tuple[int, int]:
        """From where to before where, of rising times, they tell the panes that they are of: not where a pane has no
        time, or one so far, or infinite, that `closes` is as far as it goes."""
        far = FARTHEST // self.unit_us
        low, high = self.closes(np.array([-far, far]))
        return int(np.searchsorted(closes, low, "right")), int(np.searchsorted(closes, high, "left"))

    def start(self, closes_us: int) -> int:
        """The start of the window that is closed then."""
        return (closes_us - self.after_us) // self.unit_us - self.size

    def ranges(self, closes: Array, before_us: int | None, watermark_us: int) -> Iterator[tuple[int, int, int]]:
        """When each window is closed that is closed now, and not before, and where its panes are.

        Args:
            closes: (n,) rising: when the last window of each pane is closed.
        """
        slide_us, windows = self.slide * self.unit_us, self.size // self.slide
        last = np.unique(closes)
        found = np.unique(last[:, None] - np.arange(windows) * slide_us)
        found = found[found <= watermark_us]
        if before_us is not None:
            found = found[found > before_us]
        firsts = np.searchsorted(closes, found, "left")
        ends = np.searchsorted(closes, found + (windows - 1) * slide_us, "right")
        yield from zip(found.tolist(), firsts.tolist(), ends.tolist(), strict=True)

    def starts(self, panes: Array) -> Iterator[tuple[Array, Mask | None]]:
        """The starts of the windows that panes are part of, the latest first, and for which panes there is one.

        As the engine has it, an infinite time is in the window that starts with it as often as any is in windows; where
        these are not even, in none, since no window ends after it.
        """
        latest = panes // self.slide * self.slide
        infinite = np.abs(panes) == _INFINITE
        for back in range(-(-self.size // self.slide)):
            starts = latest - back * self.slide
            if infinite.any():
                starts[infinite] = panes[infinite]
            yield starts, None if self.is_even else (starts + self.size > panes) & ~infinite

    def first_closes(self, panes: Vector) -> Array:
        """When the first of its windows closes a pane."""
        *_, (starts, there) = self.starts(panes.data)
        if there is not None:
            starts = np.where(there, starts, starts + self.slide)
        return _timed(self.closes(starts), panes.valid)

    def last_closes(self, panes: Vector) -> Array:
        """When the last does."""
        starts, _ = next(self.starts(panes.data))
        return _timed(self.closes(starts), panes.valid)


def _timed(closes: Array, valid: Mask | None) -> Array:
    return closes if valid is None else np.where(valid, closes, END)


# --- chunks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunk:
    """Groups of distinct keys.

    Attributes:
        closes: (n,) rising: when nothing needs a group any more.
        keys, columns: the keys and partial columns.
        others: hashes of the keys that are not mixed.
    """

    closes: Array
    keys: tuple[pa.Array, ...]
    columns: tuple[Vector, ...]
    others: Array | None = None

    def __len__(self) -> int:
        return len(self.closes)

    @classmethod
    def sorted(cls, closes: Array, keys: Sequence[pa.Array], columns: Sequence[Vector], others: Array | None) -> Self:
        """Of groups in any order."""
        made = cls(closes, tuple(keys), tuple(columns), others)
        if len(closes) < 2 or (closes[:-1] <= closes[1:]).all():
            return made
        return made.take(np.argsort(closes, kind="stable"))

    def take(self, rows: Rows) -> Self:
        picked = integers(rows)
        return type(self)(
            self.closes[rows],
            tuple(key.take(picked) for key in self.keys),
            tuple(column.take(rows) for column in self.columns),
            None if self.others is None else self.others[rows],
        )

    def part(self, first: int, end: int) -> Self:
        """The groups from `first` to before `end`."""
        if first == 0 and end == len(self):
            return self
        some = slice(first, end)
        return type(self)(
            self.closes[some],
            tuple(key.slice(first, end - first) for key in self.keys),
            tuple(Vector(one.data[some], None if one.valid is None else one.valid[some]) for one in self.columns),
            None if self.others is None else self.others[some],
        )

    @property
    def nbytes(self) -> int:
        columns = sum(one.data.nbytes + (0 if one.valid is None else one.valid.nbytes) for one in self.columns)
        return int(self.closes.nbytes + columns + sum(key.nbytes for key in self.keys))


class Merger:
    """Puts chunks together, by key."""

    def __init__(self, kinds: Sequence[pa.DataType], folds: Sequence[Fold]) -> None:
        self._kinds, self._folds = kinds, folds
        self._whole = all(is_mixed(kind) and storage(kind)[1] == 1 for kind in kinds)

    def merged(self, parts: Sequence[Chunk]) -> Chunk:
        """The groups of these chunks, each key once; in an order that does not depend on how they were cut."""
        rows, keys = self._rows(parts)
        closes = np.empty(len(keys[0]), np.int64)
        closes[rows] = np.concatenate([part.closes for part in parts])
        others = None
        if parts[0].others is not None:
            others = np.empty(len(closes), np.uint64)
            others[rows] = np.concatenate([part.others for part in parts if part.others is not None])
        columns = [
            reduced(fold, joined([part.columns[at] for part in parts]), rows, len(closes))
            for at, fold in enumerate(self._folds)
        ]
        return Chunk.sorted(closes, keys, columns, others)

    def _rows(self, parts: Sequence[Chunk]) -> tuple[Rows, list[pa.Array]]:
        """Where the groups of these chunks go, one chunk after the other, and the keys there."""
        if self._whole:
            vectors = [joined([vector_of(part.keys[at]) for part in parts]) for at in range(len(self._kinds))]
            try:
                groups = Groups(vectors)
            except OverflowError:
                pass
            else:
                return groups.rows, [array_of(one, kind) for one, kind in zip(groups.keys(), self._kinds, strict=True)]
        index = KeyIndex(self._kinds)
        rows = [self._interned(index, part) for part in parts]
        every = np.arange(index.count)
        return np.concatenate(rows), [column.take(every) for column in index.columns]

    @staticmethod
    def _interned(index: KeyIndex, part: Chunk) -> Rows:
        """The slots of keys of which some may be equal."""
        hashes = hashes_of(part.keys, part.others)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        # Of several with one hash the first, then the second, ...
        turns = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        slots = np.empty(len(order), np.int64)
        for turn in range(int(turns.max()) + 1):
            rows = np.sort(order[turns == turn])
            picked = integers(rows)
            slots[rows] = index.intern(hashes[rows], [key.take(picked) for key in part.keys])
        return slots


# --- the step -------------------------------------------------------------------------------------------------------


class PanesStep(GroupedStep):
    """Values by key that come out once, when event time has closed them."""

    impl = "panes"

    def __init__(
        self,
        store: Store,
        name: str,
        plan: Grouping,
        grouper: Grouper,
        slides: Slides | None,
        below: Step,
        times: Times,
    ) -> None:
        fields = [pa.field(key, kind) for (key, _), kind in plan.keys]
        fields += [pa.field(metric, one.kind) for metric, one in plan.metrics]
        super().__init__(store, grouper, fields, True, below, times)
        self._plan, self._slides = plan, slides
        kept = "panes of windows" if slides is not None else "values by key"
        self.impl_reason = (
            f"{kept} come out when event time closes them, and are put together then{grouper.impl_reason}"
        )
        columns = [(partial.fold, kind) for partial, kind in plan.partials]
        kinds = [field.type for field in grouper.schema]
        folds = [fold for fold, _ in columns]
        self._merger = Merger(kinds, folds)
        self._final = self._merger if slides is None else Merger([kind for _, kind in plan.keys], folds)
        self._chunks: tuple[Chunk, ...] = ()
        self._durable: tuple[Chunk, ...] = ()
        self._closed_us: int | None = None  # the last watermark, and that of the last durable epoch
        self._durable_us: int | None = None
        self._log: Log | None = None
        if store.durable:
            logged = [pa.field(_CLOSES, pa.timestamp("us")), *grouper.schema]
            logged += [pa.field(f"p{at}", kind) for at, (_, kind) in enumerate(columns)]
            self._log = Log(store, name, pa.schema(logged), append_only=True)
            self._expiry = Expiry(store, self._log, _CLOSES, TimeBound(TimeKind.TIMESTAMP))
            self._clear = store.command(f"DELETE FROM {self._log.table}")
            self._restore(store, self._log, kinds, len(columns))

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        self.late_dropped_rows = 0
        if given is not None:
            chunk = self._chunk(self.grouper.grouped(given), at.late_before_us)
            if len(chunk):
                self._chunks = (*self._chunks, chunk)
                self._write(chunk, at.watermark_us)
        made = self._close(at.watermark_us)
        self._compact()
        if self._log is not None:
            self._expiry.run(at.watermark_us)
        return made

    def _chunk(self, grouped: Grouped, late_before_us: int | None) -> Chunk:
        """The groups of an epoch that are not late."""
        if self._slides is None:
            closes = self._closes(grouped.keys)
            assert closes is not None, "event time closes a key"
            grouped, closes = self._in_time(grouped, closes, late_before_us)
        else:
            panes = vector_of(whole(grouped.keys.column(0)))
            closes = self._slides.last_closes(panes)
            if late_before_us is not None and len(closes):
                late = self._slides.first_closes(panes) <= late_before_us
                self.late_dropped_rows = int(grouped.rows[late].sum())
                if (past := closes <= late_before_us).any():
                    grouped, closes = grouped.take(~past), closes[~past]
        return Chunk.sorted(closes, grouped.key_columns, grouped.columns, grouped.others)

    def _close(self, watermark_us: int | None) -> Changes:
        """The rows that this watermark closes, and that before it did not."""
        due, before_us = self.due(watermark_us, 0), self._closed_us
        self._closed_us = watermark_us
        if not due:
            return None
        assert watermark_us is not None
        if self._slides is not None and not self._slides.is_even:
            # Each pane is read for several windows.
            self._chunks = (self._merger.merged(self._chunks),)
        parts: list[Chunk] = []
        left: list[Chunk] = []
        for chunk in self._chunks:
            done = int(np.searchsorted(chunk.closes, watermark_us, "right"))
            if self._slides is None:
                parts += [chunk.part(0, done)] if done else []
            else:
                parts += self._windows(chunk, before_us, watermark_us, self._slides)
            if done < len(chunk):
                left.append(chunk.part(done, len(chunk)))
        self._chunks = tuple(left)
        return self._shown(self._final.merged(parts)) if parts else None

    def _windows(self, chunk: Chunk, before_us: int | None, watermark_us: int, slides: Slides) -> Iterator[Chunk]:
        """The parts of these panes in the windows that are closed now."""
        first, end = slides.near(chunk.closes) if slides.is_even else (0, 0)
        near = chunk.part(first, end)
        for closes_us, low, high in slides.ranges(near.closes, before_us, watermark_us):
            yield self._window(slides, near.part(low, high), closes_us)
        for rest in (chunk.part(0, first), chunk.part(end, len(chunk))):
            if len(rest):
                yield from self._windows_of_each(rest, before_us, watermark_us, slides)

    def _windows_of_each(
        self, chunk: Chunk, before_us: int | None, watermark_us: int, slides: Slides
    ) -> Iterator[Chunk]:
        """The same, found for each pane by itself."""
        reach_us = END if watermark_us == END else watermark_us + slides.size * slides.unit_us
        chunk = chunk.part(0, int(np.searchsorted(chunk.closes, reach_us, "right")))
        panes = vector_of(chunk.keys[0])
        for number, (starts, there) in enumerate(slides.starts(panes.data)):
            # A pane without a time is in one window without one.
            closes = slides.closes(starts)
            if panes.valid is not None:
                closes = np.where(panes.valid, closes, END if number == 0 else -END)
            now = closes <= watermark_us
            if before_us is not None:
                now &= closes > before_us
            elif panes.valid is not None:
                now &= closes != -END
            if there is not None:
                now &= there if panes.valid is None else there | ~panes.valid
            rows = np.flatnonzero(now)
            if not len(rows):
                continue
            valid = None if panes.valid is None else panes.valid[rows]
            some = chunk.take(rows)
            others = iter(some.keys[1:])
            keys = [
                next(others) if after is None else array_of(Vector(starts[rows] + after, valid), kind)
                for after, (_, kind) in zip(slides.keys, self._plan.keys, strict=True)
            ]
            yield Chunk(closes[rows], tuple(keys), some.columns, some.others)

    def _window(self, slides: Slides, panes: Chunk, closes_us: int) -> Chunk:
        """These panes as parts of the window that is closed then."""
        start = slides.start(closes_us)
        others = iter(panes.keys[1:])
        keys = [
            next(others) if after is None else array_of(Vector(np.full(len(panes), start + after)), kind)
            for after, (_, kind) in zip(slides.keys, self._plan.keys, strict=True)
        ]
        return Chunk(np.full(len(panes), closes_us), tuple(keys), panes.columns, panes.others)

    def _shown(self, chunk: Chunk) -> Changes:
        """The rows of groups that are closed."""
        keys, columns = chunk.keys, chunk.columns
        if self._plan.rows is not None:
            chunk = chunk.take(np.flatnonzero(columns[self._plan.rows].data > 0))
            keys, columns = chunk.keys, chunk.columns
        if not len(chunk):
            return None
        values = [array_of(value(metric, columns), metric.kind) for _, metric in self._plan.metrics]
        return pa.Table.from_arrays([*keys, *values], schema=self.schema)

    def _compact(self) -> None:
        """Put the last chunks together where they have piled up."""
        chunks = list(self._chunks)
        if len(chunks) <= _CHUNKS:
            return
        parts = [chunks.pop()]
        size = len(parts[0])
        while chunks and len(chunks[-1]) < 2 * size:
            parts.append(chunks.pop())
            size += len(parts[-1])
        made = self._merger.merged(parts[::-1])
        if self._plan.rows is not None:
            made = made.take(np.flatnonzero(made.columns[self._plan.rows].data != 0))
        self._chunks = (*chunks, made) if len(made) else tuple(chunks)

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        del now_ms
        return watermark_us is not None and any(self._next_us(chunk) <= watermark_us for chunk in self._chunks)

    def _next_us(self, chunk: Chunk) -> int:
        """When the next of its keys is closed."""
        if self._slides is None or chunk.closes[0] == END:
            return int(chunk.closes[0])
        first = int(self._slides.first_closes(vector_of(chunk.keys[0].slice(0, 1)))[0])
        if self._closed_us is None or first > self._closed_us:
            return first
        slide_us = self._slides.slide * self._slides.unit_us
        return first + ((self._closed_us - first) // slide_us + 1) * slide_us

    # --- what outlives the process --------------------------------------------------------------------------------

    def _write(self, chunk: Chunk, watermark_us: int | None) -> None:
        """Log the groups that are not closed at once."""
        if self._log is None:
            return
        done = 0 if watermark_us is None else int(np.searchsorted(chunk.closes, watermark_us, "right"))
        if done == len(chunk):
            return
        if self._log.entries > _LOG_SLACK + _LOG_TIMES * self.state_rows():
            self._clear()
            self._log.forgot()
            for one in self._chunks[:-1]:
                self._log.take(self._logged(one))
        self._log.take(self._logged(chunk.part(done, len(chunk))))
        self._expiry.note(chunk.closes[done:])

    def _logged(self, chunk: Chunk) -> pa.Table:
        assert self._log is not None
        kinds = [kind for _, kind in self._plan.partials]
        columns = [array_of(one, kind) for one, kind in zip(chunk.columns, kinds, strict=True)]
        closes = array_of(Vector(chunk.closes), pa.timestamp("us"))
        return pa.Table.from_arrays([closes, *chunk.keys, *columns], schema=self._log.feed.schema)

    def _restore(self, store: Store, log: Log, kinds: Sequence[pa.DataType], values: int) -> None:
        """Take in what was logged."""
        hashed = hash_of(kinds)
        listed = "*" if hashed is None else f"*, {hashed} AS h"
        # In the order in which they were written, which the engine keeps.
        found = store.cursor.table(f"SELECT {listed} FROM {log.table}")
        if not found.num_rows:
            return
        closes, *rest = (whole(column) for column in found.columns)
        vectors = [vector_of(column) for column in rest[len(kinds) : len(kinds) + values]]
        others = None if hashed is None else vector_of(rest[-1]).data
        logged = Chunk(vector_of(closes).data, tuple(rest[: len(kinds)]), tuple(vectors), others)
        self._chunks = self._durable = (self._merger.merged([logged]),)

    def restored(self, watermark_us: int | None) -> None:
        self._closed_us = watermark_us
        if watermark_us is not None:
            ends = [int(np.searchsorted(chunk.closes, watermark_us, "right")) for chunk in self._chunks]
            left = (chunk.part(end, len(chunk)) for chunk, end in zip(self._chunks, ends, strict=True))
            self._chunks = tuple(chunk for chunk in left if len(chunk))
        self.committed()

    def state_rows(self) -> int:
        return sum(map(len, self._chunks))

    def state_bytes(self) -> int:
        return sum(chunk.nbytes for chunk in self._chunks)

    def committed(self) -> None:
        self._durable, self._durable_us = self._chunks, self._closed_us

    def rolled_back(self) -> None:
        self._chunks, self._closed_us = self._durable, self._durable_us
        if self._log is not None:
            self._log.rolled_back()
            self._expiry.rolled_back()
