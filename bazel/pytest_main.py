"""Runs pytest as a Bazel test: report, sharding, filter and scratch space as Bazel's environment asks."""

import faulthandler
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

_ROOM_BYTES = 1 << 30  # the suites together have a tenth of it at a time


class Shard:
    """Keeps every n-th test where Bazel has split the target into n shards."""

    def __init__(self) -> None:
        self.index = int(os.environ.get("TEST_SHARD_INDEX", "0"))
        self.total = int(os.environ.get("TEST_TOTAL_SHARDS", "1"))
        if status := os.environ.get("TEST_SHARD_STATUS_FILE"):
            Path(status).touch()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = items[self.index :: self.total]


def hide_source_tree() -> None:
    """Drops editable installs, so that a test imports only what its target declares."""
    source = Path(__file__).resolve().parent.parent
    environment = Path(sys.prefix).resolve()
    for entry in list(sys.path):
        path = Path(entry).resolve()
        if path.is_relative_to(source) and not path.is_relative_to(environment):
            sys.path.remove(entry)


def memory_folder() -> Path | None:
    """A file system in memory with room for what tests write, if there is one. A killed process leaves there what it
    leaves on a disk, and a quarter of the time of many tests is waiting for a disk."""
    folder = Path("/dev/shm")
    try:
        has_room = shutil.disk_usage(folder).free >= _ROOM_BYTES
    except OSError:
        return None
    return folder if has_room and os.access(folder, os.W_OK) else None


def main(args: list[str]) -> int:
    faulthandler.register(signal.SIGTERM, chain=True)  # on a timeout, show where it hung
    hide_source_tree()
    options = ["-p", "no:cacheprovider"]
    held = ExitStack()
    if scratch := os.environ.get("TEST_TMPDIR"):
        # The source tree is read-only here; all that tests and hypothesis write goes when the test ends.
        memory = memory_folder()
        folder = held.enter_context(tempfile.TemporaryDirectory("-velaria-test", dir=memory or scratch))
        options.append(f"--basetemp={folder}/pytest")
        os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{scratch}/hypothesis")
    if report := os.environ.get("XML_OUTPUT_FILE"):
        options += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    if only := os.environ.get("TESTBRIDGE_TEST_ONLY"):
        options.append(f"-k={only}")
    shard = Shard()
    with held:
        code = pytest.main(options + args, plugins=[shard])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED and shard.total > 1:
        return 0
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
