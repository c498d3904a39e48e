"""Streams of a Python iterable's rows: T-45, and A-110 to A-113 by the names that they have here.

emit_rows and emit_interval_seconds of a source are `emit_rows` and `emit_interval_ms` of `RowsSource`; those of a sink
are `epoch_rows_max` and `trigger_interval_ms` of the query, as rows that a sink held back over a commit would be lost
in a crash.
"""

from __future__ import annotations

import datetime as dt
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from runtime_support import PATIENCE_S, Gathered, finished, query_over

from velaria_core.contract.abi import Batch, Blocked, EndOfStream
from velaria_core.contract.conformance import source_context
from velaria_core.errors import ExternalError, InputError, StateError, VelariaError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.sinks.callback import CallbackSink
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.rows import AHEAD_BATCHES, RowsSource
from velaria_core.session import DataflowSession

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.int64())])
DAYS = pa.schema([("day", pa.date32())])
DICTS = [{"k": "a", "v": 1}, {"k": "b", "v": 2}, {"k": "a", "v": 4}]
PAIRS = [tuple(row.values()) for row in DICTS]


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=1) as made:
        yield made


class Driven:
    """A source as a runtime reads it: asked again when it wakes, never by a timer."""

    def __init__(self, source: RowsSource) -> None:
        self.source = source
        self._woken = threading.Event()
        source.open(source_context(wake=self._woken.set))

    def ask(self) -> Batch | Blocked | EndOfStream:
        self._woken.clear()
        return self.source.next_batch(65_536)

    def until(self, holds: Callable[[Any], bool]) -> Any:
        """The first answer that is as wanted."""
        while not holds(answer := self.ask()):
            assert self._woken.wait(PATIENCE_S), f"nothing came after {answer}"
        return answer

    def batches(self) -> list[list[dict[str, Any]]]:
        """The rows of each batch up to the end."""
        found = []
        while isinstance(answer := self.until(lambda answer: not isinstance(answer, Blocked)), Batch):
            found.append(answer.table.to_pylist())
        return found


class Channel:
    """An iterable that waits for what is put into it; None ends it."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put = self._items.put

    def __iter__(self) -> Iterator[Any]:
        while (item := self._items.get(timeout=PATIENCE_S)) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


# --- T-45


@pytest.mark.parametrize("given", [DICTS, iter(DICTS), tuple(DICTS)], ids=["list", "iterator", "tuple"])
def test_rows_are_emitted_by_their_number(given: Any) -> None:
    """T-45: 2 + 1. A-111."""
    found = Driven(RowsSource(given, emit_rows=2, clock=ManualClock())).batches()
    assert found == [DICTS[:2], DICTS[2:]]


def test_sequences_need_a_schema(session: DataflowSession) -> None:
    """T-45, A-111."""
    for given in (PAIRS, iter(PAIRS)):
        with pytest.raises(InputError, match="sequences need a schema") as caught:
            RowsSource(given)
        assert caught.value.code == "source.no_schema"
    assert Driven(RowsSource(iter(PAIRS), SCHEMA)).batches() == [DICTS]
    with pytest.raises(InputError, match="sequences need a schema"):
        session.create_stream_from_rows(PAIRS)


def test_a_sink_is_given_rows_by_their_number(session: DataflowSession) -> None:
    """T-45, A-112: 3 + 1, whatever batches they came in; the rest comes when the input ends."""
    calls: list[list[int]] = []
    sink = CallbackSink(lambda _, table: calls.append(table["v"].to_pylist()))
    batches = [pa.table({"v": [1, 2]}), pa.table({"v": [3]}), pa.table({"v": [4]})]
    query = session.create_stream(batches).write_stream(sink, epoch_rows_max=3)
    query.process_available()
    query.stop()
    assert calls == [[1, 2, 3], [4]]


def test_a_stream_of_five_rows_by_two(session: DataflowSession) -> None:
    """T-45, A-113: 2, 2, 1, from the iterable to the function."""
    calls: list[list[int]] = []
    sink = CallbackSink(lambda _, table: calls.append(table["v"].to_pylist()))
    made = session.create_stream_from_rows([{"v": at} for at in range(5)], emit_rows=2, emit_interval_ms=60_000)
    query = made.write_stream(sink, epoch_rows_max=2)
    query.process_available()
    query.stop()
    assert calls == [[0, 1], [2, 3], [4]]


# --- when rows go on


def test_rows_are_emitted_after_a_time() -> None:
    """A-110, A-111: the first row of a batch waits so long and no longer; the clock is ours."""
    clock, channel = ManualClock(), Channel()
    driven = Driven(RowsSource(channel, SCHEMA, emit_rows=3, emit_interval_ms=100, clock=clock))
    assert driven.ask() == Blocked(), "no row, no time at which to ask again"
    channel.put(DICTS[0])
    driven.until(lambda answer: answer == Blocked(100))
    clock.advance(99.5)
    assert driven.ask() == Blocked(1)
    clock.advance(0.5)
    assert driven.ask().table.to_pylist() == DICTS[:1]  # type: ignore[union-attr]
    for row in (*DICTS[1:], DICTS[0]):
        channel.put(row)
    full = driven.until(lambda answer: isinstance(answer, Batch))
    assert full.table.to_pylist() == [*DICTS[1:], DICTS[0]], "as soon as it is full, with no time passing"
    channel.put(PAIRS[1])
    driven.until(lambda answer: answer == Blocked(100))
    channel.put(None)
    assert driven.batches() == [[DICTS[1]]], "the end does not wait"


def test_arrow_stays_the_batch_that_it_is() -> None:
    """A-111: tables and record batches, alone or between rows, in their order."""
    table = pa.Table.from_pylist(DICTS, SCHEMA)
    given = [table, *PAIRS[:2], table.to_batches()[0], table.slice(0, 0), DICTS[2]]
    assert Driven(RowsSource(iter(given))).batches() == [DICTS, DICTS[:2], DICTS, DICTS[2:]]
    wrong = pa.table({"k": ["a"], "w": [1]})
    driven = Driven(RowsSource(iter([table, wrong])))
    driven.until(lambda answer: isinstance(answer, Batch))
    with pytest.raises(InputError, match='"w" is not in its schema') as caught:
        driven.until(lambda answer: not isinstance(answer, Blocked))
    assert caught.value.code == "source.schema"


class Counting:
    """Numbers without end, which tell how many were asked for, and when its asker waits for room."""

    def __init__(self) -> None:
        self.asked = 0

    def __iter__(self) -> Iterator[dict[str, int]]:
        while True:
            self.asked += 1
            yield {"v": self.asked}


class Noticed(ManualClock):
    """A clock that tells when somebody waits by it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = threading.Event()

    def wait_until(self, condition: threading.Condition, deadline_ms: float | None) -> None:
        self.waited.set()
        super().wait_until(condition, deadline_ms)


def test_the_iterable_is_not_asked_far_ahead() -> None:
    """An endless one fills no memory: it is left alone until the query takes rows."""
    clock, numbers = Noticed(), Counting()
    driven = Driven(RowsSource(numbers, emit_rows=2, bounded=False, clock=clock))
    for taken in range(3):
        assert clock.waited.wait(PATIENCE_S)
        clock.waited.clear()
        assert numbers.asked == 2 * (AHEAD_BATCHES + taken)
        assert isinstance(driven.ask(), Batch)
    driven.source.close()


def test_closed_and_opened_again_it_goes_on() -> None:
    """What was not acknowledged comes again, and the iterable is asked by one thread, which was waiting for it."""
    clock, channel = ManualClock(), Channel()
    source = RowsSource(channel, SCHEMA, emit_rows=1, clock=clock)
    driven = Driven(source)
    for row in DICTS[:2]:
        channel.put(row)
    first = driven.until(lambda answer: isinstance(answer, Batch))
    driven.until(lambda answer: isinstance(answer, Batch))
    source.ack(first.offset)
    source.close()
    threads = threading.active_count()
    again = Driven(source)
    assert threading.active_count() == threads
    channel.put(DICTS[2])
    channel.put(None)
    assert again.batches() == [DICTS[1:2], DICTS[2:]]


# --- what goes wrong


def test_what_the_iterable_raises_fails_the_query() -> None:
    """With its text, after the rows that came before."""
    channel, sink = Channel(), Gathered()
    for item in (*DICTS[:2], ConnectionError("the line is gone")):
        channel.put(item)
    query = query_over(RowsSource(channel, SCHEMA), sink=sink).start()
    with pytest.raises(ExternalError, match="the iterable raised ConnectionError: the line is gone") as caught:
        query.await_termination(PATIENCE_S)
    assert caught.value.code == "source.rows"
    assert sink.rows == DICTS[:2]


def test_an_error_of_ours_stays_what_it_is() -> None:
    def failing() -> Iterator[Any]:
        yield DICTS[0]
        raise StateError("mine.gone", "not there")

    driven = Driven(RowsSource(failing()))
    driven.until(lambda answer: isinstance(answer, Batch))
    with pytest.raises(StateError, match="not there"):
        driven.until(lambda answer: not isinstance(answer, Blocked))


@pytest.mark.parametrize(
    ("given", "schema", "code", "told"),
    [
        ("abc", None, "source.data", "a str is no iterable of rows"),
        ({"k": [1]}, None, "source.data", "a dict is no iterable"),
        (pa.table({"k": [1]}), None, "source.data", "create_stream takes one table"),
        (7, None, "source.data", "a int is no iterable"),
        ([], None, "source.no_schema", "no rows and no schema"),
        (iter(()), None, "source.no_schema", "no rows and no schema"),
        ([{"k": None}], None, "source.no_schema", 'the type of "k"'),
        ([{"k": 1}, {"k": "x"}], None, "source.no_schema", "no types in common"),
        ([{"k": "a"}, {"w": 2}], SCHEMA, "source.row", 'row 1 has a column "w"'),
        ([("a",)], SCHEMA, "source.row", "row 0 is"),
        ([("a", "b")], SCHEMA, "source.row", '"v" is no int64'),
        ([("a", 1.5)], SCHEMA, "source.row", "1.5 would become 1"),
        (iter([{"v": 20}, {"v": 19.5}]), None, "source.row", "19.5 would become 19"),
        ([(dt.datetime(2024, 1, 1, 5),)], DAYS, "source.row", "would become datetime.date(2024, 1, 1)"),
        (["ab"], SCHEMA, "source.row", "row 0 is 'ab'"),
        ([7], SCHEMA, "source.row", "row 0 is 7"),
    ],
)
def test_what_is_no_row_is_told(given: Any, schema: pa.Schema | None, code: str, told: str) -> None:
    with pytest.raises(VelariaError) as caught:
        Driven(RowsSource(given, schema)).batches()
    assert caught.value.code == code
    assert told in str(caught.value)


def test_a_value_of_another_type_that_is_the_same_is_taken() -> None:
    days = [(dt.datetime(2024, 1, 1),), (dt.date(2024, 1, 2),), (None,)]
    assert Driven(RowsSource(days, DAYS)).batches() == [
        [{"day": dt.date(2024, 1, 1)}, {"day": dt.date(2024, 1, 2)}, {"day": None}]
    ]
    assert Driven(RowsSource([("a", 2.0)], SCHEMA)).batches() == [[{"k": "a", "v": 2}]]


def test_a_row_is_found_by_its_number() -> None:
    driven = Driven(RowsSource([*PAIRS, ("a", "x")], SCHEMA, emit_rows=3))
    driven.until(lambda answer: isinstance(answer, Batch))
    with pytest.raises(InputError, match="rows after the first 3: a value of"):
        driven.ask()


@pytest.mark.parametrize("option", ["emit_rows", "emit_interval_ms"])
def test_options_are_above_0(option: str) -> None:
    """A-110."""
    with pytest.raises(InputError, match=f"{option} is above 0"):
        RowsSource(DICTS, **{option: 0})


# --- schemas, and SQL over it


def test_the_schema_of_a_list_is_that_of_all_its_rows() -> None:
    source = RowsSource([{"k": "a"}, {"k": None, "v": 1}, {"k": "b", "v": 2.5}])
    assert source.info().schema == pa.schema([("k", pa.string()), ("v", pa.float64())])
    assert Driven(source).batches() == [[{"k": "a", "v": None}, {"k": None, "v": 1.0}, {"k": "b", "v": 2.5}]]


def test_sql_over_a_generator(session: DataflowSession) -> None:
    """A-113: with a schema by the names of types; the query ends as the generator does."""
    made = session.create_stream_from_rows((row for row in PAIRS), {"k": "string", "v": "int64"}, emit_rows=2)
    session.create_temp_view("fed", made)
    sink = MemorySink()
    query = session.stream_sql("SELECT k, sum(v)::BIGINT AS s FROM fed GROUP BY k ORDER BY k").write_stream(sink)
    finished(query.start())
    assert sorted(map(str, sink.result().to_pylist())) == ["{'k': 'a', 's': 5}", "{'k': 'b', 's': 2}"]


def test_what_needs_an_end_is_refused_where_there_is_none(session: DataflowSession) -> None:
    session.create_temp_view("fed", session.create_stream_from_rows(iter(DICTS), SCHEMA, bounded=False))
    with pytest.raises(VelariaError, match="ORDER BY"):
        session.explain_stream_sql("SELECT k FROM fed ORDER BY k")
