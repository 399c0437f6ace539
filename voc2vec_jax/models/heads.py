"""From frames to a label: masked pooling and the classification head of transformers."""

import dataclasses
from collections.abc import Collection

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

POOLINGS = ("mean", "attention")


@dataclasses.dataclass(frozen=True)
class Config:
    """One classification head; the defaults are transformers'."""

    classes: int = 2
    width: int = 256  # of the projected frames
    layer_sum: bool = False  # a learned average of all hidden states instead of the last frames alone
    dtype: str = "float32"  # of the computation; parameters stay float32
    pooling: str = "mean"  # over the projected frames: one of POOLINGS

    @classmethod
    def of(cls, width: int, classes: int, names: Collection[str]) -> "Config":
        """The head whose parameters have these `names`, and whose classifier takes `width` to `classes`."""
        pooling = "attention" if "query" in names else "mean"
        return cls(classes=classes, width=width, layer_sum="layer_weights" in names, pooling=pooling)


def pool(x: Float[Array, "b t d"], valid: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Mean over each row's valid frames; zero for a row without any."""
    count = jnp.maximum(valid.sum(1, keepdims=True), 1)
    return (jnp.where(valid[..., None], x, 0).sum(1) / count).astype(x.dtype)


def attend(
    x: Float[Array, "b t d"], valid: Bool[Array, "b t"], query: Float[Array, "d"]
) -> tuple[Float[Array, "b d"], Float[Array, "b"]]:
    """sum_t softmax(x q)_t x_t over each row's valid frames, and log sum_t exp(x q)_t.

    Self-attention pooling, equation 5 of Safari, India and Hernando (2020), "Self-attention encoding and pooling for
    speaker recognition". A query of zeros gives the mean. A row without valid frames gives zero and minus infinity.
    The logarithm is the weight with which the windows of one recording join: exp of it, over their sum.
    """
    # Elementwise and a sum, as a product of matrices may round the scores to the matrix unit's type.
    x = jnp.where(valid[..., None], x, 0)
    scores = jnp.where(valid, (x * query[None, None]).sum(-1), -jnp.inf)
    largest = jnp.maximum(scores.max(1, keepdims=True), jnp.finfo(scores.dtype).min)  # finite in empty rows
    shares = jnp.exp(scores - largest)
    total = shares.sum(1)
    pooled = (x * shares[..., None]).sum(1) / jnp.where(total > 0, total, 1)[:, None]
    return pooled, jnp.log(total) + largest[:, 0]


class Classifier(nn.Module):
    """Frames to logits: project, pool, classify. With the mean, transformers' `ForSequenceClassification`."""

    config: Config

    def __call__(
        self,
        x: Float[Array, "b t d"],
        valid: Bool[Array, "b t"],
        hidden_states: Float[Array, "l b t d"] | None = None,
    ) -> Float[Array, "b v"]:
        """Logits in float32 or wider from an encoder's frames, or with `layer_sum` from its `hidden_states`."""
        return self.weighed(x, valid, hidden_states)[0]

    @nn.compact
    def weighed(
        self,
        x: Float[Array, "b t d"],
        valid: Bool[Array, "b t"],
        hidden_states: Float[Array, "l b t d"] | None = None,
    ) -> tuple[Float[Array, "b v"], Float[Array, "b"]]:
        """The logits, and the logarithm of each row's weight when the windows of a recording join."""
        c = self.config
        # x = sum_l softmax(w)_l h_l
        if c.layer_sum:
            if hidden_states is None:
                raise ValueError("hidden_states is None, but layer_sum needs them: run the encoder with collect=True")
            layers = hidden_states.shape[0]
            weights = self.param("layer_weights", nn.initializers.constant(1 / layers), (layers,))
            x = jnp.einsum("l,lbtd->btd", jax.nn.softmax(weights), hidden_states).astype(x.dtype)
        init = nn.initializers.normal(0.02)
        projected = nn.Dense(c.width, dtype=jnp.dtype(c.dtype), kernel_init=init, name="projector")(x)
        projected = projected.astype(jnp.promote_types(projected.dtype, jnp.float32))
        if c.pooling == "attention":
            pooled, weight = attend(projected, valid, self.param("query", nn.initializers.zeros, (c.width,)))
        else:
            pooled, weight = pool(projected, valid), jnp.log(valid.sum(1).astype(projected.dtype))
        return nn.Dense(c.classes, kernel_init=init, name="classifier")(pooled), weight
