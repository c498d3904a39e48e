"""Session aggregates: one row of partial values a session, instead of the rows that it is made of.

The rows of an epoch make small sessions of their own, each with its partial values. With the kept sessions of the same
keys they are merged where they come close, as their rows would: sessions of sessions. So an epoch pays for its rows and
for the sessions of the keys that it touched, however long these have grown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp

from velaria_core.changes import DIFF
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import AT, Changes, Moment, Step, query_of, relation_of, some
from velaria_core.execution.steps.held import Hashing, Keys, log_by_key
from velaria_core.execution.steps.horizon import Gate, one_row
from velaria_core.execution.steps.rows import Closes, replacing
from velaria_core.logical.event_time import Horizon, TimeBound, TimeKind
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Project, Scan, SessionWindow
from velaria_core.logical.partials import Final, Fold, Partial, Partials
from velaria_core.types import duckdb_type, quoted

_FOLDS = {Fold.ADD: "sum", Fold.MIN: "min", Fold.MAX: "max"}


@dataclass(frozen=True, slots=True)
class Sessions:
    """An aggregate of sessions that can be kept as partial values.

    Attributes:
        window: the node that makes the sessions.
        run: nodes between it and the aggregate, the topmost first.
        keys: for each key of the aggregate, the column of `window` that it is.
    """

    window: SessionWindow
    run: tuple[Project, ...]
    keys: tuple[str, ...]

    @staticmethod
    def of(node: Node, partials: Partials, uses: Mapping[int, int]) -> Sessions | None:
        """What a keyed aggregate over sessions is; None where it groups by more or less than the session, or its time
        is text."""
        run: list[Project] = []
        below = node.inputs[0]
        while isinstance(below, Project) and uses[id(below)] == 1:
            run.append(below)
            below = below.input
        if not isinstance(below, SessionWindow) or uses[id(below)] > 1 or below.kind is TimeKind.TEXT:
            return None
        keys: list[str] = []
        for _, tree in partials.keys:
            for project in run:
                tree = dict(project.named)[tree.name] if isinstance(tree, exp.Column) else tree
            if not isinstance(tree, exp.Column):
                return None
            keys.append(tree.name)
        if len(set(keys)) != len(keys) or set(keys) != {*below.keys, below.start, below.end}:
            return None
        return Sessions(below, tuple(run), tuple(keys))


class SessionAggregateStep(Step):
    """Sessions by key as partial values. In update mode what was shown of a session goes and what it is now comes; with
    `closing` it comes out once, when its end is closed."""

    is_net = True
    impl = "session-partials"

    def __init__(
        self,
        store: Store,
        name: str,
        partials: Partials,
        columns: Sequence[Sequence[tuple[Partial, pa.DataType]]],
        plan: Sessions,
        below: Step,
        *,
        closing: bool,
    ) -> None:
        window = plan.window
        self._store = store
        self._bound = window.times(below.times).get(window.end)
        self._closing = closing and self._bound is not None
        self.impl_reason = "a session is kept as one row of partial values" + (
            ", and comes out when event time closes it" if self._closing else ""
        )
        # The sessions of an epoch's own rows.
        self._rows = store.feed(below.schema)
        made: Node = window.over([Scan(relation_of(self._rows))])
        for project in reversed(plan.run):
            made = project.over([made])
        flat = [one for several in columns for one in several]
        keys = [(f"k{at}", tree) for at, (_, tree) in enumerate(partials.keys)]
        small = query_of(made).aggregated(keys, [(f"p{at}", one.tree) for at, (one, _) in enumerate(flat)]).sql()
        schema = store.schema(small)
        self._make_small = store.prepare(small)
        # Merged with those that are kept of the same keys.
        position = {column: f"k{at}" for at, column in enumerate(plan.keys)}
        start, end, by = position[window.start], position[window.end], [position[key] for key in window.keys]
        self._small, self._new = store.feed(schema), store.feed(schema)
        self._old = store.feed(schema.append(pa.field(AT, pa.int64())))
        closes = None if self._bound is None else Closes(end, self._bound.kind, timeless=True)
        hashing = Hashing([[schema.field(key).type] for key in by], joins=False)
        self._kept = log_by_key(store, name, schema, False, by, hashing, closes, replaces=True)
        self._asked = Keys(store, self._small, by, hashing)
        self._find_old = store.prepare(self._kept.current(by, self._small, by))
        self._find_changed = store.prepare(replacing(schema.names, self._new.name, self._old.name))
        self._merge = store.prepare(_merged(schema, self._small.name, self._old.name, start, end, by, flat))
        # What is shown of them.
        shown, at = [f"k{number} AS {quoted(key)}" for number, (key, _) in enumerate(partials.keys)], 0
        for (metric, call), several in zip(partials.calls, columns, strict=True):
            names = [f"p{at + number}" for number in range(len(several))]
            shown.append(f"{_value(call.final, names)} AS {quoted(metric)}")
            at += len(several)
        listed = ", ".join(shown)
        found = store.schema(f"SELECT {listed} FROM {self._new.name}")
        super().__init__(found, self._closing, [below])
        output = ", ".join(quoted(column) for column in found.names)
        self._difference = store.prepare(
            f"SELECT {output}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF} FROM ("
            f"SELECT {listed}, {DIFF} FROM {self._kept.feed.name}) GROUP BY {output} HAVING sum({DIFF}) <> 0"
        )
        self._gate: Gate | None = None
        if self._bound is not None and closes is not None:
            late: TimeBound = below.times[window.time]
            self._gate = Gate(store, below.schema, Horizon(window.time, late, None), ())
            self._closed = store.feed(pa.schema([("us", pa.int64())]))
            is_closed = f"{closes.sql} <= (SELECT us FROM {self._closed.name})"
            self._out = store.prepare(f"SELECT {listed} FROM ({self._kept.current(by, None)}) WHERE {is_closed}")

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        if self._gate is not None:
            given = self._gate.admitted(given, at.late_before_us)
            self.late_dropped_rows = self._gate.dropped
        made = None if given is None else self._folded(given)
        closed = self._close(at)
        return closed if self._closing else made

    def _folded(self, rows: pa.Table) -> Changes:
        """The changes of the sessions that these rows touch."""
        self._rows.table = rows
        self._small.table = self._make_small()
        self._kept.find(self._asked)
        self._old.table = self._find_old() if self._kept.entries else self._old.schema.empty_table()
        self._new.table = self._merge()
        changed = some(self._find_changed())
        if changed is None:
            return None
        self._kept.replace(changed)
        return None if self._closing else some(self._difference())

    def _close(self, at: Moment) -> Changes:
        """The sessions that the watermark has closed, which are forgotten."""
        if not self._has_closed(at.watermark_us):
            return None
        closed_us = self._closed_us(at.watermark_us)
        assert closed_us is not None
        self._closed.table = one_row(self._closed.schema, closed_us)
        out = None
        if self._closing:
            self._kept.find(None, closed_us)
            out = some(self._out())
        self._kept.drop_until(closed_us)
        return out

    def _closed_us(self, watermark_us: int | None) -> int | None:
        """The last end of a session that this watermark closes; None for none."""
        return None if self._bound is None or watermark_us is None else self._bound.last_closed_us(watermark_us)

    def _has_closed(self, watermark_us: int | None) -> bool:
        closed_us = self._closed_us(watermark_us)
        return closed_us is not None and bool(self._kept.entries) and self._kept.has_until(closed_us)

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        del now_ms
        return self._closing and self._has_closed(watermark_us)

    def restored(self, watermark_us: int | None) -> None:
        if (closed_us := self._closed_us(watermark_us)) is not None:
            self._kept.drop_until(closed_us)
            self._kept.committed()

    @property
    def scanned(self) -> str:
        return self._kept.scanned

    def state_rows(self) -> int:
        return self._kept.entries

    def state_bytes(self) -> int:
        return self._kept.nbytes

    def committed(self) -> None:
        self._kept.committed()

    def rolled_back(self) -> None:
        self._kept.rolled_back()


def session_columns(
    store: Store, plan: Sessions, partials: Partials, below: Step
) -> list[list[tuple[Partial, pa.DataType]]] | None:
    """The partial columns of each call, with the types of their arguments; None where a call has no exact ones, rows go
    again, or a call reads when its session begins or ends."""
    if not below.append_only:
        return None
    made: Node = plan.window.over([Scan(relation_of(store.feed(below.schema)))])
    for project in reversed(plan.run):
        made = project.over([made])
    bounds = {tree.name for (_, tree), key in zip(partials.keys, plan.keys, strict=True) if key not in plan.window.keys}
    arguments = [(f"a{at}", one.argument) for at, (_, one) in enumerate(partials.calls) if one.argument is not None]
    kinds: dict[str, pa.DataType] = {}
    if arguments:
        asked = [(name, tree) for name, tree in arguments if tree is not None]
        kinds = {field.name: field.type for field in store.schema(query_of(made).projected(asked).sql())}
    found: list[list[tuple[Partial, pa.DataType]]] = []
    for at, (_, one) in enumerate(partials.calls):
        trees = [tree for tree in (one.argument, one.where) if tree is not None]
        read = {column.name for tree in trees for column in tree.find_all(exp.Column)}
        kind = kinds.get(f"a{at}", pa.null())
        several = one.partials(kind, retracts=False)
        if several is None or read & bounds or (one.final is Final.AVERAGE and pa.types.is_decimal(kind)):
            return None
        found.append([(partial, kind) for partial in several])
    return found


def _merged(
    schema: pa.Schema,
    small: str,
    old: str,
    start: str,
    end: str,
    by: Sequence[str],
    partials: Sequence[tuple[Partial, pa.DataType]],
) -> str:
    """SQL of the sessions of two feeds, merged where one begins before another ends; those without a time are one."""
    partition = f"PARTITION BY {', '.join(by)} " if by else ""
    order = f"{partition}ORDER BY {start} NULLS LAST"
    begins = (
        f"CASE WHEN {start} < max({end}) OVER ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) "
        "THEN 0 ELSE 1 END"
    )
    columns = []
    for field in schema:
        if field.name == start:
            folded = f"min({start})"
        elif field.name == end:
            folded = f"max({end})"
        elif field.name in by:
            folded = field.name
        else:
            partial, _ = partials[int(field.name[1:])]
            folded = f"CAST({_FOLDS[partial.fold]}({field.name}) AS {duckdb_type(field.type)})"
        columns.append(f"{folded} AS {field.name}")
    groups, listed = ", ".join([*by, "__number"]), ", ".join(schema.names)
    return (
        f"SELECT {', '.join(columns)} FROM (SELECT *, sum(__begins) OVER ({order}) AS __number FROM ("
        f"SELECT *, {begins} AS __begins FROM (SELECT * FROM {small} UNION ALL SELECT {listed} FROM {old}))) "
        f"GROUP BY {groups}"
    )


def _value(final: Final, names: Sequence[str]) -> str:
    """SQL of a call's value, read from its partial columns."""
    first = names[0]
    match final:
        case Final.COUNT | Final.EXTREME:
            return first
        case Final.SUM:
            return f"CASE WHEN {names[1]} > 0 THEN {first} END"
        case Final.AVERAGE:
            return f"CASE WHEN {names[1]} > 0 THEN CAST({first} AS DOUBLE) / {names[1]} END"
        case Final.ANY:
            return f"CASE WHEN {names[1]} > 0 THEN {first} > 0 END"
        case Final.ALL:
            return f"CASE WHEN {names[1]} > 0 THEN {first} = {names[1]} END"
