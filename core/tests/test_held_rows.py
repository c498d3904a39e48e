"""Held rows: what is found is what is there, whatever hashes are, what fails and what does not fit in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.inputs import SCHEMA, Inputs, Row, table
from properties.profile import examples
from properties.runs import Run, batch_rows, signed

from velaria_core.changes import DIFF, with_diff
from velaria_core.execution import held_rows
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.held_rows import HeldRows, Runs
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Step, held
from velaria_core.execution.steps import rows as step_rows
from velaria_core.execution.steps.held import Hashing, HeldLog, log_by_key
from velaria_core.execution.steps.horizon import Expiry
from velaria_core.execution.steps.rows import Log
from velaria_core.logical import operators as op
from velaria_core.logical.event_time import END, TimeBound, TimeKind
from velaria_core.logical.expr import col, fn, parse_expression


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to many rows happens to few."""
    monkeypatch.setattr(held_rows, "_SMALL_RUN", 2)
    monkeypatch.setattr(held_rows, "_KEPT_FORGOTTEN", 3)
    monkeypatch.setattr(held, "SLACK_ROWS", 3)
    monkeypatch.setattr(step_rows, "SLACK_ROWS", 3)
    monkeypatch.setattr(held, "_READ_ROWS", 5)


# --- rows in memory -------------------------------------------------------------------------------------------

KEYED_ROWS = st.lists(st.tuples(st.integers(0, 5), st.none() | st.text(max_size=3)), max_size=9)
ACTIONS = st.lists(st.tuples(st.sampled_from(["add", "forget", "close", "commit", "fail"]), KEYED_ROWS), max_size=25)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("spread", [1 << 32, 1 << 61, 0], ids=["near", "far", "all equal"])
def test_rows_are_found_by_the_hash_of_their_key_and_by_their_time(spread: int) -> None:
    """A list is the model: rows are found in the order in which they came. Those without text have no time."""
    nested = SCHEMA.append(pa.field("letters", pa.list_(pa.struct({"letter": pa.string()}))))

    def rows_of(keyed: list[tuple[int, str | None]]) -> pa.Table:
        letters = [None if text is None else [{"letter": letter} for letter in text] for _, text in keyed]
        return table(keyed).append_column(nested.field(2), pa.array(letters, nested.field(2).type))

    def time_of(key: int) -> int:
        return key * 1_500_000 + (END // 2 if key == 5 else 0)

    def hashes(keys: Sequence[int]) -> np.ndarray[Any, Any]:
        return np.array([key * spread % 2**64 + key for key in keys], np.uint64)

    @examples(12)
    @given(ACTIONS)
    def holds(actions: list[tuple[str, list[tuple[int, str | None]]]]) -> None:
        rows, model, durable = HeldRows(nested), list[tuple[int, str | None]](), list[tuple[int, str | None]]()
        for action, given_rows in actions:
            match action:
                case "add":
                    times = np.array([time_of(key) for key, _ in given_rows], np.int64)
                    there = np.array([text is not None for _, text in given_rows], np.bool_)
                    rows.append(rows_of(given_rows), hashes([key for key, _ in given_rows]), (times, there))
                    model += given_rows
                case "forget":
                    there = rows.alive()
                    gone = {
                        one for one, (_, text) in enumerate(model) if (None, text) in [(None, t) for _, t in given_rows]
                    }
                    rows.forget(there[sorted(gone)])
                    model = [row for at, row in enumerate(model) if at not in gone]
                case "close":
                    until = time_of(len(given_rows) % 6)
                    rows.forget(rows.until(until))
                    rows.seen_until(until)
                    model = [row for row in model if row[1] is None or time_of(row[0]) > until]
                case "commit":
                    rows.committed()
                    durable = list(model)
                case "fail":
                    rows.rolled_back()
                    model = list(durable)
            assert rows.live == rows.sum == len(model)
            for asked in ([0], [3], [1, 4, 4], [7]):
                wanted = model if spread == 0 else [row for row in model if row[0] in asked]
                found = rows.find(hashes(asked)).to_pylist()
                assert found == rows_of(wanted).to_pylist()
            for us in map(time_of, range(6)):
                wanted = [row for row in model if row[1] is not None and time_of(row[0]) <= us]
                assert rows.take(rows.until(us)).to_pylist() == rows_of(wanted).to_pylist()
        assert rows.count <= rows.live + rows.live // 2 + 3 or actions[-1][0] != "commit"

    holds()


@pytest.mark.usefixtures("small")
def test_parts_are_all_rows_in_turn() -> None:
    chance = np.random.default_rng(1)
    rows = HeldRows(SCHEMA)
    for _ in range(10):
        rows.append(table([(1, "x")] * 100), chance.integers(0, 2**63, 100).astype(np.uint64) * np.uint64(2))
    parts = [rows.part(60) for _ in range(1000 // 60 + 1)]
    assert max(map(len, parts)) < 120
    assert sorted(np.concatenate(parts)) == list(range(1000))


def test_runs_are_few() -> None:
    runs = Runs()
    for at in range(20_000):
        runs.add(np.array([at << 40], np.uint64), np.array([at]))
    assert len(runs._runs) <= 4
    assert list(runs.find(np.array([7 << 40, 19_999 << 40], np.uint64))) == [7, 19_999]


def test_counts_are_summed() -> None:
    schema = SCHEMA.append(pa.field("n", pa.int64()))
    rows = HeldRows(schema, "n")
    counted = table([(1, "a"), (1, "a"), (2, "b")]).append_column("n", pa.array([3, -1, 1]))
    rows.append(counted, np.zeros(3, np.uint64))
    assert rows.sum == 3
    rows.committed()
    rows.forget(np.array([1]))
    assert rows.sum == 4
    rows.rolled_back()
    assert rows.sum == 3


# --- steps ----------------------------------------------------------------------------------------------------


class HeldRun(Run):
    """A run that knows its held logs."""

    @property
    def logs(self) -> list[HeldLog]:
        found = []
        for step in self.flow.steps:
            logs = [*getattr(step, "_sides", []), *(step._logs() if hasattr(step, "_logs") else [])]
            logs += [getattr(step, name) for name in ("_kept", "_shown") if hasattr(step, name)]
            found += [log for log in logs if isinstance(log, HeldLog)]
        return found

    def group(self, several: Sequence[Sequence[pa.Table]]) -> None:
        """Epochs that are durable together."""
        made = []
        with self._store.cursor.transaction():
            for tables in several:
                given_out = self._sink.of(self._step(tables))
                made.append(
                    None if given_out is None else given_out.rename_columns([*given_out.schema.names[:-1], DIFF])
                )
                self._first = False
        self.flow.committed()
        for changes in made:
            for row, diff in signed(changes):
                self.output[row] += diff
        self.output = Counter({row: count for row, count in self.output.items() if count})


def on() -> Any:
    return (col("lk") == col("rk")).tree


PLANS = {
    "inner": lambda scans: op.Join(*scans, op.JoinKind.INNER, on()),
    "full": lambda scans: op.Join(*scans, op.JoinKind.FULL, on()),
    "anti": lambda scans: op.Join(*scans, op.JoinKind.ANTI, on()),
    "two columns": lambda scans: op.Join(
        *scans, op.JoinKind.INNER, (col("lk") == col("rk")).tree.and_((col("ltext") == col("rtext")).tree)
    ),
    "window": lambda scans: op.Window(scans[0], (("n", fn.count().over("lk").tree),)),
}


def counted(rows: pa.Table, state: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A row for every three rows of a key; the state is a list of those that are left, so a new one at every turn."""
    before = {row["ltext"]: len(row["ones"]) for row in state.to_pylist()}
    came = Counter(rows.column("ltext").to_pylist())
    now = {key: before.get(key, 0) + count for key, count in came.items()}
    left = {key: count % 3 for key, count in now.items() if count % 3}
    return (
        pa.table([[key for key, count in now.items() for _ in range(count // 3)]], schema=_THREE),
        pa.table([list(left), [[1] * count for count in left.values()]], schema=_ONES),
    )


_THREE = pa.schema([("ltext", pa.string())])
_ONES = pa.schema([("ltext", pa.string()), ("ones", pa.list_(pa.int64()))])
_SESSION = ("ltext",), "lk", TimeKind.INTEGER, 2
KEEPING = {
    "states": lambda scan: op.Aggregate(
        scan, (("lk", col("lk").tree),), (("m", fn.min("ltext").tree), ("n", fn.count().tree))
    ),
    "states that grow": lambda scan: op.Aggregate(
        scan, (("ltext", col("ltext").tree),), (("m", parse_expression("median(lk)")),)
    ),
    "sessions": lambda scan: op.SessionWindow(scan, *_SESSION),
    "session aggregates": lambda scan: op.Aggregate(
        op.SessionWindow(scan, *_SESSION),
        tuple((name, col(name).tree) for name in ("ltext", "window_start", "window_end")),
        (("n", fn.count().tree), ("m", fn.max("lk").tree)),
    ),
    "sessions of one key": lambda scan: op.Aggregate(
        op.SessionWindow(scan, (), *_SESSION[1:]),
        tuple((name, col(name).tree) for name in ("window_start", "window_end")),
        (("n", fn.count().tree),),
    ),
    "a function": lambda scan: op.ApplyInBatches(scan, ("ltext",), counted, _THREE, pa.schema([_ONES.field("ones")])),
}


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("durable", [False, True], ids=["in memory", "durable"])
@pytest.mark.parametrize("outgrows", [False, True], ids=["fits", "outgrows memory"])
@pytest.mark.parametrize("name", [*PLANS, *KEEPING])
def test_a_history_of_changes(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, outgrows: bool, durable: bool
) -> None:
    """Epochs that fail, groups of epochs, restarts, hashes of which many collide: the output is the batch result."""
    retracts = name in PLANS
    whole, text = Hashing.of, Hashing.sql
    two_bits = 3 << 32
    monkeypatch.setattr(Hashing, "sql", lambda self, columns: f"({text(self, columns)}) & {two_bits}")
    monkeypatch.setattr(Hashing, "of", lambda *given: pc.bit_wise_and(whole(*given), pa.scalar(two_bits, pa.uint64())))
    chance = np.random.default_rng(len(name))
    inputs = Inputs()
    node = PLANS[name](inputs.scans) if retracts else KEEPING[name](inputs.scans[0])
    relations = inputs.relations if retracts else inputs.relations[:1]
    run = HeldRun(engine, node, relations, not retracts, tmp_path / "state.duckdb" if durable else None)
    assert run.logs

    def changes_of(inputs: Inputs) -> list[pa.Table]:
        return inputs.changes(chance, retracts=retracts)[: len(relations)]

    for epoch in range(14):
        if outgrows and epoch == 6:
            monkeypatch.setattr(Store, "may_hold", lambda *_: False)
        event = chance.integers(0, 4)
        if event == 0:
            run.group([changes_of(inputs), changes_of(inputs)])
        else:
            changes = changes_of(inputs)
            if event == 1:
                run.fail(changes)
            run.epoch(changes)
        assert run.output == batch_rows(engine, node)
        if event == 2 and durable:
            run.restart()
    assert all((log.held is None) == outgrows == ("memory limit" in log.scanned) for log in run.logs)
    assert all(bool(step.scanned) == outgrows for step in stateful(run))
    assert all(log.held.live <= 2 * log.held.sum + 60 for log in run.logs if log.held is not None)
    run.close()


def stateful(run: HeldRun) -> list[Step]:
    return [step for step in run.flow.steps if step.state_rows()]


def test_an_epoch_that_fails_as_rows_leave_memory(engine: Engine) -> None:
    inputs, chance = Inputs(), np.random.default_rng(3)
    node = PLANS["inner"](inputs.scans)
    run = HeldRun(engine, node, inputs.relations, False)
    run.epoch(inputs.changes(chance))
    run._store._held_bytes_max = 1
    changes = inputs.changes(chance)
    run.fail(changes)
    assert all(log.held is not None and log.held.live for log in run.logs)
    assert [run._store.cursor.rows(f"SELECT count(*) FROM {log.table}") for log in run.logs] == [[(0,)]] * 2
    run.epoch(changes)
    assert all(log.held is None for log in run.logs)
    run.epoch(inputs.changes(chance))
    assert run.output == batch_rows(engine, node)
    assert run.flow.state_rows == sum(log.entries for log in run.logs) > 0
    run.close()


def test_a_restart_holds_no_more_than_it_may(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, chance = Inputs(), np.random.default_rng(4)
    node = PLANS["full"](inputs.scans)
    run = HeldRun(engine, node, inputs.relations, False, tmp_path / "state.duckdb")
    for _ in range(5):
        run.epoch(inputs.changes(chance))
    monkeypatch.setattr(Store, "may_hold", lambda *_: False)
    run.restart()
    assert all(log.held is None for log in run.logs)
    run.epoch(inputs.changes(chance))
    assert run.output == batch_rows(engine, node)
    run.close()


@pytest.mark.parametrize("name", ["inner", "full"])
def test_keys_of_several_widths_are_one(engine: Engine, name: str) -> None:
    inputs, chance = Inputs((pa.int32(), pa.int64())), np.random.default_rng(5)
    node = PLANS[name](inputs.scans)
    run = HeldRun(engine, node, inputs.relations, False)
    assert len(run.logs) == 2
    for _ in range(10):
        run.epoch(inputs.changes(chance))
        assert run.output == batch_rows(engine, node)
    run.close()


@pytest.mark.parametrize("name", ["inner", "full"])
def test_keys_that_are_hashed_in_no_common_way_are_scanned(engine: Engine, name: str) -> None:
    inputs, chance = Inputs((pa.float64(), pa.int64())), np.random.default_rng(6)
    node = PLANS[name](inputs.scans)
    run = HeldRun(engine, node, inputs.relations, False)
    assert not run.logs
    for _ in range(10):
        run.epoch(inputs.changes(chance))
        assert run.output == batch_rows(engine, node)
    (step,) = stateful(run)
    assert "no common way" in step.scanned
    run.close()


def test_rows_that_meet_nothing_are_not_held(engine: Engine) -> None:
    inputs, chance = Inputs(), np.random.default_rng(7)
    run = HeldRun(engine, PLANS["inner"](inputs.scans), inputs.relations, True)
    for _ in range(10):
        run.epoch(inputs.changes(chance, retracts=False))
    with_key = [sum(count for (key, _), count in rows.items() if key is not None) for rows in inputs.rows]
    assert [log.entries for log in run.logs] == with_key != [50, 50]
    run.close()


def test_what_is_read_is_what_is_asked_for() -> None:
    """Not a count of milliseconds but of rows: ten of a hundred thousand."""
    engine = Engine(Settings(threads=1))
    store = Store(engine)
    log = log_by_key(store, "rows", SCHEMA, False, ["k"], Hashing([[pa.int64()]], joins=False))
    assert isinstance(log, HeldLog)
    for first in range(0, 100_000, 10_000):
        log.take(with_diff(table([(key // 5, "x") for key in range(first, first + 10_000)])))
        log.committed()
    log.feed.table = table([(7, "-"), (19_000, "-"), (50_000, "-")], [1, 1, 1])
    log.find(log.keys)
    ((found,),) = store.cursor.rows(f"SELECT count(*) FROM {log.source}")
    assert found == 10
    assert store.cursor.rows(f"SELECT count(*) FROM {log.table}") == [(0,)]  # nothing outlives the process anyway
    store.close()
    engine.close()


@pytest.mark.parametrize("append_only", [False, True])
def test_rows_that_cancel_are_shed_by_parts(append_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(Settings(threads=1))
    store = Store(engine)
    monkeypatch.setattr(held, "SLACK_ROWS", 100)
    log = log_by_key(store, "rows", SCHEMA, append_only, ["k"], Hashing([[pa.int64()]], joins=False))
    assert isinstance(log, HeldLog)
    assert log.held is not None
    log.take(table([(key, "0") for key in range(2000)], None if append_only else [1] * 2000))
    summed: list[int] = []
    if not append_only:
        work = log._sum_part

        def counted() -> pa.Table:
            summed.append(log._part.table.num_rows)
            return work()

        log._sum_part = counted
    most = 0
    for epoch in range(100):
        keys = [(epoch * 20 + at) % 2000 for at in range(20)]
        if not append_only:
            rows = [(key, f"{epoch // 100}") for key in keys] + [(key, f"{epoch // 100 + 1}") for key in keys]
            log.take(table(rows, [-1] * 20 + [1] * 20))
            log.committed()
        most = max(most, log.held.live)
    if append_only:
        assert log.held.live == log.held.sum == 2000
        return
    assert log.held.sum == 2000
    assert 3000 < most < 3400
    assert max(summed) < 8 * 40
    store.close()
    engine.close()


@pytest.mark.parametrize("durable", [False, True], ids=["in memory", "durable"])
@pytest.mark.parametrize("kind", [TimeKind.INTEGER, TimeKind.TEXT])
def test_what_time_has_closed_is_forgotten(kind: TimeKind, durable: bool, tmp_path: Path) -> None:
    """In memory and in the table; not where the epoch fails; rows without a time are closed at the end."""
    engine = Engine(Settings(threads=1, path=str(tmp_path / "state.duckdb") if durable else None))
    store = Store(engine)
    log = log_by_key(store, "rows", SCHEMA, True, ["k"], Hashing([[pa.int64()]], joins=False))
    assert log.held is not None
    column = "k" if kind is TimeKind.INTEGER else "text"
    expiry = Expiry(store, log, column, TimeBound(kind, 1_000_000))
    moments: list[Row] = [(1000 * second, f"1970-01-01 00:00:{second:02}") for second in range(20)]
    with store.cursor.transaction():
        log.take(table([*moments, (None, None)]))
        expiry.note(np.arange(20) * 1_000_000)
    log.committed()

    def forget(watermark_us: int) -> None:
        with suppress(InterruptedError), store.cursor.transaction():
            expiry.run(watermark_us)
            raise InterruptedError
        log.rolled_back()
        expiry.rolled_back()
        assert log.entries == 21
        with store.cursor.transaction():
            expiry.run(watermark_us)
        log.committed()

    def there() -> list[int]:
        log.find(log.keys)
        found = [key for (key,) in store.cursor.rows(f"SELECT coalesce(k, -1) FROM {log.source}")]
        if durable:
            assert store.cursor.rows(f"SELECT coalesce(k, -1) FROM {log.table}") == [(key,) for key in found]
        return found

    log.feed.table = table([*moments, (None, None)])
    expiry.run(1_500_000)  # too little to look
    assert log.entries == 21
    forget(6_000_000)
    assert there() == [*range(6000, 20_000, 1000), -1]
    with store.cursor.transaction():
        expiry.run(END)
    assert (there(), log.entries) == ([], 0)
    store.close()
    engine.close()


def test_types_that_cannot_be_held_stay_in_the_table() -> None:
    engine = Engine(Settings(threads=1))
    store = Store(engine)
    schema = SCHEMA.append(pa.field("several", pa.dictionary(pa.int8(), pa.string())))
    log = log_by_key(store, "rows", schema, True, ["k"], Hashing([[pa.int64()]], joins=False))
    assert type(log) is Log
    assert "several" in log.scanned
    store.close()
    engine.close()
