"""What every step is: an operator, or a run of them, that turns the changes of one epoch into changes of its result.

Invariant: after any history, the sum of a step's changes is the batch result over the sum of its inputs' changes, less
the late rows that the query said to drop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

from velaria_core.changes import DIFF, DIFF_FIELD, has_diff, with_diff
from velaria_core.execution.state import Feed
from velaria_core.logical.event_time import Times
from velaria_core.logical.node import Node
from velaria_core.logical.query import Query
from velaria_core.logical.relation import Relation

Changes: TypeAlias = pa.Table | None
COUNT = "__n"
AT = "__at"
RESERVED = frozenset(
    {DIFF, COUNT, AT, "velaria epoch", "velaria diff", "velaria times"}
)  # stand beside a row's columns


@dataclass(frozen=True, slots=True)
class Moment:
    """Where an epoch stands in the query's life and in event time.

    Attributes:
        first: the first epoch of all, in which an operator over no rows shows what it has.
        late_before_us: the watermark as the epoch began, microseconds since 1970 in UTC: a row whose time was closed
            by then is late. None before any event time was seen.
        watermark_us: the watermark with this epoch's rows; what it closes is final after the epoch. `event_time.END`
            once every source has ended.
        now_ms: the clock as the epoch began.
    """

    first: bool
    late_before_us: int | None = None
    watermark_us: int | None = None
    now_ms: int = 0


class Step(ABC):
    """One operator, or a run of linear ones, at work.

    Attributes:
        schema: the result's columns, without the diff.
        append_only: its changes never retract, and have no diff column.
        inputs: the steps whose changes it takes.
        times: its columns that event time closes, set by `compile_steps` before a step above is made.
        node: the node of the plan whose rows it gives, set by `compile_steps`. With it the step computes the nodes
            below it, down to those of its inputs.
        impl, impl_reason: how it computes, as a short name, and why so; for explain and progress.
        waits: time alone may give it something to do.
        late_dropped_rows: rows of the last epoch that it left out, since event time had closed their key.
    """

    node: Node
    impl: str = "statement"
    impl_reason: str = "one statement over the changes"
    waits: bool = False
    late_dropped_rows: int = 0

    def __init__(
        self,
        schema: pa.Schema,
        append_only: bool,
        inputs: Sequence[Step],
    ) -> None:
        self.schema = schema
        self.append_only = append_only
        self.inputs = tuple(inputs)
        self.times: Times = {}

    @property
    def changes_schema(self) -> pa.Schema:
        """The columns of its changes."""
        return self.schema if self.append_only else self.schema.append(DIFF_FIELD)

    @property
    def is_net(self) -> bool:
        """Whether what goes in an epoch was there before it. A step over one input gives what it is given."""
        return self.append_only or all(below.is_net for below in self.inputs)

    @abstractmethod
    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        """The changes of the result that follow from those of the inputs; None for none."""

    @property
    def scanned(self) -> str:
        """Why an epoch reads the keys of all that is kept, where its rows and their keys were to do."""
        return ""

    def due(self, watermark_us: int | None, now_ms: int) -> bool:
        """Whether an epoch without rows, at this watermark and time of the clock, would do something here."""
        del watermark_us, now_ms
        return False

    def state_rows(self) -> int:
        """Rows that it keeps between epochs."""
        return 0

    def state_bytes(self) -> int:
        """And what they take, in memory or in the state's database; an estimate where the engine has no count."""
        return 0

    def restored(self, watermark_us: int | None) -> None:  # noqa: B027 -- most have nothing to do with it
        """A restart goes on after this watermark; called before the first epoch, outside of any."""

    def committed(self) -> None:  # noqa: B027 -- most keep nothing of their own
        """The epoch is durable; what was kept to undo it can go."""

    def rolled_back(self) -> None:  # noqa: B027
        """The epoch failed: what lives outside the store is to be as it was. The store's tables are already."""


# --- what the steps share ------------------------------------------------------------------------------------


def query_of(node: Node) -> Query:
    return node.batch(*(query_of(child) for child in node.inputs))


def relation_of(feed: Feed) -> Relation:
    return Relation(feed.name, feed.schema, feed.name, "feed")


def diffed(columns: pa.Schema, append_only: bool) -> pa.Schema:
    return columns if append_only or has_diff(columns) else columns.append(DIFF_FIELD)


def counted(columns: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_name(COUNT) if field.name == DIFF else field for field in columns])


def fitted(given: Changes, feed: Feed) -> pa.Table:
    if given is None:
        return pa.Table.from_batches([], feed.schema)
    return with_diff(given) if has_diff(feed.schema) else given


def some(table: pa.Table) -> Changes:
    return table if table.num_rows else None
