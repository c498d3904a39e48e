"""A plan as text: the operator tree, and each node's incremental shape."""

from __future__ import annotations

from velaria_core.logical.node import Node


def tree(root: Node, *, shapes: bool = False) -> str:
    """One line a node, children below their parent.

    ```
    Aggregate: count(*) AS n by k
    └─ Filter: v > 1
       └─ Scan: csv orders.csv
    ```
    """
    lines: list[str] = []

    def draw(node: Node, lead: str, hang: str) -> None:
        shape = node.stream()
        suffix = f"   [{shape.name}: {shape.cost()}]" if shapes else ""
        lines.append(lead + node.label() + suffix)
        children = node.inputs
        for at, child in enumerate(children):
            last = at == len(children) - 1
            draw(child, hang + ("└─ " if last else "├─ "), hang + ("   " if last else "│  "))

    draw(root, "", "")
    return "\n".join(lines)
