"""What a stream costs besides its rows: durability, small epochs, latency, large states, long runs.

    durable   exactly-once into Parquet files, beside the same without a checkpoint, and in memory
    floor     one epoch of one row, in memory and durable
    latency   10,000 events a second in `continuous(20)`, from the push into a queue to the sink
    state     an epoch of 65,536 rows of 10k keys, among 10k, 1M and 10M
    limit     10M keys in a session with memory_limit='1GB', counted, and in the state of a join
    join      an epoch of 1,000 rows over the state of an inner join: 10k, 1M and 10M rows, in memory and durable
    outer     the same of a left join, whose touched keys are computed before and after
    keyed     the same of row numbers by key, which are computed anew for the touched keys
    best      the same of the ten keys with the most rows
    soak      a windowed query over keys that come and go: the memory of each tenth of the run

Every part is whole queries through the public names, in a process of its own. Bars: durable at most twice the time;
3 ms and 6 ms; p99 under 25 ms; an epoch over ten or a hundred times the keys at most twice as dear; memory flat.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter, perf_counter_ns, sleep

import numpy as np
import pyarrow as pa
from _measure import machine, text_table
from _stream import EPOCH_ROWS, WORKLOADS, epochs
from _stream_data import default_cache, events_folder
from _stream_velaria import ASKED

from velaria import CallbackSink, DataflowSession, MemorySink, MemorySource, StreamingDataFrame, Trigger, fn
from velaria_core.contract import abi
from velaria_core.execution.sinks.file_set import FileSetSink

Figures = list[list[str]]

DURABLE = ("q0", "q5", "q7", "q8", "q12", "count_1k", "count_1m")
KEYS = {"10k": 10_000, "1M": 1_000_000, "10M": 10_000_000}
RATE = 10_000  # events a second
PUSHED_MS = 2


# --- durable -------------------------------------------------------------------------------------------------


def durable(options: argparse.Namespace) -> Figures:
    """Rows from memory, since reading files is not what is compared; into memory, into files, and durably into files.

    What the bar is for is the last against the one before: the same output, with and without the promise.
    """
    folder = events_folder(options.data, options.rows)
    lines = [["durable", "into memory, M rows/s", "into files", "exactly-once", "times", "bar 2"]]
    for name in DURABLE:
        batches: dict[str, list[pa.Table]] = {}
        for tables in epochs(folder, WORKLOADS[name]):
            for table, rows in tables.items():
                batches.setdefault(table, []).append(rows)
        rows = sum(table.num_rows for several in batches.values() for table in several)
        best: dict[tuple[bool, bool], float] = {}
        for _ in range(options.rounds):
            for files, kept in ((False, False), (True, False), (True, True)):
                taken = _taken(name, batches, files=files, kept=kept)
                best[files, kept] = min(best.get((files, kept), taken), taken)
        times = best[True, True] / best[True, False]
        lines.append(
            [
                name,
                *(f"{rows / one / 1e6:.2f}" for one in best.values()),
                f"{times:.2f}",
                "met" if times <= 2 else "MISSED",
            ]
        )
    return lines


def _taken(name: str, batches: Mapping[str, list[pa.Table]], *, files: bool, kept: bool) -> float:
    asked = ASKED[name]
    with tempfile.TemporaryDirectory() as scratch, DataflowSession() as session:
        for table, several in batches.items():
            stream = session.read_stream(MemorySource(several), table)
            if asked.output_mode == "append" and "date_time" in stream.columns:
                stream = stream.with_watermark("date_time", "0s")
            session.create_temp_view(table, stream)
        frame = session.stream_sql(asked.sql.format(keys=next(iter(batches))))
        query = frame.write_stream(
            FileSetSink(session._engine, Path(scratch, "out")) if files else MemorySink(),
            trigger=Trigger.available_now(),
            output_mode=asked.output_mode,
            epoch_rows_max=EPOCH_ROWS,
            checkpoint_path=str(Path(scratch, "checkpoint")) if kept else None,
        )
        began = perf_counter()
        query.start().await_termination()
        return perf_counter() - began


# --- floor ---------------------------------------------------------------------------------------------------


def floor(_options: argparse.Namespace) -> Figures:
    lines = [["epoch of one row", "in memory p50 ms", "durable p50 ms", "bars 3, 6"]]
    shapes: dict[str, Callable[[StreamingDataFrame], StreamingDataFrame]] = {
        "filter and project": lambda rows: rows.filter("v >= 0").select("k", "v"),
        "count by key": lambda rows: rows.group_by("k").agg(n=fn.count()),
    }
    for name, shape in shapes.items():
        medians = []
        for kept in (False, True):
            with tempfile.TemporaryDirectory() as scratch, DataflowSession() as session:
                source = MemorySource(schema=pa.schema([("k", pa.int64()), ("v", pa.int64())]), bounded=False)
                path = str(Path(scratch, "checkpoint")) if kept else None
                query = shape(session.read_stream(source, "rows")).write_stream(MemorySink(), checkpoint_path=path)
                taken = []
                for number in range(300):
                    source.add(pa.table({"k": pa.array([number % 7]), "v": pa.array([number])}))
                    began = perf_counter()
                    query.process_available()
                    taken.append(1000 * (perf_counter() - began))
                query.stop()
            medians.append(float(np.median(taken[100:])))
        met = medians[0] < 3 and medians[1] < 6
        lines.append([name, *(f"{median:.2f}" for median in medians), "met" if met else "MISSED"])
    return lines


# --- latency -------------------------------------------------------------------------------------------------


def latency(options: argparse.Namespace) -> Figures:
    lines = [[f"{RATE:,} events/s", "p50 ms", "p99 ms", "most ms", "bar 25"]]
    shapes: dict[str, Callable[[StreamingDataFrame], StreamingDataFrame]] = {
        "filter and project": lambda rows: rows.filter("k >= 0").select("k", "pushed_ns"),
        "count by key": lambda rows: rows.group_by("k").agg(n=fn.count(), pushed_ns=fn.max("pushed_ns")),
    }
    for name, shape in shapes.items():
        found = _latencies(shape, options.seconds)
        p50, p99, most = np.percentile(found, 50), np.percentile(found, 99), found.max()
        lines.append([name, f"{p50:.1f}", f"{p99:.1f}", f"{most:.1f}", "met" if p99 < 25 else "MISSED"])
    return lines


def _latencies(shape: Callable[[StreamingDataFrame], StreamingDataFrame], seconds: float) -> np.ndarray:
    """Milliseconds from push to sink, of each row that came out after the first second."""
    found: list[np.ndarray] = []

    def arrived(_epoch: int, changes: pa.Table) -> None:
        if "diff" in changes.schema.names:
            changes = changes.filter(pa.array(changes.column("diff").to_numpy() > 0))
        found.append((perf_counter_ns() - changes.column("pushed_ns").to_numpy()) / 1e6)

    with DataflowSession() as session:
        source = session.create_realtime_stream_source({"k": "int64", "pushed_ns": "int64"})
        rows = session.read_realtime_stream_source(source)
        query = shape(rows).write_stream(CallbackSink(arrived), trigger=Trigger.continuous(20)).start()

        def push() -> None:
            each = RATE * PUSHED_MS // 1000
            began = perf_counter()
            for number in range(int(seconds * 1000 / PUSHED_MS)):
                if (wait := began + number * PUSHED_MS / 1000 - perf_counter()) > 0:
                    sleep(wait)
                now = np.full(each, perf_counter_ns())
                source.push_arrow(pa.table({"k": pa.array(np.arange(each) % 10), "pushed_ns": pa.array(now)}))
            source.close()

        pusher = threading.Thread(target=push)
        pusher.start()
        query.await_termination()
        pusher.join()
    settled = len(found) // int(max(seconds, 2))
    return np.concatenate(found[settled:])


# --- state ---------------------------------------------------------------------------------------------------


def state(_options: argparse.Namespace) -> Figures:
    lines = [["keys held", "epoch p50 ms", "epoch p99 ms", "peak MB", "times the one before, bar 2"]]
    before: float | None = None
    for name, keys in KEYS.items():
        p50, p99, peak = _epochs_over(keys, None)
        times = p50 / before if before is not None else None
        shown = "-" if times is None else f"{times:.2f} {'met' if times <= 2 else 'MISSED'}"
        lines.append([name, f"{p50:.1f}", f"{p99:.1f}", f"{peak:.0f}", shown])
        before = p50
    return lines


def limit(_options: argparse.Namespace) -> Figures:
    p50, p99, peak = _epochs_over(KEYS["10M"], "1GB")
    joined = _epochs_over_rows(OF_ROWS["join"], 2 * KEYS["10M"], None, "1GB")
    return [
        ["memory_limit='1GB'", "epoch p50 ms", "epoch p99 ms", "peak MB"],
        ["10M keys counted", f"{p50:.1f}", f"{p99:.1f}", f"{peak:.0f}"],
        ["10M keys joined, 1,000 rows an epoch", *(f"{one:.1f}" for one in joined), f"{_peak_mb():.0f}"],
    ]


def _epochs_over(keys: int, memory_limit: str | None) -> tuple[float, float, float]:
    """A running count of `keys` integer keys, all of which were seen: epochs of 10k random ones. These are of the same
    range however many there are, so that the change is the same: few keys in a row are counted by their place."""
    chance, apart = np.random.default_rng(1), max(KEYS.values()) // keys
    sink = CallbackSink(_nowhere)
    with DataflowSession(memory_limit=memory_limit) as session:
        source = MemorySource(schema=pa.schema([("k", pa.int64())]), bounded=False)
        query = session.read_stream(source, "rows").group_by("k").agg(n=fn.count()).write_stream(sink)
        for first in range(0, keys, EPOCH_ROWS):
            source.add(pa.table({"k": pa.array(apart * np.arange(first, min(first + EPOCH_ROWS, keys)))}))
            query.process_available()
        taken = []
        for _ in range(40):
            touched = apart * (chance.integers(0, keys, 10_000) if keys > 10_000 else np.arange(keys))
            source.add(pa.table({"k": pa.array(touched[chance.integers(0, len(touched), EPOCH_ROWS)])}))
            began = perf_counter()
            query.process_available()
            taken.append(1000 * (perf_counter() - began))
        query.stop()
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99)), _peak_mb()


def _nowhere(_epoch: int, _changes: pa.Table) -> None:
    """A sink's function that drops what it gets."""


# --- rows that are kept --------------------------------------------------------------------------------------


def counts(rows: pa.Table, state: pa.Table) -> tuple[pa.Table, pa.Table]:
    """How many rows a key had so far, and nothing else."""
    came = pa.table({"k": rows.column("k"), "n": pa.array(np.ones(len(rows), np.int64))})
    summed = pa.concat_tables([came, state]).group_by("k").aggregate([("n", "sum")]).rename_columns(["k", "n"])
    return summed.slice(0, 0), summed


_COUNTS = pa.schema([("k", pa.int64()), ("n", pa.int64())])
OF_ROWS: dict[str, str | Callable[[StreamingDataFrame], StreamingDataFrame]] = {
    "join": "SELECT l.k, l.v, r.name FROM l JOIN r ON l.k = r.k",
    "outer": "SELECT l.k, l.v, r.name FROM l LEFT JOIN r ON l.k = r.k",
    "keyed": "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) AS place FROM l",
    "states": "SELECT k, stddev(v) AS s FROM l GROUP BY k",
    "sessions": (
        "SELECT k, window_start, count(*) AS n "
        "FROM SESSION(TABLE l PARTITION BY k, DESCRIPTOR(v), INTERVAL '1 second') GROUP BY k, window_start, window_end"
    ),
    "best": "SELECT k, count(*) AS n, sum(v) AS s FROM l GROUP BY k ORDER BY n DESC, k LIMIT 10",
    "function": lambda rows: rows.group_by("k").apply_in_batches(counts, _COUNTS, _COUNTS.remove(0)),
}


def _of_rows(name: str, options: argparse.Namespace) -> Figures:
    lines = [[f"{name}: rows held", "in memory", "p99", "times, bar 2", "durable", "p99", "times, bar 2", "peak MB"]]
    before: dict[bool, float] = {}
    for held in options.held.split(","):
        line = [held]
        for kept in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                p50, p99 = _epochs_over_rows(OF_ROWS[name], KEYS[held], Path(folder, "checkpoint") if kept else None)
            times = p50 / before[kept] if kept in before else None
            shown = "-" if times is None else f"{times:.2f} {'met' if times <= 2 else 'MISSED'}"
            line += [f"{p50:.1f}", f"{p99:.1f}", shown]
            before[kept] = p50
        lines.append([*line, f"{_peak_mb():.0f}"])
    return lines


def _epochs_over_rows(
    asked: str | Callable[[StreamingDataFrame], StreamingDataFrame],
    rows: int,
    checkpoint: Path | None,
    memory_limit: str | None = None,
) -> tuple[float, float]:
    """Milliseconds of an epoch of 1,000 rows of random keys, over so many rows in all, two of each key."""
    chance = np.random.default_rng(1)
    keys = chance.permutation(rows // 2)
    with DataflowSession(memory_limit=memory_limit) as session:
        left = MemorySource(schema=pa.schema([("k", pa.int64()), ("v", pa.int64())]), bounded=False)
        right = MemorySource(schema=pa.schema([("k", pa.int64()), ("name", pa.string())]), bounded=False)
        for name, source in (("l", left), ("r", right)):
            session.create_temp_view(name, session.read_stream(source, name))
        frame = session.stream_sql(asked) if isinstance(asked, str) else asked(session.stream_sql("SELECT * FROM l"))
        query = frame.write_stream(
            CallbackSink(_nowhere), checkpoint_path=None if checkpoint is None else str(checkpoint)
        )
        both = isinstance(asked, str) and " JOIN " in asked

        def added(some: np.ndarray, number: int) -> None:
            left.add(pa.table({"k": pa.array(some), "v": pa.array(some * 7 + number)}))
            if both:
                right.add(pa.table({"k": pa.array(some), "name": pa.array([f"name {one}" for one in some])}))
            else:
                left.add(pa.table({"k": pa.array(some), "v": pa.array(some * 7 - number)}))

        for first in range(0, len(keys), EPOCH_ROWS // 2):
            added(keys[first : first + EPOCH_ROWS // 2], 1)
            query.process_available()
        taken = []
        for number in range(40):
            added(keys[chance.integers(0, len(keys), 500)], number + 2)
            began = perf_counter()
            query.process_available()
            taken.append(1000 * (perf_counter() - began))
        query.stop()
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99))


# --- soak ----------------------------------------------------------------------------------------------------


class Shifted:
    """Bids without end: one epoch of rows, again and again, each time later and with newer keys.

    Replayable, since the rows after any of its offsets follow from the number of epochs before.
    """

    def __init__(self, rows: int) -> None:
        chance = np.random.default_rng(2)
        self._left = self._epochs = rows // EPOCH_ROWS
        self._keys = chance.integers(0, 20_000, EPOCH_ROWS)
        self._times_us = np.arange(EPOCH_ROWS) * 100
        schema = pa.schema([("bidder", pa.int64()), ("date_time", pa.timestamp("us"))])
        self._info = abi.SourceInfo(schema=schema, bounded=True, replayable=True, time_column="date_time")

    def info(self) -> abi.SourceInfo:
        return self._info

    def open(self, context: abi.SourceContext) -> None:
        self._left = self._epochs - int(context.resume_from or 0)

    def next_batch(self, max_rows: int) -> abi.Batch | abi.EndOfStream:
        del max_rows
        if not self._left:
            return abi.EndOfStream()
        done = self._epochs - self._left
        self._left -= 1
        times = pa.array(self._times_us + done * EPOCH_ROWS * 100).cast(pa.timestamp("us"))
        rows = pa.Table.from_arrays([pa.array(self._keys + done * 500), times], schema=self._info.schema)
        return abi.Batch(rows, abi.TextOffset(str(done + 1)))

    def checkpoint(self, marker: abi.CheckpointMarker) -> None: ...

    def ack(self, offset: abi.Offset) -> None: ...

    def close(self) -> None: ...


def soak(options: argparse.Namespace) -> Figures:
    """Sliding counts by bidder; bidders come and go, so a state that forgot nothing would grow all the way."""
    marks: list[tuple[int, float, float, int]] = []
    out = 0

    def came(_epoch: int, changes: pa.Table) -> None:
        nonlocal out
        out += changes.num_rows

    with DataflowSession() as session:
        rows = session.read_stream(Shifted(options.soak), "bid").with_watermark("date_time", "0s")
        session.create_temp_view("bid", rows)
        frame = session.stream_sql(
            "SELECT window_start, bidder, count(*) AS bids FROM "
            "HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2 seconds', INTERVAL '10 seconds') "
            "GROUP BY window_start, bidder"
        )
        query = frame.write_stream(CallbackSink(came), output_mode="append", trigger=Trigger.available_now())
        step = max(options.soak // 10, 1)
        began = perf_counter()

        def mark(event: object) -> None:
            told = event.progress  # type: ignore[attr-defined]
            if told.rows_in >= (len(marks) + 1) * step:
                marks.append((told.rows_in, perf_counter() - began, _now_mb(), told.state_rows))

        query.add_listener(mark)
        query.start().await_termination()
    lines = [["soak, rows", "seconds", "M rows/s", "memory MB", "keys held"]]
    before = 0.0
    for at, seconds, memory, held in marks:
        lines.append(
            [f"{at:,}", f"{seconds:.0f}", f"{step / (seconds - before) / 1e6:.2f}", f"{memory:.0f}", f"{held:,}"]
        )
        before = seconds
    if len(marks) > 2:
        early, late = marks[1][2], marks[-1][2]
        lines.append([f"{out:,} out", "", "", f"{late / early:.2f}x", "flat" if late < 1.2 * early else "GROWS"])
    return lines


def _now_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return _peak_mb()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- main ----------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "durable": durable,
    "floor": floor,
    "latency": latency,
    "state": state,
    "limit": limit,
    **{name: partial(_of_rows, name) for name in OF_ROWS},
    "soak": soak,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Streams: what they cost besides their rows.")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"by comma, of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of each durable query (default: 2000000)")
    parser.add_argument("--rounds", type=int, default=4, help="of each durable query, the best counts (default: 4)")
    parser.add_argument("--seconds", type=float, default=10, help="of pushing for latency (default: 10)")
    parser.add_argument("--soak", type=int, default=20_000_000, metavar="ROWS", help="of the soak (default: 20000000)")
    parser.add_argument("--held", default=",".join(KEYS), help="rows of state, by comma (default: 10k,1M,10M)")
    parser.add_argument("--data", type=Path, default=default_cache(), help="where generated events stay")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too, a line each")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)  # run here, and print as JSON
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(PARTS[options.one](options)))
        sys.stdout.flush()
        return 0
    print(machine(("velaria", "duckdb", "pyarrow", "numpy"), os.cpu_count() or 1))
    failed = 0
    written = []
    for name, figures in _each(options.parts.split(","), options):
        if figures is None:
            failed += 1
            continue
        print("\n" + text_table(figures[0], figures[1:]), flush=True)
        written += [json.dumps({"part": name, **dict(zip(figures[0], line, strict=True))}) for line in figures[1:]]
    if options.json:
        Path(options.json).write_text("".join(f"{line}\n" for line in written))
    return 1 if failed else 0


def _each(names: list[str], options: argparse.Namespace) -> Iterator[tuple[str, Figures | None]]:
    given = ["--rows", options.rows, "--rounds", options.rounds, "--seconds", options.seconds]
    given += ["--soak", options.soak, "--held", options.held, "--data", options.data]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in names:
        command = [sys.executable, __file__, "--one", name, *map(str, given)]
        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8")
        if ran.returncode:
            print(f"\n{name} ended with {ran.returncode}")
            yield name, None
        else:
            yield name, json.loads(ran.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
