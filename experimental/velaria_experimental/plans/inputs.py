"""Inputs: scans of a plan stand for rows that are given when it runs.

A plan travels as JSON with an empty table of the right columns in each such scan; the worker puts rows in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from velaria_core.logical.explain import steps
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Scan
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

_KIND = "arrow"
_PREFIX = "exchange_"


def input_scan(number: int, schema: pa.Schema) -> Scan:
    """A scan that stands for rows of this schema."""
    name = f"{_PREFIX}{number}"
    return Scan(Relation(name, schema, quoted(name), _KIND, schema.empty_table()))


def is_input(node: Node) -> bool:
    """Whether a node is such a scan."""
    return isinstance(node, Scan) and node.relation.kind == _KIND and node.relation.label.startswith(_PREFIX)


def inputs_of(root: Node) -> list[Scan]:
    """Such scans of a plan, in the order of their numbers, each once."""
    found = {node.relation.label: node for node in root.walk() if isinstance(node, Scan) and is_input(node)}
    return [found[label] for label in sorted(found, key=lambda label: int(label.removeprefix(_PREFIX)))]


def given(root: Node, tables: Mapping[str, pa.Table]) -> Node:
    """The plan with rows in its inputs, by their names; an input that is not named stays empty."""
    made: dict[int, Node] = {}
    for node in steps(root):
        if isinstance(node, Scan):
            rows = tables.get(node.relation.label) if is_input(node) else None
            made[id(node)] = node if rows is None else Scan(replace(node.relation, feed=rows))
        else:
            made[id(node)] = node.over([made[id(child)] for child in node.inputs])
    return made[id(root)]
