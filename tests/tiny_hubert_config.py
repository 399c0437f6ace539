"""The smallest HuBERT recipe that exercises everything: the units `tiny` of 8 clusters, clipping, fairseq's masks."""

import tiny_config

from voc2vec_jax import recipes, units


def get_config():
    c, other = recipes.pretraining("hubert"), tiny_config.get_config()
    for name in set(other) - {"family", "model", "clip_norm"}:
        c[name] = other[name]
    c.model.encoder = other.model.encoder
    c.units = "tiny"
    c.model.classes = 8 + units.FIRST_CLASS
    c.model.label_rate_hz = 100.0
    c.model.target_width = 16
    return c
