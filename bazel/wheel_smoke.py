"""Installs a built wheel into a fresh environment and runs a script there.

usage: wheel_smoke WHEEL_DIR PACKAGE SCRIPT

Our packages come from WHEEL_DIR. The third-party ones that they declare, and no others, are linked in
from the locked environment: a dependency that a wheel fails to name is missing here, as it would be for
a user.
"""

import shutil
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename
from uv import find_uv_bin


def declared(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


def third_party(package: str, wheels: dict[NormalizedName, Path]) -> dict[str, Distribution]:
    """The locked distributions that `package` needs, by name, directly and through others."""
    found: dict[str, Distribution] = {}
    seen = set()
    pending = [Requirement(package)]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        asked = (name, frozenset(requirement.extras))
        if asked in seen:
            continue
        seen.add(asked)
        if name in wheels:
            texts = declared(wheels[name])
        else:
            found[name] = distribution(name)
            texts = found[name].requires or []
        extras = requirement.extras or {""}
        for needed in map(Requirement, texts):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(needed)
    return found


def link(dist: Distribution, site: Path) -> None:
    """Make `dist` importable from `site`, as if installed there."""
    for top in {file.parts[0] for file in dist.files or [] if file.parts[0] != ".."}:
        source, target = Path(str(dist.locate_file(top))), site / top
        if top.endswith(".dist-info"):
            shutil.copytree(source, target)  # uv does not look at linked ones
        elif source.exists() and not target.exists():
            target.symlink_to(source)


def main(wheel_dir: str, package: str, script: str) -> int:
    wheels = {parse_wheel_filename(path.name)[0]: path for path in Path(wheel_dir).glob("*.whl")}
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch, "fresh")
        venv.create(fresh, symlinks=True)
        python = fresh / "bin" / "python"
        site = next(fresh.glob("lib/python*/site-packages"))
        for dist in third_party(package, wheels).values():
            link(dist, site)
        command = [find_uv_bin(), "pip", "install", "--quiet", "--offline", "--no-cache", "--no-index"]
        command += ["--find-links", str(Path(wheel_dir).resolve()), "--python", str(python), package]
        subprocess.run(command, check=True)
        return subprocess.run([python, "-I", Path(script).resolve()], cwd=scratch).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
