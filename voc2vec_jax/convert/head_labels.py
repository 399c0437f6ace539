"""The names of a classifier's outputs, from transformers' config.json."""

import collections
from collections.abc import Mapping
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.runs import logs

LONGEST = 1000  # characters of a label


def read(raw: Mapping[str, Any], classes: int, origin: str) -> tuple[str, ...]:
    """The labels of a classifier's outputs, in order; LABEL_0 and so on where the source names none.

    Keys of id2label that count from another number than 0 keep their order, and a warning says so. InputError for
    names that do not belong to the outputs one by one.
    """
    if not classes:
        raise errors.InputError(f"{origin}: the classifier has no outputs; take the model without it, or another")
    named = raw.get("id2label") or {str(i): f"LABEL_{i}" for i in range(classes)}
    if not isinstance(named, dict) or len(named) != classes:
        count = len(named) if isinstance(named, (dict, list)) else 0
        raise errors.InputError(f"{origin} names {count} labels, but the classifier has {classes} outputs")
    numbered = {_number(key, origin): value for key, value in named.items()}
    first = min(numbered)
    if first < 0 or sorted(numbered) != list(range(first, first + classes)):
        found = ", ".join(printable.value(number, 30) for number in sorted(numbered)[:4])
        raise errors.InputError(
            f"{origin}: the keys of id2label are {found}, but the classifier's outputs are 0 to {classes - 1}; "
            "number the labels like the outputs"
        )
    if first:
        logs.warn(f"{origin}: id2label counts from {first}; its labels are taken for the outputs from 0 on, in order")
    values = [numbered[first + i] for i in range(classes)]
    for value in values:
        if not isinstance(value, str | int | float) or isinstance(value, bool) or not 0 < len(str(value)) <= LONGEST:
            raise errors.InputError(f"{origin}: id2label holds {printable.value(value)} where a label is needed")
    labels = tuple(str(value) for value in values)
    (label, times), *_ = collections.Counter(labels).most_common(1)
    if times > 1:
        label = printable.value(label)
        raise errors.InputError(f"{origin}: id2label gives {label} to several outputs; give each its own label")
    _check_inverse(raw.get("label2id"), labels, first, origin)
    return labels


def own(found: Any, origin: str) -> tuple[str, ...]:
    """The labels in our own config.json. InputError for what is no list of texts."""
    found = [] if found is None else found
    if not isinstance(found, list):
        raise errors.InputError(f"{origin}: labels is {printable.value(found)} where a list is needed")
    for label in found:
        if not isinstance(label, str) or not 0 < len(label) <= LONGEST:
            raise errors.InputError(f"{origin}: labels holds {printable.value(label)} where a label is needed")
    return tuple(found)


def _number(key: str, origin: str) -> int:
    try:
        return int(key)
    except ValueError:
        raise errors.InputError(
            f"{origin}: id2label has the key {key[:40]!r} where the number of an output is needed"
        ) from None


def _check_inverse(inverse: Any, labels: tuple[str, ...], first: int, origin: str) -> None:
    """Warn of a label2id that says otherwise."""
    for number, label in enumerate(labels, first):
        other = inverse.get(label, number) if isinstance(inverse, Mapping) else number
        if other != number and other != str(number):
            label, other = printable.value(label), printable.value(other)
            logs.warn(f"{origin}: output {number} is {label} by id2label, which is taken, and {other} by label2id")
            return
