"""One contestant of approximate_benchmark: it builds its index, then answers questions line by line.

usage: _search_approximate.py <contestant> <data.npy> <queries.npy> <threads>

Says {"ready": seconds}, then for each line {"queries": [first, end], "together", "effort"} the milliseconds that each
answer took, and their rows: one query after another, or all in one call. `effort` is how far a contestant looks, in its
own measure.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

K = 10


class Velaria:
    """An index on disk, as CREATE VECTOR INDEX makes it; its effort was found when it was built, by its own sample."""

    def __init__(self, data: Any, threads: int, method: str) -> None:
        import faiss

        from velaria_core.execution.search.nearest import Metric
        from velaria_core.execution.search.ties import nearest_with_ties
        from velaria_core.execution.search.vector_index import VectorIndex
        from velaria_core.execution.search.vectors import Vectors

        faiss.omp_set_num_threads(threads)
        self._metric, self._approximate, self._with_ties = Metric.COSINE, method != "exact", nearest_with_ties
        self._folder = tempfile.TemporaryDirectory()
        self._index = VectorIndex.create(Path(self._folder.name, "index"), data.shape[1])
        self._index.add(np.arange(len(data)), Vectors.of(data))
        self._index.commit("1")
        if self._approximate:
            made = self._index.build_approximate(method, self._metric, 0.99)
            print(f"{method}: recall {made.recall:.3f} at effort {made.effort}", file=sys.stderr)

    def search(self, queries: Any, _effort: int) -> Any:
        # As a search of a table asks: for more, to see ties.
        found = self._with_ties(
            lambda k: self._index.search(queries, self._metric, k, approximate=self._approximate), K
        )
        return [rows[:K] for rows in found.rows]


class Faiss:
    """A graph or groups over float32."""

    def __init__(self, data: Any, threads: int, method: str) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        self._faiss, self._is_graph = faiss, method == "hnsw"
        kind = "HNSW32,Flat" if self._is_graph else f"IVF{int(4 * len(data) ** 0.5)},Flat"
        self._index = faiss.index_factory(data.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        self._index.train(data)
        self._index.add(data)

    def search(self, queries: Any, effort: int) -> Any:
        if self._is_graph:
            asked = self._faiss.SearchParametersHNSW(efSearch=effort)
        else:
            asked = self._faiss.SearchParametersIVF(nprobe=effort)
        return self._index.search(queries, K, params=asked)[1]


class Usearch:
    """Its graph, over float32 or what it makes of them."""

    def __init__(self, data: Any, threads: int, method: str) -> None:
        from usearch.index import Index

        self._threads = threads
        self._index = Index(ndim=data.shape[1], metric="cos", dtype=method, connectivity=32)
        self._index.add(np.arange(len(data)), data, threads=threads)

    def search(self, queries: Any, effort: int) -> Any:
        self._index.expansion_search = effort
        if len(queries) == 1:
            return [self._index.search(queries[0], K).keys]
        return self._index.search(queries, K, threads=self._threads).keys


class Lancedb:
    """A table with a graph over 8 bits a number, whose candidates are scored anew."""

    def __init__(self, data: Any, _threads: int, _method: str) -> None:
        import lancedb
        import pyarrow as pa

        self._folder = tempfile.TemporaryDirectory()
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(data.reshape(-1)), data.shape[1])
        table = pa.table({"id": np.arange(len(data)), "v": vectors})
        self._table = lancedb.connect(self._folder.name).create_table("t", table)
        self._table.create_index(
            metric="cosine", vector_column_name="v", index_type="IVF_HNSW_SQ", num_partitions=1, m=32
        )

    def search(self, queries: Any, effort: int) -> Any:
        found = []
        for query in queries:
            asked = self._table.search(query).distance_type("cosine").ef(max(effort, 4 * K)).refine_factor(4)
            found.append(asked.select(["id", "_distance"]).limit(K).to_arrow()["id"].to_numpy())
        return found


def main(name: str, data: str, queries: str, threads: str) -> None:
    rows, asked = np.load(data), np.load(queries)
    kind, _, method = name.partition("-")
    started = perf_counter()
    contestant = {one.__name__.lower(): one for one in (Velaria, Faiss, Usearch, Lancedb)}[kind](
        rows, int(threads), method
    )
    _say({"ready": perf_counter() - started})
    for line in sys.stdin:
        question = json.loads(line)
        given = asked[slice(*question["queries"])]
        step = len(given) if question["together"] else 1
        spent, rows = [], []
        for start in range(0, len(given), step):
            started = perf_counter()
            found = contestant.search(given[start : start + step], question["effort"])
            spent.append(1000 * (perf_counter() - started))
            rows.extend(found)
        _say({"ms": spent, "rows": [[int(row) for row in part] for part in rows]})


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
