"""The command line: `velaria-experimental scheduler | worker | client | smoke | status`.

Events go to stdout, one JSON object a line; errors to stderr. Exit codes are those of the kernel's errors: 0 done,
1 failed, 2 called wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from velaria_core.errors import ExternalError, InternalError, VelariaError, exit_code
from velaria_experimental.observe.events import Events
from velaria_experimental.security import DEFAULT_ADDRESS, token_path
from velaria_experimental.wire.status import status_of

_PAYLOAD = "one\ntwo\ntwo\nthree\nthree\nthree"
_SQL = "SELECT line, count(*) AS n FROM payload GROUP BY line ORDER BY line"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = given.run
    try:
        return command(given)
    except KeyboardInterrupt:
        return 130
    except VelariaError as error:
        return _failed(error)
    except OSError as error:
        return _failed(ExternalError("file.io", f"{error.filename or given.command}: {error.strerror}", cause=error))


def _failed(error: VelariaError) -> int:
    print(json.dumps({"ok": False, "status": status_of(error), **error.to_dict()}), file=sys.stderr)
    return exit_code(error)


# --- commands -----------------------------------------------------------------------------------------------


def _scheduler(given: argparse.Namespace) -> int:
    from velaria_experimental.actors.supervisor import until_orphaned
    from velaria_experimental.scheduler import Scheduler, SchedulerOptions

    workers = 1 if given.single_node else given.local_workers
    journal = given.journal or token_path(given.listen).with_suffix(".journal")
    forwarded = ["--shared-memory-min-bytes", str(given.shared_memory_min_bytes)]
    if not given.shared_memory:
        forwarded.append("--no-shared-memory")
    options = SchedulerOptions(
        listen=given.listen,
        journal=journal,
        node_id=given.node_id,
        local_workers=workers if given.auto_worker else 0,
        waits=given.auto_worker,
        token_file=given.token_file,
        worker_arguments=tuple(forwarded),
    )
    asyncio.run(Scheduler(options, Events(given.node_id)).serve(until_orphaned if given.child else None))
    return 0


def _worker(given: argparse.Namespace) -> int:
    from velaria_experimental.actors.supervisor import until_orphaned
    from velaria_experimental.worker import Worker, WorkerOptions

    options = WorkerOptions(
        given.connect,
        given.node_id,
        token_file=given.token_file,
        threads=given.threads,
        shared_memory=given.shared_memory,
        shared_memory_min_bytes=given.shared_memory_min_bytes,
        reconnect_seconds=0.0 if given.single_node else 30.0,
    )
    worker = Worker(options, Events(given.node_id))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: worker.stop())
    if given.child:
        until_orphaned(worker.stop)
    error = worker.serve()
    if error is not None:
        raise error
    return 0


def _keeper(given: argparse.Namespace) -> int:
    from velaria_experimental.actors.supervisor import until_orphaned
    from velaria_experimental.streaming.keeper import Keeper

    keeper = Keeper(
        given.connect,
        given.node_id,
        given.token_file or token_path(given.connect),
        shared_memory=given.shared_memory,
        min_bytes=given.shared_memory_min_bytes,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: keeper.stop())
    if given.child:
        until_orphaned(keeper.stop)
    keeper.serve()
    # All is closed. What steps hold of the engine goes with the process; its binding would tell of it as leaks.
    os._exit(0)


def _client(given: argparse.Namespace) -> int:
    import pyarrow as pa

    from velaria_core.session import DataflowSession
    from velaria_experimental.client import Client, Mode
    from velaria_experimental.jobmaster.options import JobOptions
    from velaria_experimental.observe.spans import totals_us
    from velaria_experimental.observe.trace import export_opentelemetry, write_chrome_trace
    from velaria_experimental.plans.choice import estimated

    events = Events(given.node_id)
    with DataflowSession() as session:
        lines = pa.table({"line": pa.array(given.payload.splitlines(), pa.string())})
        session.create_temp_view("payload", session.create_dataframe(lines))
        frame = session.sql(given.sql)
        if given.single_node:
            table = frame.to_arrow()
            events("result", ok=True, mode=Mode.SINGLE_PROCESS, reason="--single-node", payload=_rows(table))
            return 0
        options = JobOptions(
            timeout_ms=given.timeout_ms, max_attempts=given.max_attempts, chain_parallelism=given.chain_parallelism
        )
        with Client(
            given.connect,
            node_id=given.node_id,
            token_file=given.token_file,
            tasks=given.tasks,
            estimator=estimated if given.measure else None,
            shared_memory=given.shared_memory,
            shared_memory_min_bytes=given.shared_memory_min_bytes,
            told=events,
        ) as client:
            answer = client.run(frame, options)
            if given.trace is not None:
                write_chrome_trace(answer.spans, given.trace)
            export_opentelemetry(answer.spans, answer.job_id)
            events(
                "result",
                ok=True,
                job_id=answer.job_id,
                mode=answer.mode,
                reason=answer.reason,
                output_rows=answer.table.num_rows,
                stages_us=dict(totals_us(answer.spans)),
                payload=_rows(answer.table),
            )
    return 0


def _rows(table: object) -> list[dict[str, object]]:
    """The first rows, for people."""
    import pyarrow as pa

    assert isinstance(table, pa.Table)
    found: list[dict[str, object]] = table.slice(0, 100).to_pylist()
    return found


def _smoke(given: argparse.Namespace) -> int:
    from velaria_experimental.smoke import smoke

    if not smoke(Events(given.node_id)):
        raise InternalError("exchange.smoke", "a check does not hold: see the events")
    return 0


def _status(given: argparse.Namespace) -> int:
    from velaria_experimental.client import Client
    from velaria_experimental.observe.dashboard import dashboard

    with Client(given.connect, node_id=given.node_id, token_file=given.token_file, shared_memory=False) as client:
        found = client.snapshot()
    print(json.dumps(found) if given.json else dashboard(found))
    return 0


# --- arguments ----------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("velaria-experimental", description="Plans on workers of this host.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, about, node_id in (
        ("scheduler", _scheduler, "Hold jobs, and give their tasks to workers.", "scheduler"),
        ("worker", _worker, "Run tasks.", "worker-1"),
        ("keeper", _keeper, "Keep state of a stream query, which starts it.", "keeper-1"),
        ("client", _client, "Run SQL on workers.", "client-1"),
        ("smoke", _smoke, "Prove that this build works, with processes of its own.", "smoke"),
        ("status", _status, "Show workers and jobs.", "status-1"),
    ):
        made = commands.add_parser(name, help=about, description=about)
        made.set_defaults(run=run)
        made.add_argument("--node-id", default=node_id, help="its name [default: %(default)s]")
        if name in ("worker", "keeper", "client", "status"):
            made.add_argument("--connect", default=DEFAULT_ADDRESS, help="the scheduler [default: %(default)s]")
        if name != "smoke":
            made.add_argument("--token-file", type=Path, help="[default: by the address]")
        if name in ("scheduler", "worker", "keeper", "client"):
            _transport(made)
        if name in _SINGLE_NODE:
            made.add_argument("--single-node", action="store_true", help=_SINGLE_NODE[name])
        _MORE.get(name, lambda _: None)(made)
    return parser


_SINGLE_NODE = {
    "scheduler": "one local worker",
    "worker": "end with the scheduler instead of waiting for another one",
    "client": "run in this process, without a scheduler",
}


def _transport(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--shared-memory", action=argparse.BooleanOptionalAction, default=True, help="rows go through shared memory"
    )
    made.add_argument(
        "--shared-memory-min-bytes", type=_size, default=65_536, metavar="N", help="from so many bytes on [%(default)s]"
    )


def _scheduler_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--listen", default=DEFAULT_ADDRESS, help="HOST:PORT or unix:/PATH [default: %(default)s]")
    made.add_argument(
        "--auto-worker", action=argparse.BooleanOptionalAction, default=True, help="start workers, and wait for them"
    )
    made.add_argument("--local-workers", type=_size, default=min(2, os.cpu_count() or 1), metavar="N")
    made.add_argument("--journal", type=Path, help="its folder [default: beside the token]")
    _child_arguments(made)


def _worker_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--threads", type=_size, default=1, metavar="N", help="of its engine [default: %(default)s]")
    _child_arguments(made)


def _child_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--child", action="store_true", help="end when whoever holds the other end of stdin does")


def _client_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--payload", default=_PAYLOAD, help="text; its lines are the table payload(line)")
    made.add_argument("--sql", default=_SQL, help="a SELECT; files by their names, and payload")
    made.add_argument("--tasks", type=_size, metavar="N", help="parts of the rows [default: one for each worker]")
    made.add_argument("--timeout-ms", type=_size, default=10_000, metavar="N")
    made.add_argument("--max-attempts", type=_size, default=3, metavar="N")
    made.add_argument(
        "--chain-parallelism", type=_size, default=0, metavar="N", help="tasks of a chain at once; 0: all"
    )
    made.add_argument("--measure", action="store_true", help="run in this process what gains nothing by others")
    made.add_argument("--trace", metavar="FILE", help="write a Chrome trace")


def _status_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--json", action="store_true")


_MORE = {
    "scheduler": _scheduler_arguments,
    "worker": _worker_arguments,
    "keeper": _child_arguments,
    "client": _client_arguments,
    "status": _status_arguments,
}


def _size(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)
