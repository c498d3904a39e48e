"""Plans at work as streams over drawn histories, beside the batch query over the rows that these leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

from properties.plans import Made, scan
from properties.tables import COLUMNS, Epoch, bag, row_list, rows_after, table_of
from velaria_core.changes import DIFF, DIFF_FIELD, with_diff
from velaria_core.contract.modes import SinkMode
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.epoch import Output
from velaria_core.execution.lower import lower
from velaria_core.execution.state import Feed, Store
from velaria_core.execution.steps import Changes, Dataflow, Moment, Step, compile_steps
from velaria_core.logical import operators as op
from velaria_core.logical.node import Node
from velaria_core.logical.relation import Relation

Bag = Counter[tuple[Any, ...]]
NAMES = ("one", "two")


def changes_of(epoch: Epoch) -> pa.Table:
    table = table_of(COLUMNS, [row for row, _ in epoch.changes])
    return table.append_column(DIFF_FIELD, pa.array([diff for _, diff in epoch.changes], pa.int64()))


class Run:
    """A plan at work as a stream, and the sum of what it gave. With a path its state outlives a restart."""

    def __init__(
        self, engine: Engine, node: Node, relations: Sequence[Relation], append_only: bool, path: Path | None = None
    ) -> None:
        self.output: Bag = Counter()
        self._relations = relations
        self._first = True
        self._snapshot: str | None = None
        self._engine, self._node, self._path = engine, node, path
        used = {id(one.relation) for one in node.walk() if isinstance(one, op.Scan)}
        self._streams = {id(relation): append_only for relation in relations if id(relation) in used}
        self._open()

    def _open(self) -> None:
        self._state = Engine(Settings(threads=1, path=str(self._path) if self._path is not None else None))
        self._store = Store(self._state)
        self.flow: Dataflow = self._compiled()
        self._sink = Output(self._store, self.flow, SinkMode.RETRACT)
        if self._snapshot is not None:
            self.flow.restore(self._snapshot)

    def _compiled(self) -> Dataflow:
        return compile_steps(self._node, self._store, self._engine, self._streams)

    def _step(self, tables: Sequence[pa.Table]) -> Changes:
        pairs = zip(self._relations, tables, strict=True)
        given = {id(one): table for one, table in pairs if id(one) in self._streams and table.num_rows}
        return self.flow.epoch(given, Moment(self._first))

    def epoch(self, tables: Sequence[pa.Table]) -> None:
        with self._store.cursor.transaction():
            made = self._step(tables)
            given = self._sink.of(made)
            self._snapshot = self.flow.snapshot()
        self.flow.committed()
        self._first = False
        if made is not None:
            assert made.num_rows > 0
            assert self.flow.steps[-1].append_only == (DIFF not in made.schema.names)
        for row, diff in [] if given is None else signed(given.rename_columns([*given.schema.names[:-1], DIFF])):
            self.output[row] += diff
            # A sink keeps the rows that are there, and must find those that it is to remove.
            assert self.output[row] >= 0
        self.output = Counter({row: count for row, count in self.output.items() if count})

    def checked(self) -> None:
        """From now on assert of every step that says so that what goes was there before the epoch."""
        for step in self.flow.steps:
            step.step = partial(self._net_step, step, step.step, Counter())  # type: ignore[method-assign]

    def _net_step(
        self, step: Step, work: Callable[..., Changes], there: Bag, changes: Sequence[Changes], at: Moment
    ) -> Changes:
        made = work(changes, at)
        rows = sorted(signed(made), key=lambda one: one[1]) if step.is_net else signed(made)
        for row, diff in rows:
            there[row] += diff
            assert there[row] >= 0 or not step.is_net, step.impl
        return made

    def fail(self, tables: Sequence[pa.Table]) -> None:
        """An epoch over these changes that does not become durable."""
        with suppress(_Failure), self._store.cursor.transaction():
            self._step(tables)
            raise _Failure
        self.flow.rolled_back()

    def restart(self) -> None:
        """Forget everything that is not durable."""
        self.close()
        self._open()

    def close(self) -> None:
        self._store.close()
        self._state.close()


def signed(changes: Changes) -> list[tuple[tuple[Any, ...], int]]:
    """The rows of changes, comparable, each with its diff."""
    if changes is None:
        return []
    *columns, diffs = (column.to_pylist() for column in with_diff(changes).columns)
    return list(zip(row_list(zip(*columns, strict=True)), diffs, strict=True))


class _Failure(Exception):
    """What makes an epoch fail."""


def batch_rows(engine: Engine, node: Node) -> Bag:
    lowered = lower(node)
    with engine.cursor(lowered.feeds) as cursor:
        return bag(list(row.values()) for row in cursor.table(lowered.sql).to_pylist())


class Past:
    """The histories of the inputs, and their rows at a moment of it, which a batch query reads."""

    def __init__(self, histories: Sequence[Sequence[Epoch]]) -> None:
        self.epochs = list(zip_longest(*histories, fillvalue=Epoch(())))
        self.append_only = all(diff > 0 for history in histories for epoch in history for _, diff in epoch.changes)
        self._histories = histories
        empty = table_of(COLUMNS, [])
        self._feeds = [Feed(name, empty.schema) for name in NAMES[: len(histories)]]
        self.leaves = [scan(feed, COLUMNS, feed.name) for feed in self._feeds]
        self.relations = [relation_of(leaf) for leaf in self.leaves]
        self.at(len(self.epochs))

    def at(self, epochs: int) -> None:
        """Batch reads the rows after so many epochs."""
        for feed, history in zip(self._feeds, self._histories, strict=True):
            feed.table = table_of(COLUMNS, rows_after(history[:epochs]))

    def changes(self, epoch: int) -> list[pa.Table]:
        tables = [changes_of(one) for one in self.epochs[epoch]]
        return [table.drop_columns([DIFF]) if self.append_only else table for table in tables]


def agree(engine: Engine, made: Made, past: Past, also: Collection[int] = ()) -> None:
    """Assert that the stream's output is the batch result at the end, and `also` after these epochs."""
    run = Run(engine, made.node, past.relations, past.append_only)
    run.checked()
    try:
        for epoch in range(len(past.epochs)):
            run.epoch(past.changes(epoch))
            if epoch in also:
                past.at(epoch + 1)
                assert run.output == batch_rows(engine, made.node)
        past.at(len(past.epochs))
        assert run.output == batch_rows(engine, made.node)
    finally:
        run.close()


def relation_of(made: Made) -> Relation:
    assert isinstance(made.node, op.Scan)
    return made.node.relation
