"""A scheduler and workers as processes, for tests; and what they must have left behind: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from velaria_experimental.client import Client
from velaria_experimental.payload.segments import sweep

STARTED_SECONDS = 300.0  # a process that others leave no time to


class Cluster:
    """A scheduler on a unix socket, with workers that it started or that were started beside it."""

    def __init__(self, folder: Path, shm: Path) -> None:
        self.folder, self.shm = folder, shm
        # The path of a socket is short; that of a test's folder need not be.
        self._sockets = tempfile.TemporaryDirectory(prefix="vx-")
        self.address, self.token_file = f"unix:{self._sockets.name}/s", folder / "token"
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "VELARIA_EXPERIMENTAL_SHM": str(shm),
        }
        self.events: list[dict[str, Any]] = []
        self.scheduler: subprocess.Popen[str] | None = None
        self.workers: dict[str, subprocess.Popen[str]] = {}
        self._lock = threading.Condition()

    def start_scheduler(self, *arguments: str) -> None:
        command = ["scheduler", "--listen", self.address, "--token-file", str(self.token_file), "--child"]
        self.scheduler = self._started([*command, "--journal", str(self.folder / "journal"), *arguments])
        self.until(lambda told: told["event"] == "listening")

    def start_worker(self, name: str, *arguments: str) -> None:
        command = ["worker", "--connect", self.address, "--token-file", str(self.token_file), "--node-id", name]
        self.workers[name] = self._started([*command, *arguments])

    def _started(self, arguments: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "velaria_experimental", *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._lock:
                self.events.append(json.loads(line))
                self._lock.notify_all()

    def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = STARTED_SECONDS) -> dict[str, Any]:
        """The first event, from now on or before, of which this holds; taken out, so that it is found once."""
        end = monotonic() + seconds
        with self._lock:
            while True:
                for at, told in enumerate(self.events):
                    if holds(told):
                        del self.events[at]
                        return told
                assert self._lock.wait(max(0.0, end - monotonic())), f"no such event: {self.events[-20:]}"

    def ready(self, workers: int) -> None:
        """Wait until so many workers are registered."""
        end = monotonic() + STARTED_SECONDS
        with Client(self.address, token_file=self.token_file, shared_memory=False) as client:
            while client.workers() < workers:
                assert monotonic() < end, "workers did not register"
                sleep(0.02)

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in [*self.workers.values(), *([self.scheduler] if self.scheduler is not None else [])]:
            if process.poll() is None:
                process.terminate()
            assert process.stdin is not None
            process.stdin.close()
        for process in [*self.workers.values(), *([self.scheduler] if self.scheduler is not None else [])]:
            process.wait(60)
        self._sockets.cleanup()


def processes_of(folder: Path) -> list[int]:
    """Processes whose command line names a folder: those that a cluster in it has left."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in line and b"velaria_experimental" in line:
                found.append(int(entry.name))
    return found


@contextmanager
def cluster(folder: Path, *arguments: str, workers: int = 2) -> Iterator[Cluster]:
    """A scheduler with workers that it keeps running. Afterwards no process and no segment of theirs is left."""
    shm = folder / "shm"
    shm.mkdir(exist_ok=True)
    made = Cluster(folder, shm)
    before = os.environ.get("VELARIA_EXPERIMENTAL_SHM")
    os.environ["VELARIA_EXPERIMENTAL_SHM"] = str(shm)  # of clients in this process
    try:
        made.start_scheduler("--local-workers", str(workers), *arguments)
        made.ready(workers)
        yield made
    finally:
        try:
            made.close()
            end = monotonic() + 30
            while (left := processes_of(folder)) and monotonic() < end:
                sleep(0.02)
            assert not left, f"processes are left: {left}"
            sweep(shm)  # of processes that were killed
            assert not list(shm.iterdir()), f"segments are left: {list(shm.rglob('*'))}"
        finally:
            if before is None:
                del os.environ["VELARIA_EXPERIMENTAL_SHM"]
            else:
                os.environ["VELARIA_EXPERIMENTAL_SHM"] = before
