"""Search indexes of stored tables: never ahead of or behind the rows, through inserts, streams, restarts and damage."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import examples
from search_support import clustered

from velaria_core import DataflowSession, InputError, col
from velaria_core.errors import CatalogNotFoundError, ExternalError, VelariaError
from velaria_core.execution.search import approximate
from velaria_core.execution.search.indexes import Indexes
from velaria_core.execution.search.keyword_index import KeywordIndex
from velaria_core.execution.search.vector_index import VectorIndex
from velaria_core.execution.sources.memory import MemorySource

LENGTH = 8
COLUMNS = pa.schema(
    [("id", pa.int64()), ("kind", pa.int64()), ("body", pa.string()), ("e", pa.list_(pa.float32(), LENGTH))]
)


def rows_of(count: int, seed: int = 1, first: int = 0) -> pa.Table:
    """Rows of which some have no vector, some the same one, and some no text."""
    random = np.random.default_rng(seed)
    vectors: list[Any] = random.standard_normal((count, LENGTH)).astype(np.float32).tolist()
    words = random.choice(["night", "train", "bus", "支付"], (count, 3))
    texts: list[str | None] = [" ".join(some) for some in words]
    for at in range(count):
        if at % 11 == 0:
            vectors[at], texts[at] = None, None
        elif at % 5 == 0:
            vectors[at] = vectors[at - 1] or [0.0] * LENGTH
    ids = range(first, first + count)
    return pa.table([ids, [at % 3 for at in ids], texts, vectors], schema=COLUMNS)


QUERY = np.linspace(-1, 1, LENGTH)
WORDS = "night 支付 -bus"
FUSED: list[Callable[[Any], Any]] = [
    lambda frame: frame.hybrid_search("e", QUERY, 6, text="night bus", columns="body"),
    lambda frame: frame.filter("kind = 1").hybrid_search(
        "e", QUERY, 6, "l2", text=WORDS, columns={"body": 2}, fusion="weighted", constant=0.3, candidates=9
    ),
    lambda frame: (
        frame.select("id", "e", "body")
        .rename({"e": "v", "body": "b"})
        .with_column("more", col("id") + 1)
        .hybrid_search("v", QUERY, 9, "dot", 0.5, text='"night train" OR bus', columns=["b"], candidates=3)
    ),
    lambda frame: frame.filter("id < 0").hybrid_search("e", QUERY, 6, text="night", columns="body"),
    lambda frame: frame.hybrid_search("e", QUERY, 6, text="nowhere", columns="body", fusion="weighted"),
]
SEARCHES: list[Callable[[Any], Any]] = [
    lambda frame: frame.vector_search("e", QUERY, 7),
    lambda frame: frame.vector_search("e", QUERY, 7, "dot", score_threshold=0.5),
    lambda frame: frame.filter("kind = 1").vector_search("e", QUERY, 7, "l2"),
    lambda frame: frame.select("id", "e").rename({"e": "v"}).filter("id > 3").vector_search("v", QUERY, 3),
    lambda frame: frame.keyword_search("body", "night -bus", 7),
    lambda frame: frame.filter("kind <> 1").keyword_search({"body": 2}, '"night train" OR 支付', 4),
    *FUSED[:3],
]


def agree(session: DataflowSession, table: str = "d") -> None:
    """Assert that every search finds by the index what the engine finds over a copy without one."""
    copied = session.sql(f"SELECT * FROM {table} WHERE true OR random() > 2").to_arrow()
    session.create_dataframe(copied).save_as_table("copied", or_replace=True)
    for search in SEARCHES:
        by_index, by_engine = search(session.table(table)), search(session.table("copied"))
        assert "answered_by" in by_index.explain()
        assert "answered_by" not in by_engine.explain()
        assert by_index.to_arrow().equals(by_engine.to_arrow())


def indexed(session: DataflowSession, rows: pa.Table, table: str = "d") -> None:
    session.create_dataframe(rows).save_as_table(table)
    session.sql(f"CREATE VECTOR INDEX {table}_e ON {table} (E); CREATE KEYWORD INDEX {table}_body ON {table}(body)")


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as made:
        yield made


def test_what_changes_a_table_changes_its_indexes(session: DataflowSession) -> None:
    indexed(session, rows_of(200))
    agree(session)
    session.create_dataframe(rows_of(50, 2, 200)).insert_into("d")
    agree(session)
    session.sql("INSERT INTO d SELECT id + 1000, kind, body, e FROM d WHERE id < 20")
    agree(session)
    session.create_dataframe(rows_of(30, 3)).save_as_table("d", or_replace=True)
    agree(session)
    session.sql("CREATE OR REPLACE TABLE d AS SELECT * FROM d WHERE id > 10")
    agree(session)


@pytest.mark.parametrize("sides", ["both", "vectors", "words"])
def test_a_fused_search_is_answered_by_the_indexes_there_are(session: DataflowSession, sides: str) -> None:
    rows = rows_of(400)
    indexed(session, pa.concat_tables([rows, rows.slice(0, 60), rows.slice(30, 40)]))
    session.create_dataframe(session.table("d").to_arrow()).save_as_table("plain")
    if sides != "both":
        session.sql(f"DROP INDEX {'d_e' if sides == 'words' else 'd_body'}")
    told = {
        "both": "keyword index d_body, vector index d_e",
        "vectors": "engine, vector index d_e",
        "words": "keyword index d_body, engine",
    }
    for search in FUSED:
        by_index, by_engine = search(session.table("d")), search(session.table("plain"))
        assert f"answered_by=({told[sides]})" in by_index.explain()
        assert "answered_by" not in by_engine.explain()
        assert by_index.to_arrow().equals(by_engine.to_arrow())
    # In the midst of a plan, and twice in one.
    best = [FUSED[0](session.table(name)).filter("hybrid_score > 0.01").select("id") for name in ("d", "plain")]
    assert best[0].union(best[0]).order_by("id").to_arrow().equals(best[1].union(best[1]).order_by("id").to_arrow())
    session.sql("DROP INDEX IF EXISTS d_e; DROP INDEX IF EXISTS d_body")
    assert best[0].to_arrow().equals(best[1].to_arrow())


def test_no_rows_and_many_that_tie(session: DataflowSession) -> None:
    indexed(session, rows_of(0))
    agree(session)
    same = rows_of(12, 4).slice(1, 1).to_pylist()[0]
    many = pa.Table.from_pylist([same | {"id": at} for at in range(300, 0, -1)], schema=COLUMNS)
    session.create_dataframe(many).insert_into("d")
    agree(session)
    found = session.vector_search("d", "e", same["e"], 3).to_rows()
    assert [row["id"] for row in found] == [1, 2, 3]


def test_a_stream_into_the_table_is_followed(session: DataflowSession) -> None:
    indexed(session, rows_of(100))
    batches = [rows_of(40, seed, 1000 * seed) for seed in range(2, 5)]
    session.create_temp_view("came", session.read_stream(MemorySource(batches)))
    query = session.start_stream_sql("INSERT INTO d SELECT * FROM came")
    query.await_termination()
    assert session.table("d").count() == 220
    agree(session)


def test_rows_that_a_stream_takes_back_leave_the_index(session: DataflowSession) -> None:
    session.sql("CREATE TABLE d (id BIGINT, kind BIGINT, body VARCHAR, e FLOAT[8])")
    session.sql("CREATE INDEX d_e ON d(e); CREATE INDEX d_body ON d(body)")
    session.sql("CREATE SOURCE TABLE came (id BIGINT, kind BIGINT, body VARCHAR, e FLOAT[8]) USING queue")
    queue = session.queue_source("came")
    # The last thirty so far: rows go as others come.
    sql = "INSERT INTO d SELECT * FROM (SELECT * FROM came ORDER BY id DESC LIMIT 30)"
    frame, sink, options, _ = session._stream_insert(sql, None, {})
    query = frame.write_stream(sink, **options)
    for at in range(3):
        queue.push_arrow(rows_of(25, at + 1, 25 * at))
        query.process_available()
        agree(session)
    query.stop()
    assert session.table("d").count() == 30


def test_indexes_outlive_the_session(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with DataflowSession(path) as one:
        indexed(one, rows_of(150))
    with DataflowSession(path) as two:
        assert [row["name"] for row in two.sql("SHOW INDEXES").to_rows()] == ["d_body", "d_e"]
        two.create_dataframe(rows_of(20, 5, 500)).insert_into("d")
    with DataflowSession(path) as three:
        # The rows came, and nobody searched since: the index is behind until it is asked.
        agree(three)
    with DataflowSession(path, read_only=True) as four:
        search = SEARCHES[0](four.table("d"))
        assert "answered_by" in search.explain()
        assert search.count() == 7


@pytest.mark.parametrize("damage", ["gone", "cut", "older", "version"])
def test_an_index_that_is_not_of_the_rows_is_built_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.db"
    folder = Path(f"{path}.indexes")
    with DataflowSession(path) as one:
        indexed(one, rows_of(150))
        shutil.copytree(folder, tmp_path / "older")
        one.sql("CREATE OR REPLACE TABLE d AS SELECT * FROM d WHERE id % 2 = 0")
        agree(one)
    if damage == "cut":
        for file in folder.rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-1])
    elif damage == "version":
        manifests = list(folder.rglob("manifest.json"))
        assert len(manifests) == 2
        for file in manifests:
            file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 1}))
    else:
        shutil.rmtree(folder)
    if damage == "older":
        shutil.copytree(tmp_path / "older", folder)
    with DataflowSession(path) as two:
        agree(two)


@pytest.mark.parametrize("came", [False, True])
def test_rows_that_the_engine_numbers_anew_are_found(tmp_path: Path, came: bool) -> None:
    """A database that is closed closes gaps: here as many rows stay, up to the same last id, and others move."""
    path = tmp_path / "s.db"
    few, of_the_engine = 100, 122_880  # rows of a group that stay, and that a group holds
    sql = f"""
        SELECT r.id, r.kind, if(r.at < {few}, r.body, NULL) AS body, if(r.at < {few}, r.e, NULL) AS e
        FROM (SELECT range AS id, range % {of_the_engine} AS at, range % 3 AS kind,
              concat_ws(' ', 'night', if(range % 2 = 0, 'train', 'bus')) AS body,
              CAST([sin(range * (n + 1)) FOR n IN range({LENGTH})] AS FLOAT[{LENGTH}]) AS e
              FROM range({3 * of_the_engine})) AS r
    """
    ids = "SELECT count(*), max(rowid), sum(rowid) FROM main.d"
    with DataflowSession(path) as one:
        one.sql(f"CREATE TABLE d AS {sql}")
        with one._engine.cursor() as cursor:
            cursor.rows("CHECKPOINT")
            cursor.rows(f"DELETE FROM main.d WHERE id < {2 * of_the_engine} AND id % {of_the_engine} >= {few}")
        one.sql("CREATE VECTOR INDEX d_e ON d(e); CREATE KEYWORD INDEX d_body ON d(body)")
        agree(one)
        with one._engine.cursor() as cursor:
            ((rows, last, before),) = cursor.rows(ids)
    with DataflowSession(path) as two:
        with two._engine.cursor() as cursor:
            assert [found[:2] for found in cursor.rows(ids)] == [(rows, last)]
            assert cursor.rows(ids) != [(rows, last, before)]
        if came:
            two.create_dataframe(rows_of(30, 3, 10_000_000)).insert_into("d")
        agree(two)


def change(session: DataflowSession, *statements: str, table: str = "d") -> None:
    """Change a table as the engine can, and count it as its changes are counted."""
    indexes: Indexes = session._catalog.indexes
    with session._engine.cursor() as cursor, cursor.transaction():
        indexes.changed(cursor, table)
        for statement in statements:
            cursor.rows(statement)


def opened_of(session: DataflowSession, name: str) -> VectorIndex | KeywordIndex:
    """The index as it is, brought up to its table."""
    indexes: Indexes = session._catalog.indexes
    index = indexes.get(name)
    assert index is not None
    with session._engine.cursor() as cursor, cursor.transaction(), indexes.searching(index, cursor) as opened:
        return opened


def test_an_index_outlives_rows_that_go(session: DataflowSession) -> None:
    indexed(session, rows_of(400))
    before = {name: opened_of(session, name) for name in ("d_e", "d_body")}
    # The engine changes texts in place, so that rows keep their ids, and puts vectors into rows of other ids.
    change(session, "UPDATE main.d SET body = 'bus bus' WHERE id BETWEEN 70 AND 90")
    agree(session)
    wanted = {name: len(opened) for name, opened in before.items()}
    change(session, "DELETE FROM main.d WHERE id BETWEEN 100 AND 131")
    agree(session)
    change(session, "UPDATE main.d SET body = 'a night bus', e = [-x FOR x IN e] WHERE id BETWEEN 50 AND 60")
    agree(session)
    change(
        session,
        "DELETE FROM main.d WHERE id % 20 = 3",
        "UPDATE main.d SET body = NULL, e = NULL WHERE id = 61",
        "UPDATE main.d SET body = 'train', e = [1, 2, 3, 4, 5, 6, 7, 8] WHERE id = 0",
        "INSERT INTO main.d SELECT id + 1000, kind, body, e FROM main.d WHERE id < 30",
    )
    agree(session)
    # Neither was built anew: they hold what they held, but for what went and came.
    for name, opened in before.items():
        assert opened_of(session, name) is opened
        assert len(opened) != wanted[name]
    change(session, "UPDATE main.d SET body = concat(body, ' night'), e = [x + 1 FOR x IN e]")
    agree(session)
    assert all(opened_of(session, name) is not opened for name, opened in before.items())
    kept = opened_of(session, "d_e")
    change(session, "DELETE FROM main.d WHERE id > 5")
    agree(session)
    assert opened_of(session, "d_e") is kept
    change(session, "DELETE FROM main.d")
    agree(session)
    assert len(opened_of(session, "d_e")) == len(opened_of(session, "d_body")) == 0


def test_vectors_of_another_length(session: DataflowSession) -> None:
    session.sql("CREATE TABLE d AS SELECT 1 AS id, CAST([1, 0] AS FLOAT[2]) AS e WHERE false")
    session.sql("CREATE VECTOR INDEX d_e ON d(e)")
    session.sql("CREATE OR REPLACE TABLE d AS SELECT 1 AS id, CAST([1, 0, 2] AS FLOAT[3]) AS e WHERE false")
    assert session.vector_search("d", "e", [1, 0, 0]).count() == 0
    session.sql("INSERT INTO d VALUES (1, [1, 0, 2])")
    assert session.vector_search("d", "e", [1, 0, 0]).count() == 1


@pytest.mark.parametrize("removed", [False, True])
def test_an_index_that_could_not_be_brought_up(
    session: DataflowSession, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    """What was half changed when something failed is not what is searched next."""
    indexed(session, rows_of(200))
    if removed:
        change(session, "DELETE FROM main.d WHERE id < 9")
    session.sql("INSERT INTO d SELECT * FROM d WHERE id > 180")

    def fail(*_: object) -> None:
        raise ExternalError("disk.full", "the disk is full")

    for kind in (VectorIndex, KeywordIndex):
        monkeypatch.setattr(kind, "commit" if kind is VectorIndex else "save", fail)
    for search in (SEARCHES[0], SEARCHES[4]):
        with pytest.raises(ExternalError):
            search(session.table("d")).to_arrow()
    monkeypatch.undo()
    agree(session)


CHANGES = [
    "DELETE FROM main.d WHERE id % 7 = {n} % 7",
    "DELETE FROM main.d WHERE id BETWEEN {n} AND {n} + 30",
    "DELETE FROM main.d",
    "UPDATE main.d SET body = concat(body, ' train') WHERE id % 11 = {n} % 11",
    "UPDATE main.d SET e = [1 - x FOR x IN e] WHERE id % 5 = {n} % 5",
    "UPDATE main.d SET e = NULL, body = NULL WHERE id % 13 = {n} % 13",
    "UPDATE main.d SET kind = kind + 1",
    "INSERT INTO main.d SELECT id + 100 * {n}, kind, body, e FROM main.d WHERE id % 3 = 0",
    "CREATE OR REPLACE TABLE main.d AS SELECT * FROM main.d ORDER BY id DESC",
]
HISTORIES = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from(CHANGES), st.integers(0, 90)),
        st.tuples(st.sampled_from(["rows", "checkpoint", "reopen", "search"]), st.just(""), st.integers(0, 90)),
    ),
    min_size=1,
    max_size=8,
)


@examples(3)
@given(HISTORIES)
def test_any_history_of_a_table(tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str, int]]) -> None:
    path = tmp_path_factory.mktemp("history") / "s.db"
    session = DataflowSession(path)
    try:
        indexed(session, rows_of(120))
        for what, sql, number in history:
            if what == "change":
                change(session, sql.format(n=number))
            elif what == "rows":
                session.create_dataframe(rows_of(number, number, 200 + number)).insert_into("d")
            elif what == "checkpoint":
                with session._engine.cursor() as cursor:
                    cursor.rows("CHECKPOINT")
            elif what == "reopen":
                session.close()
                session = DataflowSession(path)
            else:
                agree(session)
        agree(session)
    finally:
        session.close()


def test_a_plan_that_was_made_before_the_index_went(session: DataflowSession) -> None:
    indexed(session, rows_of(60))
    found = {name: search(session.table("d")) for name, search in enumerate(SEARCHES)}
    before = {name: frame.to_arrow() for name, frame in found.items()}
    session.sql("DROP INDEX d_e; DROP INDEX IF EXISTS d_body; DROP INDEX IF EXISTS d_body")
    for name, frame in found.items():
        assert frame.to_arrow().equals(before[name])
    with pytest.raises(CatalogNotFoundError) as refused:
        session.sql("DROP INDEX d_f")
    assert refused.value.code == "index.unknown"


def test_the_table_goes_and_its_indexes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with DataflowSession(path) as session:
        indexed(session, rows_of(10))
        session.sql("DROP TABLE d")
        assert session.sql("SHOW INDEXES").count() == 0
        assert list(Path(f"{path}.indexes").iterdir()) == []
        indexed(session, rows_of(20))
        agree(session)


def test_a_table_made_anew_keeps_what_is_indexed(session: DataflowSession) -> None:
    indexed(session, rows_of(10))
    with pytest.raises(InputError) as refused:
        session.sql("CREATE OR REPLACE TABLE d AS SELECT id, body FROM d")
    assert refused.value.hint == "DROP INDEX d_e first"
    agree(session)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("CREATE VECTOR INDEX d_e ON d(e)", "index.exists"),
        ("CREATE VECTOR INDEX i ON d(e, id)", "index.columns"),
        ("CREATE VECTOR INDEX i ON d(body)", "search.not_a_vector"),
        ("CREATE KEYWORD INDEX i ON d(body, e)", "search.not_text"),
        ("CREATE INDEX i ON d(nope)", "sql.unknown_column"),
        ("CREATE INDEX i ON nope(e)", "sql.unknown_table"),
        ("CREATE INDEX i ON seen(e)", "sql.table_kind"),
        ("CREATE INDEX i ON fleeting(e)", "sql.table_kind"),
        ("CREATE INDEX i ON d(body) WITH (analyzer = 'klingon')", "search.analyzer"),
        ("CREATE INDEX i ON d(body) WITH (stemmer = 'porter')", "option.unknown"),
        ("CREATE INDEX i ON d(body) WITH (analyzer = 7)", "option.value"),
        ("CREATE VECTOR INDEX i ON d(e) WITH (mode = 'hnsw')", "option.unknown"),
        ("CREATE VECTOR INDEX i ON d(e) WITH (method = 'annoy')", "option.value"),
        ("CREATE VECTOR INDEX i ON d(e) WITH (recall = 0)", "option.value"),
        ("CREATE VECTOR INDEX i ON d(e) WITH (recall = true)", "option.value"),
        ("CREATE INDEX i ON d(body) WITH (method = 'ivf')", "option.unknown"),
        ("CREATE INDEX i ON rows(e)", "index.rowid"),
        ("CREATE UNIQUE INDEX i ON d(id)", "sql.unsupported_statement"),
        ("CREATE OR REPLACE INDEX i ON d(e)", "sql.unsupported_statement"),
        ("CREATE INDEX i ON d", "sql.syntax"),
        ("CREATE INDEX ON d(e)", "sql.syntax"),
    ],
)
def test_what_is_no_index(session: DataflowSession, sql: str, code: str) -> None:
    indexed(session, rows_of(10))
    session.sql("CREATE VIEW seen AS SELECT * FROM d; CREATE TEMP TABLE fleeting AS SELECT * FROM d")
    session.sql("CREATE TABLE rows AS SELECT id AS rowid, e FROM d")
    with pytest.raises(VelariaError) as refused:
        session.sql(sql)
    assert refused.value.code == code
    assert refused.value.place is not None
    session.sql("CREATE VECTOR INDEX IF NOT EXISTS d_e ON d(e)")
    assert session.sql("SHOW INDEXES LIKE 'd%'").count() == 2
    agree(session)


def test_an_analyzer_of_its_own(session: DataflowSession) -> None:
    session.create_dataframe(rows_of(40)).save_as_table("d")
    session.sql("CREATE INDEX plain ON d(body) WITH (analyzer = 'standard')")
    by_index = session.table("d").keyword_search("body", "night", analyzer="standard")
    assert "keyword index plain" in by_index.explain()
    assert "answered_by" not in session.keyword_search("d", "body", "night").explain()


def test_vectors_in_memory_are_compared_where_they_lie(session: DataflowSession) -> None:
    rows = rows_of(300)
    lying = session.create_dataframe(rows)
    lying.save_as_table("stored")
    for search in SEARCHES[:4]:
        found = search(lying)
        assert "answered_by=(vectors in memory)" in found.explain()
        assert found.to_arrow().equals(search(session.table("stored")).to_arrow())
    inside = lying.vector_search("e", QUERY, 5).join(session.table("stored"), on="id")
    assert inside.count() == 5


@pytest.mark.parametrize("kind", ["FLOAT[8]", "DOUBLE[8]"])
def test_a_table_of_queries_is_answered_too(session: DataflowSession, kind: str) -> None:
    rows = rows_of(300)
    indexed(session, rows)
    lying = session.create_dataframe(rows)
    session.create_dataframe(rows).save_as_table("plain")
    queries = session.sql(f"SELECT id % 7 AS name, CAST(e AS {kind}) AS q FROM plain WHERE id BETWEEN 60 AND 90")
    twice = queries.union(queries.limit(3))
    for asked in (twice, queries.filter("name > 99"), queries.filter("q IS NULL")):
        for metric, threshold in (("cosine", None), ("l2", 2.5), ("dot", 0.5)):
            found = [
                frame.filter("kind <> 1").vector_search(
                    "e", asked, 4, metric, score_threshold=threshold, query_column="q"
                )
                for frame in (session.table("d"), lying, session.table("plain"))
            ]
            assert ["answered_by" in one.explain() for one in found] == [True, True, False]
            ordered = [one.order_by(*one.columns).to_arrow() for one in found]
            assert ordered[0].equals(ordered[2])
            assert ordered[1].equals(ordered[2])
    before = session.table("d").vector_search("e", queries, 2, query_column="q")
    expected = before.order_by(*before.columns).to_arrow()
    session.sql("DROP INDEX d_e")
    assert before.order_by(*before.columns).to_arrow().equals(expected)


def test_frames_that_searched_can_go(session: DataflowSession) -> None:
    frame = session.create_dataframe(rows_of(30))
    found = frame.vector_search("e", QUERY, 5)
    assert found.count() == 5
    gone = weakref.ref(found.node)
    del found
    gc.collect()
    assert gone() is None


def test_a_search_waits_for_a_change_and_not_the_other_way(session: DataflowSession) -> None:
    """A search sees the rows of its transaction, whatever comes while it runs."""
    indexed(session, rows_of(50))
    indexes: Indexes = session._catalog.indexes
    index = indexes.get("d_e")
    assert index is not None
    with session._engine.cursor() as cursor, cursor.transaction(), indexes.searching(index, cursor) as opened:
        before = len(opened)
        session.sql("INSERT INTO d SELECT * FROM d")
        ((seen,),) = cursor.rows("SELECT count(e) FROM d")
        assert seen == before
    agree(session)


# --- approximate --------------------------------------------------------------------------------------------------


CLUSTERED = pa.schema([("id", pa.int64()), ("e", pa.list_(pa.float32(), 16))])
ASKED = clustered(12, 16, 77)


@pytest.fixture
def faiss() -> None:
    """Only what is built needs it."""
    pytest.importorskip("faiss")


def clusters(count: int, seed: int, first: int = 0) -> pa.Table:
    rows = clustered(count, 16, seed)
    return pa.table([range(first, first + count), rows.tolist()], schema=CLUSTERED)


def explained(session: DataflowSession, metric: str, top_k: int = 10) -> dict[str, str]:
    found = session.explain_vector_search("c", "e", ASKED[0], top_k, metric)
    return dict(line.split("=", 1) for line in found.split("\n"))


def recall(session: DataflowSession, metric: str, **asked: Any) -> float:
    """The part of the ten nearest of some queries that a search by the index finds."""
    stored = session.table("c").to_arrow()
    session.create_dataframe(stored).save_as_table("copied", or_replace=True)
    same = 0
    for query in ASKED:
        one, other = (session.table(name).vector_search("e", query, 10, metric, **asked) for name in ("c", "copied"))
        same += len(set(map(str, one.to_rows())) & set(map(str, other.to_rows())))
    return same / (10 * len(ASKED))


def shown(session: DataflowSession) -> list[tuple[Any, ...]]:
    rows = session.sql("SHOW INDEXES").to_rows()
    return [(row["method"], row["metric"], row["recall"]) for row in rows]


@pytest.mark.parametrize(("method", "metric"), [("ivf", "cosine"), ("hnsw", "dot"), ("hnsw", "l2")])
@pytest.mark.usefixtures("faiss")
def test_an_approximate_index_is_used_for_its_metric(tmp_path: Path, method: str, metric: str) -> None:
    path = tmp_path / "s.db"
    with DataflowSession(path) as session:
        session.create_dataframe(clusters(2000, 1)).save_as_table("c")
        session.sql(f"CREATE VECTOR INDEX c_e ON c(e) WITH (method = '{method}', metric = {metric}, recall = 0.9)")
        told = explained(session, metric)
        assert (told["mode"], told["backend"]) == ("vector index c_e", f"faiss-{method}")
        assert told["acceleration"] == f"{method}-candidates+float64-rescore"
        assert 0.9 <= float(told["recall"]) <= 1
        assert shown(session) == [(method, metric, float(told["recall"]))]
        assert recall(session, metric) >= 0.85
        # Another metric, more rows than its recall was measured for, and filters: exact.
        for other in {"cosine", "dot", "l2"} - {metric}:
            told = explained(session, other)
            assert (told["acceleration"], told["recall"]) == ("int8-codes+float64-rescore", "1.0")
            assert recall(session, other) == 1
        assert explained(session, metric, 50)["recall"] == "1.0"
        filtered = [session.table(name).filter("id % 9 = 0") for name in ("c", "copied")]
        by_index, by_engine = (one.vector_search("e", ASKED[0], 10, metric).to_arrow() for one in filtered)
        assert by_index.equals(by_engine)
        # What comes is found, what goes is not.
        session.sql("INSERT INTO c SELECT id + 10000, e FROM c WHERE id < 50")
        change(session, "DELETE FROM main.c WHERE id BETWEEN 100 AND 300", table="c")
        assert explained(session, metric)["backend"] == f"faiss-{method}"
        assert recall(session, metric) >= 0.85
    with DataflowSession(path) as session:
        assert explained(session, metric)["backend"] == f"faiss-{method}"
        assert recall(session, metric) >= 0.85
        change(session, "DELETE FROM main.c WHERE id % 3 > 0", table="c")
        assert recall(session, metric) >= 0.85
        change(session, "DELETE FROM main.c", table="c")
        assert recall(session, metric) == 0
        session.create_dataframe(clusters(700, 3)).insert_into("c")
        assert recall(session, metric) >= 0.85
        assert explained(session, metric)["backend"] == f"faiss-{method}"


@pytest.mark.usefixtures("faiss")
def test_an_index_that_finds_less_than_was_asked_is_not_used(
    session: DataflowSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "_EFFORTS", {"ivf": (1, 1)})
    session.create_dataframe(clusters(3000, 1)).save_as_table("c")
    session.create_index("c_e", "c", "e", method="ivf", recall=1.0)
    told = explained(session, "cosine")
    assert (told["mode"], told["recall"]) == ("vector index c_e", "1.0")
    assert told["acceleration"] == "int8-codes+float64-rescore"
    assert recall(session, "cosine") == 1
    ((method, metric, measured),) = shown(session)
    assert (method, metric) == ("ivf", "cosine")
    assert 0 < measured < 1


@pytest.mark.usefixtures("faiss")
def test_the_index_of_the_metric_is_taken(session: DataflowSession) -> None:
    session.create_dataframe(clusters(500, 1)).save_as_table("c")
    session.create_index("a_l2", "c", ["e"], method="hnsw", metric="l2", recall=0.8)
    assert explained(session, "dot")["mode"] == "vector index a_l2"
    session.create_index("b", "c", "e", kind="vector")
    session.create_index("c_dot", "c", "e", method="ivf", metric="dot", recall=0.8)
    session.create_index("c_dot", "c", "e", if_not_exists=True)
    names = {"l2": "a_l2", "dot": "c_dot", "cosine": "b"}
    for metric, name in names.items():
        told = explained(session, metric)
        assert (told["mode"], told["backend"].startswith("faiss")) == (f"vector index {name}", name != "b")
    # A table of queries is answered by it too.
    queries = session.create_dataframe(clusters(9, 5)).rename({"id": "name", "e": "q"})
    assert session.table("c").vector_search("e", queries, 3, "l2", query_column="q").count() == 27


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
@pytest.mark.parametrize("count", [0, 1, 2, 30])
@pytest.mark.usefixtures("faiss")
def test_an_approximate_index_of_few(session: DataflowSession, method: str, count: int) -> None:
    session.create_dataframe(clusters(count, 1)).save_as_table("c")
    session.create_index("c_e", "c", "e", method=method)
    ((_, _, measured),) = shown(session)
    assert (measured is None) == (count == 0)
    found = session.vector_search("c", "e", ASKED[0], 10).to_arrow()
    assert found.num_rows == min(count, 10)
    session.create_dataframe(clusters(40, 2, 100)).insert_into("c")
    assert session.vector_search("c", "e", ASKED[0], 10).count() == 10


@pytest.mark.usefixtures("faiss")
def test_without_faiss_it_is_exact(session: DataflowSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.create_dataframe(clusters(500, 1)).save_as_table("c")
    session.create_index("c_e", "c", "e", method="hnsw", recall=0.8)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert explained(session, "cosine")["recall"] == "1.0"
    assert recall(session, "cosine") == 1
    change(session, "DELETE FROM main.c WHERE id % 3 > 0", table="c")
    assert recall(session, "cosine") == 1
    with pytest.raises(InputError) as refused:
        session.sql("CREATE VECTOR INDEX other ON c(e) WITH (method = 'hnsw')")
    assert refused.value.code == "vector_index.extra"
    assert refused.value.place is not None
    monkeypatch.undo()
    assert explained(session, "cosine")["backend"] == "faiss-hnsw"


@pytest.mark.usefixtures("faiss")
def test_an_approximate_index_that_could_not_be_built_is_built_at_the_next_search(
    session: DataflowSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create_dataframe(clusters(500, 1)).save_as_table("c")
    session.create_index("c_e", "c", "e", method="hnsw", recall=0.8)
    change(session, "DELETE FROM main.c", table="c")
    session.vector_search("c", "e", ASKED[0], 1).count()
    session.create_dataframe(clusters(500, 2)).insert_into("c")

    def fail(*_: object) -> None:
        raise ExternalError("disk.full", "the disk is full")

    monkeypatch.setattr(VectorIndex, "build_approximate", fail)
    for _ in range(2):
        with pytest.raises(ExternalError):
            session.vector_search("c", "e", ASKED[0], 1).count()
    monkeypatch.undo()
    assert explained(session, "cosine")["backend"] == "faiss-hnsw"


def test_indexes_of_before_there_were_options(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with DataflowSession(path) as session:
        indexed(session, rows_of(60))
        with session._engine.cursor() as cursor:
            cursor.rows("ALTER TABLE velaria_search.indexes DROP COLUMN options")
    with DataflowSession(path) as session:
        assert shown(session) == [(None, None, None), ("exact", None, 1.0)]
        agree(session)
        session.create_index("more", "d", "e")
        assert len(shown(session)) == 3


@pytest.mark.parametrize(
    ("columns", "options", "code"),
    [
        ([], {}, "index.columns"),
        ("e", {"kind": "vectors"}, "index.kind"),
        ("e", {"method": "exactly"}, "option.value"),
        ("e", {"analyzer": "english"}, "option.unknown"),
        ("body", {"analyzer": None}, "option.value"),
        ("e", {"recall": None}, "option.value"),
        ("nothing", {}, "sql.unknown_column"),
    ],
)
def test_what_is_no_index_of_a_call(session: DataflowSession, columns: Any, options: Any, code: str) -> None:
    session.create_dataframe(rows_of(10)).save_as_table("d")
    with pytest.raises(InputError) as refused:
        session.create_index("i", "d", columns, **options)
    assert refused.value.code == code
    assert refused.value.hint or code == "index.columns"
