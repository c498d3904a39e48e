"""TopK: the first `count` rows in an order, after `offset`; ties fall in any order.

Batch   ORDER BY ... LIMIT, which the engine runs as one top-n.
Stream  Recompute over the whole input, or, for a top-k within each key, see Distinct and Window.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.incremental import Incremental, Recompute
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class TopK(Unary):
    keys: tuple[exp.Ordered, ...]
    count: int
    offset: int = 0

    def label(self) -> str:
        offset = f" offset {self.offset}" if self.offset else ""
        return f"TopK: {self.count}{offset} by {listed(self.keys)}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.ordered(self.keys).limited(self.count, self.offset)

    def stream(self) -> Incremental:
        return Recompute("a top-k over all rows")
