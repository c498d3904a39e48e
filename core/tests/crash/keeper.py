"""A process that keeps a materialized view while it writes to its table, and kills itself at a given point."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from velaria_core.execution import epoch, feeds, materialized
from velaria_core.execution.sinks import table
from velaria_core.session import DataflowSession

VIEW = "SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k"
INSERTS = 4

# Where a process may die: the name in `point`, what is called there, and whether it dies before or after the call.
POINTS: dict[str, tuple[Any, str, bool]] = {
    "before the insert": (feeds.Feeds, "append", True),
    "after the insert, before its epoch": (feeds.Feeds, "append", False),
    "in the epoch": (table.TableSink, "stage", True),
    "staged": (table.TableSink, "stage", False),
    "before the state is durable": (epoch.Epochs, "commit", True),
    "before the view has it": (materialized.FollowedTableSink, "commit", True),
    "when the view has it": (materialized.FollowedTableSink, "commit", False),
    "before the feed forgets": (feeds.Feeds, "forget", True),
    "when the feed has forgotten": (feeds.Feeds, "forget", False),
}


def killed_at(point: str, times: int) -> None:
    """Die when the point is reached for the `times`-th time."""
    owner, name, before = POINTS[point]
    real: Callable[..., Any] = getattr(owner, name)
    seen = 0

    def reached(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        fatal = seen == times
        if fatal and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, reached)


def live(folder: Path, point: str, times: int) -> None:
    """Insert what is not there yet; each row says which insert it is of."""
    session = DataflowSession(folder / "s.duckdb", threads=1)
    if "m" not in session.tables():
        session.sql("CREATE TABLE IF NOT EXISTS t (k INTEGER, v INTEGER)")
        session.sql(f"CREATE MATERIALIZED VIEW m AS {VIEW}; CREATE MATERIALIZED VIEW mm AS SELECT sum(n) AS n FROM m")
    if point:
        killed_at(point, times)
    for at in range(session.sql("SELECT count(*) // 3 AS done FROM t").to_rows()[0]["done"], INSERTS):
        session.sql(f"INSERT INTO t VALUES ({at % 2}, {at}), ({at % 3}, {at}), (NULL, {at})")
    session.close()


def nursery() -> None:
    """For each line "FOLDER|POINT|TIMES" a child that lives it, and a line with how it ended."""
    for line in sys.stdin:
        folder, point, times = line.rstrip("\n").split("|")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                live(Path(folder), point, int(times))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    nursery()
