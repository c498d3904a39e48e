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
    _asked: list[Named] = field(default_factory=list)  # the calls as they stand in the expressions

    def rewrite(self, tree: exp.Expr) -> exp.Expr:
        """`tree` over the columns that the calls and keys become. Outermost matches win."""
        if (found := self._column_for(tree)) is not None:
            return found
        made = tree.copy()
        pending = [made]
        while pending:
            node = pending.pop()
            # In sum(count(*)) OVER (...) the window's own function is no aggregate, its argument is one.
            own = node.this if isinstance(node, (exp.Window, *_WRAPPERS)) and _in_window(node) else None
            for child in list(node.iter_expressions()):
                if child is not own and (found := self._column_for(child)) is not None:
                    child.replace(found)
                elif not isinstance(child, exp.Column):
                    pending.append(child)
        return made

    def _column_for(self, tree: exp.Expr) -> exp.Expr | None:
        """The column that stands for a whole key or call, or None."""
        for name, key in self.keys:
            if tree == key:
                return reference(name)
        return reference(self._name(tree)) if self.test(tree) else None

    def _name(self, tree: exp.Expr) -> str:
        for name, known in self._asked:
            if known == tree:
                return name
        name, call = f"{self.prefix}{len(self.calls) + 1}", tree.copy()
        if _of_group(call):
            # It reads the keys of its node, where other calls read the rows below.
            call.set("expressions", [self._column_for(key) or key for key in call.expressions])
        self._asked.append((name, tree.copy()))
        self.calls.append((name, call))
        return name


def aggregate_call(tree: exp.Expr) -> bool:
    """A whole aggregate call, FILTER and WITHIN GROUP included, that is not a window function.

    GROUPING(key) is one: it says of a group by which of its keys it was made.
    """
    if isinstance(tree, exp.Window):
        return False
    if _of_group(tree):
        return True
    if isinstance(tree, _WRAPPERS):
        return aggregate_call(tree.this)
    return is_aggregate(tree)


_WRAPPERS = (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)


def _of_group(tree: exp.Expr) -> bool:
    return isinstance(tree, exp.Anonymous) and tree.name.lower() in ("grouping", "grouping_id")


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
    if (kinds := _KINDS.get(test)) is not None and tree.find(*kinds) is None:
        return False
    return _has(tree, test)


# What a tree must hold to have a call of the kind: most have none, and a look at the types is quick.
_KINDS: dict[Callable[[exp.Expr], bool], tuple[type[exp.Expr], ...]] = {
    aggregate_call: (exp.AggFunc, exp.Anonymous),
    window_call: (exp.Window,),
}


def _has(tree: exp.Expr, test: Callable[[exp.Expr], bool]) -> bool:
    if test(tree):
        return True
    if isinstance(tree, exp.Window):
        # sum(sum(x)) OVER (ORDER BY count(*)): the function itself is neither, what it reads may be.
        function = tree.this
        while isinstance(function, _WRAPPERS):
            function = function.this
        beside = [item for item in tree.iter_expressions() if item is not tree.this]
        return any(_has(item, test) for item in (*function.iter_expressions(), *beside))
    return any(_has(item, test) for item in tree.iter_expressions())
