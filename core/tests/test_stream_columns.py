"""Columns of a stream may be called what they like: `diff`, as the sign of changes is, among them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from velaria_core.contract.abi import Sink
from velaria_core.errors import InputError
from velaria_core.execution.sinks.csv_append import CsvAppendSink
from velaria_core.execution.sinks.file_set import FileSetSink, parts
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sinks.table import TableSink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.steps import held
from velaria_core.session import DataflowSession

BATCHES = [pa.table({"k": ["a", "b"], "v": [2, 3]}), pa.table({"k": ["a"], "v": [7]})]
RANGES = "SELECT k, max(v) - min(v) AS diff FROM live GROUP BY k"
FINAL = [{"k": "a", "diff": 5}, {"k": "b", "diff": 0}]
CHANGES = [
    {"k": "a", "diff": 0, "diff_1": 1},
    {"k": "b", "diff": 0, "diff_1": 1},
    {"k": "a", "diff": 0, "diff_1": -1},
    {"k": "a", "diff": 5, "diff_1": 1},
]


@pytest.fixture
def session() -> DataflowSession:
    made = DataflowSession(threads=1)
    made.create_temp_view("live", made.create_stream(BATCHES))
    return made


def run(session: DataflowSession, sink: Sink, sql: str = RANGES, **options: Any) -> None:
    query = session.stream_sql(sql).write_stream(sink, epoch_rows_max=2, **options)
    query.process_available()
    query.stop()


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row["k"]))


@pytest.mark.parametrize("options", [{}, {"keys": ["k"]}, {"output_mode": "complete"}], ids=str)
def test_a_result_with_a_column_diff(options: dict[str, Any], session: DataflowSession) -> None:
    sink = MemorySink()
    run(session, sink, **options)
    assert ordered(sink.result().to_pylist()) == FINAL
    if not options:
        first, second = (table.to_pylist() for table in sink.tables.values())
        assert [*ordered(first), *second] == CHANGES


def _table(session: DataflowSession, folder: Path) -> tuple[Sink, Callable[[], list[dict[str, Any]]]]:
    del folder
    return TableSink("ranges", engine=session._engine), lambda: session.sql("SELECT * FROM ranges").to_rows()


def _csv(session: DataflowSession, folder: Path) -> tuple[Sink, Callable[[], list[dict[str, Any]]]]:
    path = folder / "ranges.csv"
    return CsvAppendSink(session._engine, path), lambda: session.read_csv(path).to_rows()


def _parts(session: DataflowSession, folder: Path) -> tuple[Sink, Callable[[], list[dict[str, Any]]]]:
    def rows() -> list[dict[str, Any]]:
        return [json.loads(line) for part in parts(folder) for line in part.read_text().splitlines()]

    return FileSetSink(session._engine, folder, "json"), rows


@pytest.mark.parametrize("make", [_table, _csv, _parts])
def test_sinks_outside_take_a_column_diff(make: Any, session: DataflowSession, tmp_path: Path) -> None:
    sink, rows = make(session, tmp_path / "out" if make is _parts else tmp_path)
    run(session, sink, checkpoint_path=str(tmp_path / "state"))
    found = rows()
    assert ordered(found) == (FINAL if make is _table else ordered(CHANGES))


def test_a_materialized_view_with_a_column_diff(session: DataflowSession) -> None:
    session.sql("CREATE TABLE visits (k VARCHAR, v BIGINT)")
    session.sql(f"CREATE MATERIALIZED VIEW ranges AS {RANGES.replace('live', 'visits')}")
    session.sql("INSERT INTO visits VALUES ('a', 2), ('b', 3)")
    session.sql("INSERT INTO visits VALUES ('a', 7)")
    assert session.sql("SELECT * FROM ranges ORDER BY k").to_rows() == FINAL


@pytest.mark.parametrize("name", ["h", "k0", "s"])
def test_names_that_statements_use_are_free(
    name: str, session: DataflowSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what is kept is read again, and summed."""
    monkeypatch.setattr(held, "SLACK_ROWS", 0)
    schema = pa.schema([(name, pa.int64()), ("v", pa.int64())])
    batches = [([1, 2], [5, 6], [1, 1]), ([1, 1], [5, 7], [-1, 1]), ([1, 2], [7, 8], [-1, 1]), ([1], [9], [1])]
    tables = [pa.table([*columns], [name, "v", "diff"]) for columns in batches]
    source = MemorySource(schema=schema, append_only=False, bounded=False)
    sql = f'SELECT a."{name}", a.v, b.v AS w FROM live AS a JOIN live AS b ON a."{name}" = b."{name}"'
    found: Counter[tuple[Any, ...]] = Counter()
    for table in tables:
        source.add(table)
        session.create_temp_view("live", session.read_stream(source, "live"))
        sink = MemorySink()
        run(session, sink, sql, checkpoint_path=str(tmp_path))
        for *row, diff in (tuple(row.values()) for one in sink.tables.values() for row in one.to_pylist()):
            found[tuple(row)] += diff
    assert +found == Counter({(1, 9, 9): 1, (2, 6, 6): 1, (2, 6, 8): 1, (2, 8, 6): 1, (2, 8, 8): 1})


@pytest.mark.parametrize("name", ["__diff", "__N", "velaria times"])
def test_names_that_accounts_are_kept_in_are_refused(name: str, session: DataflowSession) -> None:
    with pytest.raises(InputError) as caught:
        run(session, MemorySink(), f'SELECT k, v AS "{name}" FROM live')
    assert caught.value.code == "stream.reserved_name"
