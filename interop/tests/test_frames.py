"""pandas, Polars, Narwhals and DuckDB: round trips, and the values that are easily lost on the way."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import duckdb
import narwhals as nw
import narwhals.stable.v1 as nw_v1
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from velaria_core import col, fn
from velaria_core.errors import DataError, ExternalError, InputError
from velaria_core.session import DataflowSession
from velaria_interop import (
    from_any,
    from_duckdb,
    from_narwhals,
    from_pandas,
    from_polars,
    to_duckdb,
    to_narwhals,
    to_pandas,
    to_polars,
)

BIG = 2**60 + 1
TABLE = pa.table(
    {
        "id": pa.array([1, None, BIG]),
        "name": pa.array(["a", None, "张"]),
        "ok": pa.array([True, None, False]),
        "x": pa.array([0.5, None, -1.5]),
        "at": pa.array([dt.datetime(2024, 1, 31, 1, 2, 3, 4), None, dt.datetime(1969, 12, 31)], pa.timestamp("us")),
        "day": pa.array([dt.date(2024, 1, 31), None, dt.date(1, 1, 1)]),
        "tags": pa.array([["a", None], None, []], pa.list_(pa.string())),
        "v": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "who": pa.array([{"n": 1}, None, {"n": None}], pa.struct([("n", pa.int64())])),
    }
)
ROWS = TABLE.to_pylist()


# --- pandas --------------------------------------------------------------------------------------------------------


def test_pandas_keeps_whole_numbers_beside_null(session: DataflowSession) -> None:
    found = to_pandas(session.create_dataframe(TABLE))
    assert found["id"].dtype == pd.Int64Dtype()
    assert found["id"].tolist()[2] == BIG
    assert found["id"].isna().tolist() == [False, True, False]
    assert found["ok"].dtype == pd.BooleanDtype()
    assert list(found.columns) == TABLE.column_names
    assert found["name"].tolist()[2] == "张"


def test_pandas_without_nulls_has_plain_types(session: DataflowSession) -> None:
    found = to_pandas(session.create_dataframe({"a": [1, 2], "b": [True, False], "c": [1.5, 2.5]}))
    assert [str(dtype) for dtype in found.dtypes] == ["int64", "bool", "float64"]


def test_pandas_gets_sums_as_integers(session: DataflowSession) -> None:
    frame = session.create_dataframe({"k": [1, 1, 2], "n": [BIG, BIG, None]})
    found = to_pandas(frame.group_by("k").agg(total=fn.sum("n")).order_by("k"))
    assert found["total"].dtype == pd.Int64Dtype()
    assert found["total"].tolist()[0] == 2 * BIG
    beyond = to_pandas(session.create_dataframe({"n": [2**63 - 1] * 2}).agg(total=fn.sum("n")))
    assert beyond["total"].tolist() == [Decimal(2**64 - 2)]


def test_pandas_nanoseconds_of_a_day(session: DataflowSession) -> None:
    found = to_pandas(session.create_dataframe(pa.table({"t": pa.array([1, None], pa.time64("ns"))})))
    assert found["t"].tolist()[0] == pd.Timedelta(1, "ns")


def test_pandas_round_trip(session: DataflowSession) -> None:
    once = from_pandas(session, to_pandas(session.create_dataframe(TABLE)))
    assert once.select("id", "name", "ok", "x", "at", "day").to_rows() == [
        {name: row[name] for name in ("id", "name", "ok", "x", "at", "day")} for row in ROWS
    ]
    assert once.schema.field("id").type == pa.int64()
    assert once.schema.field("ok").type == pa.bool_()
    assert from_any(session, to_pandas(once)).to_arrow().equals(once.to_arrow())


def test_pandas_index_and_names(session: DataflowSession) -> None:
    data = pd.DataFrame({"a": [1, 2], 3: [4, 5]}, index=["p", "q"])
    assert from_pandas(session, data).columns == ["a", "3"]
    assert from_pandas(session, data, index=True).to_rows()[0] == {"index": "p", "a": 1, "3": 4}
    levels = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("x", "min"), ("x", "max")]))
    assert from_pandas(session, levels).columns == ["x_min", "x_max"]
    assert list(data.columns) == ["a", 3], "the caller's frame stays as it was"


def test_pandas_missing_values_are_null(session: DataflowSession) -> None:
    data = pd.DataFrame({"f": [1.0, float("nan")], "t": [pd.Timestamp(0), pd.NaT], "o": ["x", None]})
    assert from_pandas(session, data).to_rows()[1] == {"f": None, "t": None, "o": None}


def test_pandas_series_and_categories(session: DataflowSession) -> None:
    assert from_pandas(session, pd.Series([1, 2], name="n")).to_rows() == [{"n": 1}, {"n": 2}]
    assert from_pandas(session, pd.Series([1])).columns == ["value"]
    words = pd.DataFrame({"c": pd.Categorical(["a", None, "a"])})
    assert from_pandas(session, words).schema.field("c").type == pa.string()


def test_pandas_mixed_values_are_refused_with_the_column(session: DataflowSession) -> None:
    with pytest.raises(DataError) as caught:
        from_pandas(session, pd.DataFrame({"fine": [1, 2], "mixed": [1, "x"]}))
    assert caught.value.code == "value.mixed_types"
    assert "mixed" in caught.value.message


def test_pandas_has_no_unions(session: DataflowSession) -> None:
    with pytest.raises(InputError) as caught:
        to_pandas(session.sql("SELECT union_value(k := 1) AS u"))
    assert caught.value.code == "type.unsupported"
    assert "u: union<k: int32>" in str(caught.value.hint)


# --- Polars --------------------------------------------------------------------------------------------------------


def test_polars_round_trip(session: DataflowSession) -> None:
    found = to_polars(session.create_dataframe(TABLE))
    assert found.schema["id"] == pl.Int64
    assert found.schema["v"] == pl.Array(pl.Float32, 2)
    back = from_polars(session, found)
    assert back.to_rows() == ROWS
    assert back.schema.types == TABLE.schema.types
    assert from_any(session, found.lazy()).to_rows() == ROWS
    assert session.create_dataframe(TABLE).to_polars().equals(found)


def test_polars_reads_a_frame_by_itself(session: DataflowSession) -> None:
    assert pl.DataFrame(session.create_dataframe(TABLE)).to_dicts()[2]["id"] == BIG


def test_polars_types_that_arrow_has_not(session: DataflowSession) -> None:
    data = pl.DataFrame(
        {
            "wide": pl.Series([2**100, None], dtype=pl.Int128),
            "word": pl.Series(["a", "b"], dtype=pl.Categorical),
            "kind": pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])),
            "long": pl.Series([dt.timedelta(days=1, microseconds=5), None]),
        }
    )
    frame = from_polars(session, data)
    assert frame.to_rows()[0] == {
        "wide": 2**100,
        "word": "a",
        "kind": "a",
        "long": pa.MonthDayNano([0, 0, 86_400_000_005_000]),
    }
    assert to_polars(frame)["long"].to_list() == [dt.timedelta(days=1, microseconds=5), None]


def test_polars_intervals_of_months_are_refused(session: DataflowSession) -> None:
    days = session.sql("SELECT INTERVAL '2 days' AS i UNION ALL SELECT NULL")
    assert to_polars(days)["i"].to_list() == [dt.timedelta(days=2), None]
    with pytest.raises(DataError) as caught:
        to_polars(session.sql("SELECT INTERVAL '1 month' AS i"))
    assert caught.value.code == "value.conversion"


def test_polars_series(session: DataflowSession) -> None:
    assert from_polars(session, pl.Series("n", [1])).to_rows() == [{"n": 1}]


# --- Narwhals ------------------------------------------------------------------------------------------------------


def test_narwhals_takes_a_frame_as_it_is(session: DataflowSession) -> None:
    frame = session.create_dataframe(TABLE)
    for taken in (nw.from_native(frame), nw.from_native(frame, eager_only=True), nw_v1.from_native(frame)):
        assert taken.select("id").filter(nw.col("id") > 1).to_native().to_pylist() == [{"id": BIG}]

    @nw.narwhalify
    def doubled(data: nw.DataFrame[pa.Table]) -> nw.DataFrame[pa.Table]:
        return data.select(nw.col("x") * 2)

    assert doubled(frame).column("x").to_pylist() == [1.0, None, -3.0]
    for backend in ("pyarrow", "pandas", "polars"):
        assert nw.from_arrow(frame.select("name"), backend=backend)["name"].to_list()[2] == "张"


def test_narwhals_round_trip(session: DataflowSession) -> None:
    found = to_narwhals(session.create_dataframe(TABLE))
    assert isinstance(found, nw.DataFrame)
    assert from_narwhals(session, found).to_rows() == ROWS
    over_polars = nw.from_native(to_polars(session.create_dataframe(TABLE)).lazy())
    assert from_narwhals(session, over_polars.filter(nw.col("ok"))).to_rows() == ROWS[:1]
    assert from_any(session, over_polars).to_rows() == ROWS


# --- DuckDB --------------------------------------------------------------------------------------------------------


def test_duckdb_relation_in(session: DataflowSession) -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS n, 'x' || range AS s FROM range(5)")
        frame = from_duckdb(session, connection.sql("SELECT * FROM t WHERE n > 2"))
        again = from_any(session, connection.sql("SELECT * FROM t"))
    # The rows are Velaria's now, and the connection may go.
    assert frame.to_rows() == [{"n": 3, "s": "x3"}, {"n": 4, "s": "x4"}]
    assert again.count() == 5


def test_duckdb_errors_are_ours(session: DataflowSession) -> None:
    with duckdb.connect() as connection:
        relation = connection.sql("SELECT CAST(v AS INTEGER) AS n FROM (VALUES ('1'), ('x')) t(v)")
        with pytest.raises(ExternalError) as caught:
            from_duckdb(session, relation)
    assert caught.value.code == "duckdb.failed"
    assert isinstance(caught.value.cause, duckdb.Error)


def test_frame_as_duckdb_relation(session: DataflowSession) -> None:
    frame = session.create_dataframe(TABLE).filter(col("id").is_not_null())
    with duckdb.connect() as connection:
        relation = to_duckdb(frame, connection)
        assert relation.filter("id > 1").project("id").fetchall() == [(BIG,)]
        # A second time: the relation runs the frame again.
        assert relation.aggregate("count(*)").fetchall() == [(2,)]
        to_duckdb(frame, connection, "theirs")
        assert connection.sql("SELECT name FROM theirs ORDER BY id").fetchall() == [("a",), ("张",)]


def test_frame_to_duckdb_in_bounded_memory(session: DataflowSession) -> None:
    many = session.sql("SELECT range AS n FROM range(3000000)")
    with duckdb.connect() as connection:
        assert to_duckdb(many, connection).aggregate("sum(n)").fetchall() == [(sum(range(3_000_000)),)]


@pytest.mark.parametrize(
    "call",
    [
        lambda session: from_pandas(session, [1]),
        lambda session: from_polars(session, [1]),
        lambda session: from_narwhals(session, [1]),
        lambda session: from_duckdb(session, [1]),
        lambda session: to_duckdb(session.create_dataframe({"a": [1]}), object()),
        lambda session: from_any(session, object()),
    ],
)
def test_what_is_something_else_is_refused(session: DataflowSession, call: object) -> None:
    assert callable(call)
    with pytest.raises(InputError) as caught:
        call(session)
    assert caught.value.code == "data.unsupported"
