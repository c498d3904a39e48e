"""Statuses: what came of a message or a task, as one of a closed set of texts, and errors as messages and back.

An error keeps its class, code, message and hint on its way, so that a caller catches what it would have caught in one
process. A class or status that the reader does not know becomes `InternalError` or `unknown`: nothing is made from a
name that another process sends.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from velaria_core import errors
from velaria_core.errors import ExternalError, InternalError, VelariaError
from velaria_experimental.wire.v1 import runtime_pb2 as pb


class Status(StrEnum):
    """What came of it."""

    OK = "ok"
    TIMEOUT = "timeout"
    TRANSPORT_CLOSED = "transport-closed"
    TRANSPORT_ERROR = "transport-error"
    CODEC_MISSING = "codec-missing"
    SERIALIZE_ERROR = "serialize-error"
    DESERIALIZE_ERROR = "deserialize-error"
    FRAME_ERROR = "frame-error"
    VERSION_UNSUPPORTED = "version-unsupported"
    TYPE_MISMATCH = "type-mismatch"
    ARGUMENT_ERROR = "argument-error"
    MISSING_INPUT = "missing-input"
    NO_WORKER_AVAILABLE = "no-worker-available"
    SQL_SYNTAX = "sql-syntax"
    SQL_SEMANTIC = "sql-semantic"
    CATALOG_NOT_FOUND = "catalog-not-found"
    INVALID_MESSAGE = "invalid-message"
    UNKNOWN = "unknown"

    @property
    def number(self) -> int:
        """A small number for programs: the place in this list, 255 for `unknown`."""
        return 255 if self is Status.UNKNOWN else list(Status).index(self)

    @staticmethod
    def read(text: str) -> Status:
        """The status of a text; `unknown` for one that is none."""
        return Status(text) if text in frozenset(Status) else Status.UNKNOWN


# The first class that fits, then the code.
_BY_CLASS: Final[tuple[tuple[type[VelariaError], Status], ...]] = (
    (errors.SqlSyntaxError, Status.SQL_SYNTAX),
    (errors.SqlSemanticError, Status.SQL_SEMANTIC),
    (errors.CatalogNotFoundError, Status.CATALOG_NOT_FOUND),
)
_BY_CODE: Final = {
    **{f"exchange.{status.value.replace('-', '_')}": status for status in Status},
    "query.timeout": Status.TIMEOUT,
    "plan.damaged": Status.DESERIALIZE_ERROR,
    "plan.version": Status.VERSION_UNSUPPORTED,
}
_CLASSES: Final = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, VelariaError) and kind is not VelariaError
}


def refused(status: Status, message: str, *, hint: str | None = None, retryable: bool = False) -> ExternalError:
    """An error of the exchange itself; its code is `exchange.` and the status."""
    return ExternalError(f"exchange.{status.value.replace('-', '_')}", message, hint=hint, retryable=retryable)


def status_of(error: VelariaError) -> Status:
    """The status that an error comes to."""
    if (found := _BY_CODE.get(error.code)) is not None:
        return found
    return next((status for kind, status in _BY_CLASS if isinstance(error, kind)), Status.UNKNOWN)


def error_message(error: VelariaError) -> pb.Error:
    """An error as a message."""
    return pb.Error(
        status=status_of(error),
        error_type=type(error).__name__,
        code=error.code,
        message=error.message,
        hint=error.hint or "",
        retryable=error.retryable,
    )


def error_of(message: pb.Error) -> VelariaError:
    """The error of a message."""
    kind = _CLASSES.get(message.error_type, InternalError)
    hint = message.hint or None
    if issubclass(kind, ExternalError):
        return kind(message.code, message.message, hint=hint, retryable=message.retryable)
    return kind(message.code, message.message, hint=hint)
