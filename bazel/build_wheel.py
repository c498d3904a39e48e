"""Builds the wheel of one layer from the files that Bazel declares, with hatchling.

usage: build_wheel OUT_DIR LAYER FILE...     (FILE paths start with LAYER/ or end in it)
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from hatchling.build import build_wheel


def main(out: str, layer: str, files: list[str]) -> None:
    target = Path(out).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            # Generated files come as bazel-out/<config>/bin/<layer>/...
            inside = file.split(f"{layer}/", 1)[1]
            copy = Path(scratch, inside)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        os.chdir(scratch)
        build_wheel(str(target))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
