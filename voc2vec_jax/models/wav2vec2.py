"""wav2vec 2.0: the shared encoder, a Gumbel quantizer and the contrastive objective."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from voc2vec_jax.models import display, layers
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import losses, masking

# A logged step beyond these is suspected of collapse: code perplexity per codebook, share of negatives equal to the
# positive, accuracy together with a loss in bits.
COLLAPSED_PERPLEXITY = 1.25
COLLAPSED_NEGATIVES = 0.5
COLLAPSED_ACCURACY = 0.995
COLLAPSED_BITS = 0.05


@dataclasses.dataclass(frozen=True)
class Config:
    """One wav2vec 2.0 model with its pre-training objective; the defaults are fairseq's base recipe."""

    encoder: encoders.EncoderConfig = encoders.EncoderConfig()
    codebook_groups: int = 2
    codebook_entries: int = 320  # per group
    codebook_width: int = 256  # of the concatenated entries of all groups
    target_width: int = 256  # where predictions and targets are compared
    quantizer_dropout: float = 0.1  # on the features that the quantizer sees
    feature_gradient_scale: float = 0.1
    mask_share: float = 0.65
    mask_frames: int = 10
    min_masks: int = 2
    negatives: int = 100
    logit_temperature: float = 0.1
    gumbel_start: float = 2.0
    gumbel_end: float = 0.5
    gumbel_decay: float = 0.999995
    diversity_weight: float = 0.1
    feature_penalty_weight: float = 10.0

    def masked_bound(self, t: int) -> int:
        """The largest number of frames that the objective masks among `t`."""
        return masking.masked_bound(t, self.mask_share, self.mask_frames, self.min_masks)

    @property
    def min_samples(self) -> int:
        """The shortest clip of which masking always leaves a frame to see."""
        frames = masking.shortest_maskable(self.mask_share, self.mask_frames, self.min_masks)
        e = self.encoder
        return masking.samples_for_frames(frames, e.conv_kernels, e.conv_strides)

    def temperature(self, step):
        """Gumbel temperature after `step` completed updates."""
        # Not decay**step: 0.999995 in float32 is off by enough to be 0.2 % after 277,000 steps.
        return jnp.maximum(self.gumbel_start * jnp.exp(step * math.log(self.gumbel_decay)), self.gumbel_end)


class Draws(NamedTuple):
    """The random choices of one pass: masked frames of each row (padded to m), their negatives, Gumbel noise."""

    index: Int[Array, "b m"]
    masked_valid: Bool[Array, "b m"]
    negatives: Int[Array, "b m n"]  # positions among the row's own masked frames
    gumbel: Float[Array, "b m c v"] | None  # None: the quantizer takes the most likely entry


class Model(nn.Module):
    """wav2vec 2.0 encoder alone: (audio, lengths) -> (contextual frames, intermediates)."""

    config: Config

    @nn.compact
    def __call__(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"], **options):
        return encoders.Encoder(self.config.encoder, name="encoder")(audio, lengths, **options)


class Quantizer(nn.Module):
    """Product quantization with Gumbel-softmax choices (equation 1), straight through in training."""

    config: Config

    @nn.compact
    def __call__(
        self, x: Float[Array, "b m d"], gumbel: Float[Array, "b m c v"] | None, temperature: Float[Array, ""]
    ) -> tuple[Float[Array, "b m w"], Int[Array, "b m c"], Float[Array, "b m c v"]]:
        """Quantized frames, the entries chosen, and the plain softmax over entries; all in float32 or wider."""
        c = self.config
        groups, entries = c.codebook_groups, c.codebook_entries
        scorer = nn.Dense(
            groups * entries,
            # In bfloat16, scores that are near each other round to the same number: another entry is then the best
            # for 0.7 % of the frames of fresh parameters
            dtype=jnp.promote_types(c.encoder.compute_dtype, jnp.float32),
            # fairseq's weight_proj, N(0, 1); its `vars`, the codebook below, are U(0, 1)
            kernel_init=nn.initializers.normal(1.0),
            name="logits",
        )
        logits = scorer(x).reshape(*x.shape[:2], groups, entries)
        width = c.codebook_width // groups  # a target is one entry of each group, side by side
        codebook = self.param("codebook", nn.initializers.uniform(1.0), (groups * entries, width))
        if gumbel is None:
            code = jnp.argmax(logits, -1)
            choice = jax.nn.one_hot(code, entries, dtype=logits.dtype)
        else:
            # p = softmax((l + n) / tau); the forward pass uses the one-hot argmax, the backward pass the gradient of p
            soft = jax.nn.softmax((logits + gumbel) / temperature, axis=-1)
            code = jnp.argmax(soft, -1)
            hard = jax.nn.one_hot(code, entries, dtype=logits.dtype)
            choice = hard + soft - jax.lax.stop_gradient(soft)
        codebook = codebook.reshape(groups, entries, width).astype(choice.dtype)
        quantized = jnp.einsum("bmcv,cvw->bmcw", choice, codebook).reshape(*x.shape[:2], c.codebook_width)
        return quantized, code.astype(jnp.int32), jax.nn.softmax(logits, axis=-1)


class PreTraining(nn.Module):
    """Encoder, quantizer and projections: everything that the objective needs, before the loss."""

    config: Config

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "b s"],
        lengths: Int[Array, "b"],
        draws: Draws,
        noise: encoders.Noise | None,
        step: Int[Array, ""],
    ) -> dict:
        c, e = self.config, self.config.encoder
        x, out = encoders.Encoder(e, name="encoder")(
            audio,
            lengths,
            noise=noise and noise.fold_in(ENCODER),
            masked=mask_of(draws.index, draws.masked_valid, e.frames(audio.shape[1])),
            feature_gradient_scale=c.feature_gradient_scale,
        )
        return {**out, **compared(c, x, out["features"], draws, noise, step)}


def compared(
    config: Config,
    x: Float[Array, "b t d"],
    features: Float[Array, "b t c"],
    draws: Draws,
    noise: encoders.Noise | None,
    step: Int[Array, ""],
) -> dict:
    """Quantizer and projections, as parts of the module that calls: the contexts x of masked frames against targets."""
    # Targets come from the stem, before masking; in the context the mask embedding stood in their place
    e, where = config.encoder, (draws.index, draws.masked_valid)
    seen = masking.of_rows(features, *where)
    seen = encoders.dropout(e, seen, config.quantizer_dropout, noise and noise.fold_in(QUANTIZER))
    quantized, code, share = Quantizer(config, name="quantizer")(seen, draws.gumbel, config.temperature(step))
    targets = layers.projection(config.codebook_width, config.target_width, e.compute_dtype, "project_quantized")(
        quantized
    )
    context = masking.of_rows(x, *where)
    context = layers.projection(e.width, config.target_width, e.compute_dtype, "project_context")(context)
    # cos(context_i, target_j) / kappa for every pair of a row's masked frames. The negatives of i are some of the j, so
    # counting how often each was drawn replaces a gather of [b, m, n, d] targets.
    logits = jnp.einsum("bid,bjd->bij", losses.unit(context), losses.unit(targets)) / config.logit_temperature
    return {"logits": logits, "code": code, "code_share": share}


# Each use of noise folds its own number into a row's key; renumbering them changes the results of every run.
MASK, NEGATIVES, GUMBEL, ENCODER, QUANTIZER, TRIM = range(6)


def mask_of(index: Int[Array, "b m"], masked_valid: Bool[Array, "b m"], t: int) -> Bool[Array, "b {t}"]:
    """The [b, t] mask whose True frames are the valid ones of `index`."""
    place = jnp.where(masked_valid, index, t)  # padding points behind the last frame, where it matches none
    return (place[:, :, None] == jnp.arange(t)[None, None]).any(1)


def draw_masks(
    config: Any, noise: encoders.Noise, frames: Int[Array, "g r"], t: int, *, equal_masks: bool
) -> Bool[Array, "b {t}"]:
    """The masked frames of the rows of g loss groups; `config` has the mask's share, span and least number of spans.

    `equal_masks` trims the rows of a group to its smallest number of masked frames, as fairseq does.
    """
    flat = frames.reshape(-1)
    shape = {"share": config.mask_share, "span": config.mask_frames, "min_spans": config.min_masks}
    masked = masking.span_mask(noise.fold_in(MASK).rows, flat, t, **shape)
    if not equal_masks:
        return masked
    # Empty rows pad the last batch: t keeps them from being the smallest
    counts = jnp.where(frames > 0, masked.sum(1).reshape(frames.shape), t).min(1, keepdims=True)
    keep = jnp.broadcast_to(counts, frames.shape).reshape(-1)
    return masking.equal_counts(noise.fold_in(TRIM).rows, masked, keep)


def draw(
    config: Config, noise: encoders.Noise, frames: Int[Array, "g r"], t: int, *, train: bool, equal_masks: bool
) -> Draws:
    """Masks as `draw_masks`, negatives and (in training) Gumbel noise for the rows of g loss groups."""
    masked = draw_masks(config, noise, frames, t, equal_masks=equal_masks)
    m = config.masked_bound(t)
    index, masked_valid = masking.masked_index(masked, m)
    negatives = masking.negatives(noise.fold_in(NEGATIVES).rows, masked_valid.sum(1), m, config.negatives)
    shape = (m, config.codebook_groups, config.codebook_entries)
    gumbel = jax.vmap(lambda key: jax.random.gumbel(key, shape))(noise.fold_in(GUMBEL).rows) if train else None
    return Draws(index, masked_valid, negatives, gumbel)


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
    """(sum, weight, metric sums) of the objective over g loss groups of r rows (fairseq's Wav2vecCriterion).

    `batch`: `audio` float [g, r, s] in [-1, 1], `lengths` int [g, r] in samples (0: an empty row that counts
    nothing). The caller divides summed gradients and metrics by the summed weight, the number of masked
    frames. `noise` has one entry per row; not `train`: no dropout, most likely codes. `draws` overrides the
    random choices.
    """
    g, r, s = batch["audio"].shape
    lengths = batch["lengths"].reshape(-1)
    t = config.encoder.frames(s)
    if draws is None:
        frames = config.encoder.frames(batch["lengths"])
        draws = draw(config, noise, frames, t, train=train, equal_masks=equal_masks)
    module = PreTraining(config)
    dropouts = noise if train else None
    out = module.apply({"params": params}, batch["audio"].reshape(-1, s), lengths, draws, dropouts, step)
    return objective(config, out, draws, g)


def objective(config: Config, out: dict, draws: Draws, g: int) -> tuple[Float[Array, ""], Float[Array, ""], dict]:
    """The loss and its terms from a forward pass over g loss groups."""

    def grouped(x):
        return x.reshape(g, -1, *x.shape[1:])

    def merged(x):
        return x.reshape(g, -1, *x.shape[2:])

    code, valid = out["code"], draws.masked_valid
    same_code = jnp.all(code[:, :, None] == code[:, None], -1)
    rows = losses.contrastive(out["logits"], same_code, masking.draw_counts(draws.negatives), valid)
    terms = {name: grouped(x).sum(1) for name, x in rows.items()}

    frames_valid = merged(valid)
    weight = valid.sum(dtype=terms["loss"].dtype)
    group_weight = frames_valid.sum(1, dtype=terms["loss"].dtype)
    likeliest = jnp.argmax(out["code_share"], -1)  # without the Gumbel noise, as fairseq counts it
    hard = jax.nn.one_hot(likeliest, config.codebook_entries, dtype=terms["loss"].dtype)
    prob_perplexity = losses.perplexity(losses.group_mean(merged(out["code_share"]), frames_valid))
    code_perplexity = losses.perplexity(losses.group_mean(merged(hard), frames_valid))
    # Diversity: (G V - sum of the groups' perplexities) / (G V), from the mean softmax of a loss group. A mean over
    # another set of frames has another perplexity, hence groups and not whole batches. fairseq multiplies both
    # regularisers by the number of masked frames, so that one division by the weight is right for all terms.
    total = config.codebook_groups * config.codebook_entries
    penalty = losses.feature_penalty(grouped(out["conv_features"]), grouped(out["valid"]))
    diversity = config.diversity_weight * group_weight * (total - prob_perplexity) / total
    penalty = config.feature_penalty_weight * group_weight * penalty
    sums = {
        "contrastive": terms["loss"],
        "diversity": diversity,
        "feature_penalty": penalty,
        "code_perplexity": code_perplexity * group_weight,
        "prob_perplexity": prob_perplexity * group_weight,
        **{name: terms[name] for name in ("correct", "drawn", "equal")},
    }
    sums = {name: jnp.sum(x) for name, x in sums.items()}
    loss = sums["contrastive"] + sums["diversity"] + sums["feature_penalty"]
    return loss, weight, {**sums, "loss": loss}


def summary(sums: dict) -> dict:
    """What is logged of a step, from its metric sums and `weight`: losses in bits per masked frame, as fairseq."""
    weight = jnp.maximum(sums["weight"], 1)
    bits = {  # 1 nat = 1 / ln 2 bits
        name: sums[name] / weight / jnp.log(2.0) for name in ("loss", "contrastive", "diversity", "feature_penalty")
    }
    return {
        **bits,
        "accuracy": sums["correct"] / weight,
        "code_perplexity": sums["code_perplexity"] / weight,
        "prob_perplexity": sums["prob_perplexity"] / weight,
        "equal_negatives": sums["equal"] / jnp.maximum(sums["drawn"], 1),
        "masked_frames": sums["weight"],
    }


def schedules(config: Config, step) -> dict:
    """Quantities that follow from the number of completed updates alone, logged with every step."""
    return {"temperature": config.temperature(step)}


def view(config: Config) -> display.View:
    """The terms of the objective as people see them; a guess is one among the positive and its negatives."""
    candidates = config.negatives + 1
    columns = (
        display.Column("contrast", 8, ("contrastive",), ".4f"),
        display.Column("div", 7, ("diversity",), ".4f"),
        display.Column("ppl(code,prob)", 14, ("code_perplexity", "prob_perplexity"), ".1f"),
        display.Column("acc", 6, ("accuracy",), ".4f"),
        display.Column("temp", 6, ("temperature",), ".3f"),
    )
    choices = (("code_perplexity", "codes chosen"), ("prob_perplexity", "mean probability"))
    parts = (("diversity", "diversity"), ("feature_penalty", "feature penalty"))
    panels = (
        display.Panel(
            "contrastive loss", display.BITS, (("contrastive", "training"),), "contrastive", math.log2(candidates)
        ),
        display.Panel("contrastive accuracy", display.SHARE, (("accuracy", "training"),), "accuracy", 1 / candidates),
        display.Panel("perplexity of the quantizer, all groups", display.ENTRIES, choices, "code_perplexity"),
        display.Panel("diversity loss and feature penalty", f"{display.BITS}, log scale", parts, log=True),
    )
    return display.View(columns, panels)


def collapse_signs(config: Config, row: dict) -> list[str]:
    """Sentences for what looks like collapse in one logged step (codes all alike, trivial negatives, no masks)."""
    signs = []
    # Perplexities are sums over the groups: one code for every frame gives 1 for each group.
    least = config.codebook_groups
    if row["code_perplexity"] < COLLAPSED_PERPLEXITY * least:
        total = least * config.codebook_entries
        signs.append(f"code perplexity {row['code_perplexity']:.2f} of {total}: nearly all frames share one code")
    if row["equal_negatives"] > COLLAPSED_NEGATIVES:
        signs.append(f"{row['equal_negatives']:.0%} of the negatives have the positive's code")
    if row["accuracy"] > COLLAPSED_ACCURACY and row["contrastive"] < COLLAPSED_BITS:
        signs.append(
            f"contrastive accuracy {row['accuracy']:.1%} at {row['contrastive']:.3f} bits: the task is trivial"
        )
    if row["masked_frames"] < 1:
        signs.append("no frame is masked")
    return signs


def init_params(config: Config, key: Key[Array, ""]) -> dict:
    """Freshly initialised parameters of the encoder, the quantizer and the projections."""
    samples = config.min_samples
    # No parameter's shape depends on the length: the shortest clip that can be masked is the cheapest to trace.
    m = config.masked_bound(config.encoder.frames(samples))
    draws = Draws(jnp.zeros((1, m), jnp.int32), jnp.ones((1, m), bool), jnp.zeros((1, m, 1), jnp.int32), None)
    lengths = jnp.full((1,), samples)
    return PreTraining(config).init(key, jnp.zeros((1, samples)), lengths, draws, None, jnp.zeros([], jnp.int32))[
        "params"
    ]
