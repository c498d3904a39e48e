"""Worker: runs tasks that the scheduler gives, on the kernel's batch code, with an engine of its own.

Three threads: the mailbox reads frames, one runs tasks in their order, one sends heartbeats. A task's rows come from
shared memory, mapped and not copied, or over the stream; what it makes goes the same ways. A cancelled job's statement
is interrupted and its segments are removed.

A worker whose stream breaks registers again, with nothing at work; one that was started by a scheduler ends with it.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from velaria_core.errors import InternalError, QueryCancelled, VelariaError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.logical.serialize import loads
from velaria_experimental.actors.mailbox import Mailbox, is_lasting
from velaria_experimental.jobmaster.effects import TaskKey
from velaria_experimental.observe.events import Events
from velaria_experimental.observe.spans import Spans, Stage
from velaria_experimental.payload.segments import Segments, sweep
from velaria_experimental.payload.tables import SHARED_MEMORY_MIN_BYTES, Placing, opened
from velaria_experimental.plans.run import run
from velaria_experimental.security import read_token, token_path
from velaria_experimental.wire.codec import key_message, key_of, location, schema_of
from velaria_experimental.wire.frames import body_of
from velaria_experimental.wire.status import Status, error_message, refused, status_of
from velaria_experimental.wire.v1 import runtime_pb2 as pb

_RECONNECT_SECONDS: Final = 0.2
_INTERRUPT_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker runs.

    Attributes:
        token_file: by the address where None.
        heartbeat_ms: between two heartbeats.
        threads: of its engine.
        shared_memory: rows go to shared memory from `shared_memory_min_bytes` on.
        reconnects: it looks for the scheduler again when the stream breaks, for so many seconds; 0 ends it.
    """

    connect: str
    node_id: str
    token_file: Path | None = None
    heartbeat_ms: int = 1000
    threads: int = 1
    shared_memory: bool = True
    shared_memory_min_bytes: int = SHARED_MEMORY_MIN_BYTES
    reconnect_seconds: float = 30.0


class Worker:
    """A worker; `serve` runs it until `stop`, or until there is no scheduler any more."""

    def __init__(self, options: WorkerOptions, events: Events) -> None:
        self._options, self._events = options, events
        self._engine = Engine(Settings(threads=options.threads))
        self._segments = Segments() if options.shared_memory else None
        self._placing = Placing(self._segments, options.shared_memory_min_bytes)
        self._stop = threading.Event()
        self._session: _Session | None = None

    def serve(self) -> VelariaError | None:
        """Register and work; again when the stream breaks. Returns what ended it, None after `stop`."""
        sweep()
        waited = 0.0
        error: VelariaError | None = None
        try:
            while not self._stop.is_set():
                session = None
                try:
                    token = read_token(self._options.token_file or token_path(self._options.connect))
                    session = _Session(self._options, token, self._engine, self._placing, self._events)
                    self._session = session
                    error = session.work(self._stop)
                except VelariaError as failure:
                    error = failure
                if self._stop.is_set():
                    return None
                if session is not None and session.registered:
                    waited = 0.0
                self._events("disconnected", code=error and error.code)
                if error is not None and is_lasting(error):
                    return error
                if waited >= self._options.reconnect_seconds:
                    return error
                self._stop.wait(_RECONNECT_SECONDS)
                waited += _RECONNECT_SECONDS
            return None
        finally:
            if self._segments is not None:
                self._segments.close()
            self._engine.close()

    def stop(self) -> None:
        """End `serve`, from any thread."""
        self._stop.set()
        if (session := self._session) is not None:
            session.interrupt()


@dataclass(slots=True)
class AtWork:
    """A task that runs; `cancelled` once nobody wants it any more."""

    key: TaskKey
    assign: pb.Assign
    cancelled: bool = False


class Tasks:
    """The tasks of one stream: those that wait in line, and the one at work.

    Invariant: it knows no job but those of its tasks, so it grows with what waits and not with what was.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[pb.Assign] = deque()
        self._at_work: AtWork | None = None
        self._ended = False

    @property
    def running(self) -> list[TaskKey]:
        """What is at work."""
        with self._changed:
            return [] if self._at_work is None else [self._at_work.key]

    def put(self, assign: pb.Assign) -> None:
        """A task waits for its turn."""
        with self._changed:
            self._waiting.append(assign)
            self._changed.notify()

    def take(self) -> AtWork | None:
        """The next task, waited for, which is at work from now on; None once it has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._ended:
                return None
            assign = self._waiting.popleft()
            self._at_work = AtWork(key_of(assign.task), assign)
            return self._at_work

    def done(self) -> bool:
        """The task at work is done. Returns whether it is still wanted."""
        with self._changed:
            found, self._at_work = self._at_work, None
            return found is not None and not found.cancelled

    def release(self, job_id: str) -> bool:
        """Forget what waits of a job. Returns whether a task of it is at work, which is cancelled."""
        with self._changed:
            self._waiting = deque(one for one in self._waiting if one.task.job_id != job_id)
            return self._cancel(lambda key: key.job_id == job_id)

    def end(self) -> None:
        """Cancel what is at work, and give no more."""
        with self._changed:
            self._ended = True
            self._cancel(lambda _: True)
            self._changed.notify()

    def _cancel(self, holds: Callable[[TaskKey], bool]) -> bool:
        if self._at_work is None or not holds(self._at_work.key):
            return False
        self._at_work.cancelled = True
        return True


class _Session:
    """One stream's worth of work."""

    def __init__(self, options: WorkerOptions, token: str, engine: Engine, placing: Placing, events: Events) -> None:
        self.registered = False
        self._options, self._engine, self._placing, self._events = options, engine, placing, events
        self._tasks = Tasks()
        self._broken = threading.Event()
        self._error: VelariaError | None = None
        self._mailbox = Mailbox(options.connect, token, options.node_id, self._handle, self._closed)

    def work(self, stop: threading.Event) -> VelariaError | None:
        """Until the stream breaks, or `stop`."""
        mailbox, segments = self._mailbox, self._placing.segments
        folder = segments.folder.name if segments is not None else ""
        told = pb.Register(role="worker", slots=1, pid=os.getpid(), segments=folder)
        mailbox.send(mailbox.writer.frame(register=told))
        mailbox.start()
        running = threading.Thread(target=self._run_all, name=f"{self._options.node_id}-tasks", daemon=True)
        running.start()
        sequence = 0
        try:
            while not stop.is_set() and not self._broken.is_set():
                sequence += 1
                beat = pb.Heartbeat(heartbeat_seq=sequence, running=map(key_message, self._tasks.running))
                mailbox.send(mailbox.writer.frame(heartbeat=beat), urgent=True)
                self._broken.wait(self._options.heartbeat_ms / 1000)
        finally:
            mailbox.close()
            while running.is_alive():
                self.interrupt()
                running.join(_INTERRUPT_SECONDS)
            if segments is not None:
                segments.remove("")
        return self._error

    def interrupt(self) -> None:
        """Stop the task at hand, and take no other."""
        self._tasks.end()
        self._engine.interrupt()
        self._broken.set()

    # --- frames, on the mailbox's thread --------------------------------------------------------------------

    def _handle(self, frame: pb.Frame) -> None:
        match body_of(frame):
            case "assign":
                self._tasks.put(frame.assign)
            case "cancel":
                self._release(frame.cancel.job_id)
            case "ack":
                if not self.registered:
                    self.registered = True
                    self._events("registered", scheduler=frame.node_id)
            case "error":
                self._events("refused", code=frame.error.code, message=frame.error.message)
            case other:
                self._events("ignored", body=other)

    def _closed(self, error: VelariaError) -> None:
        self._error = error
        self._broken.set()

    def _release(self, job_id: str) -> None:
        """Stop what runs of a job, and remove what it left and what waits of it."""
        if self._tasks.release(job_id):
            self._engine.interrupt()
        if self._placing.segments is not None:
            self._placing.segments.remove(f"{job_id}.")
        self._mailbox.inbox.forget_all(f"{job_id}/")

    # --- tasks, on a thread of their own --------------------------------------------------------------------

    def _run_all(self) -> None:
        mailbox = self._mailbox
        while (task := self._tasks.take()) is not None:
            mailbox.send(mailbox.writer.frame(ack=pb.Ack(task=key_message(task.key), ok=True)))
            result, inline = self._result(task)
            if not self._tasks.done():
                if self._placing.segments is not None:
                    self._placing.segments.remove(f"{task.key.job_id}.")
                continue
            for payload_id, data in inline:
                mailbox.send_payload(payload_id, data)
            mailbox.send(mailbox.writer.frame(result=result))

    def _result(self, task: AtWork) -> tuple[pb.Result, list[tuple[str, bytes]]]:
        """What comes of a task, and the bytes to send before it."""
        assign, key = task.assign, task.key
        spans = Spans(self._options.node_id)
        missing: list[str] = []
        try:
            rows = self._rows(assign, spans, key.name, missing)
            with spans.measured(Stage.COMPUTE, key.name):
                parts = run(self._engine, loads(assign.plan), rows, assign.parts)
            payloads: list[pb.Payload] = []
            inline: list[tuple[str, bytes]] = []
            # A name that was never used before, also by an earlier worker or scheduler: a segment never changes.
            once = uuid.uuid4().hex[:8]
            for at, table in enumerate(parts):
                with spans.measured(Stage.SERIALISE, key.name) as span:
                    told, data = self._placing.place(f"{key.name}/{key.attempt}/{at}-{once}", table, at)
                    span.nbytes = told.size
                payloads.append(told)
                if data is not None:
                    inline.append((told.payload_id, data))
        except VelariaError as error:
            return self._failure(task, error, missing), []
        except Exception as error:  # noqa: BLE001 -- whatever it is, the job's client must be told
            unexpected = InternalError("exchange.task", f"{type(error).__name__}: {error}", cause=error)
            return self._failure(task, unexpected, missing), []
        return (
            pb.Result(
                job_id=key.job_id,
                task=key_message(key),
                ok=True,
                status=Status.OK,
                output_rows=sum(table.num_rows for table in parts),
                result_location=location(key.name, payloads),
                payloads=payloads,
                spans=[span.message() for span in spans.spans],
            ),
            inline,
        )

    def _rows(self, assign: pb.Assign, spans: Spans, what: str, missing: list[str]) -> dict[str, pa.Table]:
        """The inputs of a task, by name."""
        received: dict[str, bytes] = {}
        for one in assign.inputs:
            for payload in one.payloads:
                if not payload.segment and (data := self._mailbox.inbox.forget(payload.payload_id)) is not None:
                    received[payload.payload_id] = data
        found = {}
        for one in assign.inputs:
            with spans.measured(Stage.TRANSFER, what) as span:
                try:
                    found[one.name] = opened(one.payloads, received, schema_of(one.schema))
                except VelariaError as error:
                    if status_of(error) is Status.MISSING_INPUT:
                        missing += [payload.payload_id for payload in one.payloads if not _is_there(payload, received)]
                    raise
                span.nbytes = sum(payload.size for payload in one.payloads)
        return found

    def _failure(self, task: AtWork, error: VelariaError, missing: list[str]) -> pb.Result:
        key = task.key
        if isinstance(error, QueryCancelled) and not task.cancelled:
            error = refused(Status.TRANSPORT_ERROR, f"{key.name} was interrupted", retryable=True)
        return pb.Result(
            job_id=key.job_id,
            task=key_message(key),
            ok=False,
            status=status_of(error),
            error=error_message(error),
            missing=missing,
        )


def _is_there(payload: pb.Payload, received: dict[str, bytes]) -> bool:
    if not payload.segment:
        return payload.payload_id in received
    from velaria_experimental.payload.segments import located

    try:
        located(payload.segment)
    except VelariaError:
        return False
    return True
