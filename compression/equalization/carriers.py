"""Where a tensor can be divided by a scale for each channel at no cost: in constants of what makes it.

Followed upwards from the tensor. Every tensor on the way must be read by what leads to it alone. A scale passes
through what is positively homogeneous, f(s x) = s f(x) for s > 0 (Nagel et al. 2019, equation 4), channel by
channel; it ends in a layer, a normalization, or a product with a constant.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from compression.equalization.parts import (
    Doubles,
    Left,
    Part,
    constant,
    is_default,
    shape_of,
    vector,
    weight_of,
)

Axis = Literal["second", "last"]
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "PRelu", "Identity", "Dropout"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A tensor with its channels: how many and along which axis."""

    value: ir.Value
    readers: Set[ir.Node]
    """Those that lead to it: no one else may read it."""
    inputs: int
    axis: Axis
    flattened: bool = False
    """`inputs` counts several neighbours of each channel."""

    def of(self, value: ir.Value | None, reader: ir.Node) -> "Asked":
        if value is None:
            raise Left(f"{reader.name} has no input")
        return Asked(
            value=value, readers={reader}, inputs=self.inputs, axis=self.axis, flattened=self.flattened
        )

    def holds(self, channels: int) -> bool:
        return self.inputs % channels == 0 if self.flattened else self.inputs == channels


def lowered(asked: Asked) -> tuple[Part, ...]:
    """The constants that divide the tensor.

    Raises:
        Left: there are none, with the reason.
    """
    value, node = asked.value, asked.value.producer()
    if value.is_graph_output():
        raise Left("it is an output of the model")
    for use in value.uses():
        if use.node not in asked.readers:
            raise Left(f"{use.node.op_type} {use.node.name} reads it too")
    if node is None:
        raise Left("it is an input of the model")
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None or node.graph is not next(iter(asked.readers)).graph:
        raise Left(f"{node.op_type} {node.name} in between passes no scale on")
    return rule(node, asked)


def _through(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    if asked.value is not node.outputs[0]:
        raise Left(f"{node.op_type} {node.name} in between passes no scale on")
    return lowered(asked.of(node.inputs[0], node))


def _pool(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    if asked.axis != "second":
        raise Left(f"{node.op_type} {node.name} mixes what a scale would tell apart")
    return _through(node, asked)


def _flatten(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    if asked.axis != "last" or asked.flattened or node.attributes.get_int("axis", 1) != 1:
        raise Left(f"{node.op_type} {node.name} in between passes no scale on")
    inner = Asked(value=_given(node, 0), readers={node}, inputs=asked.inputs, axis="second", flattened=True)
    return lowered(inner)


def _conv(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    shape = weight_of(node)
    _require(asked, shape[0], "second", node)
    weight = Part(node=node, place=1, view=(shape[0], -1), spread=(shape[0], 1), measured=True)
    return (weight, *_bias(node, 2, shape[0]))


def _product(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    shape = weight_of(node)
    if len(shape) != 2:
        raise Left(f"the weight of {node.name} is no matrix")
    rows_out = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    channels = shape[0] if rows_out else shape[1]
    _require(asked, channels, asked.axis if node.op_type == "Gemm" else "last", node)
    spread = (channels, 1) if rows_out else (1, channels)
    weight = Part(node=node, place=1, view=shape, spread=spread, measured=True)
    return (weight, *_bias(node, 2, channels))


def _batch_norm(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    scale, variance = constant(node, 1), constant(node, 4)
    if scale is None or variance is None or node.attributes.get_int("training_mode", 0) == 1:
        raise Left(f"{node.op_type} {node.name} has no constant scale and variance")
    _require(asked, scale.size, "second", node)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    factor = _rows_before(node, scale.size) / np.sqrt(variance.numpy().astype(np.float64) + epsilon)
    gamma = vector(node, 1, scale.size, measured=True, factor=factor)
    return (gamma, vector(node, 2, scale.size))


def _rows_before(node: ir.Node, channels: int) -> Doubles:
    """max|w| by output channel of the convolution that a BatchNormalization alone reads; ones where none is."""
    given = node.inputs[0]
    before = None if given is None or len(list(given.uses())) > 1 else given.producer()
    tensor = constant(before, 1) if before is not None and is_default(before, "Conv") else None
    if tensor is None:
        return np.ones(channels)
    rows: Doubles = np.abs(tensor.numpy().astype(np.float64)).reshape(channels, -1).max(axis=1)
    return rows


def _norm(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    axis = node.attributes.get_int("axis", -1)
    scale = constant(node, 1)
    if scale is None or asked.value is not node.outputs[0] or len(shape_of(scale)) != 1:
        raise Left(f"{node.op_type} {node.name} has no constant vector to scale by")
    rank = None if asked.value.shape is None else len(asked.value.shape)
    if axis != -1 and axis + 1 != rank:
        raise Left(f"{node.op_type} {node.name} runs over several axes")
    _require(asked, scale.size, "last", node)
    return (vector(node, 1, scale.size, measured=True), *_bias(node, 2, scale.size))


def _instance_norm(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    scale = constant(node, 1)
    if scale is None:
        raise Left(f"{node.op_type} {node.name} has no constant scale")
    _require(asked, scale.size, "second", node)
    return (vector(node, 1, scale.size, measured=True), vector(node, 2, scale.size))


def _mul(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    """A constant takes the scale; of two tensors either one does."""
    place = _constant_place(node)
    if place is not None:
        if _size(node, place) == 1:
            return lowered(asked.of(node.inputs[1 - place], node))
        return (_aligned(node, place, asked, measured=True),)
    _require_two(node)
    try:
        return lowered(asked.of(node.inputs[0], node))
    except Left:
        return lowered(asked.of(node.inputs[1], node))


def _add(node: ir.Node, asked: Asked) -> tuple[Part, ...]:
    """Both sides take the scale."""
    place = _constant_place(node)
    if place is not None:
        return (_aligned(node, place, asked), *lowered(asked.of(node.inputs[1 - place], node)))
    _require_two(node)
    return tuple(part for value in node.inputs for part in lowered(asked.of(value, node)))


def _aligned(node: ir.Node, place: int, asked: Asked, *, measured: bool = False) -> Part:
    """A constant whose only axis of several entries lies along the channels."""
    tensor = constant(node, place)
    if tensor is None:
        raise Left(f"{node.op_type} {node.name} takes no float32 constant")
    shape = shape_of(tensor)
    from_end = 1 if asked.axis == "last" else _rank(asked.value) - 1
    if from_end > len(shape) or shape[-from_end] != tensor.size:
        raise Left(f"the constant of {node.op_type} {node.name} is no vector along the channels")
    _require(asked, tensor.size, asked.axis, node)
    return vector(node, place, tensor.size, measured=measured)


def _rank(value: ir.Value) -> int:
    if value.shape is None:
        raise Left(f"the shape of {value.name} is not known")
    return len(value.shape)


def _constant_place(node: ir.Node) -> int | None:
    return next((place for place in (0, 1) if constant(node, place) is not None), None)


def _size(node: ir.Node, place: int) -> int:
    tensor = constant(node, place)
    return 0 if tensor is None else tensor.size


def _require_two(node: ir.Node) -> None:
    if node.inputs[0] is node.inputs[1]:
        raise Left(f"{node.op_type} {node.name} takes the same tensor twice")


def _require(asked: Asked, channels: int, axis: Axis, node: ir.Node) -> None:
    if asked.axis != axis or not asked.holds(channels):
        raise Left(f"{node.op_type} {node.name} gives {channels} channels, which are not those read")


def _given(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    if value is None:
        raise Left(f"{node.op_type} {node.name} has no input {place}")
    return value


def _bias(node: ir.Node, place: int, channels: int) -> tuple[Part, ...]:
    missing = len(node.inputs) <= place or node.inputs[place] is None
    if missing:
        return ()
    tensor = constant(node, place)
    if tensor is not None and shape_of(tensor)[-1:] != (channels,):
        raise Left(f"the bias of {node.name} is no vector along its channels")
    return (vector(node, place, channels),)


_RULES: Mapping[str, Callable[[ir.Node, Asked], tuple[Part, ...]]] = {
    **dict.fromkeys(_HOMOGENEOUS, _through),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), _norm),
    "Flatten": _flatten,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "Mul": _mul,
    "Add": _add,
}
