#!/usr/bin/env bash
# Set-up and the tests: bash tools/test.sh [--all] [PYTEST_ARGUMENT ...]
#   --all   the slow ones too: runs that are killed, several processes, base size, benchmarks of both sides; and
#           programs compiled for TPUs and GPUs, in .venv-plan with their compilers (1 GB)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

all=
selection=(-m "not slow and not accelerator")
if [ "${1:-}" = --all ]; then
  all=1
  selection=(-m "not accelerator")
  shift
fi

set_up test
stage "ruff check" "$python" -m ruff check .
stage "ruff format" "$python" -m ruff format --check --quiet .
# Two workers, a file each at a time: most of a test is compiling, on one core
stage "pytest" "$python" -m pytest --numprocesses=2 --dist=loadfile "${selection[@]}" "$@"
if [ -n "$all" ] && [ $# -eq 0 ]; then
  # An environment of its own: with a compiler for GPUs, JAX looks for a GPU in every process
  set_up test,plan-tpu,plan-cuda .venv-plan
  stage "pytest, compiled for TPUs and GPUs" "$python" -m pytest --numprocesses=2 -m accelerator "$@"
fi
