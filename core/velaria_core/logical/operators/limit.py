"""Limit: at most `count` rows, after the first `offset`; without an order below, any rows.

Batch   LIMIT and OFFSET.
Stream  Recompute: which rows belong depends on all of them. Over rows that only come, the first of what was shown and
        what came; rows that an offset skips are kept as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.logical.incremental import Incremental, Recompute
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Limit(Unary):
    count: int | None
    offset: int = 0

    @property
    def selects(self) -> bool:
        return self.count is not None and not self.offset

    def label(self) -> str:
        shown = "all" if self.count is None else str(self.count)
        return f"Limit: {shown}" + (f" offset {self.offset}" if self.offset else "")

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.limited(self.count, self.offset)

    def stream(self) -> Incremental:
        return Recompute("which rows stay depends on all of them")
