"""Rules: the plan that a stream runs has the rows of the plan that was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from properties.plans import plans
from properties.profile import examples
from properties.runs import Past, batch_rows
from properties.tables import COLUMNS, Epoch, histories
from velaria_core.execution.duck import Engine, Settings
from velaria_core.logical import operators as op
from velaria_core.logical.explain import tree
from velaria_core.logical.node import Node
from velaria_core.logical.rules import for_stream


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


@pytest.mark.parametrize("operator", op.ALL, ids=lambda kind: kind.__name__)
def test_the_same_rows_from_plans_that_end_in(engine: Engine, operator: type[Node]) -> None:
    @examples(5)
    @given(st.data(), histories(COLUMNS), histories(COLUMNS, max_changes=4))
    def holds(data: st.DataObject, one: list[Epoch], two: list[Epoch]) -> None:
        past = Past([one, two])
        made = data.draw(plans(past.leaves, operator, depth=5))
        ruled = for_stream(made.node)
        note(f"{tree(made.node)}\nbecomes\n{tree(ruled)}")
        assert ruled.columns == made.node.columns
        assert batch_rows(engine, ruled) == batch_rows(engine, made.node)

    holds()
