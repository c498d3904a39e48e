"""Parquet and Arrow IPC: files, streams, Feather, folders of partitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from files_support import Desk, types_of

from velaria_core.errors import DataError
from velaria_core.execution import files

TABLE = pa.table(
    {
        "id": pa.array([1, 2, None], pa.int64()),
        "name": pa.array(["a", None, "c"]),
        "vector": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "amount": pa.array([1, None, 3], pa.decimal128(10, 2)),
        "at": pa.array([0, 1, None], pa.timestamp("us")),
        "ok": pa.array([True, None, False]),
    }
)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


def stream(path: Path, table: pa.Table) -> Path:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def test_parquet(desk: Desk) -> None:
    path = desk.folder / "t.parquet"
    pa.parquet.write_table(TABLE.drop_columns("vector"), path)
    opened = files.read_parquet(desk.engine, path)
    assert desk.table(opened).equals(TABLE.drop_columns("vector"))
    assert opened.relation.kind == "parquet"
    assert desk.rows(opened, "SELECT name FROM {} WHERE id = 1") == [{"name": "a"}]


def test_parquet_folders_are_partitions(desk: Desk) -> None:
    for year in (2023, 2024):
        folder = desk.folder / "sales" / f"year={year}"
        folder.mkdir(parents=True)
        pa.parquet.write_table(pa.table({"x": [year % 100]}), folder / "part.parquet")
    opened = files.read_parquet(desk.engine, desk.folder / "sales")
    assert desk.rows(opened, "SELECT x, year FROM {} WHERE year = 2024") == [{"x": 24, "year": 2024}]


def test_parquet_of_other_columns(desk: Desk) -> None:
    first, second = desk.folder / "a.parquet", desk.folder / "b.parquet"
    pa.parquet.write_table(pa.table({"x": [1], "y": [2]}), first)
    pa.parquet.write_table(pa.table({"x": [3]}), second)
    with pytest.raises(DataError, match="lacks y") as caught:
        files.read_parquet(desk.engine, [first, second])
    assert caught.value.code == "file.mixed_schemas"
    joined = files.read_parquet(desk.engine, [first, second], union_by_name=True)
    assert desk.rows(joined) == [{"x": 1, "y": 2}, {"x": 3, "y": None}]


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_arrow_files_and_feather(desk: Desk, compression: str) -> None:
    path = desk.folder / "t.feather"
    pa.feather.write_feather(TABLE, str(path), compression=compression)
    opened = files.read_arrow(desk.engine, path)
    assert desk.table(opened).equals(TABLE)
    assert types_of(opened)["vector"] == "float32[2]"
    assert desk.rows(opened, "SELECT name FROM {} WHERE id = 1") == [{"name": "a"}]


def test_arrow_streams_can_be_scanned_again_and_twice(desk: Desk) -> None:
    path = stream(desk.folder / "t.arrows", TABLE)
    opened = files.read_arrow(desk.engine, path)
    for _ in range(2):
        assert desk.table(opened).equals(TABLE)
    assert desk.rows(opened, "SELECT count(*) AS n FROM {0} a JOIN {0} b ON a.id = b.id") == [{"n": 2}]


def test_several_arrow_files(desk: Desk) -> None:
    small = pa.table({"x": [1, 2]})
    streams = [stream(desk.folder / f"{name}.arrows", small) for name in "ab"]
    assert desk.rows(files.read_arrow(desk.engine, streams), "SELECT sum(x) AS s FROM {}") == [{"s": 6}]
    for name in "cd":
        pa.feather.write_feather(small, str(desk.folder / f"{name}.arrow"))
    assert desk.rows(files.read_arrow(desk.engine, f"{desk.folder}/*.arrow"), "SELECT sum(x) AS s FROM {}") == [
        {"s": 6}
    ]
    with pytest.raises(DataError, match="some files are Arrow streams"):
        files.read_arrow(desk.engine, [streams[0], desk.folder / "c.arrow"])
    stream(desk.folder / "e.arrows", pa.table({"y": [1]}))
    with pytest.raises(DataError, match="other columns"):
        files.read_arrow(desk.engine, [streams[0], desk.folder / "e.arrows"])


def test_dictionaries_and_large_strings_are_text(desk: Desk) -> None:
    table = pa.table(
        {"d": pa.array(["x", "y", "x"]).dictionary_encode(), "l": pa.array(["a", "b", "c"], pa.large_string())}
    )
    path = stream(desk.folder / "t.arrows", table)
    opened = files.read_arrow(desk.engine, path)
    assert types_of(opened) == {"d": "string", "l": "string"}
    assert desk.rows(opened, "SELECT count(*) AS n FROM {} WHERE d = 'x'") == [{"n": 2}]


@pytest.mark.parametrize(("format", "keep"), [("parquet", 0.5), ("feather", 0.5), ("arrows", 0.01)])
def test_files_that_are_cut_off(desk: Desk, format: str, keep: float) -> None:  # noqa: A002 -- the suffix
    path = desk.folder / f"t.{format}"
    table = pa.table({"x": list(range(10_000))})
    if format == "parquet":
        pa.parquet.write_table(table, path)
    elif format == "feather":
        pa.feather.write_feather(table, str(path))
    else:
        stream(path, table)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError) as caught:
        desk.rows(files.read(desk.engine, path), "SELECT sum(x) AS s FROM {}")
    assert caught.value.code == "file.truncated"
    assert caught.value.place is not None
    assert caught.value.place.file == str(path)


def test_damaged_parquet(desk: Desk) -> None:
    path = desk.folder / "t.parquet"
    pa.parquet.write_table(pa.table({"x": list(range(10_000))}), path)
    whole = bytearray(path.read_bytes())
    whole[-40:-12] = b"\xff" * 28
    path.write_bytes(whole)
    with pytest.raises(DataError) as caught:
        desk.rows(files.read_parquet(desk.engine, path))
    assert caught.value.code in ("file.invalid", "file.truncated")


def test_other_formats_are_refused(desk: Desk) -> None:
    path = desk.write("t.csv", "a\n1\n")
    with pytest.raises(DataError, match="is not Parquet"):
        files.read_parquet(desk.engine, path)
    with pytest.raises(DataError, match="is not an Arrow file"):
        files.read_arrow(desk.engine, path)
    parquet = desk.folder / "t.parquet"
    pa.parquet.write_table(pa.table({"x": [1]}), parquet)
    with pytest.raises(DataError, match="is Parquet, not text") as caught:
        files.read_csv(desk.engine, parquet)
    assert "read_parquet" in (caught.value.hint or "")
