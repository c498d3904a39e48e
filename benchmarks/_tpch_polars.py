"""TPC-H for Polars: each query as one lazy frame over the same Parquet files, by number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import polars as pl
from polars import col

Tables = Mapping[str, pl.LazyFrame]
Query = Callable[[Tables], pl.LazyFrame]

_PRICE = col("l_extendedprice") * (1 - col("l_discount"))


def tables(folder: Path) -> Tables:
    """The tables of a folder as lazy scans."""
    return {file.stem: pl.scan_parquet(file) for file in sorted(folder.glob("*.parquet"))}


def _from(column: str, start: date, end: date) -> pl.Expr:
    return (col(column) >= start) & (col(column) < end)


def q01(t: Tables) -> pl.LazyFrame:
    return (
        t["lineitem"]
        .filter(col("l_shipdate") <= date(1998, 9, 2))
        .group_by("l_returnflag", "l_linestatus")
        .agg(
            sum_qty=col("l_quantity").sum(),
            sum_base_price=col("l_extendedprice").sum(),
            sum_disc_price=_PRICE.sum(),
            sum_charge=(_PRICE * (1 + col("l_tax"))).sum(),
            avg_qty=col("l_quantity").mean(),
            avg_price=col("l_extendedprice").mean(),
            avg_disc=col("l_discount").mean(),
            count_order=pl.len(),
        )
        .sort("l_returnflag", "l_linestatus")
    )


def q02(t: Tables) -> pl.LazyFrame:
    offers = (
        t["region"]
        .filter(col("r_name") == "EUROPE")
        .join(t["nation"], left_on="r_regionkey", right_on="n_regionkey")
        .join(t["supplier"], left_on="n_nationkey", right_on="s_nationkey")
        .join(t["partsupp"], left_on="s_suppkey", right_on="ps_suppkey")
        .join(
            t["part"].filter((col("p_size") == 15) & col("p_type").str.ends_with("BRASS")),
            left_on="ps_partkey",
            right_on="p_partkey",
        )
    )
    cheapest = offers.group_by("ps_partkey").agg(col("ps_supplycost").min())
    return (
        offers.join(cheapest, on=["ps_partkey", "ps_supplycost"])
        .select(
            "s_acctbal",
            "s_name",
            "n_name",
            col("ps_partkey").alias("p_partkey"),
            "p_mfgr",
            "s_address",
            "s_phone",
            "s_comment",
        )
        .sort("s_acctbal", "n_name", "s_name", "p_partkey", descending=[True, False, False, False])
        .limit(100)
    )


def q03(t: Tables) -> pl.LazyFrame:
    day = date(1995, 3, 15)
    return (
        t["customer"]
        .filter(col("c_mktsegment") == "BUILDING")
        .join(t["orders"].filter(col("o_orderdate") < day), left_on="c_custkey", right_on="o_custkey")
        .join(t["lineitem"].filter(col("l_shipdate") > day), left_on="o_orderkey", right_on="l_orderkey")
        .group_by(col("o_orderkey").alias("l_orderkey"), "o_orderdate", "o_shippriority")
        .agg(revenue=_PRICE.sum())
        .select("l_orderkey", "revenue", "o_orderdate", "o_shippriority")
        .sort("revenue", "o_orderdate", descending=[True, False])
        .limit(10)
    )


def q04(t: Tables) -> pl.LazyFrame:
    late = t["lineitem"].filter(col("l_commitdate") < col("l_receiptdate"))
    return (
        t["orders"]
        .filter(_from("o_orderdate", date(1993, 7, 1), date(1993, 10, 1)))
        .join(late, left_on="o_orderkey", right_on="l_orderkey", how="semi")
        .group_by("o_orderpriority")
        .agg(order_count=pl.len())
        .sort("o_orderpriority")
    )


def q05(t: Tables) -> pl.LazyFrame:
    return (
        t["region"]
        .filter(col("r_name") == "ASIA")
        .join(t["nation"], left_on="r_regionkey", right_on="n_regionkey")
        .join(t["customer"], left_on="n_nationkey", right_on="c_nationkey")
        .join(
            t["orders"].filter(_from("o_orderdate", date(1994, 1, 1), date(1995, 1, 1))),
            left_on="c_custkey",
            right_on="o_custkey",
        )
        .join(t["lineitem"], left_on="o_orderkey", right_on="l_orderkey")
        .join(t["supplier"], left_on=["l_suppkey", "n_nationkey"], right_on=["s_suppkey", "s_nationkey"])
        .group_by("n_name")
        .agg(revenue=_PRICE.sum())
        .sort("revenue", descending=True)
    )


def q06(t: Tables) -> pl.LazyFrame:
    return (
        t["lineitem"]
        .filter(
            _from("l_shipdate", date(1994, 1, 1), date(1995, 1, 1)),
            col("l_discount").is_between(
                pl.lit("0.05").cast(pl.Decimal(15, 2)), pl.lit("0.07").cast(pl.Decimal(15, 2))
            ),
            col("l_quantity") < 24,
        )
        .select(revenue=(col("l_extendedprice") * col("l_discount")).sum())
    )


def q07(t: Tables) -> pl.LazyFrame:
    def shipped(supplier: str, customer: str) -> pl.LazyFrame:
        from_nation = t["nation"].filter(col("n_name") == supplier).select("n_nationkey", supp_nation="n_name")
        to_nation = t["nation"].filter(col("n_name") == customer).select("n_nationkey", cust_nation="n_name")
        return (
            t["supplier"]
            .join(from_nation, left_on="s_nationkey", right_on="n_nationkey")
            .join(
                t["lineitem"].filter(col("l_shipdate").is_between(date(1995, 1, 1), date(1996, 12, 31))),
                left_on="s_suppkey",
                right_on="l_suppkey",
            )
            .join(t["orders"], left_on="l_orderkey", right_on="o_orderkey")
            .join(
                t["customer"].join(to_nation, left_on="c_nationkey", right_on="n_nationkey"),
                left_on="o_custkey",
                right_on="c_custkey",
            )
            .select("supp_nation", "cust_nation", l_year=col("l_shipdate").dt.year(), volume=_PRICE)
        )

    return (
        pl.concat([shipped("FRANCE", "GERMANY"), shipped("GERMANY", "FRANCE")])
        .group_by("supp_nation", "cust_nation", "l_year")
        .agg(revenue=col("volume").sum())
        .sort("supp_nation", "cust_nation", "l_year")
    )


def q08(t: Tables) -> pl.LazyFrame:
    american = (
        t["region"]
        .filter(col("r_name") == "AMERICA")
        .join(t["nation"], left_on="r_regionkey", right_on="n_regionkey")
        .join(t["customer"], left_on="n_nationkey", right_on="c_nationkey")
    )
    suppliers = t["supplier"].join(
        t["nation"].select("n_nationkey", nation="n_name"), left_on="s_nationkey", right_on="n_nationkey"
    )
    return (
        t["part"]
        .filter(col("p_type") == "ECONOMY ANODIZED STEEL")
        .join(t["lineitem"], left_on="p_partkey", right_on="l_partkey")
        .join(
            t["orders"].filter(col("o_orderdate").is_between(date(1995, 1, 1), date(1996, 12, 31))),
            left_on="l_orderkey",
            right_on="o_orderkey",
        )
        .join(american, left_on="o_custkey", right_on="c_custkey", how="semi")
        .join(suppliers, left_on="l_suppkey", right_on="s_suppkey")
        .select("nation", o_year=col("o_orderdate").dt.year(), volume=_PRICE)
        .group_by("o_year")
        .agg(
            ours=pl.when(col("nation") == "BRAZIL").then(col("volume")).otherwise(0).sum().cast(pl.Float64),
            whole=col("volume").sum().cast(pl.Float64),
        )
        .select("o_year", mkt_share=col("ours") / col("whole"))
        .sort("o_year")
    )


def q09(t: Tables) -> pl.LazyFrame:
    return (
        t["part"]
        .filter(col("p_name").str.contains("green", literal=True))
        .join(t["partsupp"], left_on="p_partkey", right_on="ps_partkey")
        .join(t["lineitem"], left_on=["p_partkey", "ps_suppkey"], right_on=["l_partkey", "l_suppkey"])
        .join(t["supplier"], left_on="ps_suppkey", right_on="s_suppkey")
        .join(t["nation"], left_on="s_nationkey", right_on="n_nationkey")
        .join(t["orders"], left_on="l_orderkey", right_on="o_orderkey")
        .select(
            nation="n_name",
            o_year=col("o_orderdate").dt.year(),
            amount=_PRICE - col("ps_supplycost") * col("l_quantity"),
        )
        .group_by("nation", "o_year")
        .agg(sum_profit=col("amount").sum())
        .sort("nation", "o_year", descending=[False, True])
    )


def q10(t: Tables) -> pl.LazyFrame:
    return (
        t["customer"]
        .join(
            t["orders"].filter(_from("o_orderdate", date(1993, 10, 1), date(1994, 1, 1))),
            left_on="c_custkey",
            right_on="o_custkey",
        )
        .join(t["lineitem"].filter(col("l_returnflag") == "R"), left_on="o_orderkey", right_on="l_orderkey")
        .join(t["nation"], left_on="c_nationkey", right_on="n_nationkey")
        .group_by("c_custkey", "c_name", "c_acctbal", "c_phone", "n_name", "c_address", "c_comment")
        .agg(revenue=_PRICE.sum())
        .select("c_custkey", "c_name", "revenue", "c_acctbal", "n_name", "c_address", "c_phone", "c_comment")
        .sort("revenue", descending=True)
        .limit(20)
    )


def q11(t: Tables) -> pl.LazyFrame:
    german = (
        t["nation"]
        .filter(col("n_name") == "GERMANY")
        .join(t["supplier"], left_on="n_nationkey", right_on="s_nationkey")
        .join(t["partsupp"], left_on="s_suppkey", right_on="ps_suppkey")
        .select("ps_partkey", value=col("ps_supplycost") * col("ps_availqty"))
    )
    least = german.select(least=col("value").sum().cast(pl.Float64) * 0.0001)
    return (
        german.group_by("ps_partkey")
        .agg(col("value").sum())
        .join(least, how="cross")
        .filter(col("value").cast(pl.Float64) > col("least"))
        .select("ps_partkey", "value")
        .sort("value", descending=True)
    )


def q12(t: Tables) -> pl.LazyFrame:
    urgent = col("o_orderpriority").is_in(["1-URGENT", "2-HIGH"])
    return (
        t["lineitem"]
        .filter(
            col("l_shipmode").is_in(["MAIL", "SHIP"]),
            col("l_commitdate") < col("l_receiptdate"),
            col("l_shipdate") < col("l_commitdate"),
            _from("l_receiptdate", date(1994, 1, 1), date(1995, 1, 1)),
        )
        .join(t["orders"], left_on="l_orderkey", right_on="o_orderkey")
        .group_by("l_shipmode")
        .agg(high_line_count=urgent.sum(), low_line_count=(~urgent).sum())
        .sort("l_shipmode")
    )


def q13(t: Tables) -> pl.LazyFrame:
    orders = t["orders"].filter(~col("o_comment").str.contains("special.*requests"))
    return (
        t["customer"]
        .join(orders, left_on="c_custkey", right_on="o_custkey", how="left")
        .group_by("c_custkey")
        .agg(c_count=col("o_orderkey").count())
        .group_by("c_count")
        .agg(custdist=pl.len())
        .sort("custdist", "c_count", descending=True)
    )


def q14(t: Tables) -> pl.LazyFrame:
    return (
        t["lineitem"]
        .filter(_from("l_shipdate", date(1995, 9, 1), date(1995, 10, 1)))
        .join(t["part"], left_on="l_partkey", right_on="p_partkey")
        .select(
            promo=pl.when(col("p_type").str.starts_with("PROMO")).then(_PRICE).otherwise(0).sum().cast(pl.Float64),
            whole=_PRICE.sum().cast(pl.Float64),
        )
        .select(promo_revenue=100 * col("promo") / col("whole"))
    )


def q15(t: Tables) -> pl.LazyFrame:
    revenue = (
        t["lineitem"]
        .filter(_from("l_shipdate", date(1996, 1, 1), date(1996, 4, 1)))
        .group_by("l_suppkey")
        .agg(total_revenue=_PRICE.sum())
    )
    return (
        t["supplier"]
        .join(
            revenue.filter(col("total_revenue") == col("total_revenue").max()),
            left_on="s_suppkey",
            right_on="l_suppkey",
        )
        .select("s_suppkey", "s_name", "s_address", "s_phone", "total_revenue")
        .sort("s_suppkey")
    )


def q16(t: Tables) -> pl.LazyFrame:
    complaints = t["supplier"].filter(col("s_comment").str.contains("Customer.*Complaints"))
    parts = t["part"].filter(
        col("p_brand") != "Brand#45",
        ~col("p_type").str.starts_with("MEDIUM POLISHED"),
        col("p_size").is_in([49, 14, 23, 45, 19, 3, 36, 9]),
    )
    return (
        t["partsupp"]
        .join(parts, left_on="ps_partkey", right_on="p_partkey")
        .join(complaints, left_on="ps_suppkey", right_on="s_suppkey", how="anti")
        .group_by("p_brand", "p_type", "p_size")
        .agg(supplier_cnt=col("ps_suppkey").n_unique())
        .sort("supplier_cnt", "p_brand", "p_type", "p_size", descending=[True, False, False, False])
    )


def q17(t: Tables) -> pl.LazyFrame:
    sold = (
        t["part"]
        .filter(col("p_brand") == "Brand#23", col("p_container") == "MED BOX")
        .join(t["lineitem"], left_on="p_partkey", right_on="l_partkey")
    )
    limits = sold.group_by("p_partkey").agg(quantity_max=col("l_quantity").cast(pl.Float64).mean() * 0.2)
    return (
        sold.join(limits, on="p_partkey")
        .filter(col("l_quantity").cast(pl.Float64) < col("quantity_max"))
        .select(avg_yearly=col("l_extendedprice").sum().cast(pl.Float64) / 7)
    )


def q18(t: Tables) -> pl.LazyFrame:
    large = t["lineitem"].group_by("l_orderkey").agg(quantity=col("l_quantity").sum()).filter(col("quantity") > 300)
    return (
        t["orders"]
        .join(large, left_on="o_orderkey", right_on="l_orderkey", how="semi")
        .join(t["customer"], left_on="o_custkey", right_on="c_custkey")
        .join(t["lineitem"], left_on="o_orderkey", right_on="l_orderkey")
        .group_by("c_name", col("o_custkey").alias("c_custkey"), "o_orderkey", "o_orderdate", "o_totalprice")
        .agg(col("l_quantity").sum())
        .sort("o_totalprice", "o_orderdate", descending=[True, False])
        .limit(100)
    )


def q19(t: Tables) -> pl.LazyFrame:
    def chosen(brand: str, containers: list[str], quantity: int, size: int) -> pl.Expr:
        return (
            (col("p_brand") == brand)
            & col("p_container").is_in(containers)
            & col("l_quantity").is_between(quantity, quantity + 10)
            & col("p_size").is_between(1, size)
        )

    return (
        t["lineitem"]
        .filter(col("l_shipmode").is_in(["AIR", "AIR REG"]), col("l_shipinstruct") == "DELIVER IN PERSON")
        .join(t["part"], left_on="l_partkey", right_on="p_partkey")
        .filter(
            chosen("Brand#12", ["SM CASE", "SM BOX", "SM PACK", "SM PKG"], 1, 5)
            | chosen("Brand#23", ["MED BAG", "MED BOX", "MED PKG", "MED PACK"], 10, 10)
            | chosen("Brand#34", ["LG CASE", "LG BOX", "LG PACK", "LG PKG"], 20, 15)
        )
        .select(revenue=_PRICE.sum())
    )


def q20(t: Tables) -> pl.LazyFrame:
    shipped = (
        t["lineitem"]
        .filter(_from("l_shipdate", date(1994, 1, 1), date(1995, 1, 1)))
        .group_by("l_partkey", "l_suppkey")
        .agg(quantity=col("l_quantity").sum().cast(pl.Float64) * 0.5)
    )
    offers = (
        t["partsupp"]
        .join(
            t["part"].filter(col("p_name").str.starts_with("forest")),
            left_on="ps_partkey",
            right_on="p_partkey",
            how="semi",
        )
        .join(shipped, left_on=["ps_partkey", "ps_suppkey"], right_on=["l_partkey", "l_suppkey"])
        .filter(col("ps_availqty") > col("quantity"))
    )
    return (
        t["supplier"]
        .join(t["nation"].filter(col("n_name") == "CANADA"), left_on="s_nationkey", right_on="n_nationkey", how="semi")
        .join(offers, left_on="s_suppkey", right_on="ps_suppkey", how="semi")
        .select("s_name", "s_address")
        .sort("s_name")
    )


def q21(t: Tables) -> pl.LazyFrame:
    late = t["lineitem"].filter(col("l_receiptdate") > col("l_commitdate"))
    several = (
        t["lineitem"].group_by("l_orderkey").agg(suppliers=col("l_suppkey").n_unique()).filter(col("suppliers") > 1)
    )
    late_alone = late.group_by("l_orderkey").agg(suppliers=col("l_suppkey").n_unique()).filter(col("suppliers") == 1)
    return (
        t["nation"]
        .filter(col("n_name") == "SAUDI ARABIA")
        .join(t["supplier"], left_on="n_nationkey", right_on="s_nationkey")
        .join(late, left_on="s_suppkey", right_on="l_suppkey")
        .join(t["orders"].filter(col("o_orderstatus") == "F"), left_on="l_orderkey", right_on="o_orderkey", how="semi")
        .join(several, on="l_orderkey", how="semi")
        .join(late_alone, on="l_orderkey", how="semi")
        .group_by("s_name")
        .agg(numwait=pl.len())
        .sort("numwait", "s_name", descending=[True, False])
        .limit(100)
    )


def q22(t: Tables) -> pl.LazyFrame:
    customers = (
        t["customer"]
        .with_columns(cntrycode=col("c_phone").str.slice(0, 2))
        .filter(col("cntrycode").is_in(["13", "31", "23", "29", "30", "18", "17"]))
    )
    mean = customers.filter(col("c_acctbal") > 0).select(mean=col("c_acctbal").cast(pl.Float64).mean())
    return (
        customers.join(mean, how="cross")
        .filter(col("c_acctbal").cast(pl.Float64) > col("mean"))
        .join(t["orders"], left_on="c_custkey", right_on="o_custkey", how="anti")
        .group_by("cntrycode")
        .agg(numcust=pl.len(), totacctbal=col("c_acctbal").sum())
        .sort("cntrycode")
    )


QUERIES: Mapping[int, Query] = dict(
    enumerate(
        (q01, q02, q03, q04, q05, q06, q07, q08, q09, q10, q11, q12, q13, q14, q15, q16, q17, q18, q19, q20, q21, q22),
        start=1,
    )
)
