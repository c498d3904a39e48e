"""Placed steps are those of one process: after random histories, cut into any epochs, with rows that are late and rows
that go, epochs that fail, restarts, and workers that were killed before they were told of a COMMIT.

The workers' own code runs here without processes, so that many histories take little time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from velaria_core.changes import DIFF_FIELD, with_diff
from velaria_core.contract.modes import ExecutionMode, OutputMode
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Moment, compile_steps
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.rules import for_stream
from velaria_core.session import DataflowSession
from velaria_experimental.actors.line import Answers
from velaria_experimental.payload.tables import Placing
from velaria_experimental.streaming import placement
from velaria_experimental.streaming.keeper import Steps
from velaria_experimental.streaming.placement import ActorPlacement
from velaria_experimental.streaming.step import RemoteStep
from velaria_experimental.wire.frames import Writer, body_of
from velaria_experimental.wire.v1 import runtime_pb2 as pb

SEEDS = range(2)
WORKERS = 2
EPOCHS = 6
MISHAPS = ("", "", "", "fail", "restart", "kill")
EVENTS = pa.schema([("ts", pa.int64()), ("k", pa.int64()), ("v", pa.int64())])
NAMES = pa.schema([("due", pa.int64()), ("id", pa.int64()), ("w", pa.int64())])
TUMBLING = "SELECT start, k, count(*) AS n, sum(v) AS s FROM events WINDOW BY ts EVERY 10 AS start GROUP BY start, k"
PAIRS = "FROM events JOIN names ON k = id"
QUERIES = {
    "tumbling": TUMBLING,
    "sliding": "SELECT start, k, sum(v) AS s FROM events WINDOW BY ts EVERY 12 SLIDE 4 AS start GROUP BY start, k",
    "states": "SELECT start, k, median(v) AS m FROM events WINDOW BY ts EVERY 10 AS start GROUP BY start, k",
    "whole keys": "SELECT start, k, string_agg(v, ',' ORDER BY v) AS vs FROM events WINDOW BY ts EVERY 10 AS start "
    "GROUP BY start, k",
    "window of windows": f"SELECT start, max(n) AS most FROM ({TUMBLING}) GROUP BY start",
    "join": f"SELECT k, v, w {PAIRS}",
    "interval join": f"SELECT ts, due, k, v, w {PAIRS} AND due BETWEEN ts - 6 AND ts + 3",
    "left join": "SELECT k, v, w FROM events LEFT JOIN names ON k = id AND v < w",
    "full join": "SELECT ts, k, v, w FROM events FULL JOIN names ON k = id AND ts = due",
    "join of what goes": "SELECT k, n, w FROM (SELECT k, count(*) AS n FROM events GROUP BY k) JOIN names ON k = id",
    "as-of join": "SELECT ts, k, v, w FROM events ASOF JOIN "
    "(SELECT id, due, max(w) AS w FROM names GROUP BY id, due) AS n ON k = id AND ts >= due",
    "except": "SELECT k, v FROM events EXCEPT SELECT id, w FROM names",
    "intersect": "SELECT k, v FROM events INTERSECT SELECT id, w FROM names",
    "distinct": "SELECT DISTINCT k, v FROM events",
    "aggregate of a join": f"SELECT k, sum(v * w) AS s {PAIRS} GROUP BY k",
}
COMES_AND_GOES = ("tumbling", "sliding", "states", "join", "left join", "full join", "except", "aggregate of a join")


# --- workers without processes ------------------------------------------------------------------------------------


class Payloads(dict[str, bytes]):
    """Bytes that came, until they are read."""

    def forget(self, payload_id: str) -> bytes | None:
        return self.pop(payload_id, None)


@dataclass
class End:
    """One end of a line whose other end is in this process."""

    writer: Writer
    inbox: Payloads = field(default_factory=Payloads)
    other: Payloads = field(default_factory=Payloads)

    def send_payload(self, payload_id: str, data: bytes) -> None:
        self.other[payload_id] = data


class NearLine(End):
    """A line to a worker that does at once what it is sent; a deaf one is not told of a COMMIT any more."""

    def __init__(self, name: str) -> None:
        super().__init__(Writer("query"))
        self.steps = Steps(name, Placing(None, 0))
        self.deaf = False
        self._far: Any = End(Writer(name), self.other, self.inbox)

    def ask(self, frame: pb.Frame) -> Answers:
        answers = Answers(lambda: None)
        if not (self.deaf and body_of(frame) == "settle"):
            read = pb.Frame.FromString(frame.SerializeToString())
            answer = self.steps.answer(read, self._far)
            assert answer is not None
            answers.put(answer)
        return answers


class NearHub:
    """The workers of a query, in this process."""

    def __init__(self, count: int, **_: Any) -> None:
        self.placing = Placing(None, 0)
        self.lines = [NearLine(f"keeper-{at}") for at in range(count)]

    def release(self, prefix: str) -> None:
        del prefix

    def close(self) -> None:
        for line in self.lines:
            line.steps.close()


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "Hub", NearHub)


# --- a query ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=1) as made:
        yield made


def planned(session: DataflowSession, sql: str, append_only: bool) -> Node:
    for name, schema in (("events", EVENTS), ("names", NAMES)):
        source = MemorySource(schema=schema, append_only=append_only, bounded=False)
        frame = session.read_stream(source, name).with_watermark(schema.names[0], "5 milliseconds")
        session.create_temp_view(name, frame)
    return for_stream(session.stream_sql(sql).node)


@dataclass
class Epoch:
    """Rows by the name of their stream, and what happens before them."""

    rows: dict[str, pa.Table]
    mishap: str = ""


def history(random: Random, append_only: bool) -> list[Epoch]:
    """Rows whose times rise more or less, some of them late, some of them gone again."""
    epochs = []
    there: dict[str, list[tuple[Any, ...]]] = {"events": [], "names": []}
    for at in range(EPOCHS):
        rows = {}
        for name, schema in (("events", EVENTS), ("names", NAMES)):
            signed = []
            for _ in range(random.choice([0, 1, 3, 8])):
                if not append_only and there[name] and random.random() < 0.3:
                    signed.append((*there[name].pop(random.randrange(len(there[name]))), -1))
                    continue
                time = None if random.random() < 0.05 else 4 * at + random.randint(-12, 6)
                key = None if random.random() < 0.1 else random.randint(0, 4)
                there[name].append((time, key, random.randint(0, 3)))
                signed.append((*there[name][-1], 1))
            columns = schema if append_only else schema.append(DIFF_FIELD)
            rows[name] = pa.table([[row[one] for row in signed] for one in range(len(columns))], schema=columns)
        epochs.append(Epoch(rows, random.choice(MISHAPS)))
    return epochs


@dataclass
class Ran:
    """What came of each epoch, how many rows were dropped as late, and which steps were placed."""

    changes: list[Counter[tuple[Any, ...]]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    watermarks: list[int | None] = field(default_factory=list)
    placed: int = 0


@dataclass
class Query:
    """A plan at work, on workers or not; it can be opened again from what is durable."""

    plan: Node
    engine: Engine
    output: OutputMode
    append_only: bool
    folder: Path
    on_workers: bool

    def open(self, held: ExitStack) -> tuple[Dataflow, Store]:
        self.folder.mkdir(exist_ok=True)
        state = Engine(Settings(threads=1, path=str(self.folder / "state.duckdb") if self.on_workers else None))
        held.callback(state.close)
        store = Store(state)
        held.callback(store.close)
        self.placement = None
        if self.on_workers:
            mode = ExecutionMode.WORKER_PROCESSES
            options = StreamOptions(execution_mode=mode, local_workers=WORKERS, checkpoint_path=str(self.folder))
            self.placement = ActorPlacement(options, chooses=False)
            held.callback(self.placement.close)
        scans = [node for node in self.plan.walk() if isinstance(node, Scan)]
        self.relations = {scan.relation.label.removeprefix("stream "): id(scan.relation) for scan in scans}
        streams = dict.fromkeys(self.relations.values(), self.append_only)
        return compile_steps(self.plan, store, self.engine, streams, self.output, placement=self.placement), store

    def run(self, epochs: list[Epoch]) -> Ran:
        ran = Ran()
        with ExitStack() as held:
            flow, store = self.open(held)
            ran.placed = sum(isinstance(step, RemoteStep) for step in flow.steps)
            for number, epoch in enumerate([*epochs, Epoch({})]):
                tables = {
                    self.relations[name]: rows
                    for name, rows in epoch.rows.items()
                    if rows.num_rows and name in self.relations
                }
                ended = list(self.relations.values()) if number == len(epochs) else []
                moment = Moment(first=number == 0)
                match epoch.mishap:
                    case "restart" | "kill":
                        snapshot = flow.snapshot()
                        held.close()
                        flow, store = self.open(held)
                        flow.restore(snapshot)
                    case "fail":
                        store.cursor.begin()
                        flow.epoch(tables, moment, ended)
                        store.cursor.roll_back()
                        flow.rolled_back()
                store.cursor.begin()
                made = flow.epoch(tables, moment, ended)
                store.cursor.commit()
                killed = number + 1 < len(epochs) and epochs[number + 1].mishap == "kill"
                if killed and self.placement is not None and self.placement._hub is not None:
                    lines: Any = self.placement._hub.lines
                    lines[number % WORKERS].deaf = True
                flow.committed()
                ran.changes.append(net(made))
                ran.dropped.append(flow.late_dropped_rows)
                ran.watermarks.append(flow.watermark_us)
        return ran


def net(made: pa.Table | None) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for row in [] if made is None else with_diff(made).to_pylist():
        *values, diff = row.values()
        found[tuple(map(str, values))] += diff
    return Counter({row: count for row, count in found.items() if count})


@pytest.fixture
def compare(session: DataflowSession, tmp_path: Path) -> Callable[..., Ran]:
    def compared(name: str, seed: int, output: OutputMode, append_only: bool) -> Ran:
        plan = planned(session, QUERIES[name], append_only)
        epochs = history(Random(seed), append_only)
        undisturbed = [Epoch(epoch.rows) for epoch in epochs]
        here, there = (
            Query(plan, session._engine, output, append_only, tmp_path / f"{seed}", on_workers).run(given)
            for on_workers, given in ((False, undisturbed), (True, epochs))
        )
        assert here.placed == 0
        assert there.placed >= 1, "nothing was placed"
        assert there.changes == here.changes
        assert there.dropped == here.dropped
        assert there.watermarks == here.watermarks
        return there

    return compared


@pytest.mark.parametrize("name", QUERIES)
def test_every_epoch_gives_what_it_gives_in_one_process(compare: Callable[..., Ran], name: str) -> None:
    dropped = given = 0
    for seed in SEEDS:
        output = (OutputMode.APPEND, OutputMode.UPDATE)[seed % 2]
        ran = compare(name, seed, output, append_only=name not in COMES_AND_GOES or seed % 2 == 0)
        dropped += sum(ran.dropped)
        given += sum(map(len, ran.changes))
    assert given > 0
    assert dropped > 0 or not any(time in QUERIES[name] for time in ("BY ts", "AND ts", "BETWEEN ts")), (
        "no row was late"
    )
