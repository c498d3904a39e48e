"""The forms of output: what each prints, that it reads back, and that a file appears whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from cli_support import ENDLESS, Run
from pyarrow import parquet

from velaria import DataflowSession
from velaria.cli.destination import Gate
from velaria.cli.formats import SUFFIXES, Format

VALUES = """
SELECT * FROM (VALUES
    (1, 'plain', 1.5, true),
    (2, 'a,b "c"' || chr(10) || 'd|e', NULL, false),
    (3, '', 0.1, NULL),
    (4, NULL, -2.0, true)
) AS t(id, text, x, flag) ORDER BY id
"""


def test_json_is_one_document_with_a_row_a_line(run: Run) -> None:
    ran = run("sql", VALUES, "--format", "json")
    assert json.loads(ran.text) == [
        {"id": 1, "text": "plain", "x": 1.5, "flag": True},
        {"id": 2, "text": 'a,b "c"\nd|e', "x": None, "flag": False},
        {"id": 3, "text": "", "x": 0.1, "flag": None},
        {"id": 4, "text": None, "x": -2.0, "flag": True},
    ]
    assert ran.text.splitlines()[0] == "["
    assert len(ran.text.splitlines()) == 6


def test_ndjson_has_the_rows_of_json(run: Run) -> None:
    lines = run("sql", VALUES, "--format", "ndjson").text.splitlines()
    assert [json.loads(line) for line in lines] == json.loads(run("sql", VALUES, "--format", "json").text)


def test_json_of_every_kind_of_value(run: Run) -> None:
    text = """
    SELECT 9007199254740993 AS big, 170141183460469231731687303715884105727 AS huge, 12.50::DECIMAL(9,2) AS dec,
        'NaN'::DOUBLE AS nan, '-Infinity'::FLOAT AS inf, 'ab\\xFF'::BLOB AS bin, DATE '2013-01-31' AS d,
        TIMESTAMP '2013-01-31 05:00:00.25' AS ts, TIMESTAMPTZ '2013-01-31 05:00:00+01' AS utc, TIME '05:00' AS t,
        INTERVAL '1 month 2 days' AS i, [1, NULL] AS l, {'x': 1, 'y': ['z']} AS s, MAP {'k': 1.5} AS m,
        MAP {1: 'a'} AS pairs, [0.1, 1]::FLOAT[2] AS v, NULL AS n
    """
    expected = (
        '{"big": 9007199254740993, "huge": 170141183460469231731687303715884105727, "dec": 12.50, '
        '"nan": "NaN", "inf": "-Infinity", "bin": "YWL/", "d": "2013-01-31", '
        '"ts": "2013-01-31T05:00:00.25", "utc": "2013-01-31T04:00:00Z", "t": "05:00:00", '
        '"i": "P1M2D", "l": [1, null], "s": {"x": 1, "y": ["z"]}, "m": {"k": 1.5}, '
        '"pairs": [[1, "a"]], "v": [0.1, 1.0], "n": null}\n'
    )
    ran = run("sql", text, "--format", "ndjson")
    assert (ran.text, ran.errors) == (expected, "")
    (row,) = [json.loads(line, parse_float=Decimal) for line in ran.text.splitlines()]
    assert row["huge"] == 2**127 - 1
    assert row["dec"] == Decimal("12.50")


def test_csv_tells_null_from_the_empty_text(run: Run) -> None:
    ran = run("sql", VALUES, "--format", "csv")
    assert ran.text == ('id,text,x,flag\n1,plain,1.5,true\n2,"a,b ""c""\nd|e",,false\n3,"",0.1,\n4,,-2.0,true\n')
    # Any reader of CSV agrees on the rest.
    assert [row[1] for row in csv.reader(io.StringIO(ran.text))][1:] == ["plain", 'a,b "c"\nd|e', "", ""]


def test_tsv(run: Run) -> None:
    ran = run("sql", "SELECT 'a,b' AS \"x\ty\", 'c' || chr(9) || 'd' AS z", "--format", "tsv")
    assert ran.text == '"x\ty"\tz\na,b\t"c\td"\n'


def test_markdown(run: Run) -> None:
    assert run("sql", VALUES, "--format", "markdown").text == (
        "| id | text | x | flag |\n| ---: | --- | ---: | --- |\n"
        '| 1 | plain | 1.5 | true |\n| 2 | a,b "c"<br>d\\|e |  | false |\n| 3 |  | 0.1 |  |\n| 4 |  | -2.0 | true |\n'
    )


def test_table_is_cut_to_rows_and_width(run: Run) -> None:
    text = "SELECT range AS i, repeat('x', 100) AS long FROM range(50)"
    ran = run("sql", text, "--format", "table", "--max-rows", "2", env={"COLUMNS": "40"})
    assert max(map(len, ran.text.splitlines())) <= 40
    assert ran.text.splitlines()[-1] == "2 of more rows"
    assert len(ran.text.splitlines()) == 8
    whole = run("sql", text, "--format", "table", "--max-rows", "0", env={"COLUMNS": "200"})
    assert whole.text.splitlines()[-1] == "50 rows"
    assert "x" * 100 in whole.text


@pytest.mark.parametrize("form", [form for form in Format if form not in (Format.TABLE, Format.PARQUET, Format.ARROW)])
def test_no_rows(run: Run, form: Format) -> None:
    ran = run("sql", "SELECT 1 AS a, 'x' AS b WHERE false", "--format", form)
    assert ran.code == 0
    expected = {"json": "[]\n", "ndjson": "", "csv": "a,b\n", "tsv": "a\tb\n"}
    assert ran.text == expected.get(form, "| a | b |\n| ---: | --- |\n")


COLUMNAR = "SELECT range::INTEGER AS i, 2::HUGEINT AS h, ['a', NULL] AS l, [1, 2]::FLOAT[2] AS v FROM range(3)"


def test_parquet_keeps_types(tmp_path: Path, run: Run) -> None:
    assert run("sql", COLUMNAR, "-o", str(tmp_path / "x.parquet")).code == 0
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.schema.types[:3] == [pa.int32(), pa.decimal128(38, 0), pa.list_(pa.string())]
    assert pa.types.is_fixed_size_list(table.schema.types[3])
    assert table.column("i").to_pylist() == [0, 1, 2]


def test_arrow_keeps_types(run: Run) -> None:
    ran = run("sql", COLUMNAR, "--format", "arrow")
    table = pa.ipc.open_stream(ran.data).read_all()
    assert table.schema.types == [
        pa.int32(),
        pa.decimal128(38, 0),
        pa.list_(pa.string()),
        pa.list_(pa.float32(), 2),
    ]
    assert table.num_rows == 3


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "tsv", "parquet", "arrow"])
def test_what_is_written_is_read_back(tmp_path: Path, run: Run, form: str) -> None:
    """Also over several batches, and by the readers of this very program."""
    text = "SELECT range AS i, 'x' || range AS s, range / 4 AS f FROM range(200000)"
    file = tmp_path / f"x.{form}"
    assert run("sql", text, "-o", str(file)).code == 0
    session = DataflowSession()
    found = session.read(str(file)).select("i", "s", "f").to_arrow()
    assert found.sort_by("i").to_pylist() == session.sql(text).to_arrow().to_pylist()


# --- which form -------------------------------------------------------------------------------------------------


def test_the_suffix_chooses(tmp_path: Path, run: Run) -> None:
    assert set(SUFFIXES.values()) == set(Format)
    starts = {
        Format.TABLE: "┌".encode(),
        Format.JSON: b"[",
        Format.NDJSON: b"{",
        Format.CSV: b"a\n",
        Format.TSV: b"a\n",
        Format.MARKDOWN: b"| a |",
        Format.PARQUET: b"PAR1",
        Format.ARROW: b"\xff\xff\xff\xff",
    }
    for suffix, form in SUFFIXES.items():
        file = tmp_path / f"x{suffix.upper()}"
        assert run("sql", "SELECT 1 AS a", "-o", str(file)).code == 0
        assert file.read_bytes().startswith(starts[form])


def test_format_wins_over_the_suffix(tmp_path: Path, run: Run) -> None:
    assert run("sql", "SELECT 1 AS a", "--format", "csv", "-o", str(tmp_path / "x.json")).code == 0
    assert (tmp_path / "x.json").read_text() == "a\n1\n"


def test_a_suffix_that_says_nothing_is_asked_about(tmp_path: Path, run: Run) -> None:
    ran = run("sql", "SELECT 1 AS a", "-o", str(tmp_path / "x.cvs"))
    assert ran.code == 2
    assert ran.errors.startswith("error[usage]: no format for ")
    assert 'did you mean "csv"?' in ran.errors
    assert list(tmp_path.iterdir()) == []


def on_a_terminal(
    *arguments: str, stop_at: bytes | None = None, stop_after_s: float = 60, **environment: str
) -> tuple[int, str]:
    """Run a command whose stdout and stderr are a terminal 60 columns wide; its exit code and what it showed.

    Args:
        stop_at: Ctrl-C is pressed when this was shown, or after so many seconds.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "velaria", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "60", **environment},
    )
    os.close(theirs)
    shown = bytearray()
    until = time.monotonic() + stop_after_s
    while True:
        if stop_at is not None and (stop_at in shown or time.monotonic() > until):
            process.send_signal(signal.SIGINT)
            stop_at = None
        if not select.select([ours], [], [], 0.1)[0]:
            continue
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the terminal has nobody on its other side any more
            break
    os.close(ours)
    return process.wait(timeout=60), shown.decode().replace("\r\n", "\n")


@pytest.mark.usefixtures("folder")
def test_a_terminal_gets_a_table() -> None:
    code, shown = on_a_terminal("sql", "SELECT 1 AS a")
    assert (code, shown.splitlines()[0]) == (0, "┌───────┐")
    code, shown = on_a_terminal("probe", "orders.csv")
    assert code == 0
    assert re.match(r"orders\.csv: csv, high confidence \(score \d+\)$", shown.splitlines()[0])


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_terminal_gets_no_bytes(form: str) -> None:
    code, shown = on_a_terminal("sql", "SELECT 1 AS a", "--format", form, NO_COLOR="1")
    assert code == 2
    assert shown == (f"error[usage]: {form} is not for a terminal\n  hint: write it to a file: -o data.{form}\n")


def test_colours_are_for_terminals_that_want_them(run: Run) -> None:
    assert on_a_terminal("sql", "SELEC")[1].startswith("\x1b[1;31merror[sql.syntax]:\x1b[0m")
    assert on_a_terminal("sql", "SELEC", NO_COLOR="1")[1].startswith("error[sql.syntax]:")
    assert on_a_terminal("sql", "SELEC", TERM="dumb")[1].startswith("error[sql.syntax]:")
    assert run("sql", "SELEC").errors.startswith("error[sql.syntax]:")
    assert run("sql", "SELEC", env={"FORCE_COLOR": "1"}).errors.startswith("\x1b[1;31m")


def test_a_progress_bar_is_for_terminals() -> None:
    arguments = ("sql", ENDLESS)
    code, shown = on_a_terminal(*arguments, stop_at=b" s")
    assert code == 130
    assert re.match(r"\r(running|\[[# ]{30}\] +\d+%)  \d+\.\d s", shown)
    assert shown.endswith("\r\x1b[Kinterrupted\n")
    assert on_a_terminal(*arguments, "--no-progress", stop_at=b" s", stop_after_s=4) == (130, "interrupted\n")


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", Format)
def test_a_file_that_fails_half_way_leaves_what_was_there(tmp_path: Path, run: Run, form: Format) -> None:
    file = tmp_path / "x.out"
    text = "SELECT CAST(range AS SMALLINT) AS x FROM range(200000)"
    arguments = ("sql", text, "--format", form, "--max-rows", "0", "-o", str(file))
    ran = run(*arguments)
    assert (ran.code, ran.errors.splitlines()[0].partition(":")[0]) == (1, "error[value.overflow]")
    assert list(tmp_path.iterdir()) == []
    file.write_text("before")
    assert run(*arguments).code == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_file_is_replaced_with_its_permissions_and_through_links(tmp_path: Path, run: Run) -> None:
    file, link = tmp_path / "x.csv", tmp_path / "link.csv"
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    assert run("sql", "SELECT 1 AS a", "-o", str(link)).code == 0
    assert link.is_symlink()
    assert file.read_text() == "a\n1\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_devices_and_pipes_are_written_to(tmp_path: Path, run: Run) -> None:
    before = os.stat(os.devnull)
    assert run("sql", "SELECT 1 AS a", "--format", "csv", "-o", os.devnull).code == 0
    assert os.stat(os.devnull).st_rdev == before.st_rdev
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert run("sql", "SELECT 1 AS a", "--format", "csv", "-o", str(pipe)).code == 0
    reader.join(10)
    assert read == ["a\n1\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_dash_is_stdout(run: Run) -> None:
    assert run("sql", "SELECT 1 AS a", "--format", "csv", "-o", "-").text == "a\n1\n"


@pytest.mark.parametrize(("form", "end"), [("parquet", b"PAR1"), ("arrow", b"\xff\xff\xff\xff\0\0\0\0")])
def test_output_that_broke_off_does_not_look_complete(run: Run, form: str, end: bytes) -> None:
    # One thread takes the rows in their order, and far more come before the bad one than the engine holds back.
    late = "SELECT CAST(CASE WHEN range = 9900000 THEN 99999 ELSE 1 END AS SMALLINT) AS x FROM range(10000000)"
    ran = run("sql", late, "--format", form, "--threads", "1")
    assert ran.code == 1
    assert ran.data
    assert not ran.data.endswith(end)
    assert run("sql", "SELECT 1 AS x", "--format", form).data.endswith(end)


def test_a_shut_gate_lets_nothing_through() -> None:
    raw = io.BytesIO()
    gate = Gate(raw)  # type: ignore[arg-type]
    assert gate.write(b"a") == 1
    gate.shut()
    assert gate.write(b"b") == 1
    gate.flush()
    gate.close()
    assert raw.getvalue() == b"a"


def test_memory_stays_bounded() -> None:
    """Six million rows, 100 MB as columns and as much as text, need hardly more memory than one row."""
    script = (
        "import resource, sys\n"
        "from velaria.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    used = []
    for count in (1, 6_000_000):
        command = [sys.executable, "-c", script, "sql", f"SELECT range AS i, range AS j FROM range({count})"]
        ran = subprocess.run(
            [*command, "--format", "csv", "--threads", "1", "-o", os.devnull],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        used.append(int(ran.stderr))
    assert used[1] - used[0] < 50, used


@pytest.mark.parametrize(
    ("closed", "shown"),
    [("1>&-", ""), ("2>&-", "a\n1\n"), ("0<&-", "a\n1\n"), ("0<&- 1>&- 2>&-", "")],
)
def test_closed_streams_lead_nowhere(tmp_path: Path, closed: str, shown: str) -> None:
    file = tmp_path / "x.csv"
    program = shlex.join([sys.executable, "-m", "velaria", "sql", "SELECT 1 AS a", "--format", "csv"])
    for output in ("", f" -o {file}"):
        ran = subprocess.run(
            f"{program}{output} {closed}",
            shell=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout == ("" if output else shown)
    assert file.read_text() == "a\n1\n"
