"""Bytewax, with Arrow tables as its items: the hand-written loop as one of its operators, in its runtime.

Its own windows and counts take one Python call a row, about a hundredth of this.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import bytewax.operators as op
import pyarrow as pa
from _stream import Answer, Workload, contestant, epochs
from _stream_loop import LOOPS
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main


class _Partition(StatefulSourcePartition[tuple[str, Any], None]):
    def __init__(self, workload: Workload, folder: Path) -> None:
        self._epochs = epochs(folder, workload)

    def next_batch(self) -> list[tuple[str, Any]]:
        return [("all", next(self._epochs))]

    def snapshot(self) -> None:
        return None


class _Source(FixedPartitionedSource[tuple[str, Any], None]):
    def __init__(self, workload: Workload, folder: Path) -> None:
        self._workload, self._folder = workload, folder

    def list_parts(self) -> list[str]:
        return ["all"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Partition:
        del step_id, for_part, resume_state
        return _Partition(self._workload, self._folder)


class _Logic(StatefulBatchLogic[Any, pa.Table, None]):
    def __init__(self, query: str, latencies_ms: list[float]) -> None:
        self._loop, self._latencies_ms = LOOPS[query](), latencies_ms

    def on_batch(self, values: list[Any]) -> tuple[list[pa.Table], bool]:
        made = []
        for tables in values:
            began = perf_counter()
            made += self._loop.step(tables)
            self._latencies_ms.append(1000 * (perf_counter() - began))
        return made, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[list[pa.Table], bool]:
        return self._loop.end(), StatefulBatchLogic.DISCARD

    def snapshot(self) -> None:
        return None


class _Collected(StatelessSinkPartition[tuple[str, pa.Table]]):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def write_batch(self, items: list[tuple[str, pa.Table]]) -> None:
        for _, table in items:
            self._answer.add(table)


class _Sink(DynamicSink[tuple[str, pa.Table]]):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Collected:
        del step_id, worker_index, worker_count
        return _Collected(self._answer)


def run(workload: Workload, folder: Path, _scratch: Path, answer: Answer) -> None:
    flow = Dataflow("benchmark")
    events = op.input("events", flow, _Source(workload, folder))
    made = op.stateful_batch("query", events, lambda _state: _Logic(workload.name, answer.latencies_ms))
    op.output("answer", made, _Sink(answer))
    run_main(flow)


if __name__ == "__main__":
    contestant(run)
