"""Velaria: the query as SQL over streams, in memory, on the threads that it starts by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq
from _stream import EPOCH_ROWS, Answer, Workload, contestant

from velaria import ArrowReaderSource, CallbackSink, DataflowSession, MemorySink, Trigger


@dataclass(frozen=True, slots=True)
class Asked:
    """What Velaria is asked.

    Attributes:
        sql: over views of the tables' names.
        output_mode: append brings a window out once, when it closes.
    """

    sql: str
    output_mode: str = "update"


_TUMBLE = "TUMBLE(TABLE {table}, DESCRIPTOR(date_time), INTERVAL '10 seconds')"
_COUNT = Asked("SELECT key, count(*) AS n FROM {keys} GROUP BY key")

ASKED = {
    "q0": Asked("SELECT auction, bidder, price, channel, url, date_time FROM bid"),
    "q1": Asked("SELECT auction, bidder, 0.908::DOUBLE * price AS price, channel, url, date_time FROM bid"),
    "q2": Asked("SELECT auction, price FROM bid WHERE auction % 123 = 0"),
    "q3": Asked(
        "SELECT name, city, state, auction.id AS id FROM auction JOIN person ON seller = person.id "
        "WHERE category = 10 AND state IN ('OR', 'ID', 'CA')"
    ),
    "q5": Asked(
        "SELECT window_start, auction, count(*) AS bids "
        "FROM HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2 seconds', INTERVAL '10 seconds') "
        "GROUP BY window_start, auction "
        "QUALIFY row_number() OVER (PARTITION BY window_start ORDER BY bids DESC, auction) = 1",
        "append",
    ),
    "q7": Asked(
        f"SELECT window_start, max(price) AS price FROM {_TUMBLE.format(table='bid')} GROUP BY window_start", "append"
    ),
    "q8": Asked(
        f"SELECT id, name, person.window_start AS window_start FROM {_TUMBLE.format(table='person')} AS person "
        f"JOIN (SELECT DISTINCT seller, window_start FROM {_TUMBLE.format(table='auction')}) AS opened "
        "ON id = seller AND person.window_start = opened.window_start",
        "append",
    ),
    "q12": Asked(
        f"SELECT window_start, bidder, count(*) AS bids FROM {_TUMBLE.format(table='bid')} "
        "GROUP BY window_start, bidder",
        "append",
    ),
    "count_1k": _COUNT,
    "count_1m": _COUNT,
}


def reader(file: Path, columns: tuple[str, ...], rows: int) -> pa.RecordBatchReader:
    """The batches of a Parquet file, decoded as they are asked for."""
    parquet = pq.ParquetFile(file)
    schema = pa.schema([parquet.schema_arrow.field(name) for name in columns])
    batches = (batch.select(list(columns)) for batch in parquet.iter_batches(rows, columns=list(columns)))
    return pa.RecordBatchReader.from_batches(schema, batches)


def run(workload: Workload, folder: Path, _scratch: Path, answer: Answer) -> None:
    asked = ASKED[workload.name]
    # Kept, the changes are summed up by the sink; otherwise they are dropped as they come.
    sink = MemorySink() if answer.kept else CallbackSink(lambda _epoch, table: answer.add(table))
    lengths = {name: pq.read_metadata(folder / f"{name}.parquet").num_rows for name in workload.reads}
    with DataflowSession() as session:
        answer.first_s = perf_counter()
        for name, columns in workload.reads.items():
            rows = max(1, EPOCH_ROWS * lengths[name] // sum(lengths.values()))
            source = ArrowReaderSource(reader(folder / f"{name}.parquet", columns, rows))
            stream = session.read_stream(source, name)
            if asked.output_mode == "append" and "date_time" in columns:
                stream = stream.with_watermark("date_time", "0s")
            session.create_temp_view(name, stream)
        sql = asked.sql.format(keys=next(iter(workload.reads)))
        query = session.stream_sql(sql).write_stream(
            sink, trigger=Trigger.available_now(), output_mode=asked.output_mode, epoch_rows_max=EPOCH_ROWS
        )
        query.add_listener(lambda event: answer.latencies_ms.append(event.progress.last_batch_latency_ms))
        query.start().await_termination()
        answer.last_s = perf_counter()
        if isinstance(sink, MemorySink):
            answer.add(sink.result())


if __name__ == "__main__":
    contestant(run)
