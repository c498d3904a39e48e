"""Stand-ins for the rule sets that Bazel 4 would otherwise download.

Bazel 4 implements the C++, Java and Python rules itself; `@rules_cc`, `@rules_java` and
`@rules_python` only give them another name. Each repository below is that name and
nothing more, so a build needs no download.
"""

_CC = """
cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
"""

_JAVA = """
java_import = native.java_import
java_runtime = native.java_runtime
java_toolchain = native.java_toolchain
"""

_PYTHON = """
load("@bazel_tools//tools/python:toolchain.bzl", _py_runtime_pair = "py_runtime_pair")

py_binary = native.py_binary
py_library = native.py_library
py_runtime = native.py_runtime
py_runtime_pair = _py_runtime_pair
py_test = native.py_test
"""

_COVERAGE = """
filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)
"""

def _inline_repository_impl(ctx):
    for path, content in ctx.attr.files.items():
        ctx.file(path, content, executable = False)

_inline_repository = repository_rule(
    implementation = _inline_repository_impl,
    attrs = {"files": attr.string_dict(doc = "path -> content")},
)

def offline_rules():
    _inline_repository(
        name = "rules_cc",
        files = {"BUILD.bazel": "", "cc/BUILD.bazel": "", "cc/defs.bzl": _CC},
    )
    _inline_repository(
        name = "rules_java",
        files = {"BUILD.bazel": "", "java/BUILD.bazel": "", "java/defs.bzl": _JAVA},
    )
    _inline_repository(
        name = "rules_python",
        files = {"BUILD.bazel": "", "python/BUILD.bazel": "", "python/defs.bzl": _PYTHON},
    )
    _inline_repository(
        name = "remote_coverage_tools",
        files = {"BUILD.bazel": _COVERAGE},
    )
