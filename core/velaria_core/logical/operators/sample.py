"""Sample: a random part of the rows, by share or by count, repeatable by seed.

Batch   USING SAMPLE.
Stream  Recompute: a different part would be drawn from different rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.logical.incremental import Incremental, Recompute
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Sample(Unary):
    """`size` is a share in percent (method bernoulli) or a number of rows (method reservoir)."""

    size: float
    percent: bool
    seed: int | None = None

    def label(self) -> str:
        shown = f"{self.size:g}%" if self.percent else f"{self.size:g} rows"
        return f"Sample: {shown}" + (f" seed {self.seed}" if self.seed is not None else "")

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        size = f"bernoulli({self.size:g} PERCENT)" if self.percent else f"reservoir({int(self.size)} ROWS)"
        seed = f" REPEATABLE ({self.seed})" if self.seed is not None else ""
        return Query.text(f"{rows.wrapped().sql()} USING SAMPLE {size}{seed}", self.columns)

    def stream(self) -> Incremental:
        return Recompute("a sample")
