#!/usr/bin/env bash
# All checks of a change: style, types, documentation, tests; arguments are passed on to pytest. The test runner's
# closing line is last.
set -euo pipefail
cd "$(dirname "$0")/.."

ruff check .
ruff format --check .
NO_MKDOCS_2_WARNING=1 mkdocs build --quiet &
pyright
wait $!
OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal "$@" # a thread for each of the two workers
