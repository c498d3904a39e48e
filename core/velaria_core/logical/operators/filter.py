"""Filter: the rows for which a predicate is true; false and NULL are left out.

Batch   WHERE.
Stream  Linear: the changes that pass, with their diffs.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Filter(Unary):
    predicate: exp.Expr

    def label(self) -> str:
        return f"Filter: {listed([self.predicate])}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.filtered(self.predicate)

    def stream(self) -> Incremental:
        return Linear()
