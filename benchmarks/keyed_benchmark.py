"""Aggregates by key: what an epoch of 65,536 rows costs, at 10k, 1M and 10M keys, in windows, and durably; and what
calls cost that are no sums: distinct values, extremes of texts, quantiles.

Every state is filled first, then epochs over random keys are measured: the steps of the plan inside their transaction,
without source and sink. `by hand` is what one would write for this query alone: pyarrow groups the epoch, and a dict
(or, for windows, NumPy arrays) holds the state; it is not durable, keeps nothing to undo, and gives the new counts
only. All of it in one process, so figures are comparable with each other and with nothing else.

Bars: 8 M rows/s at 1k string keys, 0.7 M at 1M; windows at least 0.6 of the speed by hand; durable at least half of
what memory does; an epoch at 10M keys about as dear as at 1M.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pyarrow as pa
from _measure import machine, text_table

from velaria_core.contract.modes import OutputMode
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Moment, compile_steps
from velaria_core.logical import operators as op
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.expr import col, fn, parse_expression
from velaria_core.logical.node import Node
from velaria_core.logical.relation import Relation
from velaria_core.logical.rules import for_stream

EPOCH_ROWS = 65_536
WINDOW_MS, SLIDE_MS = 10_000, 2_000
KEYED = pa.schema([("k", pa.string())])
VALUES = pa.schema([("k", pa.int64()), ("x", pa.int64()), ("t", pa.string())])
VALUE_KEYS = 10_000
TIMED = pa.schema([("ts", pa.timestamp("us")), ("k", pa.int64()), ("x", pa.int64())])


def keyed(ids: np.ndarray) -> pa.Table:
    """Rows with a text key: `user-` and nine digits, as in user-000000042."""
    digits = np.char.zfill(ids.astype("U9"), 9)
    return pa.table({"k": pa.array(np.char.add("user-", digits))}, schema=KEYED)


def valued(rng: np.random.Generator) -> pa.Table:
    """Rows of a key, one of a thousand numbers, and a text."""
    texts = np.char.add("value-", rng.integers(0, 1_000_000, EPOCH_ROWS).astype("U7"))
    numbers = [rng.integers(0, most, EPOCH_ROWS) for most in (VALUE_KEYS, 1000)]
    return pa.Table.from_arrays([*map(pa.array, numbers), pa.array(texts)], schema=VALUES)


def timed(number: int, rng: np.random.Generator, rate: int) -> pa.Table:
    """An epoch of events, `rate` a second."""
    at = (np.arange(EPOCH_ROWS) + number * EPOCH_ROWS) * 1_000_000 // rate
    columns = [pa.array(at).cast(pa.timestamp("us"))]
    columns += [pa.array(rng.integers(0, most, EPOCH_ROWS)) for most in (1000, 1_000_000)]
    return pa.Table.from_arrays(columns, schema=TIMED)


# --- contestants --------------------------------------------------------------------------------------------------


@dataclass
class Steps:
    """A plan at work."""

    flow: Dataflow
    relation: Relation
    store: Store
    epochs: int = 0

    def epoch(self, table: pa.Table) -> float:
        start = perf_counter()
        with self.store.cursor.transaction():
            self.flow.epoch({id(self.relation): table}, Moment(self.epochs == 0))
        self.flow.committed()
        self.epochs += 1
        return perf_counter() - start


@contextmanager
def steps(
    plan: Node, path: Path | None = None, mode: OutputMode = OutputMode.UPDATE, memory: str | None = None
) -> Iterator[Steps]:
    """The steps of a plan over one stream, in memory or in a file."""
    relation = next(node.relation for node in plan.walk() if isinstance(node, op.Scan))
    engine = Engine(Settings(path=None if path is None else str(path), memory_limit=memory))
    store = Store(engine)
    try:
        yield Steps(compile_steps(plan, store, engine, {id(relation): True}, mode), relation, store)
    finally:
        store.close()
        engine.close()


def stream(schema: pa.Schema) -> op.Scan:
    return op.Scan(Relation("events", schema, "events", "source"))


def count_by_key() -> Node:
    return op.Aggregate(stream(KEYED), (("k", col("k").tree),), (("n", fn.count().tree),))


def call_by_key(text: str) -> Node:
    metric = ("m", parse_expression(text))
    return for_stream(op.Aggregate(stream(VALUES), (("k", col("k").tree),), (metric,)))


def windows(slide_ms: int, *, by_key: bool) -> Node:
    marked = op.Watermark(stream(TIMED), "ts", TimeKind.TIMESTAMP, 0)
    assigned = op.WindowAssign(marked, "ts", TimeKind.TIMESTAMP, WINDOW_MS, slide_ms, "w")
    keys = (("w", col("w").tree), *((("k", col("k").tree),) if by_key else ()))
    metric = ("n", fn.count().tree) if by_key else ("most", fn.max("x").tree)
    return op.Aggregate(assigned, keys, (metric,))


class CountsByHand:
    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def epoch(self, table: pa.Table) -> float:
        start = perf_counter()
        grouped = table.group_by("k", use_threads=False).aggregate([([], "count_all")])
        counts = self._counts
        made = []
        for key, more in zip(grouped["k"].to_pylist(), grouped["count_all"].to_pylist(), strict=True):
            counts[key] = count = counts.get(key, 0) + more
            made.append(count)
        pa.table({"k": grouped["k"], "n": pa.array(made)})
        return perf_counter() - start


class WindowsByHand:
    """Counts by window and key, or the most of a window: pyarrow groups an epoch by pane, and the panes of a window
    when it is past. Rows in any order, keys of any kind."""

    def __init__(self, slide_ms: int, *, by_key: bool) -> None:
        self._slide_us, self._keys = slide_ms * 1000, ["k"] if by_key else []
        self._metric, self._merged = ("count", "sum") if by_key else ("max", "max")
        self._panes: dict[int, list[pa.Table]] = {}
        self._next: int | None = None

    def epoch(self, table: pa.Table) -> float:
        start = perf_counter()
        panes = table["ts"].cast(pa.int64()).to_numpy() // self._slide_us
        columns = table.append_column("pane", pa.array(panes))
        grouped = columns.group_by(["pane", *self._keys], use_threads=False).aggregate([("x", self._metric)])
        grouped = grouped.rename_columns(["pane", *self._keys, "x"])
        of_pane = grouped["pane"].to_numpy()
        for pane in np.unique(of_pane):
            self._panes.setdefault(int(pane), []).append(grouped.filter(pa.array(of_pane == pane)))
        self._close(int(panes.max()))
        return perf_counter() - start

    def _close(self, now: int) -> list[pa.Table]:
        span = WINDOW_MS * 1000 // self._slide_us
        first = min(self._panes) - span + 1 if self._next is None else self._next
        made = []
        for window in range(first, now - span + 1):
            parts = [part for pane in range(window, window + span) for part in self._panes.get(pane, [])]
            if parts:
                rows = pa.concat_tables(parts)
                made.append(rows.group_by(self._keys, use_threads=False).aggregate([("x", self._merged)]))
            self._panes.pop(window, None)
        self._next = max(first, now - span + 1)
        return made


# --- measuring ----------------------------------------------------------------------------------------------------


def speed(taken: Sequence[float]) -> float:
    """Million rows a second, of the epoch in the middle."""
    return EPOCH_ROWS / median(taken) / 1e6


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if os.path.exists("/proc/self/statm") else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def by_keys(keys: int, epochs: int, *, hand: bool) -> list[str]:
    """A state of so many keys: in memory, in a file, and by hand."""
    rng = np.random.default_rng(7)
    filling = [np.arange(low, min(low + EPOCH_ROWS, keys)) for low in range(0, keys, EPOCH_ROWS)]
    tables = [keyed(rng.integers(0, keys, EPOCH_ROWS)) for _ in range(epochs)]
    before = resident_mb()
    with steps(count_by_key()) as memory:
        for ids in filling:
            memory.epoch(keyed(ids))
        in_memory = [memory.epoch(table) for table in tables]
        held = resident_mb() - before
        state = memory.flow.state_bytes / 1e6
    with tempfile.TemporaryDirectory() as folder, steps(count_by_key(), Path(folder, "state.duckdb")) as durable:
        for ids in filling:
            durable.epoch(keyed(ids))
        in_file = [durable.epoch(table) for table in tables]
    shown = "-"
    if hand:
        counts = CountsByHand()
        for ids in filling:
            counts.epoch(keyed(ids))
        by_hand = [counts.epoch(table) for table in tables]
        shown = f"{speed(by_hand):.2f}  {speed(in_memory) / speed(by_hand):.1f}x"
    return [
        f"count by {keys:,} text keys",
        f"{speed(in_memory):.2f}",
        f"{max(in_memory) * 1e3:.0f} ms",
        f"{speed(in_file):.2f}",
        f"{sum(in_file) / sum(in_memory):.1f}x",
        shown,
        f"{state:.0f} of {held:.0f} MB",
    ]


def by_call(text: str, epochs: int) -> list[str]:
    """A call whose state is more than a number, from nothing on."""
    rng = np.random.default_rng(7)
    tables = [valued(rng) for _ in range(epochs)]
    plan = call_by_key(text)
    with steps(plan) as memory:
        in_memory = [memory.epoch(table) for table in tables]
        state = memory.flow.state_bytes / 1e6
    with tempfile.TemporaryDirectory() as folder, steps(plan, Path(folder, "state.duckdb")) as durable:
        in_file = [durable.epoch(table) for table in tables]
    return [
        f"{text} by {VALUE_KEYS:,} keys",
        f"{speed(in_memory):.2f}",
        f"{max(in_memory) * 1e3:.0f} ms",
        f"{speed(in_file):.2f}",
        f"{sum(in_file) / sum(in_memory):.1f}x",
        "-",
        f"{state:.0f} MB",
    ]


def by_windows(name: str, slide_ms: int, rate: int, epochs: int, *, by_key: bool) -> list[str]:
    """Windows in append mode, as they close."""
    rng = np.random.default_rng(7)
    tables = [timed(number, rng, rate) for number in range(epochs)]
    plan = windows(slide_ms, by_key=by_key)
    with steps(plan, mode=OutputMode.APPEND) as memory:
        in_memory = [memory.epoch(table) for table in tables]
        state = memory.flow.state_bytes / 1e6
    with (
        tempfile.TemporaryDirectory() as folder,
        steps(plan, Path(folder, "state.duckdb"), OutputMode.APPEND) as durable,
    ):
        in_file = [durable.epoch(table) for table in tables]
    hand = WindowsByHand(slide_ms, by_key=by_key)
    by_hand = [hand.epoch(table) for table in tables]
    return [
        f"{name}, {rate:,} rows/s of event time",
        f"{speed(in_memory):.2f}",
        f"{max(in_memory) * 1e3:.0f} ms",
        f"{speed(in_file):.2f}",
        f"{sum(in_file) / sum(in_memory):.1f}x",
        f"{speed(by_hand):.2f}  {speed(in_memory) / speed(by_hand):.2f}x",
        f"{state:.0f} MB",
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--keys", type=int, nargs="*", default=[1_000, 10_000, 1_000_000, 10_000_000])
    options = parser.parse_args(arguments)
    print(f"M rows/s, epochs of {EPOCH_ROWS:,} rows")
    print(machine(("duckdb", "pyarrow", "numpy"), os.cpu_count() or 1))
    rows = [by_keys(keys, options.epochs, hand=keys <= 1_000_000) for keys in options.keys]
    for call in ("count(DISTINCT x)", "min(t)", "median(x)", "stddev(x)"):
        rows.append(by_call(call, options.epochs))
    for rate in (20_000, 1_000_000):
        rows.append(by_windows("tumbling max", WINDOW_MS, rate, options.epochs, by_key=False))
        rows.append(by_windows("tumbling count by key", WINDOW_MS, rate, options.epochs, by_key=True))
        rows.append(by_windows("sliding count by key", SLIDE_MS, rate, options.epochs, by_key=True))
    header = ("", "memory", "slowest epoch", "durable", "takes", "by hand, ratio", "state")
    print(text_table(header, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
