"""The leaves: rows that a source gave, and tables that do not change."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from velaria_core.execution.duck import Engine
from velaria_core.execution.lower import lower, schema
from velaria_core.execution.steps.base import Changes, Moment, Step
from velaria_core.logical.node import Node


class SourceStep(Step):
    """The rows that a source gave: whatever the epoch put into `given`."""

    def __init__(self, schema: pa.Schema, append_only: bool) -> None:
        super().__init__(schema, append_only, ())
        self.given: Changes = None

    @property
    def is_net(self) -> bool:
        # A row may come and go in batches of one epoch.
        return self.append_only

    def step(self, _changes: Sequence[Changes], _at: Moment) -> Changes:
        given, self.given = self.given, None
        return given if given is not None and given.num_rows else None


class StaticStep(Step):
    """A table that does not change: all its rows come in the first epoch."""

    def __init__(self, engine: Engine, node: Node) -> None:
        super().__init__(schema(engine, node), True, ())
        self._engine, self._node = engine, node

    def step(self, _changes: Sequence[Changes], at: Moment) -> Changes:
        if not at.first:
            return None
        lowered = lower(self._node)
        with self._engine.cursor(lowered.feeds) as cursor:
            return cursor.table(lowered.sql)
