"""Explain in four forms: text for people, JSON for programs, DOT and SVG as drawings of the physical plan.

All are made from the contract's message alone, and equal messages give equal texts.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

from velaria_core.contract.codec import BatchExplain, DeliveryGuarantee, Explain, PlanNode, Strategy, StreamPhysicalPlan
from velaria_core.errors import InputError, did_you_mean, display_width
from velaria_core.execution.show import escaped


class Format(StrEnum):
    """How an explain is printed."""

    TEXT = "text"
    JSON = "json"
    DOT = "dot"
    SVG = "svg"


# A detail is a setting of a node, and may be a whole query.
_DETAIL_CHARACTERS_MAX: Final = 200
_INDENT: Final = "  "


def printed(explain: Explain, form: str = Format.TEXT) -> str:
    """An explain in one of the forms.

    Raises:
        InputError[explain.format]: there is no such form.
    """
    try:
        chosen = Format(form)
    except ValueError:
        hint = did_you_mean(str(form), [str(one) for one in Format], "formats")
        raise InputError("explain.format", f'explain has no format "{form}"', hint=hint) from None
    match chosen:
        case Format.JSON:
            return explain.to_json(indent=2)
        case Format.DOT:
            return dot(explain.physical.nodes)
        case Format.SVG:
            return svg(explain.physical.nodes)
    return text(explain)


# --- text ---------------------------------------------------------------------------------------------------


def text(explain: Explain) -> str:
    """The sections, each under its name: frontend (of a SQL text in batch only), logical, physical, strategy."""
    logical, physical = explain.logical, explain.physical
    sections: dict[str, list[str]] = {}
    if isinstance(explain, BatchExplain) and explain.frontend is not None:
        sections["frontend"] = [f"name={explain.frontend.name}", f"dialect={explain.frontend.dialect}"]
    sections["logical"] = [f"seed_columns={_listed(logical.seed_columns)}"]
    sections["logical"] += [f"{at}. {step}" for at, step in enumerate(logical.steps, start=1)]
    sections["physical"] = list(_tree(physical.nodes))
    for name in ("epochs", "time_ms", "state_ms"):
        if (value := getattr(physical, name, None)) is not None:
            sections["physical"].append(f"{name}={_plain(value)}")
    if isinstance(physical, StreamPhysicalPlan):
        sections["physical"] += [f"{name}={_plain(getattr(physical, name))}" for name in _STREAM_PLAN]
    else:
        sections["physical"] += ["engine", *(_INDENT + line for line in physical.engine_plan.split("\n"))]
    sections["strategy"] = list(_strategy(explain.strategy))
    lines = []
    for name, body in sections.items():
        lines.append(name)
        lines += [_INDENT + escaped(line) for line in body]
    return "\n".join(lines)


def _tree(nodes: Sequence[PlanNode]) -> Iterator[str]:
    """A node's operator and settings, how it runs, and below it its inputs. A shared node is told once."""
    by_id = {node.id: node for node in nodes}
    told: set[int] = set()
    pending = [(nodes[0], "", "")]
    while pending:
        node, lead, hang = pending.pop()
        if node.id in told:
            yield f"{lead}#{node.id} {node.operator}, as above"
            continue
        told.add(node.id)
        yield lead + " ".join([f"#{node.id} {node.operator}", *(f"{k}={_setting(v)}" for k, v in node.details.items())])
        bar = hang + ("│    " if node.inputs else "     ")
        yield bar + " ".join(_facts(node))
        yield f"{bar}reason={node.reason}"
        for at, key in reversed(list(enumerate(node.inputs))):
            last = at == len(node.inputs) - 1
            pending.append((by_id[key], hang + ("└─ " if last else "├─ "), hang + ("   " if last else "│  ")))


def _facts(node: PlanNode) -> Iterator[str]:
    yield f"kind={node.kind}"
    yield f"barrier={_plain(node.barrier)}"
    yield f"shape={node.shape}"
    yield f"state={_setting(node.state)}"
    yield f"cost={_setting(node.cost)}"
    for name in ("estimated_rows", "rows", "time_ms", "state_rows", "state_bytes"):
        if (value := getattr(node, name)) is not None:
            yield f"{name}={_plain(value)}"


# What a stream's plan says besides its nodes.
_STREAM_PLAN: Final = (
    "writes_to_sink",
    "sink",
    "has_window",
    "has_stateful_ops",
    "partition_local_prefix_nodes",
    "actor_eligible",
    "actor_eligibility_reason",
)


def _strategy(strategy: Strategy) -> Iterator[str]:
    """`key=value` for each field, in the order of the contract."""
    for name in _contract_order(strategy):
        value = getattr(strategy, name)
        if name == "rejected_candidates":
            value = tuple(f"{one.name} ({one.reason})" for one in value)
        yield f"{name}={_plain(value)}"


def _contract_order(strategy: Strategy) -> list[str]:
    """The names of the fields; a dataclass puts those that it inherits first, the contract does not."""
    own = [item.name for item in fields(strategy)]
    return sorted(own, key=lambda name: (name in _AFTER_COLUMNAR, name.startswith("columnar_")))


_AFTER_COLUMNAR: Final = ("output_mode", "delivery_guarantee")


def _plain(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, DeliveryGuarantee):
        return f"{value.held} ({value.asked} was asked: {value.why})"
    if isinstance(value, tuple):
        return _listed(value) if value else "none"
    return str(value)


def _listed(items: Iterable[str]) -> str:
    return ", ".join(items)


def _setting(value: str) -> str:
    """A value that ends where it seems to end: in brackets or parentheses where it holds spaces."""
    cut = value if len(value) <= _DETAIL_CHARACTERS_MAX else value[:_DETAIL_CHARACTERS_MAX] + "…"
    return cut if " " not in cut or cut.startswith("[") else f"({cut})"


# --- drawings -----------------------------------------------------------------------------------------------

_LINE_CHARACTERS_MAX: Final = 48
_LINES_MAX: Final = 6


def dot(nodes: Sequence[PlanNode]) -> str:
    """The plan in Graphviz's language; rows flow upwards, as the text tree has it."""
    lines = ["digraph plan {", "  rankdir=BT;", '  node [shape=box, fontname="monospace"];']
    for node in nodes:
        shown = "\\l".join(_dot_text(line) for line in _box_lines(node))
        lines.append(f'  n{node.id} [label="{shown}\\l"];')
    for node in nodes:
        lines += [f"  n{key} -> n{node.id};" for key in node.inputs]
    return "\n".join([*lines, "}"])


def _dot_text(line: str) -> str:
    return line.replace("\\", "\\\\").replace('"', '\\"')


def _box_lines(node: PlanNode) -> list[str]:
    """What stands in a node's box: operator, settings, how it runs, rows. Long lines are cut."""
    lines = [f"#{node.id} {node.operator}"]
    lines += [f"{key}: {value}" for key, value in node.details.items()][:_LINES_MAX]
    lines.append(f"{node.kind}, {node.shape}" + (", barrier" if node.barrier else ""))
    if node.rows is not None:
        lines.append(_counted(node.rows))
    elif node.estimated_rows is not None:
        lines.append("about " + _counted(node.estimated_rows))
    if node.time_ms is not None:
        lines.append(f"{node.time_ms:.3f} ms")
    if node.state_rows:
        lines.append(f"keeps {_counted(node.state_rows)}")
    return [_cut(escaped(line)) for line in lines]


def _counted(rows: int) -> str:
    return f"{rows} row" + ("s" if rows != 1 else "")


def _cut(line: str) -> str:
    return line if len(line) <= _LINE_CHARACTERS_MAX else line[: _LINE_CHARACTERS_MAX - 1] + "…"


# Pixels. A monospaced character is 0.6 of the font's size wide.
_FONT_SIZE: Final = 12
_CHARACTER_WIDTH: Final = 7.2
_LINE_HEIGHT: Final = 16
_PADDING: Final = 8
_GAP_ACROSS: Final = 24
_GAP_DOWN: Final = 36
_MARGIN: Final = 12

_FILL: Final = {"SourceOnly": "#dbeafe", "FusedUnary": "#f3f4f6", "Query": "#fee2e2"}
_FILL_BARRIER: Final = "#fef3c7"
_FILL_OTHER: Final = "#ffffff"


@dataclass(slots=True)
class _Box:
    node: PlanNode
    lines: list[str]
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0


def svg(nodes: Sequence[PlanNode]) -> str:
    """The plan as a picture: the result on top, below each node its inputs. A shared node is drawn once."""
    boxes = _laid_out(nodes)
    width = max(box.x + box.width for box in boxes.values()) + _MARGIN
    height = max(box.y + box.height for box in boxes.values()) + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="{_FONT_SIZE}">',
        "<title>Physical plan</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for box in boxes.values():
        for key in box.node.inputs:
            below = boxes[key]
            lines.append(
                f'<path d="M{below.x + below.width / 2:.0f} {below.y:.0f} L{box.x + box.width / 2:.0f} '
                f'{box.y + box.height:.0f}" stroke="#6b7280" fill="none"/>'
            )
    for box in boxes.values():
        fill = _FILL_BARRIER if box.node.barrier else _FILL.get(box.node.kind, _FILL_OTHER)
        lines.append(f"<g><title>{_xml(box.node.label)}</title>")
        lines.append(
            f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" '
            f'rx="4" fill="{fill}" stroke="#374151"/>'
        )
        for at, line in enumerate(box.lines):
            weight = ' font-weight="bold"' if at == 0 else ""
            y = box.y + _PADDING + _LINE_HEIGHT * at + _FONT_SIZE
            lines.append(f'<text x="{box.x + _PADDING:.0f}" y="{y:.0f}"{weight}>{_xml(line)}</text>')
        lines.append("</g>")
    return "\n".join([*lines, "</svg>"])


# Characters that XML has no way to write.
_NOT_XML: Final = re.compile("[\ud800-\udfff\ufffe\uffff]")


def _xml(line: str) -> str:
    return html.escape(_NOT_XML.sub("\ufffd", escaped(line)))


def _laid_out(nodes: Sequence[PlanNode]) -> dict[int, _Box]:
    """Boxes by id. A node stands in a row below all that read it, over the middle of what only it introduces.

    Invariant: `nodes` has what reads before what is read, so one pass downwards and one upwards are enough.
    """
    boxes: dict[int, _Box] = {}
    for node in nodes:
        lines = _box_lines(node)
        width = max(display_width(line) for line in lines) * _CHARACTER_WIDTH + 2 * _PADDING
        boxes[node.id] = _Box(node, lines, width, len(lines) * _LINE_HEIGHT + 2 * _PADDING)
    row = {nodes[0].id: 0}
    introduced: dict[int, list[int]] = {node.id: [] for node in nodes}
    for node in nodes:
        for key in node.inputs:
            if key not in row:
                introduced[node.id].append(key)
            row[key] = max(row.get(key, 0), row[node.id] + 1)
    tops = [float(_MARGIN)]
    for at in range(max(row.values()) + 1):
        tops.append(tops[at] + max(boxes[key].height for key in row if row[key] == at) + _GAP_DOWN)
    reach: dict[int, float] = {}
    for node in reversed(nodes):
        below = introduced[node.id]
        together = sum(reach[key] for key in below) + _GAP_ACROSS * max(0, len(below) - 1)
        reach[node.id] = max(boxes[node.id].width, together)
    left = {nodes[0].id: float(_MARGIN)}
    for node in nodes:
        box, start = boxes[node.id], left[node.id]
        box.x, box.y = start + (reach[node.id] - box.width) / 2, tops[row[node.id]]
        below = introduced[node.id]
        together = sum(reach[key] for key in below) + _GAP_ACROSS * max(0, len(below) - 1)
        start += (reach[node.id] - together) / 2
        for key in below:
            left[key] = start
            start += reach[key] + _GAP_ACROSS
    return boxes
