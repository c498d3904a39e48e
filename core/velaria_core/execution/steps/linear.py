"""Linear steps: the batch query runs on the changes alone, diffs carried along. No state."""

from __future__ import annotations

from collections.abc import Sequence

from velaria_core.changes import DIFF
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import (
    Changes,
    Moment,
    Step,
    diffed,
    fitted,
    query_of,
    relation_of,
    some,
)
from velaria_core.logical.expr import reference
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan


class LinearStep(Step):
    """A run of linear nodes over one input: one statement over the changes, diffs carried along."""

    def __init__(self, store: Store, run: Sequence[Node], below: Step) -> None:
        self._feed = store.feed(below.changes_schema)
        carry = () if below.append_only else (DIFF,)
        node: Node = Scan(relation_of(self._feed))
        for operator in reversed(run):
            node = operator.over([node], carry)
        top = run[0]
        query = query_of(node)
        shown = [(name, reference(name)) for name in (*top.columns, *carry)]
        sql = query.projected(shown).sql()
        found = store.schema(sql)
        super().__init__(found.remove(len(found) - 1) if carry else found, below.append_only, [below])
        self._statement = store.prepare(sql)

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        (given,) = changes
        if given is None:
            return None
        self._feed.table = given
        return some(self._statement())


class PassStep(Step):
    """A node that does nothing to changes, such as a sort: a changelog has no order of its own."""

    def __init__(self, below: Step) -> None:
        super().__init__(below.schema, below.append_only, [below])

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        return changes[0]


class ConcatStep(Step):
    """A linear node of two inputs (a union): each side's changes through the node's own query, the other side empty."""

    def __init__(self, store: Store, node: Node, below: Sequence[Step]) -> None:
        append_only = all(step.append_only for step in below)
        self._feeds = [store.feed(diffed(step.changes_schema, append_only)) for step in below]
        carry = () if append_only else (DIFF,)
        made = node.over([Scan(relation_of(feed)) for feed in self._feeds], carry)
        sql = query_of(made).projected([(name, reference(name)) for name in (*node.columns, *carry)]).sql()
        found = store.schema(sql)
        super().__init__(found.remove(len(found) - 1) if carry else found, append_only, below)
        self._statement = store.prepare(sql)

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        if all(given is None for given in changes):
            return None
        for feed, given in zip(self._feeds, changes, strict=True):
            feed.table = fitted(given, feed)
        return some(self._statement())
