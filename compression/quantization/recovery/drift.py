"""Takes back what rounding a weight adds to the mean of a layer's output, from the means of its inputs.

E[y] - E[y_q] = (W - W_q) E[x], summed over the kernel's positions (Nagel et al. 2019, arXiv:1906.04721, equation 18).
Padding is left out of account. It is known as soon as the weight is rounded, so that whatever is tried next is judged
without it.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.graph.responses import uniform_response
from compression.quantization.recovery.means import Means
from compression.quantization.recovery.shifting import bias_of, cannot_shift, shift
from compression.quantization.regions import constant_of
from compression.quantization.storage import Names, as_numpy


def drift(node: ir.Node, error: NDArray[np.floating], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the output's mean falls short, of shape (output channels,).

    Args:
        node: Conv, Gemm or MatMul.
        error: W - W_q in the weight's shape.
        mean: of the inputs, of shape (input channels,).
    """
    wide = np.asarray(error, np.float64)
    if node.op_type == "Conv":
        return uniform_response(wide, node.attributes.get_int("group", 1), mean)
    rows = wide if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1 else wide.T
    return np.asarray(rows @ mean)


def input_channels(node: ir.Node) -> int | None:
    """How many input channels a Conv, Gemm or MatMul with a constant weight of two axes or more takes."""
    tensor = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if tensor is None:
        return None
    shape = [int(size) for size in tensor.shape.numpy()]
    if node.op_type == "Conv":
        return shape[1] * node.attributes.get_int("group", 1)
    if node.op_type not in ("Gemm", "MatMul") or len(shape) != 2 or node.attributes.get_int("transA", 0) == 1:
        return None
    return shape[1] if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1 else shape[0]


class Settling:
    """Keeps one layer's bias right while its weight is rounded in one way after the other."""

    def __init__(self, node: ir.Node, mean: NDArray[np.float64], names: Names) -> None:
        self._node, self._mean, self._names = node, mean, names
        self._own: tuple[ir.Value, NDArray[np.float64]] | None = None
        """The bias, which no other layer reads, and what it was."""

    def follow(self, error: NDArray[np.floating]) -> None:
        """The weight is now W - error."""
        amount = drift(self._node, error, self._mean)
        if self._own is None:
            shift(self._node, np.zeros_like(amount), self._names)
            value = bias_of(self._node)
            self._own = value, as_numpy(_stored(value)).astype(np.float64)
        value, before = self._own
        value.const_value = ir.tensor((before + amount).astype(np.float32), name=value.name)


def settling(node: ir.Node, means: Means, names: Names) -> Settling | None:
    """For a layer of float32 whose inputs' means are known and whose bias can be changed; else None.

    A layer without bias gets none, since adding it takes time, but before a normalization, with which the runtime
    makes one of both.
    """
    mean = means.get(node.name or "")
    if mean is None or not isinstance(node.graph, ir.Graph) or input_channels(node) != mean.size:
        return None
    weight = constant_of(node.inputs[1])
    if weight is None or weight.dtype != ir.DataType.FLOAT or cannot_shift(node):
        return None
    return Settling(node, mean, names) if _adds(node) or _is_normalised(node) else None


def _adds(node: ir.Node) -> bool:
    """Whether the layer has a bias, in itself or in the Add that a product needs."""
    return node.op_type == "MatMul" or (len(node.inputs) > 2 and node.inputs[2] is not None)


def _is_normalised(node: ir.Node) -> bool:
    users = list(node.outputs[0].uses())
    return len(users) == 1 and users[0].node.op_type == "BatchNormalization"


def _stored(value: ir.Value) -> ir.TensorProtocol:
    tensor = constant_of(value)
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    return tensor
