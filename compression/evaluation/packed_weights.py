"""Weights that an operator unpacks by itself: MatMulNBits, whose codes share bytes."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compression.quantization.narrow.packing import unpack

if TYPE_CHECKING:
    import onnx_ir as ir

WIDTHS = (2, 4, 8)


def packed_counts(node: "ir.Node") -> tuple[int, int] | None:
    """How many weights a MatMulNBits multiplies by, and how many of them are zero: codes at their block's zero point.

    As onnxruntime's ContribOperators.md says: B is (N, blocks, block_size * bits / 8), zero points are packed row by
    row or of the activations' type, and 2^(bits - 1) where there are none. None for another node, and where its weights
    are no constants.
    """
    if node.op_type != "MatMulNBits":
        return None
    inner, outer, size = (node.attributes.get_int(name, 0) for name in ("K", "N", "block_size"))
    bits = node.attributes.get_int("bits", 4)
    stored = _constant(node, 1)
    if stored is None or bits not in WIDTHS or not inner or not outer or not size:
        return None
    blocks = -(-inner // size)
    codes = unpack((stored.reshape(-1),), bits, outer * blocks * size).reshape(outer, blocks, size)
    zero_points = _zero_points(node, outer, blocks, bits)
    if zero_points is None:
        return None
    zeros = (codes == zero_points[:, :, None]).reshape(outer, -1)[:, :inner]
    return outer * inner, int(np.count_nonzero(zeros))


def _zero_points(node: "ir.Node", outer: int, blocks: int, bits: int) -> NDArray[np.floating] | None:
    """(N, blocks), or None where they are no constants."""
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return np.full((outer, blocks), 2.0 ** (bits - 1))
    stored = _constant(node, 3)
    if stored is None:
        return None
    if stored.dtype != np.uint8:
        return stored.reshape(outer, blocks).astype(np.float64)
    rows = stored.reshape(outer, -1)
    each = rows.shape[1] * 8 // bits
    return unpack((rows.reshape(-1),), bits, outer * each).reshape(outer, each)[:, :blocks].astype(np.float64)


def _constant(node: "ir.Node", place: int) -> NDArray[Any] | None:
    value = node.inputs[place] if place < len(node.inputs) else None
    return None if value is None or value.const_value is None else np.asarray(value.const_value.numpy())
