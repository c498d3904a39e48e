"""Aggregate: one row for each distinct key, computed from the rows that share it.

Batch   GROUP BY, or GROUPING SETS over the keys.
Stream  Keyed: the old row of a key is retracted, the new one inserted. Where every call has partials they are folded;
        where rows only come and the engine has states, these are merged; otherwise the keys that an epoch touched are
        computed anew. Without keys, empty input still has one row.
Source  Budiu et al., DBSP, VLDB 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.event_time import Times
from velaria_core.logical.incremental import Incremental, Keyed, Recompute
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.partials import partials_of
from velaria_core.logical.query import Named, Query, Sets
from velaria_core.logical.states import states_of


@dataclass(frozen=True, eq=False)
class Aggregate(Unary):
    """`metrics` are single aggregate calls, so that each can keep a partial state of its own; what is computed
    from several of them stands in a Project above. `sets` holds grouping sets as positions in `keys`."""

    keys: tuple[Named, ...]
    metrics: tuple[Named, ...]
    sets: Sets | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name, _ in (*self.keys, *self.metrics))

    def label(self) -> str:
        by = f" by {listed(self.keys)}" if self.keys else ""
        sets = f" in {len(self.sets)} grouping sets" if self.sets is not None else ""
        return f"Aggregate: {listed(self.metrics)}{by}{sets}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.aggregated(self.keys, self.metrics, self.sets)

    def times(self, *inputs: Times) -> Times:
        (below,) = inputs
        if self.sets is not None:
            return {}
        return {
            name: below[tree.name] for name, tree in self.keys if isinstance(tree, exp.Column) and tree.name in below
        }

    def stream(self) -> Incremental:
        if self.sets is not None:
            return Recompute("grouping sets")
        if all(isinstance(tree, exp.Column) for _, tree in self.keys):
            by = tuple(tree.name for _, tree in self.keys)
            shown_by = tuple(name for name, _ in self.keys)
            return Keyed((by,), shown_by, partials_of(self.keys, self.metrics), states_of(self.keys, self.metrics))
        return Recompute("a key that is an expression")
