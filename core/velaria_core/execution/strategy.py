"""How a batch query runs, as fields: what the engine chose for the grouping, and why.

The engine chooses; this reads its plan and says it in the contract's words. What each field is taken from:

| field | from |
|---|---|
| selected_impl, partial_layout, partition_local | the engine's operator for the grouping: the table GROUPINGS |
| key_count, fixed_width_keys, packable_keys | the keys of the grouping nearest the result, and their types |
| low_cardinality | the engine's estimates of groups and rows, where it has both |
| ordered_input | the plan: a sort by the keys below the grouping, which the engine kept |
| runtime_shape | the kinds of the plan's nodes, counted |
| rejected_candidates | the engine weighs a dense array against a hash table: the rule by which it did not take one |
| simd_backend, compiled_backends, threads | the engine's own answer |
| columnar_* | columns never leave the engine; the rows that went in are counted by an explain that ran |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from velaria_core.contract.codec import BatchStrategy, RejectedCandidate
from velaria_core.contract.modes import ColumnarFallback
from velaria_core.logical.explain import facts
from velaria_core.logical.node import Node

NOT_APPLICABLE: Final = "not-applicable"

# Few groups: states stay in the processor's cache, and a group has rows enough to be worth keeping one.
_FEW_GROUPS_MAX: Final = 65_536
_FEW_ROWS_PER_GROUP_MIN: Final = 16
_WORD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Grouping:
    """What an operator of the engine means for a grouping."""

    impl: str
    layout: str
    reason: str
    partition_local: bool = False


# The engine's operator -> its meaning.
GROUPINGS: Final[Mapping[str, Grouping]] = {
    "PERFECT_HASH_GROUP_BY": Grouping(
        "dense",
        "an array of states for each thread, a slot for each possible key",
        "the range of the keys is known and small, so a key is its own place in an array",
    ),
    "HASH_GROUP_BY": Grouping(
        "hash",
        "a hash table of states for each thread, split by the hash and merged part by part",
        "groups are found by the hash of their keys",
    ),
    "PARTITIONED_AGGREGATE": Grouping(
        "partitioned",
        "a state for each partition of the source",
        "the source is partitioned by the keys, so each group lies in one partition",
        partition_local=True,
    ),
    "UNGROUPED_AGGREGATE": Grouping(
        NOT_APPLICABLE,
        "a state for each thread",
        "there are no keys: all rows are one group",
    ),
}
_WITHOUT: Final = Grouping(NOT_APPLICABLE, "none", "no node of the plan groups")
_ANSWERED: Final = Grouping(NOT_APPLICABLE, "none", "the engine answers the grouping without running one")


@dataclass(frozen=True, slots=True)
class Machine:
    """What the engine says of itself.

    Attributes:
        backend: its name, version and platform.
        dense_bits_max: how many bits the keys may take together for a dense array of groups.
    """

    backend: str
    threads: int
    dense_bits_max: int


Key = tuple[str, pa.DataType | None]


@dataclass(frozen=True, slots=True)
class GroupingNode:
    """The grouping nearest the result, as planning knows it.

    Attributes:
        keys: names of the grouping keys, and their types where they are known.
        alone: the engine's grouping operator when it plans this node by itself; None where it needs none.
        groups, rows: estimates of the rows out and in, where the engine has them.
        ordered: the plan sorts by the keys below.
    """

    keys: Sequence[Key]
    alone: str | None
    groups: int | None = None
    rows: int | None = None
    ordered: bool = False


def decided(
    nodes: Sequence[Node],
    operators: Sequence[str],
    grouping: GroupingNode | None,
    machine: Machine,
    input_rows: int | None,
) -> BatchStrategy:
    """The strategy of a plan.

    Args:
        nodes: of the plan, inputs first.
        operators: names of the engine's operators for the whole plan, root first.
        input_rows: rows that the sources gave, where they were counted.
    """
    chosen = _chosen(grouping, operators)
    keys = grouping.keys if grouping is not None else ()
    widths = [width_bytes(kind) for _, kind in keys]
    known = [width for width in widths if width is not None]
    fixed = bool(keys) and len(known) == len(widths)
    return BatchStrategy(
        selected_impl=chosen.impl,
        simd_backend=machine.backend,
        compiled_backends=(machine.backend,),
        partial_layout=chosen.layout,
        runtime_shape=_shape(nodes),
        key_count=len(keys),
        ordered_input=grouping is not None and grouping.ordered,
        partition_local=chosen.partition_local,
        fixed_width_keys=fixed,
        packable_keys=fixed and sum(known) <= _WORD_BYTES,
        low_cardinality=grouping is not None and _few(grouping.groups, grouping.rows),
        reason=chosen.reason,
        rejected_candidates=_rejected(chosen, keys, machine),
        threads=machine.threads,
        columnar_operator=type(nodes[-1]).__name__,
        columnar_fallback_type=ColumnarFallback.NONE,
        columnar_reason="every node runs on the engine's columns, and the result leaves as Arrow columns",
        columnar_input_row_count=input_rows,
        columnar_affected_columns=(),
    )


def width_bytes(kind: pa.DataType | None) -> int | None:
    """Bytes that a value takes in the engine's columns; None for types without a fixed width, or unknown ones."""
    if kind is None:
        return None
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return 1
    if pa.types.is_decimal(kind):
        return next(width for digits, width in ((4, 2), (9, 4), (18, 8), (38, 16)) if kind.precision <= digits)
    if pa.types.is_dictionary(kind):
        return width_bytes(kind.index_type)
    if pa.types.is_fixed_size_list(kind):
        item = width_bytes(kind.value_type)
        return None if item is None else item * int(kind.list_size)
    if pa.types.is_interval(kind):
        return 16
    if pa.types.is_primitive(kind):
        return int(kind.bit_width) // 8
    return None


def _chosen(grouping: GroupingNode | None, operators: Sequence[str]) -> Grouping:
    """The meaning of the operator that runs the grouping in the whole plan.

    The node planned alone tells its operator; in the whole plan the engine may know more and take another, which is
    the one to report where there is but one.
    """
    if grouping is None:
        return _WITHOUT
    found = [name for name in operators if name in GROUPINGS]
    if not found:
        return _ANSWERED
    return GROUPINGS[grouping.alone if grouping.alone in found else found[0]]


def _few(groups: int | None, rows: int | None) -> bool:
    if groups is None or rows is None:
        return False
    return groups <= _FEW_GROUPS_MAX and groups * _FEW_ROWS_PER_GROUP_MIN <= rows


def _rejected(chosen: Grouping, keys: Sequence[Key], machine: Machine) -> tuple[RejectedCandidate, ...]:
    """The engine weighs two ways to group by keys: `dense` where it can, `hash` always."""
    dense, hashed = GROUPINGS["PERFECT_HASH_GROUP_BY"], GROUPINGS["HASH_GROUP_BY"]
    if chosen is dense:
        return (RejectedCandidate(name=hashed.impl, reason="nothing need be hashed where a key is a place"),)
    if chosen is not hashed:
        return ()
    if any(kind is None for _, kind in keys):  # why not, the engine alone knows
        return ()
    others = [name for name, kind in keys if not _counts(kind)]
    if others:
        reason = f"not stored as whole numbers: {', '.join(others)}"
    else:
        reason = (
            f"the engine knows no range of the keys, or one of more than {machine.dense_bits_max} bits together, "
            "or an aggregate that cannot be kept so"
        )
    return (RejectedCandidate(name=dense.impl, reason=reason),)


def _counts(kind: pa.DataType | None) -> bool:
    """Whether the engine stores a type as whole numbers, which a dense array needs. It does not count bool as one."""
    tests: tuple[Any, ...] = (
        pa.types.is_integer,
        pa.types.is_date,
        pa.types.is_time,
        pa.types.is_timestamp,
        pa.types.is_dictionary,
    )
    if kind is None:
        return False
    if pa.types.is_decimal(kind):
        return bool(kind.precision <= 18)
    return any(test(kind) for test in tests)


_WORDS: Final[Mapping[str, str]] = {
    "SourceOnly": "source",
    "FusedUnary": "row-wise step",
    "Union": "union",
    "SetOperation": "set operation",
    "Join": "join",
    "Window": "window",
    "Aggregate": "aggregate",
    "Distinct": "distinct",
    "Sort": "sort",
    "TopK": "top-k",
    "Limit": "limit",
    "Sample": "sample",
    "Query": "opaque query",
}


def _shape(nodes: Sequence[Node]) -> str:
    """`2 sources, 1 join, 1 aggregate`: the kinds of the nodes, counted, sources first."""
    counted = Counter(facts(node).kind for node in nodes)
    return ", ".join(
        f"{counted[kind]} {word}{'s' if counted[kind] > 1 else ''}" for kind, word in _WORDS.items() if counted[kind]
    )
