"""A process that keeps materialized views, killed with SIGKILL at any point: no row is lost and none counts twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crash import keeper
from velaria_core import DataflowSession

Run = Callable[..., int]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Lives in a process of its own, killed at a point where one is given; the exit code."""
    nursery = subprocess.Popen(
        [sys.executable, str(Path(keeper.__file__))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    requests, answers = nursery.stdin, nursery.stdout
    assert requests is not None
    assert answers is not None

    def lived(folder: Path, point: str = "", times: int = 1) -> int:
        print(folder, point, times, sep="|", file=requests, flush=True)
        return int(answers.readline())

    yield lived
    nursery.communicate()


def check(folder: Path) -> int:
    """The views agree with their table; how many rows that has."""
    with DataflowSession(folder / "s.duckdb") as session:
        ((rows,),) = (row.values() for row in session.sql("SELECT count(*) FROM t").to_rows())
        for one, other in ((keeper.VIEW, "SELECT * FROM m"), ("SELECT * FROM m", keeper.VIEW)):
            assert session.sql(f"({one}) EXCEPT ALL ({other})").to_rows() == []
        assert [row["n"] for row in session.sql("SELECT * FROM mm").to_rows()] == [rows or None]
    return int(rows)


@pytest.mark.parametrize("point", keeper.POINTS)
def test_killed_at(point: str, run: Run, tmp_path: Path) -> None:
    assert run(tmp_path, point, 2) == -signal.SIGKILL
    assert check(tmp_path) % 3 == 0
    assert run(tmp_path) == 0
    assert check(tmp_path) == 3 * keeper.INSERTS


def test_killed_again_and_again(run: Run, tmp_path: Path) -> None:
    for point in reversed(keeper.POINTS):
        run(tmp_path, point, 1)
    assert run(tmp_path) == 0
    assert check(tmp_path) == 3 * keeper.INSERTS
