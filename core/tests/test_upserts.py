"""Upserts: a result told by key, to sinks that keep one row for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from velaria_core import col, fn
from velaria_core.contract import abi
from velaria_core.contract.modes import SinkMode
from velaria_core.errors import DataError, InputError
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sinks.table import TableSink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.session import DataflowSession
from velaria_core.streaming import StreamingDataFrame

ROWS = [("a", 1), ("b", 2), ("a", 3), (None, 5), ("b", -2), ("c", 0), (None, 1)]


class Upserted(MemorySink):
    """Keeps what it is given; takes upserts alone."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: tuple[str, ...] = ()
        self.given: list[list[dict[str, Any]]] = []

    def info(self) -> abi.SinkInfo:
        return abi.SinkInfo(frozenset({SinkMode.UPSERT}), transactional=True, idempotent=True)

    def open(self, context: abi.SinkContext) -> None:
        self.keys = context.keys
        super().open(context)

    def stage(self, epoch: int, changes: pa.Table) -> str:
        self.given.append(changes.to_pylist())
        return super().stage(epoch, changes)


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        yield made


def events(session: DataflowSession) -> StreamingDataFrame:
    schema = pa.schema([("k", pa.string()), ("v", pa.int64())])
    tables = [pa.Table.from_pylist([dict(zip("kv", row, strict=True))], schema=schema) for row in ROWS]
    return session.read_stream(MemorySource(tables), "events")


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=str)


TOTALS = [("a", 4), ("b", 0), ("c", 0), (None, 6)]


def test_a_sink_that_keeps_a_row_for_each_key(session: DataflowSession) -> None:
    """The plan tells the keys: those of the aggregate, under the names that they have above it."""
    totals = events(session).group_by("k").agg(total=fn.sum("v").cast("BIGINT")).rename({"k": "key"})
    sink = Upserted()
    query = totals.write_stream(sink, epoch_rows_max=2)
    query.process_available()
    query.stop()
    assert sink.keys == ("key",)
    assert rows(sink.result()) == TOTALS
    # A row that is replaced is not told to go.
    assert all(row["diff"] == 1 for given in sink.given for row in given)
    assert all(len({row["key"] for row in given}) == len(given) for given in sink.given)


def test_a_key_that_goes_is_told_to_go(session: DataflowSession) -> None:
    totals = events(session).group_by("k").agg(total=fn.sum("v").cast("BIGINT")).filter(col("total") > 0)
    sink = Upserted()
    query = totals.write_stream(sink, epoch_rows_max=1)
    query.process_available()
    query.stop()
    assert rows(sink.result()) == [("a", 4), (None, 6)]
    assert {(row["k"], row["diff"]) for given in sink.given for row in given if row["diff"] < 0} == {("b", -1)}


def test_keys_that_are_asked_for(session: DataflowSession, tmp_path: Path) -> None:
    """A table is kept by its keys: rows that stood in it from before are replaced by them."""
    path = tmp_path / "kept.duckdb"
    for _ in range(2):
        totals = events(session).group_by("k").agg(total=fn.sum("v").cast("BIGINT"))
        query = totals.write_stream(TableSink("totals", path=path), keys=["k"], epoch_rows_max=3)
        query.process_available()
        query.stop()
    with DataflowSession(path=path) as kept:
        assert rows(kept.table("totals").to_arrow()) == TOTALS


def test_rows_that_share_a_key_are_refused(session: DataflowSession) -> None:
    query = events(session).write_stream(Upserted(), keys="k")
    with pytest.raises(DataError) as caught:
        query.process_available()
    assert caught.value.code == "stream.keys"


@pytest.mark.parametrize(
    ("options", "code"), [({"keys": ["kk"]}, "stream.keys"), ({}, "stream.output_mode")], ids=["unknown", "none"]
)
def test_what_has_no_keys(session: DataflowSession, options: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as caught:
        events(session).write_stream(Upserted(), **options)
    assert caught.value.code == code
