"""The rows of a frame as a stream of batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pyarrow as pa

from velaria_core.dataframe import DataFrame


def stream(frame: DataFrame) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema, and the batches as they are computed.

    The first is computed here: a query that fails at once fails before a header is written.
    """
    reader = frame.to_reader()
    first = next(reader, None)
    return reader.schema, chain([first] if first is not None else [], reader)
