"""Opaque: a query that the engine runs and for which there is no operator (yet).

Batch   the text itself, its tables replaced by the inputs.
Stream  Recompute: run over all rows each epoch, emit the difference. So no SELECT is refused for being a stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.logical.incremental import Incremental, Recompute
from velaria_core.logical.node import Node
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Opaque(Node):
    """`template` holds one marker (see `marker`) for each input, as a table name; `names` are its columns."""

    template: str
    tables: tuple[Node, ...]
    names: tuple[str, ...]
    reason: str

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.tables

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    def label(self) -> str:
        return f"Query: {self.reason}"

    def batch(self, *inputs: Query) -> Query:
        text = self.template
        for at, table in enumerate(inputs):
            text = text.replace(marker(at), table.as_item())
        return Query.text(text, self.names)

    def stream(self) -> Incremental:
        return Recompute(self.reason)


def marker(at: int) -> str:
    """The quoted table name that stands for input number `at` in an opaque text."""
    return f'"__velaria_input_{at}"'
