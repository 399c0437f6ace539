"""The front door: load a model from anywhere, compute features and labels of recordings, save it again."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm
from jaxtyping import Array, Float, Float32

from voc2vec_jax import audio as recordings
from voc2vec_jax import errors
from voc2vec_jax.convert import digest as convert_digest
from voc2vec_jax.convert import extractors, reader, sources
from voc2vec_jax.inference import (
    answers,
    batch_sizes,
    batching,
    buckets,
    forking,
    forward,
    layer_choice,
    loading,
    padded_batches,
    publishing,
    rate_doubts,
    results,
    saving,
    tables,
    windowing,
)
from voc2vec_jax.inference import items as item_lists
from voc2vec_jax.models import whisper
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.runs import logs, runtime, sharding

DTYPES = ("auto", "float32", "bfloat16", "float16")
PADDINGS = ("exact", "legacy")
CONTEXTS = ("auto", *whisper.CONTEXTS)
UNREADABLE = ("raise", "skip")


def from_pretrained(
    src: str | Path,
    dtype: Any = "auto",
    padding: str = "exact",
    attention: str = "auto",
    context: str = "auto",
    *,
    allow_nonfinite: bool = False,
) -> "Model":
    """The model that `src` names: a Hub id, a folder written by transformers or by this library, a file of weights of
    transformers, Lightning, fairseq, s3prl or FunASR, or a run folder.

    `dtype` is the type of the computation: float32, bfloat16 or float16, as a name or as a type of NumPy, JAX or torch,
    or auto: float32 on CPUs and bfloat16 on accelerators. `padding` is "exact", or "legacy" to compute what
    transformers computes for the same padded batch (`Model.__call__`). `attention` is one of
    `attention.IMPLEMENTATIONS`. `context` is for Whisper, one of `whisper.CONTEXTS` or auto: as the model was trained.
    Weights with NaN or infinity are refused unless `allow_nonfinite`. Prints on stderr what was loaded and how the
    input is normalised. InputError for anything that cannot be read.
    """
    forking.used()
    dtype = runtime.dtype_name(dtype)
    for name, value, allowed in (
        ("dtype", dtype, DTYPES),
        ("padding", padding, PADDINGS),
        ("context", context, CONTEXTS),
    ):
        if value not in allowed:
            raise errors.InputError(f"{name} {value!r} is none of {', '.join(allowed)}")
    dtype = runtime.computed_in(dtype, runtime.platform())
    attention_ops.check(attention, dtype, False)
    model = Model(
        str(src), sources.read(src, allow_nonfinite=allow_nonfinite).in_context(context), dtype, padding, attention
    )
    logs.say(f"{src}: {model.family}, {model.checkpoint.parameters:,} parameters, {model.dtype}; {model.input_text}")
    return model


class Model:
    """A pre-trained or fine-tuned model. Made by `from_pretrained`.

    `checkpoint` is what was read (`reader.ModelWeights`), `config` the family's own, `labels` the classes of a
    fine-tuned model (else empty), `frame_rate_hz` the rate of its frames. A pickled model holds its weights, so that
    processes that are started (spawn) may use it; a fork cannot.
    """

    sampling_rate = recordings.RATE_HZ  # of what a model hears, in Hz; other rates are brought to it

    def __init__(
        self,
        name: str,
        checkpoint: reader.ModelWeights,
        dtype: str = "float32",
        padding: str = "exact",
        attention: str = "auto",
    ):
        if padding == "legacy":
            extractors.check_padding(checkpoint.preprocessor, name)
        forking.used()
        self.name, self.checkpoint = name, checkpoint
        self.family, self.labels = checkpoint.family, checkpoint.labels
        how = {"dtype": dtype, "padding": padding, "remat": "none", "attention": attention}
        encoder = dataclasses.replace(checkpoint.config.encoder, **how)
        self.config = dataclasses.replace(checkpoint.config, encoder=encoder)
        self.frame_rate_hz = recordings.RATE_HZ / encoder.hop_samples
        self._params = jax.device_put({"encoder": forward.complete(checkpoint)})
        self._shapes: set[tuple] = set()
        self._mesh: jax.sharding.Mesh | None = None
        self._rates_doubted = False

    def __reduce__(self):
        e = self.config.encoder
        return Model, (self.name, self.checkpoint, e.dtype, e.padding, e.attention)

    def __repr__(self) -> str:
        e = self.config.encoder
        labels = f", labels: {', '.join(self.labels)}" if self.labels else ""
        return (
            f"<{self.family} model {self.name!r}: {self.checkpoint.parameters:,} parameters, {e.depth} blocks of width "
            f"{e.width}, {e.dtype}, {e.padding} padding; {self.input_text}{labels}>"
        )

    @property
    def input_text(self) -> str:
        """How the input is normalised, and on whose word."""
        if self.checkpoint.normalize is None:
            return "input normalised to zero mean and unit variance (the source is silent; transformers' default)"
        if not self.checkpoint.normalize:
            context = f", {self.config.encoder.context}" if self.family == "whisper" else ""
            return f"input taken as it is, not normalised{context}"
        return f"input normalised to zero mean and unit variance (eps {self.checkpoint.eps:g})"

    @property
    def hidden_size(self) -> int:
        """The width of its vectors, d."""
        return self.config.encoder.width

    @property
    def dtype(self) -> np.dtype:
        """The type of the computation; vectors are float32 in any case."""
        return self.config.encoder.compute_dtype

    @property
    def compilations(self) -> int:
        """The number of shapes that this model has been compiled for."""
        return len(self._shapes)

    @property
    def exact(self) -> Any:
        """The family's configuration for `embed`, whose padding is always exact."""
        return dataclasses.replace(self.config, encoder=dataclasses.replace(self.config.encoder, padding="exact"))

    @property
    def params(self) -> Any:
        """The parameters on the devices, as the compiled programs take them."""
        return self._params

    def prepare(self, clip: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, " s"]:
        """A clip as the model's input: normalised over its samples if the checkpoint wants that."""
        return clip if self.eps is None else loading.normalised(clip, self.eps)

    @property
    def eps(self) -> float | None:
        """Added to the variance when a clip is normalised; None if the checkpoint wants the audio as it is."""
        return self.checkpoint.eps if self.checkpoint.normalizes else None

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the outputs depend on besides the input: weights, architecture, classes, normalisation."""
        used = {name: self.checkpoint.params[name] for name in ("encoder", "head") if name in self.checkpoint.params}
        return convert_digest.digest(used, (self.family, self.checkpoint.config, self.eps, self.labels))

    @property
    def platform(self) -> str:
        """JAX's name for the platform of the devices that hold the parameters."""
        return next(iter(jax.tree.leaves(self._params)[0].devices())).platform

    def precision(self) -> contextlib.AbstractContextManager:
        """Full float32 products on accelerators too, where the default would round the factors."""
        return jax.default_matmul_precision("highest" if self.config.encoder.dtype == "float32" else "default")

    def __call__(self, audio: Any, lengths: Any = None, *, normalize: bool | None = None) -> results.Output:
        """Frames of a padded batch [b, s] at 16 kHz, floats in [-1, 1] or int16; compiled once per shape.

        `lengths` are the samples of each row, by default all. Each row is first normalised over its own samples if
        the checkpoint wants that; `normalize` True or False overrides the checkpoint. Legacy padding treats the batch
        as transformers' feature extractor does: without an attention mask (`return_attention_mask` false in
        preprocessor_config.json) padding is normalised and attended to. InputError for a wrong rank or type, NaN, and
        lengths that exceed the batch or give no frame.
        """
        forking.used()
        padded, lengths = padded_batches.checked(audio, lengths, self.config.encoder.samples_for(1))
        wanted = self.checkpoint.normalizes if normalize is None else normalize
        masked = self.config.encoder.padding == "exact" or extractors.masks(self.checkpoint.preprocessor)
        seen = lengths if masked else np.full_like(lengths, padded.shape[1])
        padded_batches.prepare(padded, lengths, seen, self.checkpoint.eps if wanted else None)
        self._shapes.add(("frames", padded.shape))
        with self.precision():
            x, states = forward.forward(self.family, self.config, self._params, padded, seen)
        return results.Output(x, tuple(states), self.config.encoder.frames(lengths))

    def embed(
        self,
        items: Any,
        pool: str | None = "mean",
        layer: int | Sequence[int] | str = -1,
        *,
        sampling_rate: Any = None,
        as_frame: bool = False,
        batch_seconds: float | None = None,
        window_seconds: float = 30.0,
        overlap_seconds: float = 2.0,
        on_unreadable: str = "raise",
        progress: bool = False,
        how: recordings.Reading = recordings.DEFAULT,
    ) -> Any:
        """Features [n, d] of recordings, float32, each as if computed alone, whatever `padding` is.

        `items`: any mix of paths, URLs, open files, arrays (floats in [-1, 1] or int16), (array, rate_hz) pairs and
        dicts of Hugging Face, as `items` lists them; also one of these, a folder, or an array [b, s]. `sampling_rate`
        is that of arrays without one, 16 kHz by default; a warning says once if that can hardly be.
        `pool` over frames: "mean", "max", "first", or None for a list of [t, d]. `layer`: 0 is the input of the first
        block, k the output of block k, -1 (or depth) the model's last frames, after the final norm of pre-LN models;
        several layers, or "all", give [n, layers, d]. `as_frame` gives a DataFrame, as `tables.of_features`.
        Recordings longer than `window_seconds` are computed in overlapping windows; each frame comes from the window
        whose middle is nearest. Memory is bounded by a few batches of `batch_seconds` of audio and a few decoded
        recordings. With `on_unreadable` "skip", unusable items give NaN (no frames with pool None) and a warning.
        Otherwise InputError names the first unusable item. Files are read by `how`, and what is odd about some is
        summed up in warnings. InputError also for arguments that make no sense.
        """
        several = layer == "all" or not isinstance(layer, int | np.integer)
        layers = self.layer_numbers(layer)
        options = (batch_seconds, window_seconds, overlap_seconds, on_unreadable, progress, how)
        given, names = item_lists.listed(items, sampling_rate)
        result, n = self._run(given, pool, self.features(layers, pool), options), len(given)
        nothing = np.zeros((0, len(layers), self.config.encoder.width), np.float32)
        nothing = nothing if pool is None else np.full(nothing.shape[1:], np.nan, np.float32)
        values = [result.done.get(index, nothing) for index in range(n)]
        if as_frame:
            return tables.of_features(names, values, layers, self.config.encoder, pool)
        values = values if several else [value[..., 0, :] for value in values]
        return values if pool is None else np.stack(values)

    def layer_numbers(self, layer: Any) -> tuple[int, ...]:
        """Layers as `forward.compiled_embed` takes them; depth and -1 become the last frames."""
        return layer_choice.numbers(layer, self.config.encoder.depth)

    def features(self, layers: tuple[int, ...], pool: str | None) -> Callable[[batching.Batch], Float[Array, "b ..."]]:
        """A function that computes a batch as [b, layers, d], or [b, t, layers, d] with pool None.

        `layers` come from `layer_numbers`. The function does not wait for the device.
        """

        def compute(batch: batching.Batch) -> Float[Array, "b ..."]:
            self._shapes.add((pool, layers, batch.audio.shape))
            arrays = batch.audio, batch.lengths, batch.kept
            with self.precision():
                embed = forward.compiled_embed(self.platform, self._mesh)
                return embed(self.family, self.exact, layers, pool, self._params, *arrays)

        return compute

    def logits(self) -> Callable[[batching.Batch], Float[Array, "b k"]]:
        """As `features`, but the head's logits over the kept frames; `batching.join_logits` joins windows.

        InputError for a model without a trained classification head; no head is ever made up.
        """
        head = self.checkpoint.head
        if head is None:
            raise errors.InputError(
                f"{self.name} has no trained classification head, so it cannot predict: fine-tune it (voc2vec "
                f"finetune --config.model={self.name}), or take its features with embed"
            )
        last = self.config.encoder.depth + 1
        # The mean of a linear projection is the projection of the mean, so that only other poolings need all frames.
        pool, classify = ("mean", forward.classify) if head.pooling == "mean" else (None, forward.classify_frames)
        features = self.features(tuple(range(last)) if head.layer_sum else (last,), pool)
        params = jax.device_put(self.checkpoint.params["head"])

        def compute(batch: batching.Batch) -> Float[Array, "b k"]:
            with self.precision():
                batch = batch._replace(kept=forward.kept_by_head(self.config.encoder, batch.lengths, batch.kept))
                return classify(head, params, features(batch), batch.kept)

        return compute

    def spread(self, mesh: jax.sharding.Mesh) -> "Model":
        """A copy of this model with its parameters on every device of a mesh, for batches cut over the mesh.

        A copy, because compiled programs belong to the place of their parameters.
        """
        other = object.__new__(Model)
        other.__dict__.update(self.__dict__)
        other._mesh = mesh
        other._params, other._shapes = jax.device_put(self._params, sharding.replicated(mesh)), set()
        return other

    def layout(
        self,
        known: tuple[list[int], float],
        window_seconds: float,
        overlap_seconds: float,
        batch_seconds: float,
        devices: int = 1,
        platform: str | None = None,
        recurring: bool = False,
    ) -> windowing.WindowLayout:
        """Windows and static shapes for the lengths in `known` (`buckets.known_lengths`), more where they pay.

        `platform` computes them, where it is not the one that holds the parameters; `recurring` as in `WindowLayout`.
        """
        lengths, copies = known
        return windowing.WindowLayout(
            self.config.encoder,
            window_seconds,
            overlap_seconds,
            batch_seconds,
            devices,
            lengths=lengths,
            copies=copies,
            shape_seconds=batch_sizes.shape_seconds(self.config, platform or self.platform),
            recurring=recurring,
        )

    def _run(self, items, pool, compute, options, whole=None):
        """The finished pass over items as `items.listed` gives them; `whole` is that of `batching.Collector`."""
        forking.used()
        batch_seconds, window_seconds, overlap_seconds, on_unreadable, progress, how = options
        for name, value, allowed in (("pool", pool, batching.POOLS), ("on_unreadable", on_unreadable, UNREADABLE)):
            if value not in allowed:
                raise errors.InputError(f"{name} {value!r} is none of {', '.join(map(str, allowed))}")
        recordings.check(how, "")
        if not self._rates_doubted and (told := rate_doubts.first(items)):
            logs.warn(told)
            self._rates_doubted = True
        batch_seconds = batch_sizes.batch_seconds(self.platform) if batch_seconds is None else batch_seconds
        lengths = buckets.known_lengths([items[k] for k in buckets.spread(len(items))], len(items))
        layout = self.layout(lengths, window_seconds, overlap_seconds, batch_seconds, recurring=True)
        with tqdm.tqdm(total=len(items), unit="item", disable=not progress) as bar:
            result = batching.EmbeddingPass(layout, pool, self.prepare, bar.update, whole, how)
            result.run(items, compute, skip=on_unreadable == "skip")
        for line in recordings.summary(sorted(result.remarks), ""):
            logs.warn(line)
        if result.unusable:
            reasons = "; ".join(map(str, result.unusable.values()))
            logs.warn(f"{len(result.unusable)} of {len(items)} items skipped: {reasons}")
        return result

    def predict(
        self,
        items: Any,
        *,
        sampling_rate: Any = None,
        as_frame: bool = False,
        batch_seconds: float | None = None,
        on_unreadable: str = "raise",
        progress: bool = False,
        how: recordings.Reading = recordings.DEFAULT,
    ) -> Any:
        """The label of each recording, each as if computed alone: a `Prediction`, or a DataFrame with `as_frame`.

        `items` and the options are those of `embed`.

        InputError for a model without a trained classification head; no head is ever made up.
        """
        options = (batch_seconds, 30.0, 2.0, on_unreadable, progress, how)
        logits = self.logits()
        given, names = item_lists.listed(items, sampling_rate)
        result, n = self._run(given, "mean", logits, options, whole=batching.join_logits), len(given)
        kind, probabilities = self.checkpoint.kind, np.full((n, len(self.labels)), np.nan, np.float32)
        for index, values in result.done.items():
            probabilities[index] = answers.probabilities(kind, values)
        likely = [answers.in_words(kind, self.labels, row) for row in probabilities]
        labels = [None if index in result.unusable else likely[index] for index in range(n)]
        found = results.Prediction(tuple(labels), probabilities, self.labels)
        return tables.of_prediction(names, found, kind) if as_frame else found

    def save_pretrained(self, folder: str | Path, format: str = "hf") -> None:
        """Writes the model in float32 for transformers ("hf"), fairseq (a `.pt`, or model.pt in a folder), "jax", or
        as "onnx" (an `.onnx`, or model.onnx in a folder; `convert.onnx_file` says what it takes).

        A warning names parameters that the format has no place for. InputError for a model that the format cannot
        express or a folder that cannot be written.
        """
        saving.save(self.checkpoint, Path(folder), format)

    def push_to_hub(self, repository: str, *, card: str | None = None, private: bool = False) -> str:
        """Uploads the model to `owner/name` on the Hub, where `from_pretrained` and, if they can hold it, transformers
        load it; returns its address.

        `card` is the text of its README.md; without one the card says what the model is and how it is loaded. For
        one with the data and the scores of a run use `voc2vec_jax.publish`. InputError where the Hub refuses.
        """
        made = None if card is None else lambda layout: card
        return publishing.push(self.checkpoint, repository, made, private)
