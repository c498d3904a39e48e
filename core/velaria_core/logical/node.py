"""Node: one operator of a plan. Immutable, compared by identity, and free of I/O.

A node knows the *names* of its columns; their types are the engine's answer when the lowered query is bound
(`execution.lower.schema`), because a second type inference would sooner or later disagree with the first.
Invariant: the column names of a node are distinct, also when compared without case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import pyarrow as pa
from sqlglot import exp

from velaria_core.logical.event_time import Horizon, TimeBound, Times, widest
from velaria_core.logical.expr import Column, to_sql
from velaria_core.logical.incremental import Incremental, Keyed, Linear
from velaria_core.logical.query import Named, Query


class Node(ABC):
    """An operator and its inputs. Every one is a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes whose rows this one takes, in the order of `batch`'s arguments."""
        return tuple(value for field in fields(self) if isinstance(value := getattr(self, field.name), Node))

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The names of the output columns."""

    @property
    def known_schema(self) -> pa.Schema | None:
        """The types too, where they are known without asking the engine."""
        return None

    @property
    def reorders_only(self) -> bool:
        """The rows stay as they are and only their order changes, which changes do not have."""
        return False

    @property
    def selects(self) -> bool:
        """The result is some of the input's rows, and a row that is left out never belongs to it once more rows came:
        batch(batch(A) + B) = batch(A + B). So over rows that only come the result is all that need be kept."""
        return False

    @property
    def handed_on(self) -> tuple[str, ...]:
        """Columns of the input that come out under their names as they are, where the query (an unnest) hides it."""
        return ()

    @abstractmethod
    def label(self) -> str:
        """One line for explain: `Filter: a > 5`."""

    @abstractmethod
    def batch(self, *inputs: Query) -> Query:
        """The query over all rows of the inputs."""

    @abstractmethod
    def stream(self) -> Incremental:
        """The shape of the incremental form."""

    def times(self, *inputs: Times) -> Times:
        """The output columns that the watermark closes, given those of the inputs.

        Whoever computes a column anew under an old name, or renames one, says so itself.
        """
        kept = set(self.columns)
        match self.stream():
            case Linear() if len(inputs) == 1:
                return {name: bound for name, bound in inputs[0].items() if name in kept}
            case Keyed(by):
                found = shared_times(by, inputs)
                return {
                    name: bound for name, bound in zip(by[0], found, strict=True) if bound is not None and name in kept
                }
            case _:
                return {}

    def horizons(self, *inputs: Times) -> tuple[Horizon | None, ...]:
        """For each input, by which of its columns event time tells that a row is late, and that it can be forgotten."""
        found: list[tuple[int, int]] = []
        shape = self.stream()
        if isinstance(shape, Keyed):
            shared = shared_times(shape.by, inputs)
            found = [(bound.span_us, at) for at, bound in enumerate(shared) if bound is not None]
        if not isinstance(shape, Keyed) or not found:
            return (None,) * len(self.inputs)
        at = min(found)[1]  # of several columns that are bounded, the one that closes first
        bound = shared[at]
        return tuple(Horizon(names[at], bound, bound) for names in shape.by)

    def apart(self) -> Node | None:
        """The same as several operators, over the inputs of this one, where these have better incremental forms."""
        return None

    def over(self, inputs: Sequence[Node], carry: tuple[str, ...] = ()) -> Self:
        """This operator over other inputs. `carry` are columns of theirs that a linear operator hands on as they are;
        most keep every column of their input and need not do anything."""
        del carry
        given = iter(inputs)
        changed = {field.name: next(given) for field in fields(self) if isinstance(getattr(self, field.name), Node)}
        return replace(self, **changed)

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first; a shared node once."""
        seen: set[int] = set()
        pending: list[Node] = [self]
        while pending:
            node = pending.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            pending.extend(reversed(node.inputs))


@dataclass(frozen=True, eq=False)
class Unary(Node):
    """A node with one input, whose columns it keeps unless it says otherwise."""

    input: Node

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return self.input.columns


def listed(trees: Iterable[Column | exp.Expr | Named | str]) -> str:
    """Columns for a label: `a, b + 1 AS c`."""
    shown = []
    for item in trees:
        if isinstance(item, str):
            shown.append(item)
        elif isinstance(item, Column):
            shown.append(item.sql())
        elif isinstance(item, tuple):
            name, tree = item
            text = plain_sql(tree)
            shown.append(text if text == name else f"{text} AS {name}")
        else:
            shown.append(plain_sql(item))
    return ", ".join(shown)


def plain_sql(tree: exp.Expr) -> str:
    """SQL text without the quotes that a reader does not need."""
    copied = tree.copy()
    for identifier in copied.find_all(exp.Identifier):
        if str(identifier.this).isidentifier():
            identifier.set("quoted", False)
    return to_sql(copied)


def shared_times(by: Sequence[Sequence[str]], inputs: Sequence[Times]) -> list[TimeBound | None]:
    """For each key, the bound that holds in every input; None where one of them has none."""
    found = []
    for names in zip(*by, strict=True):
        bounds = [times.get(name) for times, name in zip(inputs, names, strict=True)]
        shared = bounds[0]
        for bound in bounds[1:]:
            shared = widest(shared, bound) if shared is not None and bound is not None else None
        found.append(shared)
    return found


def time_of(tree: exp.Expr, times: Times) -> TimeBound | None:
    """The bound of an expression over columns: a column's own, or that of the first of several that is there."""
    if isinstance(tree, exp.Column):
        return times.get(tree.name)
    if not isinstance(tree, exp.Coalesce):
        return None
    found: TimeBound | None = None
    for at, part in enumerate((tree.this, *tree.expressions)):
        bound = time_of(part, times)
        found = bound if at == 0 else None if found is None or bound is None else widest(found, bound)
    return found
