"""What is computed of published weights, and how far it is from what public test suites print."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32

from voc2vec_jax import errors
from voc2vec_jax.convert import reader
from voc2vec_jax.inference import padded_batches, pretrained
from voc2vec_jax.models import wav2vec2
from voc2vec_jax.verification import published_clips as clips
from voc2vec_jax.verification import published_draws as draws
from voc2vec_jax.verification import published_numbers as numbers


class Found(NamedTuple):
    """What a comparison found: largest difference, largest value of the reference, how much of a difference is allowed.

    `excess` is the largest of difference / allowed, so that at most 1 is equal. `why` says more, without a full stop.
    """

    difference: float
    largest: float
    excess: float
    why: str = ""


class Check(NamedTuple):
    """One published result: what is compared with what, the recordings it needs, and the function that compares."""

    compared: str
    needs: tuple[numbers.Clip, ...]
    compute: Callable[[reader.ModelWeights, clips.Recordings], Found]


def _against(ours: Any, published: Any, absolute: float, relative: float = 0.0, why: str = "") -> Found:
    """Ours against published values, of which each may differ by `absolute` + `relative` * its size."""
    ours, published = np.asarray(ours, np.float64), np.asarray(published, np.float64)
    if ours.shape != published.shape:
        raise errors.RunError(f"ours has the shape {ours.shape} and the published one {published.shape}")
    apart = np.abs(ours - published)
    excess = (apart / (absolute + relative * np.abs(published))).max()
    # A NaN of ours is a difference without bound
    return Found(float(apart.max()), float(np.abs(published).max()), float(np.nan_to_num(excess, nan=np.inf)), why)


def _padded(
    weights: reader.ModelWeights, found: clips.Recordings, masked: bool
) -> tuple[Float32[np.ndarray, "2 s"], np.ndarray]:
    """The two clips of transformers' suite as its feature extractor pads them, and their lengths.

    Each is normalised, if the checkpoint wants that, over its own samples with `masked`, else with its padding.
    """
    pair = [found.clip(clip) for clip in numbers.SPEECH]
    lengths = np.array([len(one) for one in pair], np.int32)
    batch = np.zeros((2, lengths.max()), np.float32)
    for row, one in zip(batch, pair):
        row[: len(one)] = one
    seen = lengths if masked else np.full_like(lengths, lengths.max())
    padded_batches.prepare(batch, lengths, seen, weights.eps if weights.normalizes else None)
    return batch, lengths


def _last_frames(weights: reader.ModelWeights, found: clips.Recordings) -> Found:
    """WavLM over both clips with an attention mask; the frames of padding are computed as others are."""
    told = {**weights.preprocessor, "return_attention_mask": True}
    model = pretrained.Model("", dataclasses.replace(weights, preprocessor=told), "float32", "legacy")
    batch, lengths = _padded(weights, found, masked=True)
    states = np.asarray(model(batch, lengths, normalize=False).last_hidden_state)
    tolerance = numbers.WAVLM_TOLERANCE
    return _against(states[:, -2:, -2:], numbers.WAVLM_SLICE, tolerance, tolerance)


def _block_nine(weights: reader.ModelWeights, found: clips.Recordings) -> Float32[np.ndarray, "t d"]:
    """HuBERT's frames of the clip of fairseq's suite, which does not normalise it."""
    model = pretrained.Model("", weights, "float32", "exact")
    states = model(found.clip(numbers.PLUMBING)[None], normalize=False).hidden_states
    if len(states) <= numbers.HUBERT_LAYER:
        raise errors.RunError(f"the model has {len(states) - 1} blocks, and block {numbers.HUBERT_LAYER} is compared")
    return np.asarray(states[numbers.HUBERT_LAYER][0])


def _features(weights: reader.ModelWeights, found: clips.Recordings) -> Found:
    """All features of block 9 where the suite's file is at hand, else the forty that are kept here."""
    ours = _block_nine(weights, found)
    tolerance = numbers.HUBERT_TOLERANCE
    try:
        whole = found.array(numbers.HUBERT_FILE, numbers.HUBERT_SHAPE, numbers.HUBERT_ADDRESS, numbers.HUBERT_SHA256)
    except clips.Missing as missing:
        if ours.shape != numbers.HUBERT_SHAPE:
            raise errors.RunError(f"ours has the shape {ours.shape} and the published {numbers.HUBERT_SHAPE}") from None
        few, kept = ours[list(numbers.HUBERT_FRAMES), :8], numbers.HUBERT_FEATURES
        why = f"compared are {kept.size} of {ours.size:,} values: {missing}"
        return _against(few, kept, tolerance, why=why)
    return _against(ours, whole, tolerance * max(1.0, float(np.abs(whole).max())))


def _units(weights: reader.ModelWeights, found: clips.Recordings) -> Found:
    """The nearest centroid of every frame; the difference is the number of frames with another one."""
    centroids = found.array(numbers.CENTROIDS_FILE, numbers.CENTROIDS_SHAPE)
    ours = _block_nine(weights, found).astype(np.float64)
    if ours.shape != numbers.HUBERT_SHAPE:
        raise errors.RunError(f"ours has the shape {ours.shape} and the published {numbers.HUBERT_SHAPE}")
    # |x - c|^2 without |x|^2, which is the same for all centroids
    nearest = ((centroids.astype(np.float64) ** 2).sum(1) - 2 * ours @ centroids.T).argmin(1)
    other = int((nearest != numbers.HUBERT_UNITS).sum())
    why = f"{other} of {len(nearest)} frames have another unit" if other else ""
    return Found(float(other), float(numbers.HUBERT_UNITS.max()), 2.0 * other, why)


def _pretraining(weights: reader.ModelWeights) -> tuple[wav2vec2.Config, Any]:
    """The configuration in float32 and the parameters, quantizer and projections included."""
    if weights.missing:
        raise errors.RunError(f"the checkpoint has no {weights.missing[0]}, so its objective cannot be computed")
    encoder = dataclasses.replace(weights.config.encoder, dtype="float32", remat="none", padding="exact")
    return dataclasses.replace(weights.config, encoder=encoder, negatives=numbers.NEGATIVES), weights.params


def _drawn(
    masked: Bool[np.ndarray, "b t"], negatives: list[np.ndarray] | None, noise: np.ndarray | None
) -> wav2vec2.Draws:
    """The random choices as the objective takes them: rows padded to the largest number of masked frames."""
    counts = masked.sum(1)
    m = int(counts.max())
    index = np.zeros((len(masked), m), np.int32)
    drawn = np.zeros((len(masked), m, numbers.NEGATIVES if negatives else 1), np.int32)
    chosen = None if noise is None else np.zeros((len(masked), m, *noise.shape[2:]), np.float32)
    for row, count in enumerate(counts):
        index[row, :count] = np.flatnonzero(masked[row])
        if negatives:
            drawn[row, :count] = negatives[row]
        if chosen is not None:
            chosen[row, :count] = noise[row, masked[row]]
    valid = np.arange(m) < counts[:, None]
    return wav2vec2.Draws(*map(jnp.asarray, (index, valid, drawn)), None if chosen is None else jnp.asarray(chosen))


@functools.partial(jax.jit, static_argnums=0)
def _objective(
    config: wav2vec2.Config, params: Any, audio: Float32[Array, "b s"], drawn: wav2vec2.Draws
) -> tuple[Float32[Array, "b m"], dict[str, Float32[Array, ""]]]:
    """The cosine of each masked frame's prediction and its own target, and the sums of the objective's terms."""
    lengths, step = jnp.full(len(audio), audio.shape[1]), jnp.zeros([], jnp.int32)
    out = wav2vec2.PreTraining(config).apply({"params": params}, audio, lengths, drawn, None, step)
    cosines = jnp.diagonal(out["logits"], axis1=1, axis2=2) * config.logit_temperature
    return cosines, wav2vec2.objective(config, out, drawn, 1)[2]


def _cosines(weights: reader.ModelWeights, found: clips.Recordings) -> Found:
    """wav2vec 2.0's predictions of masked frames, without dropout, of a batch whose padding is taken for sound."""
    config, params = _pretraining(weights)
    batch, _ = _padded(weights, found, masked=False)
    generator = np.random.RandomState(numbers.COSINES_SEED)
    masked = draws.masks(generator, len(batch), config.encoder.frames(batch.shape[1]))
    drawn = _drawn(masked, None, None)
    cosines, _ = _objective(config, params, batch, drawn)
    ours = np.asarray(cosines)[np.asarray(drawn.masked_valid)]
    return _against(ours, numbers.COSINES, numbers.COSINES_TOLERANCE, numbers.COSINES_TOLERANCE)


def _training(weights: reader.ModelWeights, found: clips.Recordings, drawn_before: int | None) -> dict[str, float]:
    """The sums of a training step's terms; with `drawn_before`, with the noise of torch's generator after as many."""
    config, params = _pretraining(weights)
    batch, _ = _padded(weights, found, masked=True)
    generator = np.random.RandomState(numbers.LOSS_SEED)
    frames = config.encoder.frames(batch.shape[1])
    masked = draws.masks(generator, len(batch), frames)
    negatives = draws.negatives(generator, masked)
    shape = (len(batch), frames, config.codebook_groups, config.codebook_entries)
    noise = None if drawn_before is None else draws.gumbel(numbers.LOSS_SEED, drawn_before, shape)
    _, sums = _objective(config, params, batch, _drawn(masked, negatives, noise))
    return {name: float(value) for name, value in sums.items()} | {"masked": int(masked.sum())}


def _diversity(weights: reader.ModelWeights, found: clips.Recordings) -> Found:
    """The share of codebook entries that a training step leaves unused, which no noise changes."""
    sums = _training(weights, found, None)
    ours = sums["diversity"] / weights.config.diversity_weight / sums["masked"]
    return _against(ours, numbers.DIVERSITY, numbers.LOSS_TOLERANCE)


def _loss(weights: reader.ModelWeights, found: clips.Recordings) -> Found:
    """The contrastive loss and the weighted diversity of a training step, summed over the masked frames.

    Versions of transformers differ in what they draw from torch's generator before the noise: nothing, or a number for
    each block (LayerDrop). Which one the published loss is from is not said: compared is the nearer.
    """
    try:
        sums = [_training(weights, found, drawn) for drawn in (0, weights.config.encoder.depth)]
    except ImportError:
        raise clips.Missing("the noise of this loss comes from torch's generator: pip install torch") from None
    both = [one["contrastive"] + one["diversity"] for one in sums]
    nearer = min(both, key=lambda value: abs(value - numbers.LOSS))
    return _against(nearer, numbers.LOSS, numbers.LOSS_TOLERANCE)


_IN = numbers.TRANSFORMERS
_WAV2VEC2 = f"{numbers.LOSS_TOLERANCE:g}, of {_IN}/wav2vec2 on {' and '.join(clip.stem for clip in numbers.SPEECH)}"
_WAVLM = f"{numbers.WAVLM_TOLERANCE:g}, of {_IN}/wavlm on {' and '.join(clip.stem for clip in numbers.SPEECH)}"
_HUBERT = f"of {numbers.FAIRSEQ} on {numbers.PLUMBING.stem}"
CHECKS: dict[str, tuple[Check, ...]] = {
    "wavlm-plus": (Check(f"eight values of the last frames, within {_WAVLM}", numbers.SPEECH, _last_frames),),
    "wav2vec2-ls": (
        Check(f"cosines of 40 masked frames with their targets, within {_WAV2VEC2}", numbers.SPEECH, _cosines),
        Check(f"diversity of a training step, within {_WAV2VEC2}", numbers.SPEECH, _diversity),
        Check(f"loss of a training step, within {_WAV2VEC2}", numbers.SPEECH, _loss),
    ),
    "hubert-ls": (
        Check(f"block 9, within {numbers.HUBERT_TOLERANCE:g}, {_HUBERT}", (numbers.PLUMBING,), _features),
        Check(f"units of 596 frames, {_HUBERT}", (numbers.PLUMBING,), _units),
    ),
}
