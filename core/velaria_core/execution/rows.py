"""Rows as Python values, for results small enough to be looked at one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as dicts of Python values.

    Values are what their types are in Python (int, float, Decimal, str, bytes, date, datetime, list, dict), with:
    whole numbers as int also where the engine widened them to decimals (a sum of int64); a map as a dict, or as
    pairs where its keys cannot be; what Python's own types cannot hold exactly (nanoseconds, years beyond 9999)
    as numpy.datetime64 in UTC or numpy.timedelta64.
    """
    columns = [_values(column) for column in table.columns]
    names = table.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    convert = _converter(column.type)
    if convert is None:
        values: list[Any] = column.to_pylist()
        return values
    return [convert(scalar) for scalar in column]


_Converter = Callable[[pa.Scalar], Any]


def _converter(kind: pa.DataType) -> _Converter | None:
    """How to read a scalar of a type; None where `as_py` is right for every value."""
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return _or_none(lambda scalar: int(scalar.as_py()))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _or_none(_moment)
    if pa.types.is_time(kind) and kind.unit == "ns":
        return _or_none(_time_ns)
    if pa.types.is_dictionary(kind):
        # Decoded: a dictionary holds each of its values once.
        inner = _converter(kind.value_type)
        return None if inner is None else _or_none(lambda scalar: inner(scalar.value))
    if pa.types.is_map(kind):
        return _map_converter(kind)
    if pa.types.is_struct(kind):
        fields = [(field.name, _converter(field.type) or _as_py) for field in kind]
        if all(convert is _as_py for _, convert in fields):
            return None
        return _or_none(lambda scalar: {name: convert(scalar[at]) for at, (name, convert) in enumerate(fields)})
    if hasattr(kind, "value_type"):
        element = _converter(kind.value_type)
        return None if element is None else _or_none(lambda scalar: [element(item) for item in scalar.values])
    return None


def _map_converter(kind: pa.MapType) -> _Converter:
    key, item = _converter(kind.key_type) or _as_py, _converter(kind.item_type) or _as_py

    def pairs(scalar: pa.Scalar) -> Any:
        return [(key(entry[0]), item(entry[1])) for entry in scalar.values]

    if pa.types.is_nested(kind.key_type):
        return _or_none(pairs)
    return _or_none(lambda scalar: dict(pairs(scalar)))


def _as_py(scalar: pa.Scalar) -> Any:
    return scalar.as_py()


def _or_none(convert: _Converter) -> _Converter:
    return lambda scalar: convert(scalar) if scalar.is_valid else None


def _moment(scalar: pa.Scalar) -> Any:
    """A date or datetime, or a numpy.datetime64 where none is exact."""
    kind, value = scalar.type, scalar.value
    unit: Any = "D" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
    if unit == "ns":
        if value % 1000:
            return np.datetime64(value, "ns")
        scalar = pa.scalar(value // 1000, pa.timestamp("us", kind.tz))
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        return np.datetime64(value, unit)


def _time_ns(scalar: pa.Scalar) -> Any:
    return scalar.as_py() if scalar.value % 1000 == 0 else np.timedelta64(scalar.value, "ns")
