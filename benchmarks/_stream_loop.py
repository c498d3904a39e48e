"""The hand-written loop: each query as a person would write it with pyarrow and NumPy, and no engine at all.

`LOOPS[query]()` has `step(tables)`, which takes the rows of an epoch and gives what comes out, and `end()`, which gives
what the end of the stream brings out. It is the floor of the benchmark, and what Bytewax runs as its operator.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from _stream import SLIDE_MS, WINDOW_MS, Answer, Rows, Workload, contestant, epochs, milliseconds, timestamps

Ints = Any  # NumPy arrays of int64; their generic names would say no more


class Loop(Protocol):
    def step(self, tables: Rows) -> list[pa.Table]: ...

    def end(self) -> list[pa.Table]: ...


class Stateless:
    """A function of a table, for queries that keep nothing."""

    def __init__(self, function: Callable[[pa.Table], pa.Table]) -> None:
        self._function = function

    def step(self, tables: Rows) -> list[pa.Table]:
        return [self._function(table) for table in tables.values()]

    def end(self) -> list[pa.Table]:
        return []


def _euros(bids: pa.Table) -> pa.Table:
    price = pa.array(bids.column("price").to_numpy() * 0.908)
    return bids.set_column(bids.schema.get_field_index("price"), "price", price)


def _selected(bids: pa.Table) -> pa.Table:
    return bids.filter(pa.array(bids.column("auction").to_numpy() % 123 == 0))


class Runs:
    """Sorted arrays of keys with a payload, each at least twice as long as the next, so that a key is found by a few
    binary searches and each row is merged a logarithmic number of times."""

    def __init__(self) -> None:
        self._runs: list[tuple[Ints, Ints]] = []

    def add(self, keys: Ints, values: Ints) -> None:
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            others, theirs = self._runs.pop()
            keys, values = np.concatenate([others, keys]), np.concatenate([theirs, values])
            order = np.argsort(keys, kind="stable")
            keys, values = keys[order], values[order]
        self._runs.append((keys, values))

    def pairs(self, keys: Ints) -> tuple[Ints, Ints]:
        """(position in `keys`, value) of every match."""
        positions, found = [], []
        for run, values in self._runs:
            low, high = np.searchsorted(run, keys, "left"), np.searchsorted(run, keys, "right")
            counts = high - low
            hits = np.flatnonzero(counts)
            if len(hits):
                repeated = counts[hits]
                starts = np.repeat(low[hits] - np.concatenate([[0], np.cumsum(repeated)[:-1]]), repeated)
                positions.append(np.repeat(hits, repeated))
                found.append(values[starts + np.arange(repeated.sum())])
        if not positions:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate(positions), np.concatenate(found)


class LocalItems:
    """q3: new auctions meet the people that are there, new people the auctions that wait for them."""

    def __init__(self) -> None:
        self._people, self._auctions = Runs(), Runs()
        self._rows: list[pa.Table] = []
        self._first: list[int] = [0]

    def step(self, tables: Rows) -> list[pa.Table]:
        made = []
        if "auction" in tables:
            auctions = tables["auction"]
            mine = auctions.column("category").to_numpy() == 10
            ids, sellers = (auctions.column(name).to_numpy()[mine] for name in ("id", "seller"))
        else:
            ids = sellers = np.empty(0, np.int64)
        if "person" in tables:
            people = tables["person"]
            people = people.filter(pc.is_in(people.column("state"), pa.array(["OR", "ID", "CA"])))
            keys = people.column("id").to_numpy()
            places = self._first[-1] + np.arange(people.num_rows)
            self._rows.append(people)
            self._first.append(self._first[-1] + people.num_rows)
            positions, waiting = self._auctions.pairs(keys)
            made.append(self._joined(places[positions], waiting))
            self._people.add(keys, places)
        positions, places = self._people.pairs(sellers)
        made.append(self._joined(places, ids[positions]))
        self._auctions.add(sellers, ids)
        return [table for table in made if table.num_rows]

    def _joined(self, places: Ints, ids: Ints) -> pa.Table:
        """The people at these places, in whichever epoch they came, each with an auction."""
        if not len(places):
            return pa.table({"name": [], "city": [], "state": [], "id": []})
        first = np.asarray(self._first)
        epoch = np.searchsorted(first, places, "right") - 1
        parts, order = [], []
        for one in np.unique(epoch):
            here = np.flatnonzero(epoch == one)
            parts.append(self._rows[one].select(["name", "city", "state"]).take(pa.array(places[here] - first[one])))
            order.append(here)
        return pa.concat_tables(parts).append_column("id", pa.array(ids[np.concatenate(order)]))

    def end(self) -> list[pa.Table]:
        return []


class HotItems:
    """q5: counts by auction in panes of a slide; a window is the sum of its panes, and comes out when it is past."""

    def __init__(self) -> None:
        self._panes: dict[int, list[tuple[Ints, Ints]]] = {}
        self._next: int | None = None  # the first window that has not come out, in slides

    def step(self, tables: Rows) -> list[pa.Table]:
        auctions, times = tables["bid"].column("auction").to_numpy(), milliseconds(tables["bid"].column("date_time"))
        pane = times // SLIDE_MS
        for one in np.unique(pane):
            counted = np.unique(auctions[pane == one], return_counts=True)
            self._panes.setdefault(int(one), []).append(counted)
        return self._closed(int(times.max()) // SLIDE_MS)

    def _closed(self, now: int) -> list[pa.Table]:
        """The windows that end at or before pane `now`."""
        span = WINDOW_MS // SLIDE_MS
        if not self._panes:
            return []
        start = self._next if self._next is not None else min(self._panes) - span + 1
        rows = []
        for window in range(start, now - span + 1):
            parts = [part for pane in range(window, window + span) for part in self._panes.get(pane, ())]
            if parts:
                ids, inverse = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
                counts = np.bincount(inverse, np.concatenate([numbers for _, numbers in parts]))
                best = int(counts.argmax())  # the first of several, which is the smallest id
                rows.append((window * SLIDE_MS, int(ids[best]), int(counts[best])))
            self._panes.pop(window, None)
        self._next = max(start, now - span + 1)
        if not rows:
            return []
        starts, ids, counts = zip(*rows, strict=True)
        return [pa.table({"window_start": timestamps(starts), "auction": pa.array(ids), "bids": pa.array(counts)})]

    def end(self) -> list[pa.Table]:
        return self._closed(max(self._panes) + WINDOW_MS // SLIDE_MS) if self._panes else []


class Highest:
    """q7: the maximum of each tumbling window."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def step(self, tables: Rows) -> list[pa.Table]:
        prices, times = tables["bid"].column("price").to_numpy(), milliseconds(tables["bid"].column("date_time"))
        window = times // WINDOW_MS
        for one in range(int(window.min()), int(window.max()) + 1):
            here = prices[window == one]
            if len(here):
                self._open[one] = max(self._open.get(one, 0), int(here.max()))
        return self._closed(int(window.max()))

    def _closed(self, now: int) -> list[pa.Table]:
        done = [window for window in sorted(self._open) if window < now]
        if not done:
            return []
        prices = [self._open.pop(window) for window in done]
        return [pa.table({"window_start": timestamps(np.asarray(done) * WINDOW_MS), "price": pa.array(prices)})]

    def end(self) -> list[pa.Table]:
        return self._closed(max(self._open) + 1) if self._open else []


class NewUsers:
    """q8: the people and the sellers of a window, met when it is past."""

    def __init__(self) -> None:
        self._people: dict[int, list[pa.Table]] = {}
        self._sellers: dict[int, list[Ints]] = {}
        self._now = {"person": 0, "auction": 0}

    def step(self, tables: Rows) -> list[pa.Table]:
        for name, rows in tables.items():
            window = milliseconds(rows.column("date_time")) // WINDOW_MS
            for one in range(int(window.min()), int(window.max()) + 1):
                here = window == one
                if name == "person":
                    self._people.setdefault(one, []).append(rows.select(["id", "name"]).filter(pa.array(here)))
                else:
                    self._sellers.setdefault(one, []).append(np.unique(rows.column("seller").to_numpy()[here]))
            self._now[name] = max(self._now[name], int(window.max()))
        return self._closed(min(self._now.values()))

    def _closed(self, now: int) -> list[pa.Table]:
        made = []
        for one in sorted({*self._people, *self._sellers}):
            if one >= now:
                break
            people, sellers = self._people.pop(one, []), self._sellers.pop(one, [])
            if people and sellers:
                rows = pa.concat_tables(people)
                found = rows.filter(pa.array(np.isin(rows.column("id").to_numpy(), np.concatenate(sellers))))
                starts = timestamps(np.full(found.num_rows, one * WINDOW_MS))
                made.append(found.append_column("window_start", starts))
        return made

    def end(self) -> list[pa.Table]:
        return self._closed(max([*self._people, *self._sellers]) + 1) if self._people else []


class CountsOfWindows:
    """q12: bids of each bidder in each tumbling window."""

    def __init__(self) -> None:
        self._open: dict[int, list[tuple[Ints, Ints]]] = {}

    def step(self, tables: Rows) -> list[pa.Table]:
        bidders, times = tables["bid"].column("bidder").to_numpy(), milliseconds(tables["bid"].column("date_time"))
        window = times // WINDOW_MS
        for one in range(int(window.min()), int(window.max()) + 1):
            here = bidders[window == one]
            if len(here):
                self._open.setdefault(one, []).append(np.unique(here, return_counts=True))
        return self._closed(int(window.max()))

    def _closed(self, now: int) -> list[pa.Table]:
        made = []
        for one in [window for window in sorted(self._open) if window < now]:
            parts = self._open.pop(one)
            keys, inverse = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
            counts = np.bincount(inverse, np.concatenate([numbers for _, numbers in parts])).astype(np.int64)
            starts = timestamps(np.full(len(keys), one * WINDOW_MS))
            made.append(pa.table({"window_start": starts, "bidder": pa.array(keys), "bids": pa.array(counts)}))
        return made

    def end(self) -> list[pa.Table]:
        return self._closed(max(self._open) + 1) if self._open else []


class RunningCount:
    """The number of rows of each key so far; an epoch gives the keys that it touched anew."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._counts = np.zeros(1024, np.int64)

    def step(self, tables: Rows) -> list[pa.Table]:
        (rows,) = tables.values()
        encoded = rows.column("key").combine_chunks().dictionary_encode()
        counted = np.bincount(encoded.indices.to_numpy(), minlength=len(encoded.dictionary))
        slots = self._slots
        places = np.fromiter(
            (slots.setdefault(key, len(slots)) for key in encoded.dictionary.to_pylist()),
            np.int64,
            len(encoded.dictionary),
        )
        if len(slots) > len(self._counts):
            grown = np.zeros(max(len(slots), 2 * len(self._counts)), np.int64)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
        self._counts[places] += counted
        return [pa.table({"key": encoded.dictionary, "n": pa.array(self._counts[places])})]

    def end(self) -> list[pa.Table]:
        return []


LOOPS: dict[str, Callable[[], Loop]] = {
    "q0": lambda: Stateless(lambda bids: bids),
    "q1": lambda: Stateless(_euros),
    "q2": lambda: Stateless(_selected),
    "q3": LocalItems,
    "q5": HotItems,
    "q7": Highest,
    "q8": NewUsers,
    "q12": CountsOfWindows,
    "count_1k": RunningCount,
    "count_1m": RunningCount,
}


def run(workload: Workload, folder: Path, _scratch: Path, answer: Answer) -> None:
    loop = LOOPS[workload.name]()
    for tables in epochs(folder, workload):
        began = perf_counter()
        for table in loop.step(tables):
            answer.add(table)
        answer.latencies_ms.append(1000 * (perf_counter() - began))
    for table in loop.end():
        answer.add(table)


if __name__ == "__main__":
    contestant(run)
