"""Rows: the rows of one input as state."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from velaria_core.changes import with_diff
from velaria_core.execution.state import Feed, Store
from velaria_core.execution.steps.base import (
    COUNT,
    Step,
    counted,
    diffed,
    relation_of,
)
from velaria_core.logical.operators import Scan
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted


class Rows:
    """The rows of one input as state: each with its count, as a log of changes."""

    def __init__(self, store: Store, name: str, below: Step) -> None:
        self.columns = below.schema.names
        self.feed = store.feed(diffed(below.schema, append_only=False))
        self.table = store.table(name, counted(self.feed.schema))
        self._add = store.prepare(f"INSERT INTO {self.table} SELECT * FROM {self.feed.name}")
        self._append_only = below.append_only

    @property
    def new(self) -> Scan:
        """The changes that are fed, with their diff."""
        return Scan(relation_of(self.feed))

    @property
    def kept(self) -> Scan:
        """The log of changes, with their count."""
        return Scan(Relation(self.table, counted(self.feed.schema), self.table, "state"))

    def take(self, changes: pa.Table) -> None:
        """Feed these changes and keep them."""
        self.feed.table = with_diff(changes)
        self.add()

    def add(self) -> None:
        """Keep the changes that are fed."""
        self._add()

    def restricted(self, keys: Sequence[str], touched: Feed | None) -> str:
        """SQL of the rows whose key was touched, each as often as it is there; all rows without a feed of keys."""
        listed = ", ".join(f"s.{quoted(column)}" for column in self.columns)
        source = f"{self.table} AS s"
        if touched is not None:
            same = " AND ".join(f"s.{quoted(key)} IS NOT DISTINCT FROM k.k{at}" for at, key in enumerate(keys))
            source += f" SEMI JOIN {touched.name} AS k ON {same}"
        if self._append_only:
            return f"SELECT {listed} FROM {source}"
        names = ", ".join(quoted(column) for column in self.columns)
        return (
            f"SELECT {names} FROM (SELECT {names}, unnest(range({COUNT})) FROM (SELECT {listed}, "
            f"CAST(sum(s.{COUNT}) AS BIGINT) AS {COUNT} FROM {source} GROUP BY {listed} HAVING sum(s.{COUNT}) > 0))"
        )
