"""DataflowSession: the one public door. Each call builds a plan or runs one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import pyarrow as pa

from velaria_core.catalog import Catalog, Entry, EntryKind
from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError, Place, SqlSemanticError, SqlUnsupportedError, TableKindError
from velaria_core.execution import files, registry
from velaria_core.execution.declared import source_node
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.files import OpenedFile, Probe
from velaria_core.execution.jobs import ExecutionOptions, JobHandle, stop_all, submit
from velaria_core.execution.listeners import Listener, Listeners
from velaria_core.logical.endless import refuse_endless_order
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.relation import Relation
from velaria_core.logical.scope import place_of
from velaria_core.logical.searching import TOP_K
from velaria_core.logical.sql.origin import pointing_into
from velaria_core.logical.sql.parameters import with_parameters
from velaria_core.logical.sql.parser import parse
from velaria_core.logical.sql.statements import Emit, Explain, Insert, Select, Statement
from velaria_core.types import arrow_type, duckdb_type, engine_schema, quoted, resolve_type_name

if TYPE_CHECKING:
    from velaria_core.contract import abi
    from velaria_core.contract.codec import BatchExplain
    from velaria_core.execution.runtime import StreamingQuery
    from velaria_core.execution.sinks.memory import MemorySink
    from velaria_core.execution.sinks.queue import QueueSink
    from velaria_core.execution.sources.queue import RealtimeStreamSource
    from velaria_core.frame import Frame
    from velaria_core.streaming import StreamingDataFrame

SQL_FRONTEND = "velaria_sql_v1"
Held = TypeVar("Held")


class DataflowSession:
    """A catalog and an engine of its own; sessions share nothing.

    Args:
        path: a database file that keeps tables and views; None keeps them in memory.
        memory_limit: e.g. "2GB"; larger work spills to `temp_directory`.
        threads: worker threads; one for each core by default.
        temp_directory: where to spill.
        roots: folders under which files may be read and written; None is anywhere the user may.
        read_only: open `path` for reading only.

    Sessions may be used from several threads. Close one, or use it in a `with` block, to release its file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        memory_limit: str | None = None,
        threads: int | None = None,
        temp_directory: str | os.PathLike[str] | None = None,
        roots: Iterable[str | os.PathLike[str]] | None = None,
        read_only: bool = False,
    ) -> None:
        self._engine = Engine(
            Settings(
                path=os.fspath(path) if path is not None else None,
                memory_limit=memory_limit,
                threads=threads,
                temp_directory=os.fspath(temp_directory) if temp_directory is not None else None,
                roots=tuple(os.path.realpath(root) for root in roots) if roots is not None else None,
                read_only=read_only,
            )
        )
        self._catalog = Catalog(self._engine)
        self._catalog.resume()
        self._feed_numbers = count(1)
        self._listeners = Listeners()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the database file and memory; frames of this session can no longer run, its jobs are cancelled,
        its streams stopped."""
        self._catalog.close()
        registry.stop_all(self._engine)
        stop_all(self._engine)
        self._engine.close()

    def interrupt(self) -> None:
        """Stop what the session runs at this moment, from any thread: it raises QueryCancelled there.

        A statement that is about to start is not stopped; ask again until the work has ended.
        """
        self._engine.interrupt()

    def __repr__(self) -> str:
        where = self._engine.settings.path or "memory"
        return f"DataflowSession({where}, {sum(1 for _ in self._catalog)} tables)"

    # --- files ----------------------------------------------------------------------------------------------

    def probe(self, path: str | os.PathLike[str]) -> Probe:
        """What a file seems to be: candidates with scores, evidence, confidence, schema and warnings."""
        return files.probe(self._engine, path)

    def read(self, path: str | os.PathLike[str] | Sequence[str], **options: Any) -> DataFrame:
        """Read a file, folder or glob in the format that `probe` finds. Lazy; `options` are the reader's."""
        return self._opened(files.read(self._engine, path, **options))

    def read_csv(
        self, path: str | os.PathLike[str] | Sequence[str], delimiter: str | None = None, **options: Any
    ) -> DataFrame:
        """Read CSV; see `files.read_csv` for the options."""
        return self._opened(files.read_csv(self._engine, path, delimiter=delimiter, **options))

    def read_line_file(
        self, path: str | os.PathLike[str] | Sequence[str], mappings: Any = None, **options: Any
    ) -> DataFrame:
        """Read text lines, split at a delimiter or matched by a regular expression."""
        return self._opened(files.read_line_file(self._engine, path, mappings=mappings, **options))

    def read_json(self, path: str | os.PathLike[str] | Sequence[str], columns: Any = None, **options: Any) -> DataFrame:
        """Read JSON lines or an array of objects; `columns` are found when they are not given."""
        return self._opened(files.read_json(self._engine, path, columns=columns, **options))

    def read_parquet(self, path: str | os.PathLike[str] | Sequence[str], **options: Any) -> DataFrame:
        """Read Parquet."""
        return self._opened(files.read_parquet(self._engine, path, **options))

    def read_arrow(self, path: str | os.PathLike[str] | Sequence[str], **options: Any) -> DataFrame:
        """Read Arrow IPC, as a file or a stream."""
        return self._opened(files.read_arrow(self._engine, path, **options))

    def _opened(self, opened: OpenedFile) -> DataFrame:
        rejects = Scan(opened.rejects) if opened.rejects is not None else None
        return DataFrame(self, Scan(opened.relation), rejects=rejects)

    # --- data in memory -------------------------------------------------------------------------------------

    def create_dataframe(self, data: Any, schema: pa.Schema | None = None) -> DataFrame:
        """A frame over Arrow data, anything with `__arrow_c_stream__`, a dict of columns, or a list of dicts.

        Arrow tables are read in place; a stream that can be read once only is read to memory.

        Raises:
            InputError[data.unsupported]: `data` is none of these.
        """
        table = as_arrow(data, schema)
        name = f"arrow_{next(self._feed_numbers)}"
        label = f"arrow ({table.num_rows} rows)"
        return DataFrame(self, Scan(Relation(label, engine_schema(table.schema), quoted(name), "arrow", table)))

    create_dataframe_from_arrow = create_dataframe

    # --- streams --------------------------------------------------------------------------------------------

    def read_stream(self, source: abi.Source, name: str | None = None) -> StreamingDataFrame:
        """The rows that a source gives, as they come. `contract.abi.Source` says what a source is.

        `name` is how the stream is known in explain and in its checkpoints.
        """
        from velaria_core.streaming import StreamingDataFrame

        return StreamingDataFrame(self, source_node(source, name or f"stream_{next(self._feed_numbers)}"))

    def read_stream_csv_dir(
        self, path: str | os.PathLike[str], delimiter: str = ",", **options: Any
    ) -> StreamingDataFrame:
        """The CSV files of a folder, in the order of their names, as they come.

        `options` are those of `execution.sources.DirectorySource`: schema, pattern, bounded, ...
        """
        from velaria_core.execution.sources.directory import DirectorySource

        reader = {"delimiter": delimiter, **options.pop("options", {})}
        return self.read_stream(DirectorySource(self._engine, path, "csv", options=reader, **options))

    def create_realtime_stream_source(
        self, columns: pa.Schema | Mapping[str, str] | Sequence[tuple[str, str]], **options: Any
    ) -> RealtimeStreamSource:
        """A queue to push rows into while a query runs, until `close`; `read_realtime_stream_source` reads it.

        Args:
            columns: a schema, or names and types as SQL or Arrow call them: {"k": "string", "v": "int64"}.
            options: of `QueueSource`: capacity_rows, append_only, time_column.

        Raises:
            InputError[source.schema]: a column without a type.
        """
        from velaria_core.execution.sources.queue import QueueSource, RealtimeStreamSource

        return RealtimeStreamSource(QueueSource(_schema_of(columns), **options))

    def read_realtime_stream_source(self, source: RealtimeStreamSource, name: str | None = None) -> StreamingDataFrame:
        """The rows that are pushed into a queue."""
        return self.read_stream(source.queue, name)

    def create_realtime_stream_sink(self, **options: Any) -> QueueSink:
        """A queue to poll a query's output from. `options` are those of `QueueSink`."""
        from velaria_core.execution.sinks.queue import QueueSink

        return QueueSink(**options)

    def register_stream_sink(self, name: str, sink: abi.Sink) -> None:
        """Give a sink a name, which `INSERT INTO` of `start_stream_sql` then takes; until the session ends.

        Raises:
            InputError[catalog.exists]: something has this name.
        """
        self._catalog.hold_sink(name, sink)

    def queue_source(self, name: str) -> RealtimeStreamSource:
        """The queue behind `CREATE SOURCE TABLE name (...) USING queue`: push rows into it.

        Raises:
            CatalogNotFoundError. TableKindError[sql.table_kind]: the table is none of these.
        """
        from velaria_core.execution.sources.queue import QueueSource, RealtimeStreamSource

        return RealtimeStreamSource(self._held(name, QueueSource, "SOURCE TABLE ... USING queue"))

    def queue_sink(self, name: str) -> QueueSink:
        """The queue behind `CREATE SINK TABLE name USING queue`: poll rows from it. Raises as `queue_source`."""
        from velaria_core.execution.sinks.queue import QueueSink

        return self._held(name, QueueSink, "SINK TABLE ... USING queue")

    def memory_sink(self, name: str) -> MemorySink:
        """What `CREATE SINK TABLE name USING memory` has been given. Raises as `queue_source`."""
        from velaria_core.execution.sinks.memory import MemorySink

        return self._held(name, MemorySink, "SINK TABLE ... USING memory")

    def _held(self, name: str, kind: type[Held], told: str) -> Held:
        found = self._catalog.held(name)
        if not isinstance(found, kind):
            raise TableKindError("sql.table_kind", f'"{name}" is no {told}', hint=f"it is a {type(found).__name__}")
        return found

    def create_stream(
        self, batches: Any, schema: pa.Schema | None = None, name: str | None = None
    ) -> StreamingDataFrame:
        """A bounded stream of batches in memory: a list of tables, or anything tabular as one batch."""
        from velaria_core.execution.sources.memory import MemorySource

        several = batches if isinstance(batches, list) and not _is_rows(batches) else [as_arrow(batches, schema)]
        return self.read_stream(MemorySource([as_arrow(batch) for batch in several], schema=schema), name)

    create_stream_from_arrow = create_stream

    def create_stream_from_rows(
        self,
        rows: Iterable[Any],
        schema: pa.Schema | Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        *,
        emit_rows: int = 1_024,
        emit_interval_ms: float = 1_000,
        bounded: bool = True,
        name: str | None = None,
    ) -> StreamingDataFrame:
        """A stream of what an iterable gives, such as a generator that waits for messages; it ends as that ends.

        Args:
            rows: of dicts, of sequences, or of Arrow tables and record batches. It is asked on a thread of its own.
            schema: as of `create_realtime_stream_source`; None: that of a list's rows, or of the first item.
            emit_rows, emit_interval_ms: rows go on together, when there are so many or the first has waited so long.
            bounded: it ends by itself; False refuses what would need its end, such as ORDER BY.

        Raises:
            InputError[source.no_schema]: nothing tells the names and types; rows as sequences never do.
        """
        from velaria_core.execution.sources.rows import RowsSource

        told = _schema_of(schema) if schema is not None else None
        return self.read_stream(RowsSource(rows, told, emit_rows, emit_interval_ms, bounded=bounded), name)

    def stream(self, name: str) -> StreamingDataFrame:
        """The stream of a SOURCE table or view by name; a table comes as one epoch of insertions."""
        from velaria_core.streaming import StreamingDataFrame

        return StreamingDataFrame(self, self._catalog.stream(name))

    def stream_sql(self, text: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> StreamingDataFrame:
        """A SELECT as a stream: the same plan as in batch, kept up to date. SOURCE tables in it are streams.

        `EMIT ON WINDOW CLOSE` and `EMIT CHANGES` at its end choose the output mode of `write_stream`.
        """
        with pointing_into(text):
            statement = self._stream_statement(text, parameters)
            if not isinstance(statement, Select):
                raise SqlUnsupportedError("sql.stream", "a stream is one SELECT", hint="start_stream_sql runs INSERT")
            return self._streamed(self._catalog.bind_stream(statement, text), text, _emitted(statement, {}, text))

    def start_stream_sql(
        self, text: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None, **options: Any
    ) -> StreamingQuery:
        """Start `INSERT INTO sink SELECT ...` as a query that runs until it is stopped or its sources end.

        Args:
            text: the target is a SINK TABLE, or a table of this session that stores rows.
            options: of `StreamingDataFrame.write_stream`: trigger, checkpoint_path, output_mode, ...

        Raises:
            SqlUnsupportedError[sql.endless_order]: the whole result is ordered, and a stream in it has no end.
            TableKindError[sql.table_kind]: a source or view is written to, or a sink read.
            CatalogNotFoundError[sql.unknown_table].
        """
        frame, sink, chosen, select = self._stream_insert(text, parameters, options)
        with pointing_into(text), _pointing_at_emit(select, text):
            query = frame.write_stream(sink, **chosen)
            query.label = " ".join(text.split())
            return query.start()

    def _stream_insert(
        self, text: str, parameters: Sequence[Any] | Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> tuple[StreamingDataFrame, abi.Sink, dict[str, Any], Select]:
        """The frame, sink and options of an INSERT INTO sink SELECT, and the query itself."""
        with pointing_into(text):
            statement = self._stream_statement(text, parameters)
            if not isinstance(statement, Insert):
                hint = "INSERT INTO sink SELECT ...; stream_sql(...) makes a frame of a SELECT"
                raise SqlUnsupportedError("sql.stream", "a query that starts is one INSERT INTO", hint=hint)
            chosen = {**options, **_emitted(statement.select, options, text)}
            node, sink = self._catalog.bind_stream_insert(statement, text)
            refuse_endless_order(node, _order_place(statement.select, text))
            return self._streamed(node, text), sink, chosen, statement.select

    def _stream_statement(self, text: str, parameters: Sequence[Any] | Mapping[str, Any] | None) -> Statement:
        (statement, *rest) = parse(text, self._engine.parse_error)
        if rest:
            raise SqlUnsupportedError("sql.stream", "a stream is one statement", hint="run the others with sql(...)")
        (filled,) = with_parameters([statement], parameters, text)
        return filled

    def _streamed(self, node: Node, text: str, emitted: Mapping[str, str] | None = None) -> StreamingDataFrame:
        from velaria_core.streaming import StreamingDataFrame

        frame = StreamingDataFrame(self, node, text=text, **(emitted or {}))
        frame.schema  # noqa: B018 -- binding tells of errors here, where the text is
        return frame

    def explain_stream_sql(
        self,
        text: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        format: str = "text",  # noqa: A002 -- as EXPLAIN has it
        **options: Any,
    ) -> str:
        """How a SELECT or an INSERT INTO sink SELECT would run as a stream. Refuses what `start_stream_sql` refuses.

        Args:
            format: text, json, or a drawing of the physical plan as dot or svg.
            options: as for `start_stream_sql`.
        """
        with pointing_into(text):
            statement = self._stream_statement(text, parameters)
        if isinstance(statement, Select):
            frame = self.stream_sql(text, parameters)
            refuse_endless_order(frame.node, _order_place(statement, text))
            return frame.explain(format=format, **options)
        frame, sink, chosen, select = self._stream_insert(text, parameters, options)
        assert isinstance(statement, Insert), "all else was refused"
        with _pointing_at_emit(select, text):
            return frame.explain(sink, name=str(statement.table), format=format, **chosen)

    def add_listener(self, listener: Listener) -> None:
        """Call `listener` with a `QueryEvent` when a query of this session starts, after each of its epochs, and when
        it stops or fails; see `StreamingQuery.add_listener`."""
        self._listeners.add(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    @property
    def streams(self) -> list[StreamingQuery]:
        """The stream queries of this session that have neither stopped nor failed, oldest first."""
        return registry.active(self._engine)

    # --- names ----------------------------------------------------------------------------------------------

    def table(self, name: str) -> DataFrame:
        """The frame of a table, view or file by name."""
        return DataFrame(self, self._catalog.table(name))

    def tables(self) -> list[str]:
        """Names in this session's catalog, sorted."""
        return [entry.name for entry in self._catalog]

    def create_temp_view(self, name: str, frame: Frame) -> None:
        """Name a frame for SQL; replaces a view of that name, and nothing else."""
        self._catalog.put(Entry(name, EntryKind.VIEW, node=frame.node, temporary=True))

    def drop_view(self, name: str) -> None:
        """Forget a view."""
        self._catalog.drop(name, kinds=(EntryKind.VIEW,))

    # --- search ---------------------------------------------------------------------------------------------

    def create_index(
        self,
        name: str,
        table: str,
        columns: str | Sequence[str],
        *,
        kind: Literal["vector", "keyword"] | None = None,
        if_not_exists: bool = False,
        **options: str | float,
    ) -> None:
        """Make a search index of a stored table, as `CREATE INDEX ... WITH (...)` does.

        Args:
            kind: None: that of the first column.
            options: `analyzer` for words; `method`, `metric` and `recall` for vectors.

        Raises:
            InputError, CatalogNotFoundError, TableKindError: as the statement.
        """
        listed = [columns] if isinstance(columns, str) else list(columns)
        self._catalog.create_index(name, table, listed, options, kind=kind, if_not_exists=if_not_exists)

    def vector_search(
        self, table: str, vector_column: str, query_vector: Any, top_k: int = TOP_K, metric: str = "cosine"
    ) -> DataFrame:
        """The rows of a table, view or file whose vectors are nearest; see `DataFrame.vector_search`."""
        return self.table(table).vector_search(vector_column, query_vector, top_k, metric)

    def explain_vector_search(
        self, table: str, vector_column: str, query_vector: Any, top_k: int = TOP_K, metric: str = "cosine"
    ) -> str:
        """How that search runs; see `DataFrame.explain_vector_search`."""
        return self.table(table).explain_vector_search(vector_column, query_vector, top_k, metric)

    def keyword_search(
        self, table: str, columns: str | Sequence[str] | Mapping[str, float], text: str, top_k: int = TOP_K
    ) -> DataFrame:
        """The rows of a table, view or file whose texts match best; see `DataFrame.keyword_search`."""
        return self.table(table).keyword_search(columns, text, top_k)

    def hybrid_search(
        self,
        table: str,
        vector_column: str,
        query_vector: Any,
        top_k: int = TOP_K,
        metric: str = "cosine",
        score_threshold: float | None = None,
        **fused: Any,
    ) -> DataFrame:
        """The rows of a table, view or file that a vector search, and with `text` a keyword search too, finds; see
        `DataFrame.hybrid_search`, whose options `fused` are."""
        return self.table(table).hybrid_search(vector_column, query_vector, top_k, metric, score_threshold, **fused)

    def explain_hybrid_search(
        self,
        table: str,
        vector_column: str,
        query_vector: Any,
        top_k: int = TOP_K,
        metric: str = "cosine",
        score_threshold: float | None = None,
    ) -> str:
        """How that vector search runs; see `DataFrame.explain_hybrid_search`."""
        return self.table(table).explain_hybrid_search(vector_column, query_vector, top_k, metric, score_threshold)

    # --- SQL ------------------------------------------------------------------------------------------------

    def sql(self, text: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> DataFrame:
        """A SELECT as a lazy frame; any other statement runs at once and gives its result as one.

        Several statements are run in order; the last one's frame is given. `parameters` fill `?` and `$1`
        by position, `$name` by name; they are values, never text.

        Raises:
            SqlSyntaxError, SqlSemanticError, SqlUnsupportedError, TableKindError, CatalogNotFoundError: with
                line, column and a hint. DataError: a statement that ran met a bad value.
        """
        frame: DataFrame | None = None
        with pointing_into(text):
            for statement in with_parameters(parse(text, self._engine.parse_error), parameters, text):
                frame = self._run(statement, text)
        assert frame is not None, "the parser refuses a text without statements"
        return frame

    def _run(self, statement: Statement, text: str) -> DataFrame:
        match statement:
            case Select():
                frame = DataFrame(self, self._catalog.bind(statement, text), text=text)
                frame.schema  # noqa: B018 -- binding tells of errors here, where the text is
                return frame
            case Explain():
                from velaria_core.execution.drawing import printed

                lines = printed(self._explained(statement.statement, text, statement.analyze)).split("\n")
                return self.create_dataframe(pa.table({"explain": pa.array(lines, pa.string())}))
        return self.create_dataframe(self._catalog.run(statement, text))

    def prepare(self, text: str) -> Callable[..., DataFrame]:
        """A SELECT with parameters, to be called with them: `by_id = s.prepare("... $1"); by_id(7)`."""

        def prepared(*positional: Any, **named: Any) -> DataFrame:
            if positional and named:
                raise InputError("sql.parameters", "parameters go by position or by name, not both")
            return self.sql(text, named or positional)

        return prepared

    def explain_sql(
        self,
        text: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        analyze: bool = False,
        format: str = "text",  # noqa: A002 -- as EXPLAIN has it
    ) -> str:
        """Frontend, logical plan, physical plan and strategy of a SELECT; with `analyze` it runs, and tells times.

        Args:
            format: text, json, or a drawing of the physical plan as dot or svg.
        """
        from velaria_core.execution.drawing import printed

        return printed(self.explanation(text, parameters, analyze=analyze), format)

    def explanation(
        self, text: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None, *, analyze: bool = False
    ) -> BatchExplain:
        """What `explain_sql` prints, as the contract's message."""
        with pointing_into(text):
            (statement, *rest) = parse(text, self._engine.parse_error)
            if rest:
                raise SqlUnsupportedError("sql.explain", "EXPLAIN takes one SELECT")
            if isinstance(statement, Explain):
                analyze, statement = analyze or statement.analyze, statement.statement
            (filled,) = with_parameters([statement], parameters, text)
            return self._explained(filled, text, analyze)

    def _explained(self, statement: Statement, text: str, analyze: bool) -> BatchExplain:
        from velaria_core.execution.explain import explain_batch

        if not isinstance(statement, Select):
            hint = (
                "explain_stream_sql tells how INSERT INTO sink SELECT would run"
                if isinstance(statement, Insert)
                else None
            )
            raise SqlUnsupportedError("sql.explain", "EXPLAIN takes a SELECT", hint=hint)
        parser = "sqlglot" if statement.tree is not None else "duckdb"
        node = self._catalog.bind(statement, text)
        return explain_batch(self._engine, node, analyze=analyze, parser=parser, dialect=SQL_FRONTEND)

    def sql_frontend_name(self) -> str:
        """The name of the SQL frontend, for logs."""
        return SQL_FRONTEND

    # --- jobs -----------------------------------------------------------------------------------------------

    def submit_async(self, work: DataFrame | str, options: ExecutionOptions | None = None) -> JobHandle:
        """Run a frame or a SELECT in the background: state, wait, cancel, timeout, result."""
        frame = self.sql(work) if isinstance(work, str) else work
        return submit(self._engine, frame.node, options or ExecutionOptions())

    def submit(self, work: DataFrame | str, options: ExecutionOptions | None = None) -> pa.Table:
        """Run a frame or a SELECT as a job and wait for its rows; Ctrl-C stops it."""
        with self.submit_async(work, options) as job:
            return job.result()


Session = DataflowSession


def _emitted(select: Select, options: Mapping[str, Any], text: str) -> dict[str, str]:
    """The output mode that EMIT chooses.

    Raises:
        InputError[sql.emit]: the options choose another.
    """
    if select.emit is None:
        return {}
    mode = EMITTED[select.emit]
    if options.get("output_mode", mode) != mode:
        raise InputError(
            "sql.emit",
            f"EMIT asks for {mode} output, output_mode for {options['output_mode']}",
            hint="leave one of them out",
            place=_emit_place(select, text),
        )
    return {"output_mode": mode}


EMITTED = {Emit.ON_WINDOW_CLOSE: "append", Emit.CHANGES: "update"}


def _emit_place(select: Select, text: str) -> Place | None:
    return select.emit_span.place(text) if select.emit_span is not None else None


@contextmanager
def _pointing_at_emit(select: Select, text: str) -> Iterator[None]:
    """What is wrong with the output mode is said of EMIT, where that chose it."""
    try:
        yield
    except InputError as error:
        if error.code == "stream.output_mode":
            error.place = error.place or _emit_place(select, text)
        raise


def _order_place(select: Select, text: str) -> Place | None:
    """Where the ORDER BY of a query stands."""
    order = select.tree.args.get("order") if select.tree is not None else None
    return place_of(order, text) if order is not None else None


def _schema_of(columns: pa.Schema | Mapping[str, str] | Sequence[tuple[str, str]]) -> pa.Schema:
    if isinstance(columns, pa.Schema):
        return columns
    pairs = list(columns.items()) if isinstance(columns, Mapping) else list(columns)
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            hint = 'name and type: {"k": "string", "v": "int64"}'
            raise InputError("source.schema", f"the column {pair!r} has no type", hint=hint)
    return pa.schema([pa.field(name, arrow_type(resolve_type_name(kind))) for name, kind in pairs])


def _is_rows(data: list[Any]) -> bool:
    """Whether a list holds rows, as dicts of values, and not tables."""
    return all(isinstance(row, Mapping) for row in data)


def as_arrow(data: Any, schema: pa.Schema | None = None) -> pa.Table:
    """Anything tabular as an Arrow table, without a copy where it is Arrow already."""
    try:
        table = _read(data, schema)
        if schema is not None and not table.schema.equals(schema):
            table = table.cast(schema)
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise InputError(
            "data.unsupported",
            f"Arrow cannot read this {type(data).__name__} as a table: {error}",
            hint="give Arrow data, an object with __arrow_c_stream__, a dict of columns or a list of dicts",
            cause=error,
        ) from error
    names = [name.lower() for name in table.schema.names]
    if len(set(names)) != len(names):
        raise SqlSemanticError("data.duplicate_column", "two columns have one name", hint="rename one of them")
    for field in table.schema:
        duckdb_type(field.type)  # tells of a type that the engine has not
    return table


def _read(data: Any, schema: pa.Schema | None) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if hasattr(data, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(data).read_all()
    if isinstance(data, Mapping):
        return pa.table(dict(data), schema=schema)
    if not isinstance(data, Sequence) or isinstance(data, (str, bytes)):
        return pa.table(data)
    if data and not all(isinstance(row, Mapping) for row in data):
        raise InputError("data.unsupported", "a list holds rows as dicts", hint="give a dict of columns, or Arrow data")
    if not data and schema is None:
        raise InputError("data.no_schema", "no rows and no schema", hint="pass schema=pyarrow.schema(...)")
    return pa.Table.from_pylist(list(data), schema=schema)
