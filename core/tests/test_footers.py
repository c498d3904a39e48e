"""Footers of Parquet files are kept between queries, and never used for a file that has changed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from velaria_core import DataflowSession, InputError
from velaria_core.execution.footers import Footers
from velaria_core.execution.lower import lower


def write(file: Path, value: int) -> None:
    """One row, in place: the file keeps its inode and its size, and often the second of its change."""
    pq.write_table(pa.table({"a": [value]}), file)


def test_a_file_that_stays_the_same_is_trusted(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write(file, 1)
    footers = Footers()
    assert footers.may_be_kept([str(file)])
    assert footers.may_be_kept([str(file)])


def test_a_file_that_changed_is_not_trusted_again(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write(file, 1)
    footers = Footers()
    assert footers.may_be_kept([str(file)])
    write(file, 2)
    assert not footers.may_be_kept([str(file)])
    assert not footers.may_be_kept([str(file)])
    file.unlink()
    assert not footers.may_be_kept([str(file)])


def test_files_must_be_named() -> None:
    assert not Footers().may_be_kept([])


@pytest.mark.parametrize("by", ["frame", "sql"])
def test_a_rewritten_file_is_read_anew(tmp_path: Path, by: str) -> None:
    """The answer comes from the statistics in the footer alone."""
    file = tmp_path / "a.parquet"
    write(file, 0)
    with DataflowSession() as session:
        frame = session.read_parquet(file)
        session.create_temp_view("t", frame)
        for value in range(1, 6):
            write(file, value)
            view = frame if by == "frame" else session.sql("SELECT a FROM t")
            session.create_temp_view("v", view)
            assert session.sql("SELECT min(a) AS low, max(a) AS high FROM v").to_rows() == [
                {"low": value, "high": value}
            ]


def test_a_file_opened_again_has_its_new_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write(file, 1)
    with DataflowSession() as session:
        assert session.read_parquet(file).to_rows() == [{"a": 1}]
        pq.write_table(pa.table({"b": [2]}), file)
        assert session.read_parquet(file).to_rows() == [{"b": 2}]


def test_a_file_that_is_gone_is_missed(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write(file, 1)
    with DataflowSession() as session:
        frame = session.read_parquet(file)
        assert frame.count() == 1
        file.unlink()
        with pytest.raises(InputError) as caught:
            frame.count()
        assert caught.value.code == "file.not_found"


def test_only_files_that_are_known_all_are_kept(tmp_path: Path) -> None:
    """What the engine opens by itself, from the middle of a text, is not looked after and must not be kept."""
    file = tmp_path / "a.parquet"
    write(file, 1)
    with DataflowSession() as session:
        session.create_temp_view("t", session.read_parquet(file))
        assert lower(session.sql("SELECT a FROM t WHERE a > 0").node).files == (str(file),)
        assert lower(session.sql("SELECT a FROM t WHERE a = (SELECT max(a) FROM t)").node).files == (str(file),)
        named = session.sql(f"SELECT a, (SELECT max(read_parquet.a) FROM read_parquet('{file}')) AS m FROM t")
        assert named.to_rows() == [{"a": 1, "m": 1}]
        hidden = session.sql(f"SELECT a, (SELECT max(num_rows) FROM parquet_file_metadata('{file}')) AS m FROM t")
        assert hidden.to_rows() == [{"a": 1, "m": 1}]
        assert lower(hidden.node).files == ()
