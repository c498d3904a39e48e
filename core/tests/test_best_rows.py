"""Best rows of rows that go too: what is shown is what is best, whatever is kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from properties.inputs import Inputs
from properties.runs import Bag, Run, batch_rows

from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.state import Statement
from velaria_core.execution.steps import best_rows
from velaria_core.execution.steps import rows as step_rows
from velaria_core.execution.steps.best_rows import BestRowsStep
from velaria_core.logical import operators as op
from velaria_core.logical.expr import col, ordered

KEY, TEXT = ordered(col("lk").desc(nulls_first=True)), ordered(col("ltext"))
PLANS = {
    "first three": lambda scan: op.TopK(scan, (KEY, TEXT), 3),
    "after two": lambda scan: op.TopK(scan, (KEY, TEXT), 3, 2),
    "a limit": lambda scan: op.Limit(op.Sort(scan, (KEY, TEXT)), 3, 1),
    "ties": lambda scan: op.TopK(scan, (KEY,), 4),
}


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


def shown(rows: Bag, name: str) -> Bag:
    """What of a result does not depend on which of rows that tie is taken."""
    if name != "ties":
        return rows
    keys: Bag = Counter()
    for row, count in rows.items():
        keys[row[:1]] += count
    return keys


def counted(of_all: Statement, read: list[int], epoch: int) -> pa.Table:
    """Read all rows, and note when."""
    read.append(epoch)
    return of_all()


@pytest.mark.parametrize("durable", [False, True], ids=["in memory", "durable"])
@pytest.mark.parametrize("name", PLANS)
def test_a_history_of_changes(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, durable: bool
) -> None:
    """Some rows go from the best in almost every epoch, and often too many of them; epochs fail, and it restarts."""
    monkeypatch.setattr(best_rows, "_MORE_ROWS", 2)
    monkeypatch.setattr(best_rows, "_TIMES", 1)
    monkeypatch.setattr(step_rows, "SLACK_ROWS", 3)
    chance = np.random.default_rng(len(name))
    inputs = Inputs()
    node = PLANS[name](inputs.scans[0])
    run = Run(engine, node, inputs.relations[:1], False, tmp_path / "state.duckdb" if durable else None)
    read: list[int] = []
    for epoch in range(40):
        step = run.flow.steps[-1]
        assert isinstance(step, BestRowsStep)
        of_all = step._of_all
        step._of_all = partial(counted, of_all, read, epoch)
        changes = inputs.changes(chance, texts=5)[:1]
        event = chance.integers(0, 6)
        if event == 0:
            run.fail(changes)
        run.epoch(changes)
        step._of_all = of_all
        assert shown(run.output, name) == shown(batch_rows(engine, node), name)
        if event == 1 and durable:
            run.restart()
    assert 0 < len(set(read)) < 35
    run.close()


def test_few_rows_are_read_of_many(engine: Engine) -> None:
    """The rows beyond the best are not read again while enough of these are left."""
    inputs, chance = Inputs(), np.random.default_rng(0)
    node = PLANS["first three"](inputs.scans[0])
    run = Run(engine, node, inputs.relations[:1], False)
    step = run.flow.steps[-1]
    assert isinstance(step, BestRowsStep)
    run.epoch(inputs.changes(chance)[:1])
    step._of_all = pytest.fail
    for _ in range(20):
        run.epoch(inputs.changes(chance)[:1])
        assert run.output == batch_rows(engine, node)
    assert step.state_rows() >= sum(inputs.rows[0].values())
    run.close()
