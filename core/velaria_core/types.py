"""The one table of types: Velaria's name, the Arrow type, DuckDB's name and the names SQL accepts.

A table is Arrow, so a Velaria type *is* an Arrow type; this module names it and carries it over DuckDB's
border. int64 stays exact, text is Unicode, a fixed vector is `float32[n]` (Arrow `fixed_size_list<float32>[n]`).
"""

from __future__ import annotations

from collections.abc import Callable
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
    Simple("time_ns", pa.time64("ns"), "TIME_NS"),
    Simple("timestamp", pa.timestamp("us"), "TIMESTAMP", ("DATETIME", "TIMESTAMP_US")),
    Simple("timestamp_s", pa.timestamp("s"), "TIMESTAMP_S"),
    Simple("timestamp_ms", pa.timestamp("ms"), "TIMESTAMP_MS"),
    Simple("timestamp_ns", pa.timestamp("ns"), "TIMESTAMP_NS"),
    Simple("timestamp_utc", pa.timestamp("us", UTC), "TIMESTAMP WITH TIME ZONE", ("TIMESTAMPTZ",)),
    Simple("timestamp_ns_utc", pa.timestamp("ns", UTC), "TIMESTAMPTZ_NS"),
    Simple("interval", pa.month_day_nano_interval(), "INTERVAL"),
    Simple("null", pa.null(), '"NULL"', ("NULL",)),
)

# DuckDB types that Arrow has no like of, and as what they leave. Left alone, the engine would hand out its own
# bytes for them, a time without its zone, or a negative number for an unsigned one.
_LEAVES_AS = {
    "UHUGEINT": "DECIMAL(38,0)",
    "BIT": "VARCHAR",
    "BIGNUM": "VARCHAR",
    "TIME WITH TIME ZONE": "VARCHAR",
    "VARIANT": "VARCHAR",
    "GEOMETRY": "VARCHAR",
}
_ARROW_OF = {
    **{simple.duckdb: simple.arrow for simple in SIMPLE},
    **{alias: simple.arrow for simple in SIMPLE for alias in simple.sql},
    "HUGEINT": pa.decimal128(38, 0),
}
_EXTENSIONS = {"arrow.uuid": "UUID", "arrow.json": "JSON", "arrow.bool8": "BOOLEAN"}
_DUCKDB_OF = {simple.arrow: simple.duckdb for simple in SIMPLE}
_NAME_OF = {simple.arrow: simple.name for simple in SIMPLE}
_BY_VELARIA_NAME = {simple.name: simple.duckdb for simple in SIMPLE}
_BY_NAME = {simple.name.upper(): simple.duckdb for simple in SIMPLE} | {
    alias: simple.duckdb for simple in SIMPLE for alias in (simple.duckdb, *simple.sql)
}


def arrow_type(duckdb_type: str) -> pa.DataType:
    """The Arrow type in which a column of a DuckDB type leaves, e.g. `STRUCT(x INTEGER[])` or `FLOAT[3]`."""
    text = exported_type(duckdb_type.strip())
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
        return pa.struct([pa.field(name, arrow_type(child)) for name, child in map(_field, arguments)])
    if kind == "MAP":
        return pa.map_(arrow_type(arguments[0]), arrow_type(arguments[1]))
    if kind == "ENUM":
        return pa.dictionary(pa.uint8(), pa.string())
    if kind == "UNION":
        return pa.sparse_union([pa.field(name, arrow_type(child)) for name, child in map(_field, arguments)])
    raise InternalError("type.unreadable", f"the engine names a type that Velaria does not know: {text}")


def exported_type(duckdb_type: str) -> str:
    """The DuckDB type as which a column leaves for Arrow: itself, but for a few types, also inside others."""
    if (other := _LEAVES_AS.get(duckdb_type)) is not None:
        return other
    if not any(name in duckdb_type for name in _LEAVES_AS):
        return duckdb_type
    if duckdb_type.endswith("]"):
        inner, _, size = duckdb_type[:-1].rpartition("[")
        return f"{exported_type(inner)}[{size}]"
    kind, _, rest = duckdb_type.partition("(")
    arguments = _split(rest[:-1])
    if kind in ("STRUCT", "UNION"):
        fields = (f"{quoted(name)} {exported_type(child)}" for name, child in map(_field, arguments))
        return f"{kind}({', '.join(fields)})"
    if kind == "MAP":
        return f"MAP({', '.join(exported_type(argument) for argument in arguments)})"
    return duckdb_type


def _field(text: str) -> tuple[str, str]:
    """Name and type in `x INTEGER[]` or `"a b" DOUBLE`."""
    if text.startswith('"'):
        name, end = _unquoted(text)
        return name, text[end:].strip()
    name, _, kind = text.partition(" ")
    return name, kind


def _unquoted(text: str) -> tuple[str, int]:
    """The name in the quotes that `text` starts with, and where they end."""
    end = 1
    while text[end] != '"' or text[end : end + 2] == '""':
        end += 2 if text[end] == '"' else 1
    return text[1:end].replace('""', '"'), end + 1


def _split(text: str) -> list[str]:
    """The parts of `text` between commas that stand in no bracket and no quote."""
    parts, depth, quote, start = [], 0, "", 0
    for at, ch in enumerate(text):
        if quote:
            quote = "" if ch == quote else quote
        elif ch in "'\"":
            quote = ch
        elif ch in "([<":
            depth += 1
        elif ch in ")]>":
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
    if isinstance(arrow, pa.BaseExtensionType):
        return _EXTENSIONS.get(arrow.extension_name) or duckdb_type(arrow.storage_type)
    if (simple := _DUCKDB_OF.get(arrow)) is not None:
        return simple
    if pa.types.is_decimal(arrow) and arrow.precision <= 38:
        return f"DECIMAL({arrow.precision},{arrow.scale})"
    if pa.types.is_fixed_size_list(arrow):
        return f"{duckdb_type(arrow.value_type)}[{arrow.list_size}]"
    if any(
        test(arrow)
        for test in (
            pa.types.is_list,
            pa.types.is_large_list,
            pa.types.is_list_view,
            pa.types.is_large_list_view,
        )
    ):
        return f"{duckdb_type(arrow.value_type)}[]"
    if pa.types.is_struct(arrow):
        fields = ", ".join(f"{quoted(field.name)} {duckdb_type(field.type)}" for field in arrow)
        return f"STRUCT({fields})"
    if pa.types.is_map(arrow):
        return f"MAP({duckdb_type(arrow.key_type)}, {duckdb_type(arrow.item_type)})"
    if pa.types.is_union(arrow) and arrow.mode == "sparse":
        return f"UNION({', '.join(f'{quoted(field.name)} {duckdb_type(field.type)}' for field in arrow)})"
    if pa.types.is_dictionary(arrow) or pa.types.is_run_end_encoded(arrow):
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


def engine_schema(schema: pa.Schema) -> pa.Schema:
    """The schema as the engine will give it back: dictionary as text, large strings as strings."""
    return pa.schema([pa.field(field.name, arrow_type(duckdb_type(field.type))) for field in schema])


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
    if pa.types.is_struct(arrow) or pa.types.is_union(arrow):
        fields = (f"{_plain_or_quoted(field.name)}: {type_name(field.type)}" for field in arrow)
        return f"{'struct' if pa.types.is_struct(arrow) else 'union'}<{', '.join(fields)}>"
    if pa.types.is_map(arrow):
        return f"map<{type_name(arrow.key_type)}, {type_name(arrow.item_type)}>"
    try:
        known = arrow_type(duckdb_type(arrow))
    except InputError:
        return str(arrow)
    # Another way to store what the engine has one type for: a dictionary of texts is a string.
    return str(arrow) if known == arrow else type_name(known)


def holds(arrow: pa.DataType, test: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type, or one inside it, passes a test."""
    return test(arrow) or any(holds(arrow.field(at).type, test) for at in range(arrow.num_fields))


def _plain_or_quoted(name: str) -> str:
    return name if name.isidentifier() else quoted(name)


def resolve_type_name(name: str, *, in_sql: bool = False) -> str:
    """DuckDB's text for a type that a user wrote: a Velaria name as `type_name` gives it, or any SQL spelling.

    Args:
        in_sql: the name stands in a SQL text. It matters for `int8` alone, which in SQL is 8 bytes long.
    Raises:
        InputError[type.unknown]: nobody knows the name.
    """
    text = name.strip()
    if not in_sql and (velaria := _BY_VELARIA_NAME.get(text)) is not None:
        return velaria
    if (simple := _BY_NAME.get(text.upper())) is not None:
        return simple
    head, bracket, inside = text.partition("<")
    if bracket and text.endswith(">") and head.strip().lower() in _NESTED:
        return _nested(head.strip().lower(), _split(inside[:-1]), name, in_sql)
    if text.endswith("]"):
        inner, _, size = text[:-1].rpartition("[")
        if not size.strip() or size.strip().isdigit():
            return f"{resolve_type_name(inner, in_sql=in_sql)}[{size.strip()}]"
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        return exp.DataType.build(text, dialect="duckdb").sql("duckdb")
    except SqlglotError as error:
        raise _unknown(name) from error


_NESTED = ("list", "struct", "union", "map")


def _nested(kind: str, arguments: list[str], whole: str, in_sql: bool) -> str:
    """`list<int64>`, `struct<a: int64, "b c": string>`, `union<...>` and `map<string, int64>`."""
    if kind in ("struct", "union"):
        fields = []
        for argument in arguments:
            field, end = _unquoted(argument) if argument.startswith('"') else (argument.partition(":")[0].strip(), None)
            _, colon, child = argument[end:].partition(":")
            if not colon:
                raise _unknown(whole)
            fields.append(f"{quoted(field)} {resolve_type_name(child, in_sql=in_sql)}")
        return f"{kind.upper()}({', '.join(fields)})"
    children = [resolve_type_name(argument, in_sql=in_sql) for argument in arguments]
    if len(children) != (2 if kind == "map" else 1):
        raise _unknown(whole)
    return f"MAP({children[0]}, {children[1]})" if kind == "map" else f"{children[0]}[]"


def _unknown(name: str) -> InputError:
    hint = did_you_mean(name, [simple.name for simple in SIMPLE], "types")
    return InputError("type.unknown", f'no type "{name}"', hint=hint)


def quoted(identifier: str) -> str:
    """An identifier in double quotes, as every text that we hand to the engine writes it."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
