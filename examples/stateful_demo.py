"""A function of your own over a stream, with a state for each key: planes that leave very late time and again.

usage: stateful_demo.py [TIMES]     how often in a row, 4 unless told otherwise

All departures from New York in 2013 go through one Python function, in epochs. For each plane it keeps how many of its
last departures in a row were more than an hour late. The function works on columns, so that it costs little for a row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from _flights import files

from velaria import DataflowSession, MemorySink, ReplaySource, Trigger

DEPARTURES = """
    SELECT tailnum, origin, dest, dep_delay, CAST(time_hour AS TIMESTAMP) + to_minutes(minute + dep_delay) AS departed
    FROM flights
    WHERE dep_delay IS NOT NULL AND tailnum IS NOT NULL
    ORDER BY departed, tailnum, flight
"""

ALERTS = pa.schema(
    [("tailnum", pa.string()), ("departed", pa.timestamp("us")), ("dest", pa.string()), ("in_a_row", pa.int64())]
)
STATE = pa.schema([("in_a_row", pa.int64())])
LATE_MINUTES = 60


class Streaks:
    """Tells of a plane when it has left late `times` times in a row."""

    def __init__(self, times: int) -> None:
        self._times = times

    def __call__(self, rows: pa.Table, state: pa.Table) -> tuple[pa.Table, pa.Table]:
        """New departures, a plane's together and in their order, and what is known of these planes."""
        planes = rows.column("tailnum").to_pylist()
        known = dict(zip(state.column("tailnum").to_pylist(), state.column("in_a_row").to_pylist(), strict=True))
        place = np.arange(len(planes))
        first = np.array([at == 0 or planes[at] != planes[at - 1] for at in place])
        last = np.append(first[1:], True)
        late = rows.column("dep_delay").to_numpy() > LATE_MINUTES
        # A run of late departures begins after the last one on time, or with the plane's first row, and then it goes on
        # from what is known.
        began = np.maximum.accumulate(np.where(~late, place + 1, np.where(first, place, 0)))
        carried = np.array([known.get(plane, 0) for plane in planes]) * (
            began == np.maximum.accumulate(np.where(first, place, 0))
        )
        in_a_row = pa.array(np.where(late, place - began + 1 + carried, 0))
        told = rows.select(["tailnum", "departed", "dest"]).append_column("in_a_row", in_a_row)
        kept = told.select(["tailnum", "in_a_row"]).filter(pa.array(last & late))
        return told.filter(pa.array(in_a_row.to_numpy() == self._times)), kept


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A function with a state for each key.")
    parser.add_argument("times", type=int, nargs="?", default=4, help="how often in a row")
    times = parser.parse_args(arguments).times

    with tempfile.TemporaryDirectory() as scratch, DataflowSession() as session:
        session.create_temp_view("flights", session.read_csv(files(Path(scratch))["flights"]))
        departures = session.sql(DEPARTURES).to_arrow()
        session.create_temp_view("departures", session.create_dataframe(departures))
        whole = session.table("departures").group_by("tailnum")
        batch = whole.apply_in_batches(Streaks(times), ALERTS, STATE, order_by="departed").order_by(
            "departed", "tailnum"
        )

        stream = session.read_stream(ReplaySource(departures, "departed"), "departures").group_by("tailnum")
        alerts = stream.apply_in_batches(Streaks(times), ALERTS, STATE, order_by="departed")
        sink = MemorySink()
        query = alerts.write_stream(sink, trigger=Trigger.available_now(), epoch_rows_max=8_192)
        query.start().await_termination()

        told = query.progress()
        print(f"{told['rows_in']:,} departures in {told['epoch']} epochs, {told['state_rows']:,} planes with a state")
        found = session.create_dataframe(sink.result()).order_by("departed", "tailnum")
        same = found.to_arrow().equals(batch.to_arrow())
        print(f"{found.count()} times a plane left more than an hour late for the {times}th time in a row")
        print(f"the stream tells what batch tells: {'yes' if same else 'NO'}")
        found.limit(5).show()
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
