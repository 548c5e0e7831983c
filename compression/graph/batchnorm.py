"""Folds BatchNormalization into the convolution or matrix product before it.

With s = scale / sqrt(variance + epsilon), s * (W x + b - mean) + bias is (s W) x + (s (b - mean) + bias)
(Jacob et al., arXiv:1712.05877, section 3.2).
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from compression.graph.constants import stored_tensor
from compression.graph.operators import DEFAULT_DOMAINS

EXACT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})
"""In half precision the product s * W would be rounded once more, so it is left alone."""
INTO = frozenset({"Conv", "ConvTranspose", "Gemm"})


def fold_batch_norms(model: ir.Model, fresh: Callable[[str], str]) -> None:
    """Folds wherever nothing else reads the layer's output or weights, in place.

    Args:
        model: what to change.
        fresh: makes value names that nothing bears yet.
    """
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "BatchNormalization" and node.domain in DEFAULT_DOMAINS:
                fold_batch_norm(node, fresh)


def fold_batch_norm(norm: ir.Node, fresh: Callable[[str], str]) -> bool:
    """Folds one, in place; False where that would change what somebody else sees."""
    layer = _layer_before(norm)
    if layer is not None:
        _fold(layer, norm, fresh)
    return layer is not None


def _layer_before(norm: ir.Node) -> ir.Node | None:
    """The node to fold into; None where that would change what somebody else sees."""
    value = norm.inputs[0]
    layer = value.producer() if value is not None else None
    if value is None or layer is None or layer.op_type not in INTO or layer.domain not in DEFAULT_DOMAINS:
        return None
    if layer.graph is not norm.graph or len(value.uses()) != 1 or value.is_graph_output():
        return None
    if any(out.uses() or out.is_graph_output() for out in norm.outputs[1:]) or _integer(
        norm, "training_mode"
    ):
        return None
    weight = layer.inputs[1]
    known = [*norm.inputs[1:5], weight, *([_bias(layer)] if _bias(layer) is not None else [])]
    tensors = [stored_tensor(item) for item in known]
    if any(tensor is None or tensor.dtype not in EXACT_TYPES for tensor in tensors):
        return None
    if weight is None or len(weight.uses()) != 1 or weight.is_graph_output():
        return None
    return layer if _fits(layer, norm) else None


def _bias(layer: ir.Node) -> ir.Value | None:
    return layer.inputs[2] if len(layer.inputs) > 2 else None


def _fits(layer: ir.Node, norm: ir.Node) -> bool:
    """Whether all sizes are as they should be, and the factors finite."""
    channels = _array(norm.inputs[1]).size
    weight = _array(layer.inputs[1])
    axis, groups = _channels(layer)
    bias = _bias(layer)
    if weight.ndim < 2 or weight.shape[axis] * groups != channels:
        return False
    if any(_array(value).shape != (channels,) for value in norm.inputs[1:5]):
        return False
    if bias is not None and _array(bias).size not in (1, channels):
        return False
    factor, shift = _factor(norm)
    return bool(np.isfinite(factor).all() and np.isfinite(shift).all())


def _fold(layer: ir.Node, norm: ir.Node, fresh: Callable[[str], str]) -> None:
    factor, shift = _factor(norm)
    weight = _array(layer.inputs[1])
    axis, groups = _channels(layer)
    bias = _bias(layer)
    beta = _number(layer, "beta", 1.0) if layer.op_type == "Gemm" else 1.0
    old = _array(bias).astype(np.float64).reshape(-1) * beta if bias is not None else 0.0
    _replace(layer, 1, _scaled(weight, factor, axis, groups), fresh)
    _replace(layer, 2, (old * factor + shift).astype(weight.dtype), fresh)
    if "beta" in layer.attributes:
        layer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    _hand_over(norm.outputs[0], layer.outputs[0])
    if norm.graph is not None:
        norm.graph.remove(norm, safe=True)


def _scaled(weight: np.ndarray, factor: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """The weight with every output channel times its factor. Groups lie along the first axis.

    A pruned zero stays 0 where the factor is negative.
    """
    if groups == 1:
        wide = factor.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
        scaled: np.ndarray = weight.astype(np.float64) * wide
        return scaled.astype(weight.dtype) + 0
    split = weight.reshape(groups, -1, *weight.shape[1:]).astype(np.float64)
    wide = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    scaled = split * wide
    return scaled.reshape(weight.shape).astype(weight.dtype) + 0


def _channels(layer: ir.Node) -> tuple[int, int]:
    """The weight's axis of output channels, and over how many groups they are spread beside it."""
    if layer.op_type == "Conv":
        return 0, 1
    if layer.op_type == "ConvTranspose":
        return 1, max(_integer(layer, "group", 1), 1)
    return (0 if _integer(layer, "transB") else 1), 1


def _factor(norm: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    scale, bias, mean, variance = (_array(value).astype(np.float64) for value in norm.inputs[1:5])
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + _number(norm, "epsilon", 1e-5))
        return factor, bias - mean * factor


def _replace(layer: ir.Node, index: int, array: np.ndarray, fresh: Callable[[str], str]) -> None:
    """A stored tensor of the layer's own; a bias that others read stays for them."""
    old = layer.inputs[index] if index < len(layer.inputs) else None
    if old is not None and len(old.uses()) == 1 and not old.is_graph_output() and old.producer() is None:
        old.const_value = ir.tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    if not isinstance(layer.graph, ir.Graph):
        raise ValueError(f"{layer.name} stands in no graph")
    tensor = ir.tensor(array, name=fresh(f"{layer.name}.{'weight' if index == 1 else 'bias'}"))
    value = ir.Value(
        name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    layer.graph.register_initializer(value)
    if len(layer.inputs) <= index:
        layer.resize_inputs(index + 1)
    layer.replace_input_with(index, value)


def _hand_over(old: ir.Value, new: ir.Value) -> None:
    """Lets `new` stand wherever `old` stood, under its name and with its declared shape."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.type, new.shape = old.type or new.type, old.shape if old.shape is not None else new.shape
    name, old.name = old.name, None
    new.name = name


def _array(value: ir.Value | None) -> np.ndarray:
    tensor = stored_tensor(value)
    if tensor is None:
        raise ValueError("no stored tensor")
    return tensor.numpy()


def _integer(node: ir.Node, name: str, default: int = 0) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()
