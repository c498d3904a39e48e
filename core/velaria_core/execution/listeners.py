"""Listeners: callables that hear what happens to a query, or to every query of a session.

They are called on the thread where it happens, one after the other, so a slow one slows the query. What one raises is
logged and counted, and nothing else happens: a listener is a guest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velaria_core.contract.codec import Progress

_log = logging.getLogger("velaria.stream")


class EventKind(StrEnum):
    """What happened to a query."""

    STARTED = "started"  # it runs, or runs again after a restart
    PROGRESS = "progress"  # an epoch is committed
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class QueryEvent:
    """What a listener is given: what happened, to which query, and how far it is.

    Attributes:
        error: what the query failed with; None unless `kind` is FAILED.
    """

    kind: EventKind
    query_id: str
    progress: Progress
    error: BaseException | None = None


Listener = Callable[[QueryEvent], object]


class Listeners:
    """Callables that hear of a query, or of every query of a session."""

    def __init__(self) -> None:
        self._all: tuple[Listener, ...] = ()

    def add(self, listener: Listener) -> None:
        """Call `listener` from the next event on."""
        self._all = (*self._all, listener)

    def remove(self, listener: Listener) -> None:
        """Call it no more; nothing happens where it is not known."""
        self._all = tuple(one for one in self._all if one != listener)

    def tell(self, event: QueryEvent) -> int:
        """Call each with the event; how many raised."""
        failures = 0
        for listener in self._all:
            try:
                listener(event)
            except Exception:  # noqa: BLE001
                failures += 1
                _log.exception("a listener of %s failed at %s", event.query_id, event.kind)
        return failures
