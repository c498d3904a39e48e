"""Values: literal rows, such as VALUES or a SELECT without FROM.

Batch   one SELECT for each row, united.
Stream  Linear: the rows come once, as insertions.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.expr import to_sql
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Node
from velaria_core.logical.query import Query
from velaria_core.types import quoted


@dataclass(frozen=True, eq=False)
class Values(Node):
    names: tuple[str, ...]
    rows: tuple[tuple[exp.Expr, ...], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    def label(self) -> str:
        return f"Values: {len(self.rows)} row{'s' if len(self.rows) != 1 else ''} ({', '.join(self.names)})"

    def batch(self, *_: Query) -> Query:
        if len(self.rows) == 1:
            (row,) = self.rows
            return Query((), tuple(zip(self.names, row, strict=True)))
        names = ", ".join(quoted(name) for name in self.names)
        return Query.table(f"(SELECT * FROM ({self.clause()}) AS v({names}))", self.names)

    def clause(self) -> str:
        """The rows as a VALUES clause: an INSERT of it takes each value to the column's type by itself."""
        return "VALUES " + ", ".join("(" + ", ".join(to_sql(value) for value in row) + ")" for row in self.rows)

    def stream(self) -> Incremental:
        return Linear()
