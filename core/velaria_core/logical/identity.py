"""Identity: the columns of a result that identify a row, where the plan says so. A sink can keep a row by them."""

from __future__ import annotations

from sqlglot import exp

from velaria_core.logical.node import Node
from velaria_core.logical.operators import (
    Aggregate,
    Distinct,
    Drop,
    Filter,
    Limit,
    Project,
    Rename,
    Sort,
    TopK,
    Watermark,
    WithColumn,
)


def identity(node: Node) -> tuple[str, ...]:
    """The columns by which no two rows of the result are equal; none where the plan does not tell of any.

    They are the keys of an aggregate, or whole rows that are distinct, as far as they are handed on unchanged.
    """
    match node:
        case Aggregate(keys=keys, sets=None):
            return tuple(name for name, _ in keys)
        case Distinct(on=()):
            return tuple(node.columns)
        case Filter() | Sort() | Limit() | TopK() | Watermark():
            return identity(node.input)
        case Project(named=named):
            return _renamed(
                identity(node.input), {tree.name: name for name, tree in named if isinstance(tree, exp.Column)}
            )
        case Rename(names=names):
            return tuple(dict(names).get(name, name) for name in identity(node.input))
        case Drop():
            return _renamed(identity(node.input), {name: name for name in node.columns})
        case WithColumn(added=added):
            computed = {name for name, _ in added}
            return _renamed(identity(node.input), {name: name for name in node.columns if name not in computed})
        case _:
            return ()


def _renamed(keys: tuple[str, ...], handed_on: dict[str, str]) -> tuple[str, ...]:
    return tuple(handed_on[key] for key in keys) if all(key in handed_on for key in keys) else ()
