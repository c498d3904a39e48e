"""TPC-H as continuous queries: the tables arrive in pieces, and each of the 22 answers is the batch answer all the way.

Rows of all eight tables come shuffled, in epochs of random size that mix the tables, so that a line item may come long
before its order. The answer is compared in the middle too, when most joins have lost partners.
"""

from __future__ import annotations

import random
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from slt_streams import Coming

from velaria_core import DataflowSession, MemorySink

SCALE = "0.01"
SCALES = {17: "0.05"}  # at 0.01 the answer of 17 is NULL
EPOCHS = 7
TEXTS = {int(file.stem[1:]): file.read_text() for file in sorted(Path(__file__).with_name("tpch").glob("q*.sql"))}

Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Feed:
    """The rows of a table in the order in which they come, and how many have come after each epoch."""

    rows: pa.Table
    cuts: tuple[int, ...]

    def epoch(self, number: int) -> pa.Table:
        return self.rows.slice(self.cuts[number], self.cuts[number + 1] - self.cuts[number])

    def after(self, epochs: int) -> pa.Table:
        return self.rows.slice(0, self.cuts[epochs])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tables]:
    """The eight tables at a scale, generated once."""

    @cache
    def made(scale: str) -> Tables:
        folder = tmp_path_factory.mktemp("tpch")
        generator = Path(sysconfig.get_path("scripts"), "tpchgen-cli")
        subprocess.run([generator, "parquet", "--scale-factor", scale, "--output-dir", folder], check=True)
        with DataflowSession() as session:
            return {file.stem: session.read_parquet(file).to_arrow() for file in folder.glob("*.parquet")}

    return made


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=1) as opened:
        yield opened


def shuffled(tables: Tables, seed: int) -> dict[str, Feed]:
    """Each table's rows in random order, cut at random; an epoch may have none of them."""
    chance, order = random.Random(seed), np.random.default_rng(seed)
    made = {}
    for name, table in sorted(tables.items()):
        cuts = sorted(chance.randint(0, table.num_rows) for _ in range(EPOCHS - 1))
        rows = table.take(pa.array(order.permutation(table.num_rows)))
        made[name] = Feed(rows, (0, *cuts, table.num_rows))
    return made


def bag(table: pa.Table) -> Counter[tuple[Any, ...]]:
    """The rows, each with its count; means to 12 digits, since the engine divides in an order that the plan decides."""
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return Counter(tuple(f"{value:.12g}" if isinstance(value, float) else value for value in row) for row in rows)


def batch_answer(session: DataflowSession, text: str, rows: Tables) -> pa.Table:
    for name, table in rows.items():
        session.create_temp_view(name, session.create_dataframe(table))
    return session.sql(text).to_arrow()


def test_all_queries_are_there() -> None:
    assert list(TEXTS) == list(range(1, 23))


@pytest.mark.parametrize("number", TEXTS)
def test_the_stream_gives_the_batch_answer(
    number: int, data: Callable[[str], Tables], session: DataflowSession
) -> None:
    feeds = shuffled(data(SCALES.get(number, SCALE)), seed=number)
    sources = {name: Coming(schema=feed.rows.schema) for name, feed in feeds.items() if name in TEXTS[number]}
    for name, source in sources.items():
        session.create_temp_view(name, session.read_stream(source, name))
    sink = MemorySink()
    query = session.stream_sql(TEXTS[number]).write_stream(sink, epoch_rows_max=1_000_000)
    answer = None
    for epoch in range(EPOCHS):
        for name, source in sources.items():
            if (rows := feeds[name].epoch(epoch)).num_rows:
                source.add(rows)
        query.process_available()
        if epoch in (EPOCHS // 2, EPOCHS - 1):
            answer = batch_answer(session, TEXTS[number], {name: feeds[name].after(epoch + 1) for name in sources})
            assert bag(sink.result()) == bag(answer)
    query.stop()
    assert answer is not None
    assert answer.num_rows > 0
    assert answer.column(answer.num_columns - 1).null_count == 0, "a NULL would be equal without being right"
