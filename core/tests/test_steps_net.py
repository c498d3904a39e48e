"""Changes of one epoch: what a sink is told to remove was there before it, whatever met in the epoch itself."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from velaria_core.contract import abi
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.changelog import ChangelogSource
from velaria_core.session import DataflowSession


def changelog(*epochs: list[tuple[int, str, int]]) -> ChangelogSource:
    """Rows (k, v) and their diff, a batch each."""
    names = ["k", "v", abi.DIFF]
    return ChangelogSource([pa.table([list(column) for column in zip(*rows, strict=True)], names) for rows in epochs])


def followed(sink: MemorySink) -> Counter[tuple[object, ...]]:
    """What one who keeps the result has in the end; he finds each row that he is to remove."""
    kept: Counter[tuple[object, ...]] = Counter()
    for table in sink.tables.values():
        for row in table.to_pylist():
            diff = row.pop(abi.DIFF)
            kept[tuple(row.values())] += diff
            assert kept[tuple(row.values())] >= 0
    return +kept


JOIN = "SELECT l.v AS a, r.v AS b FROM l JOIN r ON l.k = r.k"


@pytest.mark.parametrize(
    "right",
    [
        pytest.param([[(1, "x", 1)], [(1, "x", -1), (1, "y", 1)]], id="both sides change"),
        pytest.param([[(1, "x", 1), (1, "y", 1)], [(1, "x", -1)]], id="rows only go on one side"),
    ],
)
def test_a_join_of_which_both_sides_change(right: list[list[tuple[int, str, int]]]) -> None:
    session, sink = DataflowSession(), MemorySink()
    left = changelog([(1, "a", 1)], [(1, "a", -1), (1, "b", 1)])
    session.create_temp_view("l", session.read_stream(left))
    session.create_temp_view("r", session.read_stream(changelog(*right)))
    session.stream_sql(JOIN).write_stream(sink, epoch_rows_max=1 + len(right[0])).process_available()
    assert followed(sink) == Counter({("b", "y"): 1})


def test_a_join_against_rows_that_went() -> None:
    """The log of a side has what came and what went; a row that comes on the other side meets both."""
    session, sink = DataflowSession(), MemorySink()
    session.create_temp_view("l", session.read_stream(changelog([(2, "-", 1)], [(2, "-", 1)], [(1, "b", 1)])))
    session.create_temp_view("r", session.read_stream(changelog([(1, "x", 1)], [(1, "x", -1), (1, "y", 1)])))
    session.stream_sql(JOIN).write_stream(sink, epoch_rows_max=1).process_available()
    assert followed(sink) == Counter({("b", "y"): 1})


@pytest.mark.parametrize("query", ["SELECT v FROM t WHERE k > 0", "SELECT v FROM t UNION ALL SELECT v FROM t"])
def test_a_row_that_comes_and_goes_in_one_epoch(query: str) -> None:
    session, sink = DataflowSession(), MemorySink()
    session.create_temp_view("t", session.read_stream(changelog([(1, "a", 1), (1, "b", 1)], [(1, "a", -1)])))
    session.stream_sql(query).write_stream(sink).process_available()
    assert len(sink.tables) == 1
    assert set(followed(sink)) == {("b",)}
