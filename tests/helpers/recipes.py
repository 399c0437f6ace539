"""The recipes in configs/ as a starting point for tests, with the synthetic set."""

import pathlib

from voc2vec_jax.runs import configuration

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
FULL = {"wav2vec2": "voc125.py", "hubert": "voc125_hubert.py:second"}
TINY = {"wav2vec2": "voc125.py:tiny", "hubert": "voc125_hubert.py:second,tiny"}


def full(family="wav2vec2"):
    return _synthetic(FULL[family])


def tiny(family="wav2vec2"):
    return _synthetic(TINY[family])


def _synthetic(source):
    c = configuration.load(str(CONFIGS / source))
    c.sets = ("synthetic",)
    return c
