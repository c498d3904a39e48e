"""Columns as text: each type in both forms, NULL, slices, and that JSON reads back what was written."""

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from velaria.arrow_text import bytes_of, joined, json_text, object_text, plain_text

MOMENT = datetime(2013, 1, 31, 5, tzinfo=UTC)
VECTOR = pa.list_(pa.float32(), 2)
NAMED = pa.struct([("x", pa.int32()), ("it's", pa.string())])
# type, value, JSON, plain text
CASES: list[tuple[pa.DataType, Any, str, str]] = [
    (pa.bool_(), True, "true", "true"),
    (pa.int8(), -128, "-128", "-128"),
    (pa.int64(), 9007199254740993, "9007199254740993", "9007199254740993"),
    (pa.uint64(), 2**64 - 1, "18446744073709551615", "18446744073709551615"),
    (pa.decimal128(38, 0), Decimal(10**38 - 1), "9" * 38, "9" * 38),
    (pa.decimal128(5, 2), Decimal("12.50"), "12.50", "12.50"),
    (pa.decimal128(18, 9), Decimal("0.000000001"), "0.000000001", "0.000000001"),
    (pa.float64(), 1.0, "1.0", "1.0"),
    (pa.float64(), 0.1, "0.1", "0.1"),
    (pa.float64(), 1e300, "1e+300", "1e+300"),
    (pa.float64(), -0.0, "-0.0", "-0.0"),
    (pa.float32(), 0.1, "0.1", "0.1"),
    (pa.float64(), math.nan, '"NaN"', "NaN"),
    (pa.float64(), math.inf, '"Infinity"', "Infinity"),
    (pa.float32(), -math.inf, '"-Infinity"', "-Infinity"),
    (pa.string(), "plain", '"plain"', "plain"),
    (pa.string(), 'a "b" \\ c', '"a \\"b\\" \\\\ c"', 'a "b" \\ c'),
    (pa.string(), "a\nb\x01", '"a\\nb\\u0001"', "a\nb\x01"),
    (pa.string(), "北京 é 🜚", '"北京 é 🜚"', "北京 é 🜚"),
    (pa.large_string(), "", '""', ""),
    (pa.binary(), b"a\\\xff\x00", '"YVz/AA=="', "a\\x5C\\xFF\\x00"),
    (pa.date32(), date(2013, 1, 31), '"2013-01-31"', "2013-01-31"),
    (pa.time64("us"), time(5, 0, 0, 500_000), '"05:00:00.5"', "05:00:00.5"),
    (pa.timestamp("us"), datetime(2013, 1, 31, 5), '"2013-01-31T05:00:00"', "2013-01-31 05:00:00"),
    (pa.timestamp("ns"), 1, '"1970-01-01T00:00:00.000000001"', "1970-01-01 00:00:00.000000001"),
    (
        pa.timestamp("us", "UTC"),
        datetime(2013, 1, 31, 5, tzinfo=UTC),
        '"2013-01-31T05:00:00Z"',
        "2013-01-31 05:00:00+00",
    ),
    (pa.timestamp("us", "UTC"), 500_000, '"1970-01-01T00:00:00.5Z"', "1970-01-01 00:00:00.5+00"),
    (pa.timestamp("us"), 2**63 - 1, '"infinity"', "infinity"),
    (pa.date32(), -(2**31) + 1, '"-infinity"', "-infinity"),
    (pa.month_day_nano_interval(), (14, 2, 3_500_000_000), '"P14M2DT3.5S"', "1 year 2 months 2 days 00:00:03.5"),
    (pa.month_day_nano_interval(), (0, 0, 0), '"PT0S"', "00:00:00"),
    (pa.month_day_nano_interval(), (0, 0, -1_000_000), '"PT-0.001S"', "-00:00:00.001"),
    (pa.duration("us"), timedelta(seconds=1), '"PT1S"', "00:00:01"),
    (pa.list_(pa.int64()), [1, None, 3], "[1, null, 3]", "[1, null, 3]"),
    (pa.list_(pa.list_(pa.string())), [["a"], [], None], '[["a"], [], null]', '[["a"], [], null]'),
    (pa.large_list(pa.int8()), [1], "[1]", "[1]"),
    (VECTOR, [0.1, 1.0], "[0.1, 1.0]", "[0.1, 1.0]"),
    (NAMED, {"x": 1, "it's": "y"}, '{"x": 1, "it\'s": "y"}', '{"x": 1, "it\'s": "y"}'),
    (pa.map_(pa.string(), pa.int32()), [("k", 1), ("l", None)], '{"k": 1, "l": null}', '{"k": 1, "l": null}'),
    (pa.map_(pa.int32(), pa.string()), [(1, "a")], '[[1, "a"]]', '[[1, "a"]]'),
    (pa.list_(pa.timestamp("us")), [datetime(2013, 1, 31)], '["2013-01-31T00:00:00"]', '["2013-01-31T00:00:00"]'),
]


@pytest.mark.parametrize(("kind", "value", "as_json", "plain"), CASES)
def test_values(kind: pa.DataType, value: Any, as_json: str, plain: str) -> None:
    # Between others and sliced, so that no offset is left out.
    column = pa.array([None, value, value, None, value], kind).slice(1, 3)
    assert json_text(column).to_pylist() == [as_json, as_json, "null"]
    assert plain_text(column).to_pylist() == [plain, plain, None]
    json.loads(as_json)


@pytest.mark.parametrize("kind", [kind for kind, *_ in CASES])
def test_no_rows(kind: pa.DataType) -> None:
    assert json_text(pa.array([], kind)).to_pylist() == []
    assert plain_text(pa.array([], kind)).to_pylist() == []


def test_null_type_enum_and_union() -> None:
    assert json_text(pa.nulls(2)).to_pylist() == ["null", "null"]
    assert plain_text(pa.nulls(1)).to_pylist() == [None]
    enum = pa.array(["a", None, "b"]).dictionary_encode()
    assert json_text(enum).to_pylist() == ['"a"', "null", '"b"']
    assert plain_text(enum).to_pylist() == ["a", None, "b"]
    union = pa.UnionArray.from_sparse(pa.array([0, 1, 1], pa.int8()), [pa.array([1, 2, 3]), pa.array(["x", "y", None])])
    assert json_text(union).to_pylist() == ["1", '"y"', "null"]


def test_rows_as_objects() -> None:
    rows = object_text(['a "b"', "c"], [json_text(pa.array([1, None])), json_text(pa.array(["x", "y"]))])
    assert rows.to_pylist() == ['{"a \\"b\\"": 1, "c": "x"}', '{"a \\"b\\"": null, "c": "y"}']


def test_bytes_of_a_slice() -> None:
    texts = joined("<", pa.array(["ä", "", "b", "c"], pa.large_string()), ">")
    assert bytes(bytes_of(texts)) == "<ä><><b><c>".encode()
    assert bytes(bytes_of(texts.slice(1, 2))) == b"<><b>"
    assert bytes(bytes_of(texts.slice(0, 0))) == b""


LEAVES = st.none() | st.text() | st.text(alphabet='"\\,\n\x00\x1f')


@given(st.lists(st.fixed_dictionaries({"a": LEAVES, "b": st.none() | st.lists(LEAVES, max_size=3)})))
def test_json_reads_back_any_text(rows: list[dict[str, Any]]) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.list_(pa.string()))])
    batch = pa.RecordBatch.from_pylist(rows, schema)
    texts = object_text(batch.schema.names, map(json_text, batch.columns))
    assert [json.loads(text) for text in texts.to_pylist()] == rows


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False)))
def test_json_reads_back_any_float(values: list[float | None]) -> None:
    texts = json_text(pa.array(values, pa.float64())).to_pylist()
    read = [json.loads(text) for text in texts]
    assert read == values
    assert all(isinstance(value, float) for value in read if value is not None)


@given(st.lists(st.none() | st.decimals(-(10**17), 10**17, places=4)))
def test_json_keeps_every_digit(values: list[Decimal | None]) -> None:
    texts = json_text(pa.array(values, pa.decimal128(30, 4))).to_pylist()
    assert [json.loads(text, parse_float=Decimal, parse_int=Decimal) for text in texts] == values
