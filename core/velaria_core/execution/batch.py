"""Running a plan in batch: to an Arrow table, to a stream of record batches, or into files and tables."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from velaria_core.errors import ExternalError, InputError
from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.lower import Lowered, lower
from velaria_core.execution.progress_bar import progress_bar
from velaria_core.logical.node import Node
from velaria_core.types import duckdb_type, holds, literal, quoted

READER_ROWS = 65_536
ARROW_SCHEMA = "'ARROW:schema'"


@contextmanager
def running(engine: Engine, root: Node) -> Iterator[tuple[Cursor, Lowered]]:
    """A cursor with the plan's Arrow data bound, and a progress bar for long work on a terminal."""
    lowered = lower(root)
    with engine.cursor(lowered.feeds, lowered.files) as cursor, progress_bar(cursor.progress):
        yield cursor, lowered


def table(engine: Engine, root: Node) -> pa.Table:
    """All rows of a plan, in memory."""
    with running(engine, root) as (cursor, lowered):
        return cursor.table(lowered.sql)


def reader(engine: Engine, root: Node) -> pa.RecordBatchReader:
    """The rows of a plan as record batches, computed as they are read; memory stays bounded.

    The reader holds a connection of its own until it is read to its end or dropped.
    """
    lowered = lower(root)
    with ExitStack() as opening:
        cursor = opening.enter_context(engine.cursor(lowered.feeds, lowered.files))
        with progress_bar(cursor.progress):
            inner = cursor.reader(lowered.sql, READER_ROWS)
        held = opening.pop_all()

    def batches() -> Iterator[pa.RecordBatch]:
        with held:
            found = cursor.batches(inner)
            # Up to the first rows it is the engine that takes its time; then the reader may be printing them.
            with progress_bar(cursor.progress):
                first = next(found, None)
            if first is not None:
                yield first
                yield from found

    return pa.RecordBatchReader.from_batches(inner.schema, batches())


def count(engine: Engine, root: Node) -> int:
    """How many rows a plan has, without making them."""
    with running(engine, root) as (cursor, lowered):
        return int(cursor.rows(f"SELECT count(*) FROM ({lowered.sql}) AS t1")[0][0])


def copy_to(engine: Engine, root: Node, path: str | os.PathLike[str], options: Mapping[str, str]) -> int:
    """Write a plan's rows to a file that appears whole or not at all.

    Args:
        options: of the engine's COPY, e.g. {"FORMAT": "parquet"}; values are SQL.
    Returns:
        Rows written.
    Raises:
        ExternalError[disk.full, file.io], InputError[file.is_directory]: nothing is left behind.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError("file.is_directory", f"{target} is a folder", hint="name a file in it")
    if not target.parent.exists():
        raise InputError("file.not_found", f"there is no folder {target.parent}", hint="create it first")
    if target.exists() and not target.is_file():
        raise InputError("file.not_regular", f"{target} is no regular file", hint="name a file")
    partial = target.with_name(f".{target.name.lstrip('.')}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with running(engine, root) as (cursor, lowered):
            sql, settings = lowered.sql, dict(options)
            if settings.get("FORMAT") == "parquet":
                sql, more = _for_parquet(sql, cursor.schema(sql))
                settings |= more
            elif settings.get("FORMAT") == "json":
                sql = _for_json(sql, cursor.schema(sql))
            given = ", ".join(f"{key} {value}" for key, value in settings.items())
            rows = cursor.execute(f"COPY ({sql}) TO {literal(str(partial))} ({given})")
        os.replace(partial, target)
    except OSError as error:
        raise ExternalError("file.io", f"writing {target}: {error.strerror}", cause=error) from error
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _for_json(sql: str, schema: pa.Schema) -> str:
    """A query whose floats JSON can hold: it has no number for NaN and the infinities, so they are texts."""
    floats = [quoted(field.name) for field in schema if pa.types.is_floating(field.type)]
    if not floats:
        return sql
    texts = "CASE WHEN isnan({0}) THEN 'NaN' WHEN {0} > 0 THEN 'Infinity' ELSE '-Infinity' END"
    spelt = (
        f"CASE WHEN isfinite({name}) THEN to_json({name}) "
        f"WHEN {name} IS NOT NULL THEN to_json({texts.format(name)}) END AS {name}"
        for name in floats
    )
    return f"SELECT * REPLACE ({', '.join(spelt)}) FROM ({sql}) AS t1"


def _for_parquet(sql: str, schema: pa.Schema) -> tuple[str, dict[str, str]]:
    """A query whose rows keep their types in Parquet, and the options that help.

    The engine would write a sum of int64 as double, and a vector as a list of any length; the first is cast, the
    second is told by the schema that Arrow's own writers add.
    """
    wide = [field for field in schema if holds(field.type, lambda kind: kind == pa.decimal128(38, 0))]
    if wide:
        casts = (f"CAST({quoted(field.name)} AS {duckdb_type(field.type)}) AS {quoted(field.name)}" for field in wide)
        sql = f"SELECT * REPLACE ({', '.join(casts)}) FROM ({sql}) AS t1"
    if not any(holds(field.type, pa.types.is_fixed_size_list) for field in schema):
        return sql, {}
    message = base64.b64encode(schema.serialize().to_pybytes()).decode()
    return sql, {"KV_METADATA": f"{{{ARROW_SCHEMA}: {literal(message)}}}"}
