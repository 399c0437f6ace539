"""What cross-validation trains: a whole model under a classification head, or small networks on fixed features."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from voc2vec_jax import audio as audio_files
from voc2vec_jax import models
from voc2vec_jax.datasets import resident
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import heads
from voc2vec_jax.ops import losses, masking

_MASKS, _NOISE = 1, 2  # purposes of a row's key
_HEAD = 1_000_003  # the purpose of the head's initial parameters


@dataclasses.dataclass(frozen=True)
class SpecAugment:
    """Spans of frames that training hides, transformers' `mask_time_*`."""

    share: float = 0.05  # of the frames, about; 0 hides none
    span: int = 10
    min_spans: int = 2


@dataclasses.dataclass(frozen=True)
class Finetuner:
    """A pre-trained encoder and its head, all parameters trained (`crossval.Learner`).

    `data` holds `blocks` and `block_start` of a `resident.Resident`, `samples` and `labels` of every clip; `fold`
    holds `class_weights` [v]. `parts` are (rows, samples) into which a batch's rows fall in order.
    """

    family: str
    config: Any  # models.<family>.Config
    head: heads.Config
    parts: tuple[tuple[int, int], ...]
    normalize: bool  # bring clips to zero mean and unit variance
    eps: float = 1e-7  # added to that variance
    attend_padding: bool = False  # padding counts as audio for the model (the paper's protocol)
    normalize_padding: bool = False  # and for the normalisation, where the feature extractor makes no mask
    augment: SpecAugment = SpecAugment()

    def init(self, key: Key[Array, ""]) -> Any:
        """Random encoder parameters, as pre-training from scratch starts from, and transformers' fresh head."""
        audio, lengths = jnp.zeros((1, self.parts[-1][1])), jnp.full(1, self.parts[-1][1], jnp.int32)
        encoder = self._model().init(key, audio, lengths, collect=self.head.layer_sum)["params"]["encoder"]
        x = jnp.zeros((1, 1, self.config.encoder.width))
        states = jnp.zeros((self.config.encoder.depth + 1, *x.shape)) if self.head.layer_sum else None
        head = heads.Classifier(self.head).init(jax.random.fold_in(key, _HEAD), x, jnp.ones((1, 1), bool), states)
        return {"encoder": encoder, "head": head["params"]}

    def _model(self):
        return models.FAMILIES[self.family].Model(self.config)

    def loss(self, params, fold, data, rows: Int[Array, "r"], key: Key[Array, ""]):
        """Class-weighted cross-entropy: sum of w_i l_i and sum of w_i (torch's CrossEntropyLoss(weight))."""
        logits, _ = self._forward(params, data, rows, key)
        return weighted_cross_entropy(logits, data["labels"], rows, fold["class_weights"])

    def outputs(self, params, fold, data, rows: Int[Array, "r"]):
        """Logits [r, v] and mean-pooled last frames [r, d]."""
        return self._forward(params, data, rows, None)

    def _forward(self, params, data, rows, key):
        """Part by part, each at its own length."""
        results, at = [], 0
        for count, samples in self.parts:
            results.append(self._part(params, data, rows[at : at + count], samples, key))
            at += count
        logits, vectors = zip(*results)
        return jnp.concatenate(logits), jnp.concatenate(vectors)

    def _part(self, params, data, rows, samples: int, key):
        lengths = jnp.where(rows >= 0, jnp.minimum(data["samples"][rows], samples), 0)
        starts = jnp.maximum(data["block_start"][rows], 0)
        clips = resident.crop(data["blocks"], starts, jnp.zeros_like(starts), lengths, samples)
        seen = jnp.where(rows >= 0, samples, 0) if self.attend_padding else lengths
        audio = audio_files.from_int16(clips)
        if self.normalize:
            audio = normalised(audio, seen if self.normalize_padding else lengths, self.eps)
        options: dict[str, Any] = {}
        if key is not None:
            row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows + 1)
            fold_in = jax.vmap(jax.random.fold_in, (0, None))
            frames = self.config.encoder.frames(seen)
            options["noise"] = encoders.Noise(fold_in(row_keys, _NOISE), jnp.broadcast_to(key, rows.shape))
            if self.augment.share:
                options["masked"] = masking.augmentation_mask(
                    fold_in(row_keys, _MASKS),
                    frames,
                    self.config.encoder.frames(samples),
                    **dataclasses.asdict(self.augment),
                )
        x, out = self._model().apply(
            {"params": {"encoder": params["encoder"]}}, audio, seen, collect=self.head.layer_sum, **options
        )
        logits = heads.Classifier(self.head).apply(
            {"params": params["head"]}, x, out["valid"], out["hidden_states"] if self.head.layer_sum else None
        )
        return logits, heads.pool(x.astype(jnp.float32), out["valid"])


def normalised(audio: Float[Array, "b s"], lengths: Int[Array, "b"], eps: float) -> Float[Array, "b s"]:
    """Each row to zero mean and unit variance over its own samples, zeros behind them."""
    valid = jnp.arange(audio.shape[1])[None] < lengths[:, None]
    count = jnp.maximum(lengths, 1)[:, None]
    centred = jnp.where(valid, audio - jnp.where(valid, audio, 0).sum(1, keepdims=True) / count, 0)
    return centred * jax.lax.rsqrt(jnp.square(centred).sum(1, keepdims=True) / count + eps)


@dataclasses.dataclass(frozen=True)
class FeatureLearner:
    """Networks on fixed features: two linear layers with ReLU between them, or with `width` 0 one (a linear probe).

    `data` holds `features` [n, d] and `labels`; `fold` holds `class_weights`, `shift` [d] and `scale` [d], by which
    features are brought to (x - shift) * scale: statistics of the fold's training clips, or 0 and 1.
    """

    classes: int
    features: int
    width: int = 256
    dropout: float = 0.0

    def init(self, key: Key[Array, ""]) -> Any:
        """torch's default for linear layers."""
        sizes = (self.features, self.width, self.classes) if self.width else (self.features, self.classes)
        params = {}
        for number, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:])):
            init = encoders.torch_linear_init(fan_in)
            kernel, bias = jax.random.split(jax.random.fold_in(key, number))
            params[f"linear_{number}"] = {"kernel": init(kernel, (fan_in, fan_out)), "bias": init(bias, (fan_out,))}
        return params

    def loss(self, params, fold, data, rows: Int[Array, "r"], key: Key[Array, ""]):
        """As `Finetuner.loss`."""
        logits, _ = self._forward(params, fold, data, rows)
        return weighted_cross_entropy(logits, data["labels"], rows, fold["class_weights"])

    def outputs(self, params, fold, data, rows: Int[Array, "r"]):
        """Logits [r, v] and what enters the last layer [r, d]."""
        return self._forward(params, fold, data, rows)

    def _forward(self, params, fold, data, rows):
        x = (data["features"][rows] - fold["shift"][None]) * fold["scale"][None]
        for number in range(len(params) - 1):
            layer = params[f"linear_{number}"]
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
        last = params[f"linear_{len(params) - 1}"]
        return x @ last["kernel"] + last["bias"][None], x


def weighted_cross_entropy(
    logits: Float[Array, "r v"], labels: Int[Array, "n"], rows: Int[Array, "r"], class_weights: Float[Array, "v"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight over the rows that hold a clip."""
    target = labels[rows]
    weight = jnp.where(rows >= 0, class_weights[target], 0)
    return losses.cross_entropy(logits, target, weight)
