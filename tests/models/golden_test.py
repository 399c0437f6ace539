"""wav2vec 2.0 against vectors of the reference implementation: features, loss terms, gradients, Adam steps."""

import dataclasses
import functools

import golden_vectors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from voc2vec_jax.convert import reader
from voc2vec_jax.models import encoder, wav2vec2
from voc2vec_jax.ops import losses, optim

FOLDERS = [
    folder
    for folder in golden_vectors.folders("checkpoint.pt")
    if reader.read(folder / "checkpoint.pt").family == "wav2vec2"
]
WITH_STEPS = [folder for folder in FOLDERS if (folder / "trajectory.npz").exists()]
BOTH_FORMS = [folder for folder in FOLDERS if (folder / "checkpoint_args.pt").exists()]
ids = functools.partial(map, lambda folder: folder.name)


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


@functools.cache
def load(folder, form="checkpoint.pt"):
    source = reader.read(folder / form)
    quiet = {name: 0.0 for name in ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layerdrop")}
    config = dataclasses.replace(
        source.config,
        encoder=dataclasses.replace(source.config.encoder, **quiet),
        quantizer_dropout=0.0,
        feature_gradient_scale=0.1,
    )
    return config, jax.tree.map(jnp.asarray, source.params)


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, audio, lengths):
    return wav2vec2.Model(config).apply({"params": {"encoder": params}}, audio, lengths, collect=True)


def test_there_are_vectors():
    assert "fairseq_wav2vec2_base" in [folder.name for folder in WITH_STEPS]
    assert "fairseq_wav2vec2_base" in [folder.name for folder in BOTH_FORMS]


@pytest.mark.parametrize("folder", FOLDERS, ids=ids(FOLDERS))
def test_features_of_every_layer(folder):
    config, params = load(folder)
    wanted = np.load(folder / "features.npz")
    audio = jnp.asarray(wanted["audio"])
    lengths = jnp.full(len(audio), audio.shape[1])
    x, out = forward(config, params["encoder"], audio, lengths)
    found = {"conv_features": out["conv_features"], "last_hidden_state": x}
    found |= {f"layer_{i}": layer for i, layer in enumerate(out["hidden_states"][1:])}
    compared = [name for name in wanted if name in found]
    assert {"conv_features", "layer_0", "last_hidden_state"} <= set(compared)
    for name in compared:
        assert np.abs(found[name] - wanted[name]).max() <= 2e-5, name


def draws_of(config, steps, k):
    """The reference's own masks, negatives and noise at step k."""
    mask = steps[f"s{k}_mask"]
    b, m = len(mask), int(mask[0].sum())
    negatives = steps[f"s{k}_negatives"].reshape(b, m, -1) - np.arange(b)[:, None, None] * m
    return wav2vec2.Draws(
        jnp.asarray(np.stack([np.flatnonzero(row) for row in mask]).astype(np.int32)),
        jnp.ones((b, m), bool),
        jnp.asarray(negatives.astype(np.int32)),
        jnp.asarray(steps[f"s{k}_gumbel"].reshape(b, m, config.codebook_groups, config.codebook_entries)),
    )


def pad_draws(draws, m):
    """The same draws in arrays with room for `m` masked frames a row, filled up with junk."""
    extra = m - draws.index.shape[1]
    junk = {"index": 1, "masked_valid": False, "negatives": 0, "gumbel": 7.0}

    def pad(name):
        x = getattr(draws, name)
        return jnp.pad(x, [(0, 0), (0, extra)] + [(0, 0)] * (x.ndim - 2), constant_values=junk[name])

    return draws._replace(**{name: pad(name) for name in junk})


@functools.partial(jax.jit, static_argnums=0)
def value_and_grad(config, params, audio, draws, k):
    def objective(params):
        batch = {"audio": audio[None], "lengths": jnp.full((1, len(audio)), audio.shape[1])}
        keys = jax.random.split(jax.random.key(0), len(audio))
        loss, weight, sums = wav2vec2.loss_fn(config, params, batch, encoder.Noise(keys, keys), k, draws=draws)
        return loss / weight, (loss, weight, sums)

    return jax.value_and_grad(objective, has_aux=True)(params)


def relative(found, wanted):
    return abs(float(found) / float(wanted) - 1)


@pytest.mark.parametrize("extra", [pytest.param(0, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("folder", WITH_STEPS, ids=ids(WITH_STEPS))
def test_every_step_of_the_trajectory(folder, extra):
    config, params = load(folder)
    steps = np.load(folder / "trajectory.npz")
    count = sum(name.endswith("_lr") for name in steps)
    m = extra + max(int(steps[f"s{k}_mask"][0].sum()) for k in range(count))
    rates = jnp.asarray([float(steps[f"s{k}_lr"]) for k in range(count)])
    adam = optim.fairseq_adam(lambda k: rates[k], b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)
    state = adam.init(params)
    for k in range(count):
        draws = pad_draws(draws_of(config, steps, k), m)
        audio = jnp.asarray(steps[f"s{k}_audio"])
        (_, (loss, weight, sums)), grads = value_and_grad(config, params, audio, draws, jnp.asarray(k))
        assert float(weight) == steps[f"s{k}_sample_size"]
        assert relative(config.temperature(k), steps[f"s{k}_temp"]) <= 1e-6
        assert relative(loss, steps[f"s{k}_loss_sum"]) <= 1e-5
        terms = {"contrastive": "contrastive", "diversity": "diversity_term", "feature_penalty": "feature_penalty_term"}
        for ours, theirs in terms.items():
            assert relative(sums[ours], steps[f"s{k}_{theirs}"]) <= 1e-5, ours
        for name in ("code_perplexity", "prob_perplexity"):
            assert relative(sums[name] / weight, steps[f"s{k}_{name}"]) <= 1e-5, name
        assert float(sums["correct"]) == steps[f"s{k}_correct"]
        if k == 0:
            check_gradients(config, grads, np.load(folder / "grads_step0.npz"))
        updates, state = adam.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    found = reader.to_fairseq("wav2vec2", config, jax.device_get(params))
    wanted = np.load(folder / "params_after.npz")
    assert set(found) == set(wanted)
    for name in wanted:
        assert np.abs(found[name] - wanted[name]).max() <= 1e-5, name


def check_gradients(config, grads, wanted):
    found = reader.to_fairseq("wav2vec2", config, jax.device_get(grads))
    assert set(found) == set(wanted)
    for name in wanted:
        difference = np.linalg.norm(found[name] - wanted[name])
        norm = np.linalg.norm(wanted[name])
        assert difference <= (1e-6 if norm < 1e-5 else 1e-4 * norm), name


@pytest.mark.parametrize("folder", WITH_STEPS, ids=ids(WITH_STEPS))
def test_logits_are_the_references(folder):
    config, params = load(folder)
    steps = np.load(folder / "trajectory.npz")
    draws = draws_of(config, steps, 0)
    audio = jnp.asarray(steps["s0_audio"])
    lengths = jnp.full(len(audio), audio.shape[1])
    out = jax.jit(wav2vec2.PreTraining(config).apply)({"params": params}, audio, lengths, draws, None, jnp.asarray(0))
    wanted = steps["s0_logits"]  # [1 + n, b, m]
    positive = jnp.diagonal(out["logits"], axis1=1, axis2=2)
    assert np.abs(positive - wanted[0]).max() <= 2e-5
    drawn = jnp.take_along_axis(out["logits"], draws.negatives, axis=2)
    real = np.isfinite(wanted[1:]).transpose(1, 2, 0)
    assert 0 < real.sum() <= real.size
    assert np.abs(drawn - wanted[1:].transpose(1, 2, 0))[real].max() <= 2e-5
    code = out["code"]
    same = jnp.all(code[:, :, None] == code[:, None], -1)
    assert np.array_equal(~real, jnp.take_along_axis(same, draws.negatives, axis=2))
    assert losses.COSINE_EPS == 1e-8


@pytest.mark.parametrize("folder", BOTH_FORMS, ids=ids(BOTH_FORMS))
def test_the_older_form_holds_the_same_weights(folder):
    config, params = load(folder)
    older_config, older = load(folder, "checkpoint_args.pt")
    assert older_config == config
    assert jax.tree.structure(older) == jax.tree.structure(params)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(older), jax.tree.leaves(params)))
