"""The modules generated from contract/v1/*.proto are committed; this says when they are stale.

`bazel test //core:contract_test` compares in the same way. To bring them up to date, run
`bazel run //core:contract_update`, or from the root of the repository:

    python -m grpc_tools.protoc -Icore --python_out=core --pyi_out=core core/velaria_core/contract/v1/*.proto
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import velaria_core

ROOT = Path(velaria_core.__file__).parent.parent
V1 = ROOT / "velaria_core" / "contract" / "v1"


def test_generated_modules_are_up_to_date(tmp_path: Path) -> None:
    protos = [path.relative_to(ROOT).as_posix() for path in sorted(V1.glob("*.proto"))]
    assert len(protos) == 3
    command = ["-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *protos]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.rglob("*_pb2*.py*")}
    committed = {path.name: path.read_bytes() for path in V1.glob("*_pb2*.py*")}
    assert len(made) == 2 * len(protos)
    stale = sorted(name for name in made.keys() | committed.keys() if made.get(name) != committed.get(name))
    assert not stale, f"out of date: {', '.join(stale)}; the command is at the top of {Path(__file__).name}"
