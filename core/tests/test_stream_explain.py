"""Explain of streams: whole texts for plans of every kind, that what is said holds, and that what was measured adds up.

T-14: sections, keys and who may run the steps. B-31: values, not names alone. Golden files: golden/stream_explain;
after a deliberate change:

    VELARIA_UPDATE_GOLDEN=1 pytest core/tests/test_stream_explain.py
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from velaria_core import fn
from velaria_core.contract.codec import PlanNode, StreamExplain
from velaria_core.contract.modes import ExecutionMode, Shape
from velaria_core.errors import InputError
from velaria_core.execution.sinks.memory import MemorySink
from velaria_core.execution.sources.memory import MemorySource
from velaria_core.execution.sources.queue import QueueSource
from velaria_core.session import DataflowSession

GOLDEN = Path(__file__).parent / "golden" / "stream_explain"
UPDATE = bool(os.environ.get("VELARIA_UPDATE_GOLDEN"))
BACKEND = re.compile(r"duckdb \d+\.\d+\.\d+\S* [a-z]+_\w+")

BIDS = pa.table(
    {
        "auction": pa.array([1, 2, 1, 3], pa.int64()),
        "price": pa.array([10, 20, 30, 40], pa.int64()),
        "ts": pa.array([0, 1_000_000, 2_000_000, 3_000_000], pa.timestamp("us")),
    }
)
NAMES = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["one", "two", "three"]})
ASKS = BIDS.rename_columns(["item", "ask", "at"])


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    with DataflowSession(threads=2) as made:
        made.create_temp_view("bids", made.read_stream(MemorySource([BIDS, BIDS]), "bids"))
        made.create_temp_view("asks", made.read_stream(QueueSource(ASKS.schema), "asks"))
        made.create_temp_view("names", made.create_dataframe(NAMES))
        yield made


QUERIES = {
    "row_wise": "SELECT auction, price * 2 AS double FROM bids WHERE price > 10",
    "count": "SELECT auction, count(*) AS n, sum(price) AS s, avg(price) AS a FROM bids GROUP BY auction",
    "having": "SELECT auction, count(*) AS n FROM bids GROUP BY auction HAVING count(*) > 1",
    "whole": "SELECT max(price) AS m FROM bids",
    "windowed": "SELECT w, count(*) AS n FROM bids WINDOW BY ts EVERY 60000 AS w GROUP BY w",
    "join_table": "SELECT name, max(price) AS m FROM bids JOIN names ON auction = id GROUP BY name",
    "join_streams": "SELECT auction, price, ask FROM bids JOIN asks ON auction = item AND price >= ask",
    "join_left": "SELECT auction, ask FROM bids LEFT JOIN asks ON auction = item",
    "aggregate_of_aggregate": "SELECT n, count(*) AS m FROM (SELECT count(*) n FROM bids GROUP BY auction) GROUP BY n",
    "distinct": "SELECT DISTINCT auction FROM bids",
    "top": "SELECT auction, price FROM bids ORDER BY price DESC LIMIT 2",
    "recompute": "SELECT auction, row_number() OVER (ORDER BY price) AS place FROM bids",
}


def compare(name: str, asked: str, explained: str) -> None:
    """Hold an explain against its golden file."""
    path = GOLDEN / f"{name}.txt"
    whole = f"{asked.strip()}\n----\n{BACKEND.sub('duckdb VERSION PLATFORM', explained)}\n"
    if UPDATE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(whole, encoding="utf-8")
    assert whole == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", QUERIES)
def test_golden(session: DataflowSession, name: str) -> None:
    compare(name, QUERIES[name], session.explain_stream_sql(QUERIES[name]))


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(QUERIES)


def explained(session: DataflowSession, text: str, sink: Any = None, **options: Any) -> StreamExplain:
    return session.stream_sql(text).explanation(sink, **options)


def of(explain: StreamExplain, operator: str) -> PlanNode:
    (found,) = (node for node in explain.physical.nodes if node.operator == operator)
    return found


# --- sections and keys --------------------------------------------------------------------------------------


def test_sections_and_keys(session: DataflowSession) -> None:
    """T-14, C-22 to C-24: exactly logical, physical and strategy, in text and in JSON."""
    text = session.explain_stream_sql(QUERIES["count"])
    assert [line for line in text.split("\n") if not line.startswith(" ")] == ["logical", "physical", "strategy"]
    shown = json.loads(session.explain_stream_sql(QUERIES["count"], format="json"))
    assert list(shown) == ["logical", "physical", "strategy"]
    for name, value in shown["strategy"].items():
        if not isinstance(value, str | list | dict) and value is not None:
            told = str(value).lower() if isinstance(value, bool) else str(value)
            assert f"  {name}={told}" in text.split("\n"), name
    for name in (
        *("writes_to_sink", "sink", "has_window", "has_stateful_ops", "partition_local_prefix_nodes"),
        *("actor_eligible", "actor_eligibility_reason"),
    ):
        assert f"\n  {name}=" in text


def test_steps_and_nodes_are_one_to_one(session: DataflowSession) -> None:
    for text in QUERIES.values():
        for sink in (None, MemorySink()):
            told = explained(session, text, sink)
            nodes = told.physical.nodes
            assert [node.id for node in nodes] == list(range(len(nodes), 0, -1))
            assert [node.label for node in reversed(nodes)] == list(told.logical.steps)
            assert all(child < node.id for node in nodes for child in node.inputs)
            assert StreamExplain.from_json(told.to_json()) == told


def test_explain_opens_nothing_and_runs_nothing() -> None:
    class Untouchable(MemorySource):
        def open(self, context: Any) -> None:
            raise AssertionError(f"{context.query_id} opened the source")

    class Sink(MemorySink):
        def open(self, context: Any) -> None:
            raise AssertionError(f"{context.query_id} opened the sink")

    frame = DataflowSession().read_stream(Untouchable([BIDS])).group_by("auction").count("n")
    assert "Aggregate" in frame.explain(Sink())


def test_a_sink_is_the_last_step(session: DataflowSession) -> None:
    without, told = explained(session, QUERIES["count"]), explained(session, QUERIES["count"], MemorySink())
    assert (without.physical.writes_to_sink, without.physical.sink) == (False, "")
    assert (told.physical.writes_to_sink, told.physical.sink) == (True, "MemorySink")
    sink = told.physical.nodes[0]
    assert (sink.shape, sink.inputs) == (Shape.SINK, (len(without.physical.nodes),))
    assert told.strategy.sink_is_blocking is False


def test_the_form_that_a_sink_is_given_is_told(session: DataflowSession) -> None:
    def given(text: str, mode: str) -> PlanNode:
        return explained(session, text, MemorySink(), output_mode=mode).physical.nodes[0]

    assert given(QUERIES["row_wise"], "append").details["given"] == "append"
    assert given(QUERIES["count"], "update").details["given"] == "retract"
    assert given(QUERIES["count"], "complete").details["given"] == "replace"
    refused = given(QUERIES["count"], "append")
    assert (refused.details["given"], refused.reason.split(":")[0]) == ("none", "refused")


def test_rows_that_are_held_until_they_are_closed_are_told() -> None:
    frame = DataflowSession().read_stream(MemorySource([BIDS])).with_watermark("ts", "1s")
    told = frame.window("ts", 1000, "w").group_by("w").agg(m=fn.median("price")).explanation(output_mode="append")
    held = told.physical.nodes[0]
    assert "once, when the watermark has closed them" in held.reason
    assert held.state == "rows until they are closed"
    assert of(told, "Watermark").shape is Shape.TIMED
    partials = frame.window("ts", 1000, "w").group_by("w").count("n").explanation(output_mode="append")
    assert "come out when event time closes them" in of(partials, "Aggregate").reason


def test_an_insert_names_its_sink() -> None:
    with DataflowSession() as session:
        session.create_temp_view("bids", session.read_stream(MemorySource([BIDS]), "bids"))
        session.sql("CREATE SINK TABLE out (auction BIGINT, price BIGINT) USING memory")
        told = session.explain_stream_sql("INSERT INTO out SELECT auction, price FROM bids", output_mode="append")
        assert "  sink=out\n" in told
        assert "  output_mode=append\n" in told
        assert "Sink: out" in told


@pytest.mark.parametrize("form", ["dot", "svg"])
def test_drawings_show_every_node(session: DataflowSession, form: str) -> None:
    drawn = session.stream_sql(QUERIES["join_streams"]).explain(MemorySink(), format=form)
    if form == "svg":
        ElementTree.fromstring(drawn)
    for node in explained(session, QUERIES["join_streams"], MemorySink()).physical.nodes:
        assert f"#{node.id} {node.operator}" in drawn


def test_an_unknown_format_or_option_is_refused(session: DataflowSession) -> None:
    with pytest.raises(InputError, match='no format "yaml"'):
        session.explain_stream_sql(QUERIES["count"], format="yaml")
    with pytest.raises(InputError, match='no option "chekpoint_path"'):
        session.explain_stream_sql(QUERIES["count"], chekpoint_path="x")


# --- what is said holds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stateful", "window", "shape", "operator"),
    [
        ("row_wise", False, False, Shape.LINEAR, "Filter"),
        ("count", True, False, Shape.KEYED, "Aggregate"),
        ("windowed", True, True, Shape.KEYED, "Aggregate"),
        ("join_streams", True, False, Shape.BILINEAR, "Join"),
        ("recompute", True, True, Shape.RECOMPUTE, "Window"),
    ],
)
def test_shapes_state_and_windows(
    session: DataflowSession, name: str, stateful: bool, window: bool, shape: Shape, operator: str
) -> None:
    told = explained(session, QUERIES[name])
    assert (told.physical.has_stateful_ops, told.physical.has_window) == (stateful, window)
    assert (told.strategy.has_stateful_ops, told.strategy.has_window) == (stateful, window)
    node = of(told, operator)
    assert node.shape is shape
    assert (node.state == "none") is not stateful


def test_recompute_says_why(session: DataflowSession) -> None:
    node = of(explained(session, QUERIES["recompute"]), "Window")
    assert node.cost == "all rows, every epoch"
    assert "whole-input" in node.reason


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("SELECT price FROM bids JOIN asks ON auction = item", None),
        ("SELECT price FROM bids JOIN asks ON price > ask", "no column of one side is to equal one of"),
        (
            "SELECT price FROM bids JOIN (SELECT CAST(item AS DOUBLE) AS item FROM asks) ON auction = item",
            "in no common way",
        ),
    ],
)
def test_a_join_says_whether_it_scans_its_state(session: DataflowSession, text: str, why: str | None) -> None:
    node = of(explained(session, text), "Join")
    assert ("a scan of all keys in state" in node.cost) == (why is not None)
    assert why is None or why in node.cost


@pytest.mark.parametrize(
    ("name", "eligible", "prefix", "reason"),
    [
        ("count", True, 1, "split by auction"),
        ("having", True, 1, "split by auction"),
        ("join_table", True, 3, "split by name"),
        ("aggregate_of_aggregate", True, 1, "split by auction"),
        ("windowed", False, 2, "no key whose column comes straight"),
        ("row_wise", False, 2, "no node keeps state by key"),
        ("whole", False, 1, "no key whose column comes straight"),
        ("join_streams", False, 2, "no node keeps partial values"),
    ],
)
def test_who_may_run_the_steps(session: DataflowSession, name: str, eligible: bool, prefix: int, reason: str) -> None:
    """T-14: SUM, COUNT and several aggregates may be split by key; where not, the reason is told."""
    physical = explained(session, QUERIES[name]).physical
    assert physical.actor_eligible is eligible
    assert reason in physical.actor_eligibility_reason
    assert physical.partition_local_prefix_nodes == prefix


def test_what_may_be_split_is_split_where_workers_are_asked_for(session: DataflowSession) -> None:
    """T-14: the hot path runs by credit, any other plan in generic partition workers or on one thread."""
    for text in QUERIES.values():
        told = explained(session, text, execution_mode="local-workers", local_workers=2)
        strategy, eligible = told.strategy, told.physical.actor_eligible
        assert ("credit scheduling" in strategy.reason) is eligible
        assert strategy.used_actor_runtime is eligible
        assert strategy.local_worker_count == (2 if strategy.selected_mode is ExecutionMode.LOCAL_WORKERS else 1)
        assert eligible or "generic partition workers" in strategy.reason or "one thread" in strategy.reason
        assert eligible is explained(session, text).physical.actor_eligible


def test_one_local_worker_is_none(session: DataflowSession) -> None:
    """T-14: one worker gives inproc, and says that more are needed."""
    strategy = explained(session, QUERIES["count"], execution_mode="local-workers", local_workers=1).strategy
    assert strategy.requested_mode is ExecutionMode.LOCAL_WORKERS
    assert strategy.selected_mode is ExecutionMode.SINGLE_PROCESS
    assert strategy.transport_mode == "inproc"
    assert strategy.local_worker_count == 1
    assert "local_workers > 1" in strategy.reason


def test_sources_and_options_are_told(session: DataflowSession, tmp_path: Path) -> None:
    bounded = explained(session, QUERIES["count"]).strategy
    assert bounded.source_is_bounded is True
    assert explained(session, QUERIES["join_streams"]).strategy.source_is_bounded is False
    strategy = explained(
        session,
        QUERIES["count"],
        MemorySink(),
        checkpoint_path=str(tmp_path),
        delivery_mode="at-least-once",
        output_mode="complete",
        max_inflight_batches=7,
        backpressure_high_watermark=6,
        backpressure_low_watermark=2,
        shared_memory_transport=False,
        shared_memory_min_payload_bytes=1,
        max_inflight_partitions=5,
    ).strategy
    told = (
        strategy.backpressure_max_queue_batches,
        strategy.backpressure_high_watermark,
        strategy.backpressure_low_watermark,
        strategy.max_inflight_partitions,
        strategy.shared_memory_transport,
        strategy.shared_memory_min_payload_bytes,
        strategy.checkpoint_delivery_mode,
        strategy.output_mode,
        strategy.delivery_guarantee.held,
    )
    assert told == (7, 6, 2, 5, False, 1, "at-least-once", "complete", "at-least-once")


def test_explain_and_progress_tell_the_same_decision(session: DataflowSession) -> None:
    for text in QUERIES.values():
        query = session.stream_sql(text).write_stream(MemorySink())
        strategy = query.explanation().strategy
        progress = query.progress()
        same: dict[str, Any] = {
            "requested_execution_mode": strategy.requested_mode,
            "execution_mode": strategy.selected_mode,
        }
        same |= {"execution_reason": strategy.reason}
        names = set(progress) & set(strategy.to_dict())
        same |= {name: strategy.to_dict()[name] for name in names}
        assert {name: progress[name] for name in same} == same
        assert len(names) > 15
        assert query.explanation() == explained(session, text, MemorySink())
        query.stop()


# --- analyze ------------------------------------------------------------------------------------------------


def test_analyze_adds_up(session: DataflowSession) -> None:
    query = session.stream_sql(QUERIES["join_table"]).write_stream(MemorySink(), epoch_rows_max=4)
    query.process_available()
    told = query.explanation(analyze=True)
    nodes = told.physical.nodes
    progress = query.progress()
    assert told.physical.epochs == progress["epoch"] == len(query.recent_progress)
    assert of(told, "MemorySink").rows == progress["rows_out"]
    source, table = (node for node in nodes if node.operator == "Scan")
    rows = sorted([source.rows or 0, table.rows or 0])
    assert rows == [NAMES.num_rows, progress["rows_in"]]
    assert told.strategy.columnar_input_row_count == NAMES.num_rows + progress["rows_in"]
    steps_ms = sum(node.time_ms or 0 for node in nodes if node.shape is not Shape.SINK)
    assert told.physical.time_ms is not None
    assert told.physical.state_ms is not None
    assert 0 < steps_ms + told.physical.state_ms <= told.physical.time_ms
    assert sum(node.state_rows or 0 for node in nodes) == progress["state_rows"]
    assert sum(node.state_bytes or 0 for node in nodes) == progress["state_bytes"]
    assert of(told, "Aggregate").state_rows == 3
    query.stop()
    assert query.explanation(analyze=True) == told


def test_analyze_measures_a_run_of_nodes_once(session: DataflowSession) -> None:
    query = session.stream_sql(QUERIES["row_wise"]).write_stream(MemorySink(), output_mode="append")
    query.process_available()
    told = query.explanation(analyze=True)
    project, filtered = of(told, "Project"), of(told, "Filter")
    assert filtered.details["runs_in"] == f"#{project.id}"
    assert (filtered.rows, filtered.time_ms) == (None, None)
    assert project.rows == 6
    assert (project.time_ms or 0) > 0
    assert "runs_in" not in project.details
    query.stop()


def test_analyze_of_a_query_that_has_not_run_is_of_no_epochs(session: DataflowSession) -> None:
    query = session.stream_sql(QUERIES["count"]).write_stream(MemorySink())
    told = query.explanation(analyze=True)
    assert (told.physical.epochs, told.physical.time_ms) == (0, 0)
    assert all(not node.rows for node in told.physical.nodes)
    query.stop()


def test_epochs_that_share_a_commit_are_each_measured(session: DataflowSession, tmp_path: Path) -> None:
    options: Any = {"checkpoint_path": str(tmp_path), "checkpoint_interval": 3, "epoch_rows_max": 4}
    query = session.stream_sql(QUERIES["count"]).write_stream(MemorySink(), **options)
    query.process_available()
    told = query.explanation(analyze=True)
    assert told.physical.epochs == query.progress()["epoch"] >= 2
    assert of(told, "Scan").rows == query.progress()["rows_in"] == 8
    query.stop()


def test_the_text_of_analyze(session: DataflowSession) -> None:
    query = session.stream_sql(QUERIES["count"]).write_stream(MemorySink())
    query.process_available()
    text = query.explain(analyze=True)
    assert re.search(r"#\d+ Aggregate .*\n.* rows=\d+ time_ms=\d+\.\d{3} state_rows=3 state_bytes=\d+\n", text)
    assert f"\n  epochs={query.progress()['epoch']}\n  time_ms=" in text
    assert "time_ms" not in query.explain()
    query.stop()
