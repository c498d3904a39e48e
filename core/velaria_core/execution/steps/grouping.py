"""Grouping: an epoch's rows by key, with the partial columns of each key, for the steps that keep values by key.

One prepared statement runs the linear nodes below and groups what comes out of them, or arithmetic does, where
`Numbers` can. Of sliding windows that come out as they close the groups are panes, and the step makes windows of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from velaria_core.changes import DIFF
from velaria_core.execution.keyed_store import can_be_key, hashes_of, is_mixed
from velaria_core.execution.state import Feed, Store
from velaria_core.execution.steps.base import Step, query_of, relation_of
from velaria_core.execution.steps.numbers import Numbers
from velaria_core.execution.vectors import Array, Mask, Vector, floats_of, is_fixed, vector_of, whole
from velaria_core.execution.watermark import kept
from velaria_core.logical.expr import call, parse_expression, reference, replaced, to_sql
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.panes import Panes, panes_of
from velaria_core.logical.partials import Call, Final, Fold, Partial, Partials
from velaria_core.logical.query import Named, Query
from velaria_core.logical.relation import Relation
from velaria_core.types import duckdb_type, quoted

_ROWS, _PANE, _START, _END = "rows", "pane", "window_start", "window_end"


# --- the plan of a step -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metric:
    """An output column: how it is read, from which partial columns, by position."""

    final: Final
    columns: tuple[int, ...]
    kind: pa.DataType
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Grouping:
    """What a step does, with all types known.

    Attributes:
        keys: trees over the rows below, and types in which they are kept.
        partials: the columns to fold, and their types; equal ones of several calls are one.
        metrics: the output columns after the keys.
        rows: which partial column counts the rows of a key, where they can go again.
    """

    keys: tuple[tuple[Named, pa.DataType], ...]
    partials: tuple[tuple[Partial, pa.DataType], ...]
    metrics: tuple[tuple[str, Metric], ...]
    rows: int | None


def grouping(store: Store, rows: Query, partials: Partials, *, retracts: bool) -> Grouping | None:
    """The plan of a step over these rows; None where a type has no exact partials, or cannot be a key."""
    calls = [one for _, one in partials.calls]
    asked = [(f"k{at}", tree) for at, (_, tree) in enumerate(partials.keys)]
    asked += [(f"a{at}", one.argument) for at, one in enumerate(calls) if one.argument is not None]
    kinds = {field.name: field.type for field in store.schema(rows.projected(asked).sql())} if asked else {}
    keys = []
    for at, (name, tree) in enumerate(partials.keys):
        kind = kinds[f"k{at}"]
        if not can_be_key(kind):
            return None
        # -0.0 is 0.0 as a key, and what was shown must be retracted as it was shown.
        shown = replaced(parse_expression("x + 0"), {"x": tree}) if pa.types.is_floating(kind) else tree
        keys.append(((name, shown), kind))
    columns: dict[str, tuple[int, Partial]] = {}
    read: list[tuple[int, ...]] = []
    for at, one in enumerate(calls):
        found = one.partials(kinds.get(f"a{at}", pa.null()), retracts=retracts)
        if found is None:
            return None
        read.append(tuple(_position(columns, partial) for partial in found))
    counted = _position(columns, Call("count").partials(pa.null(), retracts=True)[0]) if retracts else None  # type: ignore[index]
    listed = [partial for _, partial in columns.values()]
    types = (
        [
            field.type
            for field in store.schema(
                rows.aggregated([], [(f"p{at}", one.tree) for at, one in enumerate(listed)]).sql()
            )
        ]
        if listed
        else []
    )
    if not all(is_fixed(kind) for kind in types):
        return None
    metrics = tuple(
        (name, _metric(one, positions, types[positions[0]]))
        for (name, one), positions in zip(partials.calls, read, strict=True)
    )
    return Grouping(tuple(keys), tuple(zip(listed, types, strict=True)), metrics, counted)


def _position(columns: dict[str, tuple[int, Partial]], partial: Partial) -> int:
    at, _ = columns.setdefault(f"{partial.fold} {to_sql(partial.tree)}", (len(columns), partial))
    return at


def _metric(one: Call, positions: tuple[int, ...], kind: pa.DataType) -> Metric:
    scale = kind.scale if pa.types.is_decimal(kind) else 0
    match one.final:
        case Final.COUNT:
            kind = pa.int64()
        case Final.SUM if one.function == "count_if":
            # The engine counts what is true in 128 bits.
            kind = pa.decimal128(38, 0)
        case Final.AVERAGE:
            kind = pa.float64()
        case Final.ANY | Final.ALL:
            kind = pa.bool_()
        case _:
            pass
    return Metric(one.final, positions, kind, scale)


def value(metric: Metric, columns: Sequence[Vector]) -> Vector:
    """The values of an output column, read from its partial columns."""
    first = columns[metric.columns[0]]
    if metric.final in (Final.COUNT, Final.EXTREME):
        return first
    counts = columns[metric.columns[1]].data
    counted: Mask = counts != 0
    valid = None if counted.all() else counted
    match metric.final:
        case Final.SUM:
            return Vector(first.data, valid)
        case Final.AVERAGE:
            sums = floats_of(first.data) if first.data.ndim == 2 else first.data
            divisors = np.where(counts == 0, 1, counts).astype(np.float64)
            if metric.scale:
                divisors *= 10.0**metric.scale
            return Vector(sums / divisors, valid)
        case Final.ANY:
            return Vector((first.data > 0).view(np.uint8), valid)
        case _:
            return Vector((first.data == counts).view(np.uint8), valid)


def differ(one: Vector, other: Vector) -> Mask:
    """Where two columns of values differ; NULL is NULL, and NaN is NaN."""
    unequal: Mask = one.data != other.data
    if unequal.ndim == 2:
        unequal = unequal[:, 0] | unequal[:, 1]
    elif one.data.dtype.kind == "f":
        unequal &= (one.data == one.data) | (other.data == other.data)
    if one.valid is None and other.valid is None:
        return unequal
    both = one.present & other.present
    found: Mask = (unequal & both) | (one.present != other.present)
    return found


# --- groups -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grouped:
    """Rows of distinct keys.

    Attributes:
        keys: columns k0, k1, ...
        others: (n,) uint64, the hashes of the keys that are not mixed; None where all are.
        columns: the partial columns.
        rows: (n,) how many rows each key has; one that is part of several windows counts in the first of them.
    """

    keys: pa.Table
    others: Array | None
    columns: list[Vector]
    rows: Array

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def hashes(self) -> Array:
        """(n,) uint64 of the keys."""
        return hashes_of(self.key_columns, self.others) if self.keys.num_columns else np.zeros(1, np.uint64)

    @property
    def key_columns(self) -> list[pa.Array]:
        """The keys, each column in one piece."""
        return [whole(column) for column in self.keys.columns]

    def take(self, mask: Mask) -> Grouped:
        """Where a mask is true."""
        columns = [column.take(mask) for column in self.columns]
        others = None if self.others is None else self.others[mask]
        return Grouped(kept(self.keys, mask), others, columns, self.rows[mask])


class Grouper:
    """Groups the rows of a step.

    Attributes:
        schema: of the keys k0, k1, ...
        impl_reason: what there is to say of how, after what the step says.
    """

    impl_reason = ""

    def __init__(self, store: Store, plan: Grouping, run: Sequence[Node], below: Step) -> None:
        self.plan = plan
        self._keys = len(plan.keys)
        self._empty = below.changes_schema.empty_table()
        self._feed, sql = statement_of(store, plan, run, below)
        self._statement = store.prepare(sql)
        self._columns = store.schema(sql)
        self.schema = pa.schema(list(self._columns)[: self._keys])
        trees = [(tree, kind) for (_, tree), kind in plan.keys]
        self._numbers = Numbers.of(trees, plan.partials, run, below.schema) if below.append_only else None

    def grouped(self, rows: pa.Table | None) -> Grouped:
        """A row for each key of these rows; without keys one of no rows too."""
        rows = self._empty if rows is None else rows
        made = None if self._numbers is None else self._numbers.grouped(rows)
        if made is None:
            made = [whole(column) for column in self._computed(rows).columns]
        keys, rest = made[: self._keys], [vector_of(column) for column in made[self._keys :]]
        count = len(self.plan.partials)
        others = rest[-1].data if len(rest) > count + 1 else None
        return Grouped(pa.Table.from_arrays(keys, schema=self.schema), others, rest[:count], rest[count].data)

    def _computed(self, rows: pa.Table) -> pa.Table:
        """The same by statement, as its columns."""
        self._feed.table = rows.select(self._feed.schema.names)
        return self._statement()


# --- the statement ------------------------------------------------------------------------------------------------


def statement_of(
    store: Store, plan: Grouping, run: Sequence[Node], below: Step, where: str = "true"
) -> tuple[Feed, str]:
    """The feed and the query that groups its rows: keys, partial columns, the number of rows (one that is part of
    several windows counts in the first of them), and a hash of the keys where the store does not make it itself.

    The feed has the columns that the query reads and no others: what passes by in Arrow costs nothing.

    Args:
        where: SQL over the columns below, of the rows that it is about.
    """
    feed = store.feed(below.changes_schema)
    sql = _grouped(store, plan, run, _some_of(feed, below, "*", where), below)
    read = _columns_read(store, sql, feed)
    if len(read) == len(feed.schema):
        return feed, sql
    feed = store.feed(pa.schema([below.changes_schema.field(name) for name in read]))
    columns = [
        quoted(field.name) if field.name in read else f"CAST(NULL AS {duckdb_type(field.type)}) AS {quoted(field.name)}"
        for field in below.changes_schema
    ]
    return feed, _grouped(store, plan, run, _some_of(feed, below, ", ".join(columns), where), below)


def _some_of(feed: Feed, below: Step, columns: str, where: str) -> Relation:
    sql = f"(SELECT {columns} FROM {feed.name} WHERE {where})"
    return Relation(feed.name, below.changes_schema, sql, "feed")


def rows_of(run: Sequence[Node], store: Store, below: Step) -> Query:
    """The rows that a run of linear nodes, the highest first, makes of the changes below, with their diff."""
    return _rows_of(run, relation_of(store.feed(below.changes_schema)), below)


def _rows_of(run: Sequence[Node], relation: Relation, below: Step) -> Query:
    node: Node = Scan(relation)
    for operator in reversed(run):
        node = operator.over([node], () if below.append_only else (DIFF,))
    return query_of(node)


def _grouped(store: Store, plan: Grouping, run: Sequence[Node], relation: Relation, below: Step) -> str:
    keys = [(f"k{at}", tree) for at, ((_, tree), _) in enumerate(plan.keys)]
    partials = [(f"p{at}", partial.tree) for at, (partial, _) in enumerate(plan.partials)]
    columns = [*partials, (_ROWS, call("count", exp.Star()))]
    panes = panes_of(run, keys, [tree for _, tree in partials])
    grouped = None if panes is None else _windows(store, plan, panes, _rows_of(panes.run, relation, below), columns)
    if grouped is None:
        grouped = _rows_of(run, relation, below).aggregated(keys, columns)
    kinds = [kind for _, kind in plan.keys]
    # In the type in which they are kept: the log that a restart reads has no other.
    shown = [(f"k{at}", _cast(f"k{at}", kind)) for at, kind in enumerate(kinds)]
    rest: list[Named] = [(name, reference(name)) for name, _ in columns]
    if (hashed := hash_of(kinds)) is not None:
        rest.append(("h", parse_expression(hashed)))
    return grouped.wrapped().projected([*shown, *rest]).sql()


def _windows(store: Store, plan: Grouping, panes: Panes, rows: Query, columns: Sequence[Named]) -> Query | None:
    """Rows grouped by pane, and the panes by the windows that they are part of; None for windows over dates, which
    cannot hold the start of a pane."""
    by_pane = rows.aggregated([(_PANE, reference(panes.pane)), *panes.others], columns)
    sql = by_pane.sql()
    schema = store.schema(sql)
    if pa.types.is_date(schema.field(_PANE).type):
        return None
    scan = Scan(Relation("panes", schema, f"({sql})", "feed"))
    windows = replace(panes.node, input=scan, time=_PANE, start=_START, end=_END)
    keys = [(f"k{at}", reference(panes.keys.get(f"k{at}", f"k{at}"))) for at in range(len(plan.keys))]
    merged = [(f"p{at}", _merged(f"p{at}", partial.fold, kind)) for at, (partial, kind) in enumerate(plan.partials)]
    once = exp.Filter(
        this=call("sum", reference(_ROWS)), expression=exp.Where(this=panes.in_first_window(_PANE, _START))
    )
    rows_once = replaced(parse_expression("CAST(coalesce(n, 0) AS BIGINT)"), {"n": once})
    return query_of(windows).aggregated(keys, [*merged, (_ROWS, rows_once)])


def _merged(name: str, fold: Fold, kind: pa.DataType) -> exp.Expr:
    if fold is not Fold.ADD:
        return call(fold.value, reference(name))
    # The sum of counts is wider than they are.
    return parse_expression(f"CAST(sum({name}) AS BIGINT)" if kind == pa.int64() else f"sum({name})")


def hash_of(kinds: Sequence[pa.DataType]) -> str | None:
    """SQL of the hash of those of the columns k0, k1, ... that the store does not hash itself, in the types in which
    they are kept; None where it hashes all."""
    columns = [f"CAST(k{at} AS {duckdb_type(kind)})" for at, kind in enumerate(kinds) if not is_mixed(kind)]
    return f"hash({', '.join(columns)})" if columns else None


def _cast(name: str, kind: pa.DataType) -> exp.Expr:
    return parse_expression(f"CAST({name} AS {duckdb_type(kind)})")


def _columns_read(store: Store, sql: str, feed: Feed) -> list[str]:
    """The columns of a feed that a query reads, as the engine plans it."""
    ((_, text),) = store.cursor.rows(f"EXPLAIN (FORMAT json) {sql}")
    scans: list[Any] = []
    pending = list(json.loads(text))
    while pending:
        node = pending.pop()
        pending.extend(node["children"])
        if node["name"].endswith("ARROW_SCAN"):
            scans.append(node["extra_info"].get("Projections"))
    if len(scans) != 1 or scans[0] is None:
        return list(feed.schema.names)
    named = {scans[0]} if isinstance(scans[0], str) else set(scans[0])
    return [name for name in feed.schema.names if name in named] or list(feed.schema.names)
