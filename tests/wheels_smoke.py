"""A newcomer's first minute with the wheels alone: import, a query, the command line."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa

import velaria
import velaria_core
import velaria_interop

for package in (velaria, velaria_core, velaria_interop):
    where = Path(str(package.__file__)).resolve()
    assert "/fresh/lib/" in where.as_posix(), f"{package.__name__} is not the wheel's: {where}"
    assert where.with_name("py.typed").exists(), f"{package.__name__} carries no types"

answer = velaria.DataflowSession().sql("SELECT 42 AS answer").to_arrow()
assert isinstance(answer, pa.Table), type(answer)
assert answer.to_pylist() == [{"answer": 42}], answer

program = Path(sys.executable).with_name("velaria")
shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
assert velaria.__version__ in shown, shown
