"""HuBERT's objective against vectors of the reference implementation: loss terms, gradients, Adam steps."""

import dataclasses
import functools

import golden_vectors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from voc2vec_jax.convert import reader
from voc2vec_jax.models import encoder, hubert
from voc2vec_jax.ops import optim

FOLDERS = [
    folder
    for folder in golden_vectors.folders("trajectory.npz")
    if reader.read(folder / "checkpoint.pt").family == "hubert"
]
QUIET = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layerdrop"), 0.0)


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def load(folder):
    source = reader.read(folder / "checkpoint.pt")
    quiet = dataclasses.replace(source.config.encoder, **QUIET)
    config = dataclasses.replace(source.config, encoder=quiet, feature_gradient_scale=0.1)
    return config, jax.tree.map(jnp.asarray, source.params)


def draws_of(mask, m):
    """The reference's masked frames in arrays with room for `m` a row, filled up with junk."""
    index, valid = np.ones((len(mask), m), np.int32), np.zeros((len(mask), m), bool)
    for b, row in enumerate(mask):
        index[b, : row.sum()], valid[b, : row.sum()] = np.flatnonzero(row), True
    return hubert.Draws(jnp.asarray(index), jnp.asarray(valid))


@functools.partial(jax.jit, static_argnums=0)
def value_and_grad(config, params, audio, units, draws):
    def objective(params):
        batch = {"audio": audio[None], "units": units[None]}
        batch["lengths"] = jnp.full((1, len(audio)), audio.shape[1])
        keys = jax.random.split(jax.random.key(0), len(audio))
        noise = encoder.Noise(keys, keys)
        loss, weight, sums = hubert.loss_fn(config, params, batch, noise, jnp.asarray(0), draws=draws)
        return loss / weight, (loss, weight, sums)

    return jax.value_and_grad(objective, has_aux=True)(params)


def test_there_are_vectors():
    assert "fairseq_hubert_base" in [folder.name for folder in FOLDERS]


@pytest.mark.parametrize("extra", [pytest.param(0, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_step_of_the_trajectory(folder, extra):
    config, params = load(folder)
    steps = np.load(folder / "trajectory.npz")
    count = sum(name.endswith("_lr") for name in steps)
    assert count >= 3
    m = extra + max(int(steps[f"s{k}_mask"].sum(1).max()) for k in range(count))
    rates = jnp.asarray([float(steps[f"s{k}_lr"]) for k in range(count)])
    adam = optim.fairseq_adam(lambda k: rates[k], b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)
    state = adam.init(params)
    for k in range(count):
        wanted = {name.removeprefix(f"s{k}_"): steps[name] for name in steps if name.startswith(f"s{k}_")}
        arguments = (jnp.asarray(wanted["audio"]), jnp.asarray(wanted["targets"].astype(np.int32)))
        draws = draws_of(wanted["mask"], m)
        (_, (loss, weight, sums)), grads = value_and_grad(config, params, *arguments, draws)
        check_terms(loss, weight, sums, grads, wanted)
        if k == 0:
            check_gradients(config, grads, np.load(folder / "grads_step0.npz"))
        updates, state = adam.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    found = reader.to_fairseq("hubert", config, jax.device_get(params))
    wanted = np.load(folder / "params_after.npz")
    assert set(found) == set(wanted)
    for name in wanted:
        assert np.abs(found[name] - wanted[name]).max() <= 1e-5, name


def check_terms(loss, weight, sums, grads, wanted):
    assert float(weight) == wanted["sample_size"] == float(sums["unit_counts"].sum())
    assert float(loss) == pytest.approx(float(wanted["loss_sum"]), rel=1e-5)
    assert float(sums["masked_loss"]) == pytest.approx(float(wanted["masked_loss_sum"]), rel=1e-5)
    assert float(sums["feature_penalty"]) == pytest.approx(float(wanted["feature_penalty_term"]), rel=1e-5)
    assert float(optax.tree.norm(grads)) == pytest.approx(float(wanted["grad_norm"]), rel=1e-4)
    assert (float(sums["correct"]), float(weight)) == (wanted["correct"], wanted["count"])


def check_gradients(config, grads, wanted):
    found = reader.to_fairseq("hubert", config, jax.device_get(grads))
    assert set(found) == set(wanted)
    for name in wanted:
        norm = np.linalg.norm(wanted[name])
        assert np.linalg.norm(found[name] - wanted[name]) <= (1e-6 if norm < 1e-5 else 1e-4 * norm), name
