"""Random tables, and queries over them whose result does not depend on chance."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

# Fractions are sums of halves: any order of adding them gives the same sum.
_VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "i": (pa.int64(), st.integers(-3, 5)),
    "k": (pa.int32(), st.integers(0, 4)),
    "f": (pa.float64(), st.sampled_from([0.0, -0.0, 0.5, -1.5, 2.0, float("inf")])),
    "d": (pa.decimal128(8, 2), st.sampled_from([Decimal("0.00"), Decimal("1.50"), Decimal("-2.25")])),
    "t": (pa.string(), st.sampled_from(["", "a", "A", "it's", "é", "数据"])),
    "b": (pa.bool_(), st.booleans()),
    "l": (pa.list_(pa.int64()), st.lists(st.none() | st.integers(0, 2), max_size=2)),
}


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 12) -> pa.Table:
    """A table of a few rows, every value NULL now and then."""
    rows = draw(st.lists(st.tuples(*(st.none() | value for _, value in _VALUES.values())), max_size=max_rows))
    schema = pa.schema([pa.field(name, kind) for name, (kind, _) in _VALUES.items()])
    return pa.Table.from_arrays(
        [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(schema)], schema=schema
    )


_KEYS = ["k", "t", "b", "d", "f", "l", "k, t", "f, b", "k % 2"]
_CALLS = [
    "count(*)",
    "count(i)",
    "sum(i)",
    "sum(f)",
    "sum(d)",
    "avg(i)",
    "avg(d)",
    "min(t)",
    "max(f)",
    "max(d)",
    "min(l)",
    "bool_and(b)",
    "count_if(b)",
    "median(i)",
    "quantile_disc(i, 0.3)",
    "bit_or(i)",
    "count(DISTINCT i)",
    "sum(DISTINCT k)",
    "sum(i) FILTER (WHERE b)",
    "var_pop(k)",
]
_ROWS = [
    "SELECT * FROM x",
    "SELECT * FROM x WHERE i > 0",
    "SELECT i + 1 AS i, k, f, d, t, b, l FROM x WHERE t <> 'a'",
    "SELECT * FROM x UNION ALL SELECT * FROM y WHERE b",
    "SELECT x.i, y.k, x.f, y.d, y.t, x.b, x.l FROM x JOIN y ON x.k = y.k",
    "SELECT x.i, y.k, x.f, y.d, y.t, x.b, x.l FROM x LEFT JOIN y ON x.t = y.t AND x.i = y.i",
    "SELECT x.i, y.k, x.f, y.d, y.t, x.b, x.l FROM x FULL JOIN y ON x.k = y.k",
    "SELECT a.* FROM x AS a JOIN x AS b ON a.i = b.k",
    "SELECT * FROM x WHERE k IN (SELECT k FROM y)",
    "SELECT * FROM x WHERE NOT EXISTS (SELECT 1 FROM y WHERE y.i = x.i)",
    "SELECT DISTINCT * FROM x",
    "SELECT * FROM x EXCEPT SELECT * FROM y",
    "SELECT unnest(l) AS i, k, f, d, t, b, l FROM x",
    "SELECT i, k, f, d, t, b, l FROM x QUALIFY row_number() OVER (PARTITION BY k ORDER BY i, f, d, t, b, l) = 1",
    "SELECT * FROM x ORDER BY ALL LIMIT 3",
    "SELECT * FROM (SELECT k, max(i) AS i, sum(f) AS f, max(d) AS d, min(t) AS t, bool_or(b) AS b, max(l) AS l "
    "FROM x GROUP BY k) WHERE i IS NOT NULL",
]


@st.composite
def queries(draw: st.DrawFn) -> str:
    """A SELECT over x and y."""
    rows = draw(st.sampled_from(_ROWS))
    kind = draw(st.sampled_from(["rows", "rows", "all", "keys", "keys", "keys", "sets", "top"]))
    calls = draw(st.lists(st.sampled_from(_CALLS), min_size=1, max_size=3, unique=True))
    listed = ", ".join(f"{one} AS c{at}" for at, one in enumerate(calls))
    match kind:
        case "all":
            return f"SELECT {listed} FROM ({rows})"
        case "keys":
            keys = draw(st.sampled_from(_KEYS))
            having = draw(st.sampled_from(["", " HAVING count(*) > 1"]))
            return f"SELECT {keys}, {listed} FROM ({rows}) GROUP BY {keys}{having}"
        case "sets":
            return f"SELECT k, b, {listed} FROM ({rows}) GROUP BY GROUPING SETS ((k), (b), ())"
        case "top":
            return f"SELECT k, {listed} FROM ({rows}) GROUP BY k ORDER BY ALL LIMIT 2"
    return rows


def bag(table: pa.Table) -> Counter[str]:
    """Rows without an order; -0.0 is 0.0, and floating point numbers are compared by twelve digits."""
    return Counter(str([_plain(value) for value in row.values()]) for row in table.to_pylist())


def _plain(value: Any) -> Any:
    return f"{value + 0.0:.12g}" if isinstance(value, float) else value
