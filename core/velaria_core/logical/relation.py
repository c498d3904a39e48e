"""Relation: what a scan reads, as the engine sees it. Files, Arrow data and stored tables all become one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Relation:
    """Rows that the engine can read by name or call. Compared by identity.

    Attributes:
        label: how explain names it, e.g. `csv flights.csv` or `table orders`.
        schema: its columns.
        sql: what stands after FROM: a quoted table name, or a call such as `read_parquet(['a.parquet'])`.
        kind: csv, line, json, parquet, arrow, table or values.
        feed: Arrow data that must be bound to the engine under the name in `sql`, or None.
        pushdown: what the reader itself takes over: any of projection, filter, limit. The engine does the rest.
        details: what explain adds, e.g. paths, delimiter, bytes.
        files: the files that `sql` reads each time; none where its rows are held, or are no files.
        indexes: the search indexes of the session whose stored table this is, or None.
        source: the source of a stream, as contract.abi has it; None for rows that are there.
    """

    label: str
    schema: pa.Schema
    sql: str
    kind: str
    feed: Any = None
    pushdown: frozenset[str] = frozenset({"projection"})
    details: tuple[tuple[str, str], ...] = field(default=())
    files: tuple[str, ...] = ()
    source: Any = None
    indexes: Any = None
