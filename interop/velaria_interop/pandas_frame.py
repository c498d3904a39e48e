"""pandas."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from velaria_core.dataframe import DataFrame
from velaria_core.errors import DataError, InputError
from velaria_core.execution.foreign import need, pandas_frame
from velaria_core.session import DataflowSession
from velaria_interop.arrow import from_arrow, to_arrow


def from_pandas(session: DataflowSession, data: Any, *, index: bool = False) -> DataFrame:
    """A frame over a pandas DataFrame or Series, copied to Arrow where its columns are not Arrow already.

    NaN, NaT, None and pd.NA are NULL. Column names become text.

    Args:
        index: the index becomes columns too, named "index" where it has no name.

    Raises:
        InputError[data.unsupported]: `data` is no pandas DataFrame or Series.
        DataError[value.mixed_types]: a column of objects holds values of several types.
    """
    pandas = need("pandas")
    if isinstance(data, pandas.Series):
        data = data.to_frame(name=data.name if data.name is not None else "value")
    if not isinstance(data, pandas.DataFrame):
        raise InputError("data.unsupported", f"a {type(data).__name__} is no pandas DataFrame")
    if index:
        data = data.reset_index()
    data = data.set_axis([_name(column) for column in data.columns], axis="columns")
    try:
        table = pa.Table.from_pandas(data, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason, *place = (str(part) for part in error.args)
        raise DataError(
            "value.mixed_types",
            f"{reason}{f' ({place[0]})' if place else ''}",
            hint='make its values alike, e.g. data["column"].astype(str)',
            cause=error,
        ) from error
    return from_arrow(session, table.replace_schema_metadata())


def _name(column: object) -> str:
    """The name of a column; the levels of a MultiIndex are joined."""
    return "_".join(str(level) for level in column) if isinstance(column, tuple) else str(column)


def to_pandas(data: Any) -> Any:
    """All rows of a frame, or of anything with `__arrow_c_stream__`, as a pandas DataFrame.

    Whole numbers stay exact, also beside NULL; see `velaria_core.execution.foreign.pandas_frame`.
    """
    need("pandas")
    return pandas_frame(to_arrow(data))
