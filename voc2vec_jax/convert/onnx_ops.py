"""A small writer of ONNX graphs, and the layers that encoders and heads are built of.

A value is the name that it has in the graph. Operators are those of opset 17, so that old runtimes read the file.
b = rows, t = frames, d = channels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 17, 8


class Graph:
    """Nodes and constants in the order in which they were made."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._small: dict[tuple, str] = {}

    def __call__(self, op: str, *inputs: Any, **attributes: Any) -> str:
        """The one output of an operator; numbers and arrays among its inputs become constants, None an absent input."""
        names = [x if isinstance(x, str) else "" if x is None else self.constant(x) for x in inputs]
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], name=output, **attributes))
        return output

    def constant(self, value: Any) -> str:
        """A stored array: floats as float32, whole numbers as int64, truth values as they are; equal ones once."""
        array = np.asarray(value)
        kinds = {"f": np.float32, "i": np.int64, "b": np.bool_}
        array = np.ascontiguousarray(array, kinds[array.dtype.kind]).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 16 else None
        if key in self._small:
            return self._small[key]
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        if key is not None:
            self._small[key] = name
        return name

    def size(self, x: str, axis: int) -> str:
        """The length of an axis, as an array of one number."""
        return self("Gather", self("Shape", x), [axis])

    def floats(self, x: str) -> str:
        return self("Cast", x, to=onnx.TensorProto.FLOAT)

    def sum(self, x: str, axis: int) -> str:
        """The sum over an axis, which stays with length 1."""
        return self("ReduceSum", x, [axis], keepdims=1)

    def count_up(self, length: str) -> str:
        """0, 1 ... up to a length, which is an array of one number."""
        return self("Range", 0, self("Squeeze", length, [0]), 1)

    def first(self, count: str, length: str) -> str:
        """[b, length]: true on the first count[b] places of each row."""
        return self("Less", self.count_up(length), self("Unsqueeze", count, [1]))


def gelu(g: Graph, x: str) -> str:
    """x Phi(x)."""
    return g("Mul", g("Mul", x, 0.5), g("Add", g("Erf", g("Mul", x, float(np.sqrt(0.5)))), 1.0))


def linear(g: Graph, p: Mapping[str, Any], x: str) -> str:
    """Over the last axis; a projection to keys may lack the bias."""
    x = g("MatMul", x, p["kernel"])
    return g("Add", x, p["bias"]) if "bias" in p else x


def layer_norm(g: Graph, p: Mapping[str, Any] | None, x: str, eps: float, width: int) -> str:
    """Over the last axis of `width` channels; without parameters a plain one."""
    scale, bias = (p["scale"], p["bias"]) if p else (np.ones(width, np.float32), np.zeros(width, np.float32))
    return g("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps)


def conv(g: Graph, p: Mapping[str, Any], x: str, **attributes: Any) -> str:
    """Over [b, d, t]; our kernels are [taps, channels in, channels out]."""
    weight = np.ascontiguousarray(np.transpose(p["kernel"], (2, 1, 0)))
    bias = (p["bias"],) if "bias" in p else ()
    return g("Conv", x, weight, *bias, **attributes)


def transposed(g: Graph, x: str) -> str:
    """[b, t, d] and [b, d, t], one from the other."""
    return g("Transpose", x, perm=[0, 2, 1])


def centred(g: Graph, x: str, valid: str, count: str, axis: int) -> tuple[str, str]:
    """x without its mean over the valid places of an axis, zero elsewhere, and its variance there.

    `valid` holds ones and zeros, `count` how many ones, at least one.
    """
    mean = g("Div", g.sum(g("Mul", x, valid), axis), count)
    x = g("Mul", g("Sub", x, mean), valid)
    return x, g("Div", g.sum(g("Mul", x, x), axis), count)


def masked_mean(g: Graph, x: str, valid: str) -> str:
    """[b, t, d] over the frames of `valid` [b, t]; zero for a row without any."""
    weight = g("Unsqueeze", g.floats(valid), [2])
    total = g("ReduceSum", g("Where", g("Unsqueeze", valid, [2]), x, 0.0), [1], keepdims=0)
    return g("Div", total, g("Max", g("ReduceSum", weight, [1], keepdims=0), 1.0))


def masked_softmax(g: Graph, scores: str, valid: str) -> str:
    """Over the last axis, where `valid`; finite for a row without any."""
    return g("Softmax", g("Where", valid, scores, -1e30), axis=-1)
