"""Refreshed steps: a table is read again once its time has come, and what is other than before goes on as changes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from velaria_core.execution.duck import Engine
from velaria_core.execution.lower import lower, schema
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import COUNT, Changes, Moment, Step, some
from velaria_core.execution.steps.rows import Log, difference
from velaria_core.logical.operators import Refresh, Scan
from velaria_core.types import quoted


class RefreshStep(Step):
    """The rows of a plan without streams, as last read.

    The rows are state, and so are the moment and the files of the last reading: after a restart the result stands on
    the rows that it stood on, until they are read again. Files that are as they were are not read.
    """

    is_net = True
    impl = "read-again"
    impl_reason = "the table is read again at its time, and what is other than before goes on"
    waits = True

    def __init__(self, engine: Engine, store: Store, name: str, node: Refresh) -> None:
        super().__init__(schema(engine, node.input), False, ())
        self._engine, self._cursor = engine, store.cursor
        self._every_ms = node.every_ms
        self._lowered = lower(node.input)
        scans = [one.relation for one in node.input.walk() if isinstance(one, Scan)]
        # What is no file may change at any time, and tells nobody.
        self._files = [file for one in scans for file in one.files] if all(one.files for one in scans) else None
        self._kept = Log(store, name, self.schema, append_only=False)
        self._new = store.feed(self.schema)
        self._difference = store.prepare(difference(self.schema.names, self._new.name, self._kept.table, COUNT))
        self._readings = quoted(f"{name}_read")
        self._cursor.rows(f"CREATE TABLE IF NOT EXISTS {self._readings} (at_ms BIGINT, files VARCHAR)")
        self._recall()

    def step(self, _changes: Sequence[Changes], at: Moment) -> Changes:
        if not self.due(at.watermark_us, at.now_ms):
            return None
        files = self._versions()  # before the rows: a change that comes while they are read is seen the next time
        with self._engine.cursor(self._lowered.feeds) as cursor:
            self._new.table = cursor.table(self._lowered.sql)
        changes = self._difference()
        self._new.table = self._new.schema.empty_table()
        if changes.num_rows:
            self._kept.take(changes)
        self._cursor.rows(f"DELETE FROM {self._readings}")
        self._cursor.rows(f"INSERT INTO {self._readings} VALUES ($1, $2)", [at.now_ms, files])
        self._looked_ms, self._read_files = at.now_ms, files
        return some(changes)

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        """Whether the time has come, and the files have changed, where there are only files."""
        del watermark_us
        if self._looked_ms is None:
            return True
        if 0 <= now_ms - self._looked_ms < self._every_ms:  # a clock that was set back waits for nothing
            return False
        if self._read_files is not None and self._read_files == self._versions():
            self._looked_ms = now_ms
            return False
        return True

    def _versions(self) -> str | None:
        """What tells one content of the files from another; None where there are others, or one is gone."""
        if self._files is None:
            return None
        try:
            found = [os.stat(file) for file in self._files]
        except OSError:
            return None
        return json.dumps([[one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns] for one in found])

    def _recall(self) -> None:
        found = self._cursor.rows(f"SELECT at_ms, files FROM {self._readings}")
        self._looked_ms, self._read_files = found[0] if found else (None, None)

    def state_rows(self) -> int:
        return self._kept.entries

    def state_bytes(self) -> int:
        return self._kept.nbytes

    def rolled_back(self) -> None:
        self._kept.rolled_back()
        self._recall()
