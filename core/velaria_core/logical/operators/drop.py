"""Drop: every column but these.

Batch   the select list without them.
Stream  Linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from velaria_core.logical.expr import reference
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Drop(Unary):
    dropped: tuple[str, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in self.input.columns if name not in self.dropped)

    def label(self) -> str:
        return f"Drop: {listed(self.dropped)}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.projected([(name, reference(name)) for name in self.columns])

    def stream(self) -> Incremental:
        return Linear()
