"""What `velaria --version` prints: one line with the versions that a bug report needs."""

from __future__ import annotations

import sys

from velaria import __version__


def version_line() -> str:
    """`velaria 0.1.0 (duckdb 2.0.0, pyarrow 26.0.1, python 3.11.7)`, from metadata: none of them is imported."""
    from importlib.metadata import PackageNotFoundError, version

    parts = []
    for name in ("duckdb", "pyarrow"):
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            parts.append(f"{name} missing")
    parts.append("python " + ".".join(map(str, sys.version_info[:3])))
    return f"velaria {__version__} ({', '.join(parts)})"
