"""DuckDB, and nothing else of it anywhere: connections, cursors, settings, and its errors in our words.

One `Engine` is one DuckDB instance with locked-down settings. Work happens on a `Cursor`: a connection of its own,
taken from a pool, for one statement at a time; cursors of one engine share tables, but not Arrow bindings, and any
number of threads may hold one each.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar
from uuid import uuid4

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from velaria_core.errors import (
    CatalogNotFoundError,
    DataError,
    ExternalError,
    InputError,
    InternalError,
    Place,
    QueryCancelled,
    SqlSemanticError,
    SqlSyntaxError,
    SqlUnsupportedError,
    StateError,
    VelariaError,
)
from velaria_core.execution.footers import Footers
from velaria_core.logical.analyzers import JIEBA_FUNCTION, has_jieba, jieba_terms
from velaria_core.logical.snippets import SNIPPET_FUNCTION, SNIPPET_TYPES, snippet_of
from velaria_core.types import arrow_type, exported_type, literal, quoted

# Fixed for the life of an engine. Extensions would be fetched from the network; Python variables of a caller
# must not become tables (duckdb-notes sections 10 and 11).
_FIXED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    # It moves CAST(price AS VARCHAR) into the CSV reader, which then gives the text of the file: 0.50 and not 0.5.
    "disabled_optimizers": "type_pushdown",
}
_WHOLE_NUMBERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)
# Per connection: errors arrive with a position, progress can be asked for and is not printed.
_PER_CURSOR = (
    "SET errors_as_json=true",
    "SET enable_progress_bar=true",
    "SET enable_progress_bar_print=false",
    "SET TimeZone='UTC'",
    # To the engine these of a whole number are a double, which cannot hold every int64. 0.4 ms each.
    *(
        f"CREATE OR REPLACE TEMP MACRO {name}{', '.join(f'(x {kind}) AS x' for kind in _WHOLE_NUMBERS)}, "
        f"(x) AS system.main.{name}(x)"
        for name in ("ceil", "ceiling", "floor")
    ),
)

# For a prepared statement the copy that it warns of costs less than a relation. Said once, since to say it for a
# statement changes the filters of all threads.
warnings.filterwarnings("ignore", "Arrow output on a DB-API result makes an extra copy")

_INTERRUPT_SECONDS = 0.02  # between two interrupts of a statement that has not ended yet

T = TypeVar("T")
Parameters = Sequence[Any] | Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session chooses about its engine.

    Attributes:
        path: the database file, or None for memory.
        memory_limit: e.g. "2GB"; work beyond it spills to `temp_directory`.
        threads: worker threads; None is one for each core.
        temp_directory: where to spill; None lets the engine choose beside the database.
        roots: where files may be read and written; None is anywhere the user may.
        read_only: open the database file for reading only.
    """

    path: str | None = None
    memory_limit: str | None = None
    threads: int | None = None
    temp_directory: str | None = None
    roots: tuple[str, ...] | None = None
    read_only: bool = False


class Engine:
    """One DuckDB instance."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._footers = Footers()
        self._lock = threading.Lock()
        self._idle: list[Cursor] = []
        self._held: set[Cursor] = set()
        self._closed = False
        config: dict[str, Any] = dict(_FIXED)
        if settings.memory_limit is not None:
            config["memory_limit"] = settings.memory_limit
        if settings.threads is not None:
            config["threads"] = str(settings.threads)
        if settings.temp_directory is not None:
            config["temp_directory"] = settings.temp_directory
        try:
            self._root = duckdb.connect(settings.path or ":memory:", settings.read_only, config)
            if settings.roots is not None:
                allowed = ", ".join(literal(root.rstrip("/") + "/") for root in settings.roots)
                self._root.execute(f"SET allowed_directories=[{allowed}]")
                self._root.execute("SET enable_external_access=false")
            self._root.execute("ATTACH IF NOT EXISTS ':memory:' AS velaria_temp (READ_WRITE)")
            for name, function, parameters, kind in _FUNCTIONS:
                # Two engines of one process that open one file share the functions that the first has made.
                with suppress(duckdb.CatalogException):
                    self._root.create_function(
                        name,
                        function,
                        parameters,
                        kind,
                        type=PythonUDFType.ARROW,
                        null_handling=FunctionNullHandling.SPECIAL,
                    )
        except duckdb.Error as error:
            raise translate(error, what=f"opening {settings.path or 'the engine'}") from error

    @contextmanager
    def cursor(self, feeds: Mapping[str, Any] | None = None, files: Sequence[str] = ()) -> Iterator[Cursor]:
        """A connection for one caller, with `feeds` (name -> Arrow data) bound while it is held.

        `files` are Parquet files that it will read, and no others: their footers are kept for the next query.
        """
        cursor = self._take()
        bound = {
            name: _Read(data, self) if isinstance(data, Computed) else data for name, data in (feeds or {}).items()
        }
        try:
            cursor.keep_footers(self._footers.may_be_kept(files))
            cursor.bind(bound)
            yield cursor
        except VelariaError:
            # Through the engine comes only the text of what Python raised while it computed rows.
            for data in bound.values():
                if isinstance(data, _Read) and data.error is not None:
                    raise data.error  # noqa: B904 -- the error of the engine is the consequence
            raise
        finally:
            self._give_back(cursor)

    def parse_error(self, sql: str) -> VelariaError | None:
        """What the engine's parser has against a text, with its place; None if it reads. 0.1 to 0.4 ms."""
        cursor = self._take()
        try:
            return cursor.parse_error(sql)
        finally:
            self._give_back(cursor)

    def _take(self) -> Cursor:
        with self._lock:
            if self._closed:
                raise InputError("session.closed", "the session is closed", hint="open a new DataflowSession")
            cursor = self._idle.pop() if self._idle else Cursor(self._root.cursor())
            self._held.add(cursor)
            return cursor

    def _give_back(self, cursor: Cursor) -> None:
        with self._lock:
            # From here on an interrupt would reach the cursor's next holder.
            self._held.remove(cursor)
        if not cursor.reset():
            return
        with self._lock:
            if self._closed:
                cursor.close()
            else:
                self._idle.append(cursor)

    def interrupt(self) -> None:
        """Stop every statement that runs now, from any thread; each raises QueryCancelled."""
        with self._lock:
            for cursor in self._held:
                cursor.interrupt()

    def close(self) -> None:
        """Close every idle cursor and the instance; a held cursor closes when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for cursor in idle:
            cursor.close()
        self._root.close()


def _jieba(texts: pa.ChunkedArray) -> pa.Array:
    """The engine's function JIEBA_FUNCTION, which is called with 2,048 texts at a time: 80,000 short ones a second."""
    terms = [None if text is None else jieba_terms(text) for text in texts.to_pylist()]
    return pa.array(terms, pa.list_(pa.string()))


def _snippets(
    texts: pa.ChunkedArray,
    queries: pa.ChunkedArray,
    analyzers: pa.ChunkedArray,
    lengths: pa.ChunkedArray,
    before: pa.ChunkedArray,
    after: pa.ChunkedArray,
    html: pa.ChunkedArray,
) -> pa.Array:
    """The engine's function SNIPPET_FUNCTION, for the rows that are shown."""
    columns = (texts, queries, analyzers, lengths, before, after, html)
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([snippet_of(*row) for row in rows], pa.string())


# The latest errors of ours that functions raised in the engine, each by a word that stands in its text there and
# nowhere else: through the engine comes only the text.
_RAISED: Final[deque[tuple[str, VelariaError]]] = deque(maxlen=64)


def _remembered(function: Callable[..., pa.Array]) -> Callable[..., pa.Array]:
    """The function, whose errors `translate` finds again as they were raised."""

    @wraps(function)
    def run(*columns: pa.ChunkedArray) -> pa.Array:
        try:
            return function(*columns)
        except VelariaError as error:
            word = f"velaria-{uuid4().hex}"
            # Without its traceback, which would keep the rows of the call.
            _RAISED.append((word, error.with_traceback(None)))
            raise RuntimeError(f"{word}: {error}") from None

    return run


def _raised(message: str) -> VelariaError | None:
    return next((error for word, error in tuple(_RAISED) if word in message), None)


# Made once: engines of one file share a function, and it is called after the engine that brought it has been closed.
_FUNCTIONS: Final[tuple[tuple[str, Callable[..., pa.Array], list[Any], str], ...]] = (
    *([(JIEBA_FUNCTION, _remembered(_jieba), ["VARCHAR"], "VARCHAR[]")] if has_jieba() else []),
    (SNIPPET_FUNCTION, _remembered(_snippets), list(SNIPPET_TYPES), "VARCHAR"),
)


@dataclass(frozen=True, slots=True)
class Computed:
    """Arrow data that Python computes, with the engine's help, when a query first reads it; none where none does.

    Attributes:
        schema: its columns, or what tells them.
        rows: called on a thread of the engine; whatever it raises, the query raises.
    """

    schema: pa.Schema | Callable[[Engine], pa.Schema]
    rows: Callable[[Engine], pa.Table]


class _Read:
    """Computed data while a cursor is held: computed once, however often the query reads it."""

    def __init__(self, data: Computed, engine: Engine) -> None:
        self._data, self._engine = data, engine
        self._lock = threading.Lock()
        self._table: pa.Table | None = None
        self.error: Exception | None = None

    def __arrow_c_schema__(self) -> object:
        found = self._data.schema
        if not isinstance(found, pa.Schema):
            found = found(self._engine)
        return found.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        with self._lock:
            if self._table is None:
                try:
                    self._table = self._data.rows(self._engine)
                except Exception as error:
                    self.error = error
                    raise
        return self._table.__arrow_c_stream__(requested_schema)


class Cursor:
    """One connection: one statement at a time, from one thread; `interrupt` and `progress` from any."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._asked: tuple[str, duckdb.DuckDBPyRelation] | None = None
        self._bound: list[str] = []
        self._keeps_footers = False
        self._to_begin = False  # a transaction, with the next statement
        for statement in _PER_CURSOR:
            connection.execute(statement)

    def bind(self, feeds: Mapping[str, Any]) -> None:
        """Make Arrow data readable as tables of these names. About 0.4 ms each."""
        for name, data in feeds.items():
            with translated("binding an Arrow table"):
                self._connection.register(name, data)
            self._bound.append(name)

    def keep_footers(self, keep: bool) -> None:
        """Whether footers of Parquet files are kept, and taken from those kept. 0.07 ms where that changes."""
        if keep != self._keeps_footers:
            self.rows(f"SET parquet_metadata_cache={str(keep).lower()}")
            self._keeps_footers = keep

    def schema(self, sql: str) -> pa.Schema:
        """The columns that `sql` would give, without running it. 0.2 to 1 ms."""
        try:
            relation = self._connected().sql(sql)
            self._asked = (sql, relation)
            return pa.schema(
                [
                    pa.field(name, arrow_type(str(kind)))
                    for name, kind in zip(relation.columns, relation.types, strict=True)
                ]
            )
        except duckdb.Error as error:
            # The relation API tells no position; the same text as a statement does.
            try:
                self._connected().execute("DESCRIBE " + sql)
                self._connection.complete()
            except duckdb.Error as located:
                raise translate(located, sql=sql, shift=len("DESCRIBE ")) from located
            raise translate(error, sql=sql) from error

    def _relation(self, sql: str) -> duckdb.DuckDBPyRelation:
        """A query bound to its types; one that was just asked for its schema is bound already.

        The engine binds it again where a statement has changed what its names stand for.
        """
        asked, self._asked = self._asked, None
        if asked is not None and asked[0] == sql:
            return asked[1]
        return self._connected().sql(sql)

    def parse_error(self, sql: str) -> VelariaError | None:
        """See `Engine.parse_error`."""
        try:
            self._connection.extract_statements(sql)
        except duckdb.Error as error:
            return translate(error, sql=sql)
        return None

    def table(self, sql: str, parameters: Parameters = None) -> pa.Table:
        """Run a query to its end. The result is held in memory."""
        with translated(sql=sql):
            if parameters is None:
                relation = self._relation(sql)
                if relation is None:
                    return pa.table({})
                exported = _exported(relation)
                return self._stoppable(lambda: exported.to_arrow_table())
            return self._stoppable(lambda: self._connected().execute(sql, parameters).to_arrow_table())

    def run(self, sql: str) -> pa.Table:
        """Run a statement that reads, and whose text binds cheaply, such as EXECUTE; the result is small.

        A transaction that waits to begin goes on waiting: it is for what is written, and beginning and ending one takes
        a millisecond. So what is read must be written through this cursor alone.
        """
        with translated(sql=sql):
            return self._connection.execute(sql).to_arrow_table()

    def reader(self, sql: str, rows: int) -> pa.RecordBatchReader:
        """Run a query as a stream of record batches of about `rows` rows; memory stays bounded."""
        with translated(sql=sql):
            return _exported(self._relation(sql)).to_arrow_reader(rows)

    def profiled(self, sql: str, rows: int) -> tuple[int, dict[str, Any] | None]:
        """Run a query as `reader` does and drop its rows: how many they were, and the engine's profile of the run.

        There is no profile of what the engine answers while it plans.
        """
        self.rows("SET enable_profiling='no_output'")
        try:
            count = sum(batch.num_rows for batch in self.batches(self.reader(sql, rows)))
            profile: dict[str, Any] = json.loads(self._connection.get_profiling_information("json"))
        finally:
            self.rows("PRAGMA disable_profiling")
        return count, profile if "operator" in profile else None

    def batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The batches of `reader`, with engine errors in our words: late rows may still fail."""
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                raise translate(duckdb.Error(str(error)), what="reading the result") from error
            yield batch

    def rows(self, sql: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """Run a statement and fetch everything: for the engine's own small answers."""
        with translated(sql=sql):
            return self._connected().execute(sql, parameters).fetchall()

    def execute(self, sql: str, parameters: Parameters = None) -> int:
        """Run a statement for its effect.

        Returns:
            Rows inserted, deleted, updated or copied; 0 where the engine counts none.
        """
        with translated(sql=sql):
            found = self._stoppable(lambda: self._connected().execute(sql, parameters).fetchall())
        count = found[0][0] if found and len(found[0]) == 1 else 0
        return count if isinstance(count, int) and not isinstance(count, bool) else 0

    def _stoppable(self, work: Callable[[], T]) -> T:
        """What `work` gives; Ctrl-C stops it.

        The engine looks at no signal while it works, and Python runs handlers on the main thread alone: so on that
        thread the work is given to another one (60 us), and this one waits and interrupts.
        """
        if threading.current_thread() is not threading.main_thread():
            return work()
        made: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                made.append(work())
            except BaseException as error:  # noqa: BLE001 -- raised again below, where the caller is
                failed.append(error)
            finally:
                done.set()

        # An event and not a join: a join that a signal breaks off leaves the thread's own lock in doubt.
        done = threading.Event()
        threading.Thread(target=run, name="velaria-statement", daemon=True).start()
        try:
            done.wait()
        except KeyboardInterrupt:
            while not done.wait(_INTERRUPT_SECONDS):
                self.interrupt()
            raise
        try:
            if failed:
                raise failed[0]
            return made[0]
        finally:
            failed.clear()  # the error knows this frame; without the circle it is gone when it has been told

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Any exception rolls back: a COMMIT after an error would silently do so too."""
        self.begin()
        try:
            yield
        except BaseException:
            self.roll_back()
            raise
        self.commit()

    def begin(self) -> None:
        """Begin a transaction: the engine is told with the next statement, and not at all where none comes."""
        assert not self._to_begin, "one transaction at a time"
        self._to_begin = True

    def commit(self) -> None:
        """Make what was done since `begin` durable."""
        self._end("COMMIT")

    def roll_back(self) -> None:
        """Undo what was done since `begin`."""
        self._end("ROLLBACK")

    def _end(self, statement: str) -> None:
        if self._to_begin:
            self._to_begin = False
        else:
            self.rows(statement)

    def _connected(self) -> duckdb.DuckDBPyConnection:
        """The connection, for a statement: in the transaction that was begun."""
        if self._to_begin:
            self._to_begin = False
            self._connection.execute("BEGIN TRANSACTION")
        return self._connection

    def interrupt(self) -> None:
        """Stop the running statement, from another thread; it raises QueryCancelled."""
        self._connection.interrupt()

    def progress(self) -> float | None:
        """How far the running statement is, 0 to 1, or None where the engine cannot tell."""
        done = self._connection.query_progress()
        return done / 100 if done >= 0 else None

    def reset(self) -> bool:
        """Drop the bindings and any unread result. False when the connection can no longer be used."""
        try:
            self._to_begin = False
            self._connection.abort()
            for name in self._bound:
                self._connection.unregister(name)
            self._bound.clear()
        except duckdb.Error:
            self.close()
            return False
        return True

    def close(self) -> None:
        self._connection.close()


def _exported(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The relation with columns that Arrow has no type for cast to ones that it has."""
    kinds = [str(kind) for kind in relation.types]
    others = [exported_type(kind) for kind in kinds]
    if others == kinds:
        return relation
    columns = (
        quoted(name) if kind == other else f"CAST({quoted(name)} AS {other}) AS {quoted(name)}"
        for name, kind, other in zip(relation.columns, kinds, others, strict=True)
    )
    return relation.project(", ".join(columns))


def statements(sql: str) -> list[tuple[str, str]]:
    """(type, text) of each statement, as the engine's own parser splits them; types as `SELECT`, `INSERT`."""
    with translated(sql=sql):
        found = duckdb.extract_statements(sql)
    return [(statement.type.name, statement.query) for statement in found]


@contextmanager
def translated(what: str | None = None, *, sql: str | None = None) -> Iterator[None]:
    """Engine errors inside leave as VelariaError."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, what=what, sql=sql) from error
    except UnicodeDecodeError as error:
        # The engine's message quotes part of a character, and so is not text itself.
        message = error.object.decode(errors="replace")
        kind = message.partition("Error:")[0].replace(" ", "") + "Exception"
        raised: type[duckdb.Error] = getattr(duckdb, kind, duckdb.Error)
        raise translate(raised(message), what=what, sql=sql) from error


@dataclass(frozen=True, slots=True)
class _Rule:
    """An engine error we know: how to recognise it, and what it is in our words."""

    pattern: str
    kind: type[VelariaError]
    code: str
    hint: str | None = None
    message: str | None = None
    retryable: bool = False


# First match wins; patterns are searched in "ExceptionType: message". More telling rows stand first.
_RULES: tuple[_Rule, ...] = (
    _Rule(r"INTERRUPT|^InterruptException", QueryCancelled, "query.cancelled", None, "the query was cancelled"),
    _Rule(
        r"(?i)no space left|disk.{0,20}full|ENOSPC",
        ExternalError,
        "disk.full",
        "free some space, or choose another folder (temp_directory for spilling)",
        retryable=True,
    ),
    _Rule(
        r"^OutOfMemory",
        ExternalError,
        "memory.limit",
        "raise memory_limit, give a temp_directory to spill to, or reduce what is held at once "
        "(median, quantile, mode and list cannot spill)",
    ),
    _Rule(
        r"(?i)permission denied|disabled by configuration|^PermissionException",
        ExternalError,
        "file.forbidden",
        "the path is outside the session's roots, or the user may not read it",
    ),
    _Rule(r"Could not set lock", StateError, "database.locked", "close the other process that has it open"),
    _Rule(
        r"same database file with a different configuration",
        StateError,
        "database.locked",
        "close the session of this process that has it open with other settings",
    ),
    _Rule(r"not a valid DuckDB database", DataError, "database.invalid", "choose another path"),
    _Rule(r"(?i)corrupt|checksum", StateError, "database.corrupt", "restore the file from a copy"),
    _Rule(r"^FatalException", StateError, "database.failed", "close the session and open it again", retryable=True),
    _Rule(r"No files found that match", InputError, "file.not_found", "check the path; globs may match nothing"),
    _Rule(r"(?i)division by zero", DataError, "value.division_by_zero", "use nullif(divisor, 0), or TRY(...)"),
    _Rule(r"(?i)date field value out of range", DataError, "value.conversion", "TRY_CAST gives NULL instead"),
    _Rule(
        r"^OutOfRange|(?i:overflow)|out of range",
        DataError,
        "value.overflow",
        "cast to a wider type first, e.g. CAST(x AS DOUBLE) or DECIMAL(38, 2)",
    ),
    _Rule(
        r"(?i)csv error",
        DataError,
        "file.bad_row",
        'on_error="skip" leaves bad rows out, "collect" keeps them',
    ),
    _Rule(
        r"(?i)malformed json|json transform|unexpected (end|character)",
        DataError,
        "file.bad_row",
        'on_error="skip" leaves bad rows out, "collect" keeps them',
    ),
    _Rule(r"(?i)invalid unicode|not utf-?8|encoding", DataError, "file.encoding", 'name it: encoding="latin-1"'),
    _Rule(r"^ConversionException", DataError, "value.conversion", "TRY_CAST gives NULL instead"),
    # Also of a stream, whose plan looks before a sink does (`declared.fitted`).
    _Rule(r"^ConstraintException|NOT NULL constraint failed", DataError, "value.constraint"),
    _Rule(r"^ParserException|SYNTAX_ERROR", SqlSyntaxError, "sql.syntax"),
    _Rule(r"Type with name \S+ does not exist", SqlSemanticError, "type.unknown"),
    _Rule(
        r"Function with name (\S+) (does not exist|is not in the catalog)|not in the catalog, but it exists in",
        SqlSemanticError,
        "sql.unknown_function",
    ),
    _Rule(
        r"(?i)(table|view) with name .* does not exist|Catalog.*does not exist",
        CatalogNotFoundError,
        "sql.unknown_table",
    ),
    _Rule(
        r"COLUMN_NOT_FOUND|Referenced column|does not have a column named|not found in FROM",
        SqlSemanticError,
        "sql.unknown_column",
    ),
    _Rule(r"Ambiguous reference", SqlSemanticError, "sql.ambiguous_column", "write the table before the column"),
    _Rule(
        r"(?i)cannot contain aggregates|aggregate function calls cannot be nested",
        SqlSemanticError,
        "sql.misplaced_aggregate",
        "filter aggregates with HAVING, after GROUP BY",
    ),
    _Rule(r"must appear in the GROUP BY", SqlSemanticError, "sql.not_grouped"),
    _Rule(
        r"(?i)no function matches|could not choose a best candidate|cannot (compare|cast|mix)|type mismatch|"
        r"Unimplemented type for cast",
        SqlSemanticError,
        "sql.type_mismatch",
        "cast one side, e.g. CAST(x AS BIGINT)",
    ),
    _Rule(r"already exists", InputError, "catalog.exists", "use CREATE OR REPLACE, or DROP it first"),
    _Rule(r"^BinderException|^CatalogException|^InvalidType", SqlSemanticError, "sql.invalid"),
    _Rule(r"^NotImplemented", SqlUnsupportedError, "sql.unsupported"),
    _Rule(r"^TransactionException", ExternalError, "database.conflict", "try again", retryable=True),
    _Rule(r"^(IOException|HTTPException)|^Error: .*(open|read) file", ExternalError, "file.io"),
    _Rule(r"^(InvalidInput|Invalid Input|Syntax)", InputError, "sql.invalid_input"),
)

# Modules that know more about some errors than the engine says: each gets the message and may answer with its own.
EXPLAINERS: list[Callable[[str], VelariaError | None]] = [_raised]

_EXCEPTION_PREFIX = re.compile(r"^[A-Za-z ]*Error: ")
_CSV_LINE = re.compile(r"CSV Error on Line: (\d+)")
_CSV_COLUMN = re.compile(r"Error when converting column \"([^\"]+)\"")
_FILE = re.compile(r"(?:file|in file) [=\"']?(?P<path>/[^\s\"',:]+)", re.IGNORECASE)


def translate(error: duckdb.Error, *, what: str | None = None, sql: str | None = None, shift: int = 0) -> VelariaError:
    """An engine error in our words: class, code, place and hint.

    The position, where the engine gives one, counts in the text that it was given; `shift` is the length of what
    stood before `sql` there.
    """
    text = str(error)
    body = _EXCEPTION_PREFIX.sub("", text, count=1)
    details: dict[str, str] = {}
    if body.startswith("{"):
        try:
            details = json.loads(body)
        except json.JSONDecodeError:
            details = {}
    message = details.get("exception_message", body)
    for explain in EXPLAINERS:
        if (known := explain(message)) is not None:
            known.__cause__ = error
            return known
    searched = f"{type(error).__name__}: {details.get('error_subtype', '')} {message}"
    rule = next((rule for rule in _RULES if re.search(rule.pattern, searched)), None)
    place = _place(message, details, sql, shift)
    hint = rule.hint if rule else None
    if "Did you mean" in message:
        message, _, rest = message.partition("\nDid you mean")
        hint = "did you mean" + rest.split("\n")[0].rstrip()
    elif rule is not None and rule.code == "sql.unknown_column" and (candidates := details.get("candidates")):
        hint = "there are: " + str(candidates).replace(",", ", ")
    message = _tidy(rule.message if rule and rule.message else message)
    if what:
        message = f"{what}: {message}"
    if rule is None:
        return InternalError("engine.error", f"{type(error).__name__}: {message}", place=place, cause=error)
    made = rule.kind(rule.code, message, hint=hint, place=place, cause=error)
    made.retryable = rule.retryable
    return made


def _place(message: str, details: Mapping[str, str], sql: str | None, shift: int) -> Place | None:
    if found := _CSV_LINE.search(message):
        path = _FILE.search(message)
        return Place(file=path["path"] if path else None, line=int(found[1]))
    location = details.get("location") or details.get("position")
    # Of a prepared statement the engine counts in the text that was prepared.
    if sql is None or location is None or sql.startswith("EXECUTE "):
        return None
    numbers = [int(number) for number in re.findall(r"\d+", str(location))]
    if not numbers or numbers[0] < shift:
        return None
    # The engine counts bytes.
    encoded = sql.encode()
    offset = len(encoded[: numbers[0] - shift].decode(errors="ignore"))
    return Place.in_text(sql, offset, numbers[1] if len(numbers) > 1 else 1)


def _tidy(message: str) -> str:
    """The first telling lines of an engine message: no caret drawing, no candidate lists."""
    kept = []
    for line in message.splitlines():
        if line.startswith(("LINE ", "Candidate", "\tCandidate", "Possible", "Possible fixes")):
            break
        if line.strip():
            kept.append(line.strip())
    # Advice of the engine that a hint of ours gives better.
    told = re.split(
        r" Use (TRY\(|.SET )| In order to select one| You might need to add| Either add it to", " ".join(kept)
    )
    return told[0].rstrip(".!") or message
