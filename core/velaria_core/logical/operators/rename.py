"""Rename: the same columns, some under other names.

Batch   the select list with aliases.
Stream  Linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from velaria_core.logical.event_time import Times
from velaria_core.logical.expr import reference
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Rename(Unary):
    names: tuple[tuple[str, str], ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        new = dict(self.names)
        return tuple(new.get(name, name) for name in self.input.columns)

    def label(self) -> str:
        return "Rename: " + ", ".join(f"{old} AS {new}" for old, new in self.names)

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        pairs = zip(self.columns, self.input.columns, strict=True)
        return rows.projected([(new, reference(old)) for new, old in pairs])

    def times(self, *inputs: Times) -> Times:
        new = dict(self.names)
        return {new.get(name, name): bound for name, bound in inputs[0].items()}

    def stream(self) -> Incremental:
        return Linear()
