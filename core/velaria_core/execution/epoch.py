"""Epoch: one atomic round of a query, in the ten steps of `checkpoint.Protocol`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.changes import DIFF, constant, with_diff
from velaria_core.contract import abi
from velaria_core.contract.modes import OutputMode, SinkMode
from velaria_core.execution.checkpoint import EpochRecord, Ledger, Protocol
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Moment
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

_ZERO = constant(0, 1)[0]
At = Callable[[Protocol], None]


def nowhere(_step: Protocol) -> None:
    """Nobody watches the protocol; crash tests put a kill here."""


@dataclass(frozen=True, slots=True)
class Input:
    """A stream of the plan: its name in checkpoints, its relation, and the source that feeds it."""

    name: str
    relation: Relation
    source: abi.Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an epoch did."""

    epoch: int
    rows_in: int
    rows_out: int


class Epochs:
    """Runs the epochs of one query, one at a time, on one thread."""

    def __init__(
        self,
        store: Store,
        flow: Dataflow,
        ledger: Ledger,
        inputs: Sequence[Input],
        sink: abi.Sink,
        output: Output,
        query_id: str,
        at: At = nowhere,
    ) -> None:
        self._store, self._flow, self._ledger = store, flow, ledger
        self._inputs = {stream.name: stream for stream in inputs}
        self._sink, self._output, self._query_id, self._at = sink, output, query_id, at
        self.last = ledger.last()

    def run(self, batches: Mapping[str, Sequence[abi.Batch]]) -> Outcome:
        """One epoch over these batches, by source; all of it or, on an error, nothing.

        An epoch over no batches is run too: in the first an operator over no rows shows what it has.
        """
        epoch = self.last.epoch + 1
        offsets = dict(self.last.offsets or {})
        offsets |= {name: given[-1].offset.token for name, given in batches.items() if given}
        processed = self.last.batches + sum(len(given) for given in batches.values())
        given = {
            id(self._inputs[name].relation): _table(self._inputs[name], several)
            for name, several in batches.items()
            if several
        }
        staged: str | None = None
        self._at(Protocol.BEGIN)
        try:
            with self._store.cursor.transaction():
                self._at(Protocol.CHAIN)
                changes = self._output.of(self._flow.epoch(given, Moment(first=epoch == 1)))
                self._at(Protocol.STAGE)
                if changes is not None:
                    staged = self._sink.stage(epoch, changes)
                for name, stream in self._inputs.items():
                    marker = abi.CheckpointMarker(self._query_id, epoch, offsets.get(name, ""), processed)
                    stream.source.checkpoint(marker)
                self._at(Protocol.RECORD)
                record = EpochRecord(epoch, offsets, staged, processed)
                self._ledger.record(record)
                self._at(Protocol.COMMIT)
        except BaseException:
            if staged is not None:
                self._sink.abort(epoch, staged)
            self._flow.rolled_back()
            raise
        self._flow.committed()
        self.last = record
        self._at(Protocol.PUBLISH)
        self.publish()
        self._at(Protocol.ACK)
        for name, several in batches.items():
            if several:
                self._inputs[name].source.ack(several[-1].offset)
        self._at(Protocol.REPORT)
        rows_in = sum(batch.table.num_rows for several in batches.values() for batch in several)
        return Outcome(epoch, rows_in, changes.num_rows if changes is not None else 0)

    def publish(self) -> None:
        """Make the last durable epoch's output visible; again after a restart, where it may be so already."""
        if self.last.staged is not None:
            self._sink.commit(self.last.epoch, self.last.staged)


class Output:
    """The result's changes in the form that the sink takes."""

    def __init__(self, store: Store, flow: Dataflow, mode: SinkMode) -> None:
        self._mode = mode
        self._columns = flow.schema.names
        if mode is SinkMode.REPLACE:
            listed = ", ".join(quoted(name) for name in self._columns)
            self._feed = store.feed(flow.schema.append(pa.field(DIFF, pa.int64())))
            self._table = store.table("result", self._feed.schema)
            self._add = store.prepare(f"INSERT INTO {self._table} SELECT * FROM {self._feed.name}")
            self._whole = store.prepare(
                f"SELECT {listed} FROM (SELECT {listed}, unnest(range(__n)) FROM (SELECT {listed}, "
                f"CAST(sum({DIFF}) AS BIGINT) AS __n FROM {self._table} GROUP BY {listed} HAVING sum({DIFF}) > 0))"
            )

    def of(self, changes: pa.Table | None) -> pa.Table | None:
        """What the sink is given for these changes; None for nothing."""
        if changes is None:
            return None
        if self._mode is SinkMode.APPEND:
            return changes
        changes = with_diff(changes)
        if self._mode is SinkMode.REPLACE:
            self._feed.table = changes
            self._add()
            return self._whole()
        # Rows that go come first, so that a sink which looks for what it removes finds it.
        going = pc.less(changes.column(DIFF), _ZERO)
        ordered = pa.concat_tables([changes.filter(going), changes.filter(pc.invert(going))])
        return ordered.rename_columns([*self._columns, abi.DIFF])


def sink_mode(flow: Dataflow, wanted: OutputMode, info: abi.SinkInfo) -> SinkMode | None:
    """The form in which a sink takes what the query gives, or None where they do not go together."""
    if wanted is OutputMode.COMPLETE:
        return SinkMode.REPLACE if SinkMode.REPLACE in info.modes else None
    choices: tuple[SinkMode, ...]
    if flow.steps[-1].append_only:
        choices = (SinkMode.APPEND, SinkMode.RETRACT)
    elif wanted is OutputMode.APPEND:
        choices = ()
    else:
        choices = (SinkMode.RETRACT,)
    return next((mode for mode in choices if mode in info.modes), None)


def _table(stream: Input, batches: Sequence[abi.Batch]) -> pa.Table:
    """The rows of an epoch, in the plan's own form."""
    tables = [batch.table for batch in batches]
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
    info = stream.source.info()
    wanted = list(info.schema.names) if info.append_only else [*info.schema.names, DIFF]
    target = info.schema if info.append_only else info.schema.append(pa.field(DIFF, pa.int64()))
    return table.rename_columns(wanted).cast(target)
