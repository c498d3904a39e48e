"""The language of keyword queries: what each form means, and where a malformed one is wrong."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import examples

from velaria_core.errors import InputError
from velaria_core.logical.analyzers import analyzer
from velaria_core.logical.keyword_query import LEAVES_MAX, keyword_query, plain_query

STANDARD = analyzer("standard")


@pytest.mark.parametrize(
    ("text", "meant", "scored"),
    [
        ("night train", "(night OR train)", "night train"),
        ("Night night NIGHT", "night", "night"),
        ("night AND train", "(night AND train)", "night train"),
        ("night OR train AND fast", "(night OR (train AND fast))", "night train fast"),
        ("night AND train fast", "((night AND train) OR fast)", "night train fast"),
        ("+night train", "night", "night train"),
        ("+night +train", "(night AND train)", "night train"),
        ("night -train", "(night AND NOT train)", "night"),
        ("night NOT train", "(night AND NOT train)", "night"),
        ("night AND NOT train", "(night AND NOT train)", "night"),
        ("night AND -train", "(night AND NOT train)", "night"),
        ("night AND +train", "(night AND train)", "night train"),
        ('"night train"', '"night train"', '"night train"'),
        ('-"night train" day', '(day AND NOT "night train")', "day"),
        ('"night"', "night", "night"),
        ("tra* night", "(tra* OR night)", "tra* night"),
        ("(a OR b) AND c", "((a OR b) AND c)", "a b c"),
        ("a AND (b -c) OR d", "((a AND b AND NOT c) OR d)", "a b d"),
        ("a (b c)", "(a OR b OR c)", "a b c"),
        ("+(a b) c", "(a OR b)", "a b c"),
        # Several terms of one word: any where they only add, a phrase where they decide.
        ("wi-fi", "(wi OR fi)", "wi fi"),
        ("+wi-fi", '"wi fi"', '"wi fi"'),
        ("wi-fi AND x", '("wi fi" AND x)', '"wi fi" x'),
        ("北京大学", "(北京 OR 京大 OR 大学)", "北京 京大 大学"),
        ("+北京大学", '"北京 京大 大学"', '"北京 京大 大学"'),
        # What the analyzer leaves nothing of.
        ("a - b", "(a OR b)", "a b"),
        ("a !!! --all", "(a OR all)", "a all"),
        ("+!!! a", "a", "a"),
        ("C++", "c", "c"),
        ('a""b', "(a OR b)", "a b"),
        ("() a", "a", "a"),
        ("and or not", "(and OR or OR not)", "and or not"),
    ],
)
def test_what_a_query_means(text: str, meant: str, scored: str) -> None:
    query = keyword_query(text, STANDARD)
    assert str(query) == meant
    shown = [str(query.leaves[leaf]) for leaf in query.scored]
    assert " ".join(shown) == scored


@pytest.mark.parametrize(
    ("text", "told", "column"),
    [
        ("", "no word to search for", 1),
        ("?!", "no word to search for", 1),
        ("-a", "only excludes", 1),
        ("a (NOT b)", "only excludes", 4),
        ("a OR -b", "OR and - do not go together", 6),
        ("-a OR b", "- and OR do not go together", 4),
        ("+a AND b", r"\+ and AND do not go together", 4),
        ("a OR", "OR has nothing after it", 3),
        ("(a AND) b", "AND has nothing after it", 4),
        ("AND b", "AND has nothing before it", 1),
        ("a NOT", "NOT has nothing after it", 3),
        ("a AND AND b", "AND has nothing before it", 7),
        ("+NOT a", "NOT stands after another sign", 2),
        ('a "b c', "without its closing quote", 3),
        ("a (b", r"a \( without its \)", 3),
        ("a) b", "closes nothing", 2),
        ("*", "nothing before it", 1),
        ("a wi-f*", "a prefix of more than one word", 3),
        ("(" * 51 + "a" + ")" * 51, "more than 50 parentheses", 51),
        (" ".join(f"w{i}" for i in range(LEAVES_MAX + 1)), "more than 256 different words", 1),
    ],
)
def test_a_malformed_query_is_refused_with_its_place(text: str, told: str, column: int) -> None:
    with pytest.raises(InputError, match=told) as caught:
        keyword_query(text, STANDARD)
    assert caught.value.code == "search.query"
    assert caught.value.place is not None
    assert caught.value.place.column == column


def test_a_plain_text_is_its_words_alone() -> None:
    assert str(plain_query('-what AND "is (this', STANDARD)) == "(what OR and OR is OR this)"
    with pytest.raises(InputError, match="no word"):
        plain_query("?", STANDARD)


@given(text=st.text(alphabet='ab*+-()" ANDORT京大', max_size=20))
@examples(500)
def test_any_text_is_a_query_or_refused(text: str) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(InputError):
        query = keyword_query(text, STANDARD)
        assert query.scored
        assert str(query)
