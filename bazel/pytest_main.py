"""Runs pytest as a Bazel test: report, sharding, filter and scratch space as Bazel's environment asks."""

import faulthandler
import os
import signal
import sys
from pathlib import Path

import pytest


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


def main(args: list[str]) -> int:
    faulthandler.register(signal.SIGTERM, chain=True)  # on a timeout, show where it hung
    hide_source_tree()
    options = ["-p", "no:cacheprovider"]
    if scratch := os.environ.get("TEST_TMPDIR"):
        # The source tree is read-only here; all that tests and hypothesis write goes with the sandbox.
        options.append(f"--basetemp={scratch}/pytest")
        os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{scratch}/hypothesis")
    if report := os.environ.get("XML_OUTPUT_FILE"):
        options += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    if only := os.environ.get("TESTBRIDGE_TEST_ONLY"):
        options.append(f"-k={only}")
    shard = Shard()
    code = pytest.main(options + args, plugins=[shard])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED and shard.total > 1:
        return 0
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
