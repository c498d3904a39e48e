"""Dataflow: the steps of one query, run in order, once an epoch, with the time and the rows of each.

Measuring is always on: two readings of a clock a step. The last epochs are kept for `explain(analyze=True)`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Final

import pyarrow as pa

from velaria_core.execution.steps.base import Changes, Moment, Step
from velaria_core.execution.steps.source import SourceStep
from velaria_core.execution.steps.watermark import ProcessingTimeStep, WatermarkStep
from velaria_core.execution.watermark import Tracker
from velaria_core.logical.event_time import END
from velaria_core.logical.node import Node

MEASURED_EPOCHS: Final = 100


@dataclass(frozen=True, slots=True)
class Measured:
    """What the steps did in one epoch, in their order: nanoseconds, and rows of changes that each gave."""

    times_ns: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a step keeps between epochs."""

    rows: int = 0
    nbytes: int = 0


class Dataflow:
    """The steps of a plan in the order in which they run.

    Attributes:
        sources: the steps that take the rows of a relation, by its identity.
        measured: the last committed epochs, oldest first.
        kept: of each step, in their order, after the last committed epoch.
    """

    def __init__(self, steps: tuple[Step, ...], sources: Mapping[int, SourceStep]) -> None:
        self.steps, early = _times_first(steps)
        self._parts = (self.steps[:early], self.steps[early:])
        self.sources = sources
        self._timed = [step for step in self.steps if isinstance(step, (WatermarkStep, ProcessingTimeStep))]
        relations = {id(step): key for key, step in sources.items()}
        for timed in self._timed:
            timed.sources = frozenset(relations[id(one)] for one in _below(timed) if id(one) in relations)
        self._tracker = Tracker(self._timed, frozenset(sources))
        self.measured: deque[Measured] = deque(maxlen=MEASURED_EPOCHS)
        self.kept: tuple[Kept, ...] = (Kept(),) * len(steps)
        self._open: list[Measured] = []  # epochs that are run and not yet committed

    @property
    def schema(self) -> pa.Schema:
        return self.steps[-1].schema

    @property
    def root(self) -> Node:
        """The plan."""
        return self.steps[-1].node

    @property
    def state_rows(self) -> int:
        """Rows that the steps keep, after the last committed epoch."""
        return sum(kept.rows for kept in self.kept)

    @property
    def state_bytes(self) -> int:
        """And what they take."""
        return sum(kept.nbytes for kept in self.kept)

    def epoch(self, given: Mapping[int, pa.Table], at: Moment, ended: Collection[int] = ()) -> Changes:
        """The changes of the result that follow from rows given to the sources, by the identity of their relation.

        Args:
            at: the epoch's place in time; its event times are filled in here, but where it has a watermark already, as
                another dataflow has read the times.
            ended: the relations whose source gives no more rows.
        """
        for key, table in given.items():
            self.sources[key].given = table
        made: dict[int, Changes] = {}
        times: list[int] = []
        rows: list[int] = []
        ends = self._tracker.ends(frozenset(ended))
        told_us = at.watermark_us
        if told_us is None:
            before = self._tracker.watermark_us
            at = replace(at, late_before_us=before, watermark_us=END if ends else before)
        self._run(self._parts[0], made, at, times, rows)
        at = replace(at, watermark_us=self._tracker.advance(at.now_ms, ends, told_us))
        self._run(self._parts[1], made, at, times, rows)
        self._open.append(Measured(tuple(times), tuple(rows)))
        return made[id(self.steps[-1])]

    @staticmethod
    def _run(steps: Sequence[Step], made: dict[int, Changes], at: Moment, times: list[int], rows: list[int]) -> None:
        now = perf_counter_ns()
        for step in steps:
            changes = step.step([made[id(below)] for below in step.inputs], at)
            made[id(step)] = changes
            rows.append(0 if changes is None else changes.num_rows)
            before, now = now, perf_counter_ns()
            times.append(now - before)

    # --- event time -----------------------------------------------------------------------------------------------

    @property
    def watermark_us(self) -> int | None:
        """The watermark after the last epoch; `event_time.END` once every source has ended."""
        return self._tracker.watermark_us

    @property
    def late_rows(self) -> int:
        """Rows of the last epoch that came behind the watermark, dropped or not."""
        return sum(step.late_rows for step in self._timed)

    @property
    def late_dropped_rows(self) -> int:
        """Rows of the last epoch that came too late for the result: left out, or sent to the late sink."""
        return sum(step.late_dropped_rows for step in self.steps)

    @property
    def ahead_rows(self) -> int:
        """Rows of the last epoch that were set aside, or not believed, since their time is far ahead."""
        return sum(step.ahead_rows for step in self._timed)

    @property
    def late(self) -> pa.Table | None:
        """Rows of the last epoch for the late sink, as they were at the watermark."""
        found = [step.late for step in self._timed if step.late is not None]
        return found[0] if found else None

    @property
    def late_schema(self) -> pa.Schema | None:
        """Their columns; None where no watermark sends late rows to a sink."""
        found = [step.changes_schema for step in self._timed if step.sends_late_rows]
        return found[0] if found else None

    def due(self, now_ms: int, ended: Collection[int] = ()) -> bool:
        """Whether an epoch without rows would do something: a silent stream no longer holds the others back, the end
        of the sources closes what is open, the clock closes a window of processing time, or a table is to be read."""
        ends = self._tracker.ends(frozenset(ended))
        watermark = self._tracker.read(now_ms, ends)
        if ends and watermark != self._tracker.watermark_us and self._timed:
            return True
        return any(step.due(watermark, now_ms) for step in self.steps)

    def snapshot(self) -> str:
        """What a checkpoint keeps of event time, with the epoch at hand."""
        return self._tracker.snapshot()

    def restore(self, text: str) -> None:
        """Go on in event time where `snapshot` was taken."""
        self._tracker.restore(text)
        for step in self.steps:
            step.restored(self._tracker.watermark_us)

    # --- the end of an epoch --------------------------------------------------------------------------------------

    def committed(self) -> None:
        """The epoch is durable."""
        self._tracker.committed()
        for step in self.steps:
            step.committed()
        self.kept = tuple(Kept(step.state_rows(), step.state_bytes()) for step in self.steps)
        self.measured.extend(self._open)
        self._open.clear()

    def rolled_back(self) -> None:
        """The epoch failed."""
        self._open.clear()
        self._tracker.rolled_back()
        for step in self.steps:
            step.rolled_back()

    def nodes_of(self, step: Step) -> Iterator[Node]:
        """The nodes that a step computes, its own first: down to those of the steps it reads."""
        below = {id(one.node) for one in step.inputs}
        seen: set[int] = set()
        pending = [step.node]
        while pending:
            node = pending.pop()
            if id(node) in below or id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            pending.extend(reversed(node.inputs))

    def computing(self, node: Node) -> Step:
        """The step that computes a node of the plan."""
        return next(step for step in self.steps if any(one is node for one in self.nodes_of(step)))


def _times_first(steps: Sequence[Step]) -> tuple[tuple[Step, ...], int]:
    """The steps with those first that the watermark waits for, and how many these are: an epoch knows its watermark
    before the rest of them runs."""
    early: set[int] = set()
    for step in steps:
        if isinstance(step, (WatermarkStep, ProcessingTimeStep)):
            early |= {id(step), *(id(below) for below in _below(step))}
    first = tuple(step for step in steps if id(step) in early)
    return (*first, *(step for step in steps if id(step) not in early)), len(first)


def _below(step: Step) -> Iterator[Step]:
    """The steps whose rows reach this one; some more than once."""
    for below in step.inputs:
        yield below
        yield from _below(below)
