"""A function of the user over the rows of each key, with states that are part of the checkpoint."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from velaria_core import col, fn
from velaria_core.errors import DataError, InputError
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.operators import Watermark
from velaria_core.logical.serialize import dumps, fingerprint
from velaria_core.session import DataflowSession
from velaria_core.streaming import StreamingDataFrame

ROWS = pa.schema([("k", pa.string()), ("v", pa.int64())])
OUTPUT = pa.schema([("k", pa.string()), ("v", pa.int64()), ("total", pa.int64())])
STATE = pa.schema([("total", pa.int64())])
EPOCHS = [
    {"k": ["b", "a", "b"], "v": [1, 2, 3]},
    {"k": ["a", None], "v": [4, 5]},
    {"k": [None, "c", "a"], "v": [6, 7, 8]},
]


def totals(rows: pa.Table, state: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A running total for each row, and what it is now for each key."""
    now = dict(zip(state["k"].to_pylist(), state["total"].to_pylist(), strict=True))
    made = []
    for key, value in zip(rows["k"].to_pylist(), rows["v"].to_pylist(), strict=True):
        now[key] = now.get(key, 0) + value
        made.append((key, value, now[key]))
    return (
        pa.table(list(map(list, zip(*made, strict=True))), schema=OUTPUT),
        pa.table([list(now), list(now.values())], schema=pa.schema([("k", pa.string()), *STATE])),
    )


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        yield made


class Fed:
    """A stream whose epochs are those that the test gives it."""

    def __init__(self, session: DataflowSession, schema: pa.Schema = ROWS, *, append_only: bool = True) -> None:
        self.source = MemorySource(schema=schema, append_only=append_only, bounded=False)
        self.frame = session.read_stream(self.source, "rows")
        self._schema = schema if append_only else schema.append(pa.field("diff", pa.int64(), nullable=False))

    def run(self, applied: StreamingDataFrame, epochs: Sequence[dict[str, Any]] = EPOCHS, **options: Any) -> MemorySink:
        sink = MemorySink()
        query = applied.write_stream(sink, **options)
        for epoch in epochs:
            self.source.add(pa.table(epoch, schema=self._schema))
            query.process_available()
        query.stop()
        return sink


@pytest.fixture
def fed(session: DataflowSession) -> Fed:
    return Fed(session)


def rows_of(sink: MemorySink) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = sink.result().to_pylist()
    return rows


def in_epochs(sink: MemorySink) -> list[list[dict[str, Any]]]:
    return [table.to_pylist() for table in sink.tables.values()]


def bag(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(map(repr, rows))


def test_states_go_from_epoch_to_epoch_and_batch_agrees(session: DataflowSession, fed: Fed) -> None:
    sink = fed.run(fed.frame.group_by("k").apply_in_batches(totals, OUTPUT, STATE), output_mode="append")
    assert in_epochs(sink)[2] == [
        {"k": "a", "v": 8, "total": 14},
        {"k": "c", "v": 7, "total": 7},
        {"k": None, "v": 6, "total": 11},
    ]
    table = pa.concat_tables([pa.table(epoch, schema=ROWS) for epoch in EPOCHS])
    batch = session.create_dataframe(table).group_by("k").apply_in_batches(totals, OUTPUT, STATE)
    assert bag(batch.to_rows()) == bag(rows_of(sink))
    assert batch.schema == OUTPUT


def test_one_call_an_epoch_with_the_rows_of_a_key_together(fed: Fed) -> None:
    calls = []

    def seen(rows: pa.Table) -> pa.Table:
        calls.append(rows.to_pylist())
        return rows

    fed.run(fed.frame.group_by("k").apply_in_batches(seen, ROWS, order_by="v"))
    assert calls == [
        [{"k": "a", "v": 2}, {"k": "b", "v": 1}, {"k": "b", "v": 3}],
        [{"k": "a", "v": 4}, {"k": None, "v": 5}],
        [{"k": "a", "v": 8}, {"k": "c", "v": 7}, {"k": None, "v": 6}],
    ]


def test_rows_that_tie_stay_as_they_arrived(fed: Fed) -> None:
    epoch = {"k": ["a"] * 5_000, "v": list(range(5_000, 0, -1))}
    seen: list[int] = []

    def look(rows: pa.Table) -> pa.Table:
        seen.extend(rows["v"].to_pylist())
        return rows

    fed.run(fed.frame.group_by("k").apply_in_batches(look, ROWS), [epoch])
    assert seen == epoch["v"]


def third(rows: pa.Table, state: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A key at its third row; then it starts anew."""
    seen = dict(zip(state["k"].to_pylist(), state["n"].to_pylist(), strict=True))
    out = []
    for key in rows["k"].to_pylist():
        seen[key] = seen.get(key, 0) + 1
        if seen[key] == 3:
            out.append(key)
            del seen[key]
    kept = {"k": pa.array(list(seen), pa.string()), "n": pa.array(list(seen.values()), pa.int64())}
    return pa.table({"k": pa.array(out, pa.string())}), pa.table(kept)


def test_a_key_without_a_state_row_is_forgotten(fed: Fed) -> None:
    keys, counts = pa.schema([("k", pa.string())]), pa.schema([("n", pa.int64())])
    sink = fed.run(fed.frame.group_by("k").apply_in_batches(third, keys, counts), [{"k": ["a", "b"], "v": [1, 1]}] * 7)
    assert in_epochs(sink) == [[{"k": "a"}, {"k": "b"}]] * 2


def test_states_outlive_a_restart(session: DataflowSession, tmp_path: Path) -> None:
    whole, made = Fed(session), Fed(session)
    applied = made.frame.group_by("k").apply_in_batches(totals, OUTPUT, STATE)
    several = [made.run(applied, EPOCHS[at : at + 1], checkpoint_path=str(tmp_path)) for at in range(3)]
    undisturbed = whole.run(whole.frame.group_by("k").apply_in_batches(totals, OUTPUT, STATE))
    assert bag([row for sink in several for row in rows_of(sink)]) == bag(rows_of(undisturbed))


def test_a_failed_epoch_takes_the_states_back(session: DataflowSession, tmp_path: Path) -> None:
    broken = True

    def fragile(rows: pa.Table, state: pa.Table) -> tuple[pa.Table, pa.Table]:
        if broken and 7 in rows["v"].to_pylist():
            raise ValueError("seven")
        return totals(rows, state)

    def of(function: Callable[..., Any]) -> StreamingDataFrame:
        source = MemorySource([pa.table(epoch, schema=ROWS) for epoch in EPOCHS])
        return session.read_stream(source, "rows").group_by("k").apply_in_batches(function, OUTPUT, STATE)

    sink, undisturbed = MemorySink(), MemorySink()
    with pytest.raises(DataError) as caught:
        of(fragile).write_stream(
            sink, epoch_rows_max=1, checkpoint_interval=1, checkpoint_path=str(tmp_path)
        ).process_available()
    assert caught.value.code == "function.failed"
    assert "fragile raised ValueError: seven" in caught.value.message
    assert 'in fragile: raise ValueError("seven")' in caught.value.message
    before = rows_of(sink)
    broken = False
    of(fragile).write_stream(
        sink, epoch_rows_max=1, checkpoint_interval=1, checkpoint_path=str(tmp_path)
    ).process_available()
    of(totals).write_stream(undisturbed, epoch_rows_max=1).process_available()
    assert len(before) == 6
    assert bag(rows_of(sink)) == bag(rows_of(undisturbed))


def test_an_error_in_batch_is_the_functions_own(session: DataflowSession) -> None:
    def broken(rows: pa.Table) -> pa.Table:
        return rows.append_column("w", pc.add(rows["v"], rows["nothing"]))

    frame = session.create_dataframe({"k": ["a"], "v": [1]}).group_by("k").apply_in_batches(broken, ROWS)
    for read in (frame.to_arrow, frame.count, frame.filter(col("v") > 0).to_rows, lambda: list(frame.to_reader())):
        with pytest.raises(DataError, match="broken raised KeyError") as caught:
            read()
        assert caught.value.code == "function.failed"


NO_ROWS = pa.table({"k": pa.array([], pa.string()), "total": pa.array([], pa.int64())})
RESULTS: dict[str, tuple[Callable[[pa.Table], Any], str, str]] = {
    "no pair": (lambda rows: rows, "function.result", "gave a Table, not a pair"),
    "nothing": (lambda _: None, "function.result", "gave a NoneType"),
    "no table": (lambda _: ([1], NO_ROWS), "function.schema", "a list is no Arrow data"),
    "a column missing": (lambda rows: (rows, NO_ROWS), "function.schema", '"total" is missing'),
    "another type": (
        lambda rows: (rows.append_column("total", pa.array(["x"] * len(rows))), NO_ROWS),
        "function.schema",
        '"total" is string, its schema says int64',
    ),
    "state without key": (
        lambda rows: (rows.slice(0, 0).append_column("total", rows["v"].slice(0, 0)), NO_ROWS.drop_columns(["k"])),
        "function.schema",
        'its state: "k" is missing',
    ),
    "state twice": (
        lambda rows: (
            rows.slice(0, 0).append_column("total", rows["v"].slice(0, 0)),
            pa.table({"k": ["a", "a"], "total": [1, 2]}),
        ),
        "function.state",
        "two rows for k 'a'",
    ),
    "state of another key": (
        lambda rows: (
            rows.slice(0, 0).append_column("total", rows["v"].slice(0, 0)),
            pa.table({"k": ["a", "zz"], "total": [1, 2]}),
        ),
        "function.state",
        "k 'zz'",
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_what_it_gives_is_held_to_what_was_declared(fed: Fed, name: str) -> None:
    made, code, text = RESULTS[name]

    def given(rows: pa.Table, _state: pa.Table) -> Any:
        return made(rows)

    with pytest.raises(DataError) as caught:
        fed.run(fed.frame.group_by("k").apply_in_batches(given, OUTPUT, STATE))
    assert caught.value.code == code
    assert text in caught.value.message


def test_columns_may_come_in_any_order_and_without_type(fed: Fed) -> None:
    def loose(rows: pa.Table) -> pa.RecordBatch:
        return pa.record_batch({"v": pa.nulls(len(rows)), "k": rows["k"].combine_chunks().dictionary_encode()})

    sink = fed.run(fed.frame.group_by("k").apply_in_batches(loose, ROWS), EPOCHS[:1])
    assert rows_of(sink)[0] == {"k": "a", "v": None}


def test_over_rows_that_go_the_key_is_computed_anew(fed: Fed) -> None:
    """An aggregate below retracts; what comes out is corrected."""

    def doubled(rows: pa.Table) -> pa.Table:
        return pa.table({"k": rows["k"], "v": pc.multiply(rows["n"], 2)})

    counted = fed.frame.group_by("k").agg(n=fn.count())
    sink = fed.run(counted.group_by("k").apply_in_batches(doubled, ROWS))
    expected = [{"k": "a", "v": 6}, {"k": "b", "v": 4}, {"k": "c", "v": 2}, {"k": None, "v": 4}]
    assert bag(rows_of(sink)) == bag(expected)


def test_a_changelog_as_input(session: DataflowSession) -> None:
    made = Fed(session, append_only=False)
    come = {"k": ["a", "a", "b"], "v": [1, 2, 3], "diff": [1, 1, 1]}
    go = {"k": ["a", "b"], "v": [2, 3], "diff": [-1, -1]}
    sink = made.run(made.frame.group_by("k").apply_in_batches(totals, OUTPUT, STATE), [come, go])
    assert rows_of(sink) == [{"k": "a", "v": 1, "total": 1}]


def quiet(rows: pa.Table, state: pa.Table, watermark: dt.datetime | None) -> tuple[pa.Table, pa.Table]:
    """Sessions: the rows of a key since its last, once it was quiet for 10 s of event time."""
    open_ = {row["k"]: row for row in state.to_pylist()}
    closed = []
    for row in rows.to_pylist():
        session = open_.get(row["k"])
        if session is not None and row["ts"] >= session["until"]:
            closed.append(open_.pop(row["k"]))
            session = None
        until = row["ts"] + dt.timedelta(seconds=10)
        open_[row["k"]] = {"k": row["k"], "n": session["n"] + 1 if session else 1, "until": until}
    if watermark is not None:
        moment = watermark.replace(tzinfo=None)
        closed += [open_.pop(key) for key in list(open_) if open_[key]["until"] <= moment]
    return (
        pa.Table.from_pylist(closed, SESSIONS).select(["k", "n"]),
        pa.Table.from_pylist(list(open_.values()), SESSIONS),
    )


SESSIONS = pa.schema([("k", pa.string()), ("n", pa.int64()), ("until", pa.timestamp("us"))])
TIMED = pa.schema([("k", pa.string()), ("ts", pa.timestamp("us"))])


def at(*seconds: int) -> list[dt.datetime]:
    return [dt.datetime(2024, 1, 1) + dt.timedelta(seconds=one) for one in seconds]


def with_watermark(frame: StreamingDataFrame) -> StreamingDataFrame:
    return frame._with(Watermark(frame.node, "ts", TimeKind.TIMESTAMP, 0))


def test_a_state_that_expires_is_called_without_rows(session: DataflowSession) -> None:
    source = MemorySource(schema=TIMED, bounded=False)
    timed = with_watermark(session.read_stream(source, "rows"))
    applied = timed.group_by("k").apply_in_batches(
        quiet, SESSIONS.remove(2), SESSIONS.remove(0), order_by="ts", expires="until"
    )
    sink = MemorySink()
    query = applied.write_stream(sink)

    def epoch(**columns: Any) -> list[dict[str, Any]]:
        before = set(sink.tables)
        if columns:
            source.add(pa.table(columns, schema=TIMED))
        query.process_available()
        return [row for number in set(sink.tables) - before for row in sink.tables[number].to_pylist()]

    assert epoch(k=["a", "b", "a"], ts=at(0, 1, 4)) == []
    assert epoch(k=["d"], ts=at(11)) == [{"k": "b", "n": 1}]
    assert epoch(k=["c"], ts=at(13)) == []
    assert epoch(k=["c"], ts=at(15)) == [{"k": "a", "n": 2}]
    source.end()
    query.process_available()
    assert bag(rows_of(sink)) == bag([{"k": k, "n": n} for k, n in (("a", 2), ("b", 1), ("c", 2), ("d", 1))])


@pytest.mark.parametrize("watermark", [True, False])
def test_the_end_of_a_bounded_stream_is_the_end_of_time(session: DataflowSession, watermark: bool) -> None:
    rows = pa.table({"k": ["a", "a", "b"], "ts": at(0, 5, 3)}, schema=TIMED)
    frame = session.read_stream(MemorySource([rows]), "rows")
    timed = with_watermark(frame) if watermark else frame
    sink = MemorySink()
    applied = timed.group_by("k").apply_in_batches(quiet, SESSIONS.remove(2), SESSIONS.remove(0), expires="until")
    applied.write_stream(sink).process_available()
    assert bag(rows_of(sink)) == bag([{"k": "a", "n": 2}, {"k": "b", "n": 1}])


def test_in_batch_time_is_over(session: DataflowSession) -> None:
    rows = {"k": ["a", "a", "a", "b"], "ts": at(0, 5, 40, 3)}
    frame = session.create_dataframe(pa.table(rows, schema=TIMED)).group_by("k")
    made = frame.apply_in_batches(quiet, SESSIONS.remove(2), SESSIONS.remove(0), order_by="ts", expires="until")
    assert bag(made.to_rows()) == bag([{"k": "a", "n": 2}, {"k": "a", "n": 1}, {"k": "b", "n": 1}])


def test_wrong_calls_are_refused(fed: Fed) -> None:
    frame = fed.frame
    with pytest.raises(InputError, match="groups by columns"):
        frame.group_by(col("v") + 1).apply_in_batches(totals, OUTPUT, STATE)
    with pytest.raises(InputError, match="groups by columns"):
        frame.group_by().apply_in_batches(totals, OUTPUT, STATE)
    with pytest.raises(InputError, match='called "k"'):
        frame.group_by("k").apply_in_batches(totals, OUTPUT, pa.schema([("k", pa.int64())]))
    with pytest.raises(InputError, match="no timestamp"):
        frame.group_by("k").apply_in_batches(totals, OUTPUT, STATE, expires="total")
    with pytest.raises(InputError, match="no column"):
        frame.group_by("k").apply_in_batches(totals, OUTPUT, STATE, order_by="nothing")


def test_a_plan_with_a_function_is_known_by_its_name_and_no_text(session: DataflowSession) -> None:
    one = session.create_dataframe({"k": ["a"], "v": [1]}).group_by("k").apply_in_batches(totals, OUTPUT, STATE)
    other = session.create_dataframe({"k": ["a"], "v": [1]}).group_by("k").apply_in_batches(quiet, OUTPUT, STATE)
    assert fingerprint(one.node) != fingerprint(other.node)
    with pytest.raises(InputError, match=r"test_apply_in_batches\.totals") as caught:
        dumps(one.node)
    assert caught.value.code == "plan.function"


def test_it_can_be_read_twice_and_joined(session: DataflowSession) -> None:
    calls = 0

    def once(rows: pa.Table) -> pa.Table:
        nonlocal calls
        calls += 1
        return rows

    made = session.create_dataframe({"k": ["a", "b"], "v": [1, 2]}).group_by("k").apply_in_batches(once, ROWS)
    session.create_temp_view("made", made)
    assert session.sql("SELECT x.k, y.v FROM made x JOIN made y USING (k) ORDER BY k").to_rows() == [
        {"k": "a", "v": 1},
        {"k": "b", "v": 2},
    ]
    assert calls == 1
