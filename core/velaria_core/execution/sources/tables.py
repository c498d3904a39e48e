"""What sources share: tables brought to a declared schema, positions in a row of tables, and projections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

import pyarrow as pa

from velaria_core.contract.abi import DIFF
from velaria_core.errors import InputError, StateError, did_you_mean
from velaria_core.types import duckdb_type, type_name

DIFF_FIELD = pa.field(DIFF, pa.int64(), nullable=False)


@dataclass(frozen=True, slots=True)
class Position:
    """Between two rows of a row of tables: `batch` tables and `row` rows of the next one lie before it.

    Its text is the number of tables at a border, `tables+rows` inside of one.
    """

    batch: int = 0
    row: int = 0

    @property
    def token(self) -> str:
        return f"{self.batch}+{self.row}" if self.row else str(self.batch)

    @staticmethod
    def parse(token: str | None) -> Position:
        """The position of a token, the beginning for None.

        Raises:
            StateError[source.offset]: it is no such text.
        """
        batch, _, row = (token or "0").partition("+")
        return Position(whole_number(batch), whole_number(row or "0"))


class Kept:
    """Tables of a source that cannot be read twice: they stay until they are acknowledged, so that a query that
    fails and opens again in the same process gets what its sinks may not have. Not for several threads.
    """

    def __init__(self) -> None:
        self._batches: deque[pa.Table] = deque()
        self._first = 0  # number of the first table in _batches
        self._acknowledged = Position()
        self._position = Position()
        self.waiting_rows = 0  # rows that were not taken yet

    def append(self, table: pa.Table) -> None:
        """More rows, at least one."""
        self._batches.append(table)
        self.waiting_rows += table.num_rows

    def rewind(self) -> None:
        """Go back to what was acknowledged."""
        self._position = self._acknowledged
        self.waiting_rows = sum(table.num_rows for table in self._batches) - self._acknowledged.row

    def take(self, max_rows: int) -> tuple[pa.Table, Position] | None:
        """The next rows and the position after them; None when there are none."""
        batch, row = self._position.batch, self._position.row
        at = batch - self._first
        if at == len(self._batches):
            return None
        table = self._batches[at]
        given = table.slice(row, max(max_rows, 1))
        end = row + given.num_rows
        self._position = Position(batch + 1) if end == table.num_rows else Position(batch, end)
        self.waiting_rows -= given.num_rows
        return given, self._position

    def acknowledge(self, token: str) -> None:
        """Forget the rows up to a position that `take` gave."""
        self._acknowledged = Position.parse(token)
        while self._first < self._acknowledged.batch:
            self._batches.popleft()
            self._first += 1


def whole_number(text: str) -> int:
    """A count in a token.

    Raises:
        StateError[source.offset]: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise StateError("source.offset", f'"{text}" is no offset of this source', hint="restore another checkpoint")
    return int(text)


def gone(what: str) -> StateError:
    """The rows after an offset are not there any more."""
    return StateError("source.gone", what, hint="bring the rows back, or start with an empty checkpoint_path")


def arrow_table(data: Any) -> pa.Table:
    """Arrow data of any kind as a table, without a copy.

    Raises:
        InputError[source.data]: it is none.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if hasattr(data, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(data).read_all()
    raise InputError(
        "source.data", f"a {type(data).__name__} is no Arrow data", hint="give a pyarrow.Table or RecordBatch"
    )


def row_schema(schema: pa.Schema, *, append_only: bool) -> pa.Schema:
    """The schema of a source's tables: of the rows, and `diff` where rows also go."""
    return schema if append_only else schema.append(DIFF_FIELD)


def conformed(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """The table with exactly these columns; they may come in another order or be stored in another way.

    Raises:
        InputError[source.schema]: names or types are others; a number is not silently made another one. Or a `diff`
            is missing.
    """
    if table.schema.equals(schema):
        return table
    if sorted(table.schema.names) != sorted(schema.names):
        strange = [name for name in table.schema.names if name not in schema.names]
        missing = [name for name in schema.names if name not in table.schema.names]
        parts = [f'"{name}" is not in its schema' for name in strange[:3]]
        parts += [f'"{name}" is missing' for name in missing[:3]]
        hint = did_you_mean((strange or missing or schema.names)[0], schema.names, "columns")
        raise InputError("source.schema", f"{what}: {', '.join(parts) or 'a column comes twice'}", hint=hint)
    columns = [_column(table.column(field.name), field, what) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(column: pa.ChunkedArray, field: pa.Field, what: str) -> pa.ChunkedArray:
    if field.name == DIFF and column.null_count:
        raise InputError("source.schema", f'{what}: "{DIFF}" counts rows and is never NULL')
    if column.type == field.type:
        return column
    if not pa.types.is_null(column.type) and duckdb_type(column.type) != duckdb_type(field.type):
        raise InputError(
            "source.schema",
            f'{what}: "{field.name}" is {type_name(column.type)}, its schema says {type_name(field.type)}',
            hint="cast the column first",
        )
    return column.cast(field.type)


def table_of_rows(rows: Sequence[Any], schema: pa.Schema, what: str) -> pa.Table:
    """Rows as dicts by name (a missing name is NULL) or as sequences by position.

    Raises:
        InputError[source.row]: a row has other names or another length, or a value does not fit its column.
    """
    columns: list[list[Any]] = [[] for _ in schema]
    known = set(schema.names)
    for at, row in enumerate(rows):
        if isinstance(row, Mapping):
            if not known.issuperset(row):
                name = next(name for name in row if name not in known)
                hint = did_you_mean(str(name), schema.names, "columns")
                raise InputError("source.row", f'{what}: row {at} has a column "{name}"', hint=hint)
            values: Iterable[Any] = (row.get(name) for name in schema.names)
        elif isinstance(row, Sequence) and not isinstance(row, (str, bytes)) and len(row) == len(columns):
            values = row
        else:
            hint = f"a row is a dict, or a sequence of {len(columns)} values"
            raise InputError("source.row", f"{what}: row {at} is {_shown(row)}", hint=hint)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    arrays = []
    for field, column in zip(schema, columns, strict=True):
        try:
            arrays.append(_exact(column, field.type))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            told = f'{what}: a value of "{field.name}" is no {type_name(field.type)}: {error}'
            raise InputError("source.row", told, cause=error) from error
    return pa.Table.from_arrays(arrays, schema=schema)


def _exact(values: list[Any], kind: pa.DataType) -> pa.Array:
    """The values as they are: Arrow itself makes 1 of 1.5, and a day of a time.

    Raises:
        ValueError, TypeError, pa.ArrowException: one does not fit.
    """
    made = pa.array(values, kind)
    if pa.types.is_integer(kind) or pa.types.is_date(kind):
        for given, kept in zip(values, made.to_pylist(), strict=True):
            day = isinstance(given, datetime) and given.time() == time()
            if kept is not None and (given.date() if day else given) != kept:
                raise ValueError(f"{given!r} would become {kept!r}")
    return made


def _shown(row: Any) -> str:
    text = repr(row)
    return text if len(text) <= 60 else text[:57] + "..."


def projected(table: pa.Table, columns: tuple[str, ...] | None) -> pa.Table:
    """The pushed columns, in their order, and `diff` where the table has one."""
    if columns is None:
        return table
    signs = (DIFF,) if table.num_columns and table.schema.names[-1] == DIFF else ()
    return table.select([*columns, *signs])
