"""Operators: what the binder makes of an expression groups it as the engine's own parser does.

sqlglot has precedences of its own. The engine gives its tree of a text as JSON; the tree of what we print must be the
same, for every pair of operators, every operator behind a prefix or before a suffix, and every kind of literal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from velaria_core import VelariaError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.logical.expr import to_sql
from velaria_core.logical.sql.parser import parse
from velaria_core.logical.sql.statements import Select

BINARY = (
    "+", "-", "*", "/", "//", "%", "**", "^", "||", "=", "==", "<>", "!=", "<", "<=", "AND", "OR", "IS DISTINCT FROM",
    "IS NOT DISTINCT FROM", "LIKE", "NOT LIKE", "ILIKE", "SIMILAR TO", "GLOB", "~", "~~", "&", "|", "<<", ">>", "<->",
    "@>", "<@", "&&", "AT TIME ZONE", "<=>",
)  # fmt: skip
PREFIXES = ("NOT", "-", "+", "~", "@")
SUFFIXES = (
    "IS NULL", "IS NOT NULL", "ISNULL", "NOTNULL", "BETWEEN c AND d", "NOT BETWEEN c AND d", "IN (1, 2)", "NOT IN (c)",
    "::INT", "[1]", "[1:2]", ".x", "COLLATE NOCASE", "!",
)  # fmt: skip
OPERANDS = (
    "DATE '2024-01-01'", "TIMESTAMP '2024-01-01 10:00:00'", "TIMESTAMPTZ '2024-01-01'", "TIME '10:00'", "DOUBLE '1.5'",
    "-1", "- -1", "1.5", "1e3", "'x'", "TRUE", "NULL", "[1, 2]", "{'a': 1}", "MAP {'a': 1}", "f(a)", "count(*)", "(a)",
    "a.b", "a.b.c", '"q"', "CASE WHEN a THEN 1 END", "(1, 2)", "(SELECT 1)", "CAST(a AS INT)", "a::INT[]",
    "E'a\\n'", "$$x$$", "CURRENT_DATE", "EXISTS (SELECT 1)",
)  # fmt: skip
# Where sqlglot groups otherwise, and what is asked so is an error or makes little sense.
KNOWN = (
    "~ a ** b", "~ a ^ b", "-1 .x", "- -1 .x", "1.5 .x", "1e3 .x", "a NOT LIKE b @> c", "a NOT LIKE b <@ c",
    "a NOT LIKE b && c", "a ~ b @> c", "a ~ b <@ c", "a ~ b && c", "@ a @> b", "@ a <@ b", "@ a && b",
    "a ** b AT TIME ZONE c", "a ^ b AT TIME ZONE c", "a ** b COLLATE NOCASE", "a ^ b COLLATE NOCASE",
)  # fmt: skip

# One function under several names, of which sqlglot prints one.
_NAMES = {"**": "power", "^": "power", "@": "abs", "list_extract": "array_extract", "list_slice": "array_slice"}
_TYPES = {"TEXT": "VARCHAR", "INTEGER": "INT"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings())
    yield made
    made.close()


def shape(tree: Any) -> Any:
    """The engine's tree without places and aliases, one name for each thing."""
    if isinstance(tree, list):
        return [shape(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    match tree.get("class"):
        case "COLUMN_REF":
            return ".".join(tree["column_names"])
        case "FUNCTION":
            arguments = [shape(argument["expression"]) for argument in tree["arguments"]]
            name = tree["function_name"]
            return arguments[0] if name == "+" and len(arguments) == 1 else [_NAMES.get(name, name), *arguments]
        case "OPERATOR":
            children = shape(tree["children"])
            negated = {"OPERATOR_IS_NULL": "OPERATOR_IS_NOT_NULL", "COMPARE_IN": "COMPARE_NOT_IN"}
            inner = children[0]
            if tree["type"] == "OPERATOR_NOT" and isinstance(inner, list) and inner[0] in negated:
                return [negated[inner[0]], *inner[1:]]
            return [tree["type"], *children]
        case "CAST":
            name = tree["type_expr"].get("type_name", "")
            rest = {key: value for key, value in tree["type_expr"].items() if key != "type_name"}
            return ["CAST", shape(tree["child"]), _TYPES.get(name, name), shape(rest)]
    ignored = ("alias", "has_alias", "qualified_name")
    return {key: shape(value) for key, value in tree.items() if "location" not in key and key not in ignored}


def shape_of(bare: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """The shape of a text, or None where the engine does not read it."""
    answer = json.loads(bare.execute("SELECT json_serialize_sql($1)", [sql]).fetchall()[0][0])
    return None if answer.get("error") else shape(answer["statements"][0]["node"]["select_list"])


def regrouped(engine: Engine, expressions: Iterator[str]) -> tuple[list[str], int]:
    """The expressions that we would print with another meaning, and how many were held against the engine."""
    found, compared = [], 0
    bare = duckdb.connect()
    with engine.cursor() as cursor:
        for expression in expressions:
            sql = f"SELECT {expression} FROM t"
            expected = shape_of(bare, sql)
            if expected is None:
                continue
            try:
                (select,) = parse(sql, cursor.parse_error)
                assert isinstance(select, Select)
            except VelariaError as error:
                found.append(f"{expression}: refused: {error.message}")
                continue
            if select.tree is None:
                continue  # left to the engine as it stands
            compared += 1
            printed = to_sql(select.tree)
            if shape_of(bare, printed) != expected and expression not in KNOWN:
                found.append(f"{expression}: printed as {printed}")
    bare.close()
    return found, compared


def test_pairs_of_operators(engine: Engine) -> None:
    pairs = (f"a {one} b {two} c" for one in BINARY for two in BINARY)
    found, compared = regrouped(engine, pairs)
    assert compared > 1000
    assert found == []


def test_prefixes_and_suffixes(engine: Engine) -> None:
    def expressions() -> Iterator[str]:
        for one in BINARY:
            for prefix in PREFIXES:
                yield f"{prefix} a {one} b"
                yield f"a {one} {prefix} b"
            for suffix in SUFFIXES:
                yield f"a {one} b {suffix}"

    found, compared = regrouped(engine, expressions())
    assert compared > 500
    assert found == []


def test_operands_before_operators_and_suffixes(engine: Engine) -> None:
    behind = ["", "+ 1", "|| 'x'", "IN (1)", "= b", "AND b", *(suffix for suffix in SUFFIXES)]
    found, compared = regrouped(engine, (f"{operand} {text}" for operand in OPERANDS for text in behind))
    assert compared > 400
    assert found == []
