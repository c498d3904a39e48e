"""Nexmark: each query as a stream gives, at the end, what it gives in batch.

Events come out of order, in epochs of random size. The texts in nexmark/ are those of the stream and of the batch.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import nexmark_events
import numpy as np
import pyarrow as pa
import pytest
from nexmark_events import NAMES, SCHEMAS, Nexmark

from velaria_core import DataflowSession, MemorySink, MemorySource

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


@pytest.mark.parametrize("name", TEXTS)
def test_the_stream_ends_with_the_batch_answer(name: str, session: DataflowSession) -> None:
    sources = {kind: MemorySource(schema=SCHEMAS[kind], bounded=False) for kind in NAMES}
    for kind, source in sources.items():
        session.create_temp_view(kind, session.read_stream(source, kind))
    sink = MemorySink()
    query = session.stream_sql(TEXTS[name]).write_stream(sink, epoch_rows_max=1_000_000)
    for tables in epochs(seed=sum(map(ord, name))):
        for kind, source in sources.items():
            if tables[kind].num_rows:
                source.add(tables[kind])
        query.process_available()
    query.stop()
    for kind, table in STREAM.events(0, EVENTS).items():
        session.create_temp_view(kind, session.create_dataframe(table))
    answer = session.sql(TEXTS[name]).to_arrow()
    assert bag(sink.result()) == bag(answer)
    assert answer.num_rows > 0


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
