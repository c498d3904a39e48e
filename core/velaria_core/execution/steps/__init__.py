"""Steps: a plan in its incremental form, one kind of step to a file."""

from __future__ import annotations

from velaria_core.execution.steps.base import Changes, Moment, Step
from velaria_core.execution.steps.compile import compile_steps
from velaria_core.execution.steps.dataflow import Dataflow

__all__ = ["Changes", "Dataflow", "Moment", "Step", "compile_steps"]
