"""Contestants that are programs: each in a process that answers line by line, so that all can take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_SHARED = ("pyarrow", "numpy")  # in the same versions as in Velaria's environment


class Peer:
    """A contestant that is ready to be asked."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        # An OpenBLAS of today chooses its kernel by the processor; these are for older ones.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        if command[0] == sys.executable:
            kept["PYTHONPATH"] = os.pathsep.join(sys.path)
        else:
            kept.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            list(command),
            env=kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.told = self._read()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise RuntimeError(f"{self.name} stopped: {self._process.stderr.read()[-500:]}")
        found: dict[str, Any] = json.loads(line)
        return found


def interpreter(name: str, packages: Sequence[str], cache: Path) -> str | None:
    """The interpreter of a contestant; None, and told why, where it cannot be had."""
    if not packages:
        return sys.executable
    folder = cache / "peers"
    python, marker = folder / "bin" / "python", folder / f".{'-'.join(packages)}"
    if not marker.exists():
        if not python.exists():
            venv.create(folder, with_pip=True)
        shared = [f"{package}=={version(package)}" for package in _SHARED]
        print(f"installing {', '.join(packages)} for the benchmark into {folder}", file=sys.stderr)
        command = [python, "-m", "pip", "install", "--quiet", *shared, *packages]
        installed = subprocess.run(command, capture_output=True, encoding="utf-8")
        if installed.returncode:
            print(f"{name} is left out: {(installed.stderr.strip().splitlines() or ['no word'])[-1]}")
            return None
        marker.touch()
    return str(python)
