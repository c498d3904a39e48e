"""Upserts: changes told by key, the form in which a sink that keeps one row for each key takes a result."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from velaria_core.changes import DIFF
from velaria_core.errors import DataError
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import diffed
from velaria_core.types import quoted


class Upserts:
    """At most one row for each key of an epoch: 1 puts it in the place of the key's row, -1 removes that.

    Args:
        keys: columns by which no two rows of the result are equal.
    """

    def __init__(self, store: Store, schema: pa.Schema, keys: Sequence[str]) -> None:
        self._keys = keys
        self._feed = store.feed(diffed(schema, append_only=False))
        columns = ", ".join(f"c.{quoted(name)}" for name in schema.names)
        by = ", ".join(quoted(key) for key in keys)
        same = " AND ".join(f"n.{quoted(key)} IS NOT DISTINCT FROM c.{quoted(key)}" for key in keys)
        going, coming = (f"(SELECT * FROM {self._feed.name} WHERE {DIFF} {sign} 0)" for sign in "<>")
        # Rows that go come first, as for every sink.
        self._statement = store.prepare(
            f"SELECT {columns}, -1::BIGINT AS {DIFF} FROM {going} AS c ANTI JOIN {coming} AS n ON {same} "
            f"UNION ALL SELECT {columns}, 1::BIGINT FROM {coming} AS c"
        )
        self._doubled = store.prepare(f"SELECT {by} FROM {coming} GROUP BY {by} HAVING sum({DIFF}) > 1 LIMIT 1")

    def of(self, changes: pa.Table) -> pa.Table:
        """Net changes by key, in a form of their own.

        Raises:
            DataError[stream.keys]: two rows of the result have one key.
        """
        self._feed.table = changes
        doubled = self._doubled()
        if doubled.num_rows:
            shown = ", ".join(f"{name} = {value}" for name, value in doubled.to_pylist()[0].items())
            what = f"two rows of the result have the key {shown}"
            raise DataError("stream.keys", what, hint="name keys that identify a row: keys=[...]")
        return self._statement()
