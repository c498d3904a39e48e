"""Moments as text, as the contract has them: ISO 8601 in UTC, of any year, and "infinity" for the end of all time."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from velaria_core.logical.event_time import END

INFINITY: Final = "infinity"  # the watermark once every source has ended


def from_micros(moment_us: int) -> str:
    """`2013-01-01T05:15:00.000001Z` of microseconds since 1970."""
    return INFINITY if moment_us == END else f"{np.datetime64(moment_us, 'us')}Z"


def from_millis(moment_ms: int) -> str:
    """`2013-01-01T05:15:00.001Z` of milliseconds since 1970."""
    return f"{np.datetime64(moment_ms, 'ms')}Z"


def in_seconds(text: str) -> float:
    """Seconds since 1970 of such a text."""
    if text == INFINITY:
        return math.inf
    return float(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64)) / 1e6
