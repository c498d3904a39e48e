"""Snippets: what is marked, which piece is shown, and that no text gets out of its escapes."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import examples

from velaria_core import DataflowSession, MemorySink, MemorySource, expr, fn, lit
from velaria_core.errors import InputError, SqlSemanticError
from velaria_core.logical.snippets import snippet_of


def snippet(
    text: str | None,
    query: str,
    name: str = "standard",
    length: int = 160,
    before: str = "[",
    after: str = "]",
    html: bool = False,
) -> str | None:
    return snippet_of(text, query, name, length, before, after, html)


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
    made = snippet("<script>a & 'b'</script>", "b script", before="<mark>", after="</mark>", html=True)
    assert made == "&lt;<mark>script</mark>&gt;a &amp; &#x27;<mark>b</mark>&#x27;&lt;/<mark>script</mark>&gt;"


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


# --- as a function of SQL ---------------------------------------------------------------------------------------------


@pytest.fixture
def session() -> DataflowSession:
    opened = DataflowSession()
    opened.sql("CREATE TABLE docs (id INTEGER, body VARCHAR)")
    opened.sql("INSERT INTO docs VALUES (1, 'Night trains & days'), (2, 'a day'), (3, NULL), (4, 'one night')")
    return opened


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ("snippet(body, 'night train')", "<mark>Night</mark> <mark>trains</mark> &amp; days"),
        ("snippet(body, 'night train', 'standard')", "<mark>Night</mark> trains &amp; days"),
        ("snippet(body, 'day', html := false, before := '*', after => '*')", "Night trains & *days*"),
        ("snippet(body, 'day', length := 5, html := false)", "…<mark>days</mark>"),
        ("snippet(body, lower('NIGHT'))", "<mark>Night</mark> trains &amp; days"),
        ("snippet(id, '1')", "<mark>1</mark>"),
        ("snippet(body, NULL)", None),
    ],
)
def test_a_call_in_sql(session: DataflowSession, call: str, shown: str | None) -> None:
    assert session.sql(f"SELECT {call} AS s FROM docs WHERE id = 1").to_rows() == [{"s": shown}]


def test_beside_a_search_and_in_frames(session: DataflowSession) -> None:
    found = session.sql("SELECT id, snippet(body, 'night') AS s FROM docs KEYWORD SEARCH(body) QUERY 'night'").to_rows()
    assert sorted(row["s"] for row in found) == ["<mark>Night</mark> trains &amp; days", "one <mark>night</mark>"]
    docs = session.table("docs")
    assert docs.select(fn.snippet("body", lit("day")).alias("s")).to_rows()[2] == {"s": None}
    assert docs.filter("id = 2").select(expr("snippet(body, 'day') AS s")).to_rows() == [{"s": "a <mark>day</mark>"}]


def test_in_a_stream(session: DataflowSession) -> None:
    rows, sink = session.table("docs").to_arrow(), MemorySink()
    session.create_temp_view("coming", session.read_stream(MemorySource([rows]), "coming"))
    text = "SELECT id, snippet(body, 'night') AS s FROM {} WHERE id <> 3"
    query = session.stream_sql(text.format("coming")).write_stream(sink)
    query.process_available()
    query.stop()
    assert sink.result().sort_by("id").equals(session.sql(text.format("docs")).to_arrow().sort_by("id"))


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        ("snippet(body, '\"night')", "search.query", "quote"),
        ("snippet(body, 'night', 'germn')", "search.analyzer", "germn"),
        ("snippet(body, 'night', size := 3)", "sql.argument", "size"),
        ("snippet(body, 'night', 'standard', analyzer := 'english')", "sql.argument", "twice"),
        ("snippet(body)", "sql.argument", "snippet(text, query"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(session: DataflowSession, call: str, code: str, said: str) -> None:
    with pytest.raises((InputError, SqlSemanticError)) as caught:
        session.sql(f"SELECT {call} FROM docs")
    assert caught.value.code == code
    assert said in str(caught.value)
    assert caught.value.place is not None


# Of rows, so that it is told while they are computed: class, code, message and hint are those of a constant.
WRONG_IN_ROWS = [
    ("snippet(body, '\"' || body)", "search.query", 'a phrase without its closing quote: "a day', "quote"),
    ("snippet(body, 'a', analyzer := body)", "search.analyzer", 'no analyzer "a day"', "english"),
    ("snippet(body, 'a', length := id - 2)", "search.snippet", "a snippet of 0 characters", "1 or more"),
]


@pytest.mark.parametrize(("call", "code", "message", "hint"), WRONG_IN_ROWS)
def test_what_is_wrong_in_a_row_is_told_as_ours(
    session: DataflowSession, call: str, code: str, message: str, hint: str
) -> None:
    text = f"SELECT {call} AS s FROM {{}} WHERE id = 2"
    session.create_temp_view("coming", session.read_stream(MemorySource([session.table("docs").to_arrow()]), "coming"))
    query = session.stream_sql(text.format("coming")).write_stream(MemorySink())
    frame = session.sql(text.format("docs"))
    for run in (frame.to_rows, lambda: list(frame.to_reader()), query.process_available):
        with pytest.raises(InputError) as caught:
            run()
        assert caught.value.code == code
        assert caught.value.message.endswith(message)
        assert hint in (caught.value.hint or "")
        assert "Python" not in str(caught.value)
        assert "velaria-" not in str(caught.value)


def test_an_error_of_rows_has_no_place_in_other_words_of_the_statement(session: DataflowSession) -> None:
    with pytest.raises(InputError) as caught:
        session.sql("SELECT snippet(body, '\"' || body) AS day, 'a day' FROM docs WHERE id = 2").to_rows()
    assert caught.value.place is None
