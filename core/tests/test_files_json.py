"""JSON: one schema from all objects, nothing lost, broken lines told."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from files_support import Desk, hidden, types_of
from hypothesis import given, settings
from hypothesis import strategies as st

from velaria_core.errors import DataError, InputError
from velaria_core.execution import files


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


def opened(desk: Desk, content: str | bytes, name: str = "t.json", **options: Any) -> files.OpenedFile:
    return files.read_json(desk.engine, desk.write(name, content), **options)


def rows(desk: Desk, content: str | bytes, **options: Any) -> list[dict[str, Any]]:
    return desk.rows(opened(desk, content, **options))


def test_lines_and_arrays(desk: Desk) -> None:
    """F-26, T-17, T-42: one object a line, an array over several lines, running objects."""
    expected = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert rows(desk, '{"a": 1, "b": "x"}\n\n{"a": 2}\n') == expected
    assert rows(desk, '[\n{"a": 1, "b": "x"},\n{"a": 2}]') == expected
    assert rows(desk, '{\n "a": 1,\n "b": "x"\n}\n{"a": 2}') == expected
    assert rows(desk, '{"a": 1, "b": "x"}\n{"a": 2}\n', format="jsonl") == expected
    assert rows(desk, '[{"a": 1, "b": "x"}, {"a": 2}]', format="array") == expected


def test_the_schema_is_of_all_objects(desk: Desk) -> None:
    """B-9: keys that the first object lacks are columns, and types are of all values."""
    found = opened(desk, '{"a": 1}\n{"b": "x", "a": 2.5}\n{"c": true, "a": null}\n')
    assert types_of(found) == {"a": "float64", "b": "string", "c": "bool"}
    assert desk.rows(found)[1] == {"a": 2.5, "b": "x", "c": None}


def test_escapes(desk: Desk) -> None:
    """B-9, F-26: every escape, \\u with surrogates too."""
    content = r'{"s": "h\u00e9 \ud83d\ude00 \"q\" \\ \/ \n\t\r\b\f \u5317"}'
    assert rows(desk, content) == [{"s": json.loads(content)["s"]}]


@given(
    texts=st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=6),
    ascii_only=st.booleans(),
    on_error=st.sampled_from(["fail", "skip"]),
)
@settings(max_examples=30, deadline=None)
def test_any_text_survives(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], ascii_only: bool, on_error: str
) -> None:
    """B-9: what Python's writer writes is read as it was, escaped or not, NULs and "" too."""
    content = "".join(json.dumps({"s": text}, ensure_ascii=ascii_only) + "\n" for text in texts)
    with Desk(tmp_path_factory.mktemp("any")) as desk:
        assert rows(desk, content, columns={"s": "string"}, on_error=on_error) == [{"s": text} for text in texts]


def test_arrays_of_anything(desk: Desk) -> None:
    """B-9: arrays of numbers are vectors or lists, of texts lists, of others their text."""
    found = opened(
        desk,
        '{"v": [1, 2.5, 3], "l": [1], "t": ["a", "b"], "m": [1, "a"], "n": [[1], [2]], "e": []}\n'
        '{"v": [4, 5, 6], "l": [1, 2], "t": [], "m": [], "n": [], "e": []}\n',
    )
    assert types_of(found) == {
        "v": "float32[3]",
        "l": "list<float64>",
        "t": "list<string>",
        "m": "string",
        "n": "string",
        "e": "string",
    }
    assert desk.rows(found)[0] == {
        "v": [1.0, 2.5, 3.0],
        "l": [1.0],
        "t": ["a", "b"],
        "m": '[1,"a"]',
        "n": "[[1],[2]]",
        "e": "[]",
    }


def test_nested_objects_are_their_text(desk: Desk) -> None:
    """F-26, T-18, T-42: Text, read by JSON functions, or typed when it is declared."""
    content = '{"id": 1, "o": {"k": [1, {"x": "a, }"}], "n": 1.5}}\n{"id": 2, "o": null}\n'
    found = opened(desk, content)
    assert desk.rows(found)[0] == {"id": 1, "o": '{"k":[1,{"x":"a, }"}],"n":1.5}'}
    assert desk.rows(found, "SELECT o ->> '$.n' AS n FROM {} LIMIT 1") == [{"n": "1.5"}]
    typed = opened(desk, content, columns={"o": "STRUCT(n DOUBLE)"})
    assert desk.rows(typed) == [{"o": {"n": 1.5}}, {"o": None}]


def test_numbers_stay_exact(desk: Desk) -> None:
    found = opened(desk, '{"big": 18446744073709551616, "id": 9007199254740993, "s": "007"}\n{"big": 1, "id": -1}\n')
    assert types_of(found) == {"big": "decimal(38,0)", "id": "int64", "s": "string"}
    assert desk.rows(found)[0] == {"big": Decimal("18446744073709551616"), "id": 9007199254740993, "s": "007"}


def test_times_are_found_and_mixed_kinds_are_text(desk: Desk) -> None:
    found = opened(desk, '{"d": "2024-02-29", "m": 1}\n{"d": null, "m": "x"}\n{"m": {"k": 1}}\n')
    assert types_of(found) == {"d": "date", "m": "string"}
    assert [row["m"] for row in desk.rows(found)] == ["1", "x", '{"k":1}']
    assert desk.rows(found)[0]["d"] == date(2024, 2, 29)


def test_columns(desk: Desk) -> None:
    """F-26: named keys only, in order, with types where given; unknown keys ignored, missing ones NULL."""
    content = '{"a": 1, "b": "2", "c": 3}\n{"a": 4}\n'
    assert rows(desk, content, columns=["c", "a"]) == [{"c": 3, "a": 1}, {"c": None, "a": 4}]
    assert rows(desk, content, columns={"b": "int64", "z": "string"})[0] == {"b": 2, "z": None}
    assert rows(desk, content, columns="a:string, c")[0] == {"a": "1", "c": 3}
    with pytest.raises(InputError) as caught:
        rows(desk, content, columns=["aa"])
    assert caught.value.code == "file.unknown_column"


def test_keys_that_differ_by_case_only(desk: Desk) -> None:
    with pytest.raises(DataError) as caught:
        rows(desk, '{"a": 1, "A": 2}')
    assert caught.value.code == "file.duplicate_column"
    assert rows(desk, '{"a": 1, "A": 2}', columns=["A"]) == [{"A": 2}]


def test_keys_that_need_quotes(desk: Desk) -> None:
    content = '{"it\'s": 1, "a/b~c": 2, "x y": 3, "": 4}\n'
    found = opened(desk, content)
    assert desk.rows(found) == [{"it's": 1, "a/b~c": 2, "x y": 3}]
    assert found.warnings == ('the key "" is left out: a column needs a name',)
    assert rows(desk, content, columns=["it's", "a/b~c", "x y"], on_error="skip") == [{"it's": 1, "a/b~c": 2, "x y": 3}]


@pytest.mark.parametrize(
    ("line", "other", "message"),
    [
        ('{"a": 1}', '{"a": 1.5}', 'column "a": "1.5" is not int64'),
        ('{"a": 1}', '{"a": "x"}', 'column "a": "x" is not int64'),
        ('{"a": [1, 2]}', '{"a": [1]}', 'column "a": "[1]" is not float32[2]'),
        ('{"a": "2024-01-01"}', '{"a": "soon"}', 'column "a": "soon" is not date'),
        ('{"a": "2024-01-01"}', '{"a": "2024-01-01 10:00:00"}', 'column "a": "2024-01-01 10:00:00" is not date'),
        ('{"a": true}', '{"a": 5}', 'column "a": "5" is not bool'),
        ('{"a": 1}', "[1]", "not an object"),
        ('{"a": 1}', '{"a": 1', "malformed JSON: Expecting ',' delimiter (column 1)"),
        ('{"a": 1}', '{"a": }', "malformed JSON: Expecting value (column 7)"),
    ],
)
def test_an_object_further_down_is_refused_with_its_line(desk: Desk, line: str, other: str, message: str) -> None:
    """The engine would round 1.5, and names the line after a broken one."""
    text, at = hidden("", line, other)
    found = opened(desk, text)
    with pytest.raises(DataError) as caught:
        desk.rows(found, "SELECT max(a) AS m FROM {}")
    assert caught.value.message == message
    assert caught.value.place is not None
    assert (caught.value.place.file, caught.value.place.line) == (str(desk.folder / "t.json"), at)


def test_a_broken_array_is_refused_with_its_line(desk: Desk) -> None:
    for content, line in (('[{"a": 1},\n{"a": 2]', 2), ('[\n{"a": 1}\n{"a": 2}]', 3), ("[1, 2", 1), ('{"a": \n', 1)):
        with pytest.raises(DataError) as caught:
            rows(desk, content)
        assert caught.value.code == "file.bad_json"
        assert caught.value.place is not None
        assert caught.value.place.line == line


BAD = '{"id": 1, "v": [1, 2], "o": {"k": 1}}\n{"id": 2\n\n{"id": "x", "v": [1], "o": 1}\n[3]\n{"id": 4, "v": null}\n'


def test_bad_rows_are_collected(desk: Desk) -> None:
    """The engine would give the broken line as a row of NULLs."""
    columns = {"id": "int64", "v": "FLOAT[2]", "o": "string"}
    found = opened(desk, BAD, columns=columns, on_error="collect")
    assert found.skipped == 3
    assert desk.rejects(found) == [
        (2, None, "malformed JSON"),
        (4, "id", '"x" is not int64'),
        (4, "v", '"[1]" is not float32[2]'),
        (5, None, "not an object"),
    ]
    assert desk.rows(found) == [{"id": 1, "v": [1.0, 2.0], "o": '{"k":1}'}, {"id": 4, "v": None, "o": None}]
    skipped = opened(desk, BAD, columns=columns, on_error="skip")
    assert (skipped.skipped, skipped.rejects) == (3, None)
    array = opened(desk, '[{"id": 1}, {"id": "x"}, 5]', columns={"id": "int64"}, on_error="collect")
    assert desk.rejects(array) == [(2, "id", '"x" is not int64'), (3, None, "not an object")]


def test_skipping_reads_as_failing_does(desk: Desk) -> None:
    """Values converted line by line are those that the reader converts."""
    content = (
        '{"i": 1, "d": 0.1, "b": true, "s": "a\\"é", "t": "2024-01-01T10:00:00", "v": [1, 2], "l": ["x", "y, z"], '
        '"n": [1.5], "big": 99999999999999999999, "o": {"k": null}}\n'
        '{"i": null, "d": 3, "b": false, "s": "", "t": null, "v": [3, 4], "l": [], "n": [1, 2], "big": 1, "o": null}\n'
    )
    assert rows(desk, content, on_error="skip") == rows(desk, content)


def test_compression_and_byte_order_marks(desk: Desk) -> None:
    packed = opened(desk, gzip.compress(b'{"a": 1}\n'), name="t.jsonl.gz")
    assert desk.rows(packed) == [{"a": 1}]
    for encoding in ("utf-8-sig", "utf-16"):
        assert rows(desk, '{"a": "é"}\n'.encode(encoding)) == [{"a": "é"}]
    assert rows(desk, '{"a": "é"}\n'.encode("latin-1"), encoding="latin-1") == [{"a": "é"}]


def test_pushdown_equals_the_full_read(desk: Desk) -> None:
    """F-32, T-17: over lines and arrays."""
    objects = [{"n": n, "k": n % 3, "w": f"w{n}"} for n in range(100)]
    lines = "".join(json.dumps(item) + "\n" for item in objects)
    for content in (lines, json.dumps(objects)):
        found = opened(desk, content)
        assert desk.rows(found, "SELECT w FROM {} WHERE n > 97 OR n = 2") == [{"w": "w2"}, {"w": "w98"}, {"w": "w99"}]
        assert desk.rows(found, "SELECT k, count(*) AS c, sum(n) AS s FROM {} GROUP BY k ORDER BY k") == [
            {"k": k, "c": sum(o["k"] == k for o in objects), "s": sum(range(k, 100, 3))} for k in range(3)
        ]


def test_files_that_add_keys(desk: Desk) -> None:
    first = desk.write("m/a.jsonl", '{"a": 1}\n')
    desk.write("m/b.jsonl", '{"a": 2.5, "b": "x"}\n')
    found = files.read_json(desk.engine, str(Path(first).parent))
    assert desk.rows(found, "SELECT * FROM {} ORDER BY a") == [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}]
