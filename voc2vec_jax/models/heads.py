"""From frames to a label: masked pooling and the classification head of transformers."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Config:
    """One classification head; the defaults are transformers'."""

    classes: int = 2
    width: int = 256  # of the projected frames
    layer_sum: bool = False  # a learned average of all hidden states instead of the last frames alone
    dtype: str = "float32"  # of the computation; parameters stay float32


def pool(x: Float[Array, "b t d"], valid: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Mean over each row's valid frames; zero for a row without any."""
    count = jnp.maximum(valid.sum(1, keepdims=True), 1)
    return (jnp.where(valid[..., None], x, 0).sum(1) / count).astype(x.dtype)


class Classifier(nn.Module):
    """Frames to logits, as transformers' `ForSequenceClassification`: project, pool, classify."""

    config: Config

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        valid: Bool[Array, "b t"],
        hidden_states: Float[Array, "l b t d"] | None = None,
    ) -> Float[Array, "b v"]:
        """Logits in float32 or wider from an encoder's frames, or with `layer_sum` from its `hidden_states`."""
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
        pooled = pool(projected.astype(jnp.promote_types(projected.dtype, jnp.float32)), valid)
        return nn.Dense(c.classes, kernel_init=init, name="classifier")(pooled)
