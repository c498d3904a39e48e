"""What sinks share: the result that changes add up to, how tables become files, and what a restart finds."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import cache
from itertools import count
from pathlib import Path

import pyarrow as pa

from velaria_core.contract.abi import SinkContext
from velaria_core.contract.modes import SinkMode
from velaria_core.errors import ExternalError, StateError
from velaria_core.execution import batch
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.outside import outside, sync_file
from velaria_core.logical.operators.scan import Scan
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

SIGNED = frozenset({SinkMode.UPSERT, SinkMode.RETRACT})  # the modes whose rows carry `diff`
_numbers = count(1)


def staged_schema(context: SinkContext) -> pa.Schema:
    """The columns of what `stage` is given."""
    if context.mode in SIGNED:
        return context.schema.append(pa.field(context.diff, pa.int64(), nullable=False))
    return context.schema


def folded(tables: Sequence[pa.Table], mode: SinkMode, keys: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The result that epochs of changes add up to; the order of rows is that of APPEND, else unspecified.

    Args:
        tables: one for each epoch, in order, in the form of `mode`.
        schema: of the rows, without `diff`.
    """
    if mode is SinkMode.REPLACE:
        tables = tables[-1:]
    if mode not in SIGNED or not tables:
        return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])
    epoch, diff = quoted("velaria epoch"), quoted(tables[0].schema.names[-1])
    numbered = pa.concat_tables(
        [
            table.append_column("velaria epoch", pa.repeat(pa.scalar(at, pa.int64()), table.num_rows))
            for at, table in enumerate(tables)
        ],
        promote_options="default",
    )
    columns = ", ".join(quoted(name) for name in schema.names)
    if mode is SinkMode.UPSERT:
        by = f"PARTITION BY {', '.join(map(quoted, keys))} " if keys else ""
        last = f"row_number() OVER ({by}ORDER BY {epoch} DESC, {diff} DESC)"
        sql = f"SELECT {columns} FROM changes QUALIFY {last} = 1 AND {diff} > 0"
    else:
        times = quoted("velaria times")
        sums = f"SELECT {columns}, CAST(sum({diff}) AS BIGINT) AS {times} FROM changes GROUP BY {columns}"
        sql = f"SELECT {columns} FROM (SELECT {columns}, unnest(range({times})) FROM ({sums}) WHERE {times} > 0)"
    with _engine().cursor({"changes": numbered}) as cursor:
        return cursor.table(sql).cast(schema)


@cache
def _engine() -> Engine:
    """One for the process: to open and close one takes 25 ms, longer than most results."""
    return Engine(Settings())


def write_file(engine: Engine, table: pa.Table, path: Path, options: dict[str, str]) -> None:
    """Write a table as a file that is on disk, whole, when this returns; `options` are those of `batch.copy_to`.

    Raises:
        ExternalError[disk.full, file.forbidden, file.io]: nothing is left behind; worth a retry when it is mended.
    """
    name = f"velaria_sink_{next(_numbers)}"
    relation = Relation("changes", table.schema, quoted(name), "arrow", table)
    try:
        batch.copy_to(engine, Scan(relation), path, options)
    except ExternalError as error:
        error.retryable = True
        raise
    with outside(f"writing {path}"):
        sync_file(path)


def staged_name(epoch: int, context: SinkContext) -> str:
    """A new name for what an epoch stages, which says whose it is."""
    return "-".join([f"{epoch:08d}", *_owner(context), uuid.uuid4().hex[:8]])


def is_left(name: str, context: SinkContext) -> bool:
    """Whether a `staged_name`, perhaps with something after it, is of an epoch of this query that never was.

    What another durable query left is its own: it may come back for it.
    """
    epoch, *owner = name.partition(".")[0].split("-")[:-1] or [""]
    return epoch.isdigit() and int(epoch) > context.last_epoch and owner == _owner(context)


def _owner(context: SinkContext) -> list[str]:
    return [context.state_id[:8]] if context.state_id else []


def refuse_if_ahead(where: str, found: int, context: SinkContext) -> None:
    """Invariant: a sink commits only what is durable in its query, so it is never ahead of it.

    Args:
        found: the last epoch of this query that the sink has.

    Raises:
        StateError[sink.ahead].
    """
    if 0 < context.last_epoch < found:
        raise StateError(
            "sink.ahead",
            f"{where} holds epoch {found}, the query's state ends at epoch {context.last_epoch}",
            hint="restore the newest checkpoint; queries on copies of one need each a place of their own",
        )


def staged_gone(where: str, epoch: int) -> StateError:
    """What an epoch staged is not there to be committed."""
    return StateError(
        "sink.staged_gone",
        f"what epoch {epoch} staged for {where} is not there any more",
        hint="start with an empty checkpoint_path and an empty place to write to",
    )
