"""Narwhals, and through it every frame that Narwhals knows.

`narwhals.from_native(frame)` takes a Velaria DataFrame too, as it has `__narwhals_dataframe__`.
"""

from __future__ import annotations

from typing import Any

from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError
from velaria_core.execution.foreign import need
from velaria_core.session import DataflowSession
from velaria_interop.arrow import from_arrow, to_arrow


def from_narwhals(session: DataflowSession, data: Any) -> DataFrame:
    """A frame over a Narwhals DataFrame; a LazyFrame is collected now.

    Raises:
        InputError[data.unsupported]: `data` is neither.
    """
    narwhals = need("narwhals")
    data = narwhals.from_native(data, pass_through=True)
    if isinstance(data, narwhals.LazyFrame):
        data = data.collect(backend="pyarrow")
    if not isinstance(data, narwhals.DataFrame):
        raise InputError("data.unsupported", f"a {type(data).__name__} is no frame that Narwhals knows")
    return from_arrow(session, data.to_arrow())


def to_narwhals(data: Any) -> Any:
    """All rows of a frame, or of anything with `__arrow_c_stream__`, as a Narwhals DataFrame over PyArrow."""
    return need("narwhals").from_native(to_arrow(data), eager_only=True)
