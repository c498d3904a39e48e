"""Arrow's C stream interface by address, for code in C, C++, Rust or R that has a `struct ArrowArrayStream *`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError
from velaria_core.session import DataflowSession
from velaria_interop.arrow import from_arrow, to_arrow_reader


def export_c_stream(data: Any, address: int) -> None:
    """Fill the empty `struct ArrowArrayStream` at `address`; whoever owns it calls its `release`.

    The rows are computed as the stream is read.
    """
    _require(address)
    to_arrow_reader(data)._export_to_c(address)


def import_c_stream(session: DataflowSession, address: int) -> DataFrame:
    """The rows of the `struct ArrowArrayStream` at `address`, read to memory; the struct is released."""
    _require(address)
    return from_arrow(session, pa.RecordBatchReader._import_from_c(address))


def _require(address: int) -> None:
    if address <= 0:
        raise InputError("data.address", f"{address} is no address of an ArrowArrayStream")
