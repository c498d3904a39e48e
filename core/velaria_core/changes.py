"""Changes: rows that come and go. An Arrow table whose last column, where it has one, counts how often.

An append-only table has no such column: every row comes once. The sum of all changes so far, row by row, is the
result (a Z-set: McSherry et al., Differential Dataflow, CIDR 2013; Budiu et al., DBSP, VLDB 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DIFF: Final = "__diff"
DIFF_FIELD: Final = pa.field(DIFF, pa.int64())


def has_diff(table: pa.Table | pa.Schema) -> bool:
    """Whether rows carry how often they come (+) or go (-)."""
    schema = table.schema if isinstance(table, pa.Table) else table
    return len(schema) > 0 and schema.names[-1] == DIFF


def with_diff(table: pa.Table, diff: int = 1) -> pa.Table:
    """The table with a diff column; what has one already stays as it is."""
    if has_diff(table):
        return table
    return table.append_column(DIFF_FIELD, constant(diff, table.num_rows))


def constant(value: int, rows: int) -> pa.Array:
    """An int64 column of one value. Made from a buffer: pyarrow loads pandas to convert a Python value, in 1 s."""
    return pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(np.full(rows, value, np.int64))])


def negated(table: pa.Table) -> pa.Table:
    """The changes that undo these."""
    table = with_diff(table)
    return table.set_column(table.num_columns - 1, DIFF_FIELD, pc.negate(table.column(DIFF)))


def going_first(table: pa.Table) -> pa.Table:
    """Changes with those that go before those that come, so that a sink which looks for what it removes finds it.

    Nothing is copied where they are so already.
    """
    going = table.column(DIFF).to_numpy() < 0
    count = int(np.count_nonzero(going))
    if going[:count].all():
        return table
    order = np.concatenate([np.flatnonzero(going), np.flatnonzero(~going)])
    return table.take(pa.Array.from_buffers(pa.int64(), len(order), [None, pa.py_buffer(order)]))


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Changes one after the other; columns by position, names of the first. No rows are copied.

    Append-only tables stay so when all of them are.
    """
    if len(tables) == 1:
        return tables[0]
    if any(has_diff(table) for table in tables):
        tables = [with_diff(table) for table in tables]
    names = tables[0].schema.names
    return pa.concat_tables([table.rename_columns(names) for table in tables])
