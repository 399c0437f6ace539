"""emotion2vec+ as FunASR publishes it: `model.pt` beside `config.yaml` and, with a classifier, `tokens.txt`."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from voc2vec_jax import errors, opening, printable

WEIGHTS, CONFIG, TOKENS = "model.pt", "config.yaml", "tokens.txt"
PREFIX = "d2v_model."  # of the encoder beside a classifier
CLASSIFIER = ("proj.weight", "proj.bias")
_MOST_BYTES = 100_000  # the published ones have 4,000
# What the library raises for damage, and for values that are none of the types that they are tagged with
_YAML_FAULTS = (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
_UNUSED = "unuse"  # how the names of outputs begin that FunASR leaves out


class _Loader(yaml.SafeLoader):
    """Plain values only, without references, and with 1e-05 as a number, as omegaconf has it."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("a reference, which no such file needs")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def holds(names: Collection[str]) -> bool:
    """Whether tensors of these names are an emotion2vec's."""
    return any(f".{name}".find(".modality_encoders.AUDIO.") >= 0 for name in names)


def model_config(folder: Path) -> dict[str, Any]:
    """The configuration of the model, as data2vec 2.0 names it. Raises InputError."""
    path = folder / CONFIG
    if not path.is_file():
        raise errors.InputError(f"{folder} holds an emotion2vec without its {CONFIG}; put FunASR's own beside it")
    try:
        with opening.regular(path) as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise errors.InputError(f"{path} has more than {_MOST_BYTES} bytes, so it is no configuration of a model")
        values = yaml.load(text.decode("utf-8-sig"), _Loader)
    except errors.InputError:
        raise
    except (OSError, *_YAML_FAULTS) as fault:
        why = printable.name(" ".join(str(fault).split()), 150)
        raise errors.InputError(f"{path} is not readable YAML: {why}") from fault
    model = values.get("model_conf") if isinstance(values, dict) and values.get("model") == "Emotion2vec" else None
    if not isinstance(model, dict):
        raise errors.InputError(
            f"{path} describes no model of the kind Emotion2vec, the only one of FunASR's read here"
        )
    if not isinstance(model.get("normalize"), bool):
        raise errors.InputError(
            f"{path}: normalize is {printable.value(model.get('normalize'))} where true or false is needed"
        )
    return {"_name": "data2vec_multi", **model}


def labels(folder: Path) -> tuple[str, ...] | None:
    """The names of a classifier's outputs, one a line; None without them. Raises InputError."""
    path = folder / TOKENS
    if not path.is_file():
        return None
    try:
        return tuple(opening.read_text(path, "utf-8-sig").split("\n") if path.stat().st_size <= _MOST_BYTES else ())
    except (OSError, ValueError) as fault:
        raise errors.InputError(f"{path} is not readable text: {fault}") from fault


def head(
    tensors: Mapping[str, Any], width: int, names: tuple[str, ...], origin: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A classification head of ours that computes FunASR's, and its labels.

    FunASR's is one linear layer on the mean of the frames, `width` wide, so our projector is the identity. Outputs
    that FunASR leaves out of its softmax are left out. InputError for other shapes or another number of labels.
    """
    weight, bias = (tensors[name] for name in CLASSIFIER)
    count = bias.shape[0] if bias.shape else 0
    if not count or tuple(weight.shape) != (count, width) or {weight.dtype.kind, bias.dtype.kind} - set("fV"):
        raise errors.InputError(
            f"{origin}: proj has the shapes {tuple(weight.shape)} and {tuple(bias.shape)} of {weight.dtype}, where a "
            f"classifier of frames of width {width} is needed"
        )
    names = tuple(name.strip() for name in names)
    names = names[:-1] if names and not names[-1] else names
    if len(names) != count or len(set(names)) < count:
        raise errors.InputError(
            f"{origin}: {TOKENS} names {len(set(names))} labels, but the classifier has {count} outputs"
        )
    kept = [at for at, name in enumerate(names) if not name.startswith(_UNUSED)]
    if not kept:
        raise errors.InputError(f"{origin}: {TOKENS} names no output that is used")
    kernel, offset = (np.asarray(tensor.read()[kept], np.float32) for tensor in (weight, bias))
    params = {
        "projector": {"kernel": np.eye(width, dtype=np.float32), "bias": np.zeros(width, np.float32)},
        "classifier": {"kernel": np.ascontiguousarray(kernel.T), "bias": offset},
    }
    return params, tuple(names[at] for at in kept)
