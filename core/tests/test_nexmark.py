"""Nexmark: each query as a stream gives, at the end, what it gives in batch.

Events come out of order, in epochs of random size. The texts in nexmark/ are those of the stream and of the batch, and
so are the two queries here that are calls: sessions, and windows of processing time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import nexmark_events
import numpy as np
import pyarrow as pa
import pytest
from nexmark_events import NAMES, SCHEMAS, Nexmark

from velaria_core import DataflowSession, DataFrame, MemorySink, MemorySource, StreamingQuery, fn
from velaria_core.frame import Frame

AnyFrame = TypeVar("AnyFrame", bound=Frame)
TEXTS = {file.stem: file.read_text() for file in sorted(Path(__file__).with_name("nexmark").glob("q*.sql"))}
EVENTS = 30_000
# 2 ms between events is a minute in all; a second of disorder is a tenth of a window.
STREAM = Nexmark(seed=7, interval_us=2_000, disorder_us=1_000_000)


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=1) as opened:
        yield opened


def bag(table: pa.Table) -> Counter[tuple[Any, ...]]:
    """The rows, each with its count; means to 12 digits."""
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return Counter(tuple(f"{value:.12g}" if isinstance(value, float) else value for value in row) for row in rows)


def epochs(seed: int) -> list[dict[str, pa.Table]]:
    chance = random.Random(seed)
    cuts = sorted({0, EVENTS, *(chance.randint(0, EVENTS) for _ in range(12))})
    return [STREAM.events(first, last - first) for first, last in pairwise(cuts)]


def q11(bid: AnyFrame) -> AnyFrame:
    """User sessions: how many bids a person makes until ten seconds pass without one."""
    sessions = bid.session_window("date_time", "10 seconds", "bidder")
    return sessions.group_by("bidder", "window_start", "window_end").agg(bids=fn.count())


def q12(bid: AnyFrame) -> AnyFrame:
    """How many bids a person makes in each ten seconds of the clock."""
    windows = bid.with_processing_time("processed").window("processed", 10_000)
    return windows.group_by("bidder", "window_start").agg(bids=fn.count())


class Streams:
    """The three streams as views of a session, and what brings events into them."""

    def __init__(self, session: DataflowSession, delay: str | None = None) -> None:
        self.frames = {}
        self._sources = {kind: MemorySource(schema=SCHEMAS[kind], bounded=False) for kind in NAMES}
        for kind, source in self._sources.items():
            stream = session.read_stream(source, kind)
            self.frames[kind] = stream if delay is None else stream.with_watermark("date_time", delay)
            session.create_temp_view(kind, self.frames[kind])

    def run(self, query: StreamingQuery, seed: int) -> None:
        """All events, in epochs of random size, and the end."""
        for tables in epochs(seed):
            for kind, source in self._sources.items():
                if tables[kind].num_rows:
                    source.add(tables[kind])
            query.process_available()
        for source in self._sources.values():
            source.end()
        query.process_available()
        query.stop()


def batch_views(session: DataflowSession) -> dict[str, DataFrame]:
    frames = {kind: session.create_dataframe(table) for kind, table in STREAM.events(0, EVENTS).items()}
    for kind, frame in frames.items():
        session.create_temp_view(kind, frame)
    return frames


@pytest.mark.parametrize("name", TEXTS)
def test_the_stream_ends_with_the_batch_answer(name: str, session: DataflowSession) -> None:
    streams, sink = Streams(session), MemorySink()
    streams.run(session.stream_sql(TEXTS[name]).write_stream(sink, epoch_rows_max=1_000_000), seed=sum(map(ord, name)))
    batch_views(session)
    answer = session.sql(TEXTS[name]).to_arrow()
    assert bag(sink.result()) == bag(answer)
    assert answer.num_rows > 0


@pytest.mark.parametrize("name", ["q5", "q7", "q8"])
def test_windows_come_out_once_when_nothing_more_can_come(name: str, session: DataflowSession) -> None:
    """The watermark is as far behind as events are out of order, so none is late."""
    streams, sink = Streams(session, delay="1 second"), MemorySink()
    query = session.stream_sql(TEXTS[name]).write_stream(sink, output_mode="append", epoch_rows_max=1_000_000)
    streams.run(query, seed=sum(map(ord, name)))
    batch_views(session)
    answer = bag(session.sql(TEXTS[name]).to_arrow())
    assert sum((bag(table) for table in sink.tables.values()), Counter()) == answer
    assert len(sink.tables) > 2


@pytest.mark.parametrize("output_mode", ["update", "append"])
def test_sessions(output_mode: str, session: DataflowSession) -> None:
    streams, sink = Streams(session, delay="1 second"), MemorySink()
    query = q11(streams.frames["bid"]).write_stream(sink, output_mode=output_mode, epoch_rows_max=1_000_000)
    streams.run(query, seed=11)
    answer = q11(batch_views(session)["bid"]).to_arrow()
    assert bag(sink.result()) == bag(answer)
    assert answer.num_rows > 500


def test_windows_of_processing_time_count_each_bid_once(session: DataflowSession) -> None:
    """Which window a bid is in is the clock's affair; all bids of a person are in some."""
    streams, sink = Streams(session), MemorySink()
    streams.run(q12(streams.frames["bid"]).write_stream(sink, output_mode="append", epoch_rows_max=1_000_000), seed=12)
    bids: Counter[int] = Counter()
    for bidder, _, count in zip(*(column.to_pylist() for column in sink.result().columns), strict=True):
        bids[bidder] += count
    assert bids == Counter(STREAM.events(0, EVENTS)["bid"].column("bidder").to_pylist())


# --- the events


def test_any_range_of_events_can_be_made_by_itself() -> None:
    whole = STREAM.events(0, 5_000)
    parts = [STREAM.events(first, 500) for first in range(0, 5_000, 500)]
    for kind in NAMES:
        assert whole[kind].equals(pa.concat_tables([part[kind] for part in parts]))
    assert not whole["bid"].equals(Nexmark(seed=8, interval_us=2_000, disorder_us=1_000_000).events(0, 5_000)["bid"])


def test_of_fifty_events_one_is_a_person_and_three_are_auctions() -> None:
    assert {kind: table.num_rows for kind, table in STREAM.events(0, 5_000).items()} == {
        "person": 100,
        "auction": 300,
        "bid": 4_600,
    }


def test_ids_are_counted_and_keys_are_skewed() -> None:
    tables = STREAM.events(0, EVENTS)
    for kind in ("person", "auction"):
        rows = tables[kind].num_rows
        assert tables[kind].column("id").to_pylist() == list(
            range(nexmark_events.FIRST_ID, nexmark_events.FIRST_ID + rows)
        )
    auctions = Counter(tables["bid"].column("auction").to_pylist())
    hot = sum(bids for auction, bids in auctions.items() if auction % nexmark_events.HOT == 0)
    assert 0.5 < hot / tables["bid"].num_rows < 0.55
    assert max(auctions) < nexmark_events.FIRST_ID + tables["auction"].num_rows + nexmark_events.LEAD


def test_time_is_behind_its_place_by_the_disorder_at_most() -> None:
    times = STREAM.events(0, EVENTS)["bid"].column("date_time").cast(pa.int64()).to_numpy()
    behind = np.maximum.accumulate(times) - times
    assert 0 < behind.max() <= STREAM.disorder_us
