"""Best rows by arithmetic are those of the statement, whatever ties, NULLs and orders there are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import examples
from properties.tables import bag as bag_of

from velaria_core import DataflowSession, MemorySink, MemorySource
from velaria_core.execution.steps.firsts import Firsts
from velaria_core.logical.ranks import ranks_bounded

SCHEMA = pa.schema([("k", pa.int64()), ("a", pa.int32()), ("b", pa.int64()), ("s", pa.string())])
QUERY = "SELECT {columns} FROM t QUALIFY {rank} OVER (PARTITION BY k ORDER BY {order}) {bound}"


@pytest.fixture(scope="module")
def session() -> DataflowSession:
    return DataflowSession(threads=1)


def firsts(session: DataflowSession, sql: str) -> Firsts | None:
    session.create_temp_view("t", session.create_dataframe(SCHEMA.empty_table()))
    asked = session.sql(sql)
    return Firsts.of(ranks_bounded(asked.node), SCHEMA, asked.schema)


def bag(table: pa.Table) -> Counter[tuple[Any, ...]]:
    return bag_of(tuple(row.values()) for row in table.to_pylist())


small = st.integers(0, 3)


@given(
    rows=st.lists(
        st.tuples(st.one_of(st.none(), small), st.one_of(small, st.just(None)), small, st.just("x")), max_size=12
    ),
    order=st.sampled_from(["a", "a DESC", "b, a", "b DESC, a DESC", "b, s", "a NULLS FIRST, b"]),
    rank=st.sampled_from(["row_number()", "rank()", "dense_rank()"]),
    bound=st.sampled_from(["= 1", "<= 1", "< 2"]),
)
@examples(100)
def test_what_is_picked_holds_the_best(
    session: DataflowSession, rows: list[tuple[Any, ...]], order: str, rank: str, bound: str
) -> None:
    table = pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)
    sql = QUERY.format(columns="s, b, k, a", rank=rank, order=order, bound=bound)
    known = firsts(session, sql)
    assert known is not None
    assert known.columns == ("s", "b", "k", "a")
    picked, alone = known.picked(table) if table.num_rows else (table, True)
    session.create_temp_view("t", session.create_dataframe(table))
    # Whichever of equal rows row_number takes: they are equal in all that is compared.
    every = session.sql(QUERY.format(columns="s, b, k, a", rank="rank()", order=order, bound=bound)).to_arrow()
    left = bag(picked.select(["s", "b", "k", "a"]))
    assert bag(every) <= left
    if alone:
        assert left == bag(session.sql(sql).to_arrow())


@pytest.mark.parametrize(
    "sql",
    [
        QUERY.format(columns="k", rank="row_number()", order="s", bound="= 1"),
        QUERY.format(columns="k", rank="row_number()", order="a + b", bound="= 1"),
        QUERY.format(columns="k", rank="row_number()", order="a", bound="<= 2"),
        "SELECT k FROM t QUALIFY row_number() OVER (PARTITION BY s ORDER BY a) = 1",
        "SELECT k FROM t",
    ],
)
def test_what_is_not_asked_by_numbers_is_for_the_statement(session: DataflowSession, sql: str) -> None:
    assert firsts(session, sql) is None


@pytest.mark.parametrize(
    "sql",
    [
        QUERY.format(columns="k, a + 1 AS a", rank="row_number()", order="a", bound="= 1"),
        QUERY.format(columns="k, rank() OVER (PARTITION BY k ORDER BY a) AS r", rank="rank()", order="a", bound="= 1"),
        QUERY.format(columns="k", rank="row_number()", order="a", bound="= 1 AND b > 1"),
        QUERY.format(columns="k", rank="row_number()", order="a", bound="BETWEEN 0 AND 1"),
    ],
)
def test_what_is_more_than_columns_is_for_the_statement(session: DataflowSession, sql: str) -> None:
    known = firsts(session, sql)
    assert known is None or known.columns is None


def test_what_the_engine_gives_in_another_type_is_for_the_statement(session: DataflowSession) -> None:
    session.create_temp_view("t", session.create_dataframe(SCHEMA.empty_table()))
    asked = session.sql(QUERY.format(columns="k, s", rank="row_number()", order="a", bound="= 1"))
    wide = SCHEMA.set(SCHEMA.get_field_index("s"), pa.field("s", pa.large_string()))
    for below, columns in ((SCHEMA, ("k", "s")), (wide, None)):
        known = Firsts.of(ranks_bounded(asked.node), below, asked.schema)
        assert known is not None
        assert known.columns == columns


@pytest.mark.parametrize("size", [4_000, 5_000])  # whole slides, and not
def test_the_best_of_sliding_windows_is_that_of_batch(session: DataflowSession, size: int) -> None:
    """By windows that close while rows come, panes of which some are apart and some NULL."""
    times = [0, 500, 1_500, None, 2_500, 2_600, 9_000, 9_100, 12_000, 30_000]
    rows = [{"ts": ts, "k": at % 3, "v": at % 2} for at, ts in enumerate(times)]
    table = pa.Table.from_pylist(rows, pa.schema([("ts", pa.int64()), ("k", pa.int64()), ("v", pa.int64())]))
    text = (
        "SELECT window_start, k, count(*) AS n, sum(v) AS v FROM "
        f"HOP(TABLE {{}}, DESCRIPTOR(ts), INTERVAL '2 seconds', INTERVAL '{size} milliseconds') "
        "GROUP BY window_start, k QUALIFY row_number() OVER (PARTITION BY window_start ORDER BY n DESC, k) = 1"
    )
    session.create_temp_view("whole", session.create_dataframe(table))
    for step in (1, 3, 20):
        sink = MemorySink()
        batches = [table.slice(at, step) for at in range(0, table.num_rows, step)]
        stream = session.read_stream(MemorySource(batches)).with_watermark("ts", "0s")
        session.create_temp_view("coming", stream)
        query = session.stream_sql(text.format("coming")).write_stream(sink, output_mode="append", epoch_rows_max=step)
        query.process_available()
        query.stop()
        assert bag(sink.result()) == bag(session.sql(text.format("whole")).to_arrow())
