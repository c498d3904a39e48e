"""States: aggregates whose partial values only the engine can hold and merge.

The extreme of texts, a median, a variance or a sketch is no number that is added. The engine exports what it has of
such a call over some rows (`median(x) EXPORT_STATE`), merges several (`combine_aggr`) and reads the value (`finalize`).
There is no way back: rows that go want all rows again.

Listed are the calls whose value does not depend on how the rows were cut, but for the rounding of floating point
numbers (a variance, a correlation) and what is an approximation anyhow. Left out: what depends on the order of rows
(`list`, `first`, `arg_max` among ties), and DISTINCT, which the engine merges wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from velaria_core.logical.functions import name_of
from velaria_core.logical.query import Named

# The most arguments a call may have; `max(x, 3)` is another function.
_ARGUMENTS = {
    **dict.fromkeys(("count", "count_if", "sum", "avg", "mean", "min", "max", "bool_and", "bool_or"), 1),
    **dict.fromkeys(("bit_and", "bit_or", "bit_xor", "median", "mad", "approx_count_distinct"), 1),
    **dict.fromkeys(("stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop", "sem"), 1),
    **dict.fromkeys(("skewness", "kurtosis", "kurtosis_pop"), 1),
    **dict.fromkeys(("corr", "covar_samp", "covar_pop", "regr_avgx", "regr_avgy", "regr_count", "regr_intercept"), 2),
    **dict.fromkeys(("regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy"), 2),
    **dict.fromkeys(("quantile", "quantile_cont", "quantile_disc", "approx_quantile"), 2),
}
_OF_ALL_VALUES = frozenset({"median", "mad", "quantile", "quantile_cont", "quantile_disc"})
WITH_CONSTANT = frozenset({"quantile", "quantile_cont", "quantile_disc", "approx_quantile"})  # after what is aggregated


@dataclass(frozen=True, slots=True)
class States:
    """A keyed aggregation of which the engine can merge every call.

    Attributes:
        grows: a state is as large as the rows that it stands for.
    """

    keys: tuple[Named, ...]
    calls: tuple[Named, ...]
    grows: bool


def states_of(keys: Sequence[Named], metrics: Sequence[Named]) -> States | None:
    """The aggregation as states; None where a call is none of those that merge, or there is none."""
    names = [_name(tree) for _, tree in metrics]
    if not names or None in names:
        return None
    return States(tuple(keys), tuple(metrics), not _OF_ALL_VALUES.isdisjoint(names))


def _name(tree: exp.Expr) -> str | None:
    """The function of a call that merges."""
    made = tree.this if isinstance(tree, exp.Filter) else tree
    if not isinstance(made, exp.Anonymous):
        return None
    name = name_of(made)
    if name is None or len(made.expressions) > _ARGUMENTS.get(name, -1):
        return None
    return None if any(isinstance(one, (exp.Distinct, exp.Order)) for one in made.expressions) else name
