"""The encoders of all families and the classification head as parts of an ONNX graph, with exact padding.

b = rows, s = samples, t = frames, c = channels of the stem, d = width, h = heads, v = classes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from voc2vec_jax.convert import onnx_ops as ops
from voc2vec_jax.convert import onnx_whisper
from voc2vec_jax.models import emotion2vec, layers, wavlm


class Frames(NamedTuple):
    """What an encoder gives: values of a graph."""

    last: str  # [b, t, d]
    states: list[str]  # what enters the first block, then each block's output
    own: str  # [b]: the frames of each row's own audio
    valid: str  # [b, t]: those frames
    pooled: str  # [b, t]: the frames that a head sees


def encoded(g: ops.Graph, family: str, config: Any, params: Mapping[str, Any], audio: str, lengths: str) -> Frames:
    """The frames of audio [b, s], of which `lengths` [b] samples count and the others are zeros."""
    e, p = config.encoder, params["encoder"]
    if family == "whisper":
        x, own, t = onnx_whisper.stem(g, e, p, audio, lengths)
        seen = g("Expand", g.constant([e.positions]), g("Shape", own)) if e.pads else own
    else:
        x, own, t = _shared_stem(g, config, p, audio, lengths)
        seen = own
    parts = getattr(config, "parts", None)
    tokens = parts.extra_tokens if parts else 0
    if tokens:
        x = _with_tokens(g, p["extra_tokens"], x)
    if not e.norm_first:
        x = ops.layer_norm(g, p["norm"], x, e.norm_eps, e.width)
    keys = g.first(g("Add", seen, tokens), g("Add", t, tokens))
    mask = g("Unsqueeze", keys, [1, 2])  # [b, 1, 1, t]
    bias = _position_bias(g, family, config, p, t)
    states = [x]
    for k in range(e.depth):
        states.append(_block(g, e, _layer(p["layers"], k), states[-1], mask, bias))
    last = states[-1]
    if e.norm_first:
        last = ops.layer_norm(g, p["norm"], last, e.norm_eps, e.width)
    if family == "whisper":  # the last of its states is the result, as in transformers
        states[-1] = last
    if tokens:
        last, *states = (g("Slice", each, [tokens], [np.iinfo(np.int64).max], [1]) for each in (last, *states))
    return Frames(last, states, own, g.first(own, t), g.first(seen, t))


def normalised(g: ops.Graph, audio: str, valid: str, lengths: str, eps: float) -> str:
    """Each row with zero mean and unit variance over its own samples, zero elsewhere."""
    count = g("Unsqueeze", g.floats(g("Max", lengths, 1)), [1])
    x, variance = ops.centred(g, audio, g.floats(valid), count, 1)
    return g("Div", x, g("Sqrt", g("Add", variance, eps)))


def logits(g: ops.Graph, head: Any, params: Mapping[str, Any], frames: Frames) -> str:
    """[b, v], as `heads.Classifier`."""
    x = frames.last
    if head.layer_sum:
        weights = np.exp(params["layer_weights"] - np.max(params["layer_weights"]))
        parts = [g("Mul", state, float(w)) for state, w in zip(frames.states, weights / weights.sum())]
        x = g("Sum", *parts)
    x = ops.linear(g, params["projector"], x)
    if head.pooling == "attention":
        scores = g("Squeeze", g("MatMul", x, params["query"][:, None]), [2])
        shares = g("Unsqueeze", ops.masked_softmax(g, scores, frames.pooled), [1])
        pooled = g("Squeeze", g("MatMul", shares, x), [1])
    else:
        pooled = ops.masked_mean(g, x, frames.pooled)
    return ops.linear(g, params["classifier"], pooled)


def _shared_stem(g, config, p, audio, lengths) -> tuple[str, str, str]:
    """What enters the blocks' norm [b, t, d], the frames of each row, and t."""
    e = config.encoder
    x, own = _conv_stem(g, e, p["conv_stem"], audio, lengths)
    parts = getattr(config, "parts", None)
    if e.feature_norm:
        eps = parts.feature_norm_eps if parts else None
        x = ops.layer_norm(g, p["feature_norm"], x, e.norm_eps if eps is None else eps, e.conv_channels[-1])
    x = ops.linear(g, p["feature_projection"], x)
    t = g.size(x, 1)
    valid = g("Unsqueeze", g.first(own, t), [2])
    x = g("Where", valid, x, 0.0)
    return g("Add", x, _positional(g, e, p["positional_conv"], x, valid)), own, t


def _conv_stem(g, e, p, audio, lengths) -> tuple[str, str]:
    """[b, t, c] and the frames of each row."""
    x, own = g("Unsqueeze", audio, [1]), lengths
    for k, (channels, kernel, stride) in enumerate(zip(e.conv_channels, e.conv_kernels, e.conv_strides)):
        x = ops.conv(g, p[f"conv_{k}"], x, kernel_shape=[kernel], strides=[stride])
        # n = (n - kernel) // stride + 1, and none of a row that is too short
        own = g("Div", g("Max", g("Add", own, stride - kernel), 0), stride)
        norm = p.get(f"norm_{k}")
        if e.conv_norm == "group" and k == 0:
            x = _time_norm(g, norm, x, own)
        elif e.conv_norm == "layer":
            x = ops.layer_norm(g, norm, ops.transposed(g, x), layers.CONV_NORM_EPS, channels)
            x = ops.transposed(g, x)
        x = ops.gelu(g, x)
    return ops.transposed(g, x), own


def _time_norm(g, p, x, own) -> str:
    """Each channel [b, c, t] over each row's own frames: torch's GroupNorm, of a clip without its padding."""
    valid = g("Unsqueeze", g.floats(g.first(own, g.size(x, 2))), [1])
    count = g("Unsqueeze", g.floats(g("Max", own, 1)), [1, 2])
    x, variance = ops.centred(g, x, valid, count, 2)
    x = g("Div", x, g("Sqrt", g("Add", variance, layers.CONV_NORM_EPS)))
    return g("Add", g("Mul", x, p["scale"][:, None]), p["bias"][:, None])


def _positional(g, e, p, x, valid) -> str:
    k = e.positional_kernel
    how = {"kernel_shape": [k], "pads": [k // 2, (k - 1) // 2], "group": e.positional_groups}
    if e.positional_depth == 1:
        v = np.asarray(p["v"], np.float64)
        kernel = v * (p["g"] / np.sqrt(np.square(v).sum((1, 2), keepdims=True)))
        x = ops.conv(g, {"kernel": kernel.astype(np.float32), "bias": p["bias"]}, ops.transposed(g, x), **how)
        return ops.gelu(g, ops.transposed(g, x))
    for j in range(e.positional_depth):
        x = g("Where", valid, x, 0.0) if j else x
        x = ops.transposed(g, ops.conv(g, p[f"conv_{j}"], ops.transposed(g, x), **how))
        x = ops.gelu(g, ops.layer_norm(g, None, x, layers.CONV_NORM_EPS, e.width))
    return x


def _with_tokens(g, tokens, x) -> str:
    shape = g("Concat", g.size(x, 0), [1, 1], axis=0)
    return g("Concat", g("Expand", np.asarray(tokens)[None], shape), x, axis=1)


def _layer(p: Mapping[str, Any], k: int) -> dict[str, Any]:
    """The parameters of block k, which lie stacked."""
    return {name: _layer(x, k) if isinstance(x, Mapping) else np.asarray(x)[k] for name, x in p.items()}


def _block(g, e, p, x, mask, bias) -> str:
    def attend(x):
        return _attention(g, e, p["attention"], x, mask, bias)

    def mlp(x):
        return ops.linear(g, p["mlp_out"], ops.gelu(g, ops.linear(g, p["mlp_in"], x)))

    def norm(name, x):
        return ops.layer_norm(g, p[name], x, e.norm_eps, e.width)

    if e.norm_first:
        x = g("Add", x, attend(norm("attention_norm", x)))
        return g("Add", x, mlp(norm("mlp_norm", x)))
    x = norm("attention_norm", g("Add", x, attend(x)))
    return norm("mlp_norm", g("Add", x, mlp(x)))


def _attention(g, e, p, x, mask, bias) -> str:
    """softmax(q k' / sqrt(d / h) + gate * bias) v, over the keys of `mask` [b, 1, 1, t]."""

    def split(name, perm):
        return g("Transpose", g("Reshape", ops.linear(g, p[name], x), [0, 0, e.heads, e.head_width]), perm=perm)

    query, value = split("query", [0, 2, 1, 3]), split("value", [0, 2, 1, 3])
    scores = g("MatMul", g("Mul", query, e.head_width**-0.5), split("key", [0, 2, 3, 1]))
    if bias is not None:
        gated = g("Mul", bias, _gate(g, e, p, x)) if "relative_gate" in p else bias
        scores = g("Add", scores, gated)
    out = g("MatMul", ops.masked_softmax(g, scores, mask), value)
    out = g("Reshape", g("Transpose", out, perm=[0, 2, 1, 3]), [0, 0, e.width])
    return ops.linear(g, p["out"], out)


def _gate(g, e, p, x) -> str:
    """[b, h, t, 1], as `wavlm.relative_gate`."""
    gates = ops.linear(g, p["relative_gate"], g("Reshape", x, [0, 0, e.heads, e.head_width]))
    gates = g("Sigmoid", g("ReduceSum", g("Reshape", gates, [0, 0, e.heads, 2, 4]), [4], keepdims=0))
    first, second = (g("Gather", gates, k, axis=3) for k in (0, 1))
    gate = g("Add", g("Mul", first, g("Sub", g("Mul", second, p["relative_scale"]), 1.0)), 2.0)
    return g("Unsqueeze", g("Transpose", gate, perm=[0, 2, 1]), [3])


def _position_bias(g, family, config, p, t) -> str | None:
    """[h, t, t], added to the scores of every block; None in families without."""
    if family not in ("wavlm", "emotion2vec"):
        return None
    place = g.count_up(t)
    offset = g("Sub", g("Unsqueeze", place, [0]), g("Unsqueeze", place, [1]))  # key minus query
    if family == "wavlm":
        # Keys at `relative_distance` or further away share a bucket, so that one table serves every length
        far = config.relative_distance
        bucket = wavlm.distance_buckets(far + 1, config.relative_buckets, far)
        table = np.asarray(p["relative_bias"]["embedding"])[bucket]
        bias = g("Gather", table, g("Add", g("Clip", offset, -far, far), far), axis=0)
        return g("Transpose", bias, perm=[2, 0, 1])
    scale = np.maximum(p["alibi_scale"], 0) * emotion2vec.slopes(config.encoder.heads)
    bias = g("Mul", g.floats(g("Unsqueeze", g("Abs", offset), [0])), -scale.astype(np.float32)[:, None, None])
    tokens = config.extra_tokens
    return g("Pad", bias, [0, tokens, tokens, 0, 0, 0], 0.0)
