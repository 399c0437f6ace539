#!/usr/bin/env bash
# Set-up and a first pre-training run: bash tools/quickstart.sh [MANUAL_DIR] [--config.FIELD=VALUE ...]
# Without MANUAL_DIR the data are synthetic and nothing is downloaded but the packages. MANUAL_DIR holds archives of
# data sets that voc2vec_jax knows, or any audio files. A second call resumes, or says that the run is complete.
set -euo pipefail
manual_dir=""
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
  [ -d "$1" ] || { echo "error: there is no folder $1" >&2; exit 2; }
  manual_dir="$(cd "$1" && pwd)"
  shift
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

# The data sets whose archive or folder is in $1, else the word folder.
known_sets() {
  "$python" - "$1" <<'PYTHON'
import pathlib
import sys

from voc2vec_jax import datasets
from voc2vec_jax.datasets import base, sources

found = []
for name, source in datasets.CATALOG.items():
    if source.list_recordings is not None and name not in ("folder", "synthetic"):
        try:
            base.list_source(source, pathlib.Path(sys.argv[1]))
        except sources.MissingError:
            continue
        found.append(name)
print(" ".join(found) or "folder")
PYTHON
}

set_up
workdir=runs/quickstart
options=()
if [ -n "$manual_dir" ]; then
  workdir=runs/quickstart_recordings
  sets="$(known_sets "$manual_dir")"
  named=()
  [ "$sets" != folder ] || named=(--name=recordings)
  # shellcheck disable=SC2086
  stage "prepare $sets" "$python" tools/prepare.py $sets --manual_dir="$manual_dir" --data_dir=data ${named[@]+"${named[@]}"}
  [ "$sets" != folder ] || sets=recordings
  options=("--config.sets=${sets// /,}")
fi
stage "pre-training" "$python" -m voc2vec_jax.train --config=configs/quickstart.py --workdir="$workdir" \
  ${options[@]+"${options[@]}"} "$@"

checkpoint="$(ls "$workdir/checkpoints" | grep -E '^[0-9]+$' | sort -n | tail -n 1)"
echo "checkpoint  $root/$workdir/checkpoints/$checkpoint"
echo "metrics     $root/$workdir/metrics.jsonl"
echo "curves      $root/$workdir/curves.png"
