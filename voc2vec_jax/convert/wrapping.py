"""What programs put before the names of a model's tensors: `module.`, `_orig_mod.`, an attribute's name."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import weight_files

# torch.compile, FSDP and activation checkpointing put these anywhere in a name
_TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_KNOWN = ("module", "model")  # DataParallel, and what most programs call their model
_FIRST, _LONGEST = 3, 60  # tensors that a message names, and characters of each


@dataclasses.dataclass(frozen=True)
class Bare:
    """Tensors by the names that a model of one layout gives them."""

    tensors: Mapping[str, Any]
    spelt: Mapping[str, str]  # the bare name -> the file's
    wrapper: str  # what was before the names, and inside of them
    outside: tuple[str, ...]  # the file's names without it: tensors of something else


def some(names: Collection[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _FIRST} more" if len(names) > _FIRST else ""
    first = itertools.islice(names, _FIRST)
    return f"{', '.join(printable.name(name, _LONGEST) for name in first)}{more}"


def attribute(name: str) -> str:
    """The first part of a tensor's name that is not a known wrapper."""
    return next((part for part in name.split(".") if part not in (*_KNOWN, *_TRANSPARENT)), "")


def bare(tensors: Mapping[str, Any], first: str, inner: Collection[str], any_attribute: bool, origin: str) -> Bare:
    """The tensors without what wraps the model.

    `first` is the layout's name of a tensor that every model of it has, which tells where the model lies; the
    prefixes `inner` belong to the layout and stay. With `any_attribute` a wrapper may have any name, as in Lightning,
    where it is an attribute of the user's. InputError for an unknown wrapper, for several models, and for two tensors
    of one name.
    """
    spelt: dict[str, str] = {}
    for name in tensors:
        if spelt.setdefault(_opaque(name), name) != name:
            name = printable.name(name)
            raise errors.InputError(f"{origin} has the tensor {name} under two spellings of its name; keep one")
    ends = [name.removesuffix(first) for name in spelt if name == first or name.endswith(f".{first}")]
    wrappers = {_without(end, inner, spelt) for end in ends if weight_files.TEACHER not in end.split(".")}
    if not wrappers or "" in wrappers:
        inside = next((f"{part}." for part in _TRANSPARENT if any(part in name.split(".") for name in tensors)), "")
        return Bare({name: tensors[own] for name, own in spelt.items()}, spelt, inside, ())
    if len(wrappers) > 1:
        found = " and ".join(printable.value(wrapper, _LONGEST) for wrapper in sorted(wrappers)[:2])
        raise errors.InputError(f"{origin} holds {len(wrappers)} models, under {found}; keep the tensors of one")
    wrapper = wrappers.pop()
    within = {name: own for name, own in spelt.items() if name.startswith(wrapper)}
    unknown = any(part not in _KNOWN for part in wrapper.rstrip(".").split("."))
    if unknown and not any_attribute:
        prefix = printable.value(wrapper, _LONGEST)
        known = ", ".join(f"{part}." for part in (*_KNOWN, *_TRANSPARENT))
        raise errors.InputError(
            f"{origin}: its model lies under the prefix {prefix} ({some(within.values())}), which is none of "
            f"{known}; write its tensors again without it"
        )
    return Bare(
        {name.removeprefix(wrapper): tensors[own] for name, own in within.items()},
        {name.removeprefix(wrapper): own for name, own in within.items()},
        wrapper,
        tuple(own for name, own in spelt.items() if name not in within),
    )


def _opaque(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _TRANSPARENT)


def _without(end: str, inner: Collection[str], names: Collection[str]) -> str:
    """What lies before the layout's own prefix, which is not one where a head lies behind it."""
    own = next((prefix for prefix in inner if f".{end}".endswith(f".{prefix}")), "")
    return end if f"{end}classifier.weight" in names else end.removesuffix(own)
