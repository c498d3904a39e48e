"""`@pypi` and the Python toolchain, both taken from the project's locked environment.

The interpreter is `.venv/bin/python`, or the one named by VELARIA_PYTHON_BIN. Every
distribution installed there becomes a target `@pypi//<name>`, the label that
rules_python's `pip.parse` gives it under newer Bazel.
"""

# What scripts/setup installs. `--frozen`: the lock is compared with .venv only, so that an index of the
# machine's own does not matter; that the lock fits every pyproject.toml is tested in tests/test_versions.py.
_SYNC = ["--frozen", "--inexact", "--all-packages", "--all-groups", "--all-extras", "--no-install-workspace"]

_LIST = """
import importlib.metadata as metadata, re, sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0])
for dist in metadata.distributions():
    name = re.sub(r"[-_.]+", "_", dist.metadata["Name"]).lower()
    if name.split("_")[0] != "velaria":  # the editable installs are not third-party
        print(name, dist.version)
"""

_PACKAGE = """
load("@rules_python//python:defs.bzl", "py_library")

# The code is importable through the interpreter; the version file makes results
# depend on the installed version.
py_library(
    name = "{name}",
    data = ["VERSION"],
    visibility = ["//visibility:public"],
)
"""

_INTERPRETER = """#!/bin/sh
[ -x '{python}' ] || {{ echo 'The Python environment is gone: {python}. Run scripts/setup.' >&2; exit 1; }}
exec '{python}' "$@"
"""

_TOOLCHAIN = """
load("@rules_python//python:defs.bzl", "py_runtime", "py_runtime_pair")

py_runtime(
    name = "runtime",
    files = ["PYTHON_VERSION"],
    interpreter = "python3",
    python_version = "PY3",
    stub_shebang = "#!/usr/bin/env python3",
)

py_runtime_pair(
    name = "runtime_pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    toolchain = ":runtime_pair",
    toolchain_type = "@bazel_tools//tools/python:toolchain_type",
)
"""

def _run(ctx, command, what):
    result = ctx.execute(command)
    if result.return_code:
        fail("\n\n{}\n\n{}\n".format(what, (result.stderr or result.stdout).strip()))
    return result.stdout

def _python_environment_impl(ctx):
    lock = ctx.path(ctx.attr.lock)
    root = lock.dirname
    python = ctx.os.environ.get("VELARIA_PYTHON_BIN")
    if python:
        if not ctx.path(python).exists:
            fail("\n\nVELARIA_PYTHON_BIN names {}, which does not exist.\n".format(python))
    else:
        python = str(root) + "/.venv/bin/python"
        if not ctx.path(python).exists:
            fail("\n\nThe Python environment {}/.venv is missing. Create it with:\n\n    scripts/setup\n".format(root))
        uv = root.get_child(".venv").get_child("bin").get_child("uv")
        if uv.exists:
            _run(
                ctx,
                [uv, "sync", "--quiet", "--offline", "--check"] + _SYNC + ["--project", root, "--python", python],
                "The Python environment .venv does not match uv.lock. Bring it up to date with:\n\n    scripts/setup",
            )

    listing = _run(ctx, [python, "-I", "-c", _LIST], "{} cannot serve as the project's Python:".format(python))
    for line in listing.splitlines():
        name, version = line.split(" ")
        ctx.file(name + "/BUILD.bazel", _PACKAGE.format(name = name), executable = False)
        ctx.file(name + "/VERSION", version + "\n", executable = False)

    version = _run(ctx, [python, "-IVV"], "{} cannot run:".format(python))
    ctx.file("PYTHON_VERSION", version, executable = False)
    ctx.file("python3", _INTERPRETER.format(python = python))
    ctx.file("BUILD.bazel", _TOOLCHAIN, executable = False)

_python_environment = repository_rule(
    implementation = _python_environment_impl,
    attrs = {"lock": attr.label(default = "//:uv.lock")},
    environ = ["VELARIA_PYTHON_BIN"],
    local = True,
)

def python_environment():
    _python_environment(name = "pypi")
    native.register_toolchains("@pypi//:toolchain")
