"""Steps: a plan in its incremental form. Each step turns the changes of one epoch into changes of its result.

`compile_steps` walks a plan and chooses a step by the shape that each node declares; it knows no operator by name but
the scans at the leaves. Runs of linear nodes become one statement. State lives in a `Store`; a step that has nothing to
do returns None and costs nothing.

Invariant: after any history, the sum of a step's changes is the batch result over the sum of its inputs' changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import pyarrow as pa
from sqlglot import exp

from velaria_core.changes import DIFF, DIFF_FIELD, concat, has_diff, with_diff
from velaria_core.execution.duck import Engine
from velaria_core.execution.lower import lower, schema
from velaria_core.execution.state import Feed, Store
from velaria_core.logical.expr import reference
from velaria_core.logical.incremental import Bilinear, Keyed, Linear
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Join, Scan
from velaria_core.logical.query import Query
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

Changes: TypeAlias = pa.Table | None
COUNT = "__n"


class Step(ABC):
    """One operator, or a run of linear ones, at work.

    Attributes:
        schema: the result's columns, without the diff.
        append_only: its changes never retract, and have no diff column.
        inputs: the steps whose changes it takes.
    """

    def __init__(self, schema: pa.Schema, append_only: bool, inputs: Sequence[Step]) -> None:
        self.schema = schema
        self.append_only = append_only
        self.inputs = tuple(inputs)

    @property
    def changes_schema(self) -> pa.Schema:
        """The columns of its changes."""
        return self.schema if self.append_only else self.schema.append(DIFF_FIELD)

    @abstractmethod
    def step(self, changes: Sequence[Changes], first: bool) -> Changes:
        """The changes of the result that follow from those of the inputs. `first` is true in the first epoch of the
        query's life, in which an operator over no rows shows what it has."""


class SourceStep(Step):
    """The rows that a source gave: whatever the epoch put into `given`."""

    def __init__(self, schema: pa.Schema, append_only: bool) -> None:
        super().__init__(schema, append_only, ())
        self.given: Changes = None

    def step(self, _changes: Sequence[Changes], _first: bool) -> Changes:
        given, self.given = self.given, None
        return given if given is not None and given.num_rows else None


class StaticStep(Step):
    """A table that does not change: all its rows come in the first epoch."""

    def __init__(self, engine: Engine, node: Node) -> None:
        super().__init__(schema(engine, node), True, ())
        self._engine, self._node = engine, node

    def step(self, _changes: Sequence[Changes], first: bool) -> Changes:
        if not first:
            return None
        lowered = lower(self._node)
        with self._engine.cursor(lowered.feeds) as cursor:
            return cursor.table(lowered.sql)


class LinearStep(Step):
    """A run of linear nodes over one input: one statement over the changes, diffs carried along."""

    def __init__(self, store: Store, run: Sequence[Node], below: Step) -> None:
        self._feed = store.feed(below.changes_schema)
        carry = () if below.append_only else (DIFF,)
        node: Node = Scan(_relation(self._feed))
        for operator in reversed(run):
            node = operator.over([node], carry)
        top = run[0]
        query = _query(node)
        shown = [(name, reference(name)) for name in (*top.columns, *carry)]
        sql = query.projected(shown).sql()
        found = store.schema(sql)
        super().__init__(found.remove(len(found) - 1) if carry else found, below.append_only, [below])
        self._statement = store.prepare(sql)

    def step(self, changes: Sequence[Changes], _first: bool) -> Changes:
        (given,) = changes
        if given is None:
            return None
        self._feed.table = given
        return _some(self._statement())


class PassStep(Step):
    """A node that does nothing to changes, such as a sort: a changelog has no order of its own."""

    def __init__(self, below: Step) -> None:
        super().__init__(below.schema, below.append_only, [below])

    def step(self, changes: Sequence[Changes], _first: bool) -> Changes:
        return changes[0]


class ConcatStep(Step):
    """A linear node of two inputs (a union): each side's changes through the node's own query, the other side empty."""

    def __init__(self, store: Store, node: Node, below: Sequence[Step]) -> None:
        append_only = all(step.append_only for step in below)
        self._feeds = [store.feed(_with_diff(step.changes_schema, append_only)) for step in below]
        carry = () if append_only else (DIFF,)
        made = node.over([Scan(_relation(feed)) for feed in self._feeds], carry)
        sql = _query(made).projected([(name, reference(name)) for name in (*node.columns, *carry)]).sql()
        found = store.schema(sql)
        super().__init__(found.remove(len(found) - 1) if carry else found, append_only, below)
        self._statement = store.prepare(sql)

    def step(self, changes: Sequence[Changes], _first: bool) -> Changes:
        if all(given is None for given in changes):
            return None
        for feed, given in zip(self._feeds, changes, strict=True):
            feed.table = _fitted(given, feed)
        return _some(self._statement())


class BilinearStep(Step):
    """An inner or cross join: each side's changes against the other side's rows; both sides are state.

    The new left rows meet the right as it is after the epoch, the new right rows the left as it was before.
    """

    def __init__(self, store: Store, name: str, node: Join, below: Sequence[Step]) -> None:
        self._sides = [_Rows(store, f"{name}_{side}", step) for side, step in zip("lr", below, strict=True)]
        left, right = self._sides
        statements = []
        for one, other in ((left.new, right.kept), (left.kept, right.new)):
            made = node.over([one, other])
            product = exp.Mul(this=reference(DIFF), expression=reference(COUNT))
            columns = [(column, reference(column)) for column in node.columns]
            statements.append(_query(made).projected([*columns, (DIFF, product)]).sql())
        found = store.schema(statements[0])
        super().__init__(found.remove(len(found) - 1), False, below)
        self._new_left, self._new_right = map(store.prepare, statements)

    def step(self, changes: Sequence[Changes], _first: bool) -> Changes:
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
        return _some(concat(made)) if made else None


class KeyedStep(Step):
    """The keys that an epoch touched, computed before and after; the difference is what changed.

    With no key the whole result is one key. State is the rows of every input. `orders` are the nodes between an input
    and `node` that put its rows in the order that `node` reads.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        node: Node,
        by: Sequence[Sequence[str]],
        orders: Sequence[Sequence[Node]],
        below: Sequence[Step],
    ) -> None:
        self._inputs = [_Rows(store, f"{name}_{at}", step) for at, step in enumerate(below)]
        self._keyed = bool(by[0])
        queries = []
        if self._keyed:
            parts = [
                f"SELECT {', '.join(f'{quoted(key)} AS k{at}' for at, key in enumerate(keys))} FROM {rows.feed.name}"
                for keys, rows in zip(by, self._inputs, strict=True)
            ]
            touched = f"SELECT DISTINCT * FROM ({' UNION ALL '.join(parts)})"
            self._touched = store.feed(store.schema(touched))
            self._find_touched = store.prepare(touched)
        for keys, rows, order in zip(by, self._inputs, orders, strict=True):
            query = Query.table(f"({rows.restricted(keys, self._touched if self._keyed else None)})", rows.columns)
            for operator in reversed(order):
                query = operator.batch(query)
            queries.append(query)
        result = node.batch(*queries).sql()
        found = store.schema(result)
        super().__init__(found, False, below)
        self._result = store.prepare(result)
        self._before = store.feed(found)
        columns = ", ".join(quoted(column) for column in found.names)
        self._difference = store.prepare(
            f"SELECT {columns}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF} FROM ("
            f"SELECT {columns}, 1 AS {DIFF} FROM ({result}) UNION ALL SELECT {columns}, -1 FROM {self._before.name}"
            f") GROUP BY {columns} HAVING sum({DIFF}) <> 0"
        )

    def step(self, changes: Sequence[Changes], first: bool) -> Changes:
        if all(given is None for given in changes) and not (first and not self._keyed):
            return None
        for rows, given in zip(self._inputs, changes, strict=True):
            rows.feed.table = _fitted(given, rows.feed)
        if self._keyed:
            self._touched.table = self._find_touched()
        # Nothing was shown before the first epoch, not even the one row of an aggregate over no rows.
        self._before.table = pa.Table.from_batches([], self._before.schema) if first else self._result()
        for rows, given in zip(self._inputs, changes, strict=True):
            if given is not None:
                rows.add()
        return _some(self._difference())


class _Rows:
    """The rows of one input as state: each with its count, as a log of changes."""

    def __init__(self, store: Store, name: str, below: Step) -> None:
        self.columns = below.schema.names
        self.feed = store.feed(_with_diff(below.schema, append_only=False))
        self.table = store.table(name, _renamed_count(self.feed.schema))
        self._add = store.prepare(f"INSERT INTO {self.table} SELECT * FROM {self.feed.name}")
        self._append_only = below.append_only

    @property
    def new(self) -> Scan:
        """The changes that are fed, with their diff."""
        return Scan(_relation(self.feed))

    @property
    def kept(self) -> Scan:
        """The log of changes, with their count."""
        return Scan(Relation(self.table, _renamed_count(self.feed.schema), self.table, "state"))

    def take(self, changes: pa.Table) -> None:
        """Feed these changes and keep them."""
        self.feed.table = with_diff(changes)
        self.add()

    def add(self) -> None:
        """Keep the changes that are fed."""
        self._add()

    def restricted(self, keys: Sequence[str], touched: Feed | None) -> str:
        """SQL of the rows whose key was touched, each as often as it is there; all rows without a feed of keys."""
        listed = ", ".join(f"s.{quoted(column)}" for column in self.columns)
        source = f"{self.table} AS s"
        if touched is not None:
            same = " AND ".join(f"s.{quoted(key)} IS NOT DISTINCT FROM k.k{at}" for at, key in enumerate(keys))
            source += f" SEMI JOIN {touched.name} AS k ON {same}"
        if self._append_only:
            return f"SELECT {listed} FROM {source}"
        names = ", ".join(quoted(column) for column in self.columns)
        return (
            f"SELECT {names} FROM (SELECT {names}, unnest(range({COUNT})) FROM (SELECT {listed}, "
            f"CAST(sum(s.{COUNT}) AS BIGINT) AS {COUNT} FROM {source} GROUP BY {listed} HAVING sum(s.{COUNT}) > 0))"
        )


# --- compiling ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dataflow:
    """The steps of a plan in the order in which they run."""

    steps: tuple[Step, ...]
    sources: Mapping[int, SourceStep]

    @property
    def schema(self) -> pa.Schema:
        return self.steps[-1].schema

    def epoch(self, given: Mapping[int, pa.Table], first: bool) -> Changes:
        """The changes of the result that follow from rows given to the sources, by the identity of their relation."""
        for key, table in given.items():
            self.sources[key].given = table
        made: dict[int, Changes] = {}
        for step in self.steps:
            made[id(step)] = step.step([made[id(below)] for below in step.inputs], first)
        return made[id(self.steps[-1])]


def compile_steps(root: Node, store: Store, engine: Engine, streams: Mapping[int, bool]) -> Dataflow:
    """The incremental form of a plan.

    Args:
        engine: where static tables are read.
        streams: for each relation that is a stream, by identity, whether it is append-only.
    """
    steps: list[Step] = []
    sources: dict[int, SourceStep] = {}
    made: dict[int, Step] = {}
    numbers = count(1)
    uses: Counter[int] = Counter(id(child) for node in root.walk() for child in node.inputs)

    def built(node: Node) -> Step:
        if id(node) not in made:
            step = make(node)
            made[id(node)] = step
            steps.append(step)
        return made[id(node)]

    def make(node: Node) -> Step:
        if isinstance(node, Scan):
            if id(node.relation) not in streams:
                return StaticStep(engine, node)
            source = SourceStep(node.relation.schema, streams[id(node.relation)])
            sources[id(node.relation)] = source
            return source
        shape = node.stream()
        name = f"step_{next(numbers)}"
        match shape:
            case Linear() if not node.inputs:
                return StaticStep(engine, node)
            case Linear() if len(node.inputs) == 1:
                run = [node]
                while _continues(run[-1], uses):
                    run.append(run[-1].inputs[0])
                below = built(run[-1].inputs[0])
                run = [operator for operator in run if not operator.reorders_only]
                return LinearStep(store, run, below) if run else PassStep(below)
            case Linear():
                return ConcatStep(store, node, [built(child) for child in node.inputs])
            case Bilinear():
                assert isinstance(node, Join)
                return BilinearStep(store, name, node, [built(child) for child in node.inputs])
            case Keyed(by):
                return KeyedStep(store, name, node, by, [()] * len(by), [built(child) for child in node.inputs])
            case _:
                # All rows are read anew anyway, so in their order, which changes do not have.
                orders = [_order(child) for child in node.inputs]
                inputs = [run[-1].inputs[0] if run else child for run, child in zip(orders, node.inputs, strict=True)]
                return KeyedStep(store, name, node, [()] * len(inputs), orders, [built(child) for child in inputs])

    built(root)
    return Dataflow(tuple(steps), sources)


def _continues(node: Node, uses: Counter[int]) -> bool:
    """Whether the input of a linear node is linear too, over one input, and read by nobody else."""
    child = node.inputs[0]
    return isinstance(child.stream(), Linear) and len(child.inputs) == 1 and uses[id(child)] == 1


def _order(node: Node) -> list[Node]:
    """The run of linear nodes from here down to the lowest that orders rows; empty where none does."""
    run: list[Node] = []
    while isinstance(node.stream(), Linear) and len(node.inputs) == 1:
        run.append(node)
        node = node.inputs[0]
    while run and not run[-1].reorders_only:
        run.pop()
    return run


def _query(node: Node) -> Query:
    return node.batch(*(_query(child) for child in node.inputs))


def _relation(feed: Feed) -> Relation:
    return Relation(feed.name, feed.schema, feed.name, "feed")


def _with_diff(columns: pa.Schema, append_only: bool) -> pa.Schema:
    return columns if append_only or has_diff(columns) else columns.append(DIFF_FIELD)


def _renamed_count(columns: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_name(COUNT) if field.name == DIFF else field for field in columns])


def _fitted(given: Changes, feed: Feed) -> pa.Table:
    if given is None:
        return pa.Table.from_batches([], feed.schema)
    return with_diff(given) if has_diff(feed.schema) else given


def _some(table: pa.Table) -> Changes:
    return table if table.num_rows else None
