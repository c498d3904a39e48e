"""pyclink: an embedded C++ engine with streaming SQL. It reads the Parquet files itself and gives Arrow batches.

Times are milliseconds in BIGINT columns, as it wants them. It reads every column of a file, so its files have those
that the query reads and no more. Its epochs are its own affair, so
there is no latency of them to tell. A keyed count over a bounded source comes out once, at the end.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc
import pyclink
from _stream import Answer, Workload, contestant, timestamps

_TEXT = {"name", "city", "state", "channel", "url", "key"}
_SIZE, _SLIDE = "INTERVAL '10' SECOND", "INTERVAL '2' SECOND"
# The columns of the answer, and the query; with "changelog" rows may come anew.
_ASKED = {
    "q0": (
        "auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR, date_time BIGINT",
        "SELECT auction, bidder, price, channel, url, date_time FROM bid",
    ),
    "q1": (
        "auction BIGINT, bidder BIGINT, price DOUBLE PRECISION, channel VARCHAR, url VARCHAR, date_time BIGINT",
        "SELECT auction, bidder, CAST(0.908 AS DOUBLE PRECISION) * CAST(price AS DOUBLE PRECISION) AS price, "
        "channel, url, date_time FROM bid",
    ),
    "q2": ("auction BIGINT, price BIGINT", "SELECT auction, price FROM bid WHERE auction % 123 = 0"),
    "q3": (
        "name VARCHAR, city VARCHAR, state VARCHAR, id BIGINT",
        "SELECT p.name AS name, p.city AS city, p.state AS state, a.id AS id FROM auction a JOIN person p "
        "ON a.seller = p.id WHERE a.category = 10 AND (p.state = 'OR' OR p.state = 'ID' OR p.state = 'CA')",
    ),
    "q5": (
        "window_start BIGINT, auction BIGINT, bids BIGINT",
        "SELECT window_start, auction, bids FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start "
        "ORDER BY bids DESC, auction ASC) AS place FROM (SELECT auction, COUNT(*) AS bids, window_start FROM bid "
        f"GROUP BY HOP(date_time, {_SIZE}, {_SLIDE}), auction) AS counted) AS ranked WHERE place <= 1",
    ),
    "q7": (
        "window_start BIGINT, price BIGINT",
        f"SELECT window_start, MAX(price) AS price FROM bid GROUP BY TUMBLE(date_time, {_SIZE})",
    ),
    "q8": (
        "id BIGINT, name VARCHAR, window_start BIGINT",
        "SELECT p_id AS id, p_name AS name, p_began AS window_start FROM "
        "(SELECT id, name, COUNT(*) AS n, window_start AS began FROM person "
        f"GROUP BY TUMBLE(date_time, {_SIZE}), id, name) AS p "
        "JOIN (SELECT seller, COUNT(*) AS n, window_start AS began FROM auction "
        f"GROUP BY TUMBLE(date_time, {_SIZE}), seller) AS a ON p.id = a.seller WHERE p_began = a_began",
    ),
    "q12": (
        "window_start BIGINT, bidder BIGINT, bids BIGINT",
        f"SELECT window_start, bidder, COUNT(*) AS bids FROM bid GROUP BY TUMBLE(date_time, {_SIZE}), bidder",
    ),
    "count_1k": ("key VARCHAR, n BIGINT", "SELECT key, COUNT(*) AS n FROM keys_1k GROUP BY key"),
    "count_1m": ("key VARCHAR, n BIGINT", "SELECT key, COUNT(*) AS n FROM keys_1m GROUP BY key"),
}
_CHANGELOGS = {"q5", "count_1k", "count_1m"}


def run(workload: Workload, folder: Path, _scratch: Path, answer: Answer) -> None:
    given, query = _ASKED[workload.name]
    with pyclink.Engine() as engine:
        for name, columns in workload.reads.items():
            declared = ", ".join(f"{column} {'VARCHAR' if column in _TEXT else 'BIGINT'}" for column in columns)
            time = ", event_time_column='date_time', watermark_lag_ms='0'" if "date_time" in columns else ""
            engine.execute(
                f"CREATE TABLE {name} ({declared}) WITH (connector='parquet', format='json', "
                f"path='{folder / 'milliseconds' / workload.name / name}.parquet'{time})"
            )
        changelog = ", changelog='true'" if workload.name in _CHANGELOGS else ""
        engine.execute(f"CREATE TABLE answer ({given}) WITH (connector='collect', format='json'{changelog})")
        answer.first_s = perf_counter()
        engine.execute(f"INSERT INTO answer {query}")
        for batch in engine.collect("answer"):
            answer.add(pa.Table.from_batches([batch]))
        answer.last_s = perf_counter()
        engine.await_all()
    answer.tables = [_as_asked(table) for table in answer.tables if table.num_rows]


def _as_asked(table: pa.Table) -> pa.Table:
    """Times as timestamps, and no row kinds: what is retracted is replaced by what comes after."""
    if "row_kind" in table.schema.names:
        kinds = table.column("row_kind")
        table = table.filter(pc.is_in(kinds, pa.array(["insert", "update_after"]))).drop_columns(["row_kind"])
    for name in ("window_start", "date_time"):
        if name in table.schema.names:
            table = table.set_column(
                table.schema.get_field_index(name), name, timestamps(table.column(name).to_numpy())
            )
    return table


if __name__ == "__main__":
    contestant(run)
