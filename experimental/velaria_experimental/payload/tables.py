"""Tables as payloads: in shared memory from a size on, else as bytes that go over the stream; and back.

`Placing` decides by size: a segment costs a file and its pages, some 30 us, bytes are copied four times on their way
through the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from velaria_experimental.payload.segments import Segments, mapped
from velaria_experimental.wire.frames import CODEC, PAYLOAD_BYTES_MAX
from velaria_experimental.wire.status import Status, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb

SHARED_MEMORY_MIN_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Placing:
    """Where the tables of this process go.

    Attributes:
        segments: its shared memory; None sends everything over the stream.
        min_bytes: from which size on a table goes there.
    """

    segments: Segments | None
    min_bytes: int = SHARED_MEMORY_MIN_BYTES

    def place(self, payload_id: str, table: pa.Table, part: int = 0) -> tuple[pb.Payload, bytes | None]:
        """A table as a payload, and its bytes where they are to be sent.

        Raises:
            ExternalError[exchange.serialize_error].
        """
        told = pb.Payload(payload_id=payload_id, codec=CODEC, rows=table.num_rows, part=part)
        if self.segments is not None and table.nbytes >= self.min_bytes:
            told.segment, told.size = self.segments.write(payload_id.replace("/", "."), table)
            return told, None
        data = encoded(table)
        told.size = len(data)
        return told, data


def encoded(table: pa.Table) -> bytes:
    """A table as the bytes of an Arrow IPC stream.

    Raises:
        ExternalError[exchange.serialize_error]: they are too many.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    buffer = sink.getvalue()
    if buffer.size > PAYLOAD_BYTES_MAX:
        told = f"a payload has {PAYLOAD_BYTES_MAX} bytes at most, and this one {buffer.size}"
        raise refused(Status.SERIALIZE_ERROR, told, hint="use more tasks, so that each has fewer rows")
    return bytes(buffer)


def decoded(data: bytes) -> pa.Table:
    """The table of these bytes, over them: nothing is copied.

    Raises:
        ExternalError[exchange.deserialize_error].
    """
    try:
        return pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise refused(Status.DESERIALIZE_ERROR, f"a payload is no Arrow stream: {error}") from error


def opened(payloads: Sequence[pb.Payload], received: Mapping[str, bytes], schema: pa.Schema) -> pa.Table:
    """The rows of several payloads, one after the other.

    Args:
        received: the bytes of those that are in no segment.
    Raises:
        ExternalError[exchange.missing_input, exchange.codec_missing, exchange.type_mismatch, ...].
    """
    tables = []
    for payload in payloads:
        if payload.codec != CODEC:
            raise refused(Status.CODEC_MISSING, f"no codec {payload.codec!r}", hint=f"there is {CODEC}")
        if payload.segment:
            table = mapped(payload.segment)
        elif payload.payload_id in received:
            table = decoded(received[payload.payload_id])
        else:
            raise refused(Status.MISSING_INPUT, f"payload {payload.payload_id} did not come", retryable=True)
        if not table.schema.equals(schema):
            told = f"payload {payload.payload_id} has columns {table.schema.names}, not {schema.names}, or other types"
            raise refused(Status.TYPE_MISMATCH, told)
        tables.append(table)
    return pa.concat_tables(tables) if tables else schema.empty_table()
