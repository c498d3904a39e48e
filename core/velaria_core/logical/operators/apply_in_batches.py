"""ApplyInBatches: a user's function over the rows of each key, with a state per key that it keeps itself.

Batch   one call over all rows, with no state before it; the engine reads what it gave as a table.
Stream  Applied: one call an epoch, over the rows that came, sorted by key, and the states of their keys. Where rows
        also go, the touched keys are computed anew over all their rows.
Source  the stateful operators of Flink (process functions) and Spark (applyInPandasWithState), over columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import pyarrow as pa

from velaria_core.logical.event_time import Times
from velaria_core.logical.incremental import Applied, Incremental
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query
from velaria_core.types import quoted

_NUMBERS = count(1)


@dataclass(frozen=True, eq=False)
class ApplyInBatches(Unary):
    """`GroupedFrame.apply_in_batches` says what `function` is given and gives.

    Attributes:
        keys: columns of the input.
        order: columns by which the rows of a key are sorted; those that tie stay as they arrived.
        output: the columns of the result.
        state: the columns kept for each key, without the keys; None where there is no state.
        expires: the column of `state` that says when a key is called without rows.
    """

    keys: tuple[str, ...]
    function: Callable[..., Any]
    output: pa.Schema
    state: pa.Schema | None = None
    order: tuple[str, ...] = ()
    expires: str | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.output.names)

    @property
    def known_schema(self) -> pa.Schema:
        return self.output

    @cached_property
    def feed_name(self) -> str:
        """The table name under which the engine reads the result in batch."""
        return f"applied_{next(_NUMBERS)}"

    def label(self) -> str:
        state = f" with state {', '.join(self.state.names)}" if self.state is not None else ""
        return f"ApplyInBatches: {function_name(self.function)} by {', '.join(self.keys)}{state}"

    def batch(self, *_: Query) -> Query:
        return Query.table(quoted(self.feed_name), self.columns)

    def times(self, *_: Times) -> Times:
        return {}

    def stream(self) -> Incremental:
        return Applied((self.keys,))


def function_name(function: Callable[..., Any]) -> str:
    """The name of a function by module, the same in every process that imports it."""
    inner = getattr(function, "func", function)  # of a functools.partial
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"
