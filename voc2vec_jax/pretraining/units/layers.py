"""A layer of a model as features for units; frames and their clusters are computed on the accelerator."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt16

from voc2vec_jax import audio, errors, models
from voc2vec_jax.convert import digest as convert_digest
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import sources
from voc2vec_jax.inference import batch_sizes, batching, loading, windowing
from voc2vec_jax.runs import runtime

# Attention needs t * t numbers a head, so that long clips go through in windows.
WINDOW_SECONDS, OVERLAP_SECONDS = 30.0, 2.0


class Layer:
    """The output of block `layer` of the model `source`; layer 0 is the input of the first block."""

    parallel = False

    def __init__(self, source: str, layer: int, batch_seconds: float | None = None):
        """InputError when `source` is no model or lacks the layer."""
        found = sources.read(source)
        if not 0 <= layer <= found.config.encoder.depth:
            raise errors.InputError(
                f"layer {layer} is not there: {source} has layers 0 to {found.config.encoder.depth}"
            )
        # However the source was trained: units must depend on its weights alone.
        how = {"dtype": "float32", "padding": "exact", "remat": "none", "attention": "auto"}
        encoder = dataclasses.replace(found.config.encoder, **how)
        self._config, self._family = dataclasses.replace(found.config, encoder=encoder), found.family
        flat = convert_names.flatten(found.params["encoder"])
        flat.setdefault("mask_embedding", np.zeros(encoder.width, np.float32))  # not used, and not in every source
        self._params = jax.device_put({"encoder": convert_names.unflatten(flat)})
        self._layer, self._eps = layer, found.eps if found.normalizes else None
        seconds = batch_seconds or batch_sizes.batch_seconds(runtime.platform())
        self._layout = windowing.WindowLayout(encoder, WINDOW_SECONDS, OVERLAP_SECONDS, seconds)
        self.rate_hz = audio.RATE_HZ / self._layout.hop_samples
        self.description = {"kind": "layer", "layer": layer, "model": convert_digest.digest(flat)[:32]}

    def extract(self, clips: Sequence[np.ndarray]) -> list[Float32[np.ndarray, "_t d"]]:
        """The layer's frames of every clip; no frames for a clip that is too short."""
        nothing = np.zeros((0, self._config.encoder.width), np.float32)
        return self._run(clips, lambda x: x, nothing)

    def assign(
        self, clips: Sequence[np.ndarray], centroids: Float32[np.ndarray, "k d"]
    ) -> list[UInt16[np.ndarray, "_"]]:
        """The nearest centroid of every frame of every clip."""
        # Only the numbers of clusters leave the device, not the frames' vectors.
        there = jax.device_put(centroids)
        found = self._run(clips, lambda x: nearest(x, there), np.zeros(0, np.int32))
        return [each.astype(np.uint16) for each in found]

    def _run(self, clips: Sequence[np.ndarray], last: Callable[[Any], Any], nothing: np.ndarray) -> list[np.ndarray]:
        def prepare(clip: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, " s"]:
            return clip if self._eps is None else loading.normalised(clip, self._eps)

        def compute(batch: batching.Batch):
            # TF32 would move frames between clusters: units must not depend on the device.
            with jax.default_matmul_precision("highest"):
                arrays = batch.audio, batch.lengths
                return last(frames_of(self._family, self._config, self._layer, self._params, *arrays))

        long_enough = [i for i, clip in enumerate(clips) if len(clip) >= self._layout.least_samples]
        job = batching.EmbeddingPass(self._layout, None, prepare, lambda: None)
        job.run([clips[i] for i in long_enough], compute, skip=False)
        # Clips too short for a frame keep their place in the answer.
        out = [nothing] * len(clips)
        for number, i in enumerate(long_enough):
            out[i] = job.done[number]
        return out


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def frames_of(
    family: str, config: Any, layer: int, params: Any, audio: Float[Array, "b s"], lengths: Int[Array, "b"]
) -> Float[Array, "b t d"]:
    """One layer's frames; those past a row's own are undefined."""
    _, out = models.FAMILIES[family].Model(config).apply({"params": params}, audio, lengths, collect=True)
    return out["hidden_states"][layer]


@jax.jit
def nearest(x: Float[Array, "b t d"], centroids: Float[Array, "k d"]) -> Int[Array, "b t"]:
    """Number of the nearest centroid of every frame."""
    # |x - c|^2 without |x|^2, which is the same for every centroid
    distance = (centroids * centroids).sum(1)[None, None] - 2 * jnp.einsum("btd,kd->btk", x, centroids)
    return jnp.argmin(distance, axis=-1).astype(jnp.int32)
