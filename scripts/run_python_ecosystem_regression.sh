#!/bin/sh
# Regression of the public package, its command line, the examples, the wheels.
# usage: scripts/run_python_ecosystem_regression.sh [BAZEL OPTION]...
exec "$(dirname "$0")/regression" //:python_ecosystem_regression "$@"
