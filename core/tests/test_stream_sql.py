"""Stream SQL: SOURCE and SINK tables, INSERT INTO sink SELECT as a query. Q-80 to Q-84, T-11, T-14, T-41."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from properties.tables import bag
from runtime_support import until

from velaria_core import DataflowSession, MemorySink, VelariaError
from velaria_core.errors import CatalogNotFoundError, InputError, SqlUnsupportedError, TableKindError
from velaria_core.execution.listeners import EventKind
from velaria_core.execution.rows import rows_of
from velaria_core.execution.sources.memory import MemorySource


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataflowSession]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("ts,k,v\n1000,a,1\n1500,b,2\n")
    (tmp_path / "in" / "b.csv").write_text("ts,k,v\n2000,a,3\n2500,a,4\n")
    (tmp_path / "in" / "_a.csv").write_text("ts,k,v\n9,unfinished,9\n")
    with DataflowSession() as session:
        session.sql("CREATE SOURCE TABLE events USING csv OPTIONS(path: 'in/', bounded: true)")
        session.sql("CREATE SINK TABLE out USING memory")
        yield session


def run(session: DataflowSession, text: str, **options: Any) -> list[tuple[Any, ...]]:
    """The rows of the sink `out` once the query has ended, sorted."""
    assert session.start_stream_sql(text, **options).await_termination(60)
    result = session.memory_sink("out").result()
    return sorted((tuple(row.values()) for row in rows_of(result)), key=str)


def refused(code: str, call: Callable[[], object]) -> VelariaError:
    with pytest.raises(VelariaError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


# --- sources to sinks: T-11 ---------------------------------------------------------------------------------


def test_t11_csv_source_to_sink_in_two_batches(session: DataflowSession, tmp_path: Path) -> None:
    session.sql("CREATE SINK TABLE file USING csv OPTIONS(path: 'out.csv')")
    query = session.start_stream_sql("INSERT INTO file SELECT k, v * 10 AS v FROM events WHERE v > 1", epoch_rows_max=2)
    assert query.await_termination(60)
    assert (tmp_path / "out.csv").read_text() == "k,v\nb,20\na,30\na,40\n"


def test_the_options_of_a_stream_statement_a90(session: DataflowSession, tmp_path: Path) -> None:
    """A-90: the options of explain_stream_sql and start_stream_sql, by the names that they have there."""
    options: dict[str, Any] = {
        "trigger_interval_ms": 0,
        "checkpoint_path": str(tmp_path / "state"),
        "checkpoint_delivery_mode": "at-least-once",
        "execution_mode": "local-workers",
        "local_workers": 2,
        "max_inflight_partitions": 1,
    }
    session.sql("CREATE SINK TABLE sums USING memory")
    text = "INSERT INTO sums SELECT k, sum(v) AS s FROM events GROUP BY k"
    shown = session.explain_stream_sql(text, **options).split("\n")
    assert {"  requested_mode=local-workers", "  checkpoint_delivery_mode=at-least-once"} <= set(shown)
    assert {"  local_worker_count=2", "  max_inflight_partitions=1"} <= set(shown)
    assert not (tmp_path / "state").exists(), "explain makes nothing"
    query = session.start_stream_sql(text, **options)
    assert query.await_termination(60)
    assert (query.progress()["requested_execution_mode"], query.delivery.asked) == ("local-workers", "at-least-once")
    assert (tmp_path / "state" / "checkpoint.json").exists()
    for call in (session.explain_stream_sql, session.start_stream_sql):
        with pytest.raises(InputError, match="no option"):
            call(text, worker_count=2)


SAME_AS_BATCH = [
    "SELECT * FROM events",
    "SELECT upper(k) AS k, v + 0.5 AS half FROM events WHERE v > 1 AND (k = 'a' OR v = 2)",
    "SELECT k, count(*) AS n, sum(v) AS s, min(v) AS lo, max(v) AS hi, avg(v) AS mean FROM events GROUP BY k",
    "SELECT k, sum(v) AS s FROM events GROUP BY k HAVING s > 2 AND count(*) > 1",
    "SELECT w, k, sum(v) AS s, count(*) AS n FROM events WINDOW BY ts EVERY 1000 AS w GROUP BY w, k",
    "SELECT w AS opened, sum(v) AS s FROM events WINDOW BY ts EVERY 1000 SLIDE 500 AS w GROUP BY w",
    "SELECT length(k) AS l, sum(v) AS s FROM events GROUP BY length(k)",
    "SELECT e.k, e.v, n.name FROM events AS e JOIN names AS n USING (k)",
    "SELECT a.v, b.v AS w FROM events AS a JOIN events AS b ON a.k = b.k AND a.ts < b.ts",
    "SELECT k FROM events UNION SELECT name FROM names",
    "SELECT DISTINCT k FROM events",
    "SELECT k, v FROM events ORDER BY v DESC LIMIT 2",
    "SELECT k, v FROM events ORDER BY v",
    "SELECT 7 AS seven, count(k) AS n FROM events",
    "SELECT * FROM TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL 1 SECOND)",
    "WITH a AS (SELECT * FROM events WHERE k = 'a') SELECT count(*) AS n FROM a",
]


@pytest.mark.parametrize("select", SAME_AS_BATCH)
def test_t41_a_stream_gives_what_batch_gives(session: DataflowSession, select: str) -> None:
    """What the old engine refused in a stream (joins, unions, AND, OR, DISTINCT, ...) runs: rows Q-81 and Q-83."""
    session.sql("CREATE TABLE names (k VARCHAR, name VARCHAR); INSERT INTO names VALUES ('a', 'Ada')")
    batch = [tuple(row.values()) for row in session.sql(select).to_rows()]
    assert bag(run(session, f"INSERT INTO out {select}", epoch_rows_max=1)) == bag(batch)


def test_parameters_are_filled(session: DataflowSession) -> None:
    assert run(session, "INSERT INTO out SELECT v FROM events WHERE k = ?", parameters=["b"]) == [(2,)]
    assert session.stream_sql("SELECT v FROM events WHERE v > $least", {"least": 3}).columns == ["v"]


def test_a_stored_table_is_a_sink_too(session: DataflowSession) -> None:
    session.sql("CREATE TABLE totals (k VARCHAR, n BIGINT, note VARCHAR)")
    text = "INSERT INTO totals (n, k) SELECT count(*), k FROM events GROUP BY k"
    assert session.start_stream_sql(text, epoch_rows_max=1).await_termination(60)
    assert session.sql("SELECT * FROM totals ORDER BY k").to_rows() == [
        {"k": "a", "n": 3, "note": None},
        {"k": "b", "n": 1, "note": None},
    ]


def test_columns_go_to_the_sinks_own_types(session: DataflowSession) -> None:
    session.sql("CREATE SINK TABLE typed (v DECIMAL(9, 2), k VARCHAR) USING memory")
    assert session.start_stream_sql("INSERT INTO typed BY NAME SELECT k, v FROM events").await_termination(60)
    assert [str(kind) for kind in session.memory_sink("typed").result().schema.types] == ["decimal128(9, 2)", "string"]


@pytest.mark.parametrize(
    "sink", ["TABLE kept (k VARCHAR NOT NULL)", "SINK TABLE kept (k VARCHAR NOT NULL) USING memory"]
)
def test_a_null_where_none_may_be_fails_the_epoch_and_not_the_sink(
    session: DataflowSession, sink: str, tmp_path: Path
) -> None:
    session.sql(f"CREATE {sink}; CREATE SINK TABLE letters USING memory")
    session.sql("CREATE SOURCE TABLE pushed (k VARCHAR) USING queue")
    text = "INSERT INTO kept SELECT k FROM pushed"
    letters = session.memory_sink("letters")
    query = session.start_stream_sql(text, checkpoint_path=str(tmp_path / "state"), dead_letter=letters)
    queue = session.queue_source("pushed")
    for row in ((None,), ("a",)):
        queue.push_rows([row])
    queue.close_input()
    assert query.await_termination(60)
    kept = session.table("kept").to_arrow() if sink.startswith("TABLE") else session.memory_sink("kept").result()
    assert rows_of(kept) == [{"k": "a"}]
    assert letters.result().num_rows == 1


def test_a_source_is_read_twice_by_one_query_and_by_two(session: DataflowSession) -> None:
    session.sql("CREATE SINK TABLE other USING memory")
    one = session.start_stream_sql("INSERT INTO out SELECT count(*) AS n FROM events AS a, events AS b")
    two = session.start_stream_sql("INSERT INTO other SELECT v FROM events")
    assert one.await_termination(60)
    assert two.await_termination(60)
    assert rows_of(session.memory_sink("out").result()) == [{"n": 16}]
    assert session.memory_sink("other").result().num_rows == 4


def test_a_frame_goes_to_a_sink_or_a_table_by_name(session: DataflowSession) -> None:
    session.sql(
        "CREATE TABLE totals (k VARCHAR, n INTEGER NOT NULL); CREATE SINK TABLE files USING parquet OPTIONS(path: 'p/')"
    )
    counted = session.stream("events").group_by("k").count("n")
    for name in ("totals", "files", "out"):
        assert counted.write_stream(name).start().await_termination(60)
    assert session.sql("SELECT * FROM totals ORDER BY k").to_rows() == [{"k": "a", "n": 3}, {"k": "b", "n": 1}]
    assert session.sql("SELECT sum(diff) AS n FROM 'p/'").to_rows() == [{"n": 2}]
    assert session.memory_sink("out").result().num_rows == 2
    refused("sql.unknown_table", lambda: counted.write_stream("nothing"))
    refused("sql.table_kind", lambda: counted.write_stream("events"))
    refused("sql.column_count", lambda: counted.select("n").write_stream("totals"))


@pytest.mark.parametrize(
    "sink",
    [
        "SINK TABLE one USING csv OPTIONS(path: 'one.csv')",
        "SINK TABLE one USING parquet OPTIONS(path: 'one/')",
        "SINK TABLE one USING table OPTIONS(path: 'one.duckdb')",
        "SINK TABLE one USING memory",
        "TABLE one (v BIGINT)",
    ],
)
def test_two_queries_do_not_write_to_one_place(session: DataflowSession, sink: str) -> None:
    """Each would cut away or count as its own what the other one wrote."""
    session.sql(f"CREATE {sink}; CREATE SOURCE TABLE pushed (v BIGINT) USING queue")
    first = session.start_stream_sql("INSERT INTO one SELECT v FROM pushed")
    error = refused("sink.taken", lambda: session.start_stream_sql("INSERT INTO one SELECT v FROM events"))
    assert "UNION ALL" in (error.hint or "")
    session.queue_source("pushed").push_rows([(7,)])
    first.stop(drain=True)
    assert first.progress()["rows_out"] == 1
    assert session.start_stream_sql("INSERT INTO one SELECT v FROM events").await_termination(60)


def test_every_using_of_a_sink_takes_the_rows(session: DataflowSession, tmp_path: Path) -> None:
    """Q-80, and every line of the table of sinks."""
    session.sql("CREATE SINK TABLE p USING parquet OPTIONS(path: 'p')")
    session.sql("CREATE SINK TABLE j USING json OPTIONS(path: 'j')")
    session.sql("CREATE SINK TABLE c USING csv OPTIONS(path: 'c/')")
    session.sql("CREATE SINK TABLE d USING table OPTIONS(path: 'd.duckdb', table: 'stored')")
    for name in ("p", "j", "c", "d"):
        assert session.start_stream_sql(f"INSERT INTO {name} SELECT k, v FROM events").await_termination(60)
    for folder in ("p", "j", "c"):
        assert session.read(str(tmp_path / folder)).count() == 4
    with DataflowSession("d.duckdb") as stored:
        assert stored.sql("SELECT count(*) AS n FROM stored").to_rows() == [{"n": 4}]


def test_queues_at_both_ends(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE pushed (k VARCHAR, v BIGINT) USING queue OPTIONS(capacity_rows: 10)")
    session.sql("CREATE SINK TABLE polled USING queue")
    source, sink = session.queue_source("pushed"), session.queue_sink("polled")
    query = session.start_stream_sql("INSERT INTO polled SELECT k, v + 1 AS v FROM pushed")
    source.push_rows([{"k": "a", "v": 1}, {"k": "b", "v": 2}])
    first = sink.wait_arrow(60_000)
    assert first is not None
    assert rows_of(first) == [{"k": "a", "v": 2}, {"k": "b", "v": 3}]
    source.close_input()
    assert query.await_termination(60)
    assert sink.closed()


def test_changes_are_pushed_into_a_queue(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE ledger (k VARCHAR) USING queue OPTIONS(changes: true)")
    session.queue_source("ledger").push_rows([("a", 1), ("b", 1), ("a", -1)])
    session.queue_source("ledger").close_input()
    assert run(session, "INSERT INTO out SELECT k, count(*) AS n FROM ledger GROUP BY k") == [("b", 1)]


def test_a_rate_counts(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE ticks USING rate OPTIONS(rows_per_second: 1000, rows: 50, wait: false)")
    assert session.sql("DESCRIBE ticks").to_rows()[1] == {"column_name": "value", "column_type": "int64"}
    assert run(session, "INSERT INTO out SELECT count(*) AS n, max(value) AS top FROM ticks") == [(50, 49)]


def test_a_file_grows(session: DataflowSession, tmp_path: Path) -> None:
    session.sql(
        "CREATE SOURCE TABLE log (at BIGINT, what VARCHAR) USING csv "
        "OPTIONS(path: 'log.csv', follow: true, poll: '10 ms', header: false, delimiter: ',', quote: '\"')"
    )
    session.sql("CREATE SINK TABLE polled USING queue")
    sink = session.queue_sink("polled")
    query = session.start_stream_sql("INSERT INTO polled SELECT what FROM log")
    for what in ("one", "two"):
        with (tmp_path / "log.csv").open("a") as file:
            file.write(f"1,{what}\n")
        given = sink.wait_arrow(60_000)
        assert given is not None
        assert rows_of(given) == [{"what": what}]
    query.stop()


def test_a_registered_sink_has_a_name_a11(session: DataflowSession) -> None:
    """A-11, A-10: names of sinks and streams; a name is taken once."""
    mine = MemorySink()
    session.register_stream_sink("mine", mine)
    assert session.start_stream_sql("INSERT INTO mine SELECT v FROM events").await_termination(60)
    assert mine.result().num_rows == 4
    refused("catalog.exists", lambda: session.register_stream_sink("mine", MemorySink()))
    refused("catalog.exists", lambda: session.create_temp_view("mine", session.stream("events")))


def test_realtime_names_a88(session: DataflowSession) -> None:
    source = session.create_realtime_stream_source({"k": "string", "v": "int64"})
    sink = session.create_realtime_stream_sink()
    query = session.read_realtime_stream_source(source).select("v").write_stream(sink).start()
    source.push_arrow(pa.table({"k": ["a"], "v": [1]}))
    given = sink.wait_arrow(60_000)
    assert given is not None
    assert given.num_rows == 1
    query.stop()
    refused("source.schema", lambda: session.create_realtime_stream_source(["k"]))  # type: ignore[list-item]


def test_read_stream_csv_dir_a07(session: DataflowSession) -> None:
    frame = session.read_stream_csv_dir("in", bounded=True)
    session.create_temp_view("folder", frame)
    assert run(session, "INSERT INTO out SELECT sum(v) AS s FROM folder") == [(10,)]


def test_a_table_that_a_stream_writes_to_stays(session: DataflowSession) -> None:
    session.sql("CREATE TABLE totals (v BIGINT); CREATE SOURCE TABLE pushed (v BIGINT) USING queue")
    query = session.start_stream_sql("INSERT INTO Totals SELECT v FROM pushed")
    for text in (
        "DROP TABLE totals",
        "CREATE OR REPLACE TABLE totals (v VARCHAR)",
        "CREATE OR REPLACE TABLE totals AS SELECT 1 AS v",
    ):
        error = refused("catalog.written", lambda text=text: session.sql(text))  # type: ignore[misc]
        assert query.id in error.message
        assert error.place is not None
    refused("catalog.written", lambda: session.table("totals").save_as_table("totals", or_replace=True))
    session.sql("INSERT INTO totals VALUES (1)")
    query.stop()
    session.sql("DROP TABLE totals")


# --- who is at work -----------------------------------------------------------------------------------------


def test_streams_are_shown_also_one_that_died_alone(session: DataflowSession, caplog: pytest.LogCaptureFixture) -> None:
    session.sql("CREATE SINK TABLE typed (v BIGINT) USING memory; CREATE SOURCE TABLE pushed (v BIGINT) USING queue")
    over = threading.Event()
    session.add_listener(lambda event: over.set() if event.kind is EventKind.FAILED else None)
    session.start_stream_sql("INSERT INTO typed\n  SELECT k FROM events")  # nobody holds it
    running = session.start_stream_sql("INSERT INTO out SELECT v FROM pushed")
    assert over.wait(60)
    failed, shown = session.sql("SHOW STREAMS").to_rows()
    assert (failed["status"], failed["query"]) == ("failed", "INSERT INTO typed SELECT k FROM events")
    assert "Could not convert string 'a'" in failed["error"]
    assert (shown["name"], shown["error"]) == (running.id, None)
    assert shown["status"] in ("created", "running")
    assert repr(running).endswith(": INSERT INTO out SELECT v FROM pushed)")
    until(lambda: bool(caplog.records), running)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith(f"{failed['name']} failed, and nobody waits for it: DataError[value.conversion]")
    running.stop()
    awaited = session.stream("events").write_stream(MemorySink())
    assert awaited.start().await_termination(60)
    stopped = session.sql(f"SHOW STREAMS LIKE '{awaited.id}'").to_rows()
    assert [(row["status"], row["rows_in"], row["query"]) for row in stopped] == [
        ("stopped", 4, "stream events -> MemorySink")
    ]


def test_show_create_gives_a_statement_that_makes_it_again(session: DataflowSession) -> None:
    session.sql("""
        CREATE TABLE stored (k VARCHAR NOT NULL, v DECIMAL(9, 2));
        CREATE VIEW v AS SELECT k FROM events;
        CREATE MATERIALIZED VIEW m AS SELECT k, count(*) AS n FROM stored GROUP BY k
    """)
    made = {}
    for name in ("events", "out", "stored", "v", "m"):
        made[name] = str(session.sql(f"SHOW CREATE {name}").to_rows()[0]["sql"])
    assert made["events"].startswith('CREATE SOURCE TABLE events ("ts" BIGINT, "k" VARCHAR, "v" BIGINT) USING csv')
    assert made["stored"] == 'CREATE TABLE "stored" ("k" VARCHAR NOT NULL, "v" DECIMAL(9,2))'
    assert session.sql("SHOW CREATE MATERIALIZED VIEW m").to_rows()[0]["sql"] == made["m"]
    with DataflowSession() as other:
        for name, text in made.items():
            other.sql(text)
            assert other.sql(f"SHOW CREATE {name}").to_rows()[0]["sql"] == text
    session.create_temp_view("mine", session.stream("events"))
    assert refused("catalog.kind", lambda: session.sql("SHOW CREATE VIEW mine")).place is not None
    refused("sql.unknown_table", lambda: session.sql("SHOW CREATE TABLE nothing"))
    refused("sql.syntax", lambda: session.sql("SHOW CREATE"))


# --- mistakes in what is declared, and in how a query is started --------------------------------------------


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"trigger": "now"}, "Trigger.available_now()"),
        ({"epoch_rows_max": "many"}, "a whole number, not 'many'"),
        ({"retries": True}, "a whole number"),
        ({"checkpoint_path": 5}, "a folder"),
        ({"late_sink": "late.csv"}, "a sink"),
        ({"shared_memory_transport": "yes"}, "true or false"),
        ({"trigger_interval_ms": "5 seconds"}, "a number of milliseconds"),
    ],
)
def test_an_option_of_another_kind_is_told(session: DataflowSession, option: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        session.start_stream_sql("INSERT INTO out SELECT v FROM events", **option)
    assert says in caught.value.message
    with pytest.raises(InputError, match="a sink is needed"):
        session.stream("events").write_stream(Path("out.csv"))  # type: ignore[arg-type]


@pytest.mark.parametrize("marked", [False, True])
def test_append_output_of_what_changes_says_what_closes_it(session: DataflowSession, marked: bool) -> None:
    session.sql(
        f"CREATE SOURCE TABLE m (ts BIGINT, v BIGINT{', WATERMARK FOR ts AS ts' if marked else ''}) USING queue"
    )
    text = "INSERT INTO out SELECT v, count(*) AS n FROM m GROUP BY v EMIT ON WINDOW CLOSE"
    error = refused("stream.output_mode", lambda: session.start_stream_sql(text))
    assert error.place is not None
    assert error.place.column == text.index("EMIT") + 1
    assert ("WATERMARK FOR" in (error.hint or "")) is not marked
    assert "rows of this result change" in session.explain_stream_sql(text)


def test_a_value_that_is_no_number_is_not_placed_in_a_statement_of_the_engine(session: DataflowSession) -> None:
    session.sql("CREATE SINK TABLE typed (v BIGINT) USING memory")
    query = session.start_stream_sql("INSERT INTO typed SELECT k FROM events")
    error = refused("value.conversion", lambda: query.await_termination(60))
    assert error.place is None


def test_the_whole_order_of_an_endless_stream_is_refused_of_a_frame_too(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE endless USING csv OPTIONS(path: 'in/')")
    frame = session.stream("endless").order_by("v")
    refused("sql.endless_order", lambda: frame.write_stream(MemorySink()))
    frame.limit(1).write_stream(MemorySink()).stop()


# --- batch over sources -------------------------------------------------------------------------------------


def test_batch_reads_what_a_source_has_now(session: DataflowSession) -> None:
    assert session.sql("SELECT sum(v) AS s FROM events").to_rows() == [{"s": 10}]
    session.sql("CREATE SOURCE TABLE one (ts BIGINT, k VARCHAR, v DOUBLE) USING csv OPTIONS(path: 'in', pattern: 'b*')")
    assert session.sql("SELECT v FROM one ORDER BY v").to_rows() == [{"v": 3.0}, {"v": 4.0}]


def test_batch_does_not_read_a_queue(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE pushed (v BIGINT) USING queue; CREATE VIEW twice AS SELECT v * 2 AS v FROM pushed")
    for name in ("pushed", "twice"):
        error = refused("sql.stream_only", lambda name=name: session.sql(f"SELECT * FROM {name}"))  # type: ignore[misc]
        assert error.place is not None
        assert error.place.column == 15
    assert session.sql("DESCRIBE twice").to_rows() == [{"column_name": "v", "column_type": "int64"}]


def test_a_probed_source_keeps_its_columns_and_the_catalog_its_sources(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("k,v\na,1\n")
    with DataflowSession(tmp_path / "s.duckdb") as session:
        session.sql(f"CREATE SOURCE TABLE s USING csv OPTIONS(path: '{folder}')")
        session.sql(
            f"CREATE SOURCE TABLE w (WATERMARK FOR v AS v - INTERVAL 1 SECOND) USING csv OPTIONS(path: '{folder}')"
        )
        session.sql("CREATE SINK TABLE o (k VARCHAR) USING queue")
    (folder / "a.csv").unlink()
    with DataflowSession(tmp_path / "s.duckdb") as session:
        for name in ("s", "w"):
            assert [row["column_type"] for row in session.sql(f"DESCRIBE {name}").to_rows()] == ["string", "int64"]
        assert session.sql("SHOW SOURCES").count() == 2
        assert session.queue_sink("o").poll_arrow() is None
        assert "Watermark: v - 1000 ms" in session.explain_stream_sql("SELECT * FROM w")


# --- refusals: T-11, Q-83 -----------------------------------------------------------------------------------


def test_t11_order_by_without_end_is_refused_at_start_and_at_explain(session: DataflowSession) -> None:
    session.sql("CREATE SOURCE TABLE folder USING csv OPTIONS(path: 'in/')")
    text = "INSERT INTO out SELECT k FROM folder ORDER BY k"
    for call in (session.start_stream_sql, session.explain_stream_sql):
        error = refused("sql.endless_order", lambda call=call: call(text))  # type: ignore[misc]
        assert error.place is not None
        assert error.place.column == text.index("ORDER BY k") + len("ORDER BY k")
    refused("sql.endless_order", lambda: session.explain_stream_sql("SELECT k FROM folder ORDER BY k"))
    assert "LIMIT" in str(refused("sql.endless_order", lambda: session.start_stream_sql(text)).hint)
    session.start_stream_sql(text + " LIMIT 2").stop()
    session.start_stream_sql("INSERT INTO out SELECT count(*) AS n FROM (SELECT k FROM folder ORDER BY k)").stop()


def test_a_pivot_lists_its_values(session: DataflowSession) -> None:
    text = "INSERT INTO out PIVOT events ON k IN ('a', 'b') USING sum(v) GROUP BY ts"
    assert run(session, text)[:2] == [(1000, 1, None), (1500, None, 2)]
    for text in ("PIVOT events ON k USING sum(v)", "SELECT * FROM (PIVOT events ON k USING sum(v))"):
        refused("sql.open_pivot", lambda text=text: session.stream_sql(text))  # type: ignore[misc]


def test_t11_kinds_are_kept(session: DataflowSession) -> None:
    session.sql("CREATE VIEW v AS SELECT * FROM events; CREATE TEMP TABLE t (ts BIGINT, k VARCHAR, v BIGINT)")
    cases: list[tuple[type[VelariaError], str, str]] = [
        (TableKindError, "sql.table_kind", "INSERT INTO events SELECT * FROM events"),
        (TableKindError, "sql.table_kind", "INSERT INTO v SELECT * FROM events"),
        (TableKindError, "sql.table_kind", "INSERT INTO t SELECT * FROM events"),
        (TableKindError, "sql.table_kind", "INSERT INTO out SELECT * FROM out"),
        (CatalogNotFoundError, "sql.unknown_table", "INSERT INTO nothing SELECT * FROM events"),
        (CatalogNotFoundError, "sql.unknown_table", "INSERT INTO out SELECT * FROM nothing"),
        (SqlUnsupportedError, "sql.stream", "SELECT * FROM events"),
        (SqlUnsupportedError, "sql.stream", "INSERT INTO out SELECT 1; INSERT INTO out SELECT 2"),
    ]
    for kind, code, text in cases:
        error = refused(code, lambda text=text: session.start_stream_sql(text))  # type: ignore[misc]
        assert isinstance(error, kind)
        assert error.place is not None or code == "sql.stream"
    refused("sql.stream", lambda: session.stream_sql("INSERT INTO out SELECT 1"))
    refused("sql.stream", lambda: session.explain_stream_sql("DROP SINK out"))
    refused("sql.table_kind", lambda: session.queue_source("events"))
    refused("sql.table_kind", lambda: session.queue_sink("out"))
    refused("sql.unknown_table", lambda: session.queue_sink("nothing"))
    refused("sql.table_kind", lambda: session.sql("SELECT * FROM out"))
    refused("sql.table_kind", lambda: session.sql("INSERT INTO out SELECT 1"))


@pytest.mark.parametrize(
    ("code", "text", "column"),
    [
        ("option.unknown", "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'in/', folow: true)", 54),
        ("option.value", "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'in/', follow: 'perhaps')", 54),
        ("option.value", "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'in/a.csv', settle: '1 s')", 59),
        ("option.value", "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'in/', settle: 'soon')", 54),
        ("option.value", "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'in/', late: 'fold')", 54),
        (
            "option.value",
            "CREATE SOURCE TABLE s (WATERMARK FOR ts AS ts) USING csv OPTIONS(path: 'in/', late: 'x')",
            79,
        ),
        ("option.missing", "CREATE SOURCE TABLE s USING csv", 21),
        ("option.unknown_format", "CREATE SOURCE TABLE s USING cvs OPTIONS(path: 'in/')", 29),
        ("option.unknown_format", "CREATE SINK TABLE s USING rate", 27),
        ("option.missing", "CREATE SINK TABLE s OPTIONS(path: 'x')", 19),
        ("option.unknown", "CREATE SINK TABLE s USING memory OPTIONS(rows: 1)", 42),
        ("option.value", "CREATE SINK TABLE s USING queue OPTIONS(capacity_rows: 0)", 19),
        ("source.no_schema", "CREATE SOURCE TABLE s USING queue", 21),
        ("file.not_found", "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'none.csv')", 41),
        ("file.not_found", "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'none/')", 41),
        ("type.unknown", "CREATE SOURCE TABLE s (a INT, b INTT) USING queue", 33),
        ("type.unknown", "CREATE SINK TABLE s (a INTT) USING memory", 24),
        ("type.unknown", "CREATE TABLE s (a DECIML(9, 2))", 19),
        ("option.value", "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'in/_a.csv')", 41),
        ("sql.schema_mismatch", "CREATE SOURCE TABLE s (a BIGINT) USING rate", 21),
        ("sql.unknown_column", "CREATE SOURCE TABLE s (a BIGINT, WATERMARK FOR b AS b) USING queue", 34),
        ("sql.window_column", "CREATE SOURCE TABLE s (a DOUBLE, WATERMARK FOR a AS a) USING queue", 34),
        ("sql.watermark", "CREATE SINK TABLE s (a BIGINT, WATERMARK FOR a AS a) USING memory", 32),
    ],
)
def test_what_is_wrong_with_a_table_shows_at_once_and_where(
    session: DataflowSession, code: str, text: str, column: int
) -> None:
    error = refused(code, lambda: session.sql(text))
    assert error.place is not None
    assert error.place.column == column
    assert "s" not in session.tables()


def test_did_you_mean_an_option(session: DataflowSession) -> None:
    text = "CREATE SOURCE TABLE s USING csv OPTIONS(path: 'in/', folow: true)"
    assert 'did you mean "follow"?' in str(refused("option.unknown", lambda: session.sql(text)).hint)


def test_column_lists_of_a_sink_are_checked(session: DataflowSession) -> None:
    session.sql("CREATE SINK TABLE typed (k VARCHAR, v BIGINT) USING memory")
    insert = session.start_stream_sql
    refused("sql.unknown_column", lambda: insert("INSERT INTO typed (k, w) SELECT k, v FROM events"))
    refused("sql.column_count", lambda: insert("INSERT INTO typed (k) SELECT k, v FROM events"))
    refused("sql.column_count", lambda: insert("INSERT INTO typed SELECT k FROM events"))
    refused("sql.duplicate_column", lambda: insert("INSERT INTO typed (k, k) SELECT k, k FROM events"))


# --- EMIT, explain: T-14 ------------------------------------------------------------------------------------


def test_emit_chooses_the_output_mode(session: DataflowSession) -> None:
    text = "INSERT INTO out SELECT k, count(*) AS n FROM events GROUP BY k EMIT CHANGES"
    assert run(session, text, epoch_rows_max=1) == [("a", 3), ("b", 1)]
    error = refused("sql.emit", lambda: session.start_stream_sql(text, output_mode="complete"))
    assert error.place is not None


def test_t14_explain_names_every_operator_and_its_shape(session: DataflowSession) -> None:
    told = session.explain_stream_sql("SELECT k, sum(v) AS s FROM events GROUP BY k HAVING s > 1")
    for part in ("Filter", "Aggregate", "Scan: stream events", "keyed", "linear"):
        assert part in told
    insert = session.explain_stream_sql("INSERT INTO out SELECT k, sum(v) AS s FROM events GROUP BY k HAVING s > 1")
    assert "Aggregate" in insert
    refused("sql.unknown_column", lambda: session.explain_stream_sql("SELECT nothing FROM events"))


def test_views_and_streams_go_together(session: DataflowSession) -> None:
    session.sql("CREATE VIEW big AS SELECT * FROM events WHERE v > 1")
    session.create_temp_view("more", session.read_stream(MemorySource([pa.table({"k": ["a", "z"]})]), "more"))
    assert run(session, "INSERT INTO out SELECT big.k, v FROM big JOIN more USING (k)") == [("a", 3), ("a", 4)]
    with pytest.raises(InputError):
        session.sql("SELECT * FROM more")
