"""Adam as fairseq defines it, and fairseq's learning-rate schedule."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class AdamState(NamedTuple):
    """Number of completed updates, and the two moments, shaped like the parameters."""

    count: Int[Array, ""]
    mu: optax.Updates
    nu: optax.Updates


def scale_by_fairseq_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam's direction, with eps added to the uncorrected root of the second moment, as fairseq does."""
    # fairseq:  sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)
    # optax:    m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps'),    the same for eps' = eps / sqrt(1 - b2^t)
    # So in the first updates eps weighs more here than in optax.scale_by_adam.

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params=None):
        del params
        count = state.count + 1
        mu = optax.update_moment(grads, state.mu, b1, 1)
        nu = optax.update_moment(grads, state.nu, b2, 2)
        scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        direction = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), mu, nu)
        return direction, AdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def linear_schedule(peak: float, total_steps: int, warmup_share: float) -> optax.Schedule:
    """Rate after k completed updates: linear from 0 to `peak` in the warm-up, then linear to 0 at `total_steps`."""
    warmup_steps = round(warmup_share * total_steps)
    rise = optax.linear_schedule(0.0, peak, warmup_steps)
    fall = optax.linear_schedule(peak, 0.0, total_steps - warmup_steps)
    return optax.join_schedules([rise, fall], [warmup_steps])


def fairseq_adam(
    schedule: optax.Schedule, *, b1: float, b2: float, eps: float, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
    """Decoupled weight decay on every parameter and the Adam step; `clip_norm` 0 means no clipping."""
    # Decay is added to Adam's direction, so it is scaled by the rate and not by the second moment (AdamW).
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    parts += [
        scale_by_fairseq_adam(b1, b2, eps),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(schedule),
    ]
    return optax.chain(*parts)


def moving_average(average: Any, values: Any, decay: float) -> Any:
    """decay * average + (1 - decay) * values, of every array of a tree."""
    return jax.tree.map(lambda a, x: a + (1 - decay) * (x - a), average, values)
