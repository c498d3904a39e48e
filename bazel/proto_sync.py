"""Keeps the Python modules generated from .proto files in step with them.

usage: proto_sync (--check | --write) ROOT FILE...

ROOT is the folder that the imports start from; FILEs are the .proto files and the modules committed
beside them.
"""

import os
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc


def generate(root: str, protos: list[str], out: str) -> None:
    """Write the modules of `protos` below `out`; those for gRPC only where a service is declared."""
    include = files("grpc_tools") / "_proto"
    services = [proto for proto in protos if re.search(r"^service\s", Path(proto).read_text(), re.MULTILINE)]
    for kinds, chosen in ((("python", "pyi"), protos), (("grpc_python",), services)):
        inside = [str(Path(proto).relative_to(root)) for proto in chosen]
        plugins = [f"--{kind}_out={out}" for kind in kinds]
        if inside and protoc.main(["protoc", f"-I{root}", f"-I{include}", *plugins, *inside]):
            sys.exit(1)


def main(mode: str, root: str, given: list[str]) -> int:
    protos = [path for path in given if path.endswith(".proto")]
    # Under `bazel run` the source tree, under `bazel test` the declared files.
    tree = Path(os.environ.get("BUILD_WORKSPACE_DIRECTORY", "."))
    with tempfile.TemporaryDirectory() as out:
        generate(root, protos, out)
        made = {Path(root, path.relative_to(out)): path.read_bytes() for path in Path(out).rglob("*.py*")}
    differ = [
        path for path, content in made.items() if not (tree / path).exists() or (tree / path).read_bytes() != content
    ]
    orphans = [Path(path) for path in given if path not in protos and Path(path) not in made]
    if mode == "--write":
        for path in differ:
            (tree / path).write_bytes(made[path])
            print(f"wrote {path}")
        for path in orphans:
            (tree / path).unlink(missing_ok=True)
            print(f"removed {path}")
        return 0
    for path in differ:
        print(f"out of date: {path}")
    for path in orphans:
        print(f"has no .proto: {path}")
    if differ or orphans:
        print(f"\nRegenerate with: bazel run //{root}:contract_update")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
