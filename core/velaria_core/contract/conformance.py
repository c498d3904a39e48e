"""Conformance: what `abi` promises of a source or a sink, as checks to run against one, Velaria's own or others'.

A connector describes itself in a `SourceCase` or `SinkCase`; each check takes the case and raises AssertionError with
what was broken. With pytest:

    from velaria_core.contract import conformance

    CASE = conformance.SourceCase("mine", make=lambda: MySource(URL), rows=EXPECTED)

    @pytest.mark.parametrize("check", conformance.SOURCE_CHECKS, ids=lambda check: check.__name__)
    def test_source(check):
        check(CASE)

A new process is played by a new object: `make` must give one that knows nothing but the outside (and for sinks by a
`Target`, the outside itself). What only a real kill can show is not shown here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

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
    Source,
    SourceContext,
)
from velaria_core.contract.modes import (
    DeliveryMode,
    ExecutionMode,
    OutputMode,
    Pushdown,
    SinkMode,
    TransportMode,
)

# `next_batch` answers within a tenth of a second; a loaded machine is forgiven twenty of them.
ANSWER_SECONDS_MAX = 2.0
_CALLS_MAX = 100_000
_ROWS = (1, 3, 65_536)  # sizes in which sources are read


def _nothing() -> None:
    """The outside goes on by itself."""


@dataclass(frozen=True, slots=True)
class SourceCase:
    """A source, and what it has to give.

    Attributes:
        name: for test ids.
        make: a new source at the same outside, as another process would have it.
        rows: every row in its order, with `diff` if the source is not append-only.
        advance: called after each Blocked: lets the outside go on (a clock, a producer).
        cuttable: `max_rows` is kept to.
        ends: it answers EndOfStream after `rows`; otherwise Blocked for ever.
    """

    name: str
    make: Callable[[], Source]
    rows: pa.Table
    advance: Callable[[], None] = _nothing
    cuttable: bool = True
    ends: bool = True


# --- driving a source


def source_context(
    resume_from: str | None = None, pushed: Pushed | None = None, wake: Callable[[], None] = _nothing
) -> SourceContext:
    """What a runtime would say to `open`."""
    return SourceContext("stream-query-1", 0, 0, 0, 1, None, resume_from, pushed or Pushed(), wake)


def batches(case: SourceCase, source: Source, max_rows: int, rows: int | None = None) -> Iterator[Batch]:
    """The batches of an open source up to its end, or up to `rows` rows where it has none."""
    wanted = case.rows.num_rows if rows is None else rows
    given = 0
    for _ in range(_CALLS_MAX):
        if not case.ends and given >= wanted:
            return
        started = time.monotonic()
        answer = source.next_batch(max_rows)
        took = time.monotonic() - started
        assert took < ANSWER_SECONDS_MAX, f"next_batch took {took:.1f} s: wait by answering Blocked"
        match answer:
            case Batch():
                given += answer.table.num_rows
                yield answer
            case Blocked():
                delay = answer.retry_after_ms
                assert delay is None or delay >= 0, "retry_after_ms is negative"
                case.advance()
            case EndOfStream():
                return
            case _:
                raise AssertionError(f"next_batch gave a {type(answer).__name__}")
    raise AssertionError(f"{given} of {wanted} rows after {_CALLS_MAX} calls")


def read(case: SourceCase, source: Source, max_rows: int, rows: int | None = None) -> list[Batch]:
    """All of `batches`, each looked at."""
    schema = case.rows.schema.remove_metadata()
    found = []
    for batch in batches(case, source, max_rows, rows):
        table = batch.table
        assert table.num_rows >= 1, "a Batch without rows: answer Blocked"
        assert not case.cuttable or table.num_rows <= max_rows, f"{table.num_rows} rows where {max_rows} were asked for"
        assert isinstance(batch.offset, Offset), "an offset without a token"
        assert isinstance(batch.offset.token, str), "a token that is no text"
        _same_schema(table.schema, schema)
        found.append(batch)
    return found


def _same_schema(found: pa.Schema, expected: pa.Schema) -> None:
    shown = [(item.name, item.type) for item in found]
    wanted = [(item.name, item.type) for item in expected]
    assert shown == wanted, f"columns {shown} where {wanted} are declared"


def _joined(found: Sequence[Batch], schema: pa.Schema) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.concat_tables([schema.empty_table(), *(batch.table for batch in found)]).to_pylist()
    return rows


def _assert_rows(case: SourceCase, found: Sequence[Batch], start: int, what: str) -> None:
    expected = case.rows.slice(start).to_pylist()
    given = _joined(found, case.rows.schema)
    # NaN is not itself: rows are compared by what is shown of them.
    same = len(given) == len(expected) and all(map(_row_equal, given, expected))
    assert same, f"{what}: {_difference(given, expected)}"


def _row_equal(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left == right or repr(left) == repr(right)


def _difference(given: Sequence[Any], expected: Sequence[Any]) -> str:
    if len(given) != len(expected):
        return f"{len(given)} rows where {len(expected)} are expected"
    at = next(at for at, pair in enumerate(zip(given, expected, strict=True)) if not _row_equal(*pair))
    return f"row {at} is {given[at]}, expected {expected[at]}"


def _marker(epoch: int, token: str) -> CheckpointMarker:
    return CheckpointMarker("stream-query-1", epoch, token, epoch)


# --- checks of sources


def source_says_what_it_is(case: SourceCase) -> None:
    """`info` is the same before, during and after a run, and fits the rows."""
    source = case.make()
    assert isinstance(source, Source), "not every method is there"
    info = source.info()
    assert DIFF not in info.schema.names, f"the schema names {DIFF}, which is not a column of the rows"
    assert info.time_column is None or info.time_column in info.schema.names, "no such time_column"
    assert info.partitions >= 1
    names = info.schema.names if info.append_only else [*info.schema.names, DIFF]
    assert names == case.rows.schema.names, "the case's rows have other columns"
    assert not info.bounded or case.ends, "a bounded source ends"
    source.open(source_context())
    assert source.info() == info, "info has changed since open"
    read(case, source, 65_536)
    assert source.info() == info, "info has changed while reading"
    source.close()
    assert source.info() == info, "info has changed with close"
    assert case.make().info() == info, "another process sees another info"


def source_gives_every_row_once(case: SourceCase) -> None:
    """All rows in order, however many are asked for at a time; every position has a token of its own."""
    for max_rows in _ROWS:
        source = case.make()
        source.open(source_context())
        found = read(case, source, max_rows)
        _assert_rows(case, found, 0, f"read by {max_rows}")
        tokens = [batch.offset.token for batch in found]
        assert len(set(tokens)) == len(tokens), "two positions have one token"
        source.close()


def source_resumes_at_any_offset(case: SourceCase) -> None:
    """Opened at an offset it gave, in another process or by the same object, it gives the rows after it."""
    if not case.make().info().replayable:
        return
    first = case.make()
    first.open(source_context())
    found = read(case, first, 3)
    first.close()
    done = 0
    for batch in found:
        done += batch.table.num_rows
        left = case.rows.num_rows - done
        for source, max_rows in ((case.make(), 2), (first, 65_536)):
            source.open(source_context(batch.offset.token))
            rest = read(case, source, max_rows, left)
            _assert_rows(case, rest, done, f"resumed from {batch.offset.token!r}")
            source.close()


def source_stops_anywhere(case: SourceCase) -> None:
    """Closed after any batch without an ack, it can be opened again at the last durable offset."""
    if not case.make().info().replayable:
        return
    durable, done = None, 0
    for _ in range(case.rows.num_rows + 1):
        source = case.make()
        source.open(source_context(durable))
        step = iter(batches(case, source, 2, case.rows.num_rows - done))
        found = [batch for batch in (next(step, None), next(step, None)) if batch is not None]
        source.close()
        if not found:
            break
        # Two are read, one becomes durable: the other one must come again.
        expected = case.rows.slice(done, found[0].table.num_rows).to_pylist()
        assert all(map(_row_equal, found[0].table.to_pylist(), expected)), f"other rows after {durable!r}"
        done += found[0].table.num_rows
        durable = found[0].offset.token
    assert done == case.rows.num_rows, f"{done} of {case.rows.num_rows} rows in steps"


def source_takes_acks(case: SourceCase) -> None:
    """Checkpoints and acks in every legal order neither lose nor repeat a row, and what is not acknowledged stays."""
    for every in (1, 2, 1_000):
        source = case.make()
        source.open(source_context())
        source.checkpoint(_marker(1, ""))
        found: list[Batch] = []
        acknowledged, rows = None, 0
        for epoch, batch in enumerate(batches(case, source, 2), 1):
            found.append(batch)
            source.checkpoint(_marker(epoch, batch.offset.token))
            if epoch % every == 0:
                source.checkpoint(_marker(epoch, batch.offset.token))  # the commit after the first one failed
                source.ack(batch.offset)
                acknowledged, rows = batch.offset.token, sum(item.table.num_rows for item in found)
        _assert_rows(case, found, 0, f"acknowledged each {every}")
        source.close()
        if source.info().replayable and acknowledged is not None:
            again = case.make()
            again.open(source_context(acknowledged))
            again.checkpoint(_marker(len(found) + 1, acknowledged))
            rest = read(case, again, 65_536, case.rows.num_rows - rows)
            _assert_rows(case, rest, rows, f"resumed from the acknowledged {acknowledged!r}")
            again.close()


def source_closes_when_idle(case: SourceCase) -> None:
    """Opened and closed without a row, again and again, it still gives all of them; so it does after half a read."""
    source = case.make()
    for _ in range(2):
        source.open(source_context())
        source.close()
    source.open(source_context())
    found = read(case, source, 65_536)
    _assert_rows(case, found, 0, "read after two idle runs")
    if not case.ends:
        assert isinstance(source.next_batch(1), Blocked), "rows after the last one"
    source.close()


def source_projects(case: SourceCase) -> None:
    """PROJECTION: exactly the asked columns, in the asked order, then `diff`."""
    info = case.make().info()
    if Pushdown.PROJECTION not in info.pushdown:
        return
    names = info.schema.names
    signs = [] if info.append_only else [DIFF]
    for columns in {tuple(reversed(names)), (names[0],), (names[-1],)}:
        source = case.make()
        source.open(source_context(pushed=Pushed(columns=columns)))
        found = list(batches(case, source, 65_536))
        expected = case.rows.select([*columns, *signs])
        for batch in found:
            _same_schema(batch.table.schema, expected.schema)
        given = _joined(found, expected.schema)
        assert all(map(_row_equal, given, expected.to_pylist())), f"other rows with {columns}"
        assert len(given) == expected.num_rows, f"{len(given)} rows with {columns}"
        source.close()


def source_keeps_rows_that_hold(case: SourceCase) -> None:
    """FILTER, LIMIT: hints. No row that a filter wants is left out, and not less than the limit is given."""
    info = case.make().info()
    rows = case.rows.to_pylist()
    name = info.schema.names[0]
    value = next((row[name] for row in rows if row[name] is not None), None)
    if Pushdown.FILTER in info.pushdown and value is not None:
        source = case.make()
        source.open(source_context(pushed=Pushed(filters=(Comparison(name, "=", value),))))
        wanted = [row for row in rows if row[name] == value]
        given = [
            row
            for batch in batches(case, source, 65_536, len(wanted))
            for row in batch.table.to_pylist()
            if row[name] == value
        ]
        assert given == wanted, f"rows with {name} = {value!r} are left out"
        source.close()
    if Pushdown.LIMIT in info.pushdown and rows:
        source = case.make()
        source.open(source_context(pushed=Pushed(limit=1)))
        assert next(batches(case, source, 65_536, 1)).table.num_rows >= 1
        source.close()


SOURCE_CHECKS: tuple[Callable[[SourceCase], None], ...] = (
    source_says_what_it_is,
    source_gives_every_row_once,
    source_resumes_at_any_offset,
    source_stops_anywhere,
    source_takes_acks,
    source_closes_when_idle,
    source_projects,
    source_keeps_rows_that_hold,
)


# --- driving a sink


class Target(Protocol):
    """One empty outside of a sink: a folder, a table, a topic."""

    def sink(self) -> Sink:
        """A sink that writes there, as a new process would have it (the same object where it lives in memory)."""

    def content(self) -> pa.Table:
        """What a reader sees there now, in any order; with `diff` where changes are kept as such.

        Where nothing has been written yet, no columns are needed.
        """


ROWS = pa.schema([("k", pa.int64()), ("v", pa.string()), ("x", pa.float64())])
KEYS = ("k",)


@dataclass(frozen=True, slots=True)
class SinkCase:
    """A sink.

    Attributes:
        name: for test ids.
        make: a new, empty outside.
        folds: `content` is the result itself; otherwise the changes that were written, for every mode.
    """

    name: str
    make: Callable[[], Target]
    folds: bool = True


def sink_context(mode: SinkMode, last_epoch: int = 0, state_id: str = "") -> SinkContext:
    """What a runtime would say to `open`."""
    return SinkContext(
        query_id="stream-query-1",
        checkpoint_path=None,
        execution_mode=ExecutionMode.SINGLE_PROCESS,
        transport_mode=TransportMode.INPROC,
        schema=ROWS,
        mode=mode,
        output_mode={SinkMode.APPEND: OutputMode.APPEND, SinkMode.REPLACE: OutputMode.COMPLETE}.get(
            mode, OutputMode.UPDATE
        ),
        keys=KEYS if mode is SinkMode.UPSERT else (),
        delivery_mode=DeliveryMode.EXACTLY_ONCE,
        last_epoch=last_epoch,
        state_id=state_id,
    )


Row = tuple[int | None, str | None, float | None]
_A: Row = (1, "one", 1.5)
_B: Row = (2, None, None)
_C: Row = (3, "", -0.25)
_D: Row = (1, 'a "quoted", text\nof two lines', 1e300)
_E: Row = (None, "ein Strauß 🌼", 0.0)

# What three epochs bring, by mode: rows with their diffs.
_SCRIPTS: dict[SinkMode, tuple[tuple[tuple[Row, int], ...], ...]] = {
    SinkMode.APPEND: (((_A, 1), (_B, 1), (_B, 1)), ((_C, 1), (_D, 1)), ((_E, 1), (_A, 1))),
    SinkMode.UPSERT: (((_A, 1), (_B, 1)), ((_D, 1), (_B, -1), (_C, 1)), ((_E, 1), (_B, 1), (_C, -1))),
    SinkMode.RETRACT: (((_A, 2), (_B, 1), (_E, 1)), ((_A, -1), (_B, -1), (_C, 1), (_D, 3)), ((_D, -2), (_E, 1))),
    SinkMode.REPLACE: (((_A, 1), (_B, 1)), (), ((_C, 1), (_D, 1), (_D, 1))),
}


def script(mode: SinkMode) -> list[pa.Table]:
    """The changes of three epochs, in the form of a mode."""
    tables = []
    for epoch in _SCRIPTS[mode]:
        columns = list(zip(*(row for row, _ in epoch), strict=True)) or [(), (), ()]
        arrays = [pa.array(column, item.type) for column, item in zip(columns, ROWS, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=ROWS)
        if mode in (SinkMode.UPSERT, SinkMode.RETRACT):
            signs = pa.array([diff for _, diff in epoch], pa.int64())
            table = table.append_column(pa.field(DIFF, pa.int64(), nullable=False), signs)
        tables.append(table)
    return tables


def expected(case: SinkCase, mode: SinkMode, epochs: int) -> Counter[Row]:
    """The content after so many epochs of the script."""
    found: Counter[Row] = Counter()
    for epoch in _SCRIPTS[mode][:epochs]:
        if mode is SinkMode.REPLACE and case.folds:
            found.clear()
        for row, diff in epoch:
            if mode is SinkMode.UPSERT and case.folds:
                for other in [other for other in found if other[0] == row[0]]:
                    del found[other]
                found[row] = max(diff, 0)
            else:
                found[row] += diff
    return Counter({row: count for row, count in found.items() if count})


def content(target: Target) -> Counter[Row]:
    """What a reader sees: how often each row is there."""
    table = target.content()
    found: Counter[Row] = Counter()
    for row in table.to_pylist():
        diff = row.pop(DIFF, 1)
        found[(row["k"], row["v"], row["x"])] += diff
    return Counter({row: count for row, count in found.items() if count})


def _assert_content(case: SinkCase, target: Target, mode: SinkMode, epochs: int, what: str) -> None:
    found, wanted = content(target), expected(case, mode, epochs)
    assert found == wanted, f"{mode}: {what}: {dict(found)} where {dict(wanted)} is expected"


def _modes(case: SinkCase) -> list[SinkMode]:
    return sorted(case.make().sink().info().modes)


# --- checks of sinks


def sink_says_what_it_is(case: SinkCase) -> None:
    """`info` is the same at any time, in any process."""
    target = case.make()
    sink = target.sink()
    assert isinstance(sink, Sink), "not every method is there"
    info = sink.info()
    assert info.modes, "a sink takes something"
    sink.open(sink_context(min(info.modes)))
    assert sink.info() == info, "info has changed since open"
    sink.close()
    assert sink.info() == info, "info has changed with close"
    assert target.sink().info() == info, "another process sees another info"


def sink_writes_every_mode(case: SinkCase) -> None:
    """Each form that it declares arrives as it is meant."""
    for mode in _modes(case):
        target = case.make()
        sink = target.sink()
        sink.open(sink_context(mode))
        for epoch, changes in enumerate(script(mode), 1):
            ref = sink.stage(epoch, changes)
            assert isinstance(ref, str), "a ref is a text"
            sink.commit(epoch, ref)
            _assert_content(case, target, mode, epoch, f"after epoch {epoch}")
        sink.close()
        _assert_content(case, target, mode, 3, "after close")


def sink_hides_what_is_staged(case: SinkCase) -> None:
    """Transactional: staged rows are seen after their commit and not before, several epochs at a time too."""
    if not case.make().sink().info().transactional:
        return
    for mode in _modes(case):
        target = case.make()
        sink = target.sink()
        sink.open(sink_context(mode))
        refs = []
        for epoch, changes in enumerate(script(mode), 1):
            refs.append(sink.stage(epoch, changes))
            _assert_content(case, target, mode, 0, f"epoch {epoch} is only staged")
        for epoch, ref in enumerate(refs, 1):
            sink.commit(epoch, ref)
            _assert_content(case, target, mode, epoch, f"epoch {epoch} of three staged is committed")
        sink.close()


def sink_aborts(case: SinkCase) -> None:
    """Transactional: what an aborted epoch staged is never seen, and the epoch can be staged again."""
    if not case.make().sink().info().transactional:
        return
    for mode in _modes(case):
        target = case.make()
        sink = target.sink()
        first, second, third = script(mode)
        sink.open(sink_context(mode))
        sink.commit(1, sink.stage(1, first))
        sink.abort(2, sink.stage(2, third))
        _assert_content(case, target, mode, 1, "epoch 2 is aborted")
        sink.close()
        sink.open(sink_context(mode, last_epoch=1))
        for epoch, changes in ((2, second), (3, third)):
            sink.commit(epoch, sink.stage(epoch, changes))
        _assert_content(case, target, mode, 3, "epoch 2 is staged again after its abort")
        sink.close()


def sink_commits_once(case: SinkCase) -> None:
    """A commit that is repeated, at once or by a new process, leaves what one leaves."""
    info = case.make().sink().info()
    if not (info.transactional or info.idempotent):
        return
    for mode in _modes(case):
        target = case.make()
        sink = target.sink()
        sink.open(sink_context(mode))
        for epoch, changes in enumerate(script(mode), 1):
            ref = sink.stage(epoch, changes)
            sink.commit(epoch, ref)
            sink.commit(epoch, ref)
            _assert_content(case, target, mode, epoch, f"epoch {epoch} is committed twice")
            sink.close()
            sink = target.sink()
            sink.open(sink_context(mode, last_epoch=epoch))
            sink.commit(epoch, ref)
            _assert_content(case, target, mode, epoch, f"epoch {epoch} is committed again after a restart")
        sink.close()


@dataclass
class _Query:
    """What a query has durable, and where it dies."""

    calls_left: int
    durable: int = 0
    refs: dict[int, str] = field(default_factory=dict)
    committed: int = 0

    def call(self) -> None:
        if self.calls_left == 0:
            raise _Died
        self.calls_left -= 1


_NEVER = 1_000  # more calls than a script has


class _Died(Exception):
    """The process is gone between two calls."""


def _run(query: _Query, sink: Sink, mode: SinkMode, group: int) -> None:
    """Bring a query to the end of the script, with one durable commit for each `group` epochs."""
    tables = script(mode)
    query.call()
    sink.open(sink_context(mode, last_epoch=query.durable))
    for epoch in range(query.committed + 1, query.durable + 1):
        query.call()
        sink.commit(epoch, query.refs[epoch])
        query.committed = epoch
    while query.durable < len(tables):
        staged = {}
        for epoch in range(query.durable + 1, min(query.durable + group, len(tables)) + 1):
            query.call()
            staged[epoch] = sink.stage(epoch, tables[epoch - 1])
        query.call()
        query.refs |= staged
        query.durable = max(staged)
        for epoch, ref in staged.items():
            query.call()
            sink.commit(epoch, ref)
            query.call()  # the commit is done, and the query does not know it
            query.committed = epoch
    query.call()
    sink.close()


def sink_survives_crashes(case: SinkCase) -> None:
    """A process that dies between any two calls, and once more in its second life, leaves what none would have.

    A sink that is neither transactional nor idempotent may repeat rows, and loses none.
    """
    info = case.make().sink().info()
    exact = info.transactional or info.idempotent
    for mode in _modes(case):
        # Epochs a commit, and the calls of the second life: with one epoch it lives on, with two it dies early.
        for group, second in ((1, _NEVER), (2, 2)):
            for calls in range(_NEVER):
                target = case.make()
                query = _Query(calls_left=calls)
                deaths = 0
                for left in (calls, second, _NEVER):
                    query.calls_left = left
                    try:
                        _run(query, target.sink(), mode, group)
                        break
                    except _Died:
                        deaths += 1
                what = f"died before call {calls}, {group} epochs a commit"
                found, wanted = content(target), expected(case, mode, 3)
                if exact:
                    assert found == wanted, f"{mode}: {what}: {dict(found)} where {dict(wanted)} is expected"
                elif mode is SinkMode.APPEND:
                    assert not wanted - found, f"{mode}: {what}: {dict(wanted - found)} is lost"
                if not deaths:
                    break


SINK_CHECKS: tuple[Callable[[SinkCase], None], ...] = (
    sink_says_what_it_is,
    sink_writes_every_mode,
    sink_hides_what_is_staged,
    sink_aborts,
    sink_commits_once,
    sink_survives_crashes,
)
