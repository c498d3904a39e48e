"""The protocols of sources and sinks, shown on a list of tables and a transactional dict.

The loop below makes the calls in the order that abi.py documents and can die between any two of them, as a
process would; what survives is the store of each side. It is the smallest runtime, and the smallest proof
that the order loses and doubles nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from velaria_core.contract.abi import (
    DIFF,
    Batch,
    Blocked,
    CheckpointMarker,
    Comparison,
    EndOfStream,
    Offset,
    Pushed,
    Sink,
    SinkContext,
    SinkInfo,
    Source,
    SourceContext,
    SourceInfo,
    TextOffset,
)
from velaria_core.contract.modes import (
    DeliveryMode,
    ExecutionMode,
    OutputMode,
    Pushdown,
    SinkMode,
    TransportMode,
    Trigger,
    TriggerKind,
)
from velaria_core.errors import InputError

SCHEMA = pa.schema([("n", pa.int64()), ("word", pa.string())])


class ListSource:
    """Rows of a list; the offset is how many were given. Blocked once before each batch if it is `slow`."""

    def __init__(self, words: list[str], slow: bool = False) -> None:
        self.words = words
        self.slow = slow
        self.acknowledged = 0

    def info(self) -> SourceInfo:
        return SourceInfo(schema=SCHEMA, bounded=True, replayable=True, pushdown=frozenset({Pushdown.PROJECTION}))

    def open(self, context: SourceContext) -> None:
        self.position = int(context.resume_from or 0)
        assert self.position >= self.acknowledged, "acknowledged rows may be forgotten"
        self.columns = context.pushed.columns
        self.blocked = self.slow

    def next_batch(self, max_rows: int) -> Batch | Blocked | EndOfStream:
        if self.position == len(self.words):
            return EndOfStream()
        if self.blocked:
            self.blocked = False
            return Blocked(retry_after_ms=0)
        self.blocked = self.slow
        end = min(self.position + max_rows, len(self.words))
        rows = [{"n": n, "word": self.words[n]} for n in range(self.position, end)]
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        self.position = end
        return Batch(table.select(self.columns or SCHEMA.names), TextOffset(str(end)))

    def checkpoint(self, marker: CheckpointMarker) -> None:
        self.marker = marker

    def ack(self, offset: Offset) -> None:
        assert int(offset.token) > self.acknowledged
        self.acknowledged = int(offset.token)

    def close(self) -> None:
        del self.position


@dataclass
class Store:
    """What survives a crash on the sink's side."""

    staged: dict[str, pa.Table] = field(default_factory=dict)
    visible: dict[int, pa.Table] = field(default_factory=dict)

    def rows(self) -> list[dict[str, object]]:
        return [row for epoch in sorted(self.visible) for row in self.visible[epoch].to_pylist()]


class DictSink:
    """Tables by epoch, invisible until their commit."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def info(self) -> SinkInfo:
        return SinkInfo(modes=frozenset({SinkMode.APPEND}), transactional=True, idempotent=False, blocking=False)

    def open(self, context: SinkContext) -> None:
        assert context.mode in self.info().modes
        for ref in list(self.store.staged):
            if int(ref.removeprefix("epoch-")) > context.last_epoch:
                del self.store.staged[ref]

    def stage(self, epoch: int, changes: pa.Table) -> str:
        ref = f"epoch-{epoch}"
        assert ref not in self.store.staged, "each epoch at most once per open"
        self.store.staged[ref] = changes
        return ref

    def commit(self, epoch: int, ref: str) -> None:
        if epoch not in self.store.visible:
            self.store.visible[epoch] = self.store.staged.pop(ref)

    def abort(self, epoch: int, ref: str) -> None:  # noqa: ARG002
        del self.store.staged[ref]

    def close(self) -> None:
        """Nothing is open."""


class Crash(Exception):
    """The process is gone."""


@dataclass
class Runtime:
    """The calls of one query in their order. `epoch`, `offset` and `refs` are its durable state."""

    epoch: int = 0
    offset: str | None = None
    refs: dict[int, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def run(self, source: Source, sink: Sink, max_rows: int, die_at: int | None = None) -> None:
        """Until the source ends; raises Crash instead of the `die_at`-th step."""
        for number, step in enumerate(self.life(source, sink, max_rows)):
            if number == die_at:
                raise Crash(step)
            self.steps.append(step)

    def life(self, source: Source, sink: Sink, max_rows: int) -> Iterator[str]:
        """Yields the name of a step *before* it is taken."""
        yield "open"
        sink.open(
            SinkContext(
                query_id="stream-query-1",
                checkpoint_path="/nowhere",
                execution_mode=ExecutionMode.SINGLE_PROCESS,
                transport_mode=TransportMode.INPROC,
                schema=source.info().schema,
                mode=SinkMode.APPEND,
                output_mode=OutputMode.APPEND,
                last_epoch=self.epoch,
            )
        )
        for epoch, ref in self.refs.items():
            yield "commit again"
            sink.commit(epoch, ref)
        source.open(
            SourceContext(
                query_id="stream-query-1",
                trigger_interval_ms=0,
                backlog_batches=0,
                inflight_batches=0,
                max_inflight_batches=2,
                checkpoint_path="/nowhere",
                resume_from=self.offset,
            )
        )
        while True:
            yield "next_batch"
            got = source.next_batch(max_rows)
            if isinstance(got, EndOfStream):
                break
            if isinstance(got, Blocked):
                continue
            epoch = self.epoch + 1
            yield "stage"
            ref = sink.stage(epoch, got.table)
            yield "checkpoint"
            source.checkpoint(CheckpointMarker("stream-query-1", epoch, got.offset.token, epoch))
            yield "durable"
            self.epoch, self.offset, self.refs = epoch, got.offset.token, {epoch: ref}
            yield "commit"
            sink.commit(epoch, ref)
            yield "ack"
            source.ack(got.offset)
        yield "close"
        source.close()
        sink.close()


WORDS = ["eins", "zwei", "三", "vier", "fünf"]
ROWS = [{"n": n, "word": word} for n, word in enumerate(WORDS)]


def test_the_examples_are_a_source_and_a_sink() -> None:
    assert isinstance(ListSource([]), Source)
    assert isinstance(DictSink(Store()), Sink)
    assert isinstance(TextOffset("1"), Offset)
    assert not isinstance(ListSource([]), Sink)
    assert not isinstance(DictSink(Store()), Source)
    assert not isinstance("1", Offset)


@pytest.mark.parametrize("name", ["info", "open", "next_batch", "checkpoint", "ack", "close"])
def test_a_source_has_every_method(name: str) -> None:
    methods = {each: getattr(ListSource, each) for each in vars(ListSource) if each not in (name, "__dict__")}
    assert not isinstance(type("Partial", (), methods)([]), Source)


@pytest.mark.parametrize("name", ["info", "open", "stage", "commit", "abort", "close"])
def test_a_sink_has_every_method(name: str) -> None:
    methods = {each: getattr(DictSink, each) for each in vars(DictSink) if each not in (name, "__dict__")}
    assert not isinstance(type("Partial", (), methods)(Store()), Sink)


@pytest.mark.parametrize("slow", [False, True])
def test_the_life_of_a_query(slow: bool) -> None:
    source, store, runtime = ListSource(WORDS, slow), Store(), Runtime()
    runtime.run(source, DictSink(store), max_rows=2)
    assert store.rows() == ROWS
    assert source.acknowledged == 5
    assert source.marker == CheckpointMarker("stream-query-1", 3, "5", 3)
    assert not store.staged
    epoch = ["stage", "checkpoint", "durable", "commit", "ack"]
    assert [step for step in runtime.steps if step != "next_batch"] == ["open", *epoch * 3, "close"]


def test_a_crash_before_any_step_loses_and_doubles_nothing() -> None:
    """Also when the next run cuts the epochs otherwise, and is itself killed once."""
    undisturbed = Runtime()
    undisturbed.run(ListSource(WORDS), DictSink(Store()), max_rows=2)
    died_at = set()
    for first in range(len(undisturbed.steps)):
        for second in range(len(undisturbed.steps)):
            source, store, runtime = ListSource(WORDS), Store(), Runtime()
            for die_at, max_rows in ((first, 2), (second, 3), (None, 1)):
                try:
                    runtime.run(source, DictSink(store), max_rows, die_at)
                except Crash as crash:
                    died_at.add(str(crash))
            assert store.rows() == ROWS, (first, second)
            assert not store.staged
            assert source.acknowledged <= 5
    assert died_at == {*undisturbed.steps, "commit again"}


def test_acknowledging_before_the_commit_would_lose_rows() -> None:
    """Why the order is what it is: a source that is told too early refuses to go back."""
    source, store, runtime = ListSource(WORDS), Store(), Runtime()
    with pytest.raises(Crash):
        runtime.run(source, DictSink(store), 2, die_at=4)  # before "durable"
    source.ack(TextOffset("2"))
    with pytest.raises(AssertionError, match="acknowledged rows may be forgotten"):
        runtime.run(source, DictSink(store), 2)


def test_abort_removes_what_was_staged() -> None:
    store = Store()
    sink = DictSink(store)
    ref = sink.stage(1, pa.table({"n": [1]}))
    sink.abort(1, ref)
    assert store == Store()


def test_pushed_columns_are_obeyed() -> None:
    source = ListSource(WORDS)
    context = SourceContext("stream-query-1", 0, 0, 0, 2, pushed=Pushed(columns=("word",)))
    source.open(context)
    batch = source.next_batch(10)
    assert isinstance(batch, Batch)
    assert batch.table.column_names == ["word"]


def test_context_fields_c41() -> None:
    """C-41 by name, and what architecture.md sections 6 to 8 add."""

    def names(kind: type) -> set[str]:
        return {each.name for each in dataclasses.fields(kind)}

    assert names(SourceContext) == {
        *("query_id", "trigger_interval_ms", "backlog_batches", "inflight_batches"),
        *("max_inflight_batches", "checkpoint_path"),
        *("resume_from", "pushed", "wake"),
    }
    assert names(SinkContext) == {
        *("query_id", "checkpoint_path", "execution_mode", "transport_mode"),
        *("schema", "mode", "output_mode", "keys", "delivery_mode", "last_epoch", "diff", "state_id"),
    }


def test_marker_fields_c44() -> None:
    assert [each.name for each in dataclasses.fields(CheckpointMarker)] == [
        "query_id",
        "epoch",
        "source_offset",
        "batches_processed",
    ]


def test_info_fields() -> None:
    """architecture.md section 8, and whether rows are only added (section 5)."""
    assert [each.name for each in dataclasses.fields(SourceInfo)] == [
        "schema",
        "bounded",
        "replayable",
        "append_only",
        "time_column",
        "partitions",
        "pushdown",
    ]
    assert [each.name for each in dataclasses.fields(SinkInfo)] == [
        "modes",
        "transactional",
        "idempotent",
        "blocking",
    ]


def test_defaults_ask_for_nothing() -> None:
    context = SourceContext("stream-query-1", 1000, 0, 0, 2)
    assert (context.checkpoint_path, context.resume_from) == (None, None)
    assert context.pushed == Pushed(columns=None, filters=(), limit=None)
    context.wake()  # nobody waits, and nothing happens
    assert Blocked().retry_after_ms is None
    assert DIFF == "diff"


def test_values_are_frozen_and_compared_by_content() -> None:
    assert Comparison("n", ">", 5) == Comparison("n", ">", 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        TextOffset("1").token = "2"  # type: ignore[misc]


def test_triggers() -> None:
    assert Trigger.available_now() == Trigger(TriggerKind.AVAILABLE_NOW)
    assert Trigger.once() == Trigger(TriggerKind.ONCE)
    assert Trigger.processing_time(1000) == Trigger(TriggerKind.PROCESSING_TIME, 1000)
    assert Trigger.continuous(20) == Trigger(TriggerKind.CONTINUOUS, 20)
    with pytest.raises(InputError, match="not -1") as caught:
        Trigger.processing_time(-1)
    assert caught.value.code == "trigger.interval"
    with pytest.raises(InputError, match='a "once" trigger has no interval'):
        Trigger(TriggerKind.ONCE, 5)


def test_a_mode_is_its_text() -> None:
    assert DeliveryMode("exactly-once") is DeliveryMode.EXACTLY_ONCE
    assert f"{DeliveryMode.BEST_EFFORT}" == "best-effort"
    with pytest.raises(ValueError, match="'exactly once' is not a valid DeliveryMode"):
        DeliveryMode("exactly once")
