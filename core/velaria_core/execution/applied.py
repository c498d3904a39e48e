"""Applied: a user's function is called, and what it gives is held to what was declared."""

from __future__ import annotations

import inspect
import traceback
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from velaria_core.errors import DataError, InputError
from velaria_core.execution.duck import Computed, Engine
from velaria_core.execution.sources.tables import arrow_table, conformed
from velaria_core.logical.event_time import END
from velaria_core.logical.operators.apply_in_batches import ApplyInBatches, function_name
from velaria_core.types import engine_schema, quoted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)
_ARRIVAL = "__arrival"
_TRACE_LINES = 3


class Call:
    """The function of a node as it is called: with Arrow tables, and with what it asked for.

    Args:
        rows: the columns of the input.
    """

    def __init__(self, node: ApplyInBatches, rows: pa.Schema) -> None:
        self._function, self._output = node.function, node.output
        self.name = function_name(node.function)
        parts = [rows.field(key) for key in node.keys] + list(node.state or ())
        self.state = engine_schema(pa.schema(parts))
        self._stateful = node.state is not None
        self._takes_watermark = takes_watermark(node.function)

    def __call__(self, rows: pa.Table, state: pa.Table, watermark_us: int | None) -> tuple[pa.Table, pa.Table]:
        """The rows that come out and the states that stay.

        Raises:
            DataError[function.failed, function.result, function.schema].
        """
        given = (rows, state) if self._stateful else (rows,)
        named = {"watermark": moment(watermark_us)} if self._takes_watermark else {}
        try:
            made = self._function(*given, **named)
        except Exception as error:
            raise DataError(
                "function.failed",
                f"{self.name} raised {type(error).__name__}: {error}\n{_tail(error)}",
                hint="nothing of this epoch was kept: mend the function and go on",
                cause=error,
            ) from error
        if not self._stateful:
            return self._held(made, self._output, "its output"), self.state.empty_table()
        if not isinstance(made, tuple) or len(made) != 2:
            raise DataError(
                "function.result",
                f"{self.name} gave a {type(made).__name__}, not a pair of tables",
                hint="return (output, state)",
            )
        output, kept = made
        return self._held(output, self._output, "its output"), self._held(kept, self.state, "its state")

    def _held(self, made: Any, schema: pa.Schema, what: str) -> pa.Table:
        """What the function gave, with the declared columns."""
        try:
            return conformed(arrow_table(made), schema, f"{self.name}, {what}")
        except InputError as error:
            raise DataError("function.schema", error.message, hint=error.hint, cause=error) from error
        except pa.ArrowException as error:
            told = f"{self.name}, {what}: {error}"
            raise DataError("function.schema", told, hint="cast the column first", cause=error) from error


def takes_watermark(function: Any) -> bool:
    """Whether a function has a parameter `watermark`."""
    try:
        return "watermark" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of something written in C, which has none to look at
        return False


def moment(watermark_us: int | None) -> datetime | None:
    """A watermark for people's code: aware, in UTC; `datetime.max` once time is over."""
    if watermark_us is None:
        return None
    if watermark_us == END:
        return _END
    try:
        return _EPOCH + timedelta(microseconds=watermark_us)
    except OverflowError:
        return _END if watermark_us > 0 else datetime.min.replace(tzinfo=UTC)


def in_order(node: ApplyInBatches, source: str) -> str:
    """SQL of the rows as the function is given them: a key's rows together, in their order, then as they arrived."""
    columns = ", ".join(map(quoted, node.input.columns))
    arrival = _ARRIVAL
    while arrival.lower() in {name.lower() for name in node.input.columns}:
        arrival += "_"
    order = ", ".join([*map(quoted, (*node.keys, *node.order)), arrival])
    return f"SELECT {columns} FROM (SELECT *, row_number() OVER () AS {arrival} FROM {source}) ORDER BY {order}"


def computed(node: ApplyInBatches) -> Computed:
    """The result of a node in batch: the function is called once, with all rows, when the engine reads it first."""
    return Computed(node.output, partial(_batch, node))


def _batch(node: ApplyInBatches, engine: Engine) -> pa.Table:
    # Lowering asks for this, and this for the lowered input.
    from velaria_core.execution.lower import lower

    lowered = lower(node.input)
    with engine.cursor(lowered.feeds, lowered.files) as cursor:
        rows = cursor.table(in_order(node, f"({lowered.sql})"))
    call = Call(node, rows.schema)
    output, _ = call(rows, call.state.empty_table(), END)
    return output


def _tail(error: BaseException) -> str:
    """The last places of a traceback, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[1:][-_TRACE_LINES:]
    return "\n".join(f"  {frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames)
