"""Where each parameter lives in our tree, in fairseq and in transformers: one table per family, for both directions."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from voc2vec_jax import errors

HF_PREFIXES = {"wav2vec2": "wav2vec2", "hubert": "hubert", "wavlm": "wavlm", "data2vec": "data2vec_audio"}
_SPELLINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "own": (),
    "hf": (
        ("mask_time_emb_vector", "masked_spec_embed"),
        (".weight_g", ".parametrizations.weight.original0"),
        (".weight_v", ".parametrizations.weight.original1"),
    ),
    "fairseq": (
        (".parametrizations.weight.original0", ".weight_g"),
        (".parametrizations.weight.original1", ".weight_v"),
    ),
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


@dataclasses.dataclass(frozen=True)
class Transform:
    """Turns a stored array into ours and back, without copying."""

    axes: tuple[int, ...] = ()  # a permutation that is its own inverse
    singletons: tuple[int, ...] = ()  # axes of length one that only the stored array has

    def to_ours(self, stored: np.ndarray) -> np.ndarray:
        array = stored.transpose(self.axes) if self.axes else stored
        return np.squeeze(array, self.singletons) if self.singletons else array

    def to_theirs(self, ours: np.ndarray) -> np.ndarray:
        array = np.expand_dims(ours, self.singletons) if self.singletons else ours
        return array.transpose(self.axes) if self.axes else array


SAME = Transform()
LINEAR = Transform(axes=(1, 0))
CONV = Transform(axes=(2, 1, 0))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our parameters: its path, its shape (of one layer when stacked) and its names elsewhere.

    A stacked parameter has one name per layer. With `part` (k, n) it is the k-th of n equal parts of the stored array
    along its first axis. A source may lack a parameter that is not `needed`.
    """

    ours: str
    shape: tuple[int, ...]
    fairseq: tuple[str, ...]
    hf: tuple[str, ...]
    transform: Transform = SAME
    stacked: bool = False
    part: tuple[int, int] = (0, 1)
    needed: bool = True

    def names(self, layout: str, prefix: str = "") -> tuple[str, ...]:
        """The names in "fairseq" or "hf". transformers puts `prefix` before names of the encoder, not of heads."""
        names = self.fairseq if layout == "fairseq" else self.hf
        return tuple(prefix + name for name in names) if self.ours.startswith("encoder/") else names

    def own(self) -> "Entry":
        """The entry in our own file layout: the path with dots, and the array unchanged."""
        name = (self.ours.replace("/", "."),)
        return Entry(self.ours, self.full_shape, name, name, needed=self.needed and bool(self.fairseq or self.hf))

    @property
    def stored_shape(self) -> tuple[int, ...]:
        ours = np.broadcast_to(np.float32(0), self.shape)
        first, *rest = self.transform.to_theirs(ours).shape
        return (first * self.part[1], *rest)

    @property
    def full_shape(self) -> tuple[int, ...]:
        depth = len(self.fairseq or self.hf)
        return (depth, *self.shape) if self.stacked else self.shape


_KINDS = {  # kind -> (our leaf, stored leaf, transform, how its shape follows from the module's sizes)
    "linear": (("kernel", "weight", LINEAR, lambda s: s), ("bias", "bias", SAME, lambda s: s[1:])),
    "norm": (("scale", "weight", SAME, lambda s: s), ("bias", "bias", SAME, lambda s: s)),
    "conv": (("kernel", "weight", CONV, lambda s: s), ("bias", "bias", SAME, lambda s: s[2:])),
    "bare conv": (("kernel", "weight", CONV, lambda s: s),),
    "normed conv": (
        ("g", "weight_g", CONV, lambda s: (s[0], 1, 1)),
        ("v", "weight_v", CONV, lambda s: s),
        ("bias", "bias", SAME, lambda s: s[2:]),
    ),
}


def _module(kind: str, ours: str, fairseq: str | None, hf: str | None, *sizes: int, **options: Any) -> Iterator[Entry]:
    """The entries of one module; None marks a layout without it."""
    for leaf, stored, transform, shape in _KINDS[kind]:
        names = [(f"{stem}.{stored}",) if stem is not None else () for stem in (fairseq, hf)]
        hf_names = tuple(spell(name, "hf") for name in names[1])
        yield Entry(f"{ours}/{leaf}", shape(sizes), names[0], hf_names, transform, **options)


def _stacked(entries: Iterable[Entry], fairseq: Iterable[str], hf: Iterable[str]) -> Iterator[Entry]:
    """Entries of one block, with the stored names of every block, each behind its layer's stem."""
    fairseq, hf = tuple(fairseq), tuple(hf)
    for entry in entries:
        yield dataclasses.replace(
            entry,
            ours=f"encoder/layers/{entry.ours}",
            fairseq=tuple(f"{stem}.{name}" for stem in fairseq for name in entry.fairseq),
            hf=tuple(f"{stem}.{name}" for stem in hf for name in entry.hf),
            stacked=True,
        )


def _conv_stem(e: Any, fairseq: str = "feature_extractor") -> Iterator[Entry]:
    inputs = (1, *e.conv_channels[:-1])
    for i, (kernel, source, target) in enumerate(zip(e.conv_kernels, inputs, e.conv_channels)):
        theirs, hf = f"{fairseq}.conv_layers.{i}", f"feature_extractor.conv_layers.{i}"
        ours = "encoder/conv_stem"
        kind = "conv" if e.conv_bias else "bare conv"
        yield from _module(kind, f"{ours}/conv_{i}", f"{theirs}.0", f"{hf}.conv", kernel, source, target)
        if e.conv_norm == "layer":
            yield from _module("norm", f"{ours}/norm_{i}", f"{theirs}.2.1", f"{hf}.layer_norm", target)
        elif i == 0:
            yield from _module("norm", f"{ours}/norm_{i}", f"{theirs}.2", f"{hf}.layer_norm", target)


def _positional(e: Any, fairseq: str = "encoder.pos_conv", first: int = 0) -> Iterator[Entry]:
    sizes = (e.positional_kernel, e.width // e.positional_groups, e.width)
    ours, hf = "encoder/positional_conv", "encoder.pos_conv_embed"
    if e.positional_depth == 1:
        yield from _module("normed conv", ours, f"{fairseq}.0", f"{hf}.conv", *sizes)
        return
    for j in range(e.positional_depth):
        yield from _module("conv", f"{ours}/conv_{j}", f"{fairseq}.{j + first}.0", f"{hf}.layers.{j}.conv", *sizes)


def _block(e: Any) -> Iterator[Entry]:
    d, f = e.width, e.inner_width
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        yield from _module("linear", f"attention/{ours}", f"self_attn.{theirs}", f"attention.{theirs}", d, d)
    yield from _module("norm", "attention_norm", "self_attn_layer_norm", "layer_norm", d)
    yield from _module("linear", "mlp_in", "fc1", "feed_forward.intermediate_dense", d, f)
    yield from _module("linear", "mlp_out", "fc2", "feed_forward.output_dense", f, d)
    yield from _module("norm", "mlp_norm", "final_layer_norm", "final_layer_norm", d)


def _encoder(e: Any, block: Iterable[Entry]) -> Iterator[Entry]:
    channels = e.conv_channels[-1]
    layers = [f"encoder.layers.{n}" for n in range(e.depth)]
    yield Entry("encoder/mask_embedding", (e.width,), ("mask_emb",), ("masked_spec_embed",), needed=False)
    yield from _conv_stem(e)
    yield from _module("norm", "encoder/feature_norm", "layer_norm", "feature_projection.layer_norm", channels)
    project = "encoder/feature_projection"
    yield from _module("linear", project, "post_extract_proj", "feature_projection.projection", channels, e.width)
    yield from _positional(e)
    yield from _module("norm", "encoder/norm", "encoder.layer_norm", "encoder.layer_norm", e.width)
    yield from _stacked(block, layers, layers)


def _base(c: Any) -> Iterator[Entry]:
    return _encoder(c.encoder, _block(c.encoder))


def _wav2vec2(c: Any) -> Iterator[Entry]:
    e, optional = c.encoder, {"needed": False}
    codes = c.codebook_groups * c.codebook_entries
    yield from _encoder(e, _block(e))
    book = (codes, c.codebook_width // c.codebook_groups)
    yield Entry(
        "quantizer/codebook",
        book,
        ("quantizer.vars",),
        ("quantizer.codevectors",),
        Transform(singletons=(0,)),
        **optional,
    )
    logits = "quantizer.weight_proj"
    yield from _module("linear", "quantizer/logits", logits, logits, e.conv_channels[-1], codes, **optional)
    project = "project_quantized"
    yield from _module("linear", project, "project_q", "project_q", c.codebook_width, c.target_width, **optional)
    yield from _module("linear", "project_context", "final_proj", "project_hid", e.width, c.target_width, **optional)


def _hubert(c: Any) -> Iterator[Entry]:
    e, optional = c.encoder, {"needed": False}
    yield from _base(c)
    yield Entry("label_embeddings", (c.classes, c.target_width), ("label_embs_concat",), (), **optional)
    yield from _module("linear", "project_context", "final_proj", None, e.width, c.target_width, **optional)


def _wavlm(c: Any) -> Iterator[Entry]:
    e = c.encoder
    gate = _module(
        "linear",
        "attention/relative_gate",
        "self_attn.grep_linear",
        "attention.gru_rel_pos_linear",
        e.width // e.heads,
        8,
    )
    scale = Entry(
        "attention/relative_scale",
        (e.heads,),
        ("self_attn.grep_a",),
        ("attention.gru_rel_pos_const",),
        Transform(singletons=(0, 2, 3)),
    )
    yield from _encoder(e, [*_block(e), *gate, scale])
    yield Entry(
        "encoder/relative_bias/embedding",
        (c.relative_buckets, e.heads),
        ("encoder.layers.0.self_attn.relative_attention_bias.weight",),
        ("encoder.layers.0.attention.rel_attn_embed.weight",),
    )


def _emotion2vec(c: Any) -> Iterator[Entry]:
    e, audio = c.encoder, "modality_encoders.AUDIO"
    channels = e.conv_channels[-1]
    yield from _conv_stem(e, f"{audio}.local_encoder")
    yield from _module("norm", "encoder/feature_norm", f"{audio}.project_features.1", None, channels)
    project = f"{audio}.project_features.2"
    yield from _module("linear", "encoder/feature_projection", project, None, channels, e.width)
    yield from _positional(e, f"{audio}.relative_positional_encoder", first=1)
    tokens, slopes = Transform(singletons=(0,)), Transform(singletons=(0, 1, 3, 4))
    yield Entry("encoder/extra_tokens", (c.extra_tokens, e.width), (f"{audio}.extra_tokens",), (), tokens)
    yield Entry("encoder/alibi_scale", (e.heads,), (f"{audio}.alibi_scale",), (), slopes)
    yield from _module("norm", "encoder/norm", f"{audio}.context_encoder.norm", None, e.width)
    layers = [f"{audio}.context_encoder.blocks.{n}" for n in range(c.prenet_depth)]
    layers += [f"blocks.{n}" for n in range(e.depth - c.prenet_depth)]
    yield from _stacked(_fused_block(e), layers, ())


def _fused_block(e: Any) -> Iterator[Entry]:
    """Query, key and value are thirds of one projection."""
    d, f = e.width, e.inner_width
    for k, ours in enumerate(("query", "key", "value")):
        yield from _module("linear", f"attention/{ours}", "attn.qkv", None, d, d, part=(k, 3))
    yield from _module("linear", "attention/out", "attn.proj", None, d, d)
    yield from _module("norm", "attention_norm", "norm1", None, d)
    yield from _module("linear", "mlp_in", "mlp.fc1", None, d, f)
    yield from _module("linear", "mlp_out", "mlp.fc2", None, f, d)
    yield from _module("norm", "mlp_norm", "norm2", None, d)


def _head(config: Any, head: Any) -> Iterator[Entry]:
    yield from _module("linear", "head/projector", None, "projector", config.encoder.width, head.width)
    yield from _module("linear", "head/classifier", None, "classifier", head.width, head.classes)
    if head.layer_sum:
        yield Entry("head/layer_weights", (config.encoder.depth + 1,), (), ("layer_weights",))
    if head.pooling == "attention":
        yield Entry("head/query", (head.width,), (), ())


_TABLES = {"wav2vec2": _wav2vec2, "hubert": _hubert, "wavlm": _wavlm, "data2vec": _base, "emotion2vec": _emotion2vec}
FAMILIES = tuple(_TABLES)


def table(family: str, config: Any, head: Any = None) -> tuple[Entry, ...]:
    """Every parameter of a family's model under `config`, and of a classification head (a `heads.Config`) beside it."""
    return (*_TABLES[family](config), *(_head(config, head) if head else ()))


def spell(name: str, layout: str) -> str:
    """A stored name as the tables of `layout` spell it."""
    for old, new in _SPELLINGS[layout]:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def reason_unused(name: str, layout: str) -> str | None:
    """Why we leave out a stored tensor that has no place in our tree, or None if nothing explains it."""
    return next((reason for pattern, reason in _UNUSED[layout] if re.search(pattern, name)), None)


def fill(
    entries: Iterable[Entry], tensors: Mapping[str, Any], layout: str, prefix: str, origin: str
) -> tuple[dict[str, np.ndarray], list[str], set[str]]:
    """Our parameters (flat, float32) from stored tensors: (parameters, paths that the source lacks, names used).

    `tensors` have `shape`, `dtype` and `read()`, and are read one at a time. Raises InputError if a tensor is
    missing that every model of the family has, or has the wrong shape or kind of number.
    """
    filled: dict[str, np.ndarray] = {}
    missing: list[str] = []
    used: set[str] = set()
    absent: list[str] = []
    for entry in entries:
        names = entry.names(layout, prefix)
        lacking = [name for name in names if name not in tensors]
        if lacking or not names:
            absent += lacking if entry.needed or len(lacking) < len(names) else []
            missing.append(entry.ours)
            continue
        used.update(names)
        if not absent:
            filled[entry.ours] = _gather(entry, [tensors[name] for name in names], names, origin)
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise errors.InputError(f"{origin} lacks the tensors {', '.join(absent[:3])}{more} that its config calls for")
    return filled, missing, used


def _gather(entry: Entry, tensors: list[Any], names: tuple[str, ...], origin: str) -> np.ndarray:
    for tensor, name in zip(tensors, names):
        if tuple(tensor.shape) != entry.stored_shape:
            raise errors.InputError(
                f"{origin}: tensor {name} has shape {tuple(tensor.shape)} where its config calls for "
                f"{entry.stored_shape}"
            )
        if tensor.dtype.kind not in "fV" or tensor.dtype.names:
            raise errors.InputError(f"{origin}: tensor {name} holds {tensor.dtype} where floating point is needed")
    array = np.empty(entry.full_shape, np.float32)
    for target, tensor in zip(array if entry.stacked else [array], tensors):
        stored = tensor.read()
        size = stored.shape[0] // entry.part[1]
        target[...] = entry.transform.to_ours(stored[entry.part[0] * size : (entry.part[0] + 1) * size])
    return array


def spread(
    entries: Iterable[Entry], filled: Mapping[str, np.ndarray], layout: str, prefix: str
) -> dict[str, np.ndarray]:
    """The inverse of `fill`: stored name -> array (a view where possible). Absent parameters are left out."""
    stored: dict[str, list[np.ndarray]] = {}
    for entry in entries:
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
