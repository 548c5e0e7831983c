"""Whether a layer's bias can take up what a chain changes in the mean of its outputs, and adding it."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.graph import Layer
from compression.quantization.recovery.shifting import cannot_shift, shift
from compression.quantization.regions import constant_of
from compression.quantization.storage import Names


def takes_bias(layer: Layer) -> bool:
    """Whether a vector can be added to its output at no cost."""
    node = layer.node
    tensor = constant_of(node.inputs[1])
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or cannot_shift(node) is not None:
        return False
    if node.op_type == "MatMul":
        return True
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    scaled = any(
        attribute is not None and attribute.as_float() != 1.0
        for attribute in (node.attributes.get(name) for name in ("alpha", "beta"))
    )
    return not scaled and (bias is None or constant_of(bias) is not None)


def add_to_bias(layer: Layer, amount: NDArray[np.float64], names: Names) -> None:
    """Add (output channels,) to what a layer gives, in place."""
    shift(layer.node, amount, names)
