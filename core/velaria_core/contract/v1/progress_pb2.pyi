from velaria_core.contract.v1 import explain_pb2 as _explain_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Progress(_message.Message):
    __slots__ = ("query_id", "status", "requested_execution_mode", "execution_mode", "execution_reason", "transport_mode", "aggregate_impl", "aggregate_reason", "batches_pulled", "batches_processed", "blocked_count", "max_backlog_batches", "inflight_batches", "inflight_partitions", "last_batch_latency_ms", "last_sink_latency_ms", "last_state_latency_ms", "last_source_offset", "backpressure_active", "actor_eligible", "used_actor_runtime", "used_shared_memory", "has_stateful_ops", "has_window", "sink_is_blocking", "source_is_bounded", "estimated_partitions", "projected_payload_bytes", "estimated_state_size_bytes", "estimated_batch_cost", "backpressure_max_queue_batches", "backpressure_high_watermark", "backpressure_low_watermark", "checkpoint_delivery_mode", "epoch", "watermark", "late_rows", "state_rows", "state_bytes", "output_mode", "rows_per_second", "delivery_guarantee")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_EXECUTION_MODE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_MODE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_REASON_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_MODE_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_IMPL_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_REASON_FIELD_NUMBER: _ClassVar[int]
    BATCHES_PULLED_FIELD_NUMBER: _ClassVar[int]
    BATCHES_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKLOG_BATCHES_FIELD_NUMBER: _ClassVar[int]
    INFLIGHT_BATCHES_FIELD_NUMBER: _ClassVar[int]
    INFLIGHT_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_BATCH_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_SINK_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_STATE_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    USED_ACTOR_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    USED_SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    HAS_STATEFUL_OPS_FIELD_NUMBER: _ClassVar[int]
    HAS_WINDOW_FIELD_NUMBER: _ClassVar[int]
    SINK_IS_BLOCKING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IS_BOUNDED_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    PROJECTED_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_STATE_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_BATCH_COST_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_MAX_QUEUE_BATCHES_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_HIGH_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_LOW_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DELIVERY_MODE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    LATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    STATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_MODE_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    query_id: str
    status: str
    requested_execution_mode: str
    execution_mode: str
    execution_reason: str
    transport_mode: str
    aggregate_impl: str
    aggregate_reason: str
    batches_pulled: int
    batches_processed: int
    blocked_count: int
    max_backlog_batches: int
    inflight_batches: int
    inflight_partitions: int
    last_batch_latency_ms: float
    last_sink_latency_ms: float
    last_state_latency_ms: float
    last_source_offset: str
    backpressure_active: bool
    actor_eligible: bool
    used_actor_runtime: bool
    used_shared_memory: bool
    has_stateful_ops: bool
    has_window: bool
    sink_is_blocking: bool
    source_is_bounded: bool
    estimated_partitions: int
    projected_payload_bytes: int
    estimated_state_size_bytes: int
    estimated_batch_cost: int
    backpressure_max_queue_batches: int
    backpressure_high_watermark: int
    backpressure_low_watermark: int
    checkpoint_delivery_mode: str
    epoch: int
    watermark: str
    late_rows: int
    state_rows: int
    state_bytes: int
    output_mode: str
    rows_per_second: float
    delivery_guarantee: _explain_pb2.DeliveryGuarantee
    def __init__(self, query_id: _Optional[str] = ..., status: _Optional[str] = ..., requested_execution_mode: _Optional[str] = ..., execution_mode: _Optional[str] = ..., execution_reason: _Optional[str] = ..., transport_mode: _Optional[str] = ..., aggregate_impl: _Optional[str] = ..., aggregate_reason: _Optional[str] = ..., batches_pulled: _Optional[int] = ..., batches_processed: _Optional[int] = ..., blocked_count: _Optional[int] = ..., max_backlog_batches: _Optional[int] = ..., inflight_batches: _Optional[int] = ..., inflight_partitions: _Optional[int] = ..., last_batch_latency_ms: _Optional[float] = ..., last_sink_latency_ms: _Optional[float] = ..., last_state_latency_ms: _Optional[float] = ..., last_source_offset: _Optional[str] = ..., backpressure_active: _Optional[bool] = ..., actor_eligible: _Optional[bool] = ..., used_actor_runtime: _Optional[bool] = ..., used_shared_memory: _Optional[bool] = ..., has_stateful_ops: _Optional[bool] = ..., has_window: _Optional[bool] = ..., sink_is_blocking: _Optional[bool] = ..., source_is_bounded: _Optional[bool] = ..., estimated_partitions: _Optional[int] = ..., projected_payload_bytes: _Optional[int] = ..., estimated_state_size_bytes: _Optional[int] = ..., estimated_batch_cost: _Optional[int] = ..., backpressure_max_queue_batches: _Optional[int] = ..., backpressure_high_watermark: _Optional[int] = ..., backpressure_low_watermark: _Optional[int] = ..., checkpoint_delivery_mode: _Optional[str] = ..., epoch: _Optional[int] = ..., watermark: _Optional[str] = ..., late_rows: _Optional[int] = ..., state_rows: _Optional[int] = ..., state_bytes: _Optional[int] = ..., output_mode: _Optional[str] = ..., rows_per_second: _Optional[float] = ..., delivery_guarantee: _Optional[_Union[_explain_pb2.DeliveryGuarantee, _Mapping]] = ...) -> None: ...
