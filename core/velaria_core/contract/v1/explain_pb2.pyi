from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BatchExplain(_message.Message):
    __slots__ = ("frontend", "logical", "physical", "strategy")
    FRONTEND_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_FIELD_NUMBER: _ClassVar[int]
    PHYSICAL_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    frontend: Frontend
    logical: LogicalPlan
    physical: BatchPhysicalPlan
    strategy: BatchStrategy
    def __init__(self, frontend: _Optional[_Union[Frontend, _Mapping]] = ..., logical: _Optional[_Union[LogicalPlan, _Mapping]] = ..., physical: _Optional[_Union[BatchPhysicalPlan, _Mapping]] = ..., strategy: _Optional[_Union[BatchStrategy, _Mapping]] = ...) -> None: ...

class StreamExplain(_message.Message):
    __slots__ = ("logical", "physical", "strategy")
    LOGICAL_FIELD_NUMBER: _ClassVar[int]
    PHYSICAL_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    logical: LogicalPlan
    physical: StreamPhysicalPlan
    strategy: StreamStrategy
    def __init__(self, logical: _Optional[_Union[LogicalPlan, _Mapping]] = ..., physical: _Optional[_Union[StreamPhysicalPlan, _Mapping]] = ..., strategy: _Optional[_Union[StreamStrategy, _Mapping]] = ...) -> None: ...

class Frontend(_message.Message):
    __slots__ = ("name", "dialect")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIALECT_FIELD_NUMBER: _ClassVar[int]
    name: str
    dialect: str
    def __init__(self, name: _Optional[str] = ..., dialect: _Optional[str] = ...) -> None: ...

class LogicalPlan(_message.Message):
    __slots__ = ("seed_columns", "steps")
    SEED_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    seed_columns: _containers.RepeatedScalarFieldContainer[str]
    steps: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, seed_columns: _Optional[_Iterable[str]] = ..., steps: _Optional[_Iterable[str]] = ...) -> None: ...

class PlanNode(_message.Message):
    __slots__ = ("id", "operator", "label", "details", "kind", "barrier", "reason", "shape", "state", "cost", "estimated_rows", "rows", "time_ms", "state_rows", "state_bytes", "inputs")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    operator: str
    label: str
    details: _containers.ScalarMap[str, str]
    kind: str
    barrier: bool
    reason: str
    shape: str
    state: str
    cost: str
    estimated_rows: int
    rows: int
    time_ms: float
    state_rows: int
    state_bytes: int
    inputs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[int] = ..., operator: _Optional[str] = ..., label: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ..., kind: _Optional[str] = ..., barrier: _Optional[bool] = ..., reason: _Optional[str] = ..., shape: _Optional[str] = ..., state: _Optional[str] = ..., cost: _Optional[str] = ..., estimated_rows: _Optional[int] = ..., rows: _Optional[int] = ..., time_ms: _Optional[float] = ..., state_rows: _Optional[int] = ..., state_bytes: _Optional[int] = ..., inputs: _Optional[_Iterable[int]] = ...) -> None: ...

class BatchPhysicalPlan(_message.Message):
    __slots__ = ("nodes", "engine_plan", "time_ms")
    NODES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_PLAN_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[PlanNode]
    engine_plan: str
    time_ms: float
    def __init__(self, nodes: _Optional[_Iterable[_Union[PlanNode, _Mapping]]] = ..., engine_plan: _Optional[str] = ..., time_ms: _Optional[float] = ...) -> None: ...

class StreamPhysicalPlan(_message.Message):
    __slots__ = ("writes_to_sink", "sink", "has_window", "has_stateful_ops", "partition_local_prefix_nodes", "actor_eligible", "actor_eligibility_reason", "nodes", "epochs", "time_ms", "state_ms")
    WRITES_TO_SINK_FIELD_NUMBER: _ClassVar[int]
    SINK_FIELD_NUMBER: _ClassVar[int]
    HAS_WINDOW_FIELD_NUMBER: _ClassVar[int]
    HAS_STATEFUL_OPS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_LOCAL_PREFIX_NODES_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ELIGIBILITY_REASON_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_MS_FIELD_NUMBER: _ClassVar[int]
    writes_to_sink: bool
    sink: str
    has_window: bool
    has_stateful_ops: bool
    partition_local_prefix_nodes: int
    actor_eligible: bool
    actor_eligibility_reason: str
    nodes: _containers.RepeatedCompositeFieldContainer[PlanNode]
    epochs: int
    time_ms: float
    state_ms: float
    def __init__(self, writes_to_sink: _Optional[bool] = ..., sink: _Optional[str] = ..., has_window: _Optional[bool] = ..., has_stateful_ops: _Optional[bool] = ..., partition_local_prefix_nodes: _Optional[int] = ..., actor_eligible: _Optional[bool] = ..., actor_eligibility_reason: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[PlanNode, _Mapping]]] = ..., epochs: _Optional[int] = ..., time_ms: _Optional[float] = ..., state_ms: _Optional[float] = ...) -> None: ...

class RejectedCandidate(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class BatchStrategy(_message.Message):
    __slots__ = ("selected_impl", "simd_backend", "compiled_backends", "partial_layout", "runtime_shape", "key_count", "ordered_input", "partition_local", "fixed_width_keys", "packable_keys", "low_cardinality", "reason", "rejected_candidates", "columnar_operator", "columnar_fallback_type", "columnar_reason", "columnar_input_row_count", "columnar_affected_columns", "threads")
    SELECTED_IMPL_FIELD_NUMBER: _ClassVar[int]
    SIMD_BACKEND_FIELD_NUMBER: _ClassVar[int]
    COMPILED_BACKENDS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_LAYOUT_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_SHAPE_FIELD_NUMBER: _ClassVar[int]
    KEY_COUNT_FIELD_NUMBER: _ClassVar[int]
    ORDERED_INPUT_FIELD_NUMBER: _ClassVar[int]
    PARTITION_LOCAL_FIELD_NUMBER: _ClassVar[int]
    FIXED_WIDTH_KEYS_FIELD_NUMBER: _ClassVar[int]
    PACKABLE_KEYS_FIELD_NUMBER: _ClassVar[int]
    LOW_CARDINALITY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REJECTED_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_OPERATOR_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_FALLBACK_TYPE_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_REASON_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_INPUT_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_AFFECTED_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    selected_impl: str
    simd_backend: str
    compiled_backends: _containers.RepeatedScalarFieldContainer[str]
    partial_layout: str
    runtime_shape: str
    key_count: int
    ordered_input: bool
    partition_local: bool
    fixed_width_keys: bool
    packable_keys: bool
    low_cardinality: bool
    reason: str
    rejected_candidates: _containers.RepeatedCompositeFieldContainer[RejectedCandidate]
    columnar_operator: str
    columnar_fallback_type: str
    columnar_reason: str
    columnar_input_row_count: int
    columnar_affected_columns: _containers.RepeatedScalarFieldContainer[str]
    threads: int
    def __init__(self, selected_impl: _Optional[str] = ..., simd_backend: _Optional[str] = ..., compiled_backends: _Optional[_Iterable[str]] = ..., partial_layout: _Optional[str] = ..., runtime_shape: _Optional[str] = ..., key_count: _Optional[int] = ..., ordered_input: _Optional[bool] = ..., partition_local: _Optional[bool] = ..., fixed_width_keys: _Optional[bool] = ..., packable_keys: _Optional[bool] = ..., low_cardinality: _Optional[bool] = ..., reason: _Optional[str] = ..., rejected_candidates: _Optional[_Iterable[_Union[RejectedCandidate, _Mapping]]] = ..., columnar_operator: _Optional[str] = ..., columnar_fallback_type: _Optional[str] = ..., columnar_reason: _Optional[str] = ..., columnar_input_row_count: _Optional[int] = ..., columnar_affected_columns: _Optional[_Iterable[str]] = ..., threads: _Optional[int] = ...) -> None: ...

class DeliveryGuarantee(_message.Message):
    __slots__ = ("asked", "held", "why")
    ASKED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    asked: str
    held: str
    why: str
    def __init__(self, asked: _Optional[str] = ..., held: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class StreamStrategy(_message.Message):
    __slots__ = ("requested_mode", "selected_mode", "simd_backend", "compiled_backends", "aggregate_impl", "aggregate_reason", "reason", "actor_eligible", "used_actor_runtime", "transport_mode", "has_window", "has_stateful_ops", "sink_is_blocking", "source_is_bounded", "estimated_state_size_bytes", "estimated_batch_cost", "backpressure_max_queue_batches", "backpressure_high_watermark", "backpressure_low_watermark", "checkpoint_delivery_mode", "local_worker_count", "max_inflight_partitions", "shared_memory_transport", "shared_memory_min_payload_bytes", "columnar_operator", "columnar_fallback_type", "columnar_reason", "columnar_input_row_count", "columnar_affected_columns", "output_mode", "delivery_guarantee")
    REQUESTED_MODE_FIELD_NUMBER: _ClassVar[int]
    SELECTED_MODE_FIELD_NUMBER: _ClassVar[int]
    SIMD_BACKEND_FIELD_NUMBER: _ClassVar[int]
    COMPILED_BACKENDS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_IMPL_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_REASON_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    USED_ACTOR_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_MODE_FIELD_NUMBER: _ClassVar[int]
    HAS_WINDOW_FIELD_NUMBER: _ClassVar[int]
    HAS_STATEFUL_OPS_FIELD_NUMBER: _ClassVar[int]
    SINK_IS_BLOCKING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IS_BOUNDED_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_STATE_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_BATCH_COST_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_MAX_QUEUE_BATCHES_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_HIGH_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_LOW_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DELIVERY_MODE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_WORKER_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_INFLIGHT_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_MIN_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_OPERATOR_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_FALLBACK_TYPE_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_REASON_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_INPUT_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    COLUMNAR_AFFECTED_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_MODE_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    requested_mode: str
    selected_mode: str
    simd_backend: str
    compiled_backends: _containers.RepeatedScalarFieldContainer[str]
    aggregate_impl: str
    aggregate_reason: str
    reason: str
    actor_eligible: bool
    used_actor_runtime: bool
    transport_mode: str
    has_window: bool
    has_stateful_ops: bool
    sink_is_blocking: bool
    source_is_bounded: bool
    estimated_state_size_bytes: int
    estimated_batch_cost: int
    backpressure_max_queue_batches: int
    backpressure_high_watermark: int
    backpressure_low_watermark: int
    checkpoint_delivery_mode: str
    local_worker_count: int
    max_inflight_partitions: int
    shared_memory_transport: bool
    shared_memory_min_payload_bytes: int
    columnar_operator: str
    columnar_fallback_type: str
    columnar_reason: str
    columnar_input_row_count: int
    columnar_affected_columns: _containers.RepeatedScalarFieldContainer[str]
    output_mode: str
    delivery_guarantee: DeliveryGuarantee
    def __init__(self, requested_mode: _Optional[str] = ..., selected_mode: _Optional[str] = ..., simd_backend: _Optional[str] = ..., compiled_backends: _Optional[_Iterable[str]] = ..., aggregate_impl: _Optional[str] = ..., aggregate_reason: _Optional[str] = ..., reason: _Optional[str] = ..., actor_eligible: _Optional[bool] = ..., used_actor_runtime: _Optional[bool] = ..., transport_mode: _Optional[str] = ..., has_window: _Optional[bool] = ..., has_stateful_ops: _Optional[bool] = ..., sink_is_blocking: _Optional[bool] = ..., source_is_bounded: _Optional[bool] = ..., estimated_state_size_bytes: _Optional[int] = ..., estimated_batch_cost: _Optional[int] = ..., backpressure_max_queue_batches: _Optional[int] = ..., backpressure_high_watermark: _Optional[int] = ..., backpressure_low_watermark: _Optional[int] = ..., checkpoint_delivery_mode: _Optional[str] = ..., local_worker_count: _Optional[int] = ..., max_inflight_partitions: _Optional[int] = ..., shared_memory_transport: _Optional[bool] = ..., shared_memory_min_payload_bytes: _Optional[int] = ..., columnar_operator: _Optional[str] = ..., columnar_fallback_type: _Optional[str] = ..., columnar_reason: _Optional[str] = ..., columnar_input_row_count: _Optional[int] = ..., columnar_affected_columns: _Optional[_Iterable[str]] = ..., output_mode: _Optional[str] = ..., delivery_guarantee: _Optional[_Union[DeliveryGuarantee, _Mapping]] = ...) -> None: ...

class VectorExplain(_message.Message):
    __slots__ = ("mode", "metric", "dimension", "top_k", "candidate_rows", "filter_pushdown", "acceleration", "backend", "recall")
    MODE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    FILTER_PUSHDOWN_FIELD_NUMBER: _ClassVar[int]
    ACCELERATION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    mode: str
    metric: str
    dimension: int
    top_k: int
    candidate_rows: int
    filter_pushdown: bool
    acceleration: str
    backend: str
    recall: float
    def __init__(self, mode: _Optional[str] = ..., metric: _Optional[str] = ..., dimension: _Optional[int] = ..., top_k: _Optional[int] = ..., candidate_rows: _Optional[int] = ..., filter_pushdown: _Optional[bool] = ..., acceleration: _Optional[str] = ..., backend: _Optional[str] = ..., recall: _Optional[float] = ...) -> None: ...

class HybridExplain(_message.Message):
    __slots__ = ("mode", "metric", "top_k", "score_threshold", "score_threshold_compare", "input_rows", "candidate_rows", "returned_rows", "column_filter_stage", "column_filter_execution", "acceleration", "backend", "recall")
    MODE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_COMPARE_FIELD_NUMBER: _ClassVar[int]
    INPUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    RETURNED_ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FILTER_STAGE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FILTER_EXECUTION_FIELD_NUMBER: _ClassVar[int]
    ACCELERATION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    mode: str
    metric: str
    top_k: int
    score_threshold: float
    score_threshold_compare: str
    input_rows: int
    candidate_rows: int
    returned_rows: int
    column_filter_stage: str
    column_filter_execution: str
    acceleration: str
    backend: str
    recall: float
    def __init__(self, mode: _Optional[str] = ..., metric: _Optional[str] = ..., top_k: _Optional[int] = ..., score_threshold: _Optional[float] = ..., score_threshold_compare: _Optional[str] = ..., input_rows: _Optional[int] = ..., candidate_rows: _Optional[int] = ..., returned_rows: _Optional[int] = ..., column_filter_stage: _Optional[str] = ..., column_filter_execution: _Optional[str] = ..., acceleration: _Optional[str] = ..., backend: _Optional[str] = ..., recall: _Optional[float] = ...) -> None: ...
