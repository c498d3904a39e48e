"""Join: pairs of rows that meet a condition, and by kind the rows that found no partner.

Batch   the engine's join; NULL meets nothing.
Stream  Bilinear for inner and cross: each side's changes against the other side's rows. Keyed for the outer, semi and
        anti kinds where the condition has equalities: a key's pairs before and after. As-of is Keyed by its equalities.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.event_time import Times
from velaria_core.logical.incremental import Bilinear, Incremental, Keyed, Recompute
from velaria_core.logical.node import Node, listed, shared_times
from velaria_core.logical.query import Query


class JoinKind(StrEnum):
    INNER = "inner"
    LEFT = "left"
    RIGHT = "right"
    FULL = "full"
    SEMI = "semi"
    ANTI = "anti"
    CROSS = "cross"
    ASOF = "asof"
    ASOF_LEFT = "asof_left"


_SQL = {
    JoinKind.INNER: "JOIN",
    JoinKind.LEFT: "LEFT JOIN",
    JoinKind.RIGHT: "RIGHT JOIN",
    JoinKind.FULL: "FULL JOIN",
    JoinKind.SEMI: "SEMI JOIN",
    JoinKind.ANTI: "ANTI JOIN",
    JoinKind.CROSS: "CROSS JOIN",
    JoinKind.ASOF: "ASOF JOIN",
    JoinKind.ASOF_LEFT: "ASOF LEFT JOIN",
}
LEFT_ONLY = frozenset({JoinKind.SEMI, JoinKind.ANTI})


@dataclass(frozen=True, eq=False)
class Join(Node):
    """`on` reads columns of both sides, whose names are disjoint; None only for a cross join."""

    left: Node
    right: Node
    kind: JoinKind
    on: exp.Expr | None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return self.left.columns if self.kind in LEFT_ONLY else (*self.left.columns, *self.right.columns)

    def label(self) -> str:
        return f"Join: {self.kind}" + (f" on {listed([self.on])}" if self.on is not None else "")

    def batch(self, *inputs: Query) -> Query:
        left, right = inputs
        return left.joined(right, _SQL[self.kind], self.on, left_only=self.kind in LEFT_ONLY)

    def times(self, *inputs: Times) -> Times:
        pairs = self.equalities() if self.kind not in LEFT_ONLY else []
        if not pairs:
            return super().times(*inputs)
        # Pairs change only while both times are open, so where the condition makes them equal both stay bounded.
        found = shared_times(([left for left, _ in pairs], [right for _, right in pairs]), inputs)
        return {name: bound for pair, bound in zip(pairs, found, strict=True) if bound is not None for name in pair}

    def stream(self) -> Incremental:
        if self.kind in (JoinKind.INNER, JoinKind.CROSS):
            return Bilinear()
        pairs = self.equalities()
        if not pairs:
            return Recompute(f"{self.kind} join without an equality")
        by = (tuple(left for left, _ in pairs), tuple(right for _, right in pairs))
        # Of rows that are equally near an as-of join takes any.
        return Keyed(by, shown_by=by[0] if self.kind in (JoinKind.ASOF, JoinKind.ASOF_LEFT) else None)

    def equalities(self) -> list[tuple[str, str]]:
        """(left column, right column) of each `left = right` that the condition demands."""
        if self.on is None:
            return []
        found = []
        left, right = set(self.left.columns), set(self.right.columns)
        for part in self.on.flatten() if isinstance(self.on, exp.And) else [self.on]:
            tree = part.unnest()
            if isinstance(tree, exp.EQ) and all(isinstance(side, exp.Column) for side in (tree.left, tree.right)):
                names = (tree.left.name, tree.right.name)
                if names[0] in left and names[1] in right:
                    found.append(names)
                elif names[1] in left and names[0] in right:
                    found.append((names[1], names[0]))
        return found
