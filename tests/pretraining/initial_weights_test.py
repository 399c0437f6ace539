"""Continuing from other weights: what is taken over, what starts fresh and is said, what is refused."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import recipes

from voc2vec_jax import errors
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.pretraining import initial_weights
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.runs import sharding

SOURCE = pathlib.Path(__file__).parents[1] / "golden" / "fairseq_wav2vec2_base" / "checkpoint.pt"


def matching_config(source=SOURCE):
    """A recipe with the architecture of the source."""
    found = reader.read(source).config
    config = recipes.full()
    for name, value in vars(found.encoder).items():
        if name in config.model.encoder:
            config.model.encoder[name] = value
    for name in ("codebook_groups", "codebook_entries", "codebook_width", "target_width"):
        config.model[name] = getattr(found, name)
    config.init_from = str(source)
    return config


def flat(tree):
    return {sharding.path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.slow
def test_everything_is_taken_over(capsys):
    config = matching_config()
    params = flat(initial_weights.continued_params(config, *pretraining_recipe.build_model(config)))
    wanted = flat(reader.read(SOURCE).params)
    assert set(params) == set(wanted)
    assert all(np.array_equal(params[name], wanted[name]) for name in wanted)
    assert "freshly initialised" not in capsys.readouterr().err


@pytest.mark.slow
def test_without_heads_they_start_fresh_and_it_is_said(tmp_path, capsys):
    whole = reader.read(SOURCE)
    raw = {"model_type": "wav2vec2", "mask_feature_prob": 0.2}
    encoder = {"encoder": whole.params["encoder"]}
    bare = reader.ModelWeights("wav2vec2", whole.config, encoder, normalize=False, raw_config=raw)
    writer.write_hf(tmp_path / "bare", bare)
    config = matching_config()
    config.init_from = str(tmp_path / "bare")
    params = flat(initial_weights.continued_params(config, *pretraining_recipe.build_model(config)))
    wanted = flat(whole.params)
    assert set(params) == set(wanted)
    assert all(np.array_equal(params[n], wanted[n]) for n in wanted if n.startswith("encoder/"))
    assert not np.array_equal(params["quantizer/codebook"], wanted["quantizer/codebook"])
    said = capsys.readouterr().err
    assert "NOT in" in said
    assert "quantizer/codebook" in said
    assert "was trained with masks over channels (share 0.2)" in said


@pytest.mark.parametrize(
    "raw, normalize, name",
    [
        ({"model_type": "wav2vec2"}, True, "clip"),
        pytest.param({"model_type": "wav2vec2"}, None, "clip", marks=pytest.mark.slow),
        pytest.param({}, True, "clip_fairseq", marks=pytest.mark.slow),
        pytest.param({}, False, "none", marks=pytest.mark.slow),
    ],
)
def test_a_new_run_normalises_as_its_source_and_another_choice_is_said(raw, normalize, name, tmp_path, capsys):
    whole = reader.read(SOURCE)
    source = dataclasses.replace(whole, normalize=normalize, raw_config=raw)
    writer.write_jax(tmp_path / "source", source)
    config = matching_config()
    config.init_from = str(tmp_path / "source")
    assert initial_weights.settled_normalize(config, tmp_path / "new") == name
    assert f"normalize is {name}, as {config.init_from} was trained" in capsys.readouterr().err
    for chosen in ("none", "clip", "clip_fairseq"):
        config.normalize = chosen
        assert initial_weights.settled_normalize(config, tmp_path / "new") == chosen
        initial_weights.continued_params(config, *pretraining_recipe.build_model(config))
        said = f"was trained with normalize {name}, and this run is with {chosen}"
        assert (said in capsys.readouterr().err) == (chosen != name)


def test_a_run_that_goes_on_normalises_as_it_did_without_its_source(tmp_path):
    config = matching_config()
    config.init_from = str(tmp_path / "gone")
    (tmp_path / "config.json").write_text(json.dumps({"init_from": config.init_from, "normalize": "clip"}))
    assert initial_weights.settled_normalize(config, tmp_path) == "clip"
    config.init_from = ""
    assert initial_weights.settled_normalize(config, tmp_path) == "none"


def test_another_architecture_is_refused_with_the_overrides_to_type():
    config = recipes.full()
    config.init_from = str(SOURCE)
    with pytest.raises(errors.InputError, match=r"--config.model.encoder.width=48 .*--config.model.encoder.heads=4"):
        initial_weights.continued_params(config, *pretraining_recipe.build_model(config))


def test_another_codebook_is_refused():
    config = matching_config()
    config.model.codebook_entries = 32
    with pytest.raises(errors.InputError, match="--config.model.codebook_entries=8"):
        initial_weights.continued_params(config, *pretraining_recipe.build_model(config))
