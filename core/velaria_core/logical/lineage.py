"""Lineage: what a run of linear nodes leaves as it is.

Most columns of most queries pass through a row-wise operator untouched, and strings are dear to carry through an
engine. A stream therefore computes only what is new in a row, and takes the rest from the rows that came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.node import Node
from velaria_core.logical.query import Query, Stage

_ROWS = "rows_of_a_run"  # no column, and no table, is seen under this name
_SET_RETURNING = ("unnest", "generate_subscripts")


@dataclass(frozen=True, slots=True)
class Lineage:
    """What becomes of the rows and columns of an input.

    Attributes:
        passed: (output column, input column) of each that holds the same values.
        computed: the other output columns.
        one_to_one: each row gives one row; otherwise rows are left out, or come several times.
    """

    passed: tuple[tuple[str, str], ...]
    computed: tuple[str, ...]
    one_to_one: bool


def lineage(run: Sequence[Node]) -> Lineage:
    """Of linear nodes with one input each, the lowest first."""
    (below,) = run[0].inputs
    origin = {name: name for name in below.columns}
    one_to_one = True
    for node in run:
        kept, alone = _of(node)
        origin = {new: origin[old] for new, old in kept.items() if old in origin}
        one_to_one = one_to_one and alone
    columns = run[-1].columns
    passed = tuple((name, origin[name]) for name in columns if name in origin)
    return Lineage(passed, tuple(name for name in columns if name not in origin), one_to_one)


def _of(node: Node) -> tuple[dict[str, str], bool]:
    """Output columns that are input columns, and whether a row gives one row, as the node's query says."""
    (below,) = node.inputs
    query = node.batch(Query.table(_ROWS, below.columns))
    plain = (
        query.whole is None
        and query.stage <= Stage.WHERE
        and [item.sql for item in query.items] == [_ROWS]
        and not any(_returns_sets(tree) for _, tree in query.columns)
    )
    if not plain:
        return {name: name for name in node.handed_on}, False
    return {name: tree.name for name, tree in query.columns if isinstance(tree, exp.Column)}, not query.where


def _returns_sets(tree: exp.Expr) -> bool:
    return tree.find(exp.Explode, exp.Unnest, exp.Posexplode, exp.Query) is not None or any(
        call.name.lower() in _SET_RETURNING for call in tree.find_all(exp.Anonymous)
    )
