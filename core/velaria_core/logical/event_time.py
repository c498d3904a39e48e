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
from typing import Final

END: Final = (1 << 63) - 1  # the watermark once every source has ended: all values are closed
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeKind(StrEnum):
    """What a time column holds. Integers count milliseconds since 1970; text is ISO 8601."""

    TIMESTAMP = "timestamp"
    TIMESTAMP_UTC = "timestamp_utc"
    INTEGER = "integer"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class TimeBound:
    """A column's value v is closed once v + span_us <= watermark.

    Attributes:
        kind: how the column holds time.
        span_us: microseconds from the value to the last moment that it stands for: a window's start lasts for the
            window's size, an event time for nothing.
    """

    kind: TimeKind
    span_us: int = 0

    def last_closed_us(self, watermark_us: int) -> int:
        """The largest value that is closed, in microseconds since 1970."""
        return watermark_us if watermark_us == END else watermark_us - self.span_us


Times = Mapping[str, TimeBound]


def widest(one: TimeBound, other: TimeBound) -> TimeBound | None:
    """The bound that holds for values of either; None where they hold time in different ways."""
    if one.kind is not other.kind:
        return None
    return one if one.span_us >= other.span_us else other


def iso(moment_us: int) -> str:
    """A moment as ISO 8601 text in UTC, for people."""
    return (_EPOCH + timedelta(microseconds=moment_us)).isoformat().replace("+00:00", "Z")
