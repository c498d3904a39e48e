"""Polars."""

from __future__ import annotations

from typing import Any

from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError
from velaria_core.execution.foreign import need, polars_frame
from velaria_core.session import DataflowSession
from velaria_interop.arrow import from_arrow, to_arrow


def from_polars(session: DataflowSession, data: Any) -> DataFrame:
    """A frame over a Polars DataFrame or Series; a LazyFrame is collected now.

    Categories are text; 128-bit integers are decimals.

    Raises:
        InputError[data.unsupported]: `data` is none of these.
    """
    polars = need("polars")
    if isinstance(data, polars.LazyFrame):
        data = data.collect()
    if isinstance(data, polars.Series):
        data = data.to_frame(data.name or "value")
    if not isinstance(data, polars.DataFrame):
        raise InputError("data.unsupported", f"a {type(data).__name__} is no Polars frame")
    # Arrow has no integers of 128 bits.
    wide = [name for name, kind in data.schema.items() if kind in (polars.Int128, getattr(polars, "UInt128", None))]
    if wide:
        data = data.with_columns(polars.col(wide).cast(polars.Decimal(38, 0)))
    return from_arrow(session, data)


def to_polars(data: Any) -> Any:
    """All rows of a frame, or of anything with `__arrow_c_stream__`, as a Polars DataFrame.

    Intervals become durations; see `velaria_core.execution.foreign.polars_frame`.
    """
    need("polars")
    return polars_frame(to_arrow(data))
