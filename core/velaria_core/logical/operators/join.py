"""Join: pairs of rows that meet a condition, and by kind the rows that found no partner.

Batch   the engine's join; NULL meets nothing.
Stream  Bilinear for inner and cross: each side's changes against the other side's rows. Keyed for the outer, semi and
        anti kinds where the condition has equalities: a key's pairs before and after. As-of is Keyed by its equalities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.apart import limits
from velaria_core.logical.event_time import STATIC, Horizon, TimeBound, Times
from velaria_core.logical.incremental import Bilinear, Incremental, Keyed, Recompute
from velaria_core.logical.node import Node, listed
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
_BY_KEY = frozenset({JoinKind.FULL, JoinKind.ASOF, JoinKind.ASOF_LEFT})  # forgotten by keys that are equal, or not


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
        left, right = inputs
        shows_left = {} if self.kind is JoinKind.RIGHT else left
        shows_right = right if self.kind in (JoinKind.INNER, JoinKind.RIGHT, JoinKind.FULL) else {}
        # Beside a table that does not change, rows come and go as those of the other side do.
        if right is STATIC and self.kind is not JoinKind.FULL:
            return shows_left
        if left is STATIC and self.kind in (JoinKind.INNER, JoinKind.CROSS, JoinKind.RIGHT):
            return right
        found: dict[str, TimeBound] = {}
        # Rows still come for a time as long as its partners' times are open. Beside those that find no partner the
        # other side is NULL, and a full join needs both: it closes with the columns that are equal.
        for apart in limits(self.on, left, right):
            one, other = left[apart.left], right[apart.right]
            if self.kind is JoinKind.FULL and not apart.equal:
                continue
            if apart.low_us is not None and apart.left in shows_left:
                found[apart.left] = replace(one, span_us=max(one.span_us, other.span_us - apart.low_us))
            if apart.high_us is not None and apart.right in shows_right:
                found[apart.right] = replace(other, span_us=max(other.span_us, one.span_us + apart.high_us))
        return found

    def horizons(self, *inputs: Times) -> tuple[Horizon | None, ...]:
        found = limits(self.on, *inputs)
        if self.kind in _BY_KEY or isinstance(self.stream(), Recompute) or not found:
            return super().horizons(*inputs)
        apart = found[0]
        left, right = inputs[0][apart.left], inputs[1][apart.right]
        # Until when the rows of each side are needed: a partner may come as long as its time is open. What is shown of
        # a row without partners is final only then too, and until then its partners are needed as well.
        left_us = None if apart.low_us is None else right.span_us - apart.low_us
        right_us = None if apart.high_us is None else left.span_us + apart.high_us
        if self.kind in (JoinKind.LEFT, *LEFT_ONLY):
            left_us = None if left_us is None else max(left_us, left.span_us)
            right_us = None if left_us is None or apart.high_us is None else left_us + apart.high_us
        elif self.kind is JoinKind.RIGHT:
            right_us = None if right_us is None else max(right_us, right.span_us)
            left_us = None if right_us is None or apart.low_us is None else right_us - apart.low_us
        return (
            _horizon(apart.left, left, left_us, right_us),
            _horizon(apart.right, right, right_us, left_us),
        )

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


def _horizon(column: str, bound: TimeBound, kept_us: int | None, partners_us: int | None) -> Horizon | None:
    """Rows of a side are late where their partners may be forgotten."""
    late = None if partners_us is None else bound
    kept = None if kept_us is None else replace(bound, span_us=kept_us)
    return None if late is None and kept is None else Horizon(column, late, kept)
