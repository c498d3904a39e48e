"""Streams: after any history of inserts and retractions, in any epochs, the sum of the output is the batch result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from properties.plans import Made, plans, scan
from properties.profile import examples
from properties.tables import COLUMNS, Epoch, bag, histories, rows_after, table_of
from velaria_core.changes import DIFF, DIFF_FIELD, with_diff
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.lower import lower
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, Moment, compile_steps
from velaria_core.logical import operators as op
from velaria_core.logical.explain import tree
from velaria_core.logical.node import Node
from velaria_core.logical.relation import Relation

Bag = Counter[tuple[Any, ...]]
NAMES = ("one", "two")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


def changes_of(epoch: Epoch) -> pa.Table:
    table = table_of(COLUMNS, [row for row, _ in epoch.changes])
    return table.append_column(DIFF_FIELD, pa.array([diff for _, diff in epoch.changes], pa.int64()))


class Run:
    """A plan at work as a stream, and the sum of what it gave."""

    def __init__(self, engine: Engine, node: Node, relations: Sequence[Relation], append_only: bool) -> None:
        self.output: Bag = Counter()
        self._relations = relations
        self._first = True
        self._engine = Engine(Settings(threads=1))
        self._store = Store(self._engine)
        used = {id(one.relation) for one in node.walk() if isinstance(one, op.Scan)}
        streams = {id(relation): append_only for relation in relations if id(relation) in used}
        self._streams = streams
        self.flow: Dataflow = compile_steps(node, self._store, engine, streams)

    def epoch(self, tables: Sequence[pa.Table]) -> None:
        given = {
            id(relation): table
            for relation, table in zip(self._relations, tables, strict=True)
            if id(relation) in self._streams and table.num_rows
        }
        with self._store.cursor.transaction():
            made = self.flow.epoch(given, Moment(self._first))
        self._first = False
        if made is None:
            return
        assert made.num_rows > 0
        assert self.flow.steps[-1].append_only == (DIFF not in made.schema.names)
        for row in with_diff(made).to_pylist():
            diff = row.pop(DIFF)
            (key,) = bag([list(row.values())])
            self.output[key] += diff
        self.output = Counter({row: count for row, count in self.output.items() if count})

    def close(self) -> None:
        self._store.close()
        self._engine.close()


def batch_rows(engine: Engine, node: Node) -> Bag:
    lowered = lower(node)
    with engine.cursor(lowered.feeds) as cursor:
        return bag(list(row.values()) for row in cursor.table(lowered.sql).to_pylist())


def agree(engine: Engine, made: Made, past: Sequence[Sequence[Epoch]], relations: Sequence[Relation]) -> None:
    """Assert that the stream's output is the batch result, at the end of the histories."""
    append_only = all(diff > 0 for history in past for epoch in history for _, diff in epoch.changes)
    run = Run(engine, made.node, relations, append_only)
    try:
        for epochs in zip_longest(*past, fillvalue=Epoch(())):
            tables = [changes_of(epoch) for epoch in epochs]
            run.epoch([table.drop_columns([DIFF]) if append_only else table for table in tables])
        assert run.output == batch_rows(engine, made.node)
    finally:
        run.close()


def leaves_of(past: Sequence[Sequence[Epoch]]) -> list[Made]:
    tables = [table_of(COLUMNS, rows_after(history)) for history in past]
    return [scan(table, COLUMNS, name) for table, name in zip(tables, NAMES, strict=True)]


def relation_of(made: Made) -> Relation:
    assert isinstance(made.node, op.Scan)
    return made.node.relation


@pytest.mark.parametrize("operator", op.ALL, ids=lambda kind: kind.__name__)
def test_streams_that_end_in(engine: Engine, operator: type[Node]) -> None:
    @examples(12)
    @given(st.data(), histories(COLUMNS), histories(COLUMNS, max_changes=4))
    def holds(data: st.DataObject, one: list[Epoch], two: list[Epoch]) -> None:
        leaves = leaves_of([one, two])
        made = data.draw(plans(leaves, operator, depth=3))
        note(tree(made.node, shapes=True))
        agree(engine, made, [one, two], [relation_of(leaf) for leaf in leaves])

    holds()
