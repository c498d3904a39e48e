"""The experimental layer stands on the kernel alone."""

import os
import subprocess
import sys


def test_import_loads_no_other_layer() -> None:
    script = "import sys, velaria_experimental; print(*sys.modules)"
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", script], env=paths, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "velaria_experimental" in loaded
    assert not {"velaria", "velaria_interop"} & loaded
