"""Nothing is loaded before it is used, and what is missing is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

import velaria_interop
from velaria_core.dataframe import DataFrame
from velaria_core.errors import InputError
from velaria_core.session import DataflowSession

LIBRARIES = ("pandas", "polars", "narwhals", "duckdb", "pyarrow", "velaria_core")


def loaded_after(program: str) -> set[str]:
    """The libraries that a fresh interpreter has loaded after `program`."""
    ask = f"\nimport json, sys; print(json.dumps([m for m in {LIBRARIES!r} if m in sys.modules]))"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{program}{ask}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(found.stdout))


def test_importing_loads_nothing() -> None:
    assert loaded_after("import velaria_interop") == set()


def test_arrow_loads_no_frame_library() -> None:
    # The data is made by SQL: pyarrow itself looks for pandas where it reads Python lists.
    program = (
        "from velaria_interop import from_arrow, to_arrow\n"
        "from velaria_core import DataflowSession\n"
        "with DataflowSession() as s: to_arrow(from_arrow(s, s.sql('SELECT 1 AS a').to_arrow()))"
    )
    assert loaded_after(program) == {"duckdb", "pyarrow", "velaria_core"}


def test_each_library_is_loaded_alone() -> None:
    program = (
        "from velaria_interop import from_any, to_polars\n"
        "from velaria_core import DataflowSession\n"
        "with DataflowSession() as s: to_polars(from_any(s, s.sql('SELECT 1 AS a').to_arrow()))"
    )
    assert not {"pandas", "narwhals"} & loaded_after(program)


def test_every_public_name_is_there() -> None:
    for name in velaria_interop.__all__:
        assert getattr(velaria_interop, name) is not None
    assert dir(velaria_interop) == sorted(velaria_interop.__all__)
    with pytest.raises(AttributeError):
        velaria_interop.nothing  # noqa: B018


def a_frame(session: DataflowSession) -> DataFrame:
    return session.sql("SELECT 1 AS a")


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("pandas", lambda session: velaria_interop.to_pandas(a_frame(session))),
        ("pandas", lambda session: velaria_interop.from_pandas(session, object())),
        ("pandas", lambda session: a_frame(session).to_pandas()),
        ("polars", lambda session: velaria_interop.to_polars(a_frame(session))),
        ("polars", lambda session: velaria_interop.from_polars(session, object())),
        ("polars", lambda session: a_frame(session).to_polars()),
        ("narwhals", lambda session: velaria_interop.to_narwhals(a_frame(session))),
        ("narwhals", lambda session: velaria_interop.from_narwhals(session, object())),
    ],
)
def test_a_missing_library_is_named(
    session: DataflowSession, monkeypatch: pytest.MonkeyPatch, library: str, call: Callable[[DataflowSession], object]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError) as caught:
        call(session)
    assert caught.value.code == "dependency.missing"
    assert library in caught.value.message
    assert caught.value.hint == (
        "pip install narwhals" if library == "narwhals" else f"pip install 'velaria[{library}]'"
    )
