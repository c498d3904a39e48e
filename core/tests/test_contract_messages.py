"""The messages of the contract: names, golden text, the way out and back, and what is refused.

Golden files are in golden/contract: every message with every field set, as JSON and as protobuf's text
format. They are compared byte by byte, and today's code must read them back. After a deliberate change:

    VELARIA_UPDATE_GOLDEN=1 pytest core/tests/test_contract_messages.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from google.protobuf import json_format, text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import (
    BATCH_EXPLAIN,
    CHECKPOINT,
    HYBRID_EXPLAIN,
    MESSAGES,
    PROGRESS,
    STREAM_EXPLAIN,
    VECTOR_EXPLAIN,
)

import velaria_core
from velaria_core import contract
from velaria_core.contract import codec, modes
from velaria_core.contract.codec import (
    NUMBER_MAX,
    BatchExplain,
    BatchPhysicalPlan,
    Checkpoint,
    HybridExplain,
    LogicalPlan,
    Message,
    PlanNode,
    Progress,
)
from velaria_core.errors import InputError, InternalError, StateError

GOLDEN = Path(__file__).parent / "golden" / "contract"

each_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)


def parts(message: Message) -> Iterator[Message]:
    """The message and every message in it."""
    yield message
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Message):
                yield from parts(part)


# --- names, by the rows of the reference inventory

FRONTEND = ["name", "dialect"]
BATCH_SECTIONS = ["frontend", "logical", "physical", "strategy"]
STREAM_SECTIONS = ["logical", "physical", "strategy"]
COLUMNAR = [
    "columnar_operator",
    "columnar_fallback_type",
    "columnar_reason",
    "columnar_input_row_count",
    "columnar_affected_columns",
]
BATCH_STRATEGY = [
    "selected_impl",
    "simd_backend",
    "compiled_backends",
    "partial_layout",
    "runtime_shape",
    "key_count",
    "ordered_input",
    "partition_local",
    "fixed_width_keys",
    "packable_keys",
    "low_cardinality",
    "reason",
    "rejected_candidates",
    *COLUMNAR,
]
BATCH_STRATEGY_ADDED = ["threads"]
STREAM_PHYSICAL = [
    "writes_to_sink",
    "sink",
    "has_window",
    "has_stateful_ops",
    "partition_local_prefix_nodes",
    "actor_eligible",
    "actor_eligibility_reason",
]
STREAM_STRATEGY = [
    "requested_mode",
    "selected_mode",
    "simd_backend",
    "compiled_backends",
    "aggregate_impl",
    "aggregate_reason",
    "reason",
    "actor_eligible",
    "used_actor_runtime",
    "transport_mode",
    "has_window",
    "has_stateful_ops",
    "sink_is_blocking",
    "source_is_bounded",
    "estimated_state_size_bytes",
    "estimated_batch_cost",
    "backpressure_max_queue_batches",
    "backpressure_high_watermark",
    "backpressure_low_watermark",
    "checkpoint_delivery_mode",
    "local_worker_count",
    "max_inflight_partitions",
    "shared_memory_transport",
    "shared_memory_min_payload_bytes",
    *COLUMNAR,
]
VECTOR = [
    "mode",
    "metric",
    "dimension",
    "top_k",
    "candidate_rows",
    "filter_pushdown",
    "acceleration",
    "backend",
    "recall",
]
HYBRID = [
    "mode",
    "metric",
    "top_k",
    "score_threshold",
    "score_threshold_compare",
    "input_rows",
    "candidate_rows",
    "returned_rows",
    "column_filter_stage",
    "column_filter_execution",
    "acceleration",
    "backend",
    "recall",
]
PROGRESS_NAMES = [
    "query_id",
    "status",
    "requested_execution_mode",
    "execution_mode",
    "execution_reason",
    "transport_mode",
    "aggregate_impl",
    "aggregate_reason",
    "batches_pulled",
    "batches_processed",
    "blocked_count",
    "max_backlog_batches",
    "inflight_batches",
    "inflight_partitions",
    "last_batch_latency_ms",
    "last_sink_latency_ms",
    "last_state_latency_ms",
    "last_source_offset",
    "backpressure_active",
    "actor_eligible",
    "used_actor_runtime",
    "used_shared_memory",
    "has_stateful_ops",
    "has_window",
    "sink_is_blocking",
    "source_is_bounded",
    "estimated_partitions",
    "projected_payload_bytes",
    "estimated_state_size_bytes",
    "estimated_batch_cost",
    "backpressure_max_queue_batches",
    "backpressure_high_watermark",
    "backpressure_low_watermark",
    "checkpoint_delivery_mode",
]
PROGRESS_ADDED = [
    "epoch",
    "watermark",
    "late_rows",
    "state_rows",
    "state_bytes",
    "output_mode",
    "rows_per_second",
    "delivery_guarantee",
    "late_dropped_rows",
    "ahead_rows",
    "rows_in",
    "rows_out",
    "bytes_in",
    "finished_at",
    "retried_count",
    "dead_letter_rows",
    "listener_errors",
    "error",
]
DEAD = [
    "sampled_batches",
    "sampled_rows_per_batch",
    "average_projected_payload_bytes",
    "actor_speedup",
    "compute_to_overhead_ratio",
]
CHECKPOINT_NAMES = [
    "batches_pulled",
    "batches_processed",
    "blocked_count",
    "max_backlog_batches",
    "last_source_offset",
    "requested_execution_mode",
    "execution_mode",
    "execution_reason",
    "transport_mode",
    "aggregate_impl",
    "aggregate_reason",
    "estimated_state_size_bytes",
    "estimated_batch_cost",
    "backpressure_max_queue_batches",
    "backpressure_high_watermark",
    "backpressure_low_watermark",
    "checkpoint_delivery_mode",
]
CHECKPOINT_ADDED = [
    "version",
    "checksum",
    "query_fingerprint",
    "query_id",
    "epoch",
    "watermark",
    "sources",
    "states",
    "staged",
]


def test_names_of_progress_4_1() -> None:
    """Section 4.1 in its order, without the dead fields; then what architecture.md section 9 adds."""
    assert len(PROGRESS_NAMES) == 39 - len(DEAD)
    assert list(PROGRESS.to_dict()) == PROGRESS_NAMES + PROGRESS_ADDED


def test_names_of_checkpoint_c10() -> None:
    """C-10: the 17 keys, after what a restart needs (C-11: version, checksum, fingerprint; C-14: state)."""
    assert len(CHECKPOINT_NAMES) == 17
    assert list(CHECKPOINT.to_dict()) == CHECKPOINT_ADDED + CHECKPOINT_NAMES


def test_names_of_batch_explain_c20_c21() -> None:
    shown = BATCH_EXPLAIN.to_dict()
    assert list(shown) == BATCH_SECTIONS
    assert list(shown["frontend"]) == FRONTEND
    assert list(shown["logical"]) == ["seed_columns", "steps"]
    assert list(shown["physical"]) == ["nodes", "engine_plan", "time_ms"]
    assert {"kind", "barrier", "reason"} <= set(shown["physical"]["nodes"][0])
    assert list(shown["strategy"]) == [*BATCH_STRATEGY, *BATCH_STRATEGY_ADDED]


def test_names_of_stream_explain_c22_c23_c24() -> None:
    shown = STREAM_EXPLAIN.to_dict()
    assert list(shown) == STREAM_SECTIONS
    assert list(shown["physical"]) == [*STREAM_PHYSICAL, "nodes", "epochs", "time_ms", "state_ms"]
    assert list(shown["strategy"]) == [*STREAM_STRATEGY, "output_mode", "delivery_guarantee"]


def test_names_of_plan_node_c25() -> None:
    """C-25: a node with its details; architecture.md section 9: shape, state and cost of each."""
    shown = BATCH_EXPLAIN.to_dict()["physical"]["nodes"][0]
    assert {"operator", "label", "details", "shape", "state", "cost", "inputs"} <= set(shown)
    assert shown["details"] == {"keys": "城市", "metrics": "count(*) AS n"}
    assert list(shown["details"]) == sorted(shown["details"])


def test_names_of_search_explain_4_4() -> None:
    assert list(VECTOR_EXPLAIN.to_dict()) == VECTOR
    assert list(HYBRID_EXPLAIN.to_dict()) == HYBRID


def test_delivery_guarantee_says_what_was_asked_what_holds_and_why() -> None:
    assert list(PROGRESS.to_dict()["delivery_guarantee"]) == ["asked", "held", "why"]


@each_message
def test_dead_fields_are_gone_b30(message: Message) -> None:
    """B-30: fields that are always 0 are in no message."""
    for part in parts(message):
        assert not set(DEAD) & set(part.to_proto().DESCRIPTOR.fields_by_name)


TEXTS = {
    modes.QueryStatus: "created running backpressure restored stopped failed",
    modes.ExecutionMode: "single-process local-workers worker-processes",
    modes.TransportMode: "inproc rpc-copy shared-memory",
    modes.DeliveryMode: "exactly-once at-least-once best-effort",
    modes.OutputMode: "append update complete",
    modes.ColumnarFallback: "none missing-columnar-cache row-materialized-input invalid-columnar-cache "
    "not-observed boundary-materialization",
    modes.Metric: "cosine dot l2",
    modes.FilterExecution: "none post-load-filter source-pushdown",
    modes.Shape: "source linear timed bilinear keyed recompute sink",
}


@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: kind.__name__)
def test_texts_of_closed_sets(kind: type[StrEnum]) -> None:
    assert [member.value for member in kind] == TEXTS[kind].split()


# --- golden text


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("VELARIA_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@each_message
def test_every_field_is_set(message: Message) -> None:
    """Golden files hide nothing: in some part of each kind, no field is at its default (B-31)."""
    unset: dict[str, set[str]] = {}
    for part in parts(message):
        proto = part.to_proto()
        names = {field.name for field in proto.DESCRIPTOR.fields}
        missing = names - {field.name for field, _ in proto.ListFields()}
        unset[type(part).__name__] = unset.get(type(part).__name__, names) & missing
    assert not any(unset.values()), unset


@each_message
def test_golden_json(message: Message) -> None:
    check_golden(f"{type(message).__name__}.json", message.to_json(indent=2) + "\n")


@each_message
def test_golden_text_format(message: Message) -> None:
    text = text_format.MessageToString(message.to_proto(), as_utf8=True)
    check_golden(f"{type(message).__name__}.txtpb", text)


@each_message
def test_golden_files_are_read_back(message: Message) -> None:
    kind = type(message)
    assert kind.from_json((GOLDEN / f"{kind.__name__}.json").read_bytes()) == message
    text = (GOLDEN / f"{kind.__name__}.txtpb").read_text(encoding="utf-8")
    assert kind.from_proto(text_format.Parse(text, type(message.to_proto())())) == message


def test_no_golden_file_is_left_over() -> None:
    names = {f"{type(message).__name__}.{kind}" for message in MESSAGES for kind in ("json", "txtpb")}
    assert {path.name for path in GOLDEN.iterdir()} == names


# --- the way out and back


@each_message
def test_round_trip(message: Message) -> None:
    kind = type(message)
    assert kind.from_json(message.to_json()) == message
    assert kind.from_json(message.to_json(indent=2).encode()) == message
    assert kind.from_bytes(message.to_bytes()) == message
    assert kind.from_proto(message.to_proto()) == message
    assert message.to_bytes() == kind.from_json(message.to_json()).to_bytes()


@each_message
def test_json_format_alone_prints_the_same(message: Message) -> None:
    alone = json_format.MessageToJson(
        message.to_proto(),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        unquote_int64_if_possible=True,
    )
    assert json.loads(alone) == without_null(message.to_dict())


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_null(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_null(each) for each in value]
    return value


def test_every_key_is_there_from_the_start() -> None:
    """A reader never meets a key that comes and goes; what is not known is null."""
    first = dataclasses.replace(PROGRESS, watermark=None, epoch=0, last_source_offset="", late_rows=0)
    assert list(first.to_dict()) == list(PROGRESS.to_dict())
    assert first.to_dict()["watermark"] is None
    assert first.to_dict()["late_rows"] == 0
    assert Progress.from_json(first.to_json()) == first
    assert Progress.from_bytes(first.to_bytes()) == first

    free = dataclasses.replace(HYBRID_EXPLAIN, score_threshold=None)
    assert free.to_dict()["score_threshold"] is None
    zero = dataclasses.replace(HYBRID_EXPLAIN, score_threshold=0.0)
    assert HybridExplain.from_json(free.to_json()) == free != zero == HybridExplain.from_bytes(zero.to_bytes())


def test_absent_zero_and_empty_parts_stay_apart() -> None:
    node = BATCH_EXPLAIN.physical.nodes[1]
    measured = dataclasses.replace(node, rows=0, time_ms=0.0)
    assert PlanNode.from_bytes(node.to_bytes()).rows is None
    assert PlanNode.from_bytes(measured.to_bytes()).rows == 0
    bare = dataclasses.replace(BATCH_EXPLAIN, logical=LogicalPlan(seed_columns=(), steps=()))
    assert BatchExplain.from_bytes(bare.to_bytes()) == bare


@pytest.mark.parametrize("count", [0, 2**31, 2**32, 2**53 - 1])
def test_counts_are_numbers_in_json(count: int) -> None:
    text = dataclasses.replace(PROGRESS, state_bytes=count).to_json()
    assert json.loads(text)["state_bytes"] == count
    assert f'"state_bytes": {count},' in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state_bytes", NUMBER_MAX + 1),
        ("state_bytes", -1),
        ("state_bytes", 1.5),
        ("estimated_partitions", 2**32),
        ("rows_per_second", float("nan")),
        ("rows_per_second", float("inf")),
        ("query_id", "\ud800"),
        ("query_id", 5),
    ],
)
def test_a_value_that_does_not_fit_is_named(field: str, value: Any) -> None:
    with pytest.raises(InternalError, match=rf"Progress\.{field} cannot be") as caught:
        dataclasses.replace(PROGRESS, **{field: value}).to_json()
    assert caught.value.code == "contract.unfit"


def test_a_long_plan_has_no_depth() -> None:
    """protobuf stops reading at 100 levels, and plans do not."""
    chain = tuple(dataclasses.replace(BATCH_EXPLAIN.physical.nodes[1], id=i, inputs=(i + 1,)) for i in range(1000))
    plan = BatchPhysicalPlan(nodes=chain)
    assert BatchPhysicalPlan.from_bytes(plan.to_bytes()) == plan
    assert BatchPhysicalPlan.from_json(plan.to_json()) == plan


MESSAGE_KINDS = sorted({type(part) for message in MESSAGES for part in parts(message)}, key=lambda k: k.__name__)
each_kind = pytest.mark.parametrize("kind", MESSAGE_KINDS, ids=lambda kind: kind.__name__)


def proto_of(kind: type[Message]) -> Any:
    return next(part for message in MESSAGES for part in parts(message) if type(part) is kind).to_proto()


@each_kind
def test_dataclass_and_proto_have_the_same_fields(kind: type[Message]) -> None:
    sealed = {"version", "checksum"} if kind is Checkpoint else set()
    fields = {field.name for field in dataclasses.fields(kind)}
    assert fields | sealed == set(proto_of(kind).DESCRIPTOR.fields_by_name)


def test_every_message_of_the_protos_has_a_class() -> None:
    files = {proto_of(kind).DESCRIPTOR.file for kind in MESSAGE_KINDS}
    declared = {name for file in files for name in file.message_types_by_name}
    assert declared == {kind.__name__ for kind in MESSAGE_KINDS}
    assert len(files) == 3


def any_message(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Any value of the class, by its type hints and the widths of the .proto."""
    descriptor = proto_of(kind).DESCRIPTOR
    hints = get_type_hints(kind)
    return st.builds(
        kind,
        **{
            field.name: any_value(hints[field.name], descriptor.fields_by_name[field.name])
            for field in dataclasses.fields(kind)
        },
    )


def any_value(hint: Any, field: Any) -> st.SearchStrategy[Any]:
    arguments = get_args(hint)
    if type(None) in arguments:
        return st.none() | any_value(arguments[0], field)
    if get_origin(hint) is tuple:
        return st.lists(any_value(arguments[0], field), max_size=3).map(tuple)
    if arguments:
        return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
    if issubclass(hint, Message):
        return any_message(hint)
    if issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(0, 2**32 - 1 if field.type == field.TYPE_UINT32 else NUMBER_MAX)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    assert hint is str, hint
    return st.text(max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.one_of([any_message(type(message)) for message in MESSAGES]))
def test_any_message_comes_back(message: Message) -> None:
    kind = type(message)
    assert kind.from_bytes(message.to_bytes()) == message
    assert kind.from_json(message.to_json()) == message


# --- what is refused

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*PROGRESS_NAMES, *CHECKPOINT_ADDED, *BATCH_SECTIONS]), inner, max_size=4)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(any_json, st.binary(max_size=20))
def test_anything_else_is_refused_with_a_velaria_error(value: Any, data: bytes) -> None:
    for kind in (BatchExplain, Progress):
        with pytest.raises(InputError, match=f"this {kind.__name__} cannot be read"):
            kind.from_json(json.dumps(value))
        with pytest.raises(InputError):
            kind.from_json(data)
        with pytest.raises(InputError):
            kind.from_bytes(data)
    with pytest.raises(StateError):
        Checkpoint.from_json(json.dumps(value))
    with pytest.raises(StateError):
        Checkpoint.from_bytes(data)


def test_a_list_is_no_message() -> None:
    for text in ("[]", '""', "null", b" [ ]"):
        with pytest.raises(InputError, match="not a JSON object"):
            LogicalPlan.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"epoch":' * 100_000], ids=range(4))
def test_broken_json_is_refused(text: str) -> None:
    with pytest.raises(StateError) as caught:
        Checkpoint.from_json(text)
    assert caught.value.code == "checkpoint.damaged"


def changed(message: Message, **values: Any) -> str:
    return json.dumps({**message.to_dict(), **values})


def test_unknown_field_in_json_is_refused() -> None:
    with pytest.raises(InputError, match="actor_speedup") as caught:
        Progress.from_json(changed(PROGRESS, actor_speedup=0))
    assert caught.value.code == "contract.damaged"
    assert "newer" in str(caught.value.hint)
    with pytest.raises(StateError, match="surprise") as refused:
        Checkpoint.from_json(changed(CHECKPOINT, surprise=1))
    assert refused.value.code == "checkpoint.damaged"


def with_unknown(data: bytes) -> bytes:
    return data + b"\xf8\x7f\x01"  # field 2047, varint 1


def test_unknown_field_in_bytes_is_refused_at_any_depth() -> None:
    with pytest.raises(InputError, match="does not know"):
        Progress.from_bytes(with_unknown(PROGRESS.to_bytes()))
    inner = with_unknown(BATCH_EXPLAIN.physical.nodes[0].to_bytes())
    plan = b"\x0a" + varint(len(inner)) + inner  # BatchPhysicalPlan.nodes
    outer = BATCH_EXPLAIN.to_bytes() + b"\x1a" + varint(len(plan)) + plan  # BatchExplain.physical
    with pytest.raises(InputError, match="does not know"):
        BatchExplain.from_bytes(outer)


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def test_unknown_text_of_a_closed_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"Progress\.status: 'sleeping'"):
        Progress.from_json(changed(PROGRESS, status="sleeping"))
    with pytest.raises(InputError, match=r"DeliveryGuarantee\.held: ''"):
        Progress.from_json(changed(PROGRESS, delivery_guarantee={"asked": "exactly-once"}))


def test_missing_part_is_refused() -> None:
    with pytest.raises(InputError, match=r"BatchExplain\.strategy is missing"):
        BatchExplain.from_json(changed(BATCH_EXPLAIN, strategy=None))


def test_a_frame_has_no_frontend() -> None:
    frame = dataclasses.replace(BATCH_EXPLAIN, frontend=None)
    assert frame.to_dict()["frontend"] is None
    assert BatchExplain.from_bytes(frame.to_bytes()) == frame


def test_newer_version_is_refused_before_its_unknown_fields() -> None:
    newer = changed(CHECKPOINT, version=2, surprise=1)
    with pytest.raises(StateError, match="has version 2") as caught:
        Checkpoint.from_json(newer)
    assert caught.value.code == "checkpoint.version"
    assert "up to version 1" in str(caught.value.hint)

    message: Any = CHECKPOINT.to_proto()
    message.version = 2
    with pytest.raises(StateError, match="has version 2"):
        Checkpoint.from_bytes(with_unknown(message.SerializeToString()))


def test_checkpoint_without_version_is_refused() -> None:
    for text in ("{}", changed(CHECKPOINT, version=0), changed(CHECKPOINT, version=None)):
        with pytest.raises(StateError, match="no version"):
            Checkpoint.from_json(text)
    with pytest.raises(StateError, match="no version"):
        Checkpoint.from_bytes(b"")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 8},
        {"query_fingerprint": "4f2a9d"},
        {"watermark": None},
        {"sources": []},
        {"checksum": ""},
        {"checksum": "sha256:" + "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_checkpoint_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StateError) as caught:
        Checkpoint.from_json(changed(CHECKPOINT, **change))
    assert caught.value.code == "checkpoint.checksum"


def test_checksum_does_not_depend_on_the_way_it_is_written() -> None:
    """Order of keys, blanks and nulls are not content; a hand may reformat the file."""
    values = CHECKPOINT.to_dict()
    shuffled = {key: values[key] for key in reversed(values) if values[key] is not None}
    assert Checkpoint.from_json(json.dumps(shuffled, indent=7)) == CHECKPOINT


def test_checksum_is_the_documented_one() -> None:
    """checkpoint.proto says how it is made, so that other tools can check it."""
    from hashlib import sha256

    values = without_null(CHECKPOINT.to_dict())
    given_sum = values.pop("checksum")
    values["sources"] = [{key: each[key] for key in each if each[key]} for each in values["sources"]]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert given_sum == "sha256:" + sha256(text.encode()).hexdigest()


def test_any_flipped_bit_of_a_checkpoint_is_seen() -> None:
    for data, read in (
        (CHECKPOINT.to_bytes(), Checkpoint.from_bytes),
        (CHECKPOINT.to_json().encode(), Checkpoint.from_json),
    ):
        for at in range(len(data)):
            damaged = bytearray(data)
            damaged[at] ^= 1 << at % 8
            with pytest.raises(StateError) as caught:
                read(bytes(damaged))
            assert caught.value.code.startswith("checkpoint."), at


def test_any_truncation_of_a_checkpoint_is_seen() -> None:
    for data, read in (
        (CHECKPOINT.to_bytes(), Checkpoint.from_bytes),
        (CHECKPOINT.to_json().encode(), Checkpoint.from_json),
    ):
        for length in range(len(data)):
            with pytest.raises(StateError):
                read(data[:length])


# --- the package


def test_public_names_resolve() -> None:
    for name in contract.__all__:
        assert getattr(contract, name) is getattr(sys.modules[f"velaria_core.contract.{contract._HOME[name]}"], name)
    assert dir(contract) == contract.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        contract.Nothing  # noqa: B018


def test_every_message_and_closed_set_is_public() -> None:
    assert {kind.__name__ for kind in MESSAGE_KINDS} <= set(contract.__all__)
    sets = {name for name, kind in vars(modes).items() if isinstance(kind, type) and kind.__module__ == modes.__name__}
    assert sets <= set(contract.__all__)


def test_importing_the_contract_loads_no_library() -> None:
    code = (
        "import sys, velaria_core.contract.codec, velaria_core.contract.abi\n"
        "print([name for name in ('google.protobuf', 'pyarrow', 'duckdb', 'numpy') if name in sys.modules])"
    )
    root = Path(velaria_core.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.stdout == "[]\n"


def test_only_the_codec_knows_the_generated_modules() -> None:
    root = Path(velaria_core.__file__).parent
    users = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if "_pb2" not in path.name and re.search(r"_pb2\b|contract\.v1", path.read_text(encoding="utf-8"))
    }
    assert users == {Path(codec.__file__).relative_to(root).as_posix()}
