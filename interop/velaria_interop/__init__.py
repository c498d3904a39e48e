"""Borders of Velaria: Arrow, pandas, Polars, Narwhals and DuckDB, in and out.

    from velaria_interop import from_pandas, to_polars
    frame = from_pandas(session, pdf)
    pl_frame = to_polars(frame.group_by("city").agg(n=fn.count()))

In      from_arrow, from_pandas, from_polars, from_narwhals, from_duckdb, or from_any, which looks at what it gets:
        rows held in memory. from_stream and from_dataset: rows read anew by each query, in bounded memory.
Out     to_arrow, to_arrow_reader, to_arrow_array, to_pandas, to_polars, to_narwhals: a frame of Velaria, or anything
        with `__arrow_c_stream__`, as theirs. to_duckdb: a relation of theirs that runs the frame when it is read.
C       export_c_stream, import_c_stream: Arrow's C stream by address, for code that knows no Python objects.

A frame also speaks for itself: whatever reads `__arrow_c_stream__` or Narwhals reads a DataFrame as it is.

Every library is optional: `dependency.missing` tells which to install. Names load on first use, so that importing
this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from velaria_interop.any_frame import from_any as from_any
    from velaria_interop.arrow import from_arrow as from_arrow
    from velaria_interop.arrow import from_dataset as from_dataset
    from velaria_interop.arrow import from_stream as from_stream
    from velaria_interop.arrow import to_arrow as to_arrow
    from velaria_interop.arrow import to_arrow_array as to_arrow_array
    from velaria_interop.arrow import to_arrow_reader as to_arrow_reader
    from velaria_interop.c_data import export_c_stream as export_c_stream
    from velaria_interop.c_data import import_c_stream as import_c_stream
    from velaria_interop.duckdb_relation import from_duckdb as from_duckdb
    from velaria_interop.duckdb_relation import to_duckdb as to_duckdb
    from velaria_interop.narwhals_frame import from_narwhals as from_narwhals
    from velaria_interop.narwhals_frame import to_narwhals as to_narwhals
    from velaria_interop.pandas_frame import from_pandas as from_pandas
    from velaria_interop.pandas_frame import to_pandas as to_pandas
    from velaria_interop.polars_frame import from_polars as from_polars
    from velaria_interop.polars_frame import to_polars as to_polars

__version__ = "0.1.0"

# Public name -> module that defines it.
_PUBLIC = {
    "export_c_stream": "c_data",
    "from_any": "any_frame",
    "from_arrow": "arrow",
    "from_dataset": "arrow",
    "from_duckdb": "duckdb_relation",
    "from_narwhals": "narwhals_frame",
    "from_pandas": "pandas_frame",
    "from_polars": "polars_frame",
    "from_stream": "arrow",
    "import_c_stream": "c_data",
    "to_arrow": "arrow",
    "to_arrow_array": "arrow",
    "to_arrow_reader": "arrow",
    "to_duckdb": "duckdb_relation",
    "to_narwhals": "narwhals_frame",
    "to_pandas": "pandas_frame",
    "to_polars": "polars_frame",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
