"""Project: exactly these columns, each an expression over a row.

Batch   the select list.
Stream  Linear: computed for the changes, with their diffs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from velaria_core.logical.event_time import Times
from velaria_core.logical.expr import reference
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Node, Unary, listed, time_of
from velaria_core.logical.query import Named, Query


@dataclass(frozen=True, eq=False)
class Project(Unary):
    named: tuple[Named, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.named)

    def label(self) -> str:
        return f"Project: {listed(self.named)}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.projected(self.named)

    def over(self, inputs: Sequence[Node], carry: tuple[str, ...] = ()) -> Self:
        (rows,) = inputs
        return replace(self, input=rows, named=(*self.named, *((name, reference(name)) for name in carry)))

    def times(self, *inputs: Times) -> Times:
        (below,) = inputs
        found = {name: time_of(tree, below) for name, tree in self.named}
        return {name: bound for name, bound in found.items() if bound is not None}

    def stream(self) -> Incremental:
        return Linear()
