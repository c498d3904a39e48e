"""A process killed with SIGKILL at any step of any epoch, started again: the output is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crash import victim
from velaria_core.errors import StateError
from velaria_core.execution.checkpoint import Protocol

VICTIM = Path(victim.__file__)
# PULL and WATERMARK come before the transaction and touch nothing durable.
STEPS = [step for step in Protocol if step not in (Protocol.PULL, Protocol.WATERMARK)]


Run = Callable[..., int]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Lives a query in a process of its own, killed at a step of an epoch where one is given; the exit code."""
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

    def lived(folder: Path, step: int = 0, epoch: int = 0) -> int:
        print(folder, int(step), epoch, file=requests, flush=True)
        return int(answers.readline())

    yield lived
    nursery.communicate()


def output(folder: Path) -> dict[str, str]:
    """Every file of the sink, staged ones too: nothing may be left over."""
    return {path.name: path.read_text() for path in sorted((folder / "out").iterdir())}


@pytest.fixture(scope="module")
def undisturbed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(folder) == 0
    made = output(folder)
    assert len(made) == 12
    return made


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_killed_at(step: Protocol, run: Run, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    assert run(tmp_path, step, 1 + step % 3) == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert output(tmp_path) == undisturbed


def test_killed_again_and_again(run: Run, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    for step in (Protocol.COMMIT, Protocol.PUBLISH, Protocol.CHAIN, Protocol.PUBLISH):
        assert run(tmp_path, step, 2) == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert output(tmp_path) == undisturbed


def test_a_finished_query_adds_nothing(run: Run, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    assert run(tmp_path) == 0
    victim.query(tmp_path).stop()
    assert output(tmp_path) == undisturbed


def test_a_checkpoint_of_another_query_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim.query(tmp_path).stop()
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
