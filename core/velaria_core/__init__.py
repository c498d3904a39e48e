"""The kernel of Velaria: all semantics of batch and stream, and nothing above them.

Applications import `velaria`, which hands these names on. They load on first use, so that importing
the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from velaria_core.contract.modes import Trigger as Trigger
    from velaria_core.dataframe import DataFrame as DataFrame
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

# Public name -> module that defines it. tests/contract holds the golden list.
_PUBLIC = {
    "DataflowSession": "session",
    "Session": "session",
    "DataFrame": "dataframe",
    "Trigger": "contract.modes",
    "StreamingQuery": "execution.runtime",
    "StreamingDataFrame": "streaming",
    "ArrowReaderSource": "execution.sources.arrow_reader",
    "MemorySource": "execution.sources.memory",
    "ReplaySource": "execution.sources.replay",
    "RowsSource": "execution.sources.rows",
    "CallbackSink": "execution.sinks.callback",
    "MemorySink": "execution.sinks.memory",
    "Column": "logical.expr",
    "col": "logical.expr",
    "expr": "logical.expr",
    "fn": "logical.expr",
    "lit": "logical.expr",
    "when": "logical.expr",
    "ExecutionOptions": "execution.jobs",
    "JobHandle": "execution.jobs",
    "JobState": "execution.jobs",
    "QueryEvent": "execution.listeners",
    "EventKind": "execution.listeners",
    "VelariaError": "errors",
    "InputError": "errors",
    "SqlSyntaxError": "errors",
    "SqlSemanticError": "errors",
    "SqlUnsupportedError": "errors",
    "TableKindError": "errors",
    "CatalogNotFoundError": "errors",
    "DataError": "errors",
    "ExternalError": "errors",
    "QueryCancelled": "errors",
    "StateError": "errors",
    "InternalError": "errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
