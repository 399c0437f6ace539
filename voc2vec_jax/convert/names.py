"""Where each parameter lives in our tree, in fairseq and in transformers: one table per family, for both directions."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import entries, wrapping

# What transformers puts before an encoder's names beside an output layer, Whisper's classifier excepted
HF_PREFIXES = {
    "wav2vec2": "wav2vec2",
    "hubert": "hubert",
    "wavlm": "wavlm",
    "data2vec": "data2vec_audio",
    "whisper": "model",
}
_UNUSED: dict[str, tuple[tuple[str, str], ...]] = {
    "own": (),
    "hf": (
        (r"^lm_head\.", "output layer of speech recognition"),
        (r"^(projector|classifier|layer_weights|tdnn|objective)\b", "head of another task than classifying clips"),
        (r"^feature_extractor\.(weight|bias)$", "head of another task than classifying clips"),
    ),
    "fairseq": (
        (r"^_ema", "exponential moving average of the teacher"),
        (r"\.decoder\.|^decoder\.", "decoder of the pre-training objective"),
        (r"^(final_proj|recon_proj|cls_head|shared_decoder)\b", "output layer of a pre-training objective"),
        (r"^(target_glu|input_quantizer|project_inp)\b", "part of a pre-training objective that is not built here"),
        (r"^(w2v_encoder\.)?proj\.", "output layer"),
    ),
}
_UNUSED_OF_WHISPER = (
    (r"^(model\.)?decoder\.", "decoder, and only the encoder is built here"),
    (r"^proj_out\.", "output layer of the decoder"),
)


def _conv_stem(e: Any, fairseq: str = "feature_extractor") -> Iterator[entries.Entry]:
    inputs = (1, *e.conv_channels[:-1])
    for i, (kernel, source, target) in enumerate(zip(e.conv_kernels, inputs, e.conv_channels)):
        theirs, hf = f"{fairseq}.conv_layers.{i}", f"feature_extractor.conv_layers.{i}"
        ours = "encoder/conv_stem"
        kind = "conv" if e.conv_bias else "bare conv"
        yield from entries.module(kind, f"{ours}/conv_{i}", f"{theirs}.0", f"{hf}.conv", kernel, source, target)
        if e.conv_norm == "layer":
            yield from entries.module("norm", f"{ours}/norm_{i}", f"{theirs}.2.1", f"{hf}.layer_norm", target)
        elif i == 0:
            yield from entries.module("norm", f"{ours}/norm_{i}", f"{theirs}.2", f"{hf}.layer_norm", target)


def _positional(e: Any, fairseq: str = "encoder.pos_conv", first: int = 0) -> Iterator[entries.Entry]:
    sizes = (e.positional_kernel, e.width // e.positional_groups, e.width)
    ours, hf = "encoder/positional_conv", "encoder.pos_conv_embed"
    if e.positional_depth == 1:
        yield from entries.module("normed conv", ours, f"{fairseq}.0", f"{hf}.conv", *sizes)
        return
    for j in range(e.positional_depth):
        yield from entries.module(
            "conv", f"{ours}/conv_{j}", f"{fairseq}.{j + first}.0", f"{hf}.layers.{j}.conv", *sizes
        )


def _block(e: Any) -> Iterator[entries.Entry]:
    d, f = e.width, e.inner_width
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        yield from entries.module("linear", f"attention/{ours}", f"self_attn.{theirs}", f"attention.{theirs}", d, d)
    yield from entries.module("norm", "attention_norm", "self_attn_layer_norm", "layer_norm", d)
    yield from entries.module("linear", "mlp_in", "fc1", "feed_forward.intermediate_dense", d, f)
    yield from entries.module("linear", "mlp_out", "fc2", "feed_forward.output_dense", f, d)
    yield from entries.module("norm", "mlp_norm", "final_layer_norm", "final_layer_norm", d)


def _encoder(e: Any, block: Iterable[entries.Entry]) -> Iterator[entries.Entry]:
    channels = e.conv_channels[-1]
    layers = [f"encoder.layers.{n}" for n in range(e.depth)]
    yield entries.Entry("encoder/mask_embedding", (e.width,), ("mask_emb",), ("masked_spec_embed",), needed=False)
    yield from _conv_stem(e)
    if e.feature_norm:
        feature_norm = "layer_norm", "feature_projection.layer_norm"
        yield from entries.module("norm", "encoder/feature_norm", *feature_norm, channels)
    project = "encoder/feature_projection"
    yield from entries.module(
        "linear", project, "post_extract_proj", "feature_projection.projection", channels, e.width
    )
    yield from _positional(e)
    yield from entries.module("norm", "encoder/norm", "encoder.layer_norm", "encoder.layer_norm", e.width)
    yield from entries.stacked(block, layers, layers)


def _base(c: Any) -> Iterator[entries.Entry]:
    return _encoder(c.encoder, _block(c.encoder))


def _wav2vec2(c: Any) -> Iterator[entries.Entry]:
    e, optional = c.encoder, {"needed": False}
    codes = c.codebook_groups * c.codebook_entries
    yield from _encoder(e, _block(e))
    book = (codes, c.codebook_width // c.codebook_groups)
    yield entries.Entry(
        "quantizer/codebook",
        book,
        ("quantizer.vars",),
        ("quantizer.codevectors",),
        entries.Transform(singletons=(0,)),
        **optional,
    )
    logits = "quantizer.weight_proj"
    yield from entries.module("linear", "quantizer/logits", logits, logits, e.conv_channels[-1], codes, **optional)
    project = "project_quantized"
    yield from entries.module("linear", project, "project_q", "project_q", c.codebook_width, c.target_width, **optional)
    yield from entries.module(
        "linear", "project_context", "final_proj", "project_hid", e.width, c.target_width, **optional
    )


def _hubert(c: Any) -> Iterator[entries.Entry]:
    e, optional = c.encoder, {"needed": False}
    yield from _base(c)
    yield entries.Entry("label_embeddings", (c.classes, c.target_width), ("label_embs_concat",), (), **optional)
    yield from entries.module("linear", "project_context", "final_proj", None, e.width, c.target_width, **optional)


def _wavlm(c: Any) -> Iterator[entries.Entry]:
    e = c.encoder
    gate = entries.module(
        "linear",
        "attention/relative_gate",
        "self_attn.grep_linear",
        "attention.gru_rel_pos_linear",
        e.width // e.heads,
        8,
    )
    scale = entries.Entry(
        "attention/relative_scale",
        (e.heads,),
        ("self_attn.grep_a",),
        ("attention.gru_rel_pos_const",),
        entries.Transform(singletons=(0, 2, 3)),
    )
    yield from _encoder(e, [*_block(e), *gate, scale])
    yield entries.Entry(
        "encoder/relative_bias/embedding",
        (c.relative_buckets, e.heads),
        ("encoder.layers.0.self_attn.relative_attention_bias.weight",),
        ("encoder.layers.0.attention.rel_attn_embed.weight",),
    )


def _emotion2vec(c: Any) -> Iterator[entries.Entry]:
    e, audio = c.encoder, "modality_encoders.AUDIO"
    channels = e.conv_channels[-1]
    yield from _conv_stem(e, f"{audio}.local_encoder")
    yield from entries.module("norm", "encoder/feature_norm", f"{audio}.project_features.1", None, channels)
    project = f"{audio}.project_features.2"
    yield from entries.module("linear", "encoder/feature_projection", project, None, channels, e.width)
    yield from _positional(e, f"{audio}.relative_positional_encoder", first=1)
    tokens, slopes = entries.Transform(singletons=(0,)), entries.Transform(singletons=(0, 1, 3, 4))
    yield entries.Entry("encoder/extra_tokens", (c.extra_tokens, e.width), (f"{audio}.extra_tokens",), (), tokens)
    yield entries.Entry("encoder/alibi_scale", (e.heads,), (f"{audio}.alibi_scale",), (), slopes)
    yield from entries.module("norm", "encoder/norm", f"{audio}.context_encoder.norm", None, e.width)
    layers = [f"{audio}.context_encoder.blocks.{n}" for n in range(c.prenet_depth)]
    layers += [f"blocks.{n}" for n in range(e.depth - c.prenet_depth)]
    yield from entries.stacked(_fused_block(e), layers, ())


def _fused_block(e: Any) -> Iterator[entries.Entry]:
    """Query, key and value are thirds of one projection."""
    d, f = e.width, e.inner_width
    for k, ours in enumerate(("query", "key", "value")):
        yield from entries.module("linear", f"attention/{ours}", "attn.qkv", None, d, d, part=(k, 3))
    yield from entries.module("linear", "attention/out", "attn.proj", None, d, d)
    yield from entries.module("norm", "attention_norm", "norm1", None, d)
    yield from entries.module("linear", "mlp_in", "mlp.fc1", None, d, f)
    yield from entries.module("linear", "mlp_out", "mlp.fc2", None, f, d)
    yield from entries.module("norm", "mlp_norm", "norm2", None, d)


def _whisper(c: Any) -> Iterator[entries.Entry]:
    e, d, f = c.encoder, c.encoder.width, c.encoder.inner_width
    for i, channels in enumerate((e.mel_bands, d)):
        yield from entries.module("conv", f"encoder/conv_stem/conv_{i}", None, f"encoder.conv{i + 1}", 3, channels, d)
    yield entries.Entry("encoder/positions", (e.positions, d), (), ("encoder.embed_positions.weight",))
    yield from entries.module("norm", "encoder/norm", None, "encoder.layer_norm", d)
    block = []
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        kind = "bare linear" if ours == "key" else "linear"
        block += entries.module(kind, f"attention/{ours}", None, f"self_attn.{theirs}", d, d)
    for ours, theirs in (("attention_norm", "self_attn_layer_norm"), ("mlp_norm", "final_layer_norm")):
        block += entries.module("norm", ours, None, theirs, d)
    block += entries.module("linear", "mlp_in", None, "fc1", d, f)
    block += entries.module("linear", "mlp_out", None, "fc2", f, d)
    yield from entries.stacked(block, (), [f"encoder.layers.{n}" for n in range(e.depth)])


def _head(config: Any, head: Any) -> Iterator[entries.Entry]:
    yield from entries.module("linear", "head/projector", None, "projector", config.encoder.width, head.width)
    yield from entries.module("linear", "head/classifier", None, "classifier", head.width, head.classes)
    if head.layer_sum:
        yield entries.Entry("head/layer_weights", (config.encoder.depth + 1,), (), ("layer_weights",))
    if head.pooling == "attention":
        yield entries.Entry("head/query", (head.width,), (), ())


_TABLES = {
    "wav2vec2": _wav2vec2,
    "hubert": _hubert,
    "wavlm": _wavlm,
    "data2vec": _base,
    "emotion2vec": _emotion2vec,
    "whisper": _whisper,
}
FAMILIES = tuple(_TABLES)


def table(family: str, config: Any, head: Any = None) -> tuple[entries.Entry, ...]:
    """Every parameter of a family's model under `config`, and of a classification head (a `heads.Config`) beside it."""
    return (*_TABLES[family](config), *(_head(config, head) if head else ()))


def first_conv(family: str, config: Any, layout: str) -> str:
    """The name of the first convolution's weight, by which a model is found among other tensors."""
    return next(e for e in _TABLES[family](config) if e.ours == "encoder/conv_stem/conv_0/kernel").names(layout)[0]


def reason_unused(name: str, layout: str, family: str) -> str | None:
    """Why we leave out a stored tensor that has no place in our tree, or None if nothing explains it."""
    patterns = _UNUSED[layout] + (_UNUSED_OF_WHISPER if family == "whisper" else ())
    return next((reason for pattern, reason in patterns if re.search(pattern, name)), None)


def fill(
    wanted: Iterable[entries.Entry], tensors: Mapping[str, Any], layout: str, prefix: str, origin: str
) -> tuple[dict[str, np.ndarray], list[str], set[str]]:
    """Our parameters (flat, float32) from stored tensors: (parameters, paths that the source lacks, names used).

    `tensors` have `shape`, `dtype` and `read()`, and are read one at a time once all of them fit. Raises InputError if
    a tensor is missing that every model of the family has, or has the wrong shape or kind of number.
    """
    found: list[tuple[entries.Entry, tuple[str, ...]]] = []
    missing: list[str] = []
    used: set[str] = set()
    absent: list[str] = []
    for entry in wanted:
        names = entry.names(layout, prefix)
        lacking = [name for name in names if name not in tensors]
        if lacking or not names:
            absent += lacking if entry.needed or len(lacking) < len(names) else []
            missing.append(entry.ours)
            continue
        used.update(names)
        found.append((entry, names))
    if absent:
        held = "" if used else f"; those that it has are {wrapping.some(tensors)}"
        raise errors.InputError(f"{origin} lacks the tensors {wrapping.some(absent)} that its config calls for{held}")
    for entry, names in found:
        for name in names:
            _check_stored(entry, tensors[name], name, origin)
    return {entry.ours: _gather(entry, [tensors[name] for name in names]) for entry, names in found}, missing, used


def _check_stored(entry: entries.Entry, tensor: Any, name: str, origin: str) -> None:
    if tuple(tensor.shape) != entry.stored_shape:
        shape = printable.value(tuple(tensor.shape))
        raise errors.InputError(
            f"{origin}: tensor {printable.name(name)} has shape {shape} where its config calls for {entry.stored_shape}"
        )
    if tensor.dtype.kind not in "fV" or tensor.dtype.names:
        raise errors.InputError(f"{origin}: tensor {name} holds {tensor.dtype} where floating point is needed")


def _gather(entry: entries.Entry, tensors: list[Any]) -> np.ndarray:
    array = np.empty(entry.full_shape, np.float32)
    for target, tensor in zip(array if entry.stacked else [array], tensors):
        stored = tensor.read()
        size = stored.shape[0] // entry.part[1]
        target[...] = entry.transform.to_ours(stored[entry.part[0] * size : (entry.part[0] + 1) * size])
    return array


def check_finite(filled: Mapping[str, np.ndarray], origin: str) -> None:
    """Raises InputError for the first parameter with NaN or infinity, and says how many there are."""
    with np.errstate(over="ignore", invalid="ignore"):  # a sum is finite only if all are, and needs no other memory
        doubtful = [name for name, array in filled.items() if not np.isfinite(np.sum(array))]
    counted = {name: int(np.size(filled[name]) - np.isfinite(filled[name]).sum()) for name in doubtful}
    found = {name: count for name, count in counted.items() if count}
    if found:
        first, count = next(iter(found.items()))
        more = f" and {errors.counted(len(found) - 1, 'other')} too" if len(found) > 1 else ""
        raise errors.InputError(
            f"{origin}: {first} holds NaN or infinity ({count:,} of {np.size(filled[first]):,} numbers){more}: take "
            "another model or step, or look at it with voc2vec convert --allow_nonfinite"
        )


def spread(
    wanted: Iterable[entries.Entry], filled: Mapping[str, np.ndarray], layout: str, prefix: str
) -> dict[str, np.ndarray]:
    """The inverse of `fill`: stored name -> array (a view where possible). Absent parameters are left out."""
    stored: dict[str, list[np.ndarray]] = {}
    for entry in wanted:
        names = entry.names(layout, prefix)
        if entry.ours not in filled:
            if entry.needed and names:
                raise errors.InputError(f"the parameters lack {entry.ours}, which every model of this kind has")
            continue
        array = np.asarray(filled[entry.ours], np.float32)
        if array.shape != entry.full_shape:
            raise errors.InputError(
                f"parameter {entry.ours} has shape {array.shape} where its config calls for {entry.full_shape}"
            )
        for name, layer in zip(names, array if entry.stacked else [array]):
            stored.setdefault(name, []).append(entry.transform.to_theirs(layer))
    return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in stored.items()}


def flatten(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{above}{key}/") if isinstance(value, Mapping) else {f"{above}{key}": value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *above, leaf = path.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree
