"""Checkpoints for tests: small transformers models, our own with random parameters, and how they are compared."""

import dataclasses
import os
import pathlib
import zipfile

import numpy as np
import pytest
import torch
import transformers

from voc2vec_jax import errors
from voc2vec_jax import models as families
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader

transformers.utils.logging.disable_progress_bar()

BUNDLED = pathlib.Path(__file__).parents[1] / "golden"
GOLDEN = pathlib.Path(os.environ.get("VOC2VEC_GOLDEN", BUNDLED))
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
SUMMED = {"use_weighted_layer_sum": True, "num_labels": 3}


def model(name, **options):
    """A small transformers model with random weights."""
    cls = getattr(transformers, name.split()[0])
    positional = {} if name.startswith("Data2Vec") else {"num_conv_pos_embeddings": 16}
    torch.manual_seed(0)
    return cls(cls.config_class(**{**SMALL, **positional, **options})).eval()


def source(folder, name="Wav2Vec2ForPreTraining", **options):
    """The folder of a small transformers model."""
    made = model(name, **options)
    made.save_pretrained(folder)
    return made


def random_checkpoint(family, config=None, head=None):
    """A checkpoint of our own with every parameter random."""
    config = config or families.FAMILIES[family].Config()
    rng = np.random.default_rng(0)
    entries = convert_names.table(family, config, head)
    flat = {entry.ours: rng.standard_normal(entry.full_shape, dtype=np.float32) for entry in entries}
    labels = tuple("abcdefgh"[: head.classes]) if head else ()
    return reader.ModelWeights(family, config, convert_names.unflatten(flat), labels=labels, normalize=True)


def small_config(family):
    """A Config of odd sizes."""
    config = families.FAMILIES[family].Config()
    if family == "whisper":
        sizes = {"mel_bands": 11, "positions": 50, "width": 24, "depth": 5, "heads": 3, "inner_width": 20}
        return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, **sizes))
    encoder = dataclasses.replace(
        config.encoder,
        conv_channels=(6, 8) * 3 + (10,),
        width=24,
        depth=5,
        heads=3,
        inner_width=20,
        positional_groups=2,
    )
    return dataclasses.replace(config, encoder=encoder)


def assert_same(left, right):
    """Two trees of arrays agree to the bit."""
    left, right = convert_names.flatten(left), convert_names.flatten(right)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype and left[name].shape == right[name].shape
        assert np.asarray(left[name]).tobytes() == np.asarray(right[name]).tobytes(), name


def assert_refused(reason, path):
    """Reading gives one sentence that names the reason."""
    with pytest.raises(errors.InputError, match=reason) as caught:
        reader.read(path)
    assert "\n" not in str(caught.value)


def as_file(path, pickled, storages=(), compression=zipfile.ZIP_STORED):
    """A file in the layout of torch.save around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in enumerate(storages):
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return path


class Payload:
    """Pickles into a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call
