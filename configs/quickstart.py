"""A first run on embedded data: a tiny wav2vec 2.0 on synthetic vocalizations, minutes on a laptop's CPU.

python -m voc2vec_jax.train --config=configs/quickstart.py --workdir=runs/quickstart

Expect the contrastive loss to leave 6.66 bits (chance) within some hundred updates. `bash tools/quickstart.sh` goes on
from here to ten folds of fine-tuning and a report.
"""

import ml_collections

from voc2vec_jax.pretraining import recipe as pretraining_recipe


def get_config() -> ml_collections.ConfigDict:
    """The model of `recipes.tiny` on 240 synthetic clips."""
    c = pretraining_recipe.tiny(pretraining_recipe.pretraining("wav2vec2"))
    c.sets = ("synthetic",)
    c.total_steps = 400
    return c
