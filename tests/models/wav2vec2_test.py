"""Properties of the wav2vec 2.0 model: sizes, independence of padding, what the objective counts."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax.models import encoder, wav2vec2

SMALL = encoder.EncoderConfig(
    conv_channels=(16,) * 7, width=32, depth=3, heads=4, inner_width=64, positional_kernel=16, positional_groups=4
)
LARGE_LIKE = dataclasses.replace(SMALL, conv_norm="layer", conv_bias=True, norm_first=True)
CONFIG = wav2vec2.Config(SMALL, codebook_entries=8, codebook_width=16, target_width=16, negatives=20)


@functools.cache
def params_of(config):
    return jax.jit(wav2vec2.init_params, static_argnums=0)(config, jax.random.key(1))


def clips(seconds, seed=0):
    """Noise of the given lengths, zero-padded into one batch, and the lengths."""
    lengths = np.array([round(16000 * s) for s in seconds])
    noise = np.random.default_rng(seed).normal(0, 0.1, (len(seconds), lengths.max()))
    return np.where(np.arange(lengths.max()) < lengths[:, None], noise, 0.0), lengths


def outputs(config, params, audio, lengths, dtype):
    apply = jax.jit(functools.partial(wav2vec2.Model(config).apply, collect=True))
    return apply({"params": {"encoder": params["encoder"]}}, jnp.asarray(audio, dtype), jnp.asarray(lengths))


def gaps(config, params, seconds, dtype):
    """Largest difference, per frame and of the mean over frames, between clips alone and in one padded batch."""
    audio, lengths = clips(seconds)
    together, out = outputs(config, params, audio, lengths, dtype)
    frame_gap, mean_gap = 0.0, 0.0
    for i, n in enumerate(lengths):
        alone, single = outputs(config, params, audio[i : i + 1, :n], lengths[i : i + 1], dtype)
        t = int(out["frames"][i])
        assert t == alone.shape[1] == config.encoder.frames(int(n))
        for a, b in ((alone[0], together[i, :t]), (single["hidden_states"][:, 0], out["hidden_states"][:, i, :t])):
            frame_gap = max(frame_gap, float(jnp.abs(a - b).max()))
        mean_gap = max(mean_gap, float(jnp.abs(alone[0].mean(0) - together[i, :t].mean(0)).max()))
    return frame_gap, mean_gap


def test_parameter_counts_of_base():
    config = wav2vec2.Config()
    shapes = jax.eval_shape(lambda: wav2vec2.init_params(config, jax.random.key(0)))
    count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))  # noqa: E731
    assert count(shapes) == 95_044_608
    assert count(shapes["encoder"]) == 94_371_712


@pytest.mark.parametrize(
    "samples, frames",
    [(400, 1), (640, 1), (720, 2), (16000, 49), (32000, 99), (112000, 349), (160000, 499), (250000, 781)],
)
def test_frame_counts(samples, frames):
    e = wav2vec2.Config().encoder
    assert e.frames(samples) == frames
    assert e.frames(np.array([samples, 0])).tolist() == [frames, 0]
    assert e.frames(399) == e.frames(0) == 0


def test_the_shortest_maskable_clip():
    config = wav2vec2.Config()
    assert config.min_samples == 4240
    assert (config.encoder.frames(4240), config.encoder.frames(4239)) == (13, 12)


@pytest.mark.parametrize("step", [0, 1, 100_000, 200_000, 277_258, 400_000])
def test_temperature_of_the_recipe(step):
    wanted = max(2 * 0.999995**step, 0.5)
    assert float(wav2vec2.Config().temperature(jnp.asarray(step))) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    "shape", [pytest.param(SMALL, id="group"), pytest.param(LARGE_LIKE, id="layer", marks=pytest.mark.slow)]
)
def test_padding_changes_nothing_in_float64(shape):
    with jax.enable_x64(True):
        config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(shape, dtype="float64"))
        params = jax.tree.map(lambda x: x.astype(jnp.float64), params_of(config))
        frame_gap, mean_gap = gaps(config, params, (0.4, 1.1, 2.7, 10.0), jnp.float64)
    assert frame_gap < 1e-10
    assert mean_gap < 1e-10


@pytest.mark.slow
def test_padding_changes_rounding_only_at_base_size():
    config = wav2vec2.Config()
    frame_gap, mean_gap = gaps(config, params_of(config), (0.4, 3.3, 10.0), jnp.float32)
    assert frame_gap < 5e-5
    assert mean_gap < 1e-5


@pytest.mark.slow
def test_legacy_padding_does_change_the_outputs():
    config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(SMALL, padding="legacy"))
    frame_gap, _ = gaps(config, params_of(CONFIG), (0.4, 2.0), jnp.float32)
    assert frame_gap > 1e-2


def loss_of(config, params, audio, lengths, train=True, groups=1):
    rows = len(lengths) // groups
    batch = {"audio": audio.reshape(groups, rows, -1), "lengths": lengths.reshape(groups, rows)}
    keys = jax.random.split(jax.random.key(3), len(lengths))
    return wav2vec2.loss_fn(config, params, batch, encoder.Noise(keys, keys), jnp.asarray(5), train=train)


def test_no_gradient_reaches_padding_and_none_comes_from_it():
    audio, lengths = clips((0.5, 1.0, 1.5))
    padding = np.arange(audio.shape[1]) >= lengths[:, None]
    audio, lengths = jnp.asarray(audio, jnp.float32), jnp.asarray(lengths)
    params = params_of(CONFIG)

    @jax.jit
    def grads(params, audio):
        return jax.grad(lambda *args: loss_of(CONFIG, *args, lengths)[0], argnums=(0, 1))(params, audio)

    of_params, of_audio = grads(params, audio)
    assert np.abs(of_audio)[padding].max() == 0
    assert np.abs(of_audio)[~padding].max() > 0
    loud = jnp.where(padding, 0.7, audio)
    for a, b in zip(jax.tree.leaves(of_params), jax.tree.leaves(grads(params, loud)[0])):
        assert np.array_equal(a, b)


def test_empty_rows_count_nothing():
    audio, lengths = clips((1.0, 1.0))
    audio, lengths = jnp.asarray(audio, jnp.float32), jnp.asarray(lengths)
    params = params_of(CONFIG)
    run = jax.jit(functools.partial(loss_of, CONFIG, train=False))
    loss, weight, sums = run(params, audio, lengths)
    more = jnp.concatenate([audio, jnp.full_like(audio, 0.3)])
    keys = jax.random.split(jax.random.key(3), 2)

    def padded(params):
        batch = {"audio": more[None], "lengths": jnp.concatenate([lengths, jnp.zeros_like(lengths)])[None]}
        noise = encoder.Noise(jnp.concatenate([keys, keys]), jnp.concatenate([keys, keys]))
        return wav2vec2.loss_fn(CONFIG, params, batch, noise, jnp.asarray(5), train=False)

    loss_more, weight_more, sums_more = jax.jit(padded)(params)
    assert weight_more == weight > 0
    for name in sums:
        assert sums_more[name] == pytest.approx(float(sums[name]), rel=1e-5), name
    assert loss_more == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.slow
def test_two_groups_are_two_batches():
    audio, lengths = clips((1.0, 0.8, 0.9, 1.0))
    audio, lengths = jnp.asarray(audio, jnp.float32), jnp.asarray(lengths)
    params = params_of(CONFIG)
    keys = jax.random.split(jax.random.key(4), 4)

    @functools.partial(jax.jit, static_argnums=2)
    def run(rows, keys, groups):
        batch = {"audio": audio[rows].reshape(groups, -1, audio.shape[1]), "lengths": lengths[rows].reshape(groups, -1)}
        noise = encoder.Noise(keys, jnp.repeat(keys[:1], len(keys)))
        return wav2vec2.loss_fn(CONFIG, params, batch, noise, jnp.asarray(0))

    first, second = run(jnp.arange(2), keys[:2], 1), run(jnp.arange(2, 4), keys[2:], 1)
    noise_of_both = jnp.repeat(keys[::2], 2)
    batch = {"audio": audio.reshape(2, 2, -1), "lengths": lengths.reshape(2, 2)}
    noise = encoder.Noise(keys, noise_of_both)
    both = jax.jit(lambda p: wav2vec2.loss_fn(CONFIG, p, batch, noise, jnp.asarray(0)))(params)
    for name in both[2]:
        assert both[2][name] == pytest.approx(float(first[2][name] + second[2][name]), rel=1e-5), name
    one_group = run(jnp.arange(4), keys, 1)
    assert abs(float(one_group[2]["prob_perplexity"] - both[2]["prob_perplexity"])) > 1e-3


def test_layerdrop_skips_whole_layers_of_a_whole_group():
    shape = dataclasses.replace(SMALL, layerdrop=1.0, dropout=0.0, attention_dropout=0.0, input_dropout=0.0)
    config = dataclasses.replace(CONFIG, encoder=shape)
    audio, lengths = clips((1.0, 1.0))
    keys = jax.random.split(jax.random.key(0), 2)
    args = jnp.asarray(audio, jnp.float32), jnp.asarray(lengths)

    @functools.partial(jax.jit, static_argnums=0)
    def hidden(config, params, noise):
        variables = {"params": {"encoder": params["encoder"]}}
        return wav2vec2.Model(config).apply(variables, *args, noise=noise, collect=True)[1]["hidden_states"]

    states = hidden(config, params_of(CONFIG), encoder.Noise(keys, keys))
    assert np.abs(states[1:] - states[:1]).max() < 1e-5
    states = hidden(config, params_of(CONFIG), None)
    assert np.abs(states[1] - states[0]).max() > 1e-2

    config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(shape, layerdrop=0.5, depth=12))
    groups = jnp.stack([keys[0], keys[0]])
    states = np.asarray(hidden(config, params_of(config), encoder.Noise(keys, groups)))
    skipped = np.abs(states[1:] - states[:-1]).max((2, 3)) < 1e-5
    assert np.array_equal(skipped[:, 0], skipped[:, 1])
    assert 0 < skipped[:, 0].sum() < 12


@pytest.mark.slow
def test_bfloat16_stays_near_float32():
    audio, lengths = clips((1.0, 1.5))
    audio, lengths = jnp.asarray(audio, jnp.float32), jnp.asarray(lengths)
    half = dataclasses.replace(CONFIG, encoder=dataclasses.replace(SMALL, dtype="bfloat16"))
    run = jax.jit(functools.partial(loss_of, train=False), static_argnums=0)
    wanted, weight, _ = run(CONFIG, params_of(CONFIG), audio, lengths)
    found, _, sums = run(half, params_of(CONFIG), audio, lengths)
    assert found.dtype == jnp.float32
    assert abs(float(found - wanted) / float(weight)) < 0.05
    assert sums["contrastive"].dtype == jnp.float32


def test_a_narrow_type_changes_no_code_of_the_quantizer():
    """2,000 frames of unit variance, rounded to bfloat16 as the stem hands them on, have the codes of float32."""
    config = wav2vec2.Config()
    half = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dtype="bfloat16"))
    x = jax.random.normal(jax.random.key(0), (4, 500, 512), jnp.bfloat16)
    params = wav2vec2.Quantizer(config).init(jax.random.key(1), x[:1, :1], None, jnp.asarray(2.0))

    def codes(config, x):
        return np.asarray(wav2vec2.Quantizer(config).apply(params, x, None, jnp.asarray(2.0))[1])

    with jax.default_matmul_precision("highest"):
        wanted = codes(config, x.astype(jnp.float32))
        assert np.mean(codes(half, x) != wanted) == 0.0
        # What scores of that type would do: the share of the 4,000 codes that differ
        kernel, bias = (params["params"]["logits"][name].astype(jnp.bfloat16) for name in ("kernel", "bias"))
        narrow = (x @ kernel + bias[None, None]).reshape(4, 500, 2, 320).argmax(-1)
    assert 0.004 < np.mean(narrow != wanted) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["layer", "products"])
def test_remat_changes_no_gradient(remat):
    audio, lengths = clips((0.5, 0.6))
    audio, lengths = jnp.asarray(audio, jnp.float32), jnp.asarray(lengths)
    saved = dataclasses.replace(CONFIG, encoder=dataclasses.replace(SMALL, remat=remat))
    params = params_of(CONFIG)
    grads = [jax.jit(jax.grad(lambda p, c=c: loss_of(c, p, audio, lengths)[0]))(params) for c in (CONFIG, saved)]
    for a, b in zip(*map(jax.tree.leaves, grads)):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max() + 1e-6
