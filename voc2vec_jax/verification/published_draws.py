"""Masks, negatives and noise as transformers draws them, from the generators of NumPy and torch.

A loss that its tests publish holds for these draws alone. The generators are NumPy's legacy one, which gives the same
numbers on all machines and in all versions, and torch's for CPUs.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int32

from voc2vec_jax.verification import published_numbers as numbers


def masks(generator: np.random.RandomState, rows: int, frames: int) -> Bool[np.ndarray, "b t"]:
    """Which frames are masked: spans of one length in each row, as many in each, that may overlap."""
    span = numbers.MASK_FRAMES
    spans = int(numbers.MASK_SHARE * frames / span + generator.rand(1).item())
    spans = min(max(spans, numbers.MIN_MASKS), frames // span)
    masked = np.zeros((rows, frames), bool)
    for row in masked:
        for start in generator.choice(np.arange(frames - span + 1), spans, replace=False):
            row[start : start + span] = True
    return masked


def negatives(generator: np.random.RandomState, masked: Bool[np.ndarray, "b t"]) -> list[Int32[np.ndarray, "m n"]]:
    """For each row and each of its m masked frames, others among these m, by their places."""
    found = []
    for count in masked.sum(1):
        drawn = generator.randint(0, count - 1, size=(count, numbers.NEGATIVES))
        found.append((drawn + (drawn >= np.arange(count)[:, None])).astype(np.int32))
    return found


def gumbel(seed: int, drawn_before: int, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """Gumbel noise of torch's generator, once `drawn_before` single numbers were drawn.

    ImportError without torch.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for _ in range(drawn_before):
        torch.rand([], generator=generator)
    return -torch.empty(shape).exponential_(generator=generator).log().numpy()
