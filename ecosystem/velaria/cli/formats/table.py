"""A box of text for people: the first rows, cut to the width of the terminal."""

from __future__ import annotations

from typing import BinaryIO

from velaria_core.dataframe import DataFrame
from velaria_core.execution.show import text_table


def write_table(frame: DataFrame, out: BinaryIO, max_rows: int) -> None:
    """The first `max_rows` rows, all of them if it is 0; one more is computed, to tell that there are more."""
    rows = frame.limit(max_rows + 1).to_arrow() if max_rows else frame.to_arrow()
    out.write((text_table(rows, max_rows or rows.num_rows) + "\n").encode())
