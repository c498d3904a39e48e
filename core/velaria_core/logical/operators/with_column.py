"""WithColumn: every column of the input, with some added or replaced in place.

Batch   the select list, with the new expressions in it.
Stream  Linear: computed for the changes, with their diffs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from velaria_core.logical.event_time import Times
from velaria_core.logical.expr import reference
from velaria_core.logical.incremental import Incremental, Linear
from velaria_core.logical.node import Unary, listed, time_of
from velaria_core.logical.query import Named, Query


@dataclass(frozen=True, eq=False)
class WithColumn(Unary):
    added: tuple[Named, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._named())

    def _named(self) -> tuple[Named, ...]:
        new = dict(self.added)
        kept = tuple((name, new.pop(name) if name in new else reference(name)) for name in self.input.columns)
        return (*kept, *new.items())

    def label(self) -> str:
        return f"WithColumn: {listed(self.added)}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows.projected(self._named())

    def times(self, *inputs: Times) -> Times:
        found = dict(inputs[0]) | {name: time_of(tree, inputs[0]) for name, tree in self.added}
        return {name: bound for name, bound in found.items() if bound is not None}

    def stream(self) -> Incremental:
        return Linear()
