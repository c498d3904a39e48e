"""Linear steps: the batch query runs on the changes alone, diffs carried along. No state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from velaria_core.changes import DIFF, concat, with_diff
from velaria_core.execution.state import Feed, Statement, Store
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
from velaria_core.execution.steps.firsts import Firsts
from velaria_core.execution.steps.numbers import Origin, columns_of, origins
from velaria_core.logical.expr import reference
from velaria_core.logical.lineage import lineage
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan, Union
from velaria_core.logical.ranks import ranks_bounded
from velaria_core.types import arrow_type, duckdb_type

_ROW = "__row"
_CHEAP_COLUMNS = 2


class LinearStep(Step):
    """A run of linear nodes over one input; `run` is the highest first.

    Only what is new in a row is computed: columns that pass through stay in Arrow. A run that only selects and renames
    runs no statement, and nor does one that only adds tumbling windows. One that adds other columns runs one over the
    columns that these read, and relies on the engine keeping the order of the rows. One that leaves rows out, or
    repeats them, also asks for the numbers of the rows that stay, and the other columns are taken by these: at 65,536
    rows of Nexmark bids, half of them kept, 1 ms instead of 3. One or two numbers the engine carries as well.
    """

    def __init__(self, store: Store, run: Sequence[Node], below: Step) -> None:
        found = lineage(run[::-1])
        taken = [name for name, source in found.passed if _stays(below.schema.field(source).type)]
        carried: tuple[str, ...] = () if below.append_only else (DIFF,)
        origin = dict(found.passed)
        through: tuple[str, ...] = ()  # diffs that the engine carries
        passing = [below.changes_schema.field(origin.get(name, name)) for name in (*taken, *carried)]
        if not found.one_to_one and _are_cheap(passing):
            taken, carried, through = [], (), carried
        numbered = not found.one_to_one and bool(taken or carried)
        self._sources = [*(origin[name] for name in taken), *carried]
        self._arange = _Numbers() if numbered else None
        computed = [name for name in run[0].columns if name not in taken]
        fields = {name: below.schema.field(origin[name]).with_name(name) for name in taken}
        self._statement: Statement | None = None
        if not computed and found.one_to_one:
            self.impl, self.impl_reason = "columns", "every column passes through, so no statement runs"
        else:
            feed = below.changes_schema.append(pa.field(_ROW, pa.int64())) if numbered else below.changes_schema
            self._feed = store.feed(feed)
            asked = [*computed, *through, *([_ROW] if numbered else [])]
            sql = _over(run, self._feed, asked)
            self._statement = store.prepare(sql)
            fields |= {field.name: field for field in store.schema(sql) if field.name != _ROW}
        names = [*taken, *carried, *computed, *through]
        self._order = [names.index(name) for name in (*run[0].columns, *carried, *through)]
        super().__init__(pa.schema([_plain(fields[name]) for name in run[0].columns]), below.append_only, [below])
        self._windows = _windows_of(run, below) if self._statement is not None else None
        if self._windows is not None:
            self.impl, self.impl_reason = "numpy", "windows are computed as numbers, every other column passes through"

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        (given,) = changes
        if given is None:
            return None
        if self._windows is not None and (found := columns_of(given, self._windows)) is not None:
            return pa.Table.from_arrays(found, schema=self.changes_schema)
        kept = given.select(self._sources)
        made: list[pa.ChunkedArray] = []
        if self._statement is not None:
            numbers = self._arange
            self._feed.table = given if numbers is None else given.append_column(_ROW, numbers.to(given.num_rows))
            result = self._statement()
            if not result.num_rows:
                return None
            made = result.columns
            if numbers is not None:
                rows = made.pop()
                if not numbers.are_all(rows, given.num_rows):
                    kept = kept.take(rows)
        columns = [*kept.columns, *made]
        return pa.Table.from_arrays([columns[at] for at in self._order], names=self.changes_schema.names)


class WholeStep(Step):
    """A run of nodes, some of them keyed, over rows whose keys come whole, each in one epoch: event time has closed
    them. So the batch query runs on them alone, and nothing is kept; `run` is the highest first."""

    impl = "whole"
    impl_reason = "each key comes whole, once event time has closed it, so its rows are all there"

    def __init__(self, store: Store, run: Sequence[Node], below: Step) -> None:
        assert below.append_only, "what is closed does not change"
        self._feed = store.feed(below.schema)
        node: Node = Scan(relation_of(self._feed))
        for operator in reversed(run):
            node = operator.over([node])
        node = ranks_bounded(node)
        sql = query_of(node).sql()
        super().__init__(store.schema(sql), True, [below])
        self._statement = store.prepare(sql)
        self._firsts = Firsts.of(node, below.schema, self.schema)

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        (given,) = changes
        if given is None:
            return None
        if self._firsts is not None:
            given, alone = self._firsts.picked(given)
            if alone and self._firsts.columns is not None:
                return pa.Table.from_arrays(given.select(self._firsts.columns).columns, schema=self.schema)
        self._feed.table = given
        return some(self._statement())


class _Numbers:
    """The numbers of rows, 0, 1, 2, ..., as Arrow data that is kept for the next epoch."""

    def __init__(self) -> None:
        self._values = np.arange(0, dtype=np.int64)

    def to(self, rows: int) -> pa.Array:
        if len(self._values) < rows:
            self._values = np.arange(rows, dtype=np.int64)
        return pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(self._values)])

    def are_all(self, found: pa.ChunkedArray, rows: int) -> bool:
        """Whether each of so many rows was found once, in order."""
        return len(found) == rows and bool(np.array_equal(found.to_numpy(), self._values[:rows]))


def _windows_of(run: Sequence[Node], below: Step) -> list[Origin] | None:
    """Where the columns come from, and the diff, if they are windows of times or stay in Arrow."""
    found = origins(run, below.schema) or {}
    wanted = [found[name] for name in run[0].columns if name in found]
    stay = all(one.size or _stays(below.schema.field(one.column).type) for one in wanted)
    if not stay or len(wanted) < len(run[0].columns):
        return None
    return wanted if below.append_only else [*wanted, Origin(DIFF)]


def _over(run: Sequence[Node], feed: Feed, asked: Sequence[str]) -> str:
    """The query of a run, the highest first, over a feed: `asked` alone, of its columns or those handed on."""
    carry = tuple(column for column in asked if column not in run[0].columns)
    node: Node = Scan(relation_of(feed))
    for operator in reversed(run):
        node = operator.over([node], carry)
    return query_of(node).projected([(column, reference(column)) for column in asked]).sql()


def _are_cheap(fields: Sequence[pa.Field]) -> bool:
    """Whether the engine carries these columns for less than it takes to number rows, and to take them by number."""
    return len(fields) <= _CHEAP_COLUMNS and all(pa.types.is_primitive(field.type) for field in fields)


def _stays(kind: pa.DataType) -> bool:
    """Whether a column may stay in Arrow: of the type in which it would come out of the engine."""
    return bool(arrow_type(duckdb_type(kind)) == kind)


def _plain(field: pa.Field) -> pa.Field:
    """Without what a source said about NULLs and metadata, which the engine does not keep either."""
    return pa.field(field.name, field.type)


class PassStep(Step):
    """A node that does nothing to changes, such as a sort: a changelog has no order of its own."""

    def __init__(self, below: Step) -> None:
        super().__init__(below.schema, below.append_only, [below])

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        return changes[0]


class ConcatStep(Step):
    """A linear node of two inputs (a union): each side's changes through the node's own query, the other side empty.

    Where both sides have the result's columns already, they only stand one after the other.
    """

    def __init__(self, store: Store, node: Node, below: Sequence[Step]) -> None:
        append_only = all(step.append_only for step in below)
        self._feeds = [store.feed(diffed(step.changes_schema, append_only)) for step in below]
        carry = () if append_only else (DIFF,)
        made = node.over([Scan(relation_of(feed)) for feed in self._feeds], carry)
        sql = query_of(made).projected([(name, reference(name)) for name in (*node.columns, *carry)]).sql()
        found = store.schema(sql)
        super().__init__(found.remove(len(found) - 1) if carry else found, append_only, below)
        self._statement = None if self._only_follow(node, below) else store.prepare(sql)
        if self._statement is None:
            self.impl, self.impl_reason = "columns", "both sides have the columns of the result, so no statement runs"

    def _only_follow(self, node: Node, below: Sequence[Step]) -> bool:
        if not isinstance(node, Union) or any(step.schema.types != self.schema.types for step in below):
            return False
        return not node.by_name or all(step.schema.names == self.schema.names for step in below)

    def step(self, changes: Sequence[Changes], _at: Moment) -> Changes:
        given = [table for table in changes if table is not None]
        if not given:
            return None
        if self._statement is None:
            names = self.changes_schema.names
            tables = given if self.append_only else [with_diff(table) for table in given]
            return concat([pa.Table.from_arrays(table.columns, names=names) for table in tables])
        for feed, table in zip(self._feeds, changes, strict=True):
            feed.table = fitted(table, feed)
        return some(self._statement())
