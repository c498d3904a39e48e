"""Keyword search and fused search by frames and the session. A-40, A-92, Q-39..Q-41, T-08."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from velaria_core import DataflowSession, InputError, SqlSemanticError
from velaria_core.errors import VelariaError
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.logical.operators import HybridSearch, KeywordSearch
from velaria_core.logical.serialize import dumps, fingerprint, loads

TABLE = pa.table(
    {
        "id": [1, 2, 3, 4, 5],
        "title": ["Night trains", "Beach", None, "支付失败", "Trains"],
        "body": ["a night train to Lisbon", "sun and sea", "the train", "用户支付失败", "trains trains"],
        "e": pa.array([[1, 0], [0, 1], [1, 1], [2, 0], None], pa.list_(pa.float32(), 2)),
    }
)


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        made.create_dataframe(TABLE).save_as_table("d")
        yield made


def ids(frame: Any) -> list[int]:
    return [int(row["id"]) for row in frame.to_rows()]


@pytest.mark.parametrize(
    ("columns", "text", "found"),
    [
        ("body", "train", [5, 3, 1]),
        (["title", "body"], "night train", [1, 5, 3]),
        ({"title": 5, "body": 1}, "train", [5, 1, 3]),
        ({"Title": 1}, '"night trains"', [1]),
        ("title", "支付", [4]),
        ("title", "nowhere", []),
    ],
)
def test_the_best_come_first(session: DataflowSession, columns: Any, text: str, found: list[int]) -> None:
    frame = session.keyword_search("d", columns, text)
    assert frame.columns == [*TABLE.schema.names, "keyword_score"]
    assert ids(frame) == found
    scores = [row["keyword_score"] for row in frame.to_rows()]
    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)


def test_a_filter_below_chooses_the_corpus(session: DataflowSession) -> None:
    """T-55: the scores of some rows are those of a corpus that is only them."""
    few = session.table("d").filter("id <> 4")
    alone = session.create_dataframe(TABLE.filter(pa.compute.field("id") != 4))
    expected = alone.keyword_search(["title", "body"], "night train").to_arrow()
    assert few.keyword_search(["title", "body"], "night train").to_arrow() == expected
    assert session.keyword_search("d", ["title", "body"], "night train").to_arrow() != expected


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("id", "train"), "search.not_text"),
        (("nope", "train"), "sql.unknown_column"),
        (("body", ""), "search.query"),
        (("body", "(train"), "search.query"),
        (("body", 7), "search.query"),
        (("body", "train", 0), "search.top_k"),
        (({"body": -1}, "train"), "search.weight"),
        ((), "search.columns"),
    ],
)
def test_what_is_refused(session: DataflowSession, arguments: tuple[Any, ...], code: str) -> None:
    with pytest.raises(InputError) as refused:
        session.keyword_search("d", *(arguments or ([], "train")))
    assert refused.value.code == code


def test_both_fused_by_rank(session: DataflowSession) -> None:
    frame = session.hybrid_search("d", "e", [1, 0], 3, text="night train", columns=["title", "body"])
    rows = frame.to_rows()
    assert [row["id"] for row in rows] == [1, 3, 4]
    for row in rows:
        shares = [1 / (60 + row[rank]) for rank in ("vector_rank", "keyword_rank") if row[rank] is not None]
        assert row["hybrid_score"] == pytest.approx(sum(shares), abs=1e-15)
    assert (rows[2]["keyword_rank"], rows[2]["keyword_score"]) == (None, None)


def test_both_fused_by_weight(session: DataflowSession) -> None:
    frame = session.hybrid_search(
        "d", "e", [1, 0], 10, text="night train", columns="body", fusion="weighted", constant=1.0
    )
    rows = {row["id"]: row["hybrid_score"] for row in frame.to_rows()}
    assert rows == {1: 1.0, 4: 1.0, 3: pytest.approx(0.5**0.5), 2: 0.0, 5: 0.0}


def test_a_hybrid_search_without_words_is_a_vector_search(session: DataflowSession) -> None:
    frame = session.hybrid_search("d", "e", [1, 0], 2, "l2", 1.0)
    assert frame.columns == [*TABLE.schema.names, "vector_score"]
    assert ids(frame) == [1, 3]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"fusion": "max"}, "search.fusion"),
        ({"constant": -1}, "search.constant"),
        ({"fusion": "weighted", "constant": 1.5}, "search.constant"),
        ({"constant": float("nan")}, "search.constant"),
        ({"candidates": 0}, "search.top_k"),
        ({"columns": ()}, "search.columns"),
        ({"text": None}, "search.query"),
    ],
)
def test_what_is_not_fused(session: DataflowSession, options: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as refused:
        session.hybrid_search("d", "e", [1, 0], **{"text": "train", "columns": "body", **options})
    assert refused.value.code == code


def test_scores_that_are_there_already(session: DataflowSession) -> None:
    once = session.hybrid_search("d", "e", [1, 0], text="train", columns="body")
    for again in (
        lambda: once.keyword_search("body", "train"),
        lambda: once.drop("vector_score").hybrid_search("e", [1, 0], text="train", columns="body"),
    ):
        with pytest.raises(SqlSemanticError) as refused:
            again()
        assert refused.value.code == "search.score_column"


def test_plans_are_values(session: DataflowSession) -> None:
    frame = session.create_dataframe(TABLE)
    for made, kind in (
        (frame.keyword_search({"body": 2}, "train"), KeywordSearch),
        (frame.hybrid_search("e", [1, 0], text="train", columns="body"), HybridSearch),
    ):
        read = loads(dumps(made.node))
        assert isinstance(read, kind)
        assert (read.label(), fingerprint(read)) == (made.node.label(), fingerprint(made.node))


def test_a_stream_keeps_the_rows_that_match(session: DataflowSession) -> None:
    batches = [pa.table({"id": [at], "body": ["night train" if at % 10 == 0 else "day"]}) for at in range(40)]
    frame = session.read_stream(MemorySource(batches)).keyword_search("body", "night", 2)
    sink = MemorySink()
    query = frame.write_stream(sink)
    query.process_available()
    explained = query.explain(analyze=True)
    query.stop()
    result = sink.result().sort_by("id")
    every = session.create_dataframe(pa.concat_tables(batches)).keyword_search("body", "night", 2)
    assert result.to_pylist() == every.to_arrow().sort_by("id").to_pylist()
    (line,) = [line for line in explained.split("\n") if "kind=Search" in line]
    assert "state=(rows that match, and sums over all rows)" in line


def test_a_query_in_parameters(session: DataflowSession) -> None:
    sql = "SELECT id FROM d KEYWORD SEARCH(body) QUERY ? TOP_K ?"
    assert ids(session.sql(sql, ["night", 1])) == [1]
    with pytest.raises(VelariaError) as refused:
        session.sql(sql, ["night OR", 1])
    assert refused.value.code == "search.query"
    assert refused.value.place is not None
    assert refused.value.place.column == sql.index("?") + 1
