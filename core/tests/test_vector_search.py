"""Vector search by frames and the session: rows, errors and explain. A-17..A-19, A-40, A-91, T-16, T-44."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from velaria_core import DataflowSession, InputError, SqlSemanticError, VelariaError, col
from velaria_core.errors import DataError
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.logical.operators import VectorSearch
from velaria_core.logical.serialize import dumps, loads

ROWS = [(1, "a", [1.0, 0.0, 0.0]), (2, "b", [0.5, 0.5, 0.0]), (3, "a", None), (4, "b", [0.0, 0.0, 2.0])]


def vectors(rows: Sequence[Sequence[float] | None], length: int = 3) -> pa.Array:
    return pa.array(rows, pa.list_(pa.float32(), length))


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        ids, kinds, found = zip(*ROWS, strict=True)
        table = pa.table({"id": ids, "kind": kinds, "e": vectors(found)})
        made.create_dataframe(table).save_as_table("v")
        yield made


def ids(frame: Any) -> list[int]:
    return [int(row["id"]) for row in frame.to_rows()]


QUERIES: list[Callable[[list[float]], Any]] = [
    list,
    tuple,
    np.array,
    lambda query: np.array(query, np.float32),
    pa.array,
    lambda query: vectors([query])[0],
    lambda query: " ".join(map(str, query)),
    lambda query: f"[{', '.join(map(str, query))}]",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_anything_that_holds_numbers(session: DataflowSession, query: Callable[[list[float]], Any]) -> None:
    found = session.vector_search("v", "e", query([0.0, 0.0, 1.0]), top_k=2, metric="l2")
    assert found.columns == ["id", "kind", "e", "vector_score"]
    assert [(row["id"], row["vector_score"]) for row in found.to_rows()] == [(4, 1.0), (2, 1.5**0.5)]


@pytest.mark.parametrize(
    ("metric", "best", "score"), [("cosine", 2, 0.0), ("cosin", 2, 0.0), ("dot", 1, 1.0), ("l2", 2, 0.5**0.5)]
)
def test_winners_by_metric(session: DataflowSession, metric: str, best: int, score: float) -> None:
    (row,) = session.vector_search("v", "e", [1, 1, 0], 1, metric).to_rows()
    assert row["id"] == best
    assert row["vector_score"] == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "threshold", "found"), [("dot", 0.5, [1, 2]), ("l2", 1.0, [1, 2]), ("cosine", 0.3, [1, 2])]
)
def test_a_threshold_keeps_what_is_as_good(
    session: DataflowSession, metric: str, threshold: float, found: list[int]
) -> None:
    frame = session.table("v").vector_search("e", [1, 0, 0], metric=metric, score_threshold=threshold)
    assert ids(frame) == found


def test_scores_are_those_of_float64(session: DataflowSession) -> None:
    """Against a reference in float64 over the float32 values: at most 4 units in the last place of 1.0 per number."""
    random = np.random.default_rng(7)
    rows, query = random.standard_normal((500, 48)).astype(np.float32), random.standard_normal(48).astype(np.float32)
    frame = session.create_dataframe({"id": np.arange(500), "e": vectors(rows.tolist(), 48)})
    wide, one = rows.astype(np.float64), query.astype(np.float64)
    dot = wide @ one
    expected = {
        "dot": dot,
        "l2": np.sqrt(((wide - one) ** 2).sum(axis=1)),
        "cosine": 1 - dot / (np.linalg.norm(wide, axis=1) * np.linalg.norm(one)),
    }
    for metric, scores in expected.items():
        best = np.argsort(-scores if metric == "dot" else scores, kind="stable")[:20]
        found = frame.vector_search("e", query, 20, metric).to_arrow()
        assert found.column("id").to_pylist() == best.tolist()
        assert np.allclose(found.column("vector_score").to_numpy(), scores[best], rtol=0, atol=48 * 4 * 2**-52)


def test_what_is_not_finite_is_not_found(session: DataflowSession) -> None:
    rows = [[np.nan, 0.0], [np.inf, 1.0], [1.0, 1.0], [0.0, 0.0], None]
    frame = session.create_dataframe({"id": list(range(5)), "e": vectors(rows, 2)})
    assert ids(frame.vector_search("e", [1, 0])) == [2, 3]
    assert ids(frame.vector_search("e", [1, 0], metric="dot")) == [2, 3]
    assert ids(frame.vector_search("e", [1, 0], metric="l2")) == [2, 3]


def test_a_null_among_the_numbers_is_no_vector(session: DataflowSession) -> None:
    frame = session.create_dataframe({"id": [0, 1], "e": vectors([[1.0, None], [0.0, 1.0]], 2)})  # type: ignore[list-item]
    assert ids(frame.vector_search("e", [1, 0])) == [1]
    assert ids(frame.filter("id >= 0").with_column("e", col("e").cast("DOUBLE[2]")).vector_search("e", [1, 0])) == [1]
    of_any_length = frame.with_column("e", col("e").cast("DOUBLE[]"))
    with pytest.raises(VelariaError, match="NULL"):
        of_any_length.vector_search("e", [1, 0]).to_arrow()


def test_ties_are_by_the_other_columns(session: DataflowSession) -> None:
    rows = {"s": ["b", "a", None, "a"], "id": [1, 2, 3, 1], "e": vectors([[1.0, 0.0]] * 4, 2)}
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        frame = session.create_dataframe(pa.table(rows).take(order))
        assert [(row["s"], row["id"]) for row in frame.vector_search("e", [1, 0], 3).to_rows()] == [
            ("a", 1),
            ("a", 2),
            ("b", 1),
        ]


def test_a_table_of_queries(session: DataflowSession) -> None:
    queries = session.create_dataframe({"id": [10, 20], "q": vectors([[1, 0, 0], [0, 0, 1]])})
    found = session.table("v").vector_search("e", queries, 1, query_column="q")
    assert found.columns == ["id_query", "q", "id", "kind", "e", "vector_score"]
    rows = {row["id_query"]: row["id"] for row in found.to_rows()}
    assert rows == {10: 1, 20: 4}
    with pytest.raises(InputError, match="column of the queries"):
        session.table("v").vector_search("e", queries)
    short = session.create_dataframe({"q": vectors([[1, 0]], 2)})
    with pytest.raises(SqlSemanticError, match="3 numbers, q of 2"):
        session.table("v").vector_search("e", short, query_column="q")


def test_the_empty_table_and_the_huge_count(session: DataflowSession) -> None:
    nothing = session.table("v").filter("id > 99")
    assert nothing.vector_search("e", [1, 0, 0]).count() == 0
    assert ids(session.vector_search("v", "e", [1, 0, 0], 10**30)) == [1, 2, 4]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("e", [1, 0]), "search.dimension"),
        (("e", []), "search.vector"),
        (("e", [1, 0, None]), "search.vector"),
        (("e", [1, 0, float("nan")]), "search.vector"),
        (("e", [1, 0, 1e39]), "search.vector"),
        (("e", [[1, 0, 0]]), "search.vector"),
        (("e", np.zeros((1, 3))), "search.vector"),
        (("e", [True, False, True]), "search.vector"),
        (("e", "red"), "search.vector"),
        (("e", 7), "search.vector"),
        (("e", None), "search.vector"),
        (("kind", [1]), "search.not_a_vector"),
        (("id", [1]), "search.not_a_vector"),
        (("f", [1]), "sql.unknown_column"),
        (("e", [1, 0, 0], 0), "search.top_k"),
        (("e", [1, 0, 0], -1), "search.top_k"),
        (("e", [1, 0, 0], 1.5), "search.top_k"),
        (("e", [1, 0, 0], True), "search.top_k"),
        (("e", [1, 0, 0], 1, "manhattan"), "sql.metric"),
    ],
)
def test_what_is_refused(session: DataflowSession, arguments: tuple[Any, ...], code: str) -> None:
    with pytest.raises(SqlSemanticError) as refused:
        session.vector_search("v", *arguments)
    assert refused.value.code == code


@pytest.mark.parametrize("threshold", ["0.5", True, float("nan"), [1]])
def test_a_threshold_is_a_number(session: DataflowSession, threshold: Any) -> None:
    with pytest.raises(SqlSemanticError) as refused:
        session.table("v").vector_search("e", [1, 0, 0], score_threshold=threshold)
    assert refused.value.code == "search.threshold"


def test_a_score_that_is_there_already(session: DataflowSession) -> None:
    once = session.vector_search("v", "e", [1, 0, 0])
    with pytest.raises(SqlSemanticError) as refused:
        once.vector_search("e", [1, 0, 0])
    assert refused.value.code == "search.score_column"
    again = once.rename({"vector_score": "first"}).vector_search("e", [0, 0, 1], 1)
    assert ids(again) == [4]


def test_parameters_of_the_clause(session: DataflowSession) -> None:
    sql = "SELECT id FROM v VECTOR SEARCH e QUERY $q METRIC l2 TOP_K $k SCORE_THRESHOLD $s"
    found = session.sql(sql, {"q": np.array([1.0, 0, 0]), "k": 5, "s": 1})
    assert ids(found) == [1, 2]
    with pytest.raises(SqlSemanticError) as refused:
        session.sql(sql, {"q": [1, 0, 0], "k": 0, "s": 1})
    assert refused.value.code == "search.top_k"
    assert refused.value.place is not None


def test_a_list_of_another_length_is_told_when_it_is_met(session: DataflowSession) -> None:
    frame = session.create_dataframe({"e": [[1.0, 2.0], [1.0]]})
    with pytest.raises(DataError):
        frame.vector_search("e", [1, 0]).to_arrow()


def test_a_plan_with_a_search_is_a_value(session: DataflowSession) -> None:
    frame = session.create_dataframe({"e": vectors([[1, 0, 0]])}).vector_search("e", [1, 0, 0], score_threshold=0.5)
    read = loads(dumps(frame.node))
    assert isinstance(read, VectorSearch)
    assert isinstance(frame.node, VectorSearch)
    assert (read.vector, read.metric, read.threshold) == (frame.node.vector, frame.node.metric, frame.node.threshold)


# --- streams --------------------------------------------------------------------------------------------------


def test_a_stream_over_rows_that_come_keeps_what_it_shows(session: DataflowSession) -> None:
    batches = [pa.table({"id": [at], "e": vectors([[float(at % 7), 1.0]], 2), "note": ["x" * at]}) for at in range(30)]
    frame = session.read_stream(MemorySource(batches)).vector_search("e", [0, 1], 3, "l2")
    sink = MemorySink()
    query = frame.write_stream(sink)
    query.process_available()
    explained = query.explain(analyze=True)
    query.stop()
    assert sorted(sink.result().column("id").to_pylist()) == [0, 7, 14]
    (line,) = [line for line in explained.split("\n") if "kind=Search" in line]
    assert "state=(the rows that are shown)" in line
    assert "state_rows=3" in line or "state_rows=6" in line, line


# --- explain --------------------------------------------------------------------------------------------------


def told(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.split("\n"))


def test_explain_vector_search(session: DataflowSession) -> None:
    found = told(session.explain_vector_search("v", "e", [1, 0, 0], 2, "dot"))
    assert found.pop("backend").startswith("duckdb ")
    assert found == {
        "mode": "exact-scan",
        "metric": "dot",
        "dimension": "3",
        "top_k": "2",
        "candidate_rows": "3",
        "filter_pushdown": "false",
        "acceleration": "engine-scan+top-n",
        "recall": "1.0",
    }
    filtered = told(session.table("v").filter("id > 1").explain_vector_search("e", [1, 0, 0]))
    assert (filtered["candidate_rows"], filtered["filter_pushdown"]) == ("2", "true")


def test_explain_hybrid_search(session: DataflowSession) -> None:
    frame = session.table("v").filter("id > 1")
    found = told(frame.explain_hybrid_search("e", [1, 0, 0], 5, "dot", 0.25))
    assert found.pop("backend").startswith("duckdb ")
    assert found == {
        "mode": "exact-scan-hybrid-search",
        "metric": "dot",
        "top_k": "5",
        "score_threshold": "0.25",
        "score_threshold_compare": ">=",
        "input_rows": "4",
        "candidate_rows": "2",
        "returned_rows": "1",
        "column_filter_stage": "before-vector",
        "column_filter_execution": "source-pushdown",
        "acceleration": "engine-scan+top-n",
        "recall": "1.0",
    }
    bare = told(session.table("v").explain_hybrid_search("e", [1, 0, 0]))
    assert (bare["score_threshold"], bare["score_threshold_compare"], bare["column_filter_execution"]) == (
        "none",
        "<=",
        "none",
    )
    # What no table can test before it has read the row.
    late = session.table("v").vector_search("e", [1, 0, 0]).filter("vector_score > random() - 1").drop("vector_score")
    later = told(late.filter("id % 2 = 0 OR kind LIKE '%b'").explain_hybrid_search("e", [1, 0, 0]))
    assert later["column_filter_execution"] == "post-load-filter"


def test_two_searches_in_one_stream_are_two(session: DataflowSession) -> None:
    """What they run as is made anew for each, and is not to be taken for the other's."""
    for _ in range(20):
        batch = pa.table({"id": [1, 2], "e": vectors([[1, 0], [0, 1]], 2)})
        frame = session.read_stream(MemorySource([batch]))
        both = frame.vector_search("e", [1, 0], 1).union(frame.vector_search("e", [0, 1], 1)).select("id")
        sink = MemorySink()
        query = both.write_stream(sink)
        query.process_available()
        query.stop()
        assert sorted(sink.result().column("id").to_pylist()) == [1, 2]
