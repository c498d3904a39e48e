"""TPC-H for the benchmarks: its tables as Parquet files, made once, and its queries as SQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")
QUERIES = Path(__file__).parent.parent / "core" / "tests" / "tpch"


def default_cache() -> Path:
    """Where generated data stay between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "velaria", "tpch")


def parquet_folder(cache: Path, scale: str) -> Path:
    """The folder with the eight tables at a scale (1 is 6 million line items, 0.4 GB); generated at the first call."""
    folder = cache / f"scale-{scale}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=cache, prefix=".partial-"))
    try:
        generator = Path(sysconfig.get_path("scripts"), "tpchgen-cli")
        command = [str(generator), "parquet", "--scale-factor", scale, "--output-dir", str(partial)]
        subprocess.run(command, check=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def queries() -> dict[int, str]:
    """The texts of the 22 queries, by number."""
    return {int(file.stem[1:]): file.read_text() for file in sorted(QUERIES.glob("q*.sql"))}
