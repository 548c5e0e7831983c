"""Quantization and dequantization, through which gradients pass straight.

Rounding has the gradient of the identity (the straight-through estimator of Bengio et al. 2013) and values
outside the range have none. A scale that requires a gradient gets, from QuantizeLinear and DequantizeLinear
together, that of learned step sizes: round(x/s) - x/s inside the range and its bound outside (Esser et al.
2020, equation 3; the factor of section 2.2 is left to the one who trains). Quantized values are integers
unless a gradient has to pass, then floats that hold them.
"""

import onnx_ir as ir
import torch
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.trainable.elements import computed_dtype
from compression.graph.trainable.node import Node, Table, axis_of

LIMITS: dict[ir.DataType, tuple[int, int]] = {
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT2: (0, 3),
    ir.DataType.INT2: (-2, 1),
}
TYPES: dict[torch.dtype, ir.DataType] = {
    torch.uint8: ir.DataType.UINT8,
    torch.int8: ir.DataType.INT8,
    torch.int32: ir.DataType.UINT16,
    torch.int16: ir.DataType.INT16,
}
"""What a zero point's type says where `output_dtype` does not; the view holds uint16 as int32."""
SMALL_FLOATS: dict[ir.DataType, torch.dtype] = {
    ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    ir.DataType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    ir.DataType.FLOAT8E5M2: torch.float8_e5m2,
    ir.DataType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
}

LAST_ROUNDED_DOWN = 464.0
"""Halfway from the largest e4m3fn to what would follow; torch saturates beyond it, ONNX does not."""


def quantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """saturate(round(x / scale) + zero); by blocks, per axis or per tensor, as the scale's shape says."""
    y = x.to(torch.promote_types(x.dtype, scale.dtype)) / spread(node, scale, x)
    return requantized(node, y, None if zero is None else spread(node, zero, x), y.dtype)


def requantized(node: Node, y: Tensor, zero: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Values in units of the scale, rounded half to even, moved by the zero point, and kept in range.

    Args:
        node: its `output_dtype` is the quantized type; else the zero point's is, else uint8.
        y: of any float type.
        zero: as it is added to y.
        dtype: the float type of the result where a gradient has to pass.
    """
    kind = _kind(node, zero)
    if kind in SMALL_FLOATS:
        return _small_float(y, SMALL_FLOATS[kind], saturate=bool(node.attributes.get("saturate", 1)))
    if kind not in LIMITS:
        raise NotTrainable(f"quantization to {kind.name} is not known")
    y = straight(y, torch.round(y))
    y = torch.clamp(y if zero is None else y + zero.to(y.dtype), *LIMITS[kind])
    return y.to(dtype) if y.requires_grad else y.to(computed_dtype(kind))


def straight(x: Tensor, replaced: Tensor) -> Tensor:
    """The replacement, with the gradient of x."""
    return x + (replaced - x).detach() if x.requires_grad else replaced


def _kind(node: Node, zero: Tensor | None) -> ir.DataType:
    given = node.attributes.get("output_dtype", 0)
    if given:
        return ir.DataType(given)
    return ir.DataType.UINT8 if zero is None else TYPES.get(zero.dtype, ir.DataType.UNDEFINED)


def _small_float(y: Tensor, dtype: torch.dtype, *, saturate: bool) -> Tensor:
    """Rounded to an 8-bit float; without saturation, what is too large becomes infinite or no number."""
    limit = torch.finfo(dtype).max
    if saturate:
        y = torch.clamp(y, -limit, limit)
    rounded = y.detach().to(dtype).to(y.dtype)
    if dtype is torch.float8_e4m3fn and not saturate:
        rounded = torch.where(y.abs() > LAST_ROUNDED_DOWN, torch.nan, rounded)
    return straight(y, rounded)


def spread(node: Node, setting: Tensor, x: Tensor) -> Tensor:
    """A scale or zero point in a shape that fits x, its axis or its blocks."""
    if setting.numel() == 1 and setting.ndim <= 1:
        return setting.reshape(())
    axis = axis_of(node.attributes.get("axis", 1), x.ndim)
    block = node.attributes.get("block_size", 0)
    if block:
        return setting.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return setting.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def dequantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero) * scale."""
    y = x if x.is_floating_point() else x.to(scale.dtype)
    y = y if zero is None else y - spread(node, zero, x).to(y.dtype)
    y = y * spread(node, scale, x)
    given = node.attributes.get("output_dtype", 0)
    return y.to(computed_dtype(given)) if given else y


def dynamic_quantize_linear(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To uint8 with the range of the data, which always holds 0. The range counts as constant to gradients."""
    data = x.detach()
    low, high = torch.clamp(data.amin(), max=0), torch.clamp(data.amax(), min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, 1, scale)
    zero = torch.round(torch.clamp(-low / scale, 0, 255)).to(torch.uint8)
    return requantized(node, x / scale, zero, x.dtype), scale, zero


QUANTIZING: Table = {
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "com.microsoft::QuantizeLinear": quantize_linear,
    "com.microsoft::DequantizeLinear": dequantize_linear,
}
