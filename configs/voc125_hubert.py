"""voc2vec-hubert: HuBERT base pre-trained on Voc125 in two iterations, by fairseq's recipe for speech.

python tools/prepare.py voc125 --manual_dir=DOWNLOADS --data_dir=data
python tools/units.py mfcc100 --data_dir=data --sets=voc125                             the first iteration's units
python -m voc2vec_jax.train --config=configs/voc125_hubert.py --workdir=runs/hubert-1
python tools/units.py layer6_500 --data_dir=data --sets=voc125 --model=runs/hubert-1 --layer=6 --clusters=500
python -m voc2vec_jax.train --config=configs/voc125_hubert.py:second --workdir=runs/hubert-2

The argument is any of these words, with commas between them:
  first | second   iteration: 100 clusters of MFCCs at 100 Hz, or 500 of the first one's layer 6 at 50 Hz
  ls=SRC           continued from SRC, a HuBERT of speech: a Hub id, a transformers folder or a fairseq checkpoint
  small | tiny     a small model, on a CPU; a smaller and faster one

250,000 updates of 2560 s of audio, then 400,000: 1.7e9 audio-seconds in all, at 5,000 a second 3.9 days.
"""

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.datasets import catalog
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining.units import store as unit_store

WARMUP_STEPS = 32_000
SMALLER = {"small": pretraining_recipe.shrink, "tiny": pretraining_recipe.tiny}
# iteration: (units, clusters, their rate, updates)
ITERATIONS = {"first": ("mfcc100", 100, 100.0, 250_000), "second": ("layer6_500", 500, 50.0, 400_000)}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: nothing, or words of `first`, `second`, `ls=SRC`, `small` and `tiny` with commas between them."""
    c = pretraining_recipe.pretraining("hubert")
    c.sets = tuple(catalog.PRETRAINING)
    iterate(c, "first")
    for word in arg.split(",") if arg else ():
        if word in ITERATIONS:
            iterate(c, word)
        elif word.startswith("ls=") and word != "ls=":
            c.init_from = word.removeprefix("ls=")
        elif word not in SMALLER:
            raise errors.InputError(f"the argument {word!r} is none of first, second, ls=SRC, small and tiny")
    for word in [word for word in (arg or "").split(",") if word in SMALLER]:
        SMALLER[word](c)
    return c


def iterate(c: ml_collections.ConfigDict, iteration: str) -> None:
    """Sets what the two iterations differ in."""
    c.units, clusters, c.model.label_rate_hz, c.total_steps = ITERATIONS[iteration]
    c.model.classes = clusters + unit_store.FIRST_CLASS
    c.warmup_share = WARMUP_STEPS / c.total_steps
