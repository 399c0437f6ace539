"""The layers that a caller asks for."""

from typing import Any

import numpy as np

from voc2vec_jax import errors


def numbers(layer: Any, depth: int) -> tuple[int, ...]:
    """A layer, several or "all" as `forward.compiled_embed` takes them; depth and -1 become the last frames, depth + 1.

    InputError for what is no layer of a model with `depth` blocks.
    """
    wanted = list(range(depth + 1)) if isinstance(layer, str) and layer == "all" else layer
    wanted = [wanted] if np.ndim(wanted) == 0 else list(wanted)
    if not wanted or not all(isinstance(k, int | np.integer) for k in wanted):
        raise errors.InputError(f"layer {layer!r} is no layer: give a number, a list of numbers or 'all'")
    for k in wanted:
        if not -depth - 1 <= k <= depth:
            raise errors.InputError(
                f"layer {k} is not there: this model has layers 0 to {depth} (or -1 to -{depth + 1})"
            )
    return tuple(depth + 1 if k % (depth + 1) == depth else int(k) % (depth + 1) for k in wanted)
