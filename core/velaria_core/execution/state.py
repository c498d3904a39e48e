"""State: what the steps of one stream query keep, in one DuckDB database, behind a narrow interface.

A `Store` holds one connection for the life of a query. Steps declare tables, feeds (Arrow tables that are bound anew
each epoch) and statements, which are prepared once: preparing is the largest saving of a small epoch
(duckdb-notes section 2). Everything happens inside the transaction that the epoch opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Final

import pyarrow as pa

from velaria_core.execution.duck import Cursor, Engine
from velaria_core.types import duckdb_type, quoted

Statement = Callable[[], pa.Table]
WIDE_ROWS: Final = 1_000_000


class Feed:
    """An Arrow table that statements read by name and that the next epoch replaces."""

    def __init__(self, name: str, schema: pa.Schema) -> None:
        self.name = name
        self.schema = schema
        self.table = pa.Table.from_batches([], schema)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()


class Store:
    """Tables, feeds and prepared statements of one query.

    Attributes:
        durable: what is in a table outlives the process.
    """

    def __init__(self, engine: Engine) -> None:
        self.durable = engine.settings.path is not None
        self._open = ExitStack()
        self._threads = 0
        self.cursor: Cursor = self._open.enter_context(engine.cursor())
        if self.durable:
            # Compressing text is dear: with the engine's own 16 MB that takes three times as long as the commits. A
            # restart after a kill reads what is not in the file yet, 128 MB in about half a second.
            self.cursor.rows("SET checkpoint_threshold='128MB'")
        self._numbers = count(1)
        self._threads_max = engine.settings.threads or os.cpu_count() or 1
        self._rows: dict[str, int] = {}
        self._held: dict[str, int] = {}
        ((limit,),) = self.cursor.rows("SELECT parse_formatted_bytes(current_setting('memory_limit'))")
        self._held_bytes_max = int(limit) // 2
        self._use_threads(1)

    def holds(self, table: str, rows: int) -> None:
        """Told by whoever keeps a table how many rows of it statements read.

        Statements over an epoch's rows take two thirds of the time on one thread that they take on two, since waking
        another costs more than it does. Only scans of many rows, which is what a large state means, are worth it.
        """
        self._rows[table] = rows
        self._use_threads(self._threads_max if sum(self._rows.values()) > WIDE_ROWS else 1)

    def may_hold(self, table: str, nbytes: int) -> bool:
        """Told by whoever keeps the rows of a table in memory what they take; whether all that is kept so may take half
        of the engine's limit, which knows nothing of it."""
        self._held[table] = nbytes
        return sum(self._held.values()) <= self._held_bytes_max

    def _use_threads(self, threads: int) -> None:
        if threads != self._threads:
            self.cursor.rows(f"SET threads={threads:d}")
            self._threads = threads

    def feed(self, schema: pa.Schema) -> Feed:
        """A feed of this schema, bound to a name of its own."""
        feed = Feed(f"feed_{next(self._numbers)}", schema)
        self.cursor.bind({feed.name: feed})
        return feed

    def table(self, name: str, schema: pa.Schema) -> str:
        """A table that is kept between epochs and runs; made when it is not there. Returns its quoted name."""
        columns = ", ".join(f"{quoted(field.name)} {duckdb_type(field.type)}" for field in schema)
        self.cursor.rows(f"CREATE TABLE IF NOT EXISTS {quoted(name)} ({columns})")
        return quoted(name)

    def prepare(self, sql: str) -> Statement:
        """A statement that reads, planned now and run by calling it."""
        name = f"statement_{next(self._numbers)}"
        self.cursor.rows(f"PREPARE {name} AS {sql}")
        return lambda: self.cursor.run(f"EXECUTE {name}")

    def command(self, sql: str) -> Callable[[], None]:
        """A statement that changes tables, planned now and run by calling it. 0.1 ms less than one that answers."""
        name = f"statement_{next(self._numbers)}"
        self.cursor.rows(f"PREPARE {name} AS {sql}")

        def run() -> None:
            self.cursor.rows(f"EXECUTE {name}")

        return run

    def schema(self, sql: str) -> pa.Schema:
        """The columns of a query over the store's tables and feeds."""
        return self.cursor.schema(sql)

    def exported(self, sql: str) -> pa.Schema:
        """The same as they leave the engine: states of aggregates, whose type has no name, as what they are made of."""
        return self.cursor.run(f"SELECT * FROM ({sql}) LIMIT 0").schema

    def close(self) -> None:
        """Give the connection back."""
        self._open.close()
