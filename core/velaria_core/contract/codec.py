"""Messages of the contract as frozen dataclasses, and their way to protobuf, JSON and bytes and back.

A dataclass has the fields of the protobuf message of the same name, which tests hold against each other. So
one walk over the fields carries any message either way, and a field is added in two places: the .proto and
the class. What each field means is said once, in the .proto.

Three rules make the JSON fit for use outside Velaria:
- every key is always there, in the order of the .proto; a value that is not known is null;
- a number is a number (protobuf alone would print 64-bit integers as texts), finite, and small enough that a
  double holds it exactly, which readers in other languages rely on;
- a text of a closed set is one of `modes`.

protobuf is imported when the first message is converted, not with this module, which keeps `import velaria`
light. This is the only importer of the generated modules.
"""

# Annotations are not postponed here: the walk reads them from the classes.
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from hashlib import sha256
from importlib import import_module
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from velaria_core.contract.modes import (
    ColumnarFallback,
    DeliveryMode,
    ExecutionMode,
    FilterExecution,
    Metric,
    OutputMode,
    QueryStatus,
    Shape,
    TransportMode,
)
from velaria_core.errors import InputError, InternalError, StateError, VelariaError

if TYPE_CHECKING:
    from google.protobuf.message import Message as Proto

# Up to here a double counts in ones, and so does every JSON reader.
NUMBER_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the contract: an immutable value with its ways out and in.

    Every `from_*` raises `InputError[contract.*]` (a `Checkpoint`: `StateError[checkpoint.*]`) for what it
    cannot read, an unknown field included: such a message is damaged, or newer than this Velaria.
    """

    _file: ClassVar[str] = "explain"  # the .proto that defines the message
    _refusal: ClassVar[type[VelariaError]] = InputError
    _prefix: ClassVar[str] = "contract"
    _version: ClassVar[int | None] = None  # a sealed message has one: see `_seal`

    def to_dict(self) -> dict[str, Any]:
        """The JSON projection as plain values."""
        return _projection(self.to_proto())

    def to_json(self, indent: int | None = None) -> str:
        """The JSON projection as text, in one line unless `indent` is given."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def to_bytes(self) -> bytes:
        """The protobuf encoding."""
        return self.to_proto().SerializeToString(deterministic=True)

    def to_proto(self) -> "Proto":
        """The protobuf message, for a transport that carries such.

        Raises:
            InternalError[contract.unfit]: a value that the message cannot hold, such as a negative count.
        """
        message = self._blank()
        _write(self, message)
        if self._version is not None:
            _seal(message, self._version)
        return message

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a JSON projection. A key may be left out where its value is null, 0, false or empty."""
        from google.protobuf import json_format

        lenient, strict = cls._blank(), cls._blank()
        try:
            if text.strip()[:1] not in ("{", b"{"):  # an empty list would pass for a message without fields
                raise ValueError("it is not a JSON object")
            json_format.Parse(text, lenient, ignore_unknown_fields=True)
            cls._refuse_other_version(lenient)  # first: a newer text is newer before it is strange
            json_format.Parse(text, strict)
        except (json_format.ParseError, ValueError, RecursionError) as error:
            raise cls._damaged(str(error), error) from error
        return cls.from_proto(strict)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a protobuf encoding."""
        from google.protobuf.message import DecodeError

        message = cls._blank()
        try:
            message.ParseFromString(data)
        except DecodeError as error:
            raise cls._damaged(str(error), error) from error
        return cls.from_proto(message)

    @classmethod
    def from_proto(cls, message: "Proto") -> Self:
        """Read a protobuf message of the class's own type."""
        cls._refuse_other_version(message)
        if _has_unknown(message):
            raise cls._damaged("it has fields that this Velaria does not know")
        if cls._version is not None and message.checksum != _checksum(message):  # type: ignore[attr-defined]
            raise cls._refuse("checksum", "its content does not fit its checksum", "it was changed or damaged")
        value: Self = _read(cls, message, cls)
        return value

    @classmethod
    def _blank(cls) -> "Proto":
        module = import_module(f"velaria_core.contract.v1.{cls._file}_pb2")
        blank: Proto = getattr(module, cls.__name__)()
        return blank

    @classmethod
    def _refuse_other_version(cls, message: "Proto") -> None:
        if cls._version is None:
            return
        version: int = message.version  # type: ignore[attr-defined]
        if version > cls._version:
            hint = f"this Velaria reads up to version {cls._version}: use a newer one"
            raise cls._refuse("version", f"it has version {version}", hint)
        if version < 1:
            raise cls._refuse("version", "it has no version", "is it a file of Velaria?")

    @classmethod
    def _damaged(cls, why: str, cause: BaseException | None = None) -> VelariaError:
        return cls._refuse("damaged", why, "it is damaged, or a newer Velaria wrote it", cause)

    @classmethod
    def _refuse(cls, code: str, why: str, hint: str, cause: BaseException | None = None) -> VelariaError:
        what = f"this {cls.__name__} cannot be read: {why}"
        return cls._refusal(f"{cls._prefix}.{code}", what, hint=hint, cause=cause)


# --- explain.proto


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend(Message):
    name: str
    dialect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalPlan(Message):
    seed_columns: tuple[str, ...]
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanNode(Message):
    id: int
    operator: str
    label: str
    kind: str
    barrier: bool
    reason: str
    shape: Shape
    state: str
    cost: str
    details: Mapping[str, str] = field(default_factory=dict)
    estimated_rows: int | None = None
    rows: int | None = None
    time_ms: float | None = None
    state_rows: int | None = None
    state_bytes: int | None = None
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPhysicalPlan(Message):
    nodes: tuple[PlanNode, ...]
    engine_plan: str = ""
    time_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPhysicalPlan(Message):
    writes_to_sink: bool
    sink: str
    has_window: bool
    has_stateful_ops: bool
    partition_local_prefix_nodes: int
    actor_eligible: bool
    actor_eligibility_reason: str
    nodes: tuple[PlanNode, ...]
    epochs: int | None = None
    time_ms: float | None = None
    state_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedCandidate(Message):
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Columnar(Message):
    """Which columns of which operator left the columnar path, and why; part of both strategies."""

    columnar_operator: str
    columnar_fallback_type: ColumnarFallback
    columnar_reason: str
    columnar_input_row_count: int | None
    columnar_affected_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStrategy(Columnar):
    selected_impl: str
    simd_backend: str
    compiled_backends: tuple[str, ...]
    partial_layout: str
    runtime_shape: str
    key_count: int
    ordered_input: bool
    partition_local: bool
    fixed_width_keys: bool
    packable_keys: bool
    low_cardinality: bool
    reason: str
    rejected_candidates: tuple[RejectedCandidate, ...]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryGuarantee(Message):
    asked: DeliveryMode
    held: DeliveryMode
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStrategy(Columnar):
    requested_mode: ExecutionMode
    selected_mode: ExecutionMode
    simd_backend: str
    compiled_backends: tuple[str, ...]
    aggregate_impl: str
    aggregate_reason: str
    reason: str
    actor_eligible: bool
    used_actor_runtime: bool
    transport_mode: TransportMode
    has_window: bool
    has_stateful_ops: bool
    sink_is_blocking: bool
    source_is_bounded: bool
    estimated_state_size_bytes: int
    estimated_batch_cost: int
    backpressure_max_queue_batches: int
    backpressure_high_watermark: int
    backpressure_low_watermark: int
    checkpoint_delivery_mode: DeliveryMode
    local_worker_count: int
    max_inflight_partitions: int
    shared_memory_transport: bool
    shared_memory_min_payload_bytes: int
    output_mode: OutputMode
    delivery_guarantee: DeliveryGuarantee


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchExplain(Message):
    frontend: Frontend | None
    logical: LogicalPlan
    physical: BatchPhysicalPlan
    strategy: BatchStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamExplain(Message):
    logical: LogicalPlan
    physical: StreamPhysicalPlan
    strategy: StreamStrategy


Explain = BatchExplain | StreamExplain
Strategy = BatchStrategy | StreamStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorExplain(Message):
    mode: str
    metric: Metric
    dimension: int
    top_k: int
    candidate_rows: int
    filter_pushdown: bool
    acceleration: str
    backend: str
    recall: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridExplain(Message):
    mode: str
    metric: Metric
    top_k: int
    score_threshold: float | None
    score_threshold_compare: str
    input_rows: int
    candidate_rows: int
    returned_rows: int
    column_filter_stage: str
    column_filter_execution: FilterExecution
    acceleration: str
    backend: str
    recall: float | None = None


# --- progress.proto, checkpoint.proto


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters(Message):
    """What a checkpoint keeps of the progress, so that it goes on and does not begin anew."""

    query_id: str
    epoch: int
    watermark: str | None
    batches_pulled: int
    batches_processed: int
    blocked_count: int
    max_backlog_batches: int
    last_source_offset: str
    requested_execution_mode: ExecutionMode
    execution_mode: ExecutionMode
    execution_reason: str
    transport_mode: TransportMode
    aggregate_impl: str
    aggregate_reason: str
    estimated_state_size_bytes: int
    estimated_batch_cost: int
    backpressure_max_queue_batches: int
    backpressure_high_watermark: int
    backpressure_low_watermark: int
    checkpoint_delivery_mode: DeliveryMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Counters):
    _file: ClassVar[str] = "progress"

    status: QueryStatus
    inflight_batches: int
    inflight_partitions: int
    last_batch_latency_ms: float
    last_sink_latency_ms: float
    last_state_latency_ms: float
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
    late_rows: int
    state_rows: int
    state_bytes: int
    output_mode: OutputMode
    rows_per_second: float
    delivery_guarantee: DeliveryGuarantee
    late_dropped_rows: int
    ahead_rows: int
    rows_in: int
    rows_out: int
    bytes_in: int
    finished_at: str | None
    retried_count: int
    dead_letter_rows: int
    listener_errors: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOffset(Message):
    _file: ClassVar[str] = "checkpoint"

    source: str
    offset: str
    watermark: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSnapshot(Message):
    _file: ClassVar[str] = "checkpoint"

    step: str
    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedOutput(Message):
    _file: ClassVar[str] = "checkpoint"

    sink: str
    epoch: int
    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Counters):
    """Sealed: `version` and `checksum` are written and verified on the way, and no fields of the value."""

    _file: ClassVar[str] = "checkpoint"
    _refusal: ClassVar[type[VelariaError]] = StateError
    _prefix: ClassVar[str] = "checkpoint"
    _version: ClassVar[int | None] = 1

    query_fingerprint: str
    sources: tuple[SourceOffset, ...]
    states: tuple[StateSnapshot, ...]
    staged: tuple[StagedOutput, ...]


# --- the walk

Convert = Callable[[Any, type[Message]], Any]


def _write(value: Message, message: "Proto") -> None:
    """Set every field of `message` from the dataclass `value`; None leaves a field absent."""
    message.SetInParent()  # a part with nothing but defaults is there all the same
    for item in fields(value):
        given = getattr(value, item.name)
        try:
            if given is None:
                continue
            if isinstance(given, Message):
                _write(given, getattr(message, item.name))
            elif isinstance(given, tuple):
                repeated = getattr(message, item.name)
                for part in given:
                    if isinstance(part, Message):
                        _write(part, repeated.add())
                    else:
                        repeated.append(_fit(part))
            elif isinstance(given, Mapping):
                getattr(message, item.name).update(given)
            else:
                setattr(message, item.name, _fit(given))
        except (TypeError, ValueError) as error:
            what = f"{type(value).__name__}.{item.name} cannot be {given!r}: {error}"
            raise InternalError("contract.unfit", what, cause=error) from error


def _fit(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it is not finite")
    if isinstance(value, int) and value > NUMBER_MAX:
        raise ValueError(f"it is above {NUMBER_MAX}")
    return value


def _read(kind: Any, message: "Proto", whole: type[Message]) -> Any:
    """The dataclass of `message`; `whole` is the outermost class, whose error an unreadable part raises."""
    values: dict[str, Any] = {}
    by_name = message.DESCRIPTOR.fields_by_name
    for name, (optional, convert) in _converters(kind).items():
        if by_name[name].has_presence and not message.HasField(name):
            if not optional:
                raise whole._damaged(f"{kind.__name__}.{name} is missing")
            values[name] = None
            continue
        try:
            values[name] = convert(getattr(message, name), whole)
        except ValueError as error:  # an enum that does not have the text
            raise whole._damaged(f"{kind.__name__}.{name}: {error}", error) from error
    return kind(**values)


@cache
def _converters(kind: Any) -> dict[str, tuple[bool, Convert]]:
    """Field name -> whether it may be absent, and the way from protobuf's value to the dataclass's."""
    hints = get_type_hints(kind)
    return {item.name: (NoneType in get_args(hints[item.name]), _converter(hints[item.name])) for item in fields(kind)}


def _converter(hint: Any) -> Convert:
    if NoneType in get_args(hint):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is tuple:
        each = _converter(get_args(hint)[0])
        return lambda values, whole: tuple(each(value, whole) for value in values)
    if get_origin(hint) is Mapping:
        return lambda values, _: dict(values)
    if issubclass(hint, Message):
        return lambda value, whole: _read(hint, value, whole)
    if issubclass(hint, StrEnum):
        return lambda value, _: hint(value)
    return lambda value, _: value


def _projection(message: "Proto") -> dict[str, Any]:
    from google.protobuf import json_format

    values = json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        unquote_int64_if_possible=True,
    )
    return _ordered(message.DESCRIPTOR, values)


def _ordered(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """`values` with every key, in the order of the .proto; json_format puts fields at their default last."""
    ordered: dict[str, Any] = {}
    for item in kind.fields:
        value = values.get(item.name)
        part = item.message_type
        if part is not None and value is not None:
            if part.GetOptions().map_entry:
                value = dict(sorted(value.items()))
            elif isinstance(value, list):
                value = [_ordered(part, each) for each in value]
            else:
                value = _ordered(part, value)
        ordered[item.name] = value
    return ordered


def _seal(message: Any, version: int) -> None:
    message.version = version
    message.checksum = _checksum(message)


def _checksum(message: "Proto") -> str:
    """The checksum as checkpoint.proto defines it; protobuf's own bytes are not canonical."""
    from google.protobuf import json_format

    values = json_format.MessageToDict(message, preserving_proto_field_name=True, unquote_int64_if_possible=True)
    values.pop("checksum", None)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + sha256(text.encode()).hexdigest()


def _has_unknown(message: "Proto") -> bool:
    from google.protobuf.unknown_fields import UnknownFieldSet

    if len(UnknownFieldSet(message)):
        return True
    for item, value in message.ListFields():
        part = item.message_type
        if part is None or part.GetOptions().map_entry:
            continue
        for each in value if item.is_repeated else (value,):
            if _has_unknown(each):
                return True
    return False
