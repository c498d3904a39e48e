"""The DataFrame verbs, one by one: what each gives, and what it refuses. Rows A-30 to A-41 of the inventory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from velaria_core import Column, DataflowSession, DataFrame, InputError, VelariaError, col, expr, fn, lit, when

Rows = list[tuple[Any, ...]]


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        yield made


@pytest.fixture
def orders(session: DataflowSession) -> DataFrame:
    return session.create_dataframe(
        {
            "id": [1, 2, 3, 4, 5],
            "k": ["a", "b", "a", None, "b"],
            "price": [1.5, 2.0, None, 4.0, 0.5],
            "tags": [["x", "y"], [], None, ["z"], [None]],
        }
    )


def rows(frame: DataFrame) -> Rows:
    return [tuple(row.values()) for row in frame.to_rows()]


def refused(code: str, work: Callable[[], object]) -> VelariaError:
    """Run what must be refused with this code, and give the error."""
    with pytest.raises(VelariaError) as caught:
        work()
    assert caught.value.code == code
    return caught.value


# --- select, drop, rename (A-30) ----------------------------------------------------------------------------


def test_select_by_name_expression_and_star(orders: DataFrame) -> None:
    frame = orders.select("K", (col("price") * 2).alias("double"), expr("id + 1 AS next"))
    assert frame.columns == ["K", "double", "next"]  # found in any case, called as it was asked for
    assert rows(frame.limit(2)) == [("a", 3.0, 2), ("b", 4.0, 3)]
    assert orders.select("*", lit(1).alias("one")).columns == ["id", "k", "price", "tags", "one"]
    assert orders.select(["id", "k"]).columns == ["id", "k"]


def test_select_tells_equal_names_apart(orders: DataFrame) -> None:
    assert orders.select("id", "id", col("k").alias("id")).columns == ["id", "id_1", "id_2"]


def test_select_refuses(orders: DataFrame) -> None:
    error = refused("sql.unknown_column", lambda: orders.select("prise"))
    assert error.hint is not None
    assert 'did you mean "price"' in error.hint
    refused("frame.misplaced_aggregate", lambda: orders.select(fn.sum("price")))
    refused("frame.no_columns", lambda: orders.select())


def test_select_by_indices(orders: DataFrame) -> None:
    assert orders.select_by_indices([2, 0], ["cost"]).columns == ["cost", "id"]
    assert orders.select_by_indices([-1]).columns == ["tags"]
    refused("frame.index", lambda: orders.select_by_indices([4]))


def test_drop(orders: DataFrame) -> None:
    assert orders.drop("tags", "PRICE").columns == ["id", "k"]
    assert orders.drop(["id"]).columns == ["k", "price", "tags"]
    refused("sql.unknown_column", lambda: orders.drop("nothing"))
    refused("frame.no_columns", lambda: orders.drop(*orders.columns))


def test_rename(orders: DataFrame) -> None:
    assert orders.rename({"ID": "number", "k": "key"}).columns == ["number", "key", "price", "tags"]
    swapped = orders.select("id", "price").rename({"id": "price", "price": "id"})
    assert rows(swapped.limit(1)) == [(1, 1.5)]
    assert swapped.columns == ["price", "id"]
    refused("sql.unknown_column", lambda: orders.rename({"nothing": "x"}))
    refused("frame.duplicate_column", lambda: orders.rename({"id": "K"}))


def test_frames_do_not_change(orders: DataFrame) -> None:
    orders.drop("id").rename({"k": "key"}).filter("key = 'a'")
    assert orders.columns == ["id", "k", "price", "tags"]
    assert orders.count() == 5


# --- filter (A-31) ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("=", [2]),
        ("==", [2]),
        ("!=", [1, 4, 5]),
        ("<>", [1, 4, 5]),
        ("<", [1, 5]),
        ("<=", [1, 2, 5]),
        (">", [4]),
        (">=", [2, 4]),
    ],
)
def test_filter_by_operator(orders: DataFrame, operator: str, expected: list[int]) -> None:
    assert [row[0] for row in rows(orders.filter("PRICE", operator, 2.0))] == expected
    assert [row[0] for row in rows(orders.filter_by_index(2, operator, 2.0))] == expected


def test_filter_by_expression_and_text(orders: DataFrame) -> None:
    wanted = ((col("price") > 1) & col("k").is_in(["a", "b"])) | col("k").is_null()
    assert [row[0] for row in rows(orders.filter(wanted))] == [1, 2, 4]
    assert [row[0] for row in rows(orders.filter("(price > 1 AND k IN ('a', 'b')) OR k IS NULL"))] == [1, 2, 4]
    assert [row[0] for row in rows(orders.where(~(col("id") < 4)))] == [4, 5]
    # Columns with each other, and a text that is a value and no column.
    assert [row[0] for row in rows(orders.filter(col("price") > col("id")))] == [1]
    assert [row[0] for row in rows(orders.filter("k", "=", "a"))] == [1, 3]


def test_null_is_equal_to_nothing_b12(orders: DataFrame) -> None:
    assert rows(orders.filter("k", "=", None)) == []
    assert rows(orders.filter(col("k") == lit(None))) == []
    assert [row[0] for row in rows(orders.filter(col("k").is_null()))] == [4]


def test_filter_by_a_window_function(orders: DataFrame) -> None:
    latest = fn.row_number().over("k", order_by=col("id").desc()) == 1
    frame = orders.filter(latest)
    assert frame.columns == orders.columns
    assert sorted(row[0] for row in rows(frame)) == [3, 4, 5]


def test_large_integers_stay_exact_b8(session: DataflowSession) -> None:
    """B-8, B-34: neighbours above 2**24 and 2**53 are two numbers in a filter, in every integer width."""
    ids = [2**53, 2**53 + 1, 2**53 + 2]
    frame = session.create_dataframe({"id": ids})
    assert rows(frame.filter("id", "=", 2**53 + 1)) == [(2**53 + 1,)]
    assert frame.filter(col("id") > 2**53).count() == 2
    small = session.create_dataframe(pa.table({"id": pa.array([2**24, 2**24 + 1], pa.int32())}))
    assert rows(small.filter("id", "=", 2**24 + 1)) == [(2**24 + 1,)]


def test_filter_refuses(orders: DataFrame) -> None:
    refused("frame.operator", lambda: orders.filter("id", "=>", 1))
    refused("sql.unknown_column", lambda: orders.filter("nothing", "=", 1))
    refused("sql.unknown_column", lambda: orders.filter("id = nothing"))
    refused("sql.syntax", lambda: orders.filter("id >"))
    refused("frame.misplaced_aggregate", lambda: orders.filter(fn.sum("id") > 1))
    refused("expr.truth", lambda: orders.filter(col("id") > 1 and col("id") < 3))


# --- with_column (A-32) -------------------------------------------------------------------------------------


def test_with_column_adds_and_replaces(orders: DataFrame) -> None:
    frame = orders.with_column("big", fn.upper("k")).with_column("ID", col("id") * 10)
    assert frame.columns == ["id", "k", "price", "tags", "big"]
    assert [(row[0], row[4]) for row in rows(frame.limit(2))] == [(10, "A"), (20, "B")]


def test_with_columns_see_the_input_only(orders: DataFrame) -> None:
    frame = orders.select("id", "price").with_columns({"id": col("price"), "price": col("id"), "sum": "id"})
    assert rows(frame.limit(1)) == [(1.5, 1, 1)]


def test_values_text_and_cases(orders: DataFrame) -> None:
    size = when(col("price") > 3, "dear").when(col("price").is_null(), "free").otherwise("fair")
    frame = orders.select("id", size.alias("size"), lit("k").alias("text"), lit(7).alias("seven"))
    assert rows(frame)[2:4] == [(3, "free", "k", 7), (4, "dear", "k", 7)]


def test_window_functions_in_columns(orders: DataFrame) -> None:
    frame = orders.with_column("r", fn.rank().over("k", order_by="price")).with_column(
        "share", col("price") / fn.sum("price").over()
    )
    assert frame.columns == ["id", "k", "price", "tags", "r", "share"]
    assert [(row[0], row[4], row[5]) for row in rows(frame.order_by("id"))][:2] == [(1, 1, 0.1875), (2, 2, 0.25)]
    moving = fn.sum("id").over(order_by="id", frame="ROWS BETWEEN 1 PRECEDING AND CURRENT ROW")
    assert [row[0] for row in rows(orders.order_by("id").select(moving))] == [1, 3, 5, 7, 9]
    refused("sql.syntax", lambda: fn.sum("id").over(order_by="id", frame="SOMEHOW"))


def test_with_column_refuses(orders: DataFrame) -> None:
    refused("frame.misplaced_aggregate", lambda: orders.with_column("s", fn.sum("id")))
    refused("sql.unknown_column", lambda: orders.with_column("x", "nothing"))
    refused("frame.duplicate_column", lambda: orders.with_columns({"x": lit(1), "X": lit(2)}))
    refused("expr.literal", lambda: orders.with_column("x", object()))
    refused("sql.unknown_function", lambda: orders.with_column("x", fn.nonsense("id")).schema)
    refused("type.unknown", lambda: col("id").cast("nonsense"))


# --- order and limit (A-33, A-34) ---------------------------------------------------------------------------


def test_order_puts_null_last_both_ways_t01(orders: DataFrame) -> None:
    assert [row[0] for row in rows(orders.order_by("price"))] == [5, 1, 2, 4, 3]
    assert [row[0] for row in rows(orders.order_by("price", ascending=False))] == [4, 2, 1, 5, 3]
    assert [row[0] for row in rows(orders.order_by(col("price").desc()))] == [4, 2, 1, 5, 3]
    assert [row[0] for row in rows(orders.sort(col("price").asc(nulls_first=True)))] == [3, 5, 1, 2, 4]


def test_order_by_several_and_expressions(orders: DataFrame) -> None:
    assert [row[0] for row in rows(orders.order_by("k", "id", ascending=[True, False]))] == [3, 1, 5, 2, 4]
    assert [row[0] for row in rows(orders.order_by(col("id") % 2, col("id").desc()))] == [4, 2, 5, 3, 1]
    assert [row[0] for row in rows(orders.order_by(fn.rank().over(order_by=col("id").desc())))] == [5, 4, 3, 2, 1]


def test_order_by_a_constant_is_no_position(orders: DataFrame) -> None:
    assert [row[0] for row in rows(orders.with_column("three", lit(3)).order_by("three", "id"))] == [1, 2, 3, 4, 5]
    assert orders.order_by(lit(99)).count() == 5


def test_order_is_stable_and_lasts(session: DataflowSession) -> None:
    frame = session.create_dataframe({"k": [1, 0, 1, 0], "at": [0, 1, 2, 3]}).order_by("k")
    assert [row[1] for row in rows(frame)] == [1, 3, 0, 2]
    above = frame.filter("at > 0").with_column("x", col("at") * 2).select("x", "at")
    assert [row[1] for row in rows(above)] == [1, 3, 2]


def test_order_refuses(orders: DataFrame) -> None:
    refused("frame.order", lambda: orders.order_by("id", "k", ascending=[True]))
    refused("sql.unknown_column", lambda: orders.order_by("nothing"))


def test_limit_offset_and_head(orders: DataFrame) -> None:
    ordered = orders.order_by("id")
    assert [row[0] for row in rows(ordered.limit(2))] == [1, 2]
    assert [row[0] for row in rows(ordered.limit(2, offset=3))] == [4, 5]
    assert [row[0] for row in rows(ordered.limit(4).limit(2, 1))] == [2, 3]
    assert ordered.limit(0).count() == 0
    assert ordered.limit(99, 99).to_rows() == []
    assert ordered.head(3).count() == 3
    # The limit comes first, then what is asked of its rows.
    assert rows(ordered.limit(2).filter("id > 1").select("id")) == [(2,)]
    assert rows(ordered.limit(2).agg(n=fn.count())) == [(2,)]
    refused("frame.limit", lambda: orders.limit(-1))
    refused("frame.limit", lambda: orders.limit(1, -1))


# --- cache, count, sample (A-36, A-41) ----------------------------------------------------------------------


def test_cache_holds_the_rows_of_now(session: DataflowSession) -> None:
    session.sql("CREATE TABLE t AS SELECT 1 AS a")
    live, held = session.table("t"), session.table("t").cache()
    session.sql("INSERT INTO t VALUES (2)")
    assert (live.count(), held.count()) == (2, 1)


def test_a_sample_drawn_once_is_one_set_of_rows(session: DataflowSession) -> None:
    frame = session.sql("SELECT range AS i FROM range(2000)")
    part = frame.sample(0.5, seed=3)
    assert 0 < part.count() < 2000
    assert part.count() == part.count()
    assert frame.sample(n=10).count() == 10
    assert frame.sample(1.0).count() == 2000
    assert frame.sample(0.0).count() == 0
    # Joined with itself in one plan, a sample without a seed is the same on both sides.
    drawn = frame.sample(n=100)
    assert drawn.join(drawn, "i").count() == 100
    for bad in ({}, {"fraction": 1.5}, {"fraction": 0.5, "n": 1}, {"n": -1}):
        refused("frame.sample", lambda bad=bad: frame.sample(**bad))  # type: ignore[misc]


# --- groups (A-37) ------------------------------------------------------------------------------------------


def test_group_by_and_its_shorthands(orders: DataFrame) -> None:
    by = orders.group_by("k")
    assert sorted(rows(by.count()), key=str) == [("a", 2), ("b", 2), (None, 1)]
    assert sorted(rows(by.sum("price")), key=str) == [("a", 1.5), ("b", 2.5), (None, 4.0)]
    assert by.sum("price", "total").columns == ["k", "total"]
    assert sorted(rows(by.min("price")), key=str) == [("a", 1.5), ("b", 0.5), (None, 4.0)]
    assert sorted(rows(by.max("price")), key=str) == [("a", 1.5), ("b", 2.0), (None, 4.0)]
    assert sorted(rows(by.avg("price")), key=str) == [("a", 1.5), ("b", 1.25), (None, 4.0)]


def test_agg_counts_values_not_nulls_b3(session: DataflowSession) -> None:
    """B-3: count(col) leaves NULL out, avg of NULLs is NULL, the text "null" is a group, keys keep types."""
    data = {"k": ["null", None, "01", "10"], "b": [True, True, None, False], "v": [None, None, 1.0, 2.0]}
    frame = session.create_dataframe(data)
    assert rows(frame.agg(fn.count(), fn.count("v"), fn.avg("v"))) == [(4, 2, 1.5)]
    assert rows(frame.filter("v IS NULL").agg(fn.avg("v"), fn.sum("v"))) == [(None, None)]
    grouped = frame.group_by("k", "b", "v", (col("v") > 1).alias("more")).agg(n=fn.count())
    assert grouped.count() == 4
    assert [field.type for field in grouped.schema] == [
        pa.string(),
        pa.bool_(),
        pa.float64(),
        pa.bool_(),
        pa.int64(),
    ]


def test_aggregate_without_keys_has_one_row_always(orders: DataFrame) -> None:
    assert rows(orders.filter("id > 99").agg(n=fn.count(), most=fn.max("id"))) == [(0, None)]
    assert rows(orders.filter("id > 99").group_by("k").agg(n=fn.count())) == []


def test_a_constant_beside_an_aggregate_is_one_row(orders: DataFrame) -> None:
    assert rows(orders.agg(n=fn.count()).with_column("c", lit(1)).select("c")) == [(1,)]


def test_metrics_are_expressions_of_aggregates(orders: DataFrame) -> None:
    frame = orders.group_by("k").agg(
        mean=fn.sum("price") / fn.count(),
        spread=fn.max("price") - fn.min("price"),
        dear=fn.count().filter(col("price") > 1),
        kinds=fn.count("price", distinct=True),
    )
    assert sorted(rows(frame), key=str)[1] == ("b", 1.25, 1.5, 1, 2)
    assert orders.agg(fn.sum("price"), fn.count()).columns == ["sum_price", "count"]


def test_keys_that_are_computed(orders: DataFrame) -> None:
    frame = orders.group_by((col("id") % 2).alias("odd"), fn.upper("k").alias("big")).agg(n=fn.count())
    assert frame.columns == ["odd", "big", "n"]
    assert sorted(rows(frame), key=str) == [(0, "B", 1), (0, None, 1), (1, "A", 2), (1, "B", 1)]
    # A key may take the name of a column that a metric reads as it was.
    assert sorted(rows(orders.group_by((col("id") % 2).alias("id")).agg(total=fn.sum("id")))) == [(0, 6), (1, 9)]
    # Two keys of one name, and a metric that uses a key.
    twice = orders.group_by("id", (col("id") + 1).alias("id")).agg(n=fn.count())
    assert twice.columns == ["id", "id_1", "n"]
    by = col("id") % 2
    assert sorted(rows(orders.group_by(by.alias("odd")).agg(x=by * 100 + fn.count()))) == [(0, 2), (1, 103)]


def test_aggregate_by_names_a37(orders: DataFrame) -> None:
    frame = orders.aggregate(["k"], {"n": ("count", "*"), "total": ("sum", "price")})
    assert frame.columns == ["k", "n", "total"]
    assert sorted(rows(frame), key=str)[0] == ("a", 2, 1.5)


def test_groups_refuse(orders: DataFrame) -> None:
    refused("frame.no_metrics", lambda: orders.group_by("k").agg())
    refused("frame.not_grouped", lambda: orders.group_by("k").agg(x=col("price")))
    refused("frame.not_grouped", lambda: orders.group_by("k").agg(x=col("price") + fn.count()))
    refused("frame.misplaced_aggregate", lambda: orders.group_by(fn.sum("id")).agg(n=fn.count()))
    refused("sql.unknown_column", lambda: orders.group_by("nothing").agg(n=fn.count()))


def test_distinct(session: DataflowSession) -> None:
    frame = session.create_dataframe({"k": ["a", "a", None, None], "v": [1, 1, 2, 3]})
    assert sorted(rows(frame.distinct()), key=str) == [("a", 1), (None, 2), (None, 3)]
    one_each = rows(frame.distinct("K"))
    assert sorted((row[0] for row in one_each), key=str) == [None, "a"]
    refused("sql.unknown_column", lambda: frame.distinct("nothing"))


def test_pivot(session: DataflowSession) -> None:
    frame = session.create_dataframe({"r": ["N", "N", "S", None], "m": [1, 2, 1, 2], "v": [10, 20, 5, 7]})
    wide = frame.group_by("r").pivot("m", [1, 2], fn.sum("v"))
    assert wide.columns == ["r", "1", "2"]
    assert sorted(rows(wide), key=str) == [("N", 10, 20), ("S", 5, None), (None, None, 7)]
    two = frame.group_by().pivot("m", [1], fn.sum("v").alias("s"), fn.count().filter(col("v") > 5).alias("n"))
    assert two.columns == ["1_s", "1_n"]
    assert rows(two) == [(15, 1)]
    refused("frame.no_metrics", lambda: frame.group_by("r").pivot("m", [1]))
    refused("frame.no_metrics", lambda: frame.group_by("r").pivot("m", [], fn.sum("v")))
    refused("frame.not_grouped", lambda: frame.group_by("r").pivot("m", [1], col("v")))
    refused("frame.pivot_key", lambda: frame.group_by(fn.upper("r")).pivot("m", [1], fn.sum("v")))
    refused("frame.duplicate_column", lambda: frame.group_by("r").pivot("m", [1, 1], fn.sum("v")))


def test_unpivot(session: DataflowSession) -> None:
    frame = session.create_dataframe({"id": [1, 2], "jan": [10, None], "feb": [20, 40]})
    long = frame.unpivot(["jan", "FEB"], "month", "amount")
    assert long.columns == ["id", "month", "amount"]
    assert sorted(rows(long)) == [(1, "feb", 20), (1, "jan", 10), (2, "feb", 40)]
    assert frame.unpivot(["jan", "feb"], include_nulls=True).count() == 4
    refused("frame.no_columns", lambda: frame.unpivot([]))
    refused("frame.duplicate_column", lambda: frame.unpivot(["jan"], name="id"))
    refused("sql.unknown_column", lambda: frame.unpivot(["nothing"]))


def test_explode(orders: DataFrame) -> None:
    assert rows(orders.explode("tags").select("id", "tags")) == [(1, "x"), (1, "y"), (4, "z"), (5, None)]
    outer = orders.explode("TAGS", "tag", outer=True)
    assert outer.columns == ["id", "k", "price", "tag"]
    assert [(row[0], row[3]) for row in rows(outer)] == [
        (1, "x"),
        (1, "y"),
        (2, None),
        (3, None),
        (4, "z"),
        (5, None),
    ]
    assert orders.explode("tags").filter("id = 1").limit(1).count() == 1
    refused("frame.duplicate_column", lambda: orders.explode("tags", "id"))
    refused("sql.unknown_column", lambda: orders.explode("nothing"))


# --- windows of time (A-52 in batch, T-01) ------------------------------------------------------------------


def test_windows(session: DataflowSession) -> None:
    start = dt.datetime(2024, 1, 1, 10)
    times = [start, start + dt.timedelta(seconds=59), start + dt.timedelta(seconds=60), None]
    frame = session.create_dataframe({"ts": times, "v": [1, 2, 3, 4]})
    tumbling = frame.window("TS", 60_000).group_by("window_start").agg(total=fn.sum("v"))
    assert set(rows(tumbling)) == {(start, 3), (start + dt.timedelta(minutes=1), 3), (None, 4)}
    sliding = frame.window("ts", 60_000, "w", slide_ms=30_000)
    assert sliding.columns == ["ts", "v", "w"]
    assert sliding.count() == 7  # two windows for each of three times, one row without a time


def test_integer_times_floor_below_zero_t01(session: DataflowSession) -> None:
    frame = session.create_dataframe({"ts": [0, 999, -1, -1000, None]})
    assert [row[1] for row in rows(frame.window("ts", 1000))] == [0, 0, -1000, -1000, None]


def test_windows_refuse(session: DataflowSession, orders: DataFrame) -> None:
    frame = session.create_dataframe({"ts": [1]})
    refused("frame.window", lambda: frame.window("ts", 0))
    refused("frame.window", lambda: frame.window("ts", 10, slide_ms=20))
    refused("frame.window", lambda: frame.window("ts", 10, slide_ms=-5))
    refused("frame.duplicate_column", lambda: frame.window("ts", 10, "TS"))
    refused("sql.window_column", lambda: orders.window("price", 10))


# --- several frames (A-38, A-39) ----------------------------------------------------------------------------


@pytest.fixture
def names(session: DataflowSession) -> DataFrame:
    return session.create_dataframe({"k": ["a", "c", None], "name": ["Ada", "Cyd", "Nobody"]})


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("inner", [("a", 1, "Ada"), ("a", 3, "Ada")]),
        ("left", [("a", 1, "Ada"), ("a", 3, "Ada"), ("b", 2, None), ("b", 5, None), (None, 4, None)]),
        ("right", [("a", 1, "Ada"), ("a", 3, "Ada"), ("c", None, "Cyd"), (None, None, "Nobody")]),
        (
            "full",
            [
                ("a", 1, "Ada"),
                ("a", 3, "Ada"),
                ("b", 2, None),
                ("b", 5, None),
                ("c", None, "Cyd"),
                (None, 4, None),
                (None, None, "Nobody"),
            ],
        ),
    ],
)
def test_joins_of_each_kind_b4(orders: DataFrame, names: DataFrame, how: str, expected: Rows) -> None:
    """B-4: NULL meets nothing, not even NULL; right and full joins run; the shared column appears once."""
    joined = orders.select("k", "id").join(names, "k", how)
    assert joined.columns == ["k", "id", "name"]
    assert sorted(rows(joined), key=str) == sorted(expected, key=str)


def test_joins_that_keep_the_left_columns(orders: DataFrame, names: DataFrame) -> None:
    assert [row[0] for row in rows(orders.join(names, "k", "semi"))] == [1, 3]
    assert sorted(row[0] for row in rows(orders.join(names, "k", "anti"))) == [2, 4, 5]
    assert orders.join(names, "k", "semi").columns == orders.columns


def test_joins_by_condition_and_by_two_names(orders: DataFrame, names: DataFrame) -> None:
    joined = orders.join(names, (col("k") == col("k_right")) & (col("id") > 1))
    assert joined.columns == ["id", "k", "price", "tags", "k_right", "name"]
    assert rows(joined.select("id", "name")) == [(3, "Ada")]
    both = orders.join(names.rename({"k": "key"}), left_on="k", right_on="key", how="left")
    assert both.columns == ["id", "k", "price", "tags", "key", "name"]
    assert orders.join(names, how="cross").count() == 15
    assert orders.join(names, "k", "outer").count() == orders.join(names, "k", "full").count()


def test_one_and_the_text_one_are_two_things_b4(session: DataflowSession) -> None:
    numbers = session.create_dataframe({"k": [1, None]})
    texts = session.create_dataframe({"k": ["1", "null", None]})
    as_text = numbers.with_column("k", col("k").cast("string"))
    assert rows(as_text.join(texts, "k")) == [("1",)]
    refused("value.conversion", lambda: numbers.join(texts, "k").to_rows())


def test_a_frame_joined_with_itself(orders: DataFrame) -> None:
    pairs = orders.select("id", "k").join(orders.select("id", "k"), "k")
    assert pairs.columns == ["id", "k", "id_right"]
    assert pairs.count() == 8
    thrice = pairs.join(orders.select("k", "id"), "k", suffix="_again")
    assert thrice.columns == ["id", "k", "id_right", "id_again"]


def test_asof_joins(session: DataflowSession) -> None:
    trades = session.create_dataframe({"sym": ["A", "A", "B"], "ts": [5, 15, 1]})
    quotes = session.create_dataframe({"sym": ["A", "A"], "ts": [0, 10], "price": [1.5, 2.5]})
    assert sorted(rows(trades.join(quotes, ["sym", "ts"], "asof"))) == [("A", 5, 0, 1.5), ("A", 15, 10, 2.5)]
    assert trades.join(quotes, ["sym", "ts"], "asof_left").count() == 3


def test_joins_refuse(orders: DataFrame, names: DataFrame) -> None:
    error = refused("frame.join", lambda: orders.join(names, "k", "iner"))
    assert error.hint is not None
    assert 'did you mean "inner"' in error.hint
    refused("frame.join", lambda: orders.join(names))
    refused("frame.join", lambda: orders.join(names, "k", "cross"))
    refused("frame.join", lambda: orders.join(names, col("k") == col("k_right"), "cross"))
    refused("frame.join", lambda: orders.join(names, left_on=["k", "id"], right_on=["k"]))
    refused("sql.unknown_column", lambda: orders.join(names, "id"))
    refused("sql.unknown_column", lambda: orders.join(names, col("k") == col("nothing")))
    with DataflowSession() as other:
        refused("frame.session", lambda: orders.join(other.create_dataframe({"k": ["a"]}), "k"))


def test_union_intersect_except(session: DataflowSession) -> None:
    one = session.create_dataframe({"a": [1, 1, 2, None], "b": ["x", "x", "y", None]})
    two = session.create_dataframe({"a": [1, None], "b": ["x", None]})
    assert one.union(two).count() == 6
    assert one.union_with(two, distinct=True).count() == 3
    assert sorted(rows(one.intersect(two)), key=str) == [(1, "x"), (None, None)]
    assert one.intersect(two, distinct=False).count() == 2
    assert rows(one.except_(two)) == [(2, "y")]
    assert sorted(rows(one.except_(two, distinct=False)), key=str) == [(1, "x"), (2, "y")]
    by_name = one.union(session.create_dataframe({"c": [True], "a": [9]}), by_name=True)
    assert by_name.columns == ["a", "b", "c"]
    assert (9, None, True) in rows(by_name)
    refused("frame.column_count", lambda: one.union(two.select("a")))
    refused("frame.column_count", lambda: one.intersect(two.select("a")))
    refused("frame.column_count", lambda: one.except_(two.select("a")))


def test_a_union_keeps_values_with_separators_apart_t08(session: DataflowSession) -> None:
    one = session.create_dataframe({"a": ["x|"], "b": ["y"]})
    two = session.create_dataframe({"a": ["x"], "b": ["|y"]})
    assert one.union(two, distinct=True).count() == 2


# --- columns ------------------------------------------------------------------------------------------------


def test_columns_of_a_frame(orders: DataFrame) -> None:
    assert rows(orders.select(orders["PRICE"] * 2).limit(1)) == [(3.0,)]
    refused("sql.unknown_column", lambda: orders["nothing"])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (col("i") + 1, 6),
        (1 + col("i"), 6),
        (10 - col("i"), 5),
        (col("i") * 2 - 3, 7),
        ((col("i") - 3) * 2, 4),
        (10 / col("i"), 2.0),
        (col("i") // 2, 2),
        (col("i") % 2, 1),
        (-col("i"), -5),
        (col("i").between(5, 9), True),
        (col("i").is_in([1, 5]), True),
        (col("i").is_in([]), False),
        (col("s").like("a%"), True),
        (col("s").is_null() | col("n").is_null(), True),
        (True & col("n").is_null(), True),
        (False | (col("i") == 5), True),
        (col("l")[0], 10),
        (col("l")[-1], 20),
        (col("m")["x"], 1.5),
        (col("i").cast("string"), "5"),
        (col("s").try_cast("int64"), None),
        (fn.coalesce("n", lit("none")), "none"),
        (fn.concat("s", lit("-"), "i"), "abc-5"),
        (expr("CASE WHEN i > 3 THEN 'big' END"), "big"),
        (when(col("i") > 9, 1).end(), None),
        (lit("it's"), "it's"),
        (lit(2**70), 2**70),
        (lit(dt.date(2024, 2, 29)), dt.date(2024, 2, 29)),
        (lit([1, None]), [1, None]),
        (lit({"a": "x"}), {"a": "x"}),
        (lit(b"\x00\xff"), b"\x00\xff"),
        (~(col("i") > 1), False),
    ],
    ids=repr,
)
def test_column_expressions(session: DataflowSession, column: Column, expected: object) -> None:
    frame = session.create_dataframe(
        pa.table(
            {
                "i": [5],
                "s": ["abc"],
                "n": pa.array([None], pa.string()),
                "l": [[10, 20]],
                "m": [{"x": 1.5}],
            }
        )
    )
    assert rows(frame.select(column)) == [(expected,)]


# --- rows out (A-41) ----------------------------------------------------------------------------------------


def test_rows_out_in_every_form(orders: DataFrame) -> None:
    frame = orders.select("id", "k")
    table = frame.to_arrow()
    assert table == frame.collect()
    assert table.schema == frame.schema == pa.schema({"id": pa.int64(), "k": pa.string()})
    assert frame.to_reader().read_all() == table
    assert pa.table(frame) == table
    assert frame.to_rows()[0] == {"id": 1, "k": "a"}
    assert frame.to_pandas().shape == (5, 2)
    assert frame.to_polars().shape == (5, 2)
    assert frame.count() == 5
    assert repr(frame) == "DataFrame[id: int64, k: string]"
    assert "<table" in frame._repr_html_()


def test_float32_and_sums_leave_as_numbers_b7(session: DataflowSession) -> None:
    """B-7: to_rows gives float32 values; a sum that the engine widens is an int again."""
    frame = session.create_dataframe(pa.table({"f": pa.array([0.5, None], pa.float32()), "i": [2**62, 2**62]}))
    assert frame.select("f").to_rows() == [{"f": 0.5}, {"f": None}]
    (row,) = frame.agg(s=fn.sum("i")).to_rows()
    assert row == {"s": 2**63}
    assert type(row["s"]) is int


def test_show(orders: DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    orders.select("id", "k").show(2)
    shown = capsys.readouterr().out
    assert "id" in shown
    assert "more" in shown


def test_a_reader_may_be_dropped_early(session: DataflowSession) -> None:
    reader = session.sql("SELECT range AS i FROM range(1000000)").to_reader()
    assert reader.read_next_batch().num_rows > 0
    del reader
    assert session.sql("SELECT 1 AS a").to_rows() == [{"a": 1}]


def test_views_and_tables_of_frames(session: DataflowSession, orders: DataFrame) -> None:
    session.create_temp_view("v", orders.filter("id > 3"))
    assert session.sql("SELECT count(*) AS n FROM v").to_rows() == [{"n": 2}]
    session.create_temp_view("v", orders)
    assert session.table("V").count() == 5
    assert orders.select("id").save_as_table("stored") == 5
    assert orders.filter("id < 3").select("id").insert_into("stored") == 2
    assert session.table("stored").count() == 7
    refused("catalog.exists", lambda: orders.save_as_table("stored"))
    refused("catalog.exists", lambda: session.create_temp_view("stored", orders))
    assert orders.select("k").save_as_table("stored", or_replace=True) == 5
    refused("sql.column_count", lambda: orders.insert_into("stored"))
    refused("sql.unknown_table", lambda: orders.insert_into("nothing"))
    refused("sql.unknown_table", lambda: session.table("nothing"))


def test_data_in(session: DataflowSession) -> None:
    table = pa.table({"a": [1, 2]})
    for data in (
        table,
        table.to_batches()[0],
        table.to_reader(),
        {"a": [1, 2]},
        [{"a": 1}, {"a": 2}],
        table.to_pandas(),
    ):
        assert rows(session.create_dataframe(data)) == [(1,), (2,)]
    assert rows(session.create_dataframe([], schema=table.schema)) == []
    with pytest.raises(InputError):
        session.create_dataframe(42)
    refused("data.unsupported", lambda: session.create_dataframe([1, 2]))
    refused("data.no_schema", lambda: session.create_dataframe([]))
    doubled = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "A"])
    refused("data.duplicate_column", lambda: session.create_dataframe(doubled))


def test_explain_has_its_sections(orders: DataFrame) -> None:
    text = orders.filter("id > 1").group_by("k").count().explain()
    for section in ("logical", "physical", "strategy"):
        assert section in text
    assert "Filter: id > 1" in text


def test_projections_one_after_another_b21(orders: DataFrame) -> None:
    """B-21: what an earlier projection computed is not lost to a later one."""
    frame = orders.select((col("id") * 2).alias("x"), "k").select((col("x") + 1).alias("y"), "k").select("y")
    assert [row[0] for row in rows(frame)] == [3, 5, 7, 9, 11]


def test_volatile_values_are_drawn_once(session: DataflowSession) -> None:
    """A random column is one value a row, however often it is read."""
    frame = session.sql("SELECT range AS i FROM range(500)").with_column("r", fn.random())
    doubled = frame.with_columns({"a": col("r"), "b": col("r")})
    assert doubled.filter(col("a") != col("b")).count() == 0
    kept = frame.filter(col("r") < 0.5).select("r").to_arrow()["r"].to_pylist()
    assert kept
    assert max(kept) < 0.5
