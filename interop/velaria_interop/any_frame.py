"""A frame from whatever a program has at hand. What it is, its class tells; no library is loaded to find out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from velaria_core.dataframe import DataFrame
from velaria_core.session import DataflowSession
from velaria_interop.arrow import from_arrow, from_dataset
from velaria_interop.duckdb_relation import from_duckdb
from velaria_interop.narwhals_frame import from_narwhals
from velaria_interop.pandas_frame import from_pandas
from velaria_interop.polars_frame import from_polars

_READERS: dict[str, Callable[[DataflowSession, Any], DataFrame]] = {
    "pandas": from_pandas,
    "polars": from_polars,
    "narwhals": from_narwhals,
    "duckdb": from_duckdb,
    "_duckdb": from_duckdb,
}


def from_any(session: DataflowSession, data: Any) -> DataFrame:
    """A frame over a frame of pandas, Polars, Narwhals or DuckDB, a `pyarrow.dataset`, or what `from_arrow` takes.

    Raises:
        InputError[data.unsupported]: `data` is none of these.
    """
    modules = [kind.__module__ for kind in type(data).__mro__]
    if "pyarrow._dataset" in modules:
        return from_dataset(session, data)
    library = next((name for name in (module.partition(".")[0] for module in modules) if name in _READERS), None)
    return _READERS[library](session, data) if library is not None else from_arrow(session, data)
