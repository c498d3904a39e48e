"""What BUILD files use besides py_library: test suites, contracts, tools, wheels."""

load("@rules_python//python:defs.bzl", "py_binary", "py_test")

def _is_test(src):
    return src.split("/")[-1].startswith("test_")

def pytest_suite(name, srcs, deps, data = [], size = "medium", shard_count = {}, together = {}, **kwargs):
    """A test target for each test file, or for several that are short, and a `test_suite` of them all.

    Args:
      name: name of the suite.
      srcs: test files, `test_*.py`; the others (conftest.py, helpers) are given to every test.
      deps: what the tests import. pytest itself need not be named.
      data: files that the tests read.
      size: time that one target may take; "medium" is five minutes.
      shard_count: target -> number of parts that run in parallel.
      together: target -> its test files. A process of its own takes two seconds to start, longer than many files last.
      **kwargs: passed to every test (env, tags, timeout...).
    """
    shared = [src for src in srcs if not _is_test(src)]
    grouped = [src for files in together.values() for src in files]
    alone = {src[:-len(".py")]: [src] for src in srcs if _is_test(src) and src not in grouped}
    tests = dict(alone, **together)
    for test, files in tests.items():
        py_test(
            name = test,
            size = size,
            srcs = files + ["//bazel:pytest_main.py"] + shared,
            args = ["$(rootpath %s)" % src for src in files],
            data = data + ["//:pytest.ini"],
            legacy_create_init = 0,
            main = "//bazel:pytest_main.py",
            shard_count = shard_count.get(test),
            deps = deps + ["@pypi//pytest"],
            **kwargs
        )
    native.test_suite(name = name, tests = tests.keys())

def pytest_soak(name, src, shared, deps, env, data = []):
    """A test file asked for much more than in its suite, by `env`. It runs only when it is named."""
    py_test(
        name = name,
        size = "enormous",
        srcs = [src, "//bazel:pytest_main.py"] + shared,
        args = ["$(rootpath %s)" % src],
        data = data + ["//:pytest.ini"],
        env = env,
        legacy_create_init = 0,
        main = "//bazel:pytest_main.py",
        tags = ["exclusive", "manual"],
        deps = deps + ["@pypi//pytest"],
    )

def proto_contract(name, protos, generated):
    """`<name>_update` writes the modules generated from `protos`, `<name>_test` compares."""
    common = dict(
        srcs = ["//bazel:proto_sync.py"],
        data = protos + generated,
        legacy_create_init = 0,
        main = "//bazel:proto_sync.py",
        deps = ["@pypi//grpcio_tools"],
    )
    given = [native.package_name()] + ["$(rootpath %s)" % file for file in protos + generated]
    py_binary(name = name + "_update", args = ["--write"] + given, **common)
    py_test(name = name + "_test", size = "small", args = ["--check"] + given, **common)

def _wheel_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run(
        executable = ctx.executable._builder,
        arguments = [out.path, ctx.label.package] + [file.path for file in ctx.files.srcs],
        inputs = ctx.files.srcs,
        outputs = [out],
        mnemonic = "Wheel",
        progress_message = "Building the wheel of %s" % ctx.label,
    )
    return [DefaultInfo(files = depset([out]))]

wheel = rule(
    implementation = _wheel_impl,
    doc = "The wheel of one layer, as its pyproject.toml describes it.",
    attrs = {
        "srcs": attr.label_list(allow_files = True, doc = "pyproject.toml, README.md, LICENSE and the package."),
        "_builder": attr.label(default = "//bazel:build_wheel", executable = True, cfg = "exec"),
    },
)

def _wheelhouse_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        command = 'out=$1; shift; for dir; do cp "$dir"/*.whl "$out"; done',
        arguments = [out.path] + [dir.path for dir in ctx.files.wheels],
        inputs = ctx.files.wheels,
        outputs = [out],
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out]))]

wheelhouse = rule(
    implementation = _wheelhouse_impl,
    doc = "One directory with all wheels, for `pip install --find-links`.",
    attrs = {"wheels": attr.label_list()},
)

def wheel_smoke_test(name, wheels, package, script):
    """Installs `package` from `wheels` into a fresh environment with what it declares, and runs `script` there."""
    py_test(
        name = name,
        size = "medium",
        srcs = ["//bazel:wheel_smoke.py"],
        args = ["$(rootpath %s)" % wheels, package, "$(rootpath %s)" % script],
        data = [wheels, script],
        legacy_create_init = 0,
        main = "//bazel:wheel_smoke.py",
        deps = [
            "@pypi//packaging",
            "@pypi//uv",
        ],
    )
