"""The live view: what it draws of given progress, and that watching a query ends with it."""

from __future__ import annotations

import dataclasses
import io
import json
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from messages import PROGRESS, STREAM_EXPLAIN

from velaria_core.contract.codec import Progress, StreamExplain
from velaria_core.contract.modes import QueryStatus, Shape
from velaria_core.errors import InputError, VelariaError, display_width
from velaria_core.execution.live import Form, View, duration, fitting_form, size, sparkline
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.session import DataflowSession

TOLD = dataclasses.replace(PROGRESS, error=None, watermark="2013-01-01T05:15:00.000001Z")
WALL_MS = 1_357_017_303_000  # three seconds after that watermark


def measured() -> StreamExplain:
    first, second = STREAM_EXPLAIN.physical.nodes[:2]
    nodes = (
        dataclasses.replace(first, id=2, operator="Aggregate", time_ms=6.0),
        dataclasses.replace(second, id=1, operator="Scan", time_ms=3.0, shape=Shape.SOURCE),
    )
    physical = dataclasses.replace(STREAM_EXPLAIN.physical, nodes=nodes, state_ms=1.0)
    return dataclasses.replace(STREAM_EXPLAIN, physical=physical)


def view(*later: Progress) -> View:
    """Progress, and what followed second by second."""
    made = View(dataclasses.replace(TOLD, rows_in=0), 0)
    for at, progress in enumerate(later, start=1):
        made.take(progress, at * 1_000.0, measured())
    return made


PICTURE = """\
stream-query-1  backpressure  2.0 s  at-least-once
  rows in    8,192   4,096/s  ██
  rows out   64
  epoch      7   2.5 ms   (sink 0.8, state 0.1)
  watermark  2013-01-01 05:15:00.000001   3.0 s behind the clock
  late       5 rows   3 dropped   2 set aside
  state      120 rows   9.9 GB
  in flight  1 batch, the queue holds 2   backpressure, blocked 3 times
  #2 Aggregate  ██████████████            60%
  #1 Scan       ███████                   30%
  commit        ██                        10%"""


def test_a_picture_of_a_query() -> None:
    half = dataclasses.replace(TOLD, rows_in=4_096)
    assert "\n".join(view(half, TOLD).lines(100, WALL_MS)) == PICTURE


def test_a_line_says_the_same() -> None:
    assert view(TOLD).line(WALL_MS) == (
        "stream-query-1 status=backpressure epoch=7 rows=8192 rows_per_second=8192 rows_out=64 latency_ms=2.5 "
        "watermark=2013-01-01T05:15:00.000001Z lag_s=3.0 late_rows=5 ahead_rows=2 state_rows=120 "
        "state_bytes=9876543210 inflight_batches=1 blocked_count=3"
    )


def test_lines_are_cut_to_the_terminal() -> None:
    for width in (10, 24, 40):
        lines = view(TOLD).lines(width, WALL_MS)
        assert all(display_width(line) < width for line in lines)
        assert lines[0].endswith("…")


def test_a_failed_query_says_with_what_and_cannot_steer_the_terminal() -> None:
    failed = dataclasses.replace(TOLD, status=QueryStatus.FAILED, error="stream.failed: \x1b[2J gone")
    lines = view(failed).lines(100, WALL_MS)
    assert "\x1b" not in "".join(lines)
    assert lines[-1].strip().startswith("stream.failed:")
    assert "\x1b" not in view(failed).line(WALL_MS)
    assert view(failed).lines(100, WALL_MS, coloured=True)[0].count("\x1b") == 2


@pytest.mark.parametrize(
    ("watermark", "shown"),
    [
        (None, "watermark  -"),
        ("infinity", "watermark  the end: all is closed"),
        ("2013-01-01T05:15:04.000000Z", "watermark  2013-01-01 05:15:04.000000   1.0 s ahead of the clock"),
        ("2012-12-30T02:14:03.000000Z", "watermark  2012-12-30 02:14:03.000000   2 d 3 h behind the clock"),
    ],
)
def test_watermarks(watermark: str | None, shown: str) -> None:
    lines = view(dataclasses.replace(TOLD, watermark=watermark)).lines(100, WALL_MS)
    assert f"  {shown}" in lines


def test_numbers_for_people() -> None:
    assert [size(n) for n in (0, 999, 1_000, 1_234_567, 9_876_543_210, 5 * 10**15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "9.9 GB",
        "5000.0 TB",
    ]
    assert [duration(s) for s in (0.04, 59.9, 60, 3_599, 3_600, 86_399, 86_400, 10**8)] == [
        "0.0 s",
        "59.9 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
        "23 h 59 min",
        "1 d 0 h",
        "1,157 d 9 h",
    ]
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 50, 100]) == "▁▅█"


# --- watching -----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def counted(rows: list[dict[str, Any]] | None = None) -> Any:
    session = DataflowSession()
    batches = [pa.table({"k": ["a", "b"], "v": ["1", "2"]})] * 5 if rows is None else [pa.Table.from_pylist(rows)]
    session.create_temp_view("events", session.read_stream(MemorySource(batches), "events"))
    frame = session.stream_sql("SELECT k, sum(v::BIGINT) AS s FROM events GROUP BY k")
    return frame.write_stream(MemorySink())


def test_watching_in_json_ends_with_what_the_query_says() -> None:
    query, out = counted(), io.StringIO()
    query.watch(every_s=0.01, form="json", stream=out)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert told[-1] == query.progress()
    assert told[-1]["status"] == "stopped"
    assert told[-1]["rows_in"] == 10
    assert all(one != other for one, other in pairwise(told))


def test_watching_a_pipe_writes_lines() -> None:
    query, out = counted(), io.StringIO()
    query.watch(every_s=0.01, stream=out)
    lines = out.getvalue().splitlines()
    assert all(line.startswith(f"{query.id} status=") for line in lines)
    assert "status=stopped" in lines[-1]
    assert "rows=10 " in lines[-1]
    assert "\x1b" not in out.getvalue()


def test_watching_a_terminal_draws_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    query, out = counted(), Terminal()
    query.watch(every_s=0.01, stream=out)
    *_, last = out.getvalue().split("\x1b[J")
    lines = last.splitlines()
    assert lines[0].startswith(f"{query.id}  stopped")
    assert any(line.startswith("  rows in    10") for line in lines)
    assert any("Aggregate" in line and "%" in line for line in lines)
    # Each picture but the first goes up over the one before it.
    pictures = out.getvalue().split("\x1b[")
    assert all(part[0].isdigit() or part.startswith("J") for part in pictures[1:])


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert fitting_form(Terminal()) is Form.LINES
    monkeypatch.setenv("TERM", "xterm")
    assert fitting_form(Terminal()) is Form.LIVE
    assert fitting_form(io.StringIO()) is Form.LINES


def test_watching_a_query_that_fails_shows_it_and_raises() -> None:
    query, out = counted([{"k": "a", "v": "x"}]), io.StringIO()
    with pytest.raises(VelariaError):
        query.watch(every_s=0.01, form="lines", stream=out)
    assert "status=failed" in out.getvalue()
    assert "error=" in out.getvalue()


def test_an_unknown_form_is_refused() -> None:
    query = counted()
    with pytest.raises(InputError, match='not watched as "movie"'):
        query.watch(form="movie")
    assert query.status is QueryStatus.CREATED
    query.stop()
