"""What the benchmarks share: contestants that take turns, and plain tables of what came out."""

from __future__ import annotations

import gc
import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any


def best_times(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The shortest of `rounds` runs of each contestant, in seconds.

    They take turns, forth and back (A B C, C B A, ...), so that a busy moment of the machine meets all of them and
    none always runs in the wake of the same other; the shortest run is the one that was disturbed least. Nothing is
    warmed up here: call each once before, and check its answer.
    """
    best = dict.fromkeys(contestants, math.inf)
    gc.collect()
    for number in range(rounds):
        turns = list(contestants.items())
        for name, run in reversed(turns) if number % 2 else turns:
            start = perf_counter()
            run()
            best[name] = min(best[name], perf_counter() - start)
    return best


def geometric_mean(values: Iterable[float]) -> float:
    """The mean of ratios: twice as fast here and half as fast there is 1."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns to the right, the first to the left."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def machine(packages: Sequence[str], threads: int) -> str:
    """One line on what the numbers were taken with; a load beside our own makes them useless."""
    known = []
    for package in packages:
        try:
            known.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            known.append(f"{package} (not installed)")
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    return f"{', '.join(known)}; Python {platform.python_version()}, {threads} of {os.cpu_count()} threads, {load}"
