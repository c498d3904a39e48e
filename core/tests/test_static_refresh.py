"""A table that is joined to a stream and read again: what changed in it corrects what was said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from runtime_support import until

from velaria_core.errors import ExternalError, InputError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.session import DataflowSession

EVENTS = pa.schema([("k", pa.string()), ("v", pa.int64())])
MINUTE_MS = 60_000


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        yield made


def write(path: Path, *rows: str) -> None:
    """A whole file in the place of another, as `refresh_every` asks for."""
    partial = path.with_suffix(".partial")
    partial.write_text("k,name\n" + "".join(f"{row}\n" for row in rows))
    os.replace(partial, path)


class Joined:
    """A stream of events joined with a file of names, on a clock that stands still."""

    def __init__(
        self, session: DataflowSession, path: Path, checkpoint: Path | None = None, every: str | int = "1 minute"
    ):
        self.clock = ManualClock(start_ms=1_000)
        self.source = MemorySource(schema=EVENTS, bounded=False)
        self.session = session
        self.frame = session.read_stream(self.source, "events").join(
            session.read_csv(path).refresh_every(every), on="k", how="left"
        )
        self._checkpoint = checkpoint
        self.sink = MemorySink()
        self.open()

    def open(self) -> None:
        path = None if self._checkpoint is None else str(self._checkpoint)
        options = StreamOptions(checkpoint_path=path)
        engine = self.session._engine
        self.query = StreamingQuery(engine, self.frame.node, self.sink, options, clock=self.clock)

    def restart(self) -> None:
        self.query.stop()
        self.open()

    def epoch(self, **events: Any) -> list[tuple[Any, ...]]:
        if events:
            self.source.add(pa.table(events, schema=EVENTS))
        self.query.process_available()
        return sorted(tuple(row.values()) for row in self.sink.result().to_pylist())


def test_what_changed_in_the_table_corrects_the_result(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    write(path, "a,Ada", "b,Bob")
    joined = Joined(session, path)
    assert joined.epoch(k=["a", "b", "c"], v=[1, 2, 3]) == [("a", 1, "Ada"), ("b", 2, "Bob"), ("c", 3, None)]
    write(path, "a,Ann", "c,Cy")
    assert joined.epoch(k=["a"], v=[4])[:2] == [("a", 1, "Ada"), ("a", 4, "Ada")], "the minute is not over"
    joined.clock.advance(MINUTE_MS)
    expected = [("a", 1, "Ann"), ("a", 4, "Ann"), ("b", 2, None), ("c", 3, "Cy")]
    assert joined.epoch() == expected, "without a row of the stream"
    table = session.create_dataframe(pa.table({"k": ["a", "b", "c", "a"], "v": [1, 2, 3, 4]}, schema=EVENTS))
    batch = table.join(session.read_csv(path).refresh_every("1 minute"), on="k", how="left")
    assert sorted(tuple(row.values()) for row in batch.to_rows()) == expected


def test_files_that_are_as_they_were_are_not_read(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    write(path, "a,Ada")
    joined = Joined(session, path)
    joined.epoch(k=["a"], v=[1])
    assert joined.query._epochs.last.epoch == 1
    joined.clock.advance(10 * MINUTE_MS)
    joined.epoch()
    assert joined.query._epochs.last.epoch == 1


def test_a_restart_stands_on_the_rows_that_were_read(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    write(path, "a,Ada", "b,Bob")
    joined = Joined(session, path, tmp_path / "checkpoint")
    joined.epoch(k=["a"], v=[1])
    write(path, "a,Ann")
    joined.restart()
    assert joined.epoch(k=["b"], v=[2]) == [("a", 1, "Ada"), ("b", 2, "Bob")]
    joined.clock.advance(MINUTE_MS)
    joined.restart()
    assert joined.epoch(k=["b"], v=[3]) == [("a", 1, "Ann"), ("b", 2, None), ("b", 3, None)]


def test_without_refresh_a_restart_stands_on_the_first_rows(session: DataflowSession, tmp_path: Path) -> None:
    path, source, sink = tmp_path / "names.csv", MemorySource(schema=EVENTS, bounded=False), MemorySink()
    write(path, "a,Ada", "b,Bob")
    frame = session.read_stream(source, "events").join(session.read_csv(path), on="k")
    for events in ({"k": ["a"], "v": [1]}, {"k": ["b"], "v": [2]}):
        query = frame.write_stream(sink, checkpoint_path=str(tmp_path / "checkpoint"))
        source.add(pa.table(events, schema=EVENTS))
        query.process_available()
        query.stop()
        write(path, "b,Bea")
    assert sorted(tuple(row.values()) for row in sink.result().to_pylist()) == [("a", 1, "Ada"), ("b", 2, "Bob")]


def test_an_epoch_that_fails_reads_again(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    write(path, "a,Ada")
    joined = Joined(session, path, tmp_path / "checkpoint")
    joined.epoch(k=["a"], v=[1])
    write(path, "a,Ann")
    joined.clock.advance(MINUTE_MS)
    stage, joined.sink.stage = joined.sink.stage, refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(ExternalError, match="no room"):
        joined.epoch(k=["a"], v=[2])
    joined.sink.stage = stage  # type: ignore[method-assign]
    joined.open()
    assert joined.epoch() == [("a", 1, "Ann"), ("a", 2, "Ann")]


def refuse(epoch: int, changes: pa.Table) -> str:
    del epoch, changes
    raise ExternalError("disk.full", "no room")


def test_a_table_that_is_gone_stops_the_query_and_loses_nothing(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    write(path, "a,Ada")
    joined = Joined(session, path, tmp_path / "checkpoint")
    joined.epoch(k=["a"], v=[1])
    path.unlink()
    joined.clock.advance(MINUTE_MS)
    with pytest.raises(Exception, match=r"names\.csv"):
        joined.epoch()
    write(path, "a,Ann")
    joined.open()
    assert joined.epoch() == [("a", 1, "Ann")]


def test_a_stored_table_is_read_again_each_time(session: DataflowSession) -> None:
    session.sql("CREATE TABLE names AS SELECT 'a' AS k, 'Ada' AS name")
    clock, source, sink = ManualClock(), MemorySource(schema=EVENTS, bounded=False), MemorySink()
    session.create_temp_view("fresh", session.table("names").refresh_every("5 s"))
    session.create_temp_view("events", session.read_stream(source, "events"))
    frame = session.stream_sql("SELECT name, sum(v)::BIGINT AS s FROM events JOIN fresh USING (k) GROUP BY name")
    query = StreamingQuery(session._engine, frame.node, sink, StreamOptions(), clock=clock)
    source.add(pa.table({"k": ["a", "a"], "v": [1, 2]}, schema=EVENTS))
    query.process_available()
    session.sql("INSERT INTO names VALUES ('a', 'Anna')")
    clock.advance(5_000)
    query.process_available()
    assert sorted(map(str, sink.result().to_pylist())) == ["{'name': 'Ada', 's': 3}", "{'name': 'Anna', 's': 3}"]


def test_a_clock_that_was_set_back_waits_for_nothing(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    write(path, "a,Ada")
    joined = Joined(session, path)
    joined.epoch(k=["a"], v=[1])
    write(path, "a,Ann")
    joined.clock.advance(-500)
    assert joined.epoch() == [("a", 1, "Ann")]


def test_a_running_query_reads_again_without_rows(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    write(path, "a,Ada")
    joined = Joined(session, path, every=0)
    joined.epoch(k=["a"], v=[1])
    write(path, "a,Ann")
    joined.clock.advance(1)
    joined.query.start()
    until(lambda: joined.sink.batches_written == 2, joined.query, each=lambda: joined.clock.advance(10))
    joined.query.stop()
    assert joined.sink.result().to_pylist() == [{"k": "a", "v": 1, "name": "Ann"}]


def test_only_what_can_be_read_again(session: DataflowSession, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    write(path, "a,Ada")
    with pytest.raises(InputError, match="not a length of time"):
        session.read_csv(path).refresh_every("soon")
    with pytest.raises(InputError, match="-1 ms"):
        session.read_csv(path).refresh_every(-1)
    with pytest.raises(InputError, match="read when it was opened"):
        session.read_csv(path, on_error="skip").refresh_every("1 h")
    assert session.create_dataframe({"a": [1]}).refresh_every("1 h").to_rows() == [{"a": 1}]
