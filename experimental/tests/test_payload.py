"""Segments, chunks and credit: what crosses arrives whole, and nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from velaria_core.errors import ExternalError
from velaria_experimental.payload.credit import CHUNK_BYTES, WINDOW, Inbox, Outbox
from velaria_experimental.payload.segments import Segments, located, mapped, sweep
from velaria_experimental.payload.tables import Placing, decoded, encoded, opened
from velaria_experimental.wire.frames import Writer, body_of
from velaria_experimental.wire.v1 import runtime_pb2 as pb

ROWS = pa.table({"k": list(range(50_000)), "t": ["a", "é"] * 25_000})


# --- shared memory ------------------------------------------------------------------------------------------------


def test_a_segment_is_mapped_and_not_copied(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    name, size = segments.write("rows", ROWS)
    before = pa.total_allocated_bytes()
    table = mapped(name, tmp_path)
    assert table.equals(ROWS)
    assert pa.total_allocated_bytes() - before < size / 10
    segments.remove("rows")
    assert segments.names() == []
    assert table.equals(ROWS), "who has it mapped goes on reading"
    segments.close()
    assert list(tmp_path.iterdir()) == []


def test_a_segment_that_is_gone_or_foreign_is_refused(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    with pytest.raises(ExternalError) as gone:
        mapped(f"{segments.folder.name}/nothing", tmp_path)
    assert gone.value.code == "exchange.missing_input"
    secret = tmp_path / "secret"
    secret.write_text("no")
    (segments.folder / "link").symlink_to(secret)
    for name in ("../secret", "/etc/passwd", f"{segments.folder.name}/../secret", "", f"{segments.folder.name}/link"):
        with pytest.raises(ExternalError) as refused:
            located(name, tmp_path)
        assert refused.value.code == "exchange.invalid_message", name
    (segments.folder / "noise").write_bytes(os.urandom(500))
    with pytest.raises(ExternalError) as noise:
        mapped(f"{segments.folder.name}/noise", tmp_path)
    assert noise.value.code == "exchange.deserialize_error"
    segments.close()


def test_only_folders_of_the_dead_are_swept(tmp_path: Path) -> None:
    """kill -9 leaves a folder, and anybody removes it; one of the living stays."""
    alive = Segments(tmp_path)
    script = (
        "import sys, time, pathlib, pyarrow as pa\n"
        "from velaria_experimental.payload.segments import Segments\n"
        "made = Segments(pathlib.Path(sys.argv[1]))\n"
        "made.write('rows', pa.table({'k': [1]}))\n"
        "print(made.folder.name, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    folder = child.stdout.readline().strip()
    assert sweep(tmp_path) == []
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert sweep(tmp_path) == [folder]
    assert [path.name for path in tmp_path.iterdir()] == [alive.folder.name]
    alive.close()


def test_size_decides_where_rows_go(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    placing = Placing(segments, min_bytes=1000)
    small, data = placing.place("j/a", ROWS.slice(0, 3))
    assert (small.segment, data is not None) == ("", True)
    large, nothing = placing.place("j/b", ROWS)
    assert (large.segment, nothing) == (f"{segments.folder.name}/j.b", None)
    assert data is not None
    assert decoded(data).equals(ROWS.slice(0, 3))
    segments.close()


# --- bytes --------------------------------------------------------------------------------------------------------


def test_payloads_that_do_not_fit_are_refused_with_their_status() -> None:
    data = encoded(ROWS)
    told = pb.Payload(payload_id="p", codec="table-arrow-ipc-v1")
    assert opened([told, told], {"p": data}, ROWS.schema).num_rows == 100_000
    for payload, received, schema, code in (
        (pb.Payload(payload_id="p", codec="table-bin-v1"), {"p": data}, ROWS.schema, "codec_missing"),
        (told, {}, ROWS.schema, "missing_input"),
        (told, {"p": data}, pa.schema([("k", pa.int32())]), "type_mismatch"),
        (told, {"p": data[:100]}, ROWS.schema, "deserialize_error"),
        (told, {"p": b"noise"}, ROWS.schema, "deserialize_error"),
    ):
        with pytest.raises(ExternalError) as refused:
            opened([payload], received, schema)
        assert refused.value.code == f"exchange.{code}"


# --- credit -------------------------------------------------------------------------------------------------------


def test_chunks_wait_for_credit_and_what_follows_waits_with_them() -> None:
    writer = Writer("a")
    outbox, inbox = Outbox(writer), Inbox()
    data = os.urandom(CHUNK_BYTES * (WINDOW + 4) + 17)
    outbox.put_payload("p", data)
    outbox.put(writer.frame(assign=pb.Assign(parts=1)))
    left = []
    while (frame := outbox.take()) is not None:
        left.append(frame)
    assert (len(left), outbox.blocked) == (WINDOW, 1)
    outbox.put(writer.frame(heartbeat=pb.Heartbeat(heartbeat_seq=1)), urgent=True)
    urgent = outbox.take()
    assert urgent is not None
    assert body_of(urgent) == "heartbeat", "what is urgent overtakes"
    assert outbox.take() is None
    granted = sum(inbox.take_in(one.data) for one in left)
    outbox.credited(granted)
    rest = []
    while (frame := outbox.take()) is not None:
        rest.append(frame)
    assert [body_of(one) for one in rest[-2:]] == ["data", "assign"]
    for one in rest[:-1]:
        inbox.take_in(one.data)
    assert inbox.forget("p") == data
    assert inbox.forget("p") is None


def test_who_sends_without_credit_or_out_of_order_is_refused() -> None:
    for chunks in (
        [pb.Data(payload_id="p", offset=at, chunk=b"") for at in [0] * (WINDOW + 1)],
        [pb.Data(payload_id="p", offset=5, chunk=b"x")],
        [pb.Data(payload_id="p", chunk=b"x"), pb.Data(payload_id="p", offset=2, chunk=b"x", last=True)],
    ):
        inbox = Inbox()
        inbox._owed = -100  # gives nothing back

        def send(inbox: Inbox = inbox, chunks: list[pb.Data] = chunks) -> None:
            for chunk in chunks:
                inbox.take_in(chunk)

        with pytest.raises(ExternalError) as refused:
            send()
        assert refused.value.code == "exchange.frame_error"
