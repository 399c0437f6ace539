"""Parses fairseq's text for a convolutional stem, such as "[(512, 10, 5)] + [(512, 3, 2)] * 4", without eval."""

import ast
from collections.abc import Sequence

from voc2vec_jax import errors

MOST_LAYERS = 64
LARGEST = 65536  # of any number of channels, kernel or stride
_LONGEST_TEXT = 2000


def parse(text: str) -> list[tuple[int, ...]]:
    """(channels, kernel, stride) of each layer.

    Understands lists of such triples, `+` between lists and `* n` after a list. Raises InputError for anything else.
    """
    try:
        if len(text) > _LONGEST_TEXT:
            raise ValueError("too long")
        layers = _layers(ast.parse(text.strip(), mode="eval").body)
        if not layers:
            raise ValueError("no layer")
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError, AttributeError) as fault:
        raise errors.InputError(
            f"conv_feature_layers {str(text)[:80]!r} is not a sum of lists of (channels, kernel, stride)"
        ) from fault
    return layers


def _layers(node: ast.AST) -> list[tuple[int, ...]]:
    match node:
        case ast.List(elts=items) if len(items) <= MOST_LAYERS:
            layers = [_triple(item) for item in items]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            layers = _layers(left) + _layers(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))) if 0 < times <= MOST_LAYERS:
            layers = _layers(left) * times
        case _:
            raise ValueError(type(node).__name__)
    if len(layers) > MOST_LAYERS:
        raise ValueError("too many layers")
    return layers


def _triple(node: ast.AST) -> tuple[int, ...]:
    if not isinstance(node, (ast.Tuple, ast.List)) or len(node.elts) != 3:
        raise ValueError("not a triple")
    values = [getattr(item, "value", None) for item in node.elts]
    if not all(type(value) is int and 0 < value <= LARGEST for value in values):
        raise ValueError(values)
    return tuple(values)


def text(channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> str:
    """The inverse of `parse`, one list per layer."""
    return " + ".join(f"[({c}, {k}, {s})]" for c, k, s in zip(channels, kernels, strides))
