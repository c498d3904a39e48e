"""Line: one end of a stream of frames, for a process that works on threads.

What is sent goes through an `Outbox`, so chunks wait for the other side's credit; what comes is handed to `handle` on
the reader's thread, one frame at a time. Chunks and credit the line takes itself, and an answer goes to who asked.

Invariant: `handle` is never called by two threads at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from velaria_core.errors import VelariaError
from velaria_experimental.payload.credit import Inbox, Outbox
from velaria_experimental.wire.frames import Writer, body_of
from velaria_experimental.wire.status import Status, error_of, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb


class Answers:
    """The answers to one frame, in their order. Closed when no more are wanted."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._queue: queue.SimpleQueue[pb.Frame | VelariaError] = queue.SimpleQueue()
        self.close = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, answer: pb.Frame | VelariaError) -> None:
        """Called by the line."""
        self._queue.put(answer)

    def next(self, seconds: float) -> pb.Frame:
        """The next answer, waited for so long at most.

        Raises:
            ExternalError[exchange.timeout]: none came. VelariaError: what the other side, or the stream, said instead.
        """
        try:
            answer = self._queue.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise refused(Status.TIMEOUT, f"no answer in {seconds:.1f} s", retryable=True) from None
        if isinstance(answer, VelariaError):
            raise answer.with_traceback(None)
        if body_of(answer) == "error":
            raise error_of(answer.error)
        return answer


class Line:
    """One end of a stream.

    Args:
        handle: called with each frame that is no chunk, no credit and no answer.

    Attributes:
        inbox: payloads that came.
        writer: makes the frames to send.
        broken: what ended the stream; None while it is open.
    """

    def __init__(self, node_id: str, handle: Callable[[pb.Frame], None]) -> None:
        self.writer = Writer(node_id)
        self.inbox = Inbox()
        self.broken: VelariaError | None = None
        self._handle = handle
        self._changed = threading.Condition()
        self._outbox = Outbox(self.writer)
        self._ending = self._draining = False
        self._waiting: dict[int, Answers] = {}

    def send(self, frame: pb.Frame, *, urgent: bool = False) -> None:
        """Send a frame when its turn comes; does not wait."""
        with self._changed:
            self._outbox.put(frame, urgent=urgent)
            self._changed.notify_all()

    def send_payload(self, payload_id: str, data: bytes) -> None:
        """Send the bytes of a payload; what is sent later arrives later."""
        with self._changed:
            self._outbox.put_payload(payload_id, data)
            self._changed.notify_all()

    def ask(self, frame: pb.Frame, *, urgent: bool = False) -> Answers:
        """Send a frame; what is given waits for its answers."""

        def close() -> None:
            with self._changed:
                self._waiting.pop(frame.message_id, None)

        answers = Answers(close)
        with self._changed:
            if self.broken is not None:
                answers.put(self.broken)
            self._waiting[frame.message_id] = answers
        self.send(frame, urgent=urgent)
        return answers

    def frames(self) -> Iterator[bytes]:
        """What leaves, until the line ends; for the thread that sends."""
        while True:
            with self._changed:
                while (frame := self._outbox.take()) is None and not (self._ending or self._draining):
                    self._changed.wait()
            if frame is None or self._ending:
                return
            yield frame.SerializeToString()

    def take(self, frame: pb.Frame) -> None:
        """A frame that came; for the thread that reads.

        Raises:
            ExternalError[exchange.frame_error]: a chunk is out of order.
        """
        match body_of(frame):
            case "data":
                if granted := self.inbox.take_in(frame.data):
                    self.send(self.writer.frame(credit=pb.Credit(chunks=granted)), urgent=True)
            case "credit":
                with self._changed:
                    self._outbox.credited(frame.credit.chunks)
                    self._changed.notify_all()
            case _:
                with self._changed:
                    answers = self._waiting.get(frame.correlation_id) if frame.correlation_id else None
                if answers is not None:
                    answers.put(frame)
                else:
                    self._handle(frame)

    def drain(self) -> None:
        """Send what waits, and nothing after it."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def end(self, error: VelariaError | None = None) -> None:
        """Send nothing more; with an error, nobody is answered any more."""
        with self._changed:
            self._ending = True
            if error is not None and self.broken is None:
                self.broken = error
            waiting = list(self._waiting.values()) if error is not None else []
            self._changed.notify_all()
        for answers in waiting:
            answers.put(error or refused(Status.TRANSPORT_CLOSED, "the stream has ended", retryable=True))
