#!/usr/bin/env bash
# The paper's experiment, from recordings to tables III and IV and figure 1:
#
#   bash tools/cluster/paper.sh plan        jobs, hours and gigabytes; nothing is started
#   bash tools/cluster/paper.sh prepare     the data sets that are in DOWNLOADS or have a public link
#   bash tools/cluster/paper.sh verify      the published weights: fetched, read and compared
#   bash tools/cluster/paper.sh finetune    every job: a system on a task by a protocol, ten folds
#   bash tools/cluster/paper.sh report      RUNS/report.html and RUNS/figure1_PROTOCOL.html, of what is there
#   bash tools/cluster/paper.sh all         prepare, verify, finetune, report
#   bash tools/cluster/paper.sh jobs        a line for each job
#   bash tools/cluster/paper.sh pretrain    the paper's three models, or those that are named behind the word
#
# Every word goes on where it was stopped when it is given again. `finetune 3/16` does the 3rd of 16 parts of the jobs,
# so that 16 machines that share the folders can work side by side: paper.sbatch is that as an array of SLURM.
# Flags of `plan` (--device=h100:8 --compile) and fields (--config.dtype=bfloat16) of `finetune` and `pretrain`, stand at the end.
# Exit status: 0 done, 75 stopped with everything saved, 1 and 2 where something failed, which is said.
set -uo pipefail

# ---- edit from here, or set these in the environment ---------------------------------------------------------------
DOWNLOADS=${DOWNLOADS:-downloads}     # publishers' archives or folders; may be absent
DATA=${DATA:-data}                    # prepared sets
RUNS=${RUNS:-runs/paper}              # run folders: RUNS/PROTOCOL/TASK/SYSTEM, RUNS/pretraining/our-MODEL
PROTOCOLS=${PROTOCOLS:-strict paper}
TASKS=${TASKS:-asvp_esd asvp_esd_babies cnvve donateacry nonverbal_vocalization vivae}
# Names of table IV, Hub ids, folders; $RUNS/pretraining/our-voc2vec is a model of `pretrain`
SYSTEMS=${SYSTEMS:-opensmile emotion2vec data2vec wavlm wavlm-plus wav2vec2-ls wav2vec2-as hubert-ls hubert-as voc2vec voc2vec-as voc2vec-ls}
LS=${LS:-facebook/wav2vec2-base}              # where `pretrain voc2vec-ls` begins
AS=${AS:-ALM/wav2vec2-base-audioset}          # where `pretrain voc2vec-as` begins
BATCH=${BATCH-two_gpus}                       # of `pretrain`: one_gpu (640 s), two_gpus (1,280 s), empty (5,120 s)
PYTHON=${PYTHON:-python}
# ---- to here -------------------------------------------------------------------------------------------------------

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
STOPPED=75 FAULT=1 INPUT=2
CHILD="" SIGNALS=0

say() { echo "paper: $*" >&2; }

# Runs a command that gets the signals of this script; returns its status.
run() {
  [ "$SIGNALS" -eq 0 ] || return "$STOPPED"
  "$@" &
  CHILD=$!
  [ "$SIGNALS" -eq 0 ] || kill -TERM "$CHILD" 2>/dev/null
  local status=127 latest seen
  while :; do  # a signal ends `wait` before the child has ended
    seen=$SIGNALS
    wait "$CHILD" 2>/dev/null
    latest=$?
    [ "$latest" -eq 127 ] || status=$latest
    [ "$SIGNALS" -ne "$seen" ] || break
  done
  CHILD=""
  return "$status"
}
stop() { SIGNALS=$((SIGNALS + 1)); [ -z "$CHILD" ] || kill -TERM "$CHILD" 2>/dev/null; }
trap stop TERM INT

voc2vec() { run "$PYTHON" -m voc2vec_jax "$@"; }

# The worse of two statuses: a stop before a fault of the run before a fault of the input.
worse() {
  local status
  for status in "$STOPPED" "$FAULT" "$INPUT"; do
    if [ "$1" -eq "$status" ] || [ "$2" -eq "$status" ]; then echo "$status"; return; fi
  done
  echo $(($1 > $2 ? $1 : $2))
}

prepared() { compgen -G "$DATA/$1/*/dataset_info.json" >/dev/null; }
any_prepared() { local task; for task in $TASKS; do prepared "$task" && return; done; return 1; }

# PROTOCOL TASK SYSTEM of each job, a line each. The largest task first, and the systems of each row begin one further on,
# so that every i-th job of n makes about as much work as every other part.
jobs_of_all() {
  local protocol task system row=0 systems at
  read -ra systems <<<"$SYSTEMS"
  for task in $TASKS; do for protocol in $PROTOCOLS; do
    at=$((row % ${#systems[@]}))
    for system in "${systems[@]:at}" "${systems[@]:0:at}"; do echo "$protocol $task $system"; done
    row=$((row + 1))
  done; done
}

show_jobs() {
  local number=0 protocol task system
  while read -r protocol task system; do
    number=$((number + 1))
    locate "$protocol" "$task" "$system"
    echo "$number $protocol $task $system $STATE"
  done < <(jobs_of_all)
}

# Sets FOLDER, where a job runs, and STATE: done, failed, begun or open.
locate() {
  local name=${3%/}
  FOLDER="$RUNS/$1/$2/${name##*/}" STATE=open
  [ ! -f "$FOLDER/config.json" ] || STATE=begun
  [ ! -f "$FOLDER/fault.json" ] || STATE=failed
  if [ -f "$FOLDER/summary.json" ] && grep -q '"complete": true' "$FOLDER/summary.json"; then STATE=done; fi
}

plan() {
  "$PYTHON" -c "import jax, voc2vec_jax" 2>/dev/null ||
    { say "$PYTHON has no voc2vec_jax: install it, or name the interpreter that has it, as in PYTHON=.venv/bin/python"; return "$INPUT"; }
  run "$PYTHON" "$HERE/paper_plan.py" --config=finetune:"${TASKS// /,}" --config.data_dir="$DATA" \
    --systems="${SYSTEMS// /,}" --protocols="${PROTOCOLS// /,}" --batch="$BATCH" "$@"
}

prepare() {
  local given=() wanted missing=()
  [ ! -e "$DOWNLOADS" ] || given=(--manual_dir="$DOWNLOADS")
  # shellcheck disable=SC2086
  voc2vec prepare $TASKS voc125 --data_dir="$DATA" ${given[@]+"${given[@]}"} "$@"
  local status=$?
  [ "$status" -eq 0 ] || [ "$status" -eq "$INPUT" ] || return "$status"
  for wanted in $TASKS; do prepared "$wanted" || missing+=("$wanted"); done
  [ ${#missing[@]} -eq 0 ] || say "these tasks are not prepared and will be left out: ${missing[*]}"
  any_prepared || { say "no task is prepared"; return "$INPUT"; }
}

verify() {
  local names=() system
  for system in $SYSTEMS; do [[ $system == */* ]] || names+=("$system"); done
  voc2vec verify "${names[@]}" --output="$RUNS/verify" "$@"
}

# All jobs, or with i/n the i-th, (i+n)-th ... of them; a job's fault does not stop the others.
finetune() {
  local part=1 parts=1 number=0 status=0 own protocol task system
  if [[ ${1:-} =~ ^([0-9]+)/([0-9]+)$ ]]; then part=$((10#${BASH_REMATCH[1]})) parts=$((10#${BASH_REMATCH[2]})); shift; fi
  if [ "$part" -lt 1 ] || [ "$part" -gt "$parts" ]; then say "$part/$parts is not i/n with i from 1 to n"; return "$INPUT"; fi
  any_prepared || { say "$DATA has none of $TASKS: paper.sh prepare makes them"; return "$INPUT"; }
  while read -r protocol task system <&3; do
    number=$((number + 1))
    [ $(((number - part) % parts)) -eq 0 ] || continue
    locate "$protocol" "$task" "$system"
    if [ "$STATE" = done ]; then say "$number $FOLDER is complete"; continue; fi
    if ! prepared "$task"; then say "$number $FOLDER is left out: $DATA has no $task"; continue; fi
    say "$number $FOLDER"
    voc2vec finetune --config=finetune:"$task" --config.model="$system" --config.protocol="$protocol" \
      --config.data_dir="$DATA" --workdir="$FOLDER" --distributed=off "$@"
    own=$?
    status=$(worse "$status" "$own")
    if [ "$own" -eq "$STOPPED" ] || [ "$own" -gt 128 ]; then return "$own"; fi
    [ "$own" -eq 0 ] || say "$number $FOLDER ended with status $own; the others go on"
  done 3< <(jobs_of_all)
  return "$status"
}

report() {
  local folders=() protocol system status=0 figure=() audio=()
  [ ! -d "$DOWNLOADS" ] || audio=(--audio="$DOWNLOADS")
  for protocol in $PROTOCOLS; do compgen -G "$RUNS/$protocol/*/*/summary.json" >/dev/null && folders+=("$RUNS/$protocol"); done
  [ ${#folders[@]} -gt 0 ] || { say "$RUNS holds no finished fold yet"; return "$INPUT"; }
  voc2vec report "${folders[@]}" --output="$RUNS/report.html" ${audio[@]+"${audio[@]}"} "$@" || status=$?
  # Figure 1 of the paper: the clips of VIVAE's first fold by these three systems, in this order.
  for protocol in $PROTOCOLS; do
    figure=()
    for system in wav2vec2-ls hubert-ls voc2vec-ls; do
      [ ! -f "$RUNS/$protocol/vivae/$system/fold_00/embeddings.npz" ] || figure+=("$RUNS/$protocol/vivae/$system")
    done
    [ ${#figure[@]} -gt 0 ] || continue
    voc2vec report "${figure[@]}" --output="$RUNS/figure1_$protocol.html" "$@" || status=$(worse "$status" $?)
  done
  return "$status"
}

# The paper's three models, or those named; one process takes all GPUs of the machine that it sees.
pretrain() {
  local status=0 own model start names=()
  while [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; do names+=("$1"); shift; done
  [ ${#names[@]} -gt 0 ] || names=(voc2vec voc2vec-ls voc2vec-as)
  for model in "${names[@]}"; do
    case $model in
      voc2vec) start="" ;;
      voc2vec-ls) start="ls=$LS" ;;
      voc2vec-as) start="as=$AS" ;;
      *) say "$model is none of voc2vec, voc2vec-ls, voc2vec-as"; return "$INPUT" ;;
    esac
    local words="$start${start:+${BATCH:+,}}$BATCH"
    say "$RUNS/pretraining/our-$model"
    voc2vec train --config=voc125"${words:+:$words}" --config.data_dir="$DATA" --workdir="$RUNS/pretraining/our-$model" \
      --distributed=off "$@"
    own=$?
    status=$(worse "$status" "$own")
    [ "$own" -ne "$STOPPED" ] && [ "$own" -le 128 ] || return "$own"
  done
  return "$status"
}

all() {
  prepare || return
  verify || { local status=$?; say "mend that, leave systems out (SYSTEMS=...), or go on with: paper.sh finetune"; return $status; }
  local status=0 own
  finetune "$@" || status=$?
  [ "$status" -ne "$STOPPED" ] && [ "$status" -le 128 ] || return "$status"
  report || { own=$?; status=$(worse "$status" "$own"); }
  return "$status"
}

# Refuses names behind words that take flags alone: `verify voc2vec` would verify all systems.
only_flags() {
  local word
  case $WORD in
    finetune | all) [[ ! ${1:-} =~ ^[0-9]+/[0-9]+$ ]] || shift ;;
    prepare | verify | report | jobs) ;;
    *) return 0 ;;
  esac
  for word in "$@"; do
    [[ $word == -* ]] || { say "$WORD takes no word $word: set SYSTEMS, TASKS or PROTOCOLS before it"; return "$INPUT"; }
  done
}

WORD=${1:-}
for name in PROTOCOLS TASKS SYSTEMS; do
  [[ ${!name} =~ [^[:space:]] ]] || { say "$name is blank: name one, or unset it for the paper's"; exit "$INPUT"; }
done
for name in $PROTOCOLS; do
  case $name in strict | paper) ;; *) say "PROTOCOLS has $name, which is neither strict nor paper"; exit "$INPUT" ;; esac
done
only_flags "${@:2}" || exit
case $WORD in
  plan | prepare | verify | finetune | report | pretrain | all) shift; "$WORD" "$@" ;;
  jobs) show_jobs ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit "$INPUT" ;;
esac
exit $?
