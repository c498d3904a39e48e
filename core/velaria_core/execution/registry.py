"""Registry: which stream queries an engine has, so that a session can list them, and stop them when it is closed."""

from __future__ import annotations

import atexit
import threading
from collections.abc import MutableSet
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from velaria_core.execution.duck import Engine
    from velaria_core.execution.runtime import StreamingQuery

_lock = threading.Lock()
_queries: WeakKeyDictionary[Engine, MutableSet[StreamingQuery]] = WeakKeyDictionary()
_EXIT_S = 5.0


def register(engine: Engine, query: StreamingQuery) -> None:
    """The engine has this query; it keeps it no longer than others do."""
    with _lock:
        _queries.setdefault(engine, WeakSet()).add(query)


def active(engine: Engine) -> list[StreamingQuery]:
    """The queries that have neither stopped nor failed, in the order in which they were made."""
    with _lock:
        found = list(_queries.get(engine, ()))
    return sorted((query for query in found if query.is_active), key=lambda query: query.number)


def stop_all(engine: Engine) -> None:
    """Stop every query of an engine, and wait until it has stopped."""
    for query in active(engine):
        query.stop()


@atexit.register
def _stop_at_exit() -> None:
    """An interpreter must not end under a thread that is inside the engine, nor wait for ever for a sink."""
    with _lock:
        queries = [query for several in _queries.values() for query in several]
    for query in queries:
        if query.is_active:
            query.leave(_EXIT_S)
