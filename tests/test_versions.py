"""The layers are released together: one version, exact pins between them, one lock that fits."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from uv import find_uv_bin

ROOT = Path(__file__).parent.parent
LAYERS = {
    "core": "velaria_core",
    "interop": "velaria_interop",
    "ecosystem": "velaria",
    "experimental": "velaria_experimental",
}


def project(layer: str) -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / layer / "pyproject.toml").read_text())["project"]
    return content


VERSION = project("core")["version"]


@pytest.mark.parametrize("layer", LAYERS)
def test_version_is_the_same_everywhere(layer: str) -> None:
    assert project(layer)["version"] == VERSION
    assert import_module(LAYERS[layer]).__version__ == VERSION


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_are_pinned_to_each_other_exactly(layer: str) -> None:
    ours = {project(other)["name"] for other in LAYERS}
    pins = {
        requirement.name: str(requirement.specifier)
        for requirement in map(Requirement, project(layer)["dependencies"])
        if requirement.name in ours
    }
    assert pins == dict.fromkeys(pins, f"=={VERSION}")
    assert ("velaria-core" in pins) == (layer != "core")


def test_lock_fits_every_pyproject(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "uv.lock", *(f"{layer}/pyproject.toml" for layer in LAYERS)):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
    settings = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    # Offline: the lock alone must answer. The index is the one that the lock names.
    command = [find_uv_bin(), "lock", "--check", "--offline", "--no-cache", "--no-config"]
    command += ["--default-index", "https://pypi.org/simple", "--python", sys.executable]
    result = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + "\nBring it up to date with: .venv/bin/uv lock"


def test_lock_names_only_the_public_index() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    for package in lock["package"]:
        source = package["source"]
        assert source.get("registry", "https://pypi.org/simple") == "https://pypi.org/simple", package["name"]
        for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]:
            assert file["url"].startswith("https://files.pythonhosted.org/"), file["url"]
