"""The command line: three processes, flags of X-02 to X-04, JSON lines, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, cluster, processes_of


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cli"), workers=1) as made:
        yield made


def ran(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "velaria_experimental", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def client(nodes: Cluster, *arguments: str) -> dict[str, Any]:
    done = ran(
        "client",
        "--connect",
        nodes.address,
        "--token-file",
        str(nodes.token_file),
        "--timeout-ms",
        "300000",
        *arguments,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_client_runs_its_payload(nodes: Cluster, tmp_path: Path) -> None:
    """X-04, X-11, X-14."""
    trace = tmp_path / "trace.json"
    told = client(nodes, "--payload", "a\nb\na", "--node-id", "me", "--trace", str(trace))
    assert (told["event"], told["node_id"], told["ok"], told["mode"]) == ("result", "me", True, "workers")
    assert told["payload"] == [{"line": "a", "n": 2}, {"line": "b", "n": 1}]
    assert set(told["stages_us"]) == {"split", "serialise", "transfer", "wait", "compute", "merge"}
    assert json.loads(trace.read_text())["traceEvents"]
    nodes.until(lambda event: event["event"] == "job-ended" and event["job_id"] == told["job_id"])


def test_a_client_runs_sql_over_files(nodes: Cluster, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("k,v\na,1\nb,2\na,3\n")
    told = client(nodes, "--sql", f"SELECT k, sum(v) AS s FROM '{tmp_path}/t.csv' GROUP BY k ORDER BY k")
    assert told["payload"] == [{"k": "a", "s": 4}, {"k": "b", "s": 2}]
    assert told["mode"] == "workers"


def test_single_node_needs_no_scheduler() -> None:
    done = ran("client", "--single-node", "--sql", "SELECT count(*) AS n FROM payload", "--payload", "x\ny")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["payload"], told["mode"]) == ([{"n": 2}], "single-process")


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELECT FROM WHERE", "sql-syntax", 2),
        ("SELECT nothing FROM payload", "sql-semantic", 2),
        ("SELECT * FROM nowhere", "catalog-not-found", 2),
    ],
)
def test_wrong_sql_has_its_status(nodes: Cluster, sql: str, status: str, code: int) -> None:
    """X-10."""
    done = ran("client", "--connect", nodes.address, "--token-file", str(nodes.token_file), "--sql", sql)
    told = json.loads(done.stderr)
    assert (done.returncode, told["ok"], told["status"]) == (code, False, status)


def test_status_shows_workers(nodes: Cluster) -> None:
    """X-17."""
    arguments = ("status", "--connect", nodes.address, "--token-file", str(nodes.token_file))
    shown = ran(*arguments).stdout
    assert shown.startswith("workers 1   jobs 0\n  scheduler-worker-1  heartbeat ")
    assert set(json.loads(ran(*arguments, "--json").stdout)) == {"workers", "jobs"}


def test_a_job_without_workers_is_refused_where_none_will_come(tmp_path: Path) -> None:
    """X-12."""
    nodes = Cluster(tmp_path, tmp_path)
    nodes.start_scheduler("--no-auto-worker")
    try:
        done = ran("client", "--connect", nodes.address, "--token-file", str(nodes.token_file))
        assert (done.returncode, json.loads(done.stderr)["status"]) == (1, "no-worker-available")
    finally:
        nodes.close()


def test_without_a_scheduler_there_is_a_hint() -> None:
    for command in ("client", "status"):
        done = ran(command, "--connect", "unix:/nowhere/velaria")
        told = json.loads(done.stderr.splitlines()[-1])
        assert (done.returncode, told["code"]) == (1, "exchange.token")
        assert "start a scheduler" in told["hint"]


def test_only_this_host_is_listened_to(tmp_path: Path) -> None:
    for address in ("0.0.0.0:61000", "example.org:1", "127.0.0.1:99999", "unix:/" + "long/" * 30):
        done = ran("scheduler", "--listen", address, "--journal", str(tmp_path / "j"))
        told = json.loads(done.stderr)
        assert (done.returncode, told["code"]) == (2, "exchange.address"), address


def test_help_and_smoke(tmp_path: Path) -> None:
    assert "scheduler" in ran("--help").stdout
    assert "--local-workers" in ran("scheduler", "-h").stdout
    done = ran("smoke", VELARIA_EXPERIMENTAL_SHM=str(tmp_path))
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["check"], one["ok"]) for one in told] == [
        ("frame", True),
        ("arrow-ipc", True),
        ("shared-memory", True),
        ("job", True),
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_ends_with_who_started_it(tmp_path: Path) -> None:
    nodes = Cluster(tmp_path, tmp_path)
    nodes.start_scheduler("--local-workers", "1")
    nodes.ready(1)
    assert nodes.scheduler is not None
    assert nodes.scheduler.stdin is not None
    nodes.scheduler.stdin.close()
    assert nodes.scheduler.wait(30) == 0
    assert processes_of(tmp_path) == []
