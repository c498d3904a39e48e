"""kill -9 of any worker or the scheduler at any time: the job ends with the right answer, or clearly fails in its time.

Nothing is left behind: no process, no segment, no file of a payload. `VELARIA_KILLS` asks for more rounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pyarrow as pa
import pytest
from clusters import Cluster, processes_of
from split_queries import bag

from velaria_core.errors import ExternalError, QueryCancelled
from velaria_core.session import DataflowSession
from velaria_experimental.client import Answer, Client
from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.payload.segments import sweep

ROUNDS = int(os.environ.get("VELARIA_KILLS", "4"))
TIMEOUT_MS = 60_000
ROWS = 200_000
SQL = "SELECT k, count(*) AS n, sum(v) AS s, median(v) AS m, max(t) AS high FROM events GROUP BY k"


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    random = np.random.default_rng(7)
    events = pa.table(
        {
            "k": random.integers(0, 5000, ROWS),
            "v": random.integers(-1000, 1000, ROWS),
            "t": np.array([f"text-{at}" for at in range(400)], dtype=object)[random.integers(0, 400, ROWS)],
        }
    )
    with DataflowSession(threads=1) as made:
        made.create_temp_view("events", made.create_dataframe(events))
        yield made


class Victims:
    """A scheduler without children, and two workers beside it, each of which may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        shm = folder / "shm"
        shm.mkdir()
        self.nodes = Cluster(folder, shm)
        self.nodes.start_scheduler("--local-workers", "0")
        for name in ("worker-1", "worker-2"):
            self.nodes.start_worker(name, "--shared-memory-min-bytes", "20000")
        self.nodes.ready(2)

    def kill(self, name: str) -> None:
        if name == "scheduler":
            assert self.nodes.scheduler is not None
            self.nodes.kill(self.nodes.scheduler)
            self.nodes.start_scheduler("--local-workers", "0")
        else:
            self.nodes.kill(self.nodes.workers[name])
            self.nodes.start_worker(name, "--shared-memory-min-bytes", "20000")


@pytest.fixture
def victims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Victims]:
    monkeypatch.setenv("VELARIA_EXPERIMENTAL_SHM", str(tmp_path / "shm"))
    made = Victims(tmp_path)
    yield made
    made.nodes.close()
    end = monotonic() + 30
    while (left := processes_of(tmp_path)) and monotonic() < end:
        sleep(0.02)
    assert not left
    sweep(tmp_path / "shm")
    assert list((tmp_path / "shm").iterdir()) == []


def test_any_kill_at_any_time(victims: Victims, session: DataflowSession) -> None:
    expected = bag(session.sql(SQL).to_arrow())
    right = 0
    for seed in range(ROUNDS):
        random = Random(seed)
        outcome: list[Answer | Exception] = []

        def ask(outcome: list[Answer | Exception] = outcome, random: Random = random) -> None:
            shared = random.choice([0, 20_000, 1 << 40])
            try:
                with Client(
                    victims.nodes.address,
                    token_file=victims.nodes.token_file,
                    tasks=random.choice([2, 5]),
                    shared_memory_min_bytes=shared,
                ) as client:
                    options = JobOptions(timeout_ms=TIMEOUT_MS, max_attempts=5, base_backoff_ms=20)
                    outcome.append(client.run(session.sql(SQL), options))
            except Exception as error:  # noqa: BLE001 -- the test says which may come
                outcome.append(error)

        asking = Thread(target=ask)
        began = monotonic()
        asking.start()
        for _ in range(random.choice([1, 1, 2])):
            sleep(random.uniform(0.0, 0.4))
            victims.kill(random.choice(["worker-1", "worker-2", "scheduler"]))
        asking.join(TIMEOUT_MS / 1000 + 30)
        assert not asking.is_alive(), f"round {seed}: the job did not end"
        assert monotonic() - began < TIMEOUT_MS / 1000 + 30
        (ended,) = outcome
        if isinstance(ended, Answer):
            assert bag(ended.table) == expected, f"round {seed}: another answer"
            right += 1
        else:
            assert isinstance(ended, (ExternalError, QueryCancelled)), f"round {seed}: {ended!r}"
            assert ended.code.startswith(("exchange.", "query.")), ended
        del ended, outcome
    assert right >= ROUNDS * 3 // 4, f"{right} of {ROUNDS} rounds had an answer"
    # What the jobs left: nothing but the folders of those that live.
    payloads = victims.nodes.folder / "journal" / "payloads"
    with Client(victims.nodes.address, token_file=victims.nodes.token_file, shared_memory=False) as client:
        end = monotonic() + 20
        while client.snapshot()["jobs"] and monotonic() < end:
            sleep(0.05)
        assert client.snapshot()["jobs"] == {}
    assert list(payloads.iterdir()) == []
