#!/bin/sh
# Regression of the kernel, its contracts, the borders, and the checks of the house.
# usage: scripts/run_core_regression.sh [BAZEL OPTION]...
exec "$(dirname "$0")/regression" //:core_regression "$@"
