"""Keyword search over a million short documents: the index beside its peers, and BM25 as SQL without an index.

Documents are made by seed: 8 words on average, of a vocabulary of 300,000 whose frequencies fall as Zipf's law; with
--texts, the lines of a file, such as titles. A query is three words of one document, so that common words come as often
as people write them. Contestants take turns at each query, and each answers with its 10 best.

`index` is ours, opened from its folder. `tantivy` and `bm25s` are from PyPI, where they are installed: the same words,
the same k1 and b. `postings in SQL` is what one would write by hand over a table (term, document, times). `without an
index` is `logical.bm25` over the texts, of which few queries are run.

Bar: p50 of the index under 5 ms; its scores those of SQL.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from _measure import machine, text_table

from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.search.keyword_index import KeywordIndex
from velaria_core.logical.analyzers import analyzer
from velaria_core.logical.bm25 import scored
from velaria_core.logical.keyword_query import plain_query

K = 10
VOCABULARY = 300_000
STANDARD = analyzer("standard")
Search = Callable[[str], Any]


def made_documents(count: int, rng: np.random.Generator) -> pa.Array:
    """Texts of words w0 (the most common), w1, ..."""
    chances = 1 / (np.arange(VOCABULARY) + 2.7) ** 1.05
    lengths = np.clip(rng.poisson(8, count), 1, 40)
    drawn = rng.choice(VOCABULARY, size=int(lengths.sum()), p=chances / chances.sum())
    names = pa.array([f"w{number}" for number in range(VOCABULARY)])
    starts = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(starts, names.take(pa.array(drawn))), " ")


def made_queries(texts: pa.Array, count: int, rng: np.random.Generator) -> list[str]:
    """Three words of a document each."""
    queries: list[str] = []
    while len(queries) < count:
        words = list(dict.fromkeys(STANDARD.terms(texts[int(rng.integers(len(texts)))].as_py() or "")))
        if len(words) >= 3:
            queries.append(" ".join(rng.choice(words, 3, replace=False).tolist()))
    return queries


# --- contestants: what a search is, and how many bytes it lies on -------------------------------------------------


def index(engine: Engine, texts: pa.Array, folder: Path) -> tuple[Search, int]:
    made = KeywordIndex(["x"])
    made.add(engine, np.arange(len(texts)), pa.table({"x": texts}))
    made.save(folder)
    opened = KeywordIndex.open(folder)
    return lambda query: opened.search(plain_query(query, STANDARD), K), size_of(folder)


def tantivy(terms: list[list[str]], folder: Path) -> tuple[Search, int]:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("x", tokenizer_name="whitespace", index_option="freq")
    builder.add_integer_field("row", fast=True)
    schema = builder.build()
    made = tantivy.Index(schema, path=str(folder))
    writer = made.writer(256_000_000, 2)
    for row, words in enumerate(terms):
        writer.add_document(tantivy.Document(x=" ".join(words), row=row))
    writer.commit()
    writer.wait_merging_threads()
    made.reload()
    searcher = made.searcher()

    def search(query: str) -> Any:
        words = [tantivy.Query.term_query(schema, "x", word) for word in dict.fromkeys(STANDARD.terms(query))]
        return searcher.search(tantivy.Query.boolean_query([(tantivy.Occur.Should, word) for word in words]), K).hits

    return search, size_of(folder)


def bm25s(terms: list[list[str]], folder: Path) -> tuple[Search, int]:
    import bm25s

    made = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    made.index(terms, show_progress=False)
    made.save(str(folder))
    return lambda query: made.retrieve(
        [list(dict.fromkeys(STANDARD.terms(query)))], k=K, show_progress=False, n_threads=1
    ), size_of(folder)


def postings_in_sql(texts: pa.Array, folder: Path) -> tuple[Search, int]:
    """A table of postings sorted by term, of which the engine reads the parts that may hold one."""
    folder.mkdir()
    engine = Engine(Settings(path=str(folder / "postings.duckdb")))
    table = pa.table({"row": range(len(texts)), "x": texts})
    with engine.cursor({"texts": table}) as cursor:
        cursor.execute(
            "CREATE TABLE postings AS SELECT term, row, count(*) AS tf, any_value(length) AS length FROM (SELECT row, "
            f"hash(unnest(terms)) AS term, len(terms) AS length FROM (SELECT row, {STANDARD.sql('x')} AS terms "
            "FROM texts)) GROUP BY term, row ORDER BY term, row"
        )
        cursor.execute("CHECKPOINT")
        ((total,),) = cursor.rows("SELECT sum(tf) FROM postings")
    mean = total / len(texts)

    def search(query: str) -> Any:
        words = ", ".join(f"hash('{word}')" for word in dict.fromkeys(STANDARD.terms(query)))
        with engine.cursor() as cursor:
            return cursor.rows(
                f"WITH read AS MATERIALIZED (SELECT * FROM postings WHERE term IN ({words})), found AS (SELECT term, "
                f"ln(1 + ({len(texts)} - count(*) + 0.5) / (count(*) + 0.5)) AS idf FROM read GROUP BY term) "
                f"SELECT row, sum(idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / {mean}))) AS score "
                f"FROM read JOIN found USING (term) GROUP BY row ORDER BY score DESC, row LIMIT {K}"
            )

    return search, size_of(folder)


def without_an_index(engine: Engine, texts: pa.Array) -> Search:
    table = pa.table({"row": range(len(texts)), "x": texts})

    def search(query: str) -> Any:
        sql = scored("texts", {"x": 1.0}, plain_query(query, STANDARD), first=K, ties="row")
        with engine.cursor({"texts": table}) as cursor:
            return cursor.rows(sql)

    return search


def size_of(folder: Path) -> int:
    """The bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# --- measured -----------------------------------------------------------------------------------------------------


def in_turns(searches: dict[str, Search], queries: Sequence[str]) -> dict[str, np.ndarray]:
    """The milliseconds of each query by each contestant, (n, 2): until the answer, and of all cores."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in searches}
    for number, query in enumerate(queries):
        turns = list(searches.items())
        for name, search in reversed(turns) if number % 2 else turns:
            start, worked = perf_counter(), process_time()
            search(query)
            times[name].append(((perf_counter() - start) * 1e3, (process_time() - worked) * 1e3))
    return {name: np.array(taken) for name, taken in times.items()}


def told(taken: np.ndarray) -> list[str]:
    """p50, p95 and most until the answer; p50 and p95 of what the cores worked, which other load changes less."""
    parts = [*np.percentile(taken[:, 0], [50, 95, 100]), *np.percentile(taken[:, 1], [50, 95])]
    return [f"{part:.2f}" for part in parts]


def filtered(opened: KeywordIndex, count: int, queries: Sequence[str], rng: np.random.Generator) -> list[list[str]]:
    """The index over a share of the rows, each drawn by chance; statistics of those rows, and of all."""
    rows = []
    for share in (0.01, 0.1, 0.5):
        allowed = np.flatnonzero(rng.random(count) < share)
        line = [f"{share:.0%} of the rows"]
        for over_allowed in (True, False):
            searches: dict[str, Search] = {
                "": lambda query, allowed=allowed, over=over_allowed: opened.search(
                    plain_query(query, STANDARD), K, allowed=allowed, over_allowed=over
                )
            }
            line += [told(in_turns(searches, queries)[""])[at] for at in (0, 3)]
        rows.append(line)
    return rows


def changes(engine: Engine, opened: KeywordIndex, texts: pa.Array, queries: Sequence[str]) -> list[list[str]]:
    """How long it takes until rows that came, or went, are counted in a search."""
    rows = []
    for count in (100, 10_000):
        taken: list[list[float]] = [[], []]
        for number in range(5):
            ids = np.arange(count) + (1 << 40) + number * count
            query = plain_query(queries[number], STANDARD)
            for at, change in enumerate(
                (
                    lambda ids=ids, count=count: opened.add(engine, ids, pa.table({"x": texts.slice(0, count)})),
                    lambda ids=ids: opened.remove(ids),
                )
            ):
                start = perf_counter()
                change()
                opened.search(query, K)
                taken[at].append((perf_counter() - start) * 1e3)
        rows.append([f"{count:,} rows", *(f"{np.median(one):.1f}" for one in taken)])
    return rows


def agreed(opened: KeywordIndex, search: Search, queries: Sequence[str]) -> None:
    """The index and SQL give the same scores."""
    for query in queries:
        mine = opened.search(plain_query(query, STANDARD), K).scores
        np.testing.assert_allclose(mine, [row[-1] for row in search(query)], rtol=1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--sql-queries", type=int, default=3, help="how many are run without an index")
    parser.add_argument("--texts", help="a file with a text on each line, instead of made ones")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    if asked.texts:
        lines = Path(asked.texts).read_text(encoding="utf-8", errors="replace").splitlines()
        texts = pa.array(lines[: asked.rows], pa.string())
    else:
        texts = made_documents(asked.rows, rng)
    queries = made_queries(texts, asked.queries, rng)
    engine = Engine(Settings())
    print(machine(["duckdb", "numpy", "tantivy", "bm25s"], os.cpu_count() or 1))
    print(f"{len(texts):,} documents, {len(queries)} queries of 3 words, {K} best")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = perf_counter()
        with engine.cursor({"texts": pa.table({"row": range(len(texts)), "x": texts})}) as cursor:
            cut = cursor.table(f"SELECT {STANDARD.sql('x')} AS terms FROM texts ORDER BY row").column("terms")
        analysed = perf_counter() - start
        makers: dict[str, Callable[[Path], tuple[Search, int]]] = {"index": lambda path: index(engine, texts, path)}
        if find_spec("tantivy"):
            makers["tantivy"] = lambda path: tantivy(cut.to_pylist(), path)
        if find_spec("bm25s"):
            makers["bm25s"] = lambda path: bm25s(cut.to_pylist(), path)
        makers["postings in SQL"] = lambda path: postings_in_sql(texts, path)
        searches: dict[str, Search] = {}
        built: dict[str, tuple[float, int]] = {}
        for name, make in makers.items():
            path = folder / name.replace(" ", "_")
            if name in ("tantivy", "bm25s"):
                path.mkdir()
            start = perf_counter()
            searches[name], size = make(path)
            built[name] = perf_counter() - start, size
        in_turns(searches, queries[:30])
        times = in_turns(searches, queries)
        shown = [
            [name, f"{built[name][0]:.1f}", f"{built[name][1] / 1e6:.0f}", *told(times[name])] for name in searches
        ]
        plain = without_an_index(engine, texts)
        opened = KeywordIndex.open(folder / "index")
        agreed(opened, plain, queries[: asked.sql_queries])
        taken = in_turns({"": plain}, queries[: asked.sql_queries])[""]
        shown.append(["without an index", "-", "-", *told(taken)])
        print(text_table(["", "build s", "MB", "p50 ms", "p95", "max", "CPU p50", "p95"], shown))
        print(f"tantivy and bm25s are given words; to cut them takes {analysed:.1f} s more\n")
        print(
            text_table(["filtered", "p50 ms", "CPU", "by all: p50", "CPU"], filtered(opened, len(texts), queries, rng))
        )
        print()
        print(text_table(["until seen", "added, ms", "deleted, ms"], changes(engine, opened, texts, queries)))


if __name__ == "__main__":
    main()
