"""Hub: the end of the streams that a query's process holds, and the worker processes at the others.

It listens on a unix socket in a folder of its own, with a token of its own; the processes end with it, also when this
process is killed, and are not started again: their state went with them, and the query restarts from its checkpoint.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from velaria_core.errors import ExternalError, InternalError, VelariaError
from velaria_experimental.actors.line import Line
from velaria_experimental.actors.mailbox import CHANNEL_OPTIONS
from velaria_experimental.payload.segments import Segments, sweep
from velaria_experimental.payload.tables import Placing
from velaria_experimental.security import allowed, write_token
from velaria_experimental.wire.frames import METHOD, SERVICE, body_of, read
from velaria_experimental.wire.status import Status, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb

_START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 5.0


class Hub:
    """So many worker processes, and a line to each.

    Attributes:
        lines: in the order of the workers' numbers.
        placing: where what is sent to them goes.

    Raises:
        ExternalError[exchange.timeout, exchange.transport_closed]: they did not start.
    """

    def __init__(self, count: int, *, shared_memory: bool, min_bytes: int) -> None:
        sweep()
        self._folder = Path(tempfile.mkdtemp(prefix="velaria-hub-"))
        self._segments = Segments() if shared_memory else None
        self.placing = Placing(self._segments, min_bytes)
        address, token_file = f"unix:{self._folder}/socket", self._folder / "token"
        self._token = write_token(token_file)
        self._changed = threading.Condition()
        self._found: dict[str, Line] = {}
        # Two threads for each stream: gRPC takes one to read and one to send.
        self._server = grpc.server(ThreadPoolExecutor(2 * count + 2, "velaria-hub"), options=CHANNEL_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})])
        self._server.add_insecure_port(address)
        self._server.start()
        names = [f"keeper-{at}" for at in range(count)]
        command = [sys.executable, "-m", "velaria_experimental", "keeper", "--connect", address, "--child"]
        command += ["--token-file", str(token_file), "--shared-memory-min-bytes", str(min_bytes)]
        command += [] if shared_memory else ["--no-shared-memory"]
        self._processes = [
            subprocess.Popen([*command, "--node-id", name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            for name in names
        ]
        try:
            with self._changed:
                there = self._changed.wait_for(lambda: len(self._found) == count or self._dead(), _START_SECONDS)
            if not there or len(self._found) < count:
                raise ExternalError(
                    "exchange.timeout", f"{len(self._found)} of {count} worker processes started", retryable=True
                )
        except BaseException:
            self.close()
            raise
        self.lines = [self._found[name] for name in names]

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def release(self, prefix: str) -> None:
        """Remove what was sent under names that begin so."""
        if self._segments is not None:
            self._segments.remove(prefix)

    def close(self) -> None:
        """End the processes and the streams."""
        for line in self._found.values():
            line.end(refused(Status.TRANSPORT_CLOSED, "the query has ended"))
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._server.stop(grace=None).wait()
        if self._segments is not None:
            self._segments.close()
        sweep()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _dead(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    def _stream(self, frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        if not allowed(self._token, context.invocation_metadata()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token of the hub is needed")
        register = read(next(frames))
        if body_of(register) != "register":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a stream begins with register")
        line = Line("hub", lambda _: None)
        line.send(line.writer.frame(answers=register.message_id, ack=pb.Ack(ok=True)))
        threading.Thread(target=self._read, args=(line, frames), name="velaria-hub-reader", daemon=True).start()
        with self._changed:
            self._found[register.node_id] = line
            self._changed.notify_all()
        yield from line.frames()

    def _read(self, line: Line, frames: Iterator[bytes]) -> None:
        line.end(read_all(line, frames))
        with self._changed:
            self._changed.notify_all()


def read_all(line: Line, frames: Iterator[bytes]) -> VelariaError:
    """Hand a stream's frames to a line. Returns what ended it: any error as it is, and the peer's end as one too."""
    try:
        for data in _received(frames):
            line.take(read(data))
    except VelariaError as error:
        return error
    except Exception as error:  # noqa: BLE001 -- whatever it is, who waits for an answer must be told
        return InternalError("exchange.stream", f"{type(error).__name__}: {error}", cause=error)
    return refused(Status.TRANSPORT_CLOSED, "a worker process is gone", retryable=True)


def _received(frames: Iterator[bytes]) -> Iterator[bytes]:
    """The frames of a stream until it ends, or breaks since its peer is gone."""
    while True:
        try:
            data = next(frames)
        except StopIteration:
            return
        except Exception as error:
            # Where the peer is gone gRPC raises its own error, or an `Exception` of no class of its own.
            if isinstance(error, grpc.RpcError) or type(error) is Exception:
                return
            raise
        yield data
