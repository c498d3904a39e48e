"""Two tables that change by chance, and what is in them, for steps that keep rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from velaria_core.changes import DIFF_FIELD
from velaria_core.execution.state import Feed
from velaria_core.logical import operators as op
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

SCHEMA = pa.schema({"k": pa.int64(), "text": pa.string()})
Row = tuple[int | None, str | None]


def table(rows: Sequence[Row], diffs: Sequence[int] | None = None) -> pa.Table:
    columns = [pa.array([row[at] for row in rows], SCHEMA.types[at]) for at in (0, 1)]
    made = pa.table(columns, SCHEMA)
    return made if diffs is None else made.append_column(DIFF_FIELD, pa.array(diffs, pa.int64()))


class Inputs:
    """Two changing tables, `l` and `r`, and what is in them."""

    def __init__(self, kinds: Sequence[pa.DataType] = (pa.int64(), pa.int64())) -> None:
        schemas = [
            pa.schema([(f"{side}k", kind), (f"{side}text", pa.string())])
            for side, kind in zip("lr", kinds, strict=True)
        ]
        self.rows: list[Counter[Row]] = [Counter(), Counter()]
        self._feeds = [Feed(side, schema) for side, schema in zip("lr", schemas, strict=True)]
        self.scans = [
            op.Scan(Relation(feed.name, feed.schema, quoted(feed.name), "arrow", feed=feed)) for feed in self._feeds
        ]
        self.relations = [scan.relation for scan in self.scans]

    def changes(self, chance: np.random.Generator, texts: int = 3, retracts: bool = True) -> list[pa.Table]:
        """Some rows of each that come, and some of what is there that goes."""
        made = []
        for rows, feed in zip(self.rows, self._feeds, strict=True):
            coming = [
                (None if key == 0 else int(key), None if text == 0 else f"{text}")
                for key, text in zip(chance.integers(0, 6, 5), chance.integers(0, texts, 5), strict=True)
            ]
            there = sorted(rows.elements(), key=str)
            count = min(len(there), int(chance.integers(0, 6))) if retracts else 0
            going = [there[at] for at in chance.choice(len(there), count, replace=False)] if count else []
            rows.update(coming)
            rows.subtract(going)
            columns = table(coming + going).columns
            changed = pa.Table.from_arrays([columns[0].cast(feed.schema.types[0]), columns[1]], schema=feed.schema)
            diffs = pa.array([1] * len(coming) + [-1] * len(going), pa.int64())
            made.append(changed.append_column(DIFF_FIELD, diffs) if retracts else changed)
            columns = table(list(rows.elements())).columns
            feed.table = pa.Table.from_arrays([columns[0].cast(feed.schema.types[0]), columns[1]], schema=feed.schema)
        return made
