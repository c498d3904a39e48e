"""Streams: after any history of inserts and retractions, in any epochs, the sum of the output is the batch result."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from properties.plans import plans
from properties.profile import examples
from properties.runs import Past, Run, agree, batch_rows
from properties.tables import COLUMNS, Epoch, histories
from velaria_core.execution.duck import Engine, Settings
from velaria_core.logical import operators as op
from velaria_core.logical.explain import tree
from velaria_core.logical.node import Node


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


@pytest.mark.parametrize("operator", op.ALL, ids=lambda kind: kind.__name__)
def test_streams_that_end_in(engine: Engine, operator: type[Node]) -> None:
    @examples(6)
    @given(st.data(), histories(COLUMNS), histories(COLUMNS, max_changes=4))
    def holds(data: st.DataObject, one: list[Epoch], two: list[Epoch]) -> None:
        past = Past([one, two])
        made = data.draw(plans(past.leaves, operator, depth=3))
        note(tree(made.node, shapes=True))
        agree(engine, made, past, data.draw(st.sets(st.integers(0, 3), max_size=2)))

    holds()


@pytest.mark.parametrize("operator", op.ALL, ids=lambda kind: kind.__name__)
def test_restored_streams_that_end_in(engine: Engine, operator: type[Node], tmp_path: Path) -> None:
    """Stopped or failed after any epoch and restored, the output is that of a stream that never stopped."""
    numbers = count(1)

    @examples(2)
    @given(st.data(), histories(COLUMNS), histories(COLUMNS, max_changes=4))
    def holds(data: st.DataObject, one: list[Epoch], two: list[Epoch]) -> None:
        past = Past([one, two])
        made = data.draw(plans(past.leaves, operator, depth=3))
        note(tree(made.node, shapes=True))
        events = [data.draw(st.sampled_from(["go on", "restart", "fail"])) for _ in past.epochs]
        run = Run(engine, made.node, past.relations, past.append_only, tmp_path / f"{next(numbers)}.duckdb")
        try:
            for epoch, event in enumerate(events):
                if event == "fail":
                    run.fail(past.changes(epoch))
                run.epoch(past.changes(epoch))
                if event == "restart":
                    run.restart()
            assert run.output == batch_rows(engine, made.node)
        finally:
            run.close()

    holds()
