"""Keeper: a worker process of a stream query. It keeps the state of its keys, and runs the kernel's epochs over rows.

Frames come one after the other, and are done in that order: `place` makes the steps, `barrier` runs an epoch over the
rows that came before it, `settle` commits or undoes the epochs since the last one. In memory the state ends with the
process; with a file it is that of the last `settle`.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pyarrow as pa

from velaria_core.errors import InternalError, VelariaError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Moment, compile_steps
from velaria_core.logical.operators import Scan
from velaria_core.logical.serialize import loads
from velaria_experimental.actors.line import Line
from velaria_experimental.actors.mailbox import Mailbox
from velaria_experimental.observe.spans import Spans, Stage
from velaria_experimental.payload.segments import Segments
from velaria_experimental.payload.tables import Placing, opened
from velaria_experimental.plans.inputs import is_input
from velaria_experimental.security import read_token
from velaria_experimental.wire.codec import schema_of
from velaria_experimental.wire.frames import body_of
from velaria_experimental.wire.status import Status, error_message, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb

_TABLE: Final = "velaria_barriers"


class Keeper:
    """One worker process; `serve` runs it until its query is gone."""

    def __init__(self, connect: str, node_id: str, token_file: Path, *, shared_memory: bool, min_bytes: int) -> None:
        self._segments = Segments() if shared_memory else None
        self._placing = Placing(self._segments, min_bytes)
        self._steps: dict[str, _Placed] = {}
        self._ended = threading.Event()
        self._mailbox = Mailbox(connect, read_token(token_file), node_id, self._handle, lambda _: self._ended.set())

    def serve(self) -> None:
        """Work until the stream has ended."""
        mailbox = self._mailbox
        mailbox.start()
        mailbox.send(mailbox.writer.frame(register=pb.Register(role="worker", pid=os.getpid())))
        self._ended.wait()
        mailbox.close()
        for step in self._steps.values():
            step.close()
        if self._segments is not None:
            self._segments.close()

    def stop(self) -> None:
        """End `serve`, from any thread."""
        self._ended.set()

    def _handle(self, frame: pb.Frame) -> None:
        mailbox = self._mailbox
        try:
            answer = self._answer(frame)
        except VelariaError as error:
            answer = mailbox.writer.refusal(error, frame.message_id)
        except Exception as error:  # noqa: BLE001 -- the query must be told, whatever it is
            unexpected = InternalError("exchange.step", f"{type(error).__name__}: {error}", cause=error)
            answer = mailbox.writer.frame(answers=frame.message_id, error=error_message(unexpected))
        if answer is not None:
            mailbox.send(answer)

    def _answer(self, frame: pb.Frame) -> pb.Frame | None:
        writer, number = self._mailbox.writer, frame.message_id
        match body_of(frame):
            case "ack":
                return None
            case "place":
                if frame.place.step in self._steps:
                    raise refused(Status.INVALID_MESSAGE, f"step {frame.place.step!r} is placed already")
                step = self._steps[frame.place.step] = _Placed(frame.place)
                return writer.frame(answers=number, ack=pb.Ack(ok=True, number=step.number))
            case "barrier":
                return writer.frame(answers=number, result=self._epoch(self._step(frame.barrier.step), frame.barrier))
            case "settle":
                step = self._step(frame.settle.step)
                step.settle(frame.settle.number, ok=frame.settle.ok)
                rows, nbytes = step.flow.state_rows, step.flow.state_bytes
                ack = pb.Ack(ok=True, number=step.number, state_rows=rows, state_bytes=nbytes)
                return writer.frame(answers=number, ack=ack)
            case other:
                raise refused(Status.INVALID_MESSAGE, f"a keeper is not sent {other}")

    def _step(self, name: str) -> _Placed:
        if name not in self._steps:
            raise refused(Status.INVALID_MESSAGE, f"no step {name!r} was placed")
        return self._steps[name]

    def _epoch(self, step: _Placed, barrier: pb.Barrier) -> pb.Result:
        node_id = self._mailbox.writer.node_id
        spans, what = Spans(node_id), f"{barrier.step}/{barrier.number}"
        with spans.measured(Stage.TRANSFER, what):
            given = step.rows(barrier, self._mailbox)
        with spans.measured(Stage.COMPUTE, what):
            made = step.epoch(given, barrier)
        # What was answered before has been mapped by now.
        if self._segments is not None:
            self._segments.remove("")
        result = pb.Result(ok=True, status=Status.OK)
        if made is not None and made.num_rows:
            with spans.measured(Stage.SERIALISE, what):
                told, data = self._placing.place(f"{node_id}/{barrier.number}/{os.urandom(4).hex()}", made)
            if data is not None:
                self._mailbox.send_payload(told.payload_id, data)
            result.output_rows = made.num_rows
            result.payloads.append(told)
        result.spans.extend(span.message() for span in spans.spans)
        return result


class _Placed:
    """A step of a query, over the rows of this worker's keys.

    Attributes:
        number: the last barrier that is settled.
    """

    def __init__(self, place: pb.Place) -> None:
        self._held = ExitStack()
        engine = Engine(Settings(path=place.state or None, threads=1))
        self._held.callback(engine.close)
        try:
            self._store = Store(engine)
            self._held.callback(self._store.close)
            plan = loads(place.plan)
            scan = next(node for node in plan.walk() if is_input(node))
            assert isinstance(scan, Scan)
            self._key, self._schema = id(scan.relation), schema_of(place.schema)
            cursor = self._store.cursor
            cursor.rows(f"CREATE TABLE IF NOT EXISTS {_TABLE} (number BIGINT, times VARCHAR)")
            known = cursor.rows(f"SELECT number, times FROM {_TABLE}")
            self.flow: Dataflow = compile_steps(plan, self._store, engine, {self._key: place.append_only})
            self.number = 0
            if known:
                self.number, times = known[0]
                self.flow.restore(times)
        except BaseException:
            self._held.close()
            raise
        self._open = False

    def rows(self, barrier: pb.Barrier, line: Line) -> pa.Table | None:
        """The rows that came before a barrier."""
        if not barrier.HasField("rows"):
            return None
        payload = barrier.rows
        data = line.inbox.forget(payload.payload_id)
        received = {} if data is None else {payload.payload_id: data}
        return opened([payload], received, self._schema)

    def epoch(self, rows: pa.Table | None, barrier: pb.Barrier) -> pa.Table | None:
        """The changes that follow from the rows of an epoch."""
        given = {} if rows is None else {self._key: rows}
        if not self._open:
            self._store.cursor.begin()
            self._open = True
        return self.flow.epoch(given, Moment(first=barrier.first, now_ms=barrier.now_ms))

    def settle(self, number: int, *, ok: bool) -> None:
        """The epochs since the last settling are durable, or undone."""
        if not ok:
            if self._open:
                self._store.cursor.roll_back()
                self._open = False
            self.flow.rolled_back()
            return
        if not self._open:
            self._store.cursor.begin()
        self._store.cursor.rows(f"DELETE FROM {_TABLE}")
        self._store.cursor.rows(f"INSERT INTO {_TABLE} VALUES ($1, $2)", [number, self.flow.snapshot()])
        self._store.cursor.commit()
        self._open = False
        self.flow.committed()
        self.number = number

    def close(self) -> None:
        """Let go of the state."""
        self._held.close()
