"""Snippets: what is marked, which piece is shown, and that no text gets out of its escapes."""

from __future__ import annotations

import re
from html import unescape

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import examples

from velaria_core.logical.analyzers import analyzer
from velaria_core.logical.keyword_query import keyword_query
from velaria_core.logical.snippets import Marks, snippets


def snippet(text: str | None, query: str, name: str = "standard", **marks: object) -> str | None:
    asked = keyword_query(query, analyzer(name))
    plain = Marks(**{"before": "[", "after": "]", "html": False, **marks})  # type: ignore[arg-type]
    (made,) = snippets(pa.array([text], pa.string()), asked, plain).to_pylist()
    assert made is None or isinstance(made, str)
    return made


@pytest.mark.parametrize(
    ("name", "query", "text", "shown"),
    [
        ("standard", "night train", "The Night-Train.", "The [Night]-[Train]."),
        ("standard", "cafe", "CAFÉ, cafe\u0301!", "[CAFÉ], [cafe\u0301]!"),
        ("english", "train", "Trains and a train", "[Trains] and a [train]"),
        ("standard", "tra*", "training, treat, tra", "[training], treat, [tra]"),
        ("standard", '"night train"', "night, night train, train", "night, [night train], train"),
        ("standard", "night -train", "night train", "[night] train"),
        ("standard", "+night day", "day and night", "[day] and [night]"),
        ("standard", "北京大学", "我在北京大学", "我在[北京大学]"),
        ("standard", "北京", "北京和北京", "[北京]和[北京]"),
        ("builtin", "京大", "我在北京大学", "我在北[京大]学"),
        ("standard", "が", "か\u3099", "[か\u3099]"),
        ("standard", "x", "nothing", "nothing"),
        ("standard", "x", "", ""),
        ("standard", "x", None, None),
    ],
)
def test_matches_are_marked(name: str, query: str, text: str | None, shown: str | None) -> None:
    assert snippet(text, query, name) == shown


def test_the_piece_with_the_most_different_matches_is_shown() -> None:
    text = "night night night " + "filler " * 40 + "a night train here " + "more " * 40
    shown = snippet(text, "night train", length=60)
    assert shown is not None
    assert "[night] [train]" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert set(re.findall(r"\w+", shown)) <= {"filler", "a", "night", "train", "here", "more"}
    assert len(shown) <= 60 + len("……[][]")


def test_without_a_match_the_beginning_is_shown() -> None:
    assert snippet("one two three four five six", "x", length=12) == "one two…"
    assert snippet("一二三四五六七八九十", "x", length=4) == "一二三四…"


def test_html_is_escaped_and_marks_are_not() -> None:
    query = keyword_query("b script", analyzer("standard"))
    made = snippets(pa.array(["<script>a & 'b'</script>"]), query).to_pylist()
    assert made == ["&lt;<mark>script</mark>&gt;a &amp; &#x27;<mark>b</mark>&#x27;&lt;/<mark>script</mark>&gt;"]


def test_a_column_in_chunks() -> None:
    query = keyword_query("a", analyzer("standard"))
    column = pa.chunked_array([["a", None], ["b"]], pa.string())
    assert snippets(column, query).to_pylist() == ["<mark>a</mark>", None, "b"]


@given(
    text=st.text(alphabet="ab <>&'\"京大学 ...\n", max_size=80),
    query=st.sampled_from(["a", "a b", '"a b"', "a*", "京大", "ab -a"]),
    length=st.integers(1, 60),
)
@examples(300)
def test_a_snippet_is_a_piece_of_its_text(text: str, query: str, length: int) -> None:
    shown = snippet(text, query, length=length, before="\x01", after="\x02", html=True)
    assert shown is not None
    assert not re.search("[<>\"']|\x01[^\x02]*\x01", shown)
    piece = unescape(re.sub("[\x01\x02]", "", shown))
    assert piece.removeprefix("…").removesuffix("…") in text
    assert len(piece) <= length + len("……")
