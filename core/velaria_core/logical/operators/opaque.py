"""Opaque: a query that the engine runs and for which there is no operator (yet).

Batch   the text itself, its tables replaced by the inputs.
Stream  Recompute: run over all rows each epoch, emit the difference. So no SELECT is refused for being a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from velaria_core.logical.incremental import Incremental, Recompute
from velaria_core.logical.node import Node
from velaria_core.logical.query import Query
from velaria_core.types import quoted


@dataclass(frozen=True, eq=False)
class Opaque(Node):
    """`template` holds one marker (see `marker`) for each input, as a table name; `names` are its columns.

    `bound` is the engine's answer to the whole, where it was asked already.
    """

    template: str
    tables: tuple[Node, ...]
    names: tuple[str, ...]
    reason: str
    bound: pa.Schema | None = None

    @property
    def known_schema(self) -> pa.Schema | None:
        if self.bound is None:
            return None
        return pa.schema([field.with_name(name) for field, name in zip(self.bound, self.names, strict=True)])

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.tables

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    def over(self, inputs: Sequence[Node], carry: tuple[str, ...] = ()) -> Self:
        del carry
        return replace(self, tables=tuple(inputs))

    def label(self) -> str:
        return f"Query: {self.reason}"

    def batch(self, *inputs: Query) -> Query:
        text = self.template
        for at, table in enumerate(inputs):
            text = text.replace(marker(at), table.as_item())
        if self.bound is not None and tuple(self.bound.names) != self.names:
            # The engine lets two columns share a name; a plan does not.
            text = f"SELECT * FROM ({text}) AS t1({', '.join(quoted(name) for name in self.names)})"
        return Query.text(text, self.names)

    def stream(self) -> Incremental:
        return Recompute(self.reason)


def marker(at: int) -> str:
    """The quoted table name that stands for input number `at` in an opaque text."""
    return f'"__velaria_input_{at}"'
