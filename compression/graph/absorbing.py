"""Folds what scales and shifts channels into the convolution or matrix product behind which or before which it stands.

Behind a layer, f (W x + b) + s is (f W) x + (f b + s) (for BatchNormalization: Jacob et al., arXiv:1712.05877, section
3.2). Before a convolution, W (f x + s) + b is (W f) x + (W s + b), where no padding puts zeros beside s. Where it does,
f x + s is written as f (x + s / f), and f goes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from compression.graph.affine import AFFINE, EXACT_TYPES, Affine, Numbers, read_affine
from compression.graph.constants import stored_tensor
from compression.graph.gelu import ends_gelu
from compression.graph.operators import is_operator
from compression.graph.responses import uniform_response
from compression.graph.rewriting import hand_over, only_reader

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
INTO = CONVOLUTIONS | {"Gemm"}
Fresh = Callable[[str], str]
"""Makes value names that nothing bears yet."""


def absorb_affines(model: ir.Model, fresh: Fresh) -> None:
    """Folds wherever nobody else sees a difference, in place."""
    for graph in model.graphs():
        for node in list(graph):
            absorb_behind(node, fresh)
        for node in reversed(list(graph)):
            _absorb_before(node, fresh)


def absorb_behind(node: ir.Node, fresh: Fresh) -> bool:
    """Folds a BatchNormalization, or arithmetic with a constant, into the layer that it stands behind, in place.

    False where that would change what somebody else sees.
    """
    layer = _layer_before(node) if node.op_type in AFFINE else None
    affine = None if layer is None else read_affine(node, _rank(layer))
    if layer is None or affine is None or not affine.fits(_sides(layer).outputs.channels):
        return False
    old, side = _bias_numbers(layer), _sides(layer).outputs
    weight = _scaled(_array(layer.inputs[1]), affine.factor, side)
    if old.size not in (1, side.channels) or not np.isfinite(weight).all():
        return False
    _put_bias(layer, old * affine.factor + affine.shift, fresh)
    _put(layer, 1, weight, fresh)
    hand_over(affine.y, layer.outputs[0])
    _remove(node)
    return True


def _layer_before(node: ir.Node) -> ir.Node | None:
    """The layer whose output the node reads, if nothing else does."""
    for value in node.inputs[:2]:
        layer = None if value is None else value.producer()
        if value is not None and layer is not None and _is_open(layer) and layer.graph is node.graph:
            return None if len(value.uses()) != 1 or value.is_graph_output() else layer
    return None


def _absorb_before(node: ir.Node, fresh: Fresh) -> None:
    """Folds arithmetic into the convolutions that read its result, in place, or its factor alone."""
    if node.op_type not in AFFINE:
        return
    layers = _convolutions_behind(node)
    sum_ = None if layers else only_reader(node)
    if sum_ is not None:
        layers = _convolutions_behind(sum_)
    if not layers or ends_gelu(node):
        return
    rank = _rank(layers[0])
    affine = read_affine(node, rank)
    weights = () if affine is None else _scaled_inputs(layers, affine, rank)
    if affine is None or not weights:
        return
    if sum_ is None:
        _absorb_whole(affine, layers, weights, fresh)
    else:
        _absorb_factor(affine, read_affine(sum_, rank), layers, weights, fresh)


def _scaled_inputs(layers: Sequence[ir.Node], affine: Affine, rank: int) -> Sequence[np.ndarray]:
    """The layers' weights with the factor in them; none where one of them cannot bear it."""
    if not all(_rank(layer) == rank and affine.fits(_sides(layer).inputs.channels) for layer in layers):
        return ()
    scaled = [_scaled(_array(layer.inputs[1]), affine.factor, _sides(layer).inputs) for layer in layers]
    return scaled if all(np.isfinite(weight).all() for weight in scaled) else ()


def _absorb_whole(
    affine: Affine, layers: Sequence[ir.Node], weights: Sequence[np.ndarray], fresh: Fresh
) -> None:
    shifts = bool(affine.shift.any())
    if shifts and not all(_is_unpadded(layer) for layer in layers):
        return
    for layer, weight in zip(layers, weights, strict=True):
        if shifts:
            _put_bias(layer, _bias_numbers(layer) + _response(layer, affine.shift), fresh)
        _put(layer, 1, weight, fresh)
        layer.replace_input_with(0, affine.x)
    _remove(affine.node)


def _absorb_factor(
    product: Affine,
    sum_: Affine | None,
    layers: Sequence[ir.Node],
    weights: Sequence[np.ndarray],
    fresh: Fresh,
) -> None:
    """f x + s becomes x + s / f, and f goes into the layers."""
    if sum_ is None or sum_.node.op_type not in {"Add", "Sub"} or (sum_.factor != 1).any():
        return
    with np.errstate(all="ignore"):
        shift = sum_.shift / product.factor
    if product.shift.any() or not np.isfinite(shift).all():
        return
    place = 1 if sum_.node.inputs[0] is product.y else 0
    old = _array(sum_.node.inputs[place])
    signed = -shift if sum_.node.op_type == "Sub" else shift
    wide = signed.reshape(-1, *[1] * (_rank(layers[0]) - 2))
    _put(sum_.node, place, wide.astype(old.dtype), fresh)
    sum_.node.replace_input_with(1 - place, product.x)
    for layer, weight in zip(layers, weights, strict=True):
        _put(layer, 1, weight, fresh)
    _remove(product.node)


def _convolutions_behind(node: ir.Node) -> tuple[ir.Node, ...]:
    """Those that read the node's output, if nothing else does."""
    output = node.outputs[0]
    uses = list(output.uses())
    taken = all(
        use.idx == 0
        and use.node.op_type in CONVOLUTIONS
        and use.node.graph is node.graph
        and _is_open(use.node)
        for use in uses
    )
    return tuple(use.node for use in uses) if taken and not output.is_graph_output() else ()


class Side(NamedTuple):
    """Where a weight has its input or output channels: along an axis, spread over groups along the first axis."""

    channels: int
    axis: int
    groups: int = 1


class Sides(NamedTuple):
    inputs: Side
    outputs: Side


def _sides(layer: ir.Node) -> Sides:
    shape = _shape(layer.inputs[1])
    groups = max(layer.attributes.get_int("group", 1), 1)
    if layer.op_type == "Conv":
        return Sides(Side(shape[1] * groups, 1, groups), Side(shape[0], 0))
    if layer.op_type == "ConvTranspose":
        return Sides(Side(shape[0], 0), Side(shape[1] * groups, 1, groups))
    axis = 0 if layer.attributes.get_int("transB", 0) else 1
    return Sides(Side(shape[1 - axis], 1 - axis), Side(shape[axis], axis))


def _is_open(layer: ir.Node) -> bool:
    """Whether it is a layer whose weights are stored, its own, and of types that bear another factor."""
    if not is_operator(layer, *INTO) or len(layer.inputs) < 2:
        return False
    weight, bias = layer.inputs[1], _bias(layer)
    tensors = [stored_tensor(value) for value in (weight, *([] if bias is None else [bias]))]
    if weight is None or any(tensor is None or tensor.dtype not in EXACT_TYPES for tensor in tensors):
        return False
    return len(weight.uses()) == 1 and not weight.is_graph_output() and _rank(layer) > 1


def _is_unpadded(layer: ir.Node) -> bool:
    """Whether every output sums over a whole kernel."""
    pads = layer.attributes.get_ints("pads", ())
    kind = layer.attributes.get_string("auto_pad", "NOTSET")
    return layer.op_type == "Conv" and kind in {"NOTSET", "VALID"} and not any(pads)


def _response(layer: ir.Node, shift: Numbers) -> Numbers:
    """What a Conv gives, of shape (output channels,), where each input channel has one value everywhere."""
    side = _sides(layer).inputs
    values = np.broadcast_to(shift, (side.channels,))
    return uniform_response(_array(layer.inputs[1]), side.groups, values)


def _scaled(weight: np.ndarray, factor: Numbers, side: Side) -> np.ndarray:
    """The weight with every channel times its factor, infinite where that is too large for its type.

    A pruned zero stays 0 where the factor is negative.
    """
    wide = np.broadcast_to(factor, (side.channels,))
    split = weight.reshape(side.groups, -1, *weight.shape[1:]).astype(np.float64)
    shape = [side.groups, *(-1 if axis == side.axis else 1 for axis in range(weight.ndim))]
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: np.ndarray = (split * wide.reshape(shape)).reshape(weight.shape).astype(weight.dtype)
    return scaled + 0


def _bias(layer: ir.Node) -> ir.Value | None:
    return layer.inputs[2] if len(layer.inputs) > 2 else None


def _bias_numbers(layer: ir.Node) -> Numbers:
    """Of shape (channels,) or (1,), as they are added to the product."""
    bias = _bias(layer)
    beta = layer.attributes.get_float("beta", 1.0) if layer.op_type == "Gemm" else 1.0
    return np.zeros(1) if bias is None else _array(bias).astype(np.float64).reshape(-1) * beta


def _put_bias(layer: ir.Node, numbers: Numbers, fresh: Fresh) -> None:
    """Zeros need no bias where there was none."""
    if _bias(layer) is None and not numbers.any():
        return
    wide = np.broadcast_to(numbers, (_sides(layer).outputs.channels,))
    _put(layer, 2, wide.astype(_array(layer.inputs[1]).dtype), fresh)
    if "beta" in layer.attributes:
        layer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)


def _put(node: ir.Node, index: int, array: np.ndarray, fresh: Fresh) -> None:
    """A stored tensor of the node's own; one that others read stays for them."""
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and len(old.uses()) == 1 and not old.is_graph_output() and old.producer() is None:
        old.const_value = ir.tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    if not isinstance(node.graph, ir.Graph):
        raise ValueError(f"{node.name} stands in no graph")
    part = {1: "weight", 2: "bias"}[index] if node.op_type in INTO else "constant"
    tensor = ir.tensor(array, name=fresh(f"{node.name}.{part}"))
    value = ir.Value(
        name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    node.graph.register_initializer(value)
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _remove(node: ir.Node) -> None:
    if node.graph is not None:
        node.graph.remove(node, safe=True)


def _rank(layer: ir.Node) -> int:
    """Of the weight, and so of what the layer reads and gives."""
    return len(_shape(layer.inputs[1]))


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    return tuple(int(size) for size in _tensor(value).shape.numpy())


def _array(value: ir.Value | None) -> np.ndarray:
    return _tensor(value).numpy()


def _tensor(value: ir.Value | None) -> ir.TensorProtocol:
    tensor = stored_tensor(value)
    if tensor is None:
        raise ValueError("no stored tensor")
    return tensor
