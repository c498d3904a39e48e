"""Runtime: a stream query at work. Pulls from its sources, runs epochs, and reports.

One thread runs the query: it pulls until an epoch is full or nothing more is there, runs the epoch, and waits for the
trigger or for a source to wake it. `stop` wakes a waiting query, lets the epoch at hand finish, and returns when
everything is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Self

from velaria_core.contract import abi
from velaria_core.contract.modes import (
    DeliveryMode,
    ExecutionMode,
    OutputMode,
    QueryStatus,
    TransportMode,
    Trigger,
    TriggerKind,
)
from velaria_core.errors import ExternalError, InputError, VelariaError
from velaria_core.execution.checkpoint import Ledger, state_engine
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.duck import Engine
from velaria_core.execution.epoch import At, Epochs, Input, Output, nowhere, sink_mode
from velaria_core.execution.state import Store
from velaria_core.execution.steps import compile_steps
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.serialize import fingerprint

_NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream query runs.

    Attributes:
        trigger: when epochs start.
        checkpoint_path: folder of the durable state; None keeps it in memory.
        output_mode: `append`, `update` (the changes of the result) or `complete` (the whole result each time).
        delivery_mode: what a restart should promise; the query reports what holds.
        epoch_rows_max: rows after which an epoch is full.
        execution_mode: who runs the steps.
        local_workers: threads of `local-workers`.
        max_inflight_batches: batches that may wait between the sources and the steps.
        backpressure_high_watermark, backpressure_low_watermark: batches waiting at which pulling stops, and goes on.
        max_inflight_partitions: parts of batches that workers hold at once; 0: one each.
        shared_memory_transport, shared_memory_min_payload_bytes: for workers that are processes. There are none, so
            nothing crosses between processes; the names are kept.
    """

    trigger: Trigger = Trigger(TriggerKind.PROCESSING_TIME, 0)  # noqa: RUF009 -- frozen
    checkpoint_path: str | None = None
    output_mode: OutputMode = OutputMode.UPDATE
    delivery_mode: DeliveryMode = DeliveryMode.EXACTLY_ONCE
    epoch_rows_max: int = 65_536
    execution_mode: ExecutionMode = ExecutionMode.SINGLE_PROCESS
    local_workers: int = 1
    max_inflight_batches: int = 2
    backpressure_high_watermark: int = 2
    backpressure_low_watermark: int = 1
    max_inflight_partitions: int = 0
    shared_memory_transport: bool = True
    shared_memory_min_payload_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was asked, what holds, and why."""

    asked: DeliveryMode
    held: DeliveryMode
    why: str


class StreamingQuery:
    """A stream query: `start`, `await_termination`, `stop`, or `process_available` without a thread.

    Made by `StreamingDataFrame.write_stream`. A query runs once; to go on after a stop, write the stream again with the
    same checkpoint_path.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Node,
        sink: abi.Sink,
        options: StreamOptions,
        *,
        clock: Clock = SYSTEM_CLOCK,
        at: At = nowhere,
    ) -> None:
        self.id = f"stream-query-{next(_NUMBERS)}"
        self._options, self._clock = options, clock
        self._lock = threading.Condition()
        self._status = QueryStatus.CREATED
        self._stopping = False
        self._woken = False
        self._error: VelariaError | None = None
        self._thread: threading.Thread | None = None
        self._rows_in = self._rows_out = self._pulled = 0
        self._held = ExitStack()
        try:
            self._open(engine, plan, sink, at)
        except BaseException:
            self._held.close()
            raise

    def _open(self, engine: Engine, plan: Node, sink: abi.Sink, at: At) -> None:
        options = self._options
        state = state_engine(options.checkpoint_path)
        self._held.callback(state.close)
        store = Store(state)
        self._held.callback(store.close)
        inputs = _inputs(plan)
        streams = {id(stream.relation): stream.source.info().append_only for stream in inputs}
        flow = compile_steps(plan, store, engine, streams)
        info = sink.info()
        mode = sink_mode(flow, options.output_mode, info)
        if mode is None:
            raise InputError(
                "stream.output_mode",
                f"the sink takes {', '.join(sorted(info.modes))}, which does not fit {options.output_mode} output",
                hint="update gives changes, complete the whole result, append rows that never change",
            )
        self.delivery = _delivery(options, inputs, info)
        ledger = Ledger(store, fingerprint(plan))
        self._epochs = Epochs(store, flow, ledger, inputs, sink, Output(store, flow, mode), self.id, at)
        self._inputs = {stream.name: stream for stream in inputs}
        self._ended: set[str] = set()
        last = self._epochs.last
        if last.epoch:
            self._status = QueryStatus.RESTORED
        sink.open(
            abi.SinkContext(
                query_id=self.id,
                checkpoint_path=options.checkpoint_path,
                execution_mode=ExecutionMode.SINGLE_PROCESS,
                transport_mode=TransportMode.INPROC,
                schema=flow.schema,
                mode=mode,
                output_mode=options.output_mode,
                delivery_mode=self.delivery.held,
                last_epoch=last.epoch,
            )
        )
        self._held.callback(sink.close)
        self._epochs.publish()
        for stream in inputs:
            token = (last.offsets or {}).get(stream.name)
            stream.source.open(self._context(token if stream.source.info().replayable else None))
            self._held.callback(stream.source.close)

    def _context(self, resume_from: str | None) -> abi.SourceContext:
        return abi.SourceContext(
            query_id=self.id,
            trigger_interval_ms=self._options.trigger.interval_ms,
            backlog_batches=0,
            inflight_batches=0,
            max_inflight_batches=1,
            checkpoint_path=self._options.checkpoint_path,
            resume_from=resume_from,
            wake=self._wake,
        )

    # --- control --------------------------------------------------------------------------------------------

    @property
    def status(self) -> QueryStatus:
        """What the query is doing."""
        return self._status

    def start(self) -> Self:
        """Run on a thread of its own."""
        if self._thread is not None or self._status in (QueryStatus.STOPPED, QueryStatus.FAILED):
            raise InputError("stream.started", f"{self.id} was started before", hint="write the stream again")
        self._thread = threading.Thread(target=self._run, name=self.id, daemon=True)
        self._thread.start()
        return self

    def process_available(self) -> int:
        """Run epochs on this thread until the sources have nothing more now; returns the rows taken in.

        Raises:
            VelariaError: an epoch failed; it left nothing behind, and the query is closed.
        """
        before = self._rows_in
        try:
            while self._epoch():
                pass
        except BaseException:
            self._close(QueryStatus.FAILED)
            raise
        return self._rows_in - before

    def await_termination(self, timeout_s: float | None = None) -> bool:
        """Wait until the query has stopped; False when the time ran out.

        Raises:
            VelariaError: what the query failed with.
        """
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        if self._error is not None:
            raise self._error
        return True

    def stop(self) -> None:
        """Let the epoch at hand finish, then close everything. Does nothing to a query that has stopped."""
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        elif self._thread is None:
            self._close(QueryStatus.STOPPED)

    def _wake(self) -> None:
        with self._lock:
            self._woken = True
            self._lock.notify_all()

    # --- the loop -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except VelariaError as error:
            self._error = error
            self._close(QueryStatus.FAILED)
        except Exception as error:  # noqa: BLE001 -- a source or sink of a user may raise anything
            self._error = ExternalError("stream.failed", f"{type(error).__name__}: {error}", cause=error)
            self._close(QueryStatus.FAILED)
        else:
            self._close(QueryStatus.STOPPED)

    def _loop(self) -> None:
        trigger = self._options.trigger
        while not self._stopping:
            began = self._clock.ticks_ms()
            more = self._epoch()
            if trigger.kind is TriggerKind.ONCE or self._all_ended():
                return
            if more:
                continue
            if trigger.kind is TriggerKind.AVAILABLE_NOW:
                return
            self._wait(began + max(trigger.interval_ms, self._retry_ms))

    def _wait(self, deadline_ms: float) -> None:
        with self._lock:
            while not (self._stopping or self._woken) and self._clock.ticks_ms() < deadline_ms:
                self._clock.wait_until(self._lock, deadline_ms)
            self._woken = False

    def _all_ended(self) -> bool:
        return len(self._ended) == len(self._inputs)

    def _epoch(self) -> bool:
        """Pull and run one epoch; whether there was something to do."""
        batches = self._pull()
        if not any(batches.values()) and self._epochs.last.epoch:
            return False
        if self._status is not QueryStatus.RUNNING:
            self._status = QueryStatus.RUNNING
        outcome = self._epochs.run(batches)
        self._rows_in += outcome.rows_in
        self._rows_out += outcome.rows_out
        return any(batches.values())

    def _pull(self) -> Mapping[str, Sequence[abi.Batch]]:
        """What the sources have now, up to an epoch's worth."""
        room = self._options.epoch_rows_max
        pulled: dict[str, list[abi.Batch]] = {name: [] for name in self._inputs}
        self._retry_ms = _RETRY_MS
        waiting = [name for name in self._inputs if name not in self._ended]
        while room > 0 and waiting:
            for name in list(waiting):
                answer = self._inputs[name].source.next_batch(max(room, 1))
                match answer:
                    case abi.Batch():
                        pulled[name].append(answer)
                        self._pulled += 1
                        room -= answer.table.num_rows
                    case abi.EndOfStream():
                        self._ended.add(name)
                        waiting.remove(name)
                    case abi.Blocked(retry_after_ms):
                        waiting.remove(name)
                        if retry_after_ms is not None:
                            self._retry_ms = min(self._retry_ms, retry_after_ms)
        return pulled

    def _close(self, status: QueryStatus) -> None:
        self._status = status
        self._held.close()


_RETRY_MS = 100  # how long a blocked source is left alone when it does not say


def _inputs(plan: Node) -> list[Input]:
    """The streams of a plan, named by their order in it, which a restart finds again."""
    relations = {
        id(node.relation): node.relation
        for node in plan.walk()
        if isinstance(node, Scan) and node.relation.source is not None
    }
    return [Input(f"source-{at}", relation, relation.source) for at, relation in enumerate(relations.values(), start=1)]


def _delivery(options: StreamOptions, inputs: Sequence[Input], sink: abi.SinkInfo) -> Delivery:
    """What a restart can promise, given what the sources and the sink can."""
    asked = options.delivery_mode
    replayable = all(stream.source.info().replayable for stream in inputs)
    once = sink.transactional or sink.idempotent
    if options.checkpoint_path is None:
        possible, why = DeliveryMode.BEST_EFFORT, "there is no checkpoint_path, so nothing outlives the process"
    elif not replayable:
        possible, why = DeliveryMode.BEST_EFFORT, "a source cannot give its rows again"
    elif not once:
        possible, why = DeliveryMode.AT_LEAST_ONCE, "the sink is neither transactional nor idempotent"
    else:
        possible, why = DeliveryMode.EXACTLY_ONCE, "sources replay, the sink commits with the state"
    order = (DeliveryMode.BEST_EFFORT, DeliveryMode.AT_LEAST_ONCE, DeliveryMode.EXACTLY_ONCE)
    if order.index(asked) <= order.index(possible):
        return Delivery(asked, asked, "as asked")
    return Delivery(asked, possible, why)
