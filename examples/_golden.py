"""Runs an example as a user would and compares what it prints with a golden file; times are masked.

usage: _golden.py [--write] EXAMPLE...

Without --write a difference fails. Every example has one: examples/golden/<name>.txt.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# What depends on the machine and the moment.
_MASKS = (
    (re.compile(r"\b\d[\d,]*(\.\d+)? (ms|s|rows/s|million rows/s)\b"), r"# \2"),
    (re.compile(r"\bthreads=\d+"), "threads=#"),
)


def output(example: str) -> str:
    """What an example prints, masked; it must end well and print nothing to stderr."""
    environment = {**os.environ, "COLUMNS": "120", "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error"}
    ran = subprocess.run(
        [sys.executable, str(HERE / f"{example}.py")], env=environment, capture_output=True, encoding="utf-8"
    )
    if ran.returncode or ran.stderr:
        sys.exit(f"{example} ended with {ran.returncode}\n{ran.stdout}{ran.stderr}")
    text = ran.stdout
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def main(arguments: list[str]) -> int:
    write, examples = arguments[:1] == ["--write"], [one for one in arguments if one != "--write"]
    if not examples:
        sys.exit(__doc__)
    failed = 0
    for example in examples:
        golden = HERE / "golden" / f"{example}.txt"
        found = output(example)
        if write:
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(found, encoding="utf-8")
            continue
        expected = golden.read_text(encoding="utf-8") if golden.exists() else ""
        if found != expected:
            failed += 1
            lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), str(golden), "printed", lineterm="")
            print("\n".join(lines))
            print(f"If the new output is right: .venv/bin/python examples/_golden.py --write {example}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
