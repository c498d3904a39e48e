"""Streams for the benchmarks: what is asked, the events as Parquet files, and how a contestant runs and is measured.

A contestant is a program of its own that reads the files, answers one query and writes the answer; its process is what
is measured, so that none lives in the leftovers of another. This file needs pyarrow and numpy alone, since contestants
run in environments of their own too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EPOCH_ROWS = 65_536
WINDOW_MS = 10_000
SLIDE_MS = 2_000

Rows = Mapping[str, pa.Table]


@dataclass(frozen=True, slots=True)
class Workload:
    """A query, in words that fit every contestant.

    Attributes:
        reads: the columns that it reads, by table.
        batch: the answer in SQL over the whole tables, as DuckDB has it.
        keys: columns of the answer that identify a row; a contestant may give a row anew, and the last counts.
    """

    name: str
    reads: Mapping[str, tuple[str, ...]]
    batch: str
    keys: tuple[str, ...] = ()


_BID = ("auction", "bidder", "price", "channel", "url", "date_time")
_BUCKET = "time_bucket(to_milliseconds({length}), date_time, TIMESTAMP '1970-01-01')"
_HOP = (
    f"SELECT unnest([{_BUCKET.format(length=SLIDE_MS)} - to_milliseconds(i * {SLIDE_MS}) "
    f"FOR i IN range({WINDOW_MS // SLIDE_MS})]) AS window_start, auction FROM bid"
)
_TUMBLE = _BUCKET.format(length=WINDOW_MS)

WORKLOADS = {
    one.name: one
    for one in (
        Workload(
            "q0",
            {"bid": _BID},
            "SELECT auction, bidder, price, channel, url, date_time FROM bid",
        ),
        Workload(
            "q1",
            {"bid": _BID},
            "SELECT auction, bidder, 0.908::DOUBLE * price AS price, channel, url, date_time FROM bid",
        ),
        Workload("q2", {"bid": ("auction", "price")}, "SELECT auction, price FROM bid WHERE auction % 123 = 0"),
        Workload(
            "q3",
            {"person": ("id", "name", "city", "state"), "auction": ("id", "seller", "category")},
            "SELECT name, city, state, auction.id AS id FROM auction JOIN person ON seller = person.id "
            "WHERE category = 10 AND state IN ('OR', 'ID', 'CA')",
        ),
        Workload(
            "q5",
            {"bid": ("auction", "date_time")},
            f"WITH counted AS (SELECT window_start, auction, count(*) AS bids FROM ({_HOP}) GROUP BY ALL) FROM counted "
            "QUALIFY row_number() OVER (PARTITION BY window_start ORDER BY bids DESC, auction) = 1",
            ("window_start",),
        ),
        Workload(
            "q7",
            {"bid": ("price", "date_time")},
            f"SELECT {_TUMBLE} AS window_start, max(price) AS price FROM bid GROUP BY 1",
        ),
        Workload(
            "q8",
            {"person": ("id", "name", "date_time"), "auction": ("seller", "date_time")},
            f"SELECT id, name, {_TUMBLE} AS window_start FROM person SEMI JOIN "
            f"(SELECT seller, {_TUMBLE} AS opened FROM auction) ON id = seller AND opened = "
            f"{_TUMBLE.replace('date_time', 'person.date_time')}",
        ),
        Workload(
            "q12",
            {"bid": ("bidder", "date_time")},
            f"SELECT {_TUMBLE} AS window_start, bidder, count(*) AS bids FROM bid GROUP BY ALL",
        ),
        Workload("count_1k", {"keys_1k": ("key",)}, "SELECT key, count(*) AS n FROM keys_1k GROUP BY key", ("key",)),
        Workload("count_1m", {"keys_1m": ("key",)}, "SELECT key, count(*) AS n FROM keys_1m GROUP BY key", ("key",)),
    )
}


# --- running -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """What a contestant gives: `add` each table as it comes out.

    Attributes:
        kept: whether the tables are kept, to be compared; where time counts they are dropped, since what a kernel takes
            to hand out a gigabyte of memory is no contestant's merit.
        tables: the rows, in the order in which they came out.
        rows: how many.
        latencies_ms: of each epoch, from its rows at hand to its output; empty where there are no epochs.
        first_s, last_s: when the first row was asked for and the last was out, where that is not the whole call: an
            engine's start and end are not measured.
    """

    kept: bool
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    first_s: float | None = None
    last_s: float | None = None

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        if self.kept:
            self.tables.append(table)


def epochs(folder: Path, workload: Workload, epoch_rows: int = EPOCH_ROWS) -> Iterator[Rows]:
    """The tables in steps of `epoch_rows` rows, each table in proportion to its length."""
    files = {name: pq.ParquetFile(folder / f"{name}.parquet") for name in workload.reads}
    total = sum(file.metadata.num_rows for file in files.values())
    readers = [
        file.iter_batches(max(1, epoch_rows * file.metadata.num_rows // total), columns=list(workload.reads[name]))
        for name, file in files.items()
    ]
    for batches in zip_longest(*readers):
        yield {
            name: pa.Table.from_batches([batch]).select(list(workload.reads[name]))
            for name, batch in zip(files, batches, strict=True)
            if batch is not None
        }


def contestant(run: Callable[[Workload, Path, Path, Answer], None]) -> None:
    """The main program of a contestant: `PROGRAM QUERY FOLDER SCRATCH`; prints what was measured as JSON.

    `run` is called with the workload, the folder of the tables, one for files of its own, and where the answer goes:
    on the few rows in FOLDER/warm, then for the measure, and once more for the answer.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("query", choices=WORKLOADS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    given = parser.parse_args()
    workload = WORKLOADS[given.query]
    run(workload, given.folder / "warm", given.scratch / "warm", Answer(kept=True))
    answer = Answer(kept=False)
    began_cpu, began = _cpu_s(), perf_counter()
    run(workload, given.folder, given.scratch / "run", answer)
    seconds = (answer.last_s or perf_counter()) - (answer.first_s or began)
    cpu_s = _cpu_s() - began_cpu
    peak_mb = _peak_mb()
    again = Answer(kept=True)
    run(workload, given.folder, given.scratch / "again", again)
    _write(again.tables, given.scratch / "answer.parquet", with_order=bool(workload.keys))
    latencies = sorted(answer.latencies_ms)
    measured = {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "p50_ms": float(np.percentile(latencies, 50)) if latencies else None,
        "p99_ms": float(np.percentile(latencies, 99)) if latencies else None,
        "peak_mb": peak_mb,
        "rows_out": answer.rows,
    }
    print(json.dumps(measured))
    sys.stdout.flush()
    os._exit(0)  # what an engine does as it ends is not our business


def _write(tables: Sequence[pa.Table], file: Path, *, with_order: bool) -> None:
    """The answer as Parquet; where rows may come anew, with the place of each."""
    if tables:
        whole = pa.concat_tables(tables)
        if with_order:
            whole = whole.append_column("__place", pa.array(np.arange(whole.num_rows)))
        pq.write_table(whole, file, compression="lz4")


def _processes() -> list[int]:
    """This process and all that it started, and they."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = [os.getpid()]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one)
    return found


def _cpu_s() -> float:
    ticks = 0
    for one in _processes():
        try:
            fields = Path("/proc", str(one), "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _peak_mb() -> float:
    total = 0
    for one in _processes():
        try:
            lines = Path("/proc", str(one), "status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total / 1024


def milliseconds(times: pa.ChunkedArray) -> Any:
    """Timestamps as a NumPy array of milliseconds."""
    return times.cast(pa.int64()).to_numpy() // 1000


def timestamps(times_ms: Any) -> pa.Array:
    """The other way."""
    return pa.array(np.asarray(times_ms, np.int64) * 1000).cast(pa.timestamp("us"))
