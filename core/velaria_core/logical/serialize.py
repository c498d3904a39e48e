"""A plan as JSON and back: to send it to another process, to compare it, to keep it.

Nodes are written field by field, expressions as sqlglot's own dump, Arrow data inline as base64 of Arrow IPC. A shared
node is written once. `fingerprint` is what a checkpoint compares: equal plans over equal sources have equal ones.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, Final

import pyarrow as pa
from sqlglot import exp, serde

from velaria_core.contract.modes import Metric
from velaria_core.errors import InputError, StateError
from velaria_core.logical.event_time import Late, TimeKind
from velaria_core.logical.node import Node
from velaria_core.logical.operators import ALL, JoinKind
from velaria_core.logical.operators.apply_in_batches import function_name
from velaria_core.logical.operators.hybrid_search import Fusion
from velaria_core.logical.relation import Relation

VERSION: Final = 1
_NODES: Final = {operator.__name__: operator for operator in ALL}
_ENUMS: Final[Mapping[str, type[Enum]]] = {
    "Fusion": Fusion,
    "JoinKind": JoinKind,
    "Late": Late,
    "Metric": Metric,
    "TimeKind": TimeKind,
}


def dumps(root: Node) -> str:
    """A plan as JSON text. Arrow data that the plan scans is written whole, so mind its size.

    Raises:
        InputError[plan.function]: the plan calls a function of the program.
    """
    return json.dumps(_document(root, _relation_with_data, _no_function), separators=(",", ":"))


def loads(text: str) -> Node:
    """The plan of a text that `dumps` made.

    Raises:
        StateError[plan.damaged, plan.version]: the text is no plan, or of another version.
    """
    try:
        document = json.loads(text)
        version = document["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError("plan.damaged", "the text is no serialized plan", cause=error) from error
    if version != VERSION:
        raise StateError("plan.version", f"the plan has version {version}, this reads {VERSION}")
    try:
        made: list[Node] = []
        for item in document["nodes"]:
            operator = _NODES[item["operator"]]
            made.append(operator(**{name: _load(value, made) for name, value in item["fields"].items()}))
        return made[-1]
    except (KeyError, TypeError, ValueError, IndexError, pa.ArrowException) as error:
        raise StateError("plan.damaged", f"the plan does not read: {error!r}", cause=error) from error


def fingerprint(root: Node) -> str:
    """A hash of what the plan means: operators, expressions, its sources by label and schema, not their rows, and its
    functions by name, not their code."""
    document = _document(root, lambda one: {"label": one.label, "schema": str(one.schema)}, function_name)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _document(
    root: Node, relation: Callable[[Relation], dict[str, Any]], function: Callable[[Callable[..., Any]], str]
) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}

    def dump(value: Any) -> Any:
        match value:
            case Node():
                return {"node": write(value)}
            case Relation():
                return {"relation": relation(value)}
            case pa.Schema():
                return {"schema": _encoded(value.serialize())}
            case exp.Expr():
                return {"tree": serde.dump(value)}
            case Enum():
                return {"enum": [type(value).__name__, value.value]}
            case tuple():
                return [dump(item) for item in value]
        return function(value) if callable(value) else value

    def write(node: Node) -> int:
        if id(node) not in numbers:
            content = {field.name: dump(getattr(node, field.name)) for field in fields(node)}
            nodes.append({"operator": type(node).__name__, "fields": content})
            numbers[id(node)] = len(nodes) - 1
        return numbers[id(node)]

    write(root)
    return {"version": VERSION, "nodes": nodes}


def _no_function(function: Callable[..., Any]) -> str:
    raise InputError(
        "plan.function",
        f"the plan calls {function_name(function)}, which another process may not have",
        hint="build the plan there",
    )


def _relation_with_data(relation: Relation) -> dict[str, Any]:
    return {
        "label": relation.label,
        "schema": _encoded(relation.schema.serialize()),
        "sql": relation.sql,
        "kind": relation.kind,
        "feed": _encoded(_ipc(relation.feed)) if relation.feed is not None else None,
        "pushdown": sorted(relation.pushdown),
        "details": [list(pair) for pair in relation.details],
    }


def _load(value: Any, made: list[Node]) -> Any:
    match value:
        case {"node": number}:
            return made[number]
        case {"relation": content}:
            return _load_relation(content)
        case {"schema": encoded}:
            return _schema(encoded)
        case {"tree": dumped}:
            return serde.load(dumped)
        case {"enum": [name, raw]}:
            return _ENUMS[name](raw)
        case list():
            return tuple(_load(item, made) for item in value)
    return value


def _load_relation(content: Mapping[str, Any]) -> Relation:
    feed = content["feed"]
    return Relation(
        content["label"],
        _schema(content["schema"]),
        content["sql"],
        content["kind"],
        pa.ipc.open_stream(base64.b64decode(feed)).read_all() if feed is not None else None,
        frozenset(content["pushdown"]),
        tuple((key, text) for key, text in content["details"]),
    )


def _schema(encoded: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))


def _encoded(buffer: Any) -> str:
    return base64.b64encode(bytes(buffer)).decode()


def _ipc(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
