"""What the calls of a model give."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float, Float32, Int32


@dataclasses.dataclass(frozen=True)
class Output:
    """A model's frames of a batch. Past a row's own frames: zeros with exact padding, undefined with legacy."""

    last_hidden_state: Float[Array, "b t d"]
    hidden_states: tuple[Float[Array, "b t d"], ...]  # the input of the first block, then each block's output
    frame_lengths: Int32[np.ndarray, " b"]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The label of each item (None if it was skipped) and the probability of every class, as in `answers`.

    Of a regression the label is the number as text, and `probabilities` holds the numbers.
    """

    labels: tuple[str | None, ...]
    probabilities: Float32[np.ndarray, "n v"]
    classes: tuple[str, ...]  # of the columns
