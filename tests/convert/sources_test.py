"""What `from_pretrained` accepts: runs of ours, the Hub's cache, folders and files; and one sentence for the rest."""

import functools
import json
import sys

import checkpoints
import exported_objective
import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_config
import torch

import voc2vec_jax as v2v
from voc2vec_jax import errors
from voc2vec_jax.convert import reader, sources
from voc2vec_jax.models import wav2vec2
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.runs import checkpoint, configuration


@functools.cache
def fresh():
    """The tiny recipe, its model and fresh parameters."""
    config = tiny_config.get_config()
    _, model = pretraining_recipe.build_model(config)
    return config, model, jax.jit(wav2vec2.init_params, static_argnums=0)(model, jax.random.key(0))


def write_run(folder, ema_decay=0.0, **steps):
    """A run folder whose parameters are fresh ones plus the step; returns the fresh ones and the Config.

    With `ema_decay` their averages are the fresh ones minus the step.
    """
    config, model, params = fresh()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(configuration.as_dict(config)))
    with checkpoint.Checkpoints(folder) as saver:
        for kind, numbers in steps.items():
            for step in numbers:
                state = {"params": jax.tree.map(functools.partial(jnp.add, step), params), "opt": {"mu": jnp.zeros(3)}}
                if ema_decay:
                    state["ema"] = jax.tree.map(functools.partial(jnp.add, -step), params)
                saved = {"step": step, "config": {"ema_decay": ema_decay}}
                saver.save(step, state, saved, best=kind == "best", keep=kind != "best")
    return params, model


def test_a_run_is_its_best_step_else_its_newest(tmp_path, capsys):
    for steps, chosen in (({"checkpoints": (1, 3)}, 3), ({"checkpoints": (5,), "best": (2,)}, 2)):
        params, config = write_run(tmp_path / "run", **steps)
        found = v2v.from_pretrained(tmp_path / "run").checkpoint
        assert found.config == config and found.family == "wav2vec2" and not found.missing
        expected = jax.tree.map(functools.partial(np.add, np.float32(chosen)), jax.device_get(params))
        checkpoints.assert_same(found.params, expected)
        assert "input taken as it is, not normalised" in capsys.readouterr().err


def test_a_run_is_its_moving_average_where_a_checkpoint_has_one(tmp_path, capsys):
    params, _ = write_run(tmp_path, checkpoints=(1,))
    write_run(tmp_path, ema_decay=0.9, checkpoints=(2,))
    averages = jax.tree.map(functools.partial(np.add, np.float32(-2)), jax.device_get(params))
    checkpoints.assert_same(sources.read(tmp_path).params, averages)
    assert f"{tmp_path / 'checkpoints' / '2'}: taken are the moving averages" in capsys.readouterr().err
    write_run(tmp_path, best=(1,))
    plain = jax.tree.map(functools.partial(np.add, np.float32(1)), jax.device_get(params))
    checkpoints.assert_same(sources.read(tmp_path).params, plain)
    assert "moving averages" not in capsys.readouterr().err


def test_a_run_that_cannot_be_read_gives_one_sentence(tmp_path):
    write_run(tmp_path)
    with pytest.raises(errors.InputError, match="without a complete checkpoint"):
        sources.read(tmp_path)
    write_run(tmp_path, checkpoints=(1,))
    raw = json.loads((tmp_path / "config.json").read_text())
    for key, value, sentence in (
        ("width", 32, "has shape"),
        ("conv_norm", "layer", "lacks the tensors"),
        ("heads", "two", "heads='two' is not a field"),
    ):
        changed = {**raw, "model": {**raw["model"], "encoder": {**raw["model"]["encoder"], key: value}}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(errors.InputError, match=sentence):
            sources.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**raw, "family": "seamless"}))
    with pytest.raises(errors.InputError, match="family 'seamless' is none of wav2vec2"):
        sources.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (tmp_path / "checkpoints" / "1" / "metadata.json").write_text("{}")
    with pytest.raises(errors.InputError, match="no intact checkpoint"):
        sources.read(tmp_path)


def test_transformers_computes_the_same_objective_from_an_exported_run(tmp_path):
    write_run(tmp_path / "run", best=(0,))
    exported_objective.assert_same_objective(tmp_path / "run", tmp_path / "hf")


@pytest.mark.parametrize(
    "raw, share",
    [
        ({"model_type": "wav2vec2", "mask_feature_prob": 0.25, "mask_channel_prob": 0.5}, "0.25"),
        ({"mask_channel_prob": 0.5}, "0.5"),
        ({"model_type": "wav2vec2", "mask_feature_prob": 0.25, "apply_spec_augment": False}, None),
        ({"model_type": "wav2vec2", "mask_channel_prob": 0.5}, None),
        ({"mask_channel_prob": 0.0}, None),
        ({}, None),
    ],
)
def test_masks_over_channels_are_said_not_to_be_used(raw, share, capsys):
    sources.warn_of_feature_masks("SRC", reader.ModelWeights("wav2vec2", None, {}, raw_config=raw))
    said = capsys.readouterr().err
    assert ("SRC was trained with masks over channels" in said) == (share is not None)
    assert share is None or f"(share {share})" in said


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the Hub, offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("safe", [True, False])
def test_a_model_in_the_hubs_cache_is_found_offline(safe, hub, tmp_path):
    where = hub / "models--someone--cries"
    made = checkpoints.source(where / "snapshots" / "abc")
    if not safe:
        (where / "snapshots" / "abc" / "model.safetensors").unlink()
        torch.save(made.state_dict(), where / "snapshots" / "abc" / "pytorch_model.bin")
    (where / "refs").mkdir()
    (where / "refs" / "main").write_text("abc")
    model = v2v.from_pretrained("someone/cries")
    expected = made.state_dict()["wav2vec2.encoder.layers.1.final_layer_norm.weight"].numpy()
    np.testing.assert_array_equal(model.checkpoint.params["encoder"]["layers"]["mlp_norm"]["scale"][1], expected)
    assert "'someone/cries'" in repr(model)


def test_only_weights_and_json_of_the_hub_are_asked_for(monkeypatch, tmp_path):
    checkpoints.source(tmp_path / "there")
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(tmp_path / "there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    v2v.from_pretrained("someone/cries@v1.0")
    assert asked == [
        (
            "someone/cries",
            {
                "revision": "v1.0",
                "allow_patterns": ["*.json", "config.yaml", "tokens.txt", "model*.safetensors"],
                "ignore_patterns": ["*/*"],
            },
        )
    ]
    (tmp_path / "there" / "model.safetensors").rename(tmp_path / "there" / "weights.h5")
    with pytest.raises(errors.InputError, match="someone/cries on the Hub holds none of model"):
        v2v.from_pretrained("someone/cries")
    assert [options["allow_patterns"][-1] for _, options in asked[1:]] == list(sources.WEIGHTS)


def test_a_model_that_the_hub_does_not_give_is_one_sentence(hub, monkeypatch):
    with pytest.raises(errors.InputError, match="neither here nor in the cache of the Hub, and HF_HUB_OFFLINE is set"):
        v2v.from_pretrained("someone/cries")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: raise_(OSError("no route\nto host")))
    with pytest.raises(errors.InputError, match="the Hub does not give it: OSError: no route$"):
        v2v.from_pretrained("someone/cries")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(errors.InputError, match=r"pip install -e '.*\[hub\]'"):
        v2v.from_pretrained("someone/cries")


def raise_(error):
    raise error


def test_a_source_that_is_not_there_is_named_with_what_is_like_it(tmp_path):
    (tmp_path / "voc2vec").mkdir()
    with pytest.raises(errors.InputError, match=f"did you mean {tmp_path / 'voc2vec'}"):
        v2v.from_pretrained(tmp_path / "voc2vce")
    with pytest.raises(errors.InputError, match="nor a folder"):
        v2v.from_pretrained(tmp_path / "a" / "b")
    with pytest.raises(errors.InputError, match="no config.json and no .pt file"):
        v2v.from_pretrained(tmp_path / "voc2vec")
    for name in ("a.pt", "b.pt"):
        (tmp_path / "voc2vec" / name).write_bytes(b"")
    with pytest.raises(errors.InputError, match="holds 2 checkpoints; give one of them, such as .*a.pt"):
        v2v.from_pretrained(tmp_path / "voc2vec")
