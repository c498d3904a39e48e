"""Changelog: rows that come and go, as a table that says how often in its column `diff`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.contract.abi import DIFF
from velaria_core.errors import InputError
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.sources.tables import DIFF_FIELD, arrow_table


class ChangelogSource(MemorySource):
    """The changes of tables in memory, one after another; rows of which none comes or goes are left out.

    Args:
        changes: a table or several of one schema.
        diff: the column that counts: > 0 rows that come, < 0 rows that go; any integer type, anywhere in the table.
        time_column: the column of event times.

    Raises:
        InputError[source.schema]: there is no such column, it is no integer, or is NULL somewhere.
    """

    def __init__(self, changes: Any, *, diff: str = DIFF, time_column: str | None = None) -> None:
        several = isinstance(changes, Iterable) and not hasattr(changes, "__arrow_c_stream__")
        tables = [arrow_table(item) for item in (changes if several else [changes])]
        super().__init__([_signed(table, diff) for table in tables], append_only=False, time_column=time_column)


def _signed(table: pa.Table, diff: str) -> pa.Table:
    """The table with its counts in the last column, as the contract names it."""
    if table.schema.names.count(diff) != 1:
        raise InputError("source.schema", f'changes have one column "{diff}" that counts them', hint="diff=...")
    counts = table.column(diff)
    if not pa.types.is_integer(counts.type) or counts.null_count:
        told = f'"{diff}" is a whole number in every row, here it is {counts.type} with {counts.null_count} NULLs'
        raise InputError("source.schema", told)
    rest = table.drop_columns([diff])
    if DIFF in rest.schema.names:
        raise InputError("source.schema", f'a column "{DIFF}" beside "{diff}"', hint="rename it")
    signed = rest.append_column(DIFF_FIELD, counts.cast(pa.int64()))
    return signed.filter(pc.not_equal(signed.column(DIFF), 0))
