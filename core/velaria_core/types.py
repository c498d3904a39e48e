"""The one table of types: Velaria's name, the Arrow type, DuckDB's name and the names SQL accepts.

A table is Arrow, so a Velaria type *is* an Arrow type; this module names it and carries it over DuckDB's
border. int64 stays exact, text is Unicode, a fixed vector is `float32[n]` (Arrow `fixed_size_list<float32>[n]`).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from velaria_core.errors import InputError, InternalError, did_you_mean


@dataclass(frozen=True, slots=True)
class Simple:
    """A type without parameters."""

    name: str
    arrow: pa.DataType
    duckdb: str
    sql: tuple[str, ...] = ()


UTC = "UTC"

SIMPLE: tuple[Simple, ...] = (
    Simple("bool", pa.bool_(), "BOOLEAN", ("BOOL", "LOGICAL")),
    Simple("int8", pa.int8(), "TINYINT", ("INT1",)),
    Simple("int16", pa.int16(), "SMALLINT", ("INT2", "SHORT")),
    Simple("int32", pa.int32(), "INTEGER", ("INT", "INT4", "SIGNED")),
    Simple("int64", pa.int64(), "BIGINT", ("INT8", "INT64", "LONG")),
    Simple("uint8", pa.uint8(), "UTINYINT"),
    Simple("uint16", pa.uint16(), "USMALLINT"),
    Simple("uint32", pa.uint32(), "UINTEGER"),
    Simple("uint64", pa.uint64(), "UBIGINT"),
    Simple("float32", pa.float32(), "FLOAT", ("FLOAT4", "REAL")),
    Simple("float64", pa.float64(), "DOUBLE", ("FLOAT8",)),
    Simple("string", pa.string(), "VARCHAR", ("STRING", "TEXT", "BPCHAR", "CHAR", "JSON", "UUID")),
    Simple("binary", pa.binary(), "BLOB", ("BYTEA", "BINARY", "VARBINARY")),
    Simple("date", pa.date32(), "DATE"),
    Simple("time", pa.time64("us"), "TIME"),
    Simple("timestamp", pa.timestamp("us"), "TIMESTAMP", ("DATETIME", "TIMESTAMP_US")),
    Simple("timestamp_s", pa.timestamp("s"), "TIMESTAMP_S"),
    Simple("timestamp_ms", pa.timestamp("ms"), "TIMESTAMP_MS"),
    Simple("timestamp_ns", pa.timestamp("ns"), "TIMESTAMP_NS"),
    Simple("timestamp_utc", pa.timestamp("us", UTC), "TIMESTAMP WITH TIME ZONE", ("TIMESTAMPTZ",)),
    Simple("interval", pa.month_day_nano_interval(), "INTERVAL"),
    Simple("null", pa.null(), "NULL"),
)

# DuckDB types that leave as another Arrow type (duckdb-notes section 8).
_ARROW_OF = {
    **{simple.duckdb: simple.arrow for simple in SIMPLE},
    **{alias: simple.arrow for simple in SIMPLE for alias in simple.sql},
    "HUGEINT": pa.decimal128(38, 0),
    "UHUGEINT": pa.decimal128(38, 0),
    "BIT": pa.binary(),
    "BIGNUM": pa.binary(),
    "TIME WITH TIME ZONE": pa.time64("us"),
    "TIME_NS": pa.time64("ns"),
    "TIMESTAMPTZ_NS": pa.timestamp("ns", UTC),
    '"NULL"': pa.null(),
}
_DUCKDB_OF = {simple.arrow: simple.duckdb for simple in SIMPLE}
_NAME_OF = {simple.arrow: simple.name for simple in SIMPLE}
_BY_NAME = {simple.name.upper(): simple.duckdb for simple in SIMPLE} | {
    alias: simple.duckdb for simple in SIMPLE for alias in (simple.duckdb, *simple.sql)
}


def arrow_type(duckdb_type: str) -> pa.DataType:
    """The Arrow type in which a column of a DuckDB type leaves, e.g. `STRUCT(x INTEGER[])` or `FLOAT[3]`."""
    text = duckdb_type.strip()
    if (simple := _ARROW_OF.get(text)) is not None:
        return simple
    if text.endswith("]"):
        inner, _, size = text[:-1].rpartition("[")
        child = arrow_type(inner)
        return pa.list_(child, int(size)) if size else pa.list_(child)
    kind, _, rest = text.partition("(")
    arguments = _split(rest[:-1])
    if kind == "DECIMAL":
        width, scale = arguments
        return pa.decimal128(int(width), int(scale))
    if kind == "STRUCT":
        return pa.struct([_field(argument) for argument in arguments])
    if kind == "MAP":
        return pa.map_(arrow_type(arguments[0]), arrow_type(arguments[1]))
    if kind == "ENUM":
        return pa.dictionary(pa.uint8(), pa.string())
    if kind == "UNION":
        return pa.sparse_union([_field(argument) for argument in arguments])
    raise InternalError("type.unreadable", f"the engine names a type that Velaria does not know: {text}")


def _field(text: str) -> pa.Field:
    """`x INTEGER[]` or `"a b" DOUBLE` as a field."""
    if text.startswith('"'):
        end = text.index('" ', 1)
        return pa.field(text[1:end].replace('""', '"'), arrow_type(text[end + 2 :]))
    name, _, kind = text.partition(" ")
    return pa.field(name, arrow_type(kind))


def _split(text: str) -> list[str]:
    """The parts of `text` between commas that stand in no bracket and no quote."""
    parts, depth, quote, start = [], 0, "", 0
    for at, ch in enumerate(text):
        if quote:
            quote = "" if ch == quote else quote
        elif ch in "'\"":
            quote = ch
        elif ch in "([":
            depth += 1
        elif ch in ")]":
            depth -= 1
        elif ch == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def duckdb_type(arrow: pa.DataType) -> str:
    """DuckDB's name for an Arrow type, for DDL and casts.

    Raises:
        InputError[type.unsupported]: DuckDB has no such type (decimal256, float16, dense union).
    """
    if (simple := _DUCKDB_OF.get(arrow)) is not None:
        return simple
    if pa.types.is_decimal(arrow) and arrow.precision <= 38:
        return f"DECIMAL({arrow.precision},{arrow.scale})"
    if pa.types.is_fixed_size_list(arrow):
        return f"{duckdb_type(arrow.value_type)}[{arrow.list_size}]"
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_list_view(arrow):
        return f"{duckdb_type(arrow.value_type)}[]"
    if pa.types.is_struct(arrow):
        fields = ", ".join(f"{quoted(field.name)} {duckdb_type(field.type)}" for field in arrow)
        return f"STRUCT({fields})"
    if pa.types.is_map(arrow):
        return f"MAP({duckdb_type(arrow.key_type)}, {duckdb_type(arrow.item_type)})"
    if pa.types.is_dictionary(arrow):
        return duckdb_type(arrow.value_type)
    if pa.types.is_timestamp(arrow):
        return "TIMESTAMPTZ_NS" if arrow.unit == "ns" else "TIMESTAMP WITH TIME ZONE"
    for test, name in (
        (pa.types.is_large_string, "VARCHAR"),
        (pa.types.is_string_view, "VARCHAR"),
        (pa.types.is_large_binary, "BLOB"),
        (pa.types.is_binary_view, "BLOB"),
        (pa.types.is_fixed_size_binary, "BLOB"),
        (pa.types.is_date64, "DATE"),
        (pa.types.is_time, "TIME"),
        (pa.types.is_duration, "INTERVAL"),
    ):
        if test(arrow):
            return name
    raise InputError(
        "type.unsupported",
        f"the type {arrow} has no counterpart in the engine",
        hint="cast the column to one of: " + ", ".join(simple.name for simple in SIMPLE),
    )


def type_name(arrow: pa.DataType) -> str:
    """Velaria's name of a type, as explain, describe and error messages print it."""
    if (simple := _NAME_OF.get(arrow)) is not None:
        return simple
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    if pa.types.is_fixed_size_list(arrow):
        return f"{type_name(arrow.value_type)}[{arrow.list_size}]"
    if pa.types.is_list(arrow):
        return f"list<{type_name(arrow.value_type)}>"
    if pa.types.is_struct(arrow):
        return "struct<" + ", ".join(f"{field.name}: {type_name(field.type)}" for field in arrow) + ">"
    if pa.types.is_map(arrow):
        return f"map<{type_name(arrow.key_type)}, {type_name(arrow.item_type)}>"
    if pa.types.is_timestamp(arrow) and arrow.tz is not None:
        return "timestamp_utc" if arrow.unit == "us" else f"timestamp_{arrow.unit}_utc"
    try:
        known = arrow_type(duckdb_type(arrow))
    except InputError:
        return str(arrow)
    # Another way to store what the engine has one type for: a dictionary of texts is a string.
    return str(arrow) if known == arrow else type_name(known)


def resolve_type_name(name: str) -> str:
    """DuckDB's text for a type that a user wrote: a Velaria name (`int64`), or any SQL spelling.

    Raises:
        InputError[type.unknown]: nobody knows the name.
    """
    if (simple := _BY_NAME.get(name.strip().upper())) is not None:
        return simple
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        return exp.DataType.build(name, dialect="duckdb").sql("duckdb")
    except SqlglotError as error:
        raise InputError(
            "type.unknown",
            f'no type "{name}"',
            hint=did_you_mean(name, [simple.name for simple in SIMPLE], "types"),
            cause=error,
        ) from error


def quoted(identifier: str) -> str:
    """An identifier in double quotes, as every text that we hand to the engine writes it."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
