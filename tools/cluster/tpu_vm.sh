#!/bin/bash
# Pre-training on a TPU pod slice, one process a host: `bash tools/cluster/tpu_vm.sh`
# ---- edit from here ---------------------------------------------------------
NAME=voc2vec                         # of the TPU VM; create it with `gcloud compute tpus tpu-vm create`
ZONE=us-east5-a
RUN=/mnt/shared/runs/voc2vec         # a folder that all hosts mount, such as a Filestore share
DATA=/mnt/shared/data
FOLDER=voc2vec_jax                   # the checkout, with its environment, in the home folder of every host
COMMAND="python -m voc2vec_jax.train --config=configs/voc125.py --workdir=$RUN --config.data_dir=$DATA --config.dtype=bfloat16"
# ---- to here ----------------------------------------------------------------
# Status 0 is done and 2 is a mistake to mend first. Anything else is retried, unless it came within two minutes: 75 means
# that a host was asked to stop and all have saved, another status that a host died.
while true; do
    BEGAN=$SECONDS
    gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --batch-size=all \
        --command="cd $FOLDER && source .venv/bin/activate && $COMMAND --distributed=auto"
    STATUS=$?
    echo "the run ended with status $STATUS"
    if [ "$STATUS" -eq 0 ] || [ "$STATUS" -eq 2 ] || [ $((SECONDS - BEGAN)) -lt 120 ]; then
        exit "$STATUS"
    fi
    sleep 60
done
