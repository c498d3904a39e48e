"""Explain of batch queries: whole texts for plans of every kind, and that what is said holds.

Golden files are in golden/explain: the query, then its explain. After a deliberate change:

    VELARIA_UPDATE_GOLDEN=1 pytest core/tests/test_explain.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.plans import plans, scan
from properties.profile import examples
from properties.tables import COLUMNS, tables

import velaria_core
from velaria_core.contract.codec import BatchExplain, PlanNode
from velaria_core.contract.modes import ColumnarFallback, Shape
from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError, SqlUnsupportedError
from velaria_core.execution.drawing import Format, _laid_out, printed
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.explain import ESTIMATED_NODES_MAX, explain_batch
from velaria_core.execution.lower import lower
from velaria_core.execution.strategy import GROUPINGS, width_bytes
from velaria_core.logical import operators as op
from velaria_core.logical.explain import FACTS, steps
from velaria_core.logical.expr import col, expr, fn, lit
from velaria_core.session import DataflowSession

GOLDEN = Path(__file__).parent / "golden" / "explain"
UPDATE = bool(os.environ.get("VELARIA_UPDATE_GOLDEN"))
# What differs from machine to machine.
BACKEND = re.compile(r"duckdb \d+\.\d+\.\d+\S* [a-z]+_\w+")

ORDERS = pa.table(
    {
        "id": pa.array(range(200), pa.int64()),
        "customer": pa.array([at * 7 % 10 for at in range(200)], pa.int32()),
        "city": pa.array([("Rome", "Oslo", "北京", None)[at % 4] for at in range(200)]),
        "paid": pa.array([at % 3 == 0 for at in range(200)]),
        "amount": pa.array([at * 1.25 for at in range(200)]),
        "ts": pa.array([at * 60_000_000 for at in range(200)], pa.timestamp("us")),
        "tags": pa.array([["a", "b"][: at % 3] for at in range(200)]),
    }
)
CUSTOMERS = pa.table({"id": pa.array(range(10), pa.int32()), "name": [f"customer {at}" for at in range(10)]})


def new_session() -> DataflowSession:
    """`orders` and `customers` are stored, with statistics; of `feed`, which is Arrow data, the engine has none."""
    session = DataflowSession(threads=2)
    session.create_temp_view("feed", session.create_dataframe(ORDERS))
    session.create_dataframe(ORDERS).save_as_table("orders")
    session.create_dataframe(CUSTOMERS).save_as_table("customers")
    return session


@pytest.fixture(scope="module")
def session() -> Iterator[DataflowSession]:
    with new_session() as made:
        yield made


# --- whole texts --------------------------------------------------------------------------------------------

QUERIES = {
    "row_wise": "SELECT id + 1 AS next, upper(city) AS city FROM feed WHERE amount > 10 AND city IS NOT NULL",
    "values": "SELECT a * 2 AS b FROM (VALUES (1), (2), (3)) AS v(a)",
    "aggregate_dense": "SELECT customer, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer",
    "aggregate_hash": "SELECT city, paid, avg(amount) AS mean FROM feed GROUP BY city, paid HAVING count(*) > 3",
    "aggregate_ungrouped": "SELECT sum(amount) / count(*) AS mean FROM orders WHERE paid",
    "aggregate_answered": "SELECT count(*) AS n FROM orders",
    "aggregate_ordered": "SELECT customer, max(id) FROM (SELECT * FROM orders ORDER BY customer) GROUP BY customer",
    "rollup": "SELECT city, paid, count(*) AS n FROM orders GROUP BY ROLLUP (city, paid)",
    "join": """
        SELECT c.name, sum(o.amount) AS total FROM orders o JOIN customers c ON o.customer = c.id
        WHERE o.paid GROUP BY c.name ORDER BY total DESC LIMIT 3
    """,
    "join_left": "SELECT o.id, c.name FROM orders o LEFT JOIN customers c ON o.customer = c.id AND c.id > 4",
    "join_asof": "SELECT a.id, b.amount FROM orders a ASOF JOIN feed b ON a.customer = b.customer AND a.ts >= b.ts",
    "join_ranges": "SELECT a.id FROM orders a JOIN orders b ON a.customer > b.customer AND a.id < b.id",
    "join_cross": "SELECT a.id, b.name FROM orders a CROSS JOIN customers b",
    "window": "SELECT id, sum(amount) OVER (PARTITION BY customer ORDER BY id) AS running FROM orders",
    "window_streaming": "SELECT id, row_number() OVER () AS n FROM feed",
    "set_operations": """
        SELECT id FROM customers UNION ALL SELECT customer FROM orders
        INTERSECT SELECT id FROM customers EXCEPT SELECT 3
    """,
    "distinct": "SELECT DISTINCT city, paid FROM orders",
    "opaque_subquery": "SELECT id FROM orders WHERE customer IN (SELECT id FROM customers WHERE name LIKE '%1')",
    "opaque_grouping": """
        SELECT city, count(*) AS n FROM orders WHERE amount > (SELECT avg(amount) FROM feed) GROUP BY city
    """,
    "opaque_recursion": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
    "shared": """
        WITH t AS (SELECT customer, sum(amount) AS s FROM orders GROUP BY customer)
        SELECT a.customer FROM t a JOIN t b ON a.s < b.s
    """,
    "search": """
        SELECT id FROM orders KEYWORD SEARCH(city) QUERY 'rome OR os*' TOP_K 50
        HYBRID SEARCH e QUERY '[1, 2]' METRIC dot TOP_K 3 SCORE_THRESHOLD 0.5
    """.replace("orders", "(SELECT id, city, CAST([amount, customer] AS FLOAT[2]) AS e FROM orders)"),
    "search_fused": """
        SELECT id, hybrid_score FROM vectors KEYWORD SEARCH(city ^ 2) QUERY 'rome' ANALYZER standard
        HYBRID SEARCH e QUERY '[1, 2]' TOP_K 3 FUSE WEIGHTED 0.25 CANDIDATES 20
    """.replace("vectors", "(SELECT id, city, CAST([amount, customer] AS FLOAT[2]) AS e FROM orders)"),
    "event_time": "SELECT w, count(*) AS n FROM orders WINDOW BY ts EVERY 3600000 AS w GROUP BY w",
}


def counted(rows: pa.Table) -> pa.Table:
    """A function of the user: how many rows."""
    return pa.table({"n": [rows.num_rows]})


counted.__module__ = "report"  # as it would be called from a file of that name


Frames = Callable[[DataflowSession], DataFrame]
FRAMES: dict[str, Frames] = {
    "frame_row_wise": lambda s: (
        s.table("feed")
        .with_column("double", col("amount") * 2)
        .drop("ts")
        .rename({"customer": "who"})
        .explode("tags", "tag", outer=True)
        .filter(col("tag") != "b")
        .limit(5, offset=2)
    ),
    "frame_apply_in_batches": lambda s: (
        s.table("orders").group_by("city").apply_in_batches(counted, pa.schema([("n", pa.int64())]), order_by="ts")
    ),
    "frame_pivot": lambda s: s.table("orders").group_by("customer").pivot("city", ["Rome", "Oslo"], fn.sum("amount")),
    "frame_unpivot": lambda s: s.table("customers").select("id").with_column("b", lit(2)).unpivot(["id", "b"]),
    "frame_refresh": lambda s: s.table("customers").refresh_every("10 minutes").filter(col("id") > 3),
    "frame_sample": lambda s: s.table("orders").sample(n=3, seed=1),
    "frame_sample_share": lambda s: s.table("orders").sample(0.5, seed=1),
    "frame_semi": lambda s: s.table("orders").join(s.table("customers"), left_on="customer", right_on="id", how="semi"),
    "frame_distinct_on": lambda s: s.table("orders").distinct("city"),
    "frame_event_time": lambda s: (
        s.table("orders")
        .with_watermark("ts", "10 seconds", late="side", idle="1 minute")
        .drop_duplicates("id", within="1 hour")
        .session_window("ts", "30 minutes", "customer")
        .with_processing_time("seen")
    ),
    "frame_vector_search": lambda s: (
        s.table("orders")
        .filter(col("paid"))
        .select("id", expr("CAST([amount, customer] AS FLOAT[2])").alias("e"))
        .vector_search("e", [1, 2], 3, "l2", score_threshold=10)
    ),
    "frame_sliding": lambda s: s.table("orders").window("ts", 600_000, "w", 300_000).group_by("w").count("n"),
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
def test_golden_queries(session: DataflowSession, name: str) -> None:
    compare(name, QUERIES[name], session.explain_sql(QUERIES[name]))


@pytest.mark.parametrize("name", FRAMES)
def test_golden_frames(session: DataflowSession, name: str) -> None:
    compare(name, "a frame", FRAMES[name](session).explain())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    rows = CUSTOMERS.to_pylist()
    (made / "a.csv").write_text("id,name\n" + "".join(f"{row['id']},{row['name']}\n" for row in rows))
    (made / "a.log").write_text("".join(f"{row['id']}|{row['name']}\n" for row in rows))
    (made / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(CUSTOMERS, made / "a.parquet")
    feather.write_feather(CUSTOMERS, made / "a.arrow", compression="uncompressed")
    return made


FILES: dict[str, Callable[[DataflowSession, Path], DataFrame]] = {
    "file_csv": lambda s, folder: s.read_csv(folder / "a.csv"),
    "file_line": lambda s, folder: s.read_line_file(
        folder / "a.log", mappings={"id": 0, "name": 1}, split_delimiter="|"
    ),
    "file_json": lambda s, folder: s.read_json(folder / "a.jsonl"),
    "file_parquet": lambda s, folder: s.read_parquet(folder / "a.parquet"),
    "file_arrow": lambda s, folder: s.read_arrow(folder / "a.arrow"),
}


@pytest.mark.parametrize("name", FILES)
def test_golden_files(session: DataflowSession, folder: Path, name: str) -> None:
    frame = FILES[name](session, folder).filter(col("id") > 3).select("name")
    explained = frame.explain()
    compare(name, "a file", re.sub(r"bytes=\d+", "bytes=BYTES", explained.replace(str(folder), "FOLDER")))


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {*QUERIES, *FRAMES, *FILES}


def test_every_operator_has_a_golden_plan(session: DataflowSession) -> None:
    found = {type(node) for text in QUERIES.values() for node in steps(session.sql(text).node)}
    found |= {type(node) for made in FRAMES.values() for node in steps(made(session).node)}
    assert set(op.ALL) - found == {op.TopK}  # which no verb makes yet
    assert set(FACTS) == set(op.ALL)


# --- sections -----------------------------------------------------------------------------------------------


def sections(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(" ")]


def test_sections_of_a_text_and_of_a_frame(session: DataflowSession) -> None:
    """C-20."""
    text = QUERIES["join"]
    assert sections(session.explain_sql(text)) == ["frontend", "logical", "physical", "strategy"]
    assert sections(session.sql(text).explain()) == ["logical", "physical", "strategy"]


def test_frontend_tells_parser_and_dialect(session: DataflowSession) -> None:
    frontend = session.explanation("SELECT 1 AS a").frontend
    assert frontend is not None
    assert (frontend.name, frontend.dialect) == ("sqlglot", "velaria_sql_v1")
    assert session.sql("SELECT 1 AS a").explanation().frontend is None


def test_explain_as_a_statement(session: DataflowSession) -> None:
    rows = session.sql(f"EXPLAIN {QUERIES['aggregate_dense']}").to_rows()
    assert "\n".join(row["explain"] for row in rows) == session.explain_sql(QUERIES["aggregate_dense"])
    analyzed = [row["explain"] for row in session.sql("EXPLAIN ANALYZE SELECT id FROM customers").to_rows()]
    assert any("rows=10" in line for line in analyzed)
    assert session.explain_sql(f"EXPLAIN {QUERIES['values']}") == session.explain_sql(QUERIES["values"])


def test_explain_takes_parameters(session: DataflowSession) -> None:
    explained = session.explain_sql("SELECT id FROM customers WHERE id > $1", [4])
    assert "predicate=(id > 4)" in explained
    with pytest.raises(InputError, match=r"no value for parameter \$1"):
        session.explain_sql("SELECT id FROM customers WHERE id > $1")


def test_what_is_no_query_is_refused(session: DataflowSession) -> None:
    with pytest.raises(SqlUnsupportedError, match="takes a SELECT"):
        session.explain_sql("INSERT INTO customers VALUES (1, 'x')")
    with pytest.raises(SqlUnsupportedError, match="takes one SELECT"):
        session.explain_sql("SELECT 1; SELECT 2")
    with pytest.raises(InputError, match='no format "yaml"') as caught:
        session.table("orders").explain(format="yaml")
    assert caught.value.code == "explain.format"


def test_steps_and_nodes_are_one_to_one(session: DataflowSession) -> None:
    """T-10: logical and physical step counts are equal; step n is node n."""
    for text in QUERIES.values():
        explained = session.explanation(text)
        nodes = explained.physical.nodes
        assert len(explained.logical.steps) == len(nodes)
        assert [node.id for node in nodes] == list(range(len(nodes), 0, -1))
        assert [node.label for node in reversed(nodes)] == list(explained.logical.steps)
        assert all(child < node.id for node in nodes for child in node.inputs)


def test_the_first_source_gives_the_seed_columns(session: DataflowSession) -> None:
    logical = session.explanation(QUERIES["join"]).logical
    assert logical.seed_columns == tuple(ORDERS.column_names)
    assert logical.steps[0] == "Scan: table orders"


def test_explain_is_deterministic(session: DataflowSession) -> None:
    with new_session() as other:
        for text in QUERIES.values():
            first = session.explain_sql(text)
            assert first == session.explain_sql(text) == other.explain_sql(text)


def test_explain_does_not_run_the_query(session: DataflowSession) -> None:
    failing = "SELECT CAST(city AS BIGINT) AS n FROM feed"
    session.explain_sql(failing)
    with pytest.raises(velaria_core.DataError):
        session.explain_sql(failing, analyze=True)


def test_importing_the_session_loads_no_messages() -> None:
    code = (
        "import sys, velaria_core; velaria_core.DataflowSession; velaria_core.DataFrame;"
        "print([name for name in sys.modules if name.startswith(('google.protobuf', 'velaria_core.contract.codec'))])"
    )
    path = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert ran.stdout.strip() == "[]"


# --- nodes --------------------------------------------------------------------------------------------------


def node_of(explained: BatchExplain, operator: str) -> PlanNode:
    (found,) = (node for node in explained.physical.nodes if node.operator == operator)
    return found


@pytest.mark.parametrize(
    ("text", "operator", "barrier"),
    [
        (QUERIES["join"], "Join", False),
        (QUERIES["join_ranges"], "Join", False),
        (QUERIES["join_asof"], "Join", True),
        (QUERIES["window"], "Window", True),
        (QUERIES["window_streaming"], "Window", False),
        (QUERIES["opaque_subquery"], "Opaque", False),
        (QUERIES["opaque_grouping"], "Opaque", True),
        (QUERIES["aggregate_dense"], "Aggregate", True),
        (QUERIES["distinct"], "Distinct", True),
        (QUERIES["join"], "Sort", True),
        (QUERIES["join"], "Limit", False),
        (QUERIES["join"], "Filter", False),
    ],
)
def test_barriers(session: DataflowSession, text: str, operator: str, barrier: bool) -> None:
    assert node_of(session.explanation(text), operator).barrier is barrier


def test_a_join_that_sorts_both_sides_holds_back_its_rows() -> None:
    with DataflowSession(threads=2) as session:
        session.create_dataframe({"a": list(range(3000)), "b": list(range(3000))}).save_as_table("t")
        explained = session.explanation("SELECT x.a FROM t x JOIN t y ON x.a < y.a AND x.b > y.b")
        assert "IE_JOIN" in explained.physical.engine_plan
        assert node_of(explained, "Join").barrier


def test_a_sample_by_count_waits_for_the_last_row_and_one_by_share_does_not(session: DataflowSession) -> None:
    assert node_of(FRAMES["frame_sample"](session).explanation(), "Sample").barrier
    assert not node_of(FRAMES["frame_sample_share"](session).explanation(), "Sample").barrier


def test_an_opaque_query_says_why(session: DataflowSession) -> None:
    node = node_of(session.explanation(QUERIES["opaque_subquery"]), "Opaque")
    assert node.kind == "Query"
    assert node.shape is Shape.RECOMPUTE
    assert node.cost == "all rows, every epoch"
    assert "subquery" in node.reason
    assert node.details["because"] == "subquery in an expression"
    assert 'FROM input_1 AS "orders"' in node.details["sql"]


def test_a_recomputed_node_says_why(session: DataflowSession) -> None:
    node = node_of(session.explanation("SELECT id, sum(amount) OVER () AS s FROM orders"), "Window")
    assert node.reason.endswith("a stream computes it anew: a window function without a common partition")


def test_estimates_are_the_engines(session: DataflowSession, folder: Path) -> None:
    explained = session.explanation("SELECT customer, count(*) AS n FROM orders GROUP BY customer")
    assert {node.operator: node.estimated_rows for node in explained.physical.nodes}["Scan"] == ORDERS.num_rows
    # Parquet files know their rows; for texts the engine puts a constant, which is no estimate.
    assert FILES["file_parquet"](session, folder).explanation().physical.nodes[0].estimated_rows == 10
    assert FILES["file_csv"](session, folder).explanation().physical.nodes[0].estimated_rows is None
    assert FILES["file_json"](session, folder).explanation().physical.nodes[0].estimated_rows is None
    # Arrow data in memory knows its rows, an Arrow file is read as it comes.
    assert session.table("feed").explanation().physical.nodes[0].estimated_rows == ORDERS.num_rows
    assert FILES["file_arrow"](session, folder).explanation().physical.nodes[0].estimated_rows is None
    # How often a recursion goes round, nobody knows before.
    assert session.explanation(QUERIES["opaque_recursion"]).physical.nodes[0].estimated_rows is None


def test_what_is_pushed_into_sources_is_told_where_it_is_known(session: DataflowSession) -> None:
    explained = session.explanation(
        "SELECT c.name FROM orders o JOIN customers c ON o.customer = c.id WHERE o.amount > 240"
    )
    told = {node.details["source"]: node.details for node in explained.physical.nodes if node.operator == "Scan"}
    assert told["table orders"]["pushed_filters"] == "[(amount > 240.0)]"
    assert told["table orders"]["pushed_columns"] == "[customer]"
    assert told["table customers"]["pushed_columns"] == "[id, name]"
    # Which of two readings of one table is which, the engine's plan does not tell.
    twice = session.explanation("SELECT a.id FROM orders a JOIN orders b ON a.id = b.customer WHERE a.amount > 5")
    assert all("pushed_columns" not in node.details for node in twice.physical.nodes)


def test_a_shared_node_is_told_once(session: DataflowSession) -> None:
    explained = session.explanation(QUERIES["shared"])
    text = printed(explained)
    assert sum(node.operator == "Aggregate" for node in explained.physical.nodes) == 1
    assert text.count("Aggregate keys=[customer]") == 1
    assert ", as above" in text


def test_in_a_large_plan_only_what_needs_one_is_planned_by_itself(session: DataflowSession) -> None:
    frame = session.table("orders").group_by("customer").agg(n=fn.count())
    for at in range(ESTIMATED_NODES_MAX):
        frame = frame.with_column("n", col("n") + at)
    explained = frame.explanation()
    known = [node.operator for node in explained.physical.nodes if node.estimated_rows is not None]
    assert known == ["WithColumn", "Aggregate", "Scan"]
    assert explained.strategy.selected_impl == "dense"
    assert len(explained.physical.nodes) == ESTIMATED_NODES_MAX + 3


# --- a run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUERIES)
def test_analyze_measures_the_whole_and_the_root(session: DataflowSession, name: str) -> None:
    explained = session.explanation(QUERIES[name], analyze=True)
    root, *others = explained.physical.nodes
    assert root.rows == session.sql(QUERIES[name]).count()
    assert explained.physical.time_ms is not None
    assert explained.physical.time_ms > 0
    assert all(node.rows is None and node.time_ms is None for node in others)
    assert f"rows={root.rows}" in printed(explained)
    assert f"time_ms={explained.physical.time_ms:.3f}" in printed(explained)


def test_analyze_counts_what_was_read(session: DataflowSession) -> None:
    def read(text: str) -> int | None:
        return session.explanation(text, analyze=True).strategy.columnar_input_row_count

    assert read("SELECT sum(id) AS s FROM feed") == 200
    assert read("SELECT o.id FROM orders o JOIN customers c ON o.customer = c.id") == 210
    assert read("SELECT count(*) AS n FROM orders") == 0  # the engine knows it
    assert read("SELECT * FROM (VALUES (1), (2)) AS v(a)") == 0
    assert session.explanation("SELECT sum(id) AS s FROM feed").strategy.columnar_input_row_count is None


def test_without_a_run_nothing_is_measured(session: DataflowSession) -> None:
    for text in QUERIES.values():
        explained = session.explanation(text)
        assert explained.physical.time_ms is None
        assert all(node.rows is None and node.time_ms is None for node in explained.physical.nodes)


# --- strategy -----------------------------------------------------------------------------------------------


def strategy(session: DataflowSession, text: str) -> Any:
    return session.explanation(text).strategy


@pytest.mark.parametrize(
    ("text", "impl", "operator"),
    [
        ("SELECT customer, count(*) FROM orders GROUP BY customer", "dense", "PERFECT_HASH_GROUP_BY"),
        ("SELECT ts, count(*) FROM orders GROUP BY ts", "hash", "HASH_GROUP_BY"),
        ("SELECT city, count(*) FROM orders GROUP BY city", "hash", "HASH_GROUP_BY"),
        # T-10: two keys of mixed types, three keys, a bool key.
        ("SELECT city, customer, count(*) FROM orders GROUP BY ALL", "hash", "HASH_GROUP_BY"),
        ("SELECT city, customer, paid, count(*) FROM orders GROUP BY ALL", "hash", "HASH_GROUP_BY"),
        ("SELECT paid, count(*) FROM orders GROUP BY paid", "hash", "HASH_GROUP_BY"),
        ("SELECT max(amount) FROM feed", "not-applicable", "UNGROUPED_AGGREGATE"),
        ("SELECT id FROM orders", "not-applicable", None),
        ("SELECT count(*) FROM orders", "not-applicable", None),
    ],
)
def test_the_grouping_is_the_one_that_the_engine_runs(
    session: DataflowSession, text: str, impl: str, operator: str | None
) -> None:
    """C-21, E-11: told is what the engine's own plan has."""
    node = session.sql(text).node
    lowered = lower(node)
    with session._engine.cursor(lowered.feeds) as cursor:
        ((_, plan),) = cursor.rows(f"EXPLAIN (FORMAT json) {lowered.sql}")
    assert {name for name in GROUPINGS if f'"{name}"' in plan} == ({operator} if operator else set())
    told = strategy(session, text)
    assert told.selected_impl == impl
    assert told.partial_layout == (GROUPINGS[operator].layout if operator else "none")


def test_text_keys_are_grouped_as_they_are() -> None:
    """T-10: "01" and "1" are two keys."""
    with DataflowSession() as session:
        session.create_temp_view("t", session.create_dataframe({"k": ["01", "1", "01"]}))
        assert session.sql("SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY k").to_rows() == [
            {"k": "01", "n": 2},
            {"k": "1", "n": 1},
        ]
        told = strategy(session, "SELECT k, count(*) AS n FROM t GROUP BY k")
        assert told.selected_impl == "hash"
        assert [(one.name, one.reason) for one in told.rejected_candidates] == [
            ("dense", "not stored as whole numbers: k")
        ]


@pytest.mark.parametrize(
    ("text", "count", "fixed", "packable"),
    [
        ("SELECT customer, count(*) FROM orders GROUP BY customer", 1, True, True),
        ("SELECT customer, paid, count(*) FROM orders GROUP BY ALL", 2, True, True),
        ("SELECT customer, ts, count(*) FROM orders GROUP BY ALL", 2, True, False),
        ("SELECT city, count(*) FROM orders GROUP BY ALL", 1, False, False),
        ("SELECT city, customer, count(*) FROM orders GROUP BY ALL", 2, False, False),
        ("SELECT tags, count(*) FROM orders GROUP BY ALL", 1, False, False),
        ("SELECT count(*) FROM feed", 0, False, False),
        ("SELECT id FROM feed", 0, False, False),
    ],
)
def test_keys(session: DataflowSession, text: str, count: int, fixed: bool, packable: bool) -> None:
    told = strategy(session, text)
    assert (told.key_count, told.fixed_width_keys, told.packable_keys) == (count, fixed, packable)


@pytest.mark.parametrize(
    ("kind", "width"),
    [
        (pa.bool_(), 1),
        (pa.int16(), 2),
        (pa.float64(), 8),
        (pa.date32(), 4),
        (pa.timestamp("us", "UTC"), 8),
        (pa.decimal128(9, 2), 4),
        (pa.decimal128(18, 2), 8),
        (pa.decimal128(38, 0), 16),
        (pa.month_day_nano_interval(), 16),
        (pa.list_(pa.float32(), 3), 12),
        (pa.dictionary(pa.uint8(), pa.string()), 1),
        (pa.string(), None),
        (pa.binary(), None),
        (pa.list_(pa.int8()), None),
        (pa.struct([("a", pa.int8())]), None),
        (None, None),
    ],
)
def test_widths_of_types(kind: pa.DataType | None, width: int | None) -> None:
    assert width_bytes(kind) == width


def test_ordered_input_is_a_sort_by_the_keys(session: DataflowSession) -> None:
    def ordered(inner: str, keys: str = "customer") -> bool:
        told: bool = strategy(session, f"SELECT {keys}, count(*) FROM ({inner}) GROUP BY {keys}").ordered_input
        return told

    assert ordered("SELECT * FROM orders ORDER BY customer")
    assert ordered("SELECT * FROM orders ORDER BY customer, id")
    assert ordered("SELECT * FROM orders ORDER BY city DESC, customer", "customer, city")
    assert ordered("SELECT id AS customer FROM orders ORDER BY id LIMIT 50")
    assert not ordered("SELECT * FROM orders ORDER BY id, customer")
    assert not ordered("SELECT * FROM orders ORDER BY customer", "customer, city")
    assert not ordered("SELECT -customer AS customer FROM (SELECT * FROM orders ORDER BY customer)")
    assert not ordered("SELECT * FROM orders")


def test_low_cardinality_is_by_estimates(session: DataflowSession, folder: Path) -> None:
    assert strategy(session, "SELECT customer, count(*) FROM orders GROUP BY customer").low_cardinality
    assert not strategy(session, "SELECT id, count(*) FROM orders GROUP BY id").low_cardinality
    unknown = FILES["file_csv"](session, folder).group_by("id").count()
    assert not unknown.explanation().strategy.low_cardinality


def test_a_grouping_inside_an_opaque_query_is_told(session: DataflowSession) -> None:
    told = strategy(session, QUERIES["opaque_grouping"])
    assert told.selected_impl == "hash"
    assert told.key_count == 1
    assert not told.fixed_width_keys
    assert told.rejected_candidates == ()
    # It aggregates within, and to find each customer once the engine groups for itself; the query does not.
    plain = session.explanation(
        "SELECT id FROM orders o WHERE amount > (SELECT avg(amount) FROM feed f WHERE f.customer = o.customer)"
    )
    assert "GROUP_BY" in plain.physical.engine_plan
    assert plain.strategy.selected_impl == "not-applicable"
    assert plain.strategy.reason == "no node of the plan groups"


def test_the_engine_is_told_by_name_version_and_platform(session: DataflowSession) -> None:
    """T-12, E-12: the one backend that runs, and no others that could be chosen."""
    told = strategy(session, "SELECT 1 AS a")
    assert BACKEND.fullmatch(told.simd_backend)
    assert told.compiled_backends == (told.simd_backend,)
    assert told.threads == 2
    assert told.columnar_fallback_type is ColumnarFallback.NONE
    assert told.columnar_affected_columns == ()


# --- forms --------------------------------------------------------------------------------------------------


def test_json_is_the_contracts(session: DataflowSession) -> None:
    frame = session.sql(QUERIES["join"])
    assert BatchExplain.from_json(frame.explain(format="json")) == frame.explanation()
    assert BatchExplain.from_json(session.explain_sql(QUERIES["join"], format="json")).frontend is not None


def test_dot(session: DataflowSession) -> None:
    frame = session.table("feed").select("id").join(session.table("customers"), "id").filter(col("name") != 'a"b\\')
    lines = frame.explain(format="dot").splitlines()
    assert lines[:3] == ["digraph plan {", "  rankdir=BT;", '  node [shape=box, fontname="monospace"];']
    assert (
        lines[3]
        == '  n7 [label="#7 Filter\\lpredicate: name <> \'a\\"b\\\\\'\\lFusedUnary, linear\\labout 200 rows\\l"];'
    )
    assert lines[-7:] == [
        *(f"  n{one} -> n{two};" for one, two in ((6, 7), (5, 6), (2, 5), (4, 5), (3, 4), (1, 2))),
        "}",
    ]


def overlap(one: Any, two: Any) -> bool:
    apart = one.x + one.width <= two.x or two.x + two.width <= one.x
    return not (apart or one.y + one.height <= two.y or two.y + two.height <= one.y)


def check_picture(nodes: tuple[PlanNode, ...], picture: str) -> None:
    """The picture is well-formed, has a box for each node and a line for each edge, and no box covers another."""
    tree = ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}"
    width, height = float(tree.attrib["width"]), float(tree.attrib["height"])
    assert len(tree.findall(f"{name}g")) == len(nodes)
    assert len(tree.findall(f"{name}path")) == sum(len(node.inputs) for node in nodes)
    boxes = _laid_out(nodes)
    for one, two in combinations(boxes.values(), 2):
        assert not overlap(one, two)
    for box in boxes.values():
        assert 0 <= box.x <= box.x + box.width <= width + 1
        assert 0 <= box.y <= box.y + box.height <= height + 1
        assert all(boxes[key].y > box.y + box.height for key in box.node.inputs)


@pytest.mark.parametrize("name", QUERIES)
def test_svg(session: DataflowSession, name: str) -> None:
    nodes = session.explanation(QUERIES[name]).physical.nodes
    picture = session.explain_sql(QUERIES[name], format="svg")
    check_picture(nodes, picture)
    for node in nodes:
        assert f">#{node.id} {node.operator}</text>" in picture


def test_a_value_cannot_break_a_form(session: DataflowSession) -> None:
    frame = session.table("customers").filter(col("name") == "\x1b[2J\n]]><b>\u202e\ufffe")
    explained = frame.explanation()
    for form in (Format.TEXT, Format.DOT, Format.SVG):
        text = printed(explained, form)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "<b>" not in text or form is not Format.SVG
    check_picture(explained.physical.nodes, printed(explained, "svg"))
    assert len(printed(explained).splitlines()) == len(printed(explained).split("\n"))


# --- any plan -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


@pytest.mark.parametrize("operator", op.ALL, ids=lambda kind: kind.__name__)
def test_any_plan_that_ends_in(engine: Engine, operator: type[op.Scan]) -> None:
    """Explain takes every plan, says the same of it twice, comes back from its JSON, and counts its rows right."""

    @examples(3)
    @given(st.data(), tables(), tables(max_rows=3))
    def holds(data: st.DataObject, one: Any, two: Any) -> None:
        leaves = [scan(one, COLUMNS, "one"), scan(two, COLUMNS, "two")]
        node = data.draw(plans(leaves, operator)).node
        explained = explain_batch(engine, node)
        assert explained == explain_batch(engine, node)
        assert BatchExplain.from_json(explained.to_json()) == explained
        assert len(explained.logical.steps) == len(explained.physical.nodes) == len(list(node.walk()))
        check_picture(explained.physical.nodes, printed(explained, "svg"))
        lowered = lower(node)
        with engine.cursor(lowered.feeds) as cursor:
            rows = len(cursor.rows(lowered.sql))
        assert explain_batch(engine, node, analyze=True).physical.nodes[0].rows == rows

    holds()
