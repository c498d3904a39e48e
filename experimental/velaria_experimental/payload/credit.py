"""Credit: a sender has so many chunks in flight at most, and its receiver says when it takes more.

An `Outbox` holds what is to be sent to one peer. Frames leave in their order, but for urgent ones (heartbeats, credit,
cancel), which overtake; a chunk leaves only against credit, and what stands behind it waits with it, so that a task
never arrives before its rows. An `Inbox` puts chunks together and says how much credit to give back.

Both only keep accounts: who waits, and how, is the caller's (`actors.mailbox`).

Source: Kung et al., Credit-Based Flow Control for ATM Networks, SIGCOMM 1994.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from velaria_experimental.wire.frames import PAYLOAD_BYTES_MAX, Writer, body_of
from velaria_experimental.wire.status import Status, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb

CHUNK_BYTES: Final = 1 << 20
WINDOW: Final = 16
HELD_BYTES_MAX: Final = 2 << 30  # of one peer's payloads that are not complete, or not asked for yet


class Outbox:
    """What waits to be sent to one peer.

    Attributes:
        blocked: how often a chunk had to wait for credit.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.blocked = 0
        self._ordered: deque[pb.Frame] = deque()
        self._urgent: deque[pb.Frame] = deque()
        self._credit = WINDOW
        self._waits = False

    def put(self, frame: pb.Frame, *, urgent: bool = False) -> None:
        """Send a frame when its turn comes."""
        (self._urgent if urgent else self._ordered).append(frame)

    def put_payload(self, payload_id: str, data: bytes) -> None:
        """Send the bytes of a payload in chunks."""
        starts = range(0, len(data), CHUNK_BYTES) if data else (0,)
        for start in starts:
            chunk = data[start : start + CHUNK_BYTES]
            last = start + len(chunk) >= len(data)
            self.put(self.writer.frame(data=pb.Data(payload_id=payload_id, offset=start, chunk=chunk, last=last)))

    def credited(self, chunks: int) -> None:
        """The peer takes so many more."""
        self._credit += chunks

    def take(self) -> pb.Frame | None:
        """The next frame that may leave now; None while there is none."""
        if self._urgent:
            return self._urgent.popleft()
        if not self._ordered:
            return None
        if body_of(self._ordered[0]) == "data":
            if self._credit <= 0:
                self.blocked += not self._waits
                self._waits = True
                return None
            self._credit -= 1
        self._waits = False
        return self._ordered.popleft()

    def __len__(self) -> int:
        return len(self._ordered) + len(self._urgent)


class Inbox:
    """Payloads that come in chunks from one peer.

    Attributes:
        received: those that are complete, by their id; whoever takes one removes it.
    """

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}
        self._open: dict[str, list[bytes]] = {}
        self._sizes: dict[str, int] = {}
        self._held = 0
        self._window = WINDOW
        self._owed = 0

    def take_in(self, data: pb.Data) -> int:
        """Add a chunk; returns the credit to give back now, mostly 0.

        Raises:
            ExternalError[exchange.frame_error]: it was sent without credit, out of order, or is too much.
        """
        self._window -= 1
        if self._window < 0:
            raise refused(Status.FRAME_ERROR, "a chunk came without credit")
        if data.offset == 0:
            self.forget(data.payload_id)  # it is sent anew, and has the same rows
        parts = self._open.setdefault(data.payload_id, [])
        size = self._sizes.setdefault(data.payload_id, 0)
        if data.offset != size:
            raise refused(Status.FRAME_ERROR, f"chunk {data.offset} of {data.payload_id[:80]!r} is not the next one")
        self._held += len(data.chunk)
        if size + len(data.chunk) > PAYLOAD_BYTES_MAX or self._held > HELD_BYTES_MAX:
            raise refused(Status.FRAME_ERROR, f"payload {data.payload_id[:80]!r} is larger than one may be")
        parts.append(data.chunk)
        self._sizes[data.payload_id] = size + len(data.chunk)
        if data.last:
            del self._open[data.payload_id], self._sizes[data.payload_id]
            self.received[data.payload_id] = b"".join(parts)
        self._owed += 1
        if self._owed < WINDOW // 2:
            return 0
        granted, self._owed = self._owed, 0
        self._window += granted
        return granted

    def forget_all(self, prefix: str) -> None:
        """Remove the payloads whose names begin so."""
        for payload_id in [one for one in tuple(self.received) if one.startswith(prefix)]:
            self.forget(payload_id)

    def forget(self, payload_id: str) -> bytes | None:
        """Remove a payload, and give its bytes."""
        data = self.received.pop(payload_id, None)
        if data is not None:
            self._held -= len(data)
        return data
