"""Unpivot: columns to rows; each listed column of a row becomes a row of (name, value). NULL values are left out.

Batch   an unnest of (name, value) pairs.
Stream  Linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.event_time import Times
from velaria_core.logical.expr import reference, to_sql
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.query import Query
from velaria_core.types import literal, quoted


@dataclass(frozen=True, eq=False)
class Unpivot(Unary):
    on: tuple[str, ...]
    name: str
    value: str
    include_nulls: bool = False

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*(name for name in self.input.columns if name not in self.on), self.name, self.value)

    @property
    def handed_on(self) -> tuple[str, ...]:
        return tuple(name for name in self.input.columns if name not in (*self.on, self.name, self.value))

    def label(self) -> str:
        return f"Unpivot: {listed(self.on)} into {self.name}, {self.value}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        source = rows.wrapped()
        kept = "".join(to_sql(dict(source.columns)[name]) + ", " for name in self.input.columns if name not in self.on)
        names = ", ".join(literal(name) for name in self.on)
        values = ", ".join(to_sql(dict(source.columns)[name]) for name in self.on)
        pairs = f"unnest([{names}]) AS {quoted(self.name)}, unnest([{values}]) AS {quoted(self.value)}"
        made = Query.table(f"(SELECT {kept}{pairs} FROM {source.items[0].sql} AS t1)", self.columns)
        if self.include_nulls:
            return made
        present = exp.Not(this=exp.Is(this=reference(self.value), expression=exp.Null()))
        return made.filtered(present)

    def times(self, *inputs: Times) -> Times:
        made = (*self.on, self.name, self.value)
        return {name: bound for name, bound in inputs[0].items() if name not in made}

    def stream(self) -> Incremental:
        return Linear()
