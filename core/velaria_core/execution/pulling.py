"""Pulling: the sources of a query are asked in turn, ahead of the epochs, into a short queue.

What an epoch takes in is a `Load`. A puller's thread fills loads while the query runs earlier ones: batches join the
last load that waits until it is full, so an idle query has small loads and little delay, and a busy one large loads
and little cost. The queue is bounded, which is how a slow query holds its sources back.

Invariant: calls to one source never overlap, whichever threads they come from; `Intake` holds a lock for each.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from velaria_core.contract import abi
from velaria_core.execution.clock import Clock
from velaria_core.execution.policy import blamed
from velaria_core.logical.relation import Relation

AT_ONCE: Final = 0.0  # before any reading of the clock that follows an answer


@dataclass(frozen=True, slots=True)
class Input:
    """A stream of the plan: its name in checkpoints, its relation, and the source that feeds it."""

    name: str
    relation: Relation
    source: abi.Source


class Pulled(NamedTuple):
    """A batch and the name of the input that it came from."""

    input: str
    batch: abi.Batch


@dataclass(slots=True)
class Load:
    """What one epoch takes in: batches in the order in which they were pulled.

    Attributes:
        pulled_ms: `Clock.ticks_ms` of the first.
        ended: the inputs of which nothing comes after these.
    """

    batches: list[Pulled] = field(default_factory=list)
    rows: int = 0
    pulled_ms: float = 0.0
    ended: frozenset[str] = frozenset()

    def add(self, pulled: Pulled) -> None:
        self.batches.append(pulled)
        self.rows += pulled.batch.table.num_rows

    def cut(self, batches: int) -> Load:
        """The first `batches` batches, taken out."""
        first = Load(pulled_ms=self.pulled_ms)
        for pulled in self.batches[:batches]:
            first.add(pulled)
        del self.batches[:batches]
        self.rows -= first.rows
        return first

    @property
    def nbytes(self) -> int:
        return sum(pulled.batch.table.nbytes for pulled in self.batches)


class Intake:
    """The sources of a query, asked in turn, so that none keeps another from being read."""

    def __init__(self, inputs: Sequence[Input], clock: Clock, idle_wait_ms: int) -> None:
        self._inputs = {stream.name: stream for stream in inputs}
        self._clock, self._idle_wait_ms = clock, idle_wait_ms
        self._locks = {name: threading.Lock() for name in self._inputs}
        self._turn = deque(self._inputs)
        self._ended: set[str] = set()
        self._pending: set[str] = set()
        self._due_ms = dict.fromkeys(self._inputs, AT_ONCE)
        self._wakes = dict.fromkeys(self._inputs, 0)

    @property
    def ended(self) -> frozenset[str]:
        """The inputs whose source has ended."""
        return frozenset(self._ended)

    @property
    def is_over(self) -> bool:
        """Whether every source has ended."""
        return len(self._ended) == len(self._inputs)

    @property
    def pending(self) -> bool:
        """Whether a source has rows that are only not ready."""
        return bool(self._pending)

    def due_ms(self) -> float:
        """When the next source is to be asked, AT_ONCE where one said so; not for sources that have ended."""
        return min((due for name, due in self._due_ms.items() if name not in self._ended), default=AT_ONCE)

    def wake(self, name: str) -> None:
        """The source has rows, as it says itself; from any thread."""
        self._wakes[name] += 1
        self._due_ms[name] = AT_ONCE

    def wake_all(self) -> None:
        """Ask every source again, however long it wanted to be left alone."""
        for name in self._inputs:
            self.wake(name)

    def restart(self) -> None:
        """The sources were opened again."""
        self._ended.clear()
        self._pending.clear()
        self.wake_all()

    def ask(self, rows_max: int) -> Pulled | None:
        """The next batch of any source that is due; None when none of them has rows now.

        Raises:
            VelariaError: a source failed; the message names it.
        """
        for _ in range(len(self._turn)):
            name = self._turn[0]
            self._turn.rotate(-1)
            if name in self._ended or self._due_ms[name] > self._clock.ticks_ms():
                continue
            woken = self._wakes[name]
            stream = self._inputs[name]
            with self._locks[name], blamed(stream.relation.label):
                answer = stream.source.next_batch(rows_max)
            self._pending.discard(name)
            match answer:
                case abi.Batch():
                    return Pulled(name, answer)
                case abi.EndOfStream():
                    self._ended.add(name)
                case abi.Blocked(retry_after_ms, pending):
                    if pending:
                        self._pending.add(name)
                    wait_ms = self._idle_wait_ms if retry_after_ms is None else retry_after_ms
                    self._due_ms[name] = self._clock.ticks_ms() + max(wait_ms, _WAIT_MS_MIN)
                    if self._wakes[name] != woken:  # rows came while it answered
                        self._due_ms[name] = AT_ONCE
        return None

    def gather(self, rows_max: int | None, load: Load | None = None) -> Load:
        """What the sources have now, up to so many rows, on this thread; put to a load where one is given."""
        load = Load(pulled_ms=self._clock.ticks_ms()) if load is None else load
        while rows_max is None or load.rows < rows_max:
            pulled = self.ask(_EVERYTHING if rows_max is None else rows_max - load.rows)
            if pulled is None:
                break
            load.add(pulled)
        load.ended = self.ended
        return load

    def checkpoint(self, marker: Callable[[str], abi.CheckpointMarker]) -> None:
        """A durable commit is about to happen; `marker` gives each source, by name, its own."""
        for name, stream in self._inputs.items():
            with self._locks[name], blamed(stream.relation.label):
                stream.source.checkpoint(marker(name))

    def acknowledge(self, offsets: Mapping[str, abi.Offset]) -> None:
        """By source, everything up to the offset is in the sinks."""
        for name, offset in offsets.items():
            stream = self._inputs[name]
            with self._locks[name], blamed(stream.relation.label):
                stream.source.ack(offset)


_EVERYTHING = 1 << 31
_WAIT_MS_MIN = 1  # a source that wants to be asked at once is not asked without end


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a puller runs ahead, in loads: it pauses at `most` and goes on at `low`.

    Backpressure is told from `high` on, and until `low`.
    """

    most: int = 2
    high: int = 2
    low: int = 1


class Puller:
    """Pulls on a thread of its own. Everything but `start` and `stop` is called with `lock` held.

    Args:
        lock: the query's condition; it is notified when a load comes, or the sources have nothing now.
        rows_max: how large a load may grow, asked before each pull.
        pulled: told of batches, rows, bytes and waiting loads.
        blocked: told each time the queue is full.
        to_the_end: pull until the sources have nothing once. What comes while that is worked off is for another run:
            it may always be something.
    """

    def __init__(
        self,
        intake: Intake,
        lock: threading.Condition,
        clock: Clock,
        bounds: Bounds,
        rows_max: Callable[[], int],
        pulled: Callable[[int, int, int, int], None],
        blocked: Callable[[], None],
        to_the_end: bool = False,
    ) -> None:
        self._intake, self._lock, self._clock, self._bounds = intake, lock, clock, bounds
        self._rows_max, self._pulled, self._blocked = rows_max, pulled, blocked
        self._loads: deque[Load] = deque()
        self._paused = self._stopping = self._over = False
        self._done = False  # no source is asked any more
        self._to_the_end = to_the_end
        self._ended: frozenset[str] = frozenset()
        self.backpressure = False
        self.drained = False  # the sources had nothing when they were asked last,
        self.pending = False  # or nothing that was ready
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="velaria-pull", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Stop pulling; returns when no source is being asked any more."""
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        if self.thread.ident is not None:
            self.thread.join()

    def finish(self) -> None:
        """Pull what the sources have now, and no more."""
        self._to_the_end = True
        if not self._done:
            self.drained = False
            self._lock.notify_all()

    @property
    def waiting(self) -> int:
        """Loads that wait."""
        return len(self._loads)

    @property
    def full(self) -> bool:
        """Whether the first load will not grow any more."""
        if not self._loads:
            return False
        return len(self._loads) > 1 or self._paused or self._over or self._loads[0].rows >= self._rows_max()

    @property
    def is_over(self) -> bool:
        """Every source has ended, and nothing waits."""
        return self._over and not self._loads

    @property
    def ended(self) -> frozenset[str]:
        """The inputs whose source has ended, and of which nothing waits."""
        return self._ended - {pulled.input for load in self._loads for pulled in load.batches}

    def take(self, batches_max: int | None = None) -> Load:
        """The first load that waits, or as many of its batches."""
        load = self._loads[0]
        if batches_max is not None and batches_max < len(load.batches):
            return load.cut(batches_max)
        self._loads.popleft()
        load.ended = self.ended
        if len(self._loads) <= self._bounds.low:
            self._paused = self.backpressure = False
            self._lock.notify_all()
        return load

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._may_pull():
                to_the_end = self._to_the_end  # as they are asked: what came before `finish` is among what they give
                pulled = self._intake.ask(self._room())
                with self._lock:
                    if pulled is not None:
                        self._put(pulled)
                        continue
                    self._over, self._ended = self._intake.is_over, self._intake.ended
                    due_ms, pending = self._intake.due_ms(), self._intake.pending
                    self._done = self._over or (to_the_end and not pending)
                    # Not by the clock: where asking takes longer than the wait, one is always due.
                    if not self._done and due_ms == AT_ONCE:
                        continue  # woken since it was asked
                    if not self.drained or self._over or pending != self.pending:
                        self.drained, self.pending = True, pending
                        self._lock.notify_all()
                    if self._done:
                        return
                    if not self._stopping:
                        self._clock.wait_until(self._lock, due_ms)
        except BaseException as error:  # noqa: BLE001 -- raised again by the query, on its own thread
            with self._lock:
                self.failure = error
                self._lock.notify_all()

    def _may_pull(self) -> bool:
        with self._lock:
            while not self._stopping:
                if not self._paused and len(self._loads) >= self._bounds.most:
                    self._paused = True
                    self._blocked()
                if not self._paused:
                    return True
                self._clock.wait_until(self._lock, None)
            return False

    def _room(self) -> int:
        with self._lock:
            most = self._rows_max()
            free = most - self._loads[-1].rows if self._loads else most
            return free if free > 0 else most

    def _put(self, pulled: Pulled) -> None:
        rows = pulled.batch.table.num_rows
        if not self._loads or self._loads[-1].rows + rows > self._rows_max():
            self._loads.append(Load(pulled_ms=self._clock.ticks_ms()))
        self._loads[-1].add(pulled)
        self.drained = False
        self.backpressure = self.backpressure or len(self._loads) >= self._bounds.high
        self._pulled(1, rows, pulled.batch.table.nbytes, len(self._loads))
        self._lock.notify_all()
