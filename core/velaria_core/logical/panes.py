"""Panes: sliding windows are sums of shorter ones that do not overlap, so a row is grouped once and not once a window.

The panes of windows of 10 s every 4 s are 2 s long, the largest time that divides both. Rows are grouped by pane and
key; what comes out, much less than the rows, is then taken into each window that the pane is part of.

Source: Li et al., No Pane, No Gain: Efficient Evaluation of Sliding-Window Aggregates, SIGMOD Record 2005.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

from sqlglot import exp

from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.expr import columns_of, parse_expression, reference, replaced
from velaria_core.logical.node import Node
from velaria_core.logical.operators.window_assign import WindowAssign
from velaria_core.logical.query import Named, Query, Stage

_ROWS = "rows_of_a_run"


@dataclass(frozen=True, slots=True)
class Panes:
    """A grouping by sliding windows, cut in two.

    Attributes:
        run: the nodes below, the highest first, with panes in the place of windows.
        pane: the column of theirs that holds the start of a pane.
        node: gives the windows of a pane, by its start.
        keys: of the grouping's keys, those that are the window: `window_start` or `window_end`.
        others: the keys that are not.
    """

    run: tuple[Node, ...]
    pane: str
    node: WindowAssign
    keys: Mapping[str, str]
    others: tuple[Named, ...]

    def in_first_window(self, pane: str, start: str) -> exp.Expr:
        """Whether the window with this start is the first that the pane is part of: the one to close first."""
        back_ms = self.node.size_ms - self.node.slide_ms
        if self.node.kind is TimeKind.INTEGER:
            template = f"s + {back_ms} <= p"
        else:
            time = "CAST({} AS TIMESTAMP)" if self.node.kind is TimeKind.TEXT else "{}"
            template = f"{time.format('s')} + to_milliseconds({back_ms}) <= {time.format('p')}"
        return replaced(parse_expression(template), {"s": reference(start), "p": reference(pane)})


def panes_of(run: Sequence[Node], keys: Sequence[Named], read: Sequence[exp.Expr]) -> Panes | None:
    """The grouping by `keys` of what a run gives, by panes; None where there are no sliding windows in it, or where
    anything but the keys looks at them.

    Args:
        run: linear nodes, the highest first.
        read: what is computed from the rows of a group.
    """
    at = next((at for at, node in enumerate(run) if isinstance(node, WindowAssign)), None)
    if at is None:
        return None
    windows = run[at]
    assert isinstance(windows, WindowAssign)
    pane_ms = gcd(windows.size_ms, windows.slide_ms)
    # Text tells seconds and no less.
    if windows.slide_ms == windows.size_ms or (windows.kind is TimeKind.TEXT and pane_ms % 1000):
        return None
    held = {windows.start: "window_start"}
    if windows.end is not None:
        held[windows.end] = "window_end"
    for node in reversed(run[:at]):
        passed = _handed_on(node, held)
        if passed is None:
            return None
        held = passed
    of_window = {name: held[tree.name] for name, tree in keys if isinstance(tree, exp.Column) and tree.name in held}
    others = tuple((name, tree) for name, tree in keys if name not in of_window)
    pane = next((name for name, what in held.items() if what == "window_start"), None)
    looked_at = {name for tree in (*read, *(tree for _, tree in others)) for name in columns_of(tree)}
    if pane is None or not of_window or looked_at & held.keys():
        return None
    shorter = replace(windows, size_ms=pane_ms, slide_ms=pane_ms)
    return Panes((*run[:at], shorter, *run[at + 1 :]), pane, windows, of_window, others)


def _handed_on(node: Node, held: Mapping[str, str]) -> dict[str, str] | None:
    """Under which names a node hands these columns on; None where it looks at one."""
    (below,) = node.inputs
    query = node.batch(Query.table(_ROWS, below.columns))
    if query.whole is not None or query.stage > Stage.WHERE or [item.sql for item in query.items] != [_ROWS]:
        return None
    passed = {
        name: held[tree.name] for name, tree in query.columns if isinstance(tree, exp.Column) and tree.name in held
    }
    computed = [tree for _, tree in query.columns if not isinstance(tree, exp.Column)]
    looked_at = {name for tree in (*computed, *query.where) for name in columns_of(tree)}
    return None if looked_at & held.keys() else passed
