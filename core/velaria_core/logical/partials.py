"""Partials: an aggregate as columns that are folded into a state, and the value that is read from them.

`sum(x)` over a batch of rows is a partial: two of them are added, and a state that holds their sum answers for all
rows so far. An aggregate call is a few such columns, each with a way to fold it, and a way to read its value:

    call            columns                       fold     value
    count(x)        count(x)                      add      the count
    sum(x)          sum(x), count(x)              add      the sum, NULL while nothing was counted
    count_if(x)     count_if(x), count(x)         add      the same: to the engine it is a sum
    avg(x)          sum(x), count(x)              add      sum / count
    min(x), max(x)  min(x), max(x)                extreme  the extreme
    bool_or(x)      count_if(x), count(x)         add      whether any was true
    bool_and(x)     count_if(x), count(x)         add      whether all were

What is added can be subtracted too, and so takes part in retractions: integers and decimals exactly, floating point
numbers not at all, since (a + b) - b is not a. An extreme forgets what it was chosen from.

Source: partial states and their inverse, Gray et al., Data Cube, ICDE 1996 (distributive and algebraic functions);
Tangwongsan et al., General Incremental Sliding-Window Aggregation, VLDB 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import pyarrow as pa
from sqlglot import exp

from velaria_core.changes import DIFF
from velaria_core.logical.expr import call, parse_expression, reference, replaced
from velaria_core.logical.functions import name_of
from velaria_core.logical.query import Named


class Fold(Enum):
    """How a partial column takes in another."""

    ADD = "add"
    MIN = "min"
    MAX = "max"


class Final(Enum):
    """How the value of a call is read from its columns, in their order."""

    COUNT = "count"
    SUM = "sum"
    AVERAGE = "average"
    EXTREME = "extreme"
    ANY = "any"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Partial:
    """One column of a call: an aggregate over the rows of an epoch, and how it is folded.

    Attributes:
        plain: its function (count, sum, min or max) and what it is of, where it counts every row that comes and has a
            value; count of nothing counts all rows. None where rows are filtered, or have a diff.
    """

    tree: exp.Expr
    fold: Fold
    plain: tuple[str, exp.Expr | None] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """An aggregate call that has partials: its function, its argument and its FILTER."""

    function: str
    argument: exp.Expr | None = None
    where: exp.Expr | None = None

    def partials(self, kind: pa.DataType, *, retracts: bool) -> tuple[Partial, ...] | None:
        """The columns to keep for an argument of this type; None where they would not be exact.

        Args:
            kind: the type of the argument, any for count(*).
            retracts: rows have a diff, and some of it is negative.
        """
        match _FINALS[self.function]:
            case Final.COUNT:
                return (self._present(retracts),)
            case Final.EXTREME:
                if retracts or not _is_comparable(kind):
                    return None
                tree = self._filtered(call(self.function, self._value))
                return (Partial(tree, Fold(self.function), self._plainly(self.function, self.argument)),)
            case Final.SUM | Final.AVERAGE if self.function != "count_if":
                if not _is_exact(kind) and (retracts or not pa.types.is_floating(kind)):
                    return None
                return (self._sum(kind, retracts), self._present(retracts))
            case _:
                if not pa.types.is_boolean(kind):
                    return None
                return (self._count(self._value, retracts), self._present(retracts))

    @property
    def final(self) -> Final:
        return _FINALS[self.function]

    @property
    def _value(self) -> exp.Expr:
        assert self.argument is not None
        return self.argument.copy()

    def _plainly(self, function: str, argument: exp.Expr | None) -> tuple[str, exp.Expr | None] | None:
        return (function, argument) if self.where is None else None

    def _present(self, retracts: bool) -> Partial:
        """The count of rows that have a value."""
        where = None if self.argument is None else _over("x IS NOT NULL", x=self._value)
        counted = self._count(where, retracts)
        return counted if retracts else replace(counted, plain=self._plainly("count", self.argument))

    def _count(self, where: exp.Expr | None, retracts: bool) -> Partial:
        if not retracts:
            counted = self._filtered(call("count", exp.Star()), where)
        else:
            summed = self._filtered(call("sum", reference(DIFF)), where)
            counted = _over("CAST(coalesce(n, 0) AS BIGINT)", n=summed)
        return Partial(counted, Fold.ADD)

    def _sum(self, kind: pa.DataType, retracts: bool) -> Partial:
        value = self._value
        if retracts:
            # In the width of the sum: the product of two int64 may leave theirs.
            wide = "x" if pa.types.is_decimal(kind) else "CAST(x AS HUGEINT)"
            value = _over(f"{wide} * n", x=value, n=reference(DIFF))
        plain = None if retracts else self._plainly("sum", self.argument)
        return Partial(self._filtered(call("sum", value)), Fold.ADD, plain)

    def _filtered(self, tree: exp.Expr, where: exp.Expr | None = None) -> exp.Expr:
        both = [part.copy() for part in (self.where, where) if part is not None]
        if not both:
            return tree
        return exp.Filter(this=tree, expression=exp.Where(this=exp.and_(*both, copy=False)))


_FINALS = {
    "count": Final.COUNT,
    "count_if": Final.SUM,
    "sum": Final.SUM,
    "avg": Final.AVERAGE,
    "mean": Final.AVERAGE,
    "min": Final.EXTREME,
    "max": Final.EXTREME,
    "bool_or": Final.ANY,
    "bool_and": Final.ALL,
}


@dataclass(frozen=True, slots=True)
class Partials:
    """A keyed aggregation of which every call has partials: GROUP BY keys, and the calls by output name."""

    keys: tuple[Named, ...]
    calls: tuple[tuple[str, Call], ...]


def partials_of(keys: Sequence[Named], metrics: Sequence[Named]) -> Partials | None:
    """The aggregation as partials; None where a call has none whatever its types are."""
    calls = []
    for name, tree in metrics:
        found = _call_of(tree)
        if found is None:
            return None
        calls.append((name, found))
    return Partials(tuple(keys), tuple(calls))


def _call_of(tree: exp.Expr) -> Call | None:
    where = None
    if isinstance(tree, exp.Filter):
        where, tree = tree.expression.this, tree.this
    name = name_of(tree)
    if name not in _FINALS or not isinstance(tree, exp.Anonymous):
        return None
    arguments = list(tree.expressions)
    if name == "count" and (not arguments or (len(arguments) == 1 and isinstance(arguments[0], exp.Star))):
        return Call(name, None, where)
    if len(arguments) != 1 or isinstance(arguments[0], (exp.Distinct, exp.Order, exp.Star)):
        return None
    return Call(name, arguments[0], where)


def _over(template: str, **trees: exp.Expr) -> exp.Expr:
    return replaced(parse_expression(template), trees)


def _is_exact(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind))


def _is_comparable(kind: pa.DataType) -> bool:
    """Whether values of the type are of one width, and ordered as the numbers that they are stored as."""
    return bool(
        _is_exact(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_date32(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_time64(kind)
    )
