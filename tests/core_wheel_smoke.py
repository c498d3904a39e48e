"""The kernel's wheel stands alone: a query without the layers above it."""

from importlib.util import find_spec
from pathlib import Path

import velaria_core
from velaria_core.session import DataflowSession

where = Path(velaria_core.__file__).resolve()
assert "/fresh/lib/" in where.as_posix(), f"velaria_core is not the wheel's: {where}"
above = [name for name in ("velaria", "velaria_interop", "velaria_experimental") if find_spec(name)]
assert not above, f"layers that were not installed: {above}"

answer = DataflowSession().sql("SELECT 42 AS answer").to_arrow()
assert answer.to_pylist() == [{"answer": 42}], answer
