"""JobMaster: takes what happens, one thing at a time, and answers with what is to be done (`effects`).

It does no I/O and reads no clock: whoever calls it passes the time. A job is chains of tasks; a chain is ready when
the chains that it reads have succeeded; a ready task goes to an idle worker, oldest job first.

What goes wrong, and what follows:

| what | follows |
|---|---|
| a worker dies, or is silent for `timeout_ms` | its tasks run elsewhere, also those done whose rows it held |
| a worker is silent for `miss_ms` | its tasks are `heartbeat-miss`, and `running` again when it speaks |
| a task fails and may be tried again | it is, after its backoff, up to `max_attempts`; then the job fails with it |
| a task fails otherwise | the job fails at once, with the worker's error |
| a task finds rows gone | whoever made them makes them again, then the task runs again |
| a result comes twice, or from an attempt that is over | it is ignored |
| the job's time is over, or its client cancels | its tasks are stopped; a late result changes nothing |

Invariant: a job that was submitted ends: each turn of the wheel takes one of its attempts or its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from velaria_core.errors import ExternalError, QueryCancelled, VelariaError
from velaria_core.execution.jobs import JobState
from velaria_experimental.jobmaster.effects import Assign, Effect, Ended, Moved, Release, TaskKey
from velaria_experimental.jobmaster.graph import Chain, ChainInput, Job, Payload, checked
from velaria_experimental.jobmaster.options import Liveness
from velaria_experimental.jobmaster.states import (
    CHAIN_STEPS,
    JOB_STEPS,
    TASK_STEPS,
    ChainState,
    TaskState,
    stepped,
)
from velaria_experimental.wire.status import Status, refused, status_of

_AT_WORK = (TaskState.SCHEDULED, TaskState.RUNNING, TaskState.HEARTBEAT_MISS)


@dataclass(slots=True)
class _Task:
    number: int
    state: TaskState = TaskState.CREATED
    attempt: int = 0  # the one at hand, or the last
    failures: int = 0
    node_id: str = ""
    not_before_ms: float = 0.0
    payloads: tuple[Payload, ...] = ()
    error: VelariaError | None = None


@dataclass(slots=True)
class _Stage:
    """A chain at work."""

    chain: Chain
    tasks: list[_Task]
    state: ChainState = ChainState.CREATED

    @property
    def done(self) -> bool:
        return all(task.state is TaskState.SUCCEEDED for task in self.tasks)


@dataclass(slots=True)
class _Run:
    """A job at work."""

    job: Job
    stages: dict[str, _Stage]
    created_ms: float
    deadline_ms: float | None
    state: JobState = JobState.CREATED
    error: VelariaError | None = None
    given: dict[str, Payload] = field(default_factory=dict)

    @property
    def last(self) -> _Stage:
        return self.stages[self.job.chains[-1].chain_id]

    @property
    def result(self) -> tuple[Payload, ...]:
        return tuple(payload for task in self.last.tasks for payload in task.payloads)


@dataclass(slots=True)
class _Node:
    slots: int
    folder: str  # its segments
    heard_ms: float
    missing: bool = False
    sequence: int = 0


class JobMaster:
    """Jobs, chains and tasks, and the workers that there are.

    Args:
        liveness: when a worker is taken for dead.
        waits: a job waits for workers where there are none; else it is refused.
    """

    def __init__(self, liveness: Liveness | None = None, *, waits: bool = True) -> None:
        self.liveness = liveness or Liveness()
        self._waits = waits
        self._nodes: dict[str, _Node] = {}
        self._runs: dict[str, _Run] = {}
        self._effects: list[Effect] = []

    # --- what happens ---------------------------------------------------------------------------------------

    def submit(self, job: Job, now_ms: float) -> list[Effect]:
        """A job is asked for; one that is known is not asked for twice.

        Raises:
            ExternalError[exchange.argument_error]: it does not fit together.
            ExternalError[exchange.no_worker_available]: there is no worker, and none will be started.
        """
        if job.job_id in self._runs:
            return self._told()
        if not self._nodes and not self._waits:
            raise refused(Status.NO_WORKER_AVAILABLE, "no worker is registered", hint="start one, or --auto-worker")
        return self._begun(checked(job), now_ms)

    def resume(self, job: Job, now_ms: float, done: Iterable[tuple[TaskKey, tuple[Payload, ...]]]) -> list[Effect]:
        """A job of an earlier scheduler goes on: these tasks are done, and their rows are still there."""
        run_before = job.job_id in self._runs
        assert not run_before, "a journal has each job once"
        self._begun(checked(job), now_ms, start=False)
        run = self._runs[job.job_id]
        for key, payloads in done:
            task = run.stages[key.chain_id].tasks[key.task_id]
            task.attempt, task.payloads = key.attempt, payloads
            self._task(run, run.stages[key.chain_id], task, TaskState.SUCCEEDED, "from the journal")
        self._start(run, now_ms)
        return self._told()

    def registered(self, node_id: str, slots: int, folder: str, now_ms: float) -> list[Effect]:
        """A worker is there, perhaps again: what an earlier one of its name had is gone."""
        if node_id in self._nodes:
            self._forget(node_id, now_ms, "another worker took its name")
        self._nodes[node_id] = _Node(max(1, slots), folder, now_ms)
        return self._turned(now_ms)

    def lost(self, node_id: str, now_ms: float, reason: str) -> list[Effect]:
        """A worker is gone."""
        if node_id in self._nodes:
            self._forget(node_id, now_ms, reason)
        return self._turned(now_ms)

    def heartbeat(self, node_id: str, sequence: int, now_ms: float) -> list[Effect]:
        """A worker lives."""
        node = self._nodes.get(node_id)
        if node is None or sequence <= node.sequence:
            return self._told()
        node.heard_ms, node.sequence = now_ms, sequence
        if node.missing:
            node.missing = False
            for run, stage, task in self._of(node_id):
                if task.state is TaskState.HEARTBEAT_MISS:
                    self._task(run, stage, task, TaskState.RUNNING, "the worker speaks again")
        return self._turned(now_ms)

    def started(self, key: TaskKey, node_id: str) -> list[Effect]:
        """A worker has begun with a task."""
        if (found := self._current(key, node_id)) is not None:
            run, stage, task = found
            if task.state is TaskState.SCHEDULED:
                self._task(run, stage, task, TaskState.RUNNING)
                if stage.state in (ChainState.SCHEDULED, ChainState.RETRYING):
                    self._chain(run, stage, ChainState.RUNNING)
        return self._told()

    def succeeded(
        self, key: TaskKey, node_id: str, payloads: Sequence[Payload], now_ms: float
    ) -> tuple[bool, list[Effect]]:
        """A worker has done a task. False where nobody asked for it (any more): its rows are not wanted.

        The parts are those that the chain has, in order; a worker that says otherwise has failed.
        """
        found = self._current(key, node_id)
        if found is None:
            return False, self._turned(now_ms)
        run, stage, task = found
        if [payload.part for payload in payloads] != list(range(stage.chain.parts)):
            told = f"{key.name}: {len(payloads)} parts came for {stage.chain.parts}"
            return False, self.failed(key, node_id, refused(Status.INVALID_MESSAGE, told), (), now_ms)
        task.payloads = tuple(payloads)
        self._task(run, stage, task, TaskState.SUCCEEDED)
        self._advance(run, now_ms)
        return True, self._turned(now_ms)

    def failed(
        self, key: TaskKey, node_id: str, error: VelariaError, missing: Sequence[str], now_ms: float
    ) -> list[Effect]:
        """A worker could not do a task.

        Args:
            missing: payloads that were not there any more.
        """
        found = self._current(key, node_id)
        if found is not None:
            run, stage, task = found
            again = error.retryable or status_of(error) is Status.MISSING_INPUT
            if missing:
                again = self._remake(run, set(missing), now_ms) and again
            self._retry(run, stage, task, error, now_ms, again=again)
        return self._turned(now_ms)

    def unreadable(self, job_id: str, now_ms: float) -> list[Effect]:
        """A client could not read the rows of a job: those that are gone are made again."""
        run = self._runs.get(job_id)
        if run is not None and run.state is JobState.SUCCEEDED:
            error = refused(Status.MISSING_INPUT, "the rows of the result are gone", retryable=True)
            for task in run.last.tasks:
                if any(payload.segment for payload in task.payloads):
                    self._retry(run, run.last, task, error, now_ms, again=True)
        return self._turned(now_ms)

    def cancelled(self, job_id: str, now_ms: float, reason: str = "the query was cancelled") -> list[Effect]:
        """A job is not wanted any more."""
        run = self._runs.get(job_id)
        if run is not None and not run.state.final:
            self._end(run, JobState.CANCELLED, QueryCancelled("query.cancelled", reason))
        return self._turned(now_ms)

    def taken(self, job_id: str, now_ms: float) -> list[Effect]:
        """A client has what it wanted of a job: it is forgotten, and so are its rows."""
        run = self._runs.get(job_id)
        if run is not None and run.state.final:
            del self._runs[job_id]
            self._release(job_id, "its client has the result")
        return self._turned(now_ms)

    def tick(self, now_ms: float) -> list[Effect]:
        """Time has passed."""
        for node_id, node in list(self._nodes.items()):
            silent_ms = now_ms - node.heard_ms
            if silent_ms >= self.liveness.timeout_ms:
                self._forget(node_id, now_ms, f"no heartbeat for {silent_ms:.0f} ms")
            elif silent_ms >= self.liveness.miss_ms and not node.missing:
                node.missing = True
                for run, stage, task in self._of(node_id):
                    self._task(run, stage, task, TaskState.HEARTBEAT_MISS, f"no heartbeat for {silent_ms:.0f} ms")
        for run in list(self._runs.values()):
            if run.deadline_ms is not None and now_ms >= run.deadline_ms and not run.state.final:
                told = f"the job ran past its timeout of {run.job.options.timeout_ms} ms"
                self._end(run, JobState.TIMEOUT, QueryCancelled("query.timeout", told, hint="raise the timeout"))
        return self._turned(now_ms)

    # --- what it answers ------------------------------------------------------------------------------------

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that are registered."""
        return tuple(self._nodes)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs that are known."""
        return tuple(self._runs)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The jobs that have not ended."""
        return tuple(job_id for job_id, run in self._runs.items() if not run.state.final)

    def job(self, job_id: str) -> Job | None:
        """The job of this name."""
        return run.job if (run := self._runs.get(job_id)) is not None else None

    def outcome(self, job_id: str) -> Ended | None:
        """How a job has ended; None while it has not, or is not known."""
        run = self._runs.get(job_id)
        if run is None or not run.state.final:
            return None
        return Ended(job_id, run.state, run.result if run.state is JobState.SUCCEEDED else (), run.error)

    def snapshot(self, job_id: str | None = None) -> dict[str, Any]:
        """Workers and jobs as plain values, or one job with its chains and tasks. Keys are stable."""
        if job_id is not None:
            return _told_of(self._runs[job_id]) if job_id in self._runs else {}
        nodes = {
            node_id: {
                "slots": node.slots,
                "heartbeat_seq": node.sequence,
                "missing": node.missing,
                "running": [f"{run.job.job_id}/{stage.chain.chain_id}/{task.number}" for run, stage, task in at_work],
            }
            for node_id, node in self._nodes.items()
            for at_work in [list(self._of(node_id))]
        }
        return {"workers": nodes, "jobs": {job_id: _told_of(run) for job_id, run in self._runs.items()}}

    # --- inside ---------------------------------------------------------------------------------------------

    def _begun(self, job: Job, now_ms: float, *, start: bool = True) -> list[Effect]:
        stages = {chain.chain_id: _Stage(chain, [_Task(at) for at in range(chain.tasks)]) for chain in job.chains}
        timeout_ms = job.options.timeout_ms
        run = _Run(job, stages, now_ms, None if timeout_ms is None else now_ms + timeout_ms)
        run.given = {payload.payload_id: payload for payload in job.payloads}
        self._runs[job.job_id] = run
        if not start:
            return []
        self._start(run, now_ms)
        return self._told()

    def _start(self, run: _Run, now_ms: float) -> None:
        self._job(run, JobState.QUEUED)
        self._advance(run, now_ms)
        self._assign(now_ms)

    def _advance(self, run: _Run, now_ms: float) -> None:
        """Chains follow their tasks, and the job its chains."""
        if run.state.final:
            return
        for stage in run.stages.values():
            ready = all(run.stages[name].done for name in stage.chain.dependencies)
            if stage.done:
                if stage.state is not ChainState.SUCCEEDED:
                    if stage.state is ChainState.CREATED:
                        self._chain(run, stage, ChainState.READY)
                    self._chain(run, stage, ChainState.SUCCEEDED)
            elif not ready:
                # Rows that it reads are made again: what was queued waits for them.
                for task in stage.tasks:
                    if task.state in (TaskState.QUEUED, TaskState.RETRYING):
                        self._task(run, stage, task, TaskState.CREATED)
                if stage.state in (ChainState.CREATED, ChainState.READY, ChainState.RETRYING):
                    self._chain(run, stage, ChainState.WAITING_FOR_DEPS)
            else:
                if stage.state in (ChainState.CREATED, ChainState.WAITING_FOR_DEPS):
                    self._chain(run, stage, ChainState.READY)
                for task in stage.tasks:
                    waits = task.state is TaskState.RETRYING and now_ms < task.not_before_ms
                    if task.state in (TaskState.CREATED, TaskState.RETRYING) and not waits:
                        self._task(run, stage, task, TaskState.QUEUED)
        if run.last.done:
            self._job(run, JobState.SUCCEEDED)
            self._effects.append(Ended(run.job.job_id, JobState.SUCCEEDED, run.result, None))

    def _assign(self, now_ms: float) -> None:
        """Queued tasks to idle workers, the oldest job first, the least busy worker first."""
        busy = dict.fromkeys(self._nodes, 0)
        for node_id in busy:
            busy[node_id] = sum(1 for _ in self._of(node_id))
        idle = [node_id for node_id, node in self._nodes.items() if busy[node_id] < node.slots and not node.missing]
        for run in self._runs.values():
            if run.state.final:
                continue
            for stage in run.stages.values():
                at_once = run.job.options.chain_parallelism or sum(node.slots for node in self._nodes.values())
                at_work = sum(1 for task in stage.tasks if task.state in _AT_WORK)
                for task in stage.tasks:
                    if not idle:
                        return
                    if task.state is not TaskState.QUEUED or at_work >= at_once or now_ms < task.not_before_ms:
                        continue
                    node_id = min(idle, key=lambda one: busy[one])
                    busy[node_id] += 1
                    at_work += 1
                    if busy[node_id] >= self._nodes[node_id].slots:
                        idle.remove(node_id)
                    self._give(run, stage, task, node_id)

    def _give(self, run: _Run, stage: _Stage, task: _Task, node_id: str) -> None:
        task.attempt += 1
        task.node_id = node_id
        self._task(run, stage, task, TaskState.SCHEDULED)
        if stage.state in (ChainState.READY, ChainState.RETRYING):
            self._chain(run, stage, ChainState.SCHEDULED)
        if run.state in (JobState.QUEUED, JobState.RETRYING):
            self._job(run, JobState.RUNNING)
        key = TaskKey(run.job.job_id, stage.chain.chain_id, task.number, task.attempt)
        inputs = tuple((one, self._rows_of(run, one, task.number)) for one in stage.chain.inputs)
        self._effects.append(Assign(node_id, key, stage.chain.plan, inputs, stage.chain.parts))

    @staticmethod
    def _rows_of(run: _Run, one: ChainInput, number: int) -> tuple[Payload, ...]:
        if one.chain_id:
            made = [payload for task in run.stages[one.chain_id].tasks for payload in task.payloads]
            return tuple(payload for payload in made if one.whole or payload.part == number)
        name = one.payloads[number if len(one.payloads) > 1 else 0]
        return (run.given[name],)

    def _forget(self, node_id: str, now_ms: float, reason: str) -> None:
        """A worker is gone, and with it what it ran and the rows in its memory."""
        folder = self._nodes.pop(node_id).folder
        error = ExternalError(
            "exchange.transport_closed", f"worker {node_id} is gone: {reason}", retryable=True, hint="try again"
        )
        for run, stage, task in list(self._of(node_id)):
            if task.state is not TaskState.HEARTBEAT_MISS:
                self._task(run, stage, task, TaskState.HEARTBEAT_MISS, reason)
            self._retry(run, stage, task, error, now_ms, again=True)
        for run in list(self._runs.values()):
            self._remake(run, {one.payload_id for one in _in_folder(run, folder)}, now_ms, error)

    def _remake(self, run: _Run, gone: set[str], now_ms: float, error: VelariaError | None = None) -> bool:
        """Rows are gone: tasks that made them make them again, if somebody still reads them.

        Returns:
            Whether all of them can be made again; what the client gave cannot.
        """
        if run.state.final and run.state is not JobState.SUCCEEDED:
            return True
        why = error or refused(Status.MISSING_INPUT, "rows that were made are gone", retryable=True)
        for stage in run.stages.values():
            readers = [one for one in run.stages.values() if stage.chain.chain_id in one.chain.dependencies]
            if readers and all(one.done for one in readers):
                continue
            for task in stage.tasks:
                if task.state is TaskState.SUCCEEDED and any(one.payload_id in gone for one in task.payloads):
                    self._retry(run, stage, task, why, now_ms, again=True)
        return gone.isdisjoint(run.given)

    def _retry(self, run: _Run, stage: _Stage, task: _Task, error: VelariaError, now_ms: float, *, again: bool) -> None:
        """A task runs again after its backoff, or the job fails with its error."""
        options = run.job.options
        if run.state.final and run.state is not JobState.SUCCEEDED:
            return
        task.failures += 1
        task.error, task.payloads, task.node_id = error, (), ""
        if not again or task.failures >= options.max_attempts:
            self._task(run, stage, task, TaskState.FAILED, error.code)
            self._chain(run, stage, ChainState.FAILED, error.code)
            self._end(run, JobState.FAILED, error)
            return
        task.not_before_ms = now_ms + options.backoff_ms(task.failures)
        self._task(run, stage, task, TaskState.RETRYING, error.code)
        if stage.state not in (ChainState.RETRYING, ChainState.WAITING_FOR_DEPS):
            self._chain(run, stage, ChainState.RETRYING, error.code)
        if run.state in (JobState.RUNNING, JobState.SUCCEEDED):
            self._job(run, JobState.RETRYING, error.code)

    def _end(self, run: _Run, state: JobState, error: VelariaError) -> None:
        run.error = error
        for stage in run.stages.values():
            for task in stage.tasks:
                if task.state not in (TaskState.FAILED, TaskState.CANCELLED, TaskState.SUCCEEDED):
                    self._task(run, stage, task, TaskState.CANCELLED, error.code)
            if stage.state not in (ChainState.FAILED, ChainState.CANCELLED, ChainState.SUCCEEDED):
                self._chain(run, stage, ChainState.CANCELLED, error.code)
        self._job(run, state, error.code)
        self._release(run.job.job_id, error.code)
        self._effects.append(Ended(run.job.job_id, state, (), error))

    def _release(self, job_id: str, reason: str) -> None:
        self._effects += [Release(node_id, job_id, reason) for node_id in self._nodes]

    def _of(self, node_id: str) -> Iterator[tuple[_Run, _Stage, _Task]]:
        """The tasks that a worker has."""
        for run in self._runs.values():
            for stage in run.stages.values():
                for task in stage.tasks:
                    if task.node_id == node_id and task.state in _AT_WORK:
                        yield run, stage, task

    def _current(self, key: TaskKey, node_id: str) -> tuple[_Run, _Stage, _Task] | None:
        """The task of a key, if this is the attempt that is waited for, from the worker that has it."""
        run = self._runs.get(key.job_id)
        stage = run.stages.get(key.chain_id) if run is not None else None
        if run is None or stage is None or not 0 <= key.task_id < len(stage.tasks):
            return None
        task = stage.tasks[key.task_id]
        mine = task.attempt == key.attempt and task.node_id == node_id and task.state in _AT_WORK
        return (run, stage, task) if mine else None

    def _turned(self, now_ms: float) -> list[Effect]:
        for run in list(self._runs.values()):
            self._advance(run, now_ms)
        self._assign(now_ms)
        return self._told()

    def _told(self) -> list[Effect]:
        told, self._effects = self._effects, []
        return told

    # --- states ---------------------------------------------------------------------------------------------

    def _task(self, run: _Run, stage: _Stage, task: _Task, new: TaskState, reason: str = "") -> None:
        old, task.state = task.state, stepped(TASK_STEPS, task.state, new)
        name = f"{run.job.job_id}/{stage.chain.chain_id}/{task.number}"
        self._effects.append(Moved("task", name, old, new, task.node_id, task.attempt, reason))

    def _chain(self, run: _Run, stage: _Stage, new: ChainState, reason: str = "") -> None:
        old, stage.state = stage.state, stepped(CHAIN_STEPS, stage.state, new)
        self._effects.append(Moved("chain", f"{run.job.job_id}/{stage.chain.chain_id}", old, new, reason=reason))

    def _job(self, run: _Run, new: JobState, reason: str = "") -> None:
        old, run.state = run.state, stepped(JOB_STEPS, run.state, new)
        self._effects.append(Moved("job", run.job.job_id, old, new, reason=reason))


def _in_folder(run: _Run, folder: str) -> Iterator[Payload]:
    """The rows of a job that live in a folder of segments."""
    if folder:
        for stage in run.stages.values():
            for task in stage.tasks:
                yield from (one for one in task.payloads if one.segment.startswith(f"{folder}/"))


def _told_of(run: _Run) -> dict[str, Any]:
    return {
        "job_id": run.job.job_id,
        "state": run.state,
        "summary": run.job.summary,
        "error": run.error.to_dict() if run.error is not None else None,
        "chains": {
            stage.chain.chain_id: {
                "state": stage.state,
                "tasks": [
                    {
                        "task_id": task.number,
                        "state": task.state,
                        "attempt": task.attempt,
                        "node_id": task.node_id,
                        "output_rows": sum(payload.rows for payload in task.payloads),
                        "error": task.error.code if task.error is not None else None,
                    }
                    for task in stage.tasks
                ],
            }
            for stage in run.stages.values()
        },
    }
