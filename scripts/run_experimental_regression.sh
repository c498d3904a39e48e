#!/bin/sh
# Regression of experimental execution.
# usage: scripts/run_experimental_regression.sh [BAZEL OPTION]...
exec "$(dirname "$0")/regression" //:experimental_regression "$@"
