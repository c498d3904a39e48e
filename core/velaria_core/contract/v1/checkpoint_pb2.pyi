from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Checkpoint(_message.Message):
    __slots__ = ("version", "checksum", "query_fingerprint", "query_id", "epoch", "watermark", "sources", "states", "staged", "batches_pulled", "batches_processed", "blocked_count", "max_backlog_batches", "last_source_offset", "requested_execution_mode", "execution_mode", "execution_reason", "transport_mode", "aggregate_impl", "aggregate_reason", "estimated_state_size_bytes", "estimated_batch_cost", "backpressure_max_queue_batches", "backpressure_high_watermark", "backpressure_low_watermark", "checkpoint_delivery_mode")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    QUERY_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    BATCHES_PULLED_FIELD_NUMBER: _ClassVar[int]
    BATCHES_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKLOG_BATCHES_FIELD_NUMBER: _ClassVar[int]
    LAST_SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_EXECUTION_MODE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_MODE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_REASON_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_MODE_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_IMPL_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_REASON_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_STATE_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_BATCH_COST_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_MAX_QUEUE_BATCHES_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_HIGH_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_LOW_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DELIVERY_MODE_FIELD_NUMBER: _ClassVar[int]
    version: int
    checksum: str
    query_fingerprint: str
    query_id: str
    epoch: int
    watermark: str
    sources: _containers.RepeatedCompositeFieldContainer[SourceOffset]
    states: _containers.RepeatedCompositeFieldContainer[StateSnapshot]
    staged: _containers.RepeatedCompositeFieldContainer[StagedOutput]
    batches_pulled: int
    batches_processed: int
    blocked_count: int
    max_backlog_batches: int
    last_source_offset: str
    requested_execution_mode: str
    execution_mode: str
    execution_reason: str
    transport_mode: str
    aggregate_impl: str
    aggregate_reason: str
    estimated_state_size_bytes: int
    estimated_batch_cost: int
    backpressure_max_queue_batches: int
    backpressure_high_watermark: int
    backpressure_low_watermark: int
    checkpoint_delivery_mode: str
    def __init__(self, version: _Optional[int] = ..., checksum: _Optional[str] = ..., query_fingerprint: _Optional[str] = ..., query_id: _Optional[str] = ..., epoch: _Optional[int] = ..., watermark: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[SourceOffset, _Mapping]]] = ..., states: _Optional[_Iterable[_Union[StateSnapshot, _Mapping]]] = ..., staged: _Optional[_Iterable[_Union[StagedOutput, _Mapping]]] = ..., batches_pulled: _Optional[int] = ..., batches_processed: _Optional[int] = ..., blocked_count: _Optional[int] = ..., max_backlog_batches: _Optional[int] = ..., last_source_offset: _Optional[str] = ..., requested_execution_mode: _Optional[str] = ..., execution_mode: _Optional[str] = ..., execution_reason: _Optional[str] = ..., transport_mode: _Optional[str] = ..., aggregate_impl: _Optional[str] = ..., aggregate_reason: _Optional[str] = ..., estimated_state_size_bytes: _Optional[int] = ..., estimated_batch_cost: _Optional[int] = ..., backpressure_max_queue_batches: _Optional[int] = ..., backpressure_high_watermark: _Optional[int] = ..., backpressure_low_watermark: _Optional[int] = ..., checkpoint_delivery_mode: _Optional[str] = ...) -> None: ...

class SourceOffset(_message.Message):
    __slots__ = ("source", "offset", "watermark")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    source: str
    offset: str
    watermark: str
    def __init__(self, source: _Optional[str] = ..., offset: _Optional[str] = ..., watermark: _Optional[str] = ...) -> None: ...

class StateSnapshot(_message.Message):
    __slots__ = ("step", "ref")
    STEP_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    step: str
    ref: str
    def __init__(self, step: _Optional[str] = ..., ref: _Optional[str] = ...) -> None: ...

class StagedOutput(_message.Message):
    __slots__ = ("sink", "epoch", "ref")
    SINK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    sink: str
    epoch: int
    ref: str
    def __init__(self, sink: _Optional[str] = ..., epoch: _Optional[int] = ..., ref: _Optional[str] = ...) -> None: ...
