"""Spans: what a stage took, on the monotonic clock that all processes of a host share, so that they line up.

| stage | what |
|---|---|
| split | the client cuts the plan into chains, and its rows into payloads |
| serialise | a table becomes a payload |
| transfer | a payload becomes a table again; for bytes over the stream also their way |
| wait | a task stood in line |
| compute | the engine ran a plan |
| merge | the client put the result together |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic_ns

from velaria_experimental.wire.v1 import runtime_pb2 as pb


class Stage(StrEnum):
    """What time is spent on."""

    SPLIT = "split"
    SERIALISE = "serialise"
    TRANSFER = "transfer"
    WAIT = "wait"
    COMPUTE = "compute"
    MERGE = "merge"


@dataclass(slots=True)
class Span:
    """Times in microseconds; `start_us` since boot."""

    stage: str
    node_id: str
    what: str
    start_us: int
    duration_us: int = 0
    nbytes: int = 0

    def message(self) -> pb.Span:
        return pb.Span(
            stage=self.stage,
            node_id=self.node_id,
            what=self.what,
            start_us=self.start_us,
            duration_us=self.duration_us,
            bytes=self.nbytes,
        )

    @staticmethod
    def of(message: pb.Span) -> Span:
        return Span(message.stage, message.node_id, message.what, message.start_us, message.duration_us, message.bytes)


def now_us() -> int:
    """Microseconds since boot."""
    return monotonic_ns() // 1000


class Spans:
    """The spans of one process."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.spans: list[Span] = []

    @contextmanager
    def measured(self, stage: Stage, what: str) -> Iterator[Span]:
        """A span over the block; the block may set its `nbytes`."""
        span = Span(stage, self.node_id, what, now_us())
        try:
            yield span
        finally:
            span.duration_us = now_us() - span.start_us
            self.spans.append(span)


def totals_us(spans: Iterable[Span]) -> Mapping[str, int]:
    """Microseconds by stage, over all processes: they overlap, so their sum may be more than passed."""
    found = {str(stage): 0 for stage in Stage}
    for span in spans:
        found[span.stage] = found.get(span.stage, 0) + span.duration_us
    return found
