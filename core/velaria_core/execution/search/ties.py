"""Ties: which rows can be among the best, where a kernel or an index scores them and the engine has the last word.

Scores are of the kernel here and of the engine there, and so differ in their last digits. So more rows are taken than
are wanted, until the last of them scores worse than the last that is wanted by more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa

from velaria_core.execution.search.keyword_search import Found
from velaria_core.execution.search.nearest import Nearest
from velaria_core.execution.search.vectors import Doubles, Floats, vectors_of
from velaria_core.execution.vectors import Rows

_MORE: Final = 4  # rows beyond the last that is wanted
_TIES: Final = 1e-9
_TIES_OF_WIDE: Final = 1e-5  # of queries that are not float32

T = TypeVar("T")


def nearest_with_ties(search: Callable[[int], Nearest], k: int, ties: float = _TIES) -> Nearest:
    """The rows that can be among the k nearest of each query."""
    return _widened(search, lambda found: found.scores, k, ties)


def best_with_ties(search: Callable[[int], Found], k: int) -> Found:
    """The rows that can be among the k best, with their scores."""
    return _widened(search, lambda found: [found.scores], k, _TIES)


def _widened(search: Callable[[int], T], scores: Callable[[T], Sequence[Doubles]], k: int, ties: float) -> T:
    """What a search finds when it is asked for so many that no row which was not given can tie, of any query."""
    wanted = k + _MORE
    while True:
        found = search(wanted)
        if all(_settled(one, k, wanted, ties) for one in scores(found)):
            return found
        wanted *= 4


def _settled(scores: Doubles, k: int, wanted: int, ties: float) -> bool:
    """Whether no row that was not given can tie with the last of the k."""
    if len(scores) < wanted:
        return True
    last, beyond = float(scores[k - 1]), float(scores[-1])
    return abs(beyond - last) > ties * max(1.0, abs(last))


def nearest_to_each(
    queries: pa.ChunkedArray, search: Callable[[Floats, int], Nearest], k: int
) -> tuple[Rows, Rows, Nearest] | None:
    """The rows that can be among the k nearest of each query that has a vector.

    Returns:
        For each pair that was found the place of its query and its row, queries in their order; and what found them.
        None where no query has a vector.
    """
    vectors = vectors_of(queries)
    there = np.flatnonzero(~np.isnan(vectors.norms))
    if len(there) == 0:
        return None
    asked = vectors.take(there)
    # Queries are searched for as float32, and by the engine as they are.
    ties = _TIES if pa.types.is_float32(queries.type.value_type) else _TIES_OF_WIDE
    found = nearest_with_ties(lambda wanted: search(asked, wanted), k, ties)
    return np.repeat(there, [len(rows) for rows in found.rows]), np.concatenate(found.rows), found
