"""What explain says of a plan without running it: the operator tree as text, and the facts about each operator.

The facts are one table, so that an operator's file holds what it computes and this one how it is presented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from velaria_core.logical.expr import DIALECT
from velaria_core.logical.incremental import Recompute
from velaria_core.logical.node import Node, listed
from velaria_core.logical.operators import (
    Aggregate,
    ApplyInBatches,
    Distinct,
    Drop,
    DropDuplicates,
    Except,
    Explode,
    Filter,
    HybridSearch,
    Intersect,
    Join,
    KeywordSearch,
    Limit,
    Opaque,
    Pivot,
    ProcessingTime,
    Project,
    Refresh,
    Rename,
    Sample,
    Scan,
    SessionWindow,
    Sort,
    TopK,
    Union,
    Unpivot,
    Values,
    VectorSearch,
    Watermark,
    Window,
    WindowAssign,
    WithColumn,
)
from velaria_core.logical.operators.apply_in_batches import function_name
from velaria_core.logical.operators.opaque import marker
from velaria_core.logical.operators.vector_search import compare

Details = dict[str, str]

SOURCE: Final = "SourceOnly"
FUSED: Final = "FusedUnary"
OPAQUE: Final = "Query"


@dataclass(frozen=True, slots=True)
class Facts:
    """How explain presents one operator.

    Attributes:
        kind: how it runs. Operators of one kind run alike.
        barrier: whether the first row out waits for the last row in; None where the engine decides.
        reason: why this kind.
        details: the settings of a node by name. Lists stand in brackets.
    """

    kind: str
    barrier: bool | None
    reason: str
    details: Callable[[Any], Details]


def tree(root: Node, *, shapes: bool = False) -> str:
    """One line a node, children below their parent; with `shapes` also what an epoch of a stream costs each.

    ```
    Aggregate: count(*) AS n by k
    └─ Filter: v > 1
       └─ Scan: csv orders.csv
    ```
    """
    lines: list[str] = []

    def draw(node: Node, lead: str, hang: str) -> None:
        shape = node.stream()
        lines.append(lead + node.label() + (f"   [{shape.name}: {shape.cost()}]" if shapes else ""))
        children = node.inputs
        for at, child in enumerate(children):
            last = at == len(children) - 1
            draw(child, hang + ("└─ " if last else "├─ "), hang + ("   " if last else "│  "))

    draw(root, "", "")
    return "\n".join(lines)


def steps(root: Node) -> tuple[Node, ...]:
    """Every node of a plan once, inputs before what reads them; the root is last."""
    done: dict[int, Node] = {}
    pending = [(root, False)]
    while pending:
        node, inputs_done = pending.pop()
        if id(node) in done:
            continue
        if inputs_done:
            done[id(node)] = node
            continue
        pending.append((node, True))
        pending.extend((child, False) for child in reversed(node.inputs))
    return tuple(done.values())


def facts(node: Node) -> Facts:
    """The facts about a node's operator."""
    return FACTS[type(node)]


def reason(node: Node) -> str:
    """Why a node runs as it does; where a stream can do no better than compute all anew, why that is."""
    shape = node.stream()
    told = facts(node).reason
    if not isinstance(shape, Recompute) or isinstance(node, Opaque):
        return told.format(node=node)
    return f"{told}; a stream computes it anew: {shape.reason}"


@dataclass(frozen=True, slots=True)
class Grouped:
    """A grouping of a plan.

    Attributes:
        keys: names of the key columns in the result.
        columns: what the keys are in the input: names of columns, or None for an expression.
    """

    node: Node
    keys: tuple[str, ...]
    columns: tuple[str | None, ...]


def has_windows(nodes: Iterable[Node]) -> bool:
    """Whether a plan puts rows into windows, of time or of rows."""
    return any(isinstance(node, WINDOWS) for node in nodes)


def nearest_grouping(nodes: Sequence[Node]) -> Grouped | None:
    """The grouping nearest the result, among the steps of a plan."""
    for node in reversed(nodes):
        if isinstance(node, Aggregate):
            return Grouped(node, tuple(name for name, _ in node.keys), _plain(tree for _, tree in node.keys))
        if isinstance(node, Pivot):
            return Grouped(node, node.group, node.group)
    return None


def groups_inside(node: Node) -> bool:
    """Whether a node is an opaque query that groups, as far as its text can be read."""
    if not isinstance(node, Opaque):
        return False
    try:
        return parse_one(node.template, read=DIALECT).find(exp.Group) is not None
    except SqlglotError:  # a text that only the engine reads
        return False


def sorted_by(node: Node, columns: Sequence[str | None]) -> bool:
    """Whether a plan's last order of its rows begins with these columns, whichever comes first."""
    wanted = set(columns)
    while wanted and None not in wanted:
        match node:
            case Sort() | TopK():
                keys = _plain(key.this for key in node.keys)
                return set(keys[: len(wanted)]) == wanted
            case Filter() | Drop() | Limit():
                pass
            case Rename():
                old = {new: name for name, new in node.names}
                wanted = {old.get(name, name) for name in wanted if name is not None}
            case Project():
                trees = dict(node.named)
                wanted = set(_plain(trees[name] for name in wanted if name is not None))
            case _:
                return False
        (node,) = node.inputs
    return False


def _plain(trees: Iterable[exp.Expr]) -> tuple[str | None, ...]:
    return tuple(tree.name if isinstance(tree, exp.Column) else None for tree in trees)


def _bracketed(items: Iterable[Any]) -> str:
    return f"[{listed(items)}]"


def _scan(node: Scan) -> Details:
    relation = node.relation
    pushdown = {"pushdown": _bracketed(sorted(relation.pushdown))} if relation.pushdown else {}
    return {"source": relation.label, "kind": relation.kind, **pushdown, **dict(relation.details)}


def _aggregate(node: Aggregate) -> Details:
    keys = [name for name, _ in node.keys]
    sets = [] if node.sets is None else ["(" + ", ".join(keys[at] for at in one) + ")" for one in node.sets]
    return {
        "keys": _bracketed(node.keys),
        "metrics": _bracketed(node.metrics),
        **({"sets": _bracketed(sets)} if sets else {}),
    }


def _apply_in_batches(node: ApplyInBatches) -> Details:
    return {
        "function": function_name(node.function),
        "keys": _bracketed(node.keys),
        "output": _bracketed(node.output.names),
        **({"state": _bracketed(node.state.names)} if node.state is not None else {}),
        **({"order": _bracketed(node.order)} if node.order else {}),
        **({"expires": node.expires} if node.expires is not None else {}),
    }


def _join(node: Join) -> Details:
    return {
        "kind": node.kind,
        "keys": _bracketed(f"{left} = {right}" for left, right in node.equalities()),
        **({"on": listed([node.on])} if node.on is not None else {}),
    }


def _distinct(node: Distinct) -> Details:
    order = {"first_by": _bracketed(node.order)} if node.order else {}
    return {"keys": _bracketed(node.on or node.columns), **order}


def _pivot(node: Pivot) -> Details:
    return {
        "keys": _bracketed(node.group),
        "on": listed([node.on]),
        "values": _bracketed(name for name, _ in node.values),
        "metrics": _bracketed(node.metrics),
    }


def _top_k(node: TopK) -> Details:
    return {"keys": _bracketed(node.keys), "count": str(node.count), "offset": str(node.offset)}


def _limit(node: Limit) -> Details:
    return {"count": "all" if node.count is None else str(node.count), "offset": str(node.offset)}


def _sample(node: Sample) -> Details:
    size = f"{node.size:g}" + ("%" if node.percent else " rows")
    return {"size": size, **({"seed": str(node.seed)} if node.seed is not None else {})}


def _window_assign(node: WindowAssign) -> Details:
    return {
        "time": node.time,
        "size_ms": str(node.size_ms),
        "slide_ms": str(node.slide_ms),
        "start": node.start,
        **({"end": node.end} if node.end is not None else {}),
    }


def _drop_duplicates(node: DropDuplicates) -> Details:
    return {"keys": _bracketed(node.keys), "time": node.time, "within_ms": str(node.within_ms)}


def _session_window(node: SessionWindow) -> Details:
    keys = {"keys": _bracketed(node.keys)} if node.keys else {}
    return {**keys, "time": node.time, "gap_ms": str(node.gap_ms), "start": node.start, "end": node.end}


def _watermark(node: Watermark) -> Details:
    return {
        "time": node.time,
        "delay_ms": str(node.delay_ms),
        "late": node.late,
        "ahead_ms": str(node.ahead_ms),
        **({"idle_ms": str(node.idle_ms)} if node.idle_ms is not None else {}),
    }


def _keyword_search(node: KeywordSearch) -> Details:
    return {
        "columns": _bracketed(f"{name}^{weight:g}" for name, weight in node.fields),
        "query": str(node.query),
        "analyzer": node.analyzer,
        "top_k": str(node.top_k),
    }


def _hybrid_search(node: HybridSearch) -> Details:
    return {
        "columns": _bracketed(f"{name}^{weight:g}" for name, weight in node.fields),
        "query": node.text,
        "column": node.column,
        "metric": node.metric,
        "fusion": node.fusion,
        "constant": f"{node.constant:g}",
        "top_k": str(node.top_k),
        "candidates": str(node.candidates),
    }


def _vector_search(node: VectorSearch) -> Details:
    return {
        "column": node.column,
        "metric": node.metric,
        "top_k": str(node.top_k),
        **({"dimension": str(node.length)} if node.length is not None else {}),
        **({"score": f"{compare(node.metric)} {node.threshold:g}"} if node.threshold is not None else {}),
    }


def _explode(node: Explode) -> Details:
    return {"column": node.column, "output": node.output, "outer": _flag(node.outer)}


def _unpivot(node: Unpivot) -> Details:
    return {"columns": _bracketed(node.on), "name": node.name, "value": node.value}


def _opaque(node: Opaque) -> Details:
    text = node.template
    for at in range(len(node.tables)):
        text = text.replace(marker(at), f"input_{at + 1}")
    return {"because": node.reason, "sql": text}


def _flag(value: bool) -> str:
    return str(value).lower()


_ROW_WISE: Final = "works row by row, in the pipeline of its input"
_ROW_IN_BOTH: Final = "whether a row stays depends on all rows of both inputs"

WINDOWS: Final = (SessionWindow, Window, WindowAssign)

FACTS: Final[Mapping[type[Node], Facts]] = {
    Aggregate: Facts("Aggregate", True, "a group is complete when the last row is in", _aggregate),
    ApplyInBatches: Facts(
        "PythonFunction", True, "a function of the program is called with the rows", _apply_in_batches
    ),
    Distinct: Facts("Distinct", True, "the rows are grouped by all their keys", _distinct),
    Drop: Facts(FUSED, False, _ROW_WISE, lambda node: {"dropped": _bracketed(node.dropped)}),
    DropDuplicates: Facts("Deduplicate", True, "rows of a key are compared with those just before", _drop_duplicates),
    Except: Facts("SetOperation", True, _ROW_IN_BOTH, lambda node: {"all": _flag(node.all)}),
    Explode: Facts(FUSED, False, _ROW_WISE, _explode),
    Filter: Facts(FUSED, False, _ROW_WISE, lambda node: {"predicate": listed([node.predicate])}),
    HybridSearch: Facts("Search", True, "how a row ranks depends on all rows", _hybrid_search),
    Intersect: Facts("SetOperation", True, _ROW_IN_BOTH, lambda node: {"all": _flag(node.all)}),
    Join: Facts("Join", None, "rows of two inputs are matched", _join),
    KeywordSearch: Facts("Search", True, "what a match is worth depends on all rows", _keyword_search),
    Limit: Facts("Limit", False, "stops its input when it has its rows", _limit),
    Opaque: Facts(OPAQUE, None, "the engine runs the block as it is written: {node.reason}", _opaque),
    Pivot: Facts("Aggregate", True, "a group is complete when the last row is in", _pivot),
    ProcessingTime: Facts(FUSED, False, _ROW_WISE, lambda node: {"column": node.name}),
    Project: Facts(FUSED, False, _ROW_WISE, lambda node: {"columns": _bracketed(node.named)}),
    Refresh: Facts(FUSED, False, _ROW_WISE, lambda node: {"every_ms": str(node.every_ms)}),
    Rename: Facts(
        FUSED, False, _ROW_WISE, lambda node: {"renamed": _bracketed(f"{old} AS {new}" for old, new in node.names)}
    ),
    Sample: Facts("Sample", None, "the rows are drawn while they pass", _sample),
    Scan: Facts(SOURCE, False, "the engine reads it; a stream reads it once, as insertions", _scan),
    SessionWindow: Facts("SessionWindow", True, "a later row can join two sessions", _session_window),
    Sort: Facts(
        "Sort", True, "the row that comes first may be the last to arrive", lambda n: {"keys": _bracketed(n.keys)}
    ),
    TopK: Facts("TopK", True, "the row that comes first may be the last to arrive", _top_k),
    Union: Facts("Union", False, "the rows of both inputs pass", lambda node: {"by_name": _flag(node.by_name)}),
    Unpivot: Facts(FUSED, False, _ROW_WISE, _unpivot),
    Values: Facts(SOURCE, False, "the rows stand in the query", lambda node: {"rows": str(len(node.rows))}),
    VectorSearch: Facts("Search", True, "whether a row is among the nearest depends on all rows", _vector_search),
    Watermark: Facts(FUSED, False, _ROW_WISE, _watermark),
    Window: Facts(
        "Window", None, "a row is computed from the rows of its window", lambda n: {"calls": _bracketed(n.calls)}
    ),
    WindowAssign: Facts(FUSED, False, _ROW_WISE, _window_assign),
    WithColumn: Facts(FUSED, False, _ROW_WISE, lambda node: {"added": _bracketed(node.added)}),
}
