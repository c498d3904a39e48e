"""TPC-H: all 22 queries give the engine's own answers, exactly: as SQL, and where written so as DataFrame calls.

The tables are generated at a scale at which no answer is empty or NULL, 300,000 line items.
"""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import tpch_frames

from velaria_core import DataflowSession, DataFrame

SCALE = "0.05"
TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")
TEXTS = {int(file.stem[1:]): file.read_text() for file in sorted(Path(__file__).with_name("tpch").glob("q*.sql"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight tables as Parquet files."""
    made = tmp_path_factory.mktemp("tpch")
    generator = Path(sysconfig.get_path("scripts"), "tpchgen-cli")
    subprocess.run([generator, "parquet", "--scale-factor", SCALE, "--output-dir", made], check=True)
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The engine without Velaria, views over the files."""
    with duckdb.connect() as connection:
        for name in TABLES:
            connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{folder / name}.parquet')")
        yield connection


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[DataflowSession]:
    with DataflowSession() as opened:
        for name in TABLES:
            opened.create_temp_view(name, opened.read_parquet(folder / f"{name}.parquet"))
        yield opened


@pytest.fixture(scope="module")
def frames(session: DataflowSession) -> dict[str, DataFrame]:
    return {name: session.table(name) for name in TABLES}


def assert_same(ours: pa.Table, theirs: pa.Table) -> None:
    """Same types, same values, same order of rows; an unnamed result is named by each side as it likes."""
    assert ours.schema.types == theirs.schema.types
    for our_name, their_name in zip(ours.column_names, theirs.column_names, strict=True):
        assert our_name == their_name or "(" in their_name
    assert ours.rename_columns(theirs.column_names).to_pylist() == theirs.to_pylist()
    assert theirs.num_rows > 0
    assert theirs.column(theirs.num_columns - 1).null_count == 0, "a NULL would be equal without being right"


def test_all_queries_are_there() -> None:
    assert list(TEXTS) == list(range(1, 23))


@pytest.mark.parametrize("number", TEXTS)
def test_sql_gives_the_engines_answer(number: int, session: DataflowSession, engine: duckdb.DuckDBPyConnection) -> None:
    assert_same(session.sql(TEXTS[number]).to_arrow(), engine.sql(TEXTS[number]).to_arrow_table())


@pytest.mark.parametrize("number", tpch_frames.QUERIES)
def test_frame_gives_the_engines_answer(
    number: int, frames: dict[str, DataFrame], engine: duckdb.DuckDBPyConnection
) -> None:
    ours = tpch_frames.QUERIES[number](frames).to_arrow()
    theirs = engine.sql(TEXTS[number]).to_arrow_table()
    assert_same(ours.rename_columns(theirs.column_names), theirs)
