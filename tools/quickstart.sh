#!/usr/bin/env bash
# Set-up, pre-training, ten folds of fine-tuning, report: bash tools/quickstart.sh [MANUAL_DIR] [--config.FIELD=VALUE ...]
# Without MANUAL_DIR the data are synthetic and nothing is downloaded but the packages. MANUAL_DIR holds archives of
# data sets that voc2vec_jax knows, or any audio files; the fields are those of pre-training. A second call resumes, or
# says that all is complete. Folds are trained on the first set that has labels.
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
from voc2vec_jax.datasets import listings, preparing

found = []
for name, source in datasets.CATALOG.items():
    if source.list_recordings is not None and name not in ("folder", "synthetic"):
        try:
            preparing.list_source(source, pathlib.Path(sys.argv[1]))
        except listings.MissingError:
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
  stage "prepare $sets" "$python" -m voc2vec_jax prepare $sets --manual_dir="$manual_dir" --data_dir=data ${named[@]+"${named[@]}"}
  [ "$sets" != folder ] || sets=recordings
  options=("--config.sets=${sets// /,}")
fi
stage "pre-training" "$python" -m voc2vec_jax train --config=quickstart --workdir="$workdir" \
  ${options[@]+"${options[@]}"} "$@"

# The first of the sets $1 (separated by commas) that has at least two classes, or nothing.
labelled_set() {
  "$python" - "$1" <<'PYTHON'
import sys

from voc2vec_jax.datasets import records

for name in sys.argv[1].split(","):
    if len(records.open_set("data", name).labels) > 1:
        print(name)
        break
PYTHON
}

checkpoint="$(ls "$workdir/checkpoints" | grep -E '^[0-9]+$' | sort -n | tail -n 1)"
task="$(labelled_set "${sets:-synthetic}")"
if [ -n "$task" ]; then
  stage "ten folds on $task" "$python" -m voc2vec_jax finetune --config=finetune:"$task" \
    --config.model="$workdir" --config.name=quickstart --config.data_dir=data --workdir="${workdir}_folds" \
    --config.manual_dir="$manual_dir" --config.peak_lr=2e-3 --config.warmup_steps=60 --config.epochs=20 \
    --config.max_seconds=4 --config.rare=keep
  stage "report" "$python" -m voc2vec_jax report "${workdir}_folds" --output="${workdir}_folds/report.html"
fi
echo "checkpoint  $root/$workdir/checkpoints/$checkpoint"
echo "metrics     $root/$workdir/metrics.jsonl"
echo "curves      $root/$workdir/curves.png"
if [ -n "$task" ]; then
  echo "scores      $root/${workdir}_folds/summary.md"
  echo "report      $root/${workdir}_folds/report.html"
else
  echo "no set with labels was given, so that nothing was fine-tuned"
fi
