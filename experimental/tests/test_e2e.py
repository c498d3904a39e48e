"""scripts/run_actor_rpc_e2e.sh: three processes as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_actor_rpc_e2e.sh"


def test_three_processes(tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
        "VELARIA_EXPERIMENTAL_SHM": str(tmp_path),
    }
    ran = subprocess.run([str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "ok"
    assert "shm://" not in ran.stderr
    assert list(tmp_path.iterdir()) == []
