"""Event time: what the watermark says about the values of a column.

The watermark is a moment: no row with an earlier event time is expected. Where a column is bounded by it, its values
are closed one after the other as the watermark rises, and closed values never change again: their windows come out,
their state is forgotten, and rows that still come for them are late (Akidau et al., The Dataflow Model, VLDB 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

END: Final = (1 << 63) - 1  # the watermark once every source has ended: all values are closed
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeKind(StrEnum):
    """What a time column holds. Integers count milliseconds since 1970; text is ISO 8601."""

    TIMESTAMP = "timestamp"
    TIMESTAMP_UTC = "timestamp_utc"
    INTEGER = "integer"
    TEXT = "text"


class Late(StrEnum):
    """What becomes of rows that come after the watermark has passed their time. They are counted in any case."""

    DROP = "drop"  # a step whose key is closed by then leaves them out; an open window still takes them
    FOLD = "fold"  # nothing is ever closed: results are corrected, state is never forgotten
    SIDE = "side"  # they go to the late sink, whole, and not into the result


@dataclass(frozen=True, slots=True)
class TimeBound:
    """A column's value v is closed once v + span_us <= watermark.

    Attributes:
        kind: how the column holds time.
        span_us: microseconds from the value to the end of what it stands for: an event time stands for one
            microsecond, since rows of the watermark's own time are not late; a window's start for the window's size,
            a window's end for nothing.
    """

    kind: TimeKind
    span_us: int = 0

    def last_closed_us(self, watermark_us: int) -> int:
        """The largest value that is closed, in microseconds since 1970."""
        return watermark_us if watermark_us == END else watermark_us - self.span_us


Times = Mapping[str, TimeBound]
STATIC: Final[Times] = MappingProxyType({})  # compared by identity: rows that are all there at once and never change


@dataclass(frozen=True, slots=True)
class Horizon:
    """When the rows of one input of an operator can be told by time to be late, and when they are done with.

    Attributes:
        column: a column of the input.
        late: a row whose value is closed under this bound, as the epoch begins, comes too late: it is left out. None
            where none does.
        kept: a row whose value is closed under this bound, as the epoch ends, changes nothing any more: forgotten.
            None where rows are not forgotten one by one.
    """

    column: str
    late: TimeBound | None
    kept: TimeBound | None


def widest(one: TimeBound, other: TimeBound) -> TimeBound | None:
    """The bound that holds for values of either; None where they hold time in different ways."""
    if one.kind is not other.kind:
        return None
    return one if one.span_us >= other.span_us else other


def iso(moment_us: int) -> str:
    """A moment as ISO 8601 text in UTC, for people."""
    return (_EPOCH + timedelta(microseconds=moment_us)).isoformat().replace("+00:00", "Z")
