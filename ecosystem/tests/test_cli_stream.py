"""`velaria stream`: what it prints, how it shows progress, how it stops. The live view is seen on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import Run, Start

from velaria.cli.script import Script

LOG = '{"level": "info", "ms": 1}\n{"level": "warn", "ms": 2}\n{"level": "info", "ms": 3}\n'
COUNT = "SELECT level, count(*) AS n FROM log GROUP BY level"
ENDLESS = "CREATE SOURCE TABLE ticks USING rate OPTIONS(rows_per_second: 2000)"
QUIET = ("--progress", "none")


@pytest.fixture(autouse=True)
def log(folder: Path) -> Path:
    (folder / "log.jsonl").write_text(LOG, encoding="utf-8")
    return folder / "log.jsonl"


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# --- rows ---------------------------------------------------------------------------------------------------


def test_a_select_prints_what_changes(run_process: Run) -> None:
    ran = run_process("stream", COUNT, "--follow", "log.jsonl", "--trigger", "now", *QUIET)
    assert (ran.code, ran.errors) == (0, "")
    found = sorted(rows(ran.text), key=str)
    assert found == [{"level": "info", "n": 2, "diff": 1}, {"level": "warn", "n": 1, "diff": 1}]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("ndjson", '{"ms": 1}\n{"ms": 2}\n{"ms": 3}\n'),
        ("csv", "ms\n1\n2\n3\n"),
        ("tsv", "ms\n1\n2\n3\n"),
    ],
)
def test_rows_of_each_form_have_one_header(run: Run, form: str, text: str) -> None:
    options = ("--follow", "log.jsonl", "--trigger", "now", "--set", "epoch_rows_max=1", "--format", form)
    ran = run("stream", "SELECT ms FROM log", "--mode", "append", *options, *QUIET)
    assert (ran.code, ran.text) == (0, text)


def test_a_table_an_epoch(run: Run) -> None:
    ran = run("stream", "SELECT count(*) AS n FROM log", "log.jsonl", "--format", "table", "--mode", "complete", *QUIET)
    assert ran.code == 0
    assert ran.text.startswith("epoch 1\n")
    assert "│     3 │" in ran.text


def test_files_are_tables_beside_streams(run: Run, folder: Path) -> None:
    (folder / "names.csv").write_text("level,name\ninfo,I\nwarn,W\n")
    text = "SELECT name, ms FROM log JOIN names USING (level)"
    ran = run("stream", text, "names.csv", "--follow", "log.jsonl", "--trigger", "now", "--mode", "append", *QUIET)
    assert sorted(rows(ran.text), key=str) == [
        {"name": "I", "ms": 1},
        {"name": "I", "ms": 3},
        {"name": "W", "ms": 2},
    ]


def test_a_folder_is_followed_file_by_file(run: Run, folder: Path) -> None:
    (folder / "in").mkdir()
    for name, value in (("1.csv", 1), ("2.csv", 2)):
        (folder / "in" / name).write_text(f"v\n{value}\n")
        os.utime(folder / "in" / name, (0, 0))
    ran = run("stream", "SELECT v FROM rows", "--follow", "rows=in", "--trigger", "now", "--mode", "append", *QUIET)
    assert rows(ran.text) == [{"v": 1}, {"v": 2}]


def test_a_script_declares_sources_and_sinks(run: Run, folder: Path) -> None:
    (folder / "pipeline.sql").write_text(
        "CREATE SOURCE TABLE ticks USING rate OPTIONS(rows_per_second: 1000, rows: 50, wait: false);\n"
        "CREATE SINK TABLE out USING csv OPTIONS(path: 'out.csv');\n"
        "INSERT INTO out SELECT value FROM ticks; -- done\n"
    )
    ran = run("stream", "-f", "pipeline.sql", "--mode", "append", "--checkpoint", "state", *QUIET)
    assert (ran.code, ran.text) == (0, "")
    assert (folder / "out.csv").read_text().splitlines() == ["value", *map(str, range(50))]


def test_a_checkpoint_goes_on(run: Run, log: Path) -> None:
    call = ("stream", "SELECT ms FROM log", "--follow", "log.jsonl", "--mode", "append", "--trigger", "now")
    assert len(rows(run(*call, "--checkpoint", "state", *QUIET).text)) == 3
    with log.open("a") as file:
        file.write('{"level": "info", "ms": 4}\n')
    assert rows(run(*call, "--checkpoint", "state", *QUIET).text) == [{"ms": 4}]


def test_parameters_are_those_of_the_query(run: Run) -> None:
    text = "SELECT ms FROM log WHERE ms > $low"
    ran = run(
        "stream", text, "--param", "low=2", "--follow", "log.jsonl", "--trigger", "now", "--mode", "append", *QUIET
    )
    assert rows(ran.text) == [{"ms": 3}]


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("SELECT 1;\nSELECT nope FROM log", "log.jsonl"), 2, "line 2, column 8: SELECT nope FROM log"),
        (("CREATE TABLE t (a INT)",), 2, "a stream is one SELECT"),
        (("SELECT 1", "--trigger", "soon"), 2, "--trigger: "),
        (("SELECT 1", "--set", "epoch_rows=1"), 2, 'no option "epoch_rows"'),
        (("SELECT ms FROM log", "log.jsonl", "--follow", "log.jsonl"), 2, 'two files are called "log"'),
        (("SELECT ms FROM x", "--follow", "x=nowhere.csv"), 2, "nowhere.csv"),
        (("SELECT level::BIGINT AS x FROM log", "log.jsonl"), 1, "info"),
        (("SELECT count(*) AS n FROM log", "log.jsonl", "--mode", "complete"), 2, "--format table"),
        (("SELECT level FROM log ORDER BY level", "--follow", "log.jsonl"), 2, "ORDER BY waits for the last row"),
        (("SELECT 1", "--set", "epoch_rows_max=many"), 2, "epoch_rows_max is a whole number, not 'many'"),
        ((), 2, 'velaria stream "SELECT ..."'),
    ],
)
def test_mistakes_are_told(run: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    ran = run("stream", *arguments, "--format", "ndjson", *QUIET)
    assert ran.code == code, ran.errors
    assert says in ran.errors
    assert ran.errors.startswith("error[")


def test_a_script_is_cut_before_its_last_statement() -> None:
    text = "CREATE TABLE a (b TEXT DEFAULT ';'); -- ; no\n/* ; */ INSERT INTO a\nVALUES ('x;y');;"
    script = Script.of(text)
    assert script.before == "CREATE TABLE a (b TEXT DEFAULT ';'); -- ; no\n/* ; */"
    assert script.is_insert
    assert len(script.last) == len(text)
    assert script.last.split("\n")[1] == "        INSERT INTO a"
    alone = Script.of("select 1")
    assert (alone.before, alone.last, alone.is_insert) == ("", "select 1", False)


# --- progress -----------------------------------------------------------------------------------------------


def test_lines_of_progress_go_to_stderr(run_process: Run) -> None:
    ran = run_process("stream", COUNT, "--follow", "log.jsonl", "--trigger", "now")
    lines = ran.errors.splitlines()
    assert "status=stopped" in lines[-1]
    assert " rows=3 " in lines[-1]
    assert all(re.match(r"stream-query-1 status=\w+ ", line) for line in lines)
    assert run_process("stream", COUNT, "--follow", "log.jsonl", "--trigger", "now", "--no-progress").errors == ""


def test_progress_as_json_is_the_contracts(run_process: Run) -> None:
    ran = run_process("stream", COUNT, "--follow", "log.jsonl", "--trigger", "now", "--progress", "json")
    told = rows(ran.errors)[-1]
    assert (told["status"], told["rows_in"], told["batches_processed"]) == ("stopped", 3, 1)
    assert told["delivery_guarantee"]["held"] == "best-effort"  # type: ignore[index]


def test_explain_of_a_stream(run: Run) -> None:
    text = f"{ENDLESS}; CREATE SINK TABLE out USING memory; INSERT INTO out SELECT value FROM ticks"
    ran = run("explain", "--stream", text)
    assert ran.code == 0
    assert [line for line in ran.text.splitlines() if not line.startswith(" ")] == ["logical", "physical", "strategy"]
    assert "  sink=out\n" in ran.text
    assert run("explain", "--stream", "--analyze", text).code == 2
    followed = run("explain", "--stream", COUNT, "--follow", "log.jsonl")
    assert "1. Scan: stream log\n" in followed.text
    assert "add --stream" in run("explain", COUNT, "--follow", "log.jsonl").errors


# --- stopping -----------------------------------------------------------------------------------------------


def read_until(stream: Callable[[], bytes], wanted: Callable[[bytes], bool]) -> bytes:
    """What comes until it is as wanted; a watchdog of the caller ends a wait in vain."""
    seen = b""
    while not wanted(seen):
        piece = stream()
        assert piece, seen
        seen += piece
    return seen


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_query_after_its_epoch(folder: Path, start: Start, number: int, code: int) -> None:
    text = (
        f"{ENDLESS}; CREATE SINK TABLE out USING csv OPTIONS(path: 'out.csv'); INSERT INTO out SELECT value FROM ticks"
    )
    call = ("stream", text, "--mode", "append", "--checkpoint", "state", "--progress", "json", "--interval", "0.05")
    process = start(*call)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    assert process.stderr is not None
    told: dict[str, object] = {}
    while not told.get("rows_in"):
        told = json.loads(process.stderr.readline())
    process.send_signal(number)
    *lines, last, word = process.stderr.read().decode().splitlines()
    assert word == "interrupted"
    assert process.wait(60) == code
    watchdog.cancel()
    stopped = json.loads(last)
    assert stopped["status"] == "stopped"
    # What was told is what is there: each row of the committed epochs, once.
    assert (folder / "out.csv").read_text().splitlines()[1:] == [str(value) for value in range(stopped["rows_in"])]
    del lines


def test_a_reader_that_goes_away_ends_the_query(start: Start) -> None:
    process = start("stream", f"{ENDLESS}; SELECT value FROM ticks", "--mode", "append", *QUIET)
    assert process.stdout is not None
    assert process.stdout.readline() == b'{"value": 0}\n'
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""


# --- a terminal ---------------------------------------------------------------------------------------------


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after `text`, which moves up and clears downwards, as the live view does."""
    lines: list[str] = [""]
    row = 0
    for piece in re.split(r"(\x1b\[\d*[A-Za-z]|\r?\n)", text):
        if found := re.fullmatch(r"\x1b\[(\d*)F", piece):
            row = max(0, row - int(found[1] or 1))
        elif piece == "\x1b[J":
            del lines[row:]
            lines.append("")
        elif piece in ("\n", "\r\n"):
            row += 1
            if row == len(lines):
                lines.append("")
        elif not piece.startswith("\x1b"):
            lines[row] += piece
    return lines


def test_the_live_view_on_a_terminal(folder: Path) -> None:
    """A real process on a real terminal: pictures are drawn over one another until Ctrl-C, which stops the query."""
    text = (
        f"{ENDLESS}; CREATE SINK TABLE out USING csv OPTIONS(path: 'out.csv'); INSERT INTO out SELECT value FROM ticks"
    )
    control, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "velaria", "stream", text, "--mode", "append", "--interval", "0.05"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=folder,
        env={**environment, "COLUMNS": "80", "LINES": "24"},
        start_new_session=True,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    os.close(terminal)

    def read() -> bytes:
        try:
            return os.read(control, 65_536)
        except OSError:  # the other end is closed
            return b""

    drawn = re.compile(rb"rows in +[1-9].*CsvAppendSink", re.DOTALL)
    seen = read_until(read, lambda seen: drawn.search(seen) is not None and seen.count(b"\x1b[J") > 3)
    process.send_signal(signal.SIGINT)
    while piece := read():
        seen += piece
    assert process.wait(60) == 130
    watchdog.cancel()
    os.close(control)
    lines = screen(seen.decode())
    assert re.match(r"stream-query-1  stopped  \d+\.\d s  best-effort$", lines[0])
    assert [line.split("  ")[1] for line in lines[1:8]] == [
        "rows in",
        "rows out",
        "epoch",
        "watermark",
        "late",
        "state",
        "in flight",
    ]
    assert "interrupted" in lines
    shares = [int(found) for found in re.findall(r"(\d+)%", "\n".join(lines))]
    assert 95 <= sum(shares) <= 105
    assert all(len(line) < 80 for line in lines)
