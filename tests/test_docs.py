"""Every code block of the README and of docs/ runs, and prints what stands below it.

The `python` blocks of a page share one namespace and one folder; a `text` block right after one is its output. A
`console` block holds `$ command` lines and their output. Blocks without a language are for people.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if "```python" in path.read_text())
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m[1], m[2], text[: m.start()].count("\n") + 2) for m in _BLOCK.finditer(text)]


def run_python(block: Block, page: Path, namespace: dict[str, object]) -> str:
    printed = io.StringIO()
    # Blank lines above keep the line numbers of a traceback those of the page.
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


def check_console(block: Block, page: Path) -> None:
    parts = re.split(r"^\$ (.*)\n", block.text, flags=re.MULTILINE)[1:]
    for command, expected in zip(parts[::2], parts[1::2], strict=True):
        words = shlex.split(command)
        assert words[0] == "velaria", f"{page.name}:{block.line}: only velaria commands are run"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, text=True, env=environment, check=False
        )
        assert done.stdout + done.stderr == expected, f"{page.name}:{block.line}: {command}"


def test_there_are_pages() -> None:
    assert ROOT / "README.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "python":
            assert not printed, f"{where}: the block before prints what no text block shows:\n{printed}"
            printed = run_python(block, page, namespace)
        elif block.language == "text" and printed is not None:
            assert printed == block.text, f"{where}: prints\n{printed}"
            printed = None
        elif block.language == "console":
            check_console(block, page)
    assert not printed, f"{page.name}: the last block prints what no text block shows:\n{printed}"
