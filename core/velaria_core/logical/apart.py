"""Apart: how far the times of two rows may lie apart that a join condition lets meet.

`l.ts BETWEEN r.ts - INTERVAL 5 MINUTES AND r.ts` says that l.ts - r.ts is between -5 and 0 minutes. Where both columns
are event time, a row waits that long for its partners and is then forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqlglot import exp

from velaria_core.logical.event_time import TimeKind, Times
from velaria_core.logical.sql.durations import NotADuration, interval_milliseconds


@dataclass(frozen=True, slots=True)
class Apart:
    """`low_us` <= left - right <= `high_us`, in microseconds; None where there is no such limit.

    Attributes:
        left, right: columns of the two sides.
    """

    left: str
    right: str
    low_us: int | None = None
    high_us: int | None = None

    @property
    def equal(self) -> bool:
        return self.low_us == self.high_us == 0

    def with_high(self, high_us: int) -> Apart:
        return replace(self, high_us=high_us if self.high_us is None else min(self.high_us, high_us))

    def with_low(self, low_us: int) -> Apart:
        return replace(self, low_us=low_us if self.low_us is None else max(self.low_us, low_us))


def limits(on: exp.Expr | None, left: Times, right: Times) -> tuple[Apart, ...]:
    """What a condition over both sides demands of their time columns, those with both limits first."""
    found: dict[tuple[str, str], Apart] = {}
    for operator, one, other in _comparisons(on):
        term, other_term = _term(one, left, right), _term(other, left, right)
        if term is None or other_term is None:
            continue
        (first, ahead_us), (second, behind_us) = term, other_term
        if first in right and second in left:
            first, second, ahead_us, behind_us, operator = second, first, behind_us, ahead_us, _TURNED[operator]
        if first not in left or second not in right or left[first].kind is not right[second].kind:
            continue
        if left[first].kind is TimeKind.TEXT and operator is not exp.EQ:
            continue  # text is not compared as time
        apart = found.get((first, second), Apart(first, second))
        apart_us = behind_us - ahead_us
        if operator in (exp.LT, exp.LTE, exp.EQ):
            apart = apart.with_high(apart_us)
        if operator in (exp.GT, exp.GTE, exp.EQ):
            apart = apart.with_low(apart_us)
        found[first, second] = apart
    return tuple(sorted(found.values(), key=lambda one: (one.low_us is None) + (one.high_us is None)))


_TURNED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.EQ: exp.EQ,
    exp.LT: exp.GT,
    exp.LTE: exp.GTE,
    exp.GT: exp.LT,
    exp.GTE: exp.LTE,
}


def _comparisons(on: exp.Expr | None) -> Iterator[tuple[type[exp.Expr], exp.Expr, exp.Expr]]:
    """The comparisons that all hold where a condition does, BETWEEN as two of them."""
    tree = None if on is None else on.unnest()
    match tree:
        case exp.And():
            yield from _comparisons(tree.left)
            yield from _comparisons(tree.right)
        case exp.Between():
            yield exp.GTE, tree.this, tree.args["low"]
            yield exp.LTE, tree.this, tree.args["high"]
        case exp.EQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
            yield type(tree), tree.left, tree.right


def _term(tree: exp.Expr, left: Times, right: Times) -> tuple[str, int] | None:
    """A time column and what is added to it, in microseconds; None for anything else."""
    tree = tree.unnest()
    match tree:
        case exp.Column():
            return (tree.name, 0) if tree.name in left or tree.name in right else None
        case exp.Add() | exp.Sub():
            one, length = tree.left.unnest(), tree.right.unnest()
            if isinstance(tree, exp.Add) and not _has_column(one):
                one, length = length, one
            term = _term(one, left, right)
            if term is None or _has_column(length):
                return None
            name, more_us = term
            kind = (left[name] if name in left else right[name]).kind
            sign = -1 if isinstance(tree, exp.Sub) else 1
            while isinstance(length, exp.Neg):
                sign, length = -sign, length.this.unnest()
            try:
                if isinstance(length, exp.Literal) and kind is not TimeKind.INTEGER:
                    return None
                return name, more_us + sign * interval_milliseconds(length) * 1000
            except NotADuration:
                return None
    return None


def _has_column(tree: exp.Expr) -> bool:
    return tree.find(exp.Column) is not None
