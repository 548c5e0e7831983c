"""Reads nodes that give y = factor * x + shift, with constants of one number or of one for each channel."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.graph.constants import stored_tensor
from compression.graph.operators import is_operator

AFFINE = frozenset({"BatchNormalization", "Mul", "Div", "Add", "Sub"})
"""Operators that may compute such a thing."""
EXACT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})
"""In half precision a product of two constants would be rounded once more, so it is left alone."""
_ONE, _NONE = np.ones(1), np.zeros(1)
_CHANNELS = 1
"""The axis of channels."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Affine:
    """y = factor * x + shift; both of shape (channels,) or (1,), and finite."""

    node: ir.Node
    x: ir.Value
    factor: Numbers
    shift: Numbers

    @property
    def y(self) -> ir.Value:
        return self.node.outputs[0]

    def fits(self, channels: int) -> bool:
        return all(array.size in (1, channels) for array in (self.factor, self.shift))


def read_affine(node: ir.Node, rank: int) -> Affine | None:
    """What the node computes, if that is an affine function of each channel of a tensor of `rank` axes.

    BatchNormalization does outside of training; so do Mul, Div, Add and Sub with a constant.
    """
    if not is_operator(node, *AFFINE) or rank < 2:
        return None
    read = _read_norm if node.op_type == "BatchNormalization" else _read_arithmetic
    with np.errstate(all="ignore"):
        found = read(node, rank)
    if found is None or not (np.isfinite(found.factor).all() and np.isfinite(found.shift).all()):
        return None
    return found


def _read_norm(node: ir.Node, _rank: int) -> Affine | None:
    x, training = node.inputs[0], node.attributes.get_int("training_mode", 0)
    if training or x is None or any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return None
    known = [array for value in node.inputs[1:5] if (array := _numbers(value)) is not None]
    if len(known) != 4 or any(array.shape != known[0].shape or array.ndim != 1 for array in known):
        return None
    scale, bias, mean, variance = known
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return Affine(node=node, x=x, factor=factor, shift=bias - mean * factor)


def _read_arithmetic(node: ir.Node, rank: int) -> Affine | None:
    if len(node.inputs) != 2:
        return None
    x, constant = node.inputs[0], _along_channels(node.inputs[1], rank)
    flipped = constant is None
    if flipped:
        x, constant = node.inputs[1], _along_channels(node.inputs[0], rank)
    if x is None or constant is None or stored_tensor(x) is not None or (flipped and node.op_type == "Div"):
        return None
    factor, shift = _ONE, _NONE
    if node.op_type in {"Mul", "Div"}:
        factor = constant if node.op_type == "Mul" else 1 / constant
    elif node.op_type == "Add":
        shift = constant
    else:
        factor, shift = (-_ONE, constant) if flipped else (_ONE, -constant)
    return Affine(node=node, x=x, factor=factor, shift=shift)


def _along_channels(value: ir.Value | None, rank: int) -> Numbers | None:
    """A constant that widens no tensor of this rank, and differs from channel to channel at most."""
    array = _numbers(value)
    if array is None or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    plain = all(size == 1 for axis, size in enumerate(shape) if axis != _CHANNELS)
    return array.reshape(-1) if plain else None


def _numbers(value: ir.Value | None) -> Numbers | None:
    tensor = stored_tensor(value)
    return None if tensor is None or tensor.dtype not in EXACT_TYPES else tensor.numpy().astype(np.float64)
