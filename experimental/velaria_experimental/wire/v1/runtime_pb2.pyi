from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("version", "message_id", "correlation_id", "node_id", "register", "heartbeat", "submit", "assign", "data", "credit", "ack", "result", "cancel", "error", "inspect", "snapshot", "place", "barrier", "settle")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    INSPECT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    version: int
    message_id: int
    correlation_id: int
    node_id: str
    register: Register
    heartbeat: Heartbeat
    submit: Submit
    assign: Assign
    data: Data
    credit: Credit
    ack: Ack
    result: Result
    cancel: Cancel
    error: Error
    inspect: Inspect
    snapshot: Snapshot
    place: Place
    barrier: Barrier
    settle: Settle
    def __init__(self, version: _Optional[int] = ..., message_id: _Optional[int] = ..., correlation_id: _Optional[int] = ..., node_id: _Optional[str] = ..., register: _Optional[_Union[Register, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., submit: _Optional[_Union[Submit, _Mapping]] = ..., assign: _Optional[_Union[Assign, _Mapping]] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., inspect: _Optional[_Union[Inspect, _Mapping]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., place: _Optional[_Union[Place, _Mapping]] = ..., barrier: _Optional[_Union[Barrier, _Mapping]] = ..., settle: _Optional[_Union[Settle, _Mapping]] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("role", "slots", "pid", "segments")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    role: str
    slots: int
    pid: int
    segments: str
    def __init__(self, role: _Optional[str] = ..., slots: _Optional[int] = ..., pid: _Optional[int] = ..., segments: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("heartbeat_seq", "running")
    HEARTBEAT_SEQ_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    heartbeat_seq: int
    running: _containers.RepeatedCompositeFieldContainer[TaskKey]
    def __init__(self, heartbeat_seq: _Optional[int] = ..., running: _Optional[_Iterable[_Union[TaskKey, _Mapping]]] = ...) -> None: ...

class TaskKey(_message.Message):
    __slots__ = ("job_id", "chain_id", "task_id", "attempt")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    chain_id: str
    task_id: int
    attempt: int
    def __init__(self, job_id: _Optional[str] = ..., chain_id: _Optional[str] = ..., task_id: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("payload_id", "codec", "size", "rows", "part", "segment")
    PAYLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    payload_id: str
    codec: str
    size: int
    rows: int
    part: int
    segment: str
    def __init__(self, payload_id: _Optional[str] = ..., codec: _Optional[str] = ..., size: _Optional[int] = ..., rows: _Optional[int] = ..., part: _Optional[int] = ..., segment: _Optional[str] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("payload_id", "offset", "chunk", "last")
    PAYLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    payload_id: str
    offset: int
    chunk: bytes
    last: bool
    def __init__(self, payload_id: _Optional[str] = ..., offset: _Optional[int] = ..., chunk: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: int
    def __init__(self, chunks: _Optional[int] = ...) -> None: ...

class Submit(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "options", "chains", "payloads", "summary")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    options: Options
    chains: _containers.RepeatedCompositeFieldContainer[Chain]
    payloads: _containers.RepeatedCompositeFieldContainer[Payload]
    summary: str
    def __init__(self, job_id: _Optional[str] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., chains: _Optional[_Iterable[_Union[Chain, _Mapping]]] = ..., payloads: _Optional[_Iterable[_Union[Payload, _Mapping]]] = ..., summary: _Optional[str] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("timeout_ms", "chain_parallelism", "max_attempts", "base_backoff_ms", "max_backoff_ms")
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    CHAIN_PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    BASE_BACKOFF_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_MS_FIELD_NUMBER: _ClassVar[int]
    timeout_ms: int
    chain_parallelism: int
    max_attempts: int
    base_backoff_ms: int
    max_backoff_ms: int
    def __init__(self, timeout_ms: _Optional[int] = ..., chain_parallelism: _Optional[int] = ..., max_attempts: _Optional[int] = ..., base_backoff_ms: _Optional[int] = ..., max_backoff_ms: _Optional[int] = ...) -> None: ...

class Chain(_message.Message):
    __slots__ = ("chain_id", "plan", "tasks", "inputs", "parts")
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    chain_id: str
    plan: str
    tasks: int
    inputs: _containers.RepeatedCompositeFieldContainer[ChainInput]
    parts: int
    def __init__(self, chain_id: _Optional[str] = ..., plan: _Optional[str] = ..., tasks: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[ChainInput, _Mapping]]] = ..., parts: _Optional[int] = ...) -> None: ...

class ChainInput(_message.Message):
    __slots__ = ("name", "schema", "payloads", "chain_id", "whole")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema: bytes
    payloads: _containers.RepeatedScalarFieldContainer[str]
    chain_id: str
    whole: bool
    def __init__(self, name: _Optional[str] = ..., schema: _Optional[bytes] = ..., payloads: _Optional[_Iterable[str]] = ..., chain_id: _Optional[str] = ..., whole: _Optional[bool] = ...) -> None: ...

class Assign(_message.Message):
    __slots__ = ("task", "plan", "inputs", "parts")
    TASK_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    task: TaskKey
    plan: str
    inputs: _containers.RepeatedCompositeFieldContainer[TaskInput]
    parts: int
    def __init__(self, task: _Optional[_Union[TaskKey, _Mapping]] = ..., plan: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TaskInput, _Mapping]]] = ..., parts: _Optional[int] = ...) -> None: ...

class TaskInput(_message.Message):
    __slots__ = ("name", "schema", "payloads")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema: bytes
    payloads: _containers.RepeatedCompositeFieldContainer[Payload]
    def __init__(self, name: _Optional[str] = ..., schema: _Optional[bytes] = ..., payloads: _Optional[_Iterable[_Union[Payload, _Mapping]]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("job_id", "task", "ok", "state", "reason", "workers", "number", "state_rows", "state_bytes")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    task: TaskKey
    ok: bool
    state: str
    reason: str
    workers: int
    number: int
    state_rows: int
    state_bytes: int
    def __init__(self, job_id: _Optional[str] = ..., task: _Optional[_Union[TaskKey, _Mapping]] = ..., ok: _Optional[bool] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., workers: _Optional[int] = ..., number: _Optional[int] = ..., state_rows: _Optional[int] = ..., state_bytes: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("job_id", "task", "ok", "status", "state", "output_rows", "result_location", "payloads", "error", "spans", "missing", "summary", "late_dropped_rows")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    RESULT_LOCATION_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    LATE_DROPPED_ROWS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    task: TaskKey
    ok: bool
    status: str
    state: str
    output_rows: int
    result_location: str
    payloads: _containers.RepeatedCompositeFieldContainer[Payload]
    error: Error
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    missing: _containers.RepeatedScalarFieldContainer[str]
    summary: str
    late_dropped_rows: int
    def __init__(self, job_id: _Optional[str] = ..., task: _Optional[_Union[TaskKey, _Mapping]] = ..., ok: _Optional[bool] = ..., status: _Optional[str] = ..., state: _Optional[str] = ..., output_rows: _Optional[int] = ..., result_location: _Optional[str] = ..., payloads: _Optional[_Iterable[_Union[Payload, _Mapping]]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., missing: _Optional[_Iterable[str]] = ..., summary: _Optional[str] = ..., late_dropped_rows: _Optional[int] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("stage", "node_id", "what", "start_us", "duration_us", "bytes")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    START_US_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    stage: str
    node_id: str
    what: str
    start_us: int
    duration_us: int
    bytes: int
    def __init__(self, stage: _Optional[str] = ..., node_id: _Optional[str] = ..., what: _Optional[str] = ..., start_us: _Optional[int] = ..., duration_us: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("job_id", "reason")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    reason: str
    def __init__(self, job_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("status", "error_type", "code", "message", "hint", "retryable")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    status: str
    error_type: str
    code: str
    message: str
    hint: str
    retryable: bool
    def __init__(self, status: _Optional[str] = ..., error_type: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., retryable: _Optional[bool] = ...) -> None: ...

class Inspect(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("plan", "state", "step", "inputs", "append")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    plan: str
    state: str
    step: str
    inputs: _containers.RepeatedCompositeFieldContainer[StepInput]
    append: bool
    def __init__(self, plan: _Optional[str] = ..., state: _Optional[str] = ..., step: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[StepInput, _Mapping]]] = ..., append: _Optional[bool] = ...) -> None: ...

class StepInput(_message.Message):
    __slots__ = ("schema", "append_only", "times")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    APPEND_ONLY_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    schema: bytes
    append_only: bool
    times: _containers.RepeatedCompositeFieldContainer[TimeBound]
    def __init__(self, schema: _Optional[bytes] = ..., append_only: _Optional[bool] = ..., times: _Optional[_Iterable[_Union[TimeBound, _Mapping]]] = ...) -> None: ...

class TimeBound(_message.Message):
    __slots__ = ("column", "kind", "span_us")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SPAN_US_FIELD_NUMBER: _ClassVar[int]
    column: str
    kind: str
    span_us: int
    def __init__(self, column: _Optional[str] = ..., kind: _Optional[str] = ..., span_us: _Optional[int] = ...) -> None: ...

class Barrier(_message.Message):
    __slots__ = ("number", "rows", "first", "now_ms", "step", "late_before_us", "watermark_us")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    LATE_BEFORE_US_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_US_FIELD_NUMBER: _ClassVar[int]
    number: int
    rows: _containers.RepeatedCompositeFieldContainer[Payload]
    first: bool
    now_ms: int
    step: str
    late_before_us: int
    watermark_us: int
    def __init__(self, number: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[Payload, _Mapping]]] = ..., first: _Optional[bool] = ..., now_ms: _Optional[int] = ..., step: _Optional[str] = ..., late_before_us: _Optional[int] = ..., watermark_us: _Optional[int] = ...) -> None: ...

class Settle(_message.Message):
    __slots__ = ("number", "ok", "step")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    number: int
    ok: bool
    step: str
    def __init__(self, number: _Optional[int] = ..., ok: _Optional[bool] = ..., step: _Optional[str] = ...) -> None: ...
