"""Distincts: `count(DISTINCT x) GROUP BY k` counts the rows of `GROUP BY k, x`.

A set of values has no partial form that is smaller than the values, but they are groups themselves. So a stream groups
twice: by the keys and x, which keeps a value once however often it comes, and what this gives by the keys alone. Both
are aggregates that fold. Over rows that only come the first gives a value when it first comes and never again; over
rows that also go it counts them.

    count(DISTINCT x)                         count(x)
    count(DISTINCT x) FILTER (WHERE p)        count(x) FILTER (WHERE bool_or(p) of the first)
    count(*), count(y), sum(y)                sum of those of the first

The second aggregate takes back what the first changes, so nothing else may stand beside them: an extreme of extremes
that may go is no fold. Batch leaves all this to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlglot import exp

from velaria_core.logical.expr import call, columns_of, parse_expression, reference, replaced
from velaria_core.logical.functions import is_volatile, name_of
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Aggregate, Project
from velaria_core.logical.query import Named

# Of a set, whatever it is that they read of it.
_OF_SETS = frozenset({"count", "sum", "avg", "mean", "min", "max", "bool_and", "bool_or"})


def distincts_grouped(root: Node) -> Node:
    """The plan with two aggregates for each one that reads the distinct values of one column."""
    made: dict[int, Node] = {}

    def changed(node: Node) -> Node:
        if id(node) not in made:
            inputs = [changed(child) for child in node.inputs]
            same = all(one is other for one, other in zip(inputs, node.inputs, strict=True))
            found = node if same else node.over(inputs)
            made[id(node)] = _twice(found) if isinstance(found, Aggregate) else found
        return made[id(node)]

    return changed(root)


@dataclass
class _Cut:
    """An aggregate, cut in two: the calls of the first, of the second, and what comes out."""

    taken: set[str]
    first: list[Named] = field(default_factory=list)
    second: list[Named] = field(default_factory=list)
    shown: list[Named] = field(default_factory=list)

    def name(self, stem: str) -> str:
        """A column name that is free."""
        found = stem
        while found.lower() in self.taken:
            found += "_"
        self.taken.add(found.lower())
        return found


def _twice(node: Aggregate) -> Node:
    if node.sets is not None or not all(isinstance(tree, exp.Column) for _, tree in node.keys):
        return node
    values = {value for _, tree in node.metrics if (value := _value_of(tree)) is not None}
    if len(values) != 1:
        return node
    (value,) = values
    if any(is_volatile(part) for _, tree in node.metrics for part in tree.walk()):
        return node
    cut = _Cut({name.lower() for name in (*node.columns, *node.input.columns)})
    by = tuple(dict.fromkeys(tree.name for _, tree in node.keys))
    x = value.name if isinstance(value, exp.Column) and value.name in by else cut.name("value")
    for name, tree in node.metrics:
        if not _divide(cut, name, tree, x):
            return node
    rest = {column for _, tree in cut.first for column in columns_of(tree)} - {*by}
    columns: list[Named] = [
        (name, reference(name)) for name in (*by, *(one for one in node.input.columns if one in rest))
    ]
    keys: list[Named] = [(name, reference(name)) for name in by]
    if x not in by:
        columns.append((x, value.copy()))
        keys.append((x, reference(x)))
    inner = Aggregate(Project(node.input, tuple(columns)), tuple(keys), tuple(cut.first))
    outer = Aggregate(inner, node.keys, tuple(cut.second))
    if all(isinstance(tree, exp.Column) for _, tree in cut.shown):
        return outer
    return Project(outer, (*((name, reference(name)) for name, _ in node.keys), *cut.shown))


def _divide(cut: _Cut, name: str, tree: exp.Expr, x: str) -> bool:
    """Add a call to both aggregates; False where it cannot be divided."""
    made, where = _parts(tree)
    function, arguments = name_of(made), list(made.expressions)
    if _value_of(tree) is not None:
        if function not in _OF_SETS:
            return False
        second: exp.Expr = call(function, reference(x))
        if where is not None:
            passed = cut.name(f"{name}_of_value")
            tested = replaced(parse_expression("CAST(p AS BOOLEAN)"), {"p": where})
            cut.first.append((passed, call("bool_or", tested)))
            second = exp.Filter(this=second, expression=exp.Where(this=reference(passed)))
        cut.second.append((name, second))
        cut.shown.append((name, reference(name)))
        return True
    if function not in ("count", "sum") or not isinstance(made, exp.Anonymous) or len(arguments) > 1:
        return False
    part = cut.name(f"{name}_of_value")
    cut.first.append((part, tree.copy()))
    cut.second.append((name, call("sum", reference(part))))
    # Sums of counts are wider than counts, and NULL of none.
    shown = "CAST(coalesce(n, 0) AS BIGINT)" if function == "count" else "n"
    cut.shown.append((name, replaced(parse_expression(shown), {"n": reference(name)})))
    return True


def _value_of(tree: exp.Expr) -> exp.Expr | None:
    """What the distinct values are of which a call reads; None for a call of all rows, or of several columns."""
    made, _ = _parts(tree)
    arguments: Iterable[exp.Expr] = made.expressions if isinstance(made, exp.Anonymous) else ()
    match list(arguments):
        case [exp.Distinct(expressions=[value])]:
            return value  # type: ignore[no-any-return]
        case _:
            return None


def _parts(tree: exp.Expr) -> tuple[exp.Expr, exp.Expr | None]:
    """A call, and its FILTER."""
    return (tree.this, tree.expression.this) if isinstance(tree, exp.Filter) else (tree, None)
