"""Mailbox: a line to a scheduler, or to the query whose step a worker keeps: the end that opened the stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import grpc

from velaria_core.errors import ExternalError, VelariaError
from velaria_experimental.actors.line import Line
from velaria_experimental.security import credentials
from velaria_experimental.wire.frames import FRAME_BYTES_MAX, METHOD, SERVICE, read
from velaria_experimental.wire.status import Status, refused
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


class Mailbox(Line):
    """A stream that this process opens, until `close` or until it breaks.

    Args:
        handle: called with each frame, on the reader's thread.
        closed: called once, when the stream has ended, with what ended it.
    """

    def __init__(
        self,
        address: str,
        token: str,
        node_id: str,
        handle: Callable[[pb.Frame], None],
        closed: Callable[[VelariaError], None] = lambda _: None,
    ) -> None:
        super().__init__(node_id, handle)
        self._closed = closed
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        opened = self._channel.stream_stream(f"/{SERVICE}/{METHOD}")
        self._call = opened(self.frames(), metadata=credentials(token))
        self._thread = threading.Thread(target=self._read, name=f"{node_id}-mailbox", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """End the stream: what waits to be sent is, if the other side takes it soon."""
        self.drain()
        reads = self._thread.ident is not None and threading.current_thread() is not self._thread
        if reads:
            self._thread.join(_DRAIN_SECONDS)
        self.end()
        self._call.cancel()
        self._channel.close()
        if reads:
            self._thread.join()

    def _read(self) -> None:
        ended: VelariaError = refused(Status.TRANSPORT_CLOSED, "the other side ended the stream", retryable=True)
        try:
            for data in self._call:
                self.take(read(data))
        except grpc.RpcError as error:
            status = _STATUSES.get(error.code(), Status.TRANSPORT_ERROR)
            again = status in (Status.TRANSPORT_CLOSED, Status.TRANSPORT_ERROR, Status.TIMEOUT)
            ended = refused(status, f"the stream broke: {error.details()}", retryable=again)
        except VelariaError as error:
            ended = error
        finally:
            self.end(ended)
            self._call.cancel()
            self._closed(ended)


def is_lasting(error: VelariaError) -> bool:
    """Whether a new stream would meet the same error."""
    return not (isinstance(error, ExternalError) and error.retryable)
