"""A plan over one relation as a stream, beside the batch query over its rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from properties.tables import COLUMNS, Epoch, bag, table_of

from velaria_core.changes import DIFF_FIELD, with_diff
from velaria_core.contract.modes import OutputMode
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.lower import lower
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Moment, compile_steps
from velaria_core.execution.steps.partials import PartialsStep
from velaria_core.logical import operators as op
from velaria_core.logical.expr import col, parse_expression
from velaria_core.logical.node import Node
from velaria_core.logical.relation import Relation

Bag = Counter[tuple[Any, ...]]


class Stream:
    """A plan over one relation, run epoch by epoch; what its output adds up to."""

    def __init__(
        self,
        plan: Node,
        relation: Relation,
        append_only: bool = True,
        mode: OutputMode = OutputMode.UPDATE,
        path: Path | None = None,
    ) -> None:
        self._engine = Engine(Settings(threads=1, path=None if path is None else str(path)))
        self._store = Store(self._engine)
        self._relation = relation
        self.flow: Dataflow = compile_steps(plan, self._store, self._engine, {id(relation): append_only}, mode)
        self.output: Bag = Counter()
        self._first = True

    @property
    def step(self) -> PartialsStep:
        return next(step for step in self.flow.steps if isinstance(step, PartialsStep))

    def epoch(self, table: pa.Table | None) -> list[tuple[Any, ...]]:
        """One epoch, None for the end; the changes, each with its diff."""
        given = {} if table is None or not table.num_rows else {id(self._relation): table}
        ended = [id(self._relation)] if table is None else []
        with self._store.cursor.transaction():
            made = self.flow.epoch(given, Moment(self._first), ended)
        self.flow.committed()
        self._first = False
        rows = [] if made is None else [tuple(row.values()) for row in with_diff(made).to_pylist()]
        for *values, diff in rows:
            (key,) = bag([values])
            self.output[key] += diff
        self.output = Counter({row: count for row, count in self.output.items() if count})
        return rows

    def close(self) -> None:
        self._store.close()
        self._engine.close()


def scan(table: pa.Table) -> op.Scan:
    return op.Scan(Relation("rows", table.schema, '"rows"', "arrow", feed=table))


def over(plan: Node, leaf: Node) -> Node:
    return leaf if isinstance(plan, op.Scan) else plan.over([over(child, leaf) for child in plan.inputs])


def batch(engine: Engine, plan: Node, table: pa.Table) -> Bag:
    lowered = lower(over(plan, scan(table)))
    with engine.cursor(lowered.feeds) as cursor:
        return bag(row.values() for row in cursor.table(lowered.sql).to_pylist())  # type: ignore[misc]


def changes_of(epoch: Epoch, append_only: bool) -> pa.Table:
    table = table_of(COLUMNS, [row for row, _ in epoch.changes])
    if append_only:
        return table
    return table.append_column(DIFF_FIELD, pa.array([diff for _, diff in epoch.changes], pa.int64()))


def grouped(leaf: Node, keys: list[str], *calls: str) -> op.Aggregate:
    metrics = tuple((f"m{at}", parse_expression(call)) for at, call in enumerate(calls))
    return op.Aggregate(leaf, tuple((f"by {key}", col(key).tree) for key in keys), metrics)
