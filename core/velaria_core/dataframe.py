"""DataFrame: a plan that gives its rows when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from velaria_core.errors import InputError
from velaria_core.execution import batch, foreign
from velaria_core.execution.rows import rows_of
from velaria_core.frame import Frame
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Refresh, Scan, VectorSearch
from velaria_core.logical.searching import TOP_K
from velaria_core.logical.serialize import dumps
from velaria_core.logical.sql.durations import NotADuration, milliseconds
from velaria_core.logical.sql.origin import pointing_into
from velaria_core.types import literal

if TYPE_CHECKING:
    from velaria_core.contract.codec import BatchExplain
    from velaria_core.execution.jobs import ExecutionOptions, JobHandle
    from velaria_core.session import DataflowSession
    from velaria_core.streaming import StreamingDataFrame

_FILES = frozenset({"csv", "line", "json", "parquet"})


class DataFrame(Frame):
    """Rows that a plan would give. Lazy: nothing runs until rows are asked for.

    Attributes:
        rejects: rows that a reader set aside with on_error="collect", or None.
    """

    def __init__(
        self, session: DataflowSession, node: Node, *, rejects: Node | None = None, text: str | None = None
    ) -> None:
        super().__init__(session, node, text=text)
        self._rejects = rejects
        if self.is_stream:
            raise InputError(
                "frame.is_stream", "this reads a stream, which has no end", hint="use stream_sql(...) or stream(name)"
            )

    @property
    def rejects(self) -> DataFrame | None:
        """The rows that the reader set aside, when it was told to collect them."""
        return DataFrame(self._session, self._rejects) if self._rejects is not None else None

    # --- rows out -------------------------------------------------------------------------------------------

    def to_arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        with pointing_into(self._text):
            return batch.table(self._session._engine, self.node)

    collect = to_arrow

    def to_reader(self) -> pa.RecordBatchReader:
        """All rows as record batches, computed as they are read."""
        with pointing_into(self._text):
            return batch.reader(self._session._engine, self.node)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows over the Arrow C stream interface; any library that speaks it can read a frame."""
        capsule: object = self.to_reader().__arrow_c_stream__(requested_schema)
        return capsule

    def to_rows(self) -> list[dict[str, Any]]:
        """All rows as dicts: a copy into Python objects, for small results."""
        return rows_of(self.to_arrow())

    def to_pandas(self) -> Any:
        """All rows as a pandas DataFrame, whole numbers exact; needs pandas. See `foreign.pandas_frame`."""
        return foreign.pandas_frame(self.to_arrow())

    def to_polars(self) -> Any:
        """All rows as a Polars DataFrame; needs polars. See `foreign.polars_frame`."""
        return foreign.polars_frame(self.to_arrow())

    def __narwhals_dataframe__(self) -> object:
        """What `narwhals.from_native` asks for, and with it every library that works on any frame through it: the
        rows, read now, as a PyArrow frame of Narwhals."""
        return foreign.narwhals_frame(self.to_arrow())

    def count(self) -> int:
        """How many rows there are."""
        with pointing_into(self._text):
            return batch.count(self._session._engine, self.node)

    def show(self, max_rows: int = 20) -> None:
        """Print the first rows as a table."""
        from velaria_core.execution.show import text_table

        print(text_table(self.limit(max_rows + 1).to_arrow(), max_rows))

    def __repr__(self) -> str:
        names = ", ".join(f"{field.name}: {field.type}" for field in self.schema)
        return f"DataFrame[{names}]"

    def _repr_html_(self) -> str:
        from velaria_core.execution.show import html_table

        return html_table(self.limit(21).to_arrow(), 20)

    def cache(self) -> DataFrame:
        """The rows, computed now and held in memory; what is built on it reads them."""
        return self._session.create_dataframe(self.to_arrow())

    # --- files and tables out -------------------------------------------------------------------------------

    def write_parquet(self, path: str | os.PathLike[str], *, compression: str = "zstd") -> int:
        """Write a Parquet file that appears whole or not at all; returns the rows written."""
        return self._write(path, {"FORMAT": "parquet", "COMPRESSION": literal(compression)})

    def write_csv(self, path: str | os.PathLike[str], *, delimiter: str = ",", header: bool = True) -> int:
        """Write CSV: text is quoted where it must be, NULL is an empty field, "" is quoted."""
        return self._write(path, {"FORMAT": "csv", "DELIMITER": literal(delimiter), "HEADER": str(header).lower()})

    def write_json(self, path: str | os.PathLike[str], *, array: bool = False) -> int:
        """Write JSON lines, or one array."""
        return self._write(path, {"FORMAT": "json", "ARRAY": str(array).lower()})

    def _write(self, path: str | os.PathLike[str], options: Mapping[str, str]) -> int:
        with pointing_into(self._text):
            return batch.copy_to(self._session._engine, self.node, path, options)

    def insert_into(self, table: str) -> int:
        """Append the rows to a stored table by position; returns how many."""
        return self._session._catalog.insert_plan(table, self.node)

    def save_as_table(self, name: str, *, or_replace: bool = False) -> int:
        """Store the rows as a table; durable when the session has a path."""
        return self._session._catalog.store_plan(name, self.node, or_replace=or_replace)

    def serialize_plan(self) -> str:
        """The plan as JSON text, Arrow data included; `logical.serialize.loads` reads it."""
        return dumps(self.node)

    def submit_async(self, options: ExecutionOptions | None = None) -> JobHandle:
        """Run in the background: state, wait, cancel, timeout, result."""
        return self._session.submit_async(self, options)

    def refresh_every(self, interval: str | int) -> DataFrame:
        """This table for streams that join it: read again once `interval` has passed, and then where it has changed.

        What changed since goes into the stream as changes: rows that were joined with what is no longer there are
        taken back. So the result is at any time that of batch over the table last read, also after a restart. Files
        are read again where one of them is another than before; those that a glob finds later are not seen. Replace a
        file by renaming another over it: one that is half written is an error.

        Args:
            interval: such as "10 minutes", or milliseconds; 0 looks at every epoch.

        Raises:
            InputError[frame.refresh]: no such interval, or a reader that has read the rows to memory or to a cache.
        """
        try:
            every_ms = interval if isinstance(interval, int) else milliseconds(interval)
        except NotADuration as error:
            raise InputError("frame.refresh", str(error), hint='such as "10 minutes", or milliseconds') from None
        if every_ms < 0:
            raise InputError("frame.refresh", f"an interval of {every_ms} ms")
        for relation in (node.relation for node in self.node.walk() if isinstance(node, Scan)):
            of_files = relation.kind in _FILES or "files" in dict(relation.details)
            if of_files and not relation.files:
                raise InputError(
                    "frame.refresh",
                    f"the rows of {relation.label} were read when it was opened",
                    hint="read CSV, JSON, lines or Parquet, without cache, on_error and encoding",
                )
        return DataFrame(self._session, Refresh(self.node, every_ms))

    def stream(self) -> StreamingDataFrame:
        """The same plan as a stream: its tables come as one epoch of insertions."""
        from velaria_core.streaming import StreamingDataFrame

        return StreamingDataFrame(self._session, self.node, text=self._text)

    # --- search ---------------------------------------------------------------------------------------------

    def explain_vector_search(
        self, vector_column: str, query_vector: Any, top_k: int = TOP_K, metric: str = "cosine"
    ) -> str:
        """How `vector_search` of the same arguments runs: a line for each field of `contract.VectorExplain`."""
        from velaria_core.execution.search_explain import lines, vector_explain

        return lines(vector_explain(self._session._engine, self._searched(vector_column, query_vector, top_k, metric)))

    def explain_hybrid_search(
        self,
        vector_column: str,
        query_vector: Any,
        top_k: int = TOP_K,
        metric: str = "cosine",
        score_threshold: float | None = None,
    ) -> str:
        """How `hybrid_search` of the same arguments runs: a line for each field of `contract.HybridExplain`. It is run,
        since the rows that it returns are among them."""
        from velaria_core.execution.search_explain import hybrid_explain, lines

        node = self._searched(vector_column, query_vector, top_k, metric, score_threshold)
        return lines(hybrid_explain(self._session._engine, node))

    def _searched(
        self, column: str, query: Any, top_k: int, metric: str, threshold: float | None = None
    ) -> VectorSearch:
        node = self.vector_search(column, query, top_k, metric, score_threshold=threshold).node
        assert isinstance(node, VectorSearch), "what searches is the last step"
        return node

    # --- explain --------------------------------------------------------------------------------------------

    def explain(self, *, analyze: bool = False, format: str = "text") -> str:  # noqa: A002 -- as EXPLAIN has it
        """How the plan would run: `logical`, `physical` and `strategy`; with `analyze` it runs, and tells times.

        Args:
            format: text, json, or a drawing of the physical plan as dot or svg.
        """
        from velaria_core.execution.drawing import printed

        return printed(self.explanation(analyze=analyze), format)

    def explanation(self, *, analyze: bool = False) -> BatchExplain:
        """What `explain` prints, as the contract's message."""
        from velaria_core.execution.explain import explain_batch

        with pointing_into(self._text):
            return explain_batch(self._session._engine, self.node, analyze=analyze)
