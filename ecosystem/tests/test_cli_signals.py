"""Stopping a command: Ctrl-C, SIGTERM, and a reader that goes away. On real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import cast

import pytest
from cli_support import ENDLESS, Run, Start

from velaria import DataflowSession
from velaria.cli.foreground import run_in_foreground, work_runs_on

pytestmark = pytest.mark.usefixtures("folder")


def wait_for_work(process: subprocess.Popen[bytes], sign: Path) -> None:
    """Wait until `sign` is there, and a little for what comes after it."""
    for _ in range(600):
        if sign.exists():
            time.sleep(0.3)
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the work never began")


def stopped(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[int, bytes]:
    """Exit code and stderr after a signal."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("form", ["table", "json", "csv", "parquet"])
def test_a_signal_stops_a_running_query(
    folder: Path, start: Start, number: signal.Signals, code: int, form: str
) -> None:
    before = set(folder.iterdir())
    process = start("sql", ENDLESS, "--format", form, "-o", "out")
    partial = None
    for _ in range(600):
        partial = next((path for path in folder.iterdir() if path.name.endswith(".partial")), None)
        if partial is not None:
            break
        time.sleep(0.05)
    assert partial is not None, "the partial file is there while the query runs"
    time.sleep(0.3)
    assert stopped(process, number) == (code, b"interrupted\n")
    # Neither the file nor a part of it.
    assert set(folder.iterdir()) == before


def test_a_statement_is_undone_and_the_database_is_whole(folder: Path, start: Start, run: Run) -> None:
    assert run("sql", "CREATE TABLE t AS SELECT 1 AS a", "--database", "x.db").code == 0
    text = f"INSERT INTO t VALUES (2); INSERT INTO t SELECT i FROM ({ENDLESS})"
    process = start("sql", text, "--database", "x.db")
    wait_for_work(process, folder / "x.db.wal")
    assert stopped(process, signal.SIGINT) == (130, b"interrupted\n")
    assert run("sql", "SELECT sum(a) AS s FROM t", "--database", "x.db", "--format", "csv").text == "s\n3\n"


def test_ctrl_c_while_stdin_is_awaited(folder: Path, start: Start) -> None:
    temporary = folder / "temporary"
    temporary.mkdir()
    process = start("sql", "SELECT * FROM stdin", "-", stdin=subprocess.PIPE, env={"TMPDIR": str(temporary)})
    assert process.stdin is not None
    process.stdin.write(b"a,b\n")
    process.stdin.flush()
    for _ in range(600):
        if any(temporary.iterdir()):
            break
        time.sleep(0.05)
    assert any(temporary.iterdir())
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert list(temporary.iterdir()) == []


def test_ctrl_c_while_nobody_reads_the_output(start: Start) -> None:
    process = start("sql", "SELECT range FROM range(1000000000)", "--format", "csv")
    assert process.stdout is not None
    assert process.stdout.readline() == b"range\n"
    time.sleep(0.5)  # the pipe fills, and the program waits
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_hang_ups_are_ignored_under_nohup(folder: Path, start: Start) -> None:
    process = start(
        "sql", ENDLESS, "-o", "out.csv", preexec_fn=lambda: cast(None, signal.signal(signal.SIGHUP, signal.SIG_IGN))
    )
    for _ in range(600):
        if any(path.name.endswith(".partial") for path in folder.iterdir()):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    assert stopped(process, signal.SIGINT)[0] == 130


@pytest.mark.parametrize("form", ["csv", "ndjson", "json", "markdown", "arrow", "parquet"])
def test_a_reader_that_goes_away_ends_it_quietly(start: Start, form: str) -> None:
    process = start("sql", "SELECT range AS i, range AS j FROM range(30000000)", "--format", form)
    assert process.stdout is not None
    assert process.stdout.read(100)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


def test_head_gets_its_lines(start: Start) -> None:
    process = start("sql", "SELECT range AS i FROM range(30000000)", "--format", "csv")
    head = subprocess.run(["head", "-2"], stdin=process.stdout, capture_output=True, text=True, check=True)
    assert head.stdout == "i\n0\n"


# --- the machinery ----------------------------------------------------------------------------------------------


def test_work_gives_back_what_it_returns_and_raises() -> None:
    with DataflowSession() as session:
        assert run_in_foreground(session, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            run_in_foreground(session, lambda: 1 // 0)
        assert not work_runs_on()


def test_a_signal_reaches_the_statement_in_this_process_too() -> None:
    with DataflowSession() as session:
        timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            run_in_foreground(session, lambda: session.sql(ENDLESS).to_arrow())
        assert not work_runs_on()
        # The session goes on.
        assert session.sql("SELECT 1 AS a").to_rows() == [{"a": 1}]
