"""Work on numbers: windows of times are computed with arithmetic, and where keys and what is aggregated are columns of
whole numbers or times, or windows over such, rows are grouped with it (`groups.Groups`), so that no statement runs.

It does what it can be sure of. Numbers that might leave their 64 bits, times far from all that is real, and rows in
which the keys are too far apart are for the engine, which knows what becomes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from sqlglot import exp

from velaria_core.execution.groups import Groups, reduced
from velaria_core.execution.vectors import Vector, array_of, valid_of, vector_of, whole, widened
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.lineage import lineage
from velaria_core.logical.node import Node
from velaria_core.logical.operators.window_assign import WindowAssign
from velaria_core.logical.partials import Fold, Partial

_FARTHEST: Final = 1 << 61  # of values that are added or moved by a window


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a column comes from: one of the rows below, or of the window that a time of theirs is in.

    Attributes:
        size: the length of the window in units of the column; 0 where there is none.
        after: from the window's start to the value, in the same.
    """

    column: str
    size: int = 0
    after: int = 0


def origins(run: Sequence[Node], below: pa.Schema) -> dict[str, Origin] | None:
    """Where the columns of a run of linear nodes, the highest first, come from; without those that are computed
    otherwise. None where a row does not give one row."""
    found = {name: Origin(name) for name in below.names}
    for node in reversed(run):
        if isinstance(node, WindowAssign):
            if node.slide_ms != node.size_ms:
                return None
            found |= _window(node, found.pop(node.time, None), below)
            continue
        passed = lineage((node,))
        if not passed.one_to_one:
            return None
        found = {new: found[old] for new, old in passed.passed if old in found}
    return found


def _window(node: WindowAssign, time: Origin | None, below: pa.Schema) -> dict[str, Origin]:
    """Where the columns come from that a node adds, and its time itself."""
    if time is None:
        return {}
    found = {node.time: time}
    unit = None if time.size else _unit(node, below.field(time.column).type)
    if unit is not None:
        size = node.size_ms * unit
        found[node.start] = Origin(time.column, size)
        if node.end is not None:
            found[node.end] = Origin(time.column, size, size)
    return found


def columns_of(rows: pa.Table, wanted: Sequence[Origin]) -> list[pa.ChunkedArray] | None:
    """The columns that come from there; None where a time is so far that its window is for the engine."""
    made = []
    for origin in wanted:
        column = rows.column(origin.column)
        if origin.size:
            vector = vector_of(whole(column))
            if len(vector) and not _is_near(int(vector.data.min()), int(vector.data.max())):
                return None
            starts = vector.data // origin.size
            starts *= origin.size
            starts += origin.after
            column = pa.chunked_array([array_of(Vector(starts, vector.valid), column.type)])
        made.append(column)
    return made


def _unit(node: WindowAssign, kind: pa.DataType) -> int | None:
    """How many units of a time column a millisecond has; None where its windows are not for here."""
    if node.kind is TimeKind.INTEGER and kind == pa.int64():
        return 1
    if node.kind in (TimeKind.TIMESTAMP, TimeKind.TIMESTAMP_UTC) and pa.types.is_timestamp(kind) and kind.unit == "us":
        return 1000
    return None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Groups rows as the statement of a step would.

    Attributes:
        keys: where each comes from, and its type.
        partials: function, column, and type of each; the column of a count of all rows is None.
    """

    keys: tuple[tuple[Origin, pa.DataType], ...]
    partials: tuple[tuple[str, str | None, pa.DataType], ...]

    @staticmethod
    def of(
        keys: Sequence[tuple[exp.Expr, pa.DataType]],
        partials: Sequence[tuple[Partial, pa.DataType]],
        run: Sequence[Node],
        below: pa.Schema,
    ) -> Numbers | None:
        """The grouping of what a run, the highest node first, makes of rows that only come; None where that is not for
        here."""
        known = origins(run, below)
        if known is None or not keys:
            return None
        by = []
        for tree, kind in keys:
            origin = known.get(tree.name) if isinstance(tree, exp.Column) else None
            if origin is None or not is_whole(kind) or below.field(origin.column).type != kind:
                return None
            by.append((origin, kind))
        columns: list[tuple[str, str | None, pa.DataType]] = []
        for partial, kind in partials:
            if partial.plain is None:
                return None
            function, argument = partial.plain
            if argument is None:
                columns.append((function, None, kind))
                continue
            origin = known.get(argument.name) if isinstance(argument, exp.Column) else None
            if origin is None or origin.size:
                return None
            given = below.field(origin.column).type
            if pa.types.is_null(given):
                return None
            # The engine adds whole numbers in 128 bits.
            fits = {"count": True, "sum": pa.types.is_integer(given) and pa.types.is_decimal(kind)}.get(
                function, is_whole(kind) and given == kind
            )
            if not fits:
                return None
            columns.append((function, origin.column, kind))
        return Numbers(tuple(by), tuple(columns))

    def grouped(self, rows: pa.Table) -> list[pa.Array] | None:
        """A row for each key: the keys, their partial columns, and how many rows each has. None where the engine is to
        group them."""
        if not rows.num_rows:
            return None
        given: dict[str, pa.Array] = {}
        for name in {*(origin.column for origin, _ in self.keys), *(one for _, one, _ in self.partials if one)}:
            given[name] = whole(rows.column(name))
        keys = []
        for origin, _ in self.keys:
            vector = vector_of(given[origin.column])
            keys.append(Vector(vector.data // origin.size, vector.valid) if origin.size else vector)
        try:
            groups = Groups(keys)
        except OverflowError:
            return None
        for (origin, _), (low, high) in zip(self.keys, groups.extents, strict=True):
            if origin.size and not _is_near(low * origin.size, high * origin.size):
                return None
        made = []
        for (origin, kind), vector in zip(self.keys, groups.keys(), strict=True):
            if origin.size:
                vector = Vector(vector.data * origin.size + origin.after, vector.valid)
            made.append(array_of(vector, kind))
        for function, column, kind in self.partials:
            values = _partial(groups, function, None if column is None else given[column])
            if values is None:
                return None
            made.append(array_of(values, kind))
        return [*made, array_of(Vector(groups.counts), pa.int64())]


def _partial(groups: Groups, function: str, column: pa.Array | None) -> Vector | None:
    """A partial column of each group; None where it may leave 64 bits."""
    if column is None or (function == "count" and not column.null_count):
        return Vector(groups.counts)
    if function == "count":
        return Vector(np.bincount(groups.rows[valid_of(column)], minlength=len(groups)))
    vector = vector_of(column)
    if function == "sum":
        data = vector.data
        if max(int(data.max()), -int(data.min())) * len(data) >= _FARTHEST:
            return None
        sums = reduced(Fold.ADD, Vector(data.astype(np.int64, copy=False), vector.valid), groups.rows, len(groups))
        return Vector(widened(sums.data))
    return reduced(Fold(function), vector, groups.rows, len(groups))


def _is_near(low: int, high: int) -> bool:
    """Whether times from `low` to `high` are such that a window around them is one too; infinite ones are not."""
    return low > -_FARTHEST and high < _FARTHEST


def is_whole(kind: pa.DataType) -> bool:
    """Whether values of the type are whole numbers, in the engine's order and in storage."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_date32(kind)
        or pa.types.is_time64(kind)
        or pa.types.is_timestamp(kind)
    )
