"""Every type through Arrow in, SQL, Arrow out, rows, JSON and Parquet; then the defects that this guards against.

A row of `CASES` says what goes in, as what it comes out, and what a file format cannot keep of it.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from velaria_core import DataflowSession, col, fn, lit
from velaria_core.errors import DataError, InputError
from velaria_core.types import SIMPLE, arrow_type, duckdb_type, exported_type, resolve_type_name, type_name

UTC = dt.UTC
MONTHS = pa.month_day_nano_interval()
FLOAT32_MAX = 3.4028234663852886e38
TENTH = float(np.float32(0.1))


@dataclass(frozen=True)
class Case:
    """One type.

    Attributes:
        name: Velaria's name of the type as which it comes out.
        values: rows as they go in.
        rows: what `to_rows` gives, where that is not `values`.
        out: the Arrow type that comes out, where that is not `kind`.
        in_json: whether JSON, read back with the column's type given, has the same rows.
        parquet: type read back from Parquet, where that is not `out`.
    """

    kind: pa.DataType
    name: str
    values: list[Any]
    rows: list[Any] | None = None
    out: pa.DataType | None = None
    in_json: bool = True
    parquet: pa.DataType | None = None

    def __str__(self) -> str:
        return str(self.kind)

    @property
    def expected(self) -> list[Any]:
        return self.values if self.rows is None else self.rows

    @property
    def leaves(self) -> pa.DataType:
        return self.kind if self.out is None else self.out

    def table(self) -> pa.Table:
        if isinstance(self.kind, pa.BaseExtensionType):
            storage = pa.array(self.values, self.kind.storage_type)
            return pa.table({"v": pa.ExtensionArray.from_storage(self.kind, storage)})
        return pa.table({"v": pa.array(self.values, self.kind)})


def integer(kind: pa.DataType, low: int, high: int) -> Case:
    return Case(kind, str(kind), [low, 0, None, high])


def moments(kind: pa.DataType, name: str, **rest: Any) -> Case:
    zone = kind.tz
    early = dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC if zone else None)
    late = dt.datetime(2262, 4, 11, 1, 2, 3, tzinfo=UTC if zone else None)
    return Case(kind, name, [early, None, late], **rest)


CASES = [
    Case(pa.bool_(), "bool", [True, False, None]),
    integer(pa.int8(), -(2**7), 2**7 - 1),
    integer(pa.int16(), -(2**15), 2**15 - 1),
    integer(pa.int32(), -(2**31), 2**31 - 1),
    integer(pa.int64(), -(2**63), 2**63 - 1),
    integer(pa.uint8(), 0, 2**8 - 1),
    integer(pa.uint16(), 0, 2**16 - 1),
    integer(pa.uint32(), 0, 2**32 - 1),
    integer(pa.uint64(), 0, 2**64 - 1),
    Case(pa.float32(), "float32", [np.float32(0.1), -1.5, FLOAT32_MAX, None], [TENTH, -1.5, FLOAT32_MAX, None]),
    Case(pa.float64(), "float64", [0.1, 1.7976931348623157e308, 5e-324, -0.0, None]),
    Case(pa.decimal128(4, 1), "decimal(4,1)", [Decimal("-999.9"), Decimal("0.0"), None]),
    Case(pa.decimal128(18, 4), "decimal(18,4)", [Decimal("12345678901.2345"), None]),
    Case(
        pa.decimal128(38, 10),
        "decimal(38,10)",
        [Decimal("1234567890123456789012345678.0123456789"), None],
        in_json=False,  # the engine reads numbers of JSON through a double
    ),
    Case(pa.decimal128(38, 0), "decimal(38,0)", [Decimal(2**63), None], [2**63, None]),
    Case(pa.decimal32(5, 2), "decimal(5,2)", [Decimal("1.25"), None], out=pa.decimal128(5, 2)),
    Case(pa.string(), "string", ["", "a\0b", "it's", "日本 👍", "\n\t\"\\", "null", None]),
    Case(pa.large_string(), "string", ["a", None], out=pa.string()),
    Case(pa.string_view(), "string", ["a longer text than twelve", None], out=pa.string()),
    Case(pa.dictionary(pa.int8(), pa.string()), "string", ["a", "b", None, "a"], out=pa.string()),
    Case(pa.dictionary(pa.int8(), pa.int64()), "int64", [2**62, None], out=pa.int64()),
    Case(pa.binary(), "binary", [b"", b"ab", None]),
    Case(pa.large_binary(), "binary", [b"ab", None], out=pa.binary()),
    Case(pa.binary(2), "binary", [b"ab", None], out=pa.binary()),
    Case(pa.date32(), "date", [dt.date(1, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31), None]),
    Case(pa.date64(), "date", [dt.date(2024, 2, 29), None], out=pa.date32()),
    Case(pa.time64("us"), "time", [dt.time(0), dt.time(23, 59, 59, 999999), None]),
    Case(pa.time32("ms"), "time", [dt.time(1, 2, 3, 4000), None], out=pa.time64("us")),
    Case(pa.time64("ns"), "time_ns", [dt.time(1, 2, 3, 4), None]),
    moments(pa.timestamp("s"), "timestamp_s", parquet=pa.timestamp("us")),
    moments(pa.timestamp("ms"), "timestamp_ms", parquet=pa.timestamp("us")),
    moments(pa.timestamp("us"), "timestamp"),
    moments(pa.timestamp("ns"), "timestamp_ns"),
    moments(pa.timestamp("us", "UTC"), "timestamp_utc"),
    moments(pa.timestamp("s", "Asia/Shanghai"), "timestamp_utc", out=pa.timestamp("us", "UTC")),
    moments(pa.timestamp("ns", "Asia/Shanghai"), "timestamp_ns_utc", out=pa.timestamp("ns", "UTC")),
    Case(MONTHS, "interval", [pa.MonthDayNano([14, 2, 3_000_000]), None]),
    Case(
        pa.duration("ms"),
        "interval",
        [dt.timedelta(milliseconds=1500), None],
        [pa.MonthDayNano([0, 0, 1_500_000_000]), None],
        out=MONTHS,
    ),
    Case(pa.null(), "null", [None, None]),
    Case(pa.list_(pa.int64()), "list<int64>", [[2**63 - 1, None], [], None]),
    Case(pa.large_list(pa.string()), "list<string>", [["a"], None], out=pa.list_(pa.string())),
    Case(pa.list_(pa.float32(), 3), "float32[3]", [[1.0, -2.5, 0.0], None]),
    Case(pa.list_(pa.list_(pa.float32(), 2)), "list<float32[2]>", [[[1.0, 2.0]], [], None]),
    Case(
        pa.struct([("x", pa.float64()), ("a b", pa.list_(pa.string()))]),
        'struct<x: float64, "a b": list<string>>',
        [{"x": 0.5, "a b": ["z", None]}, {"x": None, "a b": None}, None],
    ),
    Case(
        pa.map_(pa.string(), pa.int32()),
        "map<string, int32>",
        [[("a", 1), ("b", None)], [], None],
        [{"a": 1, "b": None}, {}, None],
    ),
    Case(
        pa.list_(pa.struct([("m", pa.map_(pa.int32(), pa.list_(pa.timestamp("us"))))])),
        "list<struct<m: map<int32, list<timestamp>>>>",
        [[{"m": [(1, [dt.datetime(2024, 1, 1)])]}], None],
        [[{"m": {1: [dt.datetime(2024, 1, 1)]}}], None],
    ),
    Case(pa.uuid(), "string", [b"0123456789abcdef"], ["30313233-3435-3637-3839-616263646566"], out=pa.string()),
    Case(pa.json_(), "string", ['{"a":1}', None], out=pa.string()),
    Case(pa.bool8(), "bool", [1, 0, None], [True, False, None], out=pa.bool_()),
    Case(pa.fixed_shape_tensor(pa.float32(), [2]), "float32[2]", [[1.0, 2.0]], out=pa.list_(pa.float32(), 2)),
]  # fmt: skip

each = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as session:
        yield session


def rows(frame: Any) -> list[Any]:
    return [row["v"] for row in frame.to_rows()]


def test_the_cases_cover_the_table_of_types() -> None:
    names = {case.name for case in CASES}
    assert {simple.name for simple in SIMPLE} <= names


@each
def test_arrow_in_sql_arrow_out(session: DataflowSession, case: Case) -> None:
    session.create_temp_view("t", session.create_dataframe(case.table()))
    frame = session.sql("SELECT v FROM t")
    found = frame.to_arrow()
    # The schema that is told beforehand, and the one that comes.
    assert frame.schema.field("v").type == case.leaves
    assert found.schema.field("v").type == case.leaves
    assert type_name(found.schema.field("v").type) == case.name
    assert rows(frame) == case.expected
    assert found.column("v").null_count == case.values.count(None)


@each
def test_batches_are_the_table(session: DataflowSession, case: Case) -> None:
    frame = session.create_dataframe(case.table())
    assert pa.table(frame).equals(frame.to_arrow())
    assert frame.to_reader().read_all().equals(frame.to_arrow())


@each
def test_equality_in_sql_keeps_values_apart(session: DataflowSession, case: Case) -> None:
    """B-8: each value equals itself and no other; NULL equals nothing."""
    session.create_temp_view("t", session.create_dataframe(case.table()))
    distinct = {str(value) for value in case.expected if value is not None}
    pairs = session.sql(
        "SELECT count(*) AS v FROM (SELECT DISTINCT v FROM t) a JOIN (SELECT DISTINCT v FROM t) b ON a.v = b.v"
    )
    assert rows(pairs) == [len(distinct)]
    groups = session.sql("SELECT v, count(*) AS n FROM t GROUP BY v")
    assert groups.count() == len(distinct) + (None in case.values)


@each
def test_parquet(session: DataflowSession, case: Case, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert session.create_dataframe(case.table()).write_parquet(path) == len(case.values)
    back = session.read_parquet(path)
    assert back.schema.field("v").type == (case.parquet or case.leaves)
    assert rows(back) == case.expected


@pytest.mark.parametrize("case", [case for case in CASES if case.in_json], ids=str)
def test_json(session: DataflowSession, case: Case, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    session.create_dataframe(case.table()).write_json(path)
    for line in path.read_text().splitlines():
        assert list(json.loads(line)) == ["v"]
    back = session.read_json(path, columns={"v": case.name})
    assert back.schema.field("v").type == case.leaves
    assert rows(back) == case.expected


def test_decimals_are_written_to_json_to_their_last_digit(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    session.sql("SELECT 1234567890123456789012345678.0123456789 AS v").write_json(path)
    assert path.read_text() == '{"v":1234567890123456789012345678.0123456789}\n'


@each
def test_a_type_has_one_name_on_every_side(case: Case) -> None:
    told = type_name(case.leaves)
    assert arrow_type(duckdb_type(case.leaves)) == case.leaves
    assert arrow_type(resolve_type_name(told)) == case.leaves


@each
def test_stored_in_a_table(session: DataflowSession, case: Case) -> None:
    frame = session.create_dataframe(case.table())
    frame.save_as_table("kept")
    assert session.table("kept").schema.field("v").type == case.leaves
    assert rows(session.table("kept")) == case.expected
    frame.insert_into("kept")
    assert session.table("kept").count() == 2 * len(case.values)


# --- types that only the engine has ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "kind", "value"),
    [
        ("170141183460469231731687303715884105727::HUGEINT", pa.decimal128(38, 0), 2**127 - 1),
        ("99999999999999999999999999999999999999::UHUGEINT", pa.decimal128(38, 0), 10**38 - 1),
        ("'101'::BIT", pa.string(), "101"),
        (f"{10**41 + 1}::BIGNUM", pa.string(), str(10**41 + 1)),
        ("'12:00:00+02'::TIMETZ", pa.string(), "12:00:00+02"),
        ("uuid() IS NOT NULL", pa.bool_(), True),
        ("'a'::ENUM('a', 'b')", pa.dictionary(pa.uint8(), pa.string()), "a"),
        ("['1'::BIT]", pa.list_(pa.string()), ["1"]),
        ("{'bit': 1, 'b': '1'::BIT}", pa.struct([("bit", pa.int32()), ("b", pa.string())]), {"bit": 1, "b": "1"}),
        ("{'a': [1, 2]}::VARIANT", pa.string(), "{'a': [1, 2]}"),
        ("union_value(k := 1)", pa.sparse_union([pa.field("k", pa.int32())]), 1),
    ],
)  # fmt: skip
def test_engine_types_leave_as_something_readable(
    session: DataflowSession, sql: str, kind: pa.DataType, value: object
) -> None:
    frame = session.sql(f"SELECT {sql} AS v")
    assert frame.schema.field("v").type == kind
    assert frame.to_arrow().schema.field("v").type == kind
    assert frame.to_reader().schema.field("v").type == kind
    assert rows(frame) == [value]


def test_an_unsigned_number_beyond_arrow_is_an_error_not_another_number(session: DataflowSession) -> None:
    with pytest.raises(DataError):
        session.sql("SELECT 340282366920938463463374607431768211455::UHUGEINT AS v").to_arrow()


def test_exported_types() -> None:
    assert exported_type('STRUCT(a BIT[], "TIME" INTEGER)') == 'STRUCT("a" VARCHAR[], "TIME" INTEGER)'
    assert exported_type("MAP(VARCHAR, BIGNUM[3])") == "MAP(VARCHAR, VARCHAR[3])"
    assert exported_type("ENUM('BIT')") == "ENUM('BIT')"
    assert exported_type("DECIMAL(4,1)[]") == "DECIMAL(4,1)[]"
    assert exported_type('STRUCT("x ""BIT"" y" BIT)') == 'STRUCT("x ""BIT"" y" VARCHAR)'


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "engine"),
    [
        ("int64", "BIGINT"),
        ("int8", "TINYINT"),
        ("INT8", "BIGINT"),
        ("bigint", "BIGINT"),
        ("Integer", "INTEGER"),
        ("float32[3]", "FLOAT[3]"),
        ("FLOAT[3]", "FLOAT[3]"),
        ("list<float32[3]>", "FLOAT[3][]"),
        ("BIGINT[]", "BIGINT[]"),
        ("map<string, list<int8>>", "MAP(VARCHAR, TINYINT[])"),
        ('struct<a: int64, "b: c": string>', 'STRUCT("a" BIGINT, "b: c" VARCHAR)'),
        ("decimal(10,2)", "DECIMAL(10, 2)"),
        ("timestamp with time zone", "TIMESTAMP WITH TIME ZONE"),
        ("enum('a', 'b')", "ENUM('a', 'b')"),
    ],
)
def test_names_that_users_write(written: str, engine: str) -> None:
    assert resolve_type_name(written) == engine


def test_int8_in_sql_is_eight_bytes() -> None:
    assert resolve_type_name("int8", in_sql=True) == "BIGINT"
    assert resolve_type_name("list<int8>", in_sql=True) == "BIGINT[]"


@pytest.mark.parametrize("written", ["itn64", "list<itn64>", "map<int64>", "struct<int64>", "itn64[]", ""])
def test_unknown_names_are_refused(written: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_type_name(written)
    assert caught.value.code == "type.unknown"
    if "itn64" in written:
        assert caught.value.hint is not None
        assert "int64" in caught.value.hint


@pytest.mark.parametrize(
    "kind", [pa.decimal256(40, 2), pa.float16(), pa.dense_union([pa.field("a", pa.int8())])], ids=str
)
def test_types_the_engine_has_not_are_refused_at_once(session: DataflowSession, kind: pa.DataType) -> None:
    with pytest.raises(InputError) as caught:
        session.create_dataframe(pa.table({"v": pa.nulls(0, kind)}))
    assert caught.value.code == "type.unsupported"


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_hold_what_python_cannot(session: DataflowSession) -> None:
    table = pa.table(
        {
            "ns": pa.array([1, 1000, None], pa.timestamp("ns")),
            "year": pa.array([2**62, 0, None]).cast(pa.timestamp("us")),
            "day": pa.array([10**8, 0, None], pa.int32()).cast(pa.date32()),
            "time": pa.array([1, 1000, None], pa.time64("ns")),
            "nested": pa.array([[1], [1000], None], pa.list_(pa.timestamp("ns"))),
        }
    )
    first, second, third = session.create_dataframe(table).to_rows()
    assert first == {
        "ns": np.datetime64(1, "ns"),
        "year": np.datetime64(2**62, "us"),
        "day": np.datetime64(10**8, "D"),
        "time": np.timedelta64(1, "ns"),
        "nested": [np.datetime64(1, "ns")],
    }
    assert second == {
        "ns": dt.datetime(1970, 1, 1, 0, 0, 0, 1),
        "year": dt.datetime(1970, 1, 1),
        "day": dt.date(1970, 1, 1),
        "time": dt.time(0, 0, 0, 1),
        "nested": [dt.datetime(1970, 1, 1, 0, 0, 0, 1)],
    }
    assert type(second["ns"]) is dt.datetime
    assert set(third.values()) == {None}


# --- defects of the inventory --------------------------------------------------------------------------------------


def nullable(session: DataflowSession) -> None:
    table = pa.table(
        {
            "k": pa.array(["a", None, "null", None]),
            "x": pa.array([None, None, 1.5, None], pa.float64()),
            "d": pa.array([0.5, 0.5, None, 1.0], pa.float64()),
        }
    )
    session.create_temp_view("t", session.create_dataframe(table))


def test_b3_count_and_avg_of_nulls(session: DataflowSession) -> None:
    nullable(session)
    found = session.sql("SELECT count(x) AS n, count(*) AS all_rows, avg(x) AS mean FROM t WHERE k = 'a' OR k IS NULL")
    assert found.to_rows() == [{"n": 0, "all_rows": 3, "mean": None}]


def test_b3_a_null_key_is_a_group_and_not_a_text(session: DataflowSession) -> None:
    nullable(session)
    found = session.sql("SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY k NULLS FIRST").to_rows()
    assert found == [{"k": None, "n": 2}, {"k": "a", "n": 1}, {"k": "null", "n": 1}]


def test_b3_keys_keep_their_types(session: DataflowSession) -> None:
    nullable(session)
    found = session.sql("SELECT d, k, x, d + 1 AS e, length(k) AS l, count(*) AS n FROM t GROUP BY ALL").to_arrow()
    assert found.schema.types == [pa.float64(), pa.string(), pa.float64(), pa.float64(), pa.int64(), pa.int64()]
    assert found.num_rows == 4


def test_b3_no_rows_still_give_one_aggregate(session: DataflowSession) -> None:
    nullable(session)
    found = session.sql("SELECT count(*) AS n, sum(x) AS s, min(k) AS k FROM t WHERE false").to_rows()
    assert found == [{"n": 0, "s": None, "k": None}]
    assert session.table("t").filter(lit(False)).agg(n=fn.count()).to_rows() == [{"n": 0}]


def test_b6_functions_of_whole_numbers_stay_whole(session: DataflowSession) -> None:
    session.create_temp_view("t", session.create_dataframe(pa.table({"v": pa.array([-(2**62) - 1, None])})))
    found = session.sql("SELECT abs(v) AS a, ceil(v) AS c, floor(v) AS f, round(v) AS r FROM t").to_arrow()
    assert all(pa.types.is_integer(kind) for kind in found.schema.types), found.schema
    assert found.to_pylist()[0] == {"a": 2**62 + 1, "c": -(2**62) - 1, "f": -(2**62) - 1, "r": -(2**62) - 1}


def test_b7_float32_is_a_number_in_rows_and_in_arrow(session: DataflowSession) -> None:
    frame = session.create_dataframe(pa.table({"v": pa.array([1.5, None, 0.1], pa.float32())}))
    assert frame.to_rows() == [{"v": 1.5}, {"v": None}, {"v": float(np.float32(0.1))}]
    assert frame.to_arrow().schema.field("v").type == pa.float32()
    assert frame.filter(col("v") > 1).to_rows() == [{"v": 1.5}]


BEYOND_DOUBLE = 2**53


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()], ids=str)
def test_b8_ids_beyond_2_to_the_53_do_not_collide(session: DataflowSession, kind: pa.DataType) -> None:
    values = [BEYOND_DOUBLE - 1, BEYOND_DOUBLE, BEYOND_DOUBLE + 1, 2**24, 2**24 + 1]
    session.create_temp_view("t", session.create_dataframe(pa.table({"v": pa.array(values, kind)})))
    for value in values:
        assert rows(session.sql(f"SELECT v FROM t WHERE v = {value}")) == [value]
        assert rows(session.sql("SELECT v FROM t WHERE v = ?", [value])) == [value]
        assert rows(session.table("t").filter(col("v") == value)) == [value]
        assert rows(session.table("t").filter("v", "=", value)) == [value]
    assert session.sql(f"SELECT count(*) AS v FROM t WHERE v > {BEYOND_DOUBLE}").to_rows() == [{"v": 1}]


def test_b8_int32_and_bool_predicates(session: DataflowSession) -> None:
    table = pa.table(
        {
            "i": pa.array([2**31 - 1, 2**31 - 2, 2**24 + 1, None], pa.int32()),
            "b": pa.array([True, False, None, True]),
            "ts": pa.array([2**53 + 1, 2**53, 2**53 + 2, None], pa.timestamp("us")),
        }
    )
    session.create_temp_view("t", session.create_dataframe(table))
    assert session.sql(f"SELECT i FROM t WHERE i = {2**31 - 1}").to_rows() == [{"i": 2**31 - 1}]
    assert session.sql(f"SELECT i FROM t WHERE i = {2**24}").to_rows() == []
    assert session.sql("SELECT count(*) AS n FROM t WHERE b").to_rows() == [{"n": 2}]
    assert session.sql("SELECT count(*) AS n FROM t WHERE b = false").to_rows() == [{"n": 1}]
    assert session.sql("SELECT count(*) AS n FROM t WHERE b IS NULL").to_rows() == [{"n": 1}]
    exact = "SELECT count(*) AS n FROM t WHERE ts = make_timestamp(9007199254740993)"
    assert session.sql(exact).to_rows() == [{"n": 1}]


def test_b34_big_literals_are_exact(session: DataflowSession) -> None:
    for value in (2**31, 2**53 + 1, 2**63 - 1, 2**63, 10**37 + 1):
        assert rows(session.sql(f"SELECT {value} AS v")) == [value]
        assert rows(session.sql(f"SELECT -{value} AS v")) == [-value]
        assert rows(session.sql("SELECT $1 AS v", [value])) == [value]
    assert session.sql(f"SELECT {2**53 + 1} = {2**53} AS v").to_rows() == [{"v": False}]
    assert pa.types.is_integer(session.sql(f"SELECT {2**31} AS v").schema.field("v").type)


def test_a_sum_beyond_int64_is_exact_everywhere(session: DataflowSession, tmp_path: Path) -> None:
    session.create_temp_view("t", session.create_dataframe(pa.table({"v": [2**63 - 1] * 3})))
    total = session.sql("SELECT sum(v) AS v FROM t")
    assert rows(total) == [3 * (2**63 - 1)]
    path = tmp_path / "t.parquet"
    total.write_parquet(path)
    assert rows(session.read_parquet(path)) == [3 * (2**63 - 1)]
    assert pq.read_table(path).column("v").to_pylist() == [Decimal(3 * (2**63 - 1))]
    total.write_json(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text()) == {"v": 3 * (2**63 - 1)}


def test_vectors_keep_their_length_for_other_readers_of_parquet(session: DataflowSession, tmp_path: Path) -> None:
    kind = pa.list_(pa.float32(), 2)
    table = pa.table({"id": [1], "v": pa.array([[1.0, 2.0]], kind)})
    path = tmp_path / "t.parquet"
    session.create_dataframe(table).write_parquet(path)
    assert pq.read_table(path).schema.field("v").type == kind
    pq.write_table(table, path)
    assert session.read_parquet(path).schema.field("v").type == kind


# --- T-40: what streams of Arrow data keep ---------------------------------------------------------------------------


class OnlyStream:
    """Something tabular that speaks nothing but the Arrow C stream interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


T40 = pa.table(
    {
        "i": pa.array([1, None, 3], pa.int32()),
        "f": pa.array([0.5, None, 1.5], pa.float32()),
        "s": pa.array(["a", None, ""], pa.large_string()),
        "b": pa.array([True, None, False]),
        "v": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    }
)


@pytest.mark.parametrize(
    "made",
    [
        lambda: T40,
        lambda: pa.RecordBatchReader.from_batches(T40.schema, T40.to_batches(max_chunksize=1)),
        lambda: OnlyStream(T40),
        lambda: T40.combine_chunks().to_batches()[0],
        lambda: {name: T40.column(name) for name in T40.column_names},
    ],
    ids=["table", "reader", "c_stream", "batch", "dict"],
)
def test_t40_ways_in(session: DataflowSession, made: Callable[[], Any]) -> None:
    found = session.create_dataframe(made()).to_arrow()
    assert found.schema.types == [pa.int32(), pa.float32(), pa.string(), pa.bool_(), pa.list_(pa.float32(), 2)]
    assert found.to_pylist() == T40.to_pylist()


def test_t40_dicts_and_lists_of_python_values(session: DataflowSession) -> None:
    assert session.create_dataframe({"a": [1, None], "b": ["x", None]}).to_rows() == [
        {"a": 1, "b": "x"},
        {"a": None, "b": None},
    ]
    assert session.create_dataframe([{"a": 1}, {"a": None}]).to_rows() == [{"a": 1}, {"a": None}]


def test_t41_sql_over_arrow(session: DataflowSession) -> None:
    session.create_temp_view("t", session.create_dataframe(T40))
    found = session.sql("SELECT b, count(*) AS n, sum(i) AS s, avg(f) AS f FROM t GROUP BY b ORDER BY b NULLS LAST")
    assert found.to_rows() == [
        {"b": False, "n": 1, "s": 3, "f": 1.5},
        {"b": True, "n": 1, "s": 1, "f": 0.5},
        {"b": None, "n": 1, "s": None, "f": None},
    ]
