"""The keyword index: it finds what the formula says after any history, and its folder is itself or refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyword_reference import Document, ranked
from properties.profile import examples

from velaria_core.errors import InputError, StateError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.search import keyword_index
from velaria_core.execution.search.array_file import read_arrays, write_arrays
from velaria_core.execution.search.keyword_index import KeywordIndex
from velaria_core.execution.search.keyword_search import Found
from velaria_core.execution.search.postings import Postings, merged, posted
from velaria_core.logical.analyzers import analyzer
from velaria_core.logical.keyword_query import KeywordQuery, keyword_query, plain_query

STANDARD = analyzer("standard")
ALL = 1 << 40


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings())
    yield made
    made.close()


def table(documents: Sequence[Document]) -> pa.Table:
    """Two columns of text."""
    return pa.table({name: pa.array([one[name] for one in documents], pa.string()) for name in ("x", "y")})


def one(x: str | None, y: str | None = None) -> Document:
    return {"x": x, "y": y}


def index_of(engine: Engine, documents: Mapping[int, Document], name: str = "standard") -> KeywordIndex:
    made = KeywordIndex(["x", "y"], name)
    made.add(engine, np.array(list(documents), np.int64), table(list(documents.values())))
    return made


def expected(
    documents: Mapping[int, Document],
    weights: Mapping[str, float],
    query: KeywordQuery,
    *,
    over: Mapping[int, Document] | None = None,
) -> dict[int, float]:
    """Row ids and scores by the formula."""
    rows = sorted(documents)
    found = ranked([documents[row] for row in rows], weights, query, over=None if over is None else list(over.values()))
    return {rows[at]: score for at, score in found}


def holds(found: Found, wanted: Mapping[int, float], k: int) -> bool:
    """The k best of what is wanted, where scores that are as good as equal may stand for one another; best first."""
    scores = dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
    best = sorted(wanted.values(), reverse=True)[:k]
    return (
        len(scores) == len(best)
        and all(math.isclose(score, wanted[row], rel_tol=1e-12) for row, score in scores.items())
        and np.allclose(found.scores, best, rtol=1e-12, atol=0)
        and [row for _, row in sorted((-score, row) for row, score in scores.items())] == found.rows.tolist()
    )


TEXTS: dict[int, Document] = {
    7: one("The night train to Lisbon", "slow"),
    2: one("Night trains are slow, and a night train is romantic"),
    30: one("A day at the beach", "night"),
    4: one(None, None),
    5: one("", "北京大学的学生在北京"),
    60: one("train", "清华大学和北京大学"),
    1: one("the train of thought at night", "the night train"),
}
QUERIES = [
    *("night train", "night AND train", "+night lisbon", "night -lisbon", '"night train"', "tra*", "tra* -trains"),
    *("北京", "北京大学", "+北京大学 清华", "(night OR day) AND (train OR beach)", "zzz", "the", "night AND zzz"),
    *('lisbon OR "night train"', 'night -"the night train"', "n* OR t*", "slow OR tra* OR the"),
]
WEIGHTS: list[dict[str, float]] = [{"x": 1.0, "y": 1.0}, {"x": 2.5, "y": 0.3}, {"y": 1.0}]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("text", QUERIES)
def test_it_finds_what_the_formula_says(engine: Engine, text: str, weights: dict[str, float]) -> None:
    index = index_of(engine, TEXTS)
    query = keyword_query(text, STANDARD)
    for k in (1, 2, ALL):
        assert holds(index.search(query, k, weights=weights), expected(TEXTS, weights, query), k)


def test_only_allowed_rows_are_found_by_their_statistics_or_those_of_all(engine: Engine) -> None:
    index = index_of(engine, TEXTS)
    weights = WEIGHTS[0]
    for text in ("night train", "the -slow", '"night train"'):
        query = keyword_query(text, STANDARD)
        for rows in ([], [2], [1, 2, 4, 7, 99], sorted(TEXTS)):
            allowed = np.array(rows, np.int64)
            few = {row: TEXTS[row] for row in rows if row in TEXTS}
            assert holds(index.search(query, 3, allowed=allowed), expected(few, weights, query), 3)
            found = index.search(query, 3, allowed=allowed, over_allowed=False)
            assert holds(found, expected(few, weights, query, over=TEXTS), 3)


words = st.sampled_from(["a", "b", "c", "ab", "abc", "京", "北京"])
texts = st.one_of(st.none(), st.lists(words, max_size=8).map(" ".join))
documents = st.builds(one, texts, texts)


def hashes_of(rows: np.ndarray) -> np.ndarray:
    """Different ones for different rows."""
    return rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


queries = st.sampled_from(
    ["a", "a b", "a b c ab", "+a b", "a -b", '"a b"', '"a b" c', "a*", "a* -ab", "(a AND b) OR (c AND ab)", "京 北京 a"]
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.dictionaries(st.integers(-3, 40), documents, min_size=1, max_size=8)),
        st.tuples(st.just("delete"), st.sets(st.integers(-3, 40), max_size=8)),
        st.tuples(st.sampled_from(["merge", "save"]), st.none()),
    ),
    max_size=8,
)


@pytest.mark.parametrize("name", ["standard", "builtin"])
@given(steps=steps, text=queries, k=st.sampled_from([1, 3, ALL]), weights=st.sampled_from(WEIGHTS), data=st.data())
@examples(50)
def test_any_history_ends_as_an_index_of_the_rows_that_are_left(
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    steps: list[tuple[str, object]],
    text: str,
    k: int,
    weights: dict[str, float],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("index")
    index = KeywordIndex(["x", "y"], name)
    left: dict[int, Document] = {}
    for at, (verb, what) in enumerate(steps):
        if verb == "add":
            assert isinstance(what, dict)
            new = {row: document for row, document in what.items() if row not in left}
            rows = np.array(list(new), np.int64)
            index.add(engine, rows, table(list(new.values())), hashes_of(rows))
            left |= new
        elif verb == "delete":
            assert isinstance(what, set)
            assert index.remove(np.array(sorted(what), np.int64)) == len(what & left.keys())
            left = {row: document for row, document in left.items() if row not in what}
        elif verb == "merge":
            index.merge()
            assert index.parts <= 1
        else:
            index.save(folder, f"after {at}")
            index = KeywordIndex.open(folder)
            assert index.token == f"after {at}"
    assert len(index) == len(left)
    rows = np.array(sorted(left), np.int64)
    assert [part.tolist() for part in index.known()] == [rows.tolist(), hashes_of(rows).tolist()]
    query = keyword_query(text, analyzer(name))
    assert holds(index.search(query, k, weights=weights), expected(left, weights, query), k)
    allowed = sorted(data.draw(st.sets(st.integers(-3, 40))))
    few = {row: left[row] for row in allowed if row in left}
    found = index.search(query, k, weights=weights, allowed=np.array(allowed, np.int64))
    assert holds(found, expected(few, weights, query), k)


def test_words_of_jieba(engine: Engine) -> None:
    pytest.importorskip("rjieba")
    index = index_of(engine, TEXTS, "jieba")
    for text in ("北京大学", "night 大学", "+清华大学"):
        query = keyword_query(text, analyzer("jieba"))
        assert holds(index.search(query, 9), expected(TEXTS, WEIGHTS[0], query), 9)


def test_what_cannot_be_among_the_best_is_not_scored(engine: Engine) -> None:
    """And what is found is still exact: many documents, few words, ties by row id."""
    rng = np.random.default_rng(5)
    vocabulary = np.array([f"w{number}" for number in range(300)])
    drawn = vocabulary[np.minimum(rng.zipf(1.3, (4000, 6)) - 1, 299)]
    documents = {row: one(" ".join(drawn[row][: 2 + row % 5])) for row in range(4000)}
    index = index_of(engine, documents)
    weights = {"x": 1.0}
    scored = []
    for row in range(0, 4000, 80):
        query = plain_query(" ".join(drawn[row][:4]), STANDARD)
        found = index.search(query, 10, weights=weights)
        assert holds(found, expected(documents, weights, query), 10)
        scored.append(found.candidates)
    assert np.median(scored) < 200


def test_rows_of_one_score_come_by_their_ids(engine: Engine) -> None:
    index = index_of(engine, {9: one("a b"), 4: one("b a")})
    index.add(engine, np.array([1, 7]), table([one("a c"), one("c a")]))
    found = index.search(keyword_query("a", STANDARD), 3)
    assert found.rows.tolist() == [1, 4, 7]
    assert len(set(found.scores.tolist())) == 1


@pytest.mark.parametrize("name", ["standard", "english", "builtin"])
def test_the_engine_cuts_many_texts_and_python_few(engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    columns = [table(list(TEXTS.values())).column(column) for column in ("x", "y")]
    rows = np.arange(len(TEXTS))
    few = posted(engine, analyzer(name), rows, hashes_of(rows), columns)
    monkeypatch.setattr("velaria_core.execution.search.postings._PIECES_MIN", 0)
    many = posted(engine, analyzer(name), rows, hashes_of(rows), columns)
    for array, same in zip(few.arrays().values(), many.arrays().values(), strict=True):
        np.testing.assert_array_equal(array, same)


def test_an_empty_index_finds_nothing(engine: Engine, tmp_path: Path) -> None:
    query = keyword_query("a -b", STANDARD)
    empty = KeywordIndex(["x", "y"])
    emptied = index_of(engine, {1: one("a")})
    emptied.remove(np.array([1]))
    no_terms = index_of(engine, {1: one(None), 2: one("")})
    for index in (empty, emptied, no_terms):
        index.save(tmp_path)
        for same in (index, KeywordIndex.open(tmp_path)):
            assert same.search(query, 5).rows.tolist() == []
            assert same.search(query, 5, allowed=np.array([1])).scores.tolist() == []


def test_small_parts_are_merged_as_they_come(engine: Engine) -> None:
    index = KeywordIndex(["x", "y"])
    for row in range(100):
        index.add(engine, np.array([row]), table([one(f"a{row} b")]))
    assert len(index) == 100
    assert index.parts <= 8
    assert index.search(keyword_query("a42", STANDARD), 5).rows.tolist() == [42]


def test_numbers_too_large_for_one_key_are_sorted_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [table(list(TEXTS.values())).column(name) for name in ("x", "y")]
    rows = np.arange(len(TEXTS))
    usual = posted(engine, STANDARD, rows, hashes_of(rows), columns)
    monkeypatch.setattr("velaria_core.execution.search.postings._KEY_BITS", 0)
    other = posted(engine, STANDARD, rows, hashes_of(rows), columns)
    for name, array in usual.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])


def test_merging_is_building_from_what_is_left(engine: Engine) -> None:
    rows = np.array(sorted(TEXTS))
    columns = [table([TEXTS[row] for row in rows.tolist()]).column(name) for name in ("x", "y")]

    def part(places: list[int]) -> list[pa.ChunkedArray]:
        return [column.take(pa.array(places)) for column in columns]

    def of(places: list[int]) -> Postings:
        return posted(engine, STANDARD, rows[places], hashes_of(rows[places]), part(places))

    first, second = of([0, 2, 5]), of([1, 3, 4, 6])
    both = merged([(first, np.array([True, False, True])), (second, np.array([True, True, False, True]))])
    whole = of([0, 1, 3, 5, 6])
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(array, both.arrays()[name])


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_row_is_added_once(engine: Engine) -> None:
    index = index_of(engine, TEXTS)
    for rows in ([7], [100, 100]):
        with pytest.raises(InputError) as caught:
            index.add(engine, np.array(rows), table([one("a")] * len(rows)))
        assert caught.value.code == "search.row_exists"
    index.remove(np.array([7]))
    index.add(engine, np.array([7]), table([one("lisbon lisbon")]))
    assert index.search(keyword_query("lisbon", STANDARD), 5).rows.tolist() == [7]


def test_a_search_that_the_index_cannot_answer_is_refused(engine: Engine) -> None:
    index = index_of(engine, TEXTS)
    with pytest.raises(InputError) as caught:
        index.search(keyword_query("a", STANDARD), 0)
    assert caught.value.code == "search.top_k"
    with pytest.raises(InputError) as caught:
        index.search(keyword_query("a", analyzer("english")), 5)
    assert caught.value.code == "search.analyzer"
    with pytest.raises(InputError) as caught:
        index.search(keyword_query("a", STANDARD), 5, weights={"z": 1.0})
    assert caught.value.code == "search.column"
    with pytest.raises(InputError) as caught:
        index.search(keyword_query("a", STANDARD), 5, weights={"x": 0.0})
    assert caught.value.code == "search.weight"


# --- the folder ---------------------------------------------------------------------------------------------------


def saved(engine: Engine, folder: Path) -> KeywordIndex:
    index = index_of(engine, TEXTS)
    index.remove(np.array([30]))
    index.save(folder, "epoch 3")
    return index


def test_a_folder_holds_only_what_the_index_is_made_of(engine: Engine, tmp_path: Path) -> None:
    index = saved(engine, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "deleted-000002.bin",
        "manifest.json",
        "part-000001.bin",
    ]
    (tmp_path / "part-000009.bin").write_bytes(b"of a crash")
    index.merge()
    index.save(tmp_path, "epoch 4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "part-000010.bin"]
    assert KeywordIndex.open(tmp_path).token == "epoch 4"


def test_an_index_that_is_open_outlives_its_files(engine: Engine, tmp_path: Path) -> None:
    saved(engine, tmp_path)
    opened = KeywordIndex.open(tmp_path)
    other = KeywordIndex.open(tmp_path)
    other.merge()
    other.save(tmp_path)
    query = keyword_query("night train", STANDARD)
    assert opened.search(query, 9).rows.tolist() == other.search(query, 9).rows.tolist()


def test_an_index_built_anew_takes_no_file_from_one_that_is_open(engine: Engine, tmp_path: Path) -> None:
    query = keyword_query("night train", STANDARD)
    saved(engine, tmp_path)
    opened = KeywordIndex.open(tmp_path)
    before = opened.search(query, 9).scores.tolist()
    index_of(engine, {1: one("a")}).save(tmp_path)
    assert opened.search(query, 9).scores.tolist() == before
    assert len(KeywordIndex.open(tmp_path)) == 1


def test_an_index_is_saved_whole_into_another_folder(engine: Engine, tmp_path: Path) -> None:
    index = saved(engine, tmp_path / "one")
    index.save(tmp_path / "other")
    assert len(KeywordIndex.open(tmp_path / "other")) == len(index)
    index.add(engine, np.array([100]), table([one("lisbon")]))
    index.save(tmp_path / "one")
    assert len(KeywordIndex.open(tmp_path / "one")) == len(index)


def test_long_texts_are_made_into_several_parts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyword_index, "_PART_BYTES_MAX", 100)
    monkeypatch.setattr(keyword_index, "_MERGED_ROWS_MAX", 0)
    index = index_of(engine, TEXTS)
    assert index.parts > 1
    query = keyword_query("night train", STANDARD)
    assert holds(index.search(query, 9), expected(TEXTS, WEIGHTS[0], query), 9)


def test_a_save_that_fails_leaves_the_index_as_it_was(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = saved(engine, tmp_path)
    index.add(engine, np.array([100]), table([one("lisbon")]))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyword_index, "replace_file", full)
    with pytest.raises(Exception, match="No space left") as caught:
        index.save(tmp_path)
    assert getattr(caught.value, "code", None) == "disk.full"
    assert len(KeywordIndex.open(tmp_path)) == 6
    monkeypatch.undo()
    index.save(tmp_path)
    assert len(KeywordIndex.open(tmp_path)) == 7


@pytest.mark.parametrize("name", ["manifest.json", "part-000001.bin", "deleted-000002.bin"])
@pytest.mark.parametrize("how", ["one byte", "cut", "gone", "empty"])
def test_a_damaged_index_is_refused(engine: Engine, tmp_path: Path, name: str, how: str) -> None:
    saved(engine, tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"one byte": changed, "cut": content[:middle], "empty": b""}[how])
    with pytest.raises(StateError) as caught:
        KeywordIndex.open(tmp_path)
    missing = name == "manifest.json" and how == "gone"
    assert caught.value.code == ("search.index_missing" if missing else "search.index_damaged")


@pytest.mark.parametrize("version", [1, 3])
def test_an_index_of_another_version_is_refused(engine: Engine, tmp_path: Path, version: int) -> None:
    saved(engine, tmp_path)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": version}))
    with pytest.raises(StateError, match=f"version {version}, and this Velaria reads version 2") as caught:
        KeywordIndex.open(tmp_path)
    assert caught.value.code == "search.index_version"


def test_arrays_of_a_file_are_those_that_were_written(tmp_path: Path) -> None:
    arrays = {
        "none": np.empty(0, np.uint8),
        "some": np.arange(5, dtype=np.int32),
        "big": np.arange(3).astype(">i8"),
        "sliced": np.arange(10, dtype=np.uint16)[::2],
    }
    write_arrays(tmp_path / "a.bin", arrays)
    found = read_arrays(tmp_path / "a.bin")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("<")
    (tmp_path / "b.bin").write_bytes(b"something else")
    with pytest.raises(ValueError, match="no array file"):
        read_arrays(tmp_path / "b.bin")
