"""Running a part of a plan: the kernel's batch, over rows that came from elsewhere, cut into parts by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.execution import batch
from velaria_core.execution.duck import Engine
from velaria_core.logical.expr import parse_expression
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Project, WithColumn
from velaria_core.types import quoted
from velaria_experimental.plans.inputs import given

PART = "__part"


def in_parts(node: Node, keys: Sequence[str], parts: int) -> Node:
    """The plan with a last column that says to which of several parts a row belongs, by the hash of its keys."""
    if parts == 1:
        return node
    hashed = f"CAST(hash({', '.join(map(quoted, keys))}) % {parts:d} AS INTEGER)"
    return WithColumn(node, ((PART, parse_expression(hashed)),))


def run(engine: Engine, plan: Node, rows: Mapping[str, pa.Table], parts: int) -> list[pa.Table]:
    """The rows of a plan over these, part by part.

    Args:
        parts: how many; with more than one the plan's last column is `PART`.
    """
    table = batch.table(engine, given(plan, rows))
    if parts == 1:
        return [table]
    numbers = table.column(PART).to_numpy()
    table = table.drop_columns([PART])
    # One copy in the order of parts, instead of a scan for each.
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(parts + 1))
    sorted_rows = pc.take(table, pa.array(order))
    return [sorted_rows.slice(int(ends[at]), int(ends[at + 1] - ends[at])) for at in range(parts)]


def projected(node: Node, columns: Sequence[str]) -> Node:
    """These columns of a plan."""
    if tuple(columns) == node.columns:
        return node
    return Project(node, tuple((name, parse_expression(quoted(name))) for name in columns))
