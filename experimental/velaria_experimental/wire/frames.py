"""Frames: bytes from another process become a message, or a refusal with a status; never an exception of a library.

Invariant: whatever bytes come, `read` gives a frame of our version with a body, or raises an `ExternalError` whose code
begins with `exchange.`.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import count
from typing import Final

from google.protobuf.message import DecodeError

from velaria_core.errors import VelariaError
from velaria_experimental.wire.status import Status, error_message, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb

VERSION: Final = 1
FRAME_BYTES_MAX: Final = 64 << 20  # a plan may hold its values; rows come in chunks
PAYLOAD_BYTES_MAX: Final = 512 << 20
CODEC: Final = "table-arrow-ipc-v1"
SERVICE: Final = "velaria.experimental.v1.Exchange"
METHOD: Final = "Open"


class MessageType(StrEnum):
    """What a frame is for."""

    CONTROL = "control"
    DATA_BATCH = "data-batch"
    DATA_ACK = "data-ack"
    HEARTBEAT = "heartbeat"
    ERROR = "error"


_TYPES: Final = {
    "data": MessageType.DATA_BATCH,
    "credit": MessageType.DATA_ACK,
    "heartbeat": MessageType.HEARTBEAT,
    "error": MessageType.ERROR,
}


def message_type(frame: pb.Frame) -> MessageType:
    """What a frame is for."""
    return _TYPES.get(body_of(frame), MessageType.CONTROL)


def body_of(frame: pb.Frame) -> str:
    """The name of what a frame holds, empty for nothing."""
    return str(frame.WhichOneof("body") or "")


def read(data: bytes) -> pb.Frame:
    """The frame of these bytes.

    Raises:
        ExternalError[exchange.frame_error, exchange.deserialize_error, exchange.version_unsupported,
            exchange.invalid_message].
    """
    if len(data) > FRAME_BYTES_MAX:
        raise refused(Status.FRAME_ERROR, f"a frame has {FRAME_BYTES_MAX} bytes at most, and this one {len(data)}")
    frame = pb.Frame()
    try:
        frame.ParseFromString(data)
    except DecodeError as error:
        raise refused(Status.DESERIALIZE_ERROR, "the bytes are no frame") from error
    if frame.version != VERSION:
        told = f"the frame has version {frame.version}, this reads {VERSION}"
        raise refused(Status.VERSION_UNSUPPORTED, told, hint="run the same release on both sides")
    if not body_of(frame):
        raise refused(Status.INVALID_MESSAGE, "the frame has no body that this version knows")
    return frame


class Writer:
    """Numbers the frames of one sender on one stream."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self._numbers = count(1)

    def frame(
        self,
        *,
        answers: int = 0,
        register: pb.Register | None = None,
        heartbeat: pb.Heartbeat | None = None,
        submit: pb.Submit | None = None,
        assign: pb.Assign | None = None,
        data: pb.Data | None = None,
        credit: pb.Credit | None = None,
        ack: pb.Ack | None = None,
        result: pb.Result | None = None,
        cancel: pb.Cancel | None = None,
        error: pb.Error | None = None,
        inspect: pb.Inspect | None = None,
        snapshot: pb.Snapshot | None = None,
        place: pb.Place | None = None,
        barrier: pb.Barrier | None = None,
        settle: pb.Settle | None = None,
    ) -> pb.Frame:
        """The next frame; exactly one body is given."""
        return pb.Frame(
            version=VERSION,
            message_id=next(self._numbers),
            correlation_id=answers,
            node_id=self.node_id,
            register=register,
            heartbeat=heartbeat,
            submit=submit,
            assign=assign,
            data=data,
            credit=credit,
            ack=ack,
            result=result,
            cancel=cancel,
            error=error,
            inspect=inspect,
            snapshot=snapshot,
            place=place,
            barrier=barrier,
            settle=settle,
        )

    def refusal(self, error: VelariaError, answers: int = 0) -> pb.Frame:
        """An error as a frame."""
        return self.frame(answers=answers, error=error_message(error))
