"""Client: a frame runs on workers, or in this process where it cannot be split, and its rows come back.

    with DataflowSession() as session, Client("127.0.0.1:61000") as client:
        answer = client.run(session.sql("SELECT k, count(*) AS n FROM t GROUP BY k"))
        answer.table, answer.mode, answer.reason

The session binds the SQL and reads what is scanned; its semantics are all there is. A job outlives the scheduler: when
the stream breaks, the client asks the next scheduler at the address for the same job, until the job's time is over.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError, QueryCancelled, VelariaError
from velaria_core.execution.jobs import JobState
from velaria_experimental.actors.line import Answers
from velaria_experimental.actors.mailbox import Mailbox, is_lasting
from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.observe.spans import Span, Spans, Stage
from velaria_experimental.payload.segments import Segments, sweep
from velaria_experimental.payload.tables import SHARED_MEMORY_MIN_BYTES, Placing, opened
from velaria_experimental.plans.choice import Estimator
from velaria_experimental.plans.jobs import Submission, submission
from velaria_experimental.plans.split import split
from velaria_experimental.security import checked_address, read_token, token_path
from velaria_experimental.wire.codec import job_message
from velaria_experimental.wire.frames import body_of
from velaria_experimental.wire.status import Status, error_of, status_of
from velaria_experimental.wire.v1 import runtime_pb2 as pb

WAIT_MS: Final = 10_000
_RECONNECT_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 2.0  # for the scheduler's own word that a job's time is over
_ANSWER_SECONDS: Final = 30.0


class Mode(StrEnum):
    """Where a frame ran."""

    WORKERS = "workers"
    SINGLE_PROCESS = "single-process"


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a frame, and how they came.

    Attributes:
        reason: why it ran where it did, and how it was split.
        spans: what each stage took; of a single process none.
    """

    table: pa.Table
    mode: Mode
    reason: str
    spans: tuple[Span, ...] = ()
    job_id: str = ""


class Client:
    """A client of the scheduler at an address. Any thread may use it; nothing is opened before it is needed.

    Args:
        tasks: into how many parts rows are cut; as many as there are workers, but two at least, by default.
        estimator: who tells whether a frame gains by other processes; if not it runs in this one.
            `plans.choice.estimated` measures; by default nobody is asked, and what can be split is.
        shared_memory: rows go to shared memory from `shared_memory_min_bytes` on; else over the stream.
    """

    def __init__(
        self,
        connect: str,
        *,
        node_id: str = "client-1",
        token_file: str | os.PathLike[str] | None = None,
        tasks: int | None = None,
        estimator: Estimator | None = None,
        shared_memory: bool = True,
        shared_memory_min_bytes: int = SHARED_MEMORY_MIN_BYTES,
        told: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        if tasks is not None and tasks < 1:
            raise InputError("option.value", f"tasks is 1 or more, not {tasks}")
        self.address = checked_address(connect)
        self.node_id = node_id
        self.told = told
        self._token_file = Path(token_file) if token_file is not None else token_path(connect)
        self._tasks, self._estimator = tasks, estimator
        self._segments = Segments() if shared_memory else None
        self.placing = Placing(self._segments, shared_memory_min_bytes)
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._handles: dict[str, JobHandle] = {}
        sweep()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream, and remove this client's rows from shared memory. Jobs that run are cancelled."""
        for handle in list(self._handles.values()):
            if not handle.done:
                handle.cancel()
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.close()
        if self._segments is not None:
            self._segments.close()

    def run(self, frame: DataFrame, options: JobOptions | None = None) -> Answer:
        """The rows of a frame.

        Raises:
            VelariaError: what a worker or this process met. QueryCancelled[query.timeout]: the job's time is over.
            ExternalError[exchange.transport_closed, exchange.timeout, exchange.no_worker_available, exchange.token].
        """
        made = self.submit(frame, options)
        return made if isinstance(made, Answer) else made.answer()

    def submit(self, frame: DataFrame, options: JobOptions | None = None) -> JobHandle | Answer:
        """Ask for a job over a frame; one that cannot be split runs here and now, and its answer is given instead."""
        options = options or JobOptions(timeout_ms=WAIT_MS)
        spans = Spans(self.node_id)
        tasks = self._tasks or max(2, self.workers())
        job_id = f"job-{uuid.uuid4().hex[:12]}"
        with spans.measured(Stage.SPLIT, job_id):
            try:
                found = split(frame._session._engine, frame.node, tasks)
            except InputError as error:
                if error.code != "plan.function":
                    raise
                return _alone(frame, error.message)
            if not found.is_split:
                return _alone(frame, found.reason if found.reasons else "nothing of the plan works on parts")
            if self._estimator is not None:
                engine = frame._session._engine
                threads = engine.settings.threads or os.cpu_count() or 1
                workers = max(1, min(self.workers(), os.cpu_count() or 1))
                shared = self._segments is not None
                if not (guess := self._estimator(engine, found, workers, threads, shared)).pays:
                    return _alone(frame, guess.reason)
        with spans.measured(Stage.SERIALISE, job_id) as span:
            given = submission(
                job_id, found, self.placing, options, getattr(frame, "_text", None) or frame.node.label()
            )
            span.nbytes = given.nbytes
        handle = JobHandle(self, given, found.schema, found.reason, spans)
        self._handles[job_id] = handle
        handle.ask()
        return handle

    def workers(self) -> int:
        """How many workers are registered now."""
        return self.link().workers()

    def snapshot(self, job_id: str = "") -> dict[str, Any]:
        """Where workers and jobs stand, or one job with its chains and tasks."""
        return self.link().snapshot(job_id)

    # --- for handles ----------------------------------------------------------------------------------------

    def link(self) -> _Link:
        """The stream; a new one where the last one broke."""
        with self._lock:
            if self._link is None or self._link.broken is not None:
                self._link = _Link(self.address, read_token(self._token_file), self.node_id)
            return self._link

    def over(self, job_id: str) -> None:
        """Nobody needs what this client gave a job any more."""
        self._handles.pop(job_id, None)
        if self._segments is not None:
            self._segments.remove(f"{job_id}.")


class JobHandle:
    """A job that was asked for; it runs on whether or not anybody waits."""

    def __init__(self, client: Client, given: Submission, schema: pa.Schema, reason: str, spans: Spans) -> None:
        self.job_id = given.job.job_id
        self._client, self._given, self._schema, self._reason, self._spans = client, given, schema, reason, spans
        timeout_ms = given.job.options.timeout_ms
        self._deadline = None if timeout_ms is None else monotonic() + timeout_ms / 1000
        self._lock = threading.RLock()
        self._answers: Answers | None = None
        self._link: _Link | None = None
        self._answer: Answer | None = None
        self._error: VelariaError | None = None
        self._state = JobState.CREATED

    @property
    def state(self) -> JobState:
        """Where the job stands; the scheduler is asked."""
        if not self.done:
            told = self.query_job().get("state")
            return JobState(told) if told else self._state
        return self._state

    @property
    def done(self) -> bool:
        """Whether rows or an error are here."""
        return self._answer is not None or self._error is not None

    def cancel(self) -> bool:
        """Ask the job to stop; False where it had ended before."""
        if self.done:
            return False
        try:
            self._client.link().cancel(self.job_id)
        except VelariaError as error:
            # With the scheduler gone nothing runs that would have to stop.
            self._end(JobState.CANCELLED, error)
        return True

    def query_job(self) -> dict[str, Any]:
        """The job with its chains and tasks, as the scheduler knows it; empty where it does not."""
        return self._client.snapshot(self.job_id)

    def query_chain(self, chain_id: str) -> dict[str, Any]:
        """One chain of it."""
        found: dict[str, Any] = self.query_job().get("chains", {}).get(chain_id, {})
        return found

    def query_task(self, chain_id: str, task_id: int) -> dict[str, Any]:
        """One task of it."""
        tasks: list[dict[str, Any]] = self.query_chain(chain_id).get("tasks", [])
        return tasks[task_id] if 0 <= task_id < len(tasks) else {}

    def snapshot_json(self) -> str:
        """`query_job` as one line of JSON."""
        return json.dumps(self.query_job(), ensure_ascii=False)

    def wait(self, timeout_ms: float | None = None) -> bool:
        """Wait for the job to end, at most `timeout_ms`; whether it has."""
        with self._lock:
            until = None if timeout_ms is None else monotonic() + timeout_ms / 1000
            while not self.done:
                if until is not None and monotonic() >= until:
                    return False
                self._turn(until)
            return True

    def result(self) -> pa.Table:
        """The rows.

        Raises:
            VelariaError: what the job ended with.
        """
        return self.answer().table

    def answer(self) -> Answer:
        """The rows, and how they came; see `Client.run`."""
        self.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)
        assert self._answer is not None, "a job ends with rows or with an error"
        return self._answer

    # --- inside ---------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask the scheduler for the job, or for the same one again."""
        with self._lock:
            try:
                self._link = self._client.link()
                self._answers = self._link.submit(self._given)
            except VelariaError as error:
                self._broke(error)

    def _turn(self, until: float | None) -> None:
        """Wait for the next word about the job."""
        if self._answers is None:
            self.ask()
            return
        limits = [one for one in (until, self._given_up) if one is not None]
        try:
            self._took(self._answers.next(min(limits) - monotonic() if limits else 3600.0))
        except VelariaError as error:
            if error.code != "exchange.timeout":
                self._broke(error)
            elif self._given_up is not None and monotonic() >= self._given_up:
                told = f"no word of the job in its timeout of {self._given.job.options.timeout_ms} ms"
                self._end(JobState.TIMEOUT, QueryCancelled("query.timeout", told, hint="is the scheduler alive?"))

    @property
    def _given_up(self) -> float | None:
        return None if self._deadline is None else self._deadline + _GRACE_SECONDS

    def _broke(self, error: VelariaError) -> None:
        """The stream broke, or could not be opened: again a moment later, while the job has time."""
        self._answers = self._link = None
        if is_lasting(error) or (self._deadline is not None and monotonic() >= self._deadline):
            self._end(JobState.FAILED, error)
            return
        self._client.told("disconnected", code=error.code, job_id=self.job_id)
        threading.Event().wait(_RECONNECT_SECONDS)

    def _took(self, frame: pb.Frame) -> None:
        if body_of(frame) != "result":
            return  # it was accepted
        result, link = frame.result, self._link
        assert link is not None
        if not result.ok:
            link.over(self.job_id, ok=True)
            self._end(JobState(result.state), error_of(result.error))
            return
        try:
            with self._spans.measured(Stage.MERGE, self.job_id) as span:
                table = _put_together(result, link, self._schema)
                span.nbytes = table.nbytes
        except VelariaError as error:
            if status_of(error) is not Status.MISSING_INPUT:
                link.over(self.job_id, ok=True)
                self._end(JobState.FAILED, error)
                return
            link.over(self.job_id, ok=False)  # they are made again, and another result comes
            return
        link.over(self.job_id, ok=True)
        spans = (*self._spans.spans, *(Span.of(one) for one in result.spans))
        self._answer = Answer(table, Mode.WORKERS, self._reason, spans, self.job_id)
        self._end(JobState.SUCCEEDED, None)

    def _end(self, state: JobState, error: VelariaError | None) -> None:
        self._state, self._error = state, error
        if self._answers is not None:
            self._answers.close()
        self._client.over(self.job_id)


def _alone(frame: DataFrame, reason: str) -> Answer:
    return Answer(frame.to_arrow(), Mode.SINGLE_PROCESS, reason)


def _put_together(result: pb.Result, link: _Link, schema: pa.Schema) -> pa.Table:
    """The rows of a job, mapped from the workers' segments; they stay readable when these are removed."""
    received = {
        payload.payload_id: data
        for payload in result.payloads
        if not payload.segment and (data := link.forget(payload.payload_id)) is not None
    }
    return opened(result.payloads, received, schema)


class _Link:
    """One stream to the scheduler."""

    def __init__(self, address: str, token: str, node_id: str) -> None:
        self._mailbox = Mailbox(address, token, node_id, lambda _: None)
        self._mailbox.start()
        try:
            self._asked(self._mailbox.writer.frame(register=pb.Register(role="client", pid=os.getpid())))
        except BaseException:
            self._mailbox.close()
            raise

    @property
    def broken(self) -> VelariaError | None:
        """What ended the stream; None while it is open."""
        return self._mailbox.broken

    def workers(self) -> int:
        """Workers that are registered now."""
        return len(self.snapshot("")["workers"])

    def snapshot(self, job_id: str) -> dict[str, Any]:
        """Where the scheduler stands, or one of its jobs."""
        told = self._asked(self._mailbox.writer.frame(inspect=pb.Inspect(job_id=job_id)))
        found: dict[str, Any] = json.loads(told.snapshot.json)
        return found

    def submit(self, given: Submission) -> Answers:
        """Ask for a job; what is given tells that it was accepted, and how it ended."""
        for payload_id, data in given.inline:
            self._mailbox.send_payload(payload_id, data)
        return self._mailbox.ask(self._mailbox.writer.frame(submit=pb.Submit(job=job_message(given.job))))

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job."""
        self._asked(self._mailbox.writer.frame(cancel=pb.Cancel(job_id=job_id)))

    def over(self, job_id: str, *, ok: bool) -> None:
        """The rows of a job are here, or could not be read."""
        self._mailbox.send(self._mailbox.writer.frame(ack=pb.Ack(job_id=job_id, ok=ok)))

    def forget(self, payload_id: str) -> bytes | None:
        """The bytes of a payload that came over the stream."""
        return self._mailbox.inbox.forget(payload_id)

    def close(self) -> None:
        """End it."""
        self._mailbox.close()

    def _asked(self, frame: pb.Frame) -> pb.Frame:
        with self._mailbox.ask(frame, urgent=True) as answers:
            return answers.next(_ANSWER_SECONDS)
