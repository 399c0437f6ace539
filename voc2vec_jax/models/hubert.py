"""HuBERT: the shared encoder and the prediction of a cluster for every masked frame."""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from voc2vec_jax.models import display, layers, wav2vec2
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import losses, masking

# One logged step beyond these looks degenerate: perplexity of the frames' own units, accuracy together with bits.
COLLAPSED_PERPLEXITY = 1.25
COLLAPSED_ACCURACY = 0.995
COLLAPSED_BITS = 0.05
# Parameters that mean something for one clustering only: with other units they start afresh.
OF_UNITS = ("label_embeddings", "project_context/kernel", "project_context/bias")


@dataclasses.dataclass(frozen=True)
class Config:
    """One HuBERT model with its pre-training objective; the defaults are fairseq's base recipe."""

    encoder: encoders.EncoderConfig = encoders.EncoderConfig()
    classes: int = 504  # clusters, and the four unused symbols of fairseq's dictionary
    target_width: int = 256  # where predictions and class embeddings are compared
    label_rate_hz: float = 50.0  # of the units: batches hold `units`, the class of every frame (-1: none)
    feature_gradient_scale: float = 0.1
    mask_share: float = 0.8
    mask_frames: int = 10
    min_masks: int = 2
    logit_temperature: float = 0.1
    feature_penalty_weight: float = 10.0

    masked_bound = wav2vec2.Config.masked_bound
    min_samples = wav2vec2.Config.min_samples


class Draws(NamedTuple):
    """The random choices of one pass: masked frames of each row, padded to m."""

    index: Int[Array, "b m"]
    masked_valid: Bool[Array, "b m"]


class Model(nn.Module):
    """HuBERT encoder alone: (audio, lengths) -> (contextual frames, intermediates)."""

    config: Config

    @nn.compact
    def __call__(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"], **options):
        return encoders.Encoder(self.config.encoder, name="encoder")(audio, lengths, **options)


class PreTraining(nn.Module):
    """Encoder, projection and class embeddings: a score for every class at every masked frame."""

    config: Config

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "b s"],
        lengths: Int[Array, "b"],
        index: Int[Array, "b m"],
        masked_valid: Bool[Array, "b m"],
        noise: encoders.Noise | None,
    ) -> dict:
        """The encoder's intermediates and `logits` [b, m, v]: cosine similarities over the temperature.

        `index` are each row's masked frames, real where `masked_valid`.
        """
        c, e = self.config, self.config.encoder
        x, out = encoders.Encoder(e, name="encoder")(
            audio,
            lengths,
            noise=noise,
            masked=wav2vec2.mask_of(index, masked_valid, e.frames(audio.shape[1])),
            feature_gradient_scale=c.feature_gradient_scale,
        )
        # Only masked frames are scored: pred_nomask_weight is 0 in fairseq's recipe
        x = masking.of_rows(x, index, masked_valid)
        context = layers.projection(e.width, c.target_width, e.compute_dtype, "project_context")(x)
        # fairseq's label_embs_concat, drawn from U(0, 1)
        classes = self.param("label_embeddings", nn.initializers.uniform(1.0), (c.classes, c.target_width))
        # cos(context, class embedding) / tau
        logits = jnp.einsum("bmd,vd->bmv", losses.unit(context), losses.unit(classes)) / c.logit_temperature
        return {**out, "logits": logits}


def draw(config: Config, noise: encoders.Noise, frames: Int[Array, "g r"], t: int, *, equal_masks: bool) -> Draws:
    """Masks for the rows of g loss groups; `equal_masks` trims them to a group's smallest count, as fairseq does."""
    masked = wav2vec2.draw_masks(config, noise, frames, t, equal_masks=equal_masks)
    return Draws(*masking.masked_index(masked, config.masked_bound(t)))


def loss_fn(
    config: Config,
    params,
    batch: dict,
    noise: encoders.Noise,
    step: Int[Array, ""],
    *,
    train: bool = True,
    equal_masks: bool = False,
    draws: Draws | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""], dict]:
    """(sum, weight, metric sums) of the objective over g loss groups of r rows (fairseq's HubertCriterion).

    `batch` as in `wav2vec2.loss_fn`, and `units` int [g, r, t]: the class of every frame, -1 for one without, which
    may be masked and counts nothing. The weight is the number of masked frames with a unit. `noise` has one entry
    per row; not `train`: no dropout. `draws` overrides the random choices.
    """
    g, r, s = batch["audio"].shape
    if draws is None:
        frames = config.encoder.frames(batch["lengths"])
        draws = draw(config, noise, frames, config.encoder.frames(s), equal_masks=equal_masks)
    dropouts = noise.fold_in(wav2vec2.ENCODER) if train else None
    audio, lengths = batch["audio"].reshape(-1, s), batch["lengths"].reshape(-1)
    out = PreTraining(config).apply({"params": params}, audio, lengths, *draws, dropouts)
    target = jnp.take_along_axis(batch["units"].reshape(g * r, -1), draws.index, axis=1)
    return objective(config, out, jnp.where(draws.masked_valid, target, -1), g)


def objective(
    config: Config, out: dict, target: Int[Array, "b m"], g: int
) -> tuple[Float[Array, ""], Float[Array, ""], dict]:
    """The loss and its terms from a forward pass over g loss groups; frames of target -1 count nothing."""
    logits, classes = out["logits"], config.classes
    # Frames without a unit may be masked, but neither loss nor weight counts them
    real = (target >= 0).astype(logits.dtype)
    chosen = jnp.argmax(logits, -1)
    # fairseq puts the true class in front of all classes and its second copy at -inf: the same softmax as this one.
    # It also multiplies the penalty by the number of masked frames, so that one division is right for both terms.
    masked_loss, weight = losses.cross_entropy(logits.reshape(-1, classes), target.reshape(-1), real.reshape(-1))
    features, valid = (x.reshape(g, -1, *x.shape[1:]) for x in (out["conv_features"], out["valid"]))
    penalty = losses.feature_penalty(features, valid) * real.reshape(g, -1).sum(1)
    sums = {
        "masked_loss": masked_loss,
        "feature_penalty": config.feature_penalty_weight * penalty.sum(),
        "correct": jnp.sum((chosen == target) * real),
        "unit_counts": _counts(target, real, classes),
        "predicted_counts": _counts(chosen, real, classes),
    }
    loss = sums["masked_loss"] + sums["feature_penalty"]
    return loss, weight, {**sums, "loss": loss}


def _counts(chosen: Int[Array, "b m"], weight: Float[Array, "b m"], classes: int) -> Float[Array, "{classes}"]:
    of_class = chosen.reshape(-1)[:, None] == jnp.arange(classes)[None]
    return jnp.where(of_class, weight.reshape(-1)[:, None], 0).sum(0)


def summary(sums: dict) -> dict:
    """What is logged of a step, from its metric sums and `weight`: losses in bits per masked frame, as fairseq.

    `commonest_unit` is the share of the most frequent unit among the masked frames: the accuracy of a constant guess.
    """
    weight = jnp.maximum(sums["weight"], 1)
    bits = {name: sums[name] / weight / jnp.log(2.0) for name in ("loss", "masked_loss", "feature_penalty")}
    return {
        **bits,
        "accuracy": sums["correct"] / weight,
        "commonest_unit": sums["unit_counts"].max() / weight,
        "unit_perplexity": losses.perplexity((sums["unit_counts"] / weight)[None, None])[0],
        "predicted_perplexity": losses.perplexity((sums["predicted_counts"] / weight)[None, None])[0],
        "masked_frames": sums["weight"],
    }


def schedules(config: Config, step) -> dict:
    """Quantities that follow from the number of completed updates alone: none here."""
    return {}


def view(config: Config) -> display.View:
    """The terms of the objective as people see them; the accuracy of a constant guess is a line beside the model's."""
    columns = (
        display.Column("masked", 8, ("masked_loss",), ".4f"),
        display.Column("penalty", 8, ("feature_penalty",), ".4f"),
        display.Column("ppl(unit,pred)", 14, ("unit_perplexity", "predicted_perplexity"), ".1f"),
        display.Column("acc", 6, ("accuracy",), ".4f"),
        display.Column("guess", 6, ("commonest_unit",), ".4f"),
    )
    guess = (("accuracy", "training"), ("commonest_unit", "always the commonest unit"))
    perplexities = (("predicted_perplexity", "predicted"), ("unit_perplexity", "true units"))
    level = math.log2(config.classes)
    panels = (
        display.Panel("loss over masked units", display.BITS, (("masked_loss", "training"),), "masked_loss", level),
        display.Panel("accuracy of masked units", display.SHARE, guess, "accuracy"),
        display.Panel("perplexity of units", display.ENTRIES, perplexities, "predicted_perplexity"),
        display.Panel(
            "feature penalty", f"{display.BITS}, log scale", (("feature_penalty", "feature penalty"),), log=True
        ),
    )
    return display.View(columns, panels)


def collapse_signs(config: Config, row: dict) -> list[str]:
    """Sentences for what looks degenerate in one logged step (units all alike, a trivial task, no masks).

    Predicting one unit for all frames is no sign: that is how every run from scratch begins.
    """
    if row["masked_frames"] < 1:
        return ["no frame with a unit is masked"]
    signs = []
    if row["unit_perplexity"] < COLLAPSED_PERPLEXITY:
        signs.append(f"unit perplexity {row['unit_perplexity']:.2f}: nearly all masked frames have the same unit")
    if row["accuracy"] > COLLAPSED_ACCURACY and row["masked_loss"] < COLLAPSED_BITS:
        signs.append(f"accuracy {row['accuracy']:.1%} at {row['masked_loss']:.3f} bits: the task is trivial")
    return signs


def init_params(config: Config, key: Key[Array, ""]) -> dict:
    """Freshly initialised parameters of the encoder, the projection and the class embeddings."""
    samples = config.min_samples
    # No parameter's shape depends on the length: the shortest clip that can be masked is the cheapest to trace.
    m = config.masked_bound(config.encoder.frames(samples))
    draws = Draws(jnp.zeros((1, m), jnp.int32), jnp.ones((1, m), bool))
    lengths = jnp.full((1,), samples)
    return PreTraining(config).init(key, jnp.zeros((1, samples)), lengths, *draws, None)["params"]
