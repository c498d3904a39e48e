"""What others rely on: the messages that say how a query runs, and the protocols of sources and sinks.

`abi` is for whoever writes a source or a sink, `codec` for whoever reads explain, progress and checkpoints,
`modes` has the closed sets that both use. Nothing here runs a query; names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # type checkers see everything, with its types
    from velaria_core.contract.abi import *  # noqa: F403
    from velaria_core.contract.codec import *  # noqa: F403
    from velaria_core.contract.modes import *  # noqa: F403

_ABI = (
    "Batch",
    "Blocked",
    "CheckpointMarker",
    "Comparison",
    "EndOfStream",
    "Offset",
    "Pushed",
    "Sink",
    "SinkContext",
    "SinkInfo",
    "Source",
    "SourceContext",
    "SourceInfo",
    "TextOffset",
)
_CODEC = (
    "BatchExplain",
    "BatchPhysicalPlan",
    "BatchStrategy",
    "Checkpoint",
    "DeliveryGuarantee",
    "Explain",
    "Frontend",
    "HybridExplain",
    "LogicalPlan",
    "PlanNode",
    "Progress",
    "RejectedCandidate",
    "SourceOffset",
    "StagedOutput",
    "StateSnapshot",
    "Strategy",
    "StreamExplain",
    "StreamPhysicalPlan",
    "StreamStrategy",
    "VectorExplain",
)
_MODES = (
    "ColumnarFallback",
    "DeliveryMode",
    "ExecutionMode",
    "FilterExecution",
    "Metric",
    "OutputMode",
    "Pushdown",
    "QueryStatus",
    "Shape",
    "SinkMode",
    "TransportMode",
    "Trigger",
    "TriggerKind",
)
_HOME = {name: module for module, names in (("abi", _ABI), ("codec", _CODEC), ("modes", _MODES)) for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
