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
from velaria_core.errors import StateError, VelariaError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Changes, Moment, Step, compile_steps
from velaria_core.execution.steps.placed import PlacedStep
from velaria_core.logical.node import Node
from velaria_core.logical.serialize import dumps
from velaria_core.types import quoted
from velaria_experimental.actors.line import Answers, Line
from velaria_experimental.observe.spans import Span, Spans, Stage
from velaria_experimental.payload.tables import encoded, opened
from velaria_experimental.plans.inputs import input_scan
from velaria_experimental.wire.codec import schema_bytes
from velaria_experimental.wire.v1 import runtime_pb2 as pb

if TYPE_CHECKING:
    from velaria_experimental.streaming.hub import Hub
    from velaria_experimental.streaming.placement import ActorPlacement

_ANSWER_SECONDS: Final = 600.0  # an epoch's work; a worker that dies is known at once
_SPANS_MAX: Final = 10_000
_STEPS: Final = count(1)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A step as workers will compile it; `rows` are the columns that it is sent, with the diff where they have one."""

    plan: str
    rows: pa.Schema
    schema: pa.Schema
    append_only: bool
    is_net: bool
    impl: str


def compiled(run: Sequence[Node], below: Step, columns: Sequence[str]) -> Compiled:
    """What a worker makes of a node and the linear ones below it, over these columns; 20 ms.

    Raises:
        VelariaError: it cannot be sent.
    """
    schema = pa.schema([below.schema.field(name) for name in columns])
    scan = input_scan(1, schema)
    node: Node = scan
    for operator in reversed(run):
        node = operator.over([node])
    engine = Engine(Settings(threads=1))
    try:
        store = Store(engine)
        flow = compile_steps(node, store, engine, {id(scan.relation): below.append_only})
        last = flow.steps[-1]
        rows = schema if below.append_only else schema.append(DIFF_FIELD)
        made = Compiled(dumps(node), rows, flow.schema, last.append_only, last.is_net, last.impl)
        store.close()
        return made
    finally:
        engine.close()


class RemoteStep(PlacedStep):
    """A keyed step at work in several processes.

    Args:
        by: columns of the rows below by whose hash they are cut.

    Attributes:
        spans: what the last epochs took in each stage, here and in the workers.
    """

    def __init__(
        self, placement: ActorPlacement, store: Store, name: str, found: Compiled, by: Sequence[str], below: Step
    ) -> None:
        super().__init__(found.schema, found.append_only, [below])
        self.impl_reason = f"{placement.workers} processes keep the state of their keys, each with step {found.impl}"
        self._placement, self._found, self._below, self.name = placement, found, below, name
        self._net = found.is_net
        self._cursor = store.cursor
        feed = store.feed(pa.schema([below.schema.field(column) for column in by]))
        self._feed, self._by = feed, list(by)
        hashed = f"CAST(hash({', '.join(map(quoted, by))}) % {placement.workers:d} AS INTEGER)"
        self._part = store.prepare(f"SELECT {hashed} AS part FROM {feed.name}")
        self._sent = ""
        if store.durable:
            columns = [("number", pa.int64()), ("worker", pa.int32()), ("first", pa.bool_()), ("now_ms", pa.int64())]
            self._sent = store.table(f"{name}_sent", pa.schema([*columns, ("rows", pa.binary())]))
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
        (given,) = changes
        if given is None:
            return None
        hub = self._opened()
        spans, what = self.spans, f"{self.name}/{self._number + 1}"
        with spans.measured(Stage.WAIT, what):
            self._collect()
        self._number += 1
        with spans.measured(Stage.SPLIT, what):
            parts = self._cut(given)
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
            spans.spans += [Span.of(span) for span in answer.result.spans]
            if made is not None and made.num_rows:
                tables.append(made)
        del spans.spans[:-_SPANS_MAX]
        hub.release(f"q{self._id}.{self._number}.")
        return pa.concat_tables(tables) if tables else None

    def committed(self) -> None:
        if self._hub is not None and self._number > self._settled:
            self._settle(self._hub, ok=True)
            self._settled = self._number

    def rolled_back(self) -> None:
        if self._hub is None:
            return
        if self._number > self._settled:
            self._settle(self._hub, ok=False)
            self._number = self._settled

    def state_rows(self) -> int:
        return self._kept[0]

    def state_bytes(self) -> int:
        return self._kept[1]

    # --- rows -----------------------------------------------------------------------------------------------

    def _cut(self, given: pa.Table) -> list[pa.Table]:
        """The rows of each worker, in their order."""
        self._feed.table = given.select(self._by)
        parts = self._part().column(0).to_numpy()
        order = np.argsort(parts, kind="stable")
        ends = np.searchsorted(parts[order], np.arange(self._placement.workers + 1))
        signed = given if self._below.append_only else with_diff(given)
        rows = pc.take(signed.select(self._found.rows.names), pa.array(order))
        return [rows.slice(int(low), int(high - low)) for low, high in pairwise(ends)]

    def _barrier(self, hub: Hub, worker: int, number: int, rows: pa.Table | None, at: Moment) -> Answers:
        line = hub.lines[worker]
        barrier = pb.Barrier(step=self.name, number=number, first=at.first, now_ms=at.now_ms)
        if rows is not None and rows.num_rows:
            told, data = hub.placing.place(f"q{self._id}/{number}/{worker}", rows)
            if data is not None:
                line.send_payload(told.payload_id, data)
            barrier.rows.CopyFrom(told)
        return line.ask(line.writer.frame(barrier=barrier))

    def _taken(self, line: Line, frame: pb.Frame) -> Changes:
        """The changes that a worker answers with."""
        payloads = frame.result.payloads
        if not payloads:
            return None
        received = {one.payload_id: data for one in payloads if (data := line.inbox.forget(one.payload_id)) is not None}
        return opened(payloads, received, self.changes_schema)

    # --- state ----------------------------------------------------------------------------------------------

    def _log(self, parts: Sequence[pa.Table], at: Moment) -> None:
        """Write what is sent to the query's state, and remove what every worker has made durable."""
        self._cursor.rows(f"DELETE FROM {self._sent} WHERE number <= $1", [self._durable])
        for worker, rows in enumerate(parts):
            if rows.num_rows:
                values = [self._number, worker, at.first, at.now_ms, encoded(rows)]
                self._cursor.rows(f"INSERT INTO {self._sent} VALUES ($1, $2, $3, $4, $5)", values)

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
        hub = self._placement.hub()
        last = self._last_sent()
        behind = []
        for worker, line in enumerate(hub.lines):
            place = pb.Place(
                plan=self._found.plan,
                schema=schema_bytes(self._found.rows),
                append_only=self._below.append_only,
                state=self._placement.state_file(self.name, worker),
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
            lacks = f"SELECT number, first, now_ms, rows FROM {self._sent} WHERE worker = $1 AND number > $2"
            rows = self._cursor.rows(f"{lacks} ORDER BY number", [worker, behind[worker]])
            for number, first, now_ms, data in rows:
                table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
                with self._barrier(hub, worker, number, table, Moment(first, now_ms=now_ms)) as asked:
                    self._taken(line, asked.next(_ANSWER_SECONDS))
            hub.release(f"q{self._id}.")
        self._settle(hub, ok=True)
        self._collect()
