"""The shapes of incremental computation: what an epoch does to the rows that changed.

A node's `stream()` declares its shape; the streaming runtime turns it into steps. `cost` says in words what an epoch
pays, `state` what is kept between epochs; explain prints both. The algebra is that of Z-sets
(Budiu et al., DBSP, VLDB 2023): a linear operator runs on the changes alone, a bilinear one on each side's changes
against the other side's rows, and what is neither is recomputed for the keys that were touched, or as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from velaria_core.logical.partials import Partials
from velaria_core.logical.states import States

_EVERYTHING: Final = "all rows, every epoch"


@dataclass(frozen=True, slots=True)
class Linear:
    """The batch query runs on the changes; no state."""

    name = "linear"

    def cost(self) -> str:
        return "rows changed"

    def state(self) -> str:
        return "none"


@dataclass(frozen=True, slots=True)
class Timed:
    """Rows pass as they are, and time is told by them or to them: never part of a run of linear nodes.

    Attributes:
        keeps: what is state, in words.
    """

    keeps: str = "none"
    name = "timed"

    def cost(self) -> str:
        return "rows changed"

    def state(self) -> str:
        return self.keeps


@dataclass(frozen=True, slots=True)
class Bilinear:
    """Changes of each side meet the rows of the other; both sides are state."""

    name = "bilinear"

    def cost(self) -> str:
        return "rows changed x their matches"

    def state(self) -> str:
        return "rows of both inputs"


@dataclass(frozen=True, slots=True)
class Keyed:
    """The keys that an epoch touched are computed before and after; state is rows or partials by key.

    Attributes:
        by: for each input the names of its key columns, in the same order; no names means one key for everything.
        shown_by: the output columns that hold the key, in that order, where equal rows may give another result the
            next time (of rows that tie, of floating point sums): what was shown is kept then, and found by these.
            None where equal rows give equal results.
        partials: the same as partial columns by key, where every call has some; it depends on the types whether they
            are exact.
        states: the same as states of the engine by key, where it can merge every call; over rows that only come.
    """

    by: tuple[tuple[str, ...], ...]
    shown_by: tuple[str, ...] | None = None
    partials: Partials | None = None
    states: States | None = None
    name = "keyed"

    def cost(self) -> str:
        return "keys touched" if self.by[0] else "all rows (there is no key)"

    def state(self) -> str:
        keys = ", ".join(self.by[0])
        return f"rows or partial values by {keys}" if keys else "rows or partial values, without key"


@dataclass(frozen=True, slots=True)
class Applied(Keyed):
    """Python code meets the rows that came for the touched keys and what it kept for these keys."""

    def state(self) -> str:
        return f"what the function keeps by {', '.join(self.by[0])}"


@dataclass(frozen=True, slots=True)
class Recompute:
    """The whole result is computed anew and its difference emitted; state is the whole input.

    Attributes:
        reason: why nothing better exists, for explain.
        pays, keeps: what an epoch pays and what state is, where the node says of itself how it is several operators.
    """

    reason: str
    pays: str = _EVERYTHING
    keeps: str = "rows of the input"
    name = "recompute"

    @property
    def is_several(self) -> bool:
        return self.pays != _EVERYTHING

    def cost(self) -> str:
        return self.pays

    def state(self) -> str:
        return self.keeps


@dataclass(frozen=True, slots=True)
class Reread(Recompute):
    """A table is read anew once its time has come, and the difference emitted; state is its rows."""

    def cost(self) -> str:
        return "all rows of the table, each time it is read"

    def state(self) -> str:
        return "rows of the table"


Incremental = Linear | Timed | Bilinear | Keyed | Recompute
