"""Lines: split by the reader, or matched by a regular expression."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from files_support import Desk, hidden, types_of

from velaria_core.errors import DataError, InputError
from velaria_core.execution import files
from velaria_core.execution.files.line import groups_of, only_groups


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


LOG = "10.0.0.1 GET /a 200 0.5\n10.0.0.2 POST /b 404 12\n\n10.0.0.3 GET /c\n"
ACCESS = '10.0.0.1 - "GET /x" 200\nnot a line of it\n10.0.0.2 - "PUT /y" 404\n'
PATTERN = r'(\S+) - "(\S+) (\S+)" (\d+)'


# --- split ------------------------------------------------------------------------------------------------------------


def test_split(desk: Desk) -> None:
    """F-23, F-25, T-17, T-42: cells by index, typed by column; short lines and "" are NULL, blank lines left out."""
    path = desk.write("t.log", LOG)
    opened = files.read_line_file(desk.engine, path, [("ip", 0), ("status", 3), ("ms", 4)], split_delimiter=" ")
    assert types_of(opened) == {"ip": "string", "status": "int64", "ms": "float64"}
    assert desk.rows(opened) == [
        {"ip": "10.0.0.1", "status": 200, "ms": 0.5},
        {"ip": "10.0.0.2", "status": 404, "ms": 12.0},
        {"ip": "10.0.0.3", "status": None, "ms": None},
    ]


def test_mappings_in_every_form(desk: Desk) -> None:
    path = desk.write("t.log", "a|1|x\n")
    expected = [{"n": 1, "word": "a"}]
    for mappings in (
        [("n", 1), ("word", 0)],
        [{"column": "n", "source_index": 1}, {"column": "word", "source_index": 0}],
        {"n": 1, "word": 0},
        "n:1, word:0",
    ):
        assert desk.rows(files.read_line_file(desk.engine, path, mappings)) == expected
    assert desk.rows(files.read_line_file(desk.engine, path)) == [{"c0": "a", "c1": 1, "c2": "x"}]
    assert desk.rows(files.read_line_file(desk.engine, path, [("x", 1), ("y", 1)])) == [{"x": 1, "y": 1}]
    for wrong in ([("n", -1)], [("n", 0), ("N", 1)], "n", []):
        with pytest.raises(InputError, match="mapping"):
            files.read_line_file(desk.engine, path, wrong)


def test_null_words_are_null(desk: Desk) -> None:
    """F-25: null, NULL and nothing."""
    path = desk.write("t.log", "null|1\nNULL|\n|3\nnil|4\n")
    rows = desk.rows(files.read_line_file(desk.engine, path, split_delimiter="|"))
    assert [row["c0"] for row in rows] == [None, None, None, "nil"]
    assert [row["c1"] for row in rows] == [1, None, 3, 4]


def test_quotes_are_text(desk: Desk) -> None:
    path = desk.write("t.log", '"a|b"|1\n')
    assert desk.rows(files.read_line_file(desk.engine, path, split_delimiter="|"))[0]["c0"] == '"a'


@pytest.mark.parametrize("delimiter", ["||", "<-sep->", "—"])
def test_long_delimiters(desk: Desk, delimiter: str) -> None:
    path = desk.write("t.log", f"a{delimiter}1\r\nb\r\n\r\n")
    opened = files.read_line_file(desk.engine, path, split_delimiter=delimiter)
    assert desk.rows(opened) == [{"c0": "a", "c1": 1}, {"c0": "b", "c1": None}]


def test_blank_lines_may_be_rows(desk: Desk) -> None:
    path = desk.write("t.log", "a|1\n\nb|2\n")
    opened = files.read_line_file(desk.engine, path, split_delimiter="|", skip_empty_lines=False)
    assert desk.rows(opened) == [{"c0": "a", "c1": 1}, {"c0": None, "c1": None}, {"c0": "b", "c1": 2}]


def test_vectors_and_leading_zeros_in_lines(desk: Desk) -> None:
    """T-17 "complex cells"; 007 is text in lines too (F-25 would make 7 of it, and lose what it was)."""
    path = desk.write("t.log", "[1 2 3]|007|true\n[4 5 6]|010|false\n")
    opened = files.read_line_file(desk.engine, path, split_delimiter="|")
    assert types_of(opened) == {"c0": "float32[3]", "c1": "string", "c2": "bool"}
    assert desk.rows(opened)[0] == {"c0": [1.0, 2.0, 3.0], "c1": "007", "c2": True}


def test_a_cell_further_down_is_refused_or_collected(desk: Desk) -> None:
    text, at = hidden("", "12|a", "1.5|a")
    path = desk.write("t.log", text)
    with pytest.raises(DataError) as caught:
        desk.rows(files.read_line_file(desk.engine, path, split_delimiter="|"), "SELECT max(c0) AS m FROM {}")
    assert caught.value.message == 'column "c0": "1.5" is not int64'
    assert caught.value.place is not None
    assert (caught.value.place.file, caught.value.place.line) == (path, at)
    opened = files.read_line_file(desk.engine, path, split_delimiter="|", on_error="collect")
    assert desk.rejects(opened) == [(at, "c0", '"1.5" is not int64')]
    assert desk.rows(opened, "SELECT count(*) AS n FROM {}") == [{"n": text.count("12|")}]


# --- regular expressions ----------------------------------------------------------------------------------------------


def test_regex(desk: Desk) -> None:
    """F-24, T-17, T-42: groups from 1, the whole line is 0, lines that do not match are no rows."""
    path = desk.write("t.log", ACCESS)
    opened = files.read_line_file(
        desk.engine, path, [("path", 3), ("code", 4), ("all", 0)], mode="regex", regex_pattern=PATTERN
    )
    assert types_of(opened) == {"path": "string", "code": "int64", "all": "string"}
    assert desk.rows(opened) == [
        {"path": "/x", "code": 200, "all": '10.0.0.1 - "GET /x" 200'},
        {"path": "/y", "code": 404, "all": '10.0.0.2 - "PUT /y" 404'},
    ]


def test_regex_matches_whole_lines(desk: Desk) -> None:
    path = desk.write("t.log", "a1\nxa1\na1x\n")
    opened = files.read_line_file(desk.engine, path, mode="regex", regex_pattern=r"a(\d)")
    assert desk.rows(opened) == [{"c1": 1}]


def test_regex_names_and_many_groups(desk: Desk) -> None:
    """Seven groups are two calls of the engine: it is five times slower with all of them in one."""
    path = desk.write("t.log", "1 2 3 4 5 6 7\n8 9 10 11 12 13 14\n")
    pattern = r"(?P<a>\d+) (?P<b>\d+) (\d+) (?:(\d+)) ([^)(]+) (\d+)\s(?P<last>\d+)"
    opened = files.read_line_file(desk.engine, path, mode="regex", regex_pattern=pattern)
    assert desk.rows(opened)[0] == {"a": 1, "b": 2, "c3": 3, "c4": 4, "c5": 5, "c6": 6, "last": 7}


def test_groups_are_read_from_a_pattern() -> None:
    pattern = r"\((a)[()](?:b)(?P<n>c)(?i)[]()](\d)"
    assert groups_of(pattern) == [None, "n", None]
    assert only_groups(pattern, [3]) == r"\((?:a)[()](?:b)(?:c)(?i)[]()](\d)"


def test_regex_rows_that_are_left_out(desk: Desk) -> None:
    path = desk.write("t.log", ACCESS + '10.0.0.3 - "GET /z" 99999999999999999999\n')
    mappings = [("code", 4), ("path", 3)]
    opened = files.read_line_file(
        desk.engine, path, mappings, mode="regex", regex_pattern=PATTERN, types={"code": "int32"}, on_error="collect"
    )
    assert opened.skipped == 2
    assert desk.rejects(opened) == [
        (2, None, "the line does not match"),
        (4, "code", '"99999999999999999999" is not int32'),
    ]
    assert [row["code"] for row in desk.rows(opened)] == [200, 404]
    lazy = files.read_line_file(
        desk.engine, path, mappings, mode="regex", regex_pattern=PATTERN, types={"code": "int32"}
    )
    with pytest.raises(DataError) as caught:
        desk.rows(lazy)
    assert caught.value.place is not None
    assert caught.value.place.line == 4


def test_regex_with_blank_lines(desk: Desk) -> None:
    path = desk.write("t.log", "a\n\nb\n")
    opened = files.read_line_file(
        desk.engine, path, [("w", 1)], mode="regex", regex_pattern="(.*)", skip_empty_lines=False
    )
    assert desk.rows(opened) == [{"w": "a"}, {"w": None}, {"w": "b"}]


def test_wrong_patterns(desk: Desk) -> None:
    path = desk.write("t.log", "a\n")
    for pattern, mappings, said in (
        ("(a", None, "cannot be read"),
        (r"(?=a)", None, "cannot be read"),
        ("", None, "needs a regex_pattern"),
        ("(a)", [("x", 2)], "group 2"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            files.read_line_file(desk.engine, path, mappings, mode="regex", regex_pattern=pattern)
        assert caught.value.code == "option.value"


def test_no_line_matches(desk: Desk) -> None:
    path = desk.write("t.log", "a\nb\n")
    opened = files.read_line_file(desk.engine, path, [("x", 1)], mode="regex", regex_pattern=r"(\d)")
    assert desk.rows(opened) == []
    assert opened.warnings == ("no sampled line matches the pattern",)


def test_pushdown_equals_the_full_read(desk: Desk) -> None:
    """F-32, T-17: filters, predicate trees, limits and groups over split and regex lines."""
    path = desk.write("t.log", "".join(f"{n}|{n % 4}|w{n}\n" for n in range(200)))
    split = files.read_line_file(desk.engine, path, "n:0, k:1, w:2", split_delimiter="|")
    regex = files.read_line_file(desk.engine, path, "n:1, k:2, w:3", mode="regex", regex_pattern=r"(\d+)\|(\d)\|(.+)")
    for opened in (split, regex):
        assert desk.rows(opened, "SELECT w FROM {} WHERE (n > 197 OR n = 3) AND k <> 2") == [{"w": "w3"}, {"w": "w199"}]
        assert desk.rows(opened, "SELECT k, sum(n) AS s FROM {} GROUP BY k ORDER BY k LIMIT 2") == [
            {"k": 0, "s": sum(range(0, 200, 4))},
            {"k": 1, "s": sum(range(1, 200, 4))},
        ]
