"""StreamingDataFrame: a plan that runs continuously, once it is given a sink."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from velaria_core.contract import abi
from velaria_core.errors import InputError
from velaria_core.execution.options import StreamKeywords, stream_options
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sources.tables import arrow_table, conformed
from velaria_core.frame import Frame
from velaria_core.logical.endless import refuse_endless_order
from velaria_core.logical.explain import steps
from velaria_core.logical.operators import Scan
from velaria_core.logical.rules import for_stream
from velaria_core.logical.sql.origin import pointing_into

if TYPE_CHECKING:
    from velaria_core.contract.codec import StreamExplain
    from velaria_core.dataframe import DataFrame
    from velaria_core.execution.sinks.queue import QueueSink
    from velaria_core.logical.node import Node
    from velaria_core.session import DataflowSession


class StreamingDataFrame(Frame):
    """Rows that keep coming. The verbs are those of a DataFrame; `write_stream` makes a query of it.

    Attributes:
        output_mode: what `write_stream` takes where it is not told: as EMIT says in SQL, "update" otherwise.
    """

    def __init__(
        self, session: DataflowSession, node: Node, *, text: str | None = None, output_mode: str = "update"
    ) -> None:
        super().__init__(session, node, text=text)
        self.output_mode = output_mode

    def write_stream(
        self,
        sink: abi.Sink | str,
        **options: Unpack[StreamKeywords],
    ) -> StreamingQuery:
        """A query that runs this plan into `sink`; `start()` it, or `process_available()` on this thread.

        Args:
            sink: or the name of a SINK TABLE, or of a table that stores rows, which takes the columns by position.
            trigger: when epochs start; as soon as rows are there by default.
            checkpoint_path: folder that makes the query durable: written again with the same folder it goes on.
            output_mode: "update" (changes of the result), "complete" (the whole result each time), or "append" (rows
                that never change). By default the frame's own.
            delivery_mode: "exactly-once", "at-least-once" or "best-effort"; `query.delivery` says what holds.
            epoch_rows_max: rows after which an epoch is full.
            checkpoint_interval: how many epochs share one durable commit at most; by default 8, or 0.2 s of them.
            retries, backoff_ms: how often to start again after an error that may pass, and how long to wait first.
            dead_letter: sink for batches that fail with a DataError; late_sink: for rows that come too late.
            options: the others of `execution.options.StreamOptions`.

        Raises:
            CatalogNotFoundError. TableKindError[sql.table_kind]: what has this name cannot be written.
            InputError[stream.output_mode]: the sink does not take what the query gives.
            InputError[stream.option, stream.mode, option.value]: there is no such option, or not such a value.
            SqlUnsupportedError[sql.endless_order]: the whole result is ordered, and a stream in it has no end.
            StateError[sink.taken]: another query writes to the sink's place.
            StateError[checkpoint.other_query, checkpoint.output_mode, checkpoint.version, database.locked].
        """
        chosen = stream_options(options, self.output_mode)
        node = self.node
        refuse_endless_order(node)
        if isinstance(sink, str):
            node, sink = self._session._catalog.stream_into(sink, node)
        if not isinstance(sink, abi.Sink):
            hint = "MemorySink(), CallbackSink(function), the name of a SINK TABLE, ..."
            raise InputError("option.value", f"a sink is needed, not {sink!r}", hint=hint)
        listeners = self._session._listeners
        return StreamingQuery(self._session._engine, for_stream(node), sink, chosen, listeners=listeners)

    # --- shorthands -----------------------------------------------------------------------------------------

    def group_sum(
        self, keys: Sequence[str], value_column: str, stateful: bool = True, output_column: str = "sum"
    ) -> StreamingDataFrame:
        """The sum of a column for each key, over all rows so far."""
        _must_be_stateful(stateful)
        return self.group_by(*keys).sum(value_column, output_column)

    def group_count(
        self, keys: Sequence[str], stateful: bool = True, output_column: str = "count"
    ) -> StreamingDataFrame:
        """The rows of each key, so far."""
        _must_be_stateful(stateful)
        return self.group_by(*keys).count(output_column)

    def write_stream_csv(
        self, path: str | os.PathLike[str], delimiter: str = ",", **options: Unpack[StreamKeywords]
    ) -> StreamingQuery:
        """A query that appends to one CSV file; see `write_stream` for the options."""
        from velaria_core.execution.sinks.csv_append import CsvAppendSink

        return self.write_stream(CsvAppendSink(self._session._engine, path, delimiter=delimiter), **options)

    def write_stream_console(self, max_rows: int = 20, **options: Unpack[StreamKeywords]) -> StreamingQuery:
        """A query that prints what each epoch brings."""
        from velaria_core.execution.sinks.console import ConsoleSink

        return self.write_stream(ConsoleSink(max_rows), **options)

    def write_stream_queue_sink(self, sink: QueueSink, **options: Unpack[StreamKeywords]) -> StreamingQuery:
        """A query whose output is polled; `session.create_realtime_stream_sink()` makes the queue."""
        return self.write_stream(sink, **options)

    def apply_transforms(self, data: Any) -> DataFrame:
        """This plan over rows that are there, in the place of its only stream: what a query gives once it has them all.

        Raises:
            InputError[frame.streams]: the plan reads no stream, or several.
            InputError[source.schema]: the rows have other columns than the stream.
        """
        from velaria_core.dataframe import DataFrame

        streams = {node.relation for node in self.node.walk() if isinstance(node, Scan) and node.relation.source}
        if len(streams) != 1:
            raise InputError("frame.streams", f"the plan reads {len(streams)} streams, and rows are given for one")
        (stream,) = streams
        given = self._session.create_dataframe(conformed(arrow_table(data), stream.schema, "apply_transforms")).node
        made: dict[int, Node] = {}
        for node in steps(self.node):
            replaced = isinstance(node, Scan) and node.relation is stream
            made[id(node)] = given if replaced else node.over([made[id(child)] for child in node.inputs])
        return DataFrame(self._session, made[id(self.node)])

    def batch(self) -> DataFrame:
        """The same plan over rows that are there; refused while it reads a stream."""
        if self.is_stream:
            raise InputError("frame.is_stream", "a stream has no end to wait for", hint="write_stream(sink)")
        from velaria_core.dataframe import DataFrame

        return DataFrame(self._session, self.node, text=self._text)

    def explain(
        self,
        sink: abi.Sink | None = None,
        *,
        name: str = "",
        format: str = "text",  # noqa: A002 -- as EXPLAIN has it
        **options: Unpack[StreamKeywords],
    ) -> str:
        """How the plan would run: `logical`, `physical` with each operator's shape, state and cost, and `strategy`.

        Args:
            sink: where the result would go, if that is known; `name` is what it is called.
            format: text, json, or a drawing of the physical plan as dot or svg.
            options: as for `write_stream`.
        """
        from velaria_core.execution.drawing import printed

        return printed(self.explanation(sink, name=name, **options), format)

    def explanation(
        self, sink: abi.Sink | None = None, *, name: str = "", **options: Unpack[StreamKeywords]
    ) -> StreamExplain:
        """What `explain` prints, as the contract's message. Nothing is opened, read or written."""
        from velaria_core.execution.stream_explain import stream_explain

        chosen = stream_options(options, self.output_mode)
        with pointing_into(self._text):
            return stream_explain(self._session._engine, for_stream(self.node), chosen, sink, name)

    def __repr__(self) -> str:
        names = ", ".join(f"{field.name}: {field.type}" for field in self.schema)
        return f"StreamingDataFrame[{names}]"


def _must_be_stateful(stateful: bool) -> None:
    if not stateful:
        raise InputError(
            "stream.stateful",
            "an aggregate of each batch alone would depend on how the rows were cut into batches",
            hint="group over time with window(...), or leave stateful=True",
        )
