"""Frames that nobody should send: the scheduler answers or hangs up, and goes on with everybody else's work."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import grpc
import pyarrow as pa
import pytest
from clusters import Cluster, cluster

from velaria_core.errors import ExternalError
from velaria_core.session import DataflowSession
from velaria_experimental.client import Client
from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.security import credentials, read_token
from velaria_experimental.wire.frames import METHOD, SERVICE, VERSION, Writer, body_of, read
from velaria_experimental.wire.v1 import runtime_pb2 as pb

ROUNDS = int(os.environ.get("VELARIA_FUZZ", "30"))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("fuzz"), workers=1) as made:
        yield made


def sent(nodes: Cluster, frames: Sequence[bytes]) -> tuple[list[pb.Frame], grpc.StatusCode]:
    """What a stream of these frames is answered, and how it ends."""
    answers = []
    with grpc.insecure_channel(nodes.address) as channel:
        opened = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        call = opened(iter(frames), metadata=credentials(read_token(nodes.token_file)), timeout=20)
        try:
            answers = [read(data) for data in call]
        except grpc.RpcError as error:
            return answers, error.code()
    return answers, grpc.StatusCode.OK


def works(nodes: Cluster) -> bool:
    """Whether a job still gets its answer."""
    with DataflowSession() as session, Client(nodes.address, token_file=nodes.token_file, tasks=2) as client:
        session.create_temp_view("t", session.create_dataframe(pa.table({"k": [1, 1, 2]})))
        frame = session.sql("SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY k")
        return client.run(frame, JobOptions(timeout_ms=300_000)).table.equals(frame.to_arrow())


def registered(role: str = "client") -> tuple[Writer, pb.Frame]:
    writer = Writer("fuzz")
    return writer, writer.frame(register=pb.Register(role=role, slots=1))


def mutated(random: Random, data: bytes) -> bytes:
    """The bytes with a few of them changed, cut, or doubled."""
    found = bytearray(data)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(found) + 1)
        match random.randrange(3):
            case 0 if at < len(found):
                found[at] = random.randrange(256)
            case 1:
                del found[at : at + random.randint(1, 9)]
            case _:
                found[at:at] = random.randbytes(random.randint(1, 9))
    return bytes(found)


def plausible(random: Random, writer: Writer) -> pb.Frame:
    """A frame that reads well and means nothing."""
    name = random.choice(["", "j", "c0", "../x", "x" * 5000, "\0", "数据"])
    key = pb.TaskKey(job_id=name, chain_id="c0", task_id=random.randrange(1 << 32), attempt=random.randrange(9))
    payload = pb.Payload(
        payload_id=name,
        codec=random.choice(["", "table-arrow-ipc-v1"]),
        size=random.randrange(1 << 63),
        segment=random.choice(["", "velaria-x-0-000000000000/a", "../../etc/passwd"]),
        part=random.randrange(1 << 32),
    )
    chain = pb.Chain(chain_id=name, tasks=random.choice([0, 1, 1 << 31]), plan="{}", parts=random.randrange(3))
    job = pb.Job(job_id=name, chains=[chain] * random.randrange(3), payloads=[payload] * random.randrange(3))
    return random.choice(
        [
            lambda: writer.frame(heartbeat=pb.Heartbeat(heartbeat_seq=random.randrange(1 << 60), running=[key])),
            lambda: writer.frame(submit=pb.Submit(job=job)),
            lambda: writer.frame(assign=pb.Assign(task=key)),
            lambda: writer.frame(data=pb.Data(payload_id=name, offset=random.randrange(99), chunk=b"x" * 99)),
            lambda: writer.frame(credit=pb.Credit(chunks=random.randrange(1 << 32))),
            lambda: writer.frame(ack=pb.Ack(job_id=name, task=key, ok=random.random() < 0.5)),
            lambda: writer.frame(result=pb.Result(task=key, ok=random.random() < 0.5, payloads=[payload])),
            lambda: writer.frame(cancel=pb.Cancel(job_id=name)),
            lambda: writer.frame(error=pb.Error(status=name, error_type="KeyError", code=name)),
            lambda: writer.frame(inspect=pb.Inspect(job_id=name)),
            lambda: writer.frame(snapshot=pb.Snapshot(json="{")),
            lambda: registered(random.choice(["worker", "client", "king"]))[1],
        ]
    )()


@pytest.mark.parametrize("role", ["client", "worker"])
def test_the_scheduler_outlives_any_frames(nodes: Cluster, role: str) -> None:
    for seed in range(ROUNDS):
        random = Random(f"{role} {seed}")
        writer, register = registered(role)
        frames = [register.SerializeToString()] if seed % 4 else []
        for _ in range(random.randint(1, 12)):
            frame = plausible(random, writer).SerializeToString()
            frames.append(mutated(random, frame) if random.random() < 0.4 else frame)
        if random.random() < 0.2:
            frames.append(random.randbytes(random.randrange(3000)))
        answers, code = sent(nodes, frames)
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED), (seed, code, answers)
    assert works(nodes)


def test_what_is_no_frame_is_answered_with_its_status(nodes: Cluster) -> None:
    """X-10."""
    writer, register = registered()
    of_the_future = pb.Frame(version=VERSION + 1, message_id=1, heartbeat=pb.Heartbeat())
    for frames, code in (
        ([b"\xff\xff\xff"], "deserialize_error"),
        ([of_the_future.SerializeToString()], "version_unsupported"),
        ([pb.Frame(version=VERSION).SerializeToString()], "invalid_message"),
        ([writer.frame(submit=pb.Submit()).SerializeToString()], "invalid_message"),
        ([register.SerializeToString(), writer.frame(submit=pb.Submit()).SerializeToString()], "argument_error"),
    ):
        answers, _ = sent(nodes, frames)
        assert [one.error.code for one in answers if body_of(one) == "error"] == [f"exchange.{code}"]


def test_noise_on_the_socket(nodes: Cluster) -> None:
    for seed in range(10):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(nodes.address.removeprefix("unix:"))
            raw.sendall(Random(seed).randbytes(5000))
    assert works(nodes)


def test_a_frame_that_is_too_large_is_refused() -> None:
    with pytest.raises(ExternalError) as refused:
        read(bytes(65 << 20))
    assert refused.value.code == "exchange.frame_error"


def test_nothing_is_pickled() -> None:
    """Neither is there pickle in the package, nor anything that makes objects of names."""
    package = Path(str(__import__("velaria_experimental").__file__)).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert "pickle" not in text or "no pickle" in text, path
        assert "eval(" not in text, path
