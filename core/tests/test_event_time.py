"""Event time: watermarks, late rows, rows far ahead, windows that close, state that is forgotten."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from velaria_core import StreamingDataFrame, col, fn
from velaria_core.contract.modes import OutputMode
from velaria_core.errors import InputError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.logical.rules import for_stream
from velaria_core.session import DataflowSession

SCHEMA = pa.schema([("ts", pa.int64()), ("k", pa.string())])
DAY_MS = 24 * 60 * 60 * 1000
Build = Callable[[StreamingDataFrame], StreamingDataFrame]


class Events:
    """A stream of (time in ms, key), and a query over it whose epochs the test runs."""

    def __init__(
        self,
        build: Build,
        output: str = "append",
        *,
        session: DataflowSession | None = None,
        clock: ManualClock | None = None,
        path: Path | None = None,
        source: MemorySource | None = None,
        late_sink: MemorySink | None = None,
    ) -> None:
        self.session = session or DataflowSession()
        self.source = source or MemorySource(schema=SCHEMA, bounded=False)
        self.sink = MemorySink()
        self.clock = clock or ManualClock()
        self._told = 0
        options = StreamOptions(
            output_mode=OutputMode(output), checkpoint_path=str(path) if path else None, late_sink=late_sink
        )
        frame = build(self.session.read_stream(self.source, "events"))
        self.query = StreamingQuery(self.session._engine, for_stream(frame.node), self.sink, options, clock=self.clock)

    def give(self, *rows: int | tuple[int | None, str] | None) -> list[dict[str, Any]]:
        """One epoch over these rows; what came out of it. A bare time is of key a."""
        pairs = [row if isinstance(row, tuple) else (row, "a") for row in rows]
        if pairs:
            self.source.add(pa.table([[row[at] for row in pairs] for at in range(2)], schema=SCHEMA))
        return self.run()

    def run(self) -> list[dict[str, Any]]:
        self.query.process_available()
        tables = self.sink.tables
        fresh = [row for epoch, table in tables.items() if epoch > self._told for row in table.to_pylist()]
        self._told = max(tables, default=0)
        return sorted(fresh, key=str)

    def end(self) -> list[dict[str, Any]]:
        """The end of the stream; what came out of it."""
        self.source.end()
        return self.run()

    def __getattr__(self, name: str) -> Any:
        return self.query.progress()[name]


def counted(**options: Any) -> Build:
    """Rows by tumbling windows of ten seconds, a second of disorder allowed."""

    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        timed = events.with_watermark("ts", **({"delay": 1000} | options))
        return timed.window("ts", 10_000, "w").group_by("w").agg(n=fn.count())

    return build


def windows(*pairs: tuple[int | None, int]) -> list[dict[str, Any]]:
    return sorted([{"w": start, "n": count} for start, count in pairs], key=str)


# --- windows that close -------------------------------------------------------------------------------------


def test_a_window_comes_out_once_when_the_watermark_has_passed_its_end() -> None:
    events = Events(counted())
    assert events.give(1_000, 9_000) == []
    assert events.give(10_500, 9_500) == []  # the watermark is 9,500
    assert events.give(11_000) == windows((0, 3))
    assert events.give(35_000) == windows((10_000, 2))
    assert events.end() == windows((30_000, 1))
    assert events.late_rows == 0


def test_rows_of_the_watermarks_own_time_are_not_late() -> None:
    events = Events(counted(delay=0))
    assert events.give(10_000, 10_000) == []
    assert events.give(9_999, 10_000) == []
    assert (events.late_rows, events.late_dropped_rows) == (1, 1)
    assert events.end() == windows((10_000, 3))


def test_a_late_row_counts_as_long_as_its_window_is_open() -> None:
    events = Events(counted())
    events.give(1_000, 8_000)
    assert events.give(2_000) == []
    assert (events.late_rows, events.late_dropped_rows) == (1, 0)
    assert events.give(12_000) == windows((0, 3))
    assert events.give(3_000) == []
    assert (events.late_rows, events.late_dropped_rows) == (2, 1)


def test_update_mode_corrects_open_windows_and_lets_closed_ones_be() -> None:
    events = Events(counted(), "update")
    assert events.give(1_000) == [{"w": 0, "n": 1, "diff": 1}]
    assert events.give(2_000, 12_000) == [
        {"w": 0, "n": 1, "diff": -1},
        {"w": 0, "n": 2, "diff": 1},
        {"w": 10_000, "n": 1, "diff": 1},
    ]
    assert events.give(3_000) == []
    assert events.late_dropped_rows == 1
    assert events.state_rows == 1


def test_folded_late_rows_correct_any_window() -> None:
    events = Events(counted(late="fold"), "update")
    events.give(1_000, 50_000)
    assert events.give(2_000) == [{"w": 0, "n": 1, "diff": -1}, {"w": 0, "n": 2, "diff": 1}]
    assert (events.late_rows, events.late_dropped_rows) == (1, 0)


def test_append_needs_a_column_that_time_closes() -> None:
    for build in (counted(late="fold"), lambda events: events.group_by("k").agg(n=fn.count())):
        with pytest.raises(InputError) as caught:
            Events(build)
        assert caught.value.code == "stream.output_mode"


def test_late_rows_go_to_a_sink_of_their_own() -> None:
    late = MemorySink()
    events = Events(counted(late="side"), late_sink=late)
    events.give(1_000, 8_000)
    events.give((2_000, "b"), (8_500, "c"))
    assert late.result().to_pylist() == [{"ts": 2_000, "k": "b"}]
    assert (events.late_rows, events.late_dropped_rows) == (1, 1)
    assert events.end() == windows((0, 3))


def test_a_row_without_a_time_is_never_late_and_closes_at_the_end() -> None:
    events = Events(counted())
    assert events.give(None, 5_000) == []
    assert events.give(None, 25_000) == windows((0, 1))
    assert events.late_rows == 0
    assert events.end() == windows((20_000, 1), (None, 2))


def test_sliding_windows_close_one_after_the_other() -> None:
    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        return events.with_watermark("ts").window("ts", 20_000, "w", 10_000).group_by("w").agg(n=fn.count())

    events = Events(build)
    assert events.give(5_000, 12_000) == windows((-10_000, 1))
    assert events.give(20_000) == windows((0, 2))
    # Of its two windows the first is closed.
    events.give(15_000)
    assert events.late_dropped_rows == 1
    assert events.end() == windows((10_000, 3), (20_000, 1))


def test_what_is_made_of_windows_closes_with_them() -> None:
    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        per_key = events.with_watermark("ts").window("ts", 10_000, "w").group_by("w", "k").agg(n=fn.count())
        return per_key.filter(col("n") > 1).select("k", "n", "w").rename({"w": "start"})

    events = Events(build)
    assert events.give((1, "a"), (2, "a"), (3, "b")) == []
    assert events.give((4, "b")) == []
    assert events.give(10_000) == [{"k": "a", "n": 2, "start": 0}, {"k": "b", "n": 2, "start": 0}]


def test_ranks_within_closed_windows_keep_nothing() -> None:
    session = DataflowSession()

    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        per_key = events.with_watermark("ts").window("ts", 10_000, "w").group_by("w", "k").agg(n=fn.count())
        session.create_temp_view("per_key", per_key)
        return session.stream_sql(
            "SELECT w, k, n FROM per_key QUALIFY row_number() OVER (PARTITION BY w ORDER BY n DESC, k) = 1"
        )

    events = Events(build, session=session)
    assert events.give((1, "b"), (2, "a"), (3, "b"), (11_000, "c")) == [{"w": 0, "k": "b", "n": 2}]
    assert "each key comes whole" in events.query.explain()
    assert events.end() == [{"w": 10_000, "k": "c", "n": 1}]


def test_windows_beside_a_table() -> None:
    session = DataflowSession()
    names = session.create_dataframe({"k": ["a"], "name": ["Ada"]})

    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        per_key = events.with_watermark("ts").window("ts", 10_000, "w").group_by("w", "k").agg(n=fn.count())
        return per_key.join(names, "k", "left").select("w", "name", "n")

    events = Events(build, session=session)
    events.give((1, "a"), (2, "b"))
    assert events.give(10_000) == [{"w": 0, "name": "Ada", "n": 1}, {"w": 0, "name": None, "n": 1}]


TIMES: dict[str, tuple[pa.DataType, list[Any], Any]] = {
    "timestamp": (pa.timestamp("us"), [dt.datetime(2024, 1, 1, 0, 0, 5), dt.datetime(2024, 1, 1, 1)], None),
    "seconds": (pa.timestamp("s"), [dt.datetime(2024, 1, 1, 0, 0, 5), dt.datetime(2024, 1, 1, 1)], None),
    "utc": (
        pa.timestamp("us", tz="UTC"),
        [dt.datetime(2024, 1, 1, 0, 0, 5, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 1, tzinfo=dt.UTC)],
        None,
    ),
    "date": (pa.date32(), [dt.date(2024, 1, 1), dt.date(2024, 1, 2)], None),
    "text": (pa.string(), ["2024-01-01T00:00:05", "2024-01-01 01:00:00"], "2024-01-01T00:00:00"),
    "small integers": (pa.int32(), [5_000, 3_600_000], 0),
}


@pytest.mark.parametrize("name", TIMES)
def test_time_columns_of_any_kind(name: str) -> None:
    kind, values, start = TIMES[name]
    session, sink = DataflowSession(), MemorySink()
    source = MemorySource(schema=pa.schema([("ts", kind)]), bounded=False)
    frame = session.read_stream(source, "events").with_watermark("ts").window("ts", 60_000, "w")
    query = frame.group_by("w").agg(n=fn.count()).write_stream(sink, output_mode="append")
    for value in (*values, values[0]):
        source.add(pa.table([pa.array([value], kind)], names=["ts"]))
        query.process_available()
    ((found, count),) = [tuple(row.values()) for row in sink.result().to_pylist()]
    assert count == 1
    assert start is None or found == start
    assert query.progress()["late_dropped_rows"] == 1


# --- rows far ahead -----------------------------------------------------------------------------------------


def test_a_row_dated_a_year_ahead_does_not_close_the_year() -> None:
    events = Events(counted())
    year = 365 * DAY_MS
    assert events.give(1_000, 2_000, 1_500 + year) == []
    assert events.ahead_rows == 1
    assert events.give(3_000) == []
    assert events.give(11_000) == windows((0, 3))
    assert (events.late_rows, events.ahead_rows) == (0, 1)
    # Nothing is lost.
    assert events.end() == windows((10_000, 1), ((1_500 + year) // 10_000 * 10_000, 1))


def test_rows_that_were_ahead_count_once_time_comes_near() -> None:
    events = Events(counted(ahead="1 minute"))
    events.give(1_000)
    events.give(90_000)
    assert events.ahead_rows == 1
    events.give(40_000)  # within a minute of the first, and the row that waits within a minute of this one
    assert events.watermark == "1970-01-01T00:01:29.000000Z"
    assert events.end() == windows((90_000, 1))
    assert events.late_rows == 0


@pytest.mark.parametrize("rows", [(1_000, 2_000, 11_000), (None, 1_000, None, 2_000, 11_000)])
def test_a_first_row_dated_a_year_ahead_is_not_believed_alone(rows: tuple[int | None, ...]) -> None:
    events = Events(counted())
    assert events.give(1_500 + 365 * DAY_MS) == []
    assert events.watermark is None
    came = [window for row in rows for window in events.give(row)]
    assert came == windows((0, 2))
    assert (events.late_rows, events.ahead_rows) == (0, 1)
    events.end()
    assert sum(row["n"] for row in events.sink.result().to_pylist()) == len(rows) + 1


def test_a_first_row_alone_outlives_a_restart(tmp_path: Path) -> None:
    source = MemorySource(schema=SCHEMA, bounded=False)
    for day, told in [(365, None), (0, "1969-12-31T23:59:59.000000Z")]:
        events = Events(counted(), path=tmp_path, source=source)
        events.give(day * DAY_MS)
        assert events.watermark == told
        events.query.stop()
    assert events.ahead_rows == 1


def test_a_stream_that_begins_with_a_wrong_past_goes_on() -> None:
    events = Events(counted())
    events.give(0, 0)
    many = range(365 * DAY_MS, 365 * DAY_MS + 80_000, 1_000)
    # Some rows without a clock come all the time, and do not keep the others waiting.
    for at in many:
        events.give(at, at, at, 0)
    assert events.watermark == "1971-01-01T00:01:18.000000Z"
    events.end()
    assert sum(row["n"] for row in events.sink.result().to_pylist() if row["w"]) == 3 * len(many)


def test_as_many_rows_of_a_wrong_future_as_others_are_not_followed() -> None:
    events = Events(counted())
    for at in range(1_000, 200_000, 1_000):
        events.give(at, at + 365 * DAY_MS)
    assert events.watermark == "1970-01-01T00:03:18.000000Z"
    assert events.late_rows == 0


def test_a_stream_that_goes_far_ahead_is_followed() -> None:
    events = Events(counted())
    events.give(1_000, 1_000)
    events.give(*(40 * DAY_MS + at for at in range(40)))
    assert events.ahead_rows == 40
    assert events.give(*(40 * DAY_MS + 11_000 + at for at in range(40))) == windows((0, 2), (40 * DAY_MS, 40))
    assert events.end() == windows((40 * DAY_MS + 10_000, 40))


def test_nothing_waits_where_nothing_closes() -> None:
    events = Events(counted(late="fold"), "update")
    events.give(1_000)
    assert events.give(400 * DAY_MS) == [{"w": 400 * DAY_MS, "n": 1, "diff": 1}]
    assert events.ahead_rows == 1
    events.give(2_000)
    assert events.late_rows == 0
    for at in range(70):
        events.give(800 * DAY_MS + at)
    assert events.watermark == "1972-03-10T23:59:59.069000Z"


# --- several streams ----------------------------------------------------------------------------------------


def test_the_slowest_stream_holds_the_watermark_unless_it_is_idle() -> None:
    session, clock, other = DataflowSession(), ManualClock(), MemorySource(schema=SCHEMA, bounded=False)

    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        both = events.with_watermark("ts").union(
            session.read_stream(other, "other").with_watermark("ts", idle="1 minute")
        )
        return both.window("ts", 10_000, "w").group_by("w").agg(n=fn.count())

    events = Events(build, session=session, clock=clock)
    other.add(pa.table([[3_000], ["b"]], schema=SCHEMA))
    assert events.give(25_000, 25_000) == []
    clock.advance(59_999)
    assert events.run() == []
    clock.advance(1)
    assert events.run() == windows((0, 1))
    # It comes back: what is closed stays so.
    other.add(pa.table([[4_000, 21_000], ["b", "b"]], schema=SCHEMA))
    assert events.run() == []
    assert events.late_dropped_rows == 1
    other.end()
    assert events.give(30_000) == windows((20_000, 3))


def test_a_stream_that_says_nothing_holds_the_watermark() -> None:
    session, other = DataflowSession(), MemorySource(schema=SCHEMA, bounded=False)

    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        both = events.with_watermark("ts").union(session.read_stream(other, "other").with_watermark("ts"))
        return both.window("ts", 10_000, "w").group_by("w").agg(n=fn.count())

    events = Events(build, session=session)
    assert events.give(1, 20_000, 40_000) == []
    assert events.watermark is None
    other.end()
    assert events.run() == windows((0, 1), (20_000, 1))


def test_the_end_of_one_stream_leaves_what_is_silent_open() -> None:
    session, clock, other = DataflowSession(), ManualClock(), MemorySource(schema=SCHEMA, bounded=False)

    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        both = events.with_watermark("ts").union(session.read_stream(other, "other").with_watermark("ts", idle=1000))
        return both.window("ts", 10_000, "w").group_by("w").agg(n=fn.count())

    events = Events(build, session=session, clock=clock)
    events.give(1, 10_000)
    events.end()
    clock.advance(1000)
    assert events.run() == windows((0, 1))
    other.add(pa.table([[11_000], ["b"]], schema=SCHEMA))
    other.end()
    assert events.run() == windows((10_000, 2))


def test_an_interval_join_keeps_what_can_still_meet() -> None:
    session, other = DataflowSession(), MemorySource(schema=SCHEMA, bounded=False)

    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        clicks = session.read_stream(other, "clicks").with_watermark("ts").rename({"ts": "at", "k": "who"})
        near = (col("k") == col("who")) & col("at").between(col("ts"), col("ts") + 5_000)
        return events.with_watermark("ts").join(clicks, near)

    events = Events(build, session=session)
    for second in range(80):
        other.add(pa.table([[1000 * second + 500], ["a"]], schema=SCHEMA))
        events.give(1000 * second)
    assert events.state_rows < 30
    assert events.rows_out == sum(min(5, 80 - second) for second in range(80))


# --- restarts -----------------------------------------------------------------------------------------------


def test_event_time_outlives_a_restart(tmp_path: Path) -> None:
    source = MemorySource(schema=SCHEMA, bounded=False)
    events = Events(counted(), path=tmp_path, source=source)
    events.give(1_000, 12_000)
    events.give(900 * DAY_MS)
    events.query.stop()
    events = Events(counted(), path=tmp_path, source=source)
    assert events.give(2_000) == []
    assert (events.late_rows, events.late_dropped_rows) == (1, 1)
    assert events.end() == windows((10_000, 1), (900 * DAY_MS, 1))


def test_available_now_does_not_close_what_may_go_on(tmp_path: Path) -> None:
    source = MemorySource(schema=SCHEMA, bounded=False)
    first = Events(counted(), path=tmp_path, source=source)
    assert first.give(1_000) == []
    first.query.stop()
    second = Events(counted(), path=tmp_path, source=source)
    assert second.give(2_000) == []
    assert second.end() == windows((0, 2))


@pytest.mark.parametrize("length", ["4 seconds", "5 seconds"])  # whole slides, and not
@pytest.mark.parametrize("batch_rows", [1, 2, 6])
def test_sliding_windows_of_infinite_times_are_those_of_batch(length: str, batch_rows: int) -> None:
    session, sink = DataflowSession(), MemorySink()
    day = dt.datetime(2020, 1, 1)
    times = ["'-infinity'", f"'{day}'", f"'{day + dt.timedelta(seconds=9)}'", "NULL", "'infinity'", "'2020-01-02'"]
    listed = ", ".join(f"(CAST({time} AS TIMESTAMP), {at})" for at, time in enumerate(times))
    rows = session.sql(f"SELECT * FROM (VALUES {listed}) AS v(ts, k)").to_arrow()
    session.create_temp_view("whole", session.create_dataframe(rows))
    batches = [rows.slice(at, batch_rows) for at in range(0, rows.num_rows, batch_rows)]
    session.create_temp_view("coming", session.read_stream(MemorySource(batches)).with_watermark("ts", "0s"))
    text = (
        "SELECT CAST(window_start AS VARCHAR) AS w, count(*) AS n, CAST(sum(k) AS BIGINT) AS k "
        f"FROM HOP(TABLE {{}}, DESCRIPTOR(ts), INTERVAL '2 seconds', INTERVAL '{length}') GROUP BY window_start"
    )
    query = session.stream_sql(text.format("coming")).write_stream(
        sink, output_mode="append", epoch_rows_max=batch_rows
    )
    query.process_available()
    query.stop()
    wanted = session.sql(text.format("whole")).to_rows()
    assert sorted(sink.result().to_pylist(), key=str) == sorted(wanted, key=str)


# --- processing time ----------------------------------------------------------------------------------------


def by_clock(events: StreamingDataFrame) -> StreamingDataFrame:
    return events.with_processing_time("seen").window("seen", 10_000, "w").group_by("w").agg(n=fn.count())


def moments(rows: Iterable[dict[str, Any]]) -> list[tuple[float, int]]:
    return [(row["w"].replace(tzinfo=dt.UTC).timestamp(), row["n"]) for row in rows]


def test_windows_of_processing_time_close_by_the_clock_alone() -> None:
    clock = ManualClock(1_000)
    events = Events(by_clock, clock=clock)
    assert events.give(5, 7) == []
    clock.advance(8_999)
    assert events.run() == []
    clock.advance(1)
    assert moments(events.run()) == [(0.0, 2)]
    assert events.late_rows == 0


def test_a_clock_that_goes_back_does_no_harm() -> None:
    clock = ManualClock(25_000)
    events = Events(by_clock, clock=clock)
    events.give(1)
    clock.advance(-20_000)
    events.give(2)
    clock.advance(25_000)
    assert moments(events.run()) == [(20.0, 2)]
    assert events.late_rows == 0


def test_silence_is_counted_anew_by_a_clock_that_goes_back() -> None:
    session, clock, other = DataflowSession(), ManualClock(10_000_000), MemorySource(schema=SCHEMA, bounded=False)

    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        both = events.with_watermark("ts").union(
            session.read_stream(other, "other").with_watermark("ts", idle="1 minute")
        )
        return both.window("ts", 10_000, "w").group_by("w").agg(n=fn.count())

    events = Events(build, session=session, clock=clock)
    other.add(pa.table([[500, 600], ["b", "b"]], schema=SCHEMA))
    events.give(1_000, 20_000)
    clock.advance(-5_000_000)
    events.run()
    clock.advance(59_000)
    assert events.run() == []
    clock.advance(1_000)
    assert events.run() == windows((0, 3))


def test_event_time_does_not_heed_the_clock() -> None:
    clock = ManualClock()
    events = Events(counted(), clock=clock)
    events.give(1_000)
    clock.advance(1000 * DAY_MS)
    assert events.run() == []
    assert events.give(2_000) == []
    assert events.late_rows == 0


def test_rows_that_go_have_no_processing_time() -> None:
    with pytest.raises(InputError) as caught:
        Events(lambda events: by_clock(events.group_by("k").agg(m=fn.count())), "update")
    assert caught.value.code == "stream.processing_time"


# --- duplicates ---------------------------------------------------------------------------------------------


def test_duplicates_within_a_time() -> None:
    events = Events(lambda stream: stream.with_watermark("ts", 1000).drop_duplicates("k", within="10 seconds"))
    assert events.give(1_000, 2_000, (2_000, "b")) == []
    assert events.give(3_500) == [{"ts": 1_000, "k": "a"}, {"ts": 2_000, "k": "b"}]
    assert events.give(13_000, 30_000) == []  # 13,000 is a duplicate of 3,500
    assert events.end() == [{"ts": 30_000, "k": "a"}]


def test_the_first_is_the_earliest_and_not_the_one_that_came_first() -> None:
    events = Events(lambda stream: stream.with_watermark("ts", 5000).drop_duplicates("k", within=10_000), "update")
    assert events.give(4_000) == [{"ts": 4_000, "k": "a", "diff": 1}]
    assert events.give(2_000) == [{"ts": 2_000, "k": "a", "diff": 1}, {"ts": 4_000, "k": "a", "diff": -1}]


def test_the_keys_of_the_past_are_forgotten() -> None:
    events = Events(lambda stream: stream.with_watermark("ts").drop_duplicates("k", within=1_000))
    for second in range(40):
        events.give(*((1000 * second, f"{second} {at}") for at in range(5)))
    assert events.state_rows < 30
    assert events.rows_out == 195


# --- what is refused ----------------------------------------------------------------------------------------


def test_what_is_no_watermark_is_refused() -> None:
    session = DataflowSession()
    frame = session.create_dataframe(pa.table({"ts": [1], "k": ["a"], "f": [0.5]}))
    cases: list[tuple[str, Callable[[], object]]] = [
        ("frame.duration", lambda: frame.with_watermark("ts", "soon")),
        ("frame.duration", lambda: frame.with_watermark("ts", -1)),
        ("frame.duration", lambda: frame.session_window("ts", 0)),
        ("frame.late", lambda: frame.with_watermark("ts", late="never")),
        ("frame.time_column", lambda: frame.drop_duplicates("k", within=10)),
        ("sql.window_column", lambda: frame.with_watermark("f")),
    ]
    for code, misuse in cases:
        with pytest.raises(InputError) as caught:
            misuse()
        assert caught.value.code == code


def test_batch_has_no_need_of_a_watermark() -> None:
    session = DataflowSession()
    frame = session.create_dataframe(pa.table({"ts": [1, 2, 2], "k": ["a", "a", "b"]}))
    timed = frame.with_watermark("ts", "1 second")
    assert timed.to_rows() == frame.to_rows()
    kept = timed.drop_duplicates("k", within=10).order_by("ts").to_arrow().to_pylist()
    assert kept == [{"ts": 1, "k": "a"}, {"ts": 2, "k": "b"}]
    assert frame.drop_duplicates("k").count() == 2
    assert frame.with_processing_time("seen").select("seen").distinct().count() == 1


# --- windows by number (inventory T-13, B-16, E-14) ---------------------------------------------------------


def test_t13_sliding_windows_give_three_buckets() -> None:
    def build(events: StreamingDataFrame) -> StreamingDataFrame:
        return events.window("ts", 20_000, "window_start", 10_000).group_by("window_start").agg(n=fn.count())

    events = Events(build, "update")
    assert [(row["window_start"], row["n"]) for row in events.give(5_000, 15_000)] == [
        (-10_000, 1),
        (0, 2),
        (10_000, 1),
    ]


@pytest.mark.parametrize("name", ["window_start", "bucket"])
def test_b16_the_last_windows_are_kept_by_time_whatever_they_are_called(name: str) -> None:
    session, sink, source = DataflowSession(), MemorySink(), MemorySource(schema=SCHEMA, bounded=False)
    counts = session.read_stream(source, "events").window("ts", 10_000, name).group_by(name).agg(n=fn.count())
    query = counts.write_stream(sink, max_retained_windows=2)
    # The window that comes last is not the newest.
    for ts in (25_000, 38_000, 21_000, 12_000, 44_000, 35_000, 24_000):
        source.add(pa.table([[ts], ["a"]], schema=SCHEMA))
        query.process_available()
    assert {row[name]: row["n"] for row in sink.result().to_pylist()} == {20_000: 2, 30_000: 2, 40_000: 1}
    progress = query.progress()
    assert (progress["late_dropped_rows"], progress["state_rows"]) == (2, 2)
    with pytest.raises(InputError):
        counts.write_stream(MemorySink(), max_retained_windows=-1)


# --- as-of joins --------------------------------------------------------------------------------------------


def test_an_as_of_join_is_corrected_by_rows_that_come_later() -> None:
    session, quotes = (
        DataflowSession(),
        MemorySource(schema=pa.schema([("ts", pa.int64()), ("p", pa.int64())]), bounded=False),
    )

    def build(trades: StreamingDataFrame) -> StreamingDataFrame:
        return trades.join(session.read_stream(quotes, "quotes"), "ts", "asof_left").select("ts", "p")

    events = Events(build, "update", session=session)
    quotes.add(pa.table({"ts": [1_000, 5_000], "p": [10, 50]}))
    assert events.give(4_000, 6_000) == [{"ts": 4_000, "p": 10, "diff": 1}, {"ts": 6_000, "p": 50, "diff": 1}]
    quotes.add(pa.table({"ts": [3_000, 7_000], "p": [30, 70]}))
    assert events.run() == [{"ts": 4_000, "p": 10, "diff": -1}, {"ts": 4_000, "p": 30, "diff": 1}]
