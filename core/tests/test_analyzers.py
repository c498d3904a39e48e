"""Analyzers: the terms of texts, and that Python and the engine mean the same ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import examples

from velaria_core.errors import InputError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.logical import analyzers
from velaria_core.logical.analyzers import ANALYZERS, JIEBA_FUNCTION, analyzer

# Letters that fold in ways of their own, and where runs meet.
HOT = [
    *"abzAZ09 \u0130ßẞςΣéÉ北京大学がか\u3099ー・한국어\u1112\u1161\t\n\u0301\u0307",
    *"ﬁ\uff21\uff42\uff19ｱ\u041aй_-'\"\u0000",
    *("ies", "es", "ss", "us", "s", "हिन्दी", "\U00020000", "\u212a"),
]


def known(ch: str) -> bool:
    """Whether Python's table knows the character; the engine's is newer by some scripts."""
    return unicodedata.category(ch) not in ("Cn", "Cs")


texts = st.lists(st.one_of(st.sampled_from(HOT), st.characters().filter(known)), max_size=14).map("".join)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings())
    yield made
    made.close()


def available(name: str) -> bool:
    return name != "jieba" or analyzers.has_jieba()


def by_engine(engine: Engine, name: str, column: list[str | None]) -> list[list[str]]:
    """The terms as the engine cuts them."""
    table = pa.table({"row": range(len(column)), "x": pa.array(column, pa.string())})
    with engine.cursor({"texts": table}) as cursor:
        rows = cursor.rows(f"SELECT {analyzer(name).sql('x')} FROM texts ORDER BY row")
    return [terms for (terms,) in rows]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("standard", "The Night-Train, 42!", "the night train 42"),
        ("standard", 'It\'s (a): b; "c", d. e-f', "it s a b c d e f"),
        ("standard", "Crème BRÛLÉE", "creme brulee"),
        ("standard", "ΛΌΓΟΣ λόγος", "λογοσ λογοσ"),
        ("standard", "\u0130stanbul", "istanbul"),
        ("standard", "Ёлка и ёж", "елка и еж"),
        ("standard", "हिन्दी", "हिन्दी"),
        ("standard", "\uff21\uff22\uff23\uff11\uff12", "abc12"),
        ("standard", "snake_case", "snake case"),
        ("standard", "北京大学", "北京 京大 大学"),
        ("standard", "在Linux上用", "在 linux 上用"),
        ("standard", "が か\u3099", "が が"),
        ("standard", "한국어", "한국 국어"),
        ("standard", " \u0301 ", ""),
        ("standard", "", ""),
        ("english", "Cities, houses, glasses, buses and bodies", "city house glasse buse and body"),
        ("english", "is was this class census", "is was thi class census"),
        ("builtin", "Ab-1 北京大学", "ab 1 北 京 大 学 北京 京大 大学 北京大 京大学 北京大学"),
        ("builtin", "北京", "北 京 北京 北京"),
        ("builtin", "é", ""),
    ],
)
def test_the_terms_of_a_text(engine: Engine, name: str, text: str, words: str) -> None:
    terms = words.split()
    assert analyzer(name).terms(text) == terms
    assert by_engine(engine, name, [text]) == [terms]


def test_a_long_run_is_not_one_term() -> None:
    run = "一二三四五六七八九"
    assert run not in analyzer("builtin").terms(run)
    assert run[:8] in analyzer("builtin").terms(run[:8])


@pytest.mark.parametrize("name", ANALYZERS)
def test_null_has_no_terms(engine: Engine, name: str) -> None:
    if not available(name):
        pytest.skip("needs rjieba")
    assert by_engine(engine, name, [None, "", "a"]) == [[], [], ["a"]]


@pytest.mark.parametrize("name", ANALYZERS)
@given(column=st.lists(texts, min_size=1, max_size=30))
@examples(60)
def test_python_and_the_engine_cut_alike(engine: Engine, name: str, column: list[str]) -> None:
    if not available(name):
        pytest.skip("needs rjieba")
    assert by_engine(engine, name, list(column)) == [analyzer(name).terms(text) for text in column]


@pytest.mark.parametrize("name", ANALYZERS)
@given(text=texts)
@examples(100)
def test_spans_lie_in_the_text(name: str, text: str) -> None:
    if not available(name):
        pytest.skip("needs rjieba")
    for span in analyzer(name).spans(text):
        assert span.term
        assert 0 <= span.start < span.end <= len(text)


@pytest.mark.parametrize("name", [name for name in ANALYZERS if name != "jieba"])
@given(before=st.sampled_from(["", "x ", "京 "]), text=texts, after=st.sampled_from(["", " y", " 大"]))
@examples(100)
def test_a_phrase_stands_in_a_text_that_holds_it(name: str, before: str, text: str, after: str) -> None:
    cut = analyzer(name)
    phrase, terms = cut.phrase(text), cut.terms(before + text + after)
    assert any(terms[at : at + len(phrase)] == phrase for at in range(len(terms) - len(phrase) + 1))


def test_an_unknown_analyzer_is_refused() -> None:
    with pytest.raises(InputError, match="no analyzer") as caught:
        analyzer("englsh")
    assert caught.value.code == "search.analyzer"
    assert 'did you mean "english"?' in str(caught.value.hint)
    assert analyzer(" Standard ") is analyzer("standard")


def test_jieba_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyzers, "has_jieba", lambda: False)
    with pytest.raises(InputError) as caught:
        analyzer("jieba")
    assert caught.value.code == "search.analyzer_missing"
    assert "velaria[jieba]" in str(caught.value.hint)


def test_jieba_finds_words() -> None:
    pytest.importorskip("rjieba")
    assert " ".join(analyzer("jieba").terms("我来到北京清华大学 Café")) == "我 来到 北京 清华 华大 大学 清华大学 cafe"
    assert analyzer("jieba").prefix("北京大") == ["北京大"]


def test_engines_of_one_file_share_the_function(tmp_path: Path) -> None:
    settings = Settings(path=str(tmp_path / "x.duckdb"))
    first, second = Engine(settings), Engine(settings)
    first.close()
    with second.cursor() as cursor:
        assert cursor.rows(f"SELECT {JIEBA_FUNCTION}('中文 words')") == [(["中文", "words"],)]
    second.close()
