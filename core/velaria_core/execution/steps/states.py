"""State steps: aggregates over rows that only come, as states of the engine by key.

An epoch's rows are grouped once, into one state for each key: no row is read again. It is merged with what is kept of
the touched keys, and the values are compared with what was shown of them, which is kept as well: merging floating point
numbers in another order may give another last digit, and a row that was never shown must not be retracted.

States leave the engine as plain columns, and `to_aggregate_state` makes them states again. What is kept of a key is one
row. Where a state holds all its values it is one for each epoch that had some instead, since writing all of them anew
each time would cost more than they do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
from sqlglot import exp

from velaria_core.changes import DIFF, constant
from velaria_core.errors import VelariaError
from velaria_core.execution.state import Feed, Store
from velaria_core.execution.steps.base import AT, Changes, Moment, Step, fitted, some
from velaria_core.execution.steps.held import Hashing, Keys, log_by_key
from velaria_core.execution.steps.horizon import Horizons
from velaria_core.execution.steps.rows import Log, replacing
from velaria_core.logical.expr import to_sql
from velaria_core.logical.functions import name_of
from velaria_core.logical.node import Node
from velaria_core.logical.states import WITH_CONSTANT, States
from velaria_core.types import literal, quoted

_BOUND = re.compile(r"bound=\[(.*)\] requested=")  # of the engine's error, where it casts arguments


class StatesStep(Step):
    """An aggregate by states of the engine; without keys there is one key."""

    impl = "states"
    impl_reason = "rows only come, so what the engine holds of the touched keys is merged with what came"

    def __init__(self, store: Store, name: str, node: Node, states: States, below: Step) -> None:
        self._feed = store.feed(below.schema)
        self._keys = len(states.keys)
        keys = [f"k{at}" for at in range(len(states.keys))]
        calls = [f"s{at}" for at in range(len(states.calls))]
        grouped = [f"{to_sql(tree)} AS {key}" for key, (_, tree) in zip(keys, states.keys, strict=True)]
        grouped += [
            f"{to_sql(tree)} EXPORT_STATE AS {call}" for call, (_, tree) in zip(calls, states.calls, strict=True)
        ]
        by = f" GROUP BY {', '.join(to_sql(tree) for _, tree in states.keys)}" if keys else ""
        group = f"SELECT {', '.join(grouped)} FROM {self._feed.name}{by}"
        schema = store.exported(group)
        self._came, self._group = store.feed(schema), store.prepare(group)
        hashing = Hashing([[schema.field(key).type] for key in keys], joins=False)
        self._asked = Keys(store, self._came, keys, hashing)
        self._kept = log_by_key(store, name, schema, states.grows, keys, hashing, replaces=not states.grows)
        self._old = store.feed(schema.append(pa.field(AT, pa.int64())))
        self._find_old = None if states.grows else store.prepare(self._kept.current(keys, self._came, keys))
        listed = ", ".join(schema.names)
        if states.grows:
            source = self._kept.restricted(keys, self._came, keys)
        else:
            source = f"SELECT {listed} FROM {self._old.name} UNION ALL SELECT {listed} FROM {self._came.name}"
        merged = [
            merging(store, self._feed, self._came, f"t.{call}", tree)
            for call, (_, tree) in zip(calls, states.calls, strict=True)
        ]
        values = [f"t.{key} AS {quoted(named)}" for key, (named, _) in zip(keys, states.keys, strict=True)]
        values += [f"finalize({one}) AS {quoted(named)}" for one, (named, _) in zip(merged, states.calls, strict=True)]
        rest = f"FROM ({source}) AS t" + (f" GROUP BY {', '.join(f't.{key}' for key in keys)}" if keys else "")
        super().__init__(store.schema(f"SELECT {', '.join(values)} {rest}"), False, [below])
        # Beside the values what is to be kept instead.
        if not states.grows:
            values += [f"{one} AS __{call}" for one, call in zip(merged, calls, strict=True)]
        merge = f"SELECT {', '.join(values)} {rest}"
        self._merged, self._merge = store.feed(store.exported(merge)), store.prepare(merge)
        if states.grows:
            self.impl_reason = "rows only come, so all values of the touched keys, as the engine holds them, are merged"
        named = [key for key, _ in states.keys]
        self._shown = log_by_key(store, f"{name}_shown", self.schema, False, named, hashing, replaces=True)
        shown = f"({self._shown.current(named, self._came, keys)})"
        self._difference = store.prepare(replacing(self.schema.names, self._merged.name, shown))
        horizons = node.horizons(below.times)
        forgetting: list[list[tuple[Log, str]]] = [
            [
                one
                for key, (shown_as, tree) in zip(keys, states.keys, strict=True)
                if horizon is not None and horizon.kept is not None and tree.name == horizon.column
                for one in ((self._kept, key), (self._shown, shown_as))
            ]
            for horizon in horizons
        ]
        self._horizons = Horizons(store, [below], horizons, forgetting)

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = self._horizons.admitted(self, changes, at)
        made: Changes = None
        # Of no rows at all an aggregate without keys shows one row, from the first epoch on.
        if given is not None or (at.first and not self._keys):
            made = self._changed(given)
        self._horizons.forget(at)
        return made

    def _changed(self, given: Changes) -> Changes:
        self._feed.table = fitted(given, self._feed)
        self._came.table = self._group()
        self._kept.find(self._asked)
        if self._find_old is None:
            self._kept.take(self._came.table)
            self._merged.table = self._merge()
        else:
            self._old.table = self._find_old()
            self._merged.table = self._merge()
            self._kept.replace(self._replaced())
        self._shown.find(self._asked)
        made = some(self._difference())
        if made is None:
            return None
        self._shown.replace(made)
        return made.drop_columns([AT])

    def _replaced(self) -> pa.Table:
        """The states that were kept go, and those that were merged come."""
        old, merged, states = self._old.table, self._merged.table.columns, len(self.schema)
        columns = [*merged[: self._keys], *merged[states:]]
        new = pa.Table.from_arrays(columns, schema=self._came.schema)
        new = new.append_column(DIFF, constant(1, len(new))).append_column(AT, pa.nulls(len(new), pa.int64()))
        gone = old.drop_columns([AT]).append_column(DIFF, constant(-1, len(old))).append_column(AT, old.column(AT))
        return pa.concat_tables([new, gone])

    @property
    def scanned(self) -> str:
        return self._kept.scanned or self._shown.scanned

    def state_rows(self) -> int:
        return self._kept.entries + self._shown.entries

    def state_bytes(self) -> int:
        return self._kept.nbytes + self._shown.nbytes

    def committed(self) -> None:
        self._kept.committed()
        self._shown.committed()

    def rolled_back(self) -> None:
        self._horizons.rolled_back()
        self._kept.rolled_back()
        self._shown.rolled_back()


def merging(store: Store, rows: Feed, came: Feed, column: str, tree: exp.Expr) -> str:
    """SQL of one state of the states of a call in a column, over the rows of a group; `finalize` reads its value.

    Args:
        rows: what the call read.
        came: has the column, as its states left the engine.
    """
    return f"combine_aggr({_state(store, rows, came, column, tree)})"


def _state(store: Store, rows: Feed, came: Feed, column: str, tree: exp.Expr) -> str:
    """SQL that makes a state of the plain column that it left the engine as.

    Args:
        rows: what the call reads.
        came: has the column.
    """
    call = tree.this if isinstance(tree, exp.Filter) else tree
    name = name_of(call)
    assert name is not None
    given = [one for one in call.expressions if not isinstance(one, exp.Star)]
    trees = ", ".join(f"{to_sql(one)} AS a{at}" for at, one in enumerate(given))
    kinds = [row[1] for row in store.cursor.rows(f"DESCRIBE SELECT {trees} FROM {rows.name}")] if given else []
    constants = ", ".join(["NULL", *(to_sql(one) for one in given[1:])]) if name in WITH_CONSTANT else ""

    def made(kinds: Sequence[str]) -> str:
        signature = f"[{', '.join(map(literal, kinds))}]"
        return f"to_aggregate_state({column}, '{name}', {signature}{f', [{constants}]' if constants else ''})"

    try:
        store.schema(f"SELECT finalize({made(kinds)}) FROM {came.name} AS t")
    except VelariaError as error:
        # The engine casts arguments to types that only this error tells.
        bound = _BOUND.search(str(error))
        if bound is None:
            raise
        kinds = re.split(r", (?![^()]*\))", bound[1])
    return made(kinds)


def states_step(store: Store, name: str, node: Node, states: States, below: Step) -> Step | None:
    """The step of an aggregate by states; None where rows also go, or the engine exports none of these types."""
    if not below.append_only:
        return None
    try:
        return StatesStep(store, name, node, states, below)
    except VelariaError:
        return None  # whether it is the query that is wrong, who computes it anew will say
