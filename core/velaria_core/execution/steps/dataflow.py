"""Dataflow: the steps of one query, run in order, once an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from velaria_core.execution.steps.base import Changes, Moment, Step
from velaria_core.execution.steps.source import SourceStep


@dataclass(frozen=True, slots=True)
class Dataflow:
    """The steps of a plan in the order in which they run."""

    steps: tuple[Step, ...]
    sources: Mapping[int, SourceStep]

    @property
    def schema(self) -> pa.Schema:
        return self.steps[-1].schema

    def epoch(self, given: Mapping[int, pa.Table], at: Moment) -> Changes:
        """The changes of the result that follow from rows given to the sources, by the identity of their relation."""
        for key, table in given.items():
            self.sources[key].given = table
        made: dict[int, Changes] = {}
        for step in self.steps:
            made[id(step)] = step.step([made[id(below)] for below in step.inputs], at)
        return made[id(self.steps[-1])]

    def committed(self) -> None:
        """The epoch is durable."""
        for step in self.steps:
            step.committed()

    def rolled_back(self) -> None:
        """The epoch failed."""
        for step in self.steps:
            step.rolled_back()
