"""local-workers: who runs a part of an epoch makes no difference to the result."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from properties.plans import plans
from properties.profile import examples
from properties.runs import Past, Run, batch_rows
from properties.tables import COLUMNS, Epoch, histories

from velaria_core.contract.modes import ExecutionMode, TransportMode
from velaria_core.errors import DataError, InputError
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.state import Store
from velaria_core.execution.steps import Dataflow, compile_steps
from velaria_core.execution.steps.partitioned import PartitionedGrouper
from velaria_core.execution.workers import Workers
from velaria_core.logical import operators as op
from velaria_core.logical.explain import tree
from velaria_core.session import DataflowSession

ROWS = 20_000
KEYED = (
    "SELECT k, count(*) AS n, sum(v)::BIGINT AS s, min(v) AS low, max(v) AS high, avg(v) AS mean FROM events GROUP BY k"
)
FILTERED = "SELECT k, v * 2 AS w FROM events WHERE v % 3 = 0"


def batches(number: int = 3) -> list[pa.Table]:
    random = np.random.default_rng(7)
    keys = np.array([f"key-{at}" for at in range(500)], dtype=object)
    return [
        pa.table({"k": pa.array(keys[random.integers(0, 500, ROWS)]), "v": random.integers(-1_000, 1_000, ROWS)})
        for _ in range(number)
    ]


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        made.create_temp_view("events", made.read_stream(MemorySource(batches()), "events"))
        yield made


def result(session: DataflowSession, sql: str, **options: Any) -> tuple[Counter[str], dict[str, Any]]:
    sink = MemorySink()
    query = session.stream_sql(sql).write_stream(sink, epoch_rows_max=ROWS, **options)
    query.process_available()
    told = query.progress()
    query.stop()
    return Counter(map(str, sink.result().to_pylist())), told


WORKERS = {"execution_mode": "local-workers", "local_workers": 3}


@pytest.mark.parametrize("sql", [KEYED, FILTERED, "SELECT DISTINCT k FROM events", "SELECT count(*) AS n FROM events"])
def test_the_answer_is_that_of_one_thread(session: DataflowSession, sql: str) -> None:
    """T-14, T-15."""
    assert result(session, sql, **WORKERS)[0] == result(session, sql)[0]


def test_an_aggregate_is_split_by_key(session: DataflowSession) -> None:
    """T-14, E-05: the hot path."""
    _, told = result(session, KEYED, **WORKERS)
    assert told["execution_mode"] == ExecutionMode.LOCAL_WORKERS
    assert told["used_actor_runtime"] is True
    assert told["transport_mode"] == TransportMode.INPROC
    assert "credit scheduling: 3 workers" in told["execution_reason"]
    assert told["estimated_partitions"] > 1
    assert told["inflight_partitions"] == 0


def test_what_has_no_key_is_split_by_its_order(session: DataflowSession) -> None:
    """T-14, E-04, E-09: the rows come out in the order in which one thread gives them."""
    many, one = MemorySink(), MemorySink()
    for sink, options in ((many, WORKERS), (one, {})):
        session.stream_sql(FILTERED).write_stream(sink, epoch_rows_max=ROWS, **options).process_available()
    assert many.result().equals(one.result())
    _, told = result(session, FILTERED, **WORKERS)
    assert told["execution_mode"] == ExecutionMode.LOCAL_WORKERS
    assert told["used_actor_runtime"] is False
    assert "generic partition workers" in told["execution_reason"]
    assert "no node keeps state by key" in told["execution_reason"]


@pytest.mark.parametrize("name", ["auto", "actor-credit", "rpc-copy"])
def test_there_are_three_modes_and_none_that_guesses(session: DataflowSession, name: str) -> None:
    """E-01, E-10: the modes that were are refused with those that are; nothing is measured to choose between them."""
    with pytest.raises(InputError) as caught:
        result(session, KEYED, execution_mode=name)
    assert caught.value.code == "stream.mode"
    assert "modes: single-process, local-workers" in str(caught.value)
    assert [str(mode) for mode in ExecutionMode] == ["single-process", "local-workers", "worker-processes"]


def test_what_cannot_be_split_says_so(session: DataflowSession) -> None:
    _, told = result(session, "SELECT k FROM events", **WORKERS)
    assert told["execution_mode"] == ExecutionMode.SINGLE_PROCESS
    assert "one thread runs the steps" in told["execution_reason"]
    _, told = result(session, KEYED, execution_mode="local-workers", local_workers=1)
    assert told["execution_mode"] == ExecutionMode.SINGLE_PROCESS
    assert "local_workers > 1" in told["execution_reason"]


def test_a_query_goes_on_with_other_workers(session: DataflowSession, tmp_path: Path) -> None:
    given = batches()
    source = MemorySource(schema=given[0].schema, bounded=False)
    session.create_temp_view("fed", session.read_stream(source, "fed"))
    sink = MemorySink()
    modes: list[dict[str, Any]] = [WORKERS, {}, {**WORKERS, "local_workers": 2}]
    for table, options in zip(given, modes, strict=True):
        source.add(table)
        query = session.stream_sql(KEYED.replace("events", "fed")).write_stream(
            sink, checkpoint_path=str(tmp_path), **options
        )
        query.process_available()
        query.stop()
    assert Counter(map(str, sink.result().to_pylist())) == result(session, KEYED)[0]


class Counted:
    """The steps of KEYED under so many workers, and how many parts they had."""

    def __init__(self, session: DataflowSession, count: int, credit: int = 0) -> None:
        node = session.stream_sql(KEYED).node
        (scan,) = (one for one in node.walk() if isinstance(one, op.Scan))
        engine = session._engine
        self.workers = Workers(engine, count, credit, rows_min=1)
        self.store = Store(engine)
        self.flow = compile_steps(node, self.store, engine, {id(scan.relation): True}, workers=self.workers)
        self.key = id(scan.relation)

    def close(self) -> None:
        self.workers.close()
        self.store.close()


@pytest.mark.parametrize(("count", "credit", "most"), [(4, 2, 2), (3, 0, 3), (2, 9, 2)])
def test_parts_and_credit(session: DataflowSession, count: int, credit: int, most: int) -> None:
    """T-15: partitions <= batches * workers, in flight <= credit, and a part waits where there is none."""
    from velaria_core.execution.steps.base import Moment

    counted = Counted(session, count, credit)
    assert any(isinstance(getattr(step, "grouper", None), PartitionedGrouper) for step in counted.flow.steps)
    for at, table in enumerate(batches()):
        counted.flow.epoch({counted.key: table}, Moment(at == 0))
        counted.flow.committed()
    assert counted.workers.parts == 3 * count
    assert 1 <= counted.workers.inflight_max <= most
    counted.close()


def test_a_part_waits_for_credit(session: DataflowSession) -> None:
    workers = Workers(session._engine, 3, 2)
    together = threading.Barrier(2)  # two parts meet in it: were they run one by one, it would break
    done: list[int] = []

    def part(number: int) -> None:
        if number < 2:
            together.wait(timeout=10)
        done.append(number)

    list(workers.run([lambda number=number: part(number) for number in range(3)]))  # type: ignore[misc]
    assert sorted(done) == [0, 1, 2]
    assert workers.inflight_max == 2
    workers.close()


def test_an_error_in_a_part_is_the_querys(session: DataflowSession) -> None:
    with pytest.raises(DataError, match="INT8"):
        result(session, "SELECT CAST(v * 1000 AS TINYINT) AS t FROM events", **WORKERS)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


class Split(Run):
    """A plan at work as a stream, its epochs split among workers however small they are."""

    def _compiled(self) -> Dataflow:
        self._workers = Workers(self._state, 3, rows_min=1)
        return compile_steps(self._node, self._store, self._engine, self._streams, workers=self._workers)

    def close(self) -> None:
        self._workers.close()
        super().close()


@pytest.mark.parametrize("operator", [op.Aggregate, op.Distinct, op.Filter, op.Explode, op.WithColumn, op.Join])
def test_any_plan_gives_what_batch_gives(engine: Engine, operator: type[op.Scan]) -> None:
    @examples(6)
    @given(st.data(), histories(COLUMNS), histories(COLUMNS, max_changes=4))
    def holds(data: st.DataObject, one: list[Epoch], two: list[Epoch]) -> None:
        past = Past([one, two])
        made = data.draw(plans(past.leaves, operator, depth=3))
        note(tree(made.node, shapes=True))
        run = Split(engine, made.node, past.relations, past.append_only)
        try:
            for epoch in range(len(past.epochs)):
                run.epoch(past.changes(epoch))
            past.at(len(past.epochs))
            assert run.output == batch_rows(engine, made.node)
        finally:
            run.close()

    holds()


def test_workers_are_threads_and_nothing_forks(session: DataflowSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """B-29: a process with threads is never forked, which would copy their locks; the workers are seen at work.

    E-06 to E-08: so nothing is encoded or copied to them, and no memory is shared with another process, whatever the
    options say that asked for it.
    """
    for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp"):
        monkeypatch.setattr(os, name, lambda *_given, name=name, **_named: pytest.fail(f"os.{name} was called"))
    seen: list[set[str]] = []
    original = Workers._one

    def noted(self: Workers, part: Any) -> Any:
        seen.append({threading.current_thread().name.rpartition("_")[0]})
        assert _children() == before
        return original(self, part)

    before = _children()
    monkeypatch.setattr(Workers, "_one", noted)
    many, told = result(session, KEYED, **WORKERS, shared_memory_transport=True, shared_memory_min_payload_bytes=0)
    assert told["used_actor_runtime"] is True
    assert told["used_shared_memory"] is False
    assert told["transport_mode"] == TransportMode.INPROC
    assert seen
    assert set.union(*seen) == {"velaria-worker"}
    assert _children() == before
    assert many == result(session, KEYED)[0]


def _children() -> set[str]:
    """The processes that this one has started and that are still there; none where the system does not tell."""
    return {child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()}
