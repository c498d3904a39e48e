"""CSV: one type a column that loses nothing, and no value read as something else without a word."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from files_support import Desk, hidden, types_of
from hypothesis import given, settings
from hypothesis import strategies as st

from velaria_core.errors import DataError, InputError
from velaria_core.execution import files


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


# --- types ------------------------------------------------------------------------------------------------------------


def test_fractions_are_numbers_and_leading_zeros_text(desk: Desk) -> None:
    """B-1, F-20, T-17: 0.5, 0.0 and -0.25 are numbers; 007 stays the text it is, with its whole column."""
    path = desk.write("t.csv", "share,zip,count\n0.5,007,1\n0.0,90210,0\n-0.25,00501,-3\n")
    opened = files.read_csv(desk.engine, path)
    assert types_of(opened) == {"share": "float64", "zip": "string", "count": "int64"}
    assert desk.rows(opened) == [
        {"share": 0.5, "zip": "007", "count": 1},
        {"share": 0.0, "zip": "90210", "count": 0},
        {"share": -0.25, "zip": "00501", "count": -3},
    ]
    assert desk.rows(opened, "SELECT sum(share) AS s FROM {}") == [{"s": 0.25}]


def test_a_plus_sign_is_part_of_a_text(desk: Desk) -> None:
    rows = desk.csv("phone,n\n+4930123,1\n+14155550100,2\n")
    assert rows[0] == {"phone": "+4930123", "n": 1}


def test_types_are_of_columns_and_not_of_cells(desk: Desk) -> None:
    """B-1: a column never mixes numbers and texts."""
    path = desk.write("t.csv", "a,b,c\n1,1,x\n2.5,x,\n3,3,true\n")
    opened = files.read_csv(desk.engine, path)
    assert types_of(opened) == {"a": "float64", "b": "string", "c": "string"}
    assert [row["b"] for row in desk.rows(opened)] == ["1", "x", "3"]


def test_every_type_that_is_found(desk: Desk) -> None:
    """F-20: booleans, integers, doubles, vectors with commas or spaces, dates and times, "" as NULL."""
    content = (
        "i,d,b,v,w,day,ts,tz,ns,clock,text,none\n"
        '1,1e5,true,"[1, 2, 3]",[1 2 3],2024-02-29,2024-02-29 10:00:00,2024-02-29T10:00:00+02:00,'
        "2024-02-29 10:00:00.123456789,10:00:00,a,\n"
        '-2,.5,FALSE,"[4,5,6]",[4 5 6],2024-03-01,2024-02-29 10:00:01,2024-02-29T10:00:00Z,'
        '2024-02-29 10:00:00.1,23:59:59,"",\n'
    )
    path = desk.write("t.csv", content)
    opened = files.read_csv(desk.engine, path)
    assert types_of(opened) == {
        "i": "int64",
        "d": "float64",
        "b": "bool",
        "v": "float32[3]",
        "w": "float32[3]",
        "day": "date",
        "ts": "timestamp",
        "tz": "timestamp_utc",
        "ns": "timestamp_ns",
        "clock": "time",
        "text": "string",
        "none": "string",
    }
    first, second = desk.rows(opened)
    assert first["v"] == first["w"] == [1.0, 2.0, 3.0]
    assert first["day"] == date(2024, 2, 29)
    assert first["tz"] == datetime(2024, 2, 29, 8, tzinfo=UTC)
    assert second["text"] is None
    assert second["b"] is False
    assert second["none"] is None


def test_integers_beyond_int64_stay_exact(desk: Desk) -> None:
    """F-20, B-8: an id of 20 digits is a decimal of 38 digits, and int64's own ends are int64."""
    path = desk.write("t.csv", "id,edge\n18446744073709551616,9223372036854775807\n1,-9223372036854775808\n")
    opened = files.read_csv(desk.engine, path)
    assert types_of(opened) == {"id": "decimal(38,0)", "edge": "int64"}
    assert desk.rows(opened)[0] == {"id": Decimal("18446744073709551616"), "edge": 9223372036854775807}
    huge = "1" * 39
    assert desk.csv(f"id\n{huge}\n") == [{"id": huge}]


def test_vectors_of_several_lengths_are_text(desk: Desk) -> None:
    assert desk.csv('v\n"[1, 2]"\n"[1, 2, 3]"\n') == [{"v": "[1, 2]"}, {"v": "[1, 2, 3]"}]


def test_days_that_are_none_are_text(desk: Desk) -> None:
    assert desk.csv("d\n2023-02-29\n2023-02-28\n")[0] == {"d": "2023-02-29"}


def test_marks_of_missing_values_are_null_in_numbers_and_stay_in_text(desk: Desk) -> None:
    """NA is NULL where it stands among numbers, and the country code of Namibia where it stands among texts."""
    content = "n,x,country\n1,0.5,NA\nNA,1.5,DE\n3,,\n"
    path = desk.write("t.csv", content)
    opened = files.read_csv(desk.engine, path)
    assert desk.rows(opened) == [
        {"n": 1, "x": 0.5, "country": "NA"},
        {"n": None, "x": 1.5, "country": "DE"},
        {"n": 3, "x": None, "country": None},
    ]
    assert "NA" in opened.warnings[0]
    assert desk.csv(content, null_values=[""])[1]["n"] == "NA"
    assert desk.csv(content, null_values=["NA", "DE"])[1] == {"n": None, "x": 1.5, "country": None}


def test_casts_see_the_value_and_not_the_text_of_the_file(desk: Desk) -> None:
    """A cast of a number to text gives the number's text, for a file as for a table."""
    path = desk.write("t.csv", "a\n0.50\n2\n")
    opened = files.read_csv(desk.engine, path)
    assert desk.rows(opened, "SELECT CAST(a AS VARCHAR) AS t FROM {}") == [{"t": "0.5"}, {"t": "2.0"}]
    assert desk.rows(opened, "SELECT CAST(a AS INTEGER) AS t FROM {}") == [{"t": 0}, {"t": 2}]


# --- values that do not fit, beyond the sample ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "other", "kind", "shown"),
    [
        ("1,a", "1.5,a", "int64", "1.5"),
        ("1,a", "x,a", "int64", "x"),
        ("1.5,a", "x,a", "float64", "x"),
        ("2024-01-01,a", "2024-01-01 10:00:00,a", "date", "2024-01-01 10:00:00"),
        ("2024-01-01 10:00:00,a", "2024-01-01 10:00:00+02,a", "timestamp", "2024-01-01 10:00:00+02"),
        ("12345678901,a", "007,a", None, None),
        ("true,a", "1,a", "bool", "1"),
        ("[1 2 3],a", "[1 2],a", "float32[3]", "[1 2]"),
        ("[1 2 3],a", "[1 x 3],a", "float32[3]", "[1 x 3]"),
    ],
)
def test_a_value_further_down_is_refused_with_its_line(
    desk: Desk, line: str, other: str, kind: str | None, shown: str | None
) -> None:
    """Never rounded, cut off or dropped: the engine's own reader would take several of these in silence."""
    text, at = hidden("v,w\n", line, other)
    path = desk.write("t.csv", text)
    opened = files.read_csv(desk.engine, path)
    query = "SELECT min(v) AS low, max(v) AS high FROM {}"
    if kind is None:
        assert desk.rows(opened, query)[0]["low"] == 7  # the number that it spells, exactly
        return
    assert types_of(opened)["v"] == kind
    with pytest.raises(DataError) as caught:
        desk.rows(opened, query)
    error = caught.value
    assert error.code == "file.bad_value"
    assert error.message == f'column "v": "{shown}" is not {kind}'
    assert error.place is not None
    assert (error.place.file, error.place.line) == (path, at)
    assert 'types={"v": "string"}' in (error.hint or "")


def test_an_integer_beyond_doubles_is_exact_or_refused(desk: Desk) -> None:
    """A column of small integers is read through doubles; the first that a double cannot hold stops it."""
    large = 2**53 + 1
    text, _ = hidden("v,w\n", "1,a", f"{large},a")
    path = desk.write("t.csv", text)
    with pytest.raises(DataError, match="is not int64"):
        desk.rows(files.read_csv(desk.engine, path), "SELECT max(v) AS m FROM {}")
    declared = files.read_csv(desk.engine, path, types={"v": "int64"})
    assert desk.rows(declared, "SELECT max(v) AS m FROM {}") == [{"m": large}]


def test_a_declared_integer_is_not_rounded(desk: Desk) -> None:
    with pytest.raises(DataError, match=r'"1\.5" is not int64'):
        desk.csv("v\n1.5\n2\n", types={"v": "int64"})
    assert desk.csv("v\n+1\n007\n", types={"v": "int64"}) == [{"v": 1}, {"v": 7}]
    with pytest.raises(DataError, match='"300" is not int8'):
        desk.csv("v\n300\n2\n", types={"v": "int8"})


def test_values_of_the_end_are_sampled(desk: Desk) -> None:
    """A sample has blocks from all over the file, so that a late fraction makes a column of doubles."""
    path = desk.write("t.csv", "v\n" + "12345\n" * 200_000 + "0.5\n")
    opened = files.read_csv(desk.engine, path)
    assert types_of(opened) == {"v": "float64"}
    assert desk.rows(opened, "SELECT min(v) AS m FROM {}") == [{"m": 0.5}]


def test_ragged_rows_are_refused_with_their_line(desk: Desk) -> None:
    """The engine's sniffer would read the file again as one column of text."""
    path = desk.write("t.csv", "a,b\n1,2\n3\n4,5\n")
    opened = files.read_csv(desk.engine, path)
    assert opened.relation.schema.names == ["a", "b"]
    with pytest.raises(DataError) as caught:
        desk.rows(opened)
    assert caught.value.code == "file.ragged_row"
    assert caught.value.place is not None
    assert (caught.value.place.file, caught.value.place.line) == (path, 3)
    with pytest.raises(DataError, match="expected 2 fields, found 3"):
        desk.csv("a,b\n1,2\n3,4,5\n")


# --- syntax -----------------------------------------------------------------------------------------------------------


def test_quotes_newlines_and_crlf(desk: Desk) -> None:
    """F-21, T-17, T-19: delimiters, doubled quotes and line ends inside quotes; CRLF; no newline at the end."""
    content = 'a,b\r\n1,"x, ""y""\r\nz"\r\n2,plain'
    assert desk.csv(content) == [{"a": 1, "b": 'x, "y"\r\nz'}, {"a": 2, "b": "plain"}]


def test_mixed_line_ends_are_read(desk: Desk) -> None:
    assert desk.csv('a,b\r\n1,"x"\n2,y\r\n') == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_backslash_escapes_are_found(desk: Desk) -> None:
    assert desk.csv('a,b\n1,"say \\"hi\\""\n2,"x"\n')[0]["b"] == 'say "hi"'


@pytest.mark.parametrize("delimiter", [",", "\t", "|", ";"])
def test_delimiters_are_found(desk: Desk, delimiter: str) -> None:
    content = delimiter.join(("id", "name")) + "\n" + delimiter.join(("1", "a b, c" if delimiter != "," else "a b"))
    rows = desk.csv(content + "\n")
    assert rows[0]["id"] == 1


def test_options_say_otherwise(desk: Desk) -> None:
    content = "# made by hand\n1~2\n3~'4'\n"
    rows = desk.csv(content, delimiter="~", quote="'", header=False, skip=1, names=["x", "y"])
    assert rows == [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    assert desk.csv("a||b\n1||2\n", delimiter="||") == [{"a": 1, "b": 2}]
    assert desk.csv("a,b\n# no\n1,2\n", comment="#") == [{"a": 1, "b": 2}]


def test_headers_are_found(desk: Desk) -> None:
    """F-05: names stand above values of another kind, or look like names."""
    assert desk.csv("1,a\n2,b\n") == [{"c0": 1, "c1": "a"}, {"c0": 2, "c1": "b"}]
    assert desk.csv("name,city\nAda,London\n") == [{"name": "Ada", "city": "London"}]
    assert desk.csv("First Name,2nd\nAda,5\n") == [{"First Name": "Ada", "2nd": 5}]
    assert desk.csv("a,b\n", header=True) == []
    assert desk.csv("x\n1\n", header=False) == [{"c0": "x"}, {"c0": "1"}]


def test_blank_lines_and_nameless_columns(desk: Desk) -> None:
    """The engine takes a blank first line for the header."""
    assert desk.csv("\n\na,b\n1,2\n\n3,4\n\n") == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert desk.csv("a,b,\nx,y,\n") == [{"a": "x", "b": "y", "c2": None}]
    assert desk.csv(",a,c0\n1,2.5,x\n2,3,y\n")[0] == {"c0_": 1, "a": 2.5, "c0": "x"}
    first, second = desk.write("p/a.csv", "a\n1\n"), desk.write("p/b.csv", "\na\n2\n")
    assert desk.rows(files.read_csv(desk.engine, [first, second])) == [{"a": 1}, {"a": 2}]


def test_columns_choose_and_type(desk: Desk) -> None:
    content = "id,name,zip\n1,a,10115\n2,b,80331\n"
    assert desk.csv(content, columns=["zip", "id"]) == [{"zip": 10115, "id": 1}, {"zip": 80331, "id": 2}]
    assert desk.csv(content, columns={"zip": "string"}) == [{"zip": "10115"}, {"zip": "80331"}]
    assert desk.csv(content, types={"ZIP": "string"})[0] == {"id": 1, "name": "a", "zip": "10115"}
    assert desk.csv("1,2\n", columns={"x": "int64", "y": "string"}) == [{"x": 1, "y": "2"}]


def test_a_column_that_is_not_there(desk: Desk) -> None:
    for options in ({"columns": ["nam"]}, {"types": {"nam": "string"}}):
        with pytest.raises(InputError) as caught:
            desk.csv("id,name\n1,a\n", **options)
        assert caught.value.code == "file.unknown_column"
        assert 'did you mean "name"?' in (caught.value.hint or "")


def test_two_columns_of_one_name(desk: Desk) -> None:
    with pytest.raises(DataError) as caught:
        desk.csv("id,Name,name\n1,a,b\n")
    assert caught.value.code == "file.duplicate_column"
    assert caught.value.place is not None
    assert (caught.value.place.line, caught.value.place.column) == (1, 3)
    assert desk.csv("id,Name,name\n1,a,b\n", names=["id", "n", "m"]) == [{"id": 1, "n": "a", "m": "b"}]


def test_names_with_quotes_and_spaces(desk: Desk) -> None:
    assert desk.csv('it\'s,"a ""b""",{x}\n1,2.5,3\n') == [{"it's": 1, 'a "b"': 2.5, "{x}": 3}]
    large = "it's,{x}\n" + "1,2\n" * 200_000
    assert desk.csv(large)[0] == {"it's": 1, "{x}": 2}


def test_text_is_unicode(desk: Desk) -> None:
    assert desk.csv("城市,值\n北京,1\n") == [{"城市": "北京", "值": 1}]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\ufeff"), max_size=8)


@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8), delimiter=st.sampled_from(",|\t;"))
@settings(max_examples=30, deadline=None)
def test_any_text_survives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], delimiter: str
) -> None:
    """What Python's writer writes is read as it was, with quotes, delimiters and line ends; "" is NULL."""
    held = io.StringIO(newline="")
    writer = csv.writer(held, delimiter=delimiter, lineterminator="\n")
    writer.writerows([("a", "b", "c"), *rows])
    with Desk(tmp_path_factory.mktemp("any")) as desk:
        found = desk.csv(
            held.getvalue(),
            delimiter=delimiter,
            escape='"',
            header=True,
            columns={"a": "string", "b": "string", "c": "string"},
            null_values=[""],
        )
    assert found == [dict(zip("abc", (cell or None for cell in row), strict=True)) for row in rows]


# --- encodings and compression ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gb18030", "utf-16-le", "shift_jis"])
def test_encodings(desk: Desk, encoding: str) -> None:
    word = "北京" if encoding in ("gb18030", "utf-16-le", "shift_jis") else "café"
    assert desk.csv(f"word,n\n{word},1\n".encode(encoding), encoding=encoding) == [{"word": word, "n": 1}]


def test_byte_order_marks_tell_the_encoding(desk: Desk) -> None:
    assert desk.csv("é,n\nü,1\n".encode("utf-16")) == [{"é": "ü", "n": 1}]
    assert desk.csv("é,n\nü,1\n".encode("utf-8-sig")) == [{"é": "ü", "n": 1}]


@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2", "xz", "zip"])
def test_compression(desk: Desk, suffix: str) -> None:
    plain = b"a,b\n" + b"1,x\n" * 3
    if suffix == "zip":
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            archive.writestr("inner.csv", plain)
        packed = held.getvalue()
    elif suffix == "zst":
        packed = pa.Codec("zstd").compress(plain, asbytes=True)
    else:
        pack: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
        packed = pack[suffix](plain)
    path = desk.write(f"t.csv.{suffix}", packed)
    assert desk.rows(files.read_csv(desk.engine, path)) == [{"a": 1, "b": "x"}] * 3
    assert files.probe(desk.engine, path).final_format == "csv"


# --- several files ----------------------------------------------------------------------------------------------------


def test_globs_lists_and_folders(desk: Desk) -> None:
    desk.write("many/a.csv", "n\n1\n")
    desk.write("many/b.csv", "n\n2.5\n")
    desk.write("many/.hidden.csv", "n\nx\n")
    desk.write("many/empty.csv", "")
    folder = str(desk.folder / "many")
    ways: list[files.Paths] = [
        f"{folder}/*.csv",
        folder,
        [f"{folder}/a.csv", Path(f"{folder}/b.csv")],
        f"{folder}/[ab].csv",
    ]
    for path in ways:
        assert desk.rows(files.read_csv(desk.engine, path), "SELECT sum(n) AS s FROM {}") == [{"s": 3.5}]


def test_files_packed_in_several_ways(desk: Desk) -> None:
    """Also where some are not sampled: a gz file read as text gives the engine no rows, and no error."""
    for number in range(12):
        desk.write(f"p/{number:02}.csv", gzip.compress(b"n\n7\n") if number == 3 else "n\n1\n")
    opened = files.read_csv(desk.engine, f"{desk.folder}/p/*.csv")
    assert desk.rows(opened, "SELECT sum(n) AS s FROM {}") == [{"s": 18}]


def test_a_bracket_in_a_name_is_no_pattern(desk: Desk) -> None:
    desk.write("a1.csv", "n\n2\n")
    assert desk.csv("n\n1\n", name="a[1].csv") == [{"n": 1}]


def test_mixed_schemas_are_refused_or_joined_by_name(desk: Desk) -> None:
    first = desk.write("m/a.csv", "id,x\n1,2\n")
    second = desk.write("m/b.csv", "x,id\n3,4\n")
    third = desk.write("m/c.csv", "id,y\n5,z\n")
    with pytest.raises(DataError) as caught:
        files.read_csv(desk.engine, [first, second])
    assert caught.value.code == "file.mixed_schemas"
    assert caught.value.place is not None
    assert caught.value.place.file == second
    with pytest.raises(DataError, match="adds y and lacks x"):
        files.read_csv(desk.engine, [first, third])
    joined = files.read_csv(desk.engine, [first, second, third], union_by_name=True)
    assert desk.rows(joined, "SELECT * FROM {} ORDER BY id") == [
        {"id": 1, "x": 2, "y": None},
        {"id": 4, "x": 3, "y": None},
        {"id": 5, "x": None, "y": "z"},
    ]


# --- rows that are left out -------------------------------------------------------------------------------------------

BAD = "id,price,day\n1,1.5,2024-01-01\nx,2,2024-01-02\n3,y,z\n4\n5,6,2024-01-05,7\n8,0.5,2024-01-08\n"
TYPES = {"id": "int64", "price": "float64", "day": "date"}


def test_skip_counts_what_it_leaves_out(desk: Desk) -> None:
    path = desk.write("t.csv", BAD)
    opened = files.read_csv(desk.engine, path, types=TYPES, on_error="skip")
    assert opened.rejects is None
    assert opened.skipped == 4
    assert [row["id"] for row in desk.rows(opened)] == [1, 8]
    # The same rows, whichever columns a query names: a lazy read that ignores errors would count 6 and 5 here.
    assert desk.rows(opened, "SELECT count(*) AS n FROM {}") == [{"n": 2}]
    assert desk.rows(opened, "SELECT count(price) AS n FROM {}") == [{"n": 2}]


def test_collect_keeps_what_it_leaves_out(desk: Desk) -> None:
    path = desk.write("t.csv", BAD)
    opened = files.read_csv(desk.engine, path, types=TYPES, on_error="collect")
    assert opened.skipped == 4
    assert desk.rejects(opened) == [
        (3, "id", '"x" is not int64'),
        (4, "day", '"z" is not date'),
        (4, "price", '"y" is not float64'),
        (5, None, "expected 3 fields, found 1"),
        (6, None, "expected 3 fields, found 4"),
    ]
    assert opened.rejects is not None
    (reject,) = desk.rows(opened.rejects, "SELECT * FROM {} WHERE line = 5")
    assert (reject["file"], reject["text"]) == (path, "4")


def test_values_that_only_a_guard_sees_are_collected(desk: Desk) -> None:
    """Exact counts and lines over a file larger than its sample, blank lines and quoted line ends counted."""
    text, at = hidden("v,w\n\n", '1,"a\nb"', "1.5,c")
    path = desk.write("t.csv", text)
    opened = files.read_csv(desk.engine, path, on_error="collect")
    assert opened.skipped == 1
    assert desk.rejects(opened) == [(at, "v", '"1.5" is not int64')]
    good = text.count("1,")
    assert desk.rows(opened, "SELECT count(*) AS n, sum(v) AS s FROM {}") == [{"n": good, "s": good}]


def test_nothing_to_leave_out(desk: Desk) -> None:
    path = desk.write("t.csv", "a\n1\n")
    opened = files.read_csv(desk.engine, path, on_error="collect")
    assert opened.skipped == 0
    assert desk.rejects(opened) == []


# --- pushdown ---------------------------------------------------------------------------------------------------------


def test_what_a_query_needs_is_what_is_read(desk: Desk) -> None:
    """F-30 to F-32, T-17: projected, filtered, limited and grouped reads equal the full read."""
    path = desk.write("t.csv", "a,b,c\n" + "".join(f"{n},{n % 3},t{n}\n" for n in range(100)))
    opened = files.read_csv(desk.engine, path)
    full = desk.rows(opened)
    assert desk.rows(opened, "SELECT c FROM {} WHERE a > 97") == [{"c": row["c"]} for row in full if row["a"] > 97]
    assert desk.rows(opened, "SELECT a FROM {} WHERE b = 1 AND a < 9 OR a = 50") == [
        {"a": row["a"]} for row in full if (row["b"] == 1 and row["a"] < 9) or row["a"] == 50
    ]
    assert len(desk.rows(opened, "SELECT * FROM {} LIMIT 7")) == 7
    assert desk.rows(opened, "SELECT b, count(*) AS n, sum(a) AS s FROM {} GROUP BY b ORDER BY b") == [
        {"b": key, "n": sum(row["b"] == key for row in full), "s": sum(row["a"] for row in full if row["b"] == key)}
        for key in range(3)
    ]
    with desk.engine.cursor() as cursor:
        text = str(cursor.rows(f"EXPLAIN SELECT c FROM {opened.relation.sql} WHERE a > 97"))
    assert "Projections" in text


def test_to_arrow_keeps_quotes_and_nulls(desk: Desk) -> None:
    """T-40: CSV with quoted and missing cells to Arrow."""
    path = desk.write("t.csv", 'id,name\n1,"a, b"\n2,\n')
    table = desk.table(files.read_csv(desk.engine, path))
    assert table.equals(pa.table({"id": pa.array([1, 2], pa.int64()), "name": pa.array(["a, b", None], pa.string())}))
