"""Union: the rows of both inputs, by position or by name, each as often as it occurs (UNION ALL).

Batch   UNION ALL [BY NAME]; UNION alone is a Distinct above it.
Stream  Linear: the changes of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from velaria_core.logical.event_time import Times
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Node, shared_times
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Union(Node):
    left: Node
    right: Node
    by_name: bool = False

    @cached_property
    def columns(self) -> tuple[str, ...]:
        if not self.by_name:
            return self.left.columns
        known = {name.lower() for name in self.left.columns}
        return (*self.left.columns, *(name for name in self.right.columns if name.lower() not in known))

    def label(self) -> str:
        return "Union: all" + (" by name" if self.by_name else "")

    def batch(self, *inputs: Query) -> Query:
        return set_operation(inputs, "UNION ALL" + (" BY NAME" if self.by_name else ""), self.columns)

    def times(self, *inputs: Times) -> Times:
        left, right = inputs
        if self.by_name:
            pairs = [(name, name) for name in self.left.columns]
        else:
            pairs = list(zip(self.left.columns, self.right.columns, strict=True))
        found = shared_times(([one for one, _ in pairs], [other for _, other in pairs]), [left, right])
        return {name: bound for (name, _), bound in zip(pairs, found, strict=True) if bound is not None}

    def stream(self) -> Incremental:
        return Linear()


def set_operation(inputs: tuple[Query, ...], operator: str, columns: tuple[str, ...]) -> Query:
    """Two queries united by a set operator, as one text."""
    left, right = inputs
    return Query.text(f"({left.sql()}) {operator} ({right.sql()})", columns)
