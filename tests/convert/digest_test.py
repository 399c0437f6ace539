"""digest: its values are those that stores of units, caches of features and evaluations on disk hold."""

import checkpoints
import numpy as np
import pytest

from voc2vec_jax.convert import digest as convert_digest
from voc2vec_jax.convert import writer
from voc2vec_jax.finetuning import feature_sets
from voc2vec_jax.inference import pretrained
from voc2vec_jax.models import heads
from voc2vec_jax.pretraining.units import layers

ON_DISK = {
    "wav2vec2": (
        "3b90771ac623797e0617ea441f08a37d8838fc37a6f25984ce9b35197a32a962",
        "af2438edce5a4e1c564f4ca85b411abc8169d8de2688acdeecc466d14b6f143e",
        "7bd61a03977b2ba84eb3b2f945c13aed",
    ),
    "wavlm": (
        "8e15a44f8ce7eb05083ba2af8b3bd8698ab0f44a69b6863a4bac72e8faf81f42",
        "226b48922dfaf55976343e51977134634d3081fee97d4ef5d00ddecbcdf7d4a9",
        "7867f35d2da84c394bb344371d52a44a",
    ),
}


@pytest.mark.parametrize("family", ON_DISK)
def test_what_is_on_disk_is_found_again(tmp_path, family):
    head = heads.Config(classes=3, width=5)
    made = checkpoints.random_checkpoint(family, checkpoints.small_config(family), head)
    writer.write_jax(tmp_path, made)
    evaluated = pretrained.Model("x", made, "float32", "exact", "auto").fingerprint
    cached = feature_sets.model_digest(made)
    units = layers.Layer(str(tmp_path), 1).description
    assert units == {"kind": "layer", "layer": 1, "model": ON_DISK[family][2]}
    assert (evaluated, cached) == ON_DISK[family][:2]


def test_every_part_counts_and_no_order_does():
    params = {"a": np.zeros((2, 3), np.float32), "b": {"c": np.ones(2, np.float32)}}
    first = convert_digest.digest(params, ("x",))
    assert convert_digest.digest({"b": params["b"], "a": params["a"]}, ("x",)) == first
    changed = (
        convert_digest.digest(params, ("y",)),
        convert_digest.digest(params),
        convert_digest.digest(params, ("x",), shapes=True),
        convert_digest.digest({**params, "a": params["a"].T + 1}, ("x",)),
        convert_digest.digest({"a": params["a"], "b": {"d": params["b"]["c"]}}, ("x",)),
    )
    assert len({first, *changed}) == 6
    turned = {**params, "a": params["a"].T}
    assert convert_digest.digest(turned, shapes=True) != convert_digest.digest(params, shapes=True)
