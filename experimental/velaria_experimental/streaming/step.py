"""RemoteStep: a keyed step whose state lives in worker processes, in step with the query's own epochs.

An epoch's rows are cut by the hash of key columns and sent, then a barrier to every worker; each runs the kernel's
epoch over its rows and answers with the changes, and the step gives these together. The epoch's end is told when it is
known: `Settle` after the query's COMMIT, or an undo.

What is durable is anchored in the query's own transaction: the rows that were sent are written to its state before its
COMMIT, and a worker writes its state only after. So after a crash a worker is at most behind, never ahead; it is sent
again what it lacks, and what it answers was told before.

Invariant: a worker's durable barrier is not later than the last one in the query's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.changes import DIFF_FIELD, with_diff
from velaria_core.contract.modes import OutputMode
from velaria_core.errors import StateError, VelariaError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.placing import Offer
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Changes, Moment, Step, compile_steps
from velaria_core.execution.steps.base import some
from velaria_core.execution.steps.placed import PlacedStep
from velaria_core.logical.expr import columns_of
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Aggregate, Filter, Project
from velaria_core.logical.serialize import dumps
from velaria_core.types import quoted
from velaria_experimental.actors.line import Answers, Line
from velaria_experimental.observe.spans import Span, Spans, Stage
from velaria_experimental.payload.tables import encoded, opened
from velaria_experimental.plans.inputs import input_scan
from velaria_experimental.streaming.messages import barrier_message, input_message
from velaria_experimental.wire.v1 import runtime_pb2 as pb

if TYPE_CHECKING:
    from velaria_experimental.streaming.hub import Hub
    from velaria_experimental.streaming.placement import ActorPlacement

_ANSWER_SECONDS: Final = 600.0  # an epoch's work; a worker that dies is known at once
_SPANS_MAX: Final = 10_000
_STEPS: Final = count(1)
# A barrier of a worker, and the rows of each input that came before it; NULL for none.
_SENT: Final = pa.schema(
    [
        ("number", pa.int64()),
        ("worker", pa.int32()),
        ("first", pa.bool_()),
        ("now_ms", pa.int64()),
        ("late_before_us", pa.int64()),
        ("watermark_us", pa.int64()),
        ("rows", pa.list_(pa.binary())),
    ]
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A step as workers will compile it; `rows` are the columns that it is sent of each input, with the diff where they
    have one."""

    plan: str
    rows: tuple[pa.Schema, ...]
    schema: pa.Schema
    append_only: bool
    is_net: bool
    impl: str


def compiled(offer: Offer, cuts: Sequence[Sequence[str]]) -> Compiled:
    """What a worker makes of what is offered, over the columns that it reads or is cut by; 20 ms.

    Raises:
        VelariaError: it cannot be sent.
    """
    scans, rows, streams, bounds = [], [], {}, {}
    for number, (below, by) in enumerate(zip(offer.below, cuts, strict=True), 1):
        names = dict.fromkeys([*_columns_read(offer.run, below), *by])
        schema = pa.schema([below.schema.field(name) for name in names])
        scan = input_scan(number, schema)
        scans.append(scan)
        rows.append(schema if below.append_only else schema.append(DIFF_FIELD))
        streams[id(scan.relation)] = below.append_only
        bounds[id(scan.relation)] = {name: bound for name, bound in below.times.items() if name in names}
    nodes: list[Node] = list(scans)
    for operator in reversed(offer.run):
        nodes = [operator.over(nodes)]
    (node,) = nodes
    engine = Engine(Settings(threads=1))
    try:
        store = Store(engine)
        flow = compile_steps(node, store, engine, streams, offer.output, bounds=bounds)
        last = flow.steps[-1]
        made = Compiled(dumps(node), tuple(rows), flow.schema, last.append_only, last.is_net, last.impl)
        store.close()
        return made
    finally:
        engine.close()


def _columns_read(run: Sequence[Node], below: Step) -> list[str]:
    """Columns below that the nodes read, where projections or groupings say so; the others need not travel."""
    read: set[str] = set()
    for node in reversed(run):
        match node:
            case Filter():
                read.update(columns_of(node.predicate))
                continue
            case Project():
                read.update(name for _, tree in node.named for name in columns_of(tree))
            case Aggregate():
                read.update(name for _, tree in (*node.keys, *node.metrics) for name in columns_of(tree))
            case _:
                break
        return [name for name in below.schema.names if name in read]
    return list(below.schema.names)


class _Cut:
    """Cuts the rows of one input into those of each worker."""

    def __init__(self, store: Store, below: Step, by: Sequence[str], rows: pa.Schema, workers: int) -> None:
        self._feed = store.feed(pa.schema([below.schema.field(column) for column in by]))
        self._by, self._rows, self._workers, self._below = list(by), rows, workers, below
        hashed = f"CAST(hash({', '.join(map(quoted, by))}) % {workers:d} AS INTEGER)"
        self._part = store.prepare(f"SELECT {hashed} AS part FROM {self._feed.name}")

    def of(self, given: Changes) -> list[Changes]:
        """The rows of each worker, in their order; None for none."""
        if given is None:
            return [None] * self._workers
        self._feed.table = given.select(self._by)
        parts = self._part().column(0).to_numpy()
        order = np.argsort(parts, kind="stable")
        ends = np.searchsorted(parts[order], np.arange(self._workers + 1))
        signed = given if self._below.append_only else with_diff(given)
        rows = pc.take(signed.select(self._rows.names), pa.array(order))
        return [some(rows.slice(int(low), int(high - low))) for low, high in pairwise(ends)]


class RemoteStep(PlacedStep):
    """A keyed step or a join at work in several processes.

    Args:
        cuts: for each input the columns by whose hash its rows are cut.

    Attributes:
        spans: what the last epochs took in each stage, here and in the workers.
    """

    def __init__(self, placement: ActorPlacement, offer: Offer, found: Compiled, cuts: Sequence[Sequence[str]]) -> None:
        super().__init__(found.schema, found.append_only, offer.below)
        store = offer.store
        self.impl_reason = f"{placement.workers} processes keep the state of their keys, each with step {found.impl}"
        self._placement, self._offer, self._found, self.name = placement, offer, found, offer.name
        self._net = found.is_net
        self._cursor = store.cursor
        self._cuts = [
            _Cut(store, below, by, rows, placement.workers)
            for below, by, rows in zip(offer.below, cuts, found.rows, strict=True)
        ]
        self._sent = store.table(f"{offer.name}_barriers", _SENT) if store.durable else ""
        self._follows_time = any(below.times for below in offer.below)
        self._watermark_us: int | None = None  # that the workers were told last; None where that is not known
        self._hub: Hub | None = None
        self._number = self._settled = 0  # the last barrier, and the last that was told to be durable
        self._durable = 0  # the last that all workers have made so
        self._pending: list[Answers] = []
        self._id = next(_STEPS)
        self._kept = (0, 0)
        self.spans = Spans("query")

    @property
    def is_net(self) -> bool:
        return self._net

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        self.late_dropped_rows = 0
        moves = self._follows_time and at.watermark_us != self._watermark_us
        if not moves and all(given is None for given in changes):
            return None
        hub = self._opened()
        spans, what = self.spans, f"{self.name}/{self._number + 1}"
        with spans.measured(Stage.WAIT, what):
            self._collect()
        self._number += 1
        with spans.measured(Stage.SPLIT, what):
            parts = list(zip(*(cut.of(given) for cut, given in zip(self._cuts, changes, strict=True)), strict=True))
        if self._sent:
            with spans.measured(Stage.SERIALISE, what):
                self._log(parts, at)
        with spans.measured(Stage.SERIALISE, what):
            answers = [self._barrier(hub, worker, self._number, rows, at) for worker, rows in enumerate(parts)]
        tables = []
        for line, asked in zip(hub.lines, answers, strict=True):
            with asked, spans.measured(Stage.WAIT, what):
                answer = asked.next(_ANSWER_SECONDS)
            with spans.measured(Stage.MERGE, what):
                made = self._taken(line, answer)
            self.late_dropped_rows += answer.result.late_dropped_rows
            spans.spans += [Span.of(span) for span in answer.result.spans]
            if made is not None and made.num_rows:
                tables.append(made)
        self._watermark_us = at.watermark_us
        del spans.spans[:-_SPANS_MAX]
        hub.release(f"q{self._id}.{self._number}.")
        return pa.concat_tables(tables) if tables else None

    def committed(self) -> None:
        if self._hub is not None and self._number > self._settled:
            self._settle(self._hub, ok=True)
            self._settled = self._number

    def rolled_back(self) -> None:
        self._watermark_us = None
        if self._hub is None:
            return
        if self._number > self._settled:
            self._settle(self._hub, ok=False)
            self._number = self._settled

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        del now_ms
        return self._follows_time and self._hub is not None and watermark_us != self._watermark_us

    def state_rows(self) -> int:
        return self._kept[0]

    def state_bytes(self) -> int:
        return self._kept[1]

    # --- rows -----------------------------------------------------------------------------------------------

    def _barrier(self, hub: Hub, worker: int, number: int, rows: Sequence[Changes], at: Moment) -> Answers:
        line = hub.lines[worker]
        barrier = barrier_message(self.name, number, at)
        for part, table in enumerate(rows):
            if table is not None:
                told, data = hub.placing.place(f"q{self._id}/{number}/{worker}/{part}", table, part)
                if data is not None:
                    line.send_payload(told.payload_id, data)
                barrier.rows.append(told)
        return line.ask(line.writer.frame(barrier=barrier))

    def _taken(self, line: Line, frame: pb.Frame) -> Changes:
        """The changes that a worker answers with."""
        payloads = frame.result.payloads
        if not payloads:
            return None
        received = {one.payload_id: data for one in payloads if (data := line.inbox.forget(one.payload_id)) is not None}
        return opened(payloads, received, self.changes_schema)

    # --- state ----------------------------------------------------------------------------------------------

    def _log(self, parts: Sequence[Sequence[Changes]], at: Moment) -> None:
        """Write what is sent to the query's state, and remove what every worker has made durable."""
        self._cursor.rows(f"DELETE FROM {self._sent} WHERE number <= $1", [self._durable])
        for worker, rows in enumerate(parts):
            if self._follows_time or any(table is not None for table in rows):
                data = [None if table is None else encoded(table) for table in rows]
                values = [self._number, worker, at.first, at.now_ms, at.late_before_us, at.watermark_us, data]
                self._cursor.rows(f"INSERT INTO {self._sent} VALUES ($1, $2, $3, $4, $5, $6, $7)", values)

    def _settle(self, hub: Hub, *, ok: bool) -> None:
        settle = pb.Settle(step=self.name, number=self._number if ok else self._settled, ok=ok)
        self._pending += [line.ask(line.writer.frame(settle=settle)) for line in hub.lines]
        if not ok:
            try:
                self._collect()
            except VelariaError:
                self._pending.clear()  # whoever is gone has undone it too

    def _collect(self) -> None:
        """The answers to the last settling. They are not waited for before there is something to do."""
        pending, self._pending = self._pending, []
        acks = []
        for asked in pending:
            with asked:
                acks.append(asked.next(_ANSWER_SECONDS).ack)
        if acks:
            self._kept = (sum(ack.state_rows for ack in acks), sum(ack.state_bytes for ack in acks))
            self._durable = min(ack.number for ack in acks)

    def _opened(self) -> Hub:
        """The workers, with this step in them, at the barrier that the query's state is at."""
        if self._hub is not None:
            return self._hub
        states = [self._placement.state_file(self.name, worker) for worker in range(self._placement.workers)]
        hub = self._placement.hub()
        last = self._last_sent()
        behind = []
        for state, line in zip(states, hub.lines, strict=True):
            place = pb.Place(
                plan=self._found.plan,
                inputs=[
                    input_message(rows, below.times, append_only=below.append_only)
                    for rows, below in zip(self._found.rows, self.inputs, strict=True)
                ],
                append=self._offer.output is OutputMode.APPEND,
                state=state,
                step=self.name,
            )
            with line.ask(line.writer.frame(place=place)) as asked:
                number = asked.next(_ANSWER_SECONDS).ack.number
            if not self._kept_from() - 1 <= number <= last:
                told = f"a worker's state is at barrier {number}, the query's at {last}"
                raise StateError(
                    "checkpoint.workers", told, hint="restore the whole folder, or start with an empty one"
                )
            behind.append(number)
        self._number = self._settled = last
        self._hub = hub
        if any(number < last for number in behind):
            self._replay(hub, behind)
        return hub

    def _kept_from(self) -> int:
        """The first barrier of which the query's state still has the rows; what was before it, workers had."""
        if not self._sent:
            return 1
        ((first,),) = self._cursor.rows(f"SELECT coalesce(min(number), 1) FROM {self._sent}")
        return int(first)

    def _last_sent(self) -> int:
        if not self._sent:
            return 0
        ((last,),) = self._cursor.rows(f"SELECT coalesce(max(number), 0) FROM {self._sent}")
        return int(last)

    def _replay(self, hub: Hub, behind: Sequence[int]) -> None:
        """Send again what workers lack; what they answer was told before the crash."""
        for worker, line in enumerate(hub.lines):
            lacks = f"FROM {self._sent} WHERE worker = $1 AND number > $2 ORDER BY number"
            columns = "number, first, late_before_us, watermark_us, now_ms, rows"
            for number, *at, rows in self._cursor.rows(f"SELECT {columns} {lacks}", [worker, behind[worker]]):
                tables = [None if data is None else pa.ipc.open_stream(pa.py_buffer(data)).read_all() for data in rows]
                with self._barrier(hub, worker, number, tables, Moment(*at)) as asked:
                    self._taken(line, asked.next(_ANSWER_SECONDS))
            hub.release(f"q{self._id}.")
        self._settle(hub, ok=True)
        self._collect()
