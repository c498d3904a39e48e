"""The tools of the stream properties: a table cut into epochs is the table, a history never takes what is not there."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from properties.profile import examples
from properties.tables import COLUMNS, Epoch, Kind, bag, canonical, histories, in_epochs, row_list, rows_after, tables

_KINDS = {"k": Kind.INT, "s": Kind.TEXT, "f": Kind.FLOAT}


def _rows(table: pa.Table) -> list[tuple[object, ...]]:
    return row_list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@examples(50)
@given(st.data(), tables(COLUMNS))
def test_epochs_together_are_the_table(data: st.DataObject, table: pa.Table) -> None:
    epochs = data.draw(in_epochs(table))
    assert _rows(pa.concat_tables(epochs)) == _rows(table)
    assert all(epoch.schema == table.schema for epoch in epochs)


@examples(100)
@given(histories(_KINDS))
def test_a_history_retracts_only_what_is_there(history: list[Epoch]) -> None:
    alive: Counter[tuple[object, ...]] = Counter()
    for epoch in history:
        for row, diff in epoch.changes:
            alive[tuple(map(canonical, row))] += diff
            assert alive[tuple(map(canonical, row))] >= 0
    assert bag(rows_after(history)) == +alive
