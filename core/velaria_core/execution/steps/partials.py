"""Partial steps: keyed aggregates and distinct rows, as values by key that each epoch folds its rows into.

One prepared statement runs the linear nodes below and groups what comes out of them: a row for each key of the epoch,
with its partial columns and its hash. These are folded into a `KeyedStore`, which knows the values before and after,
so the row that was shown is retracted and the new one inserted without asking anybody. No cost grows with the state.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from velaria_core.changes import DIFF, DIFF_FIELD
from velaria_core.execution.keyed_log import KeyedLog
from velaria_core.execution.keyed_store import Folded, KeyedStore, can_be_key
from velaria_core.execution.state import Feed, Store
from velaria_core.execution.steps.base import Changes, Moment, Step, query_of, relation_of, some
from velaria_core.execution.vectors import (
    Array,
    Mask,
    Rows,
    Vector,
    array_of,
    floats_of,
    integers,
    is_fixed,
    vector_of,
    whole,
)
from velaria_core.execution.watermark import TimeColumn, kept
from velaria_core.logical.event_time import END, Times
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


# --- the step -----------------------------------------------------------------------------------------------------


class PartialsStep(Step):
    """Values by key. In update mode what was shown for a key goes, what holds now comes, and nothing where they are the
    same. With `closing` a key comes out once, when event time has closed it, and nothing goes. Without calls a step
    gives distinct keys, which over rows that only come only come too.

    Attributes:
        splits_by: columns of the rows below by which they can be split among workers; none where all keys are computed.
    """

    is_net = True
    impl = "partials"
    splits_by: tuple[str, ...] = ()

    def __init__(
        self,
        store: Store,
        name: str,
        plan: Grouping,
        run: Sequence[Node],
        below: Step,
        times: Times,
        *,
        closing: bool = False,
    ) -> None:
        fields = [pa.field(key, kind) for (key, _), kind in plan.keys]
        fields += [pa.field(metric, one.kind) for metric, one in plan.metrics]
        bounds = [(f"k{at}", times[key]) for at, ((key, _), _) in enumerate(plan.keys) if key in times]
        only_adds = below.append_only and not plan.metrics
        self._closing = closing and bool(bounds) and not only_adds
        super().__init__(pa.schema(fields), only_adds or self._closing, [below])
        self._plan, self._keys = plan, len(plan.keys)
        how = "come out when event time closes them" if self._closing else "are folded in memory"
        self.impl_reason = f"values by key {how}" + ("" if self._keys else "; there is one key")
        self._feed, sql = statement_of(store, plan, run, below)
        self._statement = store.prepare(sql)
        grouped = store.schema(sql)
        self._times = [(TimeColumn(store, grouped, key, bound.kind), bound.span_us) for key, bound in bounds]
        kinds = [kind for _, kind in plan.keys]
        columns = [(partial.fold, kind) for partial, kind in plan.partials]
        self._kept = KeyedStore(kinds, columns, closes=bool(self._times))
        self._log: KeyedLog | None = None
        if store.durable:
            forgets = bool(self._times) or plan.rows is not None
            self._log = KeyedLog(store, name, self._kept, kinds, _hash(kinds), forgets=forgets)
            self._forget_empty()

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        self.late_dropped_rows = 0
        made: Changes = None
        if given is not None or (at.first and not self._keys):
            made = self._folded(given, at)
        closed = self._closed(at.watermark_us)
        return self._final(closed) if self._closing else made

    def _folded(self, given: Changes, at: Moment) -> Changes:
        """The changes that follow from rows."""
        grouped = self._grouped(self.inputs[0].changes_schema.empty_table() if given is None else given)
        closes = self._closes(grouped)
        if closes is not None and at.late_before_us is not None:
            grouped, closes = self._in_time(grouped, closes, at.late_before_us)
        if not grouped.num_rows:
            return None
        columns = [whole(column) for column in grouped.columns]
        keys = columns[1 : 1 + self._keys]
        vectors = [vector_of(column) for column in columns[1 + self._keys : 1 + self._keys + len(self._plan.partials)]]
        folded = self._kept.fold(vector_of(columns[0]).data, keys, vectors, closes)
        if self._log is not None:
            self._log.append(keys, folded)
        if self._plan.rows is not None and self._keys:
            self._kept.forget(folded.slots[folded.new[self._plan.rows].data == 0])
        return None if self._closing else self._shown(keys, folded, at)

    def _grouped(self, rows: pa.Table) -> pa.Table:
        """A row for each key of these rows: its hash, its values, its partial columns, and how many rows it has."""
        self._feed.table = rows.select(self._feed.schema.names)
        return self._statement()

    def _closes(self, grouped: pa.Table) -> Array | None:
        """When event time closes each key; never but at the end for one without a time."""
        found: Array | None = None
        for column, span_us in self._times:
            values, valid = column.of(grouped)
            closes = values + span_us if valid is None else np.where(valid, values + span_us, END)
            found = closes if found is None else np.minimum(found, closes)
        return found

    def _in_time(self, grouped: pa.Table, closes: Array, late_before_us: int) -> tuple[pa.Table, Array]:
        """Without the keys that were closed as the epoch began; a row that is in several counts once."""
        late = closes <= late_before_us
        if not late.any():
            return grouped, closes
        counts = vector_of(whole(grouped.column(grouped.num_columns - 1))).data
        self.late_dropped_rows = int(counts[late].sum())
        return kept(grouped, ~late), closes[~late]

    def _shown(self, keys: Sequence[pa.Array], folded: Folded, at: Moment) -> Changes:
        """What the fold changes in the rows that are shown."""
        plan = self._plan
        before, after = folded.known, np.ones(len(folded.slots), np.bool_)
        if not self._keys:
            before = ~after if at.first else after
        elif plan.rows is not None:
            counts = folded.new[plan.rows].data
            before, after = before & (folded.old[plan.rows].data > 0), counts > 0
        changed = before != after
        values = []
        for _, metric in plan.metrics:
            old, new = value(metric, folded.old), value(metric, folded.new)
            changed |= differ(old, new)
            values.append((metric.kind, old, new))
        coming = np.flatnonzero(changed & after)
        if self.append_only:
            return some(pa.Table.from_arrays([_taken(key, coming) for key in keys], schema=self.schema))
        going = np.flatnonzero(changed & before)
        if not len(going) and not len(coming):
            return None
        columns = [pa.chunked_array([_taken(key, going), _taken(key, coming)]) for key in keys]
        for kind, old, new in values:
            parts = [array_of(_part(old, going), kind), array_of(_part(new, coming), kind)]
            columns.append(pa.chunked_array(parts))
        diffs = np.ones(len(going) + len(coming), np.int64)
        diffs[: len(going)] = -1
        columns.append(pa.chunked_array([integers(diffs)]))
        return pa.Table.from_arrays(columns, schema=self.schema.append(DIFF_FIELD))

    def _closed(self, watermark_us: int | None) -> Rows:
        """The keys that this watermark closes; they are forgotten, for no row comes for them that is not late."""
        if not self._times or watermark_us is None:
            return np.empty(0, np.int64)
        slots = self._kept.closed(watermark_us)
        self._kept.forget(slots)
        return slots

    def _final(self, slots: Rows) -> Changes:
        """The rows of keys that have been closed."""
        columns = self._kept.values(slots)
        if self._plan.rows is not None:
            there = columns[self._plan.rows].data > 0
            slots, columns = slots[there], tuple(column.take(there) for column in columns)
        if not len(slots):
            return None
        values = [array_of(value(metric, columns), metric.kind) for _, metric in self._plan.metrics]
        return pa.Table.from_arrays([*self._kept.keys(slots), *values], schema=self.schema)

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        del now_ms
        return self._closing and watermark_us is not None and self._kept.closes_by(watermark_us)

    def _forget_empty(self) -> None:
        """Forget the keys of which no row is left."""
        if self._plan.rows is not None and self._keys:
            slots = self._kept.alive(0, self._kept.count)
            self._kept.forget(slots[self._kept.values(slots)[self._plan.rows].data == 0])
            self.committed()

    def restored(self, watermark_us: int | None) -> None:
        # What this watermark has closed is in the log, and done with.
        self._closed(watermark_us)
        self.committed()

    def state_rows(self) -> int:
        return self._kept.live

    def state_bytes(self) -> int:
        return self._kept.nbytes

    def committed(self) -> None:
        moved = self._kept.committed()
        if self._log is not None:
            self._log.committed(moved)

    def rolled_back(self) -> None:
        self._kept.rolled_back()
        if self._log is not None:
            self._log.rolled_back()


def _taken(array: pa.Array, rows: Rows) -> pa.Array:
    """The values at rising rows; the array itself for all of them."""
    return array if len(rows) == len(array) else array.take(integers(rows))


def _part(vector: Vector, rows: Rows) -> Vector:
    return vector if len(rows) == len(vector) else vector.take(rows)


# --- the statement ------------------------------------------------------------------------------------------------


def statement_of(
    store: Store, plan: Grouping, run: Sequence[Node], below: Step, where: str = "true"
) -> tuple[Feed, str]:
    """The feed and the query that groups its rows: hash, keys, partial columns, and the number of rows; a row that is
    part of several windows counts in the first of them.

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
    rest = [(name, reference(name)) for name, _ in columns]
    return grouped.wrapped().projected([("h", parse_expression(_hash(kinds))), *shown, *rest]).sql()


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


def _hash(kinds: Sequence[pa.DataType]) -> str:
    """SQL of the hash of columns k0, k1, ... in the types in which they are kept."""
    if not kinds:
        return "CAST(0 AS UBIGINT)"
    return f"hash({', '.join(f'CAST(k{at} AS {duckdb_type(kind)})' for at, kind in enumerate(kinds))})"


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
