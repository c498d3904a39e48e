"""Event time in a query at work: its end comes once, late rows have their sink, silence moves it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from runtime_support import PATIENCE_S, Gathered, Scripted, finished, until

from velaria_core import fn
from velaria_core.contract import abi
from velaria_core.contract.modes import SinkMode
from velaria_core.errors import InputError
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock, ManualClock
from velaria_core.execution.options import stream_options
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.logical.event_time import END
from velaria_core.session import DataflowSession

SCHEMA = pa.schema([("ts", pa.int64()), ("v", pa.int64())])
MINUTE = 60_000


def at(*minutes: int) -> pa.Table:
    """Rows at these minutes."""
    return pa.table({"ts": [MINUTE * minute for minute in minutes], "v": [1] * len(minutes)}, schema=SCHEMA)


def timed(answers: list[Any], *, bounded: bool = True) -> Scripted:
    return Scripted(answers, bounded=bounded, schema=SCHEMA)


def windows(*sources: Scripted, sink: Gathered, late: str = "drop", clock: Clock = SYSTEM_CLOCK, **options: Any) -> Any:
    """Rows counted in windows of ten minutes that come out when they are closed."""
    session = DataflowSession(threads=1)
    streams = [
        session.read_stream(source, f"s{number}").with_watermark("ts", late=late, idle="1 minute")
        for number, source in enumerate(sources)
    ]
    frame = streams[0]
    for other in streams[1:]:
        frame = frame.union(other)
    counted = frame.window("ts", 10 * MINUTE).group_by("window_start").agg(n=fn.count())
    chosen = stream_options({"output_mode": "append", "epoch_rows_max": 1, **options})
    return StreamingQuery(session._engine, counted.node, sink, chosen, clock=clock)


def shown(sink: Gathered) -> list[tuple[int, int]]:
    return [(row["window_start"] // MINUTE, row["n"]) for row in sink.rows]


@pytest.mark.parametrize("threaded", [True, False])
def test_the_end_of_the_sources_closes_the_last_windows(threaded: bool) -> None:
    sink = Gathered()
    query = windows(timed([at(1, 2), at(11), at(25)]), sink=sink)
    _ = finished(query.start()) if threaded else query.process_available()
    assert shown(sink) == [(0, 2), (10, 1), (20, 1)]
    assert query.progress()["watermark"] == "infinity"
    query.stop()


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_the_end_comes_once_also_after_a_restart(batches: int, tmp_path: Path) -> None:
    source, found = timed([at(1, 2), at(11), at(25)]), []
    for most in (batches, None, None):
        sink = Gathered()
        query = windows(source, sink=sink, checkpoint_path=str(tmp_path))
        if most is not None:
            assert query.await_termination(PATIENCE_S, max_batches=most)
        else:
            finished(query.start())
        found += shown(sink)
    assert found == [(0, 2), (10, 1), (20, 1)]
    assert query._flow.watermark_us == END


def test_nothing_is_done_once_the_end_was_reached(tmp_path: Path) -> None:
    source, epochs = timed([at(1, 2), at(11), at(25)]), []
    for _ in range(3):
        query = windows(source, sink=Gathered(), checkpoint_path=str(tmp_path))
        finished(query.start())
        epochs.append(query._epochs.last.epoch)
    assert len(set(epochs)) == 1


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("threaded", [True, False])
def test_a_step_that_is_always_due_does_not_keep_a_query_busy(threaded: bool, bounded: bool) -> None:
    """The function asks to be called again at a time that has passed, whenever it is called."""
    calls = 0

    def again(rows: pa.Table, _state: pa.Table) -> tuple[pa.Table, pa.Table]:
        nonlocal calls
        calls += 1
        assert calls < 100
        return rows, pa.table({"v": [1], "until": [datetime(1970, 1, 1)]}, schema=kept)

    session, sink = DataflowSession(threads=1), Gathered()
    state, clock = pa.schema([("until", pa.timestamp("us"))]), ManualClock()
    kept = pa.schema([("v", pa.int64()), *state])
    stream = session.read_stream(timed([at(1), at(11)], bounded=bounded)).with_watermark("ts")
    frame = stream.group_by("v").apply_in_batches(again, SCHEMA, state, expires="until")
    query = StreamingQuery(session._engine, frame.node, sink, stream_options({}), clock=clock)
    if not threaded:
        query.process_available()
    elif bounded:
        finished(query.start())
    else:
        query.start()
        # It has something to wait for: the next look at what is due.
        until(lambda: len(sink.rows) == 2 and clock.next_deadline_ms() is not None, query)
    query.stop()
    assert len(sink.rows) == 2
    assert calls <= 4


def test_a_stop_is_no_end() -> None:
    """What is open stays open: more rows may come when the query goes on."""
    source, sink = timed([at(1, 2), at(11), at(25)], bounded=False), Gathered()
    query = windows(source, sink=sink)
    query.process_available()
    query.stop()
    assert shown(sink) == [(0, 2), (10, 1)]


def test_late_rows_go_to_their_sink(tmp_path: Path) -> None:
    source, sink, late = timed([at(1), at(25), at(2), at(26)]), Gathered(), Gathered()
    query = windows(source, sink=sink, late="side", late_sink=late, checkpoint_path=str(tmp_path))
    query.process_available()
    query.stop()
    assert shown(sink) == [(0, 1), (20, 2)]
    assert [row["ts"] // MINUTE for row in late.rows] == [2]
    assert late.contexts[0].mode is SinkMode.APPEND
    assert late.contexts[0].schema.names == ["ts", "v"]
    assert query.progress()["late_rows"] == 1


def test_late_rows_without_a_sink_for_them_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        windows(timed([at(1)]), sink=Gathered(), late="side")
    assert caught.value.code == "stream.late_sink"


def test_a_stream_that_has_ended_holds_no_other_back() -> None:
    sink = Gathered()
    query = windows(timed([at(1)]), timed([at(2), at(11), at(25)], bounded=False), sink=sink)
    query.process_available()
    query.stop()
    assert shown(sink) == [(0, 2), (10, 1)]


def test_silence_moves_the_watermark_without_rows() -> None:
    """One stream says nothing for a minute of the clock: the windows of the other close."""
    clock = ManualClock()
    one, two, sink = timed([at(1)], bounded=False), timed([at(2), at(25)], bounded=False), Gathered()
    query = windows(one, two, sink=sink, clock=clock)
    query.process_available()
    assert shown(sink) == []
    one.answers.append(at(3))
    clock.advance(59_000)
    query.process_available()
    assert shown(sink) == []
    two.answers.append(at(26))
    clock.advance(2_000)
    query.process_available()
    assert shown(sink) == []
    clock.advance(58_000)
    query.process_available()
    assert shown(sink) == [(0, 3)]
    query.stop()


def test_silence_moves_the_watermark_of_a_query_that_waits() -> None:
    clock, closed = ManualClock(), Gathered()
    one, two = timed([at(1)], bounded=False), timed([at(2), at(25)], bounded=False)
    query = windows(one, two, sink=closed, clock=clock).start()
    until(lambda: query.progress()["batches_processed"] == 3, query)
    clock.advance(59_000)
    two.answers.append(at(26))
    until(lambda: query.progress()["batches_processed"] == 4, query, each=lambda: clock.advance(1))
    assert shown(closed) == []
    until(lambda: bool(closed.rows), query, each=lambda: clock.advance(1_000))
    assert shown(closed) == [(0, 2)]
    query.stop()


def test_the_clock_is_followed_where_asking_takes_longer_than_the_wait_between_two() -> None:
    """One of two sources is then always due: the query has nothing to do all the same, and its windows close."""

    class Slow(Scripted):
        def next_batch(self, max_rows: int) -> abi.Batch | abi.Blocked | abi.EndOfStream:
            clock.advance(1_000)
            return super().next_batch(max_rows)

    session, clock, sink = DataflowSession(threads=1), ManualClock(), Gathered()
    one, two = (session.read_stream(Slow([at(1)], bounded=False, schema=SCHEMA), name) for name in ("one", "two"))
    seen = one.union(two).with_processing_time("seen").window("seen", 10_000, "w")
    counted = seen.group_by("w").agg(n=fn.count())
    options = stream_options({"output_mode": "append", "idle_wait_ms": 100})
    query = StreamingQuery(session._engine, counted.node, sink, options, clock=clock).start()
    until(lambda: sum(row["n"] for row in sink.rows) == 2, query)
    query.stop()
