"""A CSV file as a DataFrame: looked at, filtered, grouped, named for SQL, and written as Parquet.

usage: df_demo.py [FILE]        a CSV file with the columns of orders.csv beside this program
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from velaria import DataflowSession, col, fn, lit, when

# Under `bazel run` the program starts elsewhere; paths are the user's.
HERE = Path(os.environ.get("BUILD_WORKING_DIRECTORY", "."))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A CSV file as a DataFrame.")
    parser.add_argument("file", type=Path, nargs="?", help="a CSV file with the columns of orders.csv")
    given = parser.parse_args(arguments).file
    file = HERE / given if given is not None else Path(__file__).with_name("orders.csv")

    with DataflowSession() as session:
        found = session.probe(file)
        print(f"{file.name}: {found.final_format}, {found.confidence} confidence: {', '.join(found.schema.names)}")
        orders = session.read_csv(file)
        print(orders)

        print("\nby city, those with more than one order")
        cities = (
            orders.with_column("city", fn.coalesce("city", lit("unknown")))
            .group_by("city")
            .agg(orders=fn.count(), income=fn.sum("price"), dearest=fn.max("price"))
            .filter(col("orders") > 1)
            .order_by("income", ascending=False)
        )
        cities.show()

        print("\nthe dearest order of each customer, with its share")
        share = col("price") / fn.sum("price").over("customer")
        (
            orders.with_columns(
                {
                    "place": fn.row_number().over("customer", order_by=[col("price").desc(), "id"]),
                    "share": fn.round(share * 100),
                    "size": when(col("price") >= 30, "large").otherwise("small"),
                }
            )
            .filter("place = 1")
            .select("customer", "item", "price", "size", "share")
            .order_by(col("price").desc(), "customer")
            .show()
        )

        print("\nthe same frame by its name in SQL")
        session.create_temp_view("orders", orders)
        session.sql("SELECT ordered, customer, item FROM orders WHERE item LIKE '%e%' ORDER BY id LIMIT 3").show()

        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "cities.parquet")
            written = cities.write_parquet(target)
            again = session.read_parquet(target).to_rows()
            print(f"\n{written} rows written as Parquet, read back the same: {again == cities.to_rows()}")


if __name__ == "__main__":
    main()
