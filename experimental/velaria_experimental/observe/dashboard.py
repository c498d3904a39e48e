"""The dashboard: a scheduler's snapshot as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MARKS = {"succeeded": "#", "running": ">", "scheduled": ">", "failed": "x", "cancelled": "x", "retrying": "r"}


def dashboard(snapshot: Mapping[str, Any]) -> str:
    """Workers with what they run, jobs with their chains; a mark for each task:
    `#` done, `>` at work, `r` again, `x` not any more, `.` waits."""
    workers, jobs = snapshot.get("workers", {}), snapshot.get("jobs", {})
    lines = [f"workers {len(workers)}   jobs {len(jobs)}"]
    lines += _columns(
        [
            (f"  {name}", "silent" if one["missing"] else f"heartbeat {one['heartbeat_seq']}", " ".join(one["running"]))
            for name, one in workers.items()
        ]
    )
    for job_id, job in jobs.items():
        lines.append(f"{job_id}  {job['state']}  {job['summary']}".rstrip())
        lines += _columns(
            [
                (f"  {name}", str(chain["state"]), "".join(_MARKS.get(task["state"], ".") for task in chain["tasks"]))
                for name, chain in job["chains"].items()
            ]
        )
        if job["error"] is not None:
            lines.append(f"  {job['error']['code']}: {job['error']['error']}")
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
