"""Scan: the rows of a relation, which is a file, Arrow data or a stored table.

Batch   FROM relation; projection, filter, limit and aggregates reach into the reader through the engine's optimizer.
Stream  Linear: a table that does not change is read once, as insertions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Node
from velaria_core.logical.query import Query
from velaria_core.logical.relation import Relation


@dataclass(frozen=True, eq=False)
class Scan(Node):
    relation: Relation

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.relation.schema.names)

    @property
    def known_schema(self) -> pa.Schema | None:
        return self.relation.schema

    def label(self) -> str:
        return f"Scan: {self.relation.label}"

    def batch(self, *_: Query) -> Query:
        return Query.table(self.relation.sql, self.columns)

    def stream(self) -> Incremental:
        return Linear()
