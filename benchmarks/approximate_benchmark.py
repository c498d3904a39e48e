"""Approximate vector search over real texts: an index of Velaria beside those of FAISS, usearch and LanceDB.

The vectors are of 39,000 definitions of WordNet (`_real_texts.py`); `--vectors` takes others. A thousand are left out
and are the queries. Each contestant is a process that builds its index and is asked for the ten nearest with growing
effort, until it finds 0.99 of those that float64 finds. Then all take turns, in each of which some queries are asked
one after another; and then with all queries in one call. Exact search, which finds all, stands beside them. Bar: at
that recall, at least as many queries a second as the best peer.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import numpy as np
import numpy.typing as npt
from _measure import machine, text_table
from _peers import Peer, interpreter
from _search_approximate import K
from _stream_data import default_cache

SCRIPT = str(Path(__file__).parent / "_search_approximate.py")
RECALL = 0.99
QUERIES = 1000
BURST = 100  # queries of a turn: it is a rate that is asked for
_REST = 0.05  # seconds before a turn: the threads of OpenMP spin on for a while after theirs
_STEPS = [1, 1.25, 1.5, 1.75]
_EFFORTS = {
    "graph": [int(16 * 2**step * part) for step in range(7) for part in _STEPS],
    "groups": [int(4 * 2**step * part) for step in range(8) for part in _STEPS],
    "own": [0],
}

# Contestant: what installs it, and how it is told how far to look.
CONTESTANTS: dict[str, tuple[tuple[str, ...], str]] = {
    "velaria-exact": ((), "own"),
    "velaria-hnsw": ((), "own"),
    "velaria-ivf": ((), "own"),
    "faiss-hnsw": (("faiss-cpu==1.15.1",), "graph"),
    "faiss-ivf": (("faiss-cpu==1.15.1",), "groups"),
    "usearch-f32": (("usearch==2.26.6",), "graph"),
    "usearch-i8": (("usearch==2.26.6",), "graph"),
    "lancedb-hnsw": (("lancedb==0.40.0",), "graph"),
}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    data, queries = _split(options)
    expected = nearest_by_float64(np.load(data), np.load(queries))
    n, d = np.load(data, mmap_mode="r").shape
    print(machine(("velaria", "numpy", "faiss-cpu"), options.threads))
    print(f"{n:,} vectors of {d} numbers, the {K} nearest of {QUERIES:,} others by cosine")
    lines: dict[str, dict[str, Any]] = {}
    running: dict[str, Peer] = {}
    try:
        for name in options.contestants:
            packages, kind = CONTESTANTS[name]
            python = interpreter(name, packages, options.data)
            if python is not None:
                running[name] = Peer(name, [python, SCRIPT, name, str(data), str(queries), str(options.threads)])
                lines[name] = {"build_s": running[name].told["ready"], **_effort(running[name], kind, expected)}
                print(f"{name}: recall {lines[name]['recall']:.3f}", file=sys.stderr)
        _turns(running, lines, options.rounds)
    finally:
        for peer in running.values():
            peer.close()
    print(_table(lines))
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Approximate vector search over real texts, beside peers.")
    names = {"type": lambda text: text.split(","), "help": "by comma (default: all)"}
    parser.add_argument("--contestants", default=list(CONTESTANTS), **names)
    parser.add_argument("--vectors", type=Path, metavar="FILE.npy", help="measure these, (n, d) float32, instead")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contestant (default: 20)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each (default: all cores)")
    parser.add_argument("--data", type=Path, default=default_cache().parent / "search", help="where files stay")
    options = parser.parse_args(arguments)
    if unknown := set(options.contestants) - set(CONTESTANTS):
        parser.error(f"{', '.join(sorted(unknown))}; there are {', '.join(CONTESTANTS)}")
    return options


def _split(options: argparse.Namespace) -> tuple[Path, Path]:
    """The vectors at norm 1, less some that are the queries."""
    options.data.mkdir(parents=True, exist_ok=True)
    if options.vectors is None:
        from _real_texts import vectors

        options.vectors = vectors(options.data)
    rows = np.ascontiguousarray(np.load(options.vectors), np.float32)
    rows = rows[np.random.default_rng(20_26).permutation(len(rows))]
    rows /= np.maximum(np.sqrt((rows * rows).sum(axis=1, keepdims=True)), np.finfo(np.float32).tiny)
    made = options.data / "approximate.npy", options.data / "approximate.queries.npy"
    for target, values in zip(made, (rows[QUERIES:], rows[:QUERIES]), strict=True):
        np.save(target, values)
    return made


def nearest_by_float64(rows: npt.NDArray[Any], queries: npt.NDArray[Any]) -> list[set[int]]:
    """The K nearest rows of each query."""
    asked, best = queries.astype(np.float64), np.empty((len(queries), 0))
    kept = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), 8192):
        part = rows[start : start + 8192].astype(np.float64)
        part /= np.maximum(np.sqrt((part * part).sum(axis=1, keepdims=True)), np.finfo(np.float64).tiny)
        best = np.concatenate([best, -(asked @ part.T)], axis=1)
        kept = np.concatenate([kept, np.tile(np.arange(start, start + len(part)), (len(queries), 1))], axis=1)
        top = np.argsort(best, axis=1, kind="stable")[:, :K]
        best, kept = np.take_along_axis(best, top, axis=1), np.take_along_axis(kept, top, axis=1)
    return [set(line.tolist()) for line in kept]


def _effort(peer: Peer, kind: str, expected: list[set[int]]) -> dict[str, Any]:
    """The least effort that reaches the recall, or the most there is, and the recall that it reaches."""
    recall = 0.0
    for effort in _EFFORTS[kind]:
        found = peer.ask({"queries": [0, QUERIES], "together": True, "effort": effort})["rows"]
        recall = sum(len(right.intersection(rows)) for rows, right in zip(found, expected, strict=True))
        recall /= K * len(expected)
        if recall >= RECALL:
            break
    return {"effort": effort, "recall": recall}


def _turns(running: dict[str, Peer], lines: dict[str, dict[str, Any]], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in running}
    together: dict[str, list[float]] = {name: [] for name in running}
    for number in range(-1, rounds):  # the first is to be warm
        for name in reversed(running) if number % 2 else running:
            first = number * BURST % QUERIES
            asked = {"queries": [first, first + BURST], "together": False, "effort": lines[name]["effort"]}
            sleep(_REST)
            found = running[name].ask(asked)["ms"]
            times[name] += found if number >= 0 else []
    for _ in range(3):
        for name in running:
            sleep(_REST)
            asked = {"queries": [0, QUERIES], "together": True, "effort": lines[name]["effort"]}
            together[name] += running[name].ask(asked)["ms"]
    for name, taken in times.items():
        lines[name] |= {"p50": median(taken), "p99": float(np.percentile(taken, 99)), "one": 1000 / np.mean(taken)}
        lines[name]["all"] = 1000 * QUERIES / min(together[name])


def _table(lines: dict[str, dict[str, Any]]) -> str:
    best = {
        kind: max(
            (one[kind] for name, one in lines.items() if "velaria" not in name and one["recall"] >= RECALL), default=0
        )
        for kind in ("one", "all")
    }
    rows = []
    for name, one in lines.items():
        told = []
        for kind, most in best.items():
            ratio = f"{one[kind] / most:.2f}" if most else "-"
            if "velaria" in name and one["recall"] < RECALL:
                ratio = "not used: exact instead"
            elif "velaria" in name and name != "velaria-exact" and most:
                ratio += " met" if one[kind] >= most else " MISSED"
            told += [f"{one[kind]:,.0f}", ratio]
        figures = [f"{one['build_s']:.0f}", str(one["effort"] or "own"), f"{one['recall']:.3f}"]
        rows.append([name, *figures, f"{one['p50']:.2f}", f"{one['p99']:.2f}", *told])
    heads = (
        "",
        "build s",
        "effort",
        "recall",
        "p50 ms",
        "p99 ms",
        "queries/s",
        "x best peer",
        "in one call",
        "x best peer",
    )
    return text_table(heads, rows)


if __name__ == "__main__":
    sys.exit(main())
