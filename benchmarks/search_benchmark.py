"""Exact vector search: Velaria beside reading the floats once, NumPy, FAISS, usearch, LanceDB and DuckDB's SQL.

Vectors are clustered, of norm 1, made by seed, and kept in the cache; `--vectors` measures others, embeddings of text
for one. Each contestant is a process that holds the vectors and answers one question at a time, and all take turns
with the same query, so that a busy moment meets all of them; the best time of each counts. Peers run in an environment
of their own, made in the cache at the first run; one that cannot be installed is told, and left out. Every answer is
compared with that of float64.

Bars: one query in less time than reading every float32 once, and ahead of every peer; the float32 path at 0.7 of that
reading; 100 queries within 1.2x of BLAS; filtered to 1, 10 and 50% of a million rows in 5/3, 8/3 and 18/3 of the time
of the predicate alone; an index on disk takes 20,000 vectors/s of 128 numbers, a commit each thousand.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import numpy as np
from _measure import machine, text_table
from _peers import Peer, interpreter
from _search_vectors import UPDATED, K
from _stream_data import default_cache

HERE = Path(__file__).parent
SHAPES = {"100k x 128": (100_000, 128), "100k x 768": (100_000, 768), "1M x 128": (1_000_000, 128)}
SHARES = (0.01, 0.1, 0.5)
FILTERED = {0.01: 5 / 3, 0.1: 8 / 3, 0.5: 18 / 3}  # of the predicate alone
MANY = 100

# Contestant: what installs it, and the questions it answers.
CONTESTANTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "velaria": ((), ("one", "plain", "many", "predicate", "filtered", "update")),
    "duckdb": ((), ("one", "filtered")),
    "numpy": (("threadpoolctl==3.8.0",), ("read", "one", "many")),
    "faiss": (("faiss-cpu==1.15.1",), ("one", "many")),
    "usearch": (("usearch==2.26.6",), ("one", "many")),
    "lancedb": (("lancedb==0.40.0",), ("one",)),
}
_REST = 0.05  # seconds before a turn: the threads of OpenBLAS and OpenMP spin on for a while after theirs
_SLOW = ("lancedb", "duckdb")  # at a million rows a turn of theirs is a tenth as often


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    options.data.mkdir(parents=True, exist_ok=True)
    print(machine(("velaria", "numpy", "numkong", "duckdb"), options.threads))
    figures: list[dict[str, Any]] = []
    for name in [options.vectors.name] if options.vectors else options.shapes:
        data, queries = _given(options.vectors, options.data) if options.vectors else _made(name, options.data)
        figures += _shape(name, data, queries, options)
    print(_bars(figures))
    if options.json:
        Path(options.json).write_text("".join(json.dumps(line) + "\n" for line in figures))
    return 1 if any(line["contestant"] == "velaria" and line["agrees"] < 1 for line in figures) else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Exact vector search: Velaria beside peers.")
    names = {"type": lambda text: text.split(","), "help": "by comma (default: all)"}
    parser.add_argument("--shapes", default=list(SHAPES), **names)
    parser.add_argument("--contestants", default=list(CONTESTANTS), **names)
    parser.add_argument("--vectors", type=Path, metavar="FILE.npy", help="measure these, (n, d) float32, instead")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each contestant (default: 30)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each (default: all cores)")
    parser.add_argument("--data", type=Path, default=default_cache().parent / "search", help="where files stay")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too, a line each")
    options = parser.parse_args(arguments)
    for given, known in ((options.shapes, SHAPES), (options.contestants, CONTESTANTS)):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


# --- vectors


def _made(name: str, cache: Path) -> tuple[Path, Path]:
    """Clustered vectors and queries near them, by seed."""
    n, d = SHAPES[name]
    data, queries = cache / f"{n}x{d}.npy", cache / f"{n}x{d}.queries.npy"
    if not queries.exists():
        random = np.random.default_rng(20_26)
        centres = random.standard_normal((1000, d), np.float32)
        rows = centres[random.integers(0, 1000, n)]
        rows += random.standard_normal((n, d), np.float32)
        asked = rows[random.integers(0, n, MANY)] + 0.5 * random.standard_normal((MANY, d), np.float32)
        for path, values in ((data, rows), (queries, asked)):
            values /= np.sqrt((values * values).sum(axis=1, keepdims=True))
            np.save(path, values)
    return data, queries


def _given(path: Path, cache: Path) -> tuple[Path, Path]:
    """A file's vectors at norm 1; a hundred of them, a little off, are the queries."""
    rows = np.ascontiguousarray(np.load(path), np.float32)
    random = np.random.default_rng(20_26)
    asked = rows[random.choice(len(rows), MANY, replace=False)]
    asked = asked + np.float32(0.05) * random.standard_normal(asked.shape, np.float32) * np.abs(asked).mean()
    made = cache / "given.npy", cache / "given.queries.npy"
    for target, values in zip(made, (rows, asked), strict=True):
        norms = np.sqrt((values * values).sum(axis=1, keepdims=True))
        np.save(target, values / np.where(norms > 0, norms, 1))
    return made


def _expected(data: Path, queries: Path, share: float) -> list[list[int]]:
    """The K best rows of each query by float64, of rows that pass."""
    rows, asked = np.load(data, mmap_mode="r"), np.load(queries).astype(np.float64)
    passing = np.random.default_rng(3).random(len(rows)) < share
    best, kept = np.empty((MANY, 0)), np.empty((MANY, 0), np.int64)
    norms = np.sqrt((asked * asked).sum(axis=1, keepdims=True))
    for start in range(0, len(rows), 16384):
        part = np.asarray(rows[start : start + 16384], np.float64)
        lengths = np.sqrt((part * part).sum(axis=1))
        scores = 1 - np.clip(asked @ part.T / (norms * np.where(lengths > 0, lengths, np.inf)), -1, 1)
        scores[:, ~passing[start : start + 16384]] = np.inf
        best = np.concatenate([best, scores], axis=1)
        kept = np.concatenate([kept, np.tile(np.arange(start, start + len(part)), (MANY, 1))], axis=1)
        top = np.argsort(best, axis=1, kind="stable")[:, :K]
        best, kept = np.take_along_axis(best, top, axis=1), np.take_along_axis(kept, top, axis=1)
    return [[int(row) for row in line] for line in kept]


# --- turns


def _shape(name: str, data: Path, queries: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All questions about one set of vectors, and their tables."""
    running: dict[str, Peer] = {}
    for one in options.contestants:
        if (python := interpreter(one, CONTESTANTS[one][0], options.data)) is not None:
            script = str(HERE / "_search_vectors.py")
            running[one] = Peer(one, [python, script, one, str(data), str(queries), str(options.threads)])
    n, d = np.load(data, mmap_mode="r").shape
    kernel = next((process.told["kernel"] for process in running.values() if process.told["kernel"]), "unknown")
    print(f"\n{name}: {n:,} vectors of {d} numbers, the {K} best by cosine, best of {options.rounds} turns; {kernel}")
    figures: list[dict[str, Any]] = []
    try:
        expected = _expected(data, queries, 1.0)
        asked = [(one, case) for one in running for case in ("read", "one", "plain") if case in CONTESTANTS[one][1]]
        figures += _turns(running, asked, expected, 1.0, options.rounds, n)
        asked = [(one, "many") for one in running if "many" in CONTESTANTS[one][1]]
        figures += _turns(running, asked, expected, 1.0, max(3, options.rounds // 6), n)
        for share in SHARES if n >= 1_000_000 else ():
            cases = ("predicate", "filtered")
            asked = [(one, case) for one in running for case in cases if case in CONTESTANTS[one][1]]
            figures += _turns(running, asked, _expected(data, queries, share), share, options.rounds, n)
        if "velaria" in running:
            figures += _turns(running, [("velaria", "update")], expected, 1.0, options.rounds, n)
    finally:
        for process in running.values():
            process.close()
    for line in figures:
        line["shape"] = name
    print(_table(figures), flush=True)
    return figures


def _turns(
    running: dict[str, Peer],
    asked: Sequence[tuple[str, str]],
    expected: list[list[int]],
    share: float,
    rounds: int,
    n: int,
) -> list[dict[str, Any]]:
    """The best and the middle time of each question, and the part of its rows that are those of float64."""
    times: dict[tuple[str, str], list[float]] = {turn: [] for turn in asked}
    spent: dict[tuple[str, str], list[float]] = {turn: [] for turn in asked}
    agrees: dict[tuple[str, str], list[float]] = {turn: [] for turn in asked}
    for number in range(-1, rounds):  # the first is to be warm
        for one, case in reversed(asked) if number % 2 else asked:
            if one in _SLOW and n >= 1_000_000 and number > 0 and number % 10:
                continue
            query = None if case == "many" else number % MANY
            sleep(_REST)
            found = running[one].ask({"case": case, "query": query, "share": share})
            if number >= 0:
                times[one, case].append(found["ms"])
                spent[one, case].append(found["cpu_ms"])
            if case not in ("read", "predicate", "update"):
                wanted = expected if query is None else [expected[query]]
                same = [len(set(rows) & set(right)) / K for rows, right in zip(found["rows"], wanted, strict=True)]
                agrees[one, case].append(sum(same) / len(same))
    return [
        {
            "contestant": one,
            "case": case,
            "share": share,
            "ms": min(times[one, case]),
            "median_ms": median(times[one, case]),
            "cpu_ms": min(spent[one, case]),
            "agrees": min(agrees[one, case], default=1.0),
        }
        for one, case in asked
    ]


# --- tables

_SHOWN = {
    "read": "reading the floats once",
    "one": "one query",
    "plain": "one query, float32",
    "many": f"{MANY} queries",
    "predicate": "the predicate alone",
    "filtered": "one query, filtered",
    "update": f"{UPDATED:,} vectors replaced",
}


def _table(figures: Sequence[dict[str, Any]]) -> str:
    reading = next((line["ms"] for line in figures if line["case"] == "read"), None)
    rows = []
    for line in sorted(figures, key=lambda line: (line["share"] < 1, line["share"], list(_SHOWN).index(line["case"]))):
        what = _SHOWN[line["case"]] + (f" to {line['share']:.0%}" if line["share"] < 1 else "")
        ratio = f"{line['ms'] / reading:.2f}" if reading else "-"
        times = [f"{line[name]:.2f}" for name in ("ms", "median_ms", "cpu_ms")]
        rows.append([what, line["contestant"], *times, ratio, f"{line['agrees']:.3f}"])
    return text_table(("", "contestant", "best ms", "median ms", "cpu ms", "x reading", "as float64"), rows)


def _bars(figures: Sequence[dict[str, Any]]) -> str:
    """Velaria against the bars."""
    rows = []
    for shape in dict.fromkeys(line["shape"] for line in figures):
        known = {
            (line["contestant"], line["case"], line["share"]): line["ms"] for line in figures if line["shape"] == shape
        }
        reading = known.get(("numpy", "read", 1.0))
        ours = {case: known.get(("velaria", case, 1.0)) for case in ("one", "plain", "many")}
        peers = [ms for (one, case, share), ms in known.items() if one != "velaria" and (case, share) == ("one", 1.0)]
        blas = [ms for (one, case, _), ms in known.items() if one != "velaria" and case == "many"]
        bars = [
            ("one query / reading", ours["one"], reading, 1.0),
            ("one query / best peer", ours["one"], min(peers, default=None), 1.0),
            ("float32 / reading", ours["plain"], reading, 1 / 0.7),
            (f"{MANY} queries / best peer", ours["many"], min(blas, default=None), 1.2),
        ]
        rows += [
            [shape, name, f"{one / other:.2f} of {most:.2f}", "met" if one <= most * other else "MISSED"]
            for name, one, other, most in bars
            if one is not None and other is not None
        ]
        if shape.endswith("x 128") and (one := known.get(("velaria", "update", 1.0))) is not None:
            rate = 1000 * UPDATED / one
            rows.append([shape, "updates", f"{rate:,.0f} of 20,000 vectors/s", "met" if rate >= 20_000 else "MISSED"])
        for share, most in FILTERED.items():
            if (one := known.get(("velaria", "filtered", share))) is not None:
                ratio = one / known["velaria", "predicate", share]
                told = "met" if ratio <= most else "MISSED"
                rows.append([shape, f"filtered to {share:.0%} / predicate", f"{ratio:.2f} of {most:.2f}", told])
    return "\n" + text_table(("shape", "bar", "", ""), rows)


if __name__ == "__main__":
    sys.exit(main())
