"""Jobs and payloads as messages and back. The job master knows no messages, and messages have no behaviour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from velaria_core.errors import InputError
from velaria_experimental.jobmaster.effects import Assign, TaskKey
from velaria_experimental.jobmaster.graph import Chain, ChainInput, Job, Payload
from velaria_experimental.jobmaster.options import JobOptions
from velaria_experimental.wire.status import Status, refused
from velaria_experimental.wire.v1 import runtime_pb2 as pb


def payload_message(payload: Payload) -> pb.Payload:
    return pb.Payload(
        payload_id=payload.payload_id,
        codec=payload.codec,
        size=payload.size,
        rows=payload.rows,
        part=payload.part,
        segment=payload.segment,
    )


def payload_of(message: pb.Payload) -> Payload:
    return Payload(message.payload_id, message.codec, message.size, message.rows, message.part, message.segment)


def key_message(key: TaskKey) -> pb.TaskKey:
    return pb.TaskKey(job_id=key.job_id, chain_id=key.chain_id, task_id=key.task_id, attempt=key.attempt)


def key_of(message: pb.TaskKey) -> TaskKey:
    return TaskKey(message.job_id, message.chain_id, message.task_id, message.attempt)


def job_message(job: Job) -> pb.Job:
    options = job.options
    return pb.Job(
        job_id=job.job_id,
        summary=job.summary,
        options=pb.Options(
            timeout_ms=options.timeout_ms or 0,
            chain_parallelism=options.chain_parallelism,
            max_attempts=options.max_attempts,
            base_backoff_ms=options.base_backoff_ms,
            max_backoff_ms=options.max_backoff_ms,
        ),
        payloads=map(payload_message, job.payloads),
        chains=[
            pb.Chain(
                chain_id=chain.chain_id,
                plan=chain.plan,
                tasks=chain.tasks,
                parts=chain.parts,
                inputs=[
                    pb.ChainInput(
                        name=one.name,
                        schema=one.schema,
                        payloads=one.payloads,
                        chain_id=one.chain_id,
                        whole=one.whole,
                    )
                    for one in chain.inputs
                ],
            )
            for chain in job.chains
        ],
    )


def job_of(message: pb.Job) -> Job:
    """
    Raises:
        ExternalError[exchange.argument_error]: an option is out of range.
    """
    given = message.options
    try:
        options = JobOptions(
            timeout_ms=given.timeout_ms or None,
            max_attempts=given.max_attempts,
            base_backoff_ms=given.base_backoff_ms,
            max_backoff_ms=given.max_backoff_ms,
            chain_parallelism=given.chain_parallelism,
        )
    except InputError as error:
        raise refused(Status.ARGUMENT_ERROR, error.message) from error
    chains = tuple(
        Chain(
            chain.chain_id,
            chain.plan,
            chain.tasks,
            tuple(
                ChainInput(one.name, one.schema, tuple(one.payloads), one.chain_id, one.whole) for one in chain.inputs
            ),
            chain.parts,
        )
        for chain in message.chains
    )
    return Job(message.job_id, chains, tuple(map(payload_of, message.payloads)), options, message.summary)


def assign_message(assign: Assign) -> pb.Assign:
    return pb.Assign(
        task=key_message(assign.key),
        plan=assign.plan,
        parts=assign.parts,
        inputs=[
            pb.TaskInput(name=one.name, schema=one.schema, payloads=map(payload_message, payloads))
            for one, payloads in assign.inputs
        ],
    )


def payloads_of(messages: Iterable[pb.Payload]) -> list[Payload]:
    return [payload_of(message) for message in messages]


def schema_bytes(schema: pa.Schema) -> bytes:
    return bytes(schema.serialize())


def schema_of(data: bytes) -> pa.Schema:
    """
    Raises:
        ExternalError[exchange.deserialize_error].
    """
    try:
        return pa.ipc.read_schema(pa.py_buffer(data))
    except (pa.ArrowException, OSError) as error:
        raise refused(Status.DESERIALIZE_ERROR, "the bytes are no Arrow schema") from error


def location(key_name: str, payloads: Sequence[pb.Payload]) -> str:
    """Where a result is, for people and events."""
    if payloads and payloads[0].segment:
        return f"shm://{payloads[0].segment}"
    return f"inline://{key_name}"
