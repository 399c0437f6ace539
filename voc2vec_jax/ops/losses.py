"""Losses as sums per row or loss group; the caller divides once, by the global weight.

g = loss groups, r = rows of a group, m = masked frames of a row (padded), v = codebook entries.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

COSINE_EPS = 1e-8
PERPLEXITY_EPS = 1e-7


def unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Rows of length one, in float32 or wider; lengths below 1e-8 count as 1e-8, as in torch.cosine_similarity."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # The inner `where` keeps the gradient finite: d rsqrt(s) is infinite at 0, and 0 * inf would be NaN.
    square = jnp.sum(x * x, -1, keepdims=True)
    positive = square > COSINE_EPS**2
    return x * jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, square, 1.0)), 1 / COSINE_EPS)


def contrastive(
    logits: Float[Array, "b m m"],
    same_code: Bool[Array, "b m m"],
    counts: Int[Array, "b m m"],
    masked_valid: Bool[Array, "b m"],
) -> dict[str, Float[Array, "b"]]:
    """InfoNCE of wav2vec 2.0 (equation 3), from the logits of all pairs and how often each was drawn.

    logits[b, i, j] compares the context at masked frame i with the target of frame j; the diagonal holds the
    positives. counts[b, i, j] is how often j was drawn as a negative of i. Negatives whose code equals the positive's
    are left out (fairseq sets them to -inf). Returns sums per row: `loss` in nats, `correct` and `count` for fairseq's
    accuracy, `drawn` negatives, and those of them `equal` to the positive.
    """
    # loss_i = -l_ii + log(exp(l_ii) + sum_j c_ij exp(l_ij)), and c exp(l) = exp(l + log c). A negative drawn twice
    # counts twice, so this is the loss over a gathered list of negatives, without a gather and its scattered gradient.
    m = logits.shape[-1]
    own = jnp.eye(m, dtype=bool)[None]
    real = masked_valid[:, :, None] & masked_valid[:, None, :] & ~own
    drawn = jnp.where(real, counts, 0)
    kept = jnp.where(same_code, 0, drawn)
    weight = jnp.where(own, 1, kept)
    terms = jnp.where(weight > 0, logits + jnp.log(jnp.maximum(weight, 1).astype(logits.dtype)), -jnp.inf)
    positive = jnp.where(own, logits, 0).sum(2)  # jnp.diagonal would have a scattered gradient
    loss = jax.nn.logsumexp(terms, axis=2) - positive

    # fairseq's accuracy: the positive has the largest logit, and not the smallest at the same time (all are equal).
    # fairseq sets an excluded negative to -inf; with one, the positive is never the smallest.
    negative = jnp.where(kept > 0, logits, -jnp.inf)
    largest = jnp.max(negative, 2)
    excluded = jnp.any((drawn > 0) & same_code, 2)
    smallest = jnp.where(excluded, -jnp.inf, jnp.min(jnp.where(kept > 0, logits, jnp.inf), 2))
    highest, lowest = positive >= largest, positive <= smallest
    sums = {
        "loss": loss,
        "correct": (highest & ~lowest).astype(logits.dtype),
        "count": jnp.ones_like(loss),
        "drawn": drawn.sum(2).astype(logits.dtype),
        "equal": (drawn - kept).sum(2).astype(logits.dtype),
    }
    return {name: jnp.where(masked_valid, x, 0).sum(1) for name, x in sums.items()}


def group_mean(x: Float[Array, "g n *d"], valid: Bool[Array, "g n"]) -> Float[Array, "g *d"]:
    """Mean over the valid entries of each group; 0 for a group without any."""
    # `where` and not a product: 0 times a NaN in the padding is NaN.
    weight = valid.reshape(valid.shape + (1,) * (x.ndim - 2))
    count = jnp.maximum(valid.sum(1), 1).reshape((-1,) + (1,) * (x.ndim - 2))
    return jnp.where(weight, x, 0).sum(1) / count


def perplexity(average: Float[Array, "g c v"]) -> Float[Array, "g"]:
    """Sum over codebooks of exp(entropy) of the average choice: from 1 to v for each codebook (equation 4)."""
    return jnp.exp(-(average * jnp.log(average + PERPLEXITY_EPS)).sum(-1)).sum(-1)


def feature_penalty(features: Float[Array, "g r t c"], valid: Bool[Array, "g r t"]) -> Float[Array, "g"]:
    """Mean square of each group's valid convolutional features, in float32 or wider."""
    x = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    square = jnp.where(valid[..., None], x * x, 0).sum((1, 2, 3))
    return square / (jnp.maximum(valid.sum((1, 2)), 1) * features.shape[-1])


def cross_entropy(
    logits: Float[Array, "b v"], target: Int[Array, "b"], weight: Float[Array, "b"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Weighted sum of the rows' cross-entropies in nats, and the sum of the weights."""
    log_share = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    # A comparison instead of a gather, whose gradient would be scattered.
    own = jnp.where(target[:, None] == jnp.arange(logits.shape[1])[None], log_share, 0).sum(1)
    return -(jnp.where(weight > 0, own, 0) * weight).sum(), weight.sum()


def binary_cross_entropy(
    logits: Float[Array, "b v"], target: Float[Array, "b v"], positive_weight: Float[Array, "1 v"]
) -> Float[Array, "b v"]:
    """-w y log s(z) - (1 - y) log (1 - s(z)) in nats, with s the sigmoid; torch's BCEWithLogitsLoss, not reduced."""
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # log (1 - s(z)) = log s(-z), and neither can overflow
    return -(positive_weight * target * jax.nn.log_sigmoid(wide) + (1 - target) * jax.nn.log_sigmoid(-wide))
