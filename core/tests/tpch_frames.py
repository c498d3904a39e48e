"""TPC-H queries as DataFrame calls, by number; tests/tpch holds the same ones as SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from types import MappingProxyType

from velaria_core import DataFrame, col, expr, fn, lit, when

Tables = Mapping[str, DataFrame]

_REVENUE = fn.sum(col("l_extendedprice") * (1 - col("l_discount")))


def q01(t: Tables) -> DataFrame:
    """Aggregates of several expressions over two keys."""
    price = col("l_extendedprice") * (1 - col("l_discount"))
    return (
        t["lineitem"]
        .filter(col("l_shipdate") <= date(1998, 9, 2))
        .group_by("l_returnflag", "l_linestatus")
        .agg(
            sum_qty=fn.sum("l_quantity"),
            sum_base_price=fn.sum("l_extendedprice"),
            sum_disc_price=fn.sum(price),
            sum_charge=fn.sum(price * (1 + col("l_tax"))),
            avg_qty=fn.avg("l_quantity"),
            avg_price=fn.avg("l_extendedprice"),
            avg_disc=fn.avg("l_discount"),
            count_order=fn.count(),
        )
        .order_by("l_returnflag", "l_linestatus")
    )


def q03(t: Tables) -> DataFrame:
    """Two joins on names that differ, the ten largest groups."""
    day = date(1995, 3, 15)
    return (
        t["customer"]
        .filter(col("c_mktsegment") == "BUILDING")
        .join(t["orders"].filter(col("o_orderdate") < day), left_on="c_custkey", right_on="o_custkey")
        .join(t["lineitem"].filter(col("l_shipdate") > day), left_on="o_orderkey", right_on="l_orderkey")
        .group_by("l_orderkey", "o_orderdate", "o_shippriority")
        .agg(revenue=_REVENUE)
        .order_by(col("revenue").desc(), "o_orderdate")
        .limit(10)
        .select("l_orderkey", "revenue", "o_orderdate", "o_shippriority")
    )


def q04(t: Tables) -> DataFrame:
    """EXISTS is a semi join."""
    late = t["lineitem"].filter(col("l_commitdate") < col("l_receiptdate"))
    return (
        t["orders"]
        .filter((col("o_orderdate") >= date(1993, 7, 1)) & (col("o_orderdate") < date(1993, 10, 1)))
        .join(late, left_on="o_orderkey", right_on="l_orderkey", how="semi")
        .group_by("o_orderpriority")
        .count("order_count")
        .order_by("o_orderpriority")
    )


def q05(t: Tables) -> DataFrame:
    """Six tables, one of the joins on two keys."""
    year = (col("o_orderdate") >= date(1994, 1, 1)) & (col("o_orderdate") < date(1995, 1, 1))
    return (
        t["region"]
        .filter(col("r_name") == "ASIA")
        .join(t["nation"], left_on="r_regionkey", right_on="n_regionkey")
        .join(t["customer"], left_on="n_nationkey", right_on="c_nationkey")
        .join(t["orders"].filter(year), left_on="c_custkey", right_on="o_custkey")
        .join(t["lineitem"], left_on="o_orderkey", right_on="l_orderkey")
        .join(t["supplier"], left_on=["l_suppkey", "n_nationkey"], right_on=["s_suppkey", "s_nationkey"])
        .group_by("n_name")
        .agg(revenue=_REVENUE)
        .order_by("revenue", ascending=False)
    )


def q06(t: Tables) -> DataFrame:
    """One row, from a condition given as SQL text."""
    return (
        t["lineitem"]
        .filter("l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1995-01-01'")
        .filter("l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24")
        .agg(revenue=fn.sum(col("l_extendedprice") * col("l_discount")))
    )


def q10(t: Tables) -> DataFrame:
    """Many keys that one of them determines."""
    quarter = (col("o_orderdate") >= date(1993, 10, 1)) & (col("o_orderdate") < date(1994, 1, 1))
    keys = ("c_custkey", "c_name", "c_acctbal", "c_phone", "n_name", "c_address", "c_comment")
    return (
        t["customer"]
        .join(t["orders"].filter(quarter), left_on="c_custkey", right_on="o_custkey")
        .join(t["lineitem"].filter("l_returnflag", "=", "R"), left_on="o_orderkey", right_on="l_orderkey")
        .join(t["nation"], left_on="c_nationkey", right_on="n_nationkey")
        .group_by(*keys)
        .agg(revenue=_REVENUE)
        .order_by("revenue", ascending=False)
        .limit(20)
        .select("c_custkey", "c_name", "revenue", "c_acctbal", "n_name", "c_address", "c_phone", "c_comment")
    )


def q12(t: Tables) -> DataFrame:
    """Counting by a condition, in two columns."""
    urgent = col("o_orderpriority").is_in(["1-URGENT", "2-HIGH"])
    year = (col("l_receiptdate") >= date(1994, 1, 1)) & (col("l_receiptdate") < date(1995, 1, 1))
    return (
        t["lineitem"]
        .filter(col("l_shipmode").is_in(["MAIL", "SHIP"]) & year)
        .filter((col("l_commitdate") < col("l_receiptdate")) & (col("l_shipdate") < col("l_commitdate")))
        .join(t["orders"], left_on="l_orderkey", right_on="o_orderkey")
        .group_by("l_shipmode")
        .agg(
            high_line_count=fn.sum(when(urgent, 1).otherwise(0)),
            low_line_count=fn.sum(when(urgent, 0).otherwise(1)),
        )
        .order_by("l_shipmode")
    )


def q13(t: Tables) -> DataFrame:
    """A left join whose count sees no NULL, grouped twice."""
    orders = t["orders"].filter(~col("o_comment").like("%special%requests%"))
    return (
        t["customer"]
        .join(orders, left_on="c_custkey", right_on="o_custkey", how="left")
        .group_by("c_custkey")
        .agg(c_count=fn.count("o_orderkey"))
        .group_by("c_count")
        .count("custdist")
        .order_by("custdist", "c_count", ascending=False)
    )


def q14(t: Tables) -> DataFrame:
    """An expression over two aggregates."""
    price = col("l_extendedprice") * (1 - col("l_discount"))
    promo = fn.sum(when(col("p_type").like("PROMO%"), price).otherwise(0))
    return (
        t["lineitem"]
        .filter((col("l_shipdate") >= date(1995, 9, 1)) & (col("l_shipdate") < date(1995, 10, 1)))
        .join(t["part"], left_on="l_partkey", right_on="p_partkey")
        .agg(promo_revenue=expr("100.00") * promo / fn.sum(price))
    )


def q16(t: Tables) -> DataFrame:
    """NOT IN over keys that are never NULL is an anti join; a distinct count."""
    complaints = t["supplier"].filter(col("s_comment").like("%Customer%Complaints%"))
    parts = t["part"].filter(
        (col("p_brand") != "Brand#45")
        & ~col("p_type").like("MEDIUM POLISHED%")
        & col("p_size").is_in([49, 14, 23, 45, 19, 3, 36, 9])
    )
    return (
        t["partsupp"]
        .join(parts, left_on="ps_partkey", right_on="p_partkey")
        .join(complaints, left_on="ps_suppkey", right_on="s_suppkey", how="anti")
        .group_by("p_brand", "p_type", "p_size")
        .agg(supplier_cnt=fn.count("ps_suppkey", distinct=True))
        .order_by(col("supplier_cnt").desc(), "p_brand", "p_type", "p_size")
    )


def q17(t: Tables) -> DataFrame:
    """A correlated subquery is a join with its groups."""
    limits = t["lineitem"].group_by("l_partkey").agg(quantity_max=expr("0.2") * fn.avg("l_quantity"))
    return (
        t["part"]
        .filter((col("p_brand") == "Brand#23") & (col("p_container") == "MED BOX"))
        .join(t["lineitem"], left_on="p_partkey", right_on="l_partkey")
        .join(limits.rename({"l_partkey": "limit_key"}), left_on="p_partkey", right_on="limit_key")
        .filter(col("l_quantity") < col("quantity_max"))
        .agg(avg_yearly=fn.sum("l_extendedprice") / expr("7.0"))
    )


def q18(t: Tables) -> DataFrame:
    """HAVING is a filter after agg."""
    large = t["lineitem"].group_by("l_orderkey").sum("l_quantity", "quantity").filter(col("quantity") > 300)
    large = large.rename({"l_orderkey": "large_key"})
    return (
        t["orders"]
        .join(large, left_on="o_orderkey", right_on="large_key", how="semi")
        .join(t["customer"], left_on="o_custkey", right_on="c_custkey")
        .select("*", col("o_custkey").alias("c_custkey"))
        .join(t["lineitem"], left_on="o_orderkey", right_on="l_orderkey")
        .group_by("c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice")
        .sum("l_quantity")
        .order_by(col("o_totalprice").desc(), "o_orderdate")
        .limit(100)
    )


def q22(t: Tables) -> DataFrame:
    """A scalar subquery is a cross join with one row."""
    codes = ["13", "31", "23", "29", "30", "18", "17"]
    customers = (
        t["customer"]
        .with_column("cntrycode", fn.substring("c_phone", lit(1), lit(2)))
        .filter(col("cntrycode").is_in(codes))
    )
    mean = customers.filter(col("c_acctbal") > 0).agg(mean=fn.avg("c_acctbal"))
    return (
        customers.join(mean, how="cross")
        .filter(col("c_acctbal") > col("mean"))
        .join(t["orders"], left_on="c_custkey", right_on="o_custkey", how="anti")
        .group_by("cntrycode")
        .agg(numcust=fn.count(), totacctbal=fn.sum("c_acctbal"))
        .order_by("cntrycode")
    )


QUERIES: Mapping[int, Callable[[Tables], DataFrame]] = MappingProxyType(
    {1: q01, 3: q03, 4: q04, 5: q05, 6: q06, 10: q10, 12: q12, 13: q13, 14: q14, 16: q16, 17: q17, 18: q18, 22: q22}
)
