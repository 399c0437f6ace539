"""Where each parameter lies elsewhere, written out: parameters of one shape could change places unseen.

A round trip would not tell them apart, and only some tests of numbers would, since they need a model of transformers.
"""

import dataclasses

import checkpoints
import numpy as np
import pytest

from voc2vec_jax import models
from voc2vec_jax.convert import names
from voc2vec_jax.models import heads

# Of a block: our module, fairseq's, transformers'. Linear layers and norms of one shape stand side by side.
BLOCK = {
    "attention/query": ("self_attn.q_proj", "attention.q_proj"),
    "attention/key": ("self_attn.k_proj", "attention.k_proj"),
    "attention/value": ("self_attn.v_proj", "attention.v_proj"),
    "attention/out": ("self_attn.out_proj", "attention.out_proj"),
    "attention_norm": ("self_attn_layer_norm", "layer_norm"),
    "mlp_in": ("fc1", "feed_forward.intermediate_dense"),
    "mlp_out": ("fc2", "feed_forward.output_dense"),
    "mlp_norm": ("final_layer_norm", "final_layer_norm"),
}
GATE = {"attention/relative_gate": ("self_attn.grep_linear", "attention.gru_rel_pos_linear")}
WHISPER = {
    "attention/query": (None, "self_attn.q_proj"),
    "attention/key": (None, "self_attn.k_proj"),
    "attention/value": (None, "self_attn.v_proj"),
    "attention/out": (None, "self_attn.out_proj"),
    "attention_norm": (None, "self_attn_layer_norm"),
    "mlp_in": (None, "fc1"),
    "mlp_out": (None, "fc2"),
    "mlp_norm": (None, "final_layer_norm"),
}
EMOTION2VEC = {
    "attention/query": ("attn.qkv", None),
    "attention/key": ("attn.qkv", None),
    "attention/value": ("attn.qkv", None),
    "attention/out": ("attn.proj", None),
    "attention_norm": ("norm1", None),
    "mlp_in": ("mlp.fc1", None),
    "mlp_out": ("mlp.fc2", None),
    "mlp_norm": ("norm2", None),
}
BLOCKS = dict.fromkeys(("wav2vec2", "hubert", "data2vec"), BLOCK)
BLOCKS |= {"wavlm": BLOCK | GATE, "whisper": WHISPER, "emotion2vec": EMOTION2VEC}
# Outside the blocks
WHOLE = {
    "encoder/norm": ("encoder.layer_norm", "encoder.layer_norm"),
    "encoder/feature_norm": ("layer_norm", "feature_projection.layer_norm"),
    "encoder/feature_projection": ("post_extract_proj", "feature_projection.projection"),
}
WAV2VEC2 = {"project_quantized": ("project_q", "project_q"), "project_context": ("final_proj", "project_hid")}
HUBERT = {"project_context": ("final_proj", None)}
PRENET = 2  # of the blocks of `small_config("emotion2vec")`, those in the context encoder


def stem(family: str, layer: int) -> str:
    """What fairseq writes before a block's names; transformers writes the same, if it has the family."""
    if family != "emotion2vec":
        return f"encoder.layers.{layer}."
    prenet = f"modality_encoders.AUDIO.context_encoder.blocks.{layer}."
    return prenet if layer < PRENET else f"blocks.{layer - PRENET}."


def small(family: str):
    config = checkpoints.small_config(family)
    return dataclasses.replace(config, prenet_depth=PRENET) if family == "emotion2vec" else config


@pytest.mark.parametrize("family", models.FAMILIES)
def test_every_module_of_a_block_has_its_name(family):
    depth = small(family).encoder.depth
    rows = {entry.ours: entry for entry in names.table(family, small(family)) if entry.stacked}
    found = {}
    for ours, row in rows.items():
        path, leaf = ours.removeprefix("encoder/layers/").rsplit("/", 1)
        if leaf in ("kernel", "scale"):
            found[path] = (row.fairseq, row.hf)
        elif leaf == "bias" and path in found:  # beside its weight
            weight = [tuple(name.removesuffix("weight") + "bias" for name in one) for one in found[path]]
            assert [row.fairseq, row.hf] == weight
    wanted = {
        path: tuple(
            () if name is None else tuple(f"{stem(family, k)}{name}.weight" for k in range(depth)) for name in pair
        )
        for path, pair in BLOCKS[family].items()
    }
    assert found == wanted


@pytest.mark.parametrize("family, wanted", [("wav2vec2", WHOLE | WAV2VEC2), ("hubert", WHOLE | HUBERT)])
def test_modules_outside_the_blocks_have_their_names(family, wanted):
    rows = {entry.ours: entry for entry in names.table(family, small(family))}
    for ours, (fairseq, hf) in wanted.items():
        row = rows.get(f"{ours}/kernel") or rows[f"{ours}/scale"]
        assert row.fairseq == (f"{fairseq}.weight",)
        assert row.hf == (() if hf is None else (f"{hf}.weight",))


def test_the_modules_of_a_head_have_their_names():
    rows = {e.ours: e.hf for e in names.table("hubert", small("hubert"), heads.Config(5, 7, layer_sum=True))}
    assert rows["head/projector/kernel"] == ("projector.weight",)
    assert rows["head/classifier/kernel"] == ("classifier.weight",)
    assert rows["head/layer_weights"] == ("layer_weights",)


class Stored:
    """A tensor in a file."""

    def __init__(self, array):
        self.read, self.shape, self.dtype = lambda: array, array.shape, array.dtype


def test_thirds_of_one_projection_are_query_key_and_value_in_this_order():
    wanted = [e for e in names.table("emotion2vec", small("emotion2vec")) if "/attention/" in e.ours]
    tensors, width = {}, small("emotion2vec").encoder.width
    for number, name in enumerate(sorted({name for entry in wanted for name in entry.fairseq})):
        rows = wanted[0].stored_shape[0] if "qkv" in name else width
        shape = (rows, width) if name.endswith("weight") else (rows,)
        tensors[name] = Stored(np.arange(number * 1e4, number * 1e4 + np.prod(shape), dtype=np.float32).reshape(shape))
    filled, missing, _ = names.fill(wanted, tensors, "fairseq", "", "x")
    assert not missing
    for layer in (0, PRENET):
        qkv = tensors[f"{stem('emotion2vec', layer)}attn.qkv.weight"].read()
        for third, name in enumerate(("query", "key", "value")):
            kernel = filled[f"encoder/layers/attention/{name}/kernel"][layer]
            np.testing.assert_array_equal(kernel, qkv[third * width : (third + 1) * width].T)
