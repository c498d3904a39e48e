"""Aggregates in two plans: states of the engine over some rows, and their merge. Both are plans as any other.

The engine exports what it has of each call over a part of the rows (`sum(x) EXPORT_STATE`), a plain column that crosses
to another process; states of equal keys are combined there and read. The kernel's streams keep aggregates so
(`velaria_core.execution.steps.states`), and which calls can is theirs to say (`logical.states`).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from velaria_core.execution.duck import Engine
from velaria_core.execution.state import Store
from velaria_core.execution.steps.states import merging
from velaria_core.logical.expr import to_sql
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Opaque
from velaria_core.logical.operators.opaque import marker
from velaria_core.logical.states import States
from velaria_core.types import quoted


@dataclass(frozen=True, slots=True)
class Halves:
    """An aggregate as two plans.

    Attributes:
        partial: keys k0, k1, ... and states s0, s1, ... of the rows that it is over.
        schema: its columns as they leave the engine.
        keys: names of its keys.
    """

    partial: Node
    schema: pa.Schema
    keys: tuple[str, ...]
    _merge: str
    _names: tuple[str, ...]

    def merge(self, below: Node) -> Node:
        """The aggregate, over rows of the partial plan."""
        return Opaque(self._merge, (below,), self._names, "states are merged")


def halves(engine: Engine, node: Node, states: States, below: Node, rows: pa.Schema) -> Halves:
    """An aggregate over `below`, whose columns are `rows`, in halves.

    Args:
        engine: asked for the types of states.
    Raises:
        VelariaError: the engine exports no states of these types.
    """
    keys = tuple(f"k{at}" for at in range(len(states.keys)))
    calls = [f"s{at}" for at in range(len(states.calls))]
    columns = [f"{to_sql(tree)} AS {key}" for key, (_, tree) in zip(keys, states.keys, strict=True)]
    columns += [f"{to_sql(tree)} EXPORT_STATE AS {call}" for call, (_, tree) in zip(calls, states.calls, strict=True)]
    by = f" GROUP BY {', '.join(to_sql(tree) for _, tree in states.keys)}" if keys else ""
    store = Store(engine)
    try:
        feed = store.feed(rows)
        schema = store.exported(f"SELECT {', '.join(columns)} FROM {feed.name}{by}")
        came = store.feed(schema)
        merged = [
            merging(store, feed, came, f"t.{call}", tree) for call, (_, tree) in zip(calls, states.calls, strict=True)
        ]
    finally:
        store.close()
    shown = [f"t.{key} AS {quoted(name)}" for key, (name, _) in zip(keys, states.keys, strict=True)]
    shown += [f"finalize({one}) AS {quoted(name)}" for one, (name, _) in zip(merged, states.calls, strict=True)]
    grouped = f" GROUP BY {', '.join(f't.{key}' for key in keys)}" if keys else ""
    template = f"SELECT {', '.join(columns)} FROM {marker(0)}{by}"
    partial = Opaque(template, (below,), tuple(schema.names), "states are exported")
    return Halves(partial, schema, keys, f"SELECT {', '.join(shown)} FROM {marker(0)} AS t{grouped}", node.columns)
