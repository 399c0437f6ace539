"""Self-supervised models for the human voice beyond words, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voc2vec_jax.inference.pretrained import Model, from_pretrained
    from voc2vec_jax.inference.results import Output, Prediction
    from voc2vec_jax.inference.stretches import windows
    from voc2vec_jax.reports.model_card import publish

__all__ = ["Model", "Output", "Prediction", "from_pretrained", "publish", "windows"]
_PLACES = {"publish": "reports.model_card", "windows": "inference.stretches"}
_PLACES |= dict.fromkeys(("Output", "Prediction"), "inference.results")


def __getattr__(name: str) -> Any:
    """A public name on its first use: reading processes import this package without JAX."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"voc2vec_jax.{_PLACES.get(name, 'inference.pretrained')}"), name)
