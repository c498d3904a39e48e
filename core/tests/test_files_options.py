"""OPTIONS of SQL and table functions: the keys, their values, and what is said of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from files_support import Desk, types_of

from velaria_core.errors import InputError
from velaria_core.execution import files


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


def test_the_keys_of_every_format(desk: Desk) -> None:
    """Q-20: path, delimiter; mode, split_delimiter, regex_pattern or regex, mappings; format, columns."""
    pipes = desk.write("t.csv", "a|b\n1|x\n")
    log = desk.write("t.log", "x|1\n")
    lines = desk.write("t.jsonl", '{"a": 1, "b": 2}\n')
    parquet = desk.folder / "t.parquet"
    pa.parquet.write_table(pa.table({"a": [1]}), parquet)
    cases: list[tuple[str | None, dict[str, Any], list[dict[str, Any]]]] = [
        ("csv", {"path": pipes, "delimiter": "|"}, [{"a": 1, "b": "x"}]),
        ("CSV", {"PATH": pipes, "header": "false", "skip": 1}, [{"c0": 1, "c1": "x"}]),
        ("csv", {"path": pipes, "types": "a: string", "columns": "b, a"}, [{"b": "x", "a": "1"}]),
        ("line", {"path": log, "mode": "split", "split_delimiter": "|", "mappings": "n:1, w:0"}, [{"n": 1, "w": "x"}]),
        ("line", {"path": log, "mode": "regex", "regex": r"(.)\|(.)", "mappings": "w:1"}, [{"w": "x"}]),
        ("line", {"path": log, "mode": "regex", "regex_pattern": r"(.)\|(?P<n>.)"}, [{"c1": "x", "n": 1}]),
        ("json", {"path": lines, "format": "json_lines", "columns": "b,a:double"}, [{"b": 2, "a": 1.0}]),
        ("jsonl", {"path": lines}, [{"a": 1, "b": 2}]),
        ("parquet", {"path": str(parquet)}, [{"a": 1}]),
        (None, {"path": pipes}, [{"a": 1, "b": "x"}]),
        (None, {"path": str(parquet), "cache_in_memory": True}, [{"a": 1}]),
        (None, {"path": pipes, "delimiter": "|"}, [{"a": 1, "b": "x"}]),
    ]
    for using, options, expected in cases:
        assert desk.rows(files.from_options(desk.engine, using, options)) == expected, (using, options)
    tabbed = desk.write("t.txt", "a\tb\n1\t\n")
    assert desk.rows(files.from_options(desk.engine, "tsv", {"path": tabbed})) == [{"a": 1, "b": None}]
    assert desk.rows(files.from_options(desk.engine, "csv", {"path": tabbed, "delimiter": r"\t"})) == [
        {"a": 1, "b": None}
    ]


def test_what_is_not_an_option(desk: Desk) -> None:
    path = desk.write("t.csv", "a\n1\n")
    cases: list[tuple[str | None, dict[str, Any], str, str]] = [
        ("csv", {"path": path, "delimeter": ","}, "option.unknown", 'did you mean "delimiter"?'),
        ("json", {"path": path, "delimiter": ","}, "option.unknown", "options: path"),
        ("cvs", {"path": path}, "option.unknown_format", 'did you mean "csv"?'),
        ("csv", {"delimiter": ","}, "option.missing", "path"),
        ("csv", {"path": path, "header": "perhaps"}, "option.value", ""),
        ("csv", {"path": path, "skip": "two"}, "option.value", ""),
        ("json", {"path": path, "format": "xml"}, "option.value", "choices"),
        (None, {"path": path, "regex": "x"}, "option.unknown", "options:"),
        (None, {"path": path, "delimeter": ","}, "option.unknown", "did you mean"),
    ]
    for using, options, code, hint in cases:
        with pytest.raises(InputError) as caught:
            files.from_options(desk.engine, using, options)
        assert caught.value.code == code, (using, options)
        assert hint in (caught.value.hint or ""), (using, options, caught.value.hint)


def test_declared_columns_type_text_formats(desk: Desk) -> None:
    """CREATE TABLE t (zip TEXT, ...): the text of the file, not the text of a number that was found there."""
    path = desk.write("t.csv", "zip,n\n10.50,1\n")
    declared = {"zip": "string", "n": "float64"}
    assert desk.rows(files.from_options(desk.engine, "csv", {"path": path}, declared)) == [{"zip": "10.50", "n": 1.0}]
    lines = desk.write("t.jsonl", '{"n": 1, "o": {"k": 2}}\n')
    opened = files.from_options(desk.engine, None, {"path": lines}, {"o": "STRUCT(k BIGINT)"})
    assert desk.rows(opened) == [{"o": {"k": 2}}]
    with pytest.raises(InputError, match='no column "zap"'):
        files.from_options(desk.engine, "csv", {"path": path}, {"zap": "string"})


def test_calls(desk: Desk) -> None:
    """`FROM read_csv('t.csv', header = false)`, with the same readers behind it."""
    path = desk.write("t.csv", "007,a\n")
    opened = files.from_call(desk.engine, "READ_CSV", [path], {"header": False, "names": ["zip", "w"]})
    assert opened is not None
    assert desk.rows(opened) == [{"zip": "007", "w": "a"}]
    assert files.from_call(desk.engine, "range", [5], {}) is None
    with pytest.raises(InputError, match="takes one path"):
        files.from_call(desk.engine, "read_csv", [], {})


def test_paths_in_from() -> None:
    for name in ("a/b", "flights.csv", "x.parquet", "*.json", "t.csv.gz"):
        assert files.looks_like_path(name)
    for name in ("flights", "main.flights", "t.x"):
        assert not files.looks_like_path(name)


def test_compatible_arguments(desk: Desk) -> None:
    """A-80 to A-84: the names and defaults of the arguments."""
    path = desk.write("t.csv", "a,b\n1,x\n")
    log = desk.write("t.log", "a,1\n")
    lines = desk.write("t.jsonl", '{"a": 1}\n')
    cache: dict[str, Any] = {
        "materialization": True,
        "materialization_dir": str(desk.folder / "cache"),
        "materialization_format": "binary_row_batch",
        "cache_in_memory": False,
    }
    assert desk.rows(files.read(desk.engine, path, **cache)) == [{"a": 1, "b": "x"}]
    assert desk.rows(files.read_csv(desk.engine, path, ",", **cache)) == [{"a": 1, "b": "x"}]
    opened = files.read_line_file(desk.engine, log, [("w", 0), ("n", 1)], "split", ",", "", True, **cache)
    assert types_of(opened) == {"w": "string", "n": "int64"}
    assert desk.rows(files.read_json(desk.engine, lines, ["a"], "json_lines", **cache)) == [{"a": 1}]
