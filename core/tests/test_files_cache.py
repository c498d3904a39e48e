"""Materialisation: parsed once, reused by later sessions, rebuilt when the file changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from files_support import Desk

from velaria_core.errors import ExternalError, InputError
from velaria_core.execution import files


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


def cached(desk: Desk, path: str, **options: Any) -> files.OpenedFile:
    return files.read(desk.engine, path, materialization=True, materialization_dir=desk.folder / "cache", **options)


def entries(desk: Desk, suffix: str = "") -> dict[Path, int]:
    """Stored file -> when it was written."""
    found = sorted((desk.folder / "cache").rglob(f"*{suffix}"))
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


@pytest.mark.parametrize("stored", ["binary_row_batch", "nanoarrow_ipc", "parquet", "arrow"])
def test_a_second_session_reuses_the_entry(desk: Desk, stored: str) -> None:
    """T-43, T-19: 20,000 rows; the stored file is the same one in the second session, and so are the sums."""
    path = desk.write("t.csv", "id,score,grp\n" + "".join(f"{n},{n * 0.5},{n % 4}\n" for n in range(20_000)))
    query = "SELECT count(*) AS n, sum(score) AS s FROM {} WHERE grp = 1"
    expected = [{"n": 5000, "s": sum(n * 0.5 for n in range(1, 20_000, 4))}]
    assert desk.rows(cached(desk, path, materialization_format=stored), query) == expected
    before = entries(desk)
    assert {item.suffix for item in before} == {
        ".json",
        ".parquet" if stored in ("binary_row_batch", "parquet") else ".arrow",
    }
    with Desk(desk.folder) as second:
        assert desk.rows(cached(second, path, materialization_format=stored), query) == expected
    assert entries(desk) == before


def test_a_changed_file_is_parsed_again(desk: Desk) -> None:
    """T-19, F-42: size, time and inode tell versions apart; also a version of the same size and time."""
    path = desk.write("t.csv", "a\n1\n")
    assert desk.rows(cached(desk, path)) == [{"a": 1}]
    kept = os.stat(path)
    replaced = desk.write("new.csv", "a\n2\n")
    os.utime(replaced, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    os.replace(replaced, path)
    assert desk.rows(cached(desk, path)) == [{"a": 2}]
    desk.write("t.csv", "a\n33\n")
    assert desk.rows(cached(desk, path)) == [{"a": 33}]


def test_options_are_part_of_the_key(desk: Desk) -> None:
    path = desk.write("t.csv", "a\n1\nx\n")
    assert desk.rows(cached(desk, path))[0] == {"a": "1"}
    assert desk.rows(cached(desk, path, types={"a": "int64"}, on_error="skip")) == [{"a": 1}]
    assert len(entries(desk, ".json")) == 2


def test_an_entry_says_what_it_is_of(desk: Desk) -> None:
    """F-41: the fields of an entry's description."""
    path = desk.write("t.csv", "a\n1\n")
    cached(desk, path)
    ((described, _),) = entries(desk, ".json").items()
    told = json.loads(described.read_text())
    found = os.stat(path)
    assert told["abs_path"] == [path]
    assert (told["file_size"], told["mtime_ns"]) == ([found.st_size], [found.st_mtime_ns])
    assert (told["data_format"], told["source_format"]) == ("parquet", "csv")
    assert {"source_id", "source_options", "types"} <= set(told)


@pytest.mark.parametrize("stored", ["parquet", "arrow"])
def test_types_survive(desk: Desk, stored: str) -> None:
    """T-19: NULLs, fixed vectors, decimals and times come back as they were."""
    path = desk.write(
        "t.csv",
        'v,big,t,ns,tz,name\n"[1, 2]",99999999999999999999,2024-01-01,2024-01-01 00:00:00.123456789,'
        '2024-01-01T00:00:00Z,"a, b"\n'
        ",,,,,\n",
    )
    plain = files.read(desk.engine, path)
    opened = cached(desk, path, materialization_format=stored)
    assert opened.relation.schema == plain.relation.schema
    assert desk.table(opened).equals(desk.table(plain))


def test_queries_over_the_cache_equal_queries_over_the_file(desk: Desk) -> None:
    """T-19: filter, limit, group by one and several keys, predicate trees, for csv, line and json."""
    rows = [{"n": n, "k": n % 3, "w": f"w{n % 5}"} for n in range(300)]
    paths = [
        desk.write("t.csv", "n,k,w\n" + "".join("{n},{k},{w}\n".format(**row) for row in rows)),
        desk.write("t.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
        desk.write("t.log", "".join("{n}|{k}|{w}\n".format(**row) for row in rows)),
    ]
    for path in paths:
        names = ("c0", "c1", "c2") if path.endswith(".log") else ("n", "k", "w")
        plain, stored = files.read(desk.engine, path), cached(desk, path)
        for query in (
            "SELECT {n} FROM {{}} WHERE {n} > 10 AND ({k} = 1 OR {w} = 'w3') ORDER BY {n}",
            "SELECT {k}, count(*), sum({n}) FROM {{}} GROUP BY {k} ORDER BY {k}",
            "SELECT {k}, {w}, min({n}), max({n}) FROM {{}} GROUP BY ALL ORDER BY {k}, {w}",
            "SELECT {n} FROM {{}} ORDER BY {n} DESC LIMIT 3",
        ):
            text = query.format(n=names[0], k=names[1], w=names[2])
            assert desk.rows(stored, text) == desk.rows(plain, text)


def test_rejects_are_kept_with_the_entry(desk: Desk) -> None:
    path = desk.write("t.csv", "a,b\n1,2\nx,3\n4\n")
    first = cached(desk, path, types={"a": "int64"}, on_error="collect")
    with Desk(desk.folder) as second:
        again = cached(second, path, types={"a": "int64"}, on_error="collect")
        assert again.skipped == first.skipped == 2
        assert desk.rejects(first) == second.rejects(again)
        assert second.rejects(again) == [(3, "a", '"x" is not int64'), (4, None, "expected 2 fields, found 1")]
        assert second.rows(again) == [{"a": 1, "b": 2}]


def test_a_failed_write_leaves_nothing(desk: Desk) -> None:
    path = desk.write("t.csv", "a,b\n1,2\n4\n")
    for _ in range(2):
        with pytest.raises(Exception, match="expected 2 fields"):
            cached(desk, path)
        assert entries(desk) == {}


def test_two_processes_at_once(desk: Desk) -> None:
    """Both write the same entry, and each reads a whole one."""
    path = desk.write("t.csv", "a,b\n" + "1,x\n" * 50_000)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from files_support import Desk\n"
        "from velaria_core.execution import files\n"
        "sys.stdin.readline()\n"
        "with Desk(Path(sys.argv[1])) as desk:\n"
        "    opened = files.read(desk.engine, sys.argv[2], materialization=True, materialization_dir=sys.argv[3])\n"
        "    print(desk.rows(opened, 'SELECT sum(a) AS s FROM {}'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(desk.folder), path, str(desk.folder / "cache")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    assert outputs == ["[{'s': Decimal('50000')}]"] * 3
    assert len(entries(desk, ".parquet")) == 1
    assert not [name for name in entries(desk) if name.name.startswith(".")]


def test_old_versions_are_removed_later(desk: Desk) -> None:
    """Another session may still scan the version before; a day later nobody does."""
    path = desk.write("t.csv", "a\n1\n")
    cached(desk, path)
    desk.write("t.csv", "a\n22\n")
    cached(desk, path)
    assert len(entries(desk, ".parquet")) == 2
    yesterday = time.time() - 2 * 24 * 3600
    for name in entries(desk):
        os.utime(name, (yesterday, yesterday))
    desk.write("t.csv", "a\n333\n")
    assert desk.rows(cached(desk, path)) == [{"a": 333}]
    assert len(entries(desk, ".parquet")) == 1


def test_plain_copies_are_kept_while_they_are_used(desk: Desk) -> None:
    """Copies of files in encodings that the engine does not read: made once, removed when nobody opens them."""
    chosen: dict[str, Any] = {"materialization_dir": str(desk.folder / "cache"), "encoding": "gb18030"}
    path = desk.write("t.csv", "城市,n\n北京,1\n".encode("gb18030"))
    other = desk.write("u.csv", "城市,n\n上海,1\n".encode("gb18030"))
    assert desk.rows(files.read_csv(desk.engine, path, **chosen)) == [{"城市": "北京", "n": 1}]
    (copy,) = entries(desk)
    assert copy.name == "t.csv"
    long_ago = time.time() - 30 * 24 * 3600
    os.utime(copy, (long_ago, long_ago))
    files.read_csv(desk.engine, path, **chosen)
    files.read_csv(desk.engine, other, **chosen)
    assert {item.name for item in entries(desk)} == {"t.csv", "u.csv"}
    os.utime(copy, (long_ago, long_ago))
    files.read_csv(desk.engine, desk.write("v.csv", "城,n\n上,1\n".encode("gb18030")), **chosen)
    assert {item.name for item in entries(desk)} == {"u.csv", "v.csv"}


def test_columns_in_memory(desk: Desk) -> None:
    """F-44: a native table of the session, seen by every cursor, made once."""
    path = desk.write("t.csv", 'a,v\n1,"[1, 2]"\n2,\n')
    opened = files.read_csv(desk.engine, path, cache_in_memory=True)
    assert opened.relation.sql.startswith("velaria_temp.main.")
    assert files.read_csv(desk.engine, path, cache_in_memory=True).relation is opened.relation
    assert desk.table(opened).equals(desk.table(files.read_csv(desk.engine, path)))
    os.unlink(path)
    assert desk.rows(opened, "SELECT sum(a) AS s FROM {}") == [{"s": 3}]
    desk.write("t.csv", "a,v\n5,x\n")
    assert desk.rows(files.read_csv(desk.engine, path, cache_in_memory=True)) == [{"a": 5, "v": "x"}]


def test_both_caches(desk: Desk) -> None:
    path = desk.write("t.csv", "a\n1\n")
    opened = cached(desk, path, cache_in_memory=True)
    assert opened.relation.sql.startswith("velaria_temp.main.")
    assert desk.rows(opened) == [{"a": 1}]
    assert len(entries(desk, ".parquet")) == 1


def test_unknown_formats(desk: Desk) -> None:
    path = desk.write("t.csv", "a\n1\n")
    with pytest.raises(InputError, match="materialization_format"):
        cached(desk, path, materialization_format="parket")


def test_the_cache_stays_inside_the_roots(desk: Desk) -> None:
    path = desk.write("in/t.csv", "a\n1\n")
    with Desk(desk.folder, roots=(str(desk.folder / "in"),)) as guarded:
        with pytest.raises(ExternalError, match="cache folder") as caught:
            cached(guarded, path)
        assert caught.value.code == "file.forbidden"
        inside = files.read(
            guarded.engine, path, materialization=True, materialization_dir=str(desk.folder / "in" / "cache")
        )
        assert guarded.rows(inside) == [{"a": 1}]
