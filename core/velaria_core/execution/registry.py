"""Registry: which stream queries an engine has, so that a session can list them, and stop them when it is closed."""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import MutableSet
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from velaria_core.contract.codec import Progress
    from velaria_core.execution.duck import Engine
    from velaria_core.execution.runtime import StreamingQuery


@dataclass(frozen=True, slots=True)
class Known:
    """A query as it is listed: what it does, and how far it is or was."""

    number: int
    label: str
    progress: Progress


_lock = threading.Lock()
_queries: WeakKeyDictionary[Engine, MutableSet[StreamingQuery]] = WeakKeyDictionary()
_ended: WeakKeyDictionary[Engine, deque[Known]] = WeakKeyDictionary()
_ENDED_KEPT = 100
_EXIT_S = 5.0


def register(engine: Engine, query: StreamingQuery) -> None:
    """The engine has this query; it keeps it no longer than others do."""
    with _lock:
        _queries.setdefault(engine, WeakSet()).add(query)


def ended(engine: Engine, query: StreamingQuery) -> None:
    """The query has stopped or failed. What it told last is kept, though nobody may hold the query any more."""
    with _lock:
        _ended.setdefault(engine, deque(maxlen=_ENDED_KEPT)).append(_known(query))


def active(engine: Engine) -> list[StreamingQuery]:
    """The queries that have neither stopped nor failed, in the order in which they were made."""
    with _lock:
        found = list(_queries.get(engine, ()))
    return sorted((query for query in found if query.is_active), key=lambda query: query.number)


def known(engine: Engine) -> list[Known]:
    """The queries that are active, and the last that ended, in the order in which they were made."""
    running = [_known(query) for query in active(engine)]
    with _lock:
        over = list(_ended.get(engine, ()))
    return sorted({one.number: one for one in (*running, *over)}.values(), key=lambda one: one.number)


def stop_all(engine: Engine) -> None:
    """Stop every query of an engine, and wait until it has stopped."""
    for query in active(engine):
        query.stop()


def _known(query: StreamingQuery) -> Known:
    return Known(query.number, query.label, query.current())


@atexit.register
def _stop_at_exit() -> None:
    """An interpreter must not end under a thread that is inside the engine, nor wait for ever for a sink."""
    with _lock:
        queries = [query for several in _queries.values() for query in several]
    for query in queries:
        if query.is_active:
            query.leave(_EXIT_S)
