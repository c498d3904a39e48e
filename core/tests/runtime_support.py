"""What tests of the runtime share: a source and a sink that do as they are told, and note what was asked of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from velaria_core.contract import abi
from velaria_core.contract.modes import SinkMode
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.options import stream_options
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.session import DataflowSession

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.int64())])
PATIENCE_S = 30  # until a test that waits for another thread gives up

Answer = pa.Table | abi.Blocked | abi.EndOfStream | Exception | Callable[[], Any]


def rows(*pairs: tuple[str | None, int]) -> pa.Table:
    return pa.table({"k": [key for key, _ in pairs], "v": [value for _, value in pairs]}, schema=SCHEMA)


def numbered(*values: int) -> pa.Table:
    return rows(*(("a", value) for value in values))


class Guarded:
    """Notes that no two calls overlap, and how often each was made."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self.calls: list[str] = []

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        assert self._busy.acquire(blocking=False), f"{name} while another call runs"
        try:
            self.calls.append(name)
            yield
        finally:
            self._busy.release()


class Scripted(Guarded):
    """A source that gives its answers in order; tables by their place, so they can be given again.

    An exception is raised once. A callable is called, and gives the answer. After the script: the last of `endless`.
    """

    def __init__(
        self, answers: Sequence[Answer], *, bounded: bool = True, replayable: bool = True, schema: pa.Schema = SCHEMA
    ) -> None:
        super().__init__()
        self.answers = list(answers)
        self._info = abi.SourceInfo(schema, bounded=bounded, replayable=replayable)
        self._at = 0
        self._raised: set[int] = set()
        self.contexts: list[abi.SourceContext] = []
        self.acks: list[str] = []
        self.markers: list[abi.CheckpointMarker] = []
        self.is_open = False

    def info(self) -> abi.SourceInfo:
        return self._info

    def open(self, context: abi.SourceContext) -> None:
        with self.call("open"):
            assert not self.is_open
            self.is_open = True
            self.contexts.append(context)
            self._at = int(context.resume_from or 0)

    def next_batch(self, max_rows: int) -> abi.Batch | abi.Blocked | abi.EndOfStream:
        del max_rows
        with self.call("next_batch"):
            assert self.is_open
            if self._at >= len(self.answers):
                return abi.EndOfStream() if self._info.bounded else abi.Blocked()
            answer = self.answers[self._at]
            if isinstance(answer, Exception):
                if self._at not in self._raised:
                    self._raised.add(self._at)
                    raise answer
                self._at += 1
                return abi.Blocked(0)
            self._at += 1
            if callable(answer):
                answer = answer()
            if isinstance(answer, pa.Table):
                return abi.Batch(answer, abi.TextOffset(str(self._at)))
            assert isinstance(answer, abi.Blocked | abi.EndOfStream)
            return answer

    def checkpoint(self, marker: abi.CheckpointMarker) -> None:
        with self.call("checkpoint"):
            self.markers.append(marker)

    def ack(self, offset: abi.Offset) -> None:
        with self.call("ack"):
            assert self.is_open
            self.acks.append(offset.token)

    def close(self) -> None:
        with self.call("close"):
            assert self.is_open
            self.is_open = False


class Gathered(Guarded):
    """A transactional sink in memory that holds to what the contract promises it.

    Args:
        staging: called with epoch and rows before a stage; it may wait or raise.
        committing: called with the epoch before a commit.
    """

    def __init__(
        self,
        *modes: SinkMode,
        staging: Callable[[int, pa.Table], None] = lambda _epoch, _rows: None,
        committing: Callable[[int], None] = lambda _epoch: None,
        blocking: bool = True,
    ) -> None:
        super().__init__()
        kinds = frozenset(modes or (SinkMode.APPEND, SinkMode.RETRACT))
        self._info = abi.SinkInfo(kinds, transactional=True, idempotent=False, blocking=blocking)
        self._staging, self._committing = staging, committing
        self._staged: dict[int, pa.Table] = {}
        self._last = 0
        self.epochs: dict[int, list[dict[str, Any]]] = {}
        self.contexts: list[abi.SinkContext] = []
        self.is_open = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All that is visible, in order."""
        return [row for epoch in sorted(self.epochs) for row in self.epochs[epoch]]

    def info(self) -> abi.SinkInfo:
        return self._info

    def open(self, context: abi.SinkContext) -> None:
        with self.call("open"):
            assert not self.is_open
            self.is_open = True
            self.contexts.append(context)
            self._last = context.last_epoch
            self._staged = {epoch: table for epoch, table in self._staged.items() if epoch <= context.last_epoch}

    def stage(self, epoch: int, changes: pa.Table) -> str:
        with self.call("stage"):
            assert self.is_open
            assert epoch > self._last, "rising, each once an open"
            self._last = epoch
            self._staging(epoch, changes)
            self._staged[epoch] = changes
            return f"ref-{epoch}"

    def commit(self, epoch: int, ref: str) -> None:
        with self.call("commit"):
            assert self.is_open
            assert ref == f"ref-{epoch}"
            self._committing(epoch)
            if epoch in self._staged:
                self.epochs[epoch] = self._staged.pop(epoch).to_pylist()

    def abort(self, epoch: int, ref: str) -> None:
        with self.call("abort"):
            assert ref == f"ref-{epoch}"
            assert epoch not in self.epochs
            self._staged.pop(epoch, None)

    def close(self) -> None:
        with self.call("close"):
            assert self.is_open
            self.is_open = False


def query_over(
    *sources: abi.Source, sink: abi.Sink, sql: str = "SELECT k, v FROM one", clock: Clock = SYSTEM_CLOCK, **options: Any
) -> StreamingQuery:
    """A query over streams `one`, `two`, ... that runs by this clock, and commits each epoch unless told otherwise."""
    options = {"checkpoint_interval": 1, **options}
    session = DataflowSession(threads=1)
    for name, source in zip(("one", "two", "three"), sources, strict=False):
        session.create_temp_view(name, session.read_stream(source, name))
    plan = session.stream_sql(sql).node
    return StreamingQuery(session._engine, plan, sink, stream_options(options), clock=clock)


def finished(query: StreamingQuery) -> StreamingQuery:
    """The query, once it has ended by itself."""
    assert query.await_termination(PATIENCE_S), "the query did not end"
    return query


def until(
    holds: Callable[[], bool], query: StreamingQuery | None = None, each: Callable[[], object] = lambda: None
) -> None:
    """Wait for what other threads bring about, calling `each` between two looks; it gives way to them."""
    limit = time.monotonic() + PATIENCE_S
    while not holds():
        assert query is None or query.is_active
        assert time.monotonic() < limit, query and query.progress()
        each()
        time.sleep(0.001)
