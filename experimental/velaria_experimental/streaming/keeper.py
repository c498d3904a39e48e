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

from velaria_core.contract.modes import OutputMode
from velaria_core.errors import InternalError, VelariaError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, compile_steps
from velaria_core.logical.serialize import loads
from velaria_experimental.actors.line import Line
from velaria_experimental.actors.mailbox import Mailbox
from velaria_experimental.observe.spans import Spans, Stage
from velaria_experimental.payload.segments import Segments
from velaria_experimental.payload.tables import Placing, opened
from velaria_experimental.plans.inputs import inputs_of
from velaria_experimental.security import read_token
from velaria_experimental.streaming.messages import moment_of, times_of
from velaria_experimental.wire.codec import schema_of
from velaria_experimental.wire.frames import body_of
from velaria_experimental.wire.status import Status, error_message, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb

_TABLE: Final = "velaria_barriers"


class Keeper:
    """One worker process; `serve` runs it until its query is gone."""

    def __init__(self, connect: str, node_id: str, token_file: Path, *, shared_memory: bool, min_bytes: int) -> None:
        self._steps = Steps(node_id, Placing(Segments() if shared_memory else None, min_bytes))
        self._ended = threading.Event()
        self._mailbox = Mailbox(connect, read_token(token_file), node_id, self._handle, lambda _: self._ended.set())

    def serve(self) -> None:
        """Work until the stream has ended."""
        mailbox = self._mailbox
        mailbox.start()
        mailbox.send(mailbox.writer.frame(register=pb.Register(role="worker", pid=os.getpid())))
        self._ended.wait()
        mailbox.close()
        self._steps.close()

    def stop(self) -> None:
        """End `serve`, from any thread."""
        self._ended.set()

    def _handle(self, frame: pb.Frame) -> None:
        answer = self._steps.answer(frame, self._mailbox)
        if answer is not None:
            self._mailbox.send(answer)


class Steps:
    """The steps that a worker keeps, by their names.

    Args:
        placing: where what they make goes.
    """

    def __init__(self, node_id: str, placing: Placing) -> None:
        self._node_id, self._placing = node_id, placing
        self._placed: dict[str, _Placed] = {}

    def answer(self, frame: pb.Frame, line: Line) -> pb.Frame | None:
        """What comes of a frame; an error too is an answer. Rows go over the line before it."""
        try:
            return self._answer(frame, line)
        except VelariaError as error:
            return line.writer.refusal(error, frame.message_id)
        except Exception as error:  # noqa: BLE001 -- the query must be told, whatever it is
            unexpected = InternalError("exchange.step", f"{type(error).__name__}: {error}", cause=error)
            return line.writer.frame(answers=frame.message_id, error=error_message(unexpected))

    def close(self) -> None:
        """Let go of their states."""
        for step in self._placed.values():
            step.close()
        if self._placing.segments is not None:
            self._placing.segments.close()

    def _answer(self, frame: pb.Frame, line: Line) -> pb.Frame | None:
        writer, number = line.writer, frame.message_id
        match body_of(frame):
            case "ack":
                return None
            case "place":
                if frame.place.step in self._placed:
                    raise refused(Status.INVALID_MESSAGE, f"step {frame.place.step!r} is placed already")
                step = self._placed[frame.place.step] = _Placed(frame.place)
                return writer.frame(answers=number, ack=pb.Ack(ok=True, number=step.number))
            case "barrier":
                return writer.frame(answers=number, result=self._epoch(frame.barrier, line))
            case "settle":
                step = self._step(frame.settle.step)
                step.settle(frame.settle.number, ok=frame.settle.ok)
                rows, nbytes = step.flow.state_rows, step.flow.state_bytes
                ack = pb.Ack(ok=True, number=step.number, state_rows=rows, state_bytes=nbytes)
                return writer.frame(answers=number, ack=ack)
            case other:
                raise refused(Status.INVALID_MESSAGE, f"a keeper is not sent {other}")

    def _step(self, name: str) -> _Placed:
        if name not in self._placed:
            raise refused(Status.INVALID_MESSAGE, f"no step {name!r} was placed")
        return self._placed[name]

    def _epoch(self, barrier: pb.Barrier, line: Line) -> pb.Result:
        step = self._step(barrier.step)
        spans, what = Spans(self._node_id), f"{barrier.step}/{barrier.number}"
        with spans.measured(Stage.TRANSFER, what):
            given = step.rows(barrier, line)
        with spans.measured(Stage.COMPUTE, what):
            made = step.epoch(given, barrier)
        # What was answered before has been mapped by now.
        if self._placing.segments is not None:
            self._placing.segments.remove("")
        result = pb.Result(ok=True, status=Status.OK, late_dropped_rows=step.flow.late_dropped_rows)
        if made is not None and made.num_rows:
            with spans.measured(Stage.SERIALISE, what):
                told, data = self._placing.place(f"{self._node_id}/{barrier.number}/{os.urandom(4).hex()}", made)
            if data is not None:
                line.send_payload(told.payload_id, data)
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
            keys = [id(scan.relation) for scan in inputs_of(plan)]
            self._inputs = [(key, schema_of(one.schema)) for key, one in zip(keys, place.inputs, strict=True)]
            cursor = self._store.cursor
            cursor.rows(f"CREATE TABLE IF NOT EXISTS {_TABLE} (number BIGINT, times VARCHAR)")
            known = cursor.rows(f"SELECT number, times FROM {_TABLE}")
            self.flow: Dataflow = compile_steps(
                plan,
                self._store,
                engine,
                {key: one.append_only for key, one in zip(keys, place.inputs, strict=True)},
                OutputMode.APPEND if place.append else OutputMode.UPDATE,
                bounds={key: times_of(one) for key, one in zip(keys, place.inputs, strict=True)},
            )
            self.number = 0
            if known:
                self.number, times = known[0]
                self.flow.restore(times)
        except BaseException:
            self._held.close()
            raise
        self._open = False

    def rows(self, barrier: pb.Barrier, line: Line) -> dict[int, pa.Table]:
        """The rows that came before a barrier, by the relation that stands for them."""
        found = {}
        for payload in barrier.rows:
            key, schema = self._inputs[payload.part]
            data = line.inbox.forget(payload.payload_id)
            received = {} if data is None else {payload.payload_id: data}
            found[key] = opened([payload], received, schema)
        return found

    def epoch(self, rows: dict[int, pa.Table], barrier: pb.Barrier) -> pa.Table | None:
        """The changes that follow from the rows of an epoch."""
        if not self._open:
            self._store.cursor.begin()
            self._open = True
        return self.flow.epoch(rows, moment_of(barrier))

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
