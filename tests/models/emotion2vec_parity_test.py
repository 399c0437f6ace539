"""emotion2vec is the function that its authors describe, written down once more in PyTorch."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from torch.nn import functional as F

from voc2vec_jax.convert import reader
from voc2vec_jax.models import emotion2vec, encoder

SMALL = {"conv_norm": "layer", "inner_width": 48, "positional_depth": 5, "padding": "legacy"}
STEM = {"conv_channels": (12,) * 3, "conv_kernels": (10, 3, 2), "conv_strides": (5, 4, 2)}
CONFIGS = {
    "base": {"heads": 4, "width": 32, "depth": 3, "positional_kernel": 7, "conv_channels": (12,) * 7},
    "large": {"heads": 16, "width": 64, "depth": 5, "positional_kernel": 19, **STEM},
    "odd sizes": {"heads": 3, "width": 42, "depth": 2, "positional_kernel": 4, "norm_eps": 1e-3, **STEM},
    "other strides": {"heads": 6, "width": 48, "depth": 1, "positional_kernel": 3, **STEM, "conv_strides": (9, 1, 3)},
}
GROUPS = {"base": 4, "large": 16, "odd sizes": 7, "other strides": 2}
PRENET = {"base": 2, "large": 4, "odd sizes": 1, "other strides": 1}
TOKENS = {"base": 10, "large": 10, "odd sizes": 1, "other strides": 3}
SLOPES = {  # powers of two
    1: [-8],
    3: [-4, -8, -2],
    4: [-2, -4, -6, -8],
    6: [-2, -4, -6, -8, -1, -3],
    12: [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5],
    16: [-0.5 * (i + 1) for i in range(16)],
}


def build(name: str):
    e = encoder.EncoderConfig(**SMALL, **CONFIGS[name], positional_groups=GROUPS[name])
    config = emotion2vec.Config(encoder=e, prenet_depth=PRENET[name], extra_tokens=TOKENS[name])
    model = emotion2vec.Model(config)
    params = parity.random_parameters(model)
    params["encoder"]["alibi_scale"][0] = -0.3  # the reference lets none below zero take part
    return config, model, params


def attend(config, x, weights, block, bias, hidden):
    e = config.encoder
    b, n, d = x.shape
    qkv = F.linear(x, weights[f"{block}.attn.qkv.weight"], weights[f"{block}.attn.qkv.bias"])
    query, key, value = qkv.view(b, n, 3, e.heads, d // e.heads).permute(2, 0, 3, 1, 4)
    scores = query * (d // e.heads) ** -0.5 @ key.transpose(-2, -1) + bias
    scores = scores.masked_fill(hidden[:, None, None], float("-inf"))
    x = (scores.softmax(-1) @ value).transpose(1, 2).reshape(b, n, d)
    return F.linear(x, weights[f"{block}.attn.proj.weight"], weights[f"{block}.attn.proj.bias"])


def alibi(config, weights, t):
    tokens = config.extra_tokens
    position = torch.arange(t)
    slopes = 2 ** torch.tensor(SLOPES[config.encoder.heads], dtype=torch.float32)
    bias = -(position[None] - position[:, None]).abs() * slopes[:, None, None]
    bias = bias * weights["modality_encoders.AUDIO.alibi_scale"].clamp_min(0).squeeze(0)
    return F.pad(bias, (tokens, 0, tokens, 0))


def reference(config, weights, audio, frames):
    """States of tokens and frames: what enters the first block and what leaves each."""
    e, modality = config.encoder, "modality_encoders.AUDIO"
    x = torch.tensor(audio)[:, None]
    for i, stride in enumerate(e.conv_strides):
        layer = f"{modality}.local_encoder.conv_layers.{i}"
        x = F.conv1d(x, weights[f"{layer}.0.weight"], stride=stride).transpose(1, 2)
        x = F.layer_norm(x, x.shape[-1:], weights[f"{layer}.2.1.weight"], weights[f"{layer}.2.1.bias"])
        x = F.gelu(x).transpose(1, 2)
    x = x.transpose(1, 2)

    def norm(x, name, eps=e.norm_eps):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = linear(norm(x, f"{modality}.project_features.1", 1e-5), f"{modality}.project_features.2")
    position = x.transpose(1, 2)
    for i in range(1, e.positional_depth + 1):
        layer = f"{modality}.relative_positional_encoder.{i}.0"
        kernel, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        position = F.conv1d(position, kernel, bias, padding=kernel.shape[-1] // 2, groups=e.positional_groups)
        position = position[:, :, : x.shape[1]].transpose(1, 2)
        position = F.gelu(F.layer_norm(position, position.shape[-1:])).transpose(1, 2)
    x = x + position.transpose(1, 2)
    hidden = torch.arange(x.shape[1])[None] >= torch.tensor(frames)[:, None]
    bias = alibi(config, weights, x.shape[1])
    x = torch.cat([weights[f"{modality}.extra_tokens"].expand(len(x), -1, -1), x], 1)
    hidden = F.pad(hidden, (config.extra_tokens, 0))
    states = [norm(x, f"{modality}.context_encoder.norm")]
    for n in range(e.depth):
        late = n - config.prenet_depth
        block = f"blocks.{late}" if late >= 0 else f"{modality}.context_encoder.blocks.{n}"
        x = norm(states[-1] + attend(config, states[-1], weights, block, bias, hidden), f"{block}.norm1")
        x = norm(x + linear(F.gelu(linear(x, f"{block}.mlp.fc1")), f"{block}.mlp.fc2"), f"{block}.norm2")
        states.append(x)
    return states


@pytest.mark.parametrize("name", CONFIGS)
def test_same_as_described(name):
    config, model, params = build(name)
    lengths = parity.LENGTHS
    audio = jnp.asarray(parity.clips(lengths))
    stored = reader.to_fairseq("emotion2vec", config, params)
    weights = {key: torch.tensor(np.array(value), requires_grad=True) for key, value in stored.items()}
    expected = reference(config, weights, np.array(audio), [config.encoder.frames(length) for length in lengths])
    seed = np.random.default_rng(1).normal(size=expected[-1].shape).astype(np.float32)
    (expected[-1] * torch.tensor(seed)).mean().backward()

    @functools.partial(jax.jit, compiler_options=parity.QUICK)
    def run(params):
        def loss(params):
            x, out = model.apply({"params": params}, audio, jnp.array(lengths), collect=True)
            return (out["with_extra_tokens"] * seed).mean(), (x, out["with_extra_tokens"], out["hidden_states"])

        return jax.value_and_grad(loss, has_aux=True)(params)

    with jax.default_matmul_precision("highest"):
        (_, (x, with_tokens, states)), gradients = run(params)
    tokens = config.extra_tokens
    assert len(states) == len(expected)
    for ours, theirs in zip([*states, x], [*expected, expected[-1]]):
        np.testing.assert_allclose(ours, theirs[:, tokens:].detach().numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(with_tokens, expected[-1].detach().numpy(), rtol=0, atol=1e-4)
    assert np.abs(np.asarray(gradients["encoder"]["extra_tokens"])).reshape(-1).max() > 0
    ours = reader.to_fairseq("emotion2vec", config, jax.tree.map(np.asarray, gradients))
    parity.assert_gradients_agree(ours, {key: weights[key].grad.numpy() for key in ours})


@pytest.mark.parametrize("heads", SLOPES)
def test_slopes(heads):
    np.testing.assert_allclose(np.log2(emotion2vec.slopes(heads)), SLOPES[heads], rtol=0, atol=1e-12)


def test_bias_of_two_tokens_and_three_frames():
    class Host(nn.Module):
        config: encoder.EncoderConfig

        @nn.compact
        def __call__(self):
            return emotion2vec.LinearBias(extra_tokens=2)(self, 5)

    host = Host(encoder.EncoderConfig(heads=1, width=4, positional_groups=1))
    bias = host.apply({"params": {"alibi_scale": jnp.array([256.0])}})  # the one head's slope is 1 / 256
    expected = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, -1, -2], [0, 0, -1, 0, -1], [0, 0, -2, -1, 0]]
    np.testing.assert_array_equal(bias[0], np.array(expected, np.float32))
