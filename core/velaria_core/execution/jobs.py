"""Jobs: a plan that runs in the background, with state, progress, cancel, timeout and retries.

A job has a thread that goes through its life in order (`_Job.drive`). Each attempt runs on a second one, with a
cursor of its own, so that the first is always free to interrupt it. An engine works on `RUNNING_MAX` jobs at
once, the others wait. A job is one query, whatever its joins: the engine spreads it over the cores.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import pyarrow as pa

from velaria_core.errors import ExternalError, InputError, InternalError, QueryCancelled, VelariaError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.lower import lower
from velaria_core.logical.node import Node

RUNNING_MAX = max(4, os.cpu_count() or 1)
"""Jobs of one engine that run at the same time: they share its memory limit and cores."""

_INTERRUPT_AGAIN_SECONDS = 0.01
_EXIT_SECONDS = 5.0

_logger = logging.getLogger("velaria.jobs")


class JobState(StrEnum):
    """Where a job stands. The texts are stable."""

    CREATED = "created"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"

    @property
    def final(self) -> bool:
        """Whether a job stays in this state for ever."""
        return self in _FINAL


_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.TIMEOUT})
_ENDED_BY = {"query.cancelled": JobState.CANCELLED, "query.timeout": JobState.TIMEOUT}


@dataclass(frozen=True, slots=True)
class ExecutionOptions:
    """How a job runs.

    Attributes:
        timeout_ms: from submission to the result, waiting and retries included; None is for ever.
        max_attempts: how often it is tried; again only after an ExternalError that is `retryable`.
        base_backoff_ms: the pause before the second attempt; it doubles with each further one.
        max_backoff_ms: the longest pause.
    """

    timeout_ms: int | None = None
    max_attempts: int = 3
    base_backoff_ms: int = 200
    max_backoff_ms: int = 3000

    def __post_init__(self) -> None:
        wrong = [
            text
            for holds, text in (
                (self.timeout_ms is None or self.timeout_ms > 0, "timeout_ms is positive, or None"),
                (self.max_attempts >= 1, "max_attempts is at least 1"),
                (self.base_backoff_ms >= 0, "base_backoff_ms is not negative"),
                (self.max_backoff_ms >= self.base_backoff_ms, "max_backoff_ms is not below base_backoff_ms"),
            )
            if not holds
        ]
        if wrong:
            raise InputError("job.options", "; ".join(wrong))

    def backoff_ms(self, failures: int) -> int:
        """The pause after this many failed attempts."""
        # The shift is bounded: no count of failures makes an enormous number on the way to the minimum.
        return min(self.max_backoff_ms, self.base_backoff_ms << min(failures - 1, 32))


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job at one moment. Field names and their order are stable.

    Attributes:
        created_at_ms, started_at_ms, finished_at_ms: since 1970 in UTC; None before it happened. A job starts
            with its first attempt.
        attempts: how many have begun.
        progress: share of the running attempt, 0 to 1; None where the engine cannot tell; 1 after success.
        rows, bytes: of the result; None before there is one.
        error: of the last attempt that failed, as `VelariaError.to_dict` gives it.
    """

    job_id: str
    state: JobState
    created_at_ms: int
    started_at_ms: int | None
    finished_at_ms: int | None
    attempts: int
    max_attempts: int
    timeout_ms: int | None
    progress: float | None
    rows: int | None
    bytes: int | None
    error: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """The snapshot as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """The snapshot as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


class JobHandle:
    """A job that was submitted. It runs on whether or not anybody holds the handle.

    In a `with` block, work that is unfinished at the end of the block is cancelled. Any thread may use it.
    """

    def __init__(self, job: _Job) -> None:
        self._job = job

    @property
    def job_id(self) -> str:
        return self._job.job_id

    @property
    def state(self) -> JobState:
        return self._job.state

    @property
    def done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self._job.state.final

    def cancel(self) -> bool:
        """Ask the job to stop. Returns at once; the state follows when the statement has stopped.

        Returns:
            False where the job had ended before.
        """
        return self._job.cancel()

    def wait(self, timeout_ms: float | None = None) -> bool:
        """Wait for the job to end, at most `timeout_ms`; whether it has."""
        return self._job.wait(timeout_ms)

    def result(self) -> pa.Table:
        """The rows, once the job has ended; they stay readable after the session is closed.

        Raises:
            QueryCancelled[query.cancelled, query.timeout]: it was stopped.
            VelariaError: what the last attempt met.
        """
        self.wait()
        return self._job.outcome()

    def snapshot(self) -> JobSnapshot:
        """State, times, attempts, progress, rows and error at this moment."""
        return self._job.snapshot()

    def snapshot_json(self) -> str:
        """`snapshot` as one line of JSON."""
        return self.snapshot().to_json()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"JobHandle({self.job_id}, {self.state})"


def submit(engine: Engine, node: Node, options: ExecutionOptions, clock: Clock = SYSTEM_CLOCK) -> JobHandle:
    """Start a job over a plan; returns at once."""
    job = _Job(engine, node, options, clock)
    queue = _queue(engine)
    queue.add(job)
    try:
        _start_thread(job.drive, f"velaria-{job.job_id}")
    except VelariaError:
        queue.discard(job)
        raise
    return JobHandle(job)


def stop_all(engine: Engine) -> None:
    """Cancel every unfinished job of an engine, and wait until they have stopped."""
    jobs = _queue(engine).unfinished()
    for job in jobs:
        job.cancel()
    for job in jobs:
        job.wait(None)


def _start_thread(target: Callable[[], None], name: str) -> None:
    """Daemons: a program that ends does not wait for queries, `_stop_at_exit` ends them."""
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError as error:
        raise ExternalError(
            "job.no_thread",
            f"no thread for a job: {error}",
            retryable=True,
            hint="wait for some jobs first",
            cause=error,
        ) from error


# --- turns --------------------------------------------------------------------------------------------------


class _Queue:
    """The jobs of one engine, and whose turn it is. First come, first served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unfinished: set[_Job] = set()
        self._running = 0
        self._waiting: deque[_Job] = deque()

    def add(self, job: _Job) -> None:
        with self._lock:
            self._unfinished.add(job)

    def discard(self, job: _Job) -> None:
        with self._lock:
            self._unfinished.discard(job)

    def unfinished(self) -> list[_Job]:
        with self._lock:
            return list(self._unfinished)

    def enter(self, job: _Job) -> None:
        """Stand in line; `job.grant()` is called when it is the job's turn."""
        with self._lock:
            free = self._running < RUNNING_MAX
            if free:
                self._running += 1
            else:
                self._waiting.append(job)
        if free:
            job.grant()

    def leave(self, job: _Job) -> None:
        """Out of the line, or pass the turn on: whichever of the two the job has."""
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)
                return
            following = self._waiting.popleft() if self._waiting else None
            if following is None:
                self._running -= 1
        if following is not None:
            following.grant()


_queues: WeakKeyDictionary[Engine, _Queue] = WeakKeyDictionary()
_queues_lock = threading.Lock()


def _queue(engine: Engine) -> _Queue:
    with _queues_lock:
        return _queues.setdefault(engine, _Queue())


@atexit.register
def _stop_at_exit() -> None:
    """An interpreter must not end under a thread that is inside the engine."""
    with _queues_lock:
        jobs = [job for queue in _queues.values() for job in queue.unfinished()]
    for job in jobs:
        job.cancel()
    for job in jobs:
        job.join(_EXIT_SECONDS)


# --- one job ------------------------------------------------------------------------------------------------


class _Job:
    """What a handle and the job's thread share. `_changed` guards every field below it."""

    def __init__(self, engine: Engine, node: Node, options: ExecutionOptions, clock: Clock) -> None:
        self.job_id = f"job-{uuid.uuid4().hex[:12]}"
        self._engine = engine
        self._node = node
        self._options = options
        self._clock = clock
        self._created_at_ms = clock.now_ms()
        timeout_ms = options.timeout_ms
        self._deadline_ms = None if timeout_ms is None else clock.ticks_ms() + timeout_ms
        self._ended = threading.Event()
        self._changed = threading.Condition()
        self.state = JobState.CREATED
        self._granted = False
        self._stop_asked = False
        self._started_at_ms: int | None = None
        self._finished_at_ms: int | None = None
        self._attempts = 0
        self._attempt: _Attempt | None = None
        self._table: pa.Table | None = None
        self._error: VelariaError | None = None

    # Called from any thread.

    def cancel(self) -> bool:
        with self._changed:
            if self.state.final:
                return False
            self._stop_asked = True
            self._changed.notify_all()
            return True

    def grant(self) -> None:
        with self._changed:
            self._granted = True
            self._changed.notify_all()

    def wait(self, timeout_ms: float | None) -> bool:
        until = None if timeout_ms is None else self._clock.ticks_ms() + timeout_ms
        with self._changed:
            while not self.state.final:
                if until is not None and self._clock.ticks_ms() >= until:
                    return False
                self._clock.wait_until(self._changed, until)
            return True

    def join(self, seconds: float) -> None:
        """Wait for the job's thread to have left the engine, by the machine's time."""
        self._ended.wait(seconds)

    def outcome(self) -> pa.Table:
        with self._changed:
            if self._table is not None:
                return self._table
            error = self._error
        assert error is not None, "a job ends with rows or with an error"
        # Without the frames that an earlier call has added.
        raise error.with_traceback(None)

    def snapshot(self) -> JobSnapshot:
        with self._changed:
            table, attempt, error = self._table, self._attempt, self._error
            return JobSnapshot(
                job_id=self.job_id,
                state=self.state,
                created_at_ms=self._created_at_ms,
                started_at_ms=self._started_at_ms,
                finished_at_ms=self._finished_at_ms,
                attempts=self._attempts,
                max_attempts=self._options.max_attempts,
                timeout_ms=self._options.timeout_ms,
                progress=1.0 if table is not None else attempt.progress() if attempt is not None else None,
                rows=table.num_rows if table is not None else None,
                bytes=table.nbytes if table is not None else None,
                error=error.to_dict() if error is not None else None,
            )

    # Called from the job's own thread.

    def drive(self) -> None:
        """The life of the job: wait for a turn, try, wait and try again, end."""
        queue = _queue(self._engine)
        try:
            while True:
                self._set(JobState.QUEUED if self._attempts == 0 else JobState.RETRYING)
                queue.enter(self)
                try:
                    self._wait_for(lambda: self._granted)
                    outcome = self._try()
                finally:
                    with self._changed:
                        self._granted = False
                    queue.leave(self)
                if not self._may_retry(outcome):
                    break
                pause_ms = self._options.backoff_ms(self._attempts)
                _logger.warning(
                    "%s: attempt %d failed, again in %d ms: %s",
                    self.job_id,
                    self._attempts,
                    pause_ms,
                    outcome,
                )
                self._set(JobState.RETRYING, error=outcome)
                self._wait_for(lambda: False, self._clock.ticks_ms() + pause_ms)
        except VelariaError as error:
            outcome = error
        except Exception as error:
            _logger.exception("unexpected error in a job")
            outcome = _unexpected(error)
        queue.discard(self)
        self._end(outcome)

    def _try(self) -> pa.Table | VelariaError:
        """One attempt, to its end or until the job is stopped."""
        attempt = _Attempt(self._engine, self._node, self._changed)
        with self._changed:
            self._attempts += 1
            self._attempt = attempt
            if self._started_at_ms is None:
                self._started_at_ms = self._clock.now_ms()
        self._set(JobState.RUNNING)
        _start_thread(attempt.run, f"velaria-{self.job_id}-{self._attempts}")
        try:
            self._wait_for(lambda: attempt.outcome is not None)
        finally:
            attempt.stop()
            with self._changed:
                self._attempt = None
        assert attempt.outcome is not None, "an attempt that stopped has an outcome"
        return attempt.outcome

    def _may_retry(self, outcome: pa.Table | VelariaError) -> bool:
        return isinstance(outcome, ExternalError) and outcome.retryable and self._attempts < self._options.max_attempts

    def _wait_for(self, reached: Callable[[], bool], until_ms: float | None = None) -> None:
        """Wait until `reached`, or a moment; a cancel or the job's deadline raises QueryCancelled instead."""
        moments = [moment for moment in (until_ms, self._deadline_ms) if moment is not None]
        with self._changed:
            while not reached():
                ticks_ms = self._clock.ticks_ms()
                if self._stop_asked:
                    raise QueryCancelled("query.cancelled", "the query was cancelled")
                if self._deadline_ms is not None and ticks_ms >= self._deadline_ms:
                    raise QueryCancelled(
                        "query.timeout",
                        f"the query ran past its timeout of {self._options.timeout_ms} ms",
                        hint="raise timeout_ms, or make the query smaller",
                    )
                if until_ms is not None and ticks_ms >= until_ms:
                    return
                self._clock.wait_until(self._changed, min(moments, default=None))

    def _set(self, state: JobState, *, error: pa.Table | VelariaError | None = None) -> None:
        with self._changed:
            self.state = state
            if isinstance(error, VelariaError):
                self._error = error
            self._changed.notify_all()
        _logger.debug("%s: %s", self.job_id, state)

    def _end(self, outcome: pa.Table | VelariaError) -> None:
        failed = isinstance(outcome, VelariaError)
        state = _ENDED_BY.get(outcome.code, JobState.FAILED) if failed else JobState.SUCCEEDED
        with self._changed:
            self._finished_at_ms = self._clock.now_ms()
            self._table, self._error = (None, outcome) if failed else (outcome, None)
        self._set(state)
        _logger.info("%s: %s after %d attempts", self.job_id, state, self._attempts)
        self._ended.set()


class _Attempt:
    """One run of the plan on a thread and a cursor of its own."""

    def __init__(self, engine: Engine, node: Node, changed: threading.Condition) -> None:
        self._engine = engine
        self._node = node
        self._changed = changed
        self._ended = threading.Event()
        # Invariant: held while the cursor is spoken to from outside, so that it is not in the pool by then.
        self._outside = threading.Lock()
        self._cursor: Cursor | None = None
        self.outcome: pa.Table | VelariaError | None = None

    def run(self) -> None:
        outcome: pa.Table | VelariaError
        try:
            lowered = lower(self._node)
            with self._engine.cursor(lowered.feeds, lowered.files) as cursor:
                with self._outside:
                    self._cursor = cursor
                try:
                    outcome = cursor.table(lowered.sql)
                finally:
                    with self._outside:
                        self._cursor = None
        except VelariaError as error:
            outcome = error
        except Exception as error:
            _logger.exception("unexpected error in a job")
            outcome = _unexpected(error)
        with self._changed:
            self.outcome = outcome
            self._changed.notify_all()
        self._ended.set()

    def stop(self) -> None:
        """Interrupt the statement until it has stopped; nothing where it has."""
        # Again and again: an interrupt that comes before the statement has begun is lost.
        while not self._ended.is_set():
            with self._outside:
                if self._cursor is not None:
                    self._cursor.interrupt()
            self._ended.wait(_INTERRUPT_AGAIN_SECONDS)

    def progress(self) -> float | None:
        with self._outside:
            return self._cursor.progress() if self._cursor is not None else None


def _unexpected(error: Exception) -> InternalError:
    """An error that nothing has put in Velaria's words; whoever asks for the result must still get one."""
    return InternalError("job.failed", f"{type(error).__name__}: {error}", cause=error)
