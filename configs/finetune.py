"""Cross-validated fine-tuning on labelled clips, the experiment of tables III and IV of the paper.

python -m voc2vec_jax.finetune --config=configs/finetune.py:donateacry --config.model=SRC --workdir=runs/donateacry
python -m voc2vec_jax.finetune --config=configs/finetune.py:folder --config.data=PATH --config.model=SRC --workdir=RUN
python -m voc2vec_jax.finetune --config=configs/finetune.py:tasks --config.systems=paper --workdir=runs/paper
python -m voc2vec_jax.finetune --config=configs/finetune.py:cnvve,vivae --config.systems=voc2vec,hubert-ls --workdir=RUN

SRC is a system of table IV (voc2vec-ls, hubert-ls, opensmile, ...), a Hub id, a folder, a checkpoint file or a run of
pre-training. A folder of class folders or a manifest works in place of a named set. Ten folds, stratified and grouped
by speaker where the set knows them; --config.protocol=paper is the official script's way. A grid skips what is done.
"""

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.finetuning import recipe as finetuning_recipe


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: data sets, separated by commas; `folder`; or `tasks`, the six of the paper."""
    if not arg:
        raise errors.InputError("name the data set: configs/finetune.py:donateacry, say, or :folder, or :tasks")
    c = finetuning_recipe.finetuning()
    c.datasets = finetuning_recipe.TASKS if arg == "tasks" else tuple(name for name in arg.split(",") if name)
    return c
