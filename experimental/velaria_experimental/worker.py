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
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
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
class _AtWork:
    key: TaskKey
    cancelled: bool = False


class _Session:
    """One stream's worth of work."""

    def __init__(self, options: WorkerOptions, token: str, engine: Engine, placing: Placing, events: Events) -> None:
        self.registered = False
        self._options, self._engine, self._placing, self._events = options, engine, placing, events
        self._tasks: SimpleQueue[pb.Assign | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._at_work: _AtWork | None = None
        self._released: set[str] = set()
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
                with self._lock:
                    keys = [key_message(self._at_work.key)] if self._at_work is not None else []
                beat = pb.Heartbeat(heartbeat_seq=sequence, running=keys)
                mailbox.send(mailbox.writer.frame(heartbeat=beat), urgent=True)
                self._broken.wait(self._options.heartbeat_ms / 1000)
        finally:
            mailbox.close()
            self._tasks.put(None)
            while running.is_alive():
                self.interrupt()
                running.join(_INTERRUPT_SECONDS)
            if segments is not None:
                segments.remove("")
        return self._error

    def interrupt(self) -> None:
        """Stop the task at hand."""
        with self._lock:
            if self._at_work is not None:
                self._at_work.cancelled = True
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
        """Stop what runs of a job, and remove what it left. A task of it that waits in line is skipped."""
        with self._lock:
            self._released.add(job_id)
            mine = self._at_work is not None and self._at_work.key.job_id == job_id
            if mine and self._at_work is not None:
                self._at_work.cancelled = True
        if mine:
            self._engine.interrupt()
        if self._placing.segments is not None:
            self._placing.segments.remove(f"{job_id}.")
        self._mailbox.inbox.forget_all(f"{job_id}/")

    # --- tasks, on a thread of their own --------------------------------------------------------------------

    def _run_all(self) -> None:
        while (assign := self._tasks.get()) is not None:
            key = key_of(assign.task)
            with self._lock:
                if self._broken.is_set():
                    return
                if key.job_id in self._released:
                    continue
                self._at_work = _AtWork(key)
            mailbox = self._mailbox
            mailbox.send(mailbox.writer.frame(ack=pb.Ack(task=key_message(key), ok=True)))
            result, inline = self._result(assign, key)
            with self._lock:
                cancelled = self._at_work.cancelled
                self._at_work = None
            if cancelled:
                if self._placing.segments is not None:
                    self._placing.segments.remove(f"{key.job_id}.")
                continue
            for payload_id, data in inline:
                mailbox.send_payload(payload_id, data)
            mailbox.send(mailbox.writer.frame(result=result))

    def _result(self, assign: pb.Assign, key: TaskKey) -> tuple[pb.Result, list[tuple[str, bytes]]]:
        """What comes of a task, and the bytes to send before it."""
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
            return self._failure(key, error, missing), []
        except Exception as error:  # noqa: BLE001 -- whatever it is, the job's client must be told
            unexpected = InternalError("exchange.task", f"{type(error).__name__}: {error}", cause=error)
            return self._failure(key, unexpected, missing), []
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

    def _failure(self, key: TaskKey, error: VelariaError, missing: list[str]) -> pb.Result:
        if isinstance(error, QueryCancelled) and not (self._at_work is not None and self._at_work.cancelled):
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
