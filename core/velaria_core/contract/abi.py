"""Source and Sink: what a connector implements, and what it may count on. The docstrings are the contract.

A stream runs in epochs, and an epoch is one transaction. Per epoch, in this order:

    source.next_batch          rows and the offset after them
    sink.stage                 output, written but not visible
    source.checkpoint          last chance to object
    (the query's state, offsets and staged refs become durable in one commit)
    sink.commit                output becomes visible; repeated after a crash
    source.ack                 the source may forget the rows

With a checkpoint interval, several epochs share one commit: `stage` is called for each of them, `commit` for
each in order after the durable commit, and `checkpoint` and `ack` once with the last offset.
Invariant: a source is acknowledged only after the sink has committed, so a crash anywhere finds the rows in
one of the two.

Calls to one object never overlap, but they may come from different threads. An exception from any method
fails the epoch; the query's error policy decides what then (`ExternalError(retryable=True)` invites a retry,
which closes and opens again). Tables are Arrow; where rows carry a sign, it is their last column, int64 and
not null. It is called `diff`; for a sink whose rows have such a column already, `SinkContext.diff` says how.

One conformance suite runs over every source and sink, Velaria's own and others'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from velaria_core.contract.modes import (
    DeliveryMode,
    ExecutionMode,
    OutputMode,
    Pushdown,
    SinkMode,
    TransportMode,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

DIFF = "diff"  # name of the sign column of changes: > 0 rows that come, < 0 rows that go


# --- sources


@runtime_checkable
class Offset(Protocol):
    """A position between two rows of one source.

    Only its source understands it. Promised: the token comes back letter by letter, in another process or
    release too. Not promised: that offsets are ever compared, or that every offset is given back.
    """

    @property
    def token(self) -> str:
        """The position as text, without secrets: it is shown in progress and stored in checkpoints."""


@dataclass(frozen=True, slots=True)
class TextOffset:
    """The plain Offset, for sources whose position is a number or a name."""

    token: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows, at least one, and the offset after the last of them.

    Attributes:
        table: the source's schema, or the columns of `Pushed.columns`; then `diff` unless the source is
            append-only.
        offset: where a reader goes on that has all rows up to and with these, and no more.
    """

    table: pa.Table
    offset: Offset


@dataclass(frozen=True, slots=True)
class Blocked:
    """No rows now, perhaps later. Ask again after `retry_after_ms`, or sooner; None: when the runtime likes.

    A source that learns of rows by itself also calls `SourceContext.wake`, and is then asked at once.

    Attributes:
        pending: rows are there already, and are only not ready, as those of a file that may still be written. A query
            over what is available now waits for them.
    """

    retry_after_ms: int | None = None
    pending: bool = False


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """No rows now or later. `next_batch` is not called again; event time runs to its end."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source is. The same in every process that reads it, and constant while it is open.

    Attributes:
        schema: names and types of every column, without `diff`.
        bounded: it will answer EndOfStream by itself. Sorting a whole stream needs this.
        replayable: opened at an offset that it gave, in another process too, it gives the same rows after it
            as it did before, unless one of them was acknowledged. Exactly-once needs this.
        append_only: rows are only added, so tables have no `diff`. Cheaper operators rely on it.
        time_column: the column of event times, None if rows have none.
        partitions: parts that are read side by side, for estimates; rows of one part come in their order.
        pushdown: what it can do for the plan.
    """

    schema: pa.Schema
    bounded: bool
    replayable: bool
    append_only: bool = True
    time_column: str | None = None
    partitions: int = 1
    pushdown: frozenset[Pushdown] = frozenset()


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column op value`, with op one of = != < <= > >= and a value that is not None."""

    column: str
    op: str
    value: object


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the plan asks of a source that declared it can.

    Attributes:
        columns: give exactly these columns, in this order; None: all. An obligation (PROJECTION).
        filters: all of them hold in the rows that matter. A hint (FILTER): rows that fail may still be given,
            rows that hold must be; the plan filters again.
        limit: rows after which the plan reads no more; None: unlimited. A hint (LIMIT).
    """

    columns: tuple[str, ...] | None = None
    filters: tuple[Comparison, ...] = ()
    limit: int | None = None


def _no_wake() -> None:
    """Nobody waits."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source learns when it is opened.

    Attributes:
        query_id: "stream-query-N".
        trigger_interval_ms: how often epochs are wanted; 0: back to back.
        backlog_batches: batches that wait to be processed now.
        inflight_batches: batches that are being processed now.
        max_inflight_batches: most batches that are pulled ahead.
        checkpoint_path: folder of the query's durable state, None if it has none.
        resume_from: token of the offset to start after; None: at the beginning. Only a replayable source gets
            one. It is one of its own, the last that was acknowledged or a later one.
        pushed: what the plan asks for.
        wake: call it, from any thread, when rows arrived after a Blocked. Not needed; saves the wait.
    """

    query_id: str
    trigger_interval_ms: int
    backlog_batches: int
    inflight_batches: int
    max_inflight_batches: int
    checkpoint_path: str | None = None
    resume_from: str | None = None
    pushed: Pushed = field(default_factory=Pushed)
    wake: Callable[[], None] = _no_wake


@dataclass(frozen=True, slots=True)
class CheckpointMarker:
    """The point that is about to become durable.

    Attributes:
        query_id: "stream-query-N".
        epoch: the last epoch in it, counted from 1.
        source_offset: token of this source's offset after that epoch; empty if it has given no batch yet.
        batches_processed: batches of this query so far, this epoch's included.
    """

    query_id: str
    epoch: int
    source_offset: str
    batches_processed: int


@runtime_checkable
class Source(Protocol):
    """Where rows come from. Lifecycle: info, open, (next_batch, checkpoint, ack)*, close; open again.

    Promised to the source:
    - `ack` only names offsets that it gave since `open`; `checkpoint` such, or `resume_from`, or none.
    - No `ack` before every sink has committed the rows up to that offset.
    - `close` is called once for each `open` that returned, also after an error; nothing is called after it
      but `info` and `open`.

    Not promised: that every batch is acknowledged (the last ones are not when a process dies); that `ack`
    follows each `checkpoint`; that batches are used in the epoch in which they were pulled.
    """

    def info(self) -> SourceInfo:
        """What the source is. Called any number of times, before `open` too; cheap, reads no rows."""

    def open(self, context: SourceContext) -> None:
        """Get ready to read from `context.resume_from`. Called once per run.

        Raises:
            ExternalError: the outside cannot be reached.
            StateError: the rows after `resume_from` are gone or changed. Never skip them silently.
        """

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        """The next rows in order, each exactly once per `open`.

        Called again and again, and also when no epoch needs rows yet, to read ahead. Answers within about a
        tenth of a second: wait by answering Blocked, so that the query can be stopped.

        Args:
            max_rows: give no more than that where the rows can be cut, at least 1. A file or message that
                cannot be cut comes whole.
        """

    def checkpoint(self, marker: CheckpointMarker) -> None:
        """The query is about to make `marker` durable: make durable what a resumption there needs.

        Called before each durable commit. It may be called again for a later point without an `ack` between,
        and the commit that follows may still fail. Most sources have nothing to do.
        """

    def ack(self, offset: Offset) -> None:
        """Rows up to `offset` are durable in the query and committed by its sinks: they may be forgotten.

        Called after `checkpoint` and after the sinks' `commit`, with growing offsets, of the objects that
        `next_batch` gave. May skip offsets: an ack covers all before it. A failure here loses nothing: the
        rows are acknowledged with the next offset.
        """

    def close(self) -> None:
        """Let go of everything. Does not acknowledge, and does not remove what a restart needs."""


# --- sinks


@dataclass(frozen=True, slots=True)
class SinkInfo:
    """What a sink can take and promise.

    Attributes:
        modes: which of the forms below `stage` accepts. A query whose output has none of them is refused at
            start.
            APPEND: rows, all new, no `diff`.
            UPSERT: rows with `diff`, at most one per key and epoch: 1 puts the row in the place of the one
                with its `SinkContext.keys`, -1 removes that one.
            RETRACT: rows with `diff`: so many equal rows come or go; those that go are first, and were there.
            REPLACE: the whole result, no `diff`; it takes the place of the one before.
        transactional: staged output is invisible until `commit`, which makes all of it visible or none, and
            does nothing when it is visible already.
        idempotent: an epoch staged and committed again, perhaps with its rows cut otherwise, leaves what
            doing so once would have left. Exactly-once needs one of the two.
        blocking: `stage` or `commit` may wait for something outside this process.
    """

    modes: frozenset[SinkMode]
    transactional: bool
    idempotent: bool
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink learns when it is opened.

    Attributes:
        query_id: "stream-query-N".
        checkpoint_path: folder of the query's durable state, None if it has none.
        execution_mode, transport_mode: how the query runs.
        schema: the rows that will come, without `diff`.
        mode: the form in which they come, one of the sink's own `modes`.
        output_mode: what the query asked for.
        keys: columns that identify a row, for UPSERT; empty where the result has none.
        delivery_mode: what the query holds.
        diff: name of the sign column, where the mode has one: `diff`, or `diff_1` beside a column of that name.
        last_epoch: the last epoch that is durable in the query, 0 at its very start. Output staged for later
            epochs is left from a crash: remove it. Output staged for this epoch or earlier is to be kept: its
            `commit` follows where it may be missing.
        state_id: of the query's durable state: the same after each restart, and no other query's; empty where it
            has none. Epochs are counted by it, so that queries may write to one place in turn: what others staged
            or committed there says nothing of this one's.
    """

    query_id: str
    checkpoint_path: str | None
    execution_mode: ExecutionMode
    transport_mode: TransportMode
    schema: pa.Schema
    mode: SinkMode
    output_mode: OutputMode
    keys: tuple[str, ...] = ()
    delivery_mode: DeliveryMode = DeliveryMode.EXACTLY_ONCE
    last_epoch: int = 0
    diff: str = DIFF
    state_id: str = ""


@runtime_checkable
class Sink(Protocol):
    """Where output goes. Lifecycle: info, open, (stage, commit or abort)*, close; open again.

    Promised to the sink:
    - Epochs are staged in rising order, each at most once per `open`; an epoch that changes nothing is not
      staged.
    - `commit` comes in the order of `stage`, only after the epoch is durable in the query, and is repeated
      after a restart for every epoch whose commit is not known to have succeeded, with the ref it was staged
      with.
    - `close` is called once for each `open` that returned; nothing is called after it but `info` and `open`.

    Not promised: that a staged epoch is committed or aborted (a crash does neither: see
    `SinkContext.last_epoch`); that the epoch of one number has the same rows when it is run again after a
    crash before it was durable.
    """

    def info(self) -> SinkInfo:
        """What the sink is. Called any number of times, before `open` too; cheap, writes nothing."""

    def open(self, context: SinkContext) -> None:
        """Get ready, and remove what a crash left staged after `context.last_epoch`.

        Raises:
            InputError: the schema or the mode does not fit what is there.
            ExternalError: the outside cannot be reached.
        """

    def stage(self, epoch: int, changes: pa.Table) -> str:
        """Write the epoch's output so that it survives a crash but cannot be seen yet.

        It may wait, which is how a slow sink holds the query back. A sink that is not transactional may write
        for good here or in `commit`.

        Args:
            epoch: counted from 1.
            changes: at least one row, in the form of `SinkContext.mode`; none only for REPLACE.
        Returns:
            A short text by which `commit` and `abort` find the output again, in another process too; may be
            empty.
        Raises:
            ExternalError[sink.full]: nobody takes the rows. A query that is being stopped then stops, without the
                epoch; any other tries again, or fails.
        """

    def commit(self, epoch: int, ref: str) -> None:
        """Make what `stage(epoch, ...)` wrote visible, durably; all is well if it is so already."""

    def abort(self, epoch: int, ref: str) -> None:
        """The epoch failed before it was durable: remove what `stage` wrote. Never follows `commit`."""

    def close(self) -> None:
        """Let go of everything. Does not commit or abort."""
