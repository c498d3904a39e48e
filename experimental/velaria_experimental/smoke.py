"""Smoke: the shortest proof that a build talks: codecs there and back, then a scheduler, two workers and a query.

It needs no ports, no files of the user and no other process: what it starts listens on a unix socket in a folder of its
own, and is gone when it returns.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pyarrow as pa

from velaria_core.session import DataflowSession
from velaria_experimental.client import Client, Mode
from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.observe.events import Events
from velaria_experimental.payload.segments import Segments, mapped
from velaria_experimental.payload.tables import decoded, encoded
from velaria_experimental.starting import started_scheduler
from velaria_experimental.wire.frames import Writer, read
from velaria_experimental.wire.v1 import runtime_pb2 as pb

_TIMEOUT_MS: Final = 300_000  # workers may take long to start on a busy machine
_SQL = "SELECT k, count(*) AS n, sum(v) AS s, median(v) AS m FROM numbers GROUP BY k ORDER BY k"


def smoke(events: Events) -> bool:
    """Whether all of it holds; each check is an event."""
    rows = pa.table({"k": [at % 7 for at in range(10_000)], "v": list(range(10_000))})
    checks: dict[str, Callable[[], bool]] = {
        "frame": _frame_returns,
        "arrow-ipc": lambda: bool(decoded(encoded(rows)).equals(rows)),
        "shared-memory": lambda: _segment_returns(rows),
        "job": lambda: _job_returns(rows),
    }
    well = True
    for name, check in checks.items():
        holds = check()
        events("smoke", check=name, ok=holds)
        well = well and holds
    return well


def _frame_returns() -> bool:
    frame = Writer("smoke").frame(heartbeat=pb.Heartbeat(heartbeat_seq=7))
    return read(frame.SerializeToString()) == frame


def _segment_returns(rows: pa.Table) -> bool:
    segments = Segments()
    try:
        name, _ = segments.write("smoke", rows)
        return bool(mapped(name, segments.root).equals(rows))
    finally:
        segments.close()


def _job_returns(rows: pa.Table) -> bool:
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        arguments = ["--local-workers", "2"]
        address, token_file = opened.enter_context(
            started_scheduler(folder, *arguments, stdout=subprocess.DEVNULL, python=sys.executable)
        )
        session = opened.enter_context(DataflowSession())
        client = opened.enter_context(Client(address, token_file=token_file))
        session.create_temp_view("numbers", session.create_dataframe(rows))
        frame = session.sql(_SQL)
        answer = client.run(frame, JobOptions(timeout_ms=_TIMEOUT_MS))
        return answer.mode is Mode.WORKERS and bool(answer.table.equals(frame.to_arrow()))
