"""Endless: what a plan asks of streams without end that only an end could answer.

An ORDER BY over the whole result has no first row before the last has come, so it is refused; the first rows of an
order (ORDER BY with LIMIT) are kept up to date, and an order inside of a query is none: SQL gives the rows of a
subquery no order. PIVOT without IN makes a column of each value that there is, and no stream has those of its future.
"""

from __future__ import annotations

from sqlglot import exp

from velaria_core.errors import Place, SqlUnsupportedError
from velaria_core.logical.incremental import Linear
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.scope import place_of


def is_endless(root: Node) -> bool:
    """Whether a stream that the plan reads does not end by itself."""
    sources = (node.relation.source for node in root.walk() if isinstance(node, Scan))
    return any(source is not None and not source.info().bounded for source in sources)


def refuse_endless_order(root: Node, place: Place | None = None) -> None:
    """
    Raises:
        SqlUnsupportedError[sql.endless_order]: the result is ordered, and a stream that it reads has no end.
    """
    node = root
    while isinstance(node.stream(), Linear) and len(node.inputs) == 1:
        if node.reorders_only and is_endless(node):
            raise SqlUnsupportedError(
                "sql.endless_order",
                "ORDER BY waits for the last row, and this stream has no end",
                hint="add LIMIT to keep the first rows up to date, or order what the sink holds when it is read",
                place=place,
            )
        node = node.inputs[0]


def refuse_open_pivot(root: Node, tree: exp.Expr | None, text: str) -> None:
    """
    Args:
        tree: the query that `root` is the plan of.

    Raises:
        SqlUnsupportedError[sql.open_pivot]: the columns of a stream would depend on its rows.
    """
    if tree is None or not any(isinstance(node, Scan) and node.relation.source is not None for node in root.walk()):
        return
    for pivot in tree.find_all(exp.Pivot):
        if pivot.args.get("using") and not all(isinstance(value, exp.In) for value in pivot.expressions):
            raise SqlUnsupportedError(
                "sql.open_pivot",
                "PIVOT without IN has a column for each value, and a stream's columns are fixed",
                hint="list the values: PIVOT t ON month IN (1, 2, 3) USING sum(amount)",
                place=place_of(pivot.this, text),
            )
