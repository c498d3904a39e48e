"""Scheduler: holds the streams of workers and clients, and does what the job master says. It never runs SQL.

One event loop, one thing at a time: a frame comes, the `JobMaster` is told, its effects become frames. Rows in segments
pass by the scheduler as names; rows over the stream are held here, in memory and in the journal's folder, until their
job is over.

Invariant: whatever a peer sends, the answer is a frame, and no other peer notices.
Invariant: a job is in the journal before its client is told that it was accepted.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

from velaria_core.errors import ExternalError, InternalError, VelariaError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_experimental.actors.mailbox import CHANNEL_OPTIONS
from velaria_experimental.actors.supervisor import Supervisor
from velaria_experimental.jobmaster.effects import Assign, Effect, Ended, Moved, Release
from velaria_experimental.jobmaster.graph import Payload
from velaria_experimental.jobmaster.journal import Journal
from velaria_experimental.jobmaster.master import JobMaster
from velaria_experimental.jobmaster.options import Liveness
from velaria_experimental.observe.events import Events
from velaria_experimental.observe.spans import Span, Stage, now_us
from velaria_experimental.payload.credit import Inbox, Outbox
from velaria_experimental.payload.segments import located, sweep
from velaria_experimental.security import allowed, checked_address, token_path, write_token
from velaria_experimental.wire.codec import assign_message, job_of, key_of, location, payload_message, payloads_of
from velaria_experimental.wire.frames import CODEC, METHOD, SERVICE, Writer, body_of, read
from velaria_experimental.wire.status import Status, error_message, error_of, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb

TICK_SECONDS: Final = 0.2
_UNATTENDED_MS: Final = 60_000.0  # how long the rows of a job wait for a client that is gone
_PEERS_MAX: Final = 256
_NAME_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """How a scheduler runs.

    Attributes:
        listen: its address; port 0 takes a free one.
        local_workers: children to start as workers; 0: none.
        waits: a job waits for workers where there are none.
        journal: the folder of its journal.
        token_file: where its token is; by the address where None.
        worker_arguments: more arguments for the children.
    """

    listen: str
    journal: Path
    node_id: str = "scheduler"
    local_workers: int = 0
    waits: bool = True
    token_file: Path | None = None
    liveness: Liveness = field(default_factory=Liveness)
    worker_arguments: tuple[str, ...] = ()


@dataclass(slots=True)
class _Peer:
    """One stream. `asked` are the jobs that a client waits for, with the message that asked."""

    number: int
    inbox: Inbox
    outbox: Outbox
    wake: asyncio.Event
    node_id: str = ""
    role: str = ""
    closing: bool = False
    asked: dict[str, int] = field(default_factory=dict)

    @property
    def writer(self) -> Writer:
        return self.outbox.writer

    def send(self, frame: pb.Frame, *, urgent: bool = False) -> None:
        self.outbox.put(frame, urgent=urgent)
        self.wake.set()

    def send_payload(self, payload_id: str, data: bytes) -> None:
        self.outbox.put_payload(payload_id, data)
        self.wake.set()


class Scheduler:
    """A scheduler; `serve` runs it until `stop`.

    Attributes:
        address: where it listens, once it does.
    """

    def __init__(self, options: SchedulerOptions, events: Events, clock: Clock = SYSTEM_CLOCK) -> None:
        self.address = checked_address(options.listen)
        self._options, self._events, self._clock = options, events, clock
        self._master = JobMaster(options.liveness, waits=options.waits)
        self._journal = Journal(options.journal)
        self._peers: dict[int, _Peer] = {}
        self._workers: dict[str, _Peer] = {}
        self._numbers = 0
        self._rows: dict[str, bytes] = {}  # payloads without segment, of jobs that are not over
        self._owned: dict[str, set[str]] = {}  # job -> its payloads among them
        self._spans: dict[str, list[Span]] = {}
        self._queued_us: dict[str, int] = {}
        self._unattended: dict[str, float] = {}  # jobs that no client waits for, and since when
        self._stopping = asyncio.Event()
        self._token = ""
        self._supervisor = Supervisor(lambda name, what, pid: events(f"worker-{what}", worker=name, pid=pid), clock)

    # --- life -----------------------------------------------------------------------------------------------

    async def serve(self, orphaned: Callable[[Callable[[], object]], None] | None = None) -> None:
        """Listen until `stop` is called or the process is asked to end.

        Args:
            orphaned: calls what it is given when this process is to end with the one that started it.
        Raises:
            ExternalError[exchange.listen]: the address cannot be had.
        """
        if removed := sweep():
            self._events("swept", folders=removed)
        server = grpc.aio.server(options=[*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})])
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            hint = "another scheduler has it, or the last one is not gone yet: --listen"
            raise ExternalError("exchange.listen", f"no listening at {self.address}", hint=hint, cause=error) from error
        if self.address.endswith(":0"):
            self.address = f"{self.address[:-1]}{port}"
        token_file = self._options.token_file or token_path(self.address)
        self._token = write_token(token_file)
        self._resume()
        await server.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        if orphaned is not None:
            orphaned(partial(loop.call_soon_threadsafe, self._stopping.set))
        self._events("listening", address=self.address, token_file=str(token_file), jobs=self._master.unfinished)
        ticking = asyncio.create_task(self._tick())
        try:
            for at in range(1, self._options.local_workers + 1):
                name = f"{self._options.node_id}-worker-{at}"
                self._supervisor.add(name, self._worker_command(name, token_file))
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({stopping, ticking}, return_when=asyncio.FIRST_COMPLETED)
            if ticking.done():
                ticking.result()  # it only ends by an error, without which nothing would ever be late
        finally:
            ticking.cancel()
            await asyncio.to_thread(self._supervisor.close)  # workers say farewell meanwhile
            await server.stop(grace=0.2)
            self._journal.close()
            sweep()
            self._events("stopped")

    def stop(self) -> None:
        """End `serve`."""
        self._stopping.set()

    def _worker_command(self, name: str, token_file: Path) -> list[str]:
        command = [sys.executable, "-m", "velaria_experimental", "worker", "--connect", self.address]
        return [
            *command,
            "--node-id",
            name,
            "--token-file",
            str(token_file),
            "--child",
            *self._options.worker_arguments,
        ]

    def _resume(self) -> None:
        """Go on with the jobs of the scheduler before."""
        for job_id, one in self._journal.unfinished.items():
            needed = {payload.payload_id for payload in one.job.payloads if not payload.segment}
            done = [(key, payloads) for key, payloads in one.done.values() if all(map(self._is_there, payloads))]
            needed |= {payload.payload_id for _, payloads in done for payload in payloads if not payload.segment}
            for payload_id in needed:
                data = self._journal.kept(payload_id)
                if data is not None:
                    self._hold(job_id, payload_id, data)
            self._do(self._master.resume(one.job, self._now(), done))

    def _is_there(self, payload: Payload) -> bool:
        if not payload.segment:
            return self._journal.kept(payload.payload_id) is not None
        try:
            located(payload.segment)
        except VelariaError:
            return False
        return True

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._supervisor.look()
            self._do(self._master.tick(self._now()))
            self._drop_unattended()

    def _drop_unattended(self) -> None:
        """Forget jobs that have ended, and whose client has not been there for long."""
        asked = {job_id for peer in self._peers.values() for job_id in peer.asked}
        now_ms = self._now()
        for job_id in self._master.jobs:
            if job_id in asked or self._master.outcome(job_id) is None:
                self._unattended.pop(job_id, None)
            elif now_ms - self._unattended.setdefault(job_id, now_ms) >= _UNATTENDED_MS:
                self._events("unattended", job_id=job_id)
                self._forget(job_id)

    def _now(self) -> float:
        return self._clock.ticks_ms()

    # --- streams --------------------------------------------------------------------------------------------

    async def _stream(self, frames: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if not allowed(self._token, context.invocation_metadata()):
            self._events("refused", reason="token", peer=context.peer())
            hint = "the token of the scheduler's --token-file is needed"
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, hint)
        if len(self._peers) >= _PEERS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {_PEERS_MAX} streams")
        self._numbers += 1
        peer = _Peer(self._numbers, Inbox(), Outbox(Writer(self._options.node_id)), asyncio.Event())
        self._peers[peer.number] = peer
        reading = asyncio.create_task(self._read(peer, frames))
        try:
            while True:
                while (frame := peer.outbox.take()) is not None:
                    yield frame.SerializeToString()
                if peer.closing:
                    return
                peer.wake.clear()
                await peer.wake.wait()
        finally:
            reading.cancel()
            self._gone(peer)

    async def _read(self, peer: _Peer, frames: AsyncIterator[bytes]) -> None:
        try:
            async for data in frames:
                if not self._taken(peer, data):
                    break
        finally:
            peer.closing = True
            peer.wake.set()

    def _taken(self, peer: _Peer, data: bytes) -> bool:
        """Take one frame in; False where the stream is of no use any more."""
        number = 0
        try:
            frame = read(data)
            number = frame.message_id
            self._handle(peer, frame)
        except VelariaError as error:
            self._events("refused", peer=peer.node_id, reason=error.code, message=error.message)
            peer.send(peer.writer.refusal(error, number))
            # Chunks that do not follow each other never will again.
            return error.code != "exchange.frame_error"
        except OSError as error:
            told = f"the journal in {self._options.journal}: {error.strerror or error}"
            self._events("refused", peer=peer.node_id, reason="file.io", message=told)
            failure = ExternalError("file.io", told, retryable=True, hint="free some space", cause=error)
            peer.send(peer.writer.refusal(failure, number))
        except Exception as error:  # noqa: BLE001 -- a bug of ours must not take the other peers along
            told = f"{type(error).__name__}: {error}"
            self._events("bug", peer=peer.node_id, message=told)
            peer.send(peer.writer.refusal(InternalError("exchange.scheduler", told, cause=error), number))
        return True

    def _gone(self, peer: _Peer) -> None:
        self._peers.pop(peer.number, None)
        if peer.role == "worker" and self._workers.get(peer.node_id) is peer:
            del self._workers[peer.node_id]
            self._events("worker-lost", worker=peer.node_id)
            # Its segments go first: whoever is told to read them again must not find them.
            sweep()
            self._do(self._master.lost(peer.node_id, self._now(), "its stream has ended"))

    # --- frames ---------------------------------------------------------------------------------------------

    def _handle(self, peer: _Peer, frame: pb.Frame) -> None:
        body = body_of(frame)
        if body == "register":
            self._register(peer, frame)
            return
        if not peer.role:
            raise refused(Status.INVALID_MESSAGE, f"a stream begins with register, not with {body}")
        match body, peer.role:
            case "data", _:
                if granted := peer.inbox.take_in(frame.data):
                    peer.send(peer.writer.frame(credit=pb.Credit(chunks=granted)), urgent=True)
            case "credit", _:
                peer.outbox.credited(min(frame.credit.chunks, 1024))
                peer.wake.set()
            case "inspect", _:
                self._inspect(peer, frame)
            case "heartbeat", "worker":
                self._do(self._master.heartbeat(peer.node_id, frame.heartbeat.heartbeat_seq, self._now()))
            case "ack", "worker":
                self._do(self._master.started(key_of(frame.ack.task), peer.node_id))
            case "result", "worker":
                self._result(peer, frame.result)
            case "submit", "client":
                self._submit(peer, frame)
            case "cancel", "client":
                self._do(self._master.cancelled(frame.cancel.job_id, self._now(), "its client cancelled the job"))
                peer.send(peer.writer.frame(answers=frame.message_id, ack=self._ack(frame.cancel.job_id)))
            case "ack", "client":
                self._over(peer, frame.ack)
            case "error", _:
                self._events("peer-error", peer=peer.node_id, code=frame.error.code, message=frame.error.message)
            case _:
                raise refused(Status.INVALID_MESSAGE, f"a {peer.role} does not send {body}")

    def _register(self, peer: _Peer, frame: pb.Frame) -> None:
        role, node_id = frame.register.role, frame.node_id
        if role not in ("worker", "client") or not 0 < len(node_id) <= _NAME_MAX or peer.role:
            raise refused(Status.INVALID_MESSAGE, f"{node_id[:80]!r} cannot register as {role[:80]!r}")
        peer.role, peer.node_id = role, node_id
        self._events("registered", role=role, peer=node_id, pid=frame.register.pid)
        peer.send(peer.writer.frame(answers=frame.message_id, ack=self._ack("")))
        if role == "worker":
            if (before := self._workers.get(node_id)) is not None:
                before.closing = True
                before.wake.set()
            self._workers[node_id] = peer
            slots = min(frame.register.slots, 64)
            self._do(self._master.registered(node_id, slots, frame.register.segments, self._now()))

    def _submit(self, peer: _Peer, frame: pb.Frame) -> None:
        job = job_of(frame.submit.job)
        if self._master.job(job.job_id) is None:
            for payload in job.payloads:
                if payload.codec != CODEC:
                    raise refused(Status.CODEC_MISSING, f"no codec {payload.codec!r}", hint=f"there is {CODEC}")
                if payload.segment:
                    located(payload.segment)
                elif payload.payload_id not in peer.inbox.received:
                    raise refused(Status.MISSING_INPUT, f"payload {payload.payload_id[:80]!r} did not come")
            effects = self._master.submit(job, self._now())
            for payload in job.payloads:
                data = peer.inbox.forget(payload.payload_id)
                if data is not None:
                    self._journal.keep(payload.payload_id, data)
                    self._hold(job.job_id, payload.payload_id, data)
            self._journal.submitted(job, peer.node_id)
            self._events("submitted", job_id=job.job_id, peer=peer.node_id, summary=job.summary)
        else:
            effects = []
            for payload in job.payloads:  # of a job that is known, sent again
                peer.inbox.forget(payload.payload_id)
        peer.asked[job.job_id] = frame.message_id
        peer.send(peer.writer.frame(answers=frame.message_id, ack=self._ack(job.job_id)))
        self._do(effects)
        if (ended := self._master.outcome(job.job_id)) is not None and not any(
            isinstance(one, Ended) for one in effects
        ):
            self._answer(peer, ended)

    def _result(self, peer: _Peer, result: pb.Result) -> None:
        key = key_of(result.task)
        spans = [Span.of(span) for span in result.spans]
        inline = [payload.payload_id for payload in result.payloads if not payload.segment]
        received = {payload_id: data for payload_id in inline if (data := peer.inbox.forget(payload_id)) is not None}
        if not result.ok:
            effects = self._master.failed(key, peer.node_id, error_of(result.error), result.missing, self._now())
            self._events("task-failed", task=key.name, code=result.error.code, message=result.error.message)
            self._do(effects)
            return
        if len(received) < len(inline):
            error = refused(Status.MISSING_INPUT, f"rows of {key.name} did not come", retryable=True)
            self._do(self._master.failed(key, peer.node_id, error, (), self._now()))
            return
        payloads = payloads_of(result.payloads)
        for payload in payloads:
            if payload.segment:
                located(payload.segment)
        wanted, effects = self._master.succeeded(key, peer.node_id, payloads, self._now())
        if wanted:
            for payload_id, data in received.items():
                self._journal.keep(payload_id, data)
                self._hold(key.job_id, payload_id, data)
            self._journal.done(key, peer.node_id, tuple(payloads))
            self._spans.setdefault(key.job_id, []).extend(spans)
        self._do(effects)

    def _over(self, peer: _Peer, ack: pb.Ack) -> None:
        """A client has the rows of a job, or could not read them."""
        if not ack.ok:
            self._do(self._master.unreadable(ack.job_id, self._now()))
            return
        peer.asked.pop(ack.job_id, None)
        self._forget(ack.job_id)

    def _forget(self, job_id: str) -> None:
        """A job is over, where it has ended: nobody wants its rows any more."""
        known = self._master.job(job_id) is not None
        self._do(self._master.taken(job_id, self._now()))
        if known and self._master.job(job_id) is None:
            self._unattended.pop(job_id, None)
            self._let_go(job_id)
            self._journal.over(job_id)

    def _inspect(self, peer: _Peer, frame: pb.Frame) -> None:
        import json

        told = json.dumps(self._master.snapshot(frame.inspect.job_id or None), default=str)
        peer.send(peer.writer.frame(answers=frame.message_id, snapshot=pb.Snapshot(json=told)))

    def _ack(self, job_id: str) -> pb.Ack:
        state = str(self._master.snapshot(job_id).get("state", "")) if job_id else ""
        return pb.Ack(job_id=job_id, ok=True, state=state, workers=len(self._master.workers))

    # --- effects --------------------------------------------------------------------------------------------

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Assign():
                    self._assign(effect)
                case Release():
                    if (worker := self._workers.get(effect.node_id)) is not None:
                        told = pb.Cancel(job_id=effect.job_id, reason=effect.reason)
                        worker.send(worker.writer.frame(cancel=told), urgent=True)
                case Ended():
                    self._ended(effect)
                case Moved():
                    self._moved(effect)

    def _assign(self, effect: Assign) -> None:
        worker = self._workers[effect.node_id]
        job_id, name = effect.key.job_id, effect.key.name
        waited = Span(Stage.WAIT, self._options.node_id, name, self._queued_us.pop(name, now_us()))
        waited.duration_us = now_us() - waited.start_us
        self._spans.setdefault(job_id, []).append(waited)
        inline = (one.payload_id for _, payloads in effect.inputs for one in payloads if not one.segment)
        for payload_id in dict.fromkeys(inline):
            if payload_id in self._rows:
                worker.send_payload(payload_id, self._rows[payload_id])
        worker.send(worker.writer.frame(assign=assign_message(effect)))

    def _ended(self, effect: Ended) -> None:
        self._events("job-ended", job_id=effect.job_id, state=effect.state, code=effect.error and effect.error.code)
        for peer in list(self._peers.values()):
            if effect.job_id in peer.asked:
                self._answer(peer, effect)

    def _answer(self, peer: _Peer, effect: Ended) -> None:
        """Tell a client how its job has ended, with the rows that it cannot map."""
        messages = [payload_message(payload) for payload in effect.payloads]
        for payload in effect.payloads:
            if not payload.segment:
                peer.send_payload(payload.payload_id, self._rows[payload.payload_id])
        job = self._master.job(effect.job_id)
        result = pb.Result(
            job_id=effect.job_id,
            ok=effect.error is None,
            status=Status.OK,
            state=effect.state,
            output_rows=sum(payload.rows for payload in effect.payloads),
            result_location=location(effect.job_id, messages),
            payloads=messages,
            spans=[span.message() for span in self._spans.get(effect.job_id, ())],
            summary=job.summary if job is not None else "",
        )
        if effect.error is not None:
            result.error.CopyFrom(error_message(effect.error))
            result.status = result.error.status
        peer.send(peer.writer.frame(answers=peer.asked[effect.job_id], result=result))

    def _moved(self, effect: Moved) -> None:
        if effect.what == "task" and effect.new == "queued":
            self._queued_us[effect.name] = now_us()
        self._events(
            f"{effect.what}-state",
            name=effect.name,
            old=effect.old,
            new=effect.new,
            worker=effect.node_id,
            attempt=effect.attempt or None,
            reason=effect.reason,
        )

    # --- rows -----------------------------------------------------------------------------------------------

    def _hold(self, job_id: str, payload_id: str, data: bytes) -> None:
        self._rows[payload_id] = data
        self._owned.setdefault(job_id, set()).add(payload_id)

    def _let_go(self, job_id: str) -> None:
        for payload_id in self._owned.pop(job_id, set()):
            self._rows.pop(payload_id, None)
            self._journal.drop(payload_id)
        self._spans.pop(job_id, None)
        for name in [name for name in self._queued_us if name.startswith(f"{job_id}/")]:
            del self._queued_us[name]
