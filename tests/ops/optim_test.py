"""Adam and its schedule against their definitions."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from voc2vec_jax.ops import optim

RECIPE = {"b1": 0.9, "b2": 0.98, "eps": 1e-6}


def test_eps_is_added_to_the_uncorrected_root():
    rng = np.random.default_rng(0)
    p = w = rng.normal(size=7).astype(np.float32)
    m, v = np.zeros(7), np.zeros(7)
    adam = optim.fairseq_adam(lambda k: 0.01, **RECIPE, weight_decay=0.1, clip_norm=0.0)
    state = adam.init(jnp.asarray(w))
    for t in range(1, 6):
        g = (rng.normal(size=7) * 1e-5).astype(np.float32)  # small enough for eps to matter
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        p = p - 0.1 * 0.01 * p
        p = p - 0.01 * np.sqrt(1 - 0.98**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-6)
        updates, state = adam.update(jnp.asarray(g), state, jnp.asarray(w))
        w = optax.apply_updates(jnp.asarray(w), updates)
        assert np.abs(w - p).max() < 2e-6
    assert int(state[0].count) == 5


def test_clipping_is_off_unless_asked_for():
    huge = jnp.full(4, 1e6)
    norms = []
    for clip in (0.0, 1.0):
        adam = optim.fairseq_adam(lambda k: 1.0, b1=0.0, b2=0.0, eps=1.0, weight_decay=0.0, clip_norm=clip)
        updates, _ = adam.update(huge, adam.init(huge), huge)
        norms.append(float(jnp.abs(updates).max()))
    assert norms == pytest.approx([1.0, 0.5 / 1.5], rel=1e-3)


@pytest.mark.parametrize("total, peak", [(14, 1), (20, 2), (5, 0)])
def test_a_warmup_is_rounded_to_whole_updates(total, peak):
    """0.08 of them: 1.12, 1.6 and 0.4."""
    rate = optim.linear_schedule(1.0, total, 0.08)
    assert float(rate(peak)) == 1 and float(rate(peak + 1)) == pytest.approx(1 - 1 / (total - peak))


def test_schedule_of_the_recipe():
    rate = optim.linear_schedule(5e-4, 400_000, 0.08)
    wanted = {0: 0.0, 1: 5e-4 / 32000, 16000: 2.5e-4, 32000: 5e-4, 216_000: 2.5e-4, 400_000: 0.0, 500_000: 0.0}
    for step, value in wanted.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-10)
