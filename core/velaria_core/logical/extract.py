"""Taking calls out of expressions: `sum(a) / count(*) + 1` is two aggregates and an expression over them.

Aggregates and window functions become columns of a node of their own, so that each can keep its own state; what is
computed from them stays an ordinary expression above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlglot import exp

from velaria_core.logical.expr import reference
from velaria_core.logical.functions import is_aggregate
from velaria_core.logical.query import Named


@dataclass(slots=True)
class Extracted:
    """Calls found so far, each once, under made-up names; and the keys that may stand beside them."""

    test: Callable[[exp.Expr], bool]
    prefix: str
    calls: list[Named] = field(default_factory=list)
    keys: tuple[Named, ...] = ()

    def rewrite(self, tree: exp.Expr) -> exp.Expr:
        """`tree` over the columns that the calls and keys become. Outermost matches win."""
        for name, key in self.keys:
            if tree == key:
                return reference(name)
        if self.test(tree):
            return reference(self._name(tree))
        return self._inside(tree)

    def _inside(self, tree: exp.Expr) -> exp.Expr:
        """`tree` itself, with what stands inside it rewritten."""
        if isinstance(tree, exp.Column):
            return tree.copy()
        made = tree.copy()
        for argument, value in list(made.args.items()):
            if isinstance(value, exp.Expr):
                # In sum(count(*)) OVER (...) the window's own function is no aggregate, its argument is one.
                own = argument == "this" and isinstance(tree, (exp.Window, *_WRAPPERS)) and _in_window(tree)
                made.set(argument, self._inside(value) if own else self.rewrite(value))
            elif isinstance(value, list):
                made.set(
                    argument,
                    [self.rewrite(item) if isinstance(item, exp.Expr) else item for item in value],
                )
        return made

    def _name(self, tree: exp.Expr) -> str:
        for name, known in self.calls:
            if known == tree:
                return name
        name = f"{self.prefix}{len(self.calls) + 1}"
        self.calls.append((name, tree.copy()))
        return name


def aggregate_call(tree: exp.Expr) -> bool:
    """A whole aggregate call, FILTER and WITHIN GROUP included, that is not a window function."""
    if isinstance(tree, exp.Window):
        return False
    if isinstance(tree, _WRAPPERS):
        return aggregate_call(tree.this)
    return is_aggregate(tree)


_WRAPPERS = (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)


def _in_window(tree: exp.Expr) -> bool:
    """Whether `tree` is a window call, or what wraps its function."""
    while isinstance(tree, _WRAPPERS) and tree.parent is not None:
        tree = tree.parent
    return isinstance(tree, exp.Window)


def window_call(tree: exp.Expr) -> bool:
    """A whole window function call, OVER included."""
    return isinstance(tree, exp.Window)


def has(tree: exp.Expr, test: Callable[[exp.Expr], bool]) -> bool:
    """Whether a call of the kind stands in `tree`; the argument of a window function counts for neither kind."""
    if test(tree):
        return True
    if isinstance(tree, exp.Window):
        # sum(sum(x)) OVER (ORDER BY count(*)): the function itself is neither, what it reads may be.
        function = tree.this
        while isinstance(function, _WRAPPERS):
            function = function.this
        beside = [item for item in tree.iter_expressions() if item is not tree.this]
        return any(has(item, test) for item in (*function.iter_expressions(), *beside))
    return any(has(item, test) for item in tree.iter_expressions())
