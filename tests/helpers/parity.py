"""Random-weight models of transformers and what they compute, beside the same models read here."""

import copy
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from voc2vec_jax import models
from voc2vec_jax.convert import reader

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)

# Compiling costs far more than running models this small.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
SAMPLES = 4000
LENGTHS = (SAMPLES, 2345)
NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
STEM = {"conv_dim": [16] * 7}
SHORT_STEM = {
    "conv_dim": [16, 24, 16],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3,
}
COARSE_STEM = {"conv_dim": [8, 12], "conv_kernel": [16, 7], "conv_stride": [8, 5], "num_feat_extract_layers": 2}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
PRE_NORM = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True, "num_hidden_layers": 3}
ODD = {
    "hidden_size": 42,
    "num_attention_heads": 3,
    "num_hidden_layers": 5,
    "intermediate_size": 50,
    "layer_norm_eps": 1e-3,
}
ODD_POSITIONS = {"num_conv_pos_embeddings": 9, "num_conv_pos_embedding_groups": 7}
CONFIGS = {
    "base": NARROW | STEM | POSITIONS,
    "large": NARROW | SHORT_STEM | POSITIONS | PRE_NORM,
    "odd sizes": ODD | SHORT_STEM | ODD_POSITIONS,
    "other strides": NARROW | COARSE_STEM | POSITIONS,
}


def random_model(kind: type, config) -> torch.nn.Module:
    """A transformers model in which no scale is one, no bias zero and no two rows of a table alike."""
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def read(model: torch.nn.Module, folder: pathlib.Path, padding: str = "legacy") -> reader.ModelWeights:
    """The model through a folder that transformers wrote."""
    model.save_pretrained(folder)
    source = reader.read(folder)
    encoder = dataclasses.replace(source.config.encoder, padding=padding)
    return dataclasses.replace(source, config=dataclasses.replace(source.config, encoder=encoder))


def random_parameters(module) -> dict:
    """Parameters of a module of ours in which no scale is one, no bias zero and no two rows of a table alike."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, SAMPLES)), jnp.array([SAMPLES]))["params"]
    rng = np.random.default_rng(0)
    ones = ("scale", "g", "alibi_scale")

    def draw(path, leaf):
        return (path[-1].key in ones) + rng.normal(scale=0.2, size=leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def clips(lengths: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Noise of these lengths, padded with zeros to the longest."""
    audio = np.random.default_rng(seed).normal(size=(len(lengths), max(lengths))).astype(np.float32)
    return audio * (np.arange(audio.shape[1])[None] < np.array(lengths)[:, None])


def attention_mask(lengths: tuple[int, ...]) -> torch.Tensor:
    return (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()


def reference(model, audio: np.ndarray, lengths: tuple[int, ...] | None):
    """What transformers computes; with lengths, from an attention mask."""
    given = {} if lengths is None else {"attention_mask": attention_mask(lengths)}
    return model(torch.tensor(audio), output_hidden_states=True, **given)


def reference_gradients(model, outputs, weights: np.ndarray, folder: pathlib.Path) -> dict:
    """Gradients of the mean of the last frames times `weights`, in our tree: read like the parameters themselves."""
    model.zero_grad()
    (outputs.last_hidden_state * torch.tensor(weights)).mean().backward()
    gradients = copy.deepcopy(model)
    with torch.no_grad():
        for into, parameter in zip(gradients.parameters(), model.parameters()):
            into.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return read(gradients, folder).params


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def forward_and_gradients(family: str, config, params, audio, lengths, weights):
    """(last frames, hidden states), gradients of the mean of the last frames times `weights`."""

    def loss(params):
        model = models.FAMILIES[family].Model(config)
        x, out = model.apply({"params": params}, audio, lengths, collect=True)
        return (x * weights).mean(), (x, out["hidden_states"])

    (_, outputs), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return outputs, gradients


def assert_gradients_agree(ours: dict, theirs: dict):
    """Within 1e-3 of the reference's norm, and 1e-6 absolutely where that is below 1e-5."""
    flat = jax.tree_util.tree_leaves_with_path(theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, reference), gradient in zip(flat, jax.tree.leaves(ours)):
        reference, gradient = np.asarray(reference), np.asarray(gradient)
        norm = np.linalg.norm(reference)
        if norm < 1e-5:
            assert np.abs(gradient - reference).max() <= 1e-6, path
        else:
            assert np.linalg.norm(gradient - reference) <= 1e-3 * norm, (path, norm)


def assert_same_as_transformers(kind: type, fields: dict, folder: pathlib.Path):
    """Every hidden state, of a full and of a padded batch (padding frames too), and the gradients of the latter."""
    with jax.default_matmul_precision("highest"):
        config = kind.config_class(**fields)
        model = random_model(kind, config)
        source = read(model, folder / "model")
        audio = clips(LENGTHS)
        frames = source.config.encoder.frames(SAMPLES)
        weights = np.random.default_rng(1).normal(size=(2, frames, config.hidden_size)).astype(np.float32)
        for lengths in (None, LENGTHS):
            theirs = reference(model, audio, lengths)
            ours, gradients = forward_and_gradients(
                source.family, source.config, source.params, audio, jnp.array(lengths or (SAMPLES,) * 2), weights
            )
            assert_states_agree(ours, theirs)
        expected = reference_gradients(model, theirs, weights, folder / "gradients")
        assert_gradients_agree(gradients, expected)


def assert_states_agree(ours, theirs, tolerance: float = 1e-4):
    last, states = ours
    assert len(states) == len(theirs.hidden_states)
    for state, expected in zip([last, *states], [theirs.last_hidden_state, *theirs.hidden_states]):
        np.testing.assert_allclose(state, expected.detach().numpy(), rtol=0, atol=tolerance)
