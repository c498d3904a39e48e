"""Placed steps: computed by a runtime outside of the kernel, which `execution.placing` lets in."""

from __future__ import annotations

from velaria_core.execution.steps.base import Step


class PlacedStep(Step):
    """A step whose rows go elsewhere, and whose changes come back within the epoch.

    Attributes:
        name: as `Placement.placed` was told; a checkpoint keeps which steps were placed.
    """

    name: str
    impl = "placed"
    impl_reason = "rows are split by key among processes that keep the state of their keys"
