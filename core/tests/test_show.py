"""What people see of a table: boxes on a terminal, HTML in a notebook."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from velaria_core.errors import display_width
from velaria_core.execution.show import cell_text, html_table, text_table

PEOPLE = pa.table(
    {
        "name": pa.array(["Ada", "张伟", None]),
        "age": pa.array([36, None, 7], pa.int32()),
        "score": pa.array([0.1, 12.5, float("nan")], pa.float32()),
    }
)


def drawn(text: str) -> str:
    return text.strip("\n")


def test_a_box() -> None:
    assert text_table(PEOPLE, 20, 80) == drawn(
        """
┌────────┬───────┬─────────┐
│ name   │   age │   score │
│ string │ int32 │ float32 │
├────────┼───────┼─────────┤
│ Ada    │    36 │     0.1 │
│ 张伟   │  NULL │    12.5 │
│ NULL   │     7 │     nan │
└────────┴───────┴─────────┘
3 rows
"""
    )


def test_more_rows_than_asked_for_are_told() -> None:
    assert text_table(PEOPLE, 1, 80) == drawn(
        """
┌────────┬───────┬─────────┐
│ name   │   age │   score │
│ string │ int32 │ float32 │
├────────┼───────┼─────────┤
│ Ada    │    36 │     0.1 │
└────────┴───────┴─────────┘
1 of more rows
"""
    )


def test_no_rows_and_no_columns() -> None:
    assert text_table(PEOPLE.slice(0, 0).select(["age"]), 5, 80) == drawn(
        """
┌───────┐
│   age │
│ int32 │
├───────┤
└───────┘
0 rows
"""
    )
    assert text_table(pa.table({}), 5, 80) == "0 rows"


def test_one_row_is_one_row() -> None:
    assert text_table(PEOPLE.slice(0, 1), 5, 80).endswith("\n1 row")


def test_the_longest_text_is_cut_first() -> None:
    table = pa.table({"id": [1], "text": ["the quick brown fox jumps over the lazy dog"], "n": [2]})
    assert text_table(table, 5, 50) == drawn(
        """
┌───────┬────────────────────────────────┬───────┐
│    id │ text                           │     n │
│ int64 │ string                         │ int64 │
├───────┼────────────────────────────────┼───────┤
│     1 │ the quick brown fox jumps ove… │     2 │
└───────┴────────────────────────────────┴───────┘
1 row
"""
    )


def test_wide_characters_are_cut_between_them() -> None:
    table = pa.table({"文": ["春眠不觉晓处处闻啼鸟夜来风雨声"]})
    assert text_table(table, 5, 20) == drawn(
        """
┌──────────────────┐
│ 文               │
│ string           │
├──────────────────┤
│ 春眠不觉晓处处…  │
└──────────────────┘
1 row
"""
    )


def test_a_wide_table_loses_its_middle() -> None:
    table = pa.table({f"column_{n:02}": [n] for n in range(30)})
    assert text_table(table, 5, 60) == drawn(
        """
┌───────────┬───────────┬───┬───────────┬───────────┐
│ column_00 │ column_01 │ … │ column_28 │ column_29 │
│     int64 │     int64 │   │     int64 │     int64 │
├───────────┼───────────┼───┼───────────┼───────────┤
│         0 │         1 │ … │        28 │        29 │
└───────────┴───────────┴───┴───────────┴───────────┘
1 row, 4 of 30 columns
"""
    )


@pytest.mark.parametrize("width", [1, 20, 37, 38, 60, 79, 80, 120, 200])
@pytest.mark.parametrize("columns", [1, 2, 3, 8, 40])
def test_every_line_is_as_long_and_fits(width: int, columns: int) -> None:
    table = pa.table({f"列{n}" * (n % 3 + 1): ["宽字" * (n + 1)] for n in range(columns)})
    lines = text_table(table, 5, width).splitlines()[:-1]
    sizes = {display_width(line) for line in lines}
    assert len(sizes) == 1
    # One column and the gap are shown however small the terminal is.
    assert sizes.pop() <= max(width, 24)


def test_the_terminal_s_width_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": ["x" * 300]})
    monkeypatch.setenv("COLUMNS", "40")
    assert len(text_table(table, 5).splitlines()[0]) == 40


def test_a_value_cannot_steer_the_terminal() -> None:
    table = pa.table({"a\x1b[2J": ["x\x1b]0;title\x07\ny\t\u202eabc\x9b1m"]})
    shown = text_table(table, 5, 120)
    assert "\x1b" not in shown
    assert "a\\u{1b}[2J" in shown
    assert "x\\u{1b}]0;title\\u{7}\\ny\\t\\u{202e}abc\\u{9b}1m" in shown


UTC = pa.timestamp("us", "UTC")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, pa.int64(), "NULL"),
        (None, pa.null(), "NULL"),
        (True, pa.bool_(), "true"),
        (2**63 - 1, pa.int64(), "9223372036854775807"),
        (2**64 - 1, pa.uint64(), "18446744073709551615"),
        (0.1, pa.float32(), "0.1"),
        (0.1, pa.float64(), "0.1"),
        (1e300, pa.float64(), "1e+300"),
        (float("-inf"), pa.float64(), "-inf"),
        (np.float16(0.5), pa.float16(), "0.5"),
        (Decimal("0.0000001"), pa.decimal128(10, 7), "0.0000001"),
        ("it's", pa.string(), "it's"),
        ("", pa.string(), ""),
        ("👩‍👩‍👧", pa.large_string(), "👩‍👩‍👧"),
        ("z", pa.string_view(), "z"),
        (b"a\x00\\", pa.binary(), "a\\x00\\x5C"),
        (b"ab", pa.binary(2), "ab"),
        (dt.date(2024, 1, 31), pa.date32(), "2024-01-31"),
        (dt.date(2024, 1, 31), pa.date64(), "2024-01-31"),
        (dt.time(1, 2, 3), pa.time32("s"), "01:02:03"),
        (dt.time(1, 2, 3, 450000), pa.time64("us"), "01:02:03.45"),
        (dt.datetime(2024, 1, 31, 10, 20, 30), pa.timestamp("s"), "2024-01-31 10:20:30"),
        (dt.datetime(2024, 1, 31, 10, 20, 30, 500000), pa.timestamp("us"), "2024-01-31 10:20:30.5"),
        (dt.datetime(2024, 1, 31), pa.timestamp("ms"), "2024-01-31 00:00:00"),
        (1, pa.timestamp("ns"), "1970-01-01 00:00:00.000000001"),
        (0, UTC, "1970-01-01 00:00:00+00"),
        (2**63 - 1, UTC, "infinity"),
        (-(2**63) + 1, UTC, "-infinity"),
        (9_000_000_000_000_000_000, pa.timestamp("us"), "287168-08-24 16:00:00"),
        (dt.timedelta(hours=30, microseconds=-1), pa.duration("us"), "29:59:59.999999"),
        (dt.timedelta(seconds=-90), pa.duration("s"), "-00:01:30"),
        ((14, -2, 1_500_000_000), pa.month_day_nano_interval(), "1 year 2 months -2 days 00:00:01.5"),
        ((-1, 0, 0), pa.month_day_nano_interval(), "-1 month"),
        ((0, 0, 0), pa.month_day_nano_interval(), "00:00:00"),
        ([1, None], pa.list_(pa.int64()), "[1, NULL]"),
        (["a", "it's", None], pa.large_list(pa.string()), "['a', 'it''s', NULL]"),
        ([0.1, 0.2], pa.list_(pa.float32(), 2), "[0.1, 0.2]"),
        ([[1], []], pa.list_(pa.list_(pa.int8())), "[[1], []]"),
        ({"x": 1, "y": "b"}, pa.struct([("x", pa.int8()), ("y", pa.string())]), "{x: 1, y: 'b'}"),
        ([("a", 1), ("b", None)], pa.map_(pa.string(), pa.int8()), "{'a': 1, 'b': NULL}"),
        ([dt.date(2024, 1, 31)], pa.list_(pa.date32()), "[2024-01-31]"),
    ],
    ids=str,
)
def test_values(value: object, kind: pa.DataType, text: str) -> None:
    assert cell_text(pa.array([value], kind)[0]) == text


def test_values_of_types_that_wrap_others() -> None:
    words = pa.array(["a", None]).dictionary_encode()
    assert [cell_text(value) for value in words] == ["a", "NULL"]
    either = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([7, 0]), pa.array(["x", "y"])])
    assert [cell_text(value) for value in either] == ["7", "y"]


def test_long_values_are_not_written_out() -> None:
    assert len(cell_text(pa.scalar("x" * 10_000_000))) < 1100
    assert cell_text(pa.scalar(list(range(1000)))).endswith("48, 49, …]")
    assert len(cell_text(pa.scalar(b"x" * 1_000_000))) < 1100


def test_html() -> None:
    table = pa.table({"<b>": ["<script>&\n", None], "n": [1, 2]})
    assert html_table(table, 1) == drawn(
        """
<table class="velaria">
<thead><tr><th style="text-align: left">&lt;b&gt;<br><small>string</small></th><th style="text-align: right">n<br><small>int64</small></th></tr></thead>
<tbody>
<tr><td style="text-align: left">&lt;script&gt;&amp;\\n</td><td style="text-align: right">1</td></tr>
</tbody>
</table>
<small>1 of more rows</small>
"""  # noqa: E501
    )


def test_html_has_at_most_twenty_columns() -> None:
    shown = html_table(pa.table({f"c{n}": [n] for n in range(25)}), 5)
    assert shown.count("<th ") == 21
    assert "c9<" in shown
    assert "c10<" not in shown
    assert "c15<" in shown
    assert "1 row, 20 of 25 columns" in shown


def test_html_cuts_long_texts() -> None:
    assert f"{'x' * 199}…" in html_table(pa.table({"t": ["x" * 500]}), 5)


def test_display_width() -> None:
    assert display_width("abc") == 3
    assert display_width("中文") == 4
    assert display_width("e\u0301") == 1, "a combining accent takes no column"
    assert display_width("☀\ufe0f\u200b") == 1, "nor do a variation selector and a joiner"
