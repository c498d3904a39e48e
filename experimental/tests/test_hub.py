"""What a hub says of a stream that ended: a worker that is gone is so called, any other error stays what it is."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from velaria_core.errors import DataError, ExternalError, InternalError, VelariaError
from velaria_experimental.actors.line import Line
from velaria_experimental.streaming.hub import read_all
from velaria_experimental.wire.frames import Writer
from velaria_experimental.wire.v1 import runtime_pb2 as pb


def ending(raised: BaseException | None, handled: Exception | None = None) -> VelariaError:
    """What ends a stream of one frame after which this is raised, or whose handling raises that."""

    def frames() -> Iterator[bytes]:
        yield Writer("keeper-0").frame(ack=pb.Ack(ok=True)).SerializeToString()
        if raised is not None:
            raise raised

    def handle(_: pb.Frame) -> None:
        if handled is not None:
            raise handled

    return read_all(Line("hub", handle), frames())


@pytest.mark.parametrize("raised", [None, grpc.RpcError(), Exception()], ids=["end", "rpc", "bare"])
def test_a_peer_that_is_gone_is_called_so(raised: Exception | None) -> None:
    ended = ending(raised)
    assert isinstance(ended, ExternalError)
    assert (ended.code, ended.message, ended.retryable) == (
        "exchange.transport_closed",
        "a worker process is gone",
        True,
    )


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = DataError("data.type", "not a number")
    assert ending(None, handled=error) is error


@pytest.mark.parametrize("where", ["raised", "handled"])
def test_a_mistake_is_not_called_a_worker_that_is_gone(where: str) -> None:
    mistake = KeyError("rows")
    ended = ending(mistake) if where == "raised" else ending(None, handled=mistake)
    assert isinstance(ended, InternalError)
    assert (ended.code, ended.message, ended.cause) == ("exchange.stream", "KeyError: 'rows'", mistake)


def test_a_bare_exception_of_our_own_code_is_no_lost_peer() -> None:
    ended = ending(None, handled=Exception("ours"))
    assert (ended.code, ended.message) == ("exchange.stream", "Exception: ours")


def test_nonsense_is_refused_as_such() -> None:
    assert read_all(Line("hub", lambda _: None), iter([b"\xff\xff"])).code == "exchange.deserialize_error"
