"""Fine-tuning whose process 1 meets a fault of its own while it trains the folds of seed 0."""

import sys

from voc2vec_jax import errors, finetune
from voc2vec_jax.finetuning import experiment
from voc2vec_jax.runs import agreement, distributed

train = experiment.run


def faulty(setting, saver, stop):
    if agreement.process_index() == 1 and setting.recipe.seed == 0:
        raise errors.RunError("the loss of fold 1 is not finite")
    return train(setting, saver, stop)


if __name__ == "__main__":
    experiment.run = faulty
    sys.exit(distributed.run(finetune.main))
