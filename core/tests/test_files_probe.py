"""Probing: scores by rule, with evidence, and a read that agrees with what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from files_support import Desk

from velaria_core.execution import files
from velaria_core.execution.files.probe import Confidence, confidence


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


def found(desk: Desk, name: str, content: str | bytes) -> files.Probe:
    return files.probe(desk.engine, desk.write(name, content))


# T-18: name, content, final format, confidence, columns.
ROWS: list[tuple[str, str, str, str, list[str]]] = [
    ("t.csv", "id,name\n1,a\n2,b\n", "csv", "high", ["id", "name"]),
    ("t.tsv", "id\tname\n1\ta\n2\tb\n", "tsv", "high", ["id", "name"]),
    ("headerless.csv", "1,a,2\n2,b,3\n", "csv", "high", ["c0", "c1", "c2"]),
    ("pipes.csv", "1001|ok|12\n1002|fail|15\n", "line_split", "medium", ["c0", "c1", "c2"]),
    ("t.jsonl", '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n', "json_lines", "high", ["a", "b"]),
    ("no_suffix", '{"a": 1}\n{"a": 2}\n', "json_lines", "high", ["a"]),
    ("lines.json", '{"a": 1}\n{"a": 2}\n', "json_lines", "high", ["a"]),
    ("array.json", '[{"a": 1}, {"a": 2}]', "json_array", "high", ["a"]),
    ("nested.jsonl", '{"a": {"b": [1, "x, y"]}}\n{"a": {"b": "|"}}\n', "json_lines", "high", ["a"]),
    ("app.log", "2024-01-01|INFO|up\n2024-01-02|WARN|down\n", "line_split", "medium", ["c0", "c1", "c2"]),
    ("semicolons.csv", "id;name\n1;a\n", "csv", "high", ["id", "name"]),
    ("pipes_with_names.csv", "id|name\n1|a\n2|b\n", "csv", "high", ["id", "name"]),
    ("pretty.json", '{\n  "a": 1\n}\n{\n  "a": 2\n}\n', "json_lines", "high", ["a"]),
]


@pytest.mark.parametrize(("name", "content", "final", "sure", "columns"), ROWS, ids=[row[0] for row in ROWS])
def test_formats(desk: Desk, name: str, content: str, final: str, sure: str, columns: list[str]) -> None:
    """T-18, T-42: every kind of file is what it is, and reads so."""
    probe = found(desk, name, content)
    assert (probe.final_format, probe.confidence.value, probe.schema.names) == (final, sure, columns)
    opened = files.read(desk.engine, probe.path)
    assert opened.relation.schema == probe.schema
    assert len(desk.rows(opened)) == 2 - (name == "semicolons.csv")


def test_keys(desk: Desk) -> None:
    """F-11: the keys of every kind, and those of each."""
    common = {
        "path",
        "kind",
        "final_format",
        "score",
        "confidence",
        "schema",
        "types",
        "suggested_table_name",
        "warnings",
        "candidates",
        "compression",
        "encoding",
        "files",
    }
    extra = {
        ("a.csv", "x,y\n1,2\n"): ("csv", {"delimiter", "header"}),
        ("a.log", "1|y\n2|w\n"): ("line", {"mode", "delimiter", "mappings"}),
        ("a.json", '[{"x": 1}]'): ("json", {"format", "columns"}),
    }
    for (name, content), (kind, keys) in extra.items():
        told: dict[str, Any] = found(desk, name, content).to_dict()
        assert told["kind"] == kind
        assert set(told) == common | keys
        assert json.loads(json.dumps(told)) == told
        for candidate in told["candidates"]:
            assert set(candidate) == {"format", "kind", "score", "reason", "evidence"}
            assert candidate["evidence"]
        scores = [candidate["score"] for candidate in told["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == told["score"]


def test_line_mappings(desk: Desk) -> None:
    told = found(desk, "a.log", "x|1\ny|2\n").to_dict()
    assert told["mode"] == "split"
    assert told["delimiter"] == "|"
    assert told["mappings"] == [{"column": "c0", "source_index": 0}, {"column": "c1", "source_index": 1}]


def test_scores(desk: Desk) -> None:
    """F-02 to F-08: the points of the rules."""
    assert found(desk, "a.jsonl", '{"a": 1}\n').score == 100
    assert found(desk, "a.data", '{"a": 1}\n').score == 92
    assert found(desk, "a.json", '[{"a": 1}]').score == 102
    assert found(desk, "a.csv", "id,name\n1,a\n").score == 40 + 3 * 2 + 25 + 20
    assert found(desk, "b.csv", "1,a\n2,b\n").score == 40 + 3 * 2 + 28 + 20
    assert found(desk, "a.log", "1|a|b\n2|b|c\n").score == 40 + 3 * 3 + 24 + 8
    wide = ",".join(f"c{at}" for at in range(40))
    assert found(desk, "wide", wide + "\n" + ",".join("1" * 40) + "\n").score == 40 + 3 * 12 + 25
    prose = found(desk, "prose.txt", "Call me Ishmael.\nSome years ago, never mind how long\n")
    assert (prose.final_format, prose.score, prose.confidence) == ("line_split", 15, Confidence.LOW)
    assert len(prose.warnings) == 2


def test_confidence() -> None:
    """F-09: how high, and how far ahead."""
    assert confidence(90, 15) is Confidence.HIGH
    assert confidence(90, 14) is Confidence.MEDIUM
    assert confidence(65, 8) is Confidence.MEDIUM
    assert confidence(65, 7) is Confidence.LOW
    assert confidence(64, 60) is Confidence.LOW


def test_near_scores_are_told(desk: Desk) -> None:
    """F-10: the two best within 8 points."""
    probe = found(desk, "a", "1\t2\n3\t4\n")
    assert probe.final_format == "line_split"
    ragged = found(desk, "b.csv", "a,b\n1,2,3\n4\n")
    assert ragged.final_format == "csv"
    assert ragged.confidence is Confidence.LOW
    assert "row 2 has 3 fields" in str(ragged.candidates[1].evidence)


def test_binary_formats_by_their_magic_bytes(desk: Desk) -> None:
    """Better than F-13: Parquet, Arrow files and Arrow streams, whatever they are called."""
    table = pa.table({"x": [1, 2]})
    pyarrow.parquet.write_table(table, desk.folder / "a.dat")
    pyarrow.feather.write_feather(table, str(desk.folder / "b.dat"))
    with pa.ipc.new_stream(str(desk.folder / "c.dat"), table.schema) as writer:
        writer.write_table(table)
    for name, kind in (("a.dat", "parquet"), ("b.dat", "arrow"), ("c.dat", "arrow")):
        probe = files.probe(desk.engine, desk.folder / name)
        assert (probe.kind, probe.final_format, probe.score, probe.confidence) == (kind, kind, 100, Confidence.HIGH)
        assert probe.schema.names == ["x"]
        assert desk.rows(files.read(desk.engine, desk.folder / name)) == [{"x": 1}, {"x": 2}]


def test_suggested_names(desk: Desk) -> None:
    assert found(desk, "my flights-2013.csv", "a\n1\n").suggested_table_name == "my_flights_2013"
    assert found(desk, "2013.csv", "a\n1\n").suggested_table_name == "_2013"
    desk.write("parts/x1.csv", "a\n1\n")
    desk.write("parts/x2.csv", "a\n1\n")
    probe = files.probe(desk.engine, f"{desk.folder}/parts/*.csv")
    assert (probe.files, probe.suggested_table_name) == (2, "x1")


def test_a_probed_read_and_an_explicit_one_agree(desk: Desk) -> None:
    """Architecture 10: one sniffing behind both, types included."""
    content = "zip|share|when\n007|0.5|2024-01-01\n010|1|2024-01-02\n"
    path = desk.write("t.csv", content)
    explicit, probed = files.read_csv(desk.engine, path), files.read(desk.engine, path)
    assert explicit.relation.schema == probed.relation.schema == files.probe(desk.engine, path).schema
    assert desk.rows(explicit) == desk.rows(probed)


def test_import_previews_agree_on_the_delimiter_of_lines(desk: Desk) -> None:
    """B-33: the delimiter is found in the file; no route assumes its own."""
    path = desk.write("a.log", "x;1\ny;2\n")
    probe = files.probe(desk.engine, path)
    assert probe.delimiter == ";"
    for opened in (
        files.read_line_file(desk.engine, path),
        files.from_options(desk.engine, "line", {"path": path}),
        files.from_options(desk.engine, None, {"path": path}),
    ):
        assert opened.relation.schema == probe.schema
