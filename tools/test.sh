#!/usr/bin/env bash
# Set-up and every check: bash tools/test.sh [PYTEST_ARGUMENT ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

set_up test
stage "ruff check" "$python" -m ruff check .
stage "ruff format" "$python" -m ruff format --check --quiet .
# Two workers, a file each at a time: most of a test is compiling, on one core
stage "pytest" "$python" -m pytest --numprocesses=2 --dist=loadfile "$@"
