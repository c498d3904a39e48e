"""Frames: a chain of verbs gives the rows of the SQL that says the same, on the bare engine.

Each verb is drawn with its SQL: the frame before it is a subquery, so that the text is simple where lowering is clever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from properties.plans import NUMBERS, Made, expression
from properties.profile import examples
from properties.tables import COLUMNS, Kind, bag, tables
from velaria_core import Column, DataflowSession, DataFrame, col, fn
from velaria_core.logical.node import Node
from velaria_core.types import quoted


@dataclass(frozen=True)
class Both:
    """A frame, the SQL that says the same, and what its columns hold."""

    frame: DataFrame
    sql: str
    kinds: dict[str, Kind]

    @property
    def made(self) -> Made:
        node: Node = self.frame.node
        return Made(node, self.kinds)

    def of(self, *kinds: Kind) -> list[str]:
        return self.made.of(*kinds)

    def then(self, frame: DataFrame, sql: str, kinds: dict[str, Kind] | None = None) -> Both:
        return Both(frame, sql, self.kinds if kinds is None else kinds)


def listed(names: Any) -> str:
    return ", ".join(quoted(name) for name in names)


def some(draw: st.DrawFn, names: Any, low: int = 1, high: int = 3) -> list[str]:
    return draw(st.lists(st.sampled_from(list(names)), min_size=low, max_size=high, unique=True))


# --- verbs --------------------------------------------------------------------------------------------------


def _select(draw: st.DrawFn, both: Both) -> Both:
    columns: list[tuple[Column, Kind]] = []
    for at in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(Kind))
        columns.append((expression(draw, both.made, kind).alias(f"c{at}"), kind))
    shown = ", ".join(f"{column.sql()} AS {quoted(column.name)}" for column, _ in columns)
    kinds = {column.name: kind for column, kind in columns}
    return both.then(both.frame.select(*(c for c, _ in columns)), f"SELECT {shown} FROM ({both.sql})", kinds)


def _with_column(draw: st.DrawFn, both: Both) -> Both:
    kind = draw(st.sampled_from(Kind))
    value = expression(draw, both.made, kind)
    name = draw(st.sampled_from([*both.kinds, "neu"]))
    frame = both.frame.with_column(name, value)
    if name in both.kinds:
        sql = f"SELECT * REPLACE ({value.sql()} AS {quoted(name)}) FROM ({both.sql})"
    else:
        sql = f"SELECT *, {value.sql()} AS {quoted(name)} FROM ({both.sql})"
    return both.then(frame, sql, both.kinds | {name: kind})


def _filter(draw: st.DrawFn, both: Both) -> Both:
    condition = expression(draw, both.made, Kind.BOOL)
    frame = both.frame.filter(condition) if draw(st.booleans()) else both.frame.filter(condition.sql())
    return both.then(frame, f"SELECT * FROM ({both.sql}) WHERE {condition.sql()}")


def _drop(draw: st.DrawFn, both: Both) -> Both:
    names = some(draw, both.kinds, high=max(1, len(both.kinds) - 1))
    if len(names) == len(both.kinds):
        return both
    kinds = {name: kind for name, kind in both.kinds.items() if name not in names}
    return both.then(both.frame.drop(*names), f"SELECT {listed(kinds)} FROM ({both.sql})", kinds)


def _rename(draw: st.DrawFn, both: Both) -> Both:
    old = some(draw, both.kinds)
    pairs = dict(zip(old, draw(st.permutations(old)), strict=True))
    shown = ", ".join(f"{quoted(name)} AS {quoted(pairs.get(name, name))}" for name in both.kinds)
    kinds = {pairs.get(name, name): kind for name, kind in both.kinds.items()}
    return both.then(both.frame.rename(pairs), f"SELECT {shown} FROM ({both.sql})", kinds)


def _distinct(_draw: st.DrawFn, both: Both) -> Both:
    return both.then(both.frame.distinct(), f"SELECT DISTINCT * FROM ({both.sql})")


def _group(draw: st.DrawFn, both: Both) -> Both:
    keys = some(draw, both.kinds, low=0)
    number = draw(st.sampled_from([*both.of(*NUMBERS), ""]))
    any_column = draw(st.sampled_from(list(both.kinds)))
    metrics = {"n": fn.count(), "seen": fn.count(any_column), "most": fn.max(any_column)}
    kinds = {key: both.kinds[key] for key in keys}
    kinds |= {"n": Kind.INT, "seen": Kind.INT, "most": both.kinds[any_column]}
    if number:
        metrics |= {"total": fn.sum(number), "both": fn.sum(number) + fn.count()}
        kinds |= {"total": both.kinds[number], "both": both.kinds[number]}
    if len(kinds) < len(keys) + len(metrics):
        return both  # a key is called as a metric is
    shown = ", ".join([*map(quoted, keys), *(f"{metric.sql()} AS {name}" for name, metric in metrics.items())])
    by = f" GROUP BY {listed(keys)}" if keys else ""
    return both.then(both.frame.group_by(*keys).agg(**metrics), f"SELECT {shown} FROM ({both.sql}){by}", kinds)


def _computed_group(draw: st.DrawFn, both: Both) -> Both:
    # The key takes the name of a column that the metric reads as it was.
    if not (ints := both.of(Kind.INT)):
        return both
    name = draw(st.sampled_from(ints))
    frame = both.frame.group_by((col(name) % 2).alias(name)).agg(total=fn.sum(name))
    sql = f"SELECT {quoted(name)} % 2 AS {quoted(name)}, sum(t.{quoted(name)}) AS total FROM ({both.sql}) AS t"
    kinds = {name: Kind.INT, "total": Kind.INT}
    return both if name == "total" else both.then(frame, f"{sql} GROUP BY t.{quoted(name)} % 2", kinds)


def _first(draw: st.DrawFn, both: Both) -> Both:
    names = draw(st.permutations(list(both.kinds)))
    rising = draw(st.booleans())
    count, offset = draw(st.integers(0, 4)), draw(st.integers(0, 2))
    order = ", ".join(f"{quoted(name)}{'' if rising else ' DESC'} NULLS LAST" for name in names)
    frame = both.frame.order_by(*names, ascending=rising).limit(count, offset)
    return both.then(frame, f"SELECT * FROM ({both.sql}) ORDER BY {order} LIMIT {count} OFFSET {offset}")


def _union(draw: st.DrawFn, both: Both) -> Both:
    other = _filter(draw, both)
    if draw(st.booleans()):
        return both.then(both.frame.union(other.frame), f"({both.sql}) UNION ALL ({other.sql})")
    return both.then(both.frame.union(other.frame, distinct=True), f"({both.sql}) UNION ({other.sql})")


def _set(draw: st.DrawFn, both: Both) -> Both:
    other, distinct = _filter(draw, both), draw(st.booleans())
    every = "" if distinct else " ALL"
    if draw(st.booleans()):
        frame = both.frame.intersect(other.frame, distinct=distinct)
        return both.then(frame, f"({both.sql}) INTERSECT{every} ({other.sql})")
    return both.then(both.frame.except_(other.frame, distinct=distinct), f"({both.sql}) EXCEPT{every} ({other.sql})")


def _join(draw: st.DrawFn, both: Both) -> Both:
    if any(name.endswith("_right") for name in both.kinds):
        return both
    keys = some(draw, both.kinds, high=2)
    how = draw(st.sampled_from(["inner", "left", "right", "full", "semi", "anti"]))
    kept = list(dict.fromkeys([*keys, *some(draw, both.kinds, low=0)]))
    right = _filter(draw, both)
    other = right.frame.select(*kept)
    frame = both.frame.join(other, on=keys, how=how)
    rest = [name for name in kept if name not in keys]
    sql = f"({both.sql}) AS l {how.upper()} JOIN (SELECT {listed(kept)} FROM ({right.sql})) AS r USING ({listed(keys)})"
    if how in ("semi", "anti"):
        return both.then(frame, f"SELECT l.* FROM {sql}")
    # USING puts no table before a key: it is the value of the side that has one.
    shown = [quoted(name) if name in keys else f"l.{quoted(name)}" for name in both.kinds]
    shown += [f"r.{quoted(name)} AS {quoted(name + '_right')}" for name in rest]
    kinds = both.kinds | {name + "_right": both.kinds[name] for name in rest}
    return both.then(frame, f"SELECT {', '.join(shown)} FROM {sql}", kinds)


def _explode(draw: st.DrawFn, both: Both) -> Both:
    if not (lists := both.of(Kind.LIST)):
        return both
    name = draw(st.sampled_from(lists))
    shown = ", ".join(f"unnest({quoted(n)}) AS {quoted(n)}" if n == name else quoted(n) for n in both.kinds)
    return both.then(both.frame.explode(name), f"SELECT {shown} FROM ({both.sql})", both.kinds | {name: Kind.INT})


def _unpivot(draw: st.DrawFn, both: Both) -> Both:
    kind = both.kinds[draw(st.sampled_from(list(both.kinds)))]
    on = some(draw, both.of(kind))
    if {"name", "value"} & both.kinds.keys():
        return both
    nulls = draw(st.booleans())
    frame = both.frame.unpivot(on, include_nulls=nulls)
    # UNPIVOT in the standard form, which drops the kind of quotes that names may hold.
    kept = "".join(quoted(name) + ", " for name in both.kinds if name not in on)
    rows = " UNION ALL ".join(
        f"SELECT {kept}'{name.replace(chr(39), chr(39) * 2)}' AS name, {quoted(name)} AS value FROM ({both.sql})"
        for name in on
    )
    kinds = {name: k for name, k in both.kinds.items() if name not in on} | {"name": Kind.TEXT, "value": kind}
    return both.then(frame, rows if nulls else f"SELECT * FROM ({rows}) WHERE value IS NOT NULL", kinds)


def _pivot(draw: st.DrawFn, both: Both) -> Both:
    if not (texts := both.of(Kind.TEXT)) or {"a", "数据"} & both.kinds.keys():
        return both
    on, group = draw(st.sampled_from(texts)), some(draw, both.kinds, low=0, high=2)
    frame = both.frame.group_by(*group).pivot(on, ["a", "数据"], fn.count())
    cells = ", ".join(f"count(*) FILTER (WHERE {quoted(on)} = '{value}') AS \"{value}\"" for value in ("a", "数据"))
    shown = "".join(quoted(name) + ", " for name in group) + cells
    by = f" GROUP BY {listed(group)}" if group else ""
    kinds = {name: both.kinds[name] for name in group} | {"a": Kind.INT, "数据": Kind.INT}
    return both.then(frame, f"SELECT {shown} FROM ({both.sql}){by}", kinds)


def _window(draw: st.DrawFn, both: Both) -> Both:
    if not (times := both.of(Kind.TIME)) or "window_start" in both.kinds:
        return both
    name = draw(st.sampled_from(times))
    frame = both.frame.window(name, 600_000)
    start = f"TIMESTAMP '1970-01-01' + to_minutes(CAST(floor(epoch({quoted(name)}) / 600) * 10 AS BIGINT))"
    return both.then(
        frame, f"SELECT *, {start} AS window_start FROM ({both.sql})", both.kinds | {"window_start": Kind.TIME}
    )


def _over(draw: st.DrawFn, both: Both) -> Both:
    if "r" in both.kinds:
        return both
    partition = some(draw, both.kinds, low=0, high=1)
    order = draw(st.sampled_from(list(both.kinds)))
    frame = both.frame.with_column("r", fn.rank().over(partition, order_by=order))
    by = f"PARTITION BY {listed(partition)} " if partition else ""
    sql = f"SELECT *, rank() OVER ({by}ORDER BY {quoted(order)} NULLS LAST) AS r FROM ({both.sql})"
    return both.then(frame, sql, both.kinds | {"r": Kind.INT})


VERBS: tuple[Callable[[st.DrawFn, Both], Both], ...] = (
    _select,
    _with_column,
    _filter,
    _drop,
    _rename,
    _distinct,
    _group,
    _computed_group,
    _first,
    _union,
    _set,
    _join,
    _explode,
    _unpivot,
    _pivot,
    _window,
    _over,
)
_WIDTH_MAX = 14


@st.composite
def chains(draw: st.DrawFn, start: Both, length: int = 6) -> Both:
    """Some verbs, one after another."""
    made = start
    for _ in range(draw(st.integers(1, length))):
        if len(made.kinds) > _WIDTH_MAX:
            kept = list(made.kinds)[:8]
            kinds = {name: made.kinds[name] for name in kept}
            made = made.then(made.frame.select(*kept), f"SELECT {listed(kept)} FROM ({made.sql})", kinds)
        made = draw(st.sampled_from(VERBS))(draw, made)
    return made


# --- the property -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def bare() -> Iterator[duckdb.DuckDBPyConnection]:
    made = duckdb.connect(config={"threads": "1", "python_enable_replacements": "false"})
    yield made
    made.close()


@examples(120)
@given(st.data(), tables())
def test_a_chain_of_verbs_is_its_sql(
    session: DataflowSession, bare: duckdb.DuckDBPyConnection, data: st.DataObject, table: pa.Table
) -> None:
    bare.register("given", table)
    start = Both(session.create_dataframe(table), "SELECT * FROM given", dict(COLUMNS))
    both = data.draw(chains(replace(start)))
    note(both.sql)
    assert both.frame.columns == list(both.kinds)
    arrow = both.frame.to_arrow()
    assert arrow.schema.names == both.frame.columns
    rows = list(zip(*(column.to_pylist() for column in arrow.columns), strict=True))
    expected = bare.execute(both.sql).fetchall()
    assert bag(rows) == bag(expected)
    assert both.frame.count() == len(expected)
