# Sourced by quickstart.sh and test.sh: a virtual environment in .venv with this package in it.
#   set_up [EXTRA [FOLDER]]  creates or reuses an environment (.venv), installs the package (with an extra), sets $python
#   stage NAME CMD...        runs a command and says how long it took
# PYTHON=... names the interpreter to use; pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...) are honoured.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
environment=.venv
python="$root/$environment/bin/python"

fail() {
  echo "error: $1" >&2
  exit 2
}

stage() {
  local name="$1" start=$SECONDS status=0
  shift
  echo "== $name"
  "$@" || status=$?
  if [ "$status" -ne 0 ]; then
    echo "== $name ended with status $status after $((SECONDS - start)) s" >&2
    exit "$status"
  fi
  echo "== $name: $((SECONDS - start)) s"
}

new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
}

make_environment() {
  if [ -e "$environment" ]; then
    new_enough "$python" || fail "$root/$environment holds no Python 3.11 or newer: remove it and run this again"
    return
  fi
  local base
  base="$(find_python)"
  if [ -z "$base" ]; then
    fail "Python 3.11 or newer is needed, and ${PYTHON:-python3} is $(${PYTHON:-python3} --version 2>&1 | tail -n 1): \
install one and name it with PYTHON=/path/to/python"
  fi
  local output
  if ! output="$("$base" -m venv "$environment" 2>&1)"; then
    rm -rf "$environment"
    fail "$base cannot create $environment (${output##*$'\n'}): install its venv module (on Debian: apt install python3-venv)"
  fi
}

# What was installed, so that a second call has nothing to do.
fingerprint() {
  "$python" -c 'import hashlib, sys; print(sys.version, hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())'
}

install_package() {
  local extra="$1" stamp="$environment/installed${1:+-$1}"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
    return
  fi
  echo "installing voc2vec_jax${extra:+[$extra]} into $environment: some minutes, once"
  # `stage` calls this in a condition, where `set -e` is off
  "$python" -m pip install --quiet --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}" || return
  fingerprint >"$stamp"
}

set_up() {
  environment="${2:-.venv}"
  python="$root/$environment/bin/python"
  stage "environment" make_environment
  stage "install" install_package "${1:-}"
}
