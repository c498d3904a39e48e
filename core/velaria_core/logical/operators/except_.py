"""Except: the rows of the left input that the right one has not; NULL equals NULL. With `all`, counted.

Batch   EXCEPT [ALL].
Stream  Keyed by the row.
"""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.logical.incremental import Incremental, Keyed
from velaria_core.logical.node import Node
from velaria_core.logical.operators.union import set_operation
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Except(Node):
    left: Node
    right: Node
    all: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return self.left.columns

    def label(self) -> str:
        return "Except" + (": all" if self.all else "")

    def batch(self, *inputs: Query) -> Query:
        return set_operation(inputs, "EXCEPT" + (" ALL" if self.all else ""), self.columns)

    def stream(self) -> Incremental:
        return Keyed((self.left.columns, self.right.columns))
