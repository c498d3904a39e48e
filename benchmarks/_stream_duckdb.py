"""Bare DuckDB: prepared statements over a feed of Arrow data, one transaction an epoch, and nothing around them.

State is tables in memory. `STATEMENTS[query]` are the tables, then what an epoch runs; the result of a SELECT is the
epoch's output. A window comes out when a later one has begun, as a watermark without delay has it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from _stream import SLIDE_MS, WINDOW_MS, Answer, Workload, contestant, epochs


@dataclass(frozen=True, slots=True)
class Plan:
    """Statements over the tables of a query and its state.

    Attributes:
        made: run once.
        epoch: prepared once, run in every epoch; those that begin with SELECT give output.
        end: run once more as the stream ends.
    """

    epoch: tuple[str, ...]
    made: tuple[str, ...] = ()
    end: tuple[str, ...] = ()


_W = f"time_bucket(to_milliseconds({WINDOW_MS}), date_time, TIMESTAMP '1970-01-01')"
_P = f"time_bucket(to_milliseconds({SLIDE_MS}), date_time, TIMESTAMP '1970-01-01')"
_LATER = f"to_milliseconds({WINDOW_MS - SLIDE_MS})"
# Every window that ends by the pane at hand and has not come out: panes of a window's length before it are kept.
_TOP = (
    "SELECT w AS window_start, auction, bids FROM (SELECT w, auction, CAST(sum(n) AS BIGINT) AS bids FROM "
    f"(SELECT unnest([pane - to_milliseconds(i * {SLIDE_MS}) FOR i IN range({WINDOW_MS // SLIDE_MS})]) AS w, "
    "auction, n FROM panes) WHERE w > (SELECT coalesce(max(w), TIMESTAMP '1970-01-01') FROM done) {until} "
    "GROUP BY w, auction) QUALIFY row_number() OVER (PARTITION BY w ORDER BY bids DESC, auction) = 1"
)
_UNTIL = f"AND w < (SELECT max(pane) FROM panes) - {_LATER}"
_COUNT = Plan(
    made=("CREATE TABLE counts (key VARCHAR, n BIGINT)", "CREATE TABLE now (key VARCHAR, n BIGINT)"),
    epoch=(
        "INSERT INTO now SELECT key, CAST(sum(n) AS BIGINT) FROM (SELECT key, count(*) AS n FROM {keys} GROUP BY key "
        "UNION ALL SELECT * FROM counts SEMI JOIN {keys} USING (key)) GROUP BY key",
        "DELETE FROM counts USING now WHERE counts.key = now.key",
        "INSERT INTO counts FROM now",
        "SELECT * FROM now",
        "TRUNCATE now",
    ),
)

PLANS = {
    "q0": Plan(("SELECT auction, bidder, price, channel, url, date_time FROM bid",)),
    "q1": Plan(("SELECT auction, bidder, 0.908::DOUBLE * price AS price, channel, url, date_time FROM bid",)),
    "q2": Plan(("SELECT auction, price FROM bid WHERE auction % 123 = 0",)),
    "q3": Plan(
        made=(
            "CREATE TABLE people (id BIGINT, name VARCHAR, city VARCHAR, state VARCHAR)",
            "CREATE TABLE auctions (id BIGINT, seller BIGINT)",
        ),
        epoch=(
            "INSERT INTO people FROM person WHERE state IN ('OR', 'ID', 'CA')",
            "SELECT name, city, state, auction.id AS id FROM auction JOIN people ON seller = people.id "
            "WHERE category = 10",
            "SELECT name, city, state, auctions.id AS id FROM auctions JOIN person ON seller = person.id "
            "WHERE state IN ('OR', 'ID', 'CA')",
            "INSERT INTO auctions SELECT id, seller FROM auction WHERE category = 10",
        ),
    ),
    "q5": Plan(
        made=(
            "CREATE TABLE panes (pane TIMESTAMP, auction BIGINT, n BIGINT)",
            "CREATE TABLE done (w TIMESTAMP)",
        ),
        epoch=(
            f"INSERT INTO panes SELECT {_P}, auction, count(*) FROM bid GROUP BY ALL",
            _TOP.format(until=_UNTIL),
            f"INSERT INTO done SELECT max(pane) - {_LATER} - to_milliseconds({SLIDE_MS}) FROM panes",
            "DELETE FROM panes WHERE pane <= (SELECT max(w) FROM done)",
        ),
        end=(_TOP.format(until=""),),
    ),
    "q7": Plan(
        made=("CREATE TABLE panes (w TIMESTAMP, price BIGINT)",),
        epoch=(
            f"INSERT INTO panes SELECT {_W}, max(price) FROM bid GROUP BY ALL",
            "SELECT w AS window_start, max(price) AS price FROM panes WHERE w < (SELECT max(w) FROM panes) GROUP BY w",
            "DELETE FROM panes WHERE w < (SELECT max(w) FROM panes)",
        ),
        end=("SELECT w AS window_start, max(price) AS price FROM panes GROUP BY w",),
    ),
    "q8": Plan(
        made=(
            "CREATE TABLE people (w TIMESTAMP, id BIGINT, name VARCHAR)",
            "CREATE TABLE sellers (w TIMESTAMP, seller BIGINT)",
        ),
        epoch=(
            f"INSERT INTO people SELECT {_W}, id, name FROM person",
            f"INSERT INTO sellers SELECT DISTINCT {_W}, seller FROM auction",
            "SELECT id, name, w AS window_start FROM people SEMI JOIN sellers ON people.w = sellers.w AND id = seller "
            "WHERE people.w < (SELECT max(w) FROM sellers)",
            "DELETE FROM people WHERE w < (SELECT max(w) FROM sellers)",
            "DELETE FROM sellers WHERE w < (SELECT max(w) FROM sellers)",
        ),
        end=(
            "SELECT id, name, w AS window_start FROM people SEMI JOIN sellers ON people.w = sellers.w AND id = seller",
        ),
    ),
    "q12": Plan(
        made=("CREATE TABLE panes (w TIMESTAMP, bidder BIGINT, n BIGINT)",),
        epoch=(
            f"INSERT INTO panes SELECT {_W}, bidder, count(*) FROM bid GROUP BY ALL",
            "SELECT w AS window_start, bidder, CAST(sum(n) AS BIGINT) AS bids FROM panes "
            "WHERE w < (SELECT max(w) FROM panes) GROUP BY ALL",
            "DELETE FROM panes WHERE w < (SELECT max(w) FROM panes)",
        ),
        end=("SELECT w AS window_start, bidder, CAST(sum(n) AS BIGINT) AS bids FROM panes GROUP BY ALL",),
    ),
    "count_1k": _COUNT,
    "count_1m": _COUNT,
}


class Feed:
    """An Arrow table that statements read by name, another one each epoch."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self.table = schema.empty_table()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()


def run(workload: Workload, folder: Path, _scratch: Path, answer: Answer) -> None:
    warnings.filterwarnings("ignore", "Arrow output on a DB-API result")
    plan = PLANS[workload.name]
    keys = next(iter(workload.reads))
    with duckdb.connect() as connection:
        feeds = {}
        for name, columns in workload.reads.items():
            schema = pq.read_schema(folder / f"{name}.parquet")
            feeds[name] = Feed(pa.schema([schema.field(column) for column in columns]))
            connection.register(name, feeds[name])
        for statement in plan.made:
            connection.execute(statement)
        for at, statement in enumerate(plan.epoch):
            connection.execute(f"PREPARE s{at} AS {statement.format(keys=keys)}")

        def output(statement: str, sql: str) -> None:
            made = connection.execute(sql)
            if statement.startswith("SELECT") and (table := made.to_arrow_table()).num_rows:
                answer.add(table)

        for tables in epochs(folder, workload):
            began = perf_counter()
            for name, feed in feeds.items():
                feed.table = tables.get(name, feed.table.schema.empty_table())
            connection.execute("BEGIN")
            for at, statement in enumerate(plan.epoch):
                output(statement, f"EXECUTE s{at}")
            connection.execute("COMMIT")
            answer.latencies_ms.append(1000 * (perf_counter() - began))
        for statement in plan.end:
            output(statement, statement)


if __name__ == "__main__":
    contestant(run)
