"""What a layer multiplies by its weight, as rows: of matrices as they are, of convolutions patches drawn at random."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.quantization.regions import constant_of, constant_shape

Floats = NDArray[np.float32]
Wholes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RowShape:
    """A layer as a batch of matrix products: y[g] = rows[g] @ w[g].T, with `groups` g."""

    groups: int
    width: int
    """K: values in a row."""
    outputs: int
    """Output channels of a group."""

    @property
    def row_bytes(self) -> int:
        return 4 * self.groups * self.width


def row_shape(node: ir.Node) -> RowShape | str:
    """The shape; or why rows of this layer are not drawn."""
    value = node.inputs[1]
    shape = () if value is None else constant_shape(value)
    if value is None or constant_of(value) is None:
        return "its weight is no constant"
    if len(list(value.uses())) > 1:
        return "its weight is shared with another layer"
    if node.op_type != "Conv":
        outputs, width = shape if _transposed(node) else shape[::-1]
        return RowShape(groups=1, width=width, outputs=outputs)
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its padding depends on its input"
    groups = node.attributes.get_int("group", 1)
    return RowShape(groups=groups, width=int(np.prod(shape[1:])), outputs=shape[0] // groups)


def to_rows(node: ir.Node, weight: NDArray[Any]) -> NDArray[Any]:
    """The weight in the shape (groups, outputs, width)."""
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1)
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    return (weight if _transposed(node) else weight.T)[None]


def from_rows(node: ir.Node, rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The weight in its own shape again."""
    if node.op_type == "Conv" or _transposed(node):
        return np.ascontiguousarray(rows.reshape(shape))
    return np.ascontiguousarray(rows[0].T)


def positions(node: ir.Node, value: NDArray[Any], count: int, random: np.random.Generator) -> Wholes:
    """Where to draw rows from an input: flat positions, without repetition."""
    total = _windows(node, value).shape[0] if node.op_type != "Conv" else _places(node, value)
    return np.sort(random.permutation(total)[:count])


def draw(node: ir.Node, value: NDArray[Any], where: Wholes) -> Floats:
    """Rows of the shape (groups, len(where), width)."""
    if node.op_type != "Conv":
        return _windows(node, value)[where].astype(np.float32)[None]
    windows, spatial = _patches(node, value)
    index = np.unravel_index(where, (value.shape[0], *spatial))
    key: tuple[Any, ...] = (index[0], slice(None), *index[1:])
    found = windows[key]
    groups = node.attributes.get_int("group", 1)
    rows = found.reshape(len(where), groups, -1)
    return np.ascontiguousarray(rows.transpose(1, 0, 2), np.float32)


def _windows(node: ir.Node, value: NDArray[Any]) -> NDArray[Any]:
    return value.reshape(-1, value.shape[-1])


def _places(node: ir.Node, value: NDArray[Any]) -> int:
    return int(value.shape[0] * np.prod(_patches(node, value)[1]))


def _patches(node: ir.Node, value: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, ...]]:
    """A view of the shape (N, C, *output positions, *kernel), and the output positions."""
    weight = node.inputs[1]
    kernel = () if weight is None else constant_shape(weight)[2:]
    rank = len(kernel)
    strides, dilations = _numbers(node, "strides", rank, 1), _numbers(node, "dilations", rank, 1)
    pads = _numbers(node, "pads", 2 * rank, 0)
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(
        np.pad(value, around), reach, axis=tuple(range(2, 2 + rank))
    )
    steps: tuple[Any, ...] = tuple(slice(None, None, step) for step in (1, 1, *strides, *dilations))
    view = view[steps]
    return view, view.shape[2 : 2 + rank]


def _numbers(node: ir.Node, name: str, count: int, default: int) -> tuple[int, ...]:
    return tuple(int(item) for item in node.attributes.get_ints(name, [default] * count))


def _transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
