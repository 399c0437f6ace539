"""The one digest of a model: what caches of features, stores of units and evaluations know its weights by."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from voc2vec_jax.convert import names as convert_names


def digest(params: Mapping[str, Any], settings: tuple = (), *, shapes: bool = False) -> str:
    """SHA-256, in hexadecimal, of `settings` (through repr) and of the float32 arrays of `params` in order of name.

    `settings` are what the outputs depend on beside the weights. `shapes` includes the arrays' shapes; caches of
    features do, while units and evaluations leave them to the settings. Files on disk hold all three values.
    """
    # Digests on disk were made when the default attention was called "own".
    text = repr(settings).replace("attention='auto'", "attention='own'") if settings else ""
    found = hashlib.sha256(text.encode())
    for name, array in sorted(convert_names.flatten(params).items()):
        found.update((f"{name} {np.shape(array)}\n" if shapes else name).encode())
        found.update(np.ascontiguousarray(array, np.float32))
    return found.hexdigest()
