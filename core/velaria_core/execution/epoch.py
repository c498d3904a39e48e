"""Epoch: one round of a query, in the ten steps of `checkpoint.Protocol`.

Epochs are atomic in groups: the epochs of a group share one transaction, so they are durable together or not at all. A
group has one epoch unless the query has a checkpoint interval, or a batch is too large for one epoch: an offset stands
after the last row of its batch, so what is read of a batch becomes durable with the rest of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa

from velaria_core.changes import DIFF, going_first, with_diff
from velaria_core.contract import abi
from velaria_core.contract.modes import OutputMode, SinkMode
from velaria_core.errors import DataError, StateError, VelariaError
from velaria_core.execution.checkpoint import EpochRecord, Ledger, Protocol, Staged
from velaria_core.execution.clock import Clock
from velaria_core.execution.policy import blamed
from velaria_core.execution.progress import EpochReport
from velaria_core.execution.pulling import Input, Intake, Load, Pulled
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Moment
from velaria_core.execution.steps.net import Netting
from velaria_core.execution.steps.rows import Log
from velaria_core.execution.upserts import Upserts
from velaria_core.execution.writing import Writer
from velaria_core.logical.identity import identity
from velaria_core.types import duckdb_type

OUTPUT: Final = "output"
LATE: Final = "late"
DEAD_LETTERS: Final = "dead_letter"
At = Callable[[Protocol], None]


def nowhere(_step: Protocol) -> None:
    """Nobody watches the protocol; crash tests put a kill here."""


@dataclass(slots=True)
class _Done:
    """An epoch that is run and not yet reported."""

    epoch: int
    load: Load
    batches: int
    rows_out: int = 0
    sink_ms: float = 0.0
    watermark_us: int | None = None
    late_rows: int = 0
    late_dropped_rows: int = 0
    ahead_rows: int = 0


@dataclass(slots=True)
class _Group:
    """Epochs that become durable together.

    Attributes:
        staged: what the sinks were given: epoch, sink, and the ref, once it is staged.
        acknowledged: by source, the offset that it is told of afterwards.
    """

    record: EpochRecord
    epochs: list[_Done] = field(default_factory=list)
    staged: list[tuple[_Done, str, Future[str]]] = field(default_factory=list)
    acknowledged: dict[str, abi.Offset] = field(default_factory=dict)
    state_ms: float = 0.0
    committed_ms: float = 0.0
    finished_ms: int = 0


class Epochs:
    """Runs the epochs of one query, one at a time, on one thread.

    Args:
        ledger: of a durable query; None keeps nothing but the running state.
        sinks: by name, OUTPUT and whatever else the query writes to.
        overlapping: an epoch need not be staged before its state is committed. Only where nothing is tried again, so
            that a state ahead of its sink ends with the query.
        report: told of each epoch once it is published.
    """

    def __init__(
        self,
        store: Store,
        flow: Dataflow,
        ledger: Ledger | None,
        intake: Intake,
        inputs: Sequence[Input],
        sinks: Mapping[str, abi.Sink],
        output: Output,
        query_id: str,
        clock: Clock,
        report: Callable[[EpochReport], None],
        *,
        at: At = nowhere,
        overlapping: bool = False,
    ) -> None:
        self._cursor, self._flow, self._ledger = store.cursor, flow, ledger
        self._intake, self._sinks, self._output = intake, sinks, output
        self._inputs = {stream.name: stream for stream in inputs}
        self._query_id, self._clock, self._report = query_id, clock, report
        self._at, self._overlapping = at, overlapping
        self._group: _Group | None = None
        self._unpublished: _Group | None = None
        self.writer = Writer(threaded=False)
        self.last = ledger.last() if ledger is not None else EpochRecord()
        if self.last.times:
            flow.restore(self.last.times)

    @property
    def open(self) -> int:
        """Epochs that are run and not yet durable."""
        return len(self._group.epochs) if self._group is not None else 0

    @property
    def fresh(self) -> bool:
        """Whether no epoch was run ever."""
        return not self.last.epoch and self._group is None

    @property
    def batches(self) -> int:
        """Batches processed so far, those of open epochs too."""
        return (self._group.record if self._group is not None else self.last).batches

    @property
    def has_times(self) -> bool:
        """Whether time may give the steps something to do while no rows come."""
        return any(step.times or step.waits for step in self._flow.steps)

    def due(self, ended: Collection[str]) -> bool:
        """Whether an epoch without rows would do something: it is the first, or event time moves on without rows."""
        return self.fresh or self._flow.due(self._clock.now_ms(), self._relations(ended))

    # --- the life of a group --------------------------------------------------------------------------------

    def run(self, load: Load, *, whole: bool = True, letters: pa.Table | None = None) -> int:
        """One epoch over a load; `commit` makes it durable. Returns the rows that it gave.

        An epoch over no batches is run too: in the first an operator over no rows shows what it has, and after the
        last rows event time ends.

        Args:
            whole: the load's rows end with those of a batch; otherwise the offset stays where it was.
            letters: rows of the load's batches that are set aside; the steps are not given any.

        Raises:
            VelariaError: the epoch failed; the group is undone, and its epochs with it.
        """
        if self._group is None:
            self._begin()
        group = self._group
        assert group is not None
        epoch = group.record.epoch + 1
        done = _Done(epoch, load, len(load.batches) if whole else 0)
        try:
            self._at(Protocol.PULL)
            given = self._given(load) if letters is None else {}
            # Both are in the dataflow: the steps that the watermark waits for run first.
            self._at(Protocol.WATERMARK)
            self._at(Protocol.CHAIN)
            moment = Moment(first=epoch == 1, now_ms=self._clock.now_ms())
            changes = self._output.of(self._flow.epoch(given, moment, self._relations(load.ended if whole else ())))
            self._at(Protocol.STAGE)
            if changes is not None:
                done.rows_out = changes.num_rows
                self._stage(group, done, OUTPUT, changes)
            if LATE in self._sinks and (late := self._flow.late) is not None:
                self._stage(group, done, LATE, to_sink(late))
            if letters is not None:
                self._stage(group, done, DEAD_LETTERS, letters)
        except BaseException:
            self.undo()
            raise
        group.epochs.append(done)
        if whole:
            group.acknowledged |= {name: batch.offset for name, batch in load.batches}
        done.watermark_us = self._flow.watermark_us
        done.late_rows, done.late_dropped_rows = self._flow.late_rows, self._flow.late_dropped_rows
        done.ahead_rows = self._flow.ahead_rows
        tokens = {name: offset.token for name, offset in group.acknowledged.items()}
        before = group.record
        group.record = replace(
            before, epoch=epoch, offsets={**before.offsets, **tokens}, batches=before.batches + done.batches
        )
        return done.rows_out

    def commit(self) -> None:
        """Make the open epochs durable, then visible, then tell the sources. Does nothing where none is open.

        Raises:
            VelariaError: nothing of the group is left, or all of it is durable and `publish` is still to be done.
        """
        group = self._group
        if group is None:
            return
        began_ms = self._clock.ticks_ms()
        try:
            if not self._overlapping:
                staged = (Staged(done.epoch, sink, ref.result()) for done, sink, ref in group.staged)
                group.record = replace(group.record, staged=tuple(staged))
            waited_ms = self._clock.ticks_ms()
            if self._ledger is not None:
                # It may wait for a source that is being asked.
                self._intake.checkpoint(self._marker)
            self._at(Protocol.RECORD)
            if self._ledger is not None:
                group.record = replace(group.record, times=self._flow.snapshot())
                self._ledger.record(group.record)
            self._at(Protocol.COMMIT)
        except BaseException:
            self.undo()
            raise
        self._group = None
        try:
            self._cursor.commit()
        except BaseException:
            # Durable or not, only the state file knows. What is staged stays: `Sink.open` is told what was durable.
            self._flow.rolled_back()
            raise
        self._flow.committed()
        self.last, self._unpublished = group.record, group
        group.committed_ms, group.finished_ms = self._clock.ticks_ms(), self._clock.now_ms()
        group.state_ms = group.committed_ms - waited_ms
        group.epochs[-1].sink_ms += waited_ms - began_ms
        self.writer.publish(lambda: self._publish(group))

    def undo(self) -> None:
        """Take back the open epochs: state, and what is staged of them."""
        group, self._group = self._group, None
        if group is None:
            return
        with suppress(VelariaError):  # an engine that has failed has forgotten the transaction by itself
            self._cursor.roll_back()
        self._flow.rolled_back()
        for done, sink, ref in group.staged:
            with suppress(Exception):  # what a sink cannot remove now, it removes when it is opened again
                self._sinks[sink].abort(done.epoch, ref.result())

    def publish(self) -> None:
        """Make the output of the last durable group visible; again after a restart, where it may be so already."""
        for staged in self.last.staged:
            if staged.sink not in self._sinks:
                raise StateError(
                    "checkpoint.sink",
                    f"the checkpoint has output for the sink of {staged.sink}, and the query has none",
                    hint="write the stream with that sink once more",
                )
            with blamed(f"sink {staged.sink}"):
                self._sinks[staged.sink].commit(staged.epoch, staged.ref)

    def republish(self) -> None:
        """Make a group visible that is durable and was not published, once the sinks were opened again."""
        if self._unpublished is not None:
            self._publish(self._unpublished)

    def unacknowledged(self) -> Mapping[str, abi.Offset]:
        """What the sources are still to be told of a group that is durable and was not published."""
        return self._unpublished.acknowledged if self._unpublished is not None else {}

    # --- its parts ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._at(Protocol.BEGIN)
        self._cursor.begin()
        self._group = _Group(replace(self.last, staged=()))

    def _relations(self, inputs: Collection[str]) -> list[int]:
        return [id(self._inputs[name].relation) for name in inputs]

    def _given(self, load: Load) -> dict[int, pa.Table]:
        """The rows of a load by the identity of their relation."""
        tables: dict[str, list[pa.Table]] = {}
        for name, batch in load.batches:
            tables.setdefault(name, []).append(conformed(self._inputs[name], batch.table))
        return {
            id(self._inputs[name].relation): several[0] if len(several) == 1 else pa.concat_tables(several)
            for name, several in tables.items()
        }

    def _stage(self, group: _Group, done: _Done, name: str, rows: pa.Table) -> None:
        def stage() -> str:
            began_ms = self._clock.ticks_ms()
            with blamed(f"sink {name}"):
                ref = self._sinks[name].stage(done.epoch, rows)
            done.sink_ms += self._clock.ticks_ms() - began_ms
            return ref

        group.staged.append((done, name, self.writer.submit(stage)))

    def _marker(self, name: str) -> abi.CheckpointMarker:
        assert self._group is not None
        record = self._group.record
        return abi.CheckpointMarker(self._query_id, record.epoch, record.offsets.get(name, ""), record.batches)

    def _publish(self, group: _Group) -> None:
        self._at(Protocol.PUBLISH)
        for done, name, ref in group.staged:
            began_ms = self._clock.ticks_ms()
            with blamed(f"sink {name}"):
                self._sinks[name].commit(done.epoch, ref.result())
            done.sink_ms += self._clock.ticks_ms() - began_ms
        self._at(Protocol.ACK)
        self._intake.acknowledge(group.acknowledged)
        if self._unpublished is group:
            self._unpublished = None
        self._at(Protocol.REPORT)
        for done in group.epochs:
            self._report(self._told(group, done))

    def _told(self, group: _Group, done: _Done) -> EpochReport:
        return EpochReport(
            epoch=done.epoch,
            rows_in=done.load.rows,
            rows_out=done.rows_out,
            batches=done.batches,
            bytes_in=done.load.nbytes,
            latency_ms=group.committed_ms - done.load.pulled_ms,
            sink_ms=done.sink_ms,
            state_ms=group.state_ms / len(group.epochs),
            finished_ms=group.finished_ms,
            offsets=group.record.offsets,
            watermark_us=done.watermark_us,
            late_rows=done.late_rows,
            late_dropped_rows=done.late_dropped_rows,
            ahead_rows=done.ahead_rows,
            state_rows=self._flow.state_rows,
            state_bytes=self._flow.state_bytes,
        )


def slices(load: Load, rows_max: int | None) -> Iterator[tuple[Load, bool]]:
    """A load, or of one batch that is too large several; with each whether it ends where a batch does."""
    if rows_max is None or len(load.batches) != 1 or load.rows <= rows_max:
        yield load, True
        return
    ((name, batch),) = load.batches
    for row in range(0, load.rows, rows_max):
        part = Load(pulled_ms=load.pulled_ms, ended=load.ended)
        part.add(Pulled(name, abi.Batch(batch.table.slice(row, rows_max), batch.offset)))
        yield part, row + rows_max >= load.rows


def conformed(stream: Input, table: pa.Table) -> pa.Table:
    """A batch in the plan's own form.

    Raises:
        DataError[source.schema]: it has not the columns that its source declares.
    """
    info = stream.source.info()
    declared = info.schema if info.append_only else info.schema.append(pa.field(abi.DIFF, pa.int64()))
    if table.schema != declared:
        given = [(one.name, duckdb_type(one.type)) for one in table.schema]
        wanted = [(one.name, duckdb_type(one.type)) for one in declared]
        if given != wanted:
            raise DataError(
                "source.schema",
                f"{stream.relation.label}: a batch has the columns {_told(given)}; the source declares {_told(wanted)}",
                hint="a stream keeps its columns: read the new ones as another stream",
            )
        table = table.cast(declared)
    return table if info.append_only else table.rename_columns([*info.schema.names, DIFF])


def _told(columns: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns) or "none"


def diff_name(columns: Sequence[str]) -> str:
    """What the sign is called beside these columns of a sink's rows: `diff` where none of them is called so."""
    taken = {name.lower() for name in columns}
    names = (abi.DIFF, *(f"{abi.DIFF}_{at}" for at in range(1, len(columns) + 1)))
    return next(name for name in names if name not in taken)


def to_sink(changes: pa.Table) -> pa.Table:
    """Changes under the contract's name for their sign."""
    names = changes.schema.names
    return changes.rename_columns([*names[:-1], diff_name(names[:-1])]) if names[-1] == DIFF else changes


class Output:
    """The result's changes in the form that the sink takes."""

    def __init__(self, store: Store, flow: Dataflow, mode: SinkMode, keys: Sequence[str] = ()) -> None:
        self._mode = mode
        self._columns = flow.schema.names
        if mode is SinkMode.REPLACE:
            self._result = Log(store, "result", flow.schema, flow.steps[-1].append_only)
            self._whole = store.prepare(self._result.restricted((), None))
        self._upserts = Upserts(store, flow.schema, keys) if mode is SinkMode.UPSERT else None
        self._netting: Netting | None = None
        if mode in (SinkMode.RETRACT, SinkMode.UPSERT) and not flow.steps[-1].is_net:
            self._netting = Netting(store, flow.schema)

    def of(self, changes: pa.Table | None) -> pa.Table | None:
        """What the sink is given for these changes; None for nothing."""
        if changes is None:
            return None
        if self._mode is SinkMode.APPEND:
            return changes
        if self._mode is SinkMode.REPLACE:
            self._result.take(changes)
            return self._whole()
        changes = with_diff(changes)
        net = changes if self._netting is None else self._netting.of(changes)
        if net is None:
            return None
        ordered = going_first(net) if self._upserts is None else self._upserts.of(net)
        return ordered.rename_columns([*self._columns, diff_name(self._columns)])


def sink_mode(flow: Dataflow, wanted: OutputMode, info: abi.SinkInfo, keys: tuple[str, ...] = ()) -> SinkMode | None:
    """The form in which a sink takes what the query gives, or None where they do not go together.

    Args:
        keys: the columns by which the query was asked to tell changes; none where it was not.
    """
    if wanted is OutputMode.COMPLETE:
        return SinkMode.REPLACE if SinkMode.REPLACE in info.modes else None
    choices: tuple[SinkMode, ...]
    if keys:
        choices = (SinkMode.UPSERT,)
    elif flow.steps[-1].append_only:
        choices = (SinkMode.APPEND, SinkMode.RETRACT)
    elif wanted is OutputMode.APPEND:
        choices = ()
    else:
        choices = (SinkMode.RETRACT, SinkMode.UPSERT) if identity(flow.root) else (SinkMode.RETRACT,)
    return next((mode for mode in choices if mode in info.modes), None)
