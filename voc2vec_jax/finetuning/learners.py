"""What cross-validation trains: a whole model with a classification head, or a small network on fixed features.

r = rows of a batch, b = rows of a sub-batch, s = samples, d = width, v = classes, n = clips of the task.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from voc2vec_jax import audio as audio_files
from voc2vec_jax import models
from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import adaptation
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import heads, layers
from voc2vec_jax.ops import augmentation, losses, masking

_MASKS, _NOISE, _WAVEFORM, _SHARE = 1, 2, 3, 4  # what a row's key is split for
_PAIRS = 2_000_003  # folded into a step's key, so that the pairs of mixup differ from any row's draws
_HEAD = 1_000_003  # folded into the key of the head's initial parameters, so that they differ from the encoder's


@dataclasses.dataclass(frozen=True)
class SpecAugment:
    """Spans of frames that training hides; transformers' `mask_time_prob`, `_length` and `_min_masks`."""

    share: float = 0.05  # of the frames, about; 0 hides none
    span: int = 10  # frames
    min_spans: int = 2
    scaled: bool = False  # spans are shortened in clips too short for so many, see `masking.span_counts`


class Mixed(NamedTuple):
    """With which clips mixup mixed those of a batch; `share` is lambda, and 1 for a row that is alone."""

    partner: Int[Array, "r"]  # rows of the task, as `rows`
    share: Float[Array, "r"]


@dataclasses.dataclass(frozen=True)
class Finetuner:
    """A pre-trained encoder and its head, trained as `adapt` says (an `engine.Learner`).

    `data` holds `blocks` and `block_start` of a `resident.Resident`, `samples` and `labels` of every clip (classes [n],
    tags [n, v] of 0 and 1, or numbers [n, v]), and `frozen` parameters, if there are any: those that are not trained.
    `fold` holds `class_weights` [v], and of numbers `target_mean` and `target_scale` [v]. `sub_batches` are shapes
    (rows, samples) that cut a batch's rows in order.
    """

    family: str
    config: Any  # models.<family>.Config
    head: heads.Config
    sub_batches: tuple[tuple[int, int], ...]
    normalize: bool  # each clip to zero mean and unit variance
    eps: float = 1e-7  # added to that variance
    attend_padding: bool = False  # the model takes padding for audio (the paper's protocol)
    normalize_padding: bool = False  # so does the normalisation (extractors that make no attention mask)
    augment: SpecAugment = SpecAugment()
    waveform: augmentation.Waveform = augmentation.Waveform()  # changes before the normalisation
    mixup: float = 0.0  # alpha; 0: no mixup
    adapt: adaptation.Adaptation = adaptation.Adaptation()
    kind: str = "classes"  # one of `LOSSES`

    def init(self, key: Key[Array, ""]) -> Any:
        """Random parameters: the encoder's as pre-training starts from, the head's as transformers draws them."""
        # Shapes do not depend on the length, so that the shortest sub-batch is the cheapest to trace.
        audio, lengths = jnp.zeros((1, self.sub_batches[-1][1])), jnp.full(1, self.sub_batches[-1][1], jnp.int32)
        encoder = self._model().init(key, audio, lengths, collect=self.head.layer_sum)["params"]["encoder"]
        x = jnp.zeros((1, 1, self.config.encoder.width))
        states = jnp.zeros((self.config.encoder.depth + 1, *x.shape)) if self.head.layer_sum else None
        head = heads.Classifier(self.head).init(jax.random.fold_in(key, _HEAD), x, jnp.ones((1, 1), bool), states)
        return self.adapt.trained({"encoder": encoder, "head": head["params"]}, key)

    def rates(self, params) -> Any:
        """As `engine.Learner.rates`."""
        return self.adapt.rates(params, norm_first=self.config.encoder.norm_first)

    def _model(self):
        return models.FAMILIES[self.family].Model(self.config)

    def loss(self, params, fold, data, rows: Int[Array, "r"], key: Key[Array, ""]):
        """Sum of w_i l_i and sum of w_i, with the loss of `LOSSES`.

        With mixup, row i counts as clip i with lambda w_i and as its partner j with (1 - lambda) w_j.
        """
        logits, _, mixed = self._forward(params, data, rows, key)
        return mixed_loss(functools.partial(LOSSES[self.kind], logits), data, fold, rows, mixed)

    def outputs(self, params, fold, data, rows: Int[Array, "r"]):
        """Logits [r, v] and the mean over the frames of the last layer [r, d]."""
        logits, vectors, _ = self._forward(params, data, rows, None)
        return in_units(logits, fold), vectors

    def _forward(self, params, data, rows, key):
        """One sub-batch after another, each at its own length."""
        params = self.adapt.whole(params, data.get("frozen", {}))
        # By clip and not by row: a clip's noise must not depend on its place in the batch or its neighbours.
        row_keys = None
        if key is not None:
            row_keys = jax.vmap(lambda clip: jax.random.fold_in(key, clip))(_told_apart(rows, len(data["samples"])))
        results, at = [], 0
        for count, samples in self.sub_batches:
            own = slice(at, at + count)
            keys = None if key is None else (jax.random.fold_in(key, _PAIRS + at), key, row_keys[own])
            results.append(self._sub_batch(params, data, rows[own], samples, keys))
            at += count
        logits, vectors, mixed = zip(*results)
        mixed = Mixed(*map(jnp.concatenate, zip(*mixed))) if self.mixup and key is not None else None
        return jnp.concatenate(logits), jnp.concatenate(vectors), mixed

    def _sub_batch(self, params, data, rows: Int[Array, "b"], samples: int, keys):
        audio, lengths, seen, mixed = self._input(data, rows, samples, keys)
        options: dict[str, Any] = {}
        if keys is not None:
            _, key, row_keys = keys
            fold_in = jax.vmap(jax.random.fold_in, (0, None))
            frames = self.config.encoder.maskable(seen)
            options["noise"] = encoders.Noise(fold_in(row_keys, _NOISE), jnp.broadcast_to(key, rows.shape))
            if self.augment.share:
                options["masked"] = masking.augmentation_mask(
                    fold_in(row_keys, _MASKS),
                    frames,
                    self.config.encoder.maskable(samples),
                    **dataclasses.asdict(self.augment),
                )
        x, out = self._model().apply(
            {"params": {"encoder": params["encoder"]}}, audio, seen, collect=self.head.layer_sum, **options
        )
        logits = heads.Classifier(self.head).apply(
            {"params": params["head"]}, x, out["valid"], out["hidden_states"] if self.head.layer_sum else None
        )
        # The embedding is of the last layer even when the head sums all of them.
        return logits, heads.pool(x.astype(jnp.float32), out["valid"]), mixed

    def _input(self, data, rows: Int[Array, "b"], samples: int, keys):
        """The model's input [b, s], the clips' lengths, what the model takes for audio, and what mixup mixed."""
        # An EMPTY row reads the clip at index -1 and block 0: harmless, because its length is 0 and its weight too.
        lengths = jnp.where(rows >= 0, jnp.minimum(data["samples"][rows], samples), 0)
        starts = jnp.maximum(data["block_start"][rows], 0)
        clips = resident.crop(data["blocks"], starts, jnp.zeros_like(starts), lengths, samples)
        audio, mixed = audio_files.from_int16(clips), None
        fold_in = jax.vmap(jax.random.fold_in, (0, None))
        if keys is not None and self.waveform.any:
            own, least = fold_in(keys[2], _WAVEFORM), self.config.encoder.samples_for(1)
            audio, lengths = augmentation.augment(own, audio, lengths, self.waveform, least)
        # clip       |##########|......|      # audio, . padding up to the sub-batch's samples
        # lengths    |<-------->|             what the clip holds
        # seen       |<--------------->|      what the model takes for audio when padding is attended to
        seen = jnp.where(rows >= 0, samples, 0) if self.attend_padding else lengths
        if self.normalize:
            audio = normalised(audio, seen if self.normalize_padding else lengths, self.eps)
        if keys is not None and self.mixup:
            # Behind the normalisation, so that lambda is the share of both and a loud clip does not drown a soft one.
            own = fold_in(keys[2], _SHARE)
            audio, lengths, partner, share = augmentation.mix(keys[0], own, audio, lengths, self.mixup)
            mixed = Mixed(rows[partner], share)
            seen = seen if self.attend_padding else lengths
        return audio, lengths, seen, mixed


def _told_apart(rows: Int[Array, "r"], clips: int) -> Int[Array, "r"]:
    """A number for each row: the clip's own, and another for every further row of a batch with the same clip."""
    earlier = jnp.tril(rows[:, None] == rows[None, :], -1).sum(1)
    return rows + 1 + clips * earlier


def normalised(audio: Float[Array, "b s"], lengths: Int[Array, "b"], eps: float) -> Float[Array, "b s"]:
    """(x - mean) / sqrt(var + eps) of each row over its first `lengths` samples; 0 behind them."""
    valid = jnp.arange(audio.shape[1])[None] < lengths[:, None]
    count = jnp.maximum(lengths, 1)[:, None]
    # The variance is a mean over n and not n - 1, as numpy's var in transformers' feature extractor.
    centred = jnp.where(valid, audio - jnp.where(valid, audio, 0).sum(1, keepdims=True) / count, 0)
    return centred * jax.lax.rsqrt(jnp.square(centred).sum(1, keepdims=True) / count + eps)


@dataclasses.dataclass(frozen=True)
class FeatureLearner:
    """A network on fixed features: linear, ReLU, linear; with `width` 0 one linear layer (a linear probe).

    `data` holds `features` [n, d], and `labels` as of `Finetuner`. `fold` holds what that one needs, and `shift` and
    `scale` [d]: the network sees (x - shift) * scale, so that only the fold's training clips set the scale.
    """

    classes: int
    features: int
    width: int = 256
    dropout: float = 0.0
    kind: str = "classes"

    def init(self, key: Key[Array, ""]) -> Any:
        """torch's default for linear layers: uniform within 1 / sqrt(fan_in), biases too."""
        sizes = (self.features, self.width, self.classes) if self.width else (self.features, self.classes)
        params = {}
        for number, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:])):
            init = layers.torch_linear_init(fan_in)
            kernel, bias = jax.random.split(jax.random.fold_in(key, number))
            params[f"linear_{number}"] = {"kernel": init(kernel, (fan_in, fan_out)), "bias": init(bias, (fan_out,))}
        return params

    def rates(self, params) -> None:
        """One rate for all parameters."""
        return

    def loss(self, params, fold, data, rows: Int[Array, "r"], key: Key[Array, ""]):
        """As `Finetuner.loss`."""
        logits, _ = self._forward(params, fold, data, rows)
        return LOSSES[self.kind](logits, data, fold, rows, None)

    def outputs(self, params, fold, data, rows: Int[Array, "r"]):
        """Logits [r, v] and the input of the last layer [r, d]."""
        logits, x = self._forward(params, fold, data, rows)
        return in_units(logits, fold), x

    def _forward(self, params, fold, data, rows):
        x = (data["features"][rows] - fold["shift"][None]) * fold["scale"][None]
        for number in range(len(params) - 1):
            layer = params[f"linear_{number}"]
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
        last = params[f"linear_{len(params) - 1}"]
        return x @ last["kernel"] + last["bias"][None], x


def mixed_loss(loss, data, fold, rows: Int[Array, "r"], mixed: Mixed | None) -> tuple[Array, Array]:
    """Sum and weight of `loss(data, fold, rows, share)`, over the clips and the partners that they were mixed with."""
    if mixed is None:
        return loss(data, fold, rows, None)
    one, other = loss(data, fold, rows, mixed.share), loss(data, fold, mixed.partner, 1 - mixed.share)
    return one[0] + other[0], one[1] + other[1]


def weighted_cross_entropy(
    logits: Float[Array, "r v"], data, fold, rows: Int[Array, "r"], share: Float[Array, "r"] | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight of the loss over the rows that hold a clip; each counts by the weight of its class."""
    target = data["labels"][rows]
    # labels[EMPTY] is the last clip's label, which a weight of 0 drops.
    weight = jnp.where(rows >= 0, fold["class_weights"][target], 0)
    return losses.cross_entropy(logits, target, weight if share is None else share * weight)


def weighted_tags(
    logits: Float[Array, "r v"], data, fold, rows: Int[Array, "r"], share: Float[Array, "r"] | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over rows of the mean over tags of the binary cross-entropy, and the number of rows.

    torch's BCEWithLogitsLoss with the class weights as `pos_weight`, which transformers uses for multi-label targets.
    """
    loss = losses.binary_cross_entropy(logits, data["labels"][rows], fold["class_weights"][None]).mean(1)
    return _over_rows(loss, rows, share)


def weighted_squares(
    logits: Float[Array, "r v"], data, fold, rows: Int[Array, "r"], share: Float[Array, "r"] | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over rows of the mean squared error of the numbers, which are scaled by the training clips; and the rows.

    transformers' loss for regression. Mixup draws one number for both clips: lambda (z - y_i)^2 + (1 - lambda)
    (z - y_j)^2 has the gradient of (z - lambda y_i - (1 - lambda) y_j)^2.
    """
    target = (data["labels"][rows] - fold["target_mean"][None]) / fold["target_scale"][None]
    return _over_rows(jnp.square(logits - target).mean(1), rows, share)


def _over_rows(loss: Float[Array, "r"], rows: Int[Array, "r"], share: Float[Array, "r"] | None) -> tuple[Array, Array]:
    weight = jnp.where(rows >= 0, 1.0 if share is None else share, 0)
    return (jnp.where(rows >= 0, loss, 0) * weight).sum(), weight.sum()


LOSSES = {"classes": weighted_cross_entropy, "multilabel": weighted_tags, "regression": weighted_squares}


def in_units(logits: Float[Array, "r v"], fold) -> Float[Array, "r v"]:
    """Numbers as they were given; a network learns them scaled by its training clips."""
    return logits * fold["target_scale"][None] + fold["target_mean"][None] if "target_scale" in fold else logits


def released(params: Any, fold: Mapping[str, Any]) -> Any:
    """Trained parameters whose last layer gives numbers as they were given, so that a saved model needs no scale."""
    if "target_scale" not in fold:
        return params
    head = params.get("head", params)
    name = "classifier" if "classifier" in head else max(head)
    last = head[name]
    last = {
        "kernel": last["kernel"] * fold["target_scale"][None],
        "bias": last["bias"] * fold["target_scale"] + fold["target_mean"],
    }
    changed = {**head, name: last}
    return {**params, "head": changed} if "head" in params else changed
