"""Random tables: few values, so that joins match and groups form; NULL, NaN and Unicode among them.

Numbers are small, and fractions are sums of halves: any order of adding them gives the same result, so that two ways
to compute one answer can be compared exactly.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st


class Kind(Enum):
    """What a column holds, as far as an expression over it must know."""

    INT = "int"
    FLOAT = "float"
    DECIMAL = "decimal"
    TEXT = "text"
    TIME = "time"
    BOOL = "bool"
    LIST = "list"


_EPOCH = dt.datetime(1970, 1, 1)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.INT: st.integers(-3, 5),
    Kind.FLOAT: st.sampled_from([0.0, -0.0, 0.5, -1.5, 2.0, math.nan, math.inf]),
    Kind.DECIMAL: st.sampled_from([Decimal("0.00"), Decimal("1.50"), Decimal("-2.25"), Decimal("99.99")]),
    Kind.TEXT: st.sampled_from(["", "a", "A", "b", "null", "it's", "é", "数据", "🙂x", "1"]),
    Kind.TIME: st.integers(-7, 40).map(lambda n: _EPOCH + dt.timedelta(minutes=7 * n)),
    Kind.BOOL: st.booleans(),
    Kind.LIST: st.lists(st.none() | st.integers(0, 3), max_size=3),
}
ARROW: dict[Kind, pa.DataType] = {
    Kind.INT: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.DECIMAL: pa.decimal128(8, 2),
    Kind.TEXT: pa.string(),
    Kind.TIME: pa.timestamp("us"),
    Kind.BOOL: pa.bool_(),
    Kind.LIST: pa.list_(pa.int64()),
}

# Names that want quoting stand among plain ones.
COLUMNS: dict[str, Kind] = {
    "i": Kind.INT,
    "select": Kind.INT,
    "f": Kind.FLOAT,
    "d": Kind.DECIMAL,
    "名 字": Kind.TEXT,
    'q"t': Kind.TEXT,
    "at": Kind.TIME,
    "b": Kind.BOOL,
    "l": Kind.LIST,
}


def tables(columns: dict[str, Kind] | None = None, max_rows: int = 7) -> st.SearchStrategy[pa.Table]:
    """Arrow tables of these columns (`COLUMNS` by default), every value NULL now and then."""
    kinds = COLUMNS if columns is None else columns
    row = st.tuples(*(st.none() | VALUES[kind] for kind in kinds.values()))
    return st.lists(row, max_size=max_rows).map(lambda rows: table_of(kinds, rows))


def table_of(kinds: dict[str, Kind], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """The rows as an Arrow table."""
    schema = pa.schema([pa.field(name, ARROW[kind]) for name, kind in kinds.items()])
    columns = [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(schema)]
    return pa.Table.from_arrays(columns, schema=schema)


# --- rows compared ------------------------------------------------------------------------------------------


def canonical(value: Any) -> Any:
    """A value that compares and sorts as SQL has it: NaN equals itself, 0.0 equals -0.0, 1 and 1.00 are one number."""
    match value:
        case bool() | None:
            return repr(value)
        case float() if math.isnan(value):
            return "nan"
        case int() | float() | Decimal():
            return f"number {Decimal(value).normalize() + 0}"
        case list() | tuple():
            return str([canonical(item) for item in value])
        case dict():
            return str([(key, canonical(item)) for key, item in value.items()])
    return repr(value)


def row_list(rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Rows in their order, comparable."""
    return [tuple(canonical(value) for value in row) for row in rows]


def bag(rows: Iterable[Sequence[Any]]) -> Counter[tuple[Any, ...]]:
    """Rows without an order, each with its count."""
    return Counter(row_list(rows))


# --- histories ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Epoch:
    """The changes of one epoch: rows and how many of each come (+) or go (-)."""

    changes: tuple[tuple[tuple[Any, ...], int], ...]


def cuts(rows: int) -> st.SearchStrategy[list[int]]:
    """Where to cut `rows` rows into epochs: rising positions from 0 to `rows`; an epoch may be empty."""
    return st.lists(st.integers(0, rows), max_size=4).map(lambda inner: [0, *sorted(inner), rows])


@st.composite
def in_epochs(draw: st.DrawFn, table: pa.Table) -> list[pa.Table]:
    """The table cut into epochs, in order; together they are the table."""
    edges = draw(cuts(table.num_rows))
    return [table.slice(low, high - low) for low, high in pairwise(edges)]


@st.composite
def histories(draw: st.DrawFn, kinds: dict[str, Kind], max_changes: int = 10) -> list[Epoch]:
    """Inserts and retractions in epochs. Only a row that is there goes, so that every prefix is a table."""
    row = st.tuples(*(st.none() | VALUES[kind] for kind in kinds.values()))
    alive: list[tuple[Any, ...]] = []
    changes: list[tuple[tuple[Any, ...], int]] = []
    for _ in range(draw(st.integers(0, max_changes))):
        if len(alive) > 0 and draw(st.booleans()):
            changes.append((alive.pop(draw(st.integers(0, len(alive) - 1))), -1))
        else:
            alive.append(draw(row))
            changes.append((alive[-1], 1))
    edges = draw(cuts(len(changes)))
    return [Epoch(tuple(changes[low:high])) for low, high in pairwise(edges)]


def rows_after(history: Sequence[Epoch]) -> list[tuple[Any, ...]]:
    """The rows that are there at the end of a history."""
    counts: dict[tuple[Any, ...], int] = {}
    originals: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for epoch in history:
        for row, diff in epoch.changes:
            key = tuple(canonical(value) for value in row)
            originals.setdefault(key, row)
            counts[key] = counts.get(key, 0) + diff
    return [originals[key] for key, count in counts.items() for _ in range(count)]
