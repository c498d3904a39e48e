"""The queries of the golden files as streams: the rows of the tables that they read come in epochs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa

from velaria_core import DataflowSession, MemorySink, MemorySource, StreamingDataFrame, StreamingQuery
from velaria_core.contract.abi import SourceInfo
from velaria_core.execution import batch
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan


class Coming(MemorySource):
    """A table of which more rows may come, and which ends some time: so its result may be ordered."""

    def __init__(self, batches: Iterable[pa.Table] = (), *, schema: pa.Schema) -> None:
        super().__init__(batches, schema=schema, bounded=False)

    def info(self) -> SourceInfo:
        return replace(super().info(), bounded=True)


class Feeding:
    """One query whose tables become streams. Every run gives the rows of its result, in no order."""

    def __init__(self, session: DataflowSession, node: Node) -> None:
        self._session = session
        self._node = node
        scans = {id(one.relation): one for one in node.walk() if isinstance(one, Scan)}
        self._tables = {key: batch.table(session._engine, scan) for key, scan in scans.items()}
        self.rows = sum(table.num_rows for table in self._tables.values())

    def in_one_epoch(self) -> pa.Table:
        return self._run(epoch_rows_max=1 << 20)

    def row_by_row(self) -> pa.Table:
        return self._run(epoch_rows_max=1)

    def restored(self) -> pa.Table:
        """Stopped when each table has given half of its rows, and started again from the checkpoint."""
        sink = MemorySink()
        with tempfile.TemporaryDirectory() as folder:
            sources = {key: _source(table.slice(0, table.num_rows // 2)) for key, table in self._tables.items()}
            _finish(self._query(sources, sink, checkpoint_path=folder))
            for key, table in self._tables.items():
                sources[key].add(table.slice(table.num_rows // 2))
            _finish(self._query(sources, sink, checkpoint_path=folder))
        return sink.result()

    def _run(self, epoch_rows_max: int) -> pa.Table:
        sink = MemorySink()
        sources = {key: _source(table) for key, table in self._tables.items()}
        _finish(self._query(sources, sink, epoch_rows_max=epoch_rows_max))
        return sink.result()

    def _query(
        self,
        sources: dict[int, Coming],
        sink: MemorySink,
        checkpoint_path: str | None = None,
        epoch_rows_max: int = 65_536,
    ) -> StreamingQuery:
        made: dict[int, Node] = {}

        def streamed(node: Node) -> Node:
            if isinstance(node, Scan):
                key = id(node.relation)
                if key not in made:
                    relation = node.relation
                    made[key] = Scan(
                        replace(
                            relation,
                            sql=f'"stream {len(made)}"',
                            kind="stream",
                            feed=relation.schema.empty_table(),
                            files=(),
                            source=sources[key],
                        )
                    )
                return made[key]
            return node.over([streamed(child) for child in node.inputs]) if node.inputs else node

        frame = StreamingDataFrame(self._session, streamed(self._node))
        return frame.write_stream(sink, checkpoint_path=checkpoint_path, epoch_rows_max=epoch_rows_max)


def _source(table: pa.Table) -> Coming:
    return Coming([table] if table.num_rows else [], schema=table.schema)


def _finish(query: StreamingQuery) -> None:
    query.process_available()
    query.stop()
