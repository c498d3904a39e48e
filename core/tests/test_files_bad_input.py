"""Bad input: each kind gets one clear error, with a code, a place and a hint, and the engine goes on."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from files_support import Desk

from velaria_core.errors import DataError, ExternalError, InputError, VelariaError, exit_code
from velaria_core.execution import files


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made
        # Whatever was refused, the engine goes on.
        assert made.csv("a\n1\n", name="after.csv") == [{"a": 1}]


def refused(desk: Desk, path: files.Paths, code: str, said: str, line: int | None = None) -> VelariaError:
    """The error of reading, and of probing where that already fails."""
    with pytest.raises(VelariaError, match=said) as caught:
        desk.rows(files.read(desk.engine, path))
    error = caught.value
    assert error.code == code
    assert exit_code(error) in (1, 2)
    if line is not None:
        assert error.place is not None
        assert (error.place.file, error.place.line) == (str(path), line)
    return error


def test_a_missing_file(desk: Desk) -> None:
    desk.write("flights.csv", "a\n1\n")
    error = refused(desk, str(desk.folder / "flight.csv"), "file.not_found", "no file")
    assert 'did you mean "flights.csv"?' in (error.hint or "")
    assert isinstance(error, InputError)
    error = refused(desk, str(desk.folder / "gone" / "x.csv"), "file.not_found", "no file")
    assert "is not there" in (error.hint or "")


def test_a_glob_without_matches(desk: Desk) -> None:
    refused(desk, f"{desk.folder}/*.csv", "file.not_found", "no file matches")
    refused(desk, [], "file.not_found", "list of paths is empty")
    refused(desk, "", "file.not_found", "path is empty")


def test_a_folder(desk: Desk) -> None:
    refused(desk, desk.folder, "file.directory", "no data files")
    desk.write("mixed/a.csv", "a\n1\n")
    desk.write("mixed/b.jsonl", '{"a": 1}\n')
    refused(desk, desk.folder / "mixed", "file.directory", "several formats")
    assert desk.rows(files.read_csv(desk.engine, desk.folder / "mixed")) == [{"a": 1}]


def test_a_pipe(desk: Desk) -> None:
    path = desk.folder / "pipe.csv"
    os.mkfifo(path)
    refused(desk, path, "file.not_regular", "pipe")


def test_a_remote_path(desk: Desk) -> None:
    refused(desk, "s3://bucket/x.csv", "file.remote", "not on this machine")


def test_an_unreadable_file() -> None:
    """By a process without rights, because tests may run as root, who may read everything.

    In a sandbox root may not give its rights up; there the system's answer is put in the place of the real one.
    """
    program = (
        "import os, sys\n"
        "from velaria_core.execution import files\n"
        "from velaria_core.execution.duck import Engine, Settings\n"
        "engine = Engine(Settings())\n"
        "files.read(engine, sys.argv[1])\n"
        "os.chmod(sys.argv[1], 0)\n"
        "try:\n"
        "    if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "except PermissionError: os.access = lambda path, mode: False\n"
        "try: files.read(engine, sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error.code)\n"
    )
    # Not below pytest's folder, which others may not enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "t.csv"
        path.write_text("a\n1\n")
        ran = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    assert ran.stdout.strip() == "ExternalError file.unreadable", ran.stderr


def test_binary_files(desk: Desk) -> None:
    path = desk.write("t.csv", b"a,b\n1,\x00\x01\n")
    error = refused(desk, path, "file.binary", "NUL byte", line=2)
    assert isinstance(error, DataError)
    for name, content, said in (
        ("a.csv", b"%PDF-1.4 ...", "PDF"),
        ("b.csv", b"PK\x03\x04 sheet", "zip archive or office document"),
        ("c.csv", b"\x89PNG\r\n", "picture"),
        ("d.csv", b"SQLite format 3\x00", "SQLite"),
    ):
        refused(desk, desk.write(name, content), "file.binary", said)


def test_a_wrong_encoding(desk: Desk) -> None:
    path = desk.write("t.csv", "a,b\n1,x\n2,café\n".encode("latin-1"))
    error = refused(desk, path, "file.encoding", "not UTF-8", line=3)
    assert 'encoding="latin-1"' in (error.hint or "")
    chinese = desk.write("z.csv", "名,值\n北京,1\n".encode("gb18030"))
    assert 'encoding="gb18030"' in (refused(desk, chinese, "file.encoding", "not UTF-8").hint or "")
    with pytest.raises(DataError, match="not UTF-16"):
        desk.csv("a,b\n1,2\n3", encoding="utf-16")
    with pytest.raises(InputError, match="no encoding"):
        desk.csv("a\n1\n", encoding="utf-9")
    # The encoding that the hint names helps also where the format is found.
    row = {"名": "北京", "值": 1}
    assert desk.rows(files.read(desk.engine, chinese, encoding="gb18030")) == [row]
    assert desk.rows(files.from_options(desk.engine, None, {"path": chinese, "encoding": "gb18030"})) == [row]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.log"])
def test_a_wrong_encoding_beyond_the_sample(desk: Desk, name: str) -> None:
    line = {"t.csv": b"1,x\n", "t.jsonl": b'{"a": "x"}\n', "t.log": b"1|x\n"}[name]
    count = 1_000_000 // len(line) // 2 - 1500
    body = line * count + line.replace(b"x", b"caf\xe9") + line * count
    path = desk.write(name, (b"a,b\n" if name == "t.csv" else b"") + body)
    with pytest.raises(DataError) as caught:
        desk.rows(files.read(desk.engine, path), "SELECT count(COLUMNS(*)) FROM {}")
    assert caught.value.code == "file.encoding"
    assert caught.value.place is not None
    assert (caught.value.place.file, caught.value.place.line) == (path, count + 1 + (name == "t.csv"))
    assert 'encoding="latin-1"' in (caught.value.hint or "")


@pytest.mark.parametrize("size", [1_000, 200_000])
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_truncated_archive(desk: Desk, suffix: str, size: int) -> None:
    """Within the sample, and beyond it."""
    plain = b"a,b\n" + b"".join(b"%d,name%d\n" % (n, n * 7919 % 1013) for n in range(size))
    packed = gzip.compress(plain) if suffix == "gz" else pa.Codec("zstd").compress(plain, asbytes=True)
    path = desk.write(f"t.csv.{suffix}", packed[: len(packed) // 2])
    refused(desk, path, "file.truncated", "cut off or damaged")


def test_something_else_than_its_suffix(desk: Desk) -> None:
    """Compression goes by the bytes, not by the name."""
    path = desk.write("t.csv.gz", "a\n1\n")
    assert desk.rows(files.read(desk.engine, path)) == [{"a": 1}]
    path = desk.write("u.csv", gzip.compress(b"a\n1\n"))
    assert desk.rows(files.read(desk.engine, path)) == [{"a": 1}]


def test_a_ragged_csv(desk: Desk) -> None:
    path = desk.write("t.csv", "a,b,c\n" + "1,2,3\n" * 5 + "1,2\n")
    refused(desk, path, "file.ragged_row", "expected 3 fields, found 2", line=7)


def test_an_unclosed_quote(desk: Desk) -> None:
    path = desk.write("t.csv", 'a,b\n1,"x\n2,y\n3,z\n')
    refused(desk, path, "file.unclosed_quote", "not closed", line=2)


def test_broken_json(desk: Desk) -> None:
    path = desk.write("t.jsonl", '{"a": 1}\n{"a": 2\n{"a": 3}\n')
    refused(desk, path, "file.bad_json", "malformed JSON", line=2)


def test_an_empty_file(desk: Desk) -> None:
    for name in ("t.csv", "t.json", "t.log", "t.parquet", "t.arrow"):
        refused(desk, desk.write(name, ""), "file.empty", "is empty")
    refused(desk, desk.write("blank.csv", "\n\n  \n"), "file.empty", "no lines")
    refused(desk, desk.write("empty.json", "[]"), "file.empty", "no objects")
    packed = desk.write("t.csv.gz", gzip.compress(b""))
    refused(desk, packed, "file.empty", "no lines")
    with pytest.raises(DataError, match="is empty"):
        files.read_csv(desk.engine, desk.folder / "t.csv")


def test_a_file_that_vanishes_after_it_was_opened(desk: Desk) -> None:
    path = desk.write("t.csv", "a\n1\n")
    opened = files.read_csv(desk.engine, path)
    os.unlink(path)
    with pytest.raises(InputError) as caught:
        desk.rows(opened)
    assert caught.value.code == "file.not_found"


def test_wrong_options(desk: Desk) -> None:
    path = desk.write("t.csv", "a,b\n1,2\n")
    for options, said in (
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"delimiter": ""}, "cannot part fields"),
        ({"types": {"a": "nomber"}}, 'no type "nomber"'),
        ({"names": ["x"]}, "1 names for the 2 columns"),
        ({"columns": []}, "columns must be named"),
    ):
        with pytest.raises(InputError, match=said):
            files.read_csv(desk.engine, path, **options)


# --- roots ------------------------------------------------------------------------------------------------------------


def test_roots_hold(desk: Desk) -> None:
    """Architecture 11: real paths decide, and what lies outside is not told of."""
    inside = desk.write("in/t.csv", "a\n1\n")
    outside = desk.write("out/t.csv", "a\n2\n")
    os.symlink(outside, desk.folder / "in" / "link.csv")
    os.symlink(inside, desk.folder / "in" / "fine.csv")
    os.symlink(desk.folder / "out", desk.folder / "in" / "door")
    with Desk(desk.folder, roots=(str(desk.folder / "in"),)) as guarded:
        for path in (inside, f"{desk.folder}/in/fine.csv", f"{desk.folder}/in/../in/t.csv", f"{desk.folder}/in/t*.csv"):
            assert guarded.rows(files.read(guarded.engine, path)) == [{"a": 1}]
        messages = set()
        for path in (
            outside,
            str(desk.folder / "out" / "missing.csv"),
            f"{desk.folder}/in/link.csv",
            f"{desk.folder}/in/door/t.csv",
            f"{desk.folder}/in/../out/t.csv",
            f"{desk.folder}/out/*.csv",
            f"{desk.folder}/out",
            f"{desk.folder}/in/*.csv",
            f"{desk.folder}/in2/t.csv",
            "/etc/hostname",
        ):
            with pytest.raises(ExternalError) as caught:
                files.read(guarded.engine, path)
            assert caught.value.code == "file.forbidden"
            messages.add(caught.value.message.replace(path, "PATH"))
        # One message for what is there and what is not.
        assert sum("PATH" in message for message in messages) == 1


def test_a_root_may_be_a_link(desk: Desk) -> None:
    desk.write("real/t.csv", "a\n1\n")
    os.symlink(desk.folder / "real", desk.folder / "linked")
    with Desk(desk.folder, roots=(str(desk.folder / "linked"),)) as guarded:
        assert guarded.rows(files.read(guarded.engine, f"{desk.folder}/linked/t.csv")) == [{"a": 1}]
