"""Workers: threads that each run a part of an epoch's rows through a statement of their own.

A worker has a connection to the engine of the query's state, and on it feeds and prepared statements. It keeps nothing
between epochs, so who runs a part makes no difference to the result, and a query may be restarted with another number
of workers. The engine lets go of Python's lock while it works, so parts run side by side.

In epochs of 65,536 rows on two cores: up to 1.5 times the speed of one thread for a regular expression over every row,
0.6 to 0.9 for aggregates, whose one statement takes less time than handing it over. So one thread is the default.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyarrow as pa

from velaria_core.contract.modes import ExecutionMode
from velaria_core.execution.duck import Engine
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.state import Store

# Below, handing a part over costs more than the part.
ROWS_MIN: Final = 8_192

Part = Callable[[], pa.Table | None]


def workers_of(engine: Engine, options: StreamOptions, held: Callable[[int], None] = lambda _: None) -> Workers | None:
    """The workers that the options ask for; None where one thread is to run everything."""
    if options.execution_mode is not ExecutionMode.LOCAL_WORKERS or options.local_workers <= 1:
        return None
    return Workers(engine, options.local_workers, options.max_inflight_partitions, held=held)


class Workers:
    """So many threads with a store each.

    Args:
        credit: parts of an epoch that are worked on at once; 0: one each.
        rows_min: rows of an epoch from which on it is split.
        held: told, after each change, how many parts are held.
    """

    def __init__(
        self,
        engine: Engine,
        count: int,
        credit: int = 0,
        *,
        rows_min: int = ROWS_MIN,
        held: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.count, self.credit, self.rows_min = count, min(credit or count, count), rows_min
        self.stores = [Store(engine) for _ in range(count)]
        self.parts = self.inflight_max = 0
        self._held = held
        self._lock = threading.Lock()
        self._inflight = 0
        self._pool = ThreadPoolExecutor(self.credit, "velaria-worker")

    def run(self, parts: Sequence[Part]) -> Iterator[pa.Table]:
        """What the parts give, in their order, without those that give nothing. Waits for all, also where one fails.

        Raises:
            VelariaError: what the first part that failed raised.
        """
        self.parts += len(parts)
        futures = [self._pool.submit(self._one, part) for part in parts]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        return (made for future in futures if (made := future.result()) is not None and made.num_rows)

    def _one(self, part: Part) -> pa.Table | None:
        self._count(1)
        try:
            return part()
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            self._inflight += more
            self.inflight_max = max(self.inflight_max, self._inflight)
            self._held(self._inflight)

    def close(self) -> None:
        """Wait for what runs, and give the connections back."""
        self._pool.shutdown()
        for store in self.stores:
            store.close()
