"""What event time closes comes out once, and is forgotten: in memory, in tables, and after a restart."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from velaria_core import fn
from velaria_core.execution import held_rows
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.state import Store
from velaria_core.execution.steps import held, session
from velaria_core.execution.steps import rows as step_rows
from velaria_core.session import DataflowSession

EVENTS = pa.schema([("k", pa.string()), ("ts", pa.timestamp("us"))])
_VISITS = pa.schema([("k", pa.string()), ("n", pa.int64())])
_OPEN = pa.schema([("k", pa.string()), ("n", pa.int64()), ("until", pa.timestamp("us"))])
_GAP = dt.timedelta(seconds=9)


def visits(rows: pa.Table, state: pa.Table, watermark: dt.datetime | None) -> tuple[pa.Table, pa.Table]:
    """The rows of a key until it was quiet for the gap."""
    is_open = {row["k"]: row for row in state.to_pylist()}
    closed = []
    for row in rows.to_pylist():
        found = is_open.get(row["k"])
        if found is not None and row["ts"] >= found["until"]:
            closed.append(is_open.pop(row["k"]))
            found = None
        n = 1 if found is None else found["n"] + 1
        is_open[row["k"]] = {"k": row["k"], "n": n, "until": row["ts"] + _GAP}
    if watermark is not None:
        now = watermark.replace(tzinfo=None)
        closed += [is_open.pop(key) for key in list(is_open) if is_open[key]["until"] <= now]
    return pa.Table.from_pylist(closed, _OPEN).select(["k", "n"]), pa.Table.from_pylist(list(is_open.values()), _OPEN)


def _aggregates(*keys: str) -> Callable[[Any], Any]:
    by = (*keys, "window_start", "window_end")
    return lambda events: events.session_window("ts", "1 second", *keys).group_by(*by).agg(n=fn.count())


SHAPES: dict[str, Callable[[Any], Any]] = {
    "aggregates of sessions": lambda events: _aggregates("k")(events),
    "aggregates of sessions of one key": lambda events: _aggregates()(events),
    "rows of sessions": lambda events: events.session_window("ts", "9 seconds", "k"),
    "a function": lambda events: events.group_by("k").apply_in_batches(
        visits, _VISITS, _OPEN.remove(0), order_by="ts", expires="until"
    ),
    "states": lambda events: events.window("ts", 20_000).group_by("window_start", "k").agg(last=fn.max("k")),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to many rows happens to few."""
    monkeypatch.setattr(held_rows, "_SMALL_RUN", 2)
    monkeypatch.setattr(held_rows, "_KEPT_FORGOTTEN", 3)
    for module in (held, step_rows, session):
        monkeypatch.setattr(module, "SLACK_ROWS", 20)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("durable", [False, True], ids=["in memory", "durable"])
@pytest.mark.parametrize("outgrows", [False, True], ids=["fits", "outgrows memory"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_stream_of_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, outgrows: bool, durable: bool
) -> None:
    """Keys that come, are busy and leave. A durable query is started anew after every third epoch."""
    chance = np.random.default_rng(len(name))
    count, cut = 720, 30
    seconds = np.cumsum(chance.random(count) * 1.5).round(3)
    keys = [f"k{at // 90}" if one < 3 else f"x{one}" if one < 9 else None for at, one in enumerate(_places(count))]
    start = dt.datetime(2024, 5, 5)
    events = pa.table([keys, [start + dt.timedelta(seconds=float(one)) for one in seconds]], schema=EVENTS)

    tables = [events.slice(first, cut) for first in range(0, count, cut)]
    runs = [tables[first : first + 3] for first in range(0, len(tables), 3)] if durable else [tables]
    found: Counter[str] = Counter()
    for number, run in enumerate(runs):
        source, sink = MemorySource(tables[: 3 * number], schema=EVENTS, bounded=False), MemorySink()
        with DataflowSession() as made:
            frame = SHAPES[name](made.read_stream(source, "events").with_watermark("ts", "0s"))
            options: dict[str, Any] = {"checkpoint_path": str(tmp_path / "state")} if durable else {}
            query = frame.write_stream(sink, output_mode="append", **options)
            for at, table in enumerate(run):
                if outgrows and number * 3 + at >= 10:
                    monkeypatch.setattr(Store, "may_hold", lambda *_: False)
                source.add(table)
                query.process_available()
                assert query.progress()["state_rows"] <= 180
            if number == len(runs) - 1:
                source.end()
                query.process_available()
            query.stop()
        found.update(map(repr, sink.result().to_pylist()))

    with DataflowSession() as made:
        assert found == Counter(map(repr, SHAPES[name](made.create_dataframe(events)).to_arrow().to_pylist()))
    assert len(found) > 20


def _places(count: int) -> list[int]:
    return [int(one) for one in np.random.default_rng(7).integers(0, 10, count)]
