"""Split: a plan becomes chains of tasks, by the shape that each node declares; no operator is known by name but the
scans at the leaves, and the projection right above one, which says what of it is read.

| shape | what becomes of it |
|---|---|
| linear | runs on each part of the rows |
| bilinear | one side in parts, the other whole beside each of them: (a + b) x c = a x c + b x c |
| keyed, by states of the engine | states of each part, cut by key, merged by ranges of keys |
| keyed otherwise | rows cut by key; all rows of a key meet in one task |
| selects (a top-k, a limit, DISTINCT) | of each part what may stay, then of that |
| anything else | one task, over the rows of all parts |

A part of the rows of a scan is a run of them in their order; what is put together is in that order. Rows are cut by the
engine's hash of those key columns that are no floating point numbers, of which 0.0 and -0.0 are one key and have two
hashes. What depends on chance or a clock ends the parts: its rows are computed once.

Source: the algebra is that of the incremental forms (`velaria_core.logical.incremental`): what holds for the rows of
two epochs holds for the rows of two workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pyarrow as pa
from sqlglot import exp

from velaria_core.errors import VelariaError
from velaria_core.execution import batch, lower
from velaria_core.execution.duck import Engine, Settings
from velaria_core.logical.explain import steps
from velaria_core.logical.functions import is_volatile
from velaria_core.logical.incremental import Applied, Bilinear, Keyed, Linear
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Project, Scan
from velaria_core.logical.rules import pruned
from velaria_core.logical.serialize import dumps
from velaria_core.logical.states import States
from velaria_core.types import holds
from velaria_experimental.plans.inputs import input_scan, is_input
from velaria_experimental.plans.run import in_parts, projected
from velaria_experimental.plans.states import halves


@dataclass(frozen=True, slots=True)
class Reading:
    """What tasks read under one name: rows of the caller, or what another chain made.

    Attributes:
        table: rows; each task reads its share in order, or where `whole` all of them.
        chain: or the number of a chain; each task reads the part of its number, or where `whole` all.
    """

    name: str
    schema: pa.Schema
    table: pa.Table | None = None
    chain: int | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class PlannedChain:
    """Tasks that run one plan."""

    plan: str
    label: str
    tasks: int
    readings: tuple[Reading, ...]
    parts: int


@dataclass(frozen=True, slots=True)
class Split:
    """A plan as chains; the outputs of the last one are its rows.

    Attributes:
        reasons: why what runs in one task does.
    """

    chains: tuple[PlannedChain, ...]
    schema: pa.Schema
    reasons: tuple[str, ...]

    @property
    def is_split(self) -> bool:
        """Whether any of it runs in parts."""
        return any(chain.tasks > 1 for chain in self.chains)

    @property
    def reason(self) -> str:
        """What runs how, in a line."""
        stages = " -> ".join(f"{chain.label} x{chain.tasks}" for chain in self.chains)
        return f"{stages}; {'; '.join(self.reasons)}" if self.reasons else stages


def split(engine: Engine, root: Node, tasks: int) -> Split:
    """A plan in chains.

    Args:
        engine: reads what the plan scans, and tells the types.
        tasks: into how many parts rows are cut.
    Raises:
        InputError[plan.function]: the plan calls a function of the program, which a worker does not have.
        VelariaError: reading what it scans failed.
    """
    planner = Engine(Settings(threads=1))
    try:
        schema = lower.schema(engine, root)
        return _Splitter(engine, planner, max(1, tasks)).split(pruned(root), schema)
    finally:
        planner.close()


@dataclass(frozen=True, slots=True)
class _Rows:
    """A plan over inputs: where `parted`, each task's rows are a part of all."""

    node: Node
    readings: tuple[Reading, ...]
    parted: bool

    @property
    def size(self) -> int:
        """Rows of the caller that it reads."""
        return sum(one.table.num_rows for one in self.readings if one.table is not None)


class _Splitter:
    def __init__(self, engine: Engine, planner: Engine, tasks: int) -> None:
        self._engine, self._planner, self._tasks = engine, planner, tasks
        self._chains: list[PlannedChain] = []
        self._reasons: list[str] = []
        self._made: dict[int, _Rows] = {}
        self._numbers = 0
        self._needed: dict[int, list[str]] = {}

    def split(self, root: Node, schema: pa.Schema) -> Split:
        self._needed = _columns_needed(root)
        rows = self._rows(root)
        self._close(rows, root.label(), (), 1)
        return Split(tuple(self._chains), schema, tuple(dict.fromkeys(self._reasons)))

    def _rows(self, node: Node) -> _Rows:
        if id(node) not in self._made:
            self._made[id(node)] = self._rows_of(node)
        return self._made[id(node)]

    def _rows_of(self, node: Node) -> _Rows:
        if isinstance(node, Scan):
            return self._scanned(node)
        if not node.inputs:
            return _Rows(node, (), False)
        if (chance := _chance(node)) is not None:
            return self._whole(node, f"{node.label()}: {chance} is not the same in every task")
        shape = node.stream()
        by_key = isinstance(shape, Keyed) and bool(shape.by and shape.by[0])
        if node.selects and not by_key and (found := self._selected(node)) is not None:
            return found
        match shape:
            case Linear() if not node.reorders_only:
                if (found := self._linear(node)) is not None:
                    return found
            case Bilinear():
                return self._bilinear(node)
            case Applied():
                pass
            case Keyed():
                if (found := self._keyed(node, shape)) is not None:
                    return found
        return self._whole(node, f"{node.label()}: needs all rows")

    # --- shapes ---------------------------------------------------------------------------------------------

    def _scanned(self, node: Scan) -> _Rows:
        columns = self._needed[id(node)]
        feed = node.relation.feed
        if isinstance(feed, pa.Table):
            table = feed.select(columns)
        else:
            table = batch.table(self._engine, projected(node, columns))
        # In the engine's own types, in which every part comes back.
        schema = lower.schema(self._engine, projected(node, columns))
        table = table.cast(schema) if not table.schema.equals(schema) else table
        scan = self._input(schema)
        return _Rows(scan, (Reading(scan.relation.label, schema, table),), self._tasks > 1)

    def _linear(self, node: Node) -> _Rows | None:
        below = [self._rows(child) for child in node.inputs]
        if not all(one.parted for one in below):
            return None
        return _Rows(node.over([one.node for one in below]), _together(below), True)

    def _bilinear(self, node: Node) -> _Rows:
        below = [self._rows(child) for child in node.inputs]
        sizes = [one.size if one.parted else -1 for one in below]
        driving = max(range(len(below)), key=sizes.__getitem__)
        sides = [one if at == driving else self._beside(one, node) for at, one in enumerate(below)]
        return _Rows(node.over([one.node for one in sides]), _together(sides), below[driving].parted)

    def _keyed(self, node: Node, shape: Keyed) -> _Rows | None:
        below = [self._rows(child) for child in node.inputs]
        if not all(one.parted for one in below):
            return None
        if isinstance(shape.states, States) and len(below) == 1:
            try:
                return self._merged(node, shape.states, below[0])
            except VelariaError:
                pass  # no states of these types: rows are cut by key instead
        if not shape.by or not shape.by[0]:
            return None
        schemas = [self._schema(one.node) for one in below]
        at = _hashed(shape.by, schemas)
        if not at:
            self._reasons.append(f"{node.label()}: no column of its key can be cut by")
            return None
        scans, readings = [], []
        for one, schema, names, child in zip(below, schemas, shape.by, node.inputs, strict=True):
            # What selects within keys leaves out what it can before the rows travel.
            rows = replace(one, node=node.over([one.node])) if node.selects else one
            number = self._close(rows, child.label(), [names[position] for position in at], self._tasks)
            scan = self._input(schema)
            scans.append(scan)
            readings.append(Reading(scan.relation.label, schema, chain=number))
        return _Rows(node.over(scans), tuple(readings), True)

    def _merged(self, node: Node, states: States, below: _Rows) -> _Rows:
        """By states: those of each part, then merged by ranges of keys."""
        found = halves(self._planner, node, states, below.node, self._schema(below.node))
        by = [name for name in found.keys if not _has_floats(found.schema.field(name).type)]
        parts = self._tasks if by else 1
        number = self._close(replace(below, node=found.partial), f"{node.label()} (states)", by, parts)
        scan = self._input(found.schema)
        reading = Reading(scan.relation.label, found.schema, chain=number, whole=parts == 1)
        return _Rows(found.merge(scan), (reading,), parts > 1)

    def _selected(self, node: Node) -> _Rows | None:
        """What may stay of each part, then of that. A sort right below it is part of what it selects by."""
        run = [node]
        while len(run[-1].inputs) == 1 and run[-1].inputs[0].reorders_only:
            run.append(run[-1].inputs[0])
        if len(run[-1].inputs) != 1:
            return None
        below = self._rows(run[-1].inputs[0])
        if not below.parted:
            return None
        schema = self._schema(below.node)
        number = self._close(replace(below, node=_over(run, below.node)), f"{node.label()} (of a part)", (), 1)
        scan = self._input(schema)
        reading = Reading(scan.relation.label, schema, chain=number, whole=True)
        return _Rows(_over(run, scan), (reading,), False)

    def _whole(self, node: Node, reason: str) -> _Rows:
        """In one task, over the rows of all parts."""
        below = [self._rows(child) for child in node.inputs]
        if any(one.parted for one in below):
            self._reasons.append(reason)
        sides = [self._gathered(one, child) for one, child in zip(below, node.inputs, strict=True)]
        return _Rows(node.over([one.node for one in sides]), _together(sides), False)

    # --- chains ---------------------------------------------------------------------------------------------

    def _gathered(self, rows: _Rows, node: Node) -> _Rows:
        """All rows in one task; untouched ones of the caller need no task of their own before it."""
        if not rows.parted:
            return rows
        if is_input(rows.node) and all(one.table is not None for one in rows.readings):
            return self._copied(rows)
        return self._made_before(rows, node.label())

    def _beside(self, rows: _Rows, node: Node) -> _Rows:
        """All rows, in every task of another chain."""
        if all(one.table is not None for one in rows.readings):
            return self._copied(rows)
        return self._made_before(rows, f"{node.label()} (one side)")

    def _made_before(self, rows: _Rows, label: str) -> _Rows:
        schema = self._schema(rows.node)
        number = self._close(rows, label, (), 1)
        scan = self._input(schema)
        return _Rows(scan, (Reading(scan.relation.label, schema, chain=number, whole=True),), False)

    def _copied(self, rows: _Rows) -> _Rows:
        """The same over whole inputs with names of their own: another side may read parts of the same rows."""
        scans = {one.name: self._input(one.schema) for one in rows.readings}
        made: dict[int, Node] = {}
        for node in steps(rows.node):
            if is_input(node):
                assert isinstance(node, Scan)
                made[id(node)] = scans[node.relation.label]
            else:
                made[id(node)] = node.over([made[id(child)] for child in node.inputs]) if node.inputs else node
        readings = (replace(one, name=scans[one.name].relation.label, whole=True) for one in rows.readings)
        return _Rows(made[id(rows.node)], tuple(readings), False)

    def _close(self, rows: _Rows, label: str, by: Sequence[str], parts: int) -> int:
        """A chain of tasks that compute these rows; returns its number."""
        plan = dumps(in_parts(rows.node, by, parts))
        readings = tuple(one if rows.parted else replace(one, whole=True) for one in rows.readings)
        tasks = self._tasks if rows.parted else 1
        self._chains.append(PlannedChain(plan, label, tasks, readings, parts))
        return len(self._chains) - 1

    def _input(self, schema: pa.Schema) -> Scan:
        self._numbers += 1
        return input_scan(self._numbers, schema)

    def _schema(self, node: Node) -> pa.Schema:
        return lower.schema(self._planner, node)


def _over(run: Sequence[Node], below: Node) -> Node:
    for node in reversed(run):
        below = node.over([below])
    return below


def _together(rows: Sequence[_Rows]) -> tuple[Reading, ...]:
    """The inputs of several, each once."""
    return tuple({reading.name: reading for one in rows for reading in one.readings}.values())


def _hashed(by: Sequence[Sequence[str]], schemas: Sequence[pa.Schema]) -> list[int]:
    """Positions of key columns whose hash is the same wherever they are equal."""
    found = []
    for at in range(len(by[0])):
        kinds = [schema.field(names[at]).type for names, schema in zip(by, schemas, strict=True)]
        if all(kind == kinds[0] for kind in kinds) and not _has_floats(kinds[0]):
            found.append(at)
    return found


def _has_floats(kind: pa.DataType) -> bool:
    return bool(holds(kind, pa.types.is_floating))


def _columns_needed(root: Node) -> dict[int, list[str]]:
    """For each scan, its columns that a projection right above reads; all where there is another reader."""
    found: dict[int, set[str]] = {id(root): set(root.columns)} if isinstance(root, Scan) else {}
    scans = {id(node): node for node in root.walk() if isinstance(node, Scan)}
    for node in root.walk():
        read = {column.name for tree in _trees(node) for column in tree.find_all(exp.Column)}
        for child in node.inputs:
            if id(child) in scans:
                narrow = isinstance(node, Project) and read
                found.setdefault(id(child), set()).update(read if narrow else child.columns)
    return {key: [name for name in scans[key].columns if name in names] for key, names in found.items()}


def _chance(node: Node) -> str | None:
    """What of a node depends on chance or a clock."""
    for tree in _trees(node):
        for part in tree.walk():
            if is_volatile(part):
                return part.sql()
    return None


def _trees(node: Node) -> Iterator[exp.Expr]:
    """The expressions of a node."""

    def found(value: Any) -> Iterator[exp.Expr]:
        if isinstance(value, exp.Expr):
            yield value
        elif isinstance(value, tuple):
            for item in value:
                yield from found(item)

    for field in fields(node):
        yield from found(getattr(node, field.name))
