"""Frame arithmetic, span masks and negatives: everything that decides which frames the objective sees.

Each row draws from its own key. Its draws depend neither on its batch nor on the number of devices.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key


def frame_lengths(samples, kernels: tuple[int, ...], strides: tuple[int, ...]):
    """Frames that valid convolutions make of `samples` inputs (an int or an integer array); at least 0."""
    #     n = 7, kernel 3, stride 2:   0 1 2 | 2 3 4 | 4 5 6     frames = (7 - 3) // 2 + 1 = 3
    n = samples
    for kernel, stride in zip(kernels, strides):
        n = (n - kernel) // stride + 1
        n = max(n, 0) if isinstance(n, int) else n * (n > 0)
    return n


def valid_frames(frames: Int[Array, "b"], t: int) -> Bool[Array, "b {t}"]:
    """True on each row's first `frames` frames."""
    return jnp.arange(t)[None] < frames[:, None]


def span_count_bound(t: int, share: float, span: int, min_spans: int) -> int:
    """The largest number of spans that `span_mask` can draw for `t` frames."""
    return max(min_spans, int(share * t / span + 1))


def masked_bound(t: int, share: float, span: int, min_spans: int) -> int:
    """The largest number of frames that `span_mask` can mask among `t`."""
    return min(t, span * span_count_bound(t, share, span, min_spans))


def span_mask(
    keys: Key[Array, "b"], frames: Int[Array, "b"], t: int, *, share: float, span: int, min_spans: int
) -> Bool[Array, "b {t}"]:
    """Union of overlapping spans per row, as fairseq's `compute_mask_indices` draws them (static, overlap allowed).

    A row of f frames gets n = max(min_spans, floor(share * f / span + u)) spans, with u uniform per row. Starts are
    drawn without replacement from the first f - span frames, or from n + 1 frames if f - span <= n; only in rows that
    short can the last frame be masked. Spans end with the row.
    """
    # Short rows draw starts beyond their end, as fairseq's do: hence positions for n + 1 starts, however short t is.
    positions = max(t, span_count_bound(t, share, span, min_spans) + 1)

    def row(key, f):
        count_key, start_key = jax.random.split(key)
        n = jnp.floor(share * f / span + jax.random.uniform(count_key)).astype(jnp.int32)
        n = jnp.maximum(n, min_spans)
        choices = jnp.where(f - span <= n, n + 1, f - span)
        starts = choose(start_key, jnp.arange(positions) < choices, n)
        # A frame is masked if more spans have begun than ended there; for one span of 3 that starts at 2:
        #     starts   0 0 1 0 0 0 0
        #     begun    0 0 1 1 1 1 1
        #     ended    0 0 0 0 0 1 1     begun, `span` frames later
        begun = jnp.cumsum(starts)
        ended = jnp.concatenate([jnp.zeros(span, begun.dtype), begun])[:positions]
        return ((begun > ended) & (jnp.arange(positions) < f))[:t]

    return jax.vmap(row)(keys, frames)


def augmentation_mask(
    keys: Key[Array, "b"],
    frames: Int[Array, "b"],
    t: int,
    *,
    share: float,
    span: int,
    min_spans: int,
    scaled: bool = False,
) -> Bool[Array, "b {t}"]:
    """Union of spans per row, as transformers draws them for SpecAugment (`_compute_mask_indices`).

    A row of f frames gets n = max(min_spans, floor(share * f / span + u)) spans, with u uniform per row, but at most
    f // span. Starts are drawn without replacement from all places where a span fits. Rows shorter than a span, which
    transformers refuses, get none.

    That hides 40 % of 50 frames, whatever the share, by two spans of ten. `scaled` keeps to the share in rows too short
    for `min_spans` spans: see `span_counts`.
    """
    at = jnp.arange(t)

    def row(key, f):
        count_key, start_key = jax.random.split(key)
        length, mean, least = span_counts(f, share=share, span=span, min_spans=min_spans, scaled=scaled)
        n = jnp.floor(mean + jax.random.uniform(count_key)).astype(jnp.int32)
        n = jnp.minimum(jnp.maximum(n, least), f // length)
        starts = choose(start_key, at < f - length + 1, n)
        begun = jnp.cumsum(starts)
        return begun > jnp.where(at >= length, begun[at - length], 0)

    return jax.vmap(row)(keys, frames)


def span_counts(frames, *, share: float, span: int, min_spans: int, scaled: bool):
    """Of rows of `frames` (an integer array): the length of the spans, their mean number and their least number.

    Published: `span`, share * f / span and `min_spans`, as in transformers. Scaled: spans are shortened until
    `min_spans` of them have no more than the share, to one frame at last, and their number has no least:

        length s = clip(floor(share * f / min_spans), 1, span)     mean number share * f / s

    So the spans of a row add up to share * f frames on average, whatever f is, and to at most share * f + s.
    """
    if not scaled:
        return span, share * frames / span, min_spans
    length = jnp.clip((share * frames / max(1, min_spans)).astype(jnp.int32), 1, span)
    return length, share * frames / length, 0


def augmentation_share(frames: int, *, share: float, span: int, min_spans: int, scaled: bool = False) -> float:
    """The share of a row's frames that `augmentation_mask` hides on average.

    n spans hide frame i unless all their starts are among the P - c_i places whose span does not reach it:
    1 - C(P - c_i, n) / C(P, n), of P = f - s + 1 places.
    """
    if not share:
        return 0.0
    rule = span_counts(np.int64(frames), share=share, span=span, min_spans=min_spans, scaled=scaled)
    length, mean, least = int(rule[0]), float(rule[1]), int(rule[2])
    if frames < length:
        return 0.0
    at = np.arange(frames)
    places = frames - length + 1
    reaching = np.minimum(at, places - 1) - np.maximum(0, at - length + 1) + 1
    hidden = 0.0
    # floor(mean + u) is one of two numbers; the larger one as often as the mean exceeds the smaller.
    for drawn, chance in ((math.floor(mean), 1 - mean % 1), (math.floor(mean) + 1, mean % 1)):
        n = min(max(drawn, least), frames // length)
        spared = np.ones(frames)
        for k in range(n):
            spared *= np.maximum(places - reaching - k, 0) / (places - k)
        hidden += chance * (1 - spared.mean())
    return hidden


def choose(key: Key[Array, ""], candidates: Bool[Array, "n"], count: Int[Array, ""]) -> Bool[Array, "n"]:
    """`count` of the True candidates, uniformly without replacement; all of them if there are fewer."""
    # The `count` smallest of uniform scores are a uniform choice; those of other frames, 2, come last. The second
    # argsort turns an order into ranks.
    scores = jnp.where(candidates, jax.random.uniform(key, candidates.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(scores))
    return (rank < count) & candidates


def equal_counts(keys: Key[Array, "b"], masked: Bool[Array, "b t"], keep: Int[Array, "b"]) -> Bool[Array, "b t"]:
    """Unmasks random frames until each row has `keep` masked ones (fairseq's `require_same_masks`)."""
    return jax.vmap(choose)(keys, masked, keep)


def masked_index(masked: Bool[Array, "b t"], m: int) -> tuple[Int[Array, "b {m}"], Bool[Array, "b {m}"]]:
    """Positions of each row's masked frames in order, padded with 0 to `m`, and which of them are real."""
    # Stable, so that masked frames come first and stay in order.
    order = jnp.argsort(~masked, axis=1, stable=True)[:, :m].astype(jnp.int32)
    valid = jnp.arange(m)[None] < masked.sum(1)[:, None]
    return jnp.where(valid, order, 0), valid


def negatives(keys: Key[Array, "b"], counts: Int[Array, "b"], m: int, n: int) -> Int[Array, "b {m} {n}"]:
    """For each of a row's `counts` masked frames, `n` others of the same row, uniformly with replacement."""

    def row(key, count):
        drawn = jax.random.randint(key, (m, n), 0, jnp.maximum(count - 1, 1))
        # The others are 0 ... count - 1 without i: numbers from i on move up by one.
        return drawn + (drawn >= jnp.arange(m)[:, None])

    return jax.vmap(row)(keys, counts)


def draw_counts(drawn: Int[Array, "b m n"]) -> Int[Array, "b m m"]:
    """counts[b, i, j]: how often frame j is among the negatives of frame i; draws outside the row are left out."""
    m = drawn.shape[1]
    own = jnp.arange(m)[:, None]
    return jax.vmap(lambda row: jnp.zeros((m, m), jnp.int32).at[own, row].add(1, mode="drop"))(drawn)


def of_rows(x: Float[Array, "b t d"], index: Int[Array, "b m"], real: Bool[Array, "b m"]) -> Float[Array, "b m d"]:
    """`x[b, index[b]]` where `real`, else zeros. The real indices of a row must differ."""
    # Row by row with vmap: one gather over all rows would fetch rows from other devices. Entries that are not real
    # get places of their own behind the row. All places then differ, and the gradient adds to each frame at most
    # once, in no order that a GPU would have to keep.
    places = jnp.where(real, index, x.shape[1] + jnp.arange(index.shape[1])[None])

    def chosen(row, place):
        return row.at[place].get(mode="fill", fill_value=0, unique_indices=True)

    return jax.vmap(chosen)(x, places)


def shortest_maskable(share: float, span: int, min_spans: int) -> int:
    """The smallest number of frames of which `span_mask` always leaves one unmasked; needs `share` < `span`."""
    # Starts come from the first f - span frames; from n + 1 frames once f - span <= n, and then all may be masked.
    frames = span
    while frames - span <= span_count_bound(frames, share, span, min_spans):
        frames += 1
    return frames


def samples_for_frames(frames: int, kernels: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """The fewest samples that give `frames` frames: the inverse of `frame_lengths`."""
    # (n - kernel) // stride + 1 = m has `stride` solutions; the smallest is (m - 1) * stride + kernel.
    n = frames
    for kernel, stride in zip(reversed(kernels), reversed(strides)):
        n = (n - 1) * stride + kernel
    return int(np.asarray(n))
