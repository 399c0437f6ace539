"""Which parameters of a model a fold trains, and how fast: frozen parts, adapters, layer-wise rates.

Frozen parameters are no part of a fold's state. All folds share one copy, and have neither moments nor gradients of it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Key

from voc2vec_jax import errors
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader
from voc2vec_jax.models import lora as adapters

FREEZE = ("none", "stem", "encoder")
STEM = "encoder/conv_stem/"  # what transformers' freeze_feature_encoder freezes
UNTRAINED = ("encoder/positions",)  # Whisper's sinusoids, which transformers never trains; no optimizer may decay them
HELD = ("encoder", "lora")  # what stands still in the first `freeze_updates`: everything but the head
_ADAPTERS = 3_000_017  # folded into the key of the adapters, so that they differ from the other parameters


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What is trained of a model; by default everything, at one rate."""

    frozen: tuple[str, ...] = ()  # paths of parameters, such as encoder/conv_stem/conv_0/kernel
    lora: adapters.Config = adapters.Config()  # rank 0: none
    layer_decay: float | int = 1.0  # a block's rate, as a multiple of the rate of the block above it

    def trained(self, params: Mapping[str, Any], key: Key[Array, ""]) -> dict[str, Any]:
        """The trained ones of a whole model's parameters, with new adapters."""
        kept = without(params, self.frozen)
        if self.lora.rank:
            kept["lora"] = adapters.init(self.lora, jax.random.fold_in(key, _ADAPTERS), params["encoder"])
        return kept

    def whole(self, params: Mapping[str, Any], frozen: Mapping[str, Any]) -> Mapping[str, Any]:
        """A whole model's parameters from the trained and the frozen ones, adapters merged; on the host or a device."""
        if not self.frozen and not self.lora.rank:
            return params
        own = {name: value for name, value in params.items() if name != "lora"}
        both = convert_names.unflatten(convert_names.flatten(frozen) | convert_names.flatten(own))
        if self.lora.rank:
            both["encoder"] = adapters.merged(self.lora, both["encoder"], params["lora"])
        return both

    def rates(self, params: Mapping[str, Any], *, norm_first: bool) -> Any:
        """A factor of the learning rate for each trained parameter; None: 1 for all.

        Layers are numbered as in ELECTRA and BEiT: what is ahead of the blocks is layer 0, block k of n is layer k, and
        the head, with a final norm behind the blocks, is layer n + 1. Layer k has the factor layer_decay^(n + 1 - k).
        """
        if self.layer_decay == 1:
            return None
        flat = convert_names.flatten(params)
        stacked = [x.shape[0] for path, x in flat.items() if _is_stacked(path)]
        count = stacked[0] if stacked else 0

        def factor(path: str, x: Any) -> Any:
            if path.startswith("head/") or (norm_first and path.startswith("encoder/norm/")):
                return jnp.float32(1)
            if not _is_stacked(path):
                return jnp.float32(self.layer_decay ** (count + 1))
            each = self.layer_decay ** np.arange(count, 0, -1.0)
            return jnp.asarray(each, jnp.float32).reshape(-1, *[1] * (x.ndim - 1))

        return convert_names.unflatten({path: factor(path, x) for path, x in flat.items()})


def _is_stacked(path: str) -> bool:
    """Whether a parameter holds those of all blocks along its first axis."""
    return path.startswith(("encoder/layers/", "lora/"))


def without(params: Mapping[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """The parameters that are not at `paths`."""
    left = {path: x for path, x in convert_names.flatten(params).items() if path not in set(paths)}
    return convert_names.unflatten(left)


def only(params: Mapping[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """The parameters at `paths`."""
    flat = convert_names.flatten(params)
    return convert_names.unflatten({path: flat[path] for path in paths})


def of_config(config: ml_collections.ConfigDict, source: reader.ModelWeights) -> Adaptation:
    """The adaptation that a configuration asks for; InputError when the source has nothing to freeze."""
    own = [path for path in convert_names.flatten(source.params) if path.startswith("encoder/")]
    low = adapters.Config(config.lora_rank, float(config.lora_alpha), targets(config))
    frozen = own if low.rank or config.freeze == "encoder" else []
    if config.freeze == "stem" and not frozen:
        frozen = [path for path in own if path.startswith(STEM)]
        if not frozen:
            raise errors.InputError(f"a {source.family} model has no convolutional stem: set --config.freeze=none")
    # Nothing is kept from the source where all weights are random
    frozen += [path for path in UNTRAINED if path in own and path not in frozen and not config.fresh]
    return Adaptation(tuple(sorted(frozen)), low, config.layer_decay)


def targets(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The layers that get adapters, in the order of `adapters.TARGETS`; InputError for a name that is none."""
    named = [name.strip() for name in config.lora_targets.split(",")]
    for name in named:
        if name not in adapters.TARGETS:
            raise errors.InputError(
                f"--config.lora_targets={config.lora_targets}: {name!r} is none of {', '.join(adapters.TARGETS)}"
            )
    return tuple(name for name in adapters.TARGETS if name in named)


def asked(config: ml_collections.ConfigDict) -> list[str]:
    """The fields by which a configuration changes how a whole model is trained."""
    plain = {"freeze": "none", "freeze_updates": 0, "layer_decay": 1, "lora_rank": 0, "pooling": "mean"}
    return [name for name, value in plain.items() if config[name] != value]


def check(config: ml_collections.ConfigDict) -> None:
    """InputError for fields that contradict one another."""
    targets(config)
    if config.lora_rank and config.freeze == "encoder":
        raise errors.InputError(
            f"--config.freeze=encoder trains the head alone, and --config.lora_rank={config.lora_rank} adapts the "
            "encoder too: drop one"
        )
    if config.fresh and (config.freeze != "none" or config.lora_rank):
        asked = f"lora_rank={config.lora_rank}" if config.lora_rank else f"freeze={config.freeze}"
        raise errors.InputError(
            f"--config.fresh=true trains random weights, and --config.{asked} would keep them: drop one"
        )
