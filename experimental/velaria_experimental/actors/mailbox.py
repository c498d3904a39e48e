"""Mailbox: one end of the stream to the scheduler, for a process that works on threads.

What is sent goes through an `Outbox`, so chunks wait for the scheduler's credit; what comes is handed to `handle` on
the reader's thread, one frame at a time, chunks and credit excepted, which the mailbox does itself.

Invariant: `handle` is never called by two threads at once, and not after `closed` was.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

import grpc

from velaria_core.errors import ExternalError, VelariaError
from velaria_experimental.payload.credit import Inbox, Outbox
from velaria_experimental.security import credentials
from velaria_experimental.wire.frames import FRAME_BYTES_MAX, METHOD, SERVICE, Writer, body_of, read
from velaria_experimental.wire.status import Status, error_of, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_DRAIN_SECONDS: Final = 2.0
_STATUSES: Final = {
    grpc.StatusCode.UNAUTHENTICATED: Status.ARGUMENT_ERROR,
    grpc.StatusCode.UNAVAILABLE: Status.TRANSPORT_CLOSED,
    grpc.StatusCode.CANCELLED: Status.TRANSPORT_CLOSED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Status.TIMEOUT,
}


class Mailbox:
    """A stream to the scheduler, open until `close` or until it breaks.

    Args:
        handle: called with each frame.
        closed: called once, when the stream has ended, with what ended it.

    Attributes:
        inbox: payloads that came.
        writer: makes the frames to send.
    """

    def __init__(
        self,
        address: str,
        token: str,
        node_id: str,
        handle: Callable[[pb.Frame], None],
        closed: Callable[[VelariaError], None],
    ) -> None:
        self.writer = Writer(node_id)
        self.inbox = Inbox()
        self._handle, self._closed = handle, closed
        self._lock = threading.Condition()
        self._outbox = Outbox(self.writer)
        self._ending = self._draining = False
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        opened = self._channel.stream_stream(f"/{SERVICE}/{METHOD}")
        self._call = opened(self._frames(), metadata=credentials(token))
        self._thread = threading.Thread(target=self._read, name=f"{node_id}-mailbox", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def send(self, frame: pb.Frame, *, urgent: bool = False) -> None:
        """Send a frame when its turn comes; does not wait."""
        with self._lock:
            self._outbox.put(frame, urgent=urgent)
            self._lock.notify_all()

    def send_payload(self, payload_id: str, data: bytes) -> None:
        """Send the bytes of a payload; what is sent later arrives later."""
        with self._lock:
            self._outbox.put_payload(payload_id, data)
            self._lock.notify_all()

    def close(self) -> None:
        """End the stream: what waits to be sent is, if the scheduler takes it soon."""
        with self._lock:
            self._draining = True
            self._lock.notify_all()
        reads = self._thread.ident is not None and threading.current_thread() is not self._thread
        if reads:
            self._thread.join(_DRAIN_SECONDS)
        with self._lock:
            self._ending = True
            self._lock.notify_all()
        self._call.cancel()
        self._channel.close()
        if reads:
            self._thread.join()

    def _frames(self) -> Iterator[bytes]:
        """What gRPC sends, on a thread of its own."""
        while True:
            with self._lock:
                while (frame := self._outbox.take()) is None and not (self._ending or self._draining):
                    self._lock.wait()
            if frame is None or self._ending:
                return
            yield frame.SerializeToString()

    def _read(self) -> None:
        ended: VelariaError = refused(Status.TRANSPORT_CLOSED, "the scheduler ended the stream", retryable=True)
        try:
            for data in self._call:
                self._take(read(data))
        except grpc.RpcError as error:
            status = _STATUSES.get(error.code(), Status.TRANSPORT_ERROR)
            again = status in (Status.TRANSPORT_CLOSED, Status.TRANSPORT_ERROR, Status.TIMEOUT)
            ended = refused(status, f"the stream to the scheduler broke: {error.details()}", retryable=again)
        except VelariaError as error:
            ended = error
        finally:
            with self._lock:
                self._ending = True
                self._lock.notify_all()
            self._call.cancel()
            self._closed(ended)

    def _take(self, frame: pb.Frame) -> None:
        match body_of(frame):
            case "data":
                if granted := self.inbox.take_in(frame.data):
                    self.send(self.writer.frame(credit=pb.Credit(chunks=granted)), urgent=True)
            case "credit":
                with self._lock:
                    self._outbox.credited(frame.credit.chunks)
                    self._lock.notify_all()
            case _:
                self._handle(frame)


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
        self._queue.put(answer)

    def next(self, seconds: float) -> pb.Frame:
        """The next answer, waited for so long at most.

        Raises:
            ExternalError[exchange.timeout]: none came. VelariaError: what the scheduler, or the stream, said instead.
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


class Asking:
    """Who waits for answers, by the number of the asking frame. For one mailbox."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Answers] = {}
        self._broken: VelariaError | None = None

    def expect(self, frame: pb.Frame) -> Answers:
        """To be called before the frame is sent."""

        def close() -> None:
            with self._lock:
                self._waiting.pop(frame.message_id, None)

        answers = Answers(close)
        with self._lock:
            if self._broken is not None:
                answers.put(self._broken)
            self._waiting[frame.message_id] = answers
        return answers

    def answered(self, frame: pb.Frame) -> bool:
        """Whether somebody waits for this frame; then it is theirs."""
        with self._lock:
            answers = self._waiting.get(frame.correlation_id)
        if answers is None:
            return False
        answers.put(frame)
        return True

    def broke(self, error: VelariaError) -> None:
        """The stream has ended: nobody will be answered."""
        with self._lock:
            self._broken = error
            waiting = list(self._waiting.values())
        for answers in waiting:
            answers.put(error)


def is_lasting(error: VelariaError) -> bool:
    """Whether a new stream would meet the same error."""
    return not (isinstance(error, ExternalError) and error.retryable)
