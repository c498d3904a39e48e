"""Firsts: the best row of each key is picked with arithmetic, where what it is the best by are whole numbers.

`row_number() OVER (PARTITION BY w ORDER BY n DESC, id) = 1` is the most common question for ranks. The rows with the
greatest `n` of their key stay, of these those with the least `id`, and where that leaves one row for each key it is the
answer. Where rows are equal in all, or the plan wants more of them than these, the statement decides: it sees no
others. Of the counts of all auctions in a window that is one row in some thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sqlglot import exp

from velaria_core.execution.groups import Groups, reduced
from velaria_core.execution.steps.numbers import Origin, is_whole, origins
from velaria_core.execution.vectors import Rows, Vector, integers, vector_of, whole
from velaria_core.logical.lineage import lineage
from velaria_core.logical.node import Node
from velaria_core.logical.operators import TopK
from velaria_core.logical.partials import Fold
from velaria_core.logical.ranks import keeps_first


@dataclass(frozen=True, slots=True)
class Firsts:
    """What is known of the best rows of a plan over one input.

    Attributes:
        by: the columns of the input that are the key.
        order: the first columns that they are ordered by, whole numbers all, and which value is best.
        columns: of the input, that are the result where each key has one best row; None where the engine makes it.
    """

    by: tuple[str, ...]
    order: tuple[tuple[str, Fold], ...]
    columns: tuple[str, ...] | None

    @staticmethod
    def of(root: Node, below: pa.Schema, result: pa.Schema) -> Firsts | None:
        """None where the plan asks for no first rows, or not by numbers.

        Args:
            below: of the input, and `result`, as the engine gives it.
        """
        above: list[Node] = []
        top = root
        while not isinstance(top, TopK):
            if not top.inputs:
                return None
            above.append(top)
            top = top.inputs[0]
        run: list[Node] = []
        node = top.input
        while node.inputs:
            run.append(node)
            node = node.inputs[0]
        known = origins(run, below)
        if known is None or not top.by or top.count != 1:
            return None
        by = tuple(name for name in (_number(known.get(one), below) for one in top.by) if name is not None)
        order: list[tuple[str, Fold]] = []
        for key in top.keys:
            column = key.this.unnest()
            name = _number(known.get(column.name), below) if isinstance(column, exp.Column) else None
            if name is None:
                break
            order.append((name, Fold.MAX if key.args.get("desc") else Fold.MIN))
        if len(by) < len(top.by) or not order:
            return None
        columns = _columns(above, top, known)
        if columns is not None and [below.field(name).type for name in columns] != result.types:
            columns = None
        return Firsts(by, tuple(order), columns)

    def picked(self, rows: pa.Table) -> tuple[pa.Table, bool]:
        """The rows that can be the best of their key, and whether they are: one for each."""
        try:
            groups = Groups([vector_of(whole(rows.column(name))) for name in self.by])
        except OverflowError:
            return rows, False
        here: Rows | None = None
        for name, fold in self.order:
            values = vector_of(whole(rows.column(name)))
            if values.valid is not None:
                break
            data, group = values.data, groups.rows
            if here is not None:
                data, group = data[here], group[here]
            best = np.flatnonzero(data == reduced(fold, Vector(data), group, len(groups)).data[group])
            here = best if here is None else here[best]
            if len(here) == len(groups):
                break
        if here is None:
            return rows, False
        return rows.take(integers(here)), len(here) == len(groups)


def _number(origin: Origin | None, below: pa.Schema) -> str | None:
    """The column of whole numbers that this is."""
    if origin is None or origin.size or not is_whole(below.field(origin.column).type):
        return None
    return origin.column


def _columns(above: Sequence[Node], top: TopK, known: dict[str, Origin]) -> tuple[str, ...] | None:
    """The columns below that the nodes above the first rows, the highest first, make of one row of each key."""
    if len(above) < 2 or not keeps_first(above[-2], above[-1]):
        return None
    names = {name: name for name in top.columns}
    if len(above) > 2:
        passed = lineage(above[-3::-1])
        if not passed.one_to_one:
            return None
        names = {name: old for name, old in passed.passed if old in names}
    found = [known.get(names[name]) if name in names else None for name in above[0].columns]
    columns = tuple(one.column for one in found if one is not None and not one.size)
    return columns if len(columns) == len(found) else None
