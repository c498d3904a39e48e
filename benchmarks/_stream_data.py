"""The events of the stream benchmarks as Parquet files, made once: Nexmark's, and two columns of keys.

Every table that a query reads has `rows` rows in all, so that a query over people and auctions is as long as one over
bids. FOLDER/<table>.parquet are the tables. FOLDER/milliseconds/<query>/<table>.parquet have the columns that a query
reads, times as whole numbers of milliseconds; FOLDER/pieces are the tables cut into files of a million rows, and
FOLDER/warm is all of it for a few rows, to run once before. No time is finer than a millisecond.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _stream import WORKLOADS

# The generator is among the tests of the queries.
sys.path.insert(0, str(Path(__file__).parent.parent / "core" / "tests"))
from nexmark_events import EPOCH, NAMES, SCHEMAS, Nexmark

_CHUNK = 500_000
_PIECE = 1_000_000
_ROW_GROUP = 65_536
_WARM = 131_072
_KEYS = {"keys_1k": 1_000, "keys_1m": 1_000_000}
_SHARE = {"person": 1, "auction": 3, "bid": EPOCH - 4}


def default_cache() -> Path:
    """Where generated events stay between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "velaria", "streams")


def events_folder(cache: Path, rows: int) -> Path:
    """The folder with the tables; generated at the first call, 5 million rows in half a minute and 1 GB."""
    folder = cache / f"rows-{rows}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=cache, prefix=".partial-"))
    try:
        for target, count in ((partial, rows), (partial / "warm", min(rows, _WARM))):
            for name in (*NAMES, *_KEYS):
                _write(target, name, _tables(name, count))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _tables(name: str, rows: int) -> Iterator[pa.Table]:
    if name in _KEYS:
        yield from _keys(_KEYS[name], rows)
        return
    # People and auctions are read together: of four rows one is a person.
    wanted = rows if name == "bid" else rows * _SHARE[name] // 4
    first = 0
    while wanted > 0:
        table = Nexmark().events(first, _CHUNK, kinds=(name,))[name].slice(0, wanted)
        yield _whole_milliseconds(table)
        wanted -= table.num_rows
        first += _CHUNK


def _keys(distinct: int, rows: int) -> Iterator[pa.Table]:
    """Keys in random order, as even as dice make them."""
    chance = np.random.default_rng(distinct)
    texts = pa.array([f"user-{number:07}" for number in range(distinct)])
    for first in range(0, rows, _CHUNK):
        which = chance.integers(0, distinct, min(_CHUNK, rows - first))
        yield pa.table({"key": texts.take(pa.array(which))})


def _write(folder: Path, name: str, tables: Iterator[pa.Table]) -> None:
    schema = SCHEMAS.get(name, pa.schema([("key", pa.string())]))
    (folder / "pieces" / name).mkdir(parents=True, exist_ok=True)
    piece: list[pa.Table] = []
    pieces = 0
    with ExitStack() as held:
        plain = held.enter_context(pq.ParquetWriter(folder / f"{name}.parquet", schema))
        narrow = []
        for workload in WORKLOADS.values():
            if columns := list(workload.reads.get(name, ())):
                file = folder / "milliseconds" / workload.name / f"{name}.parquet"
                file.parent.mkdir(parents=True, exist_ok=True)
                numbers = _in_milliseconds(schema.empty_table()).select(columns).schema
                narrow.append((held.enter_context(pq.ParquetWriter(file, numbers)), columns))
        for table in tables:
            plain.write_table(table, row_group_size=_ROW_GROUP)
            numbered = _in_milliseconds(table)
            for writer, columns in narrow:
                writer.write_table(numbered.select(columns), row_group_size=_ROW_GROUP)
            piece.append(table)
            if sum(part.num_rows for part in piece) >= _PIECE:
                pieces = _cut(folder, name, piece, pieces)
        if piece:
            _cut(folder, name, piece, pieces)


def _cut(folder: Path, name: str, piece: list[pa.Table], number: int) -> int:
    pq.write_table(
        pa.concat_tables(piece), folder / "pieces" / name / f"{number:05}.parquet", row_group_size=_ROW_GROUP
    )
    piece.clear()
    return number + 1


def _whole_milliseconds(table: pa.Table) -> pa.Table:
    for at, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            cut = table.column(at).cast(pa.timestamp("ms"), safe=False).cast(field.type)
            table = table.set_column(at, field.name, cut)
    return table


def _in_milliseconds(table: pa.Table) -> pa.Table:
    for at, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            whole = pc.divide(table.column(at).cast(pa.int64()), 1000)
            table = table.set_column(at, field.name, whole)
    return table
