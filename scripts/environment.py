"""The locked Python environment `.venv`, made with nothing but python3: no pip, no venv module, no root.

uv does the work. It comes from the package index as a wheel, which is a zip with the program in it; its
SHA-256 must be the one that uv.lock names. The packages are then installed from the index that this
machine is configured to use (uv's or pip's settings, PyPI otherwise), each held to its hash in uv.lock.

Runs with the Python that finds it; the version check below must parse under older ones.
"""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  (who runs this is not known yet)
    sys.exit("Python 3.11 or newer is needed, python3 is " + sys.version.split()[0])

import configparser
import hashlib
import io
import platform
import re
import shutil
import ssl
import subprocess
import tempfile
import tomllib
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import urljoin

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LAYERS = ("core", "interop", "ecosystem", "experimental")

# What to install: options of `uv export`.
DEMO = ("--no-default-groups", "--group", "build", "--group", "demo")
EVERYTHING = ("--all-extras", "--all-groups")

PYTHON = str(VENV / "bin" / "python")


def prepare(selection: tuple[str, ...], *, compile_bytecode: bool = False) -> str:
    """Bring `.venv` in step with uv.lock, creating it where missing; what else it holds stays.

    Returns:
        The path of its interpreter.
    Raises:
        SystemExit: with one sentence that says what to do. With all in place it costs 0.2 s.
    """
    settings = _settings()
    with tempfile.TemporaryDirectory() as scratch:
        uv = _uv(Path(scratch), settings.get("UV_DEFAULT_INDEX"))

        def run(*arguments: str) -> None:
            quiet = [] if sys.stderr.isatty() else ["--quiet"]
            if subprocess.run([uv, *arguments, *quiet], cwd=ROOT, env=settings).returncode:
                sys.exit(f"{VENV} is not complete: uv {' '.join(arguments[:2])} failed, see above.")

        if not _usable(PYTHON):
            run("venv", "--clear", "--no-python-downloads", "--python", sys.executable, str(VENV))
        # `uv sync` would insist on the addresses in uv.lock; pinned and hashed requirements are as strict
        # and can come from any index.
        requirements = str(Path(scratch, "requirements.txt"))
        compiled = ["--compile-bytecode"] if compile_bytecode else []
        install = ["pip", "install", "--python", PYTHON, "--no-deps", *compiled]
        run("export", "--frozen", "--all-packages", "--no-emit-workspace", *selection, "-o", requirements)
        run(*install, "--require-hashes", "--index-strategy", "unsafe-best-match", "-r", requirements)
        editable = [part for layer in LAYERS for part in ("--editable", str(ROOT / layer))]
        run(*install, "--no-build-isolation", "--offline", *editable)
    return PYTHON


def _usable(python: str) -> bool:
    if not Path(python).exists():
        return False
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([python, "-I", "-c", check], stderr=subprocess.DEVNULL).returncode == 0


def _settings() -> dict[str, str]:
    """The environment for uv: the caller's, with what pip is configured to use where uv is told nothing."""
    settings = dict(os.environ)
    # These would send uv to another environment or another Python than ours.
    for name in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON"):
        settings.pop(name, None)
    if old_name := settings.pop("UV_INDEX_URL", None):
        settings.setdefault("UV_DEFAULT_INDEX", old_name)
    if "UV_DEFAULT_INDEX" not in settings and (index := _pip_setting("index-url")):
        settings["UV_DEFAULT_INDEX"] = index
        for ours, theirs in (
            ("UV_INDEX", "extra-index-url"),
            ("UV_FIND_LINKS", "find-links"),
            ("UV_INSECURE_HOST", "trusted-host"),
        ):
            if value := _pip_setting(theirs):
                settings.setdefault(ours, " ".join(value.split()))
    if certificates := _pip_setting("cert"):
        settings.setdefault("SSL_CERT_FILE", certificates)
    paths = ssl.get_default_verify_paths()
    if "SSL_CERT_FILE" in settings or paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        settings.setdefault("UV_SYSTEM_CERTS", "true")  # otherwise uv trusts only the roots it carries
    settings.setdefault("UV_HTTP_TIMEOUT", "180")
    return settings


def _pip_setting(name: str) -> str:
    """What `PIP_<NAME>` or pip's configuration files say, "" where they say nothing."""
    if value := os.environ.get("PIP_" + name.upper().replace("-", "_")):
        return value
    home = Path.home()
    user = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", user / "pip" / "pip.conf"]
    if chosen := os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(chosen))
    config = configparser.RawConfigParser(strict=False)
    config.read(files)
    for part in ("install", "global"):
        if config.has_option(part, name):
            return config.get(part, name)
    return ""


def _uv(scratch: Path, index: str | None) -> str:
    """A uv of the version in uv.lock: the one of `.venv`, the one on PATH, or a fresh one in `scratch`."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = next(package for package in lock["package"] if package["name"] == "uv")
    for candidate in (str(VENV / "bin" / "uv"), shutil.which("uv")):
        if candidate and Path(candidate).exists():
            answer = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if answer.stdout.split()[1:2] == [locked["version"]]:
                return candidate

    wheel = next((wheel for wheel in locked["wheels"] if _runs_here(wheel["url"])), None)
    if wheel is None:
        sys.exit(f"uv.lock names no uv for {platform.platform()}; install uv {locked['version']} yourself.")
    content = _download(wheel["url"], wheel["hash"].removeprefix("sha256:"), index)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        program = scratch / "uv"
        program.write_bytes(archive.read(member))
    program.chmod(0o755)
    return str(program)


def _runs_here(wheel: str) -> bool:
    """Whether the platform tag at the end of a wheel's name is this machine's, by C library too."""
    tag = wheel.rsplit("-", 1)[1].removesuffix(".whl")
    processor = {"AMD64": "x86_64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
    if sys.platform == "darwin":
        return tag.startswith("macosx_") and tag.endswith(processor)
    library = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    return sys.platform == "linux" and tag.startswith(library) and tag.endswith(f"_{processor}")


def _download(url: str, sha256: str, index: str | None) -> bytes:
    """One file of the package index: from `index` where one is configured, or its address in the lock."""
    name = url.rsplit("/", 1)[1]
    failures = []
    for page in (f"{index.rstrip('/')}/uv/", None) if index else (None,):
        try:
            address = _link(page, name) if page else url
            content = _fetch(address)
        except (OSError, ValueError) as problem:  # URLError and timeouts are OSErrors
            failures.append(f"{page or url}: {problem}")
            continue
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
        failures.append(f"{address}: not the file that uv.lock names, its SHA-256 differs")
    hint = "Set UV_DEFAULT_INDEX or PIP_INDEX_URL to a package index that can be reached from here."
    if any("CERTIFICATE" in failure for failure in failures):
        hint = "Install the package ca-certificates, or name a certificate file in SSL_CERT_FILE."
    sys.exit("\n".join([f"Cannot download {name}", *failures, hint]))


def _link(page: str, name: str) -> str:
    """The address that a page of the index gives the file `name`."""
    for href in re.findall(r'href="([^"]+)"', _fetch(page).decode()):
        address = urljoin(page, str(href).partition("#")[0])
        if address.rsplit("/", 1)[1] == name:
            return address
    raise ValueError(f"{name} is not listed")


def _fetch(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"Accept": "text/html, */*"})
    with urllib.request.urlopen(request, timeout=180) as answer:
        content: bytes = answer.read()
    return content
