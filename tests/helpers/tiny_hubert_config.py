"""The smallest HuBERT recipe that exercises everything: the units `tiny` of 8 clusters, and what `tiny_config` has."""

import pathlib

from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import configuration


def get_config():
    c = configuration.load(str(pathlib.Path(__file__).parents[2] / "configs" / "voc125_hubert.py"))
    other = configuration.load(str(pathlib.Path(__file__).with_name("tiny_config.py")))
    for name in set(other) - {"family", "model", "clip_norm"}:
        c[name] = other[name]
    c.model.encoder = other.model.encoder.copy_and_resolve_references()
    c.bucket_samples = (c.crop_samples,)
    c.units = "tiny"
    c.model.classes = 8 + unit_store.FIRST_CLASS
    c.model.label_rate_hz = 100.0
    c.model.target_width = 16
    return c
