"""Distinct: each row once, or the first row for each key (`DISTINCT ON`); NULL equals NULL.

Batch   DISTINCT; with keys, row number 1 within the key in the given order.
Stream  Keyed by the row, or by the keys: a row appears with its first copy and goes with its last. Distinct rows are
        an aggregate without calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.expr import call, columns_of, reference
from velaria_core.logical.incremental import Incremental, Keyed, Recompute
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.partials import partials_of
from velaria_core.logical.query import Query

_RANK = "__rank"


@dataclass(frozen=True, eq=False)
class Distinct(Unary):
    on: tuple[exp.Expr, ...] = ()
    order: tuple[exp.Ordered, ...] = ()

    @property
    def selects(self) -> bool:
        return True

    def label(self) -> str:
        keys = f" on {listed(self.on)}" if self.on else ""
        return f"Distinct{keys}" + (f" first by {listed(self.order)}" if self.order else "")

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        if not self.on:
            return rows.made_distinct()
        rank = exp.Window(
            this=call("row_number"),
            partition_by=[key.copy() for key in self.on],
            order=exp.Order(expressions=[key.copy() for key in self.order]) if self.order else None,
            over="OVER",
        )
        kept = [(name, reference(name)) for name in self.columns]
        ranked = rows.projected([*kept, (_RANK, rank)], windowed=True).wrapped()
        first = exp.EQ(this=reference(_RANK), expression=exp.Literal.number(1))
        return ranked.filtered(first).projected(kept)

    def stream(self) -> Incremental:
        if not self.on:
            rows = partials_of([(name, reference(name)) for name in self.columns], ())
            return Keyed((self.columns,), partials=rows)
        if all(isinstance(key, exp.Column) for key in self.on):
            by = tuple(name for key in self.on for name in columns_of(key))
            return Keyed((by,), shown_by=by)
        return Recompute("DISTINCT ON an expression")
