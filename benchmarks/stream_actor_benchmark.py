"""What another process costs, and when it pays: one process, gRPC and shared memory, with 1, 2 and 4 workers.

Three parts, each printed with the time of its stages:

    move    rows between two processes and back, through shared memory and over gRPC
    stream  a grouping by key over epochs of Nexmark-like events: single-process, and worker-processes by either way
    batch   SQL over one table, on the workers of a scheduler, and in one process with as many threads

Answers are compared before anything is measured. Bar: shared memory moves 1 GB/s in each direction. The last column
says which one the strategy chooses, and on what numbers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
from _measure import machine, text_table

import velaria_experimental.streaming
from velaria_core.execution.sinks.callback import CallbackSink
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.session import DataflowSession
from velaria_experimental.client import Answer, Client
from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.observe.spans import Span, Stage, totals_us
from velaria_experimental.payload.segments import Segments, mapped
from velaria_experimental.payload.tables import decoded, encoded
from velaria_experimental.plans.choice import estimated
from velaria_experimental.plans.split import split
from velaria_experimental.starting import started_scheduler
from velaria_experimental.streaming.step import RemoteStep
from velaria_experimental.wire.v1 import runtime_pb2 as pb

WORKERS = (1, 2, 4)
STREAMS = {
    "count and sum by key": "SELECT k, count(*) AS n, sum(v) AS s FROM events GROUP BY k",
    "median by key": "SELECT k, median(v) AS m FROM events GROUP BY k",
    "pattern then count": "SELECT k, count(*) AS n FROM events "
    "WHERE regexp_matches(t, '(a|b).*[0-9]{2}(x|y|7)') GROUP BY k",
}
BATCHES = STREAMS | {
    "filter": "SELECT k, v FROM events WHERE v % 7 = 0",
    "join then sum": "SELECT name, sum(v) AS s FROM events JOIN names ON events.k = names.id GROUP BY name",
}
_STAGES = [str(stage) for stage in Stage]
_ECHO = """
import sys
import pyarrow as pa
from velaria_experimental.payload.segments import Segments, mapped
segments = Segments()
for line in sys.stdin:
    table = mapped(line.strip())
    total = sum(column.nbytes for column in table.columns)
    segments.remove("")
    print(segments.write("back", table)[0], flush=True)
segments.close()
"""


def events(rows: int, keys: int) -> pa.Table:
    random = np.random.default_rng(7)
    texts = np.array([f"{'ab'[at % 2]}-text-{at:04d}-{'xyz'[at % 3]}" for at in range(1000)], dtype=object)
    return pa.table(
        {
            "k": random.integers(0, keys, rows),
            "v": random.integers(-1000, 1000, rows),
            "t": pa.array(texts[random.integers(0, 1000, rows)], pa.string()),
        }
    )


def in_order(table: pa.Table) -> pa.Table:
    """Rows in one order, so that two answers compare."""
    return table.sort_by([(name, "ascending") for name in table.column_names]).combine_chunks()


def spent(spans: Sequence[Span], runs: int) -> list[str]:
    """Milliseconds of each stage, of one run."""
    found = totals_us(spans)
    return [f"{found[stage] / runs / 1000:.1f}" for stage in _STAGES]


# --- moving rows ------------------------------------------------------------------------------------------------


def move(megabytes: int, rounds: int) -> None:
    """Rows to another process, which reads all of them in place and writes them back."""
    table = pa.table({"x": np.arange(megabytes << 17, dtype=np.int64)})
    segments = Segments()
    other = subprocess.Popen([sys.executable, "-c", _ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    best = dict.fromkeys(("write", "there and back", "read"), float("inf"))
    for _ in range(rounds + 1):
        began = perf_counter()
        name, size = segments.write("there", table)
        written = perf_counter()
        print(name, file=other.stdin, flush=True)
        back = mapped(other.stdout.readline().strip())
        arrived = perf_counter()
        same = back.column(0).to_numpy()[-1] == len(table) - 1 and int(back.column(0).to_numpy().sum()) > 0
        assert same
        read = perf_counter()
        segments.remove("")
        took = {"write": written - began, "there and back": arrived - began, "read": read - arrived}
        best = {what: min(seconds, took[what]) for what, seconds in best.items()}
    other.stdin.close()
    other.wait()
    segments.close()
    gigabytes = size / 1e9
    rows = [
        ["shared memory, written", f"{gigabytes / best['write']:.2f}"],
        ["shared memory, read in place", f"{gigabytes / best['read']:.2f}"],
        ["shared memory, each way of a round trip", f"{2 * gigabytes / best['there and back']:.2f}"],
        ["Arrow IPC as bytes, written and read", f"{gigabytes / _copied(table, rounds):.2f}"],
        ["gRPC stream, one way with credit", f"{gigabytes / _streamed(table, rounds):.2f}"],
    ]
    print(text_table([f"move {size >> 20} MB", "GB/s"], rows))


def _copied(table: pa.Table, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = perf_counter()
        decoded(encoded(table))
        times.append(perf_counter() - began)
    return min(times)


def _streamed(table: pa.Table, rounds: int) -> float:
    """One way: a client's rows to the scheduler, which holds them, until it has answered."""
    data = encoded(table)
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        address, token_file = opened.enter_context(scheduler(folder, 0))
        mailbox = opened.enter_context(Client(address, token_file=token_file)).link()._mailbox
        times = []
        for number in range(rounds):
            began = perf_counter()
            mailbox.send_payload(f"bench/{number}", data)
            # Behind the chunks: answered when they are there.
            with mailbox.ask(mailbox.writer.frame(inspect=pb.Inspect())) as asked:
                asked.next(600)
            times.append(perf_counter() - began)
    return min(times)


# --- streams ----------------------------------------------------------------------------------------------------


def stream(batches: int, rows: int, keys: int, chosen: Sequence[str]) -> None:
    velaria_experimental.streaming.use(chooses=False)
    tables = [events(rows, keys) for _ in range(batches)]
    with DataflowSession() as session:
        for name in chosen:
            expected = _streamed_rows(session, STREAMS[name], tables, {})
            contestants: dict[str, Mapping[str, Any]] = {"single-process": {}}
            for workers in WORKERS:
                for way, shared in (("gRPC", False), ("shared memory", True)):
                    contestants[f"{way}, {workers}"] = {
                        "execution_mode": "worker-processes",
                        "local_workers": workers,
                        "shared_memory_transport": shared,
                        "shared_memory_min_payload_bytes": 0,
                    }
            lines, speeds = [], {}
            for label, options in contestants.items():
                assert _streamed_rows(session, STREAMS[name], tables, options) == expected, label
                seconds, spans = _stream_time(session, STREAMS[name], tables, options)
                speeds[label] = batches * rows / seconds
                lines.append([label, f"{speeds[label] / 1e6:.2f}", *spent(spans, batches)])
            print(f"\nstream: {name}; {batches} epochs of {rows} rows, {keys} keys; stages in ms an epoch")
            print(text_table(["", "M rows/s", *_STAGES], lines))
            best = max(speeds, key=speeds.__getitem__)
            print(f"fastest: {best}, {speeds[best] / speeds['single-process']:.2f} times one process")
            print(f"the strategy with two workers: {_strategy(session, STREAMS[name])}")


def _strategy(session: DataflowSession, sql: str) -> str:
    """Which mode a query gets that asks for processes, and why. Its stream is the one that was measured last."""
    velaria_experimental.streaming.use()
    told = session.stream_sql(sql).explanation(execution_mode="worker-processes", local_workers=2).strategy
    velaria_experimental.streaming.use(chooses=False)
    return f"{told.selected_mode}: {told.reason}"


def _streamed_rows(
    session: DataflowSession, sql: str, tables: Sequence[pa.Table], options: Mapping[str, Any]
) -> pa.Table:
    sink = MemorySink()
    session.create_temp_view("events", session.read_stream(MemorySource(list(tables[:3])), "events"))
    query = session.stream_sql(sql).write_stream(sink, **options)
    query.process_available()
    query.stop()
    return in_order(sink.result())


def _stream_time(
    session: DataflowSession, sql: str, tables: Sequence[pa.Table], options: Mapping[str, Any]
) -> tuple[float, list[Span]]:
    """Seconds of all epochs but the first, which starts the processes."""
    began: list[float] = []
    sink = CallbackSink(lambda *_: began.append(perf_counter()) if not began else None)
    session.create_temp_view("events", session.read_stream(MemorySource([tables[0], *tables]), "events"))
    query = session.stream_sql(sql).write_stream(sink, epoch_rows_max=tables[0].num_rows, **options)
    query.process_available()
    seconds = perf_counter() - began[0]
    spans = [span for step in query._flow.steps if isinstance(step, RemoteStep) for span in step.spans.spans]
    query.stop()
    return seconds, spans


# --- batch ------------------------------------------------------------------------------------------------------


@contextmanager
def scheduler(folder: Path, workers: int) -> Iterator[tuple[str, Path]]:
    with started_scheduler(folder, "--local-workers", str(workers), stdout=subprocess.DEVNULL) as (address, token_file):
        with Client(address, token_file=token_file, shared_memory=False) as client:
            while client.workers() < workers:
                pass
        yield address, token_file


def batch(rows: int, keys: int, rounds: int, chosen: Sequence[str]) -> None:
    table = events(rows, keys)
    names = pa.table({"id": np.arange(keys), "name": [f"name {at % 100}" for at in range(keys)]})
    options = JobOptions(timeout_ms=600_000)
    with DataflowSession() as session:
        session.create_temp_view("events", session.create_dataframe(table))
        session.create_temp_view("names", session.create_dataframe(names))
        lines: dict[str, list[list[str]]] = {name: [] for name in chosen}
        frames = {name: session.sql(BATCHES[name]) for name in chosen}
        expected = {name: in_order(frame.to_arrow()) for name, frame in frames.items()}
        best = {name: _best(frame.to_arrow, rounds)[0] for name, frame in frames.items()}
        for name in chosen:
            lines[name].append(["single-process", f"{rows / best[name] / 1e6:.2f}", *[""] * len(_STAGES)])
        for workers in WORKERS:
            with tempfile.TemporaryDirectory() as folder, scheduler(Path(folder), workers) as (address, token_file):
                for way, shared in (("gRPC", False), ("shared memory", True)):
                    with Client(
                        address,
                        token_file=token_file,
                        tasks=max(2, workers),
                        shared_memory=shared,
                        shared_memory_min_bytes=0,
                    ) as client:
                        for name, frame in frames.items():
                            assert in_order(client.run(frame, options).table) == expected[name], name
                            seconds, answer = _best(partial(client.run, frame, options), rounds)
                            spans = answer.spans if isinstance(answer, Answer) else ()
                            speed = f"{rows / seconds / 1e6:.2f}"
                            lines[name].append([f"{way}, {workers}", speed, *spent(spans, 1)])
        for name, frame in frames.items():
            print(f"\nbatch: {name}; {rows} rows, {keys} keys; stages in ms, over all processes")
            print(text_table(["", "M rows/s", *_STAGES], lines[name]))
            guess = estimated(session._engine, split(session._engine, frame.node, 2), 2, 2, True)
            print(f"the strategy with two workers: {guess.reason}")


def _best(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    best, answer = float("inf"), None
    for _ in range(rounds):
        began = perf_counter()
        found = work()
        took = perf_counter() - began
        if took < best:
            best, answer = took, found
    return best, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", default="move,stream,batch", help="[default: %(default)s]")
    parser.add_argument("--megabytes", type=int, default=128, help="to move [default: %(default)s]")
    parser.add_argument("--batches", type=int, default=32, help="epochs of a stream [default: %(default)s]")
    parser.add_argument("--rows", type=int, default=65_536, help="of an epoch [default: %(default)s]")
    parser.add_argument("--batch-rows", type=int, default=4_000_000, help="of the table [default: %(default)s]")
    parser.add_argument("--keys", type=int, default=10_000, help="[default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="[default: %(default)s]")
    parser.add_argument("--queries", default="", help="names, with commas; all by default")
    given = parser.parse_args()
    print(machine(["velaria-core", "duckdb", "pyarrow", "grpcio"], 2))
    parts, asked = given.parts.split(","), [one for one in given.queries.split(",") if one]
    if "move" in parts:
        move(given.megabytes, given.rounds)
    if "stream" in parts:
        stream(given.batches, given.rows, given.keys, [name for name in STREAMS if not asked or name in asked])
    if "batch" in parts:
        batch(given.batch_rows, given.keys, given.rounds, [name for name in BATCHES if not asked or name in asked])


if __name__ == "__main__":
    main()
