"""Runtime: a stream query at work, on up to three threads.

    sources -> puller -> loads -> chain of steps -> writer -> sinks

The query's own thread takes loads from the puller (`pulling`), runs them as epochs (`epoch`) when the trigger lets it
(`triggers`), and gives their output to the writer (`writing`). What fails there or on the other two threads arrives on
this one, where the error policy decides (`policy`). `process_available` does all of it on the caller's thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Self, TextIO

import pyarrow as pa

from velaria_core.changes import has_diff
from velaria_core.contract import abi
from velaria_core.contract.modes import OutputMode, QueryStatus, SinkMode, TriggerKind
from velaria_core.errors import DataError, ExternalError, InputError, VelariaError, did_you_mean
from velaria_core.execution.checkpoint import Ledger, claimed_folder, state_engine
from velaria_core.execution.claims import taken
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.duck import Engine
from velaria_core.execution.epoch import (
    DEAD_LETTERS,
    LATE,
    OUTPUT,
    At,
    Epochs,
    Output,
    diff_name,
    nowhere,
    sink_mode,
    slices,
)
from velaria_core.execution.explain import machine
from velaria_core.execution.listeners import Listeners
from velaria_core.execution.mirror import Mirror
from velaria_core.execution.moments import from_micros
from velaria_core.execution.options import COMMIT_EPOCHS, COMMIT_MS, StreamOptions
from velaria_core.execution.placing import placement_of
from velaria_core.execution.policy import DeadLetters, Retries, blamed, not_taken
from velaria_core.execution.progress import Reported, Reporter
from velaria_core.execution.pulling import Bounds, Input, Intake, Load, Puller
from velaria_core.execution.registry import active, ended, register
from velaria_core.execution.sinks.table import TableSink
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, compile_steps
from velaria_core.execution.steps.placed import PlacedStep
from velaria_core.execution.stream_strategy import decided
from velaria_core.execution.triggers import Pace
from velaria_core.execution.workers import workers_of
from velaria_core.execution.writing import Writer
from velaria_core.logical.identity import identity
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.operators.watermark import Watermark
from velaria_core.logical.retained import retaining
from velaria_core.logical.serialize import fingerprint

if TYPE_CHECKING:
    from velaria_core.contract.codec import StreamExplain

__all__ = ["StreamOptions", "StreamingQuery"]

_log = logging.getLogger("velaria.stream")
_NUMBERS = count(1)
_ENDS = (QueryStatus.STOPPED, QueryStatus.FAILED)


class _Form(NamedTuple):
    """The rows that a sink is given, without `diff`, how they come, and for upserts by which columns."""

    schema: pa.Schema
    mode: SinkMode
    keys: tuple[str, ...] = ()


class StreamingQuery(Reported):
    """A stream query: `start`, `await_termination`, `stop`, or `process_available` without a thread.

    Made by `StreamingDataFrame.write_stream`. A query runs once; to go on after a stop, write the stream again with the
    same checkpoint_path.

    Attributes:
        id: "stream-query-N".
        label: what it does, for people: its SQL, or its streams and its sink.
        delivery: what was asked, what holds, and why.
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
        listeners: Listeners | None = None,
    ) -> None:
        self.number = next(_NUMBERS)
        self.id = f"stream-query-{self.number}"
        plan = retaining(plan, options.max_retained_windows)
        self._engine, self._plan, self._options, self._clock, self._at = engine, plan, options, clock, at
        given = {OUTPUT: sink, LATE: options.late_sink, DEAD_LETTERS: options.dead_letter}
        self._sinks = {name: one for name, one in given.items() if one is not None}
        self._inputs = _inputs(plan)
        self.label = f"{', '.join(one.relation.label for one in self._inputs)} -> {type(sink).__name__}"
        self._intake = Intake(self._inputs, clock, options.idle_wait_ms)
        self._idle_ms = max(options.idle_wait_ms, 1)
        self._pace = Pace(options.trigger, options.epoch_rows_max)
        self._retries = Retries(options.retries, options.backoff_ms)
        self._lock = threading.Condition()
        self._alone = threading.RLock()  # of those who run or close a query that has no thread
        self._busy = False
        self._stopping = self._draining = False
        self._unacknowledged: dict[str, abi.Offset] = {}  # of a durable epoch that was not published yet
        # When the last epoch without rows ran, with none since that had some: for which ended sources, and ticks.
        self._idled: tuple[frozenset[str], float] | None = None
        self._open_since_ms = 0.0
        self._open_loads: list[Load] = []  # kept where a DataError does not fail the query
        self._batches_max: int | None = None
        self._error: VelariaError | None = None
        self._awaited = False
        self._thread: threading.Thread | None = None
        # Waited for in place of the thread: a join that Ctrl-C interrupts takes a running thread for an ended one
        # (python/cpython issue 90882).
        self._ended = threading.Event()
        self._puller: Puller | None = None
        self._mirror: Mirror | None = None
        self._state_held, self._sinks_held, self._sources_held = ExitStack(), ExitStack(), ExitStack()
        try:
            self._refuse_taken()
            sources = [stream.source.info() for stream in self._inputs]
            self._letters = DeadLetters(sources) if options.dead_letter is not None else None
            flow = self._open_state()
            info = sink.info()
            strategy = decided(machine(engine).backend, flow, options, sources, info, self._placement)
            self.delivery = strategy.delivery_guarantee
            last = self._epochs.last
            self._reporter = Reporter(
                self.id,
                strategy,
                clock=clock,
                columns=max((len(source.schema) for source in sources), default=1),
                epoch=last.epoch,
                batches=last.batches,
                offsets=last.offsets,
                listeners=listeners,
            )
            self._open_sinks()
            self._epochs.publish()
            self._open_sources()
        except BaseException:
            self._release()
            raise
        register(engine, self)

    def __repr__(self) -> str:
        return f"StreamingQuery({self.id}, {self.status}: {self.label})"

    # --- opening and closing --------------------------------------------------------------------------------

    def _refuse_taken(self) -> None:
        """
        Raises:
            StateError[sink.taken]: a query of this session that has not ended writes to one of the sinks.
        """
        mine = {id(sink) for sink in self._sinks.values()}
        for other in active(self._engine):
            if not mine.isdisjoint(id(sink) for sink in other._sinks.values()):
                raise taken(f"this sink: {other.id}")

    def _open_state(self) -> Dataflow:
        options = self._options
        self._state_held.enter_context(claimed_folder(options.checkpoint_path))
        state = state_engine(options.checkpoint_path, self._engine.settings)
        self._state_held.callback(state.close)
        store = Store(state)
        self._state_held.callback(store.close)
        # Before the steps: those of another query would not fit the tables that they find.
        plan = fingerprint(self._plan)
        ledger = Ledger(store, plan, options.output_mode) if options.checkpoint_path is not None else None
        self._state_id = ledger.state_id() if ledger is not None else ""
        streams = {id(stream.relation): stream.source.info().append_only for stream in self._inputs}
        workers = workers_of(state, options, self._held_parts)
        if workers is not None:
            self._state_held.callback(workers.close)
        self._placement = placement_of(options)
        if self._placement is not None:
            self._state_held.callback(self._placement.close)
        flow = compile_steps(self._plan, store, self._engine, streams, options.output_mode, workers, self._placement)
        if ledger is not None:
            ledger.placed([step.name for step in flow.steps if isinstance(step, PlacedStep)])
        self._flow, self._forms = flow, self._forms_of(flow)
        self._epochs = Epochs(
            store,
            flow,
            ledger,
            self._intake,
            self._inputs,
            self._sinks,
            Output(store, flow, self._forms[OUTPUT].mode, self._forms[OUTPUT].keys),
            self.id,
            self._clock,
            lambda report: self._reporter.epoch(report),
            at=self._at,
            overlapping=options.checkpoint_path is None and not options.retries and options.dead_letter is None,
        )
        if ledger is not None and options.checkpoint_path is not None:
            mirror = Mirror(options.checkpoint_path, plan, ledger.tables())
            mirror.check(self._epochs.last.epoch)
            self._mirror = mirror
        return flow

    def _forms_of(self, flow: Dataflow) -> dict[str, _Form]:
        """What each sink is given.

        Raises:
            InputError[stream.output_mode]: a sink does not take that.
            InputError[stream.keys]: the result has no such column.
            InputError[stream.late_sink]: late rows have no sink, or a sink has no late rows.
        """
        wanted = self._options.output_mode
        keys = _known(self._options.keys, flow.schema)
        if wanted is OutputMode.APPEND and not flow.steps[-1].append_only:
            marked = any(isinstance(node, Watermark) for node in flow.root.walk())
            raise InputError(
                "stream.output_mode",
                "rows of this result change, and append output (EMIT ON WINDOW CLOSE) is of rows that never do",
                hint="group by a window of the column with the watermark, which closes it"
                if marked
                else "a watermark closes windows: WATERMARK FOR ts AS ts - INTERVAL 5 SECONDS where the source is "
                'declared, or with_watermark("ts", "5 seconds")',
            )
        mode = sink_mode(flow, wanted, self._sinks[OUTPUT].info(), keys)
        hint = "update gives changes, complete the whole result, append rows that never change"
        what = f"changes by {', '.join(keys)}" if keys else f"{wanted} output"
        form = _Form(flow.schema, self._fitting(OUTPUT, mode, what, hint))
        forms = {OUTPUT: form._replace(keys=keys or identity(flow.root)) if mode is SinkMode.UPSERT else form}
        if (late := flow.late_schema) is not None and LATE not in self._sinks:
            raise InputError("stream.late_sink", "late rows go to a sink, and there is none", hint="late_sink=...")
        if LATE in self._sinks:
            if late is None:
                hint = 'with_watermark(..., late="side") sends them there'
                raise InputError("stream.late_sink", "no late rows go to a sink", hint=hint)
            signed = has_diff(late)
            columns = late.remove(len(late) - 1) if signed else late
            mode = SinkMode.RETRACT if signed else SinkMode.APPEND
            forms[LATE] = _Form(columns, self._fitting(LATE, mode, "late rows"))
        if self._letters is not None:
            mode = self._fitting(DEAD_LETTERS, SinkMode.APPEND, "dead letters")
            forms[DEAD_LETTERS] = _Form(self._letters.schema, mode)
        return forms

    def _fitting(self, name: str, mode: SinkMode | None, what: str, hint: str | None = None) -> SinkMode:
        modes = self._sinks[name].info().modes
        if mode is None or mode not in modes:
            told = f"the sink takes {', '.join(sorted(modes))}, which does not fit {what}"
            raise InputError("stream.output_mode", told, hint=hint)
        return mode

    def _held_parts(self, parts: int) -> None:
        self._reporter.partitions(parts)

    def _open_sinks(self) -> None:
        for name, sink in self._sinks.items():
            schema, mode, keys = self._forms[name]
            context = abi.SinkContext(
                query_id=self.id,
                checkpoint_path=self._options.checkpoint_path,
                execution_mode=self._reporter.strategy.selected_mode,
                transport_mode=self._reporter.strategy.transport_mode,
                schema=schema,
                mode=mode,
                keys=keys,
                output_mode=self._options.output_mode if name == OUTPUT else OutputMode.APPEND,
                delivery_mode=self.delivery.held,
                last_epoch=self._epochs.last.epoch,
                diff=diff_name(schema.names),
                state_id=self._state_id,
            )
            with blamed(f"sink {name}"):
                sink.open(context)
            self._sinks_held.callback(sink.close)

    def _open_sources(self) -> None:
        for stream in self._inputs:
            token = self._epochs.last.offsets.get(stream.name)
            context = abi.SourceContext(
                query_id=self.id,
                trigger_interval_ms=self._options.trigger.interval_ms,
                backlog_batches=0,
                inflight_batches=0,
                max_inflight_batches=self._options.max_inflight_batches,
                checkpoint_path=self._options.checkpoint_path,
                resume_from=token if stream.source.info().replayable else None,
                wake=partial(self._wake, stream.name),
            )
            with blamed(stream.relation.label):
                stream.source.open(context)
            self._sources_held.callback(stream.source.close)

    def _reopen(self) -> None:
        """After an error: everything outside anew, from the last durable epoch."""
        self._unacknowledged |= self._epochs.unacknowledged()
        with suppress(Exception):  # what failed may well fail to close
            self._sinks_held.close()
        if self._options.checkpoint_path is not None:
            # An engine that could not write refuses everything until its file is opened again.
            self._state_held.close()
            self._open_state()
        self._open_sinks()
        self._epochs.publish()
        with suppress(Exception):  # a failed ack loses nothing
            self._intake.acknowledge(self._unacknowledged)
        self._unacknowledged = {}
        with suppress(Exception):
            self._sources_held.close()
        self._idled = None
        self._intake.restart()
        self._open_sources()

    def _release(self) -> None:
        with ExitStack() as held:
            for part in (self._state_held, self._sinks_held, self._sources_held):
                held.callback(part.close)

    def _reflect(self, *, at_once: bool = False) -> None:
        """Write the last durable point to the mirror, if it is time."""
        mirror, last, now_ms = self._mirror, self._epochs.last, self._clock.ticks_ms()
        if mirror is None or not (at_once or mirror.is_due(last.epoch, now_ms)):
            return
        watermark = self._flow.watermark_us
        with suppress(OSError):  # it mirrors the truth, and is not it
            mirror.write(last, None if watermark is None else from_micros(watermark), self._reporter.now(), now_ms)

    def _close(self, status: QueryStatus, error: BaseException | None = None) -> None:
        self._reflect(at_once=True)
        try:
            self._release()
        except Exception as failure:  # noqa: BLE001 -- a source or sink of a user may raise anything
            if error is None:
                status = QueryStatus.FAILED
                self._error = error = _told(failure)
        finally:
            self._reporter.status(status, error)
            ended(self._engine, self)

    def explanation(self, *, analyze: bool = False) -> StreamExplain:
        """What `explain` prints, as the contract's message."""
        from velaria_core.execution.stream_explain import Target, explained

        epochs = self._reporter.epochs() if analyze else None
        return explained(
            self._flow, self._reporter.strategy, Target(self._sinks[OUTPUT], keys=self._options.keys), epochs
        )

    def explain(self, *, analyze: bool = False, format: str = "text") -> str:  # noqa: A002 -- as EXPLAIN has it
        """How the query runs: `logical`, `physical` and `strategy`.

        Args:
            analyze: tell too what the last epochs (100 at most) took: time and rows of each node, and what it keeps.
            format: text, json, or a drawing of the physical plan as dot or svg.
        """
        from velaria_core.execution.drawing import printed

        return printed(self.explanation(analyze=analyze), format)

    def watch(self, *, every_s: float = 0.5, form: str | None = None, stream: TextIO | None = None) -> None:
        """Show the query on the terminal until it has stopped: speed, latency, watermark, state, backpressure, and
        where the time goes. A query that was not started is. Ctrl-C ends the watching, and the query goes on.

        Args:
            every_s: how often to look.
            form: "live" draws in place, "lines" writes a line when something has changed, "json" the progress as JSON;
                by default live on a terminal, lines elsewhere.
            stream: where to; stderr by default.

        Raises:
            VelariaError: what the query failed with.
        """
        from velaria_core.execution.live import Watcher, watching_form

        watcher = Watcher(self, watching_form(form), stream)
        if self._thread is None and self.is_active:
            self.start()
        with suppress(KeyboardInterrupt):
            watcher.run(every_s)

    @property
    def tables_written(self) -> frozenset[str]:
        """The tables of the session that its sinks are, by their names in lower case."""
        sinks = (sink for sink in self._sinks.values() if isinstance(sink, TableSink))
        return frozenset(sink.table.lower() for sink in sinks if sink.engine is self._engine)

    # --- control --------------------------------------------------------------------------------------------

    @property
    def status(self) -> QueryStatus:
        """What the query is doing."""
        return self._reporter.now().status

    @property
    def is_active(self) -> bool:
        """Whether it has neither stopped nor failed."""
        return self.status not in _ENDS

    def start(self) -> Self:
        """Run on a thread of its own."""
        if self._thread is not None or not self.is_active:
            raise InputError("stream.started", f"{self.id} was started before", hint="write the stream again")
        self._thread = threading.Thread(target=self._run, name=self.id, daemon=True)
        self._thread.start()
        return self

    def process_available(self) -> int:
        """Run epochs on this thread until the sources have nothing more now; returns the rows taken in.

        Raises:
            VelariaError: an epoch failed, now or before; it left nothing behind, and the query is closed.
        """
        if self._thread is not None:
            raise InputError("stream.started", f"{self.id} runs on a thread of its own", hint="await_termination()")
        before = self._reporter.now().rows_in
        with self._alone:
            if self._error is not None:
                raise self._error
            if not self.is_active:
                return 0
            self._busy = True
            try:
                self._persist(self._process)
            except BaseException as error:
                self._error = _told(error)
                self._close(QueryStatus.FAILED, error)
                raise
            finally:
                self._busy = False
            if self._stopping:
                self._close(QueryStatus.STOPPED)
        return self._reporter.now().rows_in - before

    def await_termination(self, timeout_s: float | None = None, max_batches: int | None = None) -> bool:
        """Wait until the query has stopped; False when the time ran out. It is started where it was not.

        Args:
            max_batches: stop the query once it has processed so many more batches.

        Raises:
            VelariaError: what the query failed with.
        """
        self._awaited = True
        if max_batches is not None:
            with self._lock:
                self._batches_max = self._epochs.batches + max_batches
                self._lock.notify_all()
        if self._thread is None and self.is_active:
            self.start()
        if self._thread is not None:
            if not self._ended.wait(timeout_s):
                return False
            self._thread.join()
        if self._error is not None:
            raise self._error
        return True

    def stop(self, *, drain: bool = False) -> None:
        """Let the epoch at hand finish, make it durable, then close everything.

        Does nothing to a query that has stopped. Returns when it has; at once where the query itself calls it, as a
        listener or a sink may. What was pulled ahead is left to the next run, which a replayable source gives it again;
        so is an epoch for which a queue has no room.

        Args:
            drain: first process what the sources have now.
        """
        if drain and self._thread is None and self.is_active:
            self.process_available()
        self._ask_to_stop(drain=drain)
        if self._thread is None:
            with self._alone:
                if self.is_active and not self._busy:
                    self._close(QueryStatus.STOPPED)
        elif threading.current_thread() not in self._threads():
            self._ended.wait()
            self._thread.join()

    def leave(self, timeout_s: float) -> None:
        """Stop as a program ends: no epoch is at hand any more when this returns, or the time ran out."""
        self._awaited = True  # nobody is there to be told
        self._ask_to_stop(drain=False)
        if self._thread is not None:
            self._ended.wait(timeout_s)
        elif self._alone.acquire(timeout=timeout_s):
            self._alone.release()

    def _ask_to_stop(self, *, drain: bool) -> None:
        self._intake.wake_all()
        with self._lock:
            self._draining, self._stopping = drain, not drain
            if drain and self._puller is not None:
                self._puller.finish()
            self._lock.notify_all()

    def _threads(self) -> list[threading.Thread | None]:
        """Those of the query itself."""
        return [self._thread, self._epochs.writer.thread, self._puller.thread if self._puller is not None else None]

    def _wake(self, name: str) -> None:
        self._intake.wake(name)
        with self._lock:
            self._lock.notify_all()

    # --- the loop -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        work = self._once if self._options.trigger.kind is TriggerKind.ONCE else self._serve
        try:
            self._persist(work)
        except BaseException as error:  # noqa: BLE001 -- it is raised where the query is awaited
            self._error = _told(error)
            self._close(QueryStatus.FAILED, self._error)
            if not self._awaited:
                _log.error("%s failed, and nobody waits for it: %s", self.id, self._error)
        else:
            self._close(QueryStatus.STOPPED)
        finally:
            self._ended.set()

    def _persist(self, work: Callable[[], None]) -> None:
        """Do the work, and again from the last durable epoch where the error policy says so."""
        again = False
        while True:
            try:
                if again:
                    self._reopen()
                work()
            except BaseException as error:
                self._epochs.undo()
                if self._stopping and not_taken(error):
                    return  # whoever stops a query takes no more of it
                wait_ms = self._retries.wait_ms(error)
                if wait_ms is None:
                    raise
                self._reporter.retried()
                self._pause(wait_ms)
                if self._stopping:
                    return
                again = True
            else:
                return

    def _pause(self, milliseconds: float) -> None:
        deadline_ms = self._clock.ticks_ms() + milliseconds
        with self._lock:
            while not self._stopping and self._clock.ticks_ms() < deadline_ms:
                self._clock.wait_until(self._lock, deadline_ms)

    def _process(self) -> None:
        """Epochs over what the sources have now, on this thread."""
        self._intake.wake_all()
        self._idled = None
        load = self._gather(self._pace.rows)
        while not self._stopping and self._something(load):
            more = load.rows >= self._pace.rows
            self._epoch(load, more=more)
            # A load that is not full held all that there was. What has come meanwhile is for another call: it may
            # always be something.
            load = self._gather(self._pace.rows) if more else Load(pulled_ms=load.pulled_ms, ended=load.ended)
        self._epochs.commit()

    def _once(self) -> None:
        """One epoch over what the sources have now, whatever its size."""
        load = self._intake.gather(None)
        while self._intake.pending and not self._stopping:
            with self._lock:
                self._clock.wait_until(self._lock, self._intake.due_ms())
            self._intake.gather(None, load)
        self._pulled(load)
        if self._something(load):
            self._reporter.status(QueryStatus.RUNNING)
            self._run_epochs(load)
            self._epochs.commit()

    def _gather(self, rows_max: int | None) -> Load:
        load = self._intake.gather(rows_max)
        self._pulled(load)
        return load

    def _pulled(self, load: Load) -> None:
        if load.batches:
            self._reporter.pulled(len(load.batches), load.rows, load.nbytes)

    def _something(self, load: Load) -> bool:
        """Whether a load is worth an epoch.

        Of epochs without rows one is enough for a while: a step may be due again at once, as by a function that asks
        for a time that has passed, and must not keep the query busy, or from its end.
        """
        if load.batches:
            return True
        if self._idled is not None:
            ended, at_ms = self._idled
            if ended == load.ended and self._clock.ticks_ms() < at_ms + self._idle_ms:
                return False
        return self._epochs.due(load.ended)

    def _serve(self) -> None:
        """Epochs until the query is stopped or its sources end."""
        self._epochs.writer = Writer(threaded=any(sink.info().blocking for sink in self._sinks.values()))
        options = self._options
        bounds = Bounds(
            options.max_inflight_batches, options.backpressure_high_watermark, options.backpressure_low_watermark
        )
        reporter = self._reporter
        self._puller = Puller(
            self._intake,
            self._lock,
            self._clock,
            bounds,
            lambda: self._pace.rows,
            reporter.pulled,
            reporter.blocked,
            to_the_end=self._draining or options.trigger.kind is TriggerKind.AVAILABLE_NOW,
        )
        self._puller.start()
        try:
            while (load := self._next()) is not None:
                self._epoch(load, more=self._puller.waiting > 0)
            self._commit()
            self._epochs.writer.drain()
        except BaseException:
            self._epochs.undo()  # while the writer can still tell what is staged
            raise
        finally:
            self._puller.stop()
            self._epochs.writer.close()

    def _next(self) -> Load | None:
        """Wait for what the next epoch is to take in; None when the query is over."""
        puller = self._puller
        assert puller is not None
        until_blocked = self._options.trigger.kind is TriggerKind.AVAILABLE_NOW
        with self._lock:
            while True:
                left = None if self._batches_max is None else self._batches_max - self._epochs.batches
                if self._stopping or (left is not None and left <= 0):
                    return None
                now_ms = self._clock.ticks_ms()
                hurry = until_blocked or self._draining or puller.full or puller.failure is not None
                if puller.waiting and (hurry or now_ms >= self._pace.next_ms):
                    self._pace.began(now_ms)
                    return puller.take(left)
                if not puller.waiting:
                    if puller.failure is not None:
                        raise puller.failure
                    if puller.drained:
                        idle = Load(pulled_ms=now_ms, ended=puller.ended)
                        if self._something(idle):
                            return idle
                        if puller.is_over or ((until_blocked or self._draining) and not puller.pending):
                            return None
                deadline_ms = self._pace.next_ms if puller.waiting else None
                if deadline_ms is None and self._epochs.has_times:
                    deadline_ms = now_ms + self._idle_ms  # silence moves time, too
                self._clock.wait_until(self._lock, deadline_ms)

    def _epoch(self, load: Load, *, more: bool) -> None:
        """Run a load, and make it durable unless more waits and the checkpoint interval is not over."""
        self._reporter.status(QueryStatus.RUNNING)
        began_ms = self._clock.ticks_ms()
        if not self._epochs.open:
            self._open_since_ms = began_ms
        self._run_epochs(load, self._options.epoch_rows_max)
        if not more or self._is_commit_due():
            self._commit()
            self._retries.succeeded()
            self._reflect()
        behind = self._puller is not None and self._puller.backpressure
        self._pace.took(load.rows, self._clock.ticks_ms() - began_ms, behind=behind)

    def _is_commit_due(self) -> bool:
        """Whether the open epochs are as many as share a commit."""
        interval = self._options.checkpoint_interval
        if interval is not None:
            return self._epochs.open >= interval
        if self._options.checkpoint_path is None:
            return True
        return self._epochs.open >= COMMIT_EPOCHS or self._clock.ticks_ms() - self._open_since_ms >= COMMIT_MS

    def _run_epochs(self, load: Load, rows_max: int | None = None) -> None:
        self._idled = None if load.batches else (load.ended, self._clock.ticks_ms())
        if not self._epochs.open:
            self._open_loads.clear()
        if self._letters is not None:
            self._open_loads.append(load)
        try:
            for part, whole in slices(load, rows_max):
                self._epochs.run(part, whole=whole)
        except DataError as error:
            self._set_aside(error)

    def _commit(self) -> None:
        """Make the open epochs durable. A sink that another thread calls may have refused their rows only now."""
        durable = self._epochs.last.epoch
        try:
            self._epochs.commit()
        except DataError as error:
            if self._epochs.last.epoch != durable:
                raise  # a sink does not show what it has staged: these rows are in the state
            self._set_aside(error)
            self._epochs.commit()

    def _set_aside(self, error: DataError) -> None:
        """The open epochs failed: go on without the batches that are to blame, or raise the error."""
        # Rows of other columns fit no sink for dead letters.
        if self._letters is None or error.code == "source.schema":
            raise error
        loads, self._open_loads = self._open_loads, []
        self._isolate(loads, self._letters)

    def _isolate(self, loads: Sequence[Load], letters: DeadLetters) -> None:
        """Run again what was undone, each batch by itself; what fails alone goes to the dead letters."""
        self._restage()
        for load in loads:
            for pulled in load.batches:
                alone = Load(pulled_ms=load.pulled_ms)
                alone.add(pulled)
                durable = self._epochs.last.epoch
                try:
                    self._epochs.run(alone)
                    self._epochs.commit()
                except DataError as error:
                    if self._epochs.last.epoch != durable:
                        raise
                    self._restage()
                    self._epochs.run(alone, letters=letters.rows(pulled.batch.table, error))
                    self._epochs.commit()
                    self._reporter.dead_lettered(alone.rows)
        idle = Load(pulled_ms=loads[-1].pulled_ms, ended=loads[-1].ended)
        if self._something(idle):
            self._epochs.run(idle)

    def _restage(self) -> None:
        """Open the sinks again, which take an epoch of one number only once. What they did not show they show now.

        Raises:
            VelariaError: a sink does not show what is durable.
        """
        writer = self._epochs.writer
        with suppress(DataError):  # it is what led here
            writer.drain()
        writer.close()
        self._epochs.writer = Writer(threaded=writer.threaded)
        self._sinks_held.close()
        self._open_sinks()
        self._epochs.republish()


def _told(error: BaseException) -> VelariaError:
    if isinstance(error, VelariaError):
        return error
    return ExternalError("stream.failed", f"{type(error).__name__}: {error}", cause=error)


def _inputs(plan: Node) -> list[Input]:
    """The streams of a plan, named by their order in it, which a restart finds again."""
    relations = {
        id(node.relation): node.relation
        for node in plan.walk()
        if isinstance(node, Scan) and node.relation.source is not None
    }
    return [Input(f"source-{at}", relation, relation.source) for at, relation in enumerate(relations.values(), start=1)]


def _known(keys: tuple[str, ...], schema: pa.Schema) -> tuple[str, ...]:
    for key in keys:
        if key not in schema.names:
            hint = did_you_mean(key, schema.names, "columns")
            raise InputError("stream.keys", f'the result has no column "{key}"', hint=hint)
    return keys
