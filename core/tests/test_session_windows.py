"""Session windows: runs of rows of one key with small gaps, in batch and as they grow, join and close in a stream."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from velaria_core import StreamingDataFrame, col, fn
from velaria_core.errors import InputError
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.session import DataflowSession

SCHEMA = pa.schema([("ts", pa.int64()), ("who", pa.string())])


def table(rows: list[tuple[int | None, str]]) -> pa.Table:
    return pa.table([[ts for ts, _ in rows], [who for _, who in rows]], schema=SCHEMA)


def per_session(frame: Any) -> Any:
    grouped = frame.session_window("ts", "10 seconds", "who").group_by("who", "window_start", "window_end")
    return grouped.agg(n=fn.count())


class Visits:
    """A stream of visits, and its sessions in the order in which they come out."""

    def __init__(self, output_mode: str, frames: Any = per_session) -> None:
        session = DataflowSession()
        self._source, self._sink = MemorySource(schema=SCHEMA, bounded=False), MemorySink()
        events: StreamingDataFrame = session.read_stream(self._source, "visits").with_watermark("ts", 1000)
        self.query = frames(events).write_stream(self._sink, output_mode=output_mode)
        self._told = 0

    def give(self, *rows: tuple[int | None, str]) -> list[tuple[Any, ...]]:
        if rows:
            self._source.add(table(list(rows)))
        self.query.process_available()
        tables = self._sink.tables
        fresh = [tuple(r.values()) for epoch, found in tables.items() if epoch > self._told for r in found.to_pylist()]
        self._told = max(tables, default=0)
        return sorted(fresh, key=str)

    def end(self) -> list[tuple[Any, ...]]:
        self._source.end()
        return self.give()


def test_a_session_ends_where_the_gap_begins() -> None:
    rows = [(0, "ada"), (9_999, "ada"), (20_000, "ada"), (5_000, "bob"), (None, "bob")]
    found = per_session(DataflowSession().create_dataframe(table(rows))).to_arrow().to_pylist()
    assert sorted((tuple(row.values()) for row in found), key=str) == [
        ("ada", 0, 19_999, 2),
        ("ada", 20_000, 30_000, 1),
        ("bob", 5_000, 15_000, 1),
        ("bob", None, None, 1),
    ]


def test_without_keys_all_rows_are_of_one_session() -> None:
    frame = DataflowSession().create_dataframe(table([(0, "ada"), (5_000, "bob"), (12_000, "ada")]))
    found = frame.session_window("ts", 10_000).select("window_start", "window_end").distinct().to_arrow().to_pylist()
    assert found == [{"window_start": 0, "window_end": 22_000}]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", tz="UTC"), pa.string()])
def test_times_of_any_kind(kind: pa.DataType) -> None:
    times = [dt.datetime(2024, 1, 1, 12, 0, 0, 500_000), dt.datetime(2024, 1, 1, 12, 0, 9), dt.datetime(2024, 1, 1, 13)]
    values = [time.isoformat() if pa.types.is_string(kind) else time for time in times]
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        values = [time.replace(tzinfo=dt.UTC) for time in times]
    frame = DataflowSession().create_dataframe(pa.table([pa.array(values, kind)], names=["ts"]))
    counted = frame.session_window("ts", "10 seconds").group_by("window_start", "window_end").agg(n=fn.count())
    spans = sorted(str(row["window_end"]).replace("T", " ")[:21] for row in counted.to_arrow().to_pylist())
    assert spans[0].startswith("2024-01-01 12:00:19")
    assert spans[1].startswith("2024-01-01 13:00:10")
    assert sorted(row["n"] for row in counted.to_arrow().to_pylist()) == [1, 2]


def test_a_session_grows_and_joins_another() -> None:
    visits = Visits("update")
    assert visits.give((0, "ada"), (15_000, "ada")) == [("ada", 0, 10_000, 1, 1), ("ada", 15_000, 25_000, 1, 1)]
    # 14,500 has not passed: the watermark is 14,000, so the first session is closed and this one joins the second.
    assert visits.give((14_500, "ada")) == [("ada", 14_500, 25_000, 2, 1), ("ada", 15_000, 25_000, 1, -1)]


def test_a_row_between_two_sessions_makes_them_one() -> None:
    visits = Visits("update")
    visits.give((0, "ada"), (10_500, "bob"), (10_500, "ada"))
    assert visits.give((9_800, "ada")) == [
        ("ada", 0, 10_000, 1, -1),
        ("ada", 0, 20_500, 3, 1),
        ("ada", 10_500, 20_500, 1, -1),
    ]


def test_a_session_comes_out_once_when_it_is_closed() -> None:
    visits = Visits("append")
    assert visits.give((0, "ada"), (3_000, "bob")) == []
    assert visits.give((8_000, "ada"), (13_500, "cy")) == []
    assert visits.give((14_000, "cy")) == [("bob", 3_000, 13_000, 1)]
    assert visits.give((30_000, "cy")) == [("ada", 0, 18_000, 2), ("cy", 13_500, 24_000, 2)]
    visits.give((9_000, "ada"))
    assert visits.query.progress()["late_dropped_rows"] == 1
    assert visits.end() == [("cy", 30_000, 40_000, 1)]


def test_closed_sessions_are_forgotten() -> None:
    visits = Visits("append")
    for minute in range(30):
        visits.give((60_000 * minute, f"visitor {minute}"), (60_000 * minute + 5_000, f"visitor {minute}"))
    progress = visits.query.progress()
    assert progress["rows_out"] == 29
    assert progress["state_rows"] < 12
    assert visits.end() == [("visitor 29", 1_740_000, 1_755_000, 2)]


def test_the_rows_of_a_session_come_out_with_it() -> None:
    visits = Visits("append", lambda events: events.session_window("ts", 10_000, "who", start="from", end="to"))
    assert visits.give((0, "ada"), (4_000, "ada")) == []
    assert visits.give((20_000, "bob")) == [(0, "ada", 0, 14_000), (4_000, "ada", 0, 14_000)]


def test_sessions_want_a_gap_and_columns_of_their_own() -> None:
    frame = DataflowSession().create_dataframe(table([(0, "ada")]))
    with pytest.raises(InputError) as caught:
        frame.session_window("ts", "a while", "who")
    assert caught.value.code == "frame.duration"
    with pytest.raises(InputError) as caught:
        frame.session_window("ts", 1000, "who", start="ts")
    assert caught.value.code == "frame.duplicate_column"


def test_sessions_of_every_metric_grow_and_merge_as_in_batch() -> None:
    def metrics(frame: Any) -> Any:
        grouped = frame.session_window("ts", 10_000).group_by("window_start", "window_end")
        late = fn.count().filter(col("ts") > 12_000)
        return grouped.agg(n=fn.count(), last=fn.max("ts"), mean=fn.avg("ts"), total=fn.sum("ts"), late=late)

    session, sink, source = DataflowSession(), MemorySink(), MemorySource(schema=SCHEMA, bounded=False)
    query = metrics(session.read_stream(source, "visits")).write_stream(sink)
    times = [0, 25_000, 9_000, None, 17_000, None]
    rows = [(time, "a") for time in times]
    for row in rows:
        source.add(table([row]))
        query.process_available()
        assert query.progress()["state_rows"] <= 3
    batch = metrics(session.create_dataframe(table(rows))).to_arrow().to_pylist()
    assert sorted(sink.result().to_pylist(), key=str) == sorted(batch, key=str)


def test_what_groups_by_more_than_the_session_is_computed_from_its_rows() -> None:
    def by_end(frame: Any) -> Any:
        return frame.session_window("ts", 10_000, "who").group_by("who", "window_end").agg(n=fn.count())

    session, sink, source = DataflowSession(), MemorySink(), MemorySource(schema=SCHEMA, bounded=False)
    query = by_end(session.read_stream(source, "visits")).write_stream(sink)
    rows: list[tuple[int | None, str]] = [(0, "a"), (25_000, "b"), (9_000, "a"), (17_000, "a")]
    for row in rows:
        source.add(table([row]))
        query.process_available()
    batch = by_end(session.create_dataframe(table(rows))).to_arrow().to_pylist()
    assert sorted(sink.result().to_pylist(), key=str) == sorted(batch, key=str)
