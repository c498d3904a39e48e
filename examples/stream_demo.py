"""A year of departures as a stream, joined with the weather, killed half-way and resumed: as if nothing had happened.

usage: stream_demo.py [--seconds S]     how long the year takes, 4 seconds unless told otherwise

The flights that left New York in 2013 are replayed in the order in which they left. Delays are counted in windows of
three hours that slide by one; a window comes out once, when time has passed it, into a folder of Parquet files. The
process that does it is killed in summer and started again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq
from _flights import files

from velaria import DataflowSession, ReplaySource

DEPARTURES = """
    SELECT origin, carrier, dep_delay, time_hour, time_hour + to_minutes(minute + dep_delay) AS departed
    FROM flights
    WHERE dep_delay IS NOT NULL
    ORDER BY departed, carrier, flight
"""

DELAYS = """
    SELECT left_at.origin AS origin, window_start, count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay,
           min(visib) AS miles_of_sight
    FROM HOP(TABLE departures, DESCRIPTOR(departed), INTERVAL '1 hour', INTERVAL '3 hours') AS left_at
    JOIN weather ON left_at.origin = weather.origin AND left_at.time_hour = weather.time_hour
    GROUP BY left_at.origin, window_start
"""

WORST = """
    SELECT origin, CAST(window_start AS VARCHAR) AS three_hours_from, flights, mean_delay, miles_of_sight
    FROM {delays}
    WHERE flights >= 10
    ORDER BY mean_delay DESC, origin, window_start
    LIMIT 5
"""

EPOCH_ROWS = 4_096
YEAR = date(2013, 1, 1), date(2014, 1, 1)
SUMMER = date(2013, 7, 2)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A stream that is killed and goes on.")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long the year takes")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # what the killed process is told
    given = parser.parse_args(arguments)
    if given.work is not None:
        work(given.work, given.seconds)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return show(Path(scratch), given.seconds)


def show(folder: Path, seconds: float) -> int:
    """Start, kill, start again, and compare with batch."""
    with DataflowSession() as session:
        for name, file in files(folder).items():
            session.create_temp_view(name, session.read_csv(file))
        departures = session.sql(DEPARTURES).to_arrow()
        session.create_temp_view("departures", session.create_dataframe(departures))
        pq.write_table(departures, folder / "departures.parquet")
        session.table("weather").write_parquet(folder / "weather.parquet")
        print(f"New York, 2013: {departures.num_rows:,} departures, as a stream, beside the weather of each hour")
        print(DELAYS)

        expected = session.sql(DELAYS).to_arrow().sort_by([("origin", "ascending"), ("window_start", "ascending")])
        begun = perf_counter()
        killed = follow(folder, seconds, until=SUMMER)
        print("the process was killed half-way, with SIGKILL" if killed else "THE PROCESS ENDED BY ITSELF")
        print(f"some windows are there, and not all: {'yes' if 0 < windows(folder).num_rows < len(expected) else 'NO'}")
        follow(folder, seconds)
        print("another one was started in the same folder, and went on after the last epoch that was durable")
        print(f"both took {perf_counter() - begun:.1f} s")

        found = windows(folder).sort_by([("origin", "ascending"), ("window_start", "ascending")])
        same = found.equals(expected)
        print(f"{found.num_rows:,} windows came out, each once, and are those of batch: {'yes' if same else 'NO'}")
        session.create_temp_view("delays", session.create_dataframe(found))
        print("\nthe worst of them")
        session.sql(WORST.format(delays="delays")).show()
    return 0 if same and killed else 1


def work(folder: Path, seconds: float) -> None:
    """The process that is killed: one durable query. It tells up to when windows are out, a line an epoch."""
    departures = pq.read_table(folder / "departures.parquet")
    year_s = (YEAR[1] - YEAR[0]).total_seconds()
    with DataflowSession() as session:
        session.create_temp_view("weather", session.read_parquet(folder / "weather.parquet"))
        source = ReplaySource(departures, "departed", speed=year_s / seconds)
        session.create_temp_view("departures", session.read_stream(source, "departures").with_watermark("departed"))
        session.sql(f"CREATE SINK TABLE delays USING parquet OPTIONS(path: '{folder / 'delays'}')")
        query = session.start_stream_sql(
            f"INSERT INTO delays {DELAYS} EMIT ON WINDOW CLOSE",
            checkpoint_path=str(folder / "checkpoint"),
            epoch_rows_max=EPOCH_ROWS,
        )
        query.add_listener(lambda event: print(event.progress.watermark or "", flush=True))
        query.await_termination()


def follow(folder: Path, seconds: float, until: date = date.max) -> bool:
    """Run the work in a process of its own, draw how far it is, and kill it on this day. Whether it was killed."""
    command = [sys.executable, __file__, "--work", str(folder), "--seconds", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line[:4] != str(YEAR[0].year):  # no time yet, or the end of it
                continue
            today = date.fromisoformat(line[:10])
            draw(today)
            if today >= until:
                process.kill()
                break
        draw(None)
        process.stdout.read()
        return process.wait() < 0


def draw(today: date | None) -> None:
    """A bar in place, on a terminal; None takes it away."""
    if sys.stderr.isatty():
        done = (today - YEAR[0]) / (YEAR[1] - YEAR[0]) if today is not None else 0.0
        bar = f"{'█' * round(40 * done):░<40} {today}" if today is not None else ""
        sys.stderr.write(f"\r\x1b[K{bar}")
        sys.stderr.flush()


def windows(folder: Path) -> pa.Table:
    """The windows that have come out."""
    with DataflowSession() as session:
        return session.read_parquet(folder / "delays").to_arrow()


if __name__ == "__main__":
    sys.exit(main())
