"""Frames of other libraries from Arrow tables. Each library is optional, and loaded here on first use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa

from velaria_core.errors import DataError, InputError
from velaria_core.types import type_name

# Libraries that `velaria` names as extras of its own.
_EXTRAS = frozenset({"pandas", "polars"})


def need(module: str) -> Any:
    """An optional library.

    Raises:
        InputError[dependency.missing]: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        wanted = f"'velaria[{module}]'" if module in _EXTRAS else module
        raise InputError(
            "dependency.missing", f"{module} is not installed", hint=f"pip install {wanted}", cause=error
        ) from error


def pandas_frame(table: pa.Table) -> Any:
    """A table as a pandas DataFrame.

    Whole numbers stay whole: a column of integers or booleans with nulls gets pandas' nullable type (Int64, boolean),
    as a float64 would lose digits; a sum that the engine widened is int64 where it fits. Times with nanoseconds are
    timedeltas, intervals are date offsets.

    Raises:
        InputError[dependency.missing]: pandas is not installed.
        InputError[type.unsupported]: pandas has no such values; DataError[value.conversion]: nor a place for one.
    """
    dtypes = _nullable_dtypes(need("pandas"))
    names = table.schema.names
    columns = dict(zip(names, map(_for_pandas, table.columns), strict=True))
    nullable = {name for name, column in columns.items() if column.null_count and column.type in dtypes}
    with _refused("pandas", table.schema):
        # The others in one call, which makes blocks of columns of a type.
        frame = pa.table({name: column for name, column in columns.items() if name not in nullable}).to_pandas()
        for at, name in enumerate(names):
            if name in nullable:
                frame.insert(at, name, columns[name].to_pandas(types_mapper=dtypes.get))
    return frame


def polars_frame(table: pa.Table) -> Any:
    """A table as a Polars DataFrame. Intervals without months become durations.

    Raises:
        InputError[dependency.missing]: polars is not installed.
        InputError[type.unsupported]: Polars has no such type; DataError[value.conversion]: an interval of months.
    """
    polars = need("polars")
    for at, field in enumerate(table.schema):
        if pa.types.is_interval(field.type):
            table = table.set_column(at, field.name, _as_duration(field.name, table.column(at)))
    with _refused("Polars", table.schema, polars.exceptions.PolarsError):
        return polars.from_arrow(table)


def narwhals_frame(table: pa.Table) -> Any:
    """A table as the object behind a Narwhals DataFrame, which a class gives from `__narwhals_dataframe__`."""
    # Narwhals says how to make one's own such object, but not how to get at one of its own.
    return need("narwhals").from_native(table, eager_only=True)._compliant_frame


def _nullable_dtypes(pandas: Any) -> dict[pa.DataType, Any]:
    dtypes = {
        getattr(pa, f"{sign}int{bits}")(): getattr(pandas, f"{sign.upper()}Int{bits}Dtype")()
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    }
    return {pa.bool_(): pandas.BooleanDtype(), **dtypes}


def _for_pandas(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_decimal(kind) and kind.scale == 0:
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column
    if kind == pa.time64("ns"):
        return column.cast(pa.int64()).cast(pa.duration("ns"))
    return column


_INTERVAL = np.dtype([("months", np.int32), ("days", np.int32), ("nanoseconds", np.int64)])
_DAY_US = 86_400_000_000


def _as_duration(name: str, column: pa.ChunkedArray) -> pa.Array:
    """Intervals as microseconds, a day as 24 hours.

    Raises:
        DataError[value.conversion]: one counts months, which have no fixed length.
    """
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    data = array.buffers()[1]
    parts = np.frombuffer(data, _INTERVAL)[array.offset : array.offset + len(array)] if data else np.empty(0, _INTERVAL)
    present = array.is_valid().to_numpy(zero_copy_only=False)
    if (parts["months"][present] != 0).any():
        raise DataError(
            "value.conversion",
            f'an interval in "{name}" counts months, which no duration can hold',
            hint=f'cast it to text: with_column("{name}", col("{name}").cast("string"))',
        )
    microseconds = parts["days"].astype(np.int64) * _DAY_US + parts["nanoseconds"] // 1000
    return pa.array(microseconds, pa.int64(), mask=~present).cast(pa.duration("us"))


@contextmanager
def _refused(library: str, schema: pa.Schema, *errors: type[Exception]) -> Iterator[None]:
    """What `library` cannot take, in our words."""
    try:
        yield
    except (pa.ArrowNotImplementedError, *errors) as error:
        kinds = ", ".join(f"{field.name}: {type_name(field.type)}" for field in schema if field.type.num_fields)
        raise InputError(
            "type.unsupported",
            f"{library} has no place for a type of this table: {str(error).splitlines()[0]}",
            hint=f"cast or drop one of: {kinds}" if kinds else "cast the column to another type",
            cause=error,
        ) from error
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise DataError("value.conversion", f"{library} cannot hold a value: {error}", cause=error) from error
