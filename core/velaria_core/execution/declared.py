"""Declared: the nodes and sinks of tables that a CREATE statement only describes: files, sources, sinks."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from sqlglot import exp

from velaria_core.contract import abi
from velaria_core.errors import InputError, Place, SqlSemanticError
from velaria_core.execution import endpoints, files
from velaria_core.execution.duck import Engine
from velaria_core.execution.endpoints import Declared
from velaria_core.logical.expr import reference
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Project, Scan
from velaria_core.logical.relation import Relation
from velaria_core.logical.sql.statements import ColumnDef, CreateTable, OptionValue
from velaria_core.types import arrow_type, duckdb_type, quoted, resolve_type_name


def declared(statement: CreateTable, text: str) -> Declared:
    """What a CREATE SOURCE TABLE or CREATE SINK TABLE says."""

    def place(key: str) -> Place | None:
        found = statement.option_spans.get(key)
        return found.place(text) if found is not None else None

    return Declared(
        str(statement.name),
        statement.using,
        statement.options,
        schema_of(statement, text),
        statement.watermark.column if statement.watermark is not None else None,
        place,
        statement.using_span.place(text) if statement.using_span is not None else None,
    )


def schema_of(statement: CreateTable, text: str) -> pa.Schema | None:
    """The declared columns; None where there are none.

    Raises:
        InputError[type.unknown]: at the type's place.
    """
    if not statement.columns:
        return None
    return pa.schema([pa.field(column.name, arrow_type(column_type(column, text))) for column in statement.columns])


def column_type(column: ColumnDef, text: str) -> str:
    """The engine's name of a declared type. Raises as `schema_of`."""
    assert column.type_text is not None, "the parser asks for types where there is no query"
    try:
        return resolve_type_name(column.type_text, in_sql=True)
    except InputError as error:
        error.place = column.type_span.place(text) if column.type_span is not None else None
        raise


def source_node(source: abi.Source, name: str) -> Node:
    """The rows of a source as they come; it is the stream `name` in explain and in checkpoints."""
    schema = source.info().schema
    empty = pa.Table.from_batches([], schema)
    return Scan(Relation(f"stream {name}", schema, quoted(f"stream {name}"), "stream", empty, source=source))


def batch_of_source(engine: Engine, statement: CreateTable, text: str) -> Node:
    """The rows that a source has now.

    Raises:
        SqlUnsupportedError[sql.stream_only]: it has none before somebody reads them as a stream.
    """
    using, options = endpoints.batch_options(engine, declared(statement, text))
    return file_table(engine, statement, using, options)


def file_table(engine: Engine, statement: CreateTable, using: str | None, options: Mapping[str, OptionValue]) -> Node:
    """The rows of files, with the declared columns where there are some."""
    opened = files.from_options(engine, using, options)
    node: Node = Scan(opened.relation)
    if not statement.columns:
        return node
    wanted = {column.name.lower(): column for column in statement.columns}
    if [name.lower() for name in node.columns] != list(wanted):
        raise SqlSemanticError(
            "sql.schema_mismatch",
            f'"{statement.name}" declares other columns than the file has',
            hint=f"declared: {', '.join(c.name for c in statement.columns)}; file: {', '.join(node.columns)}",
        )
    types = {
        name: resolve_type_name(column.type_text, in_sql=True)
        for name, column in zip(node.columns, statement.columns, strict=True)
        if column.type_text is not None
    }
    # Opened again with these types: a column declared as text is the file's text, not that of a number found in it.
    node = Scan(files.from_options(engine, using, options, types).relation)
    named = tuple(
        (column.name, cast(name, resolve_type_name(column.type_text, in_sql=True)))
        if column.type_text is not None
        else (column.name, reference(name))
        for name, column in zip(node.columns, statement.columns, strict=True)
    )
    return Project(node, named)


def cast(column: str, kind: str) -> exp.Expr:
    """A column as another type of the engine."""
    return exp.Cast(this=reference(column), to=exp.DataType.build(kind, dialect="duckdb"))


def with_columns(statement: CreateTable, text: str, schema: pa.Schema) -> str:
    """The statement's text with its columns written out: what a file told once is then declared."""
    listed = ", ".join(f"{quoted(item.name)} {duckdb_type(item.type)}" for item in schema)
    whole, name = statement.span, statement.name.span
    head, tail = text[whole.offset : name.end], text[name.end : whole.end]
    if statement.watermark is None:
        return f"{head} ({listed}){tail}"
    opening = tail.index("(") + 1
    return f"{head}{tail[:opening]}{listed}, {tail[opening:]}"


def fitted(
    node: Node, given: pa.Schema, targets: list[str], schema: pa.Schema | None, required: Mapping[str, str]
) -> Node:
    """`node` with the columns that a sink takes: `targets` are where its own go, in its order.

    Args:
        given: the columns of `node`.
        schema: of the sink; None takes what is given, under the targets' names.
        required: columns that are never NULL, and what is said where one is. A NULL fails the epoch, before its state
            is durable; in the sink it would be too late.
    """
    own = dict(zip(targets, given, strict=True))
    if schema is None:
        return _projected(node, tuple((target, reference(field.name)) for target, field in own.items()))
    named: list[tuple[str, exp.Expr]] = []
    for item in schema:
        kind = duckdb_type(item.type)
        field = own.get(item.name)
        if field is None:
            named.append((item.name, exp.Cast(this=exp.Null(), to=exp.DataType.build(kind, dialect="duckdb"))))
        elif duckdb_type(field.type) == kind:
            named.append((item.name, reference(field.name)))
        else:
            named.append((item.name, cast(field.name, kind)))
        if item.name in required:
            told = exp.Anonymous(this="error", expressions=[exp.Literal.string(required[item.name])])
            value = named.pop()[1]
            checked = exp.Case(ifs=[exp.If(this=exp.Is(this=value.copy(), expression=exp.Null()), true=told)])
            checked.set("default", value)
            named.append((item.name, checked))
    return _projected(node, tuple(named))


def _projected(node: Node, named: tuple[tuple[str, exp.Expr], ...]) -> Node:
    same = [name for name, tree in named if isinstance(tree, exp.Column) and tree.name == name]
    return node if same == list(node.columns) else Project(node, named)


def sink_of(engine: Engine, statement: CreateTable, text: str) -> abi.Sink:
    """A new sink of a CREATE SINK TABLE."""
    if statement.watermark is not None:
        raise InputError(
            "sql.watermark",
            "a sink has no watermark",
            hint="declare it where the rows come from: CREATE SOURCE TABLE",
            place=statement.watermark.span.place(text),
        )
    return endpoints.sink(engine, declared(statement, text))
