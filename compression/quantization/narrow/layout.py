"""How a stored weight is read as a matrix: a row for each output channel, columns for what is summed over."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.graph import Layer
from compression.quantization.rounding.blocks import Floats
from compression.quantization.storage import as_numpy, integer_attributes
from compression.quantization.weights import channel_axes, guess_axes
from compression.weight_targets import reduction_axis

_STRIP_ELEMENTS = 1 << 24
"""Elements rounded at once: 64 MB as float32."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The stored shape and which of its axes run over rows."""

    shape: tuple[int, ...]
    row_axes: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """The stored axes, those of rows first."""
        rest = tuple(axis for axis in range(len(self.shape)) if axis not in self.row_axes)
        return (*self.row_axes, *rest)

    @property
    def rows(self) -> int:
        return prod(self.shape[axis] for axis in self.row_axes)

    @property
    def width(self) -> int:
        return prod(self.shape) // max(self.rows, 1)

    def strips(self) -> tuple[slice, ...]:
        """Runs of rows, a multiple of eight but for the last, that are worth holding at once."""
        step = max(_STRIP_ELEMENTS // max(self.width, 1) // 8 * 8, 8)
        return tuple(slice(start, min(start + step, self.rows)) for start in range(0, self.rows, step))

    def strip(self, array: NDArray[Any], rows: slice) -> Floats:
        """Some rows of the matrix as float32, copied."""
        turned = array.transpose(self.order)
        part = turned[rows] if len(self.row_axes) == 1 else turned.reshape(self.rows, -1)[rows]
        return np.ascontiguousarray(part, np.float32).reshape(-1, self.width)


def layout_of(layer: Layer, value: ir.Value, tensor: ir.TensorProtocol) -> Layout:
    """Rows and columns of one of a layer's weights, by its operator; by the error where that has no rule."""
    shape = tuple(tensor.shape.numpy())
    return Layout(shape=shape, row_axes=_row_axes(layer, value, tensor, shape))


def _row_axes(
    layer: Layer, value: ir.Value, tensor: ir.TensorProtocol, shape: Sequence[int]
) -> tuple[int, ...]:
    index = next((place for place, given in enumerate(layer.node.inputs) if given is value), None)
    if index is not None:
        axes = channel_axes(layer.node.op_type, index, shape, integer_attributes(layer.node))
        return guess_axes(as_numpy(tensor)) if axes is None else axes
    summed = reduction_axis(layer, value)
    if summed is None or layer.node.op_type not in ("MatMul", "Gemm", "Gather"):
        return guess_axes(as_numpy(tensor))
    return tuple(axis for axis in range(len(shape)) if axis != summed)
