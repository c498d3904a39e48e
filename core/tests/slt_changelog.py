"""The `stream` records of golden files: what each epoch brings, and how the result changes by it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
from slt_file import rows_as_text

from velaria_core import DataflowSession, MemorySink, StreamingQuery
from velaria_core.contract.abi import DIFF
from velaria_core.execution.sources.queue import QueueSource
from velaria_core.types import duckdb_type, quoted

_LINE = re.compile(r"(?P<head>epoch +\d+|end)(?P<came>.*?)=>(?P<made>.*)")
_CHANGE = re.compile(r"(?:(?P<table>\w+) +)?(?P<sign>[+-]) +\((?P<values>(?:[^()']|'[^']*')*)\)")
COUNTERS = {"late_rows": "late", "late_dropped_rows": "dropped", "ahead_rows": "set aside"}


class Changelog:
    """One query over the queues of a session, fed line by line.

    Args:
        words: of the record: an output mode, and `watermark` to show it after each epoch.
    """

    def __init__(self, session: DataflowSession, sql: str, words: Sequence[str]) -> None:
        self._session = session
        names = [row["name"] for row in session.sql("SHOW SOURCES").to_rows()]
        self._queues: dict[str, QueueSource] = {name: session._catalog.held(name) for name in names}
        self._sink = MemorySink()
        mode = next((word for word in words if word in ("append", "update", "complete")), None)
        options = {"output_mode": mode} if mode is not None else {}
        self._query: StreamingQuery = session.stream_sql(sql).write_stream(self._sink, **options)
        self._shows_watermark = "watermark" in words
        self._shown = 0
        self._counted = dict.fromkeys(COUNTERS, 0)

    def line(self, text: str) -> str:
        """The line as it should be. ValueError where it does not read."""
        found = _LINE.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"no epoch: {text}")
        if found["head"] == "end":
            for queue in self._queues.values():
                queue.close_input()
        came = [(change["table"], change["sign"], change["values"]) for change in _CHANGE.finditer(found["came"])]
        if _CHANGE.sub("", found["came"]).strip():
            raise ValueError(f"no changes: {found['came']}")
        for name, queue in self._queues.items():
            mine = [(sign, values) for table, sign, values in came if (table or next(iter(self._queues))) == name]
            if mine:
                queue.push_arrow(self._rows(queue, mine))
        self._query.process_available()
        return f"{found['head']}{found['came'].rstrip()}  =>  {self._made()}".rstrip()

    def _rows(self, queue: QueueSource, changes: Sequence[tuple[str, str]]) -> pa.Table:
        info = queue.info()
        names = ", ".join(quoted(name) for name in info.schema.names)
        typed = ", ".join(f"CAST({quoted(item.name)} AS {duckdb_type(item.type)})" for item in info.schema)
        values = ", ".join(f"({1 if sign == '+' else -1}, {literals})" for sign, literals in changes)
        sql = f"SELECT {typed}, CAST(d AS BIGINT) FROM (VALUES {values}) AS r (d, {names})"
        table = self._session.sql(sql).to_arrow()
        fields = [*info.schema, pa.field(DIFF, pa.int64(), nullable=False)]
        table = pa.table(table.columns, schema=pa.schema(fields))
        return table.drop_columns([DIFF]) if info.append_only else table

    def _made(self) -> str:
        fresh = {epoch: table for epoch, table in self._sink.tables.items() if epoch > self._shown}
        self._shown = max(fresh, default=self._shown)
        sums = Counter[tuple[str, ...]]()
        for table in fresh.values():
            sums.update(_counted(table))
        gone = [("-", row) for row in sorted(sums) for _ in range(-sums[row])]
        come = [("+", row) for row in sorted(sums) for _ in range(sums[row])]
        told = "  ".join(f"{sign} ({', '.join(row)})" for sign, row in (*gone, *come))
        progress: Mapping[str, object] = self._query.progress()
        for key, word in COUNTERS.items():
            count = progress.get(key) or 0
            assert isinstance(count, int)
            if count != self._counted[key]:
                told += f"  {word} {count - self._counted[key]}"
                self._counted[key] = count
        if self._shows_watermark:
            told += f"  watermark {progress.get('watermark') or 'none'}"
        return told.strip()

    def close(self) -> None:
        self._query.stop()


def _counted(table: pa.Table) -> dict[tuple[str, ...], int]:
    """How often each row comes, less how often it goes."""
    signed = DIFF in table.schema.names
    diffs = table.column(table.num_columns - 1).to_pylist() if signed else [1] * table.num_rows
    found = Counter[tuple[str, ...]]()
    for row, diff in zip(rows_as_text(table.drop_columns([DIFF]) if signed else table), diffs, strict=True):
        found[tuple(row)] += int(diff)
    return found


def columned(lines: Sequence[str]) -> list[str]:
    """Lines of a changelog with their arrows below each other."""
    parts = [line.partition("=>") for line in lines]
    width = max(len(came.rstrip()) for came, _, _ in parts)
    return [f"{came.rstrip():<{width}}  =>  {made.strip()}".rstrip() for came, _, made in parts]
