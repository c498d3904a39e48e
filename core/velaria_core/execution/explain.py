"""Explain of a batch query: a plan as the contract's message, every field of it true.

Velaria's nodes say what is asked, the engine's plan says what is done, and the two do not map node to node: the engine
fuses, reorders and removes. So a node is given what holds for it by itself (the engine's estimate for the query that
ends in this node, whether that query holds back its rows), the engine's plan stands beside it as a whole, and what
cannot be told apart is absent. `analyze` runs the query; then the whole has a time and the root its rows.

What reads the engine's plan is here: `EnginePlan`. What the plan means for the grouping is in `strategy`, how the
message is printed in `drawing`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final

import pyarrow as pa

from velaria_core.contract.codec import BatchExplain, BatchPhysicalPlan, Frontend, LogicalPlan, PlanNode
from velaria_core.contract.modes import Shape
from velaria_core.execution import batch
from velaria_core.execution.duck import Cursor, Engine
from velaria_core.execution.lower import lower
from velaria_core.execution.searched import Access, FusedAccess
from velaria_core.execution.show import escaped
from velaria_core.execution.strategy import GROUPINGS, GroupingNode, Machine, decided
from velaria_core.logical.explain import SOURCE, facts, groups_inside, nearest_grouping, reason, sorted_by, steps
from velaria_core.logical.node import Node
from velaria_core.logical.operators import ApplyInBatches, Scan

# Each estimate costs the planning of a query (0.5 to 2 ms) that is as deep as the node stands. In a larger plan only
# the nodes that need one for more than the number of rows are planned by themselves.
ESTIMATED_NODES_MAX: Final = 64

# Rows that stand in the query, or that the engine found while it planned.
_GIVEN: Final = frozenset({"COLUMN_DATA_SCAN", "DUMMY_SCAN", "EMPTY_RESULT"})
# Sources whose rows the engine knows before it reads them. For others, text files among them, it puts a constant in
# place of an estimate; for Arrow data it knows those of a table, and no others.
_COUNTED: Final = _GIVEN | {"SEQ_SCAN", "READ_PARQUET", "RANGE"}
_ARROW: Final = "PYTHON_ARROW_SCAN"
# They read what another operator of the same plan gives.
_REREADING: Final = frozenset({"CTE_SCAN", "DELIM_SCAN"})
# They give no row before they have all.
_BARRIERS: Final = frozenset(
    {*GROUPINGS, "ORDER_BY", "TOP_N", "WINDOW", "IE_JOIN", "ASOF_JOIN", "RESERVOIR_SAMPLE", "LIMIT_PERCENT"}
)
_ORDERING: Final = frozenset({"ORDER_BY", "TOP_N"})
# Around the plan proper in a profile.
_WRAPPERS: Final = frozenset({"RESULT_COLLECTOR"})
# They pass on the rows of others, and the engine does not count them again.
_UNCOUNTED: Final = frozenset({"UNION", "CTE"})
_NOT_SHOWN: Final = frozenset({"Estimated Cardinality", "Table Index", "CTE Index"})


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """An operator of the engine, with all below it.

    Attributes:
        info: its settings, as the engine words them; a list where there are several.
        estimated_rows: rows out by the engine's estimate, where it has one.
        rows, time_ms: measured, in a profile only.
    """

    name: str
    info: Mapping[str, str | Sequence[str]]
    children: tuple[EnginePlan, ...]
    estimated_rows: int | None = None
    rows: int | None = None
    time_ms: float | None = None

    @staticmethod
    def read(plan: Mapping[str, Any], counted: Set[str]) -> EnginePlan:
        """From the engine's JSON: `EXPLAIN (FORMAT json)`, or the operator of a profile.

        Args:
            counted: names of sources that know their rows. No estimate is one that rests on any other.
        """
        name = str(plan["name"] if "name" in plan else plan["type"]).strip()
        info = plan["extra_info"]
        children = tuple(EnginePlan.read(child, counted) for child in plan.get("children", ()))
        if name in _WRAPPERS and len(children) == 1:
            return children[0]
        if name == "TABLE_SCAN":  # a profile has one name for what a plan tells apart
            name = info.get("Function", "SEQ_SCAN")
        made = EnginePlan(name, info, children)
        timing = plan.get("timing")
        return replace(
            made,
            # Where the engine has no estimate it writes 0.
            estimated_rows=int(info.get("Estimated Cardinality", 0)) or None
            if all(leaf.name in counted for leaf in made.leaves())
            else None,
            rows=plan.get("intermediate_rows") if name not in _UNCOUNTED else None,
            time_ms=None if timing is None else timing * 1000,
        )

    def walk(self) -> Iterator[EnginePlan]:
        """This operator and all below, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def leaves(self) -> list[EnginePlan]:
        """The operators that read from outside the plan."""
        return [each for each in self.walk() if not each.children and each.name not in _REREADING]

    def barriers(self) -> int:
        """How many of the operators give no row before they have all."""
        return sum(1 for each in self.walk() if each.name in _BARRIERS)

    def text(self) -> str:
        """A line an operator, children below their parent."""
        lines: list[str] = []

        def draw(plan: EnginePlan, lead: str, hang: str) -> None:
            lines.append(lead + plan._line())
            for at, child in enumerate(plan.children):
                last = at == len(plan.children) - 1
                draw(child, hang + ("└─ " if last else "├─ "), hang + ("   " if last else "│  "))

        draw(self, "", "")
        return "\n".join(escaped(line) for line in lines)

    def _line(self) -> str:
        parts = [self.name]
        for key, value in self.info.items():
            listed = [value] if isinstance(value, str) else list(value)
            if key not in _NOT_SHOWN and any(listed) and listed != [self.name]:
                parts.append(f"{key.replace(' ', '_').lower()}=[{', '.join(listed)}]")
        if self.estimated_rows is not None:
            parts.append(f"estimated_rows={self.estimated_rows}")
        if self.rows is not None:
            parts.append(f"rows={self.rows}")
        if self.time_ms is not None:
            parts.append(f"time_ms={self.time_ms:.3f}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of the plan told.

    Attributes:
        rows, time_ms: of the whole; the time is from asking for the rows to having dropped the last.
        plan: the operators with rows and times; None for what the engine answers while it plans.
    """

    rows: int
    time_ms: float
    plan: EnginePlan | None

    def rows_read(self) -> int:
        """Rows that came from tables, files and Arrow data."""
        if self.plan is None:
            return 0
        return sum(leaf.rows or 0 for leaf in self.plan.leaves() if leaf.name not in _GIVEN)


def explain_batch(
    engine: Engine, root: Node, *, analyze: bool = False, parser: str | None = None, dialect: str = ""
) -> BatchExplain:
    """How a plan runs, or with `analyze` how it ran: the rows are computed and dropped.

    Args:
        parser, dialect: what read the query, where it was a text.
    Returns:
        Nodes root first; a node's id is the number of its logical step. About 1 ms a node.
    """
    nodes = steps(root)
    accesses = lower(root).accesses
    computed = bool(accesses) or any(isinstance(node, ApplyInBatches) for node in nodes)
    tables = all(isinstance(node.relation.feed, pa.Table | None) for node in nodes if isinstance(node, Scan))
    counted = _COUNTED | {_ARROW} if tables and not computed else _COUNTED
    with batch.running(engine, root) as (cursor, lowered):
        whole = _planned(cursor, lowered.sql, counted)
        alone = _planned_alone(cursor, nodes, whole, counted)
        grouping = _grouping(cursor, nodes, alone, whole)
        about = _machine(cursor)
        measured = _measured(cursor, lowered.sql, counted) if analyze else None
    shown = measured.plan if measured is not None and measured.plan is not None else whole
    rows_read = measured.rows_read() if measured is not None else None
    return BatchExplain(
        frontend=Frontend(name=parser, dialect=dialect) if parser is not None else None,
        logical=LogicalPlan(seed_columns=nodes[0].columns, steps=tuple(node.label() for node in nodes)),
        physical=BatchPhysicalPlan(
            nodes=_plan_nodes(nodes, alone, whole, measured, accesses),
            engine_plan=shown.text(),
            time_ms=None if measured is None else measured.time_ms,
        ),
        strategy=decided(nodes, [each.name for each in whole.walk()], grouping, about, rows_read),
    )


Planned = Mapping[int, EnginePlan]
"""The engine's plan of the query that ends in a node, by the node's id()."""


def _planned(cursor: Cursor, sql: str, counted: Set[str]) -> EnginePlan:
    ((_, text),) = cursor.rows(f"EXPLAIN (FORMAT json) {sql}")
    (plan,) = json.loads(text)
    return EnginePlan.read(plan, counted)


def _planned_alone(cursor: Cursor, nodes: Sequence[Node], whole: EnginePlan, counted: Set[str]) -> Planned:
    """The plans of the nodes by themselves; in a large plan, of those alone that need one."""
    wanted = {id(node): node for node in nodes}
    if len(nodes) > ESTIMATED_NODES_MAX:
        undecided = [node for node in nodes if facts(node).barrier is None]
        wanted = {id(node): node for parent in undecided for node in (parent, *parent.inputs)}
        if (grouping := nearest_grouping(nodes)) is not None:
            wanted |= {id(node): node for node in (grouping.node, *grouping.node.inputs)}
    root = nodes[-1]
    return {
        key: whole if node is root else _planned(cursor, lower(node).sql, counted) for key, node in wanted.items()
    } | {id(root): whole}


def _measured(cursor: Cursor, sql: str, counted: Set[str]) -> Measured:
    start = perf_counter()
    rows, profile = cursor.profiled(sql, batch.READER_ROWS)
    time_ms = (perf_counter() - start) * 1000
    if profile is None:
        return Measured(rows, time_ms, None)
    (root,) = profile["operator"]
    return Measured(rows, time_ms, EnginePlan.read(root, counted))


def machine(engine: Engine) -> Machine:
    """What the engine says of itself."""
    with engine.cursor() as cursor:
        return _machine(cursor)


def _machine(cursor: Cursor) -> Machine:
    ((version, threads, bits),) = cursor.rows(
        "SELECT version(), current_setting('threads'), current_setting('perfect_ht_threshold')"
    )
    ((platform,),) = cursor.rows("PRAGMA platform")
    return Machine(f"duckdb {str(version).removeprefix('v')} {platform}", int(threads), int(bits))


# --- nodes --------------------------------------------------------------------------------------------------


def _plan_nodes(
    nodes: Sequence[Node],
    alone: Planned,
    whole: EnginePlan,
    measured: Measured | None,
    accesses: Mapping[int, Access | FusedAccess],
) -> tuple[PlanNode, ...]:
    numbers = {id(node): at for at, node in enumerate(nodes, start=1)}
    pushed = _pushed(nodes, whole)
    root = nodes[-1]
    made = []
    for node in reversed(nodes):
        told, shape = facts(node), node.stream()
        planned = alone.get(id(node))
        answered = {"answered_by": accesses[id(node)].method} if id(node) in accesses else {}
        made.append(
            PlanNode(
                id=numbers[id(node)],
                operator=type(node).__name__,
                label=node.label(),
                details={**told.details(node), **answered, **pushed.get(id(node), {})},
                kind=told.kind,
                barrier=told.barrier if told.barrier is not None else _holds_back(node, alone),
                reason=reason(node),
                shape=Shape.SOURCE if told.kind == SOURCE else Shape(shape.name),
                state=shape.state(),
                cost="rows read, once" if told.kind == SOURCE else shape.cost(),
                estimated_rows=planned.estimated_rows if planned is not None else None,
                rows=measured.rows if measured is not None and node is root else None,
                inputs=tuple(numbers[id(child)] for child in node.inputs),
            )
        )
    return tuple(made)


def _holds_back(node: Node, alone: Planned) -> bool:
    """Whether the engine needs more barriers for a node than for its inputs."""
    return alone[id(node)].barriers() > sum(alone[id(child)].barriers() for child in node.inputs)


def _pushed(nodes: Sequence[Node], whole: EnginePlan) -> dict[int, dict[str, str]]:
    """What the engine moved into each source, for the sources that can be told apart in its plan.

    A source of the engine's plan is the one scan that has all its columns (and the table it names); where several
    scans might be it, or an opaque query may read on its own, nothing is said.
    """
    scans = [node for node in nodes if isinstance(node, Scan)]
    if any(not node.inputs and facts(node).kind != SOURCE for node in nodes):
        return {}
    found: list[tuple[int, EnginePlan]] = []
    for leaf in whole.leaves():
        if leaf.name in _GIVEN:
            continue
        columns = set(_texts(leaf, "Projections"))
        candidates = [scan for scan in scans if columns <= set(scan.columns) and _may_read(leaf, scan)]
        if len(candidates) == 1:
            found.append((id(candidates[0]), leaf))
    times = Counter(key for key, _ in found)
    return {
        key: {
            "pushed_columns": f"[{', '.join(_texts(leaf, 'Projections'))}]",
            **({"pushed_filters": f"[{', '.join(filters)}]"} if (filters := _texts(leaf, "Filters")) else {}),
        }
        for key, leaf in found
        if times[key] == 1
    }


def _may_read(leaf: EnginePlan, scan: Scan) -> bool:
    """Whether a source of the engine's plan may be this scan: by the table it names, or by how it reads."""
    if table := "".join(_texts(leaf, "Table")):
        return table.endswith("." + scan.relation.sql.replace('"', "").rpartition(".")[2])
    if leaf.name == _ARROW:
        return scan.relation.feed is not None
    return leaf.name.lower() in scan.relation.sql.lower()


def _texts(plan: EnginePlan, key: str) -> list[str]:
    value = plan.info.get(key, ())
    return [text for text in ([value] if isinstance(value, str) else value) if text]


# --- the grouping -------------------------------------------------------------------------------------------


def _grouping(cursor: Cursor, nodes: Sequence[Node], alone: Planned, whole: EnginePlan) -> GroupingNode | None:
    found = nearest_grouping(nodes)
    if found is None:
        return _hidden_grouping(nodes, whole)
    (rows,) = found.node.inputs
    schema = cursor.schema(lower(found.node).sql)
    planned = alone[id(found.node)]
    return GroupingNode(
        keys=[(name, schema.field(name).type) for name in found.keys],
        alone=next((each.name for each in planned.walk() if each.name in GROUPINGS), None),
        groups=planned.estimated_rows,
        rows=alone[id(rows)].estimated_rows,
        ordered=sorted_by(rows, found.columns) and any(each.name in _ORDERING for each in whole.walk()),
    )


def _hidden_grouping(nodes: Sequence[Node], whole: EnginePlan) -> GroupingNode | None:
    """The grouping that an opaque query holds. Its keys are known to the engine only."""
    if not any(groups_inside(node) for node in nodes):
        return None
    found = [each for each in whole.walk() if each.name in GROUPINGS]
    if not found:
        return None
    # Some the engine makes for itself, to have each value of a correlated column once: they aggregate nothing.
    chosen = next((each for each in found if _texts(each, "Aggregates")), found[0])
    return GroupingNode(keys=[(key, None) for key in _texts(chosen, "Groups")], alone=chosen.name)
