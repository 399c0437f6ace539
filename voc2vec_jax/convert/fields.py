"""The fields of foreign configurations: how they are read and checked."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import conv_spec

_LARGEST_RATIO = 1000  # of widths
_LONGEST_TEXT = 200  # of three numbers


@dataclasses.dataclass(frozen=True)
class Raw:
    """A foreign configuration. Its values are checked when they are read."""

    values: Mapping[str, Any]
    origin: str

    def take(self, key: str, kind: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            return default
        try:
            return _CHECKS[kind](value)
        except (TypeError, ValueError, OverflowError) as fault:
            raise errors.InputError(
                f"{self.origin}: {key} is {printable.value(value)} where a {kind} is needed"
            ) from fault

    def demand(self, key: str, *allowed: Any, remedy: str = "") -> Any:
        """The value, by default the first of `allowed`. Raises InputError for one that is not in `allowed`."""
        value = self.values.get(key, allowed[0])
        if value not in allowed:
            choices = " or ".join(repr(choice) for choice in allowed)
            remedy = f": {remedy}" if remedy else ""
            value = printable.value(value)
            raise errors.InputError(f"{self.origin}: {key} is {value}, but only {choices} is supported{remedy}")
        return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 < value <= conv_spec.LARGEST:
        raise ValueError(value)
    return value


def _count(value: Any) -> int:
    return 0 if value == 0 and type(value) is int else _whole(value)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError("no number")
    if not math.isfinite(value):
        raise ValueError("not finite")
    return float(value)


def _ratio(value: Any) -> float:
    ratio = _number(value)
    if not 0 < ratio <= _LARGEST_RATIO:
        raise ValueError("no ratio")
    return ratio


def _small(value: Any) -> float:
    if not 0 < _number(value) < 1:
        raise ValueError("not above 0 and below 1")
    return float(value)


def _object(value: Any) -> dict:
    if not isinstance(value, dict):
        raise TypeError("no object")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(value)
    return value


def _wholes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= conv_spec.MOST_LAYERS:
        raise ValueError(value)
    return tuple(_whole(item) for item in value)


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):  # older checkpoints hold a tuple as text
        value = [float(part) for part in value[:_LONGEST_TEXT].strip("()[] ").split(",")]
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("not three numbers")
    return tuple(_number(item) for item in value)


def _stem(value: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(zip(*conv_spec.parse(value)))


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "positive whole number": _whole,
    "whole number": _count,
    "number": _number,
    f"ratio of at most {_LARGEST_RATIO}": _ratio,
    "number above 0 and below 1": _small,
    "boolean": _flag,
    "JSON object": _object,
    "list of positive whole numbers": _wholes,
    "list of three numbers": _numbers,
    "sum of lists of (channels, kernel, stride)": _stem,
}
WHOLE, COUNT, NUMBER, RATIO, SMALL, FLAG, OBJECT, WHOLES, THREE_NUMBERS, STEM = _CHECKS


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a Config and its names in other layouts; None: absent there, so our default applies."""

    ours: str
    fairseq: str | None
    hf: str | None
    kind: str
    hf_default: Any = None  # transformers' default where it differs from ours


def taken(fields: tuple[Field, ...], layout: str, raw: Raw, defaults: Any) -> dict[str, Any]:
    """The values of `fields` by our names, from a configuration in `layout` ("fairseq" or "hf")."""
    taken = {}
    for field in fields:
        name = getattr(field, layout)
        default = getattr(defaults, field.ours)
        if layout == "hf" and field.hf_default is not None:
            default = field.hf_default
        taken[field.ours] = default if name is None else raw.take(name, field.kind, default)
    return taken
