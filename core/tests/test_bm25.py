"""BM25 in SQL against the formula in plain Python, over texts in English and Chinese."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyword_reference import Document, ranked
from properties.profile import examples

from velaria_core.errors import InputError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.logical.analyzers import analyzer
from velaria_core.logical.bm25 import scored
from velaria_core.logical.keyword_query import KeywordQuery, keyword_query

TEXTS: list[str | None] = [
    "The night train to Lisbon",
    "Night trains are slow, and a night train is romantic",
    "A day at the beach",
    None,
    "",
    "training at night",
    "北京大学的学生在北京",
    "清华大学和北京大学",
    "Trains, trains, trains!",
    "the train of thought at night",
    "The Night Train to Lisbon",
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings())
    yield made
    made.close()


def found(
    engine: Engine,
    documents: Sequence[Document],
    columns: Mapping[str, float],
    query: KeywordQuery,
    *,
    rows: str = "texts",
    over: str | None = None,
    first: int | None = None,
) -> list[tuple[int, float]]:
    """Rows and scores as the engine finds them, best first."""
    table = pa.table(
        {
            "row": pa.array(range(len(documents)), pa.int64()),
            **{name: pa.array([one[name] for one in documents], pa.string()) for name in columns},
        }
    )
    sql = scored(rows, columns, query, over=over, first=first, ties='"row"')
    with engine.cursor({"texts": table}) as cursor:
        found = cursor.rows(f'SELECT "row", keyword_score FROM ({sql})')
    return found if first is not None else sorted(found, key=lambda one: (-one[1], one[0]))


def agree(one: list[tuple[int, float]], other: list[tuple[int, float]]) -> bool:
    """The same rows with the same scores; rows whose scores are as good as equal in any order."""
    return dict(one).keys() == dict(other).keys() and all(
        math.isclose(score, dict(other)[row], rel_tol=1e-12) for row, score in one
    )


QUERIES = [
    "night train",
    "train",
    "night AND train",
    "+night lisbon",
    "night -lisbon",
    '"night train"',
    '"train night"',
    'lisbon OR "night train"',
    "tra*",
    "tra* -trains",
    "北京",
    "北京大学",
    "+北京大学 清华",
    "(night OR day) AND (train OR beach)",
    "nothing here",
    "the",
]


@pytest.mark.parametrize("name", ["standard", "english", "builtin"])
@pytest.mark.parametrize("text", QUERIES)
def test_scores_are_those_of_the_formula(engine: Engine, name: str, text: str) -> None:
    documents: list[Document] = [{"x": text} for text in TEXTS]
    query = keyword_query(text, analyzer(name))
    expected = ranked(documents, {"x": 1.0}, query)
    assert agree(found(engine, documents, {"x": 1.0}, query), expected)
    first = found(engine, documents, {"x": 1.0}, query, first=3)
    assert [score for _, score in first] == pytest.approx([score for _, score in expected[:3]], rel=1e-12)


def test_a_score_by_hand(engine: Engine) -> None:
    """Two documents, one of which has the word twice among four."""
    documents: list[Document] = [{"x": "a b a c"}, {"x": "b c"}]
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    score = idf * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 3))
    ((row, got),) = found(engine, documents, {"x": 1.0}, keyword_query("a", analyzer("standard")))
    assert (row, got) == (0, pytest.approx(score, rel=1e-15))


def test_rows_of_one_score_stand_in_their_order(engine: Engine) -> None:
    documents: list[Document] = [{"x": text} for text in ["a b", "b a", "c", "a c"]]
    query = keyword_query("a", analyzer("standard"))
    assert [row for row, _ in found(engine, documents, {"x": 1.0}, query, first=2)] == [0, 1]


def test_statistics_are_of_the_rows_searched_or_of_the_whole(engine: Engine) -> None:
    documents: list[Document] = [{"x": text} for text in TEXTS]
    query = keyword_query("night train", analyzer("standard"))
    few = '(SELECT * FROM texts WHERE "row" < 5)'
    assert agree(found(engine, documents, {"x": 1.0}, query, rows=few), ranked(documents[:5], {"x": 1.0}, query))
    whole = dict(ranked(documents, {"x": 1.0}, query))
    got = found(engine, documents, {"x": 1.0}, query, rows=few, over="texts")
    assert agree(got, [(row, whole[row]) for row, _ in got])
    assert sorted(row for row, _ in got) == [0, 1]
    assert not agree(got, found(engine, documents, {"x": 1.0}, query, rows=few))


def test_columns_have_weights_and_two_of_weight_one_are_one_text(engine: Engine) -> None:
    documents: list[Document] = [
        {"title": "night train", "body": "slow"},
        {"title": "slow", "body": "night train"},
        {"title": None, "body": "night"},
        {"title": "night", "body": "train"},
    ]
    for text in ("night train", '"night train"', "slow -train"):
        query = keyword_query(text, analyzer("standard"))
        for weights in ({"title": 1.0, "body": 1.0}, {"title": 3.5, "body": 1.0}, {"body": 0.25}):
            assert agree(found(engine, documents, weights, query), ranked(documents, weights, query))
    query = keyword_query("night train slow", analyzer("standard"))
    joined: list[Document] = [{"x": f"{one['title'] or ''} {one['body'] or ''}"} for one in documents]
    assert agree(found(engine, documents, {"title": 1.0, "body": 1.0}, query), found(engine, joined, {"x": 1.0}, query))
    # No phrase goes from one column into the next.
    phrase = keyword_query('"night train"', analyzer("standard"))
    assert [row for row, _ in found(engine, documents, {"title": 1.0, "body": 1.0}, phrase)] == [0, 1]


def test_columns_may_have_the_names_that_the_formula_and_the_analyzers_use(engine: Engine) -> None:
    query = keyword_query('night 北京 tra* "the night"', analyzer("standard"))
    names = ["documents", "df_0", "mean_length", "t", "r", "w", "c", "i", "rs", "terms", "keyword", "texts"]
    texts = TEXTS + TEXTS[::-1]
    documents: list[Document] = [dict(zip(names, texts[at:] + texts[:at], strict=False)) for at in range(4)]
    weights = {name: 1.0 + at for at, name in enumerate(names)}
    assert agree(found(engine, documents, weights, query), ranked(documents, weights, query))


def test_no_rows_and_rows_without_text(engine: Engine) -> None:
    query = keyword_query("a", analyzer("standard"))
    assert found(engine, [], {"x": 1.0}, query) == []
    assert found(engine, [{"x": None}, {"x": ""}], {"x": 1.0}, query) == []


@pytest.mark.parametrize("weight", [0.0, -1.0, 1e-7, 1e7, math.inf, math.nan])
def test_a_weight_is_a_positive_number_of_some_size(weight: float) -> None:
    with pytest.raises(InputError, match="weight") as caught:
        scored("texts", {"x": weight}, keyword_query("a", analyzer("standard")))
    assert caught.value.code == "search.weight"


words = st.sampled_from(["a", "b", "c", "ab", "abc", "京", "北京", "北京大"])
some_texts = st.one_of(st.none(), st.lists(words, max_size=8).map(" ".join))
clauses = st.one_of(
    words,
    words.map(lambda word: f"{word}*").filter(lambda text: text != "北京大*"),
    st.lists(words, min_size=1, max_size=3).map(lambda some: f'"{" ".join(some)}"'),
    st.lists(words, min_size=2, max_size=3).map(lambda some: f"({' AND '.join(some)})"),
    st.tuples(words, words).map(lambda two: f"({two[0]} OR {two[1]})"),
)
queries = st.lists(st.tuples(st.sampled_from(["", "", "+", "-"]), clauses), min_size=1, max_size=4).filter(
    lambda some: any(sign != "-" for sign, _ in some)
)


@pytest.mark.parametrize("name", ["standard", "builtin"])
@given(
    documents=st.lists(st.tuples(some_texts, some_texts), max_size=12),
    clauses=queries,
    weights=st.tuples(st.sampled_from([1.0, 2.0, 0.3]), st.sampled_from([1.0, 2.0, 0.7])),
)
@examples(120)
def test_any_query_over_any_texts_scores_as_the_formula_says(
    engine: Engine,
    name: str,
    documents: list[tuple[str | None, str | None]],
    clauses: list[tuple[str, str]],
    weights: tuple[float, float],
) -> None:
    query = keyword_query(" ".join(sign + clause for sign, clause in clauses), analyzer(name))
    rows: list[Document] = [{"x": x, "y": y} for x, y in documents]
    columns = dict(zip(("x", "y"), weights, strict=True))
    assert agree(found(engine, rows, columns, query), ranked(rows, columns, query))
