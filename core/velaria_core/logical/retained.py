"""Retained windows: a plan whose windows are kept by number, for streams without a watermark.

`max_retained_windows=n` says that the newest n windows, by time, may still change. That is a watermark which allows as
much disorder as n windows are long: what is older is closed, its state forgotten, and rows for it are late.
"""

from __future__ import annotations

from velaria_core.logical.node import Node
from velaria_core.logical.operators import Watermark, WindowAssign


def retaining(root: Node, windows: int) -> Node:
    """The plan with its newest `windows` windows open; as it is where that is 0, and below watermarks of its own."""
    if not windows:
        return root
    made: dict[int, Node] = {}

    def over(node: Node) -> Node:
        if id(node) not in made:
            inputs = [over(child) for child in node.inputs]
            if isinstance(node, WindowAssign) and not any(isinstance(one, Watermark) for one in node.walk()):
                # The newest window begins at most a slide before the newest time.
                delay_ms = max(0, windows * node.slide_ms - node.size_ms)
                inputs = [Watermark(inputs[0], node.time, node.kind, delay_ms)]
            same = all(new is old for new, old in zip(inputs, node.inputs, strict=True))
            made[id(node)] = node if same else node.over(inputs)
        return made[id(node)]

    return over(root)
