"""Bilinear steps: inner and cross joins."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from velaria_core.changes import DIFF, concat, with_diff
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import (
    COUNT,
    Changes,
    Moment,
    Step,
    query_of,
    some,
)
from velaria_core.execution.steps.rows import Rows
from velaria_core.logical.expr import reference
from velaria_core.logical.operators import Join


class BilinearStep(Step):
    """An inner or cross join: each side's changes against the other side's rows; both sides are state.

    The new left rows meet the right as it is after the epoch, the new right rows the left as it was before.
    """

    impl = "two-sided"
    impl_reason = "the changes of each side meet the rows of the other"

    def __init__(self, store: Store, name: str, node: Join, below: Sequence[Step]) -> None:
        self._sides = [Rows(store, f"{name}_{side}", step) for side, step in zip("lr", below, strict=True)]
        left, right = self._sides
        statements = []
        for one, other in ((left.new, right.kept), (left.kept, right.new)):
            made = node.over([one, other])
            product = exp.Mul(this=reference(DIFF), expression=reference(COUNT))
            columns = [(column, reference(column)) for column in node.columns]
            statements.append(query_of(made).projected([*columns, (DIFF, product)]).sql())
        found = store.schema(statements[0])
        super().__init__(found.remove(len(found) - 1), False, below)
        self._new_left, self._new_right = map(store.prepare, statements)

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        left, right = self._sides
        if changes[1] is not None:
            right.take(changes[1])
        made = []
        if changes[0] is not None:
            left.feed.table = with_diff(changes[0])
            made.append(self._new_left())
        if changes[1] is not None:
            made.append(self._new_right())
        if changes[0] is not None:
            left.add()
        return some(concat(made)) if made else None
