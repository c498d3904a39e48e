"""Bilinear steps: inner and cross joins."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from sqlglot import exp

from velaria_core.changes import DIFF, concat
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import COUNT, Changes, Moment, Step, fitted, query_of, some
from velaria_core.execution.steps.held import Hashing, log_by_key
from velaria_core.execution.steps.horizon import Horizons
from velaria_core.execution.steps.linear import ConcatStep, LinearStep, PassStep
from velaria_core.execution.steps.net import Netting
from velaria_core.execution.steps.source import StaticStep
from velaria_core.logical.expr import reference
from velaria_core.logical.operators import Join
from velaria_core.logical.query import Named


class BilinearStep(Step):
    """An inner or cross join: each side's changes against the other side's rows; both sides are state.

    The new left rows meet the right as it is after the epoch, the new right rows the left as it was before. What a side
    is kept for is later changes of the other; where that never changes after the first epoch, it is not kept.
    """

    impl = "two-sided"
    impl_reason = "the changes of each side meet the rows of the other"

    def __init__(self, store: Store, name: str, node: Join, below: Sequence[Step]) -> None:
        pairs = node.equalities()
        keys = [[pair[at] for pair in pairs] for at in (0, 1)]
        kinds = [[step.schema.field(one).type for step, one in zip(below, pair, strict=True)] for pair in pairs]
        hashing = Hashing(kinds, joins=True)
        self._sides = [
            log_by_key(store, f"{name}_{side}", step.schema, step.append_only, by, hashing)
            for side, step, by in zip("lr", below, keys, strict=True)
        ]
        left, right = self._sides
        append_only = all(step.append_only for step in below)
        statements = []
        for one, other in ((left.new, right.kept), (left.kept, right.new)):
            counts = [name for side in (one, other) for name in side.columns if name in (DIFF, COUNT)]
            columns: list[Named] = [(column, reference(column)) for column in node.columns]
            if not append_only:
                times = [reference(count) for count in counts]
                both = exp.Mul(this=times[0], expression=times[1]) if len(times) > 1 else times[0]
                columns.append((DIFF, both))
            statements.append(query_of(node.over([one, other])).projected(columns).sql())
        found = store.schema(statements[0])
        super().__init__(found if append_only else found.remove(len(found) - 1), append_only, below)
        self._meet = [store.prepare(statement) for statement in statements]
        horizons = node.horizons(*(step.times for step in below))
        logs = [
            [(rows, horizon.column)] if horizon is not None else []
            for rows, horizon in zip(self._sides, horizons, strict=True)
        ]
        self._horizons = Horizons(store, below, horizons, logs)
        still = [never_changes(step) for step in below]
        self._still = still.index(True) if any(still) else None
        self._netting: Netting | None = None
        if not append_only and self._still is None:
            self._netting = Netting(store, self.schema)
        if self._still is not None:
            self.impl, self.impl_reason = "one-sided", "one side does not change, so the rows of the other are not kept"

    @property
    def is_net(self) -> bool:
        return self._netting is not None or super().is_net

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        made = self._changed(self._horizons.admitted(self, changes, at))
        self._horizons.forget(at)
        return made

    def _changed(self, changes: Sequence[Changes]) -> Changes:
        for rows, given in zip(self._sides, changes, strict=True):
            rows.feed.table = fitted(given, rows.feed)
        if self._still is not None:
            self._sides[self._still].add()
            moving = 1 - self._still
            return some(self._met(moving)) if changes[moving] is not None else None
        left, right = self._sides
        right.add()
        made = [self._met(side) for side, given in enumerate(changes) if given is not None]
        left.add()
        if not made:
            return None
        # The rows of the one side that go meet those of the other that came, and a log has rows that went.
        return some(concat(made)) if self._netting is None else self._netting.of(concat(made))

    def _met(self, side: int) -> pa.Table:
        """What the changes of a side and the rows of the other give."""
        self._sides[1 - side].find(self._sides[side].keys)
        return self._meet[side]()

    @property
    def scanned(self) -> str:
        return next((rows.scanned for rows in self._sides if rows.scanned), "")

    def state_rows(self) -> int:
        return sum(rows.entries for rows in self._sides)

    def state_bytes(self) -> int:
        return sum(rows.nbytes for rows in self._sides)

    def committed(self) -> None:
        for rows in self._sides:
            rows.committed()

    def rolled_back(self) -> None:
        self._horizons.rolled_back()
        for rows in self._sides:
            rows.rolled_back()


def never_changes(step: Step) -> bool:
    """Whether all changes of a step come in the first epoch."""
    return isinstance(step, StaticStep) or (
        isinstance(step, _AT_ONCE) and all(never_changes(below) for below in step.inputs)
    )


_AT_ONCE = (LinearStep, ConcatStep, PassStep, BilinearStep)  # they give nothing where nothing comes
