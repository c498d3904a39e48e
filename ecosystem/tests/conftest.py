"""Fixtures of the command line: run it in this process, or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import ORDERS, Ran, Run, Start
from click.testing import CliRunner
from hypothesis import HealthCheck, settings

from velaria.cli.program import program

# A machine that is busy with other tests is no failure.
settings.register_profile("velaria", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("velaria")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of whoever runs the tests changes what a command does."""
    ours = [name for name in os.environ if name.startswith("VELARIA_") and name != "VELARIA_UPDATE_GOLDEN"]
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", *ours):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `orders.csv` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.csv").write_text(ORDERS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run() -> Run:
    """Run a command line in this process: `run("sql", "SELECT 1", stdin=b"...", env={...})`."""

    def invoke(*arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Ran:
        result = CliRunner().invoke(program, arguments, input=stdin, env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Ran(result.exit_code, result.stdout_bytes, result.stderr)

    return invoke


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command line as a process: `start("sql", "SELECT 1", stdin=PIPE)`. It is killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, env: dict[str, str] | None = None, **rest: object) -> subprocess.Popen[bytes]:
        settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **rest}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", "velaria", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})},
            **settings,  # type: ignore[call-overload]
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run_process(start: Start) -> Run:
    """Run a command line as a process, to its end."""

    def invoke(*arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Ran:
        process = start(*arguments, env=env, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        data, errors = process.communicate(stdin, timeout=120)
        return Ran(process.returncode, data, errors.decode())

    return invoke
