#!/usr/bin/env bash
# Set-up and the tests: bash tools/test.sh [--all] [PYTEST_ARGUMENT ...]
#   --all   the slow ones too: runs that are killed, several processes, base size, benchmarks of both sides
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

selection=(-m "not slow")
if [ "${1:-}" = --all ]; then
  selection=()
  shift
fi

set_up test
stage "ruff check" "$python" -m ruff check .
stage "ruff format" "$python" -m ruff format --check --quiet .
# Two workers, a file each at a time: most of a test is compiling, on one core
stage "pytest" "$python" -m pytest --numprocesses=2 --dist=loadfile ${selection[@]+"${selection[@]}"} "$@"
