"""Materialized views: the result of a query, stored as a table and kept fresh by a stream query that survives restarts.

The query reads stored tables through their feeds and SOURCE tables as streams, and writes to the view's table through a
sink that commits an epoch whole, so whoever reads the table sees the result of the last epoch. What reads stored tables
alone is brought up to date by the statement that changes one of them, before it returns. What reads a SOURCE table
is looked after by one thread for all views.

A view's state lies in a folder beside the database, under a number that the database knows. A view that must begin
anew gets another number, in the transaction that empties its table and fills its feeds, so that a state is never read
with a table that it does not belong to.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.contract.abi import DIFF
from velaria_core.contract.modes import OutputMode, SinkMode
from velaria_core.errors import ExternalError, StateError, VelariaError
from velaria_core.execution import lower
from velaria_core.execution.checkpoint import STATE_FILE
from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.feeds import SCHEMA, Feed, Feeds, FeedSource, exists
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.progress_bar import progress_bar
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.search.indexes import Indexes
from velaria_core.execution.sinks.table import TableSink
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.rules import for_stream
from velaria_core.types import duckdb_type, quoted

COUNT = quoted("velaria diff")  # the sign of what a TableSink applies
_NUMBERS = f"{SCHEMA}.numbers"
_NUMBER = f"{SCHEMA}.number"
POLL_S = 0.1
_log = logging.getLogger("velaria.stream")


class FollowedTableSink(TableSink):
    """A table of the session whose changes are told to the views that follow it, and to its search indexes."""

    def __init__(
        self, table: str, engine: Engine, feeds: Feeds, indexes: Indexes, changed: Callable[[str], object]
    ) -> None:
        super().__init__(table, engine=engine)
        self._told, self._feeds, self._indexes, self._changed = table, feeds, indexes, changed

    def commit(self, epoch: int, ref: str) -> None:
        with self._feeds.locked:
            super().commit(epoch, ref)
        if self._feeds.of(self._told):
            self._changed(self._told)

    def _apply(self, rows: str, pending: pa.Table | None) -> None:
        cursor, context, table = self._open_cursor(), self._context, f"main.{quoted(self._told)}"
        assert context is not None, "rows are applied after open"
        only_came = context.mode is SinkMode.APPEND or (
            context.mode is SinkMode.RETRACT and pending is not None and pc.min(pending.column(DIFF)).as_py() > 0
        )
        self._indexes.changed(cursor, self._told, removed=not only_came)
        if not self._feeds.of(self._told):
            super()._apply(rows, pending)
            return
        if context.mode in (SinkMode.APPEND, SinkMode.RETRACT):
            self._feeds.take(cursor, self._told, f"{rows} AS c", COUNT)
            super()._apply(rows, pending)
        else:
            self._feeds.take(cursor, self._told, table, "-1")
            super()._apply(rows, pending)
            self._feeds.take(cursor, self._told, table, "1")


@dataclass(slots=True)
class View:
    """One materialized view of the session.

    Attributes:
        plan: makes its plan; called again when its query is opened again.
        append: its rows come out once, when their window closes.
        live: it reads a SOURCE table, whose rows come by themselves.
        error: what its query failed with; None while it keeps up.
    """

    name: str
    plan: Callable[[], Node]
    append: bool = False
    live: bool = False
    query: StreamingQuery | None = None
    error: VelariaError | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


class Views:
    """The materialized views of one session."""

    def __init__(self, engine: Engine, feeds: Feeds, indexes: Indexes) -> None:
        self._engine = engine
        self._feeds, self._indexes = feeds, indexes
        self._views: dict[str, View] = {}
        self._folder = Path(f"{engine.settings.path}.views") if engine.settings.path is not None else None
        self._wake = threading.Condition()
        self._closing = False
        self._keeper: threading.Thread | None = None

    def followed_source(self, view: str, base: str, schema: pa.Schema) -> FeedSource:
        """The stream of a stored table, from the feed that the view has by the time it is opened."""

        def feed() -> Feed:
            return next(one for one in self._feeds.of_view(view) if one.base.lower() == base.lower())

        return FeedSource(self._feeds, feed, schema)

    # --- views come and go ----------------------------------------------------------------------------------

    def create(self, view: View, bases: Mapping[str, pa.Schema], record: Callable[[Cursor], None]) -> None:
        """Store a new view: its table, its feeds and what `record` writes, in one transaction; then its first rows.

        Args:
            bases: the stored tables that the plan reads.

        Raises:
            VelariaError: the query cannot start, or fails on the rows that are there; nothing is left.
        """
        node = for_stream(view.plan())
        schema = lower.schema(self._engine, node)
        columns = ", ".join(f"{quoted(item.name)} {duckdb_type(item.type)}" for item in schema)
        with self._feeds.locked, self._engine.cursor() as cursor:
            with progress_bar(cursor.progress), cursor.transaction():
                made = [self._feeds.create(cursor, view.name, base, found) for base, found in bases.items()]
                cursor.rows(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                cursor.rows(f"CREATE TABLE IF NOT EXISTS {_NUMBERS} (view VARCHAR, number BIGINT)")
                cursor.rows(f"CREATE SEQUENCE IF NOT EXISTS {_NUMBER}")
                cursor.rows(f"INSERT INTO {_NUMBERS} VALUES ($1, nextval('{_NUMBER}'))", [view.name])
                cursor.rows(f"CREATE OR REPLACE TABLE main.{quoted(view.name)} ({columns})")
                record(cursor)
            for feed in made:
                self._feeds.adopt(feed)
        self._views[view.name.lower()] = view
        try:
            self._open(view, node)
            with progress_bar(lambda: self._share(view)):
                self._advance(view)
        except BaseException:
            self.drop(view.name)
            raise
        self._keep()

    def resume(self, view: View) -> None:
        """Take up a view of a database that was opened: catch up with what its bases have got."""
        self._views[view.name.lower()] = view
        try:
            with progress_bar(lambda: self._share(view)):
                self._bring_up(view)
        except VelariaError as error:
            _fell_behind(view, error)
        self._keep()

    def drop(self, name: str) -> None:
        """Stop a view's query and remove what it kept; its table is the caller's to drop."""
        view = self._views.pop(name.lower(), None)
        if view is not None:
            _let_go(view)
            with view.lock:
                self._close(view)
        with self._feeds.locked, self._engine.cursor() as cursor, cursor.transaction():
            self._feeds.drop(cursor, name)
            found = []
            if exists(cursor, "numbers"):
                found = cursor.rows(f"DELETE FROM {_NUMBERS} WHERE lower(view) = lower($1) RETURNING number", [name])
        if self._folder is not None:
            for (number,) in found:
                shutil.rmtree(self._folder / str(number), ignore_errors=True)

    def close(self) -> None:
        """Stop every query; their states stay."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for view in self._views.values():
            _let_go(view)
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
        for view in self._views.values():
            with view.lock:
                self._close(view)

    # --- keeping up -----------------------------------------------------------------------------------------

    def get(self, name: str) -> View | None:
        return self._views.get(name.lower())

    def changed(self, base: str) -> list[View]:
        """Bring the views that follow a table up to date. Those that could not keep up are given."""
        self._feeds.wake(base)
        behind = []
        for feed in self._feeds.of(base):
            view = self.get(feed.view)
            if view is None:
                continue
            with view.lock:
                if view.query is not None:
                    try:
                        self._advance(view)
                    except VelariaError as error:
                        view.error = error
                if view.error is not None:
                    behind.append(view)
        return behind

    def refresh(self, name: str) -> int:
        """Bring a view up to date now, and start its query again if that failed; the rows taken in.

        A view whose state is lost or does not fit begins anew.

        Raises:
            VelariaError: what keeps it from being fresh.
        """
        view = self._views[name.lower()]
        with view.lock, progress_bar(lambda: self._share(view)):
            try:
                if view.query is None or not view.query.is_active:
                    return self._bring_up(view)
                return self._advance(view)
            except VelariaError as error:
                view.error = error
                raise

    def _advance(self, view: View) -> int:
        """Run the epochs that are due on this thread."""
        with view.lock:
            assert view.query is not None, "a view that is advanced was opened"
            rows = view.query.process_available()
            view.error = None
            return rows

    def _share(self, view: View) -> float | None:
        """How much of what the stored tables have for a view its query has taken in; None where nobody knows."""
        query = view.query
        if query is None or view.live:
            return None
        taken: int = query.progress()["rows_in"]
        with suppress(VelariaError):  # the session may be about to close
            return taken / max(taken + self._feeds.left(view.name), 1)
        return None

    def _bring_up(self, view: View) -> int:
        with view.lock:
            self._close(view)
            try:
                if not self._has_state(view):
                    self._begin_again(view)
                self._open(view, for_stream(view.plan()))
                return self._advance(view)
            except StateError as error:
                if error.code == "database.locked":
                    raise
                self._close(view)
                self._begin_again(view)
                self._open(view, for_stream(view.plan()))
                return self._advance(view)

    def _open(self, view: View, node: Node) -> None:
        scans = (one.relation.source for one in node.walk() if isinstance(one, Scan))
        view.live = any(source is not None and not isinstance(source, FeedSource) for source in scans)
        folder = self._state_folder(view)
        options = StreamOptions(
            checkpoint_path=str(folder) if folder is not None else None,
            output_mode=OutputMode.APPEND if view.append else OutputMode.UPDATE,
        )
        sink = FollowedTableSink(view.name, self._engine, self._feeds, self._indexes, self.changed)
        view.query = StreamingQuery(self._engine, node, sink, options)
        view.query.label = f"MATERIALIZED VIEW {view.name}"

    @staticmethod
    def _close(view: View) -> None:
        query, view.query = view.query, None
        if query is not None:
            query.stop()

    # --- state ----------------------------------------------------------------------------------------------

    def _state_folder(self, view: View) -> Path | None:
        if self._folder is None:
            return None
        with self._engine.cursor() as cursor:
            ((number,),) = cursor.rows(f"SELECT number FROM {_NUMBERS} WHERE lower(view) = lower($1)", [view.name])
        return self._folder / str(number)

    def _has_state(self, view: View) -> bool:
        folder = self._state_folder(view)
        return folder is not None and (folder / STATE_FILE).exists()

    def _begin_again(self, view: View) -> None:
        """Empty the view, give it another number, and its feeds what their tables have now: all in one transaction."""
        old = self._state_folder(view)
        with self._feeds.locked, self._engine.cursor() as cursor, cursor.transaction():
            table = f"main.{quoted(view.name)}"
            self._feeds.take(cursor, view.name, table, "-1")
            cursor.rows(f"DELETE FROM {table}")
            self._feeds.begin_again(cursor, view.name)
            cursor.rows(
                f"UPDATE {_NUMBERS} SET number = nextval('{_NUMBER}') WHERE lower(view) = lower($1)", [view.name]
            )
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)

    # --- views over sources ---------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Look after the views that read sources, on a thread of its own."""
        if self._keeper is None and any(view.live for view in self._views.values()):
            self._keeper = threading.Thread(target=self._run, name="velaria-views", daemon=True)
            self._keeper.start()

    def _run(self) -> None:
        while not self._closing:
            for view in list(self._views.values()):
                if view.live and not self._closing:
                    self._look_after(view)
            with self._wake:
                if not self._closing:
                    self._wake.wait(POLL_S)

    def _look_after(self, view: View) -> None:
        with view.lock:
            if view.query is None or self.get(view.name) is not view:
                return
            try:
                if view.query.is_active:
                    self._advance(view)
                elif isinstance(view.error, ExternalError) and view.error.retryable:
                    self._bring_up(view)
            except VelariaError as error:
                _fell_behind(view, error)


def _fell_behind(view: View, error: VelariaError) -> None:
    """No statement of a user is there to be told."""
    if view.error is None:
        _log.error('the materialized view "%s" is behind: %s', view.name, error)
    view.error = error


def _let_go(view: View) -> None:
    """Whoever advances the view has it: that ends with the epoch at hand, however much its sources have."""
    query = view.query
    if query is not None:
        query.stop()
