"""Velaria: local-first dataflow, batch and stream in one model. The public door of all supported layers.

The names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from velaria_core.contract.modes import Trigger as Trigger
    from velaria_core.dataframe import DataFrame as DataFrame
    from velaria_core.errors import CatalogNotFoundError as CatalogNotFoundError
    from velaria_core.errors import DataError as DataError
    from velaria_core.errors import ExternalError as ExternalError
    from velaria_core.errors import InputError as InputError
    from velaria_core.errors import InternalError as InternalError
    from velaria_core.errors import QueryCancelled as QueryCancelled
    from velaria_core.errors import SqlSemanticError as SqlSemanticError
    from velaria_core.errors import SqlSyntaxError as SqlSyntaxError
    from velaria_core.errors import SqlUnsupportedError as SqlUnsupportedError
    from velaria_core.errors import StateError as StateError
    from velaria_core.errors import TableKindError as TableKindError
    from velaria_core.errors import VelariaError as VelariaError
    from velaria_core.execution.jobs import ExecutionOptions as ExecutionOptions
    from velaria_core.execution.jobs import JobHandle as JobHandle
    from velaria_core.execution.jobs import JobState as JobState
    from velaria_core.execution.listeners import EventKind as EventKind
    from velaria_core.execution.listeners import QueryEvent as QueryEvent
    from velaria_core.execution.runtime import StreamingQuery as StreamingQuery
    from velaria_core.execution.sinks.callback import CallbackSink as CallbackSink
    from velaria_core.execution.sinks.memory import MemorySink as MemorySink
    from velaria_core.execution.sources.arrow_reader import ArrowReaderSource as ArrowReaderSource
    from velaria_core.execution.sources.memory import MemorySource as MemorySource
    from velaria_core.execution.sources.replay import ReplaySource as ReplaySource
    from velaria_core.execution.sources.rows import RowsSource as RowsSource
    from velaria_core.logical.expr import Column as Column
    from velaria_core.logical.expr import col as col
    from velaria_core.logical.expr import expr as expr
    from velaria_core.logical.expr import fn as fn
    from velaria_core.logical.expr import lit as lit
    from velaria_core.logical.expr import when as when
    from velaria_core.session import DataflowSession as DataflowSession
    from velaria_core.session import Session as Session
    from velaria_core.streaming import StreamingDataFrame as StreamingDataFrame

__version__ = "0.1.0"

# The golden list is ecosystem/tests/golden/public_names.txt.
__all__ = [
    "ArrowReaderSource",
    "CallbackSink",
    "CatalogNotFoundError",
    "Column",
    "DataError",
    "DataFrame",
    "DataflowSession",
    "EventKind",
    "ExecutionOptions",
    "ExternalError",
    "InputError",
    "InternalError",
    "JobHandle",
    "JobState",
    "MemorySink",
    "MemorySource",
    "QueryCancelled",
    "QueryEvent",
    "ReplaySource",
    "RowsSource",
    "Session",
    "SqlSemanticError",
    "SqlSyntaxError",
    "SqlUnsupportedError",
    "StateError",
    "StreamingDataFrame",
    "StreamingQuery",
    "TableKindError",
    "Trigger",
    "VelariaError",
    "__version__",
    "col",
    "expr",
    "fn",
    "lit",
    "when",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import velaria_core

    value = globals()[name] = getattr(velaria_core, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
