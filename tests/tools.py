"""Runs a tool of the house over the files that Bazel declares.

usage: tools (lint | format | types)
"""

import subprocess
import sys
from pathlib import Path

# ruff walks past symbolic links, which is what Bazel's tree is made of, so it is given each file;
# --force-exclude applies pyproject.toml's exclusions to files given so.
_COMMANDS = {
    "lint": ["ruff", "check", "--no-cache", "--force-exclude"],
    "format": ["ruff", "format", "--no-cache", "--force-exclude", "--diff"],
    "types": ["mypy", "--cache-dir", "/dev/null"],
}


def sources() -> list[str]:
    """All Python files here: by suffix, and the programs in scripts/, which have none."""
    folders = [path for path in Path().iterdir() if path.is_dir() and path.name != "external"]
    files = [file for folder in folders for file in folder.rglob("*.py*") if file.suffix in (".py", ".pyi")]
    return sorted(map(str, files + [file for file in Path("scripts").iterdir() if not file.suffix]))


def main(tool: str) -> int:
    command = [sys.executable, "-m", *_COMMANDS[tool]]
    # mypy's packages are named in pyproject.toml
    return subprocess.run(command + ([] if tool == "types" else sources())).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
