"""Pivot: rows to columns; one column for each listed value and aggregate.

Batch   an aggregate with FILTER for each value, so that the columns are known before it runs.
Stream  Keyed by the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.expr import grouped, reference
from velaria_core.logical.incremental import Incremental, Keyed
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.query import Named, Query


@dataclass(frozen=True, eq=False)
class Pivot(Unary):
    """`values` are (column name, literal) pairs to compare `on` with; `metrics` aggregate calls."""

    group: tuple[str, ...]
    on: exp.Expr
    values: tuple[Named, ...]
    metrics: tuple[Named, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.group, *(name for name, _ in self._cells()))

    def _cells(self) -> tuple[Named, ...]:
        return tuple(
            (
                value_name if len(self.metrics) == 1 else f"{value_name}_{metric_name}",
                _where(metric, exp.NullSafeEQ(this=grouped(self.on), expression=grouped(value))),
            )
            for value_name, value in self.values
            for metric_name, metric in self.metrics
        )

    def label(self) -> str:
        names = ", ".join(name for name, _ in self.values)
        by = f" by {listed(self.group)}" if self.group else ""
        return f"Pivot: {listed(self.metrics)} on {listed([self.on])} in ({names}){by}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.aggregated([(name, reference(name)) for name in self.group], self._cells())

    def stream(self) -> Incremental:
        return Keyed((self.group,), shown_by=self.group)


def _where(metric: exp.Expr, condition: exp.Expr) -> exp.Filter:
    """The aggregate over the rows that meet the condition too, beside one that it has already."""
    if isinstance(metric, exp.Filter):
        condition = exp.And(this=grouped(metric.expression.this), expression=condition)
        metric = metric.this
    return exp.Filter(this=metric.copy(), expression=exp.Where(this=condition))
