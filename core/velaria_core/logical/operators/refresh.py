"""Refresh: a table that a stream reads again from time to time.

Batch   the table as it is.
Stream  Reread: it is read anew, held against what was read before, and the difference goes on. So what was joined with
        a row that is no longer there is taken back: at any time the result is that of batch over the table last read.
"""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.logical.event_time import Times
from velaria_core.logical.incremental import Incremental, Reread
from velaria_core.logical.node import Unary
from velaria_core.logical.query import Query


@dataclass(frozen=True, eq=False)
class Refresh(Unary):
    """`every_ms` lies between two looks at the table. There is no stream below it."""

    every_ms: int

    def label(self) -> str:
        return f"Refresh: every {self.every_ms} ms"

    def batch(self, *inputs: Query) -> Query:
        (rows,) = inputs
        return rows

    def times(self, *_: Times) -> Times:
        return {}

    def stream(self) -> Incremental:
        return Reread("its rows are read again and held against those before")
