"""Rules: the same rows from a plan that is cheaper to keep up to date.

Batch leaves such things to the engine, which sees the whole query. A stream runs operator by operator, and what an
operator takes in is state: so a condition is tested as far down as it can be, a join meets its own condition instead of
filtering a product, joins come in an order in which each has one, distinct values are groups that fold, and no operator
keeps a column that nobody reads.

Each rule is a pure function from plan to plan. A join's inputs may change places, so columns are put back in order by
a projection where they would not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from weakref import WeakKeyDictionary

from sqlglot import exp

from velaria_core.logical.distincts import distincts_grouped
from velaria_core.logical.expr import columns_of, reference, replaced
from velaria_core.logical.functions import is_volatile
from velaria_core.logical.node import Node
from velaria_core.logical.operators import (
    Aggregate,
    Drop,
    Filter,
    Join,
    JoinKind,
    Project,
    Rename,
    Sort,
    WithColumn,
)
from velaria_core.logical.ranks import ranks_bounded

_KNOWN: WeakKeyDictionary[Node, Node] = WeakKeyDictionary()
_INNER = (JoinKind.INNER, JoinKind.CROSS)
# The sides of a join whose rows all come out as they are or not at all, so that a condition on one of them alone may
# be tested before.
_TESTED_BEFORE = {
    JoinKind.LEFT: (True, False),
    JoinKind.RIGHT: (False, True),
    JoinKind.SEMI: (True, False),
    JoinKind.ANTI: (True, False),
}


def for_stream(root: Node) -> Node:
    """The plan as a stream runs it; the same object each time it is asked for."""
    if (known := _KNOWN.get(root)) is None:
        known = _KNOWN[root] = pruned(distincts_grouped(ranks_bounded(conditions_down(root))))
        _KNOWN[known] = known
    return known


# --- conditions ----------------------------------------------------------------------------------------------


def conditions_down(root: Node) -> Node:
    """Filters and joins with their conditions as far down as they hold, and joins in an order that has conditions."""
    return _Conditions(root).moved(root, ())


class _Conditions:
    def __init__(self, root: Node) -> None:
        self._uses: Counter[int] = Counter(id(child) for node in root.walk() for child in node.inputs)
        self._made: dict[int, Node] = {}

    def moved(self, node: Node, tests: Sequence[exp.Expr]) -> Node:
        """`node` with `tests` on its columns, all of them true."""
        if not tests:
            if id(node) not in self._made:
                self._made[id(node)] = self._made_of(node, [])
            return self._made[id(node)]
        if self._uses[id(node)] > 1:
            return _filtered(self.moved(node, ()), tests)
        return self._made_of(node, tests)

    def _made_of(self, node: Node, tests: Sequence[exp.Expr]) -> Node:
        match node:
            case Filter(below, predicate) if not _is_volatile(predicate):
                return self.moved(below, [*_parts(predicate), *tests])
            case Join(kind=kind) if kind in _INNER and not (node.on is not None and _is_volatile(node.on)):
                return self._joined(node, tests)
            case Join(kind=kind) if kind in _TESTED_BEFORE:
                return self._beside(node, tests, _TESTED_BEFORE[kind])
            case Rename():
                old = dict(zip(node.columns, node.input.columns, strict=True))
                renamed = [replaced(test, {name: reference(old[name]) for name in columns_of(test)}) for test in tests]
                return node.over([self.moved(node.input, renamed)])
            case Project():
                plain = {name: tree for name, tree in node.named if isinstance(tree, exp.Column)}
                return self._through(node, tests, plain)
            case WithColumn():
                computed = {name for name, _ in node.added}
                return self._through(
                    node, tests, {name: reference(name) for name in node.columns if name not in computed}
                )
            case Drop() | Sort():
                return self._through(node, tests, {name: reference(name) for name in node.columns})
            case _:
                return _filtered(_over(node, [self.moved(child, ()) for child in node.inputs]), tests)

    def _through(self, node: Node, tests: Sequence[exp.Expr], plain: Mapping[str, exp.Expr]) -> Node:
        """Tests that read only columns which the input has too are made there."""
        down = [test for test in tests if set(columns_of(test)) <= plain.keys() and columns_of(test)]
        (below,) = node.inputs
        moved = self.moved(below, [replaced(test, {name: plain[name] for name in columns_of(test)}) for test in down])
        return _filtered(_over(node, [moved]), [test for test in tests if not any(test is one for one in down)])

    def _beside(self, node: Join, tests: Sequence[exp.Expr], sides: tuple[bool, bool]) -> Node:
        rest = list(tests)
        inputs = []
        for child, before in zip(node.inputs, sides, strict=True):
            own = [test for test in rest if before and _reads(test, child.columns)]
            rest = [test for test in rest if not any(test is one for one in own)]
            inputs.append(self.moved(child, own))
        return _filtered(_over(node, inputs), rest)

    def _joined(self, root: Join, tests: Sequence[exp.Expr]) -> Node:
        """A tree of inner joins as one: each test where its columns first meet, in the order in which tests link."""
        leaves: list[Node] = []
        found = [*tests]

        def gather(node: Node, top: bool = False) -> None:
            alone = top or self._uses[id(node)] <= 1
            if alone and isinstance(node, Join) and node.kind in _INNER and not _is_volatile(node.on):
                if node.on is not None:
                    found.extend(_parts(node.on))
                gather(node.left)
                gather(node.right)
            elif alone and isinstance(node, Filter) and not _is_volatile(node.predicate) and _is_inner(node.input):
                found.extend(_parts(node.predicate))
                gather(node.input)
            else:
                leaves.append(node)

        gather(root, top=True)
        found = _with_common(found)
        rest: list[exp.Expr] = []
        own: list[list[exp.Expr]] = [[] for _ in leaves]
        for test in found:
            holders = [at for at, leaf in enumerate(leaves) if _reads(test, leaf.columns)]
            (own[holders[0]] if holders else rest).append(test)
        sides = [self.moved(leaf, tests) for leaf, tests in zip(leaves, own, strict=True)]
        made, waiting = sides[0], sides[1:]
        while waiting:
            at = _linked(made, waiting, rest)
            side = waiting.pop(at)
            columns = {*made.columns, *side.columns}
            now = [test for test in rest if columns_of(test) and set(columns_of(test)) <= columns]
            rest = [test for test in rest if not any(test is one for one in now)]
            made = Join(made, side, JoinKind.INNER, _all_of(now)) if now else Join(made, side, JoinKind.CROSS, None)
        return _filtered(_in_order(made, root.columns), rest)


def _is_inner(node: Node) -> bool:
    while isinstance(node, Filter):
        node = node.input
    return isinstance(node, Join) and node.kind in _INNER


def _linked(made: Node, waiting: Sequence[Node], tests: Sequence[exp.Expr]) -> int:
    """Which of the sides to join next: the first that an equality links, then any condition, then the first."""
    have = set(made.columns)
    for kinds in (exp.EQ, exp.Expr):
        for at, side in enumerate(waiting):
            columns = have | set(side.columns)
            for test in tests:
                read = set(columns_of(test))
                if isinstance(test, kinds) and read <= columns and read & have and not read <= have:
                    return at
    return 0


def _in_order(node: Node, columns: tuple[str, ...]) -> Node:
    return node if node.columns == columns else Project(node, tuple((name, reference(name)) for name in columns))


def _with_common(tests: Sequence[exp.Expr]) -> list[exp.Expr]:
    """The tests, and what every branch of an OR demands as tests of their own: those are what a join can use."""
    found = list(tests)
    for test in tests:
        branches = [_parts(branch) for branch in _branches(test)]
        if len(branches) > 1:
            first, *others = branches
            shared = [part for part in first if all(part in other for other in others)]
            found.extend(part for part in shared if part not in found)
    return found


def _branches(tree: exp.Expr) -> list[exp.Expr]:
    tree = tree.unnest()
    if not isinstance(tree, exp.Or):
        return [tree]
    return [part for side in (tree.left, tree.right) for part in _branches(side)]


def _parts(tree: exp.Expr) -> list[exp.Expr]:
    """What an AND demands, one by one."""
    tree = tree.unnest()
    if not isinstance(tree, exp.And):
        return [tree]
    return [part for side in (tree.left, tree.right) for part in _parts(side)]


def _all_of(tests: Sequence[exp.Expr]) -> exp.Expr:
    return reduce(lambda one, other: exp.And(this=one, expression=other), [_operand(test) for test in tests])


def _operand(test: exp.Expr) -> exp.Expr:
    return exp.Paren(this=test.copy()) if isinstance(test, exp.Or) else test.copy()


def _filtered(node: Node, tests: Sequence[exp.Expr]) -> Node:
    return Filter(node, _all_of(tests)) if tests else node


def _reads(test: exp.Expr, columns: Iterable[str]) -> bool:
    """Whether a test reads columns, and only these."""
    read = columns_of(test)
    return bool(read) and set(read) <= set(columns)


def _is_volatile(tree: exp.Expr | None) -> bool:
    return tree is not None and any(is_volatile(node) for node in tree.walk())


def _over(node: Node, inputs: Sequence[Node]) -> Node:
    """The node over these inputs; itself where they are its own."""
    return node if all(new is old for new, old in zip(inputs, node.inputs, strict=True)) else node.over(inputs)


# --- columns -------------------------------------------------------------------------------------------------


def pruned(root: Node) -> Node:
    """Inputs of operators that keep rows as state have only the columns that somebody reads."""
    order = _parents_first(root)
    needed: dict[int, set[str]] = {id(node): set() for node in order}
    needed[id(root)] = set(root.columns)
    for node in order:
        for child, read in zip(node.inputs, _reads_of(node, needed[id(node)]), strict=True):
            needed[id(child)] |= read
    made: dict[int, Node] = {}
    for node in reversed(order):
        inputs = [made[id(child)] for child in node.inputs]
        if isinstance(node, (Join, Aggregate)):
            inputs = [_only(side, needed[id(child)]) for side, child in zip(inputs, node.inputs, strict=True)]
        made[id(node)] = _narrowed(node, inputs)
    return _in_order(made[id(root)], root.columns)


def _parents_first(root: Node) -> list[Node]:
    """Every node once, before all that it reads."""
    found: list[Node] = []
    seen: set[int] = set()
    pending: list[tuple[Node, bool]] = [(root, False)]
    while pending:
        node, done = pending.pop()
        if done:
            found.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            pending.append((node, True))
            pending.extend((child, False) for child in node.inputs)
    return found[::-1]


def _reads_of(node: Node, needed: set[str]) -> list[set[str]]:
    """The columns of each input that a node reads when `needed` of its own are read."""
    match node:
        case Project():
            return [{name for out, tree in node.named if out in needed for name in columns_of(tree)}]
        case Filter():
            return [needed | set(columns_of(node.predicate))]
        case Sort():
            return [needed.union(*(columns_of(key) for key in node.keys))]
        case Rename():
            old = dict(zip(node.columns, node.input.columns, strict=True))
            return [{old[name] for name in needed}]
        case Join():
            read = needed | (set(columns_of(node.on)) if node.on is not None else set())
            return [read & set(child.columns) for child in node.inputs]
        case Aggregate():
            return [{name for _, tree in (*node.keys, *node.metrics) for name in columns_of(tree)}]
        case _:
            return [set(child.columns) for child in node.inputs]


def _only(node: Node, needed: set[str]) -> Node:
    """The node with the columns that are needed, in their order; one at least, since rows count without any."""
    kept = [name for name in node.columns if name in needed] or list(node.columns[:1])
    return node if len(kept) == len(node.columns) else Project(node, tuple((name, reference(name)) for name in kept))


def _narrowed(node: Node, inputs: Sequence[Node]) -> Node:
    """The node over inputs that may have lost columns which nobody reads."""
    have = {name for child in inputs for name in child.columns}
    match node:
        case Rename() if not {old for old, _ in node.names} <= have:
            return replace(node, input=inputs[0], names=tuple(pair for pair in node.names if pair[0] in have))
        case Project() if not all(set(columns_of(tree)) <= have for _, tree in node.named):
            kept = tuple((name, tree) for name, tree in node.named if set(columns_of(tree)) <= have)
            return replace(node, input=inputs[0], named=kept)
        case _:
            return _over(node, inputs)
