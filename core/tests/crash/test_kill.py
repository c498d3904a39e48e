"""A process killed with SIGKILL at any step of any epoch, started again: the output is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from crash import victim
from velaria_core.errors import StateError
from velaria_core.execution.checkpoint import Protocol
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.sinks.file_set import MANIFEST, parts

VICTIM = Path(victim.__file__)
# PULL and WATERMARK come right before CHAIN, and nothing is written between.
STEPS = [step for step in Protocol if step not in (Protocol.PULL, Protocol.WATERMARK)]


# Kills at random times for each sink; the soak asks for more.
KILLS = int(os.environ.get("VELARIA_KILLS", "1"))


Run = Callable[..., int]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Lives a query in a process of its own, killed at a step of an epoch or after a time; the exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    nursery = subprocess.Popen(
        [sys.executable, str(VICTIM)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    requests, answers = nursery.stdin, nursery.stdout
    assert requests is not None
    assert answers is not None

    def lived(folder: Path, sink: str = "folder", step: int = 0, epoch: int = 0, after_us: int = 0) -> int:
        print(folder, sink, int(step), epoch, after_us, file=requests, flush=True)
        return int(answers.readline())

    yield lived
    nursery.communicate()


Output = Mapping[str, object]


def output(folder: Path, sink: str) -> Output:
    """What the sink made, row for row: an epoch's rows have no order. Whatever a crash left over is in it."""
    found: dict[str, object] = {}
    for path in sorted((folder / "out").iterdir()):
        if path.suffix == ".duckdb":
            with Engine(Settings(path=str(path))).cursor() as cursor:
                found[path.name] = cursor.rows("SELECT * FROM totals ORDER BY ALL")
        elif path.suffix not in (".wal", ".json"):  # the note beside a CSV file names what it staged last
            found[path.name] = sorted(path.read_bytes().splitlines())
    return _by_content(folder / "out", found) if sink == "parts" else found


def _by_content(folder: Path, found: Output) -> Output:
    """Parts have random names: their contents in the order of the manifest instead. No other file is there."""
    names = [path.name for path in parts(folder)]
    assert {*names, MANIFEST} == set(found)
    return {str(at): found[name] for at, name in enumerate(names)}


@pytest.fixture(scope="module")
def undisturbed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Output]:
    """By sink, the output of a run that nobody killed."""
    made = {}
    for sink in (*victim.SINKS, *victim.GROUPS):
        folder = tmp_path_factory.mktemp("undisturbed")
        assert run(folder, sink) == 0
        made[sink] = output(folder, sink)
    assert len(made["folder"]) == 12
    return made


@pytest.mark.parametrize("sink", victim.SINKS)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_killed_at(step: Protocol, sink: str, run: Run, tmp_path: Path, undisturbed: Mapping[str, Output]) -> None:
    assert run(tmp_path, sink, step, 1 + step % 3) == -signal.SIGKILL
    assert run(tmp_path, sink) == 0
    assert output(tmp_path, sink) == undisturbed[sink]


@pytest.mark.parametrize("sink", victim.SINKS)
def test_killed_at_random_times(sink: str, run: Run, tmp_path: Path, undisturbed: Mapping[str, Output]) -> None:
    """Each query is killed again and again, and given longer each time, until it ends by itself."""
    random = Random(sink)
    kills = lives = 0
    while kills < KILLS:
        folder = tmp_path / str(lives)
        folder.mkdir()
        longest_us = 50_000
        while run(folder, sink, after_us=random.randrange(1, longest_us)) == -signal.SIGKILL:
            kills += 1
            longest_us += longest_us // 4
        assert output(folder, sink) == undisturbed[sink]
        lives += 1


@pytest.mark.parametrize("sink", victim.SINKS)
def test_killed_again_and_again(sink: str, run: Run, tmp_path: Path, undisturbed: Mapping[str, Output]) -> None:
    for step in (Protocol.COMMIT, Protocol.PUBLISH, Protocol.CHAIN, Protocol.PUBLISH):
        assert run(tmp_path, sink, step, 2) == -signal.SIGKILL
    assert run(tmp_path, sink) == 0
    assert output(tmp_path, sink) == undisturbed[sink]


@pytest.mark.parametrize("group", victim.GROUPS)
def test_groups_killed_again_and_again(group: str, run: Run, tmp_path: Path, undisturbed: Mapping[str, Output]) -> None:
    """Also in the second epoch of a group, where one before it is staged and nothing is durable."""
    for step, epoch in (
        (Protocol.STAGE, 2),
        (Protocol.CHAIN, 5),
        (Protocol.COMMIT, 1),
        (Protocol.PUBLISH, 1),
        (Protocol.ACK, 1),
        (Protocol.RECORD, 1),
    ):
        assert run(tmp_path, group, step, epoch) == -signal.SIGKILL
    assert run(tmp_path, group) == 0
    assert output(tmp_path, group) == undisturbed[group]


def test_a_finished_query_adds_nothing(run: Run, tmp_path: Path, undisturbed: Mapping[str, Output]) -> None:
    assert run(tmp_path) == 0
    victim.query(tmp_path).stop()
    assert output(tmp_path, "folder") == undisturbed["folder"]


def test_a_checkpoint_of_another_query_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path) == 0
    monkeypatch.setattr(victim, "SQL", "SELECT k, max(v) AS top FROM events GROUP BY k")
    with pytest.raises(StateError) as caught:
        victim.query(tmp_path)
    assert caught.value.code == "checkpoint.other_query"


def test_two_processes_on_one_checkpoint(run: Run, tmp_path: Path) -> None:
    one = victim.query(tmp_path)
    try:
        assert run(tmp_path) == 1
    finally:
        one.stop()
