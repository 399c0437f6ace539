#!/usr/bin/env bash
# Set-up and every check: bash tools/test.sh [PYTEST_ARGUMENT ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

set_up test
stage "ruff check" "$python" -m ruff check .
stage "ruff format" "$python" -m ruff format --check --quiet .
stage "pytest" "$python" -m pytest "$@"
