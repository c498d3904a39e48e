"""The Python blocks of the README run in their order, and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_what_the_readme_shows_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    blocks = _BLOCK.findall(README.read_text())
    assert blocks
    for language, text in blocks:
        if language == "python":
            assert not printed, printed
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, str(README), "exec"), namespace)
            printed = out.getvalue()
        else:
            assert printed == text
            printed = ""
    assert not printed
