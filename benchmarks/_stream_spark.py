"""Spark Structured Streaming on two local cores: files as its source, foreachBatch as its sink.

A trigger takes a file, and files have a million rows, since a trigger costs it a tenth of a second and more: with
epochs as small as the others' it would be slower still. No shuffle partitions beyond the cores, and no web page.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _stream import Answer, Workload, contestant
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

_TYPES = {"date_time": "TIMESTAMP", "expires": "TIMESTAMP", "name": "STRING", "city": "STRING", "state": "STRING"}
_TYPES |= {"key": "STRING", "email": "STRING", "item_name": "STRING", "channel": "STRING", "url": "STRING"}
_WINDOWED = ("q5", "q7", "q8", "q12")
_SIZE, _SLIDE = "10 seconds", "2 seconds"


def run(workload: Workload, folder: Path, scratch: Path, answer: Answer) -> None:
    spark = _session()
    scratch.mkdir(parents=True, exist_ok=True)
    for name in workload.reads:
        _files(folder, name, scratch / name, closed=workload.name in _WINDOWED)
    answer.first_s = perf_counter()
    frames = {}
    for name in workload.reads:
        columns = pq.read_schema(folder / f"{name}.parquet").names
        schema = ", ".join(f"{column} {_TYPES.get(column, 'BIGINT')}" for column in columns)
        files = spark.readStream.schema(schema).option("maxFilesPerTrigger", 1).parquet(str(scratch / name))
        frames[name] = files.select(*workload.reads[name])
        if "date_time" in workload.reads[name]:
            frames[name] = frames[name].withWatermark("date_time", "0 seconds")

    def keep(rows: DataFrame, _number: int) -> None:
        if not answer.kept:
            rows.write.format("noop").mode("overwrite").save()
        elif (table := rows.toArrow()).num_rows:
            answer.add(table)

    counted = workload.name.startswith("count")
    query = (
        _asked(workload.name, frames)
        .writeStream.outputMode("update" if counted else "append")
        .option("checkpointLocation", str(scratch / "checkpoint"))
        .trigger(availableNow=True)
        .foreachBatch(keep)
        .start()
    )
    query.awaitTermination()
    answer.last_s = perf_counter()
    answer.latencies_ms = [float(one["durationMs"]["triggerExecution"]) for one in query.recentProgress]
    answer.tables = [_as_asked(table) for table in answer.tables]


def _files(folder: Path, name: str, target: Path, *, closed: bool) -> None:
    """The files that Spark reads. At the end of its input it leaves the last windows open: a row of a day later closes
    them, and is itself in none that closes."""
    target.mkdir(parents=True)
    files = sorted((folder / "pieces" / name).iterdir())
    for file in files:
        os.symlink(file, target / file.name)
    if closed:
        last = pq.read_table(files[-1])
        last = last.slice(last.num_rows - 1)
        later = pc.add(last.column("date_time"), pa.scalar(timedelta(days=1)))
        pq.write_table(
            last.set_column(last.schema.get_field_index("date_time"), "date_time", later), target / "last.parquet"
        )


def _session() -> SparkSession:
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    return (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.memory", "3g")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )


def _asked(name: str, frames: dict[str, DataFrame]) -> DataFrame:
    match name:
        case "q0":
            return frames["bid"]
        case "q1":
            return frames["bid"].withColumn("price", f.col("price") * f.lit(0.908))
        case "q2":
            return frames["bid"].where("auction % 123 = 0")
        case "q3":
            auctions = frames["auction"].where("category = 10").withColumnRenamed("id", "auction")
            people = frames["person"].where("state IN ('OR', 'ID', 'CA')")
            joined = auctions.join(people, auctions.seller == people.id)
            return joined.select("name", "city", "state", f.col("auction").alias("id"))
        case "q5":
            counted = (
                frames["bid"].groupBy(f.window("date_time", _SIZE, _SLIDE), "auction").agg(f.count("*").alias("bids"))
            )
            best = f.max(f.struct("bids", (-f.col("auction")).alias("negated"))).alias("best")
            top = counted.groupBy("window").agg(best)
            return top.select(
                f.col("window.start").alias("window_start"),
                (-f.col("best.negated")).alias("auction"),
                f.col("best.bids").alias("bids"),
            )
        case "q7":
            window = f.window("date_time", _SIZE)
            highest = frames["bid"].groupBy(window).agg(f.max("price").alias("price"))
            return highest.select(f.col("window.start").alias("window_start"), "price")
        case "q8":
            people = frames["person"].select("id", "name", f.window("date_time", _SIZE).alias("joined"))
            opened = frames["auction"].groupBy(f.window("date_time", _SIZE).alias("opened"), "seller").agg(f.count("*"))
            met = people.join(opened, (people.id == opened.seller) & (people.joined == opened.opened))
            return met.select("id", "name", f.col("joined.start").alias("window_start"))
        case "q12":
            counted = frames["bid"].groupBy(f.window("date_time", _SIZE), "bidder").agg(f.count("*").alias("bids"))
            return counted.select(f.col("window.start").alias("window_start"), "bidder", "bids")
        case _:
            (keys,) = frames.values()
            return keys.groupBy("key").agg(f.count("*").alias("n"))


def _as_asked(table: pa.Table) -> pa.Table:
    """Timestamps without a zone, as the other contestants have them."""
    for at, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(at, field.name, table.column(at).cast(pa.timestamp("us")))
    return table


if __name__ == "__main__":
    contestant(run)
