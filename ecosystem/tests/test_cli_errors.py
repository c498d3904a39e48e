"""Bad input: each case is one clear error with code, place and hint, an exit code, and no file left half written."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_support import Ran, Run

from velaria.cli.program import program
from velaria.cli.reporting import Reporting, error_text
from velaria_core.errors import DataError, ExternalError, InputError, InternalError, Place, StateError

pytestmark = pytest.mark.usefixtures("folder")

RAGGED = "id,name\n" + "".join(f"{n},x{n}\n" for n in range(50)) + "7,a,b,c\n"
DIGITS = random.Random(7)
NOISE = "id,name\n" + "".join(f"{n},{DIGITS.getrandbits(64)}\n" for n in range(20000))


@dataclass(frozen=True)
class Case:
    """A call that goes wrong.

    Attributes:
        file: its name and content, None for a file that is not there; made before the call.
        code, exit: what the error says.
        place: a pattern for the line below the message.
        hint: a part of the hint.
    """

    name: str
    sql: str
    code: str
    exit: int
    place: str | None = None
    hint: str = ""
    file: tuple[str, bytes | str | None] | None = None


FILES = [
    Case(
        "missing file",
        "SELECT * FROM order",
        "file.not_found",
        2,
        None,
        'did you mean "orders.csv"?',
        ("order.csv", None),
    ),
    Case("binary", "SELECT * FROM b", "file.binary", 1, r"b\.csv, line 2", "", ("b.csv", b"a,b\n\x00\x01\xfe\n" * 50)),
    Case("ragged CSV", "SELECT * FROM r", "file.ragged_row", 1, r"r\.csv, line 52", "on_error", ("r.csv", RAGGED)),
    Case(
        "wrong encoding",
        "SELECT * FROM e",
        "file.encoding",
        1,
        r"e\.csv, line 2",
        "latin-1",
        ("e.csv", "id,name\n1,café\n".encode("latin-1")),
    ),
    Case(
        "truncated gz",
        "SELECT * FROM g",
        "file.truncated",
        1,
        r"g\.csv\.gz",
        "again",
        ("g.csv.gz", gzip.compress(NOISE.encode())[:-5000]),
    ),
    Case(
        "broken JSON",
        "SELECT * FROM j",
        "file.bad_json",
        1,
        r"j\.json, line 2",
        "on_error",
        ("j.json", '{"a": 1}\n{"a": 2\n{"a": 3}\n'),
    ),
    Case("empty", "SELECT * FROM e", "file.empty", 1, r"e\.csv", "", ("e.csv", b"")),
    Case("damaged Parquet", "SELECT * FROM p", "file.", 1, None, "", ("p.parquet", b"PAR1" + b"x" * 100 + b"PAR1")),
    Case("truncated Arrow", "SELECT * FROM a", "file.truncated", 1, r"a\.arrow", "again", ("a.arrow", b"ARROW1\0\0")),
]
QUERIES = [
    Case("unknown column", "SELECT pricee FROM orders", "sql.unknown_column", 2, "line 1, column 8", "price"),
    Case(
        "unknown table", "SELECT 1\nFROM ordres", "sql.unknown_table", 2, "line 2, column 6", 'did you mean "orders"?'
    ),
    Case("unknown function", "SELECT absolut(id) FROM orders", "sql.unknown_function", 2, "line 1, column 8", ""),
    Case("type clash", "SELECT sum(name) FROM orders", "sql.type_mismatch", 2, "line 1, column 8", "cast"),
    Case("syntax error", "SELECT id FROM orders WHERE", "sql.syntax", 2, "line 1, column 2", ""),
    Case("no SQL at all", "  -- nothing\n", "sql.empty", 2, None, "comments"),
    Case("division by zero", "SELECT id // 0 FROM orders", "value.division_by_zero", 1, None, "nullif"),
    Case("overflow", "SELECT 9223372036854775807 + id FROM orders", "value.overflow", 1, None, "CAST"),
    Case("bad cast", "SELECT CAST(name AS BIGINT) FROM orders", "value.conversion", 1, None, "TRY_CAST"),
    Case(
        "cyclic view",
        "CREATE VIEW a AS SELECT 1 AS x; CREATE VIEW b AS SELECT * FROM a; "
        "CREATE OR REPLACE VIEW a AS SELECT * FROM b; SELECT * FROM a",
        "catalog.cyclic_view",
        2,
        None,
        "redefine",
    ),
    Case(
        "a sink is read",
        "CREATE SINK TABLE s (a INT) USING csv OPTIONS(path: 's.csv'); SELECT * FROM s",
        "sql.table_kind",
        2,
        "column 77",
    ),
    Case("a parameter is missing", "SELECT $a", "sql.parameters", 2, None, ""),
]


def one_error(ran: Ran) -> dict[str, str]:
    """The parts of the one error that a command printed."""
    assert ran.data == b""
    found = re.fullmatch(
        r"error\[(?P<code>[a-z_.]+)\]: (?P<message>.+)(?P<place>(\n  (?!hint: ).*)*)(\n  hint: (?P<hint>.+))?\n",
        ran.errors,
    )
    assert found is not None, ran.errors
    return {name: text or "" for name, text in found.groupdict().items()}


@pytest.mark.parametrize("case", FILES + QUERIES, ids=lambda case: case.name)
def test_each_is_one_error(case: Case, folder: Path, run: Run) -> None:
    files = ["orders.csv"]
    if case.file is not None:
        name, content = case.file
        files = [name]
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(folder.iterdir())
    ran = run("sql", case.sql, *files, "-o", "out.csv")
    error = one_error(ran)
    assert ran.code == case.exit
    assert error["code"].startswith(case.code)
    assert re.search(case.place or "", error["place"])
    assert case.hint in error["hint"]
    # Nothing is left behind, and the same through JSON.
    assert sorted(folder.iterdir()) == before
    told = json.loads(run("sql", case.sql, *files, "--errors", "json").errors)
    assert (told["ok"], told["code"], told["error"]) == (False, error["code"], error["message"])


def test_a_folder_without_data(folder: Path, run: Run) -> None:
    (folder / "empty").mkdir()
    ran = run("sql", "SELECT 1", "empty")
    assert (ran.code, one_error(ran)["code"]) == (2, "file.directory")


def test_an_unreadable_file(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "secret.csv").write_text("a\n1\n")
    (folder / "secret.csv").chmod(0)
    if os.geteuid() == 0:
        # Root reads everything; it is told here what another user is told.
        monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.R_OK and str(path).endswith("secret.csv")))
    ran = run("sql", "SELECT * FROM secret", "secret.csv")
    assert (ran.code, one_error(ran)["code"]) == (1, "file.unreadable")
    assert "permissions" in one_error(ran)["hint"]


def test_an_error_of_stdin_names_stdin(run: Run) -> None:
    error = one_error(run("sql", "SELECT * FROM stdin", "-", stdin="id,name\n1,café\n".encode("latin-1")))
    assert error["message"].replace('"', "") == "stdin is not UTF-8: byte 0xe9 in line 2"
    assert error["place"].strip() == "stdin, line 2"
    error = one_error(run("sql", "SELECT * FROM stdin", "-", stdin=b""))
    assert error["message"].startswith("stdin is empty")


def test_the_caret_stands_below_the_place(run: Run) -> None:
    ran = run("sql", "SELECT id,\n  名字 || pricee AS x\nFROM orders", "orders.csv")
    message, line, caret, _hint = ran.errors.splitlines()
    assert message == 'error[sql.unknown_column]: no column "名字" in "orders"'
    assert line == "  line 2, column 3:   名字 || pricee AS x"
    # Each of the two characters is two columns wide.
    assert caret == " " * len("  line 2, column 3:   ") + "^^"


# --- writing ----------------------------------------------------------------------------------------------------


def test_a_full_device(run: Run) -> None:
    ran = run("sql", "SELECT 1 AS a", "--format", "csv", "-o", "/dev/full")
    assert (ran.code, one_error(ran)["code"]) == (1, "disk.full")
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "velaria", "sql", "SELECT range FROM range(100000)", "--format", "csv"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.returncode == 1
    assert process.stderr.startswith("error[disk.full]: writing the output: No space left on device\n  hint: ")
    assert process.stderr.count("\n") == 2


@pytest.fixture
def full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with room for 64 kB: a real file system where one can be mounted, else files that say so."""
    small = folder / "small"
    small.mkdir()
    mount = shutil.which("mount")
    mounted = mount is not None and os.geteuid() == 0
    if mounted:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True)
        mounted = made.returncode == 0
    if mounted:
        yield small
        subprocess.run(["umount", str(small)], check=True)
        return
    opened: Callable[..., io.BufferedWriter] = Path.open

    class Small(io.FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            if self.tell() + len(data) > 65536:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def open_small(path: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if path.parent == small:
            return io.BufferedWriter(Small(path, mode.replace("b", "")))
        return opened(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", open_small)
    yield small


@pytest.mark.parametrize("suffix", ["csv", "json", "ndjson", "md", "parquet", "arrow"])
def test_a_full_disk_leaves_nothing(full_disk: Path, run: Run, suffix: str) -> None:
    file = full_disk / f"x.{suffix}"
    text = "SELECT hash(range) AS h, repeat('x', 100) || range AS s FROM range(100000)"
    ran = run("sql", text, "-o", str(file))
    error = one_error(ran)
    assert (ran.code, error["code"]) == (1, "disk.full")
    assert error["message"] == f'writing "{file}": No space left on device'
    assert "free some space" in error["hint"]
    assert list(full_disk.iterdir()) == []
    # Something small fits again.
    assert run("sql", "SELECT 1 AS a", "-o", str(file)).code == 0


@pytest.mark.parametrize(
    ("target", "code", "exit_code"),
    [("nowhere/x.csv", "file.not_found", 2), (".", "file.is_directory", 2), ("/proc/x.csv", "file.", 1)],
)
def test_places_that_cannot_be_written(run: Run, target: str, code: str, exit_code: int) -> None:
    ran = run("sql", "SELECT 1 AS a", "--format", "csv", "-o", target)
    assert ran.code == exit_code
    assert one_error(ran)["code"].startswith(code)


def test_a_type_that_parquet_has_not(folder: Path, run: Run) -> None:
    ran = run("sql", "SELECT INTERVAL 1 MONTH AS i", "-o", "x.parquet")
    assert (ran.code, one_error(ran)["code"]) == (2, "output.type")
    assert one_error(ran)["message"] == 'Parquet has no type for "i" (interval)'
    assert not (folder / "x.parquet").exists()


# --- calls that are wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["slq", "SELECT 1"], 'no command "slq"', 'did you mean "sql"?'),
        (["orders.csv"], 'no command "orders.csv"', 'velaria sql "SELECT * FROM ..." orders.csv'),
        (["--nonsense"], "no such option '--nonsense'", "velaria --help"),
        (["sql"], "no SQL is given", "-f FILE"),
        (["sql", "SELECT 1", "--fromat", "csv"], "no such option '--fromat'", "velaria sql --help"),
        (["sql", "SELECT 1", "--format", "xml"], "'xml'", "velaria sql --help"),
        (["sql", "SELECT 1", "--threads", "0"], "'--threads'", "velaria sql --help"),
        (["sql", "SELECT 1", "--threads"], "'--threads'", "velaria --help"),
        (["sql", "SELECT $a", "--param", "a"], '--param takes NAME=VALUE, not "a"', ""),
        (["sql", "SELECT $a", "--param", "a=1", "--param", "a=2"], '--param gives "a" twice', ""),
        (["sql", "SELECT $a, ?", "--param", "a=1", "-p", "2"], "by name (--param) or by position (-p)", ""),
        (["sql", "SELECT 1", "--read", "=x"], '--read takes NAME=VALUE, not "=x"', ""),
        (["sql", "SELECT 1", "-", "-"], "stdin (-) is named twice", "once"),
        (["sql", "-f", "-", "-"], "stdin (-) cannot be both the SQL and a file", ""),
        (["sql", "SELECT 1", "a=orders.csv", "A=orders.csv"], 'two files are called "A"', ""),
        (["probe"], "missing argument 'FILE'", "velaria probe --help"),
        (["completion", "tcsh"], "'tcsh'", "velaria completion --help"),
    ],
)
def test_usage(run: Run, arguments: list[str], message: str, hint: str) -> None:
    ran = run(*arguments, stdin=b"")
    error = one_error(ran)
    assert (ran.code, error["code"]) == (2, "usage")
    assert message in error["message"]
    assert hint in error["hint"]


def test_a_statement_file_that_is_not_there(folder: Path, run: Run) -> None:
    ran = run("sql", "-f", "nowhere.sql")
    assert (ran.code, one_error(ran)["code"]) == (2, "file.not_found")
    ran = run("sql", "-f", str(folder))
    assert (ran.code, one_error(ran)["code"]) == (2, "file.is_directory")
    (folder / "latin.sql").write_bytes("SELECT 'é'".encode("latin-1"))
    ran = run("sql", "-f", "latin.sql")
    assert (ran.code, one_error(ran)["code"]) == (2, "file.encoding")


def test_a_database_that_is_none(folder: Path, run: Run) -> None:
    (folder / "x.db").write_bytes(b"not a database, and longer than a header would be" * 100)
    ran = run("sql", "SELECT 1", "--database", "x.db")
    assert (ran.code, one_error(ran)["code"]) == (1, "database.invalid")


def test_a_read_only_database_is_not_written(run: Run) -> None:
    assert run("sql", "CREATE TABLE t AS SELECT 1 AS a", "--database", "x.db").code == 0
    ran = run("sql", "INSERT INTO t VALUES (2)", "--database", "x.db", "--read-only")
    assert ran.code in (1, 2)
    assert "read" in one_error(ran)["message"]
    assert json.loads(run("sql", "SELECT count(*) AS n FROM t", "--database", "x.db").text) == [{"n": 1}]


# --- how errors are told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a.b", "x"), 2),
        (DataError("a.b", "x"), 1),
        (ExternalError("a.b", "x"), 1),
        (StateError("a.b", "x"), 1),
        (InternalError("a.b", "x"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (MemoryError(), 1),
        (ZeroDivisionError("division by zero"), 1),
    ],
)
def test_exit_codes(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert Reporting().report(error) == code
    assert "Traceback" not in capsys.readouterr().err


def test_text_of_an_error() -> None:
    error = DataError("file.bad", "it is bad", hint="mend it", place=Place(file="x.csv", line=3))
    assert error_text(error) == "error[file.bad]: it is bad\n  x.csv, line 3\n  hint: mend it"


def test_json_of_an_error(run: Run) -> None:
    for arguments, settings in (
        (("--errors", "json", "sql", "SELECT x"), {}),
        (("sql", "SELECT x", "--errors=json"), {}),
        (("sql", "SELECT x"), {"VELARIA_ERRORS": "json"}),
    ):
        ran = run(*arguments, env=settings)
        assert (ran.code, ran.data) == (2, b"")
        assert ran.errors.count("\n") == 1
        told = json.loads(ran.errors)
        assert told == {
            "ok": False,
            "error": 'no column "x"',
            "error_type": "SqlSemanticError",
            "code": "sql.unknown_column",
            "hint": told["hint"],
            "file": None,
            "line": 1,
            "column": 8,
            "column_utf8": 8,
            "column_utf16": 8,
            "byte_offset": 7,
        }
    assert run("sql", "SELECT x", "--errors", "text", env={"VELARIA_ERRORS": "json"}).errors.startswith("error[")


def test_a_call_that_cannot_be_parsed_is_told_as_json_too(run: Run) -> None:
    told = json.loads(run("sql", "--bad", "--errors", "json").errors)
    assert (told["code"], told["error"]) == ("usage", "no such option '--bad'")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with a bug in it."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody expected this")

    monkeypatch.setattr(program, "invoke", fail)


@pytest.mark.usefixtures("broken")
def test_a_bug_is_told_as_one_without_a_traceback(run: Run) -> None:
    ran = run("sql", "SELECT 1")
    assert ran.code == 1
    assert ran.errors == (
        "error[internal.unexpected]: ZeroDivisionError: nobody expected this\n"
        "  hint: this is a bug of Velaria: please report it, with what the same command prints with --debug\n"
    )


@pytest.mark.usefixtures("broken")
def test_debug_shows_the_traceback(run: Run) -> None:
    ran = run("sql", "SELECT 1", "--debug")
    assert ran.code == 1
    assert ran.errors.startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError: nobody expected this\nerror[internal.unexpected]: " in ran.errors


def test_debug_shows_where_an_error_came_from(run: Run) -> None:
    ran = run("sql", "SELECT CAST('x' AS INT)", "--debug")
    assert ran.errors.startswith("Traceback")
    assert "duckdb" in ran.errors
    assert "\nerror[value.conversion]: " in ran.errors


def test_a_process_prints_the_error_and_nothing_else(run: Run, run_process: Run) -> None:
    """Also not from the engine when the interpreter ends, whatever was open."""
    for text in ("SELECT x", "SELECT CAST(range AS TINYINT) FROM range(1000)", "SELECT INTERVAL 1 DAY AS i"):
        arguments = ("sql", text, "--format", "parquet")
        assert run_process(*arguments) == run(*arguments)
