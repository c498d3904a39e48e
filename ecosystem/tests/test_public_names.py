"""The public names of `velaria`: a golden list, lazily loaded, typed for checkers."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import velaria
import velaria_core

GOLDEN = Path(__file__).parent / "golden" / "public_names.txt"


def test_names_are_those_of_the_golden_list() -> None:
    """A name that leaves the list breaks somebody. VELARIA_UPDATE_GOLDEN=1 writes it anew, for a review."""
    text = "\n".join(sorted(velaria.__all__)) + "\n"
    if os.environ.get("VELARIA_UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_every_public_name_of_the_kernel_is_public_here() -> None:
    assert set(velaria_core.__all__) <= set(velaria.__all__)


@pytest.mark.parametrize("name", velaria.__all__)
def test_every_name_loads(name: str) -> None:
    assert getattr(velaria, name) is not None
    assert name in dir(velaria)


def test_session_has_two_names() -> None:
    assert velaria.Session is velaria.DataflowSession


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Dataframe'"):
        _ = velaria.Dataframe


def test_checkers_see_every_name() -> None:
    """The block for type checkers imports what loads lazily, each name as itself."""
    tree = ast.parse(Path(str(velaria.__file__)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (alias.name, alias.asname) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == {(name, name) for name in velaria.__all__ if name != "__version__"}


def test_the_first_query_of_the_readme() -> None:
    session = velaria.DataflowSession()
    frame = session.create_dataframe({"a": [1, 2, 3]}).filter(velaria.col("a") > 1)
    assert frame.agg(n=velaria.fn.count(), total=velaria.fn.sum("a")).to_rows() == [{"n": 2, "total": 5}]
    with pytest.raises(velaria.InputError) as caught:
        session.sql("SELECT b FROM nowhere")
    assert caught.value.code == "sql.unknown_table"


def test_import_loads_nothing_else() -> None:
    program = "import sys; before = set(sys.modules); import velaria; print(*sorted(set(sys.modules) - before))"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ran.stdout.split())
    assert "velaria" in loaded
    # Of others' only the standard library, and little of it.
    assert {name.partition(".")[0] for name in loaded} <= {"velaria", *sys.stdlib_module_names}
    assert not loaded & {"dataclasses", "inspect", "importlib.metadata"}
