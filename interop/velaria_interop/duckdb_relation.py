"""DuckDB relations of a connection that the caller owns. Velaria's own engine is another instance of it."""

from __future__ import annotations

from typing import Any

from velaria_core.dataframe import DataFrame
from velaria_core.errors import ExternalError, InputError
from velaria_core.session import DataflowSession
from velaria_interop.arrow import from_arrow


def from_duckdb(session: DataflowSession, relation: Any) -> DataFrame:
    """The rows of a relation (`con.sql("...")`) as a frame, read to memory now, by the thread that calls.

    It is not read lazily: a connection serves one thread at a time, and the engine would read it from another.

    Raises:
        InputError[data.unsupported]: `relation` is no relation.
        ExternalError[duckdb.failed]: its query failed.
    """
    if not hasattr(relation, "to_arrow_table"):
        raise InputError(
            "data.unsupported", f"a {type(relation).__name__} is no DuckDB relation", hint='give con.sql("SELECT ...")'
        )
    try:
        table = relation.to_arrow_table()
    except Exception as error:
        if _is_duckdb(error):
            raise ExternalError("duckdb.failed", str(error), cause=error) from error
        raise
    return from_arrow(session, table)


def to_duckdb(frame: DataFrame, connection: Any, name: str | None = None) -> Any:
    """A relation of `connection` that runs the frame whenever it is read, batch by batch.

    Args:
        name: also a view of the connection, for its SQL.

    Raises:
        InputError[data.unsupported]: `connection` is no DuckDB connection.
    """
    if not hasattr(connection, "from_arrow"):
        raise InputError(
            "data.unsupported", f"a {type(connection).__name__} is no DuckDB connection", hint="give duckdb.connect()"
        )
    if name is None:
        return connection.from_arrow(frame)
    connection.register(name, frame)
    return connection.table(name)


def _is_duckdb(error: BaseException) -> bool:
    return any(kind.__module__.partition(".")[0] in ("duckdb", "_duckdb") for kind in type(error).__mro__)
