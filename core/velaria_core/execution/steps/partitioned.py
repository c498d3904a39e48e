"""Partitioned steps: an epoch's rows in parts, each run by a worker.

Rows of an aggregate are split by the hash of those columns of its key that come straight from the rows below: all rows
of a key meet in one worker, so what the workers give is put together without being merged, and folded into the one
state. Rows of linear nodes are split by their order, and put together in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa
from sqlglot import exp

from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import Changes, Moment, Step
from velaria_core.execution.steps.grouping import Grouper, Grouping, statement_of
from velaria_core.execution.steps.linear import LinearStep, PassStep
from velaria_core.execution.steps.source import SourceStep
from velaria_core.execution.steps.watermark import WatermarkStep
from velaria_core.execution.workers import Workers
from velaria_core.logical.lineage import lineage
from velaria_core.logical.node import Node
from velaria_core.types import holds, quoted


def split_by(plan: Grouping, run: Sequence[Node], below: Step) -> list[str]:
    """Columns below that are columns of the key; rows of one key are equal in them. None where all are computed."""
    passed = {name: name for name in below.schema.names} if not run else dict(lineage(run[::-1]).passed)
    found = [passed[tree.name] for (_, tree), _ in plan.keys if isinstance(tree, exp.Column) and tree.name in passed]
    # 0.0 and -0.0 are one key and have two hashes.
    return [name for name in dict.fromkeys(found) if not holds(below.schema.field(name).type, pa.types.is_floating)]


class PartitionedGrouper(Grouper):
    """Groups rows by several workers, each the keys of its part.

    Args:
        by: columns of the rows below that tell the part, as `split_by` finds them.
    """

    def __init__(
        self, workers: Workers, by: Sequence[str], store: Store, plan: Grouping, run: Sequence[Node], below: Step
    ) -> None:
        super().__init__(store, plan, run, below)
        self._numbers = None  # who asks for workers is told that they work
        self._workers = workers
        self._parts = []
        hashed = f"hash({', '.join(map(quoted, by))})"
        for number, own in enumerate(workers.stores):
            feed, sql = statement_of(own, plan, run, below, f"{hashed} % {workers.count} = {number}")
            self._parts.append((feed, own.prepare(sql)))
        self.impl_reason = f"; rows are grouped by {workers.count} workers, each the keys of its part"

    def _computed(self, rows: pa.Table) -> pa.Table:
        if rows.num_rows < self._workers.rows_min:
            return super()._computed(rows)
        parts = []
        for feed, statement in self._parts:
            feed.table = rows.select(feed.schema.names)
            parts.append(statement)
        made = list(self._workers.run(parts))
        return pa.concat_tables(made) if made else super()._computed(rows.slice(0, 0))


def works_by_row(step: Step) -> bool:
    """Whether all from a source up to this step works row by row; what is above a state is small."""
    return isinstance(step, SourceStep) or (
        isinstance(step, LinearStep | PassStep | WatermarkStep) and all(map(works_by_row, step.inputs))
    )


class PartitionedLinearStep(LinearStep):
    """A run of linear nodes over parts of the rows, put together in their order."""

    def __init__(self, workers: Workers, store: Store, run: Sequence[Node], below: Step) -> None:
        super().__init__(store, run, below)
        self._workers = workers
        self._parts = [LinearStep(own, run, below) for own in workers.stores] if self._statement is not None else []
        if self._parts:
            self.impl_reason += f"; rows are split among {workers.count} workers by their order"

    @property
    def is_split(self) -> bool:
        """Whether there is work to split: a run that only selects columns has none."""
        return bool(self._parts)

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = changes
        if given is None or not self._parts or given.num_rows < self._workers.rows_min:
            return super().step(changes, at)
        size = -(-given.num_rows // len(self._parts))
        slices = [given.slice(start, size) for start in range(0, given.num_rows, size)]
        steps = zip(self._parts, slices, strict=False)
        made = list(self._workers.run([partial(step.step, [rows], at) for step, rows in steps]))
        return pa.concat_tables(made) if made else None
