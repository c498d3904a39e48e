"""Progress: what a stream query has done, counted where it happens and told as the contract's message.

The runtime tells a `Reporter` what it does; the Reporter keeps the counts, makes a `Progress` after every epoch, keeps
the last of them, and calls the listeners. What was decided before the first row (`StreamStrategy`) is repeated in every
report, so explain and progress cannot disagree.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from velaria_core.contract.codec import Progress, StreamStrategy
from velaria_core.contract.modes import QueryStatus, TransportMode
from velaria_core.errors import VelariaError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.listeners import EventKind, Listener, Listeners, QueryEvent
from velaria_core.execution.moments import from_micros, from_millis
from velaria_core.execution.prometheus import exposition

RECENT_EPOCHS: Final = 100

# What rows_per_second looks back on.
_WINDOW_MS: Final = 10_000
_WINDOW_EPOCHS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch did.

    Attributes:
        batches, rows_in, bytes_in: what it took from the sources.
        rows_out: rows that the sink was given.
        latency_ms: from the first pull to the commit; sink_ms and state_ms are parts of it.
        watermark_us: microseconds since 1970 in UTC; `event_time.END` once every source has ended; None until known.
        late_rows, late_dropped_rows, ahead_rows: of this epoch.
        state_rows, state_bytes: of all steps, after it.
        offsets: by source, the token committed last.
        finished_ms: the clock after the commit.
    """

    epoch: int
    rows_in: int
    rows_out: int
    batches: int
    bytes_in: int
    latency_ms: float
    sink_ms: float
    state_ms: float
    finished_ms: int
    offsets: Mapping[str, str]
    watermark_us: int | None = None
    late_rows: int = 0
    late_dropped_rows: int = 0
    ahead_rows: int = 0
    state_rows: int = 0
    state_bytes: int = 0


class Reporter:
    """Counts what one query does. Any thread may call any method.

    Args:
        strategy: what was decided for the query.
        columns: columns of the widest source, as the plan reads it.
        epoch, batches, offsets: where a restarted query goes on: its last committed epoch, the batches processed up to
            it, and the sources' tokens.
        listeners: those of the session.
    """

    def __init__(
        self,
        query_id: str,
        strategy: StreamStrategy,
        *,
        clock: Clock = SYSTEM_CLOCK,
        columns: int = 1,
        epoch: int = 0,
        batches: int = 0,
        offsets: Mapping[str, str] | None = None,
        listeners: Listeners | None = None,
    ) -> None:
        self.listeners = Listeners()
        self.strategy = strategy
        self._query_id = query_id
        self._heard = (self.listeners,) if listeners is None else (self.listeners, listeners)
        self._clock, self._columns = clock, columns
        self._lock = threading.Lock()
        self._status = QueryStatus.RESTORED if epoch else QueryStatus.CREATED
        self._error: BaseException | None = None
        self._is_blocked = False
        self._pulled = self._processed = batches
        self._blocked_count = self._backlog_max = self._batch_bytes_max = self._batch_cost_max = 0
        self._partitions, self._partitions_max = 0, 1
        self._rows_in = self._rows_out = self._bytes_in = 0
        self._late = self._late_dropped = self._ahead = 0
        self._retried = self._dead_letter_rows = self._listener_errors = 0
        self._last = EpochReport(
            epoch=epoch,
            rows_in=0,
            rows_out=0,
            batches=0,
            bytes_in=0,
            latency_ms=0.0,
            sink_ms=0.0,
            state_ms=0.0,
            finished_ms=0,
            offsets=offsets or {},
        )
        self._marks: deque[tuple[float, int]] = deque([(clock.ticks_ms(), 0)], _WINDOW_EPOCHS)
        self._recent: deque[tuple[EpochReport, Progress]] = deque(maxlen=RECENT_EPOCHS)

    # --- what the runtime tells -----------------------------------------------------------------------------

    def pulled(self, batches: int, rows: int, nbytes: int, waiting: int | None = None) -> None:
        """Batches came from the sources.

        Args:
            waiting: batches that wait in the queue now; by default all that were pulled and are not processed.
        """
        if not batches:
            return
        with self._lock:
            self._is_blocked = False
            self._pulled += batches
            self._backlog_max = max(self._backlog_max, self._pulled - self._processed if waiting is None else waiting)
            self._batch_bytes_max = max(self._batch_bytes_max, nbytes // batches)
            self._batch_cost_max = max(self._batch_cost_max, rows * self._columns // batches)

    def blocked(self) -> None:
        """The queue is full, so pulling stops: until the next `pulled`, or until nothing waits any more."""
        with self._lock:
            self._blocked_count += not self._is_blocked
            self._is_blocked = True

    def retried(self) -> None:
        """An epoch failed and is run again."""
        with self._lock:
            self._retried += 1

    def dead_lettered(self, rows: int) -> None:
        """The error policy set rows aside."""
        with self._lock:
            self._dead_letter_rows += rows

    def partitions(self, held: int) -> None:
        """Workers hold so many parts of batches now."""
        with self._lock:
            self._partitions = held
            self._partitions_max = max(self._partitions_max, held)

    def epoch(self, report: EpochReport) -> None:
        """An epoch is committed."""
        with self._lock:
            self._last = report
            self._processed += report.batches
            self._rows_in += report.rows_in
            self._rows_out += report.rows_out
            self._bytes_in += report.bytes_in
            self._late += report.late_rows
            self._late_dropped += report.late_dropped_rows
            self._ahead += report.ahead_rows
            now_ms = self._clock.ticks_ms()
            self._marks.append((now_ms, self._rows_in))
            while len(self._marks) > 2 and self._marks[1][0] <= now_ms - _WINDOW_MS:
                self._marks.popleft()
            progress = self._progress()
            self._recent.append((report, progress))
        self._tell(EventKind.PROGRESS, progress)

    def status(self, status: QueryStatus, error: BaseException | None = None) -> None:
        """The query does something else now; `error` is what it failed with."""
        with self._lock:
            if status is self._status or self._status in _ENDS:
                return
            begins = status is QueryStatus.RUNNING and self._status in (QueryStatus.CREATED, QueryStatus.RESTORED)
            if begins:
                self._marks.clear()
                self._marks.append((self._clock.ticks_ms(), self._rows_in))
            self._status, self._error = status, error
            progress = self._progress()
        if begins:
            self._tell(EventKind.STARTED, progress)
        elif status in _ENDS:
            self._tell(_ENDS[status], progress, error)

    def _tell(self, kind: EventKind, progress: Progress, error: BaseException | None = None) -> None:
        event = QueryEvent(kind, progress.query_id, progress, error)
        if failures := sum(listeners.tell(event) for listeners in self._heard):
            with self._lock:
                self._listener_errors += failures

    # --- what it answers ------------------------------------------------------------------------------------

    def now(self) -> Progress:
        """Where the query is."""
        with self._lock:
            return self._progress()

    def recent(self) -> tuple[Progress, ...]:
        """Where it was after each of the last epochs, oldest first."""
        with self._lock:
            return tuple(progress for _, progress in self._recent)

    def epochs(self) -> tuple[EpochReport, ...]:
        """What each of the last epochs did, oldest first."""
        with self._lock:
            return tuple(report for report, _ in self._recent)

    def _progress(self) -> Progress:
        decided, last = self.strategy, self._last
        behind = self._pulled > self._processed
        blocked = self._is_blocked and behind and self._status is QueryStatus.RUNNING
        over = self._status in (QueryStatus.STOPPED, QueryStatus.FAILED)  # what was pulled ahead is let go
        status = QueryStatus.BACKPRESSURE if blocked else self._status
        return Progress(
            query_id=self._query_id,
            status=status,
            requested_execution_mode=decided.requested_mode,
            execution_mode=decided.selected_mode,
            execution_reason=decided.reason,
            transport_mode=decided.transport_mode,
            aggregate_impl=decided.aggregate_impl,
            aggregate_reason=decided.aggregate_reason,
            batches_pulled=self._pulled,
            batches_processed=self._processed,
            blocked_count=self._blocked_count,
            max_backlog_batches=self._backlog_max,
            inflight_batches=0 if over else max(0, self._pulled - self._processed),
            inflight_partitions=self._partitions,
            last_batch_latency_ms=last.latency_ms,
            last_sink_latency_ms=last.sink_ms,
            last_state_latency_ms=last.state_ms,
            last_source_offset=_offsets(last.offsets),
            backpressure_active=status is QueryStatus.BACKPRESSURE,
            actor_eligible=decided.actor_eligible,
            used_actor_runtime=decided.used_actor_runtime,
            used_shared_memory=decided.transport_mode is TransportMode.SHARED_MEMORY,
            has_stateful_ops=decided.has_stateful_ops,
            has_window=decided.has_window,
            sink_is_blocking=decided.sink_is_blocking,
            source_is_bounded=decided.source_is_bounded,
            estimated_partitions=self._partitions_max,
            projected_payload_bytes=self._batch_bytes_max,
            estimated_state_size_bytes=decided.estimated_state_size_bytes,
            estimated_batch_cost=self._batch_cost_max or decided.estimated_batch_cost,
            backpressure_max_queue_batches=decided.backpressure_max_queue_batches,
            backpressure_high_watermark=decided.backpressure_high_watermark,
            backpressure_low_watermark=decided.backpressure_low_watermark,
            checkpoint_delivery_mode=decided.checkpoint_delivery_mode,
            epoch=last.epoch,
            watermark=None if last.watermark_us is None else from_micros(last.watermark_us),
            late_rows=self._late,
            state_rows=last.state_rows,
            state_bytes=last.state_bytes,
            output_mode=decided.output_mode,
            rows_per_second=_rate(self._marks),
            delivery_guarantee=decided.delivery_guarantee,
            late_dropped_rows=self._late_dropped,
            ahead_rows=self._ahead,
            rows_in=self._rows_in,
            rows_out=self._rows_out,
            bytes_in=self._bytes_in,
            finished_at=from_millis(last.finished_ms) if last.finished_ms else None,
            retried_count=self._retried,
            dead_letter_rows=self._dead_letter_rows,
            listener_errors=self._listener_errors,
            error=None if self._error is None else _told(self._error),
        )


class Reported:
    """The part of a query that tells of it: what a user asks, answered by its `Reporter`."""

    _reporter: Reporter

    def progress(self) -> dict[str, Any]:
        """What the query has done; contract/v1/progress.proto says what each key means. Every key is always there."""
        return self._reporter.now().to_dict()

    def snapshot_json(self) -> str:
        """`progress()` as JSON in one line."""
        return self._reporter.now().to_json()

    @property
    def recent_progress(self) -> list[dict[str, Any]]:
        """`progress()` as it was after each of the last 100 epochs, oldest first."""
        return [progress.to_dict() for progress in self._reporter.recent()]

    def add_listener(self, listener: Listener) -> None:
        """Call `listener` with a `QueryEvent` when the query starts, after each epoch, and when it stops or fails.

        It is called on the thread that runs the epochs; what it raises is logged and counted (`listener_errors`).
        """
        self._reporter.listeners.add(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Call it no more."""
        self._reporter.listeners.remove(listener)

    def current(self) -> Progress:
        """`progress()` as the contract's message."""
        return self._reporter.now()

    def prometheus(self) -> str:
        """The progress in Prometheus' text format, for a page that it scrapes."""
        return exposition([self._reporter.now()])


_ENDS: Final[Mapping[QueryStatus, EventKind]] = {
    QueryStatus.STOPPED: EventKind.STOPPED,
    QueryStatus.FAILED: EventKind.FAILED,
}


def _told(error: BaseException) -> str:
    if isinstance(error, VelariaError):
        return f"{error.code}: {error.message}"
    return f"{type(error).__name__}: {error}"


def _offsets(tokens: Mapping[str, str]) -> str:
    """The token of the one source; of several `name=token, ...`."""
    if len(tokens) == 1:
        return next(iter(tokens.values()))
    return ", ".join(f"{name}={token}" for name, token in tokens.items())


def _rate(marks: Sequence[tuple[float, int]]) -> float:
    """Rows a second between the first mark and the last; marks are (milliseconds, rows so far)."""
    (begin_ms, before), (end_ms, after) = marks[0], marks[-1]
    return (after - before) * 1000 / (end_ms - begin_ms) if end_ms > begin_ms else 0.0
