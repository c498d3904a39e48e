"""Ranks: `row_number() OVER (PARTITION BY k ORDER BY v) <= 3` reads no more than the first three rows of each key.

Where rows only come, a stream need then keep no others: a `TopK` within the key goes below the window. Batch gains
nothing by it, and where rows also go, one that was left out may belong to the first again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.expr import to_sql
from velaria_core.logical.incremental import Linear
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Filter, Join, JoinKind, Scan, TopK, Window

_RANKS = {"row_number()": "row_number", "rank()": "rank", "dense_rank()": "dense_rank"}


def ranks_bounded(root: Node) -> Node:
    """The plan with a top-k below each window of ranks of which only the first are read."""
    made: dict[int, Node] = {}

    def changed(node: Node) -> Node:
        if id(node) not in made:
            inputs = [changed(child) for child in node.inputs]
            same = all(one is other for one, other in zip(inputs, node.inputs, strict=True))
            found = node if same else node.over(inputs)
            made[id(node)] = _bounded(found) if isinstance(found, Filter) else found
        return made[id(node)]

    return changed(root)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Calls of ranks over one window, by output column."""

    by: tuple[str, ...]
    order: tuple[exp.Ordered, ...]
    calls: dict[str, str]


def _bounded(node: Filter) -> Node:
    window = node.input
    if not isinstance(window, Window) or (ranking := _ranking(window)) is None or not _only_comes(window.input):
        return node
    for name, last in _upper_bounds(node.predicate):
        if name in ranking.calls and last >= 0:
            best = TopK(window.input, ranking.order, last, by=ranking.by, rank=ranking.calls[name])
            return node.over([window.over([best])])
    return node


def _ranking(window: Window) -> _Ranking | None:
    """What the window's calls are, where all of them are ranks of the same order within the same plain keys: of no
    other would the first rows be the same without those after them."""
    found = None
    calls = {}
    for name, tree in window.calls:
        if not isinstance(tree, exp.Window) or tree.args.get("spec") is not None:
            return None
        rank = _RANKS.get(to_sql(tree.this).lower())
        keys = tree.args.get("partition_by") or []
        if rank is None or not keys or not all(isinstance(key, exp.Column) for key in keys):
            return None
        order = tree.args.get("order")
        ranked = (tuple(dict.fromkeys(key.name for key in keys)), tuple(order.expressions) if order is not None else ())
        if found is not None and found != ranked:
            return None
        found, calls[name] = ranked, rank
    return _Ranking(*found, calls) if found is not None else None


def keeps_first(node: Node, window: Node) -> bool:
    """Whether a filter over a window keeps exactly the rows that are the first of their key."""
    if not isinstance(node, Filter) or not isinstance(window, Window) or (ranking := _ranking(window)) is None:
        return False
    predicate = node.predicate.unnest()
    if isinstance(predicate, (exp.And, exp.Between)):
        return False
    return any(name in ranking.calls and last == 1 for name, last in _upper_bounds(predicate))


def _upper_bounds(predicate: exp.Expr) -> Iterator[tuple[str, int]]:
    """(column, n) for each condition that holds only where the column is at most n."""
    for part in predicate.flatten() if isinstance(predicate, exp.And) else [predicate]:
        tree = part.unnest()
        left, right = tree.args.get("this"), tree.args.get("expression")
        match tree:
            case exp.LTE() | exp.EQ() | exp.LT():
                column, bound = left, right
            case exp.GTE() | exp.GT():
                column, bound = right, left
            case exp.Between():
                column, bound = left, tree.args["high"]
            case _:
                continue
        if isinstance(column, exp.Column) and isinstance(bound, exp.Literal) and not bound.is_string:
            text = str(bound.this)
            if text.isdigit():
                yield column.name, int(text) - isinstance(tree, (exp.LT, exp.GT))


def _only_comes(node: Node) -> bool:
    """Whether no row of it is ever taken back."""
    match node:
        case Scan(relation):
            return relation.source is None or bool(relation.source.info().append_only)
        case Join(kind=JoinKind.INNER | JoinKind.CROSS):
            return _all_only_come(node.inputs)
        case _:
            return isinstance(node.stream(), Linear) and _all_only_come(node.inputs)


def _all_only_come(nodes: Iterable[Node]) -> bool:
    return all(_only_comes(node) for node in nodes)
