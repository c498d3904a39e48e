"""Keyed steps: what is neither linear nor bilinear is computed for the keys that were touched, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from velaria_core.execution.state import Feed, Store
from velaria_core.execution.steps.base import COUNT, Changes, Moment, Step, fitted, some
from velaria_core.execution.steps.best_rows import BestRowsStep, keeps_best
from velaria_core.execution.steps.held import Hashing, Keys, log_by_key
from velaria_core.execution.steps.horizon import Horizons
from velaria_core.execution.steps.rows import Closes, Log, difference
from velaria_core.logical.event_time import Horizon
from velaria_core.logical.incremental import Keyed
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Limit, Sort, TopK
from velaria_core.logical.query import Query
from velaria_core.types import quoted

Names = Sequence[str]


class KeyedStep(Step):
    """The keys that an epoch touched, computed anew; what changed is the difference to what was shown of them before.

    With no key the whole result is one key. State is the rows of every input. `orders` are the nodes between an input
    and `node` that put its rows in the order that `node` reads.

    What was shown is kept too where equal rows need not give equal results (`Keyed.shown_by`): a `first`, a row number
    among ties or a sum of floating point numbers depends on the order in which the engine meets the rows, and a row
    that was never shown must not be retracted. Without a key it always is, as keeping the little that changed costs
    less than computing all of it twice. Otherwise it is computed from the rows as they were.

    A node that selects, over rows that only come, is computed from what was shown and what came: nothing else is kept.
    """

    is_net = True
    closes: Closes | None = None  # the rows of its inputs, where who derives from it asks for them by their time
    impl = "touched-keys"
    impl_reason = "the rows of the keys that an epoch touched are computed before and after"

    def __init__(
        self,
        store: Store,
        name: str,
        node: Node,
        by: Sequence[Names],
        orders: Sequence[Sequence[Node]],
        below: Sequence[Step],
    ) -> None:
        self._keyed = bool(by[0])
        selecting = _selects(node, orders, below)
        hashing = hashing_of(by, below) if self._keyed else None

        def log(ending: str, schema: pa.Schema, append_only: bool, keys: Names, closes: Closes | None = None) -> Log:
            if hashing is None:
                return Log(store, f"{name}_{ending}", schema, append_only, closes)
            return log_by_key(store, f"{name}_{ending}", schema, append_only, keys, hashing, closes)

        self._rows = (
            []
            if selecting
            else [
                log(str(at), step.schema, step.append_only, keys, self.closes)
                for at, (step, keys) in enumerate(zip(below, by, strict=True))
            ]
        )
        self._feeds = [store.feed(below[0].schema)] if selecting else [rows.feed for rows in self._rows]
        self._touched = self._find_touched = None
        if self._keyed:
            touched = _touched(by, self._feeds, hashing)
            self._touched = store.feed(store.schema(touched))
            self._find_touched = store.prepare(touched)
            self._asked = Keys(store, self._touched, _numbered(by), hashing, is_hashed=True) if hashing else None
        self._shown: Log | None = None
        shown_by = _shown_by(node, by, selecting)
        if selecting:
            came = f"SELECT * FROM {self._feeds[0].name}"
            self._shown = log("shown", store.schema(came), False, by[0])
            sources = [f"{self._shown.restricted(by[0], self._touched)} UNION ALL {came}"]
        else:
            sources = [rows.restricted(keys, self._touched) for keys, rows in zip(by, self._rows, strict=True)]
        queries = []
        for source, order, step in zip(sources, orders, below, strict=True):
            query = Query.table(f"({source})", step.schema.names)
            for operator in reversed(order):
                query = operator.batch(query)
            queries.append(query)
        result = node.batch(*queries).sql()
        found = store.schema(result)
        super().__init__(found, False, below)
        if shown_by is None:
            self._result = store.prepare(result)
            self._before = store.feed(found)
            before, count = self._before.name, "1"
        else:
            if self._shown is None:
                self._shown = log("shown", found, False, shown_by)
            before, count = self._shown.entries_of(shown_by, self._touched), COUNT
        self._difference = store.prepare(difference(found.names, f"({result})", before, count))
        self._horizons = Horizons(store, below, *self._forgetting(node, by, below, shown_by))
        if selecting:
            self.impl, self.impl_reason = "best-rows", "rows only come, so those that are shown are all that is kept"
        elif not self._keyed:
            self.impl, self.impl_reason = "whole-input", "without a key of its own it is computed anew from all rows"
        elif self._shown is not None:
            self.impl_reason = "the touched keys are computed anew and compared with what was shown of them"

    def _forgetting(
        self, node: Node, by: Sequence[Names], below: Sequence[Step], shown_by: Names | None
    ) -> tuple[Sequence[Horizon | None], list[list[tuple[Log, str]]]]:
        """For each input, what its node says of time, and the logs that forget with it, by a column of theirs."""
        horizons = node.horizons(*(step.times for step in below))
        logs: list[list[tuple[Log, str]]] = [[] for _ in below]
        for at, horizon in enumerate(horizons):
            if horizon is not None and horizon.kept is not None:
                logs[at] += [(rows, horizon.column) for rows in self._rows[at : at + 1]]
                if at == 0 and self._shown is not None and shown_by is not None:
                    logs[at].append((self._shown, shown_by[list(by[0]).index(horizon.column)]))
        return horizons, logs

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        made = self._changed(self._horizons.admitted(self, changes, at), at)
        self._forget(at)
        return made

    def _forget(self, at: Moment) -> None:
        """Remove the state of what event time has closed."""
        self._horizons.forget(at)

    def _changed(self, changes: Sequence[Changes], at: Moment) -> Changes:
        # Of no rows at all an aggregate without keys shows one row, from the first epoch on.
        if all(given is None for given in changes) and not (at.first and not self._keyed):
            return None
        for feed, given in zip(self._feeds, changes, strict=True):
            feed.table = fitted(given, feed)
        if self._touched is not None and self._find_touched is not None:
            self._touched.table = self._find_touched()
            for log in self._logs():
                log.find(self._asked)
        if self._shown is None:
            self._before.table = pa.Table.from_batches([], self._before.schema) if at.first else self._result()
        for rows in self._rows:
            rows.add()
        made = some(self._difference())
        if self._shown is not None and made is not None:
            self._shown.take(made)
        return made

    @property
    def scanned(self) -> str:
        return next((log.scanned for log in self._logs() if log.scanned), "")

    def state_rows(self) -> int:
        return sum(log.entries for log in self._logs())

    def state_bytes(self) -> int:
        return sum(log.nbytes for log in self._logs())

    def committed(self) -> None:
        for log in self._logs():
            log.committed()

    def rolled_back(self) -> None:
        self._horizons.rolled_back()
        for log in self._logs():
            log.rolled_back()

    def _logs(self) -> list[Log]:
        return [*self._rows, *([self._shown] if self._shown is not None else [])]


class SkippingStep(Step):
    """A limit or top-k with an offset, over rows that only come: those up to its end are kept, and of these it is
    computed anew."""

    is_net = True
    impl = "best-rows"
    impl_reason = "rows only come, so those up to the last that is shown are all that is kept"

    def __init__(self, store: Store, name: str, node: Limit | TopK, orders: Sequence[Node], below: Step) -> None:
        assert node.count is not None
        kept = replace(node, count=node.count + node.offset, offset=0)
        self._kept = KeyedStep(store, f"{name}_kept", kept, [()], [orders], [below])
        self._rest = KeyedStep(store, name, node, [()], [orders], [self._kept])
        super().__init__(self._rest.schema, False, [below])

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        return self._rest.step([self._kept.step(changes, at)], at)

    def state_rows(self) -> int:
        return self._kept.state_rows() + self._rest.state_rows()

    def state_bytes(self) -> int:
        return self._kept.state_bytes() + self._rest.state_bytes()

    def committed(self) -> None:
        self._kept.committed()
        self._rest.committed()

    def rolled_back(self) -> None:
        self._kept.rolled_back()
        self._rest.rolled_back()


def keyed_step(
    store: Store, name: str, node: Node, by: Sequence[Names], orders: Sequence[Sequence[Node]], below: Sequence[Step]
) -> Step:
    """The step of a node that is computed anew for the touched keys, or without any as a whole."""
    skips = isinstance(node, (Limit, TopK)) and node.offset and node.count is not None
    if skips and below[0].append_only and _reorder(orders[0]):
        assert isinstance(node, (Limit, TopK))
        return SkippingStep(store, name, node, orders[0], below[0])
    if (first := _first(node, orders[0])) is not None and keeps_best(first, below[0]):
        return BestRowsStep(store, name, first, below[0])
    return KeyedStep(store, name, node, by, orders, below)


def _first(node: Node, order: Sequence[Node]) -> TopK | None:
    """A node with the order of its rows as a top-k, where it is one."""
    if isinstance(node, TopK):
        return None if order else node
    if not isinstance(node, Limit) or node.count is None or len(order) != 1:
        return None
    (sort,) = order
    return TopK(sort.input, sort.keys, node.count, node.offset) if isinstance(sort, Sort) else None


def _selects(node: Node, orders: Sequence[Sequence[Node]], below: Sequence[Step]) -> bool:
    return node.selects and below[0].append_only and _reorder(orders[0])


def _reorder(order: Sequence[Node]) -> bool:
    return all(operator.reorders_only for operator in order)


def _shown_by(node: Node, by: Sequence[Names], selecting: bool) -> Names | None:
    """The output columns that hold the key; None where what was shown is not kept."""
    shape = node.stream()
    if selecting or not by[0]:
        return by[0]
    return shape.shown_by if isinstance(shape, Keyed) else None


def hashing_of(by: Sequence[Names], below: Sequence[Step]) -> Hashing:
    """How the keys of the inputs are hashed."""
    columns = zip(*by, strict=True)
    kinds = [[step.schema.field(name).type for step, name in zip(below, names, strict=True)] for names in columns]
    return Hashing(kinds, joins=False)


def _touched(by: Sequence[Names], feeds: Sequence[Feed], hashing: Hashing | None) -> str:
    """SQL of the keys in the feeds, as columns k0, k1, ..., and their hash, where they have one."""
    parts = [
        f"SELECT {', '.join(f'{quoted(key)} AS k{at}' for at, key in enumerate(keys))} FROM {feed.name}"
        for keys, feed in zip(by, feeds, strict=True)
    ]
    keys = f"SELECT DISTINCT * FROM ({' UNION ALL '.join(parts)})"
    return f"SELECT *{hashing.beside(_numbered(by))} FROM ({keys})" if hashing else keys


def _numbered(by: Sequence[Names]) -> Names:
    return [f"k{at}" for at in range(len(by[0]))]
