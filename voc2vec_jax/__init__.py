"""Self-supervised models for the human voice beyond words, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voc2vec_jax.inference.pretrained import Model, Output, Prediction, from_pretrained

__all__ = ["Model", "Output", "Prediction", "from_pretrained"]


def __getattr__(name: str) -> Any:
    """A public name on its first use: reading processes import this package without JAX."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("voc2vec_jax.inference.pretrained"), name)
