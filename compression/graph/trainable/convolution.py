"""Convolutions: plain, transposed, on integers, with state, and as onnxruntime fuses them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.trainable.deformable import deform_conv
from compression.graph.trainable.gates import activation
from compression.graph.trainable.node import Node, Table
from compression.graph.trainable.quantizing import requantized
from compression.graph.trainable.windows import padded, pads_of, window_of

CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def conv(node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    window = window_of(node, x.shape[2:], w.shape[2:])
    symmetric = window.begin == window.end
    padding = window.begin if symmetric else (0,) * len(window.begin)
    x = x if symmetric else padded(x, window.begin, window.end)
    group = node.attributes.get("group", 1)
    return _for_rank(CONVOLVE, x)(x, w, bias, window.strides, padding, window.dilations, group)


def _for_rank(functions: dict[int, Callable[..., Tensor]], x: Tensor) -> Callable[..., Tensor]:
    if x.ndim - 2 not in functions:
        raise NotTrainable(f"a convolution over {x.ndim - 2} axes is not known")
    return functions[x.ndim - 2]


def conv_transpose(node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Computed without pads and then cut, unless torch can pad as asked."""
    axes = x.ndim - 2
    strides = tuple(node.attributes.get("strides") or (1,) * axes)
    dilations = tuple(node.attributes.get("dilations") or (1,) * axes)
    begin, missing = _transposed_pads(node, x, w, strides, dilations)
    options: dict[str, Any] = {"stride": strides, "dilation": dilations}
    options["groups"] = node.attributes.get("group", 1)
    convolve = _for_rank(TRANSPOSED, x)
    extra = tuple(first + second for first, second in zip(begin, missing, strict=True))
    if all(0 <= extra[axis] < max(strides[axis], dilations[axis]) for axis in range(axes)):
        return convolve(x, w, bias, padding=begin, output_padding=extra, **options)
    y = padded(convolve(x, w, **options), [-pad for pad in begin], missing)
    return y if bias is None else y + bias.reshape(-1, *[1] * axes)


def _transposed_pads(
    node: Node, x: Tensor, w: Tensor, strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is cut off in front of the unpadded result, and what is added behind it (cut off if negative)."""
    axes = range(x.ndim - 2)
    sizes = [(x.shape[i + 2] - 1) * strides[i] + (w.shape[i + 2] - 1) * dilations[i] + 1 for i in axes]
    added = tuple(node.attributes.get("output_padding") or (0 for _ in axes))
    wanted = tuple(node.attributes.get("output_shape") or ())[-len(sizes) :]
    if not wanted and node.attributes.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(x.shape[i + 2] * strides[i] for i in axes)
    if not wanted:
        begin, end = pads_of(node, len(sizes), ())
        return begin, tuple(added[i] - end[i] for i in axes)
    totals = [max(sizes[i] + added[i] - wanted[i], 0) for i in axes]
    upper = node.attributes.get("auto_pad", "NOTSET") == "SAME_UPPER"
    begin = tuple(total // 2 if upper else total - total // 2 for total in totals)
    return begin, tuple(wanted[i] - sizes[i] + begin[i] for i in axes)


def conv_integer(
    node: Node, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """Computed in float64, in which 8-bit products and their sums are exact.

    Operands that quantization with straight-through gradients holds as floats give a float result.
    """
    floating = [operand.dtype for operand in (x, w) if operand.is_floating_point()]
    y = conv(node, _centred(x, x_zero, 0), _centred(w, w_zero, w.ndim - 1))
    return y.to(floating[0] if floating else torch.int32)


def _centred(x: Tensor, zero: Tensor | None, trailing: int) -> Tensor:
    """x less its zero point, which belongs to all of x or to its first axis."""
    if zero is None:
        return x.double()
    return x.double() - (zero.double().reshape(-1, *[1] * trailing) if zero.ndim else zero.double())


def qlinear_conv(
    node: Node,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Scales of w may be one per output channel; the bias is in units of x_scale * w_scale."""
    y = conv_integer(node, x, w, x_zero, w_zero).double()
    y = y if bias is None else y + bias.reshape(-1, *[1] * (y.ndim - 2))
    factor = x_scale * w_scale / y_scale
    return requantized(node, y * factor.reshape(-1, *[1] * (y.ndim - 2)), y_zero, y_scale.dtype)


def fused_conv(
    node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    """onnxruntime's activation(conv(x) + z)."""
    y = conv(node, x, w, bias)
    y = y if z is None else y + z
    name = node.attributes.get("activation", "")
    return activation(name, *node.attributes.get("activation_params", ()))(y) if name else y


def causal_conv_with_state(
    node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A depthwise convolution over what was and what is; the last k - 1 entries are the new state."""
    kept = w.shape[-1] - 1
    x = F.pad(x, (kept, 0)) if past is None else torch.cat((past, x), -1)
    y = F.conv1d(x, w, bias, groups=w.shape[0])
    y = y if node.attributes.get("activation", "none") == "none" else F.silu(y)
    return y, x[..., x.shape[-1] - kept :]


CONVOLUTIONS: Table = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "ConvInteger": conv_integer,
    "QLinearConv": qlinear_conv,
    "CausalConvWithState": causal_conv_with_state,
    "DeformConv": deform_conv,
    "com.microsoft::FusedConv": fused_conv,
}
