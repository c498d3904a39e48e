"""Sort: the rows in an order; NULL comes last in either direction unless a key says otherwise.

Batch   ORDER BY.
Stream  Linear: a changelog has no order of its own, so changes pass through; a sink that shows a whole result sorts it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Sort(Unary):
    keys: tuple[exp.Ordered, ...]

    @property
    def reorders_only(self) -> bool:
        return True

    def label(self) -> str:
        return f"Sort: {listed(self.keys)}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.ordered(self.keys)

    def stream(self) -> Incremental:
        return Linear()
