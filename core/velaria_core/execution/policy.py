"""Policy: what becomes of an error. It names its culprit, may be worth another try, or sets rows aside.

A query fails at the first error unless it was told otherwise. An ExternalError that may pass is worth a retry:
everything outside is closed, the query waits, each time twice as long, and opens again at its last durable epoch. A
DataError comes back with the same rows, so a retry helps nothing: with a sink for dead letters the batch that caused
it goes there, and the query goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from velaria_core.contract import abi
from velaria_core.errors import ExternalError, InputError, VelariaError
from velaria_core.execution.outside import os_error

BACKOFF_MS_MAX = 60_000


@contextmanager
def blamed(culprit: str) -> Iterator[None]:
    """Whatever a source or sink raises leaves as a VelariaError whose message begins with its name."""
    try:
        yield
    except VelariaError as error:
        error.message = f"{culprit}: {error.message}"
        raise
    except OSError as error:
        raise os_error(culprit, error) from error
    except Exception as error:
        what = f"{culprit}: {type(error).__name__}: {error}"
        raise ExternalError("stream.failed", what, cause=error) from error


def not_taken(error: BaseException) -> bool:
    """Whether a sink gave up waiting for whoever takes its rows."""
    return isinstance(error, ExternalError) and error.code == "sink.full"


class Retries:
    """How often in a row, and after which waits, a query starts again."""

    def __init__(self, attempts: int, backoff_ms: int) -> None:
        self._attempts, self._backoff_ms = attempts, backoff_ms
        self._failed = 0

    def wait_ms(self, error: BaseException) -> float | None:
        """How long to wait before the next attempt after `error`; None: it is final."""
        if not getattr(error, "retryable", False) or self._failed >= self._attempts:
            return None
        wait_ms = float(min(self._backoff_ms << min(self._failed, 30), BACKOFF_MS_MAX))
        self._failed += 1
        return wait_ms

    def succeeded(self) -> None:
        """An epoch is durable: what fails from here on is something new."""
        self._failed = 0


class DeadLetters:
    """The form of rows that are set aside: the columns of the sources, and `error`.

    Of several sources all columns, by name; a row has NULL in those that its source has not. A column "error" of a
    source keeps its name, and the text of the error is `error_1`.

    Raises:
        InputError[stream.dead_letter]: two sources have a column of one name and different types.
    """

    def __init__(self, sources: Sequence[abi.SourceInfo]) -> None:
        columns: dict[str, pa.DataType] = {}
        for info in sources:
            schema = info.schema if info.append_only else info.schema.append(pa.field(abi.DIFF, pa.int64()))
            for field in schema:
                if columns.setdefault(field.name, field.type) != field.type:
                    what = f'"{field.name}" is {columns[field.name]} in one source and {field.type} in another'
                    raise InputError("stream.dead_letter", what, hint="rename the column of one of them")
        taken = {name.lower() for name in columns}
        names = ["error", *(f"error_{at}" for at in range(1, len(columns) + 1))]
        self._error = next(name for name in names if name not in taken)
        self.schema = pa.schema([*columns.items(), (self._error, pa.string())])

    def rows(self, table: pa.Table, error: VelariaError) -> pa.Table:
        """The rows of a batch, with the reason why they are here."""
        text = f"{error.code}: {error.message}"
        found = []
        for field in self.schema:
            if field.name == self._error:
                found.append(_repeated(text, table.num_rows))
            elif field.name in table.schema.names:
                found.append(table.column(field.name).cast(field.type))
            else:
                found.append(pa.nulls(table.num_rows, field.type))
        return pa.table(found, schema=self.schema)


def _repeated(text: str, rows: int) -> pa.Array:
    """A text column of one value, from buffers: pyarrow loads pandas to convert a Python value."""
    data = text.encode()
    offsets = np.arange(rows + 1, dtype=np.int32) * len(data)
    return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(data * rows)])
