"""Explode: one row for each element of a list column; an empty or NULL list gives no row, or one NULL with `outer`.

Batch   unnest in the select list.
Stream  Linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.event_time import Times
from velaria_core.logical.expr import call, reference
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Explode(Unary):
    column: str
    output: str
    outer: bool = False

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.output if name == self.column else name for name in self.input.columns)

    @property
    def handed_on(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name not in (self.column, self.output))

    def label(self) -> str:
        named = f" AS {self.output}" if self.output != self.column else ""
        return f"Explode: {self.column}{named}" + (" outer" if self.outer else "")

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        source: exp.Expr = reference(self.column)
        if self.outer:
            empty = exp.EQ(
                this=call("coalesce", call("len", source), exp.Literal.number(0)),
                expression=exp.Literal.number(0),
            )
            source = exp.Case(ifs=[exp.If(this=empty, true=exp.Array(expressions=[exp.Null()]))], default=source.copy())
        named = [
            (self.output, call("unnest", source)) if name == self.column else (name, reference(name))
            for name in self.input.columns
        ]
        # Set-returning, so nothing may fold into this SELECT's WHERE or LIMIT.
        return rows.wrapped().projected(named).wrapped()

    def times(self, *inputs: Times) -> Times:
        return {name: bound for name, bound in inputs[0].items() if name not in (self.column, self.output)}

    def stream(self) -> Incremental:
        return Linear()
