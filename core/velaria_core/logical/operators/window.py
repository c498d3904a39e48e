"""Window: columns computed over a window of rows around each row (`... OVER (...)`).

Batch   window functions in the select list.
Stream  Keyed by the partition that all calls share: touched partitions are computed anew. Without one, Recompute.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from velaria_core.logical.expr import reference
from velaria_core.logical.incremental import Incremental, Keyed, Recompute
from velaria_core.logical.node import Unary, listed
from velaria_core.logical.query import Named, Query


@dataclass(frozen=True, eq=False)
class Window(Unary):
    calls: tuple[Named, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.input.columns, *(name for name, _ in self.calls))

    def label(self) -> str:
        return f"Window: {listed(self.calls)}"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        kept = [(name, reference(name)) for name in self.input.columns]
        return rows.projected([*kept, *self.calls], windowed=True)

    def stream(self) -> Incremental:
        shared: set[str] | None = None
        for _, tree in self.calls:
            for window in tree.find_all(exp.Window):
                keys = {key.name for key in window.args.get("partition_by") or () if isinstance(key, exp.Column)}
                shared = keys if shared is None else shared & keys
        if not shared:
            return Recompute("a window function without a common partition")
        by = tuple(name for name in self.input.columns if name in shared)
        return Keyed((by,), shown_by=by)
