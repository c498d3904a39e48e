"""One contestant of search_benchmark: a process that answers questions line by line, so that contestants take turns.

usage: _search_vectors.py <contestant> <data.npy> <queries.npy> <threads>

Says {"ready": ...}, then for each line {"case", "query", "share"} the milliseconds that the answer took, by the
clock and of all its threads, and its rows.
Contestants are in one file, as each is a few lines; what they import is there where they run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

K = 10
UPDATED = 1000


class Velaria:
    """`nearest` over codes, and over float32 alone; filters by DuckDB over a column beside the vectors."""

    def __init__(self, data: Any, threads: int) -> None:
        import duckdb
        import pyarrow as pa

        from velaria_core.execution.search.codes import Codes
        from velaria_core.execution.search.nearest import Metric, nearest
        from velaria_core.execution.search.vectors import Vectors

        self._vectors = Vectors.of(data)
        self._codes = Codes.of(self._vectors)
        self._metric, self._nearest, self._threads = Metric.COSINE, nearest, threads
        self._index: Any = None
        self._updated = 0
        self._connection = duckdb.connect(config={"threads": threads})
        shares = pa.table({"v": np.random.default_rng(3).random(len(data))})
        self._connection.register("shares", shares)
        self._connection.execute("CREATE TABLE t AS FROM shares")

    def _asked(self, queries: Any, **rest: Any) -> Any:
        return self._nearest(self._vectors, queries, self._metric, K, threads=self._threads, **rest).rows

    def one(self, queries: Any, _share: float) -> Any:
        return self._asked(queries, codes=self._codes)

    many = one

    def plain(self, queries: Any, _share: float) -> Any:
        return self._asked(queries)

    def _allowed(self, share: float) -> Any:
        found = self._connection.execute("SELECT rowid AS row FROM t WHERE v < ?", [share])
        return found.to_arrow_table().column("row").to_numpy()

    def predicate(self, _queries: Any, share: float) -> Any:
        return [self._allowed(share)[:0]]

    def filtered(self, queries: Any, share: float) -> Any:
        return self._asked(queries, codes=self._codes, allowed=self._allowed(share))

    def update(self, _queries: Any, _share: float) -> Any:
        """Replace the next thousand vectors of an index on disk, and commit."""
        from velaria_core.execution.search.vector_index import VectorIndex
        from velaria_core.execution.search.vectors import Vectors

        if self._index is None:
            self._folder = tempfile.TemporaryDirectory()
            self._index = VectorIndex.create(Path(self._folder.name, "index"), self._vectors.dimension)
            self._index.add(np.arange(len(self._vectors)), self._vectors)
        ids = (np.arange(UPDATED) * 7919 + self._updated) % len(self._vectors)
        self._updated += UPDATED
        self._index.add(ids, Vectors.of(self._vectors.take(ids)))
        self._index.commit(str(self._updated))
        return [ids[:0]]


class Numpy:
    """What one would write: products in blocks, norms kept, the best by argpartition; and reading everything once."""

    def __init__(self, data: Any, threads: int) -> None:
        self._data, self._pool, self._threads = data, ThreadPoolExecutor(threads), threads
        self._inverses = 1 / np.sqrt(np.einsum("ij,ij->i", data, data))

    def read(self, _queries: Any, _share: float) -> Any:
        parts = np.array_split(self._data.reshape(-1).view(np.float64), self._threads)
        list(self._pool.map(np.sum, parts))
        return [np.empty(0, np.int64)]

    def one(self, queries: Any, _share: float) -> Any:
        step, best, kept = 16384, np.empty(0, np.float32), np.empty(0, np.int64)
        for start in range(0, len(self._data), step):
            part = slice(start, start + step)
            scores = (self._data[part] @ queries[0]) * self._inverses[part]
            places = np.flatnonzero(scores >= best.min()) if len(best) == K else np.arange(len(scores))
            best, kept = np.concatenate([best, scores[places]]), np.concatenate([kept, places + start])
            top = np.argsort(-best, kind="stable")[:K]
            best, kept = best[top], kept[top]
        return [kept]

    def many(self, queries: Any, _share: float) -> Any:
        step, q = 4096, len(queries)
        best, kept = np.full((q, K), -np.inf, np.float32), np.zeros((q, K), np.int64)
        for start in range(0, len(self._data), step):
            part = slice(start, start + step)
            scores = queries @ self._data[part].T
            scores *= self._inverses[part]
            rows, places = np.nonzero(scores > best[:, -1:])
            for row in np.unique(rows):
                here = places[rows == row]
                values = np.concatenate([best[row], scores[row, here]])
                names = np.concatenate([kept[row], here + start])
                top = np.argsort(-values, kind="stable")[:K]
                best[row], kept[row] = values[top], names[top]
        return kept


class Faiss:
    """IndexFlatIP over vectors of norm 1."""

    def __init__(self, data: Any, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        self._index = faiss.IndexFlatIP(data.shape[1])
        self._index.add(data)

    def one(self, queries: Any, _share: float) -> Any:
        return self._index.search(queries, K)[1]

    many = one


class Usearch:
    """Its exact search, without an index."""

    def __init__(self, data: Any, threads: int) -> None:
        from usearch.index import MetricKind, search

        self._data, self._threads, self._search, self._kind = data, threads, search, MetricKind.Cos

    def one(self, queries: Any, _share: float) -> Any:
        asked = queries[0] if len(queries) == 1 else queries
        return np.atleast_2d(self._search(self._data, asked, K, self._kind, exact=True, threads=self._threads).keys)

    many = one


class Lancedb:
    """A table without an index."""

    def __init__(self, data: Any, _threads: int) -> None:
        import lancedb
        import pyarrow as pa

        self._folder = tempfile.TemporaryDirectory()
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(data.reshape(-1)), data.shape[1])
        table = pa.table({"id": np.arange(len(data)), "v": vectors})
        self._table = lancedb.connect(self._folder.name).create_table("t", table)

    def one(self, queries: Any, _share: float) -> Any:
        found = self._table.search(queries[0]).distance_type("cosine").select(["id", "_distance"]).limit(K).to_arrow()
        return [found["id"].to_numpy()]


class Duckdb:
    """SQL over a table with a FLOAT[d] column."""

    def __init__(self, data: Any, threads: int) -> None:
        import duckdb
        import pyarrow as pa

        self._connection = duckdb.connect(config={"threads": threads})
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(data.reshape(-1)), data.shape[1])
        rows = pa.table({"id": np.arange(len(data)), "v": np.random.default_rng(3).random(len(data)), "x": vectors})
        self._connection.register("rows", rows)
        self._connection.execute("CREATE TABLE t AS FROM rows")
        self._connection.unregister("rows")

    def one(self, queries: Any, share: float) -> Any:
        asked = f"""SELECT id FROM t WHERE v < ? ORDER BY array_cosine_distance(x, ?::FLOAT[{queries.shape[1]}]), id
            LIMIT {K}"""
        return [self._connection.execute(asked, [share, queries[0].tolist()]).fetchnumpy()["id"]]

    filtered = one


def main(name: str, data: str, queries: str, threads: str) -> None:
    rows, asked = np.load(data), np.load(queries)
    started = perf_counter()
    contestant = {one.__name__.lower(): one for one in (Velaria, Numpy, Faiss, Usearch, Lancedb, Duckdb)}[name](
        rows, int(threads)
    )
    _say({"ready": round(perf_counter() - started, 2), "kernel": _kernel()})
    for line in sys.stdin:
        question = json.loads(line)
        run: Callable[[Any, float], Any] = getattr(contestant, question["case"])
        given = asked if question["query"] is None else asked[question["query"]][None]
        started, used = perf_counter(), process_time()
        found = run(given, question["share"])
        spent = {"ms": 1000 * (perf_counter() - started), "cpu_ms": 1000 * (process_time() - used)}
        _say({**spent, "rows": [[int(row) for row in part] for part in found]})


def _kernel() -> str:
    """What NumPy's BLAS runs on this processor, where threadpoolctl is there to tell."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return ""
    np.ones((2, 2)) @ np.ones((2, 2))
    return ", ".join(
        f"{one['internal_api']} {one.get('version')} {one.get('architecture')}" for one in threadpool_info()
    )


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
