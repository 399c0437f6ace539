"""voc2vec: wav2vec 2.0 base pre-trained on Voc125, the recipe of the ICASSP 2025 paper.

python tools/prepare.py voc125 --manual_dir=DOWNLOADS --data_dir=data
python -m voc2vec_jax.train --config=configs/voc125.py --workdir=runs/voc2vec            from scratch
python -m voc2vec_jax.train --config=configs/voc125.py:ls=SRC --workdir=runs/voc2vec-ls   continued from LibriSpeech
python -m voc2vec_jax.train --config=configs/voc125.py:as=SRC --workdir=runs/voc2vec-as   continued from AudioSet
python -m voc2vec_jax.train --config=configs/voc125.py:small --workdir=runs/small         a small model, on a CPU
python -m voc2vec_jax.train --config=configs/voc125.py:tiny --workdir=runs/tiny           a smaller and faster one

SRC is a Hub id, a transformers folder or a fairseq checkpoint. The paper took 10.6 days on two A6000.
400,000 updates of 5120 s of audio are 2.0e9 audio-seconds: at 5,000 audio-seconds per second, 4.7 days.
"""

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.pretraining import recipe as pretraining_recipe

SETS = (
    "audioset_vocalization",
    "freesound_babies",
    "human_voice",
    "nnime",
    "nonspeech7k",
    "recanvo",
    "singing_database",
    "tut_babies",
    "vocalsketch",
    "vocalsound",
)
SMALLER = {"small": pretraining_recipe.shrink, "tiny": pretraining_recipe.tiny}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: nothing, `ls=SRC`, `as=SRC`, `small` or `tiny`."""
    c = pretraining_recipe.pretraining("wav2vec2")
    c.sets = SETS
    if arg in SMALLER:
        return SMALLER[arg](c)
    if arg:
        start, equals, source = arg.partition("=")
        if start not in ("ls", "as") or not source:
            raise errors.InputError(f"the argument {arg!r} is none of ls=SRC, as=SRC, small and tiny")
        c.init_from = source
    return c
