"""`velaria vector-search`. L-02, D-12, and B-23: what a user writes is a value or a name, never SQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import Ran, Run

pytestmark = pytest.mark.usefixtures("folder")

DOCS = 'id,lang,embedding\n1,en,[1 0 0]\n2,de,"[0.5, 0.5, 0]"\n3,en,\n4,en,0 0 2\n5,it\'s,[0 1 0]\n'


def search(run: Run, *options: str) -> Ran:
    Path("docs.csv").write_text(DOCS)
    return run("vector-search", "docs.csv", "--vector-column", "embedding", *options)


def found(ran: Ran) -> dict[str, Any]:
    assert (ran.code, ran.errors) == (0, "")
    document: dict[str, Any] = json.loads(ran.text)
    return document


def test_a_search_of_texts(run: Run) -> None:
    document = found(search(run, "--query-vector", "1, 0, 0", "--top-k", "2"))
    assert list(document) == [
        *("metric", "top_k", "where_column", "where_op", "where_value", "score_threshold", "schema", "rows", "explain")
    ]
    assert document["schema"] == ["id", "lang", "embedding", "vector_score"]
    assert [(row["id"], row["embedding"]) for row in document["rows"]] == [(1, [1.0, 0.0, 0.0]), (2, [0.5, 0.5, 0.0])]
    assert (document["explain"]["mode"], document["explain"]["dimension"]) == ("exact-scan", "3")
    assert document["explain"]["candidate_rows"] == "4"


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (("lang", "=", "en"), [1, 4]),
        (("lang", "=", "it's"), [5]),
        (("lang", "=", "en' OR '1' = '1"), []),
        (("id", ">", "1"), [2, 4, 5]),
    ],
)
def test_a_filter_is_a_value(run: Run, where: tuple[str, str, str], ids: list[int]) -> None:
    column, operator, value = where
    options = ("--where-column", column, "--where-op", operator, "--where-value", value)
    document = found(search(run, "--query-vector", "[1 0 0]", "--metric", "l2", *options))
    assert [row["id"] for row in document["rows"]] == ids or sorted(row["id"] for row in document["rows"]) == ids
    assert document["explain"]["mode"] == "exact-scan-hybrid-search"
    assert document["explain"]["column_filter_execution"] in ("post-load-filter", "source-pushdown")


def test_a_threshold_makes_it_hybrid(run: Run) -> None:
    document = found(search(run, "--query-vector", "[1 0 0]", "--metric", "dot", "--score-threshold", "0.5"))
    assert [row["id"] for row in document["rows"]] == [1, 2]
    assert document["explain"]["score_threshold_compare"] == ">="


def test_the_older_name_of_the_file(run: Run) -> None:
    Path("o'brien.csv").write_text(DOCS)
    ran = run("vector-search", "--csv", "o'brien.csv", "--vector-column", "embedding", "--query-vector", "0 0 1")
    assert found(ran)["rows"][0]["id"] == 4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--query-vector", "1 0"), "value.conversion"),
        (("--query-vector", "red"), "search.vector"),
        (("--query-vector", "1 0 0", "--where-column", "lang"), "go together"),
        (("--query-vector", "1 0 0", "--top-k", "0"), "top-k"),
        (("--query-vector", "1 0 0", "--metric", "hamming"), "metric"),
        (
            ("--query-vector", "1 0 0", "--where-column", "lang", "--where-op", "; DROP", "--where-value", "x"),
            "frame.operator",
        ),
        (
            ("--query-vector", "1 0 0", "--where-column", "1=1; --", "--where-op", "=", "--where-value", "x"),
            "sql.unknown_column",
        ),
    ],
)
def test_what_is_refused(run: Run, options: tuple[str, ...], told: str) -> None:
    ran = search(run, *options)
    assert ran.code in (1, 2)
    assert ran.data == b""
    assert told in ran.errors
